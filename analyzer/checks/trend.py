"""A value over the history of a baseline, and where its level changed.

Change points are those of PELT (Killick, Fearnhead and Eckley 2012; the package `ruptures`) with the squared error of
the logs as cost. The noise is taken from the differences of neighbouring runs, which a change of level hardly touches;
a change must lower the cost by more than 4 ln(n) times the variance of the noise, and last for at least 3 runs. They
are looked for from 20 runs on, since shorter histories hold more of them by chance than in truth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np

from nitro.errors import UsageError

from ..message import message
from .baselines import Baseline
from .gauges import Gauge, Key, gauge_of, matches, nearest
from .runs import Run

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
    """A value over the history on one kind of GPU, the oldest run first.

    `gpu` is the name of the GPU, or of all GPUs of the runs where the value belongs to none of them. `note` says why
    change points were not looked for.
    """

    baseline: str
    key: Key
    gpu: str
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
            "gpu": self.gpu,
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
    baseline: Baseline,
    name: str,
    *,
    nvtx: str | None = None,
    device: int | None = None,
    gpu: str | None = None,
    per: str = "iteration",
) -> tuple[Trend, ...]:
    """Return the trends of a metric: one for each part, device and NVTX range that it is measured for.

    Runs on GPUs of different names are different histories, and each gets a trend of its own: a step from one board to
    another is no change of level.

    Args:
        baseline: whose history.
        name: a metric, or `METRIC:PART` for one part of it.
        gpu: a pattern of the names of GPUs; `*` matches anything.
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
    found = tuple(trend for key in keys for trend in _trends_by_gpu(baseline, key, gauge, per))
    kept = tuple(trend for trend in found if gpu is None or matches(gpu, trend.gpu))
    if not kept:
        names = ", ".join(dict.fromkeys(trend.gpu for trend in found))
        raise UsageError(f"the baseline {baseline.name} has no {name} of a GPU called {gpu}; it has it for {names}.")
    return kept


def _way_out(there: Sequence[Key], part: str) -> str:
    parts = sorted({key.by for key in there if key.by})
    if part and parts:
        return f"of its parts, {nearest(part, parts)}"
    if there:
        return "it has it for " + ", ".join(key.text for key in there[:5]) + "."
    return "it was not measured in any run of its history."


def _trends_by_gpu(baseline: Baseline, key: Key, gauge: Gauge, per: str) -> Iterator[Trend]:
    """Yield a trend for each kind of GPU that has a value, the one with the newest run last."""
    points: dict[str, list[Point]] = {}
    for entry in baseline.entries:
        for run in entry.runs:
            point = Point(entry.number, entry.kind, entry.day, entry.label, run.value(key, gauge, per))
            points.setdefault(_gpu_of(run, key), []).append(point)
    for gpu, own in points.items():
        if any(point.value is not None for point in own) or len(points) == 1:
            yield _trend(baseline, key, gpu, gauge, per, tuple(own))


def _gpu_of(run: Run, key: Key) -> str:
    """Return the name of the GPU that a value belongs to, those of all GPUs of its run where it belongs to none."""
    names = [device.name for device in run.facts.devices if key.device_id in (-1, device.device_id)]
    return ", ".join(names) or f"GPU {key.device_id}"


def _trend(baseline: Baseline, key: Key, gpu: str, gauge: Gauge, per: str, points: tuple[Point, ...]) -> Trend:
    made = Trend(baseline.name, key, gpu, gauge, per, points, ())
    known = made.known
    if len(known) < FEWEST_RUNS:
        note = message(
            "change points are looked for from {fewest} runs on, and there are {runs}",
            fewest=FEWEST_RUNS,
            runs=len(known),
        )
        return replace(made, note=note)
    values = np.array([point.value for point in known], np.float64)
    if (values <= 0).any():
        note = message("change points are looked for in logarithms, and a value is 0 or less")
        return replace(made, note=note)
    try:
        places = change_places(np.log(values))
    except ImportError:
        note = message("change points need the package ruptures: pip install 'nitro-analyze[trend]'")
        return replace(made, note=note)
    edges = [0, *places, len(known)]
    levels = [median(values[low:high].tolist()) for low, high in pairwise(edges)]
    changes = tuple(
        ChangePoint(at, known[at].entry, known[at].day, levels[number], levels[number + 1])
        for number, at in enumerate(places)
    )
    return replace(made, change_points=changes)


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
