from __future__ import annotations

import pytest

from nitro.fused_kernels.compile_queue import CompileQueue
from nitro.fused_kernels.compute_bodies import ComputeBody
from nitro.fused_kernels.memory_bodies import MemoryBody
from nitro.fused_kernels.nvrtc import Resources
from nitro.fused_kernels.strategies import Alone, IntraBlock, pair_kernel, single_kernel

NORM = MemoryBody("layer_norm")


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("workers", [1, 2])
def test_kernels_are_compiled_and_their_resources_told(workers: int) -> None:
    alone = single_kernel(NORM, Alone())
    fused = pair_kernel(ComputeBody("gemm", tile_m=64, stages=2, asynchronous=False), NORM, IntraBlock(128))
    with CompileQueue(53, workers=workers) as queue:
        queue.add([alone])
        found = queue.resources([alone, fused])
        again = queue.resources([alone])
    assert list(found) == [alone.name, fused.name]
    for told in found.values():
        assert isinstance(told, Resources)
        assert told.registers
    assert again == {alone.name: found[alone.name]}


@pytest.mark.usefixtures("compiler")
def test_a_kernel_that_cannot_run_there_comes_back_with_the_reason() -> None:
    tensor = single_kernel(ComputeBody("convolution_1x1", "float16", width=8), Alone())
    with CompileQueue(72, workers=1) as queue:
        (reason,) = queue.resources([tensor]).values()
    assert isinstance(reason, str)
    assert "needs sm_80 or newer, this is sm_72" in reason
