"""Is a fused launch faster than the best that can be done without it? Every way to run a pair with given bodies.

How it is measured is in `workbench`. Nothing is chosen here; `tuner` chooses, and `study` judges the choice.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast

from nitro.errors import UsageError

from .bodies import Body
from .candidates import Candidate
from .compile_queue import CompileQueue
from .pairs import Pair
from .problems import (
    ElementwiseProblem,
    EmbeddingProblem,
    LayerNormProblem,
    Problem,
    SkinnyGemmProblem,
    SoftmaxProblem,
)
from .runtime import Executor, Runtime
from .tuner import space
from .ways import all_ways
from .workbench import Inputs as Inputs
from .workbench import Workbench

Group = Literal["first", "second", "sequential", "streams", "graph", "elastic", "fused"]
SIMPLE: tuple[Group, ...] = ("sequential", "streams", "graph")


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one way to run a pair takes; quartiles of `samples_us`."""

    name: str
    group: Group
    median_us: float
    first_quartile_us: float
    third_quartile_us: float
    samples_us: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PairResult:
    """All timings of a pair. Gains compare medians; `bound_us` is the longer of the two alone."""

    pair: str
    first: str
    second: str
    sets: int
    timings: tuple[Timing, ...]
    clocks_before_mhz: dict[str, float]
    clocks_after_mhz: dict[str, float]
    failures: tuple[str, ...] = ()

    def best(self, *groups: Group) -> Timing | None:
        """Return the fastest way of some groups, or None if none of them ran."""
        return min((t for t in self.timings if t.group in groups), key=lambda t: t.median_us, default=None)

    @property
    def bound_us(self) -> float | None:
        """Return the time that no way to run both can beat: the longer of the two alone."""
        first, second = self.best("first"), self.best("second")
        return max(first.median_us, second.median_us) if first and second else None

    def summary(self) -> dict[str, Any]:
        """Return the numbers that a table shows; a ratio is None where a side did not run."""
        best = {name: self.best(name) for name in ("first", "second", "sequential", "elastic", "fused")}
        simple, unfused = self.best(*SIMPLE), self.best(*SIMPLE, "elastic")
        fused = best["fused"]

        def over(one: Timing | None) -> float | None:
            return one.median_us / fused.median_us if one and fused else None

        sequential, bound = best["sequential"], self.bound_us
        return {
            "pair": self.pair,
            **{f"{name}_us": timing.median_us if timing else None for name, timing in best.items()},
            "simple_us": simple.median_us if simple else None,
            "simple": simple.name if simple else None,
            "elastic": best["elastic"].name if best["elastic"] else None,
            "fused": fused.name if fused else None,
            "bound": sequential.median_us / bound if sequential and bound else None,
            "gain_over_simple": over(simple),
            "gain_over_unfused": over(unfused),
        }


def table(results: Sequence[PairResult]) -> str:
    """Return one line a pair: the times, the winners, and the gains over the simple and all unfused ways."""
    width = max((len(result.pair) for result in results), default=4)
    lines = [
        f"{'pair':<{width}} {'first':>8} {'second':>8} {'simple':>8} {'elastic':>8} {'fused':>8} {'bound':>6} "
        f"{'simple/f':>8} {'unfused/f':>9}  winner"
    ]
    for result in results:
        row = result.summary()
        times = " ".join(_cell(row[f"{name}_us"], 8, 1) for name in ("first", "second", "simple", "elastic", "fused"))
        gains = f"{_cell(row['bound'], 6, 2)} {_cell(row['gain_over_simple'], 8, 3)} "
        gains += _cell(row["gain_over_unfused"], 9, 3)
        lines.append(f"{result.pair:<{width}} {times} {gains}  {row['fused'] or '-'} against {row['elastic'] or '-'}")
        lines += [f"  did not run: {failure}" for failure in result.failures]
    return "\n".join(lines)


def _cell(value: float | None, width: int, digits: int) -> str:
    return f"{value:>{width}.{digits}f}" if value is not None else f"{'-':>{width}}"


def as_json(results: Sequence[PairResult], runtime: Runtime) -> str:
    """Return all results with the device that they are from."""
    content = {
        "device": asdict(runtime.facts),
        "pairs": [{**asdict(result), "summary": result.summary()} for result in results],
    }
    return json.dumps(content, indent=1)


def scaled(problem: Problem, factor: float) -> Problem:
    """Return a memory-bound problem with so many times the rows.

    Raises:
        UsageError: it is compute-bound, where the shape is the layer's.
    """
    match problem:
        case LayerNormProblem() | SoftmaxProblem():
            return replace(problem, rows=max(8, round(problem.rows * factor / 8) * 8))
        case SkinnyGemmProblem():
            return replace(problem, outputs=max(8, round(problem.outputs * factor / 8) * 8))
        case EmbeddingProblem():
            return replace(problem, tokens=max(8, round(problem.tokens * factor / 8) * 8))
        case ElementwiseProblem():
            return replace(problem, count=max(1024, round(problem.count * factor / 1024) * 1024))
        case _:
            raise UsageError(f"{type(problem).__name__}: only memory-bound problems are scaled; choose another shape.")


# ---- measuring --------------------------------------------------------------------------------------------------


def _group(candidate: Candidate) -> Group:
    return "fused" if candidate.strategy is not None else cast(Group, candidate.family)


def bench(
    runtime: Runtime,
    pair: Pair,
    *,
    samples: int = 21,
    repeats: int = 3,
    balance: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> PairResult:
    """Return the timings of every way to run a pair.

    Args:
        runtime: the GPU.
        pair: what to run.
        samples: timings a way.
        repeats: runs in a timing, on rotating inputs.
        balance: scale the second problem until it takes so many times as long as the first.
        progress: is told what is being measured.
    """
    bodies = pair.bodies(runtime.facts.sm)
    if balance is not None:
        pair = replace(pair, second=balanced(runtime, (pair.first, pair.second), bodies, balance))
    with CompileQueue(runtime.facts.sm) as queue:
        found = space(all_ways(bodies[:1], bodies[1:]), queue)
    state = Workbench(runtime, (pair.first, pair.second))
    try:
        ways, failures = state.prepare_all(found.candidates)
        if progress:
            progress(f"{pair.name}: {len(ways)} ways, {samples} samples of {repeats} runs")
        before = runtime.clocks_mhz()
        taken = state.sample(ways, samples, repeats)
        after = runtime.clocks_mhz()
    finally:
        state.close()
    timings = tuple(_timing(way.candidate, times) for way, times in zip(ways, taken, strict=True))
    left_out = tuple(f"{one.name}: {one.reason}" for one in found.dropped)
    names = tuple(body.name for body in bodies)
    count = state.inputs.count
    return PairResult(pair.name, names[0], names[1], count, timings, before, after, (*failures, *left_out))


def _timing(candidate: Candidate, samples: Sequence[float]) -> Timing:
    ordered = sorted(samples)
    quarter = len(ordered) // 4
    return Timing(
        candidate.name,
        _group(candidate),
        statistics.median(ordered),
        ordered[quarter],
        ordered[-quarter - 1],
        tuple(samples),
    )


def balanced(
    runtime: Runtime,
    problems: tuple[Problem, Problem],
    bodies: tuple[Body, Body],
    ratio: float,
    *,
    executor: Executor | None = None,
    beside: AbstractContextManager[object] | None = None,
) -> Problem:
    """Return the second problem, scaled to take `ratio` times as long as the first, both beside something or nothing.

    Raises:
        UsageError: the second problem is compute-bound, where the shape is the layer's.
    """
    first, second = problems
    alone = (Candidate("first", (bodies[0], None)), Candidate("second", (None, bodies[1])))
    for _ in range(2):  # a small problem says little about a large one, so once more
        state = Workbench(runtime, (first, second), executor=executor, beside=beside)
        try:
            ways = [state.prepare(candidate) for candidate in alone]
            one, other = (min(times) for times in state.sample(ways, 4, 2))
        finally:
            state.close()
        second = scaled(second, ratio * one / max(other, 1e-3))
    return second


def single_body(runtime: Runtime, body: Body, problem: Problem, *, samples: int = 15) -> float:
    """Return the median time of a body alone in microseconds, on rotating inputs."""
    state = Workbench(runtime, (problem, ElementwiseProblem("copy", 0)))
    try:
        way = state.prepare(Candidate("first", (body, None)))
        return statistics.median(state.sample([way], samples, 3)[0])
    finally:
        state.close()
