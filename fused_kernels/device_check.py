"""Check and time the fused kernels on a machine with a GPU, without installing Nitro.

    PYTHONPATH=src OUT=results python -m nitro.fused_kernels.device_check [--quick] [--samples N] [--skip-bench]
    compute-sanitizer --tool racecheck python -m nitro.fused_kernels.device_check --scale 1 --part 1/3 --skip-bench

It needs numpy, cuda-core and NVRTC, and no network. JSON goes to the folder OUT (default: here), a short table to
standard output. The exit code is 1 if a check failed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any


def _library_gemm_us(rows: int, outputs: int, depth: int) -> float | None:
    """Return the time of cuBLAS (TF32 off) for the largest product, as torch runs it; None without torch."""
    try:
        torch: Any = importlib.import_module("torch")
        if not torch.cuda.is_available():
            return None
        torch.backends.cuda.matmul.allow_tf32 = False
        left = torch.rand(depth, rows, device="cuda") - 0.5
        right = torch.rand(depth, outputs, device="cuda") - 0.5
        times: list[float] = []
        for _ in range(15):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            left.t() @ right
            end.record()
            torch.cuda.synchronize()
            times.append(float(start.elapsed_time(end)) * 1e3)
    except (ImportError, RuntimeError, AttributeError) as error:
        print(f"no time of a library: {error}", file=sys.stderr)
        return None
    return sorted(times)[len(times) // 2]


def _bodies_alone(runtime: Any, samples: int) -> list[dict[str, Any]]:
    """Return how fast the bodies are alone on large problems, for every body that fits one."""
    from nitro.fused_kernels.bench import single_body
    from nitro.fused_kernels.bodies import choose
    from nitro.fused_kernels.compute_bodies import ComputeBody
    from nitro.fused_kernels.memory_bodies import MemoryBody
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

    sm = runtime.facts.sm
    asynchronous = sm >= 80
    gemm = GemmProblem(8448, 2048, 1024)
    rows: list[dict[str, Any]] = []
    product = ComputeBody("gemm", stages=4 if asynchronous else 2, asynchronous=asynchronous)
    tasks: list[tuple[Any, Any]] = [
        (product, gemm),
        (replace(product, tile_n=128, simt_threads=512), gemm),
        (replace(product, tile_n=128), gemm),
    ]
    problems: tuple[Problem, ...] = (
        ConvolutionProblem(32, 56, 56, 128, 128, padding=1),
        ConvolutionProblem(32, 28, 28, 512, 256, filter_size=1),
        LayerNormProblem(400_000, 512),
        SoftmaxProblem(400_000, 512),
        SkinnyGemmProblem(1, 100_000, 2048),
        EmbeddingProblem(200_000, 512, 49408, 77),
        ElementwiseProblem("residual_gelu", 200_000_000),
        ElementwiseProblem("copy", 200_000_000),
    )
    tasks += [(choose(problem, sm), problem) for problem in problems]
    tasks.append((MemoryBody("layer_norm", rows=8), LayerNormProblem(400_000, 512)))
    if sm >= 70:
        halves = linear(8448, 2048, 4096)
        tasks.append((choose(halves, sm), halves))
    if sm >= 80:
        wide = ComputeBody("convolution_1x1", "float16", tile_n=128, warp_n=64, tensor_depth=64, width=8)
        tasks.append((wide, linear(8448, 2048, 4096)))
    for body, problem in tasks:
        microseconds = single_body(runtime, body, problem, samples=samples)
        rows.append(
            {
                "body": body.name,
                "problem": str(problem),
                "us": microseconds,
                "tflop_per_s": problem.flop / microseconds * 1e-6,
                "gb_per_s": problem.streamed_bytes / microseconds * 1e-3,
            }
        )
    return rows


def _part(text: str) -> tuple[int, int]:
    """Return the numbers of a text such as 2/3, of which the first is not the larger one."""
    first, _, last = text.partition("/")
    if not (first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)):
        raise argparse.ArgumentTypeError(f"{text!r} is no part; write 2/3 for the second of three.")
    return int(first), int(last)


def main() -> int:
    """Run the checks, then a first benchmark, and write both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer pairs of bodies")
    parser.add_argument("--scale", type=int, default=4, metavar="N", help="rows of the problems; 1 for slow tools")
    parser.add_argument(
        "--part", type=_part, default=(1, 1), metavar="I/N", help="only the I-th of N parts of the pairs of bodies"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only pairs with a body of such a name, as 'gemm*'",
    )
    parser.add_argument("--progress", action="store_true", help="say on standard error what is being checked")
    parser.add_argument("--samples", type=int, default=15)
    parser.add_argument("--skip-verify", action="store_true")
    parser.add_argument("--skip-bench", action="store_true")
    chosen = parser.parse_args()
    out = Path(os.environ.get("OUT", "."))
    out.mkdir(parents=True, exist_ok=True)

    from nitro.errors import NitroError
    from nitro.fused_kernels import open_runtime
    from nitro.fused_kernels.bench import as_json, bench, table
    from nitro.fused_kernels.pairs import Pair
    from nitro.fused_kernels.problems import GemmProblem, LayerNormProblem, SkinnyGemmProblem, linear
    from nitro.fused_kernels.tuner import source_digest
    from nitro.fused_kernels.verify import matching_cases, verify

    try:
        runtime = open_runtime()
    except NitroError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    facts = runtime.facts
    print(json.dumps({**asdict(facts), "device_source": source_digest()}))
    passed = True
    if not chosen.skip_verify:
        start = time.monotonic()

        def say(text: str) -> None:
            print(f"{time.monotonic() - start:6.1f} s  {text}", file=sys.stderr, flush=True)

        try:
            cases = matching_cases(
                facts.sm, chosen.scale, chosen.only, every=4 if chosen.quick else 1, part=chosen.part
            )
        except NitroError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        report = verify(runtime, cases, progress=say if chosen.progress else None)
        (out / "verify.json").write_text(report.json(), encoding="utf-8")
        (out / "verify.txt").write_text(report.table(), encoding="utf-8")
        passed = report.passed
        failures = [check for check in report.checks if not check.passed]
        print(f"verify: {len(report.checks)} checks, {len(failures)} failed, {time.monotonic() - start:.0f} s")
        for check in failures[:20]:
            print(f"  FAILED {check.bodies} {check.strategy}: {check.check} on {check.problems} {check.note}")
    if not chosen.skip_bench:
        rows = _bodies_alone(runtime, chosen.samples)
        library = _library_gemm_us(8448, 2048, 1024)
        (out / "bodies.json").write_text(
            json.dumps({"device": asdict(facts), "bodies": rows, "cublas_gemm_us": library}, indent=1), encoding="utf-8"
        )
        for row in rows:
            rates = f"{row['tflop_per_s']:>7.1f} TF/s {row['gb_per_s']:>7.0f} GB/s"
            print(f"{row['body']:<44} {row['us']:>9.1f} us {rates}")
        if library:
            print(f"{'cuBLAS fp32 8448x2048x1024 (torch)':<44} {library:>9.1f} us")
        gemm = GemmProblem(8448, 2048, 1024)
        pairs = [
            (Pair("gemm+layer_norm", gemm, LayerNormProblem(200_000, 512)), (0.9, 0.5)),
            (Pair("gemm+gemv", gemm, SkinnyGemmProblem(1, 50_000, 2048)), (0.9,)),
        ]
        if facts.sm >= 80:
            product = linear(8448, 2048, 4096)
            pairs.append((Pair("linear fp16+layer_norm", product, LayerNormProblem(100_000, 512)), (0.5,)))
        results = [
            bench(runtime, pair, samples=chosen.samples, balance=ratio)
            for pair, ratios in pairs
            for ratio in (ratios[:1] if chosen.quick else ratios)
        ]
        (out / "bench.json").write_text(as_json(results, runtime), encoding="utf-8")
        print(table(results))
    print("passed" if passed else "FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
