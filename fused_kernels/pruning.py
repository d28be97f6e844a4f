"""What cannot run is left out without a GPU: candidates whose kernels do not fit an SM, or spill too many registers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from .candidates import Candidate
from .nvrtc import Resources
from .occupancy import LIMITS, occupancy
from .strategies import Kernel

# Spilling a handful of registers outside of the inner loop costs little and can buy a second block; more never paid.
MOST_SPILLED_BYTES = 160
_MOST_FUSED_BLOCKS = 6
_ELASTIC_BLOCKS = ((1, 2, 3, 4), (1, 2, 3, 4, 6))


@dataclass(frozen=True, slots=True)
class Dropped:
    """A candidate that is not measured, and why."""

    name: str
    reason: str


def fitted(
    found: Iterable[Candidate], resources: Mapping[str, Resources | str], sm: int, *, unknown_blocks: int = 2
) -> tuple[list[Candidate], list[Dropped]]:
    """Return the candidates that can run, capped grids with every number of blocks that fits, and those left out.

    A kernel is left out if not one block of it fits an SM, and if it is fused and spills more than
    `MOST_SPILLED_BYTES` (unfused ones stay, so that nothing is taken from the partner of the comparison). Where the
    compiler tells no resources, nothing is left out.

    Args:
        found: from `all_ways`.
        resources: by name of the kernel, or why it does not compile.
        sm: the architecture, as 90 for sm_90.
        unknown_blocks: how many blocks to try where the compiler tells no resources.
    """
    kept: list[Candidate] = []
    dropped: list[Dropped] = []
    for candidate in found:
        kernels = candidate.kernels
        reason = next(filter(None, (_misfit(kernel, resources, sm, candidate) for kernel in kernels)), None)
        if reason:
            dropped.append(Dropped(candidate.name, reason))
            continue
        capped = candidate.capped_kernel
        if capped is None:
            kept.append(candidate)
            continue
        fits = resident_blocks(capped, resources.get(capped.name), sm)
        tried = _blocks_to_try(candidate, unknown_blocks if fits is None else fits)
        kept += [replace(candidate, blocks_per_sm=blocks) for blocks in tried]
    return kept, dropped


def _blocks_to_try(candidate: Candidate, fits: int) -> list[int]:
    if candidate.persistent is None:
        return list(range(1, min(fits, _MOST_FUSED_BLOCKS) + 1))
    return [blocks for blocks in _ELASTIC_BLOCKS[candidate.persistent] if blocks <= fits]


def resident_blocks(kernel: Kernel, found: Resources | str | None, sm: int) -> int | None:
    """Return how many blocks of a kernel fit on an SM; None if the compiler told no registers, or of an unknown SM."""
    if not isinstance(found, Resources) or found.registers is None or sm not in LIMITS:
        return None
    return occupancy(
        sm,
        threads=kernel.threads,
        registers=found.registers,
        shared_bytes=kernel.shared_bytes + (found.static_shared_bytes or 0),
        barriers=found.barriers or 0,
    ).blocks


def _misfit(kernel: Kernel, resources: Mapping[str, Resources | str], sm: int, candidate: Candidate) -> str | None:
    found = resources.get(kernel.name)
    if isinstance(found, str):
        return found
    if resident_blocks(kernel, found, sm) == 0:
        return f"not one block of {kernel.name} fits an SM of sm_{sm}"
    spilled = (found.spill_store_bytes or 0) if found else 0
    if candidate.strategy is not None and spilled > MOST_SPILLED_BYTES:
        return f"{kernel.name} spills {spilled} bytes of registers"
    return None


def is_co_resident(found: Iterable[Candidate], resources: Mapping[str, Resources | str], sm: int) -> bool:
    """Tell whether a block of some fused kernel fits an SM without spilling registers, as `cases.is_accepted` asks."""
    for candidate in found:
        if candidate.strategy is None:
            continue
        kernel = candidate.kernels[0]
        told = resources.get(kernel.name)
        if isinstance(told, Resources) and not told.spill_store_bytes and resident_blocks(kernel, told, sm):
            return True
    return False
