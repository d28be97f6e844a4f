"""The operators of torch: on a CPU against double precision and the emulated kernels, and on a GPU."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nitro.errors import UsageError
from nitro.fused_kernels.references import error_limit, random_inputs, reference, relative_error
from nitro.fused_kernels.runtime_emulation import EmulatedRuntime
from nitro.fused_kernels.strategies import Alone, InterBlockTicket, IntraBlock, strategy_name

torch = pytest.importorskip("torch", reason="torch is not installed")

from nitro.fused_kernels import torch_ops  # noqa: E402
from nitro.fused_kernels.bodies import choose  # noqa: E402
from nitro.fused_kernels.memory_bodies import MemoryBody  # noqa: E402
from nitro.fused_kernels.torch_calls import OPERATIONS, PAIRS, call_of, library  # noqa: E402
from nitro.fused_kernels.torch_launch import Launcher, launcher_for, strategy_of  # noqa: E402

needs_gpp = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is needed to emulate kernels")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")


def values_of(name: str, dtype: Any = torch.float32, device: str = "cpu") -> tuple[Any, ...]:
    """Return arguments of an operator, in order, none of whose sizes is a multiple of a tile."""
    torch.manual_seed(3)

    def random(*shape: int) -> Any:
        return (torch.rand(shape) * 2 - 1).to(dtype).to(device)

    makers: dict[str, Callable[[], tuple[Any, ...]]] = {
        "convolution": lambda: (random(1, 9, 7, 24), random(20, 3, 3, 24), random(20), 2, 1, True),
        "linear": lambda: (random(3, 7, 40), random(24, 40), random(24), False),
        "gemm": lambda: (random(16, 36), random(16, 20), None, True),
        "layer_norm": lambda: (random(2, 5, 40), random(40), random(40), 1e-5),
        "softmax": lambda: (random(2, 3, 5, 24), 0.5),
        "skinny_linear": lambda: (random(3, 40), random(24, 40), random(24)),
        "embedding": lambda: (torch.randint(30, (2, 5), dtype=torch.int32).to(device), random(30, 40), random(5, 40)),
        "residual_gelu": lambda: (random(2, 5, 40), random(2, 5, 40)),
    }
    return makers[name]()


def named(name: str, values: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(OPERATIONS[name].arguments, values, strict=True))


def operator(name: str) -> Any:
    return getattr(torch.ops.nitro, name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operators_on_a_cpu_are_right(name: str, dtype: Any) -> None:
    if name == "gemm" and dtype == torch.float16:
        pytest.skip("K-major operands are built for float32")
    values = values_of(name, dtype)
    call = call_of(name, named(name, values))
    inputs = {
        array.name: call.tensors[array.name].numpy().reshape(array.shape)
        for array in call.problem.arrays
        if not array.output
    }
    wanted = reference(call.problem, inputs)
    found = operator(name)(*values)
    assert tuple(found.shape) == call.shape
    assert relative_error(found.numpy().reshape(wanted.shape), wanted) <= error_limit(call.problem)


@pytest.mark.parametrize(
    ("first", "second"), [("convolution", "layer_norm"), ("linear", "embedding"), ("gemm", "linear")]
)
def test_a_pair_gives_what_its_halves_give(first: str, second: str) -> None:
    one, other = values_of(first), values_of(second)
    found = operator(f"{first}_and_{second}")(*one, *other, "")
    assert torch.equal(found[0], operator(first)(*one))
    assert torch.equal(found[1], operator(second)(*other))


def test_every_pair_has_an_operator_that_knows_its_shapes() -> None:
    for first, second in PAIRS:
        values = (*values_of(first), *values_of(second))
        on_meta = [value.to("meta") if isinstance(value, torch.Tensor) else value for value in values]
        found = operator(f"{first}_and_{second}")(*on_meta, "")
        for name, output in zip((first, second), found, strict=True):
            assert output.device.type == "meta"
            assert tuple(output.shape) == call_of(name, named(name, values_of(name))).shape


def test_torch_finds_no_fault_in_an_operator() -> None:
    values = (*values_of("convolution"), *values_of("layer_norm"))
    library.opcheck(operator("convolution_and_layer_norm").default, (*values, ""))


@needs_gpp
@pytest.mark.parametrize("name", OPERATIONS)
def test_kernels_get_the_tensors_of_an_operator(name: str) -> None:
    values = values_of(name)
    launcher = Launcher(EmulatedRuntime())
    call = call_of(name, named(name, values))
    (found,) = launcher.run([call])
    wanted = operator(name)(*values).numpy().astype(np.float64)
    assert tuple(found.shape) == call.shape
    assert relative_error(found.numpy(), wanted) <= 2 * error_limit(call.problem)


@needs_gpp
@pytest.mark.parametrize("strategy", [None, InterBlockTicket(drain=True)])
def test_a_fused_launch_has_the_bits_of_its_halves(strategy: Any) -> None:
    launcher = Launcher(EmulatedRuntime())
    calls = [call_of(name, named(name, values_of(name))) for name in ("convolution", "layer_norm")]
    for _ in range(2):
        fused = launcher.run(calls, strategy)
        for call, output in zip(calls, fused, strict=True):
            assert torch.equal(output, launcher.run([call])[0])
    launcher.executor.check()


@needs_gpp
def test_unaligned_tensors_get_bodies_that_move_single_elements() -> None:
    launcher = Launcher(EmulatedRuntime())
    x = torch.rand(5 * 40 + 1)[1:].reshape(5, 40)
    call = call_of("layer_norm", {"x": x, "gamma": torch.ones(40), "beta": torch.zeros(40), "epsilon": 1e-5})
    (found,) = launcher.run([call])
    assert torch.allclose(found, torch.nn.functional.layer_norm(x, (40,)), atol=1e-5)
    with pytest.raises(UsageError, match=r"x: the address 0x\w+ is no multiple of 16, and layer_norm_f32_w4"):
        launcher.run([call], bodies=(choose(call.problem, 80),))


def test_no_rows_are_no_launch() -> None:
    launcher = Launcher(EmulatedRuntime())
    call = call_of(
        "layer_norm", {"x": torch.rand(0, 8), "gamma": torch.ones(8), "beta": torch.ones(8), "epsilon": 1e-5}
    )
    (found,) = launcher.run([call])
    assert tuple(found.shape) == (0, 8)


IMAGE, FILTERS = torch.ones(1, 2, 2, 4), torch.ones(8, 3, 3, 4)


@pytest.mark.parametrize(
    ("image", "filters", "padding"),
    [
        (IMAGE, FILTERS, 0),  # the filter is larger than the image
        (IMAGE[:, :0].contiguous(), FILTERS, 1),
        (IMAGE[:0], FILTERS, 1),
        (IMAGE[..., :0].contiguous(), FILTERS[..., :0].contiguous(), 1),
        (IMAGE, FILTERS[:0], 1),
    ],
)
def test_an_empty_convolution_has_the_shape_that_its_problem_has(image: Any, filters: Any, padding: int) -> None:
    bias = torch.arange(float(len(filters)))
    found = operator("convolution")(image, filters, bias, 1, padding, False)
    known = operator("convolution")(*(one.to("meta") for one in (image, filters, bias)), 1, padding, False)
    assert found.shape == known.shape
    assert torch.equal(found, torch.zeros(found.shape) + bias)


X, WEIGHTS, ROWS = torch.ones(4, 8), torch.ones(6, 8), torch.ones(8)


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("layer_norm", (X.double(), ROWS, ROWS, 1e-5), "x: elements are torch.float64, bodies are built for"),
        ("layer_norm", (X, ROWS[:4], ROWS, 1e-5), "gamma: the shape is (4,), the problem has (8,)"),
        ("layer_norm", (torch.ones(8, 8).t(), ROWS, ROWS, 1e-5), "x: the tensor is not contiguous (strides (1, 8))"),
        ("layer_norm", (X, ROWS.half(), ROWS, 1e-5), "gamma: elements are torch.float16, the operation needs float32"),
        (
            "layer_norm",
            (X, ROWS.to("meta"), ROWS, 1e-5),
            "gamma: the tensor is on meta, the others are on cpu; move it.",
        ),
        ("skinny_linear", (torch.ones(5, 8), WEIGHTS, None), "skinny_gemm: batch is 5, but 1 to 4 are built"),
        ("linear", (torch.ones(4, 7), WEIGHTS, None, False), "x: the shape is (4, 7), the problem has (1, 4, 1, 8)"),
        ("residual_gelu", (X, X.t()), "residual: the shape is (8, 4), x has (4, 8)"),
        ("embedding", (torch.ones(3, dtype=torch.int64), X, X), "ids: elements are torch.int64"),
        ("convolution", (X, X, None, 1, 0, False), "x: the tensor has 2 dimensions, and 4 are needed"),
        (
            "convolution",
            (torch.ones(1, 9, 9, 4), torch.ones(4, 7, 7, 4), None, 1, 3, False),
            "weights: the filter is 7x7, and 1x1 and 3x3 are built",
        ),
        ("softmax", (X.int(), 1.0), "x: elements are torch.int32, bodies are built for float32 and float16"),
        ("layer_norm", (X, ROWS.reshape(2, 4), ROWS, 1e-5), "gamma: the tensor has 2 dimensions, and 1 are needed"),
        ("layer_norm", (X, ROWS, ROWS.reshape(1, 8), 1e-5), "beta: the tensor has 2 dimensions, and 1 are needed"),
        # Torch would add this to rows in the place of columns.
        ("linear", (X, WEIGHTS[:4], ROWS[:4].reshape(4, 1), False), "bias: the tensor has 2 dimensions"),
        ("gemm", (X.t().contiguous(), WEIGHTS[:4].t().contiguous(), ROWS[:4].reshape(4, 1), False), "bias: the tensor"),
        ("convolution", (IMAGE, FILTERS, None, 0, 1, False), "convolution: the stride is 0; give at least 1"),
        ("convolution", (IMAGE, FILTERS, None, 2**40, 1, False), f"convolution: the stride is {2**40}; give"),
        ("convolution", (IMAGE, FILTERS, ROWS.reshape(8, 1), 1, 1, False), "bias: the tensor has 2 dimensions"),
        ("gemm", (X.half(), X.half(), None, False), "gemm: K-major operands are built for float32"),
    ],
)
def test_unsuitable_arguments_are_refused_in_one_sentence(name: str, values: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        operator(name)(*values)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_an_unknown_strategy_is_refused() -> None:
    values = (*values_of("convolution"), *values_of("layer_norm"))
    with pytest.raises(UsageError, match="there is no strategy 'sideways'"):
        operator("convolution_and_layer_norm")(*values, "sideways")


def test_strategies_are_found_by_their_names() -> None:
    for strategy in (IntraBlock(256, drain=True), InterBlockTicket(), IntraBlock(min_blocks=2)):
        assert strategy_of(strategy_name(strategy)) == strategy


def test_a_tensor_without_a_gpu_is_no_place_for_a_launch() -> None:
    with pytest.raises(UsageError, match="fused kernels run on an NVIDIA GPU, the tensors are on cpu"):
        launcher_for("cpu")


def test_launches_on_the_same_shapes_are_planned_once() -> None:
    launcher = Launcher(EmulatedRuntime())
    problem = call_of("layer_norm", named("layer_norm", values_of("layer_norm"))).problem
    strategy = Alone()
    body = MemoryBody("layer_norm")
    assert launcher.plan((problem,), (body,), strategy) is launcher.plan((problem,), (body,), strategy)


def test_without_torch_the_package_can_be_imported_and_the_operators_say_what_is_missing() -> None:
    command = (
        "import sys; sys.modules['torch'] = None\n"
        "import nitro.fused_kernels\n"
        "from nitro.errors import ToolError\n"
        "try:\n    import nitro.fused_kernels.torch_ops\n"
        "except ToolError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("torch cannot be imported (")
    assert "to use fused kernels as operators." in done.stdout


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_fused_operators_on_a_gpu_have_the_bits_of_their_halves(dtype: Any) -> None:
    # `fuse verify` checks all bodies and strategies; this is about how tensors come to them.
    for first, second in (("convolution", "layer_norm"), ("linear", "embedding"), ("linear", "skinny_linear")):
        one, other = values_of(first, dtype, "cuda"), values_of(second, dtype, "cuda")
        found = operator(f"{first}_and_{second}")(*one, *other, "")
        assert torch.equal(found[0], operator(first)(*one))
        assert torch.equal(found[1], operator(second)(*other))
    torch_ops.check()


@needs_gpu
@pytest.mark.parametrize("strategy", ["", "inter_block_ticket_drain"])
def test_operators_are_captured_in_a_graph_on_a_gpu(strategy: str) -> None:
    one, other = values_of("convolution", device="cuda"), values_of("layer_norm", device="cuda")
    call = operator("convolution_and_layer_norm")
    call(*one, *other, strategy)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = call(*one, *other, strategy)
    for _ in range(3):
        one[0].uniform_(-1, 1)
        graph.replay()
        wanted = call(*one, *other, strategy)
        torch.cuda.synchronize()
        assert all(torch.equal(left, right) for left, right in zip(found, wanted, strict=True))
    torch_ops.check()


def test_random_inputs_of_the_references_are_what_the_operators_take() -> None:
    call = call_of("embedding", named("embedding", values_of("embedding")))
    inputs = {name: torch.from_numpy(array) for name, array in random_inputs(call.problem, 5).items()}
    wanted = reference(call.problem, {name: tensor.numpy() for name, tensor in inputs.items()})
    inputs["ids"][3] = 10**6
    found = operator("embedding")(inputs["ids"], inputs["table"], inputs["positions"]).numpy()
    assert np.isnan(found[3]).all()
    assert relative_error(np.delete(found, 3, axis=0), np.delete(wanted, 3, axis=0)) < 1e-6
