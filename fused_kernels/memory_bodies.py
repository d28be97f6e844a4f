"""The memory-bound bodies of `csrc/`: which form of one, with how many rows and packs, suits a problem.

The form does not depend on the architecture; only staged ones, which `teams.staged` makes, need a newer one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from nitro.errors import UsageError

from .body_parts import CPP_ELEMENT, Field, check_operation, check_width, fields_of, flag, pack_width
from .problems import (
    ELEMENT_BYTES,
    DType,
    ElementwiseProblem,
    EmbeddingProblem,
    LayerNormProblem,
    Problem,
    SkinnyGemmProblem,
    SoftmaxProblem,
)

# Of a row that a lane holds, where two rows at once still leave registers for a compute body beside.
MOST_NUMBERS_FOR_TWO_ROWS = 16
# Longer rows take more registers of a lane than they are worth.
_MOST_COLUMNS_OF_SHORT_ROWS = 128


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
        exact = flag(self.exact)
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
                return fields_of(self.dtype, "x gamma beta", "rows columns inverse_columns. epsilon.")
            case "softmax":
                return fields_of(self.dtype, "x", "rows columns scale.")
            case "skinny_gemm":
                return fields_of(self.dtype, "weights x bias", "outputs inner")
            case "embedding":
                return fields_of(self.dtype, "ids table positions", "tokens columns vocabulary sequence")
            case _:
                return fields_of(self.dtype, "x residual", "count+")

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
        check_operation(self.operation, self.dtype, problem)
        if self.stages and (self.width == 1 or not self.chunks):
            raise UsageError(f"{self.name}: only whole packs of rows that a warp holds can be staged; use stages=0.")
        held = 32 * self.width * self.chunks
        match problem:
            case SoftmaxProblem() if self.short:
                self._check_short_rows(problem)
            case LayerNormProblem() | SoftmaxProblem():
                check_width(self.name, "columns", problem.columns, self.width)
                if self.chunks and problem.columns > held:
                    raise UsageError(
                        f"{self.name} holds rows of up to {held} columns, the problem has {problem.columns}; "
                        "use more chunks, or 0 for any length."
                    )
                self._check_exact("columns", problem.columns, of_pieces=False)
            case SkinnyGemmProblem():
                check_width(self.name, "inner", problem.inner, self.width)
                if problem.batch != self.batch:
                    raise UsageError(
                        f"{self.name} is built for batch {self.batch}, the problem has {problem.batch}; "
                        f"use the body with batch {problem.batch}."
                    )
                self._check_exact("inner", problem.inner)
            case EmbeddingProblem():
                check_width(self.name, "columns", problem.columns, self.width)
                self._check_exact("columns", problem.columns, of_pieces=False)
            case ElementwiseProblem():
                check_width(self.name, "elements", problem.count, self.width)
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


def choose_memory_body(problem: Problem, *, aligned: bool) -> MemoryBody:
    """Return a good body for a memory-bound problem, which is the same on every architecture."""
    match problem:
        case LayerNormProblem() | SoftmaxProblem():
            operation: Literal["layer_norm", "softmax"] = (
                "layer_norm" if isinstance(problem, LayerNormProblem) else "softmax"
            )
            width = pack_width(problem.dtype, aligned, problem.columns)
            if operation == "softmax" and width == 1 and aligned and 0 < problem.columns <= _MOST_COLUMNS_OF_SHORT_ROWS:
                return _of_short_rows(problem.dtype, problem.columns)
            chunks = -(-problem.columns // (32 * width))
            # What a lane holds of a row is bounded by its registers; longer rows are read again from the cache.
            rows = MemoryBody(operation, problem.dtype, width, max(1, chunks) if chunks * width <= 32 else 0)
            return replace(rows, exact=width > 1 and problem.columns == 32 * width * rows.chunks)
        case SkinnyGemmProblem():
            width = pack_width(problem.dtype, aligned, problem.inner)
            lines = 2 if problem.batch <= 2 else 1
            gemv = MemoryBody("skinny_gemm", problem.dtype, width, 4, lines, problem.batch)
            return _in_whole_pieces(gemv, problem.inner)
        case EmbeddingProblem():
            width = pack_width(problem.dtype, aligned, problem.columns)
            chunks = max(1, -(-problem.columns // (32 * width)))
            if width > 1 and problem.columns == 32 * width * chunks and chunks * width <= 32:
                return MemoryBody("embedding", problem.dtype, width, chunks, exact=True)
            return MemoryBody("embedding", problem.dtype, width, min(4, chunks))
        case ElementwiseProblem():
            width = pack_width(problem.dtype, aligned, problem.count)
            return _in_whole_pieces(MemoryBody(problem.operation, problem.dtype, width, 4), problem.count)
        case _:
            raise AssertionError(problem)


def memory_forms(first: MemoryBody, problem: Problem) -> list[MemoryBody]:
    """Return other forms of the body that was chosen for a problem, to be tried beside it."""
    forms = _with_other_rows(first)
    if isinstance(problem, SoftmaxProblem) and first.width > 1 and 0 < problem.columns < 32 * first.width:
        forms.append(_of_short_rows(problem.dtype, problem.columns))  # lanes that had nothing to do have something
    return forms


def _with_other_rows(first: MemoryBody) -> list[MemoryBody]:
    """Return a memory body with few rows a warp, for few registers, and with many, for few instructions."""
    if first.short:
        return [replace(first, rows=rows * first.width) for rows in (1, 4)]
    if first.operation == "skinny_gemm":
        return [replace(first, rows=rows) for rows in (1, 2, 4)]
    forms = [replace(first, rows=rows) for rows in (1, 8)]
    if first.operation in ("layer_norm", "softmax") and 0 < first.chunks * first.width <= MOST_NUMBERS_FOR_TWO_ROWS:
        forms += [replace(first, rows=rows, together=2) for rows in (2, 8)]
    return forms


def _of_short_rows(dtype: DType, columns: int) -> MemoryBody:
    width = 16 // ELEMENT_BYTES[dtype]
    return MemoryBody("softmax", dtype, width, -(-columns // (32 // width)), width, short=True)


def _in_whole_pieces(body: MemoryBody, size: int) -> MemoryBody:
    """Return a body with the largest pieces that rows of a size are a whole number of; if there are none, the same."""
    for chunks in range(body.chunks, min(1, body.chunks - 1), -1):
        if body.width > 1 and size and size % (32 * body.width * chunks) == 0:
            return replace(body, chunks=chunks, exact=True)
    return body
