"""Where the time goes: busy and idle, the idle time by cause."""

from __future__ import annotations

from nitro.analyzer import Analysis
from nitro.analyzer.causes import TEXTS, Cause
from nitro.analyzer.message import joined, message

from .. import numbers
from ..blocks import Bar, Bars, Block, Column, Paragraph, Table
from ..names import nvtx_label
from ..report import Section
from ._devices import heading, left_out, shown

_KINDS = (
    ("kernel", message("kernels"), "kernel_time_sum", "kernel_count"),
    ("graph", message("CUDA graphs"), "graph_time_sum", "graph_launch_count"),
    ("memcpy", message("copies"), "memcpy_time_sum", "memcpy_count"),
    ("memset", message("memsets"), "memset_time_sum", "memset_count"),
)
_PATHS_SHOWN = 4
_WORTH_A_LINE = 0.0005


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return bars of busy and idle time for each device."""
    blocks: list[Block] = []
    for device in shown(analysis):
        window = analysis.value("window", device.device_id)
        if window:
            if len(analysis.devices) > 1:
                blocks += heading(analysis, device)
            blocks += _of_device(analysis, device.device_id, window)
    if (text := left_out(analysis)) is not None:
        blocks.append(Paragraph(text))
    return tuple(blocks)


def _of_device(analysis: Analysis, device_id: int, window: float) -> list[Block]:
    blocks: list[Block] = [_bars(analysis, device_id, window)]
    paths = analysis.table("host_code_by_path", device_id)
    if paths is not None and len(paths.frame) > 1:
        columns = (
            Column(message("NVTX path"), "left", flexible=True, is_name=True),
            Column(message("idle")),
            Column(message("count")),
        )
        rows = tuple(
            (nvtx_label(path), numbers.duration(ns), numbers.count(pieces))
            for path, ns, pieces in paths.frame.iter_rows()
        )
        title = message("Idle while host code ran, by NVTX path")
        blocks.append(Table(columns, rows, "", title, f"host-code-by-path-gpu{device_id}", shown=_PATHS_SHOWN))
    return blocks


def _bars(analysis: Analysis, device_id: int, window: float) -> Bars:
    busy, idle = analysis.value("gpu_busy", device_id) or 0, analysis.value("gpu_idle", device_id) or 0
    values: tuple[str, ...] = (numbers.percent(busy / window), numbers.duration(busy), "")
    bars = [Bar(message("GPU busy"), busy / window, values, "busy")]
    for colour, label, time_id, count_id in _KINDS:
        time, count = analysis.value(time_id, device_id) or 0, analysis.value(count_id, device_id) or 0
        if count:
            values = (numbers.percent(time / window), numbers.duration(time), numbers.count(count))
            bars.append(Bar(label, time / window, values, colour, depth=1))
    overlap = analysis.value("overlap", device_id) or 0
    if overlap:
        values = (numbers.percent(-overlap / window), numbers.duration(-overlap), "")
        bars.append(Bar(message("overlap of these"), 0.0, values, "busy", depth=1))
    values = (numbers.percent(idle / window), numbers.duration(idle), "")
    bars.append(Bar(message("GPU idle"), idle / window, values, "device_gap"))
    causes = sorted(analysis.parts("gpu_idle_by_cause", device_id).items(), key=lambda item: -item[1].value)
    small = []
    for cause_id, part in causes:
        title = TEXTS[Cause[cause_id.upper()]].title
        if part.value / window < _WORTH_A_LINE:
            small.append(message("{cause} {time}", cause=title, time=numbers.duration(part.value)))
        else:
            values = (numbers.percent(part.value / window), numbers.duration(part.value), numbers.count(part.count))
            bars.append(Bar(title, part.value / window, values, cause_id, depth=1))
    note = message("Shares of the window; the causes add up to the idle time exactly.")
    if small:
        note = message("{note} Under 0.05 %: {causes}.", note=note, causes=joined(", ", small))
    titles = (message("share"), message("time"), message("count"))
    title = message("Busy and idle time of GPU {device}", device=device_id)
    return Bars(titles, tuple(bars), note, title, f"time-gpu{device_id}")


SECTION = Section("time", message("Where the time goes"), 30, build)
