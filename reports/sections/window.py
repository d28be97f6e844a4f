"""The window: what the numbers are about, and why."""

from __future__ import annotations

from nitro.analyzer import Analysis
from nitro.analyzer.message import capitalised, joined, message, one_or_many

from .. import numbers
from ..blocks import Block, KeyValues
from ..report import Section
from ._devices import shown

_NAMES_SHOWN = 3


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return the window, the iterations left out, and the whole capture beside it."""
    window = analysis.window
    rows: list[tuple[str, str]] = []
    for device in shown(analysis):
        length = analysis.value("window", device.device_id)
        span = analysis.value("capture_gpu_span", device.device_id)
        busy = analysis.find("capture_gpu_busy", device.device_id)
        if length is None or span is None or busy is None:
            continue
        several = f" (GPU {device.device_id})" if len(analysis.devices) > 1 else ""
        start, end = (numbers.seconds(edge) for edge in window.of_device(device.device_id))
        where = message("{length}, from {start} to {end}", length=numbers.duration(length), start=start, end=end)
        share = numbers.percent(busy.value / span) if span else numbers.MISSING
        facts = {"busy": numbers.duration(busy.value), "span": numbers.duration(span), "share": share}
        one = message("GPU busy {busy} of {span} ({share}), 1 operation", **facts)
        many = message(
            "GPU busy {busy} of {span} ({share}), {count} operations", count=numbers.count(busy.count), **facts
        )
        whole = one_or_many(busy.count or 0, one, many)
        rows.append((message("Window{several}", several=several), where))
        rows.append((message("Whole capture{several}", several=several), whole))
    rows.insert(min(1, len(rows)), (message("Why"), capitalised(window.reason)))
    if window.dropped:
        names = joined(", ", (name for name, _ in window.dropped[:_NAMES_SHOWN]))
        more = len(window.dropped) - _NAMES_SHOWN
        if more > 0:
            names = message("{names} and {count} more", names=names, count=more)
        text = message("{names} ({reason})", names=names, reason=window.dropped[0][1])
        rows.insert(2, (message("Left out"), text))
    return (KeyValues(tuple(rows)),)


SECTION = Section("window", message("Window"), 20, build)
