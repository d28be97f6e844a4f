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


# What ptxas asks for beside the sums of an instruction of wgmma, of every thread of a block.
_REGISTERS_BESIDE_WGMMA = 26
# What a thread of a SIMT body needs without spills if it has 32 sums; with 64 it gets along with 128 registers, and a
# block of 512 threads of `gemm` with 64.
_REGISTERS = 65536
_REGISTERS_OF_32_SUMS = 80
_MORE_OF_CONVOLUTIONS = 16
# Winograd's body counts the bytes to a patch in 32 bits.
_LARGEST_OFFSET = 2**32


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

    A staged body (`stages` above 0) has so many pieces of each warp on their way through shared memory; the others load
    pieces into registers.
    `width` elements move at once: 16 bytes, or 1 element for rows or pointers that are not aligned to 16 bytes.
    `chunks` packs a lane make a piece; for LayerNorm and softmax that is a row, and 0 takes rows of any length.
    `rows` is the rows (elementwise: pieces) of a unit, `together` those of LayerNorm and softmax in a piece.
    An `exact` body takes only rows that are one piece (`skinny_gemm`, elementwise: lines of weights, or all of it, that
    are whole pieces), and needs fewer instructions for them. With `short` a piece of softmax is `width` rows, which are
    moved as packs whatever their length is; a row is then `chunks` numbers of each of 32 / `width` lanes.
    """

    operation: Literal["layer_norm", "softmax", "skinny_gemm", "embedding", "residual_gelu", "copy"]
    dtype: DType = "float32"
    width: int = 4
    chunks: int = 4
    rows: int = 1
    batch: int = 1
    stages: int = 0
    together: int = 1
    exact: bool = False
    short: bool = False

    block_granular = False
    header = "memory.cuh"
    exact_sm = None
    shared_alignment = 128
    most_block_threads = 1024
    chained = False

    @property
    def name(self) -> str:
        """Return a short name that tells bodies apart, fit for an identifier."""
        batch = f"_b{self.batch}" if self.operation == "skinny_gemm" else ""
        staged = f"_a{self.stages}" if self.stages else ""
        together = f"t{self.together}" if self.together > 1 else ""
        kind = "s" if self.short else "e" if self.exact else ""
        sizes = f"w{self.width}x{self.chunks}{kind}_r{self.rows}{together}"
        return f"{self.operation}_{self.dtype[0]}{self.dtype[-2:]}_{sizes}{batch}{staged}"

    @property
    def cpp(self) -> str:
        """Return the C++ type."""
        if not self.stages:
            return self._unstaged_cpp
        return f"nitro::Staged<{self._unstaged_cpp}, {self.stages}>"

    @property
    def _unstaged_cpp(self) -> str:
        element, sizes = CPP_ELEMENT[self.dtype], f"{self.width}, {self.chunks}, {self.rows}"
        exact = _flag(self.exact)
        match self.operation:
            case "layer_norm":
                return f"nitro::LayerNorm<{element}, {sizes}, {self.together}, {exact}>"
            case "softmax" if self.short:
                return f"nitro::SoftmaxOfShortRows<{element}, {sizes}>"
            case "softmax":
                return f"nitro::Softmax<{element}, {sizes}, {self.together}, {exact}>"
            case "skinny_gemm":
                return f"nitro::SkinnyGemm<{element}, {sizes}, {self.batch}, {exact}>"
            case "embedding":
                return f"nitro::Embedding<{element}, {sizes}, {exact}>"
            case "residual_gelu":
                return f"nitro::Elementwise<nitro::ResidualGelu, {element}, {sizes}, {exact}>"
            case "copy":
                return f"nitro::Elementwise<nitro::Copy, {element}, {sizes}, {exact}>"

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
        if self.short:
            return -(-self.chunks // self.width) * 32 * self.width * ELEMENT_BYTES[self.dtype]
        rows = {"skinny_gemm": self.rows, "residual_gelu": 2}.get(self.operation, self.together)
        return rows * self.chunks * 32 * self.width * ELEMENT_BYTES[self.dtype]

    def shared_bytes_of(self, threads: int) -> int:
        """Return the shared memory that so many threads take, as `kWarpBytes` of each warp in `csrc/`.

        Short rows are turned there, a piece at a time, also where they are not staged.
        """
        return threads // 32 * (self.stages + self.short) * self.piece_bytes

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
        held = 32 * self.width * self.chunks
        match problem:
            case SoftmaxProblem() if self.short:
                self._check_short_rows(problem)
            case LayerNormProblem() | SoftmaxProblem():
                _check_width(self.name, "columns", problem.columns, self.width)
                if self.chunks and problem.columns > held:
                    raise UsageError(
                        f"{self.name} holds rows of up to {held} columns, the problem has {problem.columns}; "
                        "use more chunks, or 0 for any length."
                    )
                self._check_exact("columns", problem.columns, of_pieces=False)
            case SkinnyGemmProblem():
                _check_width(self.name, "inner", problem.inner, self.width)
                if problem.batch != self.batch:
                    raise UsageError(
                        f"{self.name} is built for batch {self.batch}, the problem has {problem.batch}; "
                        f"use the body with batch {problem.batch}."
                    )
                self._check_exact("inner", problem.inner)
            case EmbeddingProblem():
                _check_width(self.name, "columns", problem.columns, self.width)
                self._check_exact("columns", problem.columns, of_pieces=False)
            case ElementwiseProblem():
                _check_width(self.name, "elements", problem.count, self.width)
                if problem.count:
                    self._check_exact("elements", problem.count)
            case _:
                pass

    def _check_exact(self, what: str, size: int, *, of_pieces: bool = True) -> None:
        """Raise UsageError if an exact body does not fit, whose rows are one piece or a whole number `of_pieces`."""
        held = 32 * self.width * self.chunks
        if self.exact and (not size or size % held or (size != held and not of_pieces)):
            raise UsageError(
                f"{self.name} takes {'multiples of ' if of_pieces else ''}{held} {what}, the problem has {size}; "
                "use exact=False."
            )

    def _check_short_rows(self, problem: SoftmaxProblem) -> None:
        lanes = 32 // self.width
        most = lanes * self.chunks
        if not most - lanes < problem.columns <= most:
            raise UsageError(
                f"{self.name} takes rows of {most - lanes + 1} to {most} columns, the problem has {problem.columns}; "
                f"use chunks={-(-problem.columns // lanes)}."
            )


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
    Tensor bodies have warps of `warp_m` x `warp_n`; SIMT bodies have `simt_threads`. With `wgmma` (sm_90 alone) four
    warps together have such a part, slabs have 64 channels, and `prefetch` overlaps the products of one with the next.

    With `winograd` a 3x3 convolution of stride 1 takes fewer multiplications (F(2x2, 3x3), see `csrc/winograd.cuh`).
    Its tile is 32 times 2x2 pixels in 32 or 64 channels, it has 256 threads and 2 stages: `winograd_bodies` makes them.
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
    winograd: bool = False
    wgmma: bool = False

    block_granular = True

    @property
    def tensor(self) -> bool:
        """Return whether the body runs on tensor cores."""
        return self.dtype == "float16"

    @property
    def header(self) -> str:
        """Return the header that defines the body."""
        if self.winograd:
            return "winograd.cuh"
        if self.wgmma:
            return "wgmma.cuh"
        return "tensor.cuh" if self.tensor else "simt.cuh"

    @property
    def exact_sm(self) -> int | None:
        """Return the only architecture that the body can run on, as in sm_90a; None if newer ones take it over."""
        return 90 if self.wgmma else None

    @property
    def chained(self) -> bool:
        """Return whether a block an SM computes all tiles, one overlapping with the next, as `kChained` in `csrc/`."""
        return self.wgmma and self.blocks_per_sm == 1

    @property
    def most_block_threads(self) -> int:
        """Return how many threads a block may have, its partner's among them: wgmma needs registers of all of them."""
        if not self.wgmma:
            return 1024
        registers = -(-(self.warp_n // 2 + _REGISTERS_BESIDE_WGMMA) // 8) * 8
        return _REGISTERS // registers // 128 * 128

    @property
    def shared_alignment(self) -> int:
        """Return what the beginning of its shared memory must be a multiple of, in bytes."""
        return 1024 if self.wgmma else 128

    @property
    def depth(self) -> int:
        """Return how many channels a slab has."""
        if self.winograd:
            return 8
        return self.tensor_depth if self.tensor else 16

    @property
    def sums(self) -> int:
        """Return how many sums a thread of a SIMT body has: Winograd's 16 products a tile are 4 for each output."""
        return self.tile_m * self.tile_n // self.threads * (4 if self.winograd else 1)

    @property
    def name(self) -> str:
        """Return a short name that tells bodies apart, fit for an identifier."""
        kind = {"gemm": "gemm", "convolution_3x3": "conv3", "convolution_1x1": "conv1"}[self.operation]
        copies = (f"a{self.stages}" if self.asynchronous else "s2") + ("p" if self.prefetch else "")
        if self.tensor:
            unit = "wgmma" if self.wgmma else "mma" if self.mma else "wmma"
            shape = f"{unit}{self.warp_m}x{self.warp_n}x{self.tensor_depth}"
        else:
            shape = f"{'wino_' if self.winograd else ''}t{self.simt_threads}"
        return f"{kind}_{self.dtype[0]}{self.dtype[-2:]}_{self.tile_m}x{self.tile_n}_{shape}_{copies}_w{self.width}"

    @property
    def cpp(self) -> str:
        """Return the C++ type."""
        copies = f"{self.stages}, {_flag(self.asynchronous)}"
        if self.wgmma:
            return (
                f"nitro::WgmmaConvolution<{self.filter_size}, {self.tile_m}, {self.tile_n}, {self.warp_m}, "
                f"{self.warp_n}, {self.stages}, {_flag(self.prefetch)}, {_flag(self.chained)}>"
            )
        if self.tensor:
            return (
                f"nitro::TensorConvolution<{self.filter_size}, {self.tile_m}, {self.tile_n}, {self.warp_m}, "
                f"{self.warp_n}, {self.tensor_depth}, {copies}, {_flag(self.mma)}, {self.width}, "
                f"{_flag(self.prefetch)}>"
            )
        if self.winograd:
            return f"nitro::WinogradConvolution<{self.tile_n}>"
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
            return (self.tile_m // self.warp_m) * (self.tile_n // self.warp_n) * (128 if self.wgmma else 32)
        return self.simt_threads

    @property
    def shared_bytes(self) -> int:
        """Return the shared memory that the stages take, as `kSharedBytes` in `csrc/`."""
        if self.winograd:
            # Transformed, 16 numbers for each tile or output and channel; as they come, 17 (one of padding) and 9.
            numbers = (16 + 17) * self.tile_m // 4 + (16 + 9) * self.tile_n
            return self.stages * numbers * self.depth * ELEMENT_BYTES[self.dtype]
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
        sums = self.sums
        if self.winograd or self.width == 1 or sums >= 128 or (self.wgmma and sums > 64):
            return 1
        if self.tensor and not self.mma:
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
        if self.wgmma:
            return 90
        if self.asynchronous or (self.tensor and self.mma):
            return 80
        return 70 if self.tensor else 53

    def units(self, problem: Problem) -> int:
        """Return how many tiles the problem has."""
        self.check(problem)
        match problem:
            case ConvolutionProblem() if self.winograd:
                tiles = problem.images * -(-problem.out_height // 2) * -(-problem.out_width // 2)
                return -(-4 * tiles // self.tile_m) * -(-problem.outputs // self.tile_n)
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
            if self.winograd:
                self._check_winograd(problem)

    def _check_winograd(self, problem: ConvolutionProblem) -> None:
        if problem.filter_size != 3 or problem.stride != 1 or problem.dtype != "float32" or self.width != 4:
            raise UsageError(
                f"{self.name} does 3x3 convolutions of stride 1 in float32, four channels at once, not "
                f"{problem.filter_size}x{problem.filter_size} of stride {problem.stride} in {problem.dtype}, "
                f"{self.width} at once; use winograd=False."
            )
        size = problem.arrays[0].bytes
        if size >= _LARGEST_OFFSET:
            raise UsageError(f"{self.name} reaches 4 GiB of images, these are {size} bytes; use winograd=False.")


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
    if body.exact_sm and sm != body.exact_sm:
        raise UsageError(
            f"{body.name} uses wgmma, which only sm_{body.exact_sm} has, this is sm_{sm}; use a body without it."
        )
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
        case GemmProblem():
            width = _width(problem.dtype, aligned, problem.rows, problem.outputs)
            return _for_architecture(ComputeBody("gemm", width=width, stages=4), sm)
        case ConvolutionProblem():
            return _for_architecture(_convolution_body(problem, sm, aligned=aligned), sm)
        case _:
            return _memory_body(problem, aligned=aligned)


def _memory_body(problem: Problem, *, aligned: bool) -> MemoryBody:
    """Return the body of `choose` for a memory-bound problem, which is the same on every architecture."""
    match problem:
        case LayerNormProblem() | SoftmaxProblem():
            operation: Literal["layer_norm", "softmax"] = (
                "layer_norm" if isinstance(problem, LayerNormProblem) else "softmax"
            )
            width = _width(problem.dtype, aligned, problem.columns)
            if operation == "softmax" and width == 1 and aligned and 0 < problem.columns <= _MOST_COLUMNS_OF_SHORT_ROWS:
                return _of_short_rows(problem.dtype, problem.columns)
            chunks = -(-problem.columns // (32 * width))
            # What a lane holds of a row is bounded by its registers; longer rows are read again from the cache.
            rows = MemoryBody(operation, problem.dtype, width, max(1, chunks) if chunks * width <= 32 else 0)
            return replace(rows, exact=width > 1 and problem.columns == 32 * width * rows.chunks)
        case SkinnyGemmProblem():
            width = _width(problem.dtype, aligned, problem.inner)
            lines = 2 if problem.batch <= 2 else 1
            gemv = MemoryBody("skinny_gemm", problem.dtype, width, 4, lines, problem.batch)
            return _in_whole_pieces(gemv, problem.inner)
        case EmbeddingProblem():
            width = _width(problem.dtype, aligned, problem.columns)
            chunks = max(1, -(-problem.columns // (32 * width)))
            if width > 1 and problem.columns == 32 * width * chunks and chunks * width <= 32:
                return MemoryBody("embedding", problem.dtype, width, chunks, exact=True)
            return MemoryBody("embedding", problem.dtype, width, min(4, chunks))
        case ElementwiseProblem():
            width = _width(problem.dtype, aligned, problem.count)
            return _in_whole_pieces(MemoryBody(problem.operation, problem.dtype, width, 4), problem.count)
        case _:
            raise AssertionError(problem)


def _convolution_body(problem: ConvolutionProblem, sm: int, *, aligned: bool) -> ComputeBody:
    """Return the body of `choose` for a convolution, with asynchronous copies whatever the architecture."""
    width = _width(problem.dtype, aligned, problem.channels)
    filters: Literal["convolution_3x3", "convolution_1x1"] = (
        "convolution_3x3" if problem.filter_size == 3 else "convolution_1x1"
    )
    body = ComputeBody(filters, problem.dtype, width=width)
    if problem.dtype == "float32":
        return body
    # cp.async moves 4 bytes at least.
    body = replace(body, tile_n=128, stages=3, asynchronous=width > 1)
    deep = replace(body, tensor_depth=64)
    if width > 1 and sm == 90:
        return _wgmma_body(replace(deep, wgmma=True), problem)
    fits = width > 1 and sm in LIMITS and 2 * deep.shared_bytes < LIMITS[sm].shared_bytes
    return deep if fits else body


def _wgmma_body(body: ComputeBody, problem: Problem) -> ComputeBody:
    """Return the body with the largest tile that leaves few SMs without one, or the smallest."""
    for m, n, group_n, stages, prefetch in _WGMMA_CHOICES:
        body = replace(body, tile_m=m, tile_n=n, warp_n=group_n, stages=stages, prefetch=prefetch)
        if body.units(problem) >= _ENOUGH_TILES:
            break
    return body


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
    others: list[Body]
    if isinstance(first, MemoryBody):
        others = _memory_forms(first)
        if isinstance(problem, SoftmaxProblem) and first.width > 1 and 0 < problem.columns < 32 * first.width:
            others.append(_of_short_rows(problem.dtype, problem.columns))  # lanes that had nothing to do have something
    elif first.width == 1 or not first.asynchronous:
        others = []
    elif first.tensor:
        others = [
            replace(first, tile_m=m, tile_n=n, warp_n=group_n, stages=stages, prefetch=prefetch)
            for m, n, group_n, stages, prefetch in (_WGMMA_TILES if first.wgmma else ())
        ]
        plain = replace(first, wgmma=False)
        others += [
            replace(plain, tile_m=m, tile_n=n, warp_n=warp_n, tensor_depth=depth, stages=stages, prefetch=prefetch)
            for m, n, warp_n, depth, stages, prefetch in _TENSOR_TILES
        ]
    else:
        others = [
            replace(first, tile_m=m, tile_n=n, simt_threads=threads, stages=stages)
            for m, n, threads, stages in _SIMT_TILES
        ]
        others += winograd_bodies(problem, sm) if first.operation == "convolution_3x3" else ()
    return tuple(dict.fromkeys([first, *others]))


def _memory_forms(first: MemoryBody) -> list[Body]:
    """Return a memory body with few rows a warp, for few registers, and with many, for few instructions."""
    if first.short:
        return [replace(first, rows=rows * first.width) for rows in (1, 4)]
    if first.operation == "skinny_gemm":
        return [replace(first, rows=rows) for rows in (1, 2, 4)]
    forms: list[Body] = [replace(first, rows=rows) for rows in (1, 8)]
    if first.operation in ("layer_norm", "softmax") and 0 < first.chunks * first.width <= MOST_NUMBERS_FOR_TWO_ROWS:
        forms += [replace(first, rows=rows, together=2) for rows in (2, 8)]
    return forms


def winograd_bodies(problem: Problem, sm: int) -> tuple[ComputeBody, ...]:
    """Return the bodies with fewer multiplications that can solve a problem and have a block on an SM; often none.

    Args:
        problem: what to compute, all its arrays at multiples of 16 bytes.
        sm: the architecture, as 90 for sm_90.
    """
    if not isinstance(problem, ConvolutionProblem) or sm not in LIMITS:
        return ()
    found: list[ComputeBody] = []
    for outputs in _WINOGRAD_OUTPUTS:
        body = ComputeBody("convolution_3x3", tile_m=128, tile_n=outputs, simt_threads=256, stages=2, winograd=True)
        try:
            body.check(problem)
            check_architecture(body, sm)
        except UsageError:
            return ()
        if body.shared_bytes <= LIMITS[sm].shared_bytes_per_block:
            found.append(body)
    return tuple(found)


# Of a row that a lane holds, where two rows at once still leave registers for a compute body beside.
MOST_NUMBERS_FOR_TWO_ROWS = 16
# Tiles (m, n), columns of four warps with 64 rows, stages and prefetch of bodies of wgmma; the first are what is chosen
# from without measuring, where tiles for three quarters of the 132 SMs of an H100 are enough.
_ENOUGH_TILES = 96
_WGMMA_CHOICES = ((128, 256, 256, 4, True), (128, 128, 128, 3, False), (64, 128, 128, 3, False))
_WGMMA_TILES = (
    *_WGMMA_CHOICES,
    (128, 256, 256, 3, False),
    (192, 256, 256, 3, False),
    (128, 192, 192, 4, True),
    (192, 128, 128, 5, True),
)
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
# Channels of the tiles of Winograd's bodies.
_WINOGRAD_OUTPUTS = (64, 32)


# Longer rows take more registers of a lane than they are worth.
_MOST_COLUMNS_OF_SHORT_ROWS = 128


def _of_short_rows(dtype: DType, columns: int) -> MemoryBody:
    width = 16 // ELEMENT_BYTES[dtype]
    return MemoryBody("softmax", dtype, width, -(-columns // (32 // width)), width, short=True)


def _in_whole_pieces(body: MemoryBody, size: int) -> MemoryBody:
    """Return a body with the largest pieces that rows of a size are a whole number of; if there are none, the same."""
    for chunks in range(body.chunks, min(1, body.chunks - 1), -1):
        if body.width > 1 and size and size % (32 * body.width * chunks) == 0:
            return replace(body, chunks=chunks, exact=True)
    return body


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
