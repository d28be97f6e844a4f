"""Where the time goes: busy and idle, the idle time by cause."""

from __future__ import annotations

from nitro.analyzer import Analysis
from nitro.analyzer.causes import TEXTS, Cause

from .. import numbers
from ..blocks import Bar, Bars, Block, Column, Paragraph, Table
from ..report import Section

_KINDS = (
    ("kernel", "kernels", "kernel_time_sum", "kernel_count"),
    ("graph", "CUDA graphs", "graph_time_sum", "graph_launch_count"),
    ("memcpy", "copies", "memcpy_time_sum", "memcpy_count"),
    ("memset", "memsets", "memset_time_sum", "memset_count"),
)
_PATHS_SHOWN = 4
_WORTH_A_LINE = 0.0005


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return bars of busy and idle time for each device."""
    blocks: list[Block] = []
    for device in analysis.devices:
        window = analysis.value("window", device.device_id)
        if window:
            if len(analysis.devices) > 1:
                blocks.append(Paragraph(f"GPU {device.device_id}, {device.name}"))
            blocks += _of_device(analysis, device.device_id, window)
    return tuple(blocks)


def _of_device(analysis: Analysis, device_id: int, window: float) -> list[Block]:
    busy, idle = analysis.value("gpu_busy", device_id) or 0, analysis.value("gpu_idle", device_id) or 0
    bars = [Bar("GPU busy", busy / window, (numbers.percent(busy / window), numbers.duration(busy), ""), "busy")]
    for colour, label, time_id, count_id in _KINDS:
        time, count = analysis.value(time_id, device_id) or 0, analysis.value(count_id, device_id) or 0
        if count:
            values = (numbers.percent(time / window), numbers.duration(time), numbers.count(count))
            bars.append(Bar(f"  {label}", time / window, values, colour))
    overlap = analysis.value("overlap", device_id) or 0
    if overlap:
        values = (f"-{numbers.percent(overlap / window)}", f"-{numbers.duration(overlap)}", "")
        bars.append(Bar("  overlap of these", 0.0, values, "busy"))
    bars.append(
        Bar("GPU idle", idle / window, (numbers.percent(idle / window), numbers.duration(idle), ""), "device_gap")
    )
    causes = sorted(analysis.parts("gpu_idle_by_cause", device_id).items(), key=lambda item: -item[1].value)
    small = []
    for cause_id, part in causes:
        values = (numbers.percent(part.value / window), numbers.duration(part.value), numbers.count(part.count))
        title = TEXTS[Cause[cause_id.upper()]].title
        if part.value / window < _WORTH_A_LINE:
            small.append(f"{title} {numbers.duration(part.value)}")
        else:
            bars.append(Bar(f"  {title}", part.value / window, values, cause_id))
    note = "Shares of the window; the causes add up to the idle time exactly."
    if small:
        note += f" Under 0.05 %: {', '.join(small)}."
    blocks: list[Block] = [Bars(("share", "time", "count"), tuple(bars), note)]
    paths = analysis.table("host_code_by_path", device_id)
    if paths is not None and len(paths.frame) > 1:
        rows = paths.frame.head(_PATHS_SHOWN).iter_rows()
        blocks.append(
            Table(
                (
                    Column("Idle while host code ran, by NVTX path", "left", flexible=True),
                    Column("idle"),
                    Column("count"),
                ),
                tuple((path, numbers.duration(ns), numbers.count(pieces)) for path, ns, pieces in rows),
            )
        )
    return blocks


SECTION = Section("time", "Where the time goes", 40, build)
