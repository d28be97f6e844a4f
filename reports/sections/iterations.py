"""Iterations: period, latency, rates, and how they vary."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nitro.analyzer import Analysis
from nitro.analyzer.message import message, one_or_many

from .. import figures, numbers
from ..blocks import Block, Column, Figure, KeyValues, Table
from ..palette import SERIES
from ..report import Section

_STATISTICS = ("p50", "p90", "p99", "mean")
_DISTRIBUTIONS = (("iteration_latency", message("Latency")), ("iteration_period", message("Period")))
_MOST_POINTS = 1200
_FEWEST_FOR_A_FIGURE = 4


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return the distribution of iterations and the rates that follow; nothing where there are no iterations."""
    rate = analysis.find("iterations_per_s")
    if rate is None:
        return ()
    rows = []
    for metric, title in _DISTRIBUTIONS:
        parts = analysis.parts(metric)
        if parts:
            values = [parts[name].value if name in parts else None for name in _STATISTICS]
            count = next(iter(parts.values())).count
            rows.append((title, *(numbers.duration(value) for value in values), numbers.count(count)))
    columns = (
        Column("", "left"),
        *(Column(name) for name in _STATISTICS[:3]),
        Column(message("mean")),
        Column(message("samples")),
    )
    title = message("Latency and period of an iteration")
    table = Table(columns, tuple(rows), "", title, "iteration-times")
    return (table, KeyValues(_facts(analysis, rate.value)), *_figure(analysis))


def _facts(analysis: Analysis, rate: float) -> tuple[tuple[str, str], ...]:
    facts: list[tuple[str, str]] = [
        (message("Rate"), message("{number} iterations/s", number=numbers.significant(rate)))
    ]
    throughput = analysis.value("throughput")
    if throughput is not None:
        facts.append((message("Throughput"), message("{number} items/s", number=numbers.significant(throughput))))
    launches = analysis.find("launches_per_iteration")
    if launches is not None:
        one = message("1 API call with GPU work per iteration")
        many = message("{count} API calls with GPU work per iteration", count=numbers.count(launches.value))
        text = one_or_many(launches.value, one, many)
        facts.append((message("Launches"), text))
    jitter, outliers = analysis.value("iteration_jitter"), analysis.find("iteration_outliers")
    if jitter is not None:
        middle = analysis.value("iteration_period", by="p50")
        share = numbers.percent(jitter / middle) if middle else numbers.MISSING
        text = message(
            "{jitter} from one period to the next in the median, {share} of the median period",
            jitter=numbers.duration(jitter),
            share=share,
        )
        facts.append((message("Jitter"), text))
    if outliers is not None:
        text = message("{count} of {total} periods", count=numbers.count(outliers.value), total=outliers.count)
        facts.append((message("Outliers"), text))
    return tuple(facts)


def _figure(analysis: Analysis) -> tuple[Figure, ...]:
    """Return the periods and latencies in their order and as a cumulative distribution."""
    window = analysis.window
    if window.is_pipelined:
        return ()
    series = [(message("Period"), window.periods_ns.tolist())]
    # The iteration that ends the window belongs to no period.
    latencies = [i.latency_ns for i in window.iterations if i.latency_ns is not None]
    if len(latencies) == len(window.iterations):
        series.append((message("Latency"), latencies))
    if len(series[0][1]) < _FEWEST_FOR_A_FIGURE:
        return ()
    spec = figures.beside(_in_order(series), _cumulative(series))
    sentence = message(
        "Left: every iteration in its order; the line is the median period. Right: the share of iterations that took "
        "no longer than a time; the steeper the curve, the steadier the run."
    )
    return (Figure("iterations", message("Period and latency of each iteration"), sentence, spec),)


def _in_order(series: Sequence[tuple[str, Sequence[int]]]) -> figures.Spec:
    values = [
        {"iteration": index, "ms": value / 1e6, "series": name, "shown": numbers.duration(value)}
        for name, times in series
        for index, value in _thinned(times)
    ]
    median = float(np.median(series[0][1])) / 1e6
    encoding = {
        "x": {
            "field": "iteration",
            "type": "quantitative",
            "title": message("iteration"),
            "axis": {"grid": False, "tickMinStep": 1},
        },
        "y": {"field": "ms", "type": "quantitative", "title": message("time, ms"), "scale": {"zero": False}},
        **_by_series(series, shape=True),
        "tooltip": [
            {"field": "series", "type": "nominal", "title": " "},
            {"field": "iteration", "type": "quantitative", "title": message("iteration")},
            {"field": "shown", "type": "nominal", "title": message("time")},
        ],
    }
    points = {"mark": {"type": "point", "filled": True, "size": 34, "opacity": 0.85}, "encoding": encoding}
    line = {
        "data": figures.ONE_ROW,
        "mark": {"type": "rule", "strokeDash": [4, 3]},
        "encoding": {"y": {"datum": median}},
    }
    return {"data": {"values": values}, "height": 190, "layer": [points, line]}


def _cumulative(series: Sequence[tuple[str, Sequence[int]]]) -> figures.Spec:
    values = []
    for name, times in series:
        ordered = np.sort(np.asarray(times))
        places = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), 300)).astype(int))
        values += [
            {
                "ms": float(ordered[place]) / 1e6,
                "share": (int(place) + 1) / len(ordered),
                "series": name,
                "shown": numbers.duration(int(ordered[place])),
                "percent": numbers.percent((int(place) + 1) / len(ordered)),
            }
            for place in places
        ]
    encoding = {
        "x": {"field": "ms", "type": "quantitative", "title": message("time, ms"), "scale": {"zero": False}},
        "y": {
            "field": "share",
            "type": "quantitative",
            "title": message("share of iterations"),
            "axis": {"format": ".0%", "tickCount": 5},
            "scale": {"domain": [0, 1]},
        },
        **_by_series(series, shape=False),
        "tooltip": [
            {"field": "series", "type": "nominal", "title": " "},
            {"field": "shown", "type": "nominal", "title": message("time")},
            {"field": "percent", "type": "nominal", "title": message("share of iterations")},
        ],
    }
    mark = {"type": "line", "interpolate": "step-after", "strokeWidth": 1.6}
    return {"data": {"values": values}, "height": 190, "mark": mark, "encoding": encoding}


def _by_series(series: Sequence[tuple[str, object]], *, shape: bool) -> figures.Spec:
    names = [name for name, _ in series]
    shown = SERIES[: len(names)]
    channel, looks = ("shape", [s.shape for s in shown]) if shape else ("strokeDash", [list(s.dash) for s in shown])
    legend = {} if len(names) > 1 else {"legend": None}
    return {
        "color": {"field": "series", "type": "nominal", "scale": {"domain": names, "range": [s.colour for s in shown]}}
        | legend,
        channel: {"field": "series", "type": "nominal", "scale": {"domain": names, "range": looks}} | legend,
    }


def _thinned(times: Sequence[int]) -> list[tuple[int, int]]:
    """Return (number, time) of iterations; of very many, the shortest and the longest of each stretch."""
    if len(times) <= _MOST_POINTS:
        return list(enumerate(times, start=1))
    kept = set()
    for part in np.array_split(np.arange(len(times)), _MOST_POINTS // 2):
        lengths = np.asarray(times)[part]
        kept |= {int(part[lengths.argmin()]), int(part[lengths.argmax()])}
    return [(place + 1, times[place]) for place in sorted(kept)]


SECTION = Section("iterations", message("Iterations"), 35, build)
