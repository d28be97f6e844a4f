"""Run a pair of independent kernels one after the other, in streams, or fused, for a profiler to record.

    PYTHONPATH=src python3 examples/fused_pair.py --way fused

The way is the one that won its kind in a study of fused kernels (`nitro-analyze fuse bench --json study.json`), by
default in the one of an H200 that comes with the sources. Every iteration is an NVTX range `infer:N` with `pair` and
`sync` in it, and every launch of the pair is in a range with the name of what it computes, such as `gemm`, or
`gemm+layer_norm` where it is fused.

Exit codes: 0 done, 2 wrong usage, 3 the study cannot be used, 5 a library or the GPU is missing or failed.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from nitro.errors import InputError, NitroError, ToolError
from nitro.fused_kernels import open_runtime
from nitro.fused_kernels.candidates import FUSED, SIMPLE, Candidate, Family
from nitro.fused_kernels.runtime import Executor, Handle, Runtime
from nitro.fused_kernels.strategies import Launch
from nitro.fused_kernels.study_results import CaseResult
from nitro.fused_kernels.study_store import read_document
from nitro.fused_kernels.subjects import Subject, subjects
from nitro.fused_kernels.ways import candidate_named
from nitro.fused_kernels.workbench import Workbench

STUDY = Path(__file__).parent.parent / "benchmarks" / "results" / "fusion_h200" / "study.json"
CASE = "gemm_f32+layer_norm@0.9"
# What `--way` takes; `fused` is the best of all fused ones.
WAYS: dict[str, tuple[Family, ...]] = {
    "fused": FUSED,
    **{family: (family,) for family in (*SIMPLE, "elastic", *FUSED)},
}

Mark = Callable[[str], AbstractContextManager[object]]


class MarkedExecutor(Executor):
    """Launches with a range around each of them, named by what it computes."""

    def __init__(self, runtime: Runtime, mark: Mark) -> None:
        """Use `mark` to open the ranges."""
        super().__init__(runtime)
        self.mark = mark

    def submit(
        self,
        launch: Launch,
        addresses: Mapping[str, int],
        stream: Handle | None = None,
        *,
        carveout_percent: int | None = None,
        slot: int = 0,
    ) -> None:
        """Submit a launch inside of a range."""
        with self.mark("+".join(body.operation for body in launch.kernel.bodies)):
            super().submit(launch, addresses, stream, carveout_percent=carveout_percent, slot=slot)


def winner_of(result: CaseResult, subject: Subject, way: str, sm: int) -> Candidate:
    """Return the candidate that won its kind in a study.

    Raises:
        InputError: the study did not measure this kind of way, or knows a candidate that is not among today's.
    """
    won = result.winner(*WAYS[way])
    if won is None:
        raise InputError(f"{result.name}: the study has no way of the kind {way!r}; choose another --way or --study.")
    candidate = candidate_named(won.name, (subject.first, subject.second), sm)
    if candidate is not None:
        return candidate
    raise InputError(f"{result.name}: sm_{sm} has no way called {won.name!r}; measure a study on this device.")


def read_case(study: Path, name: str) -> tuple[CaseResult, Subject, str]:
    """Return the result of a committed case, its problems, and the device of the study.

    Raises:
        InputError: the study cannot be read, or has no such case of these shapes.
    """
    results, content = read_document(study)
    device = str(content["identity"]["device"]["name"])
    subject = next(one for one in subjects() if one.name == name)
    problems = (str(subject.first), str(subject.second))
    for result in results:
        if result.name == name and result.problems == problems:
            return result, subject, device
    raise InputError(f"{study}: this study has no case {name} of these shapes; choose another --study.")


def run(bench: Workbench, candidate: Candidate, mark: Mark, *, warm_up: int, iterations: int, recorded: Mark) -> None:
    """Run a candidate again and again, and wait for the device in every iteration as a caller would.

    Args:
        bench: the pair; its executor marks launches.
        candidate: how to run it.
        mark: opens a range of the profiler.
        warm_up: iterations before recording.
        iterations: iterations that are recorded.
        recorded: what to be in while these run; is told the name of the candidate.

    Raises:
        ToolError: the device cannot run it.
    """
    way = bench.prepare(candidate)

    def iterate(index: int) -> None:
        with mark("pair"):
            way.submit(index)
        with mark("sync"):
            bench.runtime.synchronize()

    for index in range(warm_up):
        iterate(index)
    bench.executor.check()
    with recorded(candidate.name):
        for index in range(iterations):
            with mark(f"infer:{index}"):
                iterate(index)
    bench.executor.check()


def nvtx_ranges() -> Mark:
    """Return what opens an NVTX range on this thread.

    Raises:
        ToolError: PyTorch is missing.
    """
    try:
        nvtx: Any = importlib.import_module("torch.cuda.nvtx")
    except (ImportError, OSError) as error:
        raise ToolError(f"NVTX ranges need PyTorch, which cannot be imported ({error}); install it.") from error

    @contextmanager
    def mark(name: str) -> Iterator[None]:
        nvtx.range_push(name)
        try:
            yield
        finally:
            nvtx.range_pop()

    return mark


@contextmanager
def profiler_range(_: str) -> Iterator[None]:
    """Let a profiler that waits for it record what happens inside."""
    driver: Any = importlib.import_module("cuda.bindings.driver")
    driver.cuProfilerStart()
    try:
        yield
    finally:
        driver.cuProfilerStop()


def positive(text: str) -> int:
    """Return a command-line value as an integer of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; None stands for the program's own."""
    parser = argparse.ArgumentParser(
        prog="fused_pair.py",
        description="Run a pair of independent kernels in one of many ways, for a profiler to record.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--way", choices=tuple(WAYS), default="fused", help="how to run the pair")
    names = [one.name for one in subjects()]
    parser.add_argument("--case", choices=names, default=CASE, metavar="NAME", help=f"one of {', '.join(names)}")
    parser.add_argument("--study", type=Path, default=STUDY, help="where the ways were measured")
    parser.add_argument("--iterations", type=positive, default=40, help="iterations to record")
    parser.add_argument("--warm-up", type=positive, default=100, help="iterations before these")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the pair and return the exit code."""
    options = parse_options(arguments)
    try:
        result, subject, device = read_case(options.study, options.case)
        runtime = open_runtime()
        if runtime.facts.name != device:
            print(f"fused_pair.py: the ways won on {device}, this is {runtime.facts.name}.", file=sys.stderr)
        candidate = winner_of(result, subject, options.way, runtime.facts.sm)
        mark = nvtx_ranges()
        bench = Workbench(runtime, (subject.first, subject.second), executor=MarkedExecutor(runtime, mark))
        try:
            run(bench, candidate, mark, warm_up=options.warm_up, iterations=options.iterations, recorded=profiler_range)
        finally:
            bench.close()
    except NitroError as error:
        print(f"fused_pair.py: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{options.iterations} iterations of {subject.name}: {candidate.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
