"""The cases that horizontal fusion is judged by, and the rule that accepts a pair, both fixed before any tuning.

A case is a compute-bound kernel of a vision tower beside a memory-bound kernel of a text tower. The compute side has
the shape of a layer; the memory side is made as long as a stated part of it, by estimates that need no measurement:
the floating-point operations at `COMPUTE_FLOP_PER_S` and the bytes at `MEMORY_BYTES_PER_S`. How long both really take
is measured, and the measured ratio stands beside the intended one.

The estimates are those of an H200: 46 TFLOP/s for fp32 and 300 TFLOP/s for fp16 through `mma.sync`, as good
hand-written kernels reach there, and 4 TB/s of its memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ComputeKind = Literal["gemm_f32", "conv1x1_f32", "conv3x3_f32", "gemm_f16", "conv3x3_f16"]
MemoryKind = Literal["layer_norm", "gemv", "embedding", "softmax", "residual_gelu"]
Kind = ComputeKind | MemoryKind

COMPUTE_FLOP_PER_S = {"f32": 46e12, "f16": 300e12}
MEMORY_BYTES_PER_S = 4e12

# Shapes: a GEMM has m, n, k; a convolution batch, height, width, channels in and out (stride 1, same padding).
COMPUTE_SHAPES: dict[ComputeKind, dict[str, int]] = {
    "gemm_f32": {"m": 12544, "n": 1024, "k": 1024},
    "conv1x1_f32": {"batch": 64, "height": 14, "width": 14, "c_in": 1024, "c_out": 1024},
    "conv3x3_f32": {"batch": 64, "height": 28, "width": 28, "c_in": 128, "c_out": 128},
    "gemm_f16": {"m": 25088, "n": 3072, "k": 768},
    "conv3x3_f16": {"batch": 128, "height": 28, "width": 28, "c_in": 256, "c_out": 256},
}
HIDDEN = 512
VOCABULARY = 49408
GEMV_COLUMNS = 4096

# The rule. It looks at stand-alone measurements and compiled resources only, never at a fused time.
P_NORM = 1.8
LEAST_RATIO = 0.35
LEAST_PREDICTED_GAIN = 1.15
LEAST_COMPUTE_OVER_RIDGE = 0.75
MOST_MEMORY_OVER_RIDGE = 0.25


@dataclass(frozen=True, slots=True)
class Case:
    """A pair with shapes. `ratio` is the intended time of the memory side over that of the compute side.

    `is_control` marks a pair of two kernels of one class, which the rule must reject.
    """

    name: str
    first: Kind
    first_shape: dict[str, int]
    second: Kind
    second_shape: dict[str, int]
    ratio: float
    is_control: bool = False


@dataclass(frozen=True, slots=True)
class Alone:
    """What is known of a kernel before it is fused: its own time, and its work per byte over the machine's ridge."""

    time_s: float
    intensity_over_ridge: float


def flop(kind: ComputeKind, shape: dict[str, int]) -> int:
    """Return the floating-point operations of a compute kernel, a multiplication and an addition each counted."""
    if kind.startswith("gemm"):
        return 2 * shape["m"] * shape["n"] * shape["k"]
    taps = 9 if kind.startswith("conv3x3") else 1
    return 2 * shape["batch"] * shape["height"] * shape["width"] * shape["c_in"] * shape["c_out"] * taps


def estimated_time_s(kind: ComputeKind, shape: dict[str, int]) -> float:
    """Return how long a compute kernel should take, by its operations alone."""
    return flop(kind, shape) / COMPUTE_FLOP_PER_S[kind.rpartition("_")[2]]


def memory_shape(kind: MemoryKind, time_s: float) -> dict[str, int]:
    """Return the shape of a memory kernel that should take a time, by its bytes alone (fp32)."""
    words = time_s * MEMORY_BYTES_PER_S / 4
    row = {"layer_norm": 2 * HIDDEN, "softmax": 2 * HIDDEN, "residual_gelu": 3 * HIDDEN, "embedding": 2 * HIDDEN}
    if kind == "gemv":
        return {"rows": _multiple(words / GEMV_COLUMNS, 64), "columns": GEMV_COLUMNS, "batch": 1}
    shape = {"rows": _multiple(words / row[kind], 64), "columns": HIDDEN}
    return {**shape, "vocabulary": VOCABULARY} if kind == "embedding" else shape


def cases() -> tuple[Case, ...]:
    """Return all cases: 25 pairs of unlike kernels and 4 controls of like ones."""
    pairs: list[tuple[ComputeKind, MemoryKind, float]] = [
        (compute, "layer_norm", ratio) for compute in COMPUTE_SHAPES for ratio in (0.9, 0.5, 0.25)
    ]
    pairs += [
        ("gemm_f32", "gemv", 0.9),
        ("gemm_f32", "gemv", 0.5),
        ("conv3x3_f32", "gemv", 0.9),
        ("conv3x3_f32", "gemv", 0.5),
        ("conv1x1_f32", "residual_gelu", 0.9),
        ("conv1x1_f32", "residual_gelu", 0.5),
        ("gemm_f16", "gemv", 0.5),
        ("conv3x3_f16", "residual_gelu", 0.5),
        ("conv3x3_f32", "softmax", 0.5),
        ("gemm_f32", "embedding", 0.5),
    ]
    found = [_unlike(*pair) for pair in pairs]
    half = estimated_time_s("gemm_f32", COMPUTE_SHAPES["gemm_f32"]) / 2
    found += [
        _control("gemm_f32", COMPUTE_SHAPES["gemm_f32"], "conv3x3_f32", COMPUTE_SHAPES["conv3x3_f32"]),
        _control("gemm_f16", COMPUTE_SHAPES["gemm_f16"], "conv1x1_f32", COMPUTE_SHAPES["conv1x1_f32"]),
        _control("layer_norm", memory_shape("layer_norm", half), "gemv", memory_shape("gemv", half)),
        _control("softmax", memory_shape("softmax", half), "residual_gelu", memory_shape("residual_gelu", half)),
    ]
    return tuple(found)


def predicted_time_s(first_s: float, second_s: float, p: float = P_NORM) -> float:
    """Return the fused time that the p-norm model expects of two kernels that share the machine."""
    return float((first_s**p + second_s**p) ** (1 / p))


def is_accepted(first: Alone, second: Alone, *, is_co_resident: bool) -> bool:
    """Tell whether a pair is worth fusing.

    One side must be bound by arithmetic and the other by memory, both clearly; the shorter must be at least 0.35 of the
    longer; a block of the fused kernel must fit an SM without spilling registers (`is_co_resident`); and the p-norm
    model must expect at least 1.15 over one after the other.
    """
    intense, modest = sorted((first, second), key=lambda kernel: -kernel.intensity_over_ridge)
    unlike = (
        intense.intensity_over_ridge >= LEAST_COMPUTE_OVER_RIDGE
        and modest.intensity_over_ridge <= MOST_MEMORY_OVER_RIDGE
    )
    shorter, longer = sorted((first.time_s, second.time_s))
    gain = (shorter + longer) / predicted_time_s(shorter, longer)
    return unlike and is_co_resident and shorter >= LEAST_RATIO * longer and gain >= LEAST_PREDICTED_GAIN


def _unlike(compute: ComputeKind, memory: MemoryKind, ratio: float) -> Case:
    shape = COMPUTE_SHAPES[compute]
    beside = memory_shape(memory, ratio * estimated_time_s(compute, shape))
    return Case(f"{compute}+{memory}@{ratio:g}", compute, shape, memory, beside, ratio)


def _control(first: Kind, first_shape: dict[str, int], second: Kind, second_shape: dict[str, int]) -> Case:
    return Case(f"{first}+{second}", first, first_shape, second, second_shape, 1.0, is_control=True)


def _multiple(value: float, of: int) -> int:
    return max(of, round(value / of) * of)
