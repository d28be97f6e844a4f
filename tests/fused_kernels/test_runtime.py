from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest
from click.testing import CliRunner

from nitro.commands.fuse import COMMAND
from nitro.errors import ToolError, UsageError
from nitro.fused_kernels import open_runtime
from nitro.fused_kernels.bodies import choose
from nitro.fused_kernels.compute_bodies import ComputeBody
from nitro.fused_kernels.memory_bodies import MemoryBody
from nitro.fused_kernels.problems import Array, ConvolutionProblem, LayerNormProblem, SkinnyGemmProblem
from nitro.fused_kernels.runtime import Argument, Buffer, Executor, LoadedKernel, address_of, typed_arguments
from nitro.fused_kernels.runtime_emulation import EmulatedRuntime
from nitro.fused_kernels.strategies import (
    Alone,
    IntraBlock,
    IntraThread,
    Kernel,
    Persistent,
    Slice,
    launch,
    pair_kernel,
    single_kernel,
)

NORM = MemoryBody("layer_norm")
ROWS = Array("x", (4, 8), "float32")


@dataclass
class Recorder(EmulatedRuntime):
    """Notes launches in the place of doing them."""

    launches: list[tuple[str, int, tuple[Argument, ...]]] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)

    def load(self, kernel: Kernel, *, carveout_percent: int | None = None) -> LoadedKernel:  # noqa: ARG002
        self.loads.append(kernel.name)
        return LoadedKernel(kernel, nvrtc_resources(), 1, None)

    def launch(
        self,
        loaded: LoadedKernel,
        grid: int,
        arguments: Sequence[Argument],
        stream: Any = None,  # noqa: ARG002
    ) -> None:
        self.launches.append((loaded.kernel.name, grid, tuple(arguments)))


def nvrtc_resources() -> Any:
    from nitro.fused_kernels.nvrtc import Resources

    return Resources()


@dataclass
class GpuArray:
    shape: tuple[int, ...] = (4, 8)
    typestr: str = "<f4"
    data: tuple[int, bool] = (4096, False)
    strides: tuple[int, ...] | None = None

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        return {"shape": self.shape, "typestr": self.typestr, "data": self.data, "strides": self.strides, "version": 3}


def test_a_contiguous_array_gives_its_address() -> None:
    assert address_of(GpuArray(), ROWS, aligned=True) == 4096
    assert address_of(GpuArray(strides=(32, 4)), ROWS, aligned=True) == 4096


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((4, 8), np.float32), "x: a ndarray is no array on a GPU; copy it there first."),
        (GpuArray(typestr="<f2"), "x: elements are <f2, the body needs float32; convert the array."),
        (GpuArray(shape=(8, 4)), "x: the shape is (8, 4), the problem has (4, 8); reshape one of them."),
        (GpuArray(strides=(4, 16)), "x: the array is not contiguous (strides (4, 16)); make a copy of it."),
        (GpuArray(data=(0, False)), "x: the array has no memory; was it freed?"),
        (GpuArray(data=(4098, False)), "x: the address 0x1002 splits elements of <f4; copy the array."),
        (GpuArray(data=cast(Any, None)), "x: the GpuArray does not say what it is (TypeError("),
        (GpuArray(shape=cast(Any, None)), "x: the GpuArray does not say what it is (TypeError("),
        (
            GpuArray(data=(4100, False)),
            "x: the address 0x1004 is no multiple of 16; choose",
        ),
    ],
)
def test_other_arrays_are_refused_in_one_sentence(array: object, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        address_of(array, ROWS, aligned=True)
    assert str(caught.value).startswith(sentence)


def test_an_output_must_be_writable() -> None:
    with pytest.raises(UsageError, match="y: the array is read-only"):
        address_of(GpuArray(data=(4096, True)), Array("y", (4, 8), "float32", output=True), aligned=True)


def test_arguments_have_the_size_of_the_parameters() -> None:
    work = launch(single_kernel(NORM, Alone()), (LayerNormProblem(4, 8),), sms=2)
    addresses = {f"first_{name}": at for at, name in enumerate(("x", "gamma", "beta", "y"), 1)}
    arguments = typed_arguments(work, addresses)
    assert arguments[:4] == (1, 2, 3, 4)
    assert [type(argument) for argument in arguments[4:8]] == [
        ctypes.c_int32,
        ctypes.c_int32,
        ctypes.c_float,
        ctypes.c_float,
    ]
    assert [getattr(argument, "value", None) for argument in arguments[8:]] == [0, 4]


def test_an_absent_bias_is_a_null_pointer() -> None:
    body = MemoryBody("skinny_gemm", rows=2)
    work = launch(single_kernel(body, Alone()), (SkinnyGemmProblem(1, 8, 8, bias=False),), sms=2)
    addresses = {"first_weights": 1, "first_x": 2, "first_y": 3}
    assert typed_arguments(work, addresses)[:4] == (1, 2, 0, 3)


def addresses_of_pair() -> dict[str, int]:
    names = ("x", "weights", "bias", "y", "gamma", "beta")
    return {f"{role}_{name}": 256 for role in ("first", "second") for name in names}


def test_nothing_to_do_is_not_launched() -> None:
    runtime = Recorder()
    Executor(runtime).submit(launch(single_kernel(NORM, Alone()), (LayerNormProblem(0, 8),), sms=2), {})
    assert runtime.launches == []


def test_a_kernel_is_loaded_once_and_keeps_its_counters() -> None:
    runtime = Recorder()
    executor = Executor(runtime)
    work = launch(single_kernel(NORM, Persistent()), (LayerNormProblem(64, 8),), sms=2)
    for _ in range(2):
        executor.submit(work, addresses_of_pair())
    executor.submit(work, addresses_of_pair(), slot=1)
    counters = [arguments[-1] for _, _, arguments in runtime.launches]
    assert runtime.loads == [work.kernel.name]
    assert counters[0] == counters[1] != counters[2]


def test_counters_that_a_kernel_left_disturbed_are_reported_and_reset() -> None:
    runtime = Recorder()
    executor = Executor(runtime)
    work = launch(single_kernel(NORM, Persistent()), (LayerNormProblem(64, 8),), sms=2)
    executor.submit(work, addresses_of_pair())
    counters = runtime.launches[0][2][-1]
    assert isinstance(counters, int)
    runtime.upload(counters + 12, np.ones(1, np.uint32))
    with pytest.raises(ToolError, match="the work counters were disturbed"):
        executor.check()
    executor.submit(work, addresses_of_pair())
    executor.check()


def test_grids() -> None:
    convolution = ConvolutionProblem(1, 16, 16, 16, 100)
    body = choose(convolution, 53)
    problems = (convolution, LayerNormProblem(80, 8))
    tiles, warps = 2 * 2, 80
    intra = launch(pair_kernel(body, NORM, IntraBlock(128)), problems, sms=4)
    assert intra.grid == tiles
    capped = launch(pair_kernel(body, NORM, IntraBlock(128, drain=True)), problems, sms=1, blocks_per_sm=2)
    assert capped.grid == 2
    alone = launch(single_kernel(NORM, Alone(threads=64)), (problems[1],), sms=1)
    assert alone.grid == warps / 2


def test_a_slice_is_part_of_the_work() -> None:
    kernel = single_kernel(NORM, Alone(threads=32))
    assert launch(kernel, (LayerNormProblem(80, 8),), sms=1, slices=(Slice(70),)).grid == 10
    with pytest.raises(UsageError, match="the problem has 80 units, and the slice wants 11 from 70"):
        launch(kernel, (LayerNormProblem(80, 8),), sms=1, slices=(Slice(70, 11),))


def test_bodies_that_do_not_fit_are_refused_in_one_sentence() -> None:
    with pytest.raises(UsageError, match="moves 4 elements at once and columns is 7"):
        NORM.units(LayerNormProblem(2, 7))
    with pytest.raises(UsageError, match="holds rows of up to 512 columns, the problem has 516"):
        NORM.units(LayerNormProblem(2, 516))
    with pytest.raises(UsageError, match="a body for layer_norm cannot solve skinny_gemm"):
        NORM.units(SkinnyGemmProblem(1, 2, 4))
    with pytest.raises(UsageError, match="intra-thread fusion runs a memory body between the slabs"):
        pair_kernel(NORM, ComputeBody("gemm"), IntraThread())
    with pytest.raises(UsageError, match="needs 1152 threads a block, the limit is 1024"):
        pair_kernel(ComputeBody("gemm", tile_n=128, simt_threads=512), NORM, IntraBlock(640))


def test_tensor_cores_are_not_looked_for_where_there_are_none() -> None:
    with pytest.raises(UsageError, match=r"needs tensor cores \(sm_70 or newer\), this is sm_53; use float32"):
        choose(ConvolutionProblem(1, 8, 8, 8, 8, dtype="float16"), 53)


@pytest.mark.parametrize("sm", [53, 72, 87, 90])
def test_unaligned_shapes_get_a_body_of_width_one(sm: int) -> None:
    for problem in (LayerNormProblem(3, 7), ConvolutionProblem(1, 8, 8, 3, 5), SkinnyGemmProblem(1, 3, 5)):
        body = choose(problem, sm)
        assert body.width == 1
        assert body.units(problem) > 0


def test_importing_the_package_needs_nothing() -> None:
    hidden = "import sys; sys.modules.update(dict.fromkeys(('cuda', 'torch', 'cupy', 'numpy', 'polars')))"
    command = f"{hidden}; import nitro.fused_kernels; print(*[name for name in sys.modules if name[:6] == 'nitro.'])"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not any(name.startswith(("nitro.analyzer", "nitro.collectors")) for name in loaded)


def gpu_is_there() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@pytest.mark.skipif(gpu_is_there(), reason="there is a GPU here")
def test_without_a_gpu_a_call_says_what_is_missing() -> None:
    with pytest.raises(ToolError, match="pip install cuda-core") as caught:
        open_runtime()
    assert caught.value.exit_code == 5
    assert str(caught.value).count("\n") == 0


def test_an_unknown_pair_and_architecture_are_refused() -> None:
    runner = CliRunner()
    for arguments, sentence in (
        (["resources", "--pair", "tea+biscuits"], "there is no pair 'tea+biscuits'"),
        (["resources", "--arch", "orin"], "'orin' is no architecture; write it as sm_87."),
        (["resources", "--arch", "sm_42"], "sm_42: no limits are known"),
    ):
        result = runner.invoke(COMMAND, arguments)
        assert isinstance(result.exception, UsageError)
        assert sentence in str(result.exception)


@pytest.mark.usefixtures("compiler")
def test_the_command_prints_resources_as_json() -> None:
    arguments = ["resources", "--arch", "sm_53", "--pair", "linear+gemv fp16", "--json", "-"]
    result = CliRunner().invoke(COMMAND, arguments)
    assert result.exit_code == 0
    assert result.stdout.strip() == "[]"
    assert "left out: linear+gemv fp16 on sm_53: convolution_1x1 in float16 needs tensor cores" in result.stderr


def test_buffers_of_the_emulation_hold_what_was_uploaded() -> None:
    runtime = EmulatedRuntime()
    buffer = runtime.allocate(16)
    assert isinstance(buffer, Buffer)
    assert buffer.address % 256 == 0
    runtime.upload(buffer.address, np.arange(4, dtype=np.int32))
    assert runtime.download(buffer.address, 16).view(np.int32).tolist() == [0, 1, 2, 3]
