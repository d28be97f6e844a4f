"""What the Python side says of a body must be what the C++ side is, and what is offered must fit the problem."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nitro.errors import UsageError
from nitro.fused_kernels.bodies import candidates, check_architecture, choose
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
from nitro.fused_kernels.strategies import CSRC, Alone, InterBlockTicket, IntraBlock, launch, pair_kernel, single_kernel
from nitro.fused_kernels.verify import bodies_for
from nitro.fused_kernels.ways import fused_strategies

COMPUTE: tuple[Problem, ...] = (
    GemmProblem(512, 256, 64),
    GemmProblem(511, 256, 64),
    ConvolutionProblem(2, 14, 14, 64, 64, padding=1),
    ConvolutionProblem(2, 14, 14, 63, 64, filter_size=1),
    ConvolutionProblem(2, 14, 14, 64, 64, padding=1, dtype="float16"),
    linear(128, 64, 64),
)
MEMORY: tuple[Problem, ...] = (
    LayerNormProblem(64, 512),
    LayerNormProblem(64, 500, "float16"),
    SoftmaxProblem(64, 512),
    SoftmaxProblem(64, 80),
    SoftmaxProblem(64, 77, "float16"),
    SkinnyGemmProblem(1, 64, 768),
    SkinnyGemmProblem(3, 64, 100),
    EmbeddingProblem(64, 512, 100, 16),
    EmbeddingProblem(64, 640, 100, 16),
    ElementwiseProblem("residual_gelu", 64 * 512),
    ElementwiseProblem("residual_gelu", 1001),
)


@pytest.mark.parametrize("problem", [*COMPUTE, *MEMORY], ids=str)
@pytest.mark.parametrize("sm", [72, 87, 90])
def test_every_candidate_can_solve_the_problem_there(problem: Problem, sm: int) -> None:
    found = candidates(problem, sm)
    assert found[0] == choose(problem, sm)
    assert len({body.name for body in found}) == len(found)
    for body in found:
        body.check(problem)
        check_architecture(body, sm)


@pytest.mark.parametrize(
    ("problem", "name"),
    [
        (LayerNormProblem(64, 512), "layer_norm_f32_w4x4e_r1"),
        (LayerNormProblem(64, 508), "layer_norm_f32_w4x4_r1"),
        (LayerNormProblem(64, 768, "float16"), "layer_norm_f16_w8x3e_r1"),
        (SoftmaxProblem(64, 77), "softmax_f32_w4x10s_r4"),
        (SoftmaxProblem(64, 77, "float16"), "softmax_f16_w8x20s_r8"),
        (SoftmaxProblem(64, 197), "softmax_f32_w1x7_r1"),
        (SkinnyGemmProblem(1, 64, 768), "skinny_gemm_f32_w4x3e_r2_b1"),
        (SkinnyGemmProblem(1, 64, 100), "skinny_gemm_f32_w4x4_r2_b1"),
        (EmbeddingProblem(64, 768, 9, 9), "embedding_f32_w4x6e_r1"),
        (EmbeddingProblem(64, 1000, 9, 9), "embedding_f32_w4x4_r1"),
        (ElementwiseProblem("residual_gelu", 128), "residual_gelu_f32_w4x4_r1"),
        (ElementwiseProblem("residual_gelu", 1024), "residual_gelu_f32_w4x4e_r1"),
    ],
)
def test_exact_and_short_bodies_are_chosen_where_they_fit(problem: Problem, name: str) -> None:
    body = choose(problem, 90)
    assert body.name == name
    body.check(problem)


def test_what_an_exact_or_short_body_does_not_take_is_refused() -> None:
    for body, problem, reason in (
        (MemoryBody("layer_norm", exact=True), LayerNormProblem(8, 500), "takes 512 columns, the problem has 500"),
        (MemoryBody("layer_norm", exact=True), LayerNormProblem(8, 1024), "holds rows of up to 512 columns"),
        (MemoryBody("skinny_gemm", exact=True), SkinnyGemmProblem(1, 8, 768), "takes multiples of 512 inner"),
        (MemoryBody("skinny_gemm", exact=True), SkinnyGemmProblem(1, 8, 0), "takes multiples of 512 inner"),
        (MemoryBody("embedding", exact=True), EmbeddingProblem(8, 1024, 9, 9), "takes 512 columns"),
        (MemoryBody("copy", exact=True), ElementwiseProblem("copy", 516), "takes multiples of 512 elements"),
        (MemoryBody("softmax", chunks=10, short=True), SoftmaxProblem(8, 72), "takes rows of 73 to 80 columns"),
        (MemoryBody("softmax", chunks=10, short=True), SoftmaxProblem(8, 81), "use chunks=11"),
    ):
        with pytest.raises(UsageError, match=reason):
            body.check(problem)


def test_rows_that_are_short_of_a_warp_are_tried_as_short_ones() -> None:
    assert "softmax_f32_w4x10s_r4" in {body.name for body in candidates(SoftmaxProblem(64, 80), 90)}
    assert not any(isinstance(body, MemoryBody) and body.short for body in candidates(SoftmaxProblem(64, 128), 90))


def test_a_deep_tile_is_chosen_where_two_blocks_of_it_fit() -> None:
    depths = {sm: body.depth for sm in (80, 87, 90) if isinstance(body := choose(linear(128, 64, 64), sm), ComputeBody)}
    assert depths == {80: 32, 87: 32, 90: 64}


def test_wgmma_is_offered_on_sm_90_alone() -> None:
    """And what it needs is compiled for nothing else, as sm_90a: newer architectures do not take it over."""
    problem = linear(128, 64, 64)
    for sm in (87, 90, 100, 120):
        offered = [body for body in candidates(problem, sm) if isinstance(body, ComputeBody) and body.wgmma]
        assert bool(offered) == (sm == 90)
    body = choose(problem, 90)
    assert single_kernel(body, Alone()).needs_exact_architecture
    assert not single_kernel(choose(problem, 87), Alone()).needs_exact_architecture
    for sm in (87, 100):
        with pytest.raises(UsageError, match=rf"uses wgmma, which only sm_90 has, this is sm_{sm}; use a body without"):
            check_architecture(body, sm)


def test_the_largest_wgmma_tile_that_leaves_few_sms_idle_is_chosen() -> None:
    images = {128: (128, 256), 8: (128, 128), 1: (64, 128)}
    for count, tile in images.items():
        problem = ConvolutionProblem(count, 28, 28, 64, 256, padding=1, dtype="float16")
        body = choose(problem, 90)
        assert isinstance(body, ComputeBody)
        assert (body.tile_m, body.tile_n) == tile
        # One block an SM computes tiles in a chain; of two, each has one.
        grid = launch(single_kernel(body, Alone()), (problem,), sms=132).grid
        assert grid == (132 if count == 128 else body.units(problem))


def test_a_block_with_wgmma_has_few_threads() -> None:
    wide = ComputeBody(
        "convolution_3x3", "float16", tile_n=256, warp_n=256, tensor_depth=64, stages=3, width=8, wgmma=True
    )
    assert [replace(wide, tile_n=n, warp_n=n).most_block_threads for n in (256, 192, 128)] == [384, 512, 640]
    norm = MemoryBody("layer_norm", rows=4, stages=3)
    assert pair_kernel(wide, norm, IntraBlock(128)).threads == 384
    with pytest.raises(UsageError, match="needs 512 threads a block, the limit is 384; use fewer"):
        pair_kernel(wide, norm, IntraBlock(256))
    many = ComputeBody("gemm", tile_n=128, simt_threads=512)
    assert not any(isinstance(way, InterBlockTicket) for way in fused_strategies(wide, many))


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is needed to read the headers")
@pytest.mark.parametrize("sm", [53, 72, 90])
def test_shared_memory_and_threads_are_those_of_the_headers(sm: int, tmp_path: Path) -> None:
    wanted = (problem for problem in COMPUTE if sm >= 70 or problem.dtype == "float32")
    offered = [body for problem in wanted for body in candidates(problem, sm)]
    bodies = dict.fromkeys(body for body in (*bodies_for(sm)[0], *offered) if isinstance(body, ComputeBody))
    lines = ['#include "simt.cuh"', '#include "wgmma.cuh"', '#include "winograd.cuh"', '#include "memory.cuh"']
    for index, body in enumerate(bodies):
        lines += [
            f"typedef {body.cpp} Body{index};",
            f'static_assert(Body{index}::kSharedBytes == {body.shared_bytes}, "{body.name}: shared memory");',
            f'static_assert(Body{index}::kThreads == {body.threads}, "{body.name}: threads");',
        ]
    staged = [body for body in bodies_for(sm)[1] if body.stages or body.short]
    lines += [f'static_assert({body.cpp}::kWarpBytes == {body.shared_bytes_of(32)}, "{body.name}");' for body in staged]
    source = tmp_path / "sizes.cpp"
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = ["g++", "-std=c++14", "-w", "-fsyntax-only", f"-DNITRO_EMULATION={sm * 10}", f"-I{CSRC}", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:2000]
    assert len(bodies) > 3


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda size: GemmProblem(size, 64, 64), "gemm: rows is "),
        (lambda size: LayerNormProblem(4, size), "layer_norm: columns is "),
        (lambda size: SkinnyGemmProblem(size, 64, 64), "skinny_gemm: batch is "),
        (lambda size: ConvolutionProblem(1, size, 8, 4, 4), "convolution: height is "),
        (lambda size: ConvolutionProblem(1, 8, 8, 4, 4, stride=size), "convolution: the stride is "),
        (lambda size: ElementwiseProblem("copy", size), "copy: "),
    ],
)
@pytest.mark.parametrize("size", [1.5, "4", None, float("nan"), -1, 10**30])
def test_a_size_is_a_whole_number_that_can_be_counted(make: Any, sentence: str, size: Any) -> None:
    with pytest.raises(UsageError) as caught:
        make(size)
    assert str(caught.value).startswith(sentence)
