"""The waterfall: where the change of the mean iteration came from, exactly."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from nitro.analyzer.causes import Cause
from nitro.analyzer.compare import Comparison, DeviceComparison, Step, Waterfall
from nitro.analyzer.message import message, one_or_many

from .. import comparison_numbers
from ..blocks import Block, Column, Figure, Paragraph, Table
from ..comparison import ComparisonSection
from ..figures import ONE_ROW, name_labels
from ..palette import COLOURS
from ._runs import heading

_IDLE = frozenset(cause.id for cause in Cause)
# Steps below this share of the largest are drawn as one.
_LEAST_DRAWN = Fraction(1, 100)
_INDENT = "\N{NO-BREAK SPACE}\N{NO-BREAK SPACE}"


def build(comparison: Comparison, is_document: bool) -> tuple[Block, ...]:  # noqa: ARG001 - the same everywhere
    """Return figure and table of each device."""
    blocks: list[Block] = []
    for device in comparison.devices:
        blocks += heading(comparison, device)
        if device.waterfall.delta or any(step.delta for step in device.waterfall.steps):
            blocks.append(_figure(device))
        else:
            blocks.append(Paragraph(message("No part of the mean iteration changed.")))
        blocks.append(_table(device))
    return tuple(blocks)


def _table(device: DeviceComparison) -> Table:
    waterfall = device.waterfall
    periods = (waterfall.before.mean_period_ns, waterfall.after.mean_period_ns)
    unit = comparison_numbers.unit_of(*periods)
    idle = [step for step in waterfall.steps if step.key in _IDLE]
    lines = [(step.title, _signed(step), step.delta) for step in waterfall.steps if step.key not in _IDLE]
    idle_sums = (waterfall.before.idle_ns, waterfall.after.idle_ns)
    lines.append((message("GPU idle"), idle_sums, idle_sums[1] - idle_sums[0]))
    shown = [step for step in idle if _is_shown(step, unit)]
    if len(idle) - len(shown) == 1:
        shown = idle
    lines += [(message("{indent}{title}", indent=_INDENT, title=s.title), (s.before, s.after), s.delta) for s in shown]
    rest = [step for step in idle if step not in shown]
    if rest:
        sums = (sum((s.before for s in rest), Fraction(0)), sum((s.after for s in rest), Fraction(0)))
        title = message("{indent}{count} causes below the last digit", indent=_INDENT, count=len(rest))
        lines.append((title, sums, sums[1] - sums[0]))
    lines.append((message("mean iteration"), periods, waterfall.delta))
    rows = tuple(
        (
            title,
            *(comparison_numbers.fixed(value, unit) for value in sides),
            comparison_numbers.fixed(delta, unit, is_signed=True),
            comparison_numbers.signed_percent(float(delta / periods[0]) if periods[0] else None),
        )
        for title, sides, delta in lines
    )
    columns = (
        Column(message("of a mean iteration"), "left"),
        Column(message("before, {unit}", unit=unit)),
        Column(message("after, {unit}", unit=unit)),
        Column(message("change, {unit}", unit=unit)),
        Column(message("of the iteration")),
    )
    note = message(
        "Each column adds up to its mean iteration, to rounding: work of the GPU less what overlapped, and idle time "
        "by cause. Before: {before} iterations in all, after: {after}.",
        before=waterfall.before.iterations,
        after=waterfall.after.iterations,
    )
    title = message("From the mean iteration before to that after")
    return Table(columns, rows, note, title, f"waterfall-gpu{device.after_id}")


def _signed(step: Step) -> tuple[Fraction, Fraction]:
    """Return what a step adds to the period on each side: overlap takes away."""
    return (-step.before, -step.after) if step.key == "overlap" else (step.before, step.after)


def _is_shown(step: Step, unit: str) -> bool:
    """Whether a cause is more than zeros in the unit of the table."""
    return any(
        comparison_numbers.fixed(value, unit) != comparison_numbers.fixed(0, unit)
        for value in (step.before, step.after)
    )


def _figure(device: DeviceComparison) -> Figure:
    waterfall = device.waterfall
    steps, rest = _drawn(waterfall)
    unit = comparison_numbers.unit_of(waterfall.delta, *(step.delta for step in steps))
    values: list[dict[str, Any]] = []
    level = Fraction(0)
    bars = [(step.title, step.key, step.delta) for step in steps]
    if rest:
        delta = sum((step.delta for step in rest), Fraction(0))
        smaller = one_or_many(len(rest), message("1 smaller step"), message("{count} smaller steps", count=len(rest)))
        bars.append((smaller, "others", delta))
    for title, key, delta in bars:
        values.append(_bar(title, key, level, level + delta, delta, unit))
        level += delta
    values.append(_bar(message("whole change"), "total", Fraction(0), waterfall.delta, waterfall.delta, unit))
    order = [value["step"] for value in values]
    before = comparison_numbers.fixed(waterfall.before.mean_period_ns, unit)
    after = comparison_numbers.fixed(waterfall.after.mean_period_ns, unit)
    sentence = message(
        "From {before} to {after} {unit} a mean iteration. Each bar begins where the one above it ends; to the right "
        "the iteration becomes longer, to the left shorter. The bars add up to the whole change exactly.",
        before=before,
        after=after,
        unit=unit,
    )
    title = message("Where the change of the iteration came from, GPU {device}", device=device.after_id)
    return Figure(f"waterfall-gpu{device.after_id}", title, sentence, _spec(values, order, unit))


def _drawn(waterfall: Waterfall) -> tuple[list[Step], list[Step]]:
    """Return the steps that have a bar of their own, and those that share one."""
    largest = max((abs(step.delta) for step in waterfall.steps), default=Fraction(0))
    changed = [step for step in waterfall.steps if step.delta]
    own = [step for step in changed if abs(step.delta) >= _LEAST_DRAWN * largest]
    rest = [step for step in changed if step not in own]
    # A single small step is as well drawn under its own name.
    return (changed, []) if len(rest) == 1 else (own, rest)


def _bar(title: str, key: str, start: Fraction, end: Fraction, delta: Fraction, unit: str) -> dict[str, Any]:
    scale = {"s": 10**9, "ms": 10**6, "µs": 10**3, "ns": 1}[unit]
    return {
        "step": title,
        "from": float(start / scale),
        "to": float(end / scale),
        "end": float(max(start, end) / scale),
        "shown": comparison_numbers.fixed(delta, unit, is_signed=True),
        "colour": COLOURS[key],
    }


def _spec(values: list[dict[str, Any]], order: list[str], unit: str) -> dict[str, Any]:
    y: dict[str, Any] = {
        "field": "step",
        "type": "nominal",
        "sort": order,
        "title": None,
        "scale": {"domain": order, "paddingInner": 0.3},
        "axis": {"domain": False, "ticks": False, **name_labels(30)},
    }
    ends = [edge for value in values for edge in (value["from"], value["to"])]
    low, high = min(*ends, 0.0), max(*ends, 0.0)
    # Room for the numbers beside the bars.
    domain = [low - 0.02 * (high - low), high + 0.16 * (high - low)]
    x: dict[str, Any] = {
        "field": "from",
        "type": "quantitative",
        "title": message("change of the mean iteration, {unit}", unit=unit),
        "scale": {"domain": domain, "nice": False},
        "axis": {"tickCount": 8},
    }
    tooltip = [
        {"field": "step", "type": "nominal", "title": message("step")},
        {"field": "shown", "type": "nominal", "title": message("change, {unit}", unit=unit)},
    ]
    colour = {"field": "colour", "type": "nominal", "scale": None, "legend": None}
    return {
        "data": {"values": values},
        "height": {"step": 24},
        "layer": [
            {
                "data": ONE_ROW,
                "mark": {"type": "rule", "strokeWidth": 1},
                "encoding": {"x": {"datum": 0, "type": "quantitative"}},
            },
            {
                # A step that is too small for its scale still shows as a line.
                "mark": {"type": "bar", "minBandSize": 6, "strokeWidth": 1},
                "encoding": {
                    "y": y,
                    "x": x,
                    "x2": {"field": "to"},
                    "color": colour,
                    "stroke": colour,
                    "tooltip": tooltip,
                },
            },
            {
                "mark": {"type": "text", "align": "left", "dx": 6, "fontSize": 11},
                "encoding": {
                    "y": y,
                    "x": {"field": "end", "type": "quantitative"},
                    "text": {"field": "shown", "type": "nominal"},
                },
            },
        ],
    }


SECTION = ComparisonSection("waterfall", message("Where the change came from"), 10, build)
