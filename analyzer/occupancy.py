"""Theoretical occupancy of a kernel launch: how many of its blocks fit on one SM at once, and what limits them.

Rules of the CUDA occupancy calculator: registers are given out per warp in units of 256, to warps in groups of 4;
shared memory in units of 128 bytes (256 before compute capability 8.0), of which the system keeps 1 KiB per block from
8.0 on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .trace import Device

Int64 = npt.NDArray[np.int64]
WARP = 32
_REGISTER_UNIT = 256
_WARP_UNIT = 4
LIMITERS = ("warps", "blocks", "registers", "shared memory")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one SM has."""

    warps: int
    blocks: int
    registers: int
    shared_memory_bytes: int
    shared_memory_unit_bytes: int
    shared_memory_reserved_bytes: int


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Blocks per SM, occupancy (0 to 1) and index into `LIMITERS`, arrays of shape (n,); 0 blocks: it cannot run."""

    blocks_per_sm: Int64
    ratio: npt.NDArray[np.float64]
    limiter: Int64


def limits_of(device: Device) -> Limits | None:
    """Return the limits of a device, `None` where the export does not tell all of them."""
    facts = (device.max_warps_per_sm, device.max_blocks_per_sm, device.registers_per_sm)
    shared = device.shared_memory_per_sm_bytes
    if None in facts or shared is None or device.compute_capability is None:
        return None
    is_ampere_or_newer = int(device.compute_capability.partition(".")[0]) >= 8
    return Limits(
        warps=device.max_warps_per_sm or 0,
        blocks=device.max_blocks_per_sm or 0,
        registers=device.registers_per_sm or 0,
        shared_memory_bytes=shared,
        shared_memory_unit_bytes=128 if is_ampere_or_newer else 256,
        shared_memory_reserved_bytes=1024 if is_ampere_or_newer else 0,
    )


def occupancy(limits: Limits, threads: Int64, registers_per_thread: Int64, shared_memory_bytes: Int64) -> Occupancy:
    """Return the theoretical occupancy of launches.

    Args:
        limits: what one SM has.
        threads: threads per block, at least 1.
        registers_per_thread: as the kernel table gives them; 0 counts as 1.
        shared_memory_bytes: static and dynamic, per block.
    """
    warps = -(-threads // WARP)
    per_warp = -(-np.maximum(registers_per_thread, 1) * WARP // _REGISTER_UNIT) * _REGISTER_UNIT
    by_registers = (limits.registers // per_warp) // _WARP_UNIT * _WARP_UNIT // warps
    unit = limits.shared_memory_unit_bytes
    per_block = -(-(shared_memory_bytes + limits.shared_memory_reserved_bytes) // unit) * unit
    by_shared_memory = np.where(per_block > 0, limits.shared_memory_bytes // np.maximum(per_block, 1), limits.blocks)
    choices = np.stack(
        np.broadcast_arrays(limits.warps // warps, np.int64(limits.blocks), by_registers, by_shared_memory)
    )
    limiter = np.argmin(choices, axis=0)
    blocks = np.min(choices, axis=0)
    return Occupancy(blocks, blocks * warps / limits.warps, limiter)
