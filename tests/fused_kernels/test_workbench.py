"""How ways are submitted and timed: order, overlap, rotation, results."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from fused_kernels.timed_runtime import TimedRuntime
from nitro.errors import ToolError
from nitro.fused_kernels.candidates import Candidate
from nitro.fused_kernels.compute_bodies import ComputeBody
from nitro.fused_kernels.memory_bodies import MemoryBody
from nitro.fused_kernels.problems import (
    ConvolutionProblem,
    EmbeddingProblem,
    GemmProblem,
    LayerNormProblem,
    Problem,
)
from nitro.fused_kernels.runtime_emulation import EmulatedRuntime
from nitro.fused_kernels.strategies import InterBlockTicket, IntraBlock, IntraThread, Kernel
from nitro.fused_kernels.ways import all_ways
from nitro.fused_kernels.workbench import Inputs, Workbench

GEMM = ComputeBody("gemm", tile_m=64, stages=4)
NORM = MemoryBody("layer_norm")
PROBLEMS: tuple[Problem, Problem] = (GemmProblem(128, 64, 16), LayerNormProblem(64, 512))


def cost_us(kernel: Kernel) -> float:
    if len(kernel.bodies) == 2:
        return 75.0
    return 60.0 if kernel.bodies[0].block_granular else 50.0


@pytest.fixture
def bench() -> Workbench:
    return Workbench(TimedRuntime(cost_us=cost_us), PROBLEMS)


@pytest.mark.parametrize(
    ("candidate", "expected_us"),
    [
        (Candidate("first", (GEMM, None)), 60),
        (Candidate("second", (None, NORM)), 50),
        (Candidate("second", (None, NORM), persistent=1, blocks_per_sm=2), 50),
        (Candidate("sequential", (GEMM, NORM)), 110),
        (Candidate("streams", (GEMM, NORM), submission="second, first"), 60),
        (Candidate("graph", (GEMM, NORM), submission="first, second"), 60),
        (Candidate("streams", (GEMM, NORM), submission="at once"), 60),
        (Candidate("elastic", (GEMM, NORM), submission="first, second", persistent=0), 60),
        (Candidate("intra_block", (GEMM, NORM), IntraBlock(128)), 75),
    ],
    ids=lambda value: value.family if isinstance(value, Candidate) else str(value),
)
def test_a_way_takes_the_time_of_its_launches(bench: Workbench, candidate: Candidate, expected_us: float) -> None:
    (samples,) = bench.sample([bench.prepare(candidate)], samples=3, repeats=2)
    assert samples == pytest.approx([expected_us] * 3)


@dataclass
class Ordered(TimedRuntime):
    """Writes down what is submitted where, and which stream waits for which."""

    log: list[tuple[str, Any, Any]] = field(default_factory=list)

    def launch(self, loaded: Any, grid: int, arguments: Any, stream: Any = None) -> None:
        self.log.append(("launch", stream, loaded.kernel.bodies[0].name))
        super().launch(loaded, grid, arguments, stream)

    def join(self, stream: Any, others: Any) -> None:
        self.log.append(("wait", stream, tuple(others)))
        super().join(stream, others)


def test_the_half_that_should_come_first_is_reached_first() -> None:
    runtime = Ordered(cost_us=cost_us)
    bench = Workbench(runtime, PROBLEMS)
    main, (one, two) = bench.main, bench.streams
    for submission, early, late, bodies in (
        ("first, second", one, two, (GEMM.name, NORM.name)),
        ("second, first", two, one, (NORM.name, GEMM.name)),
        ("at once", one, two, (GEMM.name, NORM.name)),
    ):
        way = bench._way(Candidate("streams", (GEMM, NORM), submission=submission))  # type: ignore[arg-type]
        runtime.log.clear()
        way.submit(0)
        assert runtime.log == [
            ("wait", early, (main,)),
            ("wait", late, (main if submission == "at once" else early,)),
            ("launch", early, bodies[0]),
            ("launch", late, bodies[1]),
            ("wait", main, (one, two)),
        ]


def test_the_capped_half_of_elastic_streams_comes_first(bench: Workbench) -> None:
    for way in (one for one in all_ways([GEMM], [NORM]) if one.family == "elastic"):
        assert bench._order(way)[0] == way.persistent


def test_priority_is_on_the_second_half(bench: Workbench) -> None:
    runtime = bench.runtime
    assert isinstance(runtime, TimedRuntime)
    bench.prepare(Candidate("streams", (GEMM, NORM), submission="second urgent"))
    assert bench.urgent.now_us > 0
    assert bench.streams[0].now_us > 0
    assert bench.streams[1].now_us == 0


def test_what_cannot_run_is_named_and_the_others_run(bench: Workbench) -> None:
    wrong = Candidate("second", (None, MemoryBody("softmax")))
    ways, failures = bench.prepare_all([Candidate("sequential", (GEMM, NORM)), wrong])
    assert [way.candidate.family for way in ways] == ["sequential"]
    assert failures == [f"{wrong.name}: a body for softmax cannot solve layer_norm; choose a body for layer_norm."]


def test_samples_are_taken_forwards_and_backwards(bench: Workbench) -> None:
    runtime = bench.runtime
    assert isinstance(runtime, TimedRuntime)
    ways = [bench.prepare(one) for one in (Candidate("first", (GEMM, None)), Candidate("second", (None, NORM)))]
    runtime.launches.clear()
    bench.sample(ways, samples=2, repeats=1)
    letters = "".join("g" if name.startswith("gemm") else "n" for name in runtime.launches)
    assert letters == "gnng"


def test_a_failing_kernel_ends_the_samples(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise ToolError("an illegal address was accessed.")

    way = bench.prepare(Candidate("first", (GEMM, None)))
    monkeypatch.setattr(type(bench.executor), "check", fail)
    with pytest.raises(ToolError, match="illegal address"):
        bench.sample([way], 1, 1)


# ---- inputs ----


def test_sets_are_larger_than_twice_the_l2_and_freed() -> None:
    runtime = EmulatedRuntime()
    inputs = Inputs(runtime, (LayerNormProblem(64, 512), LayerNormProblem(32, 512)))
    footprint = sum(array.bytes for rows in (64, 32) for array in LayerNormProblem(rows, 512).arrays)
    assert inputs.count * footprint > 2 * runtime.facts.l2_bytes
    assert len({frozenset(held.values()) for held in inputs.sets}) == inputs.count
    assert inputs.addresses(inputs.count + 1) == inputs.sets[1]
    assert inputs.addresses(1, role=1)["first_gamma"] == inputs.sets[1]["second_gamma"]
    inputs.free()
    assert runtime._memory == {}


def test_memory_bounds_the_sets() -> None:
    runtime = EmulatedRuntime()
    runtime.facts = replace(runtime.facts, memory_bytes=1 << 20, l2_bytes=1 << 30)
    assert Inputs(runtime, (LayerNormProblem(64, 512), LayerNormProblem(64, 512))).count == 1


def test_ids_are_inside_the_table() -> None:
    runtime = EmulatedRuntime()
    inputs = Inputs(runtime, (EmbeddingProblem(1000, 8, 50, 7), LayerNormProblem(1, 8)), largest_sets=1)
    ids = runtime.download(inputs.sets[0]["first_ids"], 4000).view("<i4")
    assert ids.min() >= 0
    assert 40 < ids.max() < 50


# ---- results, on the CPU ----


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is needed to emulate kernels")
@pytest.mark.parametrize(
    "candidate",
    [
        Candidate("intra_block", (None, None), IntraBlock(128)),
        Candidate("inter_block_ticket", (None, None), InterBlockTicket(drain=True), blocks_per_sm=2),
        Candidate("intra_thread", (None, None), IntraThread(), carveout_percent=100),
    ],
    ids=lambda candidate: str(candidate.family),
)
def test_fused_ways_have_the_bits_of_the_bodies_alone(candidate: Candidate) -> None:
    convolution = ConvolutionProblem(1, 9, 9, 16, 20, padding=1)
    body = ComputeBody("convolution_3x3", tile_m=64)
    bench = Workbench(EmulatedRuntime(), (convolution, LayerNormProblem(40, 512)))
    fused = replace(candidate, bodies=(body, NORM))
    assert bench.has_bits_of_the_bodies_alone(fused)
    # A way that does only half of the work leaves the poison of the other half.
    half = Candidate("elastic", (body, NORM), submission="second, first", persistent=1)
    assert bench.has_bits_of_the_bodies_alone(half)
    outputs = bench._outputs([bench._way(Candidate("first", (body, None)))])
    assert (outputs[-1] == 0xFF).all()
    assert not (outputs[0] == 0xFF).all()


def test_every_way_of_the_space_can_be_prepared(bench: Workbench) -> None:
    ways, failures = bench.prepare_all(all_ways([GEMM], [NORM]))
    assert failures == []
    assert len(ways) == len(all_ways([GEMM], [NORM]))
