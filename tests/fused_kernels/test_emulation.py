"""What the kernels compute, on the CPU: some bodies and every strategy. `fuse verify --emulate` runs all of them."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from nitro.errors import ToolError
from nitro.fused_kernels import runtime_emulation, verify
from nitro.fused_kernels.bodies import ComputeBody, MemoryBody
from nitro.fused_kernels.problems import GemmProblem, LayerNormProblem
from nitro.fused_kernels.references import random_inputs, relative_error
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


def test_staged_pieces_beside_warps_some_of_which_copy_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """384 threads do not divide the copies of a tile of 128 columns evenly: 128 of them have none."""
    high = ComputeBody("convolution_1x1", tile_m=192, tile_n=128, simt_threads=384)
    strategies = (IntraBlock(64, drain=True), IntraBlock(128, registers=(144, 80)))
    norm = MemoryBody("layer_norm", rows=4, stages=3, keep=True, together=2)
    check(90, together(high, norm), strategies, monkeypatch)


@pytest.mark.parametrize(
    "body",
    [
        MemoryBody("layer_norm", rows=4, stages=3, keep=True, together=2),
        MemoryBody("softmax", "float16", 8, 2, rows=2, stages=5, together=2),
        MemoryBody("skinny_gemm", rows=2, stages=3),
        MemoryBody("embedding", chunks=2, rows=4, stages=2),
        MemoryBody("residual_gelu", rows=2, stages=2),
    ],
    ids=lambda body: body.operation,
)
def test_staged_bodies_compute_what_the_others_do(body: MemoryBody) -> None:
    runtime = EmulatedRuntime()
    checker = verify._Checker(runtime, verify.Report("test", 80))
    for problem in verify.problems_for(body):
        inputs = verify._Bound(runtime, problem, random_inputs(problem, seed=5))
        plain = replace(body, stages=0, keep=False, together=1)
        for one in (body, plain):
            checker.single(one, problem, inputs, Alone())
        assert np.array_equal(checker.alone[body, problem], checker.alone[plain, problem])
    assert checker.report.passed, checker.report.table()


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
