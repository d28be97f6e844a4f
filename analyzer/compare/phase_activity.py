"""What the hardware sampler saw in the same NVTX phase before and after.

A phase is the GPU work that ranges of one path launched, from the first start to the last end of each range (its
projection), clipped to the window. Values are means over the projections of all runs of a side, weighted by time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from ..intervals import Intervals, clip, union
from ..nvtx import without_counter
from ..phases import phases_of, shared_ns
from ..samples import FEWEST_SAMPLES, Sampled
from ..view import DeviceView, View
from .sequence import inside_iteration

METRICS = ("sm_active", "sm_issue", "tensor_active", "dram_read", "dram_write")
# The path of the iteration as a whole, which is the window.
WHOLE_ITERATION = ""


@dataclass(frozen=True, slots=True)
class PhaseSide:
    """One phase on one side.

    `projection_ns` is the time of a mean iteration that its projections cover, `shared_ratio` the part of it in which
    projections of other phases ran too, `samples` how many sampling periods lie in all of it. `values` are ratios from
    0 to 1 by metric (`METRICS`); `None` where the metric was not sampled, or fewer than 5 times, or where a projection
    is on average shorter than a sampling period, so that samples are mostly about what ran around it.
    """

    projection_ns: Fraction
    shared_ratio: float
    samples: int
    values: Mapping[str, float | None]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {
            "projection_ns": float(self.projection_ns),
            "shared_ratio": self.shared_ratio,
            "samples": self.samples,
            **self.values,
        }


@dataclass(frozen=True, slots=True)
class PhaseActivity:
    """One phase before and after, `None` on a side that does not have it. `path` is that inside the iteration."""

    path: str
    before: PhaseSide | None
    after: PhaseSide | None

    def delta(self, metric: str) -> float | None:
        """Return what a sampled ratio changed by, `None` where a side does not know it."""
        if self.before is None or self.after is None:
            return None
        before, after = self.before.values[metric], self.after.values[metric]
        return None if before is None or after is None else after - before

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {
            "path": self.path,
            "before": None if self.before is None else self.before.to_dict(),
            "after": None if self.after is None else self.after.to_dict(),
            "delta": {metric: self.delta(metric) for metric in METRICS},
        }


@dataclass(frozen=True, slots=True)
class _Spans:
    """Where a phase ran in one run, and for how long other phases did so too."""

    covered: Intervals
    shared: int


def phase_activities(
    before: Sequence[View], after: Sequence[View], devices: tuple[int, int]
) -> tuple[PhaseActivity, ...]:
    """Return the sampled activity of the whole iteration and of each phase, the longest first, on a pair of devices.

    Phases that only one side has are there too. Without samples on either side there is nothing to return.
    """
    sides = [
        [(view, device) for view in views for device in view.devices if device.device_id == device_id]
        for views, device_id in zip((before, after), devices, strict=True)
    ]
    if not any(device.sampled for side in sides for _, device in side):
        return ()
    found = [[_phases(view, device) for view, device in side] for side in sides]
    paths = dict.fromkeys(path for side in found for phases in side for path in phases)
    made = [
        PhaseActivity(path, *(_side(side, phases, path) for side, phases in zip(sides, found, strict=True)))
        for path in paths
    ]
    return tuple(sorted(made, key=lambda phase: (phase.path != WHOLE_ITERATION, -_length(phase), phase.path)))


def _length(phase: PhaseActivity) -> Fraction:
    return max(side.projection_ns for side in (phase.before, phase.after) if side is not None)


def _phases(view: View, device: DeviceView) -> dict[str, _Spans]:
    """Return the phases of a run by their path inside the iteration, the whole window among them."""
    labels = {without_counter(iteration.name) for iteration in view.window.iterations}
    whole = Intervals(np.array([device.low], np.int64), np.array([device.high], np.int64))
    found = {WHOLE_ITERATION: _Spans(whole, 0)}
    phases = phases_of(view)
    for phase in phases:
        path = inside_iteration(phase.path, labels)
        if not phase.in_window or not path:
            continue
        inside = clip(phase.covered.starts, phase.covered.ends, device.low, device.high)
        shared = shared_ns(phase, phases)
        if path in found:
            known = found[path]
            inside = union(
                np.concatenate((known.covered.starts, inside.starts)), np.concatenate((known.covered.ends, inside.ends))
            )
            shared += known.shared
        found[path] = _Spans(inside, shared)
    return found


def _side(
    runs: Sequence[tuple[View, DeviceView]], phases: Sequence[Mapping[str, _Spans]], path: str
) -> PhaseSide | None:
    """Return one phase over all runs of a side, `None` where no run has it."""
    mine = [(device, spans[path]) for (_, device), spans in zip(runs, phases, strict=True) if path in spans]
    total = sum(spans.covered.total for _, spans in mine)
    if not total:
        return None
    iterations = sum(max(view.periods, 1) for view, _ in runs)
    samples = sum(_count(device, spans.covered) for device, spans in mine)
    pieces = sum(len(spans.covered.starts) for _, spans in mine)
    is_known = samples >= FEWEST_SAMPLES and total >= pieces * max(_sampling_ns(device) for device, _ in mine)
    return PhaseSide(
        Fraction(total, iterations),
        min(sum(spans.shared for _, spans in mine) / total, 1.0),
        samples,
        {
            metric: _mean([(device.sampled.get(metric), spans.covered) for device, spans in mine]) if is_known else None
            for metric in METRICS
        },
    )


def _sampling_ns(device: DeviceView) -> float:
    """Return the median sampling period of a device, 0 where it was not sampled."""
    sampled = next(iter(device.sampled.values()), None)
    return 0.0 if sampled is None else float(np.median(np.diff(sampled.times)))


def _count(device: DeviceView, spans: Intervals) -> int:
    sampled = next(iter(device.sampled.values()), None)
    if sampled is None:
        return 0
    return sum(sampled.count(start, end) for start, end in zip(spans.starts.tolist(), spans.ends.tolist(), strict=True))


def _mean(runs: Sequence[tuple[Sampled | None, Intervals]]) -> float | None:
    """Return the mean over the spans of all runs that sampled a metric, weighted by time, as a ratio."""
    total, covered = 0.0, 0
    for sampled, spans in runs:
        if sampled is not None:
            total += float(sampled.integral(spans.starts, spans.ends).sum())
            covered += int(sampled.covered(spans.starts, spans.ends).sum())
    return total / covered / 100 if covered else None
