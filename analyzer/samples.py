"""Sampled GPU metrics of one device as functions of time.

A sample at time t covers (t_prev, t]; the first one is partial and is dropped. An integral over any stretch of time
is therefore exact for values that are constant in each period, and a mean is weighted by time, not by count.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from .intervals import Int64, Intervals
from .tables import enum_texts
from .trace import Trace

Float64 = npt.NDArray[np.float64]
FEWEST_SAMPLES = 5


@dataclass(frozen=True)
class Sampled:
    """One metric: `values` (n,) hold over the periods (`times[i]`, `times[i + 1]`], `times` has shape (n + 1,)."""

    times: Int64
    values: Float64

    @cached_property
    def _integral(self) -> Float64:
        return np.concatenate(([0.0], np.cumsum(self.values * (self.times[1:] - self.times[:-1]))))

    def integral(self, starts: Int64, ends: Int64) -> Float64:
        """Return the integral of the value over each [start, end), in value x ns; 0 outside the samples."""
        base = int(self.times[0])
        knots = (self.times - base).astype(np.float64)
        return np.asarray(
            np.interp((ends - base).astype(np.float64), knots, self._integral)
            - np.interp((starts - base).astype(np.float64), knots, self._integral)
        )

    def covered(self, starts: Int64, ends: Int64) -> Int64:
        """Return how many ns of each [start, end) lie inside the samples."""
        low, high = int(self.times[0]), int(self.times[-1])
        return np.clip(ends, low, high) - np.clip(starts, low, high)

    def count(self, start: int, end: int) -> int:
        """Return how many sampling periods touch [start, end)."""
        first = np.searchsorted(self.times[1:], start, side="right")
        stop = np.searchsorted(self.times[:-1], end, side="left")
        return max(int(stop - first), 0)

    def mean(self, spans: Intervals) -> float | None:
        """Return the time-weighted mean over disjoint intervals, `None` where no sample covers any of them."""
        covered = int(self.covered(spans.starts, spans.ends).sum())
        return float(self.integral(spans.starts, spans.ends).sum()) / covered if covered else None


def sampled_metrics(trace: Trace, device_id: int) -> dict[str, Sampled]:
    """Return the sampled metrics of a device by name; those with fewer than two samples are left out."""
    frame = trace.table("gpu_metric_samples")
    if frame is None or frame.is_empty():
        return {}
    devices = frame["device_id"]
    if devices.min() != device_id or devices.max() != device_id:
        frame = frame.filter(pl.col("device_id") == device_id)
    names = enum_texts(frame["metric"])
    code = frame["metric"].to_physical().to_numpy()
    times, values = frame["time_ns"].to_numpy(), frame["value"].to_numpy()
    order = np.argsort(code.astype(np.uint8), kind="stable")
    counts = np.bincount(code, minlength=len(names))
    found: dict[str, Sampled] = {}
    for name, rows in zip(names, np.split(order, np.cumsum(counts)[:-1]), strict=True):
        if len(rows) < 2:
            continue
        own = times[rows]
        if (own[1:] < own[:-1]).any():
            rows = rows[np.argsort(own, kind="stable")]
            own = times[rows]
        found[name] = Sampled(own, values[rows][1:].astype(np.float64))
    return found
