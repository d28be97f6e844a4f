"""All ways to run a pair with given bodies, on a device whose times are known."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fused_kernels.timed_runtime import NoCompiler, TimedRuntime
from nitro.errors import UsageError
from nitro.fused_kernels import bench as bench_module
from nitro.fused_kernels.bench import as_json, balanced, bench, scaled, single_body, table
from nitro.fused_kernels.compute_bodies import ComputeBody
from nitro.fused_kernels.memory_bodies import MemoryBody
from nitro.fused_kernels.pairs import Pair
from nitro.fused_kernels.problems import (
    ElementwiseProblem,
    EmbeddingProblem,
    GemmProblem,
    LayerNormProblem,
    SkinnyGemmProblem,
    SoftmaxProblem,
)
from nitro.fused_kernels.strategies import InterBlockTicket, Kernel

PAIR = Pair("gemm+layer_norm", GemmProblem(256, 128, 16), LayerNormProblem(64, 512))


def cost_us(kernel: Kernel) -> float:
    if len(kernel.bodies) == 2:
        return 90.0 if kernel.strategy == InterBlockTicket() else 100.0
    return 60.0 if kernel.bodies[0].block_granular else 50.0


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> TimedRuntime:
    class Queue(NoCompiler):
        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(bench_module, "CompileQueue", Queue)
    return TimedRuntime(cost_us=cost_us)


def test_every_group_is_timed(runtime: TimedRuntime) -> None:
    lines: list[str] = []
    result = bench(runtime, PAIR, samples=5, repeats=2, progress=lines.append)
    assert {timing.group for timing in result.timings} == {
        "first",
        "second",
        "sequential",
        "streams",
        "graph",
        "elastic",
        "fused",
    }
    assert all(len(timing.samples_us) == 5 for timing in result.timings)
    numbers = result.summary()
    assert numbers["fused_us"] == pytest.approx(90)
    assert numbers["fused"].startswith("inter_block_ticket")
    assert numbers["sequential_us"] == pytest.approx(110)
    assert numbers["bound"] == pytest.approx(110 / 60)
    assert numbers["gain_over_simple"] == pytest.approx(60 / 90)
    assert lines == [f"gemm+layer_norm: {len(result.timings)} ways, 5 samples of 2 runs"]
    assert result.failures == ()


def test_results_as_text_and_json(runtime: TimedRuntime) -> None:
    result = bench(runtime, PAIR, samples=3)
    assert "gemm+layer_norm" in table([result])
    content = json.loads(as_json([result], runtime))
    assert content["device"]["name"] == "emulation on the CPU"
    assert content["pairs"][0]["summary"]["fused_us"] == pytest.approx(90)


def test_a_body_alone(runtime: TimedRuntime) -> None:
    assert single_body(runtime, MemoryBody("layer_norm"), LayerNormProblem(64, 512)) == pytest.approx(50)


def test_balance(runtime: TimedRuntime) -> None:
    bodies = (ComputeBody("gemm", stages=4), MemoryBody("layer_norm"))
    # Twice 0.6 * 60 / 50 of 64 rows, in steps of 8: 46 and then 33.
    assert balanced(runtime, (PAIR.first, PAIR.second), bodies, 0.6) == LayerNormProblem(32, 512)
    with pytest.raises(UsageError, match="GemmProblem: only memory-bound problems are scaled"):
        balanced(runtime, (PAIR.second, PAIR.first), bodies[::-1], 0.6)


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (LayerNormProblem(64, 512), LayerNormProblem(96, 512)),
        (SoftmaxProblem(10, 7), SoftmaxProblem(16, 7)),
        (SkinnyGemmProblem(1, 64, 512), SkinnyGemmProblem(1, 96, 512)),
        (EmbeddingProblem(1, 512, 50, 7), EmbeddingProblem(8, 512, 50, 7)),
        (ElementwiseProblem("copy", 4096), ElementwiseProblem("copy", 6144)),
    ],
)
def test_memory_bound_problems_are_scaled_in_whole_steps(problem: Any, expected: Any) -> None:
    assert scaled(problem, 1.5) == expected
