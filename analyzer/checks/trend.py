"""A value over the history of a baseline, and where its level changed.

Change points are those of PELT (Killick, Fearnhead and Eckley 2012; the package `ruptures`) with the squared error of
the logs as cost. The noise is taken from the differences of neighbouring runs, which a change of level hardly touches;
a change must lower the cost by more than 4 ln(n) times the variance of the noise, and last for at least 3 runs. They
are looked for from 20 runs on, since shorter histories hold more of them by chance than in truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np

from nitro.errors import UsageError

from ..message import message
from .baselines import Baseline
from .gauges import Gauge, Key, gauge_of, matches, nearest

FEWEST_RUNS = 20
_SHORTEST = 3
_PENALTY = 4.0
# Noise below a tenth of a percent is not worth a change point; counts without any would give one for each step of 1.
_LEAST_NOISE = 1e-3
# Median of absolute differences of two normal values, as a multiple of their standard deviation.
_DIFFERENCE_TO_SIGMA = 0.6745 * math.sqrt(2)


@dataclass(frozen=True, slots=True)
class Point:
    """One run of the history; `value` is `None` where it was not measured."""

    entry: int
    kind: str
    day: date
    label: str
    value: float | None


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """A new level from the run at place `at` on, counted from 0 over the runs with a value; medians of the levels."""

    at: int
    entry: int
    day: date
    before: float
    after: float

    @property
    def change(self) -> float:
        """The change as a share of the level before."""
        return self.after / self.before - 1

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {
            "at": self.at,
            "entry": self.entry,
            "day": self.day.isoformat(),
            "before": self.before,
            "after": self.after,
            "change": self.change,
        }


@dataclass(frozen=True, slots=True)
class Trend:
    """A value over the history, the oldest run first. `note` says why change points were not looked for."""

    baseline: str
    key: Key
    gauge: Gauge
    per: str
    points: tuple[Point, ...]
    change_points: tuple[ChangePoint, ...]
    note: str = ""

    @property
    def known(self) -> tuple[Point, ...]:
        """The runs that have a value."""
        return tuple(point for point in self.points if point.value is not None)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, which docs/check.md describes."""
        return {
            "baseline": self.baseline,
            "metric": self.key.metric,
            "by": self.key.by or None,
            "device_id": self.key.device_id if self.key.device_id >= 0 else None,
            "nvtx": self.key.nvtx or None,
            "unit": self.gauge.unit,
            "per_iteration": self.gauge.is_window_total and self.per == "iteration",
            "note": self.note,
            "change_points": [change.to_dict() for change in self.change_points],
            "points": [
                {
                    "entry": point.entry,
                    "kind": point.kind,
                    "day": point.day.isoformat(),
                    "label": point.label,
                    "value": point.value,
                }
                for point in self.points
            ],
        }


def trends(
    baseline: Baseline, name: str, *, nvtx: str | None = None, device: int | None = None, per: str = "iteration"
) -> tuple[Trend, ...]:
    """Return the trends of a metric: one for each part, device and NVTX range that it is measured for.

    Args:
        baseline: whose history.
        name: a metric, or `METRIC:PART` for one part of it.
        nvtx: a pattern of NVTX paths, for metrics of ranges.
        device: one GPU only.
        per: `iteration` or `window`, for totals.

    Raises:
        UsageError: there is no such metric, or the history has no value of it.
    """
    metric, _, part = name.partition(":")
    try:
        gauge = gauge_of(metric, of_phase=nvtx is not None)
    except ValueError as error:
        raise UsageError(f"{error}".rstrip(".") + ("" if f"{error}".endswith("?") else ".")) from None
    there = [key for key in baseline.keys if key.metric == metric and bool(key.nvtx) == gauge.of_phase]
    keys = [
        key
        for key in there
        if (not part or key.by == part)
        and (device is None or key.device_id in (device, -1))
        and (nvtx is None or matches(nvtx, key.nvtx))
    ]
    if not keys:
        raise UsageError(f"the baseline {baseline.name} has no {name}; {_way_out(there, part)}")
    return tuple(_trend(baseline, key, gauge, per) for key in keys)


def _way_out(there: Sequence[Key], part: str) -> str:
    parts = sorted({key.by for key in there if key.by})
    if part and parts:
        return f"of its parts, {nearest(part, parts)}"
    if there:
        return "it has it for " + ", ".join(key.text for key in there[:5]) + "."
    return "it was not measured in any run of its history."


def _trend(baseline: Baseline, key: Key, gauge: Gauge, per: str) -> Trend:
    points = tuple(
        Point(entry.number, entry.kind, entry.day, entry.label, run.value(key, gauge, per))
        for entry in baseline.entries
        for run in entry.runs
    )
    made = Trend(baseline.name, key, gauge, per, points, ())
    known = made.known
    if len(known) < FEWEST_RUNS:
        note = message(
            "change points are looked for from {fewest} runs on, and there are {runs}",
            fewest=FEWEST_RUNS,
            runs=len(known),
        )
        return Trend(baseline.name, key, gauge, per, points, (), note)
    values = np.array([point.value for point in known], np.float64)
    if (values <= 0).any():
        note = message("change points are looked for in logarithms, and a value is 0 or less")
        return Trend(baseline.name, key, gauge, per, points, (), note)
    try:
        places = change_places(np.log(values))
    except ImportError:
        note = message("change points need the package ruptures: pip install 'nitro-analyze[trend]'")
        return Trend(baseline.name, key, gauge, per, points, (), note)
    edges = [0, *places, len(known)]
    levels = [median(values[low:high].tolist()) for low, high in pairwise(edges)]
    changes = tuple(
        ChangePoint(at, known[at].entry, known[at].day, levels[number], levels[number + 1])
        for number, at in enumerate(places)
    )
    return Trend(baseline.name, key, gauge, per, points, changes)


def change_places(logs: np.ndarray[Any, np.dtype[np.float64]]) -> list[int]:
    """Return the places at which a new level begins, ascending, for logs of shape (runs,).

    Raises:
        ImportError: `ruptures` is not installed.
    """
    import ruptures

    noise = float(np.median(np.abs(np.diff(logs)))) / _DIFFERENCE_TO_SIGMA
    penalty = _PENALTY * math.log(len(logs)) * max(noise, _LEAST_NOISE) ** 2
    found = ruptures.Pelt(model="l2", min_size=_SHORTEST, jump=1).fit(logs.reshape(-1, 1)).predict(pen=penalty)
    return [int(place) for place in found[:-1]]
