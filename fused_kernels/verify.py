"""Is what the kernels compute right? Every body against double precision, every strategy against the body alone.

Outputs are filled with NaN before every launch and lie between guard zones. Fused outputs must have exactly the bits
of the stand-alone kernel, on odd sizes, one row and no rows, when a launch is repeated without a reset of the counters,
and when it is replayed from a graph.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nitro.errors import NitroError, UsageError

from .bodies import Body
from .compute_bodies import ComputeBody, winograd_bodies
from .memory_bodies import MemoryBody
from .occupancy import LIMITS
from .problems import (
    ConvolutionProblem,
    ElementwiseProblem,
    EmbeddingProblem,
    GemmProblem,
    LayerNormProblem,
    Problem,
    SkinnyGemmProblem,
    SoftmaxProblem,
)
from .references import Arrays, error_limit, random_inputs, reference, relative_error
from .runtime import Buffer, Executor, Runtime
from .sanitizer import Sanitized
from .strategies import (
    Alone,
    InterBlockStatic,
    InterBlockTicket,
    IntraBlock,
    IntraThread,
    Kernel,
    Launch,
    Order,
    PairStrategy,
    Persistent,
    SingleStrategy,
    launch,
    pair_kernel,
    registers_at_start,
    single_kernel,
    strategy_name,
)

GUARD_BYTES = 512
_LOG_LINES = 40  # of a tool that found something
GUARD, POISON = 0xA5, 0xFF


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked. `error` is the relative norm where a reference was compared with."""

    bodies: str
    strategy: str
    problems: str
    check: Literal["reference", "same bits", "guard zones", "repeated", "graph replay", "runs"]
    passed: bool
    error: float | None = None
    limit: float | None = None
    note: str = ""


@dataclass(slots=True)
class Report:
    """All checks on one device."""

    device: str
    sm: int
    checks: list[Check] = field(default_factory=list)
    sanitized: list[Sanitized] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Return whether there were checks, none failed, and compute-sanitizer found nothing where it was run."""
        right = bool(self.checks) and all(check.passed for check in self.checks)
        return right and all(one.passed for one in self.sanitized)

    def json(self) -> str:
        """Return the report as JSON."""
        content = {"device": self.device, "sm": self.sm, "passed": self.passed}
        content["sanitized"] = [
            {"tool": one.tool, "passed": one.passed, "summary": one.summary} for one in self.sanitized
        ]
        return json.dumps({**content, "checks": [asdict(check) for check in self.checks]}, indent=1)

    def table(self) -> str:
        """Return one line a body pair and strategy: checks, failures, and the largest error beside its limit."""
        groups: dict[tuple[str, str], list[Check]] = {}
        for check in self.checks:
            groups.setdefault((check.bodies, check.strategy), []).append(check)
        width = max((len(bodies) for bodies, _ in groups), default=6)
        lines = [f"{'bodies':<{width}}  {'strategy':<34} checks failed  error/limit"]
        for (bodies, strategy), checks in groups.items():
            failed = sum(not check.passed for check in checks)
            worst = max((c for c in checks if c.error is not None and c.limit), key=_use, default=None)
            used = f"{worst.error:.1e}/{worst.limit:.1e}" if worst is not None and worst.limit else ""
            lines.append(f"{bodies:<{width}}  {strategy:<34} {len(checks):>6} {failed:>6}  {used}")
        for one in self.sanitized:
            lines.append(f"compute-sanitizer {one.tool}: {one.summary}{'' if one.passed else '  FAILED'}")
            lines += [] if one.passed else one.log.splitlines()[:_LOG_LINES]
        lines += [
            f"FAILED {c.bodies} {c.strategy}: {c.check} on {c.problems} {c.note}" for c in self.checks if not c.passed
        ]
        return "\n".join(lines)


def _use(check: Check) -> float:
    return (check.error or 0.0) / (check.limit or 1.0)


@dataclass(frozen=True, slots=True)
class Case:
    """Bodies that are run together, and the problems that each of them gets, pair by pair."""

    bodies: tuple[Body, Body]
    problems: tuple[tuple[Problem, Problem], ...]


# ---- what to check ----------------------------------------------------------------------------------------------


def bodies_for(sm: int) -> tuple[tuple[ComputeBody, ...], tuple[MemoryBody, ...]]:
    """Return the bodies of every kind that an architecture can run, compute and memory."""
    copies = {"asynchronous": sm >= 80}
    stages = 4 if sm >= 80 else 2
    gemm = ComputeBody("gemm", stages=stages, asynchronous=sm >= 80)
    three = 3 if sm >= 80 else 2
    convolution = ComputeBody("convolution_3x3", stages=three, asynchronous=sm >= 80)
    compute = [
        gemm,
        replace(gemm, tile_n=128, simt_threads=512),
        replace(gemm, tile_n=128),
        replace(gemm, tile_m=64, width=1),
        convolution,
        replace(convolution, width=1),
        replace(convolution, operation="convolution_1x1"),
    ]
    if sm >= 70:
        tensor = ComputeBody("convolution_3x3", "float16", tile_n=128, stages=three, mma=sm >= 80, width=8, **copies)
        compute += [
            tensor,
            replace(tensor, operation="convolution_1x1"),
            replace(tensor, operation="convolution_1x1", asynchronous=False, stages=2, width=1),
        ]
        if sm >= 80:
            deep = replace(tensor, operation="convolution_1x1", warp_n=64, tensor_depth=64)
            compute += [deep, replace(deep, prefetch=True), replace(convolution, tile_n=128, stages=2)]
    if sm >= 80:
        high = replace(convolution, tile_m=192, tile_n=128, simt_threads=384, stages=3)
        compute += [high, replace(tensor, tile_m=192, tile_n=128, stages=3, tensor_depth=64)]
        image = ConvolutionProblem(1, 14, 14, 64, 64, padding=1)
        compute += winograd_bodies(image, sm)
    if sm == 90:
        four = replace(tensor, wgmma=True, tensor_depth=64, warp_n=128)
        compute += [
            replace(four, tile_n=256, warp_n=256, prefetch=True),
            replace(four, operation="convolution_1x1", tile_m=192, prefetch=True, stages=4),
            replace(four, operation="convolution_1x1"),
        ]
    memory = [
        MemoryBody("layer_norm", rows=8),
        MemoryBody("layer_norm", width=1, chunks=5),
        MemoryBody("layer_norm", chunks=0),
        MemoryBody("layer_norm", "float16", 8, 2),
        MemoryBody("softmax", chunks=2, rows=2),
        MemoryBody("softmax", "float16", 1, 0),
        MemoryBody("skinny_gemm", rows=2),
        MemoryBody("skinny_gemm", "float16", 8, 2, 1, batch=4),
        MemoryBody("embedding", chunks=2, rows=4),
        MemoryBody("embedding", "float16", 1, 4),
        MemoryBody("residual_gelu", rows=2),
        MemoryBody("residual_gelu", "float16", 8, 2),
        MemoryBody("copy", width=1),
        MemoryBody("layer_norm", rows=8, together=2, exact=True),
        MemoryBody("softmax", "float16", 8, 2, rows=4, together=2, exact=True),
        MemoryBody("softmax", chunks=10, rows=8, short=True),
        MemoryBody("softmax", "float16", 8, 3, rows=8, short=True),
        MemoryBody("skinny_gemm", rows=4, exact=True),
        MemoryBody("embedding", "float16", 8, 2, rows=4, exact=True),
        MemoryBody("residual_gelu", rows=2, exact=True),
    ]
    if sm >= 80:
        memory += [
            MemoryBody("layer_norm", rows=4, stages=3, together=2),
            MemoryBody("layer_norm", "float16", 8, 2, stages=3, exact=True),
            MemoryBody("softmax", rows=4, stages=4, together=2, exact=True),
            MemoryBody("softmax", chunks=7, rows=16, stages=5, short=True),
            MemoryBody("skinny_gemm", rows=2, stages=3, exact=True),
            MemoryBody("embedding", chunks=2, rows=4, stages=5),
            MemoryBody("residual_gelu", rows=2, stages=2, exact=True),
        ]
    return tuple(compute), tuple(memory)


def problems_for(body: Body, scale: int = 1) -> tuple[Problem, Problem, Problem, Problem]:
    """Return problems that a body can solve: two odd ones, one of a single row, and an empty one.

    `scale` multiplies the rows, for devices that are faster than an emulation.
    """
    if isinstance(body, MemoryBody):
        return _memory_problems(body, scale)
    width = body.width
    if body.operation == "gemm":

        def gemm(rows: int, outputs: int, depth: int, *, bias: bool = False, relu: bool = False) -> GemmProblem:
            return GemmProblem(rows, outputs, depth, bias, relu)

        many = body.tile_m * (1 + scale) + 3 * width
        return (
            gemm(many, body.tile_n + 5 * width, 37, bias=True),
            gemm(3 * width, body.tile_n, 64, relu=True),
            gemm(width, width, 1),
            gemm(0, width, 16),
        )
    side: Literal[1, 3] = 3 if body.operation == "convolution_3x3" else 1

    def convolution(images: int, size: int, channels: int, outputs: int, **options: Any) -> ConvolutionProblem:
        return ConvolutionProblem(
            images, size, size + 2, channels, outputs, filter_size=side, dtype=body.dtype, **options
        )

    padding = 1 if side == 3 else 0
    return (
        convolution(2 * scale, 9, 3 * width + body.depth, body.tile_n + 3, padding=padding, bias=True),
        # An odd image without a border, of which Winograd's tiles reach over two edges.
        convolution(1, 11, 2 * width, 6, relu=True)
        if body.winograd
        else convolution(1, 11, 2 * width, 6, stride=2, padding=padding, relu=True),
        convolution(1, side, width, 1),
        convolution(0, 8, width, 8),
    )


def _memory_problems(body: MemoryBody, scale: int) -> tuple[Problem, Problem, Problem, Problem]:
    """Return problems with odd numbers of rows, of odd lengths where the body takes them."""
    width, dtype = body.width, body.dtype
    held = 32 * width * body.chunks if body.chunks else 32 * width * 3
    # Lengths of rows: shorter than a piece, a piece, and the shortest; longer than two pieces; a bit more than a piece.
    short, whole, least = held - 3 * width, held, width
    long, more = held * 2 + 3 * width, held + 3 * width
    if body.exact:
        short, least, long, more = held, held, 3 * held, held
    elif body.short:
        lanes = 32 // width
        short, whole, least = lanes * body.chunks - 3, lanes * body.chunks, lanes * (body.chunks - 1) + 1
    rows = 203 * scale
    match body.operation:
        case "layer_norm":
            wide: list[Problem] = [
                LayerNormProblem(rows, short, dtype),
                LayerNormProblem(17, whole, dtype),
                LayerNormProblem(1, least, dtype),
                LayerNormProblem(0, whole, dtype),
            ]
        case "softmax":
            wide = [
                SoftmaxProblem(rows, short, dtype, 0.125),
                SoftmaxProblem(17, whole, dtype, 9.0),
                SoftmaxProblem(1, least, dtype),
                SoftmaxProblem(0, whole, dtype),
            ]
        case "skinny_gemm":
            wide = [
                SkinnyGemmProblem(body.batch, rows, long, dtype),
                SkinnyGemmProblem(body.batch, 17, whole, dtype, bias=False),
                SkinnyGemmProblem(body.batch, 1, least, dtype),
                SkinnyGemmProblem(body.batch, 0, whole, dtype),
            ]
        case "embedding":
            wide = [
                EmbeddingProblem(rows, more, 50, 77, dtype),
                EmbeddingProblem(17, whole, 5, 4, dtype),
                EmbeddingProblem(1, least, 1, 1, dtype),
                EmbeddingProblem(0, whole, 5, 7, dtype),
            ]
        case _:
            operation: Literal["residual_gelu", "copy"] = "copy" if body.operation == "copy" else "residual_gelu"
            wide = [
                ElementwiseProblem(operation, rows * held + (0 if body.exact else 5 * width), dtype),
                ElementwiseProblem(operation, 3 * held, dtype),
                ElementwiseProblem(operation, least, dtype),
                ElementwiseProblem(operation, 0, dtype),
            ]
    return wide[0], wide[1], wide[2], wide[3]


def together(first: Body, second: Body, scale: int = 1) -> Case:
    """Return the case of two bodies: odd sizes, one row, and every way of having nothing to do."""
    left, right = problems_for(first, scale), problems_for(second, scale)
    pairs = [(0, 0), (1, 1), (0, 1), (1, 0), (2, 2), (3, 0), (0, 3), (3, 3)]
    return Case((first, second), tuple((left[i], right[j]) for i, j in pairs))


def default_cases(sm: int, scale: int = 1) -> tuple[Case, ...]:
    """Return cases in which every body of an architecture meets a partner, and two of a kind meet as well."""
    compute, memory = bodies_for(sm)
    count = max(len(compute), len(memory))
    mixed = [together(compute[i % len(compute)], memory[i % len(memory)], scale) for i in range(count)]
    alike = [together(compute[0], compute[4], scale), together(memory[0], memory[6], scale)]
    return (*mixed, *alike)


def matching_cases(
    sm: int, scale: int = 1, only: Sequence[str] = (), *, every: int = 1, part: tuple[int, int] = (1, 1)
) -> tuple[Case, ...]:
    """Return some of the default cases.

    Args:
        sm: the architecture.
        scale: what the rows of the problems are multiplied with.
        only: patterns as of a shell, one of which the name of a body must match; none for all.
        every: take one of so many.
        part: which part, from 1 on, of how many.

    Raises:
        UsageError: no body matches.
    """
    found = [
        case
        for case in default_cases(sm, scale)
        if not only or any(fnmatch.fnmatchcase(body.name, pattern) for body in case.bodies for pattern in only)
    ]
    if not found:
        names = sorted({body.name for case in default_cases(sm) for body in case.bodies})
        raise UsageError(f"no body of sm_{sm} matches {', '.join(only)}; there are {', '.join(names)}.")
    return tuple(found[::every][part[0] - 1 :: part[1]])


def pair_strategies(first: Body, second: Body, sm: int) -> tuple[PairStrategy, ...]:
    """Return the strategies that can run two bodies together on an architecture."""
    found: list[PairStrategy] = []
    most = min(first.most_block_threads, second.most_block_threads)
    if second.block_granular or first.threads + 128 <= most:
        found += [IntraBlock(128), IntraBlock(128, drain=True)]
        if not second.block_granular and first.threads <= min(256, most - 256):
            found.append(IntraBlock(256))
        if isinstance(second, MemoryBody) and second.stages:
            found.append(IntraBlock(64))
            registers = _uneven_registers(first.threads)
            if sm >= 90 and registers:
                found += [IntraBlock(128, drain, registers=registers) for drain in (False, True)]
    found += [InterBlockStatic(order) for order in (Order.SPREAD, Order.PROPORTIONAL)]
    found += [InterBlockTicket(), InterBlockTicket(drain=True)]
    if first.block_granular and isinstance(second, MemoryBody) and not second.shared_bytes_of(32):
        found.append(IntraThread())
    if sm not in LIMITS:
        return tuple(found)
    room = LIMITS[sm].shared_bytes_per_block
    return tuple(one for one in found if pair_kernel(first, second, one).shared_bytes <= room)


def _uneven_registers(first_threads: int) -> tuple[int, int] | None:
    """Return registers of the threads of two groups, the second of 128 threads, that add up to those of a block.

    None where the first group has as many as a thread can have already.
    """
    threads, few = first_threads + 128, 64
    each = (registers_at_start(threads) * threads - few * 128) // first_threads // 8 * 8
    return (each, few) if each <= 240 else None


# ---- checking ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Bound:
    """The arrays of a problem on the device, the output between its guard zones."""

    runtime: Runtime
    problem: Problem
    inputs: Arrays
    buffers: dict[str, Buffer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for array in self.problem.arrays:
            buffer = self.runtime.allocate(array.bytes + 2 * GUARD_BYTES)
            self.buffers[array.name] = buffer
            if not array.output:
                self.runtime.upload(buffer.address + GUARD_BYTES, self.inputs[array.name])

    def addresses(self, role: str) -> dict[str, int]:
        return {f"{role}_{name}": buffer.address + GUARD_BYTES for name, buffer in self.buffers.items()}

    def poison(self) -> None:
        for array in self.problem.arrays:
            if array.output:
                start = self.buffers[array.name].address
                self.runtime.fill(start, array.bytes + 2 * GUARD_BYTES, GUARD)
                if array.bytes:
                    self.runtime.fill(start + GUARD_BYTES, array.bytes, POISON)

    def output(self) -> tuple[npt.NDArray[np.uint8], bool]:
        """Return the bytes of the output, and whether the guard zones are as they were."""
        array = next(array for array in self.problem.arrays if array.output)
        data = self.runtime.download(self.buffers[array.name].address, array.bytes + 2 * GUARD_BYTES)
        guards = np.concatenate([data[:GUARD_BYTES], data[GUARD_BYTES + array.bytes :]])
        return data[GUARD_BYTES : GUARD_BYTES + array.bytes], bool((guards == GUARD).all())

    def free(self) -> None:
        for buffer in self.buffers.values():
            self.runtime.free(buffer)


class _Checker:
    def __init__(self, runtime: Runtime, report: Report) -> None:
        self.runtime = runtime
        self.report = report
        self.executor = Executor(runtime)
        self.alone: dict[tuple[Body, Problem], npt.NDArray[np.uint8]] = {}

    def note(self, work: Launch, problems: Sequence[Problem], check: Any, passed: bool, **more: Any) -> None:
        bodies = " + ".join(body.name for body in work.kernel.bodies)
        shapes = "; ".join(_shape(problem) for problem in problems)
        self.report.checks.append(
            Check(bodies, strategy_name(work.kernel.strategy), shapes, check, bool(passed), **more)
        )

    def run(self, work: Launch, bound: Sequence[_Bound]) -> tuple[list[npt.NDArray[np.uint8]], bool]:
        for one in bound:
            one.poison()
        self.executor.submit(work, self.addresses(bound))
        self.executor.check()
        outputs = [one.output() for one in bound]
        return [data for data, _ in outputs], all(intact for _, intact in outputs)

    @staticmethod
    def addresses(bound: Sequence[_Bound]) -> dict[str, int]:
        addresses: dict[str, int] = {}
        for role, one in zip(("first", "second"), bound, strict=False):
            addresses |= one.addresses(role)
        return addresses

    def against_reference(self, body: Body, problem: Problem) -> None:
        if (body, problem) in self.alone:
            return
        bound = _Bound(self.runtime, problem, random_inputs(problem, seed=len(self.alone)))
        try:
            for strategy in (Alone(), Alone(threads=128), Persistent()):
                if strategy.threads and body.block_granular:
                    continue
                self.single(body, problem, bound, strategy)
        finally:
            bound.free()

    def single(self, body: Body, problem: Problem, bound: _Bound, strategy: SingleStrategy) -> None:
        work = self.launch(single_kernel(body, strategy), (problem,))
        (data,), intact = self.run(work, [bound])
        self.note(work, [problem], "guard zones", intact)
        if isinstance(strategy, Alone) and not strategy.threads:
            array = next(array for array in problem.arrays if array.output)
            output = data.view(array.dtype).reshape(array.shape)
            error, limit = relative_error(output, reference(problem, bound.inputs)), error_limit(problem)
            self.note(work, [problem], "reference", error <= limit, error=error, limit=limit)
            self.alone[body, problem] = data
        else:
            self.note(work, [problem], "same bits", np.array_equal(data, self.alone[body, problem]))
        (again,), _ = self.run(work, [bound])
        self.note(work, [problem], "repeated", np.array_equal(again, data))

    def launch(self, kernel: Kernel, problems: tuple[Problem, ...]) -> Launch:
        return launch(kernel, problems, sms=self.runtime.facts.sms, sm_ids=self.runtime.facts.sm_ids)

    def pair(self, case: Case, strategy: PairStrategy) -> None:
        kernel = pair_kernel(*case.bodies, strategy)
        for index, problems in enumerate(case.problems):
            work = self.launch(kernel, problems)
            bound = [
                _Bound(self.runtime, one, self.inputs_of(b, one)) for b, one in zip(case.bodies, problems, strict=True)
            ]
            try:
                wanted = [self.alone[b, one] for b, one in zip(case.bodies, problems, strict=True)]
                data, intact = self.run(work, bound)
                self.note(work, problems, "guard zones", intact)
                self.note(work, problems, "same bits", _equal(data, wanted))
                data, _ = self.run(work, bound)
                self.note(work, problems, "repeated", _equal(data, wanted))
                if index == 0:
                    self.note(work, problems, "graph replay", self.replayed(work, bound, wanted))
            finally:
                for one in bound:
                    one.free()

    def replayed(self, work: Launch, bound: list[_Bound], wanted: list[npt.NDArray[np.uint8]]) -> bool:
        addresses = self.addresses(bound)
        graph = self.runtime.capture(lambda stream: self.executor.submit(work, addresses, stream))
        same = True
        for _ in range(3):
            for one in bound:
                one.poison()
            self.runtime.synchronize()
            self.runtime.replay(graph)
            self.executor.check()
            same = same and _equal([one.output()[0] for one in bound], wanted)
        return same

    def inputs_of(self, body: Body, problem: Problem) -> Arrays:
        # The seeds of `against_reference`: problems are numbered in the order in which they were first solved.
        return random_inputs(problem, seed=list(self.alone).index((body, problem)))


def _equal(left: Sequence[npt.NDArray[np.uint8]], right: Sequence[npt.NDArray[np.uint8]]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(left, right, strict=True))


def _shape(problem: Problem) -> str:
    name = type(problem).__name__.removesuffix("Problem")
    return f"{name} {' '.join('x'.join(map(str, array.shape)) for array in problem.arrays)}"


def kernels_of(cases: Sequence[Case], sm: int) -> Iterator[Kernel]:
    """Yield every kernel that checking the cases on an architecture needs."""
    for case in cases:
        for body in case.bodies:
            yield single_kernel(body, Alone())
            yield single_kernel(body, Persistent())
            if not body.block_granular:
                yield single_kernel(body, Alone(threads=128))
        for strategy in pair_strategies(*case.bodies, sm):
            yield pair_kernel(*case.bodies, strategy)


def verify(
    runtime: Runtime,
    cases: Sequence[Case] | None = None,
    *,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Run every check and return the report.

    Args:
        runtime: the device.
        cases: what to check; default: all bodies that the device can run.
        progress: is told what is being checked.
    """
    cases = default_cases(runtime.facts.sm) if cases is None else cases
    runtime.compile_ahead(list({kernel.name: kernel for kernel in kernels_of(cases, runtime.facts.sm)}.values()))
    report = Report(runtime.facts.name, runtime.facts.sm)
    checker = _Checker(runtime, report)
    for case in cases:
        for pair in case.problems:
            for body, problem in zip(case.bodies, pair, strict=True):
                checker.against_reference(body, problem)
        for strategy in pair_strategies(*case.bodies, runtime.facts.sm):
            if progress:
                progress(f"{case.bodies[0].name} + {case.bodies[1].name}: {strategy_name(strategy)}")
            try:
                checker.pair(case, strategy)
            except NitroError as error:
                work = checker.launch(pair_kernel(*case.bodies, strategy), case.problems[0])
                checker.note(work, case.problems[0], "runs", False, note=str(error))
    return report
