"""How many blocks of a kernel fit on an SM together, from the limits that NVIDIA publishes for an architecture.

Sources: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability" (blocks, threads, registers,
shared memory), and the CUDA Occupancy Calculator of Nsight Compute (units of allocation). From sm_100 on: the traits of
architectures in NVIDIA's CCCL (libcudacxx/include/cuda/__device/arch_traits.h), which name sm_101 by its later number,
sm_110. A device says the same of a loaded kernel (`LoadedKernel.blocks_per_sm`); this is for those that are not there.
"""

from __future__ import annotations

from dataclasses import dataclass

from nitro.errors import UsageError

_WARP = 32
# Registers are given to warps in units of 256, and warps to schedulers in turn.
_REGISTER_UNIT = 256
_LARGEST_REGISTERS = 255
BARRIERS_PER_BLOCK = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """What an SM of an architecture has.

    `shared_bytes` is the largest share of the L1 that can be shared memory; `reserved_shared_bytes` of every block's
    part belong to the system. Registers are 65 536 an SM everywhere; what one block may have differs.
    """

    sm: int
    devices: str
    threads: int
    blocks: int
    shared_bytes: int
    shared_bytes_per_block: int
    reserved_shared_bytes: int
    shared_unit: int
    registers_per_block: int = 65536
    registers: int = 65536
    schedulers: int = 4

    @property
    def warps(self) -> int:
        """Return the resident warps an SM."""
        return self.threads // _WARP


_KB = 1024
LIMITS: dict[int, Limits] = {
    limits.sm: limits
    for limits in (
        Limits(53, "Jetson Nano, TX1", 2048, 32, 64 * _KB, 48 * _KB, 0, 256, registers_per_block=32768),
        Limits(62, "Jetson TX2", 2048, 32, 64 * _KB, 48 * _KB, 0, 256, registers_per_block=32768),
        Limits(72, "Jetson Xavier", 2048, 32, 96 * _KB, 96 * _KB, 0, 256),
        Limits(75, "Turing", 1024, 16, 64 * _KB, 64 * _KB, 0, 256),
        Limits(80, "A100", 2048, 32, 164 * _KB, 163 * _KB, _KB, 128),
        Limits(86, "GeForce RTX 30", 1536, 16, 100 * _KB, 99 * _KB, _KB, 128),
        Limits(87, "Jetson Orin", 1536, 16, 164 * _KB, 163 * _KB, _KB, 128),
        Limits(89, "GeForce RTX 40, L4", 1536, 24, 100 * _KB, 99 * _KB, _KB, 128),
        Limits(90, "H100, H200", 2048, 32, 228 * _KB, 227 * _KB, _KB, 128),
        Limits(100, "B200", 2048, 32, 228 * _KB, 227 * _KB, _KB, 128),
        Limits(101, "Jetson Thor (sm_110 from CUDA 13)", 1536, 24, 228 * _KB, 227 * _KB, _KB, 128),
        Limits(110, "Jetson Thor", 1536, 24, 228 * _KB, 227 * _KB, _KB, 128),
        Limits(120, "GeForce RTX 50", 1536, 24, 100 * _KB, 99 * _KB, _KB, 128),
    )
}


@dataclass(frozen=True, slots=True)
class Occupancy:
    """How many blocks are resident on an SM, and what keeps another one out."""

    blocks: int
    limited_by: tuple[str, ...]
    warps: int
    ratio: float


def limits_of(sm: int) -> Limits:
    """Return the limits of an architecture, given as 53 for sm_53.

    Raises:
        UsageError: it is not in the table.
    """
    if sm not in LIMITS:
        known = ", ".join(f"sm_{one}" for one in LIMITS)
        raise UsageError(f"sm_{sm}: no limits are known for this architecture; known are {known}.")
    return LIMITS[sm]


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def occupancy(sm: int, *, threads: int, registers: int, shared_bytes: int, barriers: int = 0) -> Occupancy:
    """Return how many blocks fit on an SM; 0 with the reason if not even one does.

    Args:
        sm: the architecture, as 53 for sm_53.
        threads: threads of a block.
        registers: registers of a thread.
        shared_bytes: shared memory of a block, static and dynamic.
        barriers: named barriers of a block, as ptxas counts them ("used N barriers").

    Raises:
        UsageError: the architecture is not known.
    """
    limits = limits_of(sm)
    warps = -(-threads // _WARP)
    fit: dict[str, int] = {
        "warps": limits.warps // warps if warps and threads <= 1024 else 0,
        "blocks": limits.blocks,
        "registers": _by_registers(limits, warps, registers),
        "shared memory": _by_shared(limits, shared_bytes),
    }
    if barriers > BARRIERS_PER_BLOCK:
        # NVIDIA publishes no number of barriers for an SM, only this one for a block.
        fit["barriers"] = 0
    blocks = min(fit.values())
    reasons = tuple(name for name, count in fit.items() if count == blocks)
    return Occupancy(blocks, reasons, blocks * warps, blocks * warps / limits.warps)


def _by_registers(limits: Limits, warps: int, registers: int) -> int:
    if registers > _LARGEST_REGISTERS:
        return 0
    if registers == 0:
        return limits.blocks
    each = _round_up(registers * _WARP, _REGISTER_UNIT)
    # A block's warps are counted as a multiple of the schedulers against the block's own limit.
    if each * _round_up(warps, limits.schedulers) > limits.registers_per_block:
        return 0
    per_scheduler = limits.registers // limits.schedulers // each
    return per_scheduler * limits.schedulers // warps


def _by_shared(limits: Limits, shared_bytes: int) -> int:
    if shared_bytes > limits.shared_bytes_per_block:
        return 0
    taken = _round_up(shared_bytes + limits.reserved_shared_bytes, limits.shared_unit)
    return limits.shared_bytes // taken if taken else limits.blocks
