"""A way to run two problems, as data: bodies, strategy, order of submission, blocks per SM, division of the L1.

What it needs to compile is known before anything is measured, so that kernels can be compiled ahead. `ways` makes the
candidates, `pruning` leaves out what cannot run, and `workbench` runs the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from nitro.errors import UsageError

from .bodies import Body
from .strategies import (
    Alone,
    InterBlockTicket,
    IntraBlock,
    Kernel,
    PairStrategy,
    Persistent,
    pair_kernel,
    single_kernel,
    strategy_name,
)

Family = Literal[
    "first",
    "second",
    "sequential",
    "streams",
    "graph",
    "elastic",
    "intra_block",
    "inter_block_static",
    "inter_block_ticket",
    "intra_thread",
    "library",
    "library_same_layout",
    "library_elastic",
]
ALONE: tuple[Family, ...] = ("first", "second")
SIMPLE: tuple[Family, ...] = ("sequential", "streams", "graph")
FUSED: tuple[Family, ...] = ("intra_block", "inter_block_static", "inter_block_ticket", "intra_thread")
# A library that may read the arrays in any layout, one that reads them as our bodies do, and either beside an elastic
# memory body.
LIBRARY: tuple[Family, ...] = ("library", "library_same_layout", "library_elastic")
# What the tuner chooses from; a library is only compared with.
OURS: tuple[Family, ...] = (*SIMPLE, "elastic", *FUSED)
Submission = Literal["in turn", "at once", "first, second", "second, first", "second urgent"]
# Preferences for shared memory over L1 beside the driver's own choice. They need no compiling.
CARVEOUTS = (100,)


def families(names: Sequence[str]) -> tuple[Family, ...]:
    """Return the families that names stand for, all of them without a name; `library` stands for both of a library.

    Raises:
        UsageError: there is no such family.
    """
    known: tuple[Family, ...] = get_args(Family)
    choice = (*OURS, *LIBRARY[:1])
    for name in names:
        if name not in choice:
            raise UsageError(f"there is no strategy {name!r}; there are {', '.join(choice)}.")
    return tuple(family for family in known if not names or family in names or family.partition("_")[0] in names)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run two problems.

    Attributes:
        family: the kind of way; winners are chosen within a family, and families compared.
        bodies: for the first and the second problem. A library stands in the place of the first.
        strategy: of a fused family.
        submission: on one stream in turn, or on two: at once, which leaves the order to the GPU, or so that one half
            starts before the other.
        persistent: the half (0 or 1) that runs on a capped grid, of an elastic family or a body alone.
        blocks_per_sm: of the capped grid.
        carveout_percent: how much of the L1 should be shared memory; None leaves it to the driver.
        call: the call of the library.
    """

    family: Family
    bodies: tuple[Body | None, Body | None]
    strategy: PairStrategy | None = None
    submission: Submission = "in turn"
    persistent: int | None = None
    blocks_per_sm: int = 1
    carveout_percent: int | None = None
    call: str | None = None

    @property
    def name(self) -> str:
        """Return a text that tells the candidates of two problems apart, and stays the same from run to run."""
        how: list[str] = [self.family]
        if self.strategy is not None:
            how = [strategy_name(self.strategy)]
        if self.submission != "in turn" or self.family in ("library", "library_same_layout"):
            how.append(f"({self.submission})")
        if self.persistent is not None:
            how.append(f"{('first', 'second')[self.persistent]} x{self.blocks_per_sm}")
        elif self.is_capped:
            how.append(f"x{self.blocks_per_sm}")
        if self.carveout_percent is not None:
            how.append(f"carveout {self.carveout_percent}%")
        return f"{' '.join(how)}: {self.halves}"

    @property
    def halves(self) -> str:
        """Return the part of the name that says what does either problem, and not how they run together."""
        halves = [self.call, *(body.name for body in self.bodies if body is not None)]
        return " + ".join(half for half in halves if half)

    @property
    def is_capped(self) -> bool:
        """Return whether the blocks per SM are free to choose."""
        drains = isinstance(self.strategy, IntraBlock | InterBlockTicket) and self.strategy.drain
        return drains or self.persistent is not None

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Return the kernels that it launches, in the order of their problems.

        Raises:
            UsageError: the strategy cannot run these bodies.
        """
        first, second = self.bodies
        if self.strategy is not None:
            assert first is not None
            assert second is not None
            return (pair_kernel(first, second, self.strategy),)
        return tuple(
            single_kernel(body, Persistent() if self.persistent == role else Alone())
            for role, body in enumerate(self.bodies)
            if body is not None
        )

    @property
    def capped_kernel(self) -> Kernel | None:
        """Return the kernel whose blocks per SM are free to choose; None if there is none."""
        return next((kernel for kernel in self.kernels if kernel.capped_grid), None)


def carveout_twins(candidate: Candidate) -> tuple[Candidate, ...]:
    """Return a candidate with the other preferences for shared memory; elastic ones are in the space already."""
    if candidate.family in ("elastic", "library_elastic"):
        return ()
    return tuple(replace(candidate, carveout_percent=percent) for percent in CARVEOUTS)


def kernels_of(found: Iterable[Candidate]) -> list[Kernel]:
    """Return the kernels of candidates, each of them once."""
    return list({kernel.name: kernel for candidate in found for kernel in candidate.kernels}.values())
