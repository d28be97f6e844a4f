"""Forms of bodies that share an SM well: tiles that leave room for memory warps, and memory bodies to fill it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .bodies import Body
from .compute_bodies import ComputeBody
from .memory_bodies import MOST_NUMBERS_FOR_TWO_ROWS, MemoryBody
from .occupancy import LIMITS
from .strategies import IntraBlock, registers_at_start

_COARSE_ROWS = (8, 32)
# What a staged memory body takes of the shared memory of a block, and the rows of its units. More on its way was not
# faster on an H200.
_STAGED_BYTES = 48 << 10
_STAGED_ROWS = 8
_MOST_SHARED_BYTES = max(limits.shared_bytes_per_block for limits in LIMITS.values())
# What a staged LayerNorm needs to work on two rows at once.
_REGISTERS_FOR_TWO_ROWS = 80


@dataclass(frozen=True, slots=True)
class Team:
    """A tile whose warps fill an SM together with so many threads of a memory body, in so many `blocks`.

    Where it takes more registers for one than for the other, `registers` says how many (see `IntraBlock`).
    """

    body: ComputeBody
    threads: int
    registers: tuple[int, int] | None = None
    blocks: int = 1

    @property
    def strategies(self) -> tuple[IntraBlock, ...]:
        """Return the ways to run it. Two blocks fit by themselves; of three the compiler must know."""
        min_blocks = self.blocks if self.blocks > 2 else None
        plain = IntraBlock(self.threads, min_blocks=min_blocks, registers=self.registers)
        return (plain, replace(plain, drain=True)) if self.blocks == 1 else (plain,)

    @property
    def memory_registers(self) -> int:
        """Return how many registers a thread of the memory body has."""
        if self.registers:
            return self.registers[1]
        return registers_at_start(self.blocks * (self.body.threads + self.threads))

    def forms(self, memory: Body) -> tuple[Body, ...]:
        """Return the forms of a memory body worth trying beside the tile: staged, and as it is or lean."""
        slow = staged(memory, self.threads, self.memory_registers, _MOST_SHARED_BYTES - self.body.shared_bytes)
        # With few registers the form that is fastest alone, of the fewest rows.
        few = self.memory_registers < _REGISTERS_FOR_TWO_ROWS
        return (*((slow,) if slow else ()), *((memory,) if few else lean(memory, self.threads)))


def teams(first: Body) -> tuple[Team, ...]:
    """Return the teams worth trying with a compute body of an operation and type; none where copies are not its own.

    Others were measured on an H200 and never won: four memory warps beside twelve or sixteen compute warps of fp32,
    which leave them too few issue slots; 128 sums a thread in four warps; the memory warps before the others.
    """
    if not isinstance(first, ComputeBody) or not first.asynchronous or first.width == 1:
        return ()
    if first.wgmma:
        wide = replace(first, tile_m=128, tile_n=256, warp_m=64, warp_n=256, stages=3, prefetch=False)
        tall = replace(wide, tile_m=256, tile_n=128, warp_m=128, warp_n=128)
        half = replace(wide, tile_n=128, warp_n=128)
        return (
            Team(wide, 128, (200, 104)),
            Team(tall, 128, (200, 104)),
            Team(replace(half, tile_m=192), 128),
            Team(replace(half, tile_n=192, warp_n=192), 128),
            Team(replace(half, stages=4), 128),
        )
    if first.tensor:
        deep = replace(first, tensor_depth=64, stages=3, warp_m=64, prefetch=False)
        high = replace(deep, tile_m=192, tile_n=128, warp_n=32)
        wide = replace(deep, tile_m=128, tile_n=256, warp_n=64)
        return Team(high, 128), Team(wide, 128, (208, 88)), Team(wide, 256, (208, 48))
    if first.winograd:
        return tuple(
            Team(replace(first, tile_n=outputs), threads, registers)
            for outputs, threads, registers in ((64, 256, (192, 64)), (64, 128, (208, 88)), (32, 256, (160, 96)))
        )
    square = replace(first, tile_m=128, tile_n=128, simt_threads=256, stages=3)
    half = replace(square, tile_n=64, simt_threads=128)
    if first.operation == "gemm":
        halves = Team(half, 64, blocks=2), Team(half, 128, blocks=2), Team(half, 384)
        return (*halves, Team(square, 192), Team(square, 256))
    found = (
        Team(square, 256, (160, 96)),
        Team(square, 128, (200, 96)),
        Team(half, 64, blocks=2),
        Team(replace(square, tile_m=192, simt_threads=384), 128, (144, 80)),
    )
    small = Team(replace(half, tile_m=64), 64, blocks=3)
    return (*found, small) if first.operation == "convolution_1x1" else found


def staged(
    body: Body, threads: int = 128, registers: int = 128, shared_bytes: int = _MOST_SHARED_BYTES
) -> MemoryBody | None:
    """Return a memory body with its pieces on their way through shared memory; None if it cannot be staged.

    So many threads of it, with so many registers each and so much shared memory at most, keep the memory busy and leave
    the rest to a compute body.
    """
    if not isinstance(body, MemoryBody) or body.stages or body.width == 1 or not body.chunks:
        return None
    rows = 4 * body.width if body.short else _STAGED_ROWS
    two = _takes_two_rows(body) and registers >= _REGISTERS_FOR_TWO_ROWS
    piece = replace(body, rows=rows, together=2 if two else 1)
    if body.operation == "skinny_gemm":
        piece = _of_more_lines(body, 4)
    warps = threads // 32
    if 2 * warps * piece.piece_bytes > shared_bytes:
        piece = replace(piece, rows=1 if body.operation == "skinny_gemm" else piece.rows, together=1)
    stage = warps * piece.piece_bytes
    stages = min(-(-_STAGED_BYTES // stage), shared_bytes // stage)
    return replace(piece, stages=max(2, min(12, stages)))


def lean(body: Body, threads: int = 128) -> tuple[MemoryBody, ...]:
    """Return the forms of a memory body that need fewest instructions, for a partner that is bound by them.

    So few warps that share an SM with others have much on their way each: more rows at once.
    """
    if not isinstance(body, MemoryBody) or body.stages or not body.chunks or body.width == 1:
        return ()
    if body.short:
        return (replace(body, rows=body.width),)
    if body.operation == "skinny_gemm":
        return replace(body, rows=4), _of_more_lines(body, 8)
    rows = replace(body, rows=8)
    if not _takes_two_rows(body):
        return (rows,)
    return tuple(replace(rows, together=count) for count in ((2, 4) if threads < 128 else (2,)))


def _takes_two_rows(body: MemoryBody) -> bool:
    norm = body.operation in ("layer_norm", "softmax") and not body.short
    return norm and body.chunks * body.width <= MOST_NUMBERS_FOR_TWO_ROWS


def _of_more_lines(body: MemoryBody, rows: int) -> MemoryBody:
    """Return a GEMV whose pieces are of more lines of weights, which share what is read of x, and less of each."""
    return replace(body, rows=rows, chunks=max(1, body.chunks // 2))


def coarser(body: Body) -> tuple[Body, ...]:
    """Return memory bodies whose warps do more rows one after the other, for strategies that launch blocks of them.

    Such a block carries the registers and shared memory of a tile, and should be worth its launch.
    """
    if not isinstance(body, MemoryBody) or body.operation == "skinny_gemm" or not body.chunks:
        return ()
    return tuple(replace(body, rows=rows) for rows in _COARSE_ROWS)
