"""What the kernels compute, on the CPU: some bodies and every strategy. `fuse verify --emulate` runs all of them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

from nitro.errors import ToolError
from nitro.fused_kernels import runtime_emulation, verify
from nitro.fused_kernels.bodies import choose
from nitro.fused_kernels.compute_bodies import ComputeBody
from nitro.fused_kernels.memory_bodies import MemoryBody, _of_short_rows
from nitro.fused_kernels.problems import (
    DType,
    ElementwiseProblem,
    EmbeddingProblem,
    GemmProblem,
    LayerNormProblem,
    Problem,
    SoftmaxProblem,
)
from nitro.fused_kernels.references import Arrays, error_limit, random_inputs, reference, relative_error
from nitro.fused_kernels.runtime_emulation import EmulatedRuntime
from nitro.fused_kernels.strategies import (
    Alone,
    InterBlockStatic,
    InterBlockTicket,
    IntraBlock,
    Order,
    PairStrategy,
    launch,
    single_kernel,
)
from nitro.fused_kernels.verify import Case, together

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is needed to emulate kernels")


WGMMA = ComputeBody("convolution_3x3", "float16", tile_n=64, warp_n=64, tensor_depth=64, stages=3, width=8, wgmma=True)


def check(sm: int, case: Case, strategies: tuple[PairStrategy, ...], monkeypatch: pytest.MonkeyPatch) -> verify.Report:
    runtime = EmulatedRuntime()
    runtime.facts = replace(runtime.facts, sm=sm)
    monkeypatch.setattr(verify, "pair_strategies", lambda *_: strategies)
    report = verify.verify(runtime, [replace(case, problems=case.problems[::3] + case.problems[5:6])])
    assert report.passed, report.table()
    return report


def test_every_strategy_has_the_bits_of_the_bodies_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    case = together(ComputeBody("convolution_3x3", tile_m=64), MemoryBody("layer_norm", rows=8))
    left_out = (IntraBlock(256), InterBlockStatic(Order.PROPORTIONAL))
    strategies = tuple(s for s in verify.pair_strategies(*case.bodies, 80) if s not in left_out)
    report = check(80, case, strategies, monkeypatch)
    assert {found.check for found in report.checks} == {
        "reference",
        "same bits",
        "guard zones",
        "repeated",
        "graph replay",
    }


def test_tensor_cores_through_mma(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = ComputeBody("convolution_1x1", "float16", tile_m=64, warp_m=32, width=8)
    check(80, together(tensor, MemoryBody("softmax", chunks=2, rows=2)), (IntraBlock(128),), monkeypatch)


def test_tensor_cores_through_wmma(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = ComputeBody("convolution_3x3", "float16", tile_m=64, warp_m=32, width=8)
    tensor = replace(tensor, stages=2, asynchronous=False, mma=False)
    check(72, together(tensor, MemoryBody("skinny_gemm", "float16", 8, 2, 1, 4)), (InterBlockTicket(),), monkeypatch)


def test_warpgroups_find_their_operands_through_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two groups down, with the products of a slab behind those of the next."""
    ahead = replace(WGMMA, operation="convolution_1x1", stages=4, prefetch=True)
    norm = MemoryBody("layer_norm", rows=4, stages=3, together=2)
    check(90, together(ahead, norm), (IntraBlock(128, registers=(208, 88)),), monkeypatch)


def test_a_group_of_twice_64_rows_behind_another_body(monkeypatch: pytest.MonkeyPatch) -> None:
    small = ComputeBody("convolution_1x1", tile_m=64, tile_n=64, simt_threads=128, stages=2, asynchronous=False)
    wide = replace(WGMMA, warp_m=128, warp_n=32)
    check(90, together(small, wide), (IntraBlock(128),), monkeypatch)


def test_staged_pieces_beside_warps_some_of_which_copy_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """384 threads do not divide the copies of a tile of 128 columns evenly: 128 of them have none."""
    high = ComputeBody("convolution_1x1", tile_m=192, tile_n=128, simt_threads=384)
    strategies = (IntraBlock(64, drain=True), IntraBlock(128, drain=True, registers=(144, 80)))
    norm = MemoryBody("layer_norm", rows=4, stages=3, together=2)
    check(90, together(high, norm), strategies, monkeypatch)


@pytest.mark.parametrize(
    "body",
    [
        MemoryBody("layer_norm", rows=4, stages=3, together=2),
        MemoryBody("layer_norm", rows=8, stages=2, together=4, exact=True),
        MemoryBody("softmax", "float16", 8, 2, rows=2, stages=5, together=2),
        MemoryBody("softmax", rows=4, stages=31, exact=True),
        MemoryBody("softmax", chunks=10, rows=8, stages=2, short=True),
        MemoryBody("skinny_gemm", rows=2, stages=3),
        MemoryBody("skinny_gemm", rows=4, stages=2, batch=2, exact=True),
        MemoryBody("embedding", chunks=2, rows=4, stages=2),
        MemoryBody("embedding", rows=4, stages=3, exact=True),
        MemoryBody("residual_gelu", rows=2, stages=2),
        MemoryBody("residual_gelu", "float16", 8, 2, rows=4, stages=3, exact=True),
    ],
    ids=lambda body: body.name,
)
def test_staged_bodies_compute_what_the_others_do(body: MemoryBody) -> None:
    runtime = EmulatedRuntime()
    checker = verify._Checker(runtime, verify.Report("test", 80))
    for problem in verify.problems_for(body):
        inputs = verify._Bound(runtime, problem, random_inputs(problem, seed=5))
        plain = replace(body, stages=0, together=1)
        for one in (body, plain):
            checker.single(one, problem, inputs, Alone())
        assert np.array_equal(checker.alone[body, problem], checker.alone[plain, problem])
    assert checker.report.passed, checker.report.table()


def alone(body: MemoryBody, problem: Problem, inputs: Arrays) -> npt.NDArray[Any]:
    """Return what a body computes of given inputs, on the CPU, in the shape of the output."""
    runtime = EmulatedRuntime()
    bound = verify._Bound(runtime, problem, inputs)
    checker = verify._Checker(runtime, verify.Report("test", 80))
    (data,), intact = checker.run(checker.launch(single_kernel(body, Alone(threads=64)), (problem,)), [bound])
    assert intact
    output = next(array for array in problem.arrays if array.output)
    return data.view(output.dtype).reshape(output.shape)


@pytest.mark.parametrize(
    ("columns", "dtype"), [(1, "float32"), (5, "float32"), (77, "float32"), (128, "float32"), (77, "float16")]
)
def test_short_rows_of_any_number_and_length(columns: int, dtype: DType) -> None:
    chosen = choose(SoftmaxProblem(3, columns, dtype), 80)
    body = _of_short_rows(dtype, columns)
    assert chosen == body or columns % 4 == 0
    for rows in (1, body.width - 1, body.width, 3 * body.width + 1, 64):
        problem = SoftmaxProblem(rows, columns, dtype, 2.5)
        inputs = random_inputs(problem, seed=rows)
        found = alone(replace(body, rows=2 * body.width), problem, inputs)
        assert relative_error(found, reference(problem, inputs)) <= error_limit(problem)


@pytest.mark.parametrize("together", [2, 4])
def test_rows_at_once_have_the_bits_of_rows_one_by_one(together: int) -> None:
    for problem in (LayerNormProblem(11, 512), SoftmaxProblem(11, 512, scale=3.0)):
        operation: Literal["layer_norm", "softmax"] = "softmax" if isinstance(problem, SoftmaxProblem) else "layer_norm"
        body, inputs = MemoryBody(operation, exact=True), random_inputs(problem, seed=1)
        wanted = alone(body, problem, inputs)
        for rows in (together, 2 * together):
            assert np.array_equal(alone(replace(body, rows=rows, together=together), problem, inputs), wanted)
        assert np.array_equal(alone(replace(body, exact=False), problem, inputs), wanted)


def test_masked_scores_get_no_probability() -> None:
    problem = SoftmaxProblem(8, 77, scale=0.5)
    scores = random_inputs(problem, seed=2)["x"]
    scores[:, 40:] = -np.inf
    scores[3, 5], scores[4, 6], scores[5] = 3e38, np.nan, -3e38
    others = (MemoryBody("softmax", width=1, chunks=3), MemoryBody("softmax", width=1, chunks=0))
    for body in (choose(problem, 80), *others):
        assert isinstance(body, MemoryBody)
        found = alone(body, problem, {"x": scores})
        assert (found[:3, 40:] == 0).all()
        assert np.allclose(found[:3].sum(axis=1), 1)
        assert found[3, 5] == 1
        assert np.isnan(found[4]).all()
        assert np.allclose(found[5], 1 / 77)


def test_gelu_is_as_exact_as_float32_everywhere() -> None:
    values = np.concatenate([np.linspace(-9, 9, 4001), np.geomspace(1e-30, 1e30, 64), -np.geomspace(1e-30, 1e30, 63)])
    x = values.astype(np.float32)
    problem = ElementwiseProblem("residual_gelu", x.size)
    found = alone(MemoryBody("residual_gelu"), problem, {"x": x, "residual": np.zeros_like(x)})
    wanted = reference(problem, {"x": x, "residual": np.zeros_like(x)})
    assert np.abs(found - wanted)[np.abs(x) < 9].max() < 3e-7  # half a unit in the last place of 9 is 4.8e-7
    near = (np.abs(x) < 1) & (x != 0)
    assert (np.abs(found - wanted)[near] <= 4e-7 * np.abs(wanted[near])).all()
    assert np.array_equal(found[x > 9], x[x > 9])
    assert np.abs(found[x < -9]).max() < 1e-18


def test_gelu_of_what_is_no_number() -> None:
    x = np.array([np.inf, -np.inf, np.nan, 0], dtype=np.float32)
    problem = ElementwiseProblem("residual_gelu", 4)
    found = alone(MemoryBody("residual_gelu", chunks=1), problem, {"x": x, "residual": np.zeros_like(x)})
    assert found[0] == np.inf
    assert found[1] == 0  # the limit; 0.5 x (1 + erf(x / sqrt 2)) itself has none
    assert np.isnan(found[2])
    assert found[3] == 0


def test_an_unknown_id_gives_a_row_without_numbers() -> None:
    problem = EmbeddingProblem(9, 512, 20, 4)
    inputs = random_inputs(problem, seed=3)
    inputs["ids"][[2, 7]] = 20, -1
    for body in (MemoryBody("embedding", rows=4, exact=True), MemoryBody("embedding", rows=4, stages=2, exact=True)):
        found = alone(body, problem, inputs)
        assert np.isnan(found[[2, 7]]).all()
        assert relative_error(found, reference(problem, inputs)) <= error_limit(problem)


def test_staging_through_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    gemm = ComputeBody("gemm", tile_m=64, stages=2, asynchronous=False, width=1)
    check(53, together(gemm, MemoryBody("embedding", "float16", 1, 4)), (InterBlockTicket(),), monkeypatch)


def test_a_wrong_result_fails() -> None:
    """The last line of a report is worth as much as its failures: a kernel given other inputs must be noticed."""
    runtime = EmulatedRuntime()
    report = verify.Report("test", 80)
    checker = verify._Checker(runtime, report)
    body, problem = MemoryBody("layer_norm"), LayerNormProblem(3, 8)
    checker.against_reference(body, problem)
    assert report.passed
    wrong = verify._Bound(runtime, problem, random_inputs(problem, seed=99))
    checker.single(body, problem, wrong, Alone(threads=128))
    assert not report.passed


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ToolError, match=r"g\+\+ was not found; install it or set CXX"):
        runtime_emulation.build(single_kernel(MemoryBody("copy"), Alone()), 80)


def test_nan_where_none_belongs_is_an_infinite_error() -> None:
    assert relative_error(np.array([1.0, np.nan]), np.array([1.0, 2.0])) == np.inf
    assert relative_error(np.array([1.0, 2.0]), np.array([1.0, np.nan])) == np.inf
    assert relative_error(np.array([1.0, np.nan]), np.array([1.0, np.nan])) == 0.0
    assert relative_error(np.zeros((0, 4)), np.zeros((0, 4))) == 0.0


def test_units_of_the_empty_problem_launch_nothing() -> None:
    body = ComputeBody("gemm")
    assert launch(single_kernel(body, Alone()), (GemmProblem(0, 8, 8),), sms=1).empty
