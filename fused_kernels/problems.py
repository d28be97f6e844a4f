"""What a body computes, without how: shapes, arrays, and the work that the shapes imply.

A problem knows its arrays by the names of the fields of the body's parameters in `csrc/`, so that binding arrays to a
kernel is a lookup. Sizes may be 0; what no body can do is refused here.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Literal

from nitro.errors import UsageError

DType = Literal["float32", "float16", "int32"]
ELEMENT_BYTES: dict[DType, int] = {"float32": 4, "float16": 2, "int32": 4}
_LARGEST_INT = 2**31 - 1
_MOST_ELEMENTS = 2**60  # whose bytes 64 bits can count


@dataclass(frozen=True, slots=True)
class Array:
    """One array of a problem, C-contiguous."""

    name: str
    shape: tuple[int, ...]
    dtype: DType
    output: bool = False

    @property
    def elements(self) -> int:
        """Return the number of elements."""
        product = 1
        for extent in self.shape:
            product *= extent
        return product

    @property
    def bytes(self) -> int:
        """Return the size in bytes."""
        return self.elements * ELEMENT_BYTES[self.dtype]


def _need(holds: bool, fact: str) -> None:
    if not holds:
        raise UsageError(fact)


def _need_sizes(what: str, **sizes: int) -> None:
    for name, size in sizes.items():
        _need(isinstance(size, Integral), f"{what}: {name} is {size!r}, which is no whole number; give one.")
        _need(
            0 <= size <= _LARGEST_INT,
            f"{what}: {name} is {size}, but sizes go from 0 to {_LARGEST_INT}; split the work.",
        )


@dataclass(frozen=True, slots=True)
class LayerNormProblem:
    """Normalise rows: y = (x - mean) / sqrt(variance + epsilon) * gamma + beta."""

    rows: int
    columns: int
    dtype: DType = "float32"
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        _need_sizes("layer_norm", rows=self.rows, columns=self.columns)
        _need(self.columns > 0, "layer_norm: a row has 0 columns, so it has no mean; give at least 1.")

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Return the arrays, in the order of the kernel's fields."""
        return (
            Array("x", (self.rows, self.columns), self.dtype),
            Array("gamma", (self.columns,), self.dtype),
            Array("beta", (self.columns,), self.dtype),
            Array("y", (self.rows, self.columns), self.dtype, output=True),
        )

    @property
    def scalars(self) -> dict[str, int | float]:
        """Return the other fields of the kernel's parameters."""
        return {
            "rows": self.rows,
            "columns": self.columns,
            "inverse_columns": 1.0 / self.columns,
            "epsilon": self.epsilon,
        }

    @property
    def flop(self) -> int:
        """Return the floating-point operations: sum, difference, square, scale and shift of every element."""
        return 7 * self.rows * self.columns

    @property
    def streamed_bytes(self) -> int:
        """Return the bytes that must move between memory and the chip at least."""
        return sum(array.bytes for array in self.arrays)


@dataclass(frozen=True, slots=True)
class SoftmaxProblem:
    """Turn rows of scores into probabilities: softmax(scale * x)."""

    rows: int
    columns: int
    dtype: DType = "float32"
    scale: float = 1.0

    def __post_init__(self) -> None:
        _need_sizes("softmax", rows=self.rows, columns=self.columns)
        _need(self.scale >= 0, f"softmax: scale is {self.scale}; negate the scores instead.")

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Return the arrays, in the order of the kernel's fields."""
        return (
            Array("x", (self.rows, self.columns), self.dtype),
            Array("y", (self.rows, self.columns), self.dtype, output=True),
        )

    @property
    def scalars(self) -> dict[str, int | float]:
        """Return the other fields of the kernel's parameters."""
        return {"rows": self.rows, "columns": self.columns, "scale": self.scale}

    @property
    def flop(self) -> int:
        """Return the floating-point operations, an exponential counted as one."""
        return 5 * self.rows * self.columns

    @property
    def streamed_bytes(self) -> int:
        """Return the bytes that must move between memory and the chip at least."""
        return sum(array.bytes for array in self.arrays)


@dataclass(frozen=True, slots=True)
class SkinnyGemmProblem:
    """A linear layer at batch 1 to 4, y = x W^T + bias: the weights are the bytes."""

    batch: int
    outputs: int
    inner: int
    dtype: DType = "float32"
    bias: bool = True

    def __post_init__(self) -> None:
        _need_sizes("skinny_gemm", batch=self.batch, outputs=self.outputs, inner=self.inner)
        _need(1 <= self.batch <= 4, f"skinny_gemm: batch is {self.batch}, but 1 to 4 are built; use linear beyond.")

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Return the arrays, in the order of the kernel's fields."""
        bias = (Array("bias", (self.outputs,), self.dtype),) if self.bias else ()
        return (
            Array("weights", (self.outputs, self.inner), self.dtype),
            Array("x", (self.batch, self.inner), self.dtype),
            *bias,
            Array("y", (self.batch, self.outputs), self.dtype, output=True),
        )

    @property
    def scalars(self) -> dict[str, int | float]:
        """Return the other fields of the kernel's parameters."""
        return {"outputs": self.outputs, "inner": self.inner}

    @property
    def flop(self) -> int:
        """Return the floating-point operations."""
        return 2 * self.batch * self.outputs * self.inner

    @property
    def streamed_bytes(self) -> int:
        """Return the bytes that must move between memory and the chip at least."""
        return sum(array.bytes for array in self.arrays)


@dataclass(frozen=True, slots=True)
class EmbeddingProblem:
    """Gather the row of each token and add the row of its position."""

    tokens: int
    columns: int
    vocabulary: int
    sequence: int
    dtype: DType = "float32"

    def __post_init__(self) -> None:
        _need_sizes("embedding", tokens=self.tokens, columns=self.columns, vocabulary=self.vocabulary)
        _need(self.sequence > 0, f"embedding: the sequence length is {self.sequence}; give at least 1.")
        _need(self.vocabulary > 0, "embedding: the table has no rows; give at least 1.")

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Return the arrays, in the order of the kernel's fields."""
        return (
            Array("ids", (self.tokens,), "int32"),
            Array("table", (self.vocabulary, self.columns), self.dtype),
            Array("positions", (self.sequence, self.columns), self.dtype),
            Array("y", (self.tokens, self.columns), self.dtype, output=True),
        )

    @property
    def scalars(self) -> dict[str, int | float]:
        """Return the other fields of the kernel's parameters."""
        return {
            "tokens": self.tokens,
            "columns": self.columns,
            "vocabulary": self.vocabulary,
            "sequence": self.sequence,
        }

    @property
    def flop(self) -> int:
        """Return the floating-point operations."""
        return self.tokens * self.columns

    @property
    def streamed_bytes(self) -> int:
        """Return the bytes that move at least: a table row and an output row a token, the ids, the positions once."""
        row = self.columns * ELEMENT_BYTES[self.dtype]
        return 2 * self.tokens * row + 4 * self.tokens + min(self.sequence, self.tokens) * row


@dataclass(frozen=True, slots=True)
class ElementwiseProblem:
    """One operation on every element: gelu(x + residual), or a copy as the yardstick of bandwidth."""

    operation: Literal["residual_gelu", "copy"]
    count: int
    dtype: DType = "float32"

    def __post_init__(self) -> None:
        _need(
            isinstance(self.count, Integral),
            f"{self.operation}: there are {self.count!r} elements; give a whole number.",
        )
        _need(
            0 <= self.count <= _MOST_ELEMENTS,
            f"{self.operation}: the number of elements is {self.count}; give 0 to {_MOST_ELEMENTS}.",
        )

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Return the arrays, in the order of the kernel's fields."""
        residual = (Array("residual", (self.count,), self.dtype),) if self.operation == "residual_gelu" else ()
        return (
            Array("x", (self.count,), self.dtype),
            *residual,
            Array("y", (self.count,), self.dtype, output=True),
        )

    @property
    def scalars(self) -> dict[str, int | float]:
        """Return the other fields of the kernel's parameters."""
        return {"count": self.count}

    @property
    def flop(self) -> int:
        """Return the floating-point operations, an error function counted as one."""
        return 6 * self.count if self.operation == "residual_gelu" else 0

    @property
    def streamed_bytes(self) -> int:
        """Return the bytes that must move between memory and the chip at least."""
        return sum(array.bytes for array in self.arrays)


@dataclass(frozen=True, slots=True)
class GemmProblem:
    """A matrix product of K-major operands, y = left^T right + bias: left is [depth, rows], right [depth, outputs]."""

    rows: int
    outputs: int
    depth: int
    bias: bool = False
    relu: bool = False
    dtype: DType = "float32"

    def __post_init__(self) -> None:
        _need_sizes("gemm", rows=self.rows, outputs=self.outputs, depth=self.depth)
        _need(self.dtype == "float32", f"gemm: K-major operands are built for float32, not {self.dtype}; use linear.")

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Return the arrays, in the order of the kernel's fields."""
        bias = (Array("bias", (self.outputs,), self.dtype),) if self.bias else ()
        return (
            Array("left", (self.depth, self.rows), self.dtype),
            Array("right", (self.depth, self.outputs), self.dtype),
            *bias,
            Array("y", (self.rows, self.outputs), self.dtype, output=True),
        )

    @property
    def scalars(self) -> dict[str, int | float]:
        """Return the other fields of the kernel's parameters."""
        return {"rows": self.rows, "outputs": self.outputs, "depth": self.depth, "relu": int(self.relu)}

    @property
    def flop(self) -> int:
        """Return the floating-point operations."""
        return 2 * self.rows * self.outputs * self.depth

    @property
    def streamed_bytes(self) -> int:
        """Return the bytes that must move between memory and the chip at least."""
        return sum(array.bytes for array in self.arrays)


@dataclass(frozen=True, slots=True)
class ConvolutionProblem:
    """A 3x3 or 1x1 convolution of NHWC images with KRSC weights, bias and ReLU optional."""

    images: int
    height: int
    width: int
    channels: int
    outputs: int
    filter_size: Literal[1, 3] = 3
    stride: int = 1
    padding: int = 0
    bias: bool = False
    relu: bool = False
    dtype: DType = "float32"

    def __post_init__(self) -> None:
        # First what the others are computed from.
        _need_sizes("convolution", images=self.images, height=self.height, width=self.width, channels=self.channels)
        _need(
            isinstance(self.stride, Integral) and 1 <= self.stride <= _LARGEST_INT,
            f"convolution: the stride is {self.stride}; give at least 1 and at most {_LARGEST_INT}.",
        )
        _need_sizes(
            "convolution",
            outputs=self.outputs,
            rows=self.rows,
            row=self.filter_size * self.width * self.channels,
        )
        _need(self.filter_size in (1, 3), f"convolution: the filter is {self.filter_size} wide; 1 and 3 are built.")
        _need(
            0 <= self.padding <= (1 if self.filter_size == 3 else 0),
            f"convolution: a padding of {self.padding} around a {self.filter_size}x{self.filter_size} filter is not "
            "built; pad the images.",
        )

    @property
    def out_height(self) -> int:
        """Return the lines of an output image."""
        return max(0, (self.height + 2 * self.padding - self.filter_size) // self.stride + 1)

    @property
    def out_width(self) -> int:
        """Return the columns of an output image."""
        return max(0, (self.width + 2 * self.padding - self.filter_size) // self.stride + 1)

    @property
    def rows(self) -> int:
        """Return the output pixels of all images: the rows of the matrix product."""
        return self.images * self.out_height * self.out_width

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Return the arrays, in the order of the kernel's fields."""
        bias = (Array("bias", (self.outputs,), self.dtype),) if self.bias else ()
        side = self.filter_size
        return (
            Array("x", (self.images, self.height, self.width, self.channels), self.dtype),
            Array("weights", (self.outputs, side, side, self.channels), self.dtype),
            *bias,
            Array("y", (self.images, self.out_height, self.out_width, self.outputs), self.dtype, output=True),
        )

    @property
    def scalars(self) -> dict[str, int | float]:
        """Return the other fields of the kernel's parameters."""
        return {
            "rows": self.rows,
            "outputs": self.outputs,
            "channels": self.channels,
            "height": self.height,
            "width": self.width,
            "out_height": self.out_height,
            "out_width": self.out_width,
            "stride": self.stride,
            "padding": self.padding,
            "relu": int(self.relu),
        }

    @property
    def flop(self) -> int:
        """Return the floating-point operations of a direct convolution, products with padding included.

        A body with fewer multiplications is counted as a direct one, too.
        """
        return 2 * self.rows * self.outputs * self.filter_size**2 * self.channels

    @property
    def streamed_bytes(self) -> int:
        """Return the bytes that must move between memory and the chip at least."""
        return sum(array.bytes for array in self.arrays)


def linear(
    rows: int, outputs: int, inner: int, *, dtype: DType = "float16", bias: bool = False, relu: bool = False
) -> ConvolutionProblem:
    """Return y = x W^T + bias on [rows, inner] as the 1x1 convolution that it is: `rows` pixels of one column."""
    return ConvolutionProblem(1, rows, 1, inner, outputs, filter_size=1, bias=bias, relu=relu, dtype=dtype)


Problem = (
    LayerNormProblem
    | SoftmaxProblem
    | SkinnyGemmProblem
    | EmbeddingProblem
    | ElementwiseProblem
    | GemmProblem
    | ConvolutionProblem
)


def operation_of(problem: Problem) -> str:
    """Return the name of the operation that a problem asks for."""
    match problem:
        case LayerNormProblem():
            return "layer_norm"
        case SoftmaxProblem():
            return "softmax"
        case SkinnyGemmProblem():
            return "skinny_gemm"
        case EmbeddingProblem():
            return "embedding"
        case ElementwiseProblem():
            return problem.operation
        case GemmProblem():
            return "gemm"
        case ConvolutionProblem():
            return f"convolution_{problem.filter_size}x{problem.filter_size}"
