"""Statistics: effects with their intervals and verdicts, what could have been seen, and how runs vary."""

from __future__ import annotations

from typing import Any

import numpy as np

from nitro.analyzer.compare import Comparison, DeviceComparison, Effect, MetricEffect, NoEffect
from nitro.analyzer.message import Message, capitalised, joined, message

from .. import comparison_numbers, figures, numbers
from ..blocks import Block, Column, Figure, KeyValues, Paragraph, Table
from ..comparison import ComparisonSection
from ..names import printable
from ..palette import SIDES
from ._runs import VERDICTS, all_metrics, statistic_text

_MOST_POINTS = 200
_RUNS_DRAWN = 12
METRICS: dict[str, Message] = {
    "iteration_period": message("period"),
    "iteration_latency": message("latency"),
    "gpu_work": message("GPU work"),
    "gpu_idle": message("GPU idle"),
    "energy_per_item": message("energy per item"),
    "energy_per_iteration": message("energy per iteration"),
}


def build(comparison: Comparison, is_document: bool) -> tuple[Block, ...]:
    """Return the effects, how the runs vary, and their iterations."""
    blocks: list[Block] = [_table(comparison, is_document=is_document)]
    missing = _missing(comparison)
    if missing:
        blocks.append(Paragraph(message("Not computed: {what}.", what=joined("; ", missing))))
    spread = _spread(comparison)
    if spread:
        blocks.append(KeyValues(spread))
    if is_document:
        intervals = _intervals(comparison)
        blocks += [figure for figure in (intervals, _iterations(comparison)) if figure is not None]
    return tuple(blocks)


def _missing(comparison: Comparison) -> list[Message]:
    """Return which effects there are none of, and why: those with the same reason together."""
    names: dict[str, list[Message]] = {}
    for device, metric in all_metrics(comparison):
        for effect in metric.effects:
            if not isinstance(effect, Effect):
                names.setdefault(effect.reason, []).append(_label(comparison, device, metric, effect))
    return [
        message("{names}: {reason}", names=joined(" / ", labels), reason=reason) for reason, labels in names.items()
    ]


def _table(comparison: Comparison, *, is_document: bool) -> Table:
    has_intervals = any(
        isinstance(effect, Effect) and effect.interval is not None
        for _, metric in all_metrics(comparison)
        for effect in metric.effects
    )
    rows = []
    for device, metric in all_metrics(comparison):
        for effect in metric.effects:
            if isinstance(effect, Effect):
                label = _label(comparison, device, metric, effect)
                sides = (numbers.in_unit(effect.before, metric.unit), numbers.in_unit(effect.after, metric.unit))
                change = comparison_numbers.signed_percent(effect.ratio - 1)
                judged = _judged(effect) if has_intervals else (VERDICTS[effect.verdict],)
                # A terminal has no room for both sides and the intervals.
                rows.append((label, *(() if has_intervals and not is_document else sides), change, *judged))
    columns = [Column(message("metric"), "left")]
    if is_document or not has_intervals:
        columns += [Column(message("before")), Column(message("after"))]
    columns.append(Column(message("change")))
    if has_intervals:
        columns.append(Column(message("95 % interval")))
    columns.append(Column(message("verdict"), "left"))
    note = message("Changes within {threshold} do not matter.", threshold=numbers.percent(comparison.threshold))
    if has_intervals:
        columns += [Column(message("would show")), Column(message("runs"))]
        note = message(
            "{note} Would show: the smallest change that runs like these show in 4 of 5 cases. Runs: how many a side "
            "should decide, if change and spread stay as they are. The first rows of iteration period, latency "
            "and energy share one correction for their number (Holm), and they decide; the other rows are each judged "
            "alone, without correction, so one of them may differ by chance.",
            note=note,
        )
    return Table(tuple(columns), tuple(rows), note, message("Effects and verdicts"), "effects")


def _label(
    comparison: Comparison, device: DeviceComparison | None, metric: MetricEffect, effect: Effect | NoEffect
) -> Message:
    label = message(
        "{metric}, {statistic}",
        metric=METRICS.get(metric.metric, metric.metric),
        statistic=statistic_text(effect.statistic),
    )
    if device is None or len(comparison.devices) == 1:
        return label
    return message("{label}, GPU {device}", label=label, device=device.after_id)


def _judged(effect: Effect) -> tuple[str, ...]:
    """Return interval, verdict, the smallest change that would show, and the runs that would decide."""
    verdict = VERDICTS[effect.verdict]
    if effect.interval is None:
        return numbers.MISSING, verdict, numbers.MISSING, numbers.MISSING
    low, high = (comparison_numbers.signed_percent(bound - 1) for bound in effect.interval)
    interval = message("{low} to {high}", low=low.removesuffix(" %"), high=high)
    runs: str = message("> 100") if effect.runs_to_decide is None else numbers.count(effect.runs_to_decide)
    if effect.verdict != "inconclusive":
        runs = message("enough")
    smallest = effect.smallest_effect
    return interval, verdict, numbers.MISSING if smallest is None else numbers.percent(smallest), runs


def _spread(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    """Return how the iterations inside runs and the runs of a side vary."""
    main = comparison.metrics[0].main
    if not isinstance(main, Effect):
        return ()
    facts: list[tuple[str, str]] = []
    for label, spread in ((message("Before"), main.spread_before), (message("After"), main.spread_after)):
        text = message("runs: {runs}, iterations in all: {iterations}", runs=spread.runs, iterations=spread.iterations)
        if spread.within is not None:
            text = message(
                "{text}; iterations of a run vary by {within}", text=text, within=numbers.percent(spread.within)
            )
        if spread.between is None:
            text = message("{text}; how runs vary cannot be told from one", text=text)
        else:
            text = message(
                "{text}, the medians of runs by {between}", text=text, between=numbers.percent(spread.between)
            )
        facts.append((label, text))
    if main.bootstrap_interval is not None:
        low, high = (comparison_numbers.signed_percent(bound - 1) for bound in main.bootstrap_interval)
        text = message("{low} to {high}; it stands beside the interval above and decides nothing", low=low, high=high)
        facts.append((message("Bootstrap interval"), text))
    facts.append((message("Verdict"), message("{sentence}.", sentence=capitalised(comparison.metrics[0].sentence))))
    return tuple(facts)


def _intervals(comparison: Comparison) -> Figure | None:
    """Return the effects as points with their intervals, the threshold behind them; `None` without any interval."""
    values = []
    for device, metric in all_metrics(comparison):
        for effect in metric.effects:
            if isinstance(effect, Effect) and effect.interval is not None:
                label = _label(comparison, device, metric, effect)
                low, high = effect.interval
                values.append(
                    {
                        "metric": label,
                        "change": (effect.ratio - 1) * 100,
                        "low": (low - 1) * 100,
                        "high": (high - 1) * 100,
                        "shown": comparison_numbers.signed_percent(effect.ratio - 1),
                        "verdict": VERDICTS[effect.verdict],
                    }
                )
    if not values:
        return None
    order = [value["metric"] for value in values]
    limit = comparison.threshold * 100
    below = -100 * comparison.threshold / (1 + comparison.threshold)
    y: figures.Spec = {
        "field": "metric",
        "type": "nominal",
        "sort": order,
        "title": None,
        "scale": {"domain": order, "padding": 0.6},
        "axis": {"domain": False, "ticks": False, "labelLimit": 0},
    }
    x: figures.Spec = {
        "field": "change",
        "type": "quantitative",
        "title": message("change, %: to the left is less"),
        "scale": {"zero": True},
        "axis": {"tickCount": 10, "labelSeparation": 6},
    }
    spec: figures.Spec = {
        "data": {"values": values},
        "height": {"step": 24},
        "layer": [
            {
                "data": figures.ONE_ROW,
                "mark": {"type": "rect", "color": SIDES["before"].colour, "opacity": 0.25},
                "encoding": {"x": {"datum": below, "type": "quantitative"}, "x2": {"datum": limit}},
            },
            {
                "data": figures.ONE_ROW,
                "mark": {"type": "rule", "strokeWidth": 1},
                "encoding": {"x": {"datum": 0, "type": "quantitative"}},
            },
            {
                "mark": {"type": "rule", "strokeWidth": 2, "color": SIDES["after"].colour},
                "encoding": {"y": y, "x": {"field": "low", "type": "quantitative"}, "x2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1, "color": SIDES["after"].colour},
                "encoding": {
                    "y": y,
                    "x": x,
                    "tooltip": [
                        {"field": "metric", "type": "nominal", "title": message("metric")},
                        {"field": "shown", "type": "nominal", "title": message("change")},
                        {"field": "verdict", "type": "nominal", "title": message("verdict")},
                    ],
                },
            },
        ],
    }
    sentence = message(
        "Each point is the change of a metric, each line its 95 % interval; the band is the threshold of {threshold}. "
        "A line wholly outside the band is a difference, one that crosses its edge decides nothing.",
        threshold=numbers.percent(comparison.threshold),
    )
    return Figure("effects", message("Changes and their intervals"), sentence, spec)


def _iterations(comparison: Comparison) -> Figure | None:
    """Return the iteration periods of every run as marks, a row a run; `None` where no run knows them."""
    values: list[dict[str, Any]] = []
    order: list[str] = []
    longest = max(
        (float(run.periods_ns.max()) for side in comparison.runs for run in side if len(run.periods_ns)), default=0.0
    )
    if not longest:
        return None
    unit = comparison_numbers.unit_of(longest)
    scale = {"s": 1e9, "ms": 1e6, "µs": 1e3, "ns": 1.0}[unit]
    titles = {"before": message("before"), "after": message("after")}
    for side, runs in zip(SIDES, comparison.runs, strict=True):
        for number, run in enumerate(runs[:_RUNS_DRAWN], start=1):
            label = message("{side} {number}", side=titles[side], number=number)
            order.append(label)
            values += [
                {
                    "run": label,
                    "side": titles[side],
                    "period": value / scale,
                    "shown": numbers.duration(value),
                    "file": printable(run.source.file_name),
                }
                for value in _thinned(run.periods_ns)
            ]
    spec: figures.Spec = {
        "data": {"values": values},
        "height": {"step": 20},
        "mark": {"type": "tick", "thickness": 1.2, "opacity": 0.75},
        "encoding": {
            "y": {
                "field": "run",
                "type": "nominal",
                "sort": order,
                "title": None,
                "scale": {"domain": order, "paddingInner": 0.3},
                "axis": {"domain": False, "ticks": False, "labelLimit": 0},
            },
            "x": {
                "field": "period",
                "type": "quantitative",
                "title": message("iteration period, {unit}", unit=unit),
                "scale": {"zero": False},
                "axis": {"tickCount": 10, "labelSeparation": 6},
            },
            "color": {
                "field": "side",
                "type": "nominal",
                "scale": {"domain": list(titles.values()), "range": [style.colour for style in SIDES.values()]},
            },
            "tooltip": [
                {"field": "file", "type": "nominal", "title": message("file")},
                {"field": "shown", "type": "nominal", "title": message("period")},
            ],
        },
    }
    sentence = message(
        "Every mark is the period of one iteration, every row one run. Rows that lie apart from others of their side "
        "are runs that differ as a whole, which is what the interval is made of."
    )
    left_out = sum(max(len(side) - _RUNS_DRAWN, 0) for side in comparison.runs)
    if left_out:
        sentence = message("{sentence} Runs not drawn, for want of room: {count}.", sentence=sentence, count=left_out)
    return Figure("iterations-compared", message("Iterations of every run"), sentence, spec)


def _thinned(periods: np.ndarray[Any, np.dtype[np.float64]]) -> list[float]:
    """Return at most so many periods that stand for all: the extremes, and equal steps of rank between them."""
    if len(periods) <= _MOST_POINTS:
        return [float(value) for value in periods]
    return [float(value) for value in np.quantile(periods, np.linspace(0, 1, _MOST_POINTS))]


SECTION = ComparisonSection("effects", message("Is it real?"), 50, build)
