"""The convolution with fewer multiplications, on the CPU: what it computes, how exactly, and what it refuses."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from nitro.errors import UsageError
from nitro.fused_kernels import verify
from nitro.fused_kernels.bodies import candidates, choose
from nitro.fused_kernels.compute_bodies import ComputeBody, winograd_bodies
from nitro.fused_kernels.memory_bodies import MemoryBody
from nitro.fused_kernels.occupancy import LIMITS
from nitro.fused_kernels.problems import ConvolutionProblem, GemmProblem, Problem
from nitro.fused_kernels.references import Arrays, Double, random_inputs, reference
from nitro.fused_kernels.runtime_emulation import EmulatedRuntime
from nitro.fused_kernels.strategies import (
    Alone,
    InterBlockStatic,
    InterBlockTicket,
    IntraBlock,
    IntraThread,
    launch,
    pair_kernel,
    single_kernel,
)
from nitro.fused_kernels.ways import all_ways, shortlist

BODY = ComputeBody("convolution_3x3", tile_m=128, tile_n=64, simt_threads=256, stages=2, winograd=True)
BODIES = (BODY, replace(BODY, tile_n=32))
SHAPES = {
    "odd sizes, tails of channels, outputs and tiles": ConvolutionProblem(2, 9, 11, 20, 70, padding=1, bias=True),
    "one line": ConvolutionProblem(1, 1, 9, 4, 6, padding=1, relu=True),
    "no border": ConvolutionProblem(1, 7, 8, 8, 33, bias=True, relu=True),
    "one pixel": ConvolutionProblem(1, 3, 3, 4, 1),
    "tiles of many images": ConvolutionProblem(9, 2, 3, 12, 64, padding=1),
    "whole tiles": ConvolutionProblem(2, 8, 8, 16, 64, padding=1),
    "one column": ConvolutionProblem(2, 5, 1, 36, 2, padding=1),
    "no channels": ConvolutionProblem(1, 4, 4, 0, 8, padding=1, bias=True),
}
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is needed to emulate kernels")


def transformed_magnitudes(problem: ConvolutionProblem, inputs: Arrays) -> Double:
    """Return |A^T| [sum over channels of (|G| |g| |G^T|) (|B^T| |d| |B|)] |A| for every output.

    It bounds what a rounding anywhere in the algorithm can become, as a part of one.
    """
    b = np.array([[1, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 1]], dtype=np.float64)
    g = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0, 0, 1]])
    a = np.array([[1, 1, 1, 0], [0, 1, 1, 1]], dtype=np.float64)
    border = problem.padding
    lines, columns = -(-problem.out_height // 2) * 2, -(-problem.out_width // 2) * 2
    x = np.zeros((problem.images, lines + 2, columns + 2, problem.channels))
    x[:, border : border + problem.height, border : border + problem.width] = np.abs(inputs["x"])
    filters = np.einsum("ri,ksic,->krsc", g, np.abs(inputs["weights"]).transpose(0, 2, 1, 3), 1.0)
    filters = np.einsum("si,kric->krsc", g, filters)
    result = np.zeros((problem.images, lines, columns, problem.outputs))
    for line in range(0, lines, 2):
        for column in range(0, columns, 2):
            patch = x[:, line : line + 4, column : column + 4]
            patch = np.einsum("ri,nijc,sj->nrsc", b, patch, b)
            sums = np.einsum("nrsc,krsc->nrsk", patch, filters)
            result[:, line : line + 2, column : column + 2] = np.einsum("ri,nijk,sj->nrsk", a, sums, a)
    return result[:, : problem.out_height, : problem.out_width]


def output_of(body: ComputeBody, problem: ConvolutionProblem, inputs: Arrays) -> np.ndarray[tuple[int, ...], np.dtype]:
    runtime = EmulatedRuntime()
    checker = verify._Checker(runtime, verify.Report("test", 80))
    bound = verify._Bound(runtime, problem, inputs)
    (data,), intact = checker.run(checker.launch(single_kernel(body, Alone()), (problem,)), [bound])
    assert intact
    return data.view(np.float32).reshape(problem.arrays[-1].shape)


@needs_compiler
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.name)
def test_it_agrees_with_double_precision(body: ComputeBody) -> None:
    checker = verify._Checker(EmulatedRuntime(), verify.Report("test", 80))
    for problem in SHAPES.values():
        checker.against_reference(body, problem)
    assert checker.report.passed, checker.report.table()
    assert {check.check for check in checker.report.checks} == {"reference", "same bits", "guard zones", "repeated"}


@needs_compiler
@pytest.mark.parametrize("mean", [0.0, 50.0], ids=["centred", "pixels far from zero"])
@pytest.mark.parametrize("shape", ["odd sizes, tails of channels, outputs and tiles", "no border"])
def test_no_output_is_further_off_than_its_roundings_can_make_it(shape: str, mean: float) -> None:
    """Each output, not the norm: 2 roundings of pixels and 4 of filters, the sum, 4 of its transform, the bias."""
    problem = SHAPES[shape]
    inputs = random_inputs(problem, seed=3)
    inputs["x"] = inputs["x"] + np.float32(mean)
    wanted = reference(replace(problem, relu=False), inputs)
    error = np.abs(output_of(BODY, replace(problem, relu=False), inputs) - wanted)
    roundings = 2 + 4 + problem.channels + 4 + 1
    magnitudes = transformed_magnitudes(problem, inputs) + np.abs(inputs["bias"])
    assert (error <= roundings * 2.0**-24 * magnitudes * 1.001).all()
    # The bound says something: what a rounding can become is a small multiple of what it can in a direct convolution.
    direct = {"x": np.abs(inputs["x"]), "weights": np.abs(inputs["weights"]), "bias": np.abs(inputs["bias"])}
    assert 1 < np.median(magnitudes / reference(replace(problem, relu=False), direct)) < 8


@needs_compiler
def test_every_strategy_has_the_bits_of_the_body_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(BODY, tile_n=32)
    case = verify.together(small, MemoryBody("layer_norm", rows=8))
    strategies = (
        IntraBlock(128),
        IntraBlock(128, drain=True),
        InterBlockStatic(),
        InterBlockTicket(True),
        IntraThread(),
    )
    monkeypatch.setattr(verify, "pair_strategies", lambda *_: strategies)
    report = verify.verify(EmulatedRuntime(), [replace(case, problems=case.problems[::3] + case.problems[5:6])])
    assert report.passed, report.table()


@needs_compiler
def test_registers_move_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = EmulatedRuntime()
    runtime.facts = replace(runtime.facts, sm=90)
    case = verify.together(BODY, MemoryBody("layer_norm", rows=4, stages=3, together=2))
    monkeypatch.setattr(verify, "pair_strategies", lambda *_: (IntraBlock(128, registers=(208, 88)),))
    report = verify.verify(runtime, [replace(case, problems=case.problems[:2])])
    assert report.passed, report.table()


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.name)
@pytest.mark.parametrize("problem", SHAPES.values(), ids=list(SHAPES))
def test_tiles_cover_every_output_and_no_block_is_idle(body: ComputeBody, problem: ConvolutionProblem) -> None:
    corners = {
        (n, r // 2, s // 2) for n in range(problem.images) for r, s in np.ndindex(problem.out_height, problem.out_width)
    }
    blocks = -(-len(corners) // (body.tile_m // 4)) * -(-problem.outputs // body.tile_n)
    assert body.units(problem) == blocks
    assert launch(single_kernel(body, Alone()), (problem,), sms=1).grid == blocks


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (ConvolutionProblem(1, 8, 8, 8, 8, stride=2, padding=1), "not 3x3 of stride 2 in float32"),
        (ConvolutionProblem(1, 8, 8, 6, 8, padding=1), "moves 4 elements at once and channels is 6"),
        (ConvolutionProblem(1, 8, 8, 8, 8, filter_size=1), "a body for convolution_3x3 cannot solve convolution_1x1"),
        (ConvolutionProblem(1, 8, 8, 8, 8, padding=1, dtype="float16"), "built for float32, the arrays are float16"),
        (ConvolutionProblem(4096, 64, 64, 64, 8, padding=1), "reaches 4 GiB of images, these are 4294967296 bytes"),
        (GemmProblem(8, 8, 8), "a body for convolution_3x3 cannot solve gemm"),
    ],
)
def test_what_it_cannot_do_is_refused_and_not_offered(problem: Problem, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        BODY.check(problem)
    assert winograd_bodies(problem, 90) == ()
    assert not [body for body in candidates(problem, 90) if isinstance(body, ComputeBody) and body.winograd]


def test_it_is_offered_where_a_block_of_it_fits() -> None:
    problem = SHAPES["whole tiles"]
    assert winograd_bodies(problem, 90) == BODIES
    assert winograd_bodies(problem, 87) == BODIES[1:]
    assert winograd_bodies(problem, 72) == ()
    assert set(winograd_bodies(problem, 90)) < set(candidates(problem, 90))
    direct = choose(problem, 90)
    assert isinstance(direct, ComputeBody)
    assert not direct.winograd


def test_its_teams_are_tried_where_it_is_fast_and_no_others() -> None:
    norm = MemoryBody("layer_norm")
    direct = choose(SHAPES["whole tiles"], 90)
    assert shortlist([(direct, 180.0), (BODY, 100.0)]) == (BODY,)

    def algorithms(*firsts: ComputeBody) -> set[bool]:
        found = [
            one for one in all_ways(firsts, [norm]) if isinstance(one.strategy, IntraBlock) and one.strategy.registers
        ]
        return {body.winograd for one in found if isinstance(body := one.bodies[0], ComputeBody)}

    assert isinstance(direct, ComputeBody)
    assert algorithms(BODY) == {True}
    assert algorithms(direct) == {False}
    assert algorithms(direct, BODY) == {True, False}


@pytest.mark.parametrize("sm", [80, 86, 87, 90])
def test_what_is_verified_has_a_block_that_fits(sm: int) -> None:
    most = LIMITS[sm].shared_bytes_per_block
    cases = verify.default_cases(sm)
    found = [pair_kernel(*case.bodies, one) for case in cases for one in verify.pair_strategies(*case.bodies, sm)]
    assert all(kernel.shared_bytes <= most for kernel in found)
    assert {body.name for kernel in found for body in kernel.bodies} >= {
        body.name for body in winograd_bodies(SHAPES["no border"], sm)
    }
