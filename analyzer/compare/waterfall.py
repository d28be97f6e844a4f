"""The waterfall: where the change of the mean iteration came from, exactly.

The mean period of a device is its window divided by the iterations in it, an exact rational. Every nanosecond of the
window is busy or idle, and busy time is what the operations sum to less what overlapped, so

    mean period = kernel + graph + memcpy + memset - overlap + idle by cause

holds on each side, each divided by that side's iterations, and so does the difference of two sides. Several runs of a
side are pooled: windows, parts and iterations are added up before the division.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from ..analysis import Analysis
from ..causes import TEXTS, Cause
from ..message import message
from ..nvtx import without_counter
from ..operations import Kind
from ..view import OUTSIDE_NVTX, View
from .idle_paths import idle_by_path
from .sequence import inside_iteration

OVERLAP = "overlap"
KINDS = {Kind.KERNEL: "kernel", Kind.GRAPH: "graph", Kind.MEMCPY: "memcpy", Kind.MEMSET: "memset"}
TITLES: Mapping[str, str] = {
    "kernel": message("kernels"),
    "graph": message("CUDA graphs"),
    "memcpy": message("copies"),
    "memset": message("memsets"),
    OVERLAP: message("overlap"),
    **{cause.id: TEXTS[cause].title for cause in Cause},
}
KEYS: tuple[str, ...] = tuple(TITLES)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the window of one device, or the windows of several runs together, consist of, in ns.

    `by_key` has every key of `KEYS`; overlap is positive and counts negatively. `idle_paths` splits idle causes by the
    NVTX path of the launching thread below the range that marks the iteration; it is empty where only a saved analysis
    is known.

    Raises:
        AssertionError: the parts do not add up to the window.
    """

    device_id: int
    window_ns: int
    iterations: int
    by_key: Mapping[str, int]
    idle_paths: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if sum(_sign(key) * self.by_key[key] for key in KEYS) != self.window_ns:
            raise AssertionError("the parts of the waterfall do not add up to the window")
        if self.iterations < 1:
            raise ValueError("a window has at least one iteration")

    @property
    def mean_period_ns(self) -> Fraction:
        """Window divided by iterations, ns."""
        return Fraction(self.window_ns, self.iterations)

    def per_iteration(self, *keys: str) -> Fraction:
        """Return what these parts sum to in a mean iteration, ns."""
        return Fraction(sum(self.by_key[key] for key in keys), self.iterations)

    @property
    def idle_ns(self) -> Fraction:
        """Idle time in a mean iteration."""
        return self.per_iteration(*(cause.id for cause in Cause))

    @property
    def work_ns(self) -> Fraction:
        """Sum of the durations of all operations in a mean iteration."""
        return self.per_iteration(*KINDS.values())


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the waterfall, in ns of a mean iteration.

    `before` and `after` are the part itself, overlap being positive; `delta` is what the step adds to the mean period,
    so that of overlap is `before` - `after`. `key` is one of the names that `reports/palette.py` has a colour for, or
    `overlap`.
    """

    key: str
    title: str
    before: Fraction
    after: Fraction

    @property
    def delta(self) -> Fraction:
        """What the step adds to the mean period."""
        return _sign(self.key) * (self.after - self.before)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON; rationals as numbers of ns and as exact text `numerator/denominator`."""
        return {
            "key": self.key,
            "title": self.title,
            "before_ns": float(self.before),
            "after_ns": float(self.after),
            "delta_ns": float(self.delta),
            "exact": {name: str(getattr(self, name)) for name in ("before", "after", "delta")},
        }


@dataclass(frozen=True, slots=True)
class Waterfall:
    """The change of the mean period of a device, step by step. `before + sum of the deltas = after`, exactly.

    Raises:
        AssertionError: the steps do not add up.
    """

    before: Parts
    after: Parts
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        if sum((step.delta for step in self.steps), Fraction(0)) != self.delta:
            raise AssertionError("the steps of the waterfall do not add up to the change of the mean period")

    @property
    def delta(self) -> Fraction:
        """Change of the mean period, ns."""
        return self.after.mean_period_ns - self.before.mean_period_ns

    @property
    def ratio(self) -> float | None:
        """Mean period after divided by the one before, `None` where that is 0."""
        before = self.before.mean_period_ns
        return float(self.after.mean_period_ns / before) if before else None

    def step(self, key: str) -> Step:
        """Return a step by its key; one that is 0 on both sides is there, too."""
        return Step(key, TITLES[key], self.before.per_iteration(key), self.after.per_iteration(key))

    def delta_of(self, *keys: str) -> Fraction:
        """Return what several steps together add to the mean period."""
        return sum((self.step(key).delta for key in keys), Fraction(0))

    def idle_path_deltas(self, key: str) -> dict[str, Fraction]:
        """Return how an idle cause changed by NVTX path, ns of a mean iteration; they add up to its step.

        Where a side knows no paths, its idle time counts as outside of NVTX ranges.
        """
        changes: dict[str, Fraction] = {}
        for parts, sign in ((self.before, -1), (self.after, 1)):
            known = parts.idle_paths.get(key, {})
            unknown = parts.by_key[key] - sum(known.values())
            for path, ns in (*known.items(), (OUTSIDE_NVTX, unknown)):
                changes[path] = changes.get(path, Fraction(0)) + sign * Fraction(ns, parts.iterations)
        return {path: change for path, change in changes.items() if change}

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {
            "before": _side_dict(self.before),
            "after": _side_dict(self.after),
            "delta_ns": float(self.delta),
            "delta_exact": str(self.delta),
            "steps": [step.to_dict() for step in self.steps],
        }


def parts_of(view: View, device_id: int) -> Parts:
    """Return what the window of a device of a view consists of.

    Without iterations the whole window counts as one.

    Raises:
        ValueError: the device has no operation.
    """
    device = next((device for device in view.devices if device.device_id == device_id), None)
    if device is None:
        raise ValueError(f"device {device_id} has no operation")
    idle = idle_by_path(view, device)
    by_key = dict.fromkeys(KEYS, 0)
    by_key |= {key: device.time_of(kind) for kind, key in KINDS.items()}
    by_key[OVERLAP] = sum(by_key[key] for key in KINDS.values()) - device.busy.total
    by_key |= {cause.id: sum(paths.values()) for cause, paths in idle.items()}
    labels = {without_counter(iteration.name) for iteration in view.window.iterations}
    paths: dict[str, dict[str, int]] = {}
    for cause, by_path in idle.items():
        mine = paths.setdefault(cause.id, {})
        for path, ns in by_path.items():
            inside = inside_iteration(path, labels)
            mine[inside] = mine.get(inside, 0) + ns
    return Parts(device_id, device.window_ns, max(view.periods, 1), by_key, paths)


def parts_of_analysis(analysis: Analysis, device_id: int) -> Parts:
    """Return what the window of a device of an analysis consists of, without NVTX paths.

    Raises:
        ValueError: the device has no operation.
    """
    count = len(analysis.window.iterations)
    return parts_of_values(lambda metric, by: analysis.value(metric, device_id, by), device_id, max(count - 1, 1))


def parts_of_values(value: Callable[[str, str | None], float | None], device_id: int, iterations: int) -> Parts:
    """Return what the window of a device consists of, from the measurements of an analysis, without NVTX paths.

    Args:
        value: returns the measurement of a metric on the device, by what it is a part of; `None` where there is none.
        device_id: the device.
        iterations: how many iterations the window holds, at least 1.

    Raises:
        ValueError: the device has no operation.
    """
    window = value("window", None)
    if window is None:
        raise ValueError(f"device {device_id} has no operation")

    def measured(metric: str, by: str | None = None) -> int:
        return int(value(metric, by) or 0)

    by_key = {key: measured(f"{key}_time_sum") for key in KINDS.values()}
    by_key[OVERLAP] = measured("overlap")
    by_key |= {cause.id: measured("gpu_idle_by_cause", cause.id) for cause in Cause}
    return Parts(device_id, int(window), iterations, by_key)


def pooled(parts: Iterable[Parts]) -> Parts:
    """Return several runs of a side as one: everything is added up, so the mean period weighs iterations alike.

    Raises:
        ValueError: there is no run.
    """
    known = tuple(parts)
    if not known:
        raise ValueError("a side of a comparison has at least one run")
    paths: dict[str, dict[str, int]] = {}
    for run in known:
        for key, by_path in run.idle_paths.items():
            mine = paths.setdefault(key, {})
            for path, ns in by_path.items():
                mine[path] = mine.get(path, 0) + ns
    return Parts(
        known[0].device_id,
        sum(run.window_ns for run in known),
        sum(run.iterations for run in known),
        {key: sum(run.by_key[key] for run in known) for key in KEYS},
        paths,
    )


def waterfall_of(before: Parts, after: Parts) -> Waterfall:
    """Return the waterfall between two sides.

    Steps are in the order kernel, graph, memcpy, memset, overlap, idle causes; those that are 0 on both sides are left
    out.
    """
    steps = tuple(
        Step(key, TITLES[key], before.per_iteration(key), after.per_iteration(key))
        for key in KEYS
        if before.by_key[key] or after.by_key[key]
    )
    return Waterfall(before, after, steps)


def _sign(key: str) -> int:
    return -1 if key == OVERLAP else 1


def _side_dict(parts: Parts) -> dict[str, Any]:
    return {
        "device_id": parts.device_id,
        "window_ns": parts.window_ns,
        "iterations": parts.iterations,
        "mean_period_ns": float(parts.mean_period_ns),
        "mean_period_exact": str(parts.mean_period_ns),
    }
