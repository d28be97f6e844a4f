"""Roofline: what a GPU can do at a clock, what a kernel did, and what held it.

Peaks are dense: without structured sparsity. They are operations per cycle and SM, times SMs, times the clock that was
measured while the kernels were counted, since the highest clock of a data sheet is rarely the clock of a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .message import message
from .trace import Device

Bound = Literal["compute", "memory", "latency"]
# Below this share of every peak, nothing is near its limit: ncu's rule for its "speed of light" section.
NEAR_PEAK = 0.6
BOUNDS: dict[str, str] = {
    "compute": message("compute-bound"),
    "memory": message("memory-bound"),
    "latency": message("latency-bound"),
}


@dataclass(frozen=True, slots=True)
class CorePeaks:
    """Dense operations per cycle and SM, an FMA counted twice; `tensor_fp16` is 0 where an SM has no tensor cores."""

    fp32: int
    tensor_fp16: int


# By compute capability. FP32: two operations for each core of an SM (CUDA C++ Programming Guide, arithmetic
# instructions). Tensor: data sheets and architecture white papers, FP16 inputs at the highest rate of accumulation that
# the chip has: V100 125 TFLOP/s, T4 65, A100 312, Orin 85 TOPS of dense INT8 on 16 SMs, H100 SXM 989, B200 2250, Thor
# 517 of dense FP8.
PEAKS: dict[str, CorePeaks] = {
    "5.3": CorePeaks(256, 0),
    "6.0": CorePeaks(128, 0),
    "6.1": CorePeaks(256, 0),
    "6.2": CorePeaks(256, 0),
    "7.0": CorePeaks(128, 1024),
    "7.2": CorePeaks(128, 1024),
    "7.5": CorePeaks(128, 1024),
    "8.0": CorePeaks(128, 2048),
    "8.6": CorePeaks(256, 1024),
    "8.7": CorePeaks(256, 2048),
    "8.9": CorePeaks(256, 1024),
    "9.0": CorePeaks(256, 4096),
    "10.0": CorePeaks(256, 8192),
    "11.0": CorePeaks(256, 8192),
}


@dataclass(frozen=True, slots=True)
class Roofs:
    """The roofs of a device at a clock: operations per second, and bytes per second of its DRAM; `None`: not known."""

    clock_hz: float
    fp32_per_s: float | None
    tensor_fp16_per_s: float | None
    dram_bytes_per_s: float | None

    def ridge(self, peak_per_s: float | None) -> float | None:
        """Return the arithmetic intensity at which a compute roof meets that of the DRAM, operations per byte."""
        return peak_per_s / self.dram_bytes_per_s if peak_per_s and self.dram_bytes_per_s else None


def roofs_of(device: Device, clock_hz: float, dram_bytes_per_s: float | None) -> Roofs:
    """Return the roofs of a device.

    Args:
        device: compute capability and number of SMs decide; an unknown chip has no compute roof.
        clock_hz: the clock of the SMs while the kernels were counted.
        dram_bytes_per_s: the peak of the DRAM; `None` where it is not known.
    """
    peaks = PEAKS.get(device.compute_capability or "")
    per_s = None if peaks is None or device.sm_count is None else device.sm_count * clock_hz
    return Roofs(
        clock_hz=clock_hz,
        fp32_per_s=per_s * peaks.fp32 if per_s and peaks else None,
        tensor_fp16_per_s=per_s * peaks.tensor_fp16 or None if per_s and peaks else None,
        dram_bytes_per_s=dram_bytes_per_s,
    )


def bound_of(compute_ratio: float | None, memory_ratio: float | None) -> Bound | None:
    """Return what holds a kernel, by the shares of its peaks that it reached.

    The busier of compute and memory, where it reached 60 % of its peak; `latency` where neither did, so that the kernel
    waits more than it works. `None` where neither share is known.

    Reference: the rule of ncu's section "GPU Speed Of Light Throughput".
    """
    if compute_ratio is None and memory_ratio is None:
        return None
    compute, memory = compute_ratio or 0.0, memory_ratio or 0.0
    if max(compute, memory) < NEAR_PEAK:
        return "latency"
    return "compute" if compute > memory else "memory"


def most_time(bounds: Sequence[str | None], times_ns: Sequence[int]) -> str | None:
    """Return the class that most of the time belongs to, `None` where no class is known."""
    total: dict[str, int] = {}
    for bound, time in zip(bounds, times_ns, strict=True):
        if bound is not None:
            total[bound] = total.get(bound, 0) + time
    return max(total, key=lambda bound: (total[bound], bound)) if total else None
