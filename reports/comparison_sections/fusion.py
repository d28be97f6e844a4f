"""The fusion story: launches, waiting for them, concurrency, GPU activity by phase, and the gain against its bound."""

from __future__ import annotations

from collections.abc import Sequence

from nitro.analyzer.compare import Comparison, DeviceComparison, Parts, PhaseActivity, PhaseOverlap
from nitro.analyzer.message import message

from .. import comparison_numbers, figures, numbers
from ..blocks import Block, Column, Figure, Paragraph, Table
from ..comparison import ComparisonSection
from ..palette import SIDES
from ._runs import heading

_SHOWN = 8
_DRAWN = 8
_LEAST_LENGTH, _LEAST_BOUND, _LEAST_OVERLAP = 0.01, 1.05, 0.05
_METRICS = (
    ("sm_active", message("SM active")),
    ("sm_issue", message("SM issue")),
    ("tensor_active", message("tensor")),
    ("dram_read", message("DRAM read")),
    ("dram_write", message("DRAM write")),
)
WHOLE = message("(whole iteration)")


def build(comparison: Comparison, is_document: bool) -> tuple[Block, ...]:
    """Return the facts, the phases and their overlap."""
    blocks: list[Block] = []
    for device in comparison.devices:
        blocks += [*heading(comparison, device), _facts(device)]
        if device.phases:
            if is_document:
                blocks.append(_phase_figure(device))
            blocks.append(_phases(device, is_document=is_document))
        else:
            blocks.append(Paragraph(_NO_SAMPLES))
    overlaps = _worth_overlapping(comparison)
    if overlaps:
        blocks.append(_overlaps(overlaps))
    return tuple(blocks)


_NO_SAMPLES = message(
    "GPU metrics were not sampled on either side, so nothing is known about SM and DRAM activity; record with "
    "--gpu-metrics-devices=all."
)


def _facts(device: DeviceComparison) -> Table:
    before, after = device.waterfall.before, device.waterfall.after
    known = device.launches
    launches = (None, None) if known is None else (float(known.before), float(known.after))
    rows = [
        (message("calls that launch"), *(numbers.count(value) for value in launches), _ratio(*launches)),
        _time(message("work of the GPU"), float(before.work_ns), float(after.work_ns)),
        *(
            _time(title, float(before.per_iteration(*keys)), float(after.per_iteration(*keys)))
            for title, keys in (
                (message("waiting for launches (call and latency)"), ("launch_call", "launch_latency")),
                (message("waiting for host code"), ("host_code",)),
                (message("waiting for synchronisation"), ("synchronization",)),
                (message("copies and memsets"), ("memcpy", "memset")),
            )
        ),
    ]
    concurrency = (_concurrency(before), _concurrency(after))
    rows.append(
        (message("operations at a time, while busy"), *(_times(value) for value in concurrency), _ratio(*concurrency))
    )
    columns = (
        Column(message("of a mean iteration"), "left"),
        Column(message("before")),
        Column(message("after")),
        Column(message("change")),
    )
    note = message(
        "Waiting: time of the iteration in which the GPU was idle for this reason. Operations at a time: summed time "
        "of operations divided by the time in which any ran; 1 is one after the other."
    )
    title = message("Launches, waiting and concurrency, GPU {device}", device=device.after_id)
    return Table(columns, tuple(rows), note, title, f"fusion-gpu{device.after_id}")


def _time(title: str, before: float, after: float) -> tuple[str, str, str, str]:
    return title, numbers.duration(before), numbers.duration(after), _ratio(before, after)


def _ratio(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return numbers.MISSING
    if not before:
        return message("new") if after else comparison_numbers.signed_percent(0.0)
    return comparison_numbers.signed_percent(after / before - 1)


def _concurrency(parts: Parts) -> float | None:
    busy = parts.work_ns - parts.per_iteration("overlap")
    return float(parts.work_ns / busy) if busy else None


def _times(value: float | None) -> str:
    return numbers.MISSING if value is None else numbers.times(value)


def _label(phase: PhaseActivity) -> str:
    return phase.path or WHOLE


def _known(device: DeviceComparison) -> list[tuple[str, str]]:
    """Return the metrics that any phase has a value of."""
    sides = [side for phase in device.phases for side in (phase.before, phase.after) if side is not None]
    return [(name, title) for name, title in _METRICS if any(side.values[name] is not None for side in sides)]


def _longest(phase: PhaseActivity) -> float:
    return max(float(side.projection_ns) for side in (phase.before, phase.after) if side is not None)


def _phases(device: DeviceComparison, *, is_document: bool) -> Table:
    known = _known(device) if is_document else _known(device)[:3]
    unit = comparison_numbers.unit_of(*(_longest(phase) for phase in device.phases))
    rows = []
    for phase in device.phases:
        sides = (phase.before, phase.after)
        before, after = (None if side is None else float(side.projection_ns) for side in sides)
        length = comparison_numbers.from_to(before, after, lambda ns: numbers.in_time_unit(ns, unit))
        shown = []
        for name, _ in known:
            was, now = (None if side is None else side.values[name] for side in sides)
            shown.append(comparison_numbers.from_to(was, now, comparison_numbers.bare_percent))
        rows.append((_label(phase), length, *shown))
    titles = (
        message("on the GPU, {unit}", unit=unit),
        *(message("{metric}, %", metric=title) for _, title in known),
    )
    columns = (
        Column(message("phase"), "left", flexible=True, is_name=True),
        *(Column(title) for title in titles),
    )
    note = message(
        "Before → after. Means over the projection of each phase, weighted by time, of the whole GPU; DRAM: of the "
        "peak bandwidth. Percentages of a phase that became shorter may rise although the GPU does the same work."
    )
    title = message("The same phases before and after, GPU {device}", device=device.after_id)
    return Table(columns, tuple(rows), note, title, f"phases-compared-gpu{device.after_id}", _SHOWN)


def _phase_figure(device: DeviceComparison) -> Figure:
    """Return a line from before to after for each phase and sampled metric."""
    known = _known(device)
    values = []
    for phase in device.phases[:_DRAWN]:
        for name, title in known:
            for side, key in ((phase.before, "before"), (phase.after, "after")):
                value = None if side is None else side.values[name]
                if value is not None:
                    values.append(
                        {
                            "phase": _label(phase),
                            "metric": title,
                            "side": _SIDES[key],
                            "percent": round(value * 100, 3),
                            "shown": numbers.percent(value),
                        }
                    )
    phases = list(dict.fromkeys(value["phase"] for value in values))
    sides = [_SIDES[key] for key in SIDES]
    y: figures.Spec = {
        "field": "phase",
        "type": "nominal",
        "sort": phases,
        "title": None,
        "scale": {"domain": phases, "padding": 1},
        "axis": {**figures.name_labels(26), "grid": True},
    }
    x: figures.Spec = {
        "field": "percent",
        "type": "quantitative",
        "title": None,
        "scale": {"domainMin": 0},
        "axis": {"tickCount": 3},
    }
    parts: list[figures.Spec] = []
    for number, (_, title) in enumerate(known):
        mine = [value for value in values if value["metric"] == title]
        own_y = y if number == 0 else {**y, "axis": {"labels": False, "ticks": False, "grid": True}}
        parts.append(
            {
                "data": {"values": mine},
                "title": message("{metric}, %", metric=title),
                "height": {"step": 26},
                "layer": [
                    {
                        "mark": {"type": "line", "color": SIDES["before"].colour, "strokeWidth": 1.5},
                        "encoding": {"y": own_y, "x": x, "detail": {"field": "phase", "type": "nominal"}},
                    },
                    {
                        "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
                        "encoding": {
                            "y": own_y,
                            "x": x,
                            "color": _side_scale("color", sides),
                            "shape": _side_scale("shape", sides),
                            "tooltip": [
                                {"field": "phase", "type": "nominal", "title": message("phase")},
                                {"field": "side", "type": "nominal", "title": " "},
                                {"field": "shown", "type": "nominal", "title": title},
                            ],
                        },
                    },
                ],
            }
        )
    spec = {"hconcat": parts, "spacing": 50, "resolve": {"scale": {"color": "shared", "shape": "shared"}}}
    sentence = message(
        "Each row is a phase, each panel a metric sampled over it; the line goes from before to after. To the right "
        "means that the phase uses more of the GPU."
    )
    title = message("Activity of the GPU by phase, before and after")
    return Figure(f"phases-compared-gpu{device.after_id}", title, sentence, spec)


_SIDES = {"before": message("before"), "after": message("after")}


def _side_scale(channel: str, sides: Sequence[str]) -> figures.Spec:
    values = [style.colour if channel == "color" else style.shape for style in SIDES.values()]
    return {"field": "side", "type": "nominal", "scale": {"domain": list(sides), "range": values}}


def _worth_overlapping(comparison: Comparison) -> list[PhaseOverlap]:
    """Return the pairs of phases, none of them short beside the iteration, that overlap or could gain by it."""
    period = max(device.waterfall.before.mean_period_ns for device in comparison.devices)
    return [
        pair
        for pair in comparison.overlaps
        if min(pair.before.first_ns, pair.before.second_ns) >= _LEAST_LENGTH * period
        and (pair.bound >= _LEAST_BOUND or max(pair.before.overlap_ratio, pair.after.overlap_ratio) >= _LEAST_OVERLAP)
    ]


def _overlaps(overlaps: Sequence[PhaseOverlap]) -> Table:
    columns = (
        Column(message("phases a + b"), "left", flexible=True, is_name=True),
        Column(message("a")),
        Column(message("b")),
        Column(message("together before")),
        Column(message("after")),
        Column(message("gain")),
        Column(message("at most")),
    )
    rows = tuple(
        (
            f"{pair.first} + {pair.second}",
            numbers.duration(float(pair.before.first_ns)),
            numbers.duration(float(pair.before.second_ns)),
            numbers.percent(pair.before.overlap_ratio),
            numbers.percent(pair.after.overlap_ratio),
            numbers.times(pair.gain),
            numbers.times(pair.bound),
        )
        for pair in overlaps
    )
    note = message(
        "a, b: time on the GPU before. Together: part of the shorter phase that runs beside the other. Gain: time in "
        "either phase before / after. At most: (a + b) / max(a, b), what overlap alone can give; a gain beyond it has "
        "another reason."
    )
    return Table(columns, rows, note, message("Overlap of phases, before and after"), "overlaps-compared", _SHOWN)


SECTION = ComparisonSection("fusion", message("What fusion changed"), 40, build)
