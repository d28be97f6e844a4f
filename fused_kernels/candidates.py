"""Every way to run two independent problems that is worth a measurement: the space that the tuner searches.

A candidate is data: bodies, strategy, order of submission, blocks per SM, preference for shared memory. What it needs
to compile is known before anything is measured, so that kernels can be compiled ahead, and what cannot be resident or
spills too much is left out without a GPU.

"Do not fuse" (one after the other, in streams, as branches of a graph) and elastic streams are candidates like any
other, with every tile of the compute body: fusion is not compared with a partner that was left untuned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from nitro.errors import UsageError

from . import bodies
from .bodies import Body, ComputeBody, MemoryBody, check_architecture
from .nvrtc import Resources
from .occupancy import LIMITS, occupancy
from .problems import Problem
from .strategies import (
    Alone,
    InterBlockStatic,
    InterBlockTicket,
    IntraBlock,
    IntraThread,
    Kernel,
    PairStrategy,
    Persistent,
    pair_kernel,
    registers_at_start,
    single_kernel,
    strategy_name,
)
from .vendor import SAME_LAYOUT

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
# Spilling a handful of registers outside of the inner loop costs little and can buy a second block; more never paid.
MOST_SPILLED_BYTES = 160
# Registers of a thread beyond its sums, below which a compute body has been seen to spill; and a body of Winograd's.
_REGISTERS_BESIDE_SUMS = 40
_REGISTERS_BESIDE_WINOGRAD_SUMS = 60
_MEMORY_GROUPS = (128, 256, 384, 512)
_MOST_FUSED_BLOCKS = 6
_SLACK = 1.25
_MOST_TILES = {"float32": 4, "float16": 3}
_MOST_MEMORY_BODIES = 2
_COARSE_ROWS = (8, 32)
# What a staged memory body takes of the shared memory of a block, and the rows of its units. More on its way was not
# faster on an H200.
_STAGED_BYTES = 48 << 10
_STAGED_ROWS = 8
_MOST_SHARED_BYTES = max(limits.shared_bytes_per_block for limits in LIMITS.values())
# What a staged LayerNorm needs to work on two rows at once.
_REGISTERS_FOR_TWO_ROWS = 80
# More blocks an SM than are ever tried.
_MOST_CAPPED_BLOCKS = 8
_ELASTIC_BLOCKS = ((1, 2, 3, 4), (1, 2, 3, 4, 6))


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
        halves = [self.call, *(body.name for body in self.bodies if body is not None)]
        return f"{' '.join(how)}: {' + '.join(half for half in halves if half)}"

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


# ---- bodies -----------------------------------------------------------------------------------------------------


def plausible_bodies(problem: Problem, sm: int) -> tuple[Body, ...]:
    """Return the bodies that can solve a problem on an architecture, the usual choice first.

    Raises:
        UsageError: no body does this on the architecture.
    """
    return tuple(body for body in bodies.candidates(problem, sm) if _can_solve(body, problem, sm))


def _can_solve(body: Body, problem: Problem, sm: int) -> bool:
    try:
        check_architecture(body, sm)
        body.check(problem)
    except UsageError:
        return False
    return True


def shortlist(timed: Sequence[tuple[Body, float]]) -> tuple[Body, ...]:
    """Return the bodies that go on to be fused, of bodies with their times alone, the fastest first.

    Of compute bodies of one algorithm, tile and number of threads the fastest stays, and of those the four fastest that
    take at most a quarter longer than the best (three on tensor cores, whose kernels take long to compile): a tile that
    is a little slower alone may be the one that leaves room for a partner. Of memory bodies the fastest stays and the
    one with most rows at once and in a unit, which needs fewest instructions and so takes least from a partner that is
    bound by them; where these are the same, the one with fewest rows, which needs fewest registers.
    """
    order = sorted(timed, key=lambda one: one[1])
    shapes: dict[tuple[int, int, int, bool], Body] = {}
    memory: list[MemoryBody] = []
    for body, time in order:
        if isinstance(body, ComputeBody):
            if time <= _SLACK * order[0][1]:
                shapes.setdefault((body.tile_m, body.tile_n, body.threads, body.winograd), body)
        else:
            memory.append(body)
    by_rows = sorted(memory, key=lambda body: (body.together, body.rows))
    partners = [*memory[:1], *by_rows[-1:], *by_rows[:1]]
    most = _MOST_TILES.get(order[0][0].dtype, len(shapes)) if order else 0
    return (*list(shapes.values())[:most], *tuple(dict.fromkeys(partners))[:_MOST_MEMORY_BODIES])


def coarser(body: Body) -> tuple[Body, ...]:
    """Return memory bodies whose warps do more rows one after the other, for strategies that launch blocks of them.

    Such a block carries the registers and shared memory of a tile, and should be worth its launch.
    """
    if not isinstance(body, MemoryBody) or body.operation == "skinny_gemm" or not body.chunks:
        return ()
    return tuple(replace(body, rows=rows) for rows in _COARSE_ROWS)


# ---- the space --------------------------------------------------------------------------------------------------


def all_ways(firsts: Sequence[Body], seconds: Sequence[Body], *, calls: Sequence[str] = ()) -> list[Candidate]:
    """Return every way to run two problems, a capped grid with one block an SM; see `fitted` for more of them.

    Args:
        firsts: the bodies to try for the first problem.
        seconds: those for the second.
        calls: of a library, each of which solves the first problem.
    """
    both = [(one, two) for one in firsts for two in seconds]
    found = [Candidate("first", (body, None), persistent=way) for body in firsts for way in (None, 0)]
    found += [Candidate("second", (None, body), persistent=way) for body in seconds for way in (None, 1)]
    found += [Candidate("sequential", pair) for pair in both]
    orders: tuple[Submission, ...] = ("at once", "first, second", "second, first", "second urgent")
    found += [Candidate("streams", pair, submission=order) for pair in both for order in orders]
    found += [Candidate("graph", pair, submission=order) for pair in both for order in orders[1:3]]
    found += [one for pair in both for role in (0, 1) for one in _elastic(Candidate("elastic", pair, persistent=role))]
    found += [Candidate(_family(strategy), pair, strategy) for pair in both for strategy in fused_strategies(*pair)]
    found += _team_ways(firsts, seconds)
    coarse = [body for body in coarser(seconds[0]) if body not in seconds] if seconds else []
    found += [
        Candidate(_family(strategy), (one, two), strategy) for one in firsts for two in coarse for strategy in _BY_BLOCK
    ]
    for call in calls:
        family: Family = "library_same_layout" if call in SAME_LAYOUT else "library"
        found += [
            Candidate(family, (None, body), submission=order, call=call)
            for body in seconds
            for order in ("in turn", *orders)
        ]
        found += [
            one
            for body in seconds
            for one in _elastic(Candidate("library_elastic", (None, body), persistent=1, call=call))
        ]
    return found


@dataclass(frozen=True, slots=True)
class Team:
    """A tile whose warps fill an SM together with so many threads of a memory body, in so many `blocks`.

    Where it takes more registers for one than for the other, `registers` says how many (see `IntraBlock`).
    """

    body: ComputeBody
    threads: int
    registers: tuple[int, int] | None = None
    blocks: int = 1

    @property
    def strategies(self) -> tuple[IntraBlock, ...]:
        """Return the ways to run it. Two blocks fit by themselves; of three the compiler must know."""
        min_blocks = self.blocks if self.blocks > 2 else None
        plain = IntraBlock(self.threads, min_blocks=min_blocks, registers=self.registers)
        return (plain, replace(plain, drain=True)) if self.blocks == 1 else (plain,)

    @property
    def memory_registers(self) -> int:
        """Return how many registers a thread of the memory body has."""
        if self.registers:
            return self.registers[1]
        return registers_at_start(self.blocks * (self.body.threads + self.threads))


def staged(
    body: Body, threads: int = 128, registers: int = 128, shared_bytes: int = _MOST_SHARED_BYTES
) -> MemoryBody | None:
    """Return a memory body with its pieces on their way through shared memory; None if it cannot be staged.

    So many threads of it, with so many registers each and so much shared memory at most, keep the memory busy and leave
    the rest to a compute body.
    """
    if not isinstance(body, MemoryBody) or body.stages or body.width == 1 or not body.chunks:
        return None
    rows = 4 * body.width if body.short else _STAGED_ROWS
    two = _takes_two_rows(body) and registers >= _REGISTERS_FOR_TWO_ROWS
    piece = replace(body, rows=rows, together=2 if two else 1)
    if body.operation == "skinny_gemm":
        piece = _of_more_lines(body, 4)
    warps = threads // 32
    if 2 * warps * piece.piece_bytes > shared_bytes:
        piece = replace(piece, rows=1 if body.operation == "skinny_gemm" else piece.rows, together=1)
    stage = warps * piece.piece_bytes
    stages = min(-(-_STAGED_BYTES // stage), shared_bytes // stage)
    return replace(piece, stages=max(2, min(12, stages)))


def lean(body: Body, threads: int = 128) -> tuple[MemoryBody, ...]:
    """Return the forms of a memory body that need fewest instructions, for a partner that is bound by them.

    So few warps that share an SM with others have much on their way each: more rows at once.
    """
    if not isinstance(body, MemoryBody) or body.stages or not body.chunks or body.width == 1:
        return ()
    if body.short:
        return (replace(body, rows=body.width),)
    if body.operation == "skinny_gemm":
        return replace(body, rows=4), _of_more_lines(body, 8)
    rows = replace(body, rows=8)
    if not _takes_two_rows(body):
        return (rows,)
    return tuple(replace(rows, together=count) for count in ((2, 4) if threads < 128 else (2,)))


def _takes_two_rows(body: MemoryBody) -> bool:
    norm = body.operation in ("layer_norm", "softmax") and not body.short
    return norm and body.chunks * body.width <= bodies.MOST_NUMBERS_FOR_TWO_ROWS


def _of_more_lines(body: MemoryBody, rows: int) -> MemoryBody:
    """Return a GEMV whose pieces are of more lines of weights, which share what is read of x, and less of each."""
    return replace(body, rows=rows, chunks=max(1, body.chunks // 2))


def teams(first: Body) -> tuple[Team, ...]:
    """Return the teams worth trying with a compute body of an operation and type; none where copies are not its own.

    Others were measured on an H200 and never won: four memory warps beside twelve or sixteen compute warps of fp32,
    which leave them too few issue slots; 128 sums a thread in four warps; the memory warps before the others.
    """
    if not isinstance(first, ComputeBody) or not first.asynchronous or first.width == 1:
        return ()
    if first.wgmma:
        wide = replace(first, tile_m=128, tile_n=256, warp_m=64, warp_n=256, stages=3, prefetch=False)
        tall = replace(wide, tile_m=256, tile_n=128, warp_m=128, warp_n=128)
        half = replace(wide, tile_n=128, warp_n=128)
        return (
            Team(wide, 128, (200, 104)),
            Team(tall, 128, (200, 104)),
            Team(replace(half, tile_m=192), 128),
            Team(replace(half, tile_n=192, warp_n=192), 128),
            Team(replace(half, stages=4), 128),
        )
    if first.tensor:
        deep = replace(first, tensor_depth=64, stages=3, warp_m=64, prefetch=False)
        high = replace(deep, tile_m=192, tile_n=128, warp_n=32)
        wide = replace(deep, tile_m=128, tile_n=256, warp_n=64)
        return Team(high, 128), Team(wide, 128, (208, 88)), Team(wide, 256, (208, 48))
    if first.winograd:
        return tuple(
            Team(replace(first, tile_n=outputs), threads, registers)
            for outputs, threads, registers in ((64, 256, (192, 64)), (64, 128, (208, 88)), (32, 256, (160, 96)))
        )
    square = replace(first, tile_m=128, tile_n=128, simt_threads=256, stages=3)
    half = replace(square, tile_n=64, simt_threads=128)
    if first.operation == "gemm":
        halves = Team(half, 64, blocks=2), Team(half, 128, blocks=2), Team(half, 384)
        return (*halves, Team(square, 192), Team(square, 256))
    found = (
        Team(square, 256, (160, 96)),
        Team(square, 128, (200, 96)),
        Team(half, 64, blocks=2),
        Team(replace(square, tile_m=192, simt_threads=384), 128, (144, 80)),
    )
    small = Team(replace(half, tile_m=64), 64, blocks=3)
    return (*found, small) if first.operation == "convolution_1x1" else found


def _team_ways(firsts: Sequence[Body], seconds: Sequence[Body]) -> list[Candidate]:
    """Return ways to run a compute body beside a staged or lean memory body in one block.

    Alone, and one after the other, a staged body on a capped grid may be the fastest as well: so it is tried there. And
    a tile that is only worth it beside another kernel is one for elastic streams, too.
    """
    # Only a body that solves the problem says whether one of its algorithm can.
    algorithms = {(one.winograd, one.wgmma): one for one in firsts if isinstance(one, ComputeBody)}
    found_teams = [team for one in algorithms.values() for team in teams(one)]
    quick = staged(seconds[0], threads=256) if seconds else None
    if not found_teams or quick is None:
        return []
    tiles = dict.fromkeys(team.body for team in found_teams if team.body not in firsts)
    pairs = [Candidate("elastic", (tile, one), persistent=role) for tile in tiles for one in seconds for role in (0, 1)]
    found = [one for pair in pairs for one in _elastic(pair)]
    for team in found_teams:
        room = _MOST_SHARED_BYTES - team.body.shared_bytes
        slow = staged(seconds[0], team.threads, team.memory_registers, room)
        forms: list[Body] = [slow] if slow else []
        # With few registers the form that is fastest alone, of the fewest rows.
        few = team.memory_registers < _REGISTERS_FOR_TWO_ROWS
        forms += seconds[:1] if few else lean(seconds[0], team.threads)
        found += [
            Candidate("intra_block", (team.body, beside), strategy) for beside in forms for strategy in team.strategies
        ]
    found.append(Candidate("second", (None, quick), persistent=1))
    return found + [Candidate("sequential", (one, quick), persistent=1) for one in firsts]


def _elastic(candidate: Candidate) -> list[Candidate]:
    """Return elastic streams whose capped half starts first, or whose order is left to the GPU.

    What is resident first fixes how the L1 of an SM is divided, and without enough shared memory the other half waits
    until it is over: both ways to divide it are tried from the beginning.
    """
    first: Submission = "second, first" if candidate.persistent else "first, second"
    orders: tuple[Submission, ...] = (first, "at once")
    return [
        replace(candidate, submission=order, carveout_percent=percent)
        for order in orders
        for percent in (None, *CARVEOUTS)
    ]


def carveout_twins(candidate: Candidate) -> tuple[Candidate, ...]:
    """Return a candidate with the other preferences for shared memory; elastic ones are in the space already."""
    if candidate.family in ("elastic", "library_elastic"):
        return ()
    return tuple(replace(candidate, carveout_percent=percent) for percent in CARVEOUTS)


def candidate_named(name: str, problems: tuple[Problem, Problem], sm: int) -> Candidate | None:
    """Return the way to run two problems that has a name, as a study wrote it; None if it is not among today's.

    Raises:
        UsageError: no body does one of the problems on the architecture.
    """
    every = all_ways(*(plausible_bodies(problem, sm) for problem in problems))
    known, _ = fitted(every, {}, sm, unknown_blocks=_MOST_CAPPED_BLOCKS)
    return next((one for way in known for one in (way, *carveout_twins(way)) if one.name == name), None)


def fused_strategies(first: Body, second: Body) -> tuple[PairStrategy, ...]:
    """Return the strategies worth trying for two bodies, without those that are sure to run out of registers."""
    groups = (second.threads,) if second.block_granular else _MEMORY_GROUPS
    found: list[PairStrategy] = [
        IntraBlock(group, drain, blocks)
        for group in groups
        for blocks in (None, 2)
        for drain in (False, True)
        if first.threads % 128 == 0 and _has_registers(first, second, first.threads + group, blocks or 1)
    ]
    if max(first.threads, second.threads) <= min(first.most_block_threads, second.most_block_threads):
        found += _BY_BLOCK
    if first.block_granular and isinstance(second, MemoryBody) and not second.shared_bytes_of(32):
        found.append(IntraThread())
    return tuple(found)


_BY_BLOCK = (InterBlockStatic(), InterBlockTicket(), InterBlockTicket(drain=True))


def _has_registers(first: Body, second: Body, threads: int, blocks: int) -> bool:
    """Tell whether so many blocks leave each thread the registers that its sums need."""
    if threads > min(first.most_block_threads, second.most_block_threads):
        return False
    needed = max(
        (
            body.sums + (_REGISTERS_BESIDE_WINOGRAD_SUMS if body.winograd else _REGISTERS_BESIDE_SUMS)
            for body in (first, second)
            if isinstance(body, ComputeBody)
        ),
        default=_REGISTERS_BESIDE_SUMS,
    )
    return min(255, 65536 // (threads * blocks)) >= needed


def _family(strategy: PairStrategy) -> Family:
    match strategy:
        case IntraBlock():
            return "intra_block"
        case InterBlockStatic():
            return "inter_block_static"
        case InterBlockTicket():
            return "inter_block_ticket"
        case IntraThread():
            return "intra_thread"


def kernels_of(found: Iterable[Candidate]) -> list[Kernel]:
    """Return the kernels of candidates, each of them once."""
    return list({kernel.name: kernel for candidate in found for kernel in candidate.kernels}.values())


# ---- pruning without a GPU ----------------------------------------------------------------------------------------


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
