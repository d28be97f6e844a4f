"""The operations of the bodies on torch tensors: what each takes, the problem it poses, and the same in plain torch.

Images are NHWC and filters KRSC, contiguous: `x.permute(0, 2, 3, 1)` of a channels-last tensor is that without a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nitro.errors import ToolError, UsageError

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

try:
    import torch as torch
    from torch import library as library
    from torch.nn import functional as functional
except ImportError as _error:
    raise ToolError(
        f"torch cannot be imported ({_error}); install it, on a PC with `pip install 'nitro-analyze[torch]'`, to use "
        "fused kernels as operators."
    ) from _error

_DTYPES: dict[Any, DType] = {torch.float32: "float32", torch.float16: "float16"}
# What is looked up call after call is forgotten when there are so many, as where shapes never end.
MOST_KEPT = 4096


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
    if ids.dtype != torch.int32:
        raise UsageError(f"ids: elements are {ids.dtype}, the operation needs int32; convert the tensor.")
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
    problem = _convolution_problem(x, weights, bias, stride, padding, relu)
    if 0 in (problem.rows, problem.outputs, problem.channels):  # which torch refuses, or gives another shape
        empty = x.new_zeros((problem.images, problem.out_height, problem.out_width, problem.outputs))
        return _finished(empty if bias is None else empty + bias, x.dtype, relu)
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


_VECTORS = ("bias", "gamma", "beta")
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
        if len(_posed) >= MOST_KEPT:
            _posed.clear()
        _posed[key] = checked_problem(operation, arguments)
    tensors = {one: arguments[one] for one in operation.tensors if arguments[one] is not None}
    return Call(operation, arguments, _posed[key][0], tensors, like_of(tensors), _posed[key][1])


# What calls pose again and again: the problem and the shape of its output. Forgotten when shapes never end.
_posed: dict[Any, tuple[Problem, tuple[int, ...]]] = {}


def _traits(value: Any) -> Any:
    """Return all of an argument that its checks look at."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.shape, value.dtype, value.device, value.is_contiguous()


def like_of(tensors: Mapping[str, Any]) -> Any:
    """Return the tensor whose dtype and device the output has."""
    return tensors["table"] if "table" in tensors else next(iter(tensors.values()))


def checked_problem(operation: Operation, arguments: Mapping[str, Any]) -> tuple[Problem, tuple[int, ...]]:
    """Return the problem that arguments pose, and the shape of its output.

    Raises:
        UsageError: a tensor has another shape, dtype or device than the operation needs.
    """
    problem = operation.problem(**arguments)
    device = like_of({name: arguments[name] for name in operation.tensors}).device
    for array in problem.arrays:
        if array.output:
            continue
        tensor = arguments[array.name]
        if tensor.device != device:
            raise UsageError(f"{array.name}: the tensor is on {tensor.device}, the others are on {device}; move it.")
        if array.dtype != "int32" and _dtype(array.name, tensor) != array.dtype:
            raise UsageError(
                f"{array.name}: elements are {tensor.dtype}, the operation needs {array.dtype}; convert the tensor."
            )
        if array.name in _VECTORS:
            _need_dimensions(array.name, tensor, 1, 1)  # torch would spread another shape in its own way
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
