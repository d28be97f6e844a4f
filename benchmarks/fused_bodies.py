#!/usr/bin/env python3
"""Time the device bodies alone against cuBLAS, cuDNN and torch's own kernels, and against a copy kernel.

    PYTHONPATH=src OUT=results python benchmarks/fused_bodies.py [--only NAME...] [--bounds] [--samples N]
    PYTHONPATH=src ncu ... python benchmarks/fused_bodies.py --only conv3x3_f32 --once     # every kernel once

It needs a GPU with torch, cuda-core and NVRTC. All ways to solve a problem share rotating arrays that together are
larger than twice the L2, and are timed in turn, forwards and then backwards. Library calls get their best: cuDNN's own
search (cudnn.benchmark), both memory layouts, TF32 off as the bodies do not use it, outputs given where the call takes
them. Every body's result is compared with a library's.

fused_bodies.json goes to the folder OUT (default: here), a table to standard output. `of lib` is the rate over that of
the library's fastest call, whatever its algorithm: for fp32 convolutions cuDNN may choose an FFT, which does fewer
operations than it is credited with. `of same` compares with cuDNN's fastest direct algorithm, the one that the bodies
use. `of copy` is the bandwidth over that of our copy kernel, by bytes that must move.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nitro.errors import NitroError, ToolError
from nitro.fused_kernels import cases, open_runtime
from nitro.fused_kernels.bodies import Body, candidates
from nitro.fused_kernels.compute_bodies import ComputeBody
from nitro.fused_kernels.problems import (
    ConvolutionProblem,
    ElementwiseProblem,
    EmbeddingProblem,
    GemmProblem,
    LayerNormProblem,
    Problem,
    SkinnyGemmProblem,
    SoftmaxProblem,
    linear,
)
from nitro.fused_kernels.runtime import Executor, Runtime
from nitro.fused_kernels.strategies import Alone, Kernel, launch, single_kernel

if __name__ == "__main__":
    # Kernels are compiled in processes that import this file again, and must not wait for torch.
    try:
        import torch
        import torch.nn.functional as functional
    except ImportError as error:
        print(f"fused_bodies: this needs PyTorch, which cannot be imported ({error}); install torch.", file=sys.stderr)
        sys.exit(ToolError.exit_code)

Tensors = dict[str, Any]
# What a sample should last at least, so that an event's resolution does not matter.
SAMPLE_US = 800.0


def _vision(name: str, **shape: int) -> Problem:
    side = 3 if name.startswith("conv3x3") else 1
    dtype = "float16" if name.endswith("f16") else "float32"
    if name.startswith("gemm"):
        rows, outputs, inner = shape["m"], shape["n"], shape["k"]
        return GemmProblem(rows, outputs, inner) if dtype == "float32" else linear(rows, outputs, inner)
    return ConvolutionProblem(
        shape["batch"],
        shape["height"],
        shape["width"],
        shape["c_in"],
        shape["c_out"],
        filter_size=3 if side == 3 else 1,
        padding=side // 2,
        dtype="float16" if dtype == "float16" else "float32",
    )


def problems() -> dict[str, Problem]:
    """Return the problems by name: the shapes of `cases.py`, and others of real models that suit tiles less well."""
    hidden, vocabulary = cases.HIDDEN, cases.VOCABULARY
    # The copy first: the others are compared with it.
    found: dict[str, Problem] = {"copy": ElementwiseProblem("copy", 150_000_000)}
    found |= {name: _vision(name, **shape) for name, shape in cases.COMPUTE_SHAPES.items()}
    found |= {
        "gemm_f32 8448": GemmProblem(8448, 2048, 1024),
        "gemm_f32 197 tokens": GemmProblem(8 * 197 + 4, 3072, 768),
        "conv3x3_f32 56": ConvolutionProblem(32, 56, 56, 64, 64, padding=1),
        "conv3x3_f32 14": ConvolutionProblem(64, 14, 14, 256, 256, padding=1),
        "conv3x3_f32 7, batch 8": ConvolutionProblem(8, 7, 7, 512, 512, padding=1),
        "conv3x3_f32 stride 2": ConvolutionProblem(32, 56, 56, 128, 128, stride=2, padding=1),
        "conv1x1_f32 28": ConvolutionProblem(32, 28, 28, 512, 128, filter_size=1),
        "conv1x1_f32 56": ConvolutionProblem(32, 56, 56, 64, 256, filter_size=1),
        "gemm_f16 8448": linear(8448, 2048, 4096),
        "conv3x3_f16 14": ConvolutionProblem(64, 14, 14, 256, 256, padding=1, dtype="float16"),
        "layer_norm": LayerNormProblem(300_000, hidden),
        "layer_norm 768": LayerNormProblem(200_000, 768),
        "layer_norm f16": LayerNormProblem(600_000, hidden, "float16"),
        "softmax": SoftmaxProblem(300_000, hidden),
        "softmax 77": SoftmaxProblem(1_500_000, 77),
        "gemv": SkinnyGemmProblem(1, 65_536, cases.GEMV_COLUMNS),
        "gemv f16": SkinnyGemmProblem(1, 131_072, cases.GEMV_COLUMNS, "float16"),
        "embedding": EmbeddingProblem(77 * 3900, hidden, vocabulary, 77),
        "embedding 768": EmbeddingProblem(77 * 2600, 768, vocabulary, 77),
        "residual_gelu": ElementwiseProblem("residual_gelu", 100_000_000),
    }
    return found


# ---- arrays -----------------------------------------------------------------------------------------------------


def _tensors(problem: Problem, seed: int) -> Tensors:
    generator = torch.Generator("cuda").manual_seed(seed)
    found: Tensors = {}
    for array in problem.arrays:
        kind = getattr(torch, array.dtype)
        if array.output:
            found[array.name] = torch.full(array.shape, float("nan"), device="cuda", dtype=kind)
        elif array.dtype == "int32":
            assert isinstance(problem, EmbeddingProblem)
            found[array.name] = torch.randint(
                problem.vocabulary, array.shape, device="cuda", dtype=kind, generator=generator
            )
        else:
            found[array.name] = torch.empty(array.shape, device="cuda", dtype=kind).uniform_(-1, 1, generator=generator)
    return found


def rotating(problem: Problem, runtime: Runtime) -> list[Tensors]:
    """Return sets of arrays that together are larger than twice the L2."""
    size = sum(array.bytes for array in problem.arrays)
    count = min(32, max(2, -(-2 * runtime.facts.l2_bytes // max(size, 1)) + 1))
    return [_tensors(problem, seed) for seed in range(count)]


# ---- ways to solve a problem --------------------------------------------------------------------------------------


@dataclass
class Way:
    """One way to solve a problem: a body under a launch bound, or a call of a library."""

    name: str
    kind: str
    run: Callable[[int], Any]
    facts: dict[str, Any] = field(default_factory=dict)
    samples_us: list[float] = field(default_factory=list)

    @property
    def median_us(self) -> float:
        """Return the median of the samples."""
        return statistics.median(self.samples_us)


def library_calls(problem: Problem, sets: list[Tensors]) -> Iterator[tuple[str, Callable[[int], Any]]]:
    """Yield the library's ways to compute the same, each with the arrays that it needs beside ours."""
    count = len(sets)

    def of(one: int) -> Tensors:
        return sets[one % count]

    match problem:
        case GemmProblem():
            yield "cuBLAS, K-major", lambda i: torch.mm(of(i)["left"].t(), of(i)["right"], out=of(i)["theirs"])
            rows = [(one["left"].t().contiguous(), one["right"].t().contiguous()) for one in sets]
            yield (
                "cuBLAS, rows",
                lambda i: torch.mm(rows[i % count][0], rows[i % count][1].t(), out=of(i)["theirs"]),
            )
        case ConvolutionProblem():
            yield from _convolution_calls(problem, sets)
        case LayerNormProblem():
            yield (
                "torch layer_norm",
                lambda i: functional.layer_norm(
                    of(i)["x"], (problem.columns,), of(i)["gamma"], of(i)["beta"], problem.epsilon
                ),
            )
        case SoftmaxProblem():
            yield "torch softmax", lambda i: torch.softmax(of(i)["x"], 1)
        case SkinnyGemmProblem():
            yield "cuBLAS, linear", lambda i: functional.linear(of(i)["x"], of(i)["weights"], of(i)["bias"])
            if problem.batch == 1:
                yield (
                    "cuBLAS, GEMV",
                    lambda i: torch.addmv(of(i)["bias"], of(i)["weights"], of(i)["x"][0]).unsqueeze(0),
                )
        case EmbeddingProblem():
            # Needs whole sequences, as a text tower has them.
            shape = (-1, problem.sequence, problem.columns)

            def embed(i: int) -> Any:
                return functional.embedding(of(i)["ids"], of(i)["table"]).view(shape).add_(of(i)["positions"])

            yield "torch embedding + add", embed
        case ElementwiseProblem(operation="copy"):
            yield "torch copy_", lambda i: of(i)["theirs"].copy_(of(i)["x"])
        case ElementwiseProblem():
            yield "torch add + gelu", lambda i: functional.gelu(of(i)["x"] + of(i)["residual"])


# cudnnConvolutionFwdAlgo_t
DIRECT_ALGORITHMS = {"implicit GEMM": 0, "implicit precomputed GEMM": 1, "GEMM": 2}


class DirectConvolution:
    """cuDNN's convolution by a named algorithm, which torch does not let one choose."""

    _FLOAT, _CROSS_CORRELATION, _FMA_MATH = 0, 1, 3

    def __init__(self, problem: ConvolutionProblem, algorithm: int, *, channels_last: bool) -> None:
        """Prepare the descriptors and the workspace.

        Raises:
            OSError: cuDNN cannot be loaded.
            RuntimeError: cuDNN does not do this.
        """
        self._library = ctypes.CDLL(f"libcudnn.so.{torch.backends.cudnn.version() // 10000}")
        self._algorithm = algorithm
        self._handle, self._x, self._weights, self._y, self._convolution = (ctypes.c_void_p() for _ in range(5))
        of, one = problem, ctypes.byref
        self._call("Create", one(self._handle))
        for descriptor, kind in ((self._x, "Tensor"), (self._weights, "Filter"), (self._y, "Tensor")):
            self._call(f"Create{kind}Descriptor", one(descriptor))
        self._call("CreateConvolutionDescriptor", one(self._convolution))
        layout, side = int(channels_last), of.filter_size
        sizes = (of.images, of.channels, of.height, of.width)
        self._call("SetTensor4dDescriptor", self._x, layout, self._FLOAT, *sizes)
        self._call("SetFilter4dDescriptor", self._weights, self._FLOAT, layout, of.outputs, of.channels, side, side)
        sizes = (of.images, of.outputs, of.out_height, of.out_width)
        self._call("SetTensor4dDescriptor", self._y, layout, self._FLOAT, *sizes)
        steps = (of.padding, of.padding, of.stride, of.stride, 1, 1)
        self._call("SetConvolution2dDescriptor", self._convolution, *steps, self._CROSS_CORRELATION, self._FLOAT)
        self._call("SetConvolutionMathType", self._convolution, self._FMA_MATH)
        size = ctypes.c_size_t()
        places = (self._x, self._weights, self._convolution, self._y, algorithm)
        self._call("GetConvolutionForwardWorkspaceSize", self._handle, *places, one(size))
        self._workspace = torch.empty(max(size.value, 1), device="cuda", dtype=torch.uint8)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, f"cudnn{name}")(*arguments)
        if status:
            raise RuntimeError(f"cudnn{name} says {status}")

    def run(self, x: Any, weights: Any, y: Any) -> None:
        """Submit to torch's current stream."""
        self._call("SetStream", self._handle, ctypes.c_void_p(torch.cuda.current_stream().cuda_stream))
        one, zero = ctypes.byref(ctypes.c_float(1)), ctypes.byref(ctypes.c_float(0))
        pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, weights, self._workspace, y)]
        size = ctypes.c_size_t(self._workspace.numel())
        inputs = (self._x, pointers[0], self._weights, pointers[1], self._convolution, self._algorithm)
        self._call("ConvolutionForward", self._handle, one, *inputs, pointers[2], size, zero, self._y, pointers[3])


def direct_calls(problem: Problem, sets: list[Tensors]) -> Iterator[tuple[str, Callable[[int], Any]]]:
    """Yield cuDNN's direct algorithms for an fp32 convolution, as far as it has them for this problem."""
    if not isinstance(problem, ConvolutionProblem) or problem.dtype != "float32" or problem.width == 1:
        return
    count = len(sets)
    turned = [
        (one["x"].permute(0, 3, 1, 2).contiguous(), one["weights"].permute(0, 3, 1, 2).contiguous()) for one in sets
    ]
    for channels_last in (False, True):
        arrays = [(one["x"], one["weights"]) for one in sets] if channels_last else turned
        for name, number in DIRECT_ALGORITHMS.items():
            try:
                call = DirectConvolution(problem, number, channels_last=channels_last)
                call.run(*arrays[0], sets[0]["theirs"])
            except (OSError, RuntimeError):
                continue

            def run(i: int, call: DirectConvolution = call, arrays: list[Any] = arrays) -> None:
                call.run(*arrays[i % count], sets[i % count]["theirs"])

            yield f"cuDNN {name}, {'NHWC' if channels_last else 'NCHW'}", run


def _convolution_calls(problem: ConvolutionProblem, sets: list[Tensors]) -> Iterator[tuple[str, Callable[[int], Any]]]:
    count = len(sets)
    options = {"stride": problem.stride, "padding": problem.padding}
    # Our arrays are NHWC and KRSC; seen as NCHW and KCRS they are torch's channels_last.
    last = [(one["x"].permute(0, 3, 1, 2), one["weights"].permute(0, 3, 1, 2)) for one in sets]

    def channels_last(i: int) -> Any:
        return functional.conv2d(*last[i % count], **options).permute(0, 2, 3, 1)

    first = [(x.contiguous(), weights.contiguous()) for x, weights in last]

    def channels_first(i: int) -> Any:
        return functional.conv2d(*first[i % count], **options).permute(0, 2, 3, 1)

    is_linear = problem.height == 1 or problem.width == 1
    if not is_linear:
        yield "cuDNN, channels_last", channels_last
        yield "cuDNN, NCHW", channels_first
    if problem.filter_size == 1 and problem.stride == 1:
        flat = [(one["x"].view(-1, problem.channels), one["weights"].view(problem.outputs, -1).t()) for one in sets]
        outs = [one["theirs"].view(-1, problem.outputs) for one in sets]

        def product(i: int) -> Any:
            return torch.mm(*flat[i % count], out=outs[i % count]).view(problem.arrays[-1].shape)

        yield "cuBLAS", product


def bodies_of(problem: Problem, sm: int, chosen: argparse.Namespace) -> list[tuple[Body, int | None]]:
    """Return the bodies to time, each with the blocks an SM that it is compiled for, None for its own choice."""
    found: list[tuple[Body, int | None]] = []
    for body in candidates(problem, sm):
        if not chosen.body or any(word in body.name for word in chosen.body):
            bounds = range(1, 5) if chosen.bounds and isinstance(body, ComputeBody) else ()
            found += [(body, bound) for bound in (None, *bounds)]
    return found


class Bench:
    """The ways to solve one problem, checked and timed."""

    def __init__(
        self, runtime: Runtime, name: str, problem: Problem, bodies: Sequence[tuple[Body, int | None]]
    ) -> None:
        """Make the arrays and every way; what cannot be compiled or launched is noted."""
        self.runtime, self.name, self.problem = runtime, name, problem
        self.executor = Executor(runtime)
        self.stream = torch.cuda.Stream()
        self.failures: list[str] = []
        with torch.cuda.stream(self.stream):
            self.sets = rotating(problem, runtime)
            for one in self.sets:
                one["theirs"] = torch.empty_like(one["y"])
            self.ways = [Way(call, "library", run) for call, run in library_calls(problem, self.sets)]
            self.ways += [Way(call, "library, same", run) for call, run in direct_calls(problem, self.sets)]
        for body, bound in bodies:
            self._add(body, bound)

    def _add(self, body: Body, bound: int | None) -> None:
        try:
            self.ways.append(self._body(body, bound))
        except NitroError as error:
            self.failures.append(f"{body.name}: {error}")

    def _body(self, body: Body, bound: int | None) -> Way:
        kernel: Kernel = single_kernel(body, Alone(min_blocks=bound))
        loaded = self.executor.load(kernel)
        if loaded.blocks_per_sm == 0:
            raise NitroError("no block of it fits on an SM")
        work = launch(kernel, (self.problem,), sms=self.runtime.facts.sms, sm_ids=self.runtime.facts.sm_ids)
        places = [
            {f"first_{array.name}": one[array.name].data_ptr() for array in self.problem.arrays} for one in self.sets
        ]
        found = loaded.resources
        facts = {
            "body": body.name,
            "min_blocks": bound,
            "registers": found.registers,
            "spill_bytes": (found.spill_store_bytes or 0) + (found.spill_load_bytes or 0),
            "blocks_per_sm": loaded.blocks_per_sm,
            "tiles": work.grid,
        }
        name = body.name + (f"_m{bound}" if bound is not None else "")
        return Way(name, "body", lambda i: self.executor.submit(work, places[i % len(places)], self.stream), facts)

    def check(self) -> None:
        """Run every way once, and compare the bodies' results with the library's."""
        wanted = None
        for way in self.ways:
            with torch.cuda.stream(self.stream):
                for index in range(len(self.sets)):  # cuDNN searches once for a shape, cuBLAS loads its kernels
                    result = way.run(index) if way.kind != "body" or index == 0 else None
                    if index == 0 and result is not None and wanted is None:
                        wanted = result.double().reshape(-1)
                if way.kind == "body" and wanted is not None:
                    ours = self.sets[0]["y"]
                    error = (ours.double().reshape(-1) - wanted).norm() / wanted.norm()
                    way.facts["difference"] = float(error)
                    ours.fill_(float("nan"))
        self.runtime.synchronize()

    def time(self, samples: int) -> None:
        """Time all ways in turn."""
        for way in self.ways:
            self._sample(way, 0, 1)
        repeats = [max(1, min(50, round(SAMPLE_US / self._sample(way, 1, 1)))) for way in self.ways]
        order = list(zip(self.ways, repeats, strict=True))
        for sample in range(samples):
            for way, repeat in order if sample % 2 == 0 else reversed(order):
                way.samples_us.append(self._sample(way, sample * repeat, repeat))

    def _sample(self, way: Way, index: int, repeats: int) -> float:
        with torch.cuda.stream(self.stream):
            # Submitting takes tens of microseconds, which must not be timed.
            self.runtime.delay(100.0 + 60.0 * repeats, self.stream)
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for repeat in range(repeats):
                way.run(index + repeat)
            end.record()
            end.synchronize()
        return float(start.elapsed_time(end)) * 1e3 / repeats

    def once(self) -> None:
        """Run every way once, for a profiler."""
        with torch.cuda.stream(self.stream):
            for way in self.ways:
                way.run(0)
        self.runtime.synchronize()

    def name_kernels(self) -> None:
        """Note which kernels the library ran."""
        for way in self.ways:
            if way.kind == "body":
                continue
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
                with torch.cuda.stream(self.stream):
                    way.run(0)
                torch.cuda.synchronize()
            way.facts["kernels"] = [event.key for event in profile.key_averages()]

    def result(self) -> dict[str, Any]:
        """Return the numbers of every way, the fastest of its kind first."""
        rows = []
        for way in sorted(self.ways, key=lambda one: (one.kind, one.median_us)):
            quartiles = statistics.quantiles(way.samples_us, n=4)
            rows.append(
                {
                    "name": way.name,
                    "kind": way.kind,
                    "us": way.median_us,
                    "quartiles_us": [quartiles[0], quartiles[2]],
                    "tflop_per_s": self.problem.flop / way.median_us * 1e-6,
                    "gb_per_s": self.problem.streamed_bytes / way.median_us * 1e-3,
                    **way.facts,
                }
            )
        return {
            "name": self.name,
            "problem": str(self.problem),
            "flop": self.problem.flop,
            "streamed_bytes": self.problem.streamed_bytes,
            "array_sets": len(self.sets),
            "ways": rows,
            "failures": self.failures,
        }


# ---- the whole benchmark ------------------------------------------------------------------------------------------


def table(
    results: Sequence[dict[str, Any]], copy_gb_per_s: float | None, all_ways: bool, *, header: bool = True
) -> str:
    """Return a line for the best body and library call of every problem, or for all of them."""
    titles = f"{'us':>9} {'TF/s':>7} {'GB/s':>7} {'of lib':>7} {'of same':>7} {'of copy':>7} regs spill blk"
    lines = [f"{'problem':<24} {'way':<46} {titles}"] if header else []
    for result in results:
        library = min((way["us"] for way in result["ways"] if way["kind"] != "body"), default=None)
        same = min((way["us"] for way in result["ways"] if way["kind"] == "library, same"), default=None)
        seen: set[str] = set()
        for way in result["ways"]:
            if not all_ways and way["kind"] in seen:
                continue
            seen.add(way["kind"])
            of_library = f"{library / way['us']:>7.1%}" if library else " " * 7
            of_same = f"{same / way['us']:>7.1%}" if same else " " * 7
            of_copy = f"{way['gb_per_s'] / copy_gb_per_s:>7.1%}" if copy_gb_per_s else " " * 7
            needs = (
                f"{way['registers']:>4} {way['spill_bytes']:>5} {way['blocks_per_sm']:>3}" if "registers" in way else ""
            )
            lines.append(
                f"{result['name']:<24} {way['name']:<46} {way['us']:>9.1f} {way['tflop_per_s']:>7.1f} "
                f"{way['gb_per_s']:>7.0f} {of_library} {of_same} {of_copy} {needs}"
            )
        lines += [f"{result['name']:<24} did not run: {failure}" for failure in result["failures"]]
    return "\n".join(lines)


def measured(runtime: Runtime, name: str, problem: Problem, chosen: argparse.Namespace) -> dict[str, Any] | None:
    """Return the result of one problem, or None after a run for a profiler."""
    bench = Bench(runtime, name, problem, bodies_of(problem, runtime.facts.sm, chosen))
    bench.check()
    if chosen.once:
        bench.once()
        return None
    before = runtime.clocks_mhz()
    bench.time(chosen.samples)
    after = runtime.clocks_mhz()
    bench.name_kernels()
    return {**bench.result(), "clocks_before_mhz": before, "clocks_after_mhz": after}


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="problems whose names begin so")
    parser.add_argument("--body", nargs="+", metavar="WORD", help="only bodies with such a word in the name")
    parser.add_argument("--bounds", action="store_true", help="compile compute bodies for 1 to 4 blocks an SM as well")
    parser.add_argument("--samples", type=int, default=15)
    parser.add_argument("--once", action="store_true", help="run everything once and time nothing, for a profiler")
    parser.add_argument("--all", action="store_true", help="print every way, and not the best alone")
    chosen = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    try:
        runtime = open_runtime()
    except NitroError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    wanted = {
        name: problem
        for name, problem in problems().items()
        if not chosen.only or any(name.startswith(word) for word in chosen.only)
    }
    tasks = [one for problem in wanted.values() for one in bodies_of(problem, runtime.facts.sm, chosen)]
    runtime.compile_ahead([single_kernel(body, Alone(min_blocks=bound)) for body, bound in dict.fromkeys(tasks)])
    results: list[dict[str, Any]] = []
    for name, problem in wanted.items():
        result = measured(runtime, name, problem, chosen)
        torch.cuda.empty_cache()
        if result:
            results.append(result)
            keep(runtime, results, chosen)
            print(table([result], copy_rate(results), chosen.all, header=len(results) == 1), flush=True)
    return 0


def copy_rate(results: Sequence[dict[str, Any]]) -> float | None:
    """Return the bandwidth of our copy kernel, if it was measured already."""
    copies = [way for result in results if result["name"] == "copy" for way in result["ways"] if way["kind"] == "body"]
    return max((way["gb_per_s"] for way in copies), default=None)


def keep(runtime: Runtime, results: Sequence[dict[str, Any]], chosen: argparse.Namespace) -> None:
    """Write what has been measured so far."""
    content = {
        "device": asdict(runtime.facts),
        "versions": {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()},
        "settings": {"samples": chosen.samples, "tf32": False, "cudnn_benchmark": True},
        "copy_gb_per_s": copy_rate(results),
        "problems": results,
    }
    out = Path(os.environ.get("OUT", "."))
    out.mkdir(parents=True, exist_ok=True)
    (out / "fused_bodies.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
