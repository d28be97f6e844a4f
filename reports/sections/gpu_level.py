"""GPU level: what utilisation means here, SM activity by time and by phase, clocks, memory."""

from __future__ import annotations

import polars as pl

from nitro.analyzer import Analysis
from nitro.analyzer.message import Message, joined, message

from .. import figures, numbers
from ..blocks import Block, Column, Figure, KeyValues, Table
from ..names import nvtx_label
from ..palette import SERIES
from ..report import Section
from ._devices import heading, shown

_SHOWN = 8
_PHASES_DRAWN = 10
_BETWEEN = " · "
_SAMPLED = (
    ("gr_active_ratio", message("GR active")),
    ("sm_active_ratio", message("SM active")),
    ("sm_issue_ratio", message("SM issue")),
    ("tensor_active_ratio", message("tensor active")),
    ("sm_occupancy", message("warp occupancy")),
)
_OVER_TIME = (
    ("gr_active", message("GR active")),
    ("sm_active", message("SM active")),
    ("sm_issue", message("SM issue")),
    ("tensor_active", message("tensor active")),
)
_DIRECTIONS = {"read": message("read"), "write": message("write")}
_DRAM = (("dram_read", message("DRAM read")), ("dram_write", message("DRAM write")))


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return the sampled metrics and memory of each device; nothing where none was recorded."""
    blocks: list[Block] = []
    for device in shown(analysis):
        facts = _facts(analysis, device.device_id)
        phases = analysis.table("sampled_by_phase", device.device_id)
        if (facts or phases) and len(analysis.devices) > 1:
            blocks += heading(analysis, device)
        if facts:
            blocks.append(KeyValues(facts))
        blocks += _over_time(analysis, device.device_id)
        if phases is not None and len(phases.frame):
            blocks += [_phase_figure(phases.frame, device.device_id), _phases(phases.frame, device.device_id)]
    return tuple(blocks)


def _facts(analysis: Analysis, device_id: int) -> tuple[tuple[str, str], ...]:
    facts: list[tuple[str, str]] = []
    sampled = [
        message("{metric} {value}", metric=title, value=numbers.percent(value))
        for metric, title in _SAMPLED
        if (value := analysis.value(metric, device_id)) is not None
    ]
    if sampled:
        busy = numbers.percent(analysis.value("gpu_busy_ratio", device_id))
        facts.append(
            (message("Utilisation"), joined(_BETWEEN, (message("busy (traced) {value}", value=busy), *sampled)))
        )
    dram = analysis.parts("dram_throughput", device_id)
    if dram:
        parts = joined(
            _BETWEEN,
            (
                message("{metric} {value}", metric=_DIRECTIONS.get(name, name), value=numbers.percent(part.value))
                for name, part in dram.items()
            ),
        )
        facts.append((message("DRAM"), message("{parts} of the peak bandwidth", parts=parts)))
    clock = analysis.parts("gpc_clock", device_id)
    if clock:
        text = message(
            "{mean} mean, {lowest} to {highest}",
            mean=numbers.rate(clock["mean"].value, "Hz"),
            lowest=numbers.rate(clock["min"].value, "Hz"),
            highest=numbers.rate(clock["max"].value, "Hz"),
        )
        facts.append((message("GPC clock"), text))
    peak = analysis.parts("gpu_memory_peak", device_id)
    if peak:
        text = message("{size} at most", size=numbers.size(peak["total"].value))
        held = analysis.parts("gpu_memory_in_use", device_id)
        grown = held["window end"].value - held["window start"].value
        if grown > 0:
            more = numbers.size(grown)
            text = message("{text}, {more} more at the end of the window than at its start", text=text, more=more)
        facts.append((message("GPU memory"), text))
    streams = analysis.parts("stream_concurrency", device_id)
    if len(streams) > 1:
        text = joined(
            _BETWEEN,
            (
                message("{stream} busy {time}", stream=name, time=numbers.duration(part.value))
                for name, part in streams.items()
            ),
        )
        facts.append((message("Streams"), text))
    return tuple(facts)


def _over_time(analysis: Analysis, device_id: int) -> list[Block]:
    """Return what the sampler saw over the window, with clocks and memory under the same axis."""
    specs = []
    start = analysis.window.of_device(device_id)[0]
    domain = tuple((edge - start) / 1e6 for edge in analysis.window.of_device(device_id))
    sampled = analysis.table("sampled_over_time", device_id)
    if sampled is not None and len(sampled.frame):
        for group in (_OVER_TIME, _DRAM):
            known = [(name, title) for name, title in group if _has(sampled.frame, name)]
            if known:
                y_title = message("% of peak") if group is _DRAM else message("% of time or cycles")
                specs.append(_lines(sampled.frame, known, start, y_title, domain))
        if _has(sampled.frame, "gpc_clock"):
            specs.append(_clock(sampled.frame, start, domain))
    memory = analysis.table("gpu_memory_over_time", device_id)
    if memory is not None and len(memory.frame):
        specs.append(_memory(memory.frame, start, domain))
    if not specs:
        return []
    for spec in specs[:-1]:
        spec["encoding"]["x"]["axis"] = {"grid": False, "labels": False, "title": None}
    title = message("Activity, clock and memory of GPU {device} over the window", device=device_id)
    sentence = message(
        "Sampled values, each the mean of one of at most 240 equal parts of the window; where the lines are low while "
        "the GPU counts as busy, kernels ran that did not fill it."
    )
    if sampled is None:
        sentence = message("GPU memory in use over the window; the sampled metrics were not recorded.")
    return [Figure(f"over-time-gpu{device_id}", title, sentence, figures.stacked(*specs))]


def _has(frame: pl.DataFrame, name: str) -> bool:
    return name in frame.columns and frame[name].null_count() < len(frame)


def _lines(
    frame: pl.DataFrame, series: list[tuple[str, Message]], start: int, y_title: str, domain: tuple[float, ...]
) -> figures.Spec:
    rows = [
        ((time - start) / 1e6, title, round(value * 100, 3), numbers.percent(value))
        for name, title in series
        for time, value in frame.select("start_ns", name).iter_rows()
        if value is not None
    ]
    highest = max((value for _, _, value, _ in rows), default=1.0)
    # A quarter of the scale is the least, so that noise near zero does not fill the figure.
    top = min(100.0, max(25.0, highest * 1.05))
    return figures.over_time(
        rows,
        [title for _, title in series],
        x_title=message("time since the window began, ms"),
        y_title=y_title,
        y_domain=(0, top),
        height=150 if len(series) > 2 else 80,
        x_domain=(domain[0], domain[1]),
    )


def _clock(frame: pl.DataFrame, start: int, domain: tuple[float, ...]) -> figures.Spec:
    title = message("GPC clock")
    rows = [
        ((time - start) / 1e6, title, value / 1e6, numbers.rate(value, "Hz"))
        for time, value in frame.select("start_ns", "gpc_clock").iter_rows()
        if value is not None
    ]
    return figures.over_time(
        rows,
        [title],
        x_title=message("time since the window began, ms"),
        y_title=message("GPC clock, MHz"),
        height=70,
        y_domain=(0, max(value for _, _, value, _ in rows) * 1.05),
        x_domain=(domain[0], domain[1]),
    )


def _memory(frame: pl.DataFrame, start: int, domain: tuple[float, ...]) -> figures.Spec:
    title = message("GPU memory")
    rows = [
        ((time - start) / 1e6, title, value / (1 << 20), numbers.size(value))
        for time, value in frame.select("start_ns", "bytes_in_use").iter_rows()
    ]
    return figures.over_time(
        rows,
        [title],
        x_title=message("time since the window began, ms"),
        y_title=message("memory, MiB"),
        height=70,
        y_domain=(0, max(max(value for _, _, value, _ in rows) * 1.05, 1)),
        x_domain=(domain[0], domain[1]),
    )


def _phase_figure(frame: pl.DataFrame, device_id: int) -> Figure:
    drawn = frame.head(_PHASES_DRAWN)
    metrics = [(name, title) for name, title in _OVER_TIME if _has(drawn, name)]
    values = [
        {
            "phase": nvtx_label(row["nvtx_path"]),
            "metric": title,
            "percent": round(row[name] * 100, 3),
            "shown": numbers.percent(row[name]),
        }
        for row in drawn.iter_rows(named=True)
        for name, title in metrics
        if row[name] is not None
    ]
    names = [title for _, title in metrics]
    shown = SERIES[: len(names)]
    spec = {
        "data": {"values": values},
        "height": {"step": 26},
        "mark": {"type": "point", "filled": True, "size": 60, "opacity": 0.9},
        "encoding": {
            "y": {
                "field": "phase",
                "type": "nominal",
                "sort": None,
                "title": None,
                "axis": {**figures.name_labels(36), "grid": True},
                "scale": {"padding": 1},
            },
            "x": {
                "field": "percent",
                "type": "quantitative",
                "title": message("% of time or cycles"),
                "scale": {"domainMin": 0},
            },
            "color": {
                "field": "metric",
                "type": "nominal",
                "scale": {"domain": names, "range": [s.colour for s in shown]},
            },
            "shape": {
                "field": "metric",
                "type": "nominal",
                "scale": {"domain": names, "range": [s.shape for s in shown]},
            },
            "tooltip": [
                {"field": "phase", "type": "nominal", "title": message("phase")},
                {"field": "metric", "type": "nominal", "title": " "},
                {"field": "shown", "type": "nominal", "title": message("value")},
            ],
        },
    }
    sentence = message(
        "Each row is a phase, each mark the mean of a sampled metric over the phase's projection on the GPU; marks far "
        "to the left mean that the phase does not fill the GPU."
    )
    return Figure(f"sampled-by-phase-gpu{device_id}", message("SM activity by phase"), sentence, spec)


def _phases(frame: pl.DataFrame, device_id: int) -> Table:
    columns = (
        Column(message("phase"), "left", flexible=True, is_name=True),
        Column(message("projection")),
        Column(message("SM active")),
        Column(message("SM issue")),
        Column(message("tensor")),
        Column(message("occupancy")),
        Column(message("shared")),
    )
    rows = tuple(
        (
            nvtx_label(row["nvtx_path"]),
            numbers.duration(row["projection_ns"]),
            *(numbers.percent(row[name]) for name in ("sm_active", "sm_issue", "tensor_active", "compute_warps")),
            numbers.percent(row["shared_ratio"]),
        )
        for row in frame.iter_rows(named=True)
    )
    note = message("Sampled over the projections; where other phases ran too (shared), their work is in the values.")
    if not frame["in_window"].any():
        note = message("These phases lie outside the window. {note}", note=note)
    title = message("Sampled metrics by phase")
    return Table(columns, rows, note, title, f"phase-metrics-gpu{device_id}", shown=_SHOWN)


SECTION = Section("gpu_level", message("GPU level"), 45, build)
