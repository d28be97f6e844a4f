"""What the Python side says of a body must be what the C++ side is, and what is offered must fit the problem."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from nitro.fused_kernels.bodies import ComputeBody, candidates, check_architecture, choose
from nitro.fused_kernels.problems import (
    ConvolutionProblem,
    EmbeddingProblem,
    GemmProblem,
    LayerNormProblem,
    Problem,
    linear,
)
from nitro.fused_kernels.strategies import CSRC
from nitro.fused_kernels.verify import bodies_for

COMPUTE: tuple[Problem, ...] = (
    GemmProblem(512, 256, 64),
    GemmProblem(511, 256, 64),
    ConvolutionProblem(2, 14, 14, 64, 64, padding=1),
    ConvolutionProblem(2, 14, 14, 63, 64, filter_size=1),
    ConvolutionProblem(2, 14, 14, 64, 64, padding=1, dtype="float16"),
    linear(128, 64, 64),
)
MEMORY: tuple[Problem, ...] = (LayerNormProblem(64, 512), EmbeddingProblem(64, 512, 100, 16))


@pytest.mark.parametrize("problem", [*COMPUTE, *MEMORY], ids=str)
@pytest.mark.parametrize("sm", [72, 87, 90])
def test_every_candidate_can_solve_the_problem_there(problem: Problem, sm: int) -> None:
    found = candidates(problem, sm)
    assert found[0] == choose(problem, sm)
    assert len({body.name for body in found}) == len(found)
    for body in found:
        body.check(problem)
        check_architecture(body, sm)


def test_a_deep_tile_is_chosen_where_two_blocks_of_it_fit() -> None:
    depths = {sm: body.depth for sm in (80, 87, 90) if isinstance(body := choose(linear(128, 64, 64), sm), ComputeBody)}
    assert depths == {80: 32, 87: 32, 90: 64}


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is needed to read the headers")
@pytest.mark.parametrize("sm", [53, 72, 90])
def test_shared_memory_and_threads_are_those_of_the_headers(sm: int, tmp_path: Path) -> None:
    wanted = (problem for problem in COMPUTE if sm >= 70 or problem.dtype == "float32")
    offered = [body for problem in wanted for body in candidates(problem, sm)]
    bodies = dict.fromkeys(body for body in (*bodies_for(sm)[0], *offered) if isinstance(body, ComputeBody))
    lines = ['#include "simt.cuh"', '#include "tensor.cuh"', '#include "memory.cuh"']
    for index, body in enumerate(bodies):
        lines += [
            f"typedef {body.cpp} Body{index};",
            f'static_assert(Body{index}::kSharedBytes == {body.shared_bytes}, "{body.name}: shared memory");',
            f'static_assert(Body{index}::kThreads == {body.threads}, "{body.name}: threads");',
        ]
    staged = [body for body in bodies_for(sm)[1] if body.stages]
    lines += [f'static_assert({body.cpp}::kWarpBytes == {body.shared_bytes_of(32)}, "{body.name}");' for body in staged]
    source = tmp_path / "sizes.cpp"
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = ["g++", "-std=c++14", "-w", "-fsyntax-only", f"-DNITRO_EMULATION={sm * 10}", f"-I{CSRC}", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:2000]
    assert len(bodies) > 3
