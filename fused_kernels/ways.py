"""Every way to run two independent problems that is worth a measurement: the space that the tuner searches.

"Do not fuse" (one after the other, in streams, as branches of a graph) and elastic streams are candidates like any
other, with every tile of the compute body: fusion is not compared with a partner that was left untuned.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from nitro.errors import UsageError

from . import bodies, vendor
from .bodies import Body, check_architecture
from .candidates import CARVEOUTS, Candidate, Family, Submission, carveout_twins
from .compute_bodies import ComputeBody
from .memory_bodies import MemoryBody
from .problems import Problem
from .pruning import fitted
from .strategies import InterBlockStatic, InterBlockTicket, IntraBlock, IntraThread, PairStrategy
from .teams import coarser, staged, teams

# Registers of a thread beyond its sums, below which a compute body has been seen to spill; and a body of Winograd's.
_REGISTERS_BESIDE_SUMS = 40
_REGISTERS_BESIDE_WINOGRAD_SUMS = 60
_MEMORY_GROUPS = (128, 256, 384, 512)
_SLACK = 1.25
_MOST_TILES = {"float32": 4, "float16": 3}
_MOST_MEMORY_BODIES = 2
# More blocks an SM than are ever tried.
_MOST_CAPPED_BLOCKS = 8
_BY_BLOCK = (InterBlockStatic(), InterBlockTicket(), InterBlockTicket(drain=True))


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
        family: Family = "library_same_layout" if call in vendor.SAME_LAYOUT else "library"
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
    found += [
        Candidate("intra_block", (team.body, beside), strategy)
        for team in found_teams
        for beside in team.forms(seconds[0])
        for strategy in team.strategies
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


# ---- names ------------------------------------------------------------------------------------------------------


def candidate_named(name: str, problems: tuple[Problem, Problem], sm: int) -> Candidate | None:
    """Return the way to run two problems that has a name, as a study wrote it; None if it is not among today's.

    Raises:
        UsageError: no body does one of the problems on the architecture.
    """
    return candidates_named([name], problems, sm).get(name)


def candidates_named(names: Collection[str], problems: tuple[Problem, Problem], sm: int) -> dict[str, Candidate]:
    """Return the ways to run two problems that have names, as a study wrote them, without those that are none today.

    A library may stand in the place of the first body. Where a form of a memory body was made for blocks of its own or
    for a team, it was made of the body that was the fastest then, which no name says: every body is taken for it once.

    Raises:
        UsageError: no body does one of the problems on the architecture.
    """
    firsts, seconds = (plausible_bodies(problem, sm) for problem in problems)
    calls = vendor.calls(problems[0])
    every = dict.fromkeys(way for second in seconds for way in all_ways(firsts, (second,), calls=calls))
    halves = {name.partition(": ")[2] for name in names}
    known, _ = fitted((way for way in every if way.halves in halves), {}, sm, unknown_blocks=_MOST_CAPPED_BLOCKS)
    found = {one.name: one for way in known for one in (way, *carveout_twins(way))}
    return {name: found[name] for name in names if name in found}
