"""Energy from samples of power, and by how much it may be off.

Between two samples the power is taken as the straight line between them (trapezoids). Energy up to a moment is
rounded to whole nanojoules, and energy of a stretch is the difference of two such integers: the parts of a stretch add
up to it exactly, however it is cut.

The uncertainty is a bound. It assumes that the power between two samples stayed between their values, as it does when
it changes its level at most once in between; it then holds for any curve. It grows with the steps between samples, so
that a log which is too slow for its load says so itself. To it comes the error of the clock: every edge of a stretch
may lie that much earlier or later, all together; and half of the step in which the sensor reads. Its accuracy is not
in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from .clock import Float64
from .intervals import Int64, Intervals

NJ_PER_J = 1_000_000_000


@dataclass(frozen=True)
class PowerCurve:
    """Power over time: `times` (n,) in ns ascend strictly, `watts` (n,); at least two samples.

    `clock_error_ns` bounds by how much all times may be off together. `longest_step_ns` is how far apart two samples
    may be to count as neighbours; between others nothing is known. `resolution_w` is the step in which the sensor
    reads, `unresolved_w` by how much the mean power may be off for what no sample ever falls on.
    """

    times: Int64
    watts: Float64
    clock_error_ns: int = 0
    longest_step_ns: int | None = None
    resolution_w: float = 0.0
    unresolved_w: float = 0.0

    @cached_property
    def _steps(self) -> Float64:
        return np.diff(self.times).astype(np.float64)

    @cached_property
    def _energy_before(self) -> Float64:
        """Energy up to each sample in nJ (W x ns)."""
        return np.concatenate(([0.0], np.cumsum((self.watts[1:] + self.watts[:-1]) / 2 * self._steps)))

    @cached_property
    def _bound_before(self) -> Float64:
        """Bound of the error of whole steps up to each sample, nJ."""
        return np.concatenate(([0.0], np.cumsum(np.abs(np.diff(self.watts)) / 2 * self._steps)))

    def _row(self, times: Int64) -> npt.NDArray[np.intp]:
        """Return the step in which each time lies."""
        return np.clip(np.searchsorted(self.times, times, side="right") - 1, 0, len(self.times) - 2)

    def power(self, times: Int64) -> Float64:
        """Return the power at each time, that of the nearest sample outside of them."""
        base = int(self.times[0])
        return np.interp((times - base).astype(np.float64), (self.times - base).astype(np.float64), self.watts)

    def energy_before(self, times: Int64) -> Int64:
        """Return the energy from the first sample to each time, in whole nJ; outside the samples it does not grow."""
        inside = np.clip(times, self.times[0], self.times[-1])
        row = self._row(inside)
        part = (self.watts[row] + self.power(inside)) / 2 * (inside - self.times[row])
        return np.rint(self._energy_before[row] + part).astype(np.int64)

    def energy(self, spans: Intervals) -> int:
        """Return the energy in disjoint intervals, in whole nJ."""
        return int((self.energy_before(spans.ends) - self.energy_before(spans.starts)).sum())

    def covered_ns(self, start: int, end: int) -> int:
        """Return how much of a stretch lies between samples that are neighbours."""
        starts, ends = np.clip(self.times[:-1], start, end), np.clip(self.times[1:], start, end)
        if self.longest_step_ns is not None:
            near = np.diff(self.times) <= self.longest_step_ns
            starts, ends = starts[near], ends[near]
        return int((ends - starts).sum())

    def count(self, spans: Intervals) -> int:
        """Return how many samples lie in disjoint intervals."""
        first = np.searchsorted(self.times, spans.starts, side="left")
        stop = np.searchsorted(self.times, spans.ends, side="left")
        return int((stop - first).sum())

    def highest(self, start: int, end: int) -> float | None:
        """Return the highest sample in [start, end), `None` where there is none."""
        inside = self.watts[(self.times >= start) & (self.times < end)]
        return float(inside.max()) if len(inside) else None

    def uncertainty(self, spans: Intervals) -> float:
        """Return the bound of the error of `energy` over the same intervals, nJ."""
        keep = spans.ends > spans.starts
        starts, ends = spans.starts[keep], spans.ends[keep]
        if not len(starts):
            return 0.0
        level = (self.resolution_w / 2 + self.unresolved_w) * float((ends - starts).sum())
        return float(self._sampling_bound(starts, ends).sum() + self._clock_bound(starts, ends).sum()) + level

    def _sampling_bound(self, starts: Int64, ends: Int64) -> Float64:
        first, last = self._row(starts), self._row(ends)
        same = first == last
        whole = np.where(same, 0.0, self._bound_before[last] - self._bound_before[np.minimum(first + 1, last)])
        edge = np.where(same, starts, self.times[last])
        head_end = np.where(same, starts, self.times[np.minimum(first + 1, last)])
        return np.asarray(whole + self._part_bound(first, starts, head_end) + self._part_bound(last, edge, ends))

    def _part_bound(self, row: npt.NDArray[np.intp], starts: Int64, ends: Int64) -> Float64:
        """Return the bound for parts of a step: the mean of the line against the lowest and highest possible power."""
        mean = (self.power(starts) + self.power(ends)) / 2
        low = np.minimum(self.watts[row], self.watts[row + 1])
        high = np.maximum(self.watts[row], self.watts[row + 1])
        return np.asarray(np.maximum(mean - low, high - mean) * (ends - starts))

    def _clock_bound(self, starts: Int64, ends: Int64) -> Float64:
        """Return what a shift of all edges can change: what comes in at one edge less what goes out at the other."""
        if not self.clock_error_ns:
            return np.zeros(len(starts))
        low_start, high_start = self._range_around(starts)
        low_end, high_end = self._range_around(ends)
        most = np.maximum(high_end - low_start, high_start - low_end)
        return np.asarray(np.maximum(most, 0.0) * self.clock_error_ns)

    def _range_around(self, times: Int64) -> tuple[Float64, Float64]:
        """Return the lowest and highest power that is possible within the clock error around each time."""
        first = self._row(times - self.clock_error_ns)
        stop = self._row(times + self.clock_error_ns) + 2
        return _range_extreme(np.minimum, self.watts, first, stop), _range_extreme(np.maximum, self.watts, first, stop)


def _range_extreme(pick: np.ufunc, values: Float64, first: npt.NDArray[np.intp], stop: npt.NDArray[np.intp]) -> Float64:
    """Return the extreme of values[first:stop] for each pair, with a table of the extremes over powers of two."""
    length = stop - first
    level = np.frexp(length.astype(np.float64))[1] - 1
    found = np.empty(len(first), np.float64)
    table = values
    for power in range(int(level.max(initial=0)) + 1):
        here = level == power
        found[here] = pick(table[first[here]], table[stop[here] - (1 << power)])
        if len(table) > 1 << power:
            table = pick(table[: -(1 << power)], table[1 << power :])
    return found
