"""`compare`: from two sides of one or several runs to a `Comparison`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from nitro import __version__
from nitro.errors import InputError, UsageError

from ..message import message
from ..operations import NO_ROW, Kind
from ..trace import Trace
from ..view import DeviceView, View
from .comparability import (
    KEYS,
    NotComparable,
    Reason,
    raise_if_refused,
    reasons_against,
    reasons_against_saved,
)
from .energy import Energy, energy_between, energy_of
from .matching import Matching, match_kernels, match_names
from .phase_activity import PhaseActivity, phase_activities
from .phase_overlap import PhaseOverlap, phase_overlaps
from .runs import Run, run_of
from .saved import SavedRun, saved_runs
from .sequence import Sequence as KernelSequence
from .sequence import merged, sequence_of
from .statistics import (
    PERCENTILES,
    SEED,
    THRESHOLD,
    Direction,
    Effect,
    Float64,
    NoEffect,
    corrected,
    effect_of,
    verdict_sentence,
)
from .story import Launches, Sentence, story_of
from .waterfall import Parts, Waterfall, parts_of, pooled, waterfall_of

# History of the saved format, one line a version:
# 1: first version.
FORMAT_VERSION = 1

# Each run in work needs its memory.
_MOST_THREADS = 2
GATED = ("iteration_period", "iteration_latency")


@dataclass(frozen=True, slots=True)
class MetricEffect:
    """The effects on one metric, by statistic. `is_gated` metrics share one correction; `p50` or `mean` decides."""

    metric: str
    unit: str
    is_gated: bool
    effects: tuple[Effect | NoEffect, ...]

    @property
    def main(self) -> Effect | NoEffect:
        """The statistic that decides."""
        return self.effects[0]

    @property
    def verdict(self) -> str:
        """What the effect that decides says; `inconclusive` where there is none."""
        return self.main.verdict if isinstance(self.main, Effect) else "inconclusive"

    @property
    def sentence(self) -> str:
        """The verdict as a sentence, or why there is none."""
        return verdict_sentence(self.main) if isinstance(self.main, Effect) else self.main.reason

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {
            "metric": self.metric,
            "unit": self.unit,
            "is_gated": self.is_gated,
            "verdict": self.verdict,
            "sentence": self.sentence,
            "effects": [effect.to_dict() for effect in self.effects],
        }


@dataclass(frozen=True, slots=True)
class DeviceComparison:
    """The comparison on one device (`before_id` and `after_id` differ where the sides used different ones)."""

    before_id: int
    after_id: int
    waterfall: Waterfall
    matching: Matching
    launches: Launches | None
    metrics: tuple[MetricEffect, ...]
    story: tuple[Sentence, ...]
    phases: tuple[PhaseActivity, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {
            "before_device_id": self.before_id,
            "after_device_id": self.after_id,
            "waterfall": self.waterfall.to_dict(),
            "matching": self.matching.to_dict(),
            "launches_per_iteration": None if self.launches is None else self.launches.to_dict(),
            "metrics": [metric.to_dict() for metric in self.metrics],
            "story": [sentence.to_dict() for sentence in self.story],
            "phases": [phase.to_dict() for phase in self.phases],
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sides compared.

    `metrics` are those of the iteration, which belong to no single device, energy among them where both sides have it;
    `energy` is what is known of it, or why nothing is. `reasons` is what speaks against the comparison, refusals that
    were allowed included.
    """

    before: tuple[View, ...] | tuple[SavedRun, ...]
    after: tuple[View, ...] | tuple[SavedRun, ...]
    devices: tuple[DeviceComparison, ...]
    metrics: tuple[MetricEffect, ...]
    overlaps: tuple[PhaseOverlap, ...]
    energy: Energy
    reasons: tuple[Reason, ...]
    allowed: tuple[str, ...]
    threshold: float
    seed: int
    is_paired: bool
    nitro_version: str = __version__
    format_version: int = FORMAT_VERSION

    @property
    def verdict(self) -> str:
        """The verdict on the iteration period."""
        return self.metrics[0].verdict

    @property
    def runs(self) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
        """The runs before and after, as a report shows them."""

        def of(runs: tuple[View, ...] | tuple[SavedRun, ...]) -> tuple[Run, ...]:
            return tuple(run.run if isinstance(run, SavedRun) else run_of(run) for run in runs)

        return of(self.before), of(self.after)

    def metric(self, name: str) -> MetricEffect | None:
        """Return the effects on a metric of the iteration, `None` where there is none."""
        return next((metric for metric in self.metrics if metric.metric == name), None)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form.

        - `format_version`, `nitro_version`, `threshold`, `seed`, `is_paired`, `verdict`, `allowed`
        - `before`, `after`: a list of runs, each with `source`, `capture`, `window`, `is_saved`
        - `reasons`: what speaks against the comparison, each with `level`, `key`, `text`, `before`, `after`
        - `metrics`: effects on metrics of the iteration, each with `metric`, `unit`, `is_gated`, `verdict`, `sentence`
          and `effects` by statistic
        - `energy`: `metric` that is compared (`None`: none is, for the `reason`), and by side what is known of each run
        - `phase_overlaps`: pairs of phases, ns of a mean iteration
        - `devices`: each with `waterfall` (steps that add up), `matching` (rows that add up), `launches_per_iteration`
          (`None` where a saved analysis does not tell), `metrics`, `story`, `phases` (sampled activity by NVTX phase)
        """
        before, after = self.runs
        return {
            "format_version": self.format_version,
            "nitro_version": self.nitro_version,
            "threshold": self.threshold,
            "seed": self.seed,
            "is_paired": self.is_paired,
            "verdict": self.verdict,
            "allowed": list(self.allowed),
            "before": [run.to_dict() for run in before],
            "after": [run.to_dict() for run in after],
            "reasons": [reason.to_dict() for reason in self.reasons],
            "metrics": [metric.to_dict() for metric in self.metrics],
            "energy": self.energy.to_dict(),
            "phase_overlaps": [pair.to_dict() for pair in self.overlaps],
            "devices": [device.to_dict() for device in self.devices],
        }


def compare(
    before: Sequence[View | Trace | SavedRun],
    after: Sequence[View | Trace | SavedRun],
    *,
    mapping: Mapping[str, str] | None = None,
    threshold: float = THRESHOLD,
    allow: Iterable[str] = (),
    seed: int = SEED,
    is_paired: bool = False,
) -> Comparison:
    """Compare two sides of one or several runs each.

    Args:
        before, after: the runs, at least one a side; a trace is looked at through its automatic window, and a `View`
            may have a power log beside it. Where one of them is a saved analysis, all are compared by what such a file
            holds, see `saved`.
        mapping: globs of kernel names before to globs of names after, see `match_kernels`.
        threshold: the smallest change that matters, as a share.
        allow: keys of reasons (`comparability.KEYS`) that do not stop the comparison.
        seed: of the bootstrap.
        is_paired: whether run i before and run i after were taken together.

    Raises:
        NotComparable: the sides cannot be compared; the message says why.
        nitro.errors.InputError: a run has no GPU operation.
        nitro.errors.UsageError: a side has no run, a key to allow is unknown, the threshold is not positive, or sides
            that are paired differ in length.
    """
    allowed = tuple(dict.fromkeys(allow))
    _check_options((before, after), allowed, threshold, is_paired=is_paired)
    if any(isinstance(run, SavedRun) for run in (*before, *after)):
        return _compare_saved(before, after, allowed, threshold, seed, is_paired)
    sides = (_views(before), _views(after))
    measured = _measured(sides)
    _check_work(sides)
    pairs = _device_pairs(sides)
    reasons = tuple(dict.fromkeys(reason for pair in pairs for reason in reasons_against(*sides, pair)))
    raise_if_refused(reasons, allowed)
    overlaps = phase_overlaps(*sides)
    energy = energy_between(*(map(energy_of, side) for side in sides))
    return Comparison(
        before=sides[0],
        after=sides[1],
        devices=tuple(
            _device_comparison(sides, measured, pair, overlaps, mapping, threshold, seed, is_paired) for pair in pairs
        ),
        metrics=_together(
            [
                *_iteration_metrics(sides, threshold, seed, is_paired),
                *_energy_metrics(energy, threshold, seed, is_paired),
            ]
        ),
        overlaps=overlaps,
        energy=energy,
        reasons=reasons,
        allowed=allowed,
        threshold=threshold,
        seed=seed,
        is_paired=is_paired,
    )


Sides = tuple[tuple[View, ...], tuple[View, ...]]


def _views(runs: Sequence[View | Trace | SavedRun]) -> tuple[View, ...]:
    return tuple(run if isinstance(run, View) else View(run) for run in runs if not isinstance(run, SavedRun))


def _check_work(sides: Sides) -> None:
    for view in (*sides[0], *sides[1]):
        if not len(view.operations):
            raise InputError(
                f"{view.trace.source.file_name}: the trace has no GPU operation, so there is nothing to compare; "
                "record with `nsys profile --trace=cuda,nvtx`."
            )


def _check_options(
    sides: tuple[Sequence[object], Sequence[object]], allowed: Sequence[str], threshold: float, *, is_paired: bool
) -> None:
    for runs, side in zip(sides, ("before", "after"), strict=True):
        if not runs:
            raise UsageError(f"a comparison needs at least one run on each side, and --{side} has none.")
    unknown = [key for key in allowed if key not in KEYS]
    if unknown:
        raise UsageError(f"--allow {unknown[0]} is unknown; choose from {', '.join(KEYS)}.")
    if not threshold > 0:
        raise UsageError(f"the threshold must be positive, not {threshold}; 0.02 is 2 %.")
    if is_paired and len(sides[0]) != len(sides[1]):
        raise UsageError(f"paired runs need equally many on each side, not {len(sides[0])} and {len(sides[1])}.")


def _device_pairs(sides: Sides) -> tuple[tuple[int, int], ...]:
    """Return the devices that every run uses; where there is none, the busiest of each side.

    Raises:
        NotComparable: the runs of one side have no device in common.
    """
    used = [set.intersection(*(set(view.operations.device_ids) for view in views)) for views in sides]
    return _paired_devices(used, lambda side, device_id: _device(sides[side][0], device_id).busy.total)


def _paired_devices(used: Sequence[set[int]], work: Callable[[int, int], float]) -> tuple[tuple[int, int], ...]:
    """Return the devices of both sides in pairs; `work` tells how much a device of a side worked.

    Raises:
        NotComparable: the runs of one side have no device in common.
    """
    if not all(used):
        raise NotComparable(
            message("the runs of one side use different GPUs; choose one with --device, or compare them one by one")
        )
    common = sorted(used[0] & used[1])
    if common:
        return tuple((device_id, device_id) for device_id in common)

    busiest = [max(sorted(ids), key=lambda device_id: work(side, device_id)) for side, ids in enumerate(used)]
    return ((busiest[0], busiest[1]),)


def _device(view: View, device_id: int) -> DeviceView:
    return next(device for device in view.devices if device.device_id == device_id)


@dataclass(frozen=True, slots=True)
class _Measured:
    """What a device of a run consists of, and the typical sequence of its kernels."""

    parts: Parts
    sequence: KernelSequence


Measured = tuple[tuple[dict[int, _Measured], ...], tuple[dict[int, _Measured], ...]]


def _measured(sides: Sides) -> Measured:
    """Return every device of every run, measured; runs side by side, since reading and numpy leave cores idle."""
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS)) as pool:
        # Both sides together, so that the threads are never out of work between them.
        made = list(pool.map(_measured_devices, (*sides[0], *sides[1])))
    return tuple(made[: len(sides[0])]), tuple(made[len(sides[0]) :])


def _measured_devices(view: View) -> dict[int, _Measured]:
    return {
        device.device_id: _Measured(parts_of(view, device.device_id), sequence_of(view, device))
        for device in view.devices
    }


def _device_comparison(
    sides: Sides,
    measured: Measured,
    pair: tuple[int, int],
    overlaps: Sequence[PhaseOverlap],
    mapping: Mapping[str, str] | None,
    threshold: float,
    seed: int,
    is_paired: bool,
) -> DeviceComparison:
    known = [[run[device_id] for run in side] for side, device_id in zip(measured, pair, strict=True)]
    runs = [[run.parts for run in side] for side in known]
    waterfall = waterfall_of(pooled(runs[0]), pooled(runs[1]))
    sequences = [merged([run.sequence for run in side]) for side in known]
    matching = match_kernels(sequences[0], sequences[1], mapping)
    if matching.delta_ns != waterfall.delta_of("kernel"):
        raise AssertionError("the matched kernels do not add up to the kernel step of the waterfall")
    launches = Launches(*(_launches(views, device_id) for views, device_id in zip(sides, pair, strict=True)))
    metrics = _device_metrics(runs, threshold, seed, is_paired)
    return DeviceComparison(
        *pair,
        waterfall,
        matching,
        launches,
        metrics,
        story_of(waterfall, matching, launches, overlaps),
        phase_activities(*sides, pair),
    )


def _device_metrics(
    runs: Sequence[Sequence[Parts]], threshold: float, seed: int, is_paired: bool
) -> tuple[MetricEffect, ...]:
    """Return the effects on work and idle time of a device."""
    columns = {
        "gpu_work": [[float(run.work_ns) for run in side] for side in runs],
        "gpu_idle": [[float(run.idle_ns) for run in side] for side in runs],
    }
    return tuple(
        _metric_effect(name, "ns", tuple(_single(side) for side in values), ("mean",), threshold, seed, is_paired)
        for name, values in columns.items()
    )


def _compare_saved(
    before: Sequence[View | Trace | SavedRun],
    after: Sequence[View | Trace | SavedRun],
    allowed: tuple[str, ...],
    threshold: float,
    seed: int,
    is_paired: bool,
) -> Comparison:
    """Compare sides of which at least one run is a saved analysis."""
    sides = tuple(
        saved_runs([View(run) if isinstance(run, Trace) else run for run in runs]) for runs in (before, after)
    )
    used = [set.intersection(*(set(run.device_ids) for run in runs)) for runs in sides]
    pairs = _paired_devices(used, lambda side, device_id: sides[side][0].value("gpu_busy", device_id) or 0)
    reasons = tuple(
        dict.fromkeys(reason for pair in pairs for reason in reasons_against_saved(sides[0], sides[1], pair))
    )
    raise_if_refused(reasons, allowed)
    energy = energy_between(*([run.energy for run in side] for side in sides))
    return Comparison(
        before=sides[0],
        after=sides[1],
        devices=tuple(_saved_device(sides, pair, threshold, seed, is_paired) for pair in pairs),
        metrics=_together(
            [
                *_saved_metrics(sides, threshold, seed, is_paired),
                *_energy_metrics(energy, threshold, seed, is_paired),
            ]
        ),
        overlaps=(),
        energy=energy,
        reasons=reasons,
        allowed=allowed,
        threshold=threshold,
        seed=seed,
        is_paired=is_paired,
    )


def _saved_device(
    sides: Sequence[Sequence[SavedRun]], pair: tuple[int, int], threshold: float, seed: int, is_paired: bool
) -> DeviceComparison:
    runs = [[run.parts(device_id) for run in side] for side, device_id in zip(sides, pair, strict=True)]
    waterfall = waterfall_of(pooled(runs[0]), pooled(runs[1]))
    kernels = [[run.kernels.get(device_id, {}) for run in side] for side, device_id in zip(sides, pair, strict=True)]
    iterations = (waterfall.before.iterations, waterfall.after.iterations)
    matching = match_names(kernels[0], kernels[1], iterations)
    if matching.delta_ns != waterfall.delta_of("kernel"):
        names = ", ".join(dict.fromkeys(run.run.source.file_name for side in sides for run in side))
        raise InputError(f"{names}: the kernels of an analysis do not add up to its kernel time; save them anew.")
    launches = _saved_launches(sides, pair, iterations)
    metrics = _device_metrics(runs, threshold, seed, is_paired)
    return DeviceComparison(*pair, waterfall, matching, launches, metrics, story_of(waterfall, matching, launches))


def _saved_launches(
    sides: Sequence[Sequence[SavedRun]], pair: tuple[int, int], iterations: tuple[int, int]
) -> Launches | None:
    """Return the launches per iteration of both sides, `None` where a run does not tell its own."""
    counts = [[run.launch_count(device_id) for run in side] for side, device_id in zip(sides, pair, strict=True)]
    known = [[count for count in side if count is not None] for side in counts]
    if any(None in side for side in counts):
        return None
    return Launches(*(Fraction(sum(side), number) for side, number in zip(known, iterations, strict=True)))


def _saved_metrics(
    sides: Sequence[Sequence[SavedRun]], threshold: float, seed: int, is_paired: bool
) -> list[MetricEffect]:
    """Return the effects on period and latency from the percentiles that every run knows."""
    made = []
    for metric in GATED:
        known = [[run.statistics(metric) for run in side] for side in sides]
        shared = [
            name
            for name in ("p50", "p90", "p99", "mean")
            if all(name in statistics for side in known for statistics in side)
        ]
        effects = tuple(
            effect_of(
                *([statistics[name] for statistics in side] for side in known),
                threshold=threshold,
                statistic=name,
                is_paired=is_paired,
                seed=seed,
            )
            for name in shared
        )
        if effects:
            made.append(MetricEffect(metric, "ns", is_gated=True, effects=effects))
    return made


def _launches(views: Sequence[View], device_id: int) -> Fraction:
    """Return the calls per iteration that launched kernels and graphs which begin inside the windows."""
    count = 0
    for view in views:
        operations = view.operations
        mine = view.starts_in_window & (operations.device_id == device_id) & (operations.kind <= Kind.GRAPH)
        launch = operations.launch[mine]
        known = launch[launch != NO_ROW]
        seen = np.zeros(int(known.max(initial=NO_ROW)) + 1, np.bool_)
        seen[known] = True
        count += int(seen.sum()) + int((launch == NO_ROW).sum())
    return Fraction(count, sum(max(view.periods, 1) for view in views))


def _iteration_metrics(sides: Sides, threshold: float, seed: int, is_paired: bool) -> list[MetricEffect]:
    """Return the effects on the iteration period, and where every run knows it, on its latency."""
    is_pipelined = any(view.window.is_pipelined for views in sides for view in views)
    statistics = ("mean",) if is_pipelined else ("p50", "p90", "p99", "mean")
    made = [
        _metric_effect("iteration_period", "ns", _periods(sides), statistics, threshold, seed, is_paired, is_gated=True)
    ]
    latencies = [[_latencies(view) for view in views] for views in sides]
    if not is_pipelined and all(len(run) for side in latencies for run in side):
        columns = (tuple(latencies[0]), tuple(latencies[1]))
        made.append(
            _metric_effect("iteration_latency", "ns", columns, statistics, threshold, seed, is_paired, is_gated=True)
        )
    return made


def _energy_metrics(energy: Energy, threshold: float, seed: int, is_paired: bool) -> tuple[MetricEffect, ...]:
    """Return the effect on energy, a value a run; none where the sides cannot be compared by it."""
    if energy.metric is None:
        return ()
    amounts = [energy.values(side) for side in (energy.before, energy.after)]
    effect = effect_of(
        *(_single(amount.value for amount in side) for side in amounts),
        threshold=threshold,
        statistic="mean",
        is_paired=is_paired,
        seed=seed,
        # The runs of a side were logged in the same way, so that what one may be off by, all may.
        measurement_error=(max(a.share for a in amounts[0]), max(a.share for a in amounts[1])),
    )
    return (MetricEffect(energy.metric, "J", is_gated=True, effects=(effect,)),)


def _together(metrics: Sequence[MetricEffect]) -> tuple[MetricEffect, ...]:
    """Correct the deciding effects of gated metrics for their number."""
    tested = {metric.metric: metric.main for metric in metrics if metric.is_gated and isinstance(metric.main, Effect)}
    final = corrected(tested)
    return tuple(
        MetricEffect(metric.metric, metric.unit, metric.is_gated, (final[metric.metric], *metric.effects[1:]))
        if metric.metric in final
        else metric
        for metric in metrics
    )


def _periods(sides: Sides) -> tuple[tuple[Float64, ...], tuple[Float64, ...]]:
    def of(view: View) -> Float64:
        periods = view.window.periods_ns
        length = view.window.end_ns - view.window.start_ns
        return np.asarray(periods if len(periods) else [length], np.float64)

    return tuple(of(view) for view in sides[0]), tuple(of(view) for view in sides[1])


def _latencies(view: View) -> Float64:
    known = [iteration.latency_ns for iteration in view.window.iterations]
    return np.array([latency for latency in known if latency is not None and latency > 0], np.float64)


def _single(values: Iterable[float]) -> tuple[Float64, ...]:
    return tuple(np.array([value], np.float64) for value in values)


def _metric_effect(
    metric: str,
    unit: str,
    sides: Sequence[Sequence[Float64]],
    statistics: Sequence[str],
    threshold: float,
    seed: int,
    is_paired: bool,
    *,
    better: Direction = "lower",
    is_gated: bool = False,
) -> MetricEffect:
    percentiles = {f"p{percentile:g}": percentile for percentile in PERCENTILES}
    effects = []
    for statistic in statistics:
        runs = [tuple(run) if statistic != "mean" else _single(float(r.mean()) for r in run) for run in sides]
        effects.append(
            effect_of(
                runs[0],
                runs[1],
                better=better,
                threshold=threshold,
                percentile=percentiles.get(statistic, 50.0),
                statistic=statistic,
                is_paired=is_paired,
                seed=seed,
            )
        )
    return MetricEffect(metric, unit, is_gated, tuple(effects))
