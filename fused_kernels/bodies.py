"""The device bodies of `csrc/`: which C++ type, with which tile, needing what.

A body is a template of `csrc/` with its arguments filled in. It fits some problems (its element type and vector width
must suit the shapes) and some architectures. `choose` picks a body that fits; tuning picks among many.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from nitro.errors import UsageError

from .occupancy import LIMITS
from .problems import (
    ELEMENT_BYTES,
    ConvolutionProblem,
    DType,
    ElementwiseProblem,
    EmbeddingProblem,
    GemmProblem,
    LayerNormProblem,
    Problem,
    SkinnyGemmProblem,
    SoftmaxProblem,
)

FieldKind = Literal["const pointer", "pointer", "int", "int64", "float"]
CPP_ELEMENT: dict[DType, str] = {"float32": "float", "float16": "nitro::half_t", "int32": "int"}


@dataclass(frozen=True, slots=True)
class Field:
    """One member of a body's `Params` in `csrc/`: its name, kind and, for a pointer, its element type."""

    name: str
    kind: FieldKind
    dtype: DType = "float32"

    @property
    def cpp(self) -> str:
        """Return the C++ type of the member."""
        if self.kind == "const pointer":
            return f"const {CPP_ELEMENT[self.dtype]}*"
        if self.kind == "pointer":
            return f"{CPP_ELEMENT[self.dtype]}*"
        return {"int": "int", "int64": "long long", "float": "float"}[self.kind]


# What a thread of a SIMT body needs without spills if it has 32 sums; with 64 it gets along with 128 registers, and a
# block of 512 threads of `gemm` with 64.
_REGISTERS = 65536
_REGISTERS_OF_32_SUMS = 80
_MORE_OF_CONVOLUTIONS = 16


def _fields(dtype: DType, inputs: str, scalars: str) -> tuple[Field, ...]:
    """Return fields from names: inputs, the output y, then ints (a name ending in '.' is a float, in '+' an int64)."""
    kinds: dict[str, FieldKind] = {".": "float", "+": "int64"}
    return (
        *(Field(name, "const pointer", "int32" if name == "ids" else dtype) for name in inputs.split()),
        Field("y", "pointer", dtype),
        *(Field(name.rstrip(".+"), kinds.get(name[-1], "int")) for name in scalars.split()),
    )


def _flag(value: bool) -> str:
    return "true" if value else "false"


@dataclass(frozen=True, slots=True)
class MemoryBody:
    """A memory-bound body, whose unit is the work of one warp. It needs no barrier.

    A staged body (`stages` above 0) has so many pieces of each warp on their way through shared memory, and with `keep`
    what it needs for every row in registers; the others load pieces into registers, and need no shared memory.
    `width` elements move at once: 16 bytes, or 1 element for rows or pointers that are not aligned to 16 bytes.
    `chunks` packs a lane make a piece; for LayerNorm and softmax that is a row, and 0 takes rows of any length.
    `rows` is the rows (elementwise: pieces) of a unit, `together` those of LayerNorm and softmax in a piece.
    """

    operation: Literal["layer_norm", "softmax", "skinny_gemm", "embedding", "residual_gelu", "copy"]
    dtype: DType = "float32"
    width: int = 4
    chunks: int = 4
    rows: int = 1
    batch: int = 1
    stages: int = 0
    keep: bool = False
    together: int = 1

    block_granular = False
    header = "memory.cuh"

    @property
    def name(self) -> str:
        """Return a short name that tells bodies apart, fit for an identifier."""
        batch = f"_b{self.batch}" if self.operation == "skinny_gemm" else ""
        staged = f"_a{self.stages}{'k' if self.keep else ''}" if self.stages else ""
        together = f"t{self.together}" if self.together > 1 else ""
        sizes = f"w{self.width}x{self.chunks}_r{self.rows}{together}"
        return f"{self.operation}_{self.dtype[0]}{self.dtype[-2:]}_{sizes}{batch}{staged}"

    @property
    def cpp(self) -> str:
        """Return the C++ type."""
        if not self.stages:
            return self._unstaged_cpp
        return f"nitro::Staged<{self._unstaged_cpp}, {self.stages}, {_flag(self.keep)}>"

    @property
    def _unstaged_cpp(self) -> str:
        element, sizes = CPP_ELEMENT[self.dtype], f"{self.width}, {self.chunks}, {self.rows}"
        match self.operation:
            case "layer_norm":
                return f"nitro::LayerNorm<{element}, {sizes}, {self.together}>"
            case "softmax":
                return f"nitro::Softmax<{element}, {sizes}, {self.together}>"
            case "skinny_gemm":
                return f"nitro::SkinnyGemm<{element}, {sizes}, {self.batch}>"
            case "embedding":
                return f"nitro::Embedding<{element}, {sizes}>"
            case "residual_gelu":
                return f"nitro::Elementwise<nitro::ResidualGelu, {element}, {sizes}>"
            case "copy":
                return f"nitro::Elementwise<nitro::Copy, {element}, {sizes}>"

    @property
    def fields(self) -> tuple[Field, ...]:
        """Return the members of the C++ parameters, in their order."""
        match self.operation:
            case "layer_norm":
                return _fields(self.dtype, "x gamma beta", "rows columns inverse_columns. epsilon.")
            case "softmax":
                return _fields(self.dtype, "x", "rows columns scale.")
            case "skinny_gemm":
                return _fields(self.dtype, "weights x bias", "outputs inner")
            case "embedding":
                return _fields(self.dtype, "ids table positions", "tokens columns vocabulary sequence")
            case _:
                return _fields(self.dtype, "x residual", "count+")

    @property
    def threads(self) -> int:
        """Return the threads of a block when the body runs alone."""
        return 256

    @property
    def blocks_per_sm(self) -> int:
        """Return how many blocks should fit on an SM; the compiler is not held to it."""
        return 1

    @property
    def minimum_sm(self) -> int:
        """Return the oldest architecture that the body is meant for, as in sm_53."""
        return 80 if self.stages else 53

    @property
    def piece_bytes(self) -> int:
        """Return what a warp loads at once; of rows of any length, which are read several times, nothing."""
        rows = {"skinny_gemm": self.rows, "residual_gelu": 2}.get(self.operation, self.together)
        return rows * self.chunks * 32 * self.width * ELEMENT_BYTES[self.dtype]

    def shared_bytes_of(self, threads: int) -> int:
        """Return the shared memory that so many threads take, as `kWarpBytes` of each warp in `csrc/`."""
        return threads // 32 * self.stages * self.piece_bytes

    def units(self, problem: Problem) -> int:
        """Return how many units of work the problem has."""
        self.check(problem)
        match problem:
            case LayerNormProblem() | SoftmaxProblem():
                return -(-problem.rows // self.rows)
            case SkinnyGemmProblem():
                return -(-problem.outputs // self.rows)
            case EmbeddingProblem():
                return -(-problem.tokens // self.rows) if problem.columns else 0
            case ElementwiseProblem():
                return -(-problem.count // (32 * self.width * self.chunks * self.rows))
            case _:
                raise AssertionError(problem)

    def check(self, problem: Problem) -> None:
        """Raise UsageError with the reason if the body cannot solve the problem."""
        _check_operation(self.operation, self.dtype, problem)
        if self.stages and (self.width == 1 or not self.chunks):
            raise UsageError(f"{self.name}: only whole packs of rows that a warp holds can be staged; use stages=0.")
        match problem:
            case LayerNormProblem() | SoftmaxProblem():
                _check_width(self.name, "columns", problem.columns, self.width)
                held = 32 * self.width * self.chunks
                if self.chunks and problem.columns > held:
                    raise UsageError(
                        f"{self.name} holds rows of up to {held} columns, the problem has {problem.columns}; "
                        "use more chunks, or 0 for any length."
                    )
            case SkinnyGemmProblem():
                _check_width(self.name, "inner", problem.inner, self.width)
                if problem.batch != self.batch:
                    raise UsageError(
                        f"{self.name} is built for batch {self.batch}, the problem has {problem.batch}; "
                        f"use the body with batch {problem.batch}."
                    )
            case EmbeddingProblem():
                _check_width(self.name, "columns", problem.columns, self.width)
            case ElementwiseProblem():
                _check_width(self.name, "elements", problem.count, self.width)
            case _:
                pass


def _check_operation(operation: str, dtype: DType, problem: Problem) -> None:
    wanted = operation_of(problem)
    if wanted != operation:
        raise UsageError(f"a body for {operation} cannot solve {wanted}; choose a body for {wanted}.")
    if problem.dtype != dtype:
        raise UsageError(f"{operation}: the body is built for {dtype}, the arrays are {problem.dtype}; convert them.")


def _check_width(body: str, what: str, size: int, width: int) -> None:
    if size % width:
        raise UsageError(
            f"{body} moves {width} elements at once and {what} is {size}, no multiple of it; use a body of width 1."
        )


@dataclass(frozen=True, slots=True)
class ComputeBody:
    """A compute-bound body, whose unit is an output tile of a block.

    With `asynchronous` copies (sm_80 and newer) `stages` slabs are on their way; else registers stage them and there
    are 2. With `prefetch` bodies of mma.sync load their fragments ahead, for a few registers more. `width` is as in
    `MemoryBody`, along the channels (`gemm`: along rows and outputs).
    Tensor bodies have warps of `warp_m` x `warp_n`; SIMT bodies have `simt_threads`.
    """

    operation: Literal["gemm", "convolution_3x3", "convolution_1x1"]
    dtype: DType = "float32"
    tile_m: int = 128
    tile_n: int = 64
    simt_threads: int = 256
    warp_m: int = 64
    warp_n: int = 32
    tensor_depth: int = 32
    stages: int = 3
    asynchronous: bool = True
    mma: bool = True
    width: int = 4
    prefetch: bool = False

    block_granular = True

    @property
    def tensor(self) -> bool:
        """Return whether the body runs on tensor cores."""
        return self.dtype == "float16"

    @property
    def header(self) -> str:
        """Return the header that defines the body."""
        return "tensor.cuh" if self.tensor else "simt.cuh"

    @property
    def depth(self) -> int:
        """Return how many channels a slab has."""
        return self.tensor_depth if self.tensor else 16

    @property
    def name(self) -> str:
        """Return a short name that tells bodies apart, fit for an identifier."""
        kind = {"gemm": "gemm", "convolution_3x3": "conv3", "convolution_1x1": "conv1"}[self.operation]
        copies = (f"a{self.stages}" if self.asynchronous else "s2") + ("p" if self.prefetch else "")
        if self.tensor:
            unit = "mma" if self.mma else "wmma"
            shape = f"{unit}{self.warp_m}x{self.warp_n}x{self.tensor_depth}"
        else:
            shape = f"t{self.simt_threads}"
        return f"{kind}_{self.dtype[0]}{self.dtype[-2:]}_{self.tile_m}x{self.tile_n}_{shape}_{copies}_w{self.width}"

    @property
    def cpp(self) -> str:
        """Return the C++ type."""
        copies = f"{self.stages}, {_flag(self.asynchronous)}"
        if self.tensor:
            return (
                f"nitro::TensorConvolution<{self.filter_size}, {self.tile_m}, {self.tile_n}, {self.warp_m}, "
                f"{self.warp_n}, {self.tensor_depth}, {copies}, {_flag(self.mma)}, {self.width}, "
                f"{_flag(self.prefetch)}>"
            )
        tile = f"{self.tile_m}, {self.tile_n}, {self.simt_threads}, {copies}, {self.width}"
        if self.operation == "gemm":
            return f"nitro::SimtGemm<{tile}>"
        return f"nitro::SimtConvolution<{self.filter_size}, {tile}>"

    @property
    def filter_size(self) -> int:
        """Return the side of the filter."""
        return 3 if self.operation == "convolution_3x3" else 1

    @property
    def fields(self) -> tuple[Field, ...]:
        """Return the members of the C++ parameters, in their order."""
        if self.operation == "gemm":
            return _fields(self.dtype, "left right bias", "rows outputs depth relu")
        return _fields(
            self.dtype,
            "x weights bias",
            "rows outputs channels height width out_height out_width stride padding relu",
        )

    @property
    def threads(self) -> int:
        """Return the threads of a block."""
        if self.tensor:
            return (self.tile_m // self.warp_m) * (self.tile_n // self.warp_n) * 32
        return self.simt_threads

    @property
    def shared_bytes(self) -> int:
        """Return the shared memory that the stages take, as `kSharedBytes` in `csrc/`."""
        if self.tensor:
            numbers = (self.tile_m + self.tile_n) * (self.depth if self.mma else self.depth + 8)
        else:
            numbers = (self.tile_m + self.tile_n) * self.depth
        # Convolutions copy slabs aside and multiply from two more.
        slabs = self.stages + (2 if self.operation != "gemm" and self.asynchronous and not self.tensor else 0)
        return slabs * numbers * ELEMENT_BYTES[self.dtype]

    @property
    def blocks_per_sm(self) -> int:
        """Return how many blocks should fit on an SM: as many as the sums leave registers for, without spills."""
        sums = self.tile_m * self.tile_n // self.threads
        if self.width == 1 or sums >= 128 or (self.tensor and not self.mma):
            return 1
        if self.tensor or not self.asynchronous:
            return 2 if self.threads <= 256 else 1
        if self.operation == "gemm" and self.threads == 512 and sums <= 32:
            return 2
        if self.operation != "gemm" and self.threads == 128 and sums > 32:
            return 3  # what they copy aside leaves no shared memory for a fourth
        more = 0 if self.operation == "gemm" else _MORE_OF_CONVOLUTIONS
        return max(1, _REGISTERS // (self.threads * (_REGISTERS_OF_32_SUMS + more if sums <= 32 else 128)))

    def shared_bytes_of(self, threads: int) -> int:  # noqa: ARG002 - as of a memory body
        """Return the shared memory of a block."""
        return self.shared_bytes

    @property
    def minimum_sm(self) -> int:
        """Return the oldest architecture that the body is meant for, as in sm_80."""
        if self.asynchronous or (self.tensor and self.mma):
            return 80
        return 70 if self.tensor else 53

    def units(self, problem: Problem) -> int:
        """Return how many tiles the problem has."""
        self.check(problem)
        match problem:
            case GemmProblem() | ConvolutionProblem():
                return -(-problem.rows // self.tile_m) * -(-problem.outputs // self.tile_n)
            case _:
                raise AssertionError(problem)

    def check(self, problem: Problem) -> None:
        """Raise UsageError with the reason if the body cannot solve the problem."""
        _check_operation(self.operation, self.dtype, problem)
        if isinstance(problem, GemmProblem):
            _check_width(self.name, "rows", problem.rows, self.width)
            _check_width(self.name, "outputs", problem.outputs, self.width)
        elif isinstance(problem, ConvolutionProblem):
            _check_width(self.name, "channels", problem.channels, self.width)


Body = MemoryBody | ComputeBody


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


def check_architecture(body: Body, sm: int) -> None:
    """Raise UsageError if a body cannot run on an architecture, given as 53 for sm_53."""
    if sm < body.minimum_sm:
        older = "; choose(problem, sm) gives one that does" if body.minimum_sm == 80 else ""
        raise UsageError(f"{body.name} needs sm_{body.minimum_sm} or newer, this is sm_{sm}{older or '; use float32'}.")


def choose(problem: Problem, sm: int, *, aligned: bool = True) -> Body:
    """Return a good body for a problem on an architecture, given as 53 for sm_53.

    Args:
        problem: what to compute.
        sm: the architecture.
        aligned: every array starts at a multiple of 16 bytes.

    Raises:
        UsageError: no body does this on the architecture.
    """
    match problem:
        case LayerNormProblem() | SoftmaxProblem():
            operation: Literal["layer_norm", "softmax"] = (
                "layer_norm" if isinstance(problem, LayerNormProblem) else "softmax"
            )
            width = _width(problem.dtype, aligned, problem.columns)
            chunks = -(-problem.columns // (32 * width))
            # What a lane holds of a row is bounded by its registers; longer rows are read again from the cache.
            return MemoryBody(operation, problem.dtype, width, max(1, chunks) if chunks * width <= 32 else 0)
        case SkinnyGemmProblem():
            width = _width(problem.dtype, aligned, problem.inner)
            rows = 2 if problem.batch <= 2 else 1
            return MemoryBody("skinny_gemm", problem.dtype, width, 4, rows, problem.batch)
        case EmbeddingProblem():
            width = _width(problem.dtype, aligned, problem.columns)
            return MemoryBody("embedding", problem.dtype, width, min(4, max(1, -(-problem.columns // (32 * width)))))
        case ElementwiseProblem():
            return MemoryBody(problem.operation, problem.dtype, _width(problem.dtype, aligned, problem.count), 4)
        case GemmProblem():
            width = _width(problem.dtype, aligned, problem.rows, problem.outputs)
            return _for_architecture(ComputeBody("gemm", width=width, stages=4), sm)
        case ConvolutionProblem():
            width = _width(problem.dtype, aligned, problem.channels)
            filters: Literal["convolution_3x3", "convolution_1x1"] = (
                "convolution_3x3" if problem.filter_size == 3 else "convolution_1x1"
            )
            body = ComputeBody(filters, problem.dtype, width=width)
            if problem.dtype == "float16":
                # cp.async moves 4 bytes at least.
                body = replace(body, tile_n=128, stages=3, asynchronous=width > 1)
                deep = replace(body, tensor_depth=64)
                if width > 1 and sm in LIMITS and 2 * deep.shared_bytes < LIMITS[sm].shared_bytes:
                    body = deep
            return _for_architecture(body, sm)


def candidates(problem: Problem, sm: int, *, aligned: bool = True) -> tuple[Body, ...]:
    """Return every body worth a try for a problem on an architecture, the one of `choose` first.

    Args:
        problem: what to compute.
        sm: the architecture, as 53 for sm_53.
        aligned: every array starts at a multiple of 16 bytes.

    Raises:
        UsageError: no body does this on the architecture.
    """
    first = choose(problem, sm, aligned=aligned)
    if isinstance(first, MemoryBody):
        others: list[Body] = [replace(first, rows=rows) for rows in (1, 2, 4, 8)]
    elif first.width == 1 or not first.asynchronous:
        others = []
    elif first.tensor:
        others = [
            replace(first, tile_m=m, tile_n=n, warp_n=warp_n, tensor_depth=depth, stages=stages, prefetch=prefetch)
            for m, n, warp_n, depth, stages, prefetch in _TENSOR_TILES
        ]
    else:
        others = [
            replace(first, tile_m=m, tile_n=n, simt_threads=threads, stages=stages)
            for m, n, threads, stages in _SIMT_TILES
        ]
    return tuple(dict.fromkeys([first, *others]))


# Tiles (m, n), columns of a warp, depth, stages and prefetch of tensor bodies; tiles, threads and stages of the others.
_TENSOR_TILES = (
    (128, 128, 32, 64, 3, False),
    (128, 128, 64, 32, 4, False),
    (128, 128, 64, 64, 3, True),
    (64, 128, 32, 64, 3, False),
    (128, 128, 64, 32, 4, True),
    (128, 128, 64, 64, 3, False),
    (128, 256, 64, 64, 3, False),
    (128, 256, 64, 64, 3, True),
)
_SIMT_TILES = (
    (64, 64, 128, 3),
    (128, 64, 128, 3),
    (128, 64, 256, 3),
    (128, 128, 256, 2),
    (128, 128, 256, 3),
    (128, 128, 512, 3),
)


def _width(dtype: DType, aligned: bool, *sizes: int) -> int:
    width = 16 // ELEMENT_BYTES[dtype]
    return width if aligned and all(size % width == 0 for size in sizes) else 1


def _for_architecture(body: ComputeBody, sm: int) -> ComputeBody:
    if body.tensor and sm < 70:
        raise UsageError(
            f"{body.operation} in float16 needs tensor cores (sm_70 or newer), this is sm_{sm}; use float32."
        )
    if sm < 80:
        body = replace(body, asynchronous=False, mma=False)
    return body if body.asynchronous else replace(body, stages=2)
