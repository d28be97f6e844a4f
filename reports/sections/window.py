"""The window: what the numbers are about, and why."""

from __future__ import annotations

from nitro.analyzer import Analysis

from .. import numbers
from ..blocks import Block, KeyValues
from ..report import Section

_NAMES_SHOWN = 3


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return the window, the iterations left out, and the whole capture beside it."""
    window = analysis.window
    rows: list[tuple[str, str]] = []
    for device in analysis.devices:
        length = analysis.value("window", device.device_id)
        span = analysis.value("capture_gpu_span", device.device_id)
        busy = analysis.find("capture_gpu_busy", device.device_id)
        if length is None or span is None or busy is None:
            continue
        several = f" (GPU {device.device_id})" if len(analysis.devices) > 1 else ""
        start, end = window.of_device(device.device_id)
        rows.append((f"Window{several}", f"{numbers.duration(length)}, from {_seconds(start)} to {_seconds(end)}"))
        part = numbers.percent(busy.value / span) if span else numbers.MISSING
        rows.append(
            (
                f"Whole capture{several}",
                f"GPU busy {numbers.duration(busy.value)} of {numbers.duration(span)} ({part}), "
                f"{numbers.count(busy.count)} operations",
            )
        )
    rows.insert(min(1, len(rows)), ("Why", window.reason[:1].upper() + window.reason[1:]))
    if window.dropped:
        names = [name for name, _ in window.dropped[:_NAMES_SHOWN]]
        more = len(window.dropped) - len(names)
        text = ", ".join(names) + (f" and {more} more" if more else "")
        rows.insert(2, ("Left out", f"{text} ({window.dropped[0][1]})"))
    return (KeyValues(tuple(rows)),)


def _seconds(time_ns: int) -> str:
    return f"{time_ns / 1e9:.6f} s"


SECTION = Section("window", "Window", 20, build)
