"""GPU memory in use, its peak, and allocations inside the window."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import polars as pl

from ..intervals import Int64
from ..message import message
from ..metric import Measurement, Metric, NotMeasured, Result, ResultColumn, ResultTable
from ..view import View
from .copies import MEMORY_KINDS

_NOT_RECORDED = message("GPU memory usage was not recorded; record with --cuda-memory-usage=true")
_ALLOCATION = 0
_PINNED_OR_PAGEABLE = (0, 1)
_BINS = 240
_COLUMNS = (
    ResultColumn("start_ns", "ns", message("start of the bin, since session start")),
    ResultColumn("bytes_in_use", "bytes", message("GPU memory in use at the start of the bin")),
    ResultColumn("peak_bytes", "bytes", message("most GPU memory in use inside the bin")),
)


def compute(view: View) -> Iterator[Result]:
    """GPU memory that CUDA calls allocated, over all chosen processes of a device.

    - `gpu_memory_peak`: most bytes in use at one moment of the capture, by memory kind and `total` (host memory, pinned
      or pageable, is listed under its kind but is no part of the total), and `in window`.
    - `gpu_memory_in_use`: at the start and the end of the window.
    - `gpu_memory_growth`: bytes per iteration between these two; 0 in a loop that frees what it allocates.
    - `allocation_count`, `allocation_bytes`: allocations inside the window.
    - `gpu_memory_over_time`: in equal bins of the window.

    Caching allocators (PyTorch) allocate rarely and keep what they have: in use here is what the process took from the
    driver. Memory of other processes, contexts and of the driver itself is not counted. Allocations from before the
    capture appear at its begin.
    """
    events = view.trace.table("memory_events")
    if events is None:
        yield from (NotMeasured(name, _NOT_RECORDED) for name in METRIC.provides)
        return
    if view.scope.pids is not None:
        pid = (pl.col("global_pid") // (1 << 24)) % (1 << 24)
        events = events.filter(pid.is_in(view.scope.pids))
    for device in view.devices:
        own = events.filter(pl.col("device_id") == device.device_id)
        if not own["start_ns"].is_sorted():
            own = own.sort("start_ns", maintain_order=True)
        times, kinds = own["start_ns"].to_numpy(), own["memory_kind"].fill_null(7).to_numpy()
        signs = np.where(own["operation"].to_numpy() == _ALLOCATION, 1, -1)
        sizes = own["bytes"].fill_null(0).to_numpy()
        for kind in np.unique(kinds).tolist():
            peak = _peak(np.cumsum((signs * sizes)[kinds == kind]))
            by = MEMORY_KINDS.get(kind, "unknown")
            yield Measurement("gpu_memory_peak", peak, "bytes", device.device_id, by, int((kinds == kind).sum()))
        on_gpu = ~np.isin(kinds, _PINNED_OR_PAGEABLE)
        times, deltas = times[on_gpu], (signs * sizes)[on_gpu]
        in_use = np.cumsum(deltas)
        yield Measurement("gpu_memory_peak", _peak(in_use), "bytes", device.device_id, "total", len(deltas))
        inside = (times >= device.low) & (times < device.high)
        at_start, at_end = (_at(times, in_use, moment) for moment in (device.low, device.high))
        window_peak = max(at_start, _peak(in_use[inside]))
        yield Measurement("gpu_memory_peak", window_peak, "bytes", device.device_id, "in window", int(inside.sum()))
        yield Measurement("gpu_memory_in_use", at_start, "bytes", device.device_id, "window start")
        yield Measurement("gpu_memory_in_use", at_end, "bytes", device.device_id, "window end")
        if view.periods:
            yield Measurement("gpu_memory_growth", (at_end - at_start) / view.periods, "bytes", device.device_id)
        allocated = inside & (deltas > 0)
        yield Measurement("allocation_count", int(allocated.sum()), "1", device.device_id)
        yield Measurement("allocation_bytes", int(deltas[allocated].sum()), "bytes", device.device_id)
        if len(times):
            frame = _over_time(times, in_use, device.low, device.high)
            title = message("GPU memory over time")
            yield ResultTable("gpu_memory_over_time", title, _COLUMNS, frame, device.device_id)


def _peak(in_use: Int64) -> int:
    return max(int(in_use.max(initial=0)), 0)


def _at(times: Int64, in_use: Int64, moment: int) -> int:
    row = int(np.searchsorted(times, moment, side="left")) - 1
    return int(in_use[row]) if row >= 0 else 0


def _over_time(times: Int64, in_use: Int64, low: int, high: int) -> pl.DataFrame:
    edges = np.linspace(low, high, _BINS + 1).astype(np.int64)
    before = np.searchsorted(times, edges, side="left") - 1
    at_edges: npt.NDArray[np.int64] = np.where(before >= 0, in_use[np.maximum(before, 0)], 0)
    peaks = [max(int(at_edges[bin_]), _peak(in_use[before[bin_] + 1 : before[bin_ + 1] + 1])) for bin_ in range(_BINS)]
    return pl.DataFrame({"start_ns": edges[:-1], "bytes_in_use": at_edges[:-1], "peak_bytes": peaks})


METRIC = Metric(
    id="gpu_memory_peak",
    title=message("GPU memory"),
    provides={
        "gpu_memory_peak": "bytes",
        "gpu_memory_in_use": "bytes",
        "gpu_memory_growth": "bytes",
        "allocation_count": "1",
        "allocation_bytes": "bytes",
        "gpu_memory_over_time": "table",
    },
    needs=("memory_events",),
    missing=_NOT_RECORDED,
    better="lower",
    reference=message("CUPTI memory records, CUDA_GPU_MEMORY_USAGE_EVENTS"),
    compute=compute,
    order=65,
)
