"""The kernels whose resources are limited: every body alone, and every strategy with a pair of bodies."""

from __future__ import annotations

from nitro.fused_kernels.bodies import Body
from nitro.fused_kernels.memory_bodies import MemoryBody
from nitro.fused_kernels.occupancy import LIMITS
from nitro.fused_kernels.strategies import (
    Alone,
    InterBlockStatic,
    InterBlockTicket,
    IntraBlock,
    IntraThread,
    Kernel,
    PairStrategy,
    Persistent,
    pair_kernel,
    single_kernel,
)
from nitro.fused_kernels.teams import lean, staged, teams
from nitro.fused_kernels.verify import bodies_for

ARCHITECTURES = (53, 62, 72, 87, 90)
STRATEGIES: tuple[PairStrategy, ...] = (
    IntraBlock(128),
    IntraBlock(128, drain=True),
    InterBlockStatic(),
    InterBlockTicket(),
    InterBlockTicket(drain=True),
    IntraThread(),
)


def kernels(sm: int) -> list[Kernel]:
    """Return the kernels that an architecture can run."""
    compute, memory = bodies_for(sm)
    partner = MemoryBody("layer_norm", rows=8, exact=True)
    bodies: tuple[Body, ...] = (*compute, *memory)
    found = [single_kernel(body, Alone()) for body in bodies]
    found += [single_kernel(compute[0], Persistent()), single_kernel(partner, Persistent())]
    found += [pair_kernel(compute[0], partner, strategy) for strategy in STRATEGIES]
    if sm >= 80:
        kinds = [next(body for body in compute if body.operation == kind) for kind in ("gemm", "convolution_3x3")]
        kinds.append(next(body for body in compute if body.winograd))
        kinds += [next(body for body in compute if body.tensor), *(body for body in compute if body.wgmma)][:2]
        for team in (way for body in kinds for way in teams(body)):
            if team.registers is None or sm >= 90:
                norm = MemoryBody("layer_norm", exact=True)
                forms = [staged(norm, team.threads, team.memory_registers)]
                forms += lean(norm, team.threads)[:1] if team.memory_registers >= 80 else ()
                pairs = (pair_kernel(team.body, form, team.strategies[0]) for form in forms if form)
                found += [one for one in pairs if one.shared_bytes <= LIMITS[sm].shared_bytes_per_block]
    if sm in (72, 87):
        tensor = next(body for body in compute if body.tensor)
        found += [pair_kernel(tensor, partner, strategy) for strategy in (IntraBlock(128), InterBlockTicket())]
    return found
