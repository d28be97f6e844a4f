"""The compute-bound bodies of `csrc/`: which tile, instructions and copies suit a problem and an architecture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from nitro.errors import UsageError

from .body_parts import Field, check_operation, check_width, fields_of, flag, pack_width
from .occupancy import LIMITS
from .problems import ELEMENT_BYTES, ConvolutionProblem, DType, GemmProblem, Problem

# What ptxas asks for beside the sums of an instruction of wgmma, of every thread of a block.
_REGISTERS_BESIDE_WGMMA = 26
# What a thread of a SIMT body needs without spills if it has 32 sums; with 64 it gets along with 128 registers, and a
# block of 512 threads of `gemm` with 64.
_REGISTERS = 65536
_REGISTERS_OF_32_SUMS = 80
_MORE_OF_CONVOLUTIONS = 16
# Winograd's body counts the bytes to a patch in 32 bits.
_LARGEST_OFFSET = 2**32

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
        copies = f"{self.stages}, {flag(self.asynchronous)}"
        if self.wgmma:
            return (
                f"nitro::WgmmaConvolution<{self.filter_size}, {self.tile_m}, {self.tile_n}, {self.warp_m}, "
                f"{self.warp_n}, {self.stages}, {flag(self.prefetch)}, {flag(self.chained)}>"
            )
        if self.tensor:
            return (
                f"nitro::TensorConvolution<{self.filter_size}, {self.tile_m}, {self.tile_n}, {self.warp_m}, "
                f"{self.warp_n}, {self.tensor_depth}, {copies}, {flag(self.mma)}, {self.width}, "
                f"{flag(self.prefetch)}>"
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
            return fields_of(self.dtype, "left right bias", "rows outputs depth relu")
        return fields_of(
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
        check_operation(self.operation, self.dtype, problem)
        if isinstance(problem, GemmProblem):
            check_width(self.name, "rows", problem.rows, self.width)
            check_width(self.name, "outputs", problem.outputs, self.width)
        elif isinstance(problem, ConvolutionProblem):
            check_width(self.name, "channels", problem.channels, self.width)
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


def choose_compute_body(problem: GemmProblem | ConvolutionProblem, sm: int, *, aligned: bool) -> ComputeBody:
    """Return a good body for a compute-bound problem on an architecture.

    Raises:
        UsageError: no body does this on the architecture.
    """
    if isinstance(problem, GemmProblem):
        width = pack_width(problem.dtype, aligned, problem.rows, problem.outputs)
        return _for_architecture(ComputeBody("gemm", width=width, stages=4), sm)
    return _for_architecture(_convolution_body(problem, sm, aligned=aligned), sm)


def _convolution_body(problem: ConvolutionProblem, sm: int, *, aligned: bool) -> ComputeBody:
    """Return the body for a convolution, with asynchronous copies whatever the architecture."""
    width = pack_width(problem.dtype, aligned, problem.channels)
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


def _for_architecture(body: ComputeBody, sm: int) -> ComputeBody:
    if body.tensor and sm < 70:
        raise UsageError(
            f"{body.operation} in float16 needs tensor cores (sm_70 or newer), this is sm_{sm}; use float32."
        )
    if sm < 80:
        body = replace(body, asynchronous=False, mma=False)
    return body if body.asynchronous else replace(body, stages=2)


def compute_forms(first: ComputeBody, problem: Problem, sm: int) -> list[ComputeBody]:
    """Return other tiles and algorithms than those of the body that was chosen for a problem, to be tried beside it."""
    if first.width == 1 or not first.asynchronous:
        return []
    if first.tensor:
        plain = replace(first, wgmma=False)
        return [
            *(
                replace(first, tile_m=m, tile_n=n, warp_n=group_n, stages=stages, prefetch=prefetch)
                for m, n, group_n, stages, prefetch in (_WGMMA_TILES if first.wgmma else ())
            ),
            *(
                replace(plain, tile_m=m, tile_n=n, warp_n=warp_n, tensor_depth=depth, stages=stages, prefetch=prefetch)
                for m, n, warp_n, depth, stages, prefetch in _TENSOR_TILES
            ),
        ]
    simt = (
        replace(first, tile_m=m, tile_n=n, simt_threads=threads, stages=stages) for m, n, threads, stages in _SIMT_TILES
    )
    return [*simt, *(winograd_bodies(problem, sm) if first.operation == "convolution_3x3" else ())]


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
        except UsageError:
            return ()
        if sm < body.minimum_sm:
            return ()
        if body.shared_bytes <= LIMITS[sm].shared_bytes_per_block:
            found.append(body)
    return tuple(found)
