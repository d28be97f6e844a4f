"""The bodies and the fused pairs as torch operators, in the namespace `nitro`.

Importing this registers them. Of every operation there is one operator (`torch.ops.nitro.layer_norm`), and one of every
pair with a compute-bound first half (`torch.ops.nitro.convolution_and_layer_norm`), whose arguments are those of the
first, those of the second, and the strategy by its name; "" takes the default. All of them are for inference.

On a GPU they launch on torch's current stream and read and write torch's memory in place. They may be captured in a
CUDA graph once they have run outside of one, because kernels are compiled and counters are allocated then. A graph that
holds a strategy with counters must not run twice at the same time. On a CPU they compute the same in plain torch, and
on meta tensors they know the shapes.

Images are NHWC and filters KRSC, contiguous: `x.permute(0, 2, 3, 1)` of a channels-last tensor is that without a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from nitro.errors import ToolError, UsageError

from .bodies import Body, choose
from .problems import (
    ConvolutionProblem,
    DType,
    ElementwiseProblem,
    EmbeddingProblem,
    GemmProblem,
    LayerNormProblem,
    Problem,
    SkinnyGemmProblem,
    SoftmaxProblem,
    linear,
)
from .runtime import Argument, Executor, Handle, LoadedKernel, Runtime, typed_arguments
from .strategies import (
    Alone,
    InterBlockStatic,
    InterBlockTicket,
    IntraBlock,
    IntraThread,
    Order,
    PairStrategy,
    Strategy,
    launch,
    pair_kernel,
    single_kernel,
    strategy_name,
)

try:
    import torch as torch
    from torch.nn import functional as functional
except ImportError as _error:
    raise ToolError(
        f"torch cannot be imported ({_error}); install it, on a PC with `pip install 'nitro-analyze[torch]'`, to use "
        "fused kernels as operators."
    ) from _error

_DTYPES: dict[Any, DType] = {torch.float32: "float32", torch.float16: "float16", torch.int32: "int32"}
_ROLES = ("first", "second")


# ---- strategies by name -------------------------------------------------------------------------------------------


def _strategies() -> Iterator[PairStrategy]:
    for blocks in (None, 1, 2, 3, 4):
        for threads in range(128, 1024, 128):
            yield from (IntraBlock(threads, drain, blocks) for drain in (False, True))
        yield from (InterBlockStatic(order, blocks) for order in Order)
        yield from (InterBlockTicket(drain, blocks) for drain in (False, True))
        yield IntraThread(blocks)


_BY_NAME = {strategy_name(strategy): strategy for strategy in _strategies()}


def strategy_of(name: str) -> PairStrategy:
    """Return the strategy of a pair by its name, as `strategy_name` gives it.

    Raises:
        UsageError: there is no such strategy.
    """
    if name not in _BY_NAME:
        raise UsageError(f"there is no strategy {name!r} for a pair; take a name that strategy_name gives.")
    return _BY_NAME[name]


def default_strategy(first: Body, second: Body) -> PairStrategy:
    """Return what suits most pairs: warps of one block for unlike bodies, blocks of one grid for two compute bodies."""
    groups = second.threads if second.block_granular else 128
    fits = first.threads + groups <= 1024 and first.threads % 128 == 0 and groups % 128 == 0
    return IntraBlock() if fits and first.block_granular and not second.block_granular else InterBlockStatic()


# ---- operations ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator: its arguments, the problem that they pose, and the same in plain torch.

    `arguments` are torch's schema types by name. `problem` and `compute` take them by name; `shape` gives the shape of
    the output from the first tensor's shape and the problem.
    """

    name: str
    arguments: Mapping[str, str]
    problem: Callable[..., Problem]
    compute: Callable[..., Any]
    shape: Callable[[tuple[int, ...], Problem], tuple[int, ...]]
    tensors: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        named = tuple(name for name, kind in self.arguments.items() if kind.startswith("Tensor"))
        object.__setattr__(self, "tensors", named)

    def schema(self, prefix: str = "") -> str:
        """Return the arguments in torch's schema language."""
        return ", ".join(f"{kind} {prefix}{name}" for name, kind in self.arguments.items())


def _dtype(name: str, tensor: Any) -> DType:
    if tensor.dtype not in _DTYPES:
        raise UsageError(f"{name}: elements are {tensor.dtype}, bodies are built for float32 and float16; convert it.")
    return _DTYPES[tensor.dtype]


def _need_dimensions(name: str, tensor: Any, least: int, most: int) -> None:
    if not least <= tensor.dim() <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise UsageError(f"{name}: the tensor has {tensor.dim()} dimensions, and {wanted} are needed; reshape it.")


def _rows(tensor: Any) -> int:
    rows = 1
    for extent in tensor.shape[:-1]:
        rows *= int(extent)
    return rows


_ANY_DIMENSIONS = 64


def _layer_norm_problem(x: Any, epsilon: float, **_: Any) -> Problem:
    _need_dimensions("x", x, 1, _ANY_DIMENSIONS)
    return LayerNormProblem(_rows(x), int(x.shape[-1]), _dtype("x", x), epsilon)


def _layer_norm(x: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    wide = functional.layer_norm(x.float(), (x.shape[-1],), gamma.float(), beta.float(), epsilon)
    return wide.to(x.dtype)


def _softmax_problem(x: Any, scale: float, **_: Any) -> Problem:
    _need_dimensions("x", x, 1, _ANY_DIMENSIONS)
    return SoftmaxProblem(_rows(x), int(x.shape[-1]), _dtype("x", x), scale)


def _softmax(x: Any, scale: float) -> Any:
    return torch.softmax(x.float() * scale, dim=-1).to(x.dtype)


def _skinny_problem(x: Any, weights: Any, bias: Any, **_: Any) -> Problem:
    _need_dimensions("x", x, 1, _ANY_DIMENSIONS)
    _need_dimensions("weights", weights, 2, 2)
    outputs, inner = (int(extent) for extent in weights.shape)
    return SkinnyGemmProblem(_rows(x), outputs, inner, _dtype("x", x), bias is not None)


def _linear_problem(x: Any, weights: Any, bias: Any, relu: bool, **_: Any) -> Problem:
    _need_dimensions("x", x, 1, _ANY_DIMENSIONS)
    _need_dimensions("weights", weights, 2, 2)
    outputs, inner = (int(extent) for extent in weights.shape)
    return linear(_rows(x), outputs, inner, dtype=_dtype("x", x), bias=bias is not None, relu=relu)


def _finished(sums: Any, dtype: Any, relu: bool) -> Any:
    return (torch.relu(sums) if relu else sums).to(dtype)


def _widened(bias: Any) -> Any:
    return None if bias is None else bias.float()


def _linear(x: Any, weights: Any, bias: Any, relu: bool = False) -> Any:
    return _finished(functional.linear(x.float(), weights.float(), _widened(bias)), x.dtype, relu)


def _embedding_problem(ids: Any, table: Any, positions: Any, **_: Any) -> Problem:
    _need_dimensions("ids", ids, 1, _ANY_DIMENSIONS)
    _need_dimensions("table", table, 2, 2)
    _need_dimensions("positions", positions, 2, 2)
    vocabulary, columns = (int(extent) for extent in table.shape)
    tokens = _rows(ids) * int(ids.shape[-1])
    return EmbeddingProblem(tokens, columns, vocabulary, int(positions.shape[0]), _dtype("table", table))


def _embedding(ids: Any, table: Any, positions: Any) -> Any:
    known = (ids >= 0) & (ids < table.shape[0])
    places = torch.arange(ids.numel(), device=ids.device).reshape(ids.shape) % positions.shape[0]
    rows = table[torch.where(known, ids, 0).long()].float() + positions[places].float()
    return torch.where(known.unsqueeze(-1), rows, torch.nan).to(table.dtype)


def _residual_gelu_problem(x: Any, residual: Any) -> Problem:
    if x.shape != residual.shape:
        raise UsageError(
            f"residual: the shape is {tuple(residual.shape)}, x has {tuple(x.shape)}; reshape one of them."
        )
    return ElementwiseProblem("residual_gelu", int(x.numel()), _dtype("x", x))


def _residual_gelu(x: Any, residual: Any) -> Any:
    return functional.gelu(x.float() + residual.float()).to(x.dtype)


def _convolution_problem(
    x: Any, weights: Any, bias: Any, stride: int, padding: int, relu: bool, **_: Any
) -> ConvolutionProblem:
    _need_dimensions("x", x, 4, 4)
    _need_dimensions("weights", weights, 4, 4)
    images, height, width, channels = (int(extent) for extent in x.shape)
    sides = tuple(int(extent) for extent in weights.shape[1:3])
    if sides not in ((1, 1), (3, 3)):
        raise UsageError(f"weights: the filter is {sides[0]}x{sides[1]}, and 1x1 and 3x3 are built; call a library.")
    side: Literal[1, 3] = 3 if sides == (3, 3) else 1
    return ConvolutionProblem(
        images,
        height,
        width,
        channels,
        int(weights.shape[0]),
        filter_size=side,
        stride=stride,
        padding=padding,
        bias=bias is not None,
        relu=relu,
        dtype=_dtype("x", x),
    )


def _convolution(x: Any, weights: Any, bias: Any, stride: int, padding: int, relu: bool) -> Any:
    wide = functional.conv2d(
        x.permute(0, 3, 1, 2).float(), weights.permute(0, 3, 1, 2).float(), _widened(bias), stride, padding
    )
    return _finished(wide.permute(0, 2, 3, 1), x.dtype, relu).contiguous()


def _gemm_problem(left: Any, right: Any, bias: Any, relu: bool, **_: Any) -> Problem:
    _need_dimensions("left", left, 2, 2)
    _need_dimensions("right", right, 2, 2)
    depth, rows = (int(extent) for extent in left.shape)
    return GemmProblem(rows, int(right.shape[1]), depth, bias is not None, relu, _dtype("left", left))


def _gemm(left: Any, right: Any, bias: Any, relu: bool) -> Any:
    sums = left.t() @ right
    return _finished(sums if bias is None else sums + bias, left.dtype, relu)


def _same(shape: tuple[int, ...], _: Problem) -> tuple[int, ...]:
    return shape


def _new_columns(shape: tuple[int, ...], problem: Problem) -> tuple[int, ...]:
    assert isinstance(problem, SkinnyGemmProblem | ConvolutionProblem)
    return (*shape[:-1], problem.outputs)


def _one_more(shape: tuple[int, ...], problem: Problem) -> tuple[int, ...]:
    assert isinstance(problem, EmbeddingProblem)
    return (*shape, problem.columns)


def _of_problem(_: tuple[int, ...], problem: Problem) -> tuple[int, ...]:
    return next(array.shape for array in problem.arrays if array.output)


_PRODUCT = {"x": "Tensor", "weights": "Tensor", "bias": "Tensor?"}
OPERATIONS: dict[str, Operation] = {
    one.name: one
    for one in (
        Operation(
            "convolution",
            {**_PRODUCT, "stride": "int", "padding": "int", "relu": "bool"},
            _convolution_problem,
            _convolution,
            _of_problem,
        ),
        Operation("linear", {**_PRODUCT, "relu": "bool"}, _linear_problem, _linear, _new_columns),
        Operation(
            "gemm",
            {"left": "Tensor", "right": "Tensor", "bias": "Tensor?", "relu": "bool"},
            _gemm_problem,
            _gemm,
            _of_problem,
        ),
        Operation(
            "layer_norm",
            {"x": "Tensor", "gamma": "Tensor", "beta": "Tensor", "epsilon": "float"},
            _layer_norm_problem,
            _layer_norm,
            _same,
        ),
        Operation("softmax", {"x": "Tensor", "scale": "float"}, _softmax_problem, _softmax, _same),
        Operation("skinny_linear", _PRODUCT, _skinny_problem, _linear, _new_columns),
        Operation(
            "embedding",
            {"ids": "Tensor", "table": "Tensor", "positions": "Tensor"},
            _embedding_problem,
            _embedding,
            _one_more,
        ),
        Operation(
            "residual_gelu",
            {"x": "Tensor", "residual": "Tensor"},
            _residual_gelu_problem,
            _residual_gelu,
            _same,
        ),
    )
}
COMPUTE = ("convolution", "linear", "gemm")
PAIRS = tuple((first, second) for first in COMPUTE for second in OPERATIONS)


# ---- calls: arguments checked against the problem -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """An operation with its arguments, whose tensors fit its problem and lie on one device.

    `tensors` are those that are given, by name, `like` is one with the output's dtype and device, and `shape` is the
    output's.
    """

    operation: Operation
    arguments: Mapping[str, Any]
    problem: Problem
    tensors: Mapping[str, Any]
    like: Any
    shape: tuple[int, ...]


def call_of(name: str, arguments: Mapping[str, Any]) -> Call:
    """Return an operation on arguments by name.

    Raises:
        UsageError: a tensor has another shape, dtype or device than the operation needs.
    """
    operation = OPERATIONS[name]
    key = (name, *(_traits(arguments[one]) for one in operation.arguments))
    if key not in _posed:
        if len(_posed) >= _MOST_KEPT:
            _posed.clear()
        _posed[key] = _checked_problem(operation, arguments)
    tensors = {one: arguments[one] for one in operation.tensors if arguments[one] is not None}
    return Call(operation, arguments, _posed[key][0], tensors, _like(tensors), _posed[key][1])


# What calls pose again and again: the problem and the shape of its output. Forgotten when shapes never end.
_posed: dict[Any, tuple[Problem, tuple[int, ...]]] = {}
_MOST_KEPT = 4096


def _traits(value: Any) -> Any:
    """Return all of an argument that its checks look at."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.shape, value.dtype, value.device, value.is_contiguous()


def _like(tensors: Mapping[str, Any]) -> Any:
    return tensors["table"] if "table" in tensors else next(iter(tensors.values()))


def _checked_problem(operation: Operation, arguments: Mapping[str, Any]) -> tuple[Problem, tuple[int, ...]]:
    problem = operation.problem(**arguments)
    device = _like({name: arguments[name] for name in operation.tensors}).device
    for array in problem.arrays:
        if array.output:
            continue
        tensor = arguments[array.name]
        if tensor.device != device:
            raise UsageError(f"{array.name}: the tensor is on {tensor.device}, the others are on {device}; move it.")
        if _dtype(array.name, tensor) != array.dtype:
            raise UsageError(
                f"{array.name}: elements are {tensor.dtype}, the operation needs {array.dtype}; convert the tensor."
            )
        # A problem sees leading dimensions as rows, and where only the number of elements matters a flat run.
        if tensor.numel() != array.elements or (len(array.shape) > 1 and tensor.shape[-1] != array.shape[-1]):
            raise UsageError(
                f"{array.name}: the shape is {tuple(tensor.shape)}, the problem has {array.shape}; reshape one of them."
            )
        if not tensor.is_contiguous():
            raise UsageError(
                f"{array.name}: the tensor is not contiguous (strides {tuple(tensor.stride())}); make a copy of it."
            )
    return problem, operation.shape(tuple(arguments[operation.tensors[0]].shape), problem)


# ---- launching ----------------------------------------------------------------------------------------------------


class TorchExecutor(Executor):
    """An executor that can keep a launch for many addresses: all but the pointers is made ready once."""

    def counters_of(self, loaded: LoadedKernel, slot: int) -> int:
        """Return the address of the counters of a kernel, which `check` will look at."""
        return self._counter(loaded.kernel, slot).address


@dataclass(slots=True)
class Plan:
    """A launch but for its pointers.

    `pointers` are the places of the arguments that are pointers, by the name of the array (`first_x`).
    """

    loaded: LoadedKernel
    grid: int
    arguments: list[Argument]
    pointers: tuple[tuple[int, str], ...]
    counters_at: int | None
    problems: tuple[Problem, ...]


@dataclass(slots=True)
class Launcher:
    """Launches operations on tensors of one device, on the stream that is current there.

    Args:
        runtime: the device.
        stream: gives the stream to launch on; None is the runtime's own.
    """

    runtime: Runtime
    stream: Callable[[], Handle] = field(default=lambda: None)
    executor: TorchExecutor = field(init=False)
    _plans: dict[Any, Plan | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.executor = TorchExecutor(self.runtime)

    def plan(self, problems: tuple[Problem, ...], bodies: tuple[Body, ...], strategy: Strategy) -> Plan | None:
        """Return a launch, compiled and loaded; None if there is nothing to do. The second time it is there already.

        Raises:
            UsageError: the strategy cannot run the bodies, or they do not fit the problems or the device.
        """
        key = (problems, bodies, strategy)
        if key not in self._plans:
            if len(self._plans) >= _MOST_KEPT:
                self._plans.clear()
            self._plans[key] = self._make_plan(*key)
        return self._plans[key]

    def _make_plan(self, problems: tuple[Problem, ...], bodies: tuple[Body, ...], strategy: Strategy) -> Plan | None:
        if isinstance(strategy, PairStrategy):
            kernel = pair_kernel(bodies[0], bodies[1], strategy)
        else:
            kernel = single_kernel(bodies[0], strategy)
        loaded = self.executor.load(kernel)
        facts = self.runtime.facts
        work = launch(kernel, problems, sms=facts.sms, sm_ids=facts.sm_ids, blocks_per_sm=max(1, loaded.blocks_per_sm))
        if work.empty:
            return None
        names = {str(value) for value in work.arguments if isinstance(value, str)}
        arguments = list(typed_arguments(work, dict.fromkeys(names, 0)))
        pointers = {value: at for at, value in enumerate(work.arguments) if isinstance(value, str)}
        counters_at = pointers.pop("counters", None)
        plan = Plan(
            loaded, work.grid, arguments, tuple((at, name) for name, at in pointers.items()), counters_at, problems
        )
        if counters_at is not None:
            for slot in (0, CAPTURE_SLOT):
                self.executor.counters_of(loaded, slot)
        return plan

    def submit(self, plan: Plan | None, addresses: Mapping[str, int], *, slot: int = 0) -> None:
        """Launch on the current stream. Launches that may run at the same time need slots of their own."""
        if plan is None:
            return
        arguments = plan.arguments.copy()
        for at, name in plan.pointers:
            arguments[at] = addresses[name]
        if plan.counters_at is not None:
            arguments[plan.counters_at] = self.executor.counters_of(plan.loaded, slot)
        self.runtime.launch(plan.loaded, plan.grid, arguments, self.stream())

    def run(
        self,
        calls: Sequence[Call],
        strategy: Strategy | None = None,
        *,
        bodies: tuple[Body, ...] | None = None,
        slot: int = 0,
    ) -> tuple[Any, ...]:
        """Run one operation, or two in one launch, and return the outputs.

        Args:
            calls: one or two operations.
            strategy: how; default: alone, or what suits most pairs.
            bodies: with which bodies; default: good ones for the device and the alignment of the tensors.
            slot: launches with counters that may run at the same time need slots of their own.
        """
        outputs = tuple(torch.empty(call.shape, dtype=call.like.dtype, device=call.like.device) for call in calls)
        places = [
            {name: tensor.data_ptr() for name, tensor in (*call.tensors.items(), ("y", y))}
            for call, y in zip(calls, outputs, strict=True)
        ]
        if bodies is None:
            bodies = tuple(
                choose(call.problem, self.runtime.facts.sm, aligned=_unaligned(held) is None)
                for call, held in zip(calls, places, strict=True)
            )
        if strategy is None:
            strategy = Alone() if len(calls) == 1 else default_strategy(*bodies)
        plan = self.plan(tuple(call.problem for call in calls), bodies, strategy)
        addresses: dict[str, int] = {}
        for role, body, held in zip(_ROLES, bodies, places, strict=False):
            name = _unaligned(held) if body.width > 1 else None
            if name is not None:
                raise UsageError(
                    f"{name}: the address {held[name]:#x} is no multiple of 16, and {body.name} moves 16 bytes at "
                    "once; leave the bodies out, or copy the tensor."
                )
            addresses |= {f"{role}_{one}": at for one, at in held.items()}
        self.submit(plan, addresses, slot=slot)
        return outputs


# Launches that are captured share counters of their own, so that a graph can run beside ordinary launches.
CAPTURE_SLOT = -1


def _unaligned(places: Mapping[str, int]) -> str | None:
    return next((name for name, at in places.items() if at % 16), None)


@dataclass(slots=True)
class _CurrentStream:
    """Torch's current stream, in the words of the runtime, wrapped once a stream."""

    device: Any
    runtime: Any
    _handles: dict[int, Handle] = field(default_factory=dict)

    def __call__(self) -> Handle:
        current = torch.cuda.current_stream(self.device)
        address = int(current.cuda_stream)
        if address not in self._handles:
            self._handles[address] = self.runtime.device.create_stream(_Foreign(address))
        return self._handles[address]


@dataclass(frozen=True, slots=True)
class _Foreign:
    address: int

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address


_launchers: dict[int, Launcher] = {}


def launcher_for(device: Any) -> Launcher:
    """Return the launcher of a torch device with a GPU; it is made once.

    Raises:
        ToolError: cuda.core, NVRTC or the driver is missing.
        UsageError: the device has no GPU.
    """
    device = torch.device(device)
    if device.type != "cuda":
        raise UsageError(f"fused kernels run on an NVIDIA GPU, the tensors are on {device}; move them to cuda.")
    index = torch.cuda.current_device() if device.index is None else int(device.index)
    if index not in _launchers:
        from .runtime_cuda_core import CudaCoreRuntime

        torch.cuda.init()
        # Torch makes the primary context current on first use, and the runtime shares it.
        torch.empty(1, device=f"cuda:{index}")
        runtime = CudaCoreRuntime(index)
        _launchers[index] = Launcher(runtime, _CurrentStream(torch.device("cuda", index), runtime))
    return _launchers[index]


def check(device: Any = "cuda") -> None:
    """Wait for a GPU and raise ToolError if it reports an error, or a kernel found its counters disturbed."""
    launcher_for(device).executor.check()


# ---- operators ----------------------------------------------------------------------------------------------------


def _split(operations: Sequence[Operation], values: tuple[Any, ...]) -> Iterator[tuple[Operation, dict[str, Any]]]:
    at = 0
    for operation in operations:
        count = len(operation.arguments)
        yield operation, dict(zip(operation.arguments, values[at : at + count], strict=True))
        at += count


def _named(operations: Sequence[Operation], values: tuple[Any, ...]) -> list[Call]:
    calls = [call_of(operation.name, arguments) for operation, arguments in _split(operations, values)]
    _need_one_device([call.like.device for call in calls])
    return calls


def _need_one_device(devices: Sequence[Any]) -> None:
    if any(device != devices[0] for device in devices):
        raise UsageError(f"the halves of a pair are on {' and '.join(map(str, devices))}; move them to one device.")


def _plain(operations: Sequence[Operation], *values: Any) -> Any:
    if len(operations) > 1 and values[-1]:
        strategy_of(values[-1])
    outputs = tuple(call.operation.compute(**call.arguments) for call in _named(operations, values))
    return outputs if len(outputs) > 1 else outputs[0]


def _shapes(operations: Sequence[Operation], *values: Any) -> Any:
    # Sizes can be symbols here, which cannot be looked up as calls are.
    outputs = []
    for operation, arguments in _split(operations, values):
        like = _like({name: arguments[name] for name in operation.tensors})
        outputs.append(like.new_empty(_checked_problem(operation, arguments)[1]))
    _need_one_device([one.device for one in outputs])
    return tuple(outputs) if len(outputs) > 1 else outputs[0]


def _on_gpu(operations: Sequence[Operation], *values: Any) -> Any:
    calls = _named(operations, values)
    device = calls[0].like.device
    strategy = strategy_of(values[-1]) if len(operations) > 1 and values[-1] else None
    slot = CAPTURE_SLOT if torch.cuda.is_current_stream_capturing() else _slot(device)
    with torch.cuda.device(device):
        outputs = launcher_for(device).run(calls, strategy, slot=slot)
    return outputs if len(outputs) > 1 else outputs[0]


def _slot(device: Any) -> int:
    # Launches of one stream follow each other; the default stream has address 0.
    return int(torch.cuda.current_stream(device).cuda_stream)


def _register(library: Any, name: str, operations: Sequence[Operation]) -> None:
    if len(operations) == 1:
        schema, result = operations[0].schema(), "Tensor"
    else:
        halves = (one.schema(f"{role}_") for role, one in zip(_ROLES, operations, strict=True))
        schema, result = f"{', '.join(halves)}, str strategy", "(Tensor, Tensor)"
    library.define(f"{name}({schema}) -> {result}")
    library.impl(name, partial(_plain, operations), "CPU")
    library.impl(name, partial(_on_gpu, operations), "CUDA")
    torch.library.register_fake(f"nitro::{name}", partial(_shapes, operations), lib=library)


def _register_all() -> Any:
    library = torch.library.Library("nitro", "DEF")
    for name, operation in OPERATIONS.items():
        _register(library, name, [operation])
    for first, second in PAIRS:
        _register(library, f"{first}_and_{second}", [OPERATIONS[first], OPERATIONS[second]])
    return library


# Operators live as long as this.
_LIBRARY = _register_all()
