"""Is a fused launch faster than the best that can be done without it? Measured so that neither side has an advantage.

All ways to run a pair use the same bodies and the same rotating inputs, which together are larger than twice the L2.
They are timed in turn, forwards and then backwards, so that a drift of the clocks meets all of them. Before each timing
the stream is kept busy until everything has been submitted: what is measured is the GPU, not Python.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from nitro.errors import NitroError, UsageError

from .bodies import Body
from .pairs import Pair
from .problems import (
    Array,
    ElementwiseProblem,
    EmbeddingProblem,
    LayerNormProblem,
    Problem,
    SkinnyGemmProblem,
    SoftmaxProblem,
)
from .runtime import Buffer, Executor, Handle, Runtime
from .strategies import (
    Alone,
    InterBlockStatic,
    InterBlockTicket,
    IntraBlock,
    IntraThread,
    Kernel,
    Launch,
    PairStrategy,
    Persistent,
    launch,
    pair_kernel,
    single_kernel,
    strategy_name,
)

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


# ---- inputs -----------------------------------------------------------------------------------------------------


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


_BLOCK_BYTES = 16 << 20


class Inputs:
    """Rotating sets of the arrays of a pair, filled with random numbers."""

    def __init__(self, runtime: Runtime, problems: tuple[Problem, Problem], *, largest_sets: int = 64) -> None:
        self.runtime = runtime
        footprint = sum(array.bytes for problem in problems for array in problem.arrays)
        wanted = max(3, -(-2 * runtime.facts.l2_bytes // max(footprint, 1)) + 1)
        affordable = max(1, int(runtime.facts.memory_bytes * 0.6) // max(footprint, 1))
        self.count = min(wanted, affordable, largest_sets)
        self.sets: list[dict[str, int]] = []
        self.buffers: list[Buffer] = []
        random = np.random.default_rng(7)
        numbers = random.uniform(-1, 1, _BLOCK_BYTES // 4).astype(np.float32)
        self._blocks: dict[str, np.ndarray[Any, Any]] = {
            "float32": numbers,
            "float16": numbers.astype(np.float16),
        }
        for _ in range(self.count):
            addresses: dict[str, int] = {}
            for role, problem in zip(("first", "second"), problems, strict=True):
                for array in problem.arrays:
                    buffer = runtime.allocate(array.bytes)
                    self.buffers.append(buffer)
                    addresses[f"{role}_{array.name}"] = buffer.address
                    if not array.output:
                        self._fill(buffer, array, problem)
            self.sets.append(addresses)

    def _fill(self, buffer: Buffer, array: Array, problem: Problem) -> None:
        if array.dtype == "int32":
            limit = problem.vocabulary if isinstance(problem, EmbeddingProblem) else 1
            ids = np.random.default_rng(11).integers(0, limit, array.elements, dtype=np.int32)
            self.runtime.upload(buffer.address, ids)
            return
        block = self._blocks[array.dtype].view(np.uint8)
        for start in range(0, array.bytes, block.nbytes):
            self.runtime.upload(buffer.address + start, block[: min(block.nbytes, array.bytes - start)])

    def free(self) -> None:
        """Give the memory back."""
        for buffer in self.buffers:
            self.runtime.free(buffer)


# ---- ways to run a pair -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Way:
    name: str
    group: Group
    submit: Callable[[int], None]
    launches: int = 1
    samples_us: list[float] = field(default_factory=list)


def fused_strategies(first: Body, second: Body) -> tuple[PairStrategy, ...]:
    """Return the strategies that a benchmark tries for two bodies."""
    found: list[PairStrategy] = [InterBlockStatic(), InterBlockTicket(), InterBlockTicket(drain=True)]
    groups = (second.threads,) if second.block_granular else (128, 256, 384)
    found += [IntraBlock(group, drain) for group in groups for drain in (False, True) if first.threads + group <= 1024]
    if first.block_granular and not second.block_granular:
        found.append(IntraThread())
    return tuple(found)


class _Bench:
    def __init__(self, runtime: Runtime, pair: Pair) -> None:
        self.runtime, self.pair = runtime, pair
        self.executor = Executor(runtime)
        self.problems = (pair.first, pair.second)
        self.bodies = pair.bodies(runtime.facts.sm)
        self.inputs = Inputs(runtime, self.problems)
        self.streams = (runtime.stream(), runtime.stream())
        self.urgent = runtime.stream(high_priority=True)
        self.failures: list[str] = []

    def place(self, kernel: Kernel, problems: tuple[Problem, ...], blocks_per_sm: int = 1) -> Launch:
        facts = self.runtime.facts
        return launch(kernel, problems, sms=facts.sms, sm_ids=facts.sm_ids, blocks_per_sm=blocks_per_sm)

    def submit(self, work: Launch, index: int, stream: Handle | None, role: int = 0) -> None:
        addresses = self.inputs.sets[index % self.inputs.count]
        if role == 1:
            addresses = {f"first{name[6:]}": at for name, at in addresses.items() if name.startswith("second")}
        self.executor.submit(work, addresses, stream)

    def fork(self, first: Callable[[Handle], None], second: Callable[[Handle], None], order: tuple[int, int]) -> None:
        """Submit two pieces of work to two streams that start and end together; `order` says which comes first."""
        self._fork_on(None, self.streams, first, second, order)

    def _fork_on(
        self,
        main: Handle | None,
        streams: tuple[Handle, Handle],
        first: Callable[[Handle], None],
        second: Callable[[Handle], None],
        order: tuple[int, int],
    ) -> None:
        for stream in streams:
            self.runtime.join(stream, [main])
        pieces = (first, second)
        for one in order:
            pieces[one](streams[one])
        self.runtime.join(main, list(streams))

    def single(self, role: int, blocks_per_sm: int | None = None) -> Launch:
        strategy = Alone() if blocks_per_sm is None else Persistent()
        return self.place(single_kernel(self.bodies[role], strategy), (self.problems[role],), blocks_per_sm or 1)

    def resident(self, kernel: Kernel) -> int:
        return max(1, self.executor.load(kernel).blocks_per_sm)

    def ways(self) -> list[_Way]:
        first, second = self.single(0), self.single(1)
        ways = self.alone_ways(first, second)

        def sequential(i: int) -> None:
            self.submit(first, i, None)
            self.submit(second, i, None, 1)

        ways.append(_Way("sequential", "sequential", sequential, 2))
        ways += self.stream_ways(first, second) + self.graph_ways(first, second) + self.elastic_ways(first, second)
        for strategy in fused_strategies(*self.bodies):
            ways += self.fused_ways_if_possible(strategy)
        return ways

    def alone_ways(self, first: Launch, second: Launch) -> list[_Way]:
        return [
            _Way("first", "first", lambda i: self.submit(first, i, None)),
            _Way("second", "second", lambda i: self.submit(second, i, None, 1)),
        ]

    def fused_ways_if_possible(self, strategy: PairStrategy) -> list[_Way]:
        try:
            return self.fused_ways(strategy)
        except NitroError as error:
            self.failures.append(f"{strategy_name(strategy)}: {error}")
            return []

    def stream_ways(self, first: Launch, second: Launch) -> list[_Way]:
        def both(order: tuple[int, int], urgent: bool) -> Callable[[int], None]:
            def run(i: int) -> None:
                streams = (self.streams[0], self.urgent if urgent else self.streams[1])
                self._fork_on(
                    None, streams, lambda s: self.submit(first, i, s), lambda s: self.submit(second, i, s, 1), order
                )

            return run

        names = {"first, second": ((0, 1), False), "second, first": ((1, 0), False), "second urgent": ((0, 1), True)}
        return [_Way(f"streams {name}", "streams", both(*how), 6) for name, how in names.items()]

    def graph_ways(self, first: Launch, second: Launch) -> list[_Way]:
        def build(order: tuple[int, int], i: int) -> Handle:
            def work(stream: Handle) -> None:
                self._fork_on(
                    stream,
                    self.streams,
                    lambda s: self.submit(first, i, s),
                    lambda s: self.submit(second, i, s, 1),
                    order,
                )

            return self.runtime.capture(work)

        for role, work in enumerate((first, second)):
            self.submit(work, 0, None, role)
        self.runtime.synchronize()
        ways = []
        for name, order in {"first | second": (0, 1), "second | first": (1, 0)}.items():
            graphs = [build(order, i) for i in range(self.inputs.count)]

            def replay(i: int, graphs: list[Handle] = graphs) -> None:
                self.runtime.replay(graphs[i % len(graphs)])

            ways.append(_Way(f"graph {name}", "graph", replay))
        return ways

    def elastic_ways(self, first: Launch, second: Launch) -> list[_Way]:
        """One body persistent with few blocks an SM, submitted first, beside the other as it is."""
        ways = []
        for role, other in ((0, second), (1, first)):
            resident = self.resident(single_kernel(self.bodies[role], Persistent()))
            for blocks in range(1, min(resident, 4) + 1):
                capped = self.single(role, blocks)

                def run(i: int, role: int = role, capped: Launch = capped, other: Launch = other) -> None:
                    works = (capped, other) if role == 0 else (other, capped)
                    order = (0, 1) if role == 0 else (1, 0)
                    self.fork(lambda s: self.submit(works[0], i, s), lambda s: self.submit(works[1], i, s, 1), order)

                ways.append(_Way(f"elastic {('first', 'second')[role]} x{blocks}", "elastic", run, 6))

                def alone(i: int, role: int = role, capped: Launch = capped) -> None:
                    self.submit(capped, i, None, role)

                group: Group = "first" if role == 0 else "second"
                ways.append(_Way(f"{group} persistent x{blocks}", group, alone))
        return ways

    def fused_ways(self, strategy: PairStrategy) -> list[_Way]:
        kernel = pair_kernel(*self.bodies, strategy)
        resident = self.resident(kernel)
        caps = range(1, min(resident, 3) + 1) if kernel.capped_grid else (1,)
        ways = []
        for blocks in caps:
            work = self.place(kernel, self.problems, blocks)

            def run(i: int, work: Launch = work) -> None:
                self.submit(work, i, None)

            suffix = f" x{blocks}" if kernel.capped_grid else ""
            ways.append(_Way(strategy_name(strategy) + suffix, "fused", run))
        return ways

    def time_us(self, way: _Way, index: int, repeats: int) -> float:
        # Submitting a launch from Python takes tens of microseconds.
        self.runtime.delay(60.0 * way.launches * repeats + 100)
        start = self.runtime.record()
        for repeat in range(repeats):
            way.submit(index + repeat)
        return self.runtime.elapsed_ms(start, self.runtime.record()) * 1e3 / repeats


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
    if balance is not None:
        pair = _balanced(runtime, pair, balance)
    state = _Bench(runtime, pair)
    try:
        ways = state.ways()
        for way in ways:
            way.submit(0)
        state.executor.check()
        if progress:
            progress(f"{pair.name}: {len(ways)} ways, {samples} samples of {repeats} runs")
        before = runtime.clocks_mhz()
        for sample in range(samples):
            for way in ways if sample % 2 == 0 else reversed(ways):
                way.samples_us.append(state.time_us(way, sample * repeats, repeats))
        after = runtime.clocks_mhz()
        state.executor.check()
    finally:
        state.inputs.free()
    timings = tuple(_timing(way) for way in ways)
    names = tuple(body.name for body in state.bodies)
    return PairResult(pair.name, names[0], names[1], state.inputs.count, timings, before, after, tuple(state.failures))


def _timing(way: _Way) -> Timing:
    ordered = sorted(way.samples_us)
    quarter = len(ordered) // 4
    return Timing(
        way.name,
        way.group,
        statistics.median(ordered),
        ordered[quarter],
        ordered[-quarter - 1],
        tuple(way.samples_us),
    )


def _balanced(runtime: Runtime, pair: Pair, ratio: float) -> Pair:
    """Return the pair with its second problem scaled to take `ratio` times as long as the first."""
    for _ in range(2):  # a small problem says little about a large one, so once more
        state = _Bench(runtime, pair)
        try:
            alone = state.alone_ways(state.single(0), state.single(1))
            for way in alone:
                way.submit(0)
            state.executor.check()
            first, second = (min(state.time_us(way, i, 2) for i in range(4)) for way in alone)
        finally:
            state.inputs.free()
        pair = replace(pair, second=scaled(pair.second, ratio * first / max(second, 1e-3)))
    return pair


def single_body(runtime: Runtime, body: Body, problem: Problem, *, samples: int = 15) -> float:
    """Return the median time of a body alone in microseconds, on rotating inputs."""
    nothing = ElementwiseProblem("copy", 0)
    state = _Bench(runtime, Pair("alone", problem, nothing, first_body=body))
    try:
        way = state.alone_ways(state.single(0), state.single(1))[0]
        way.submit(0)
        state.executor.check()
        return statistics.median(state.time_us(way, sample, 3) for sample in range(samples))
    finally:
        state.inputs.free()
