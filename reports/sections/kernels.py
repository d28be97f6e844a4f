"""Kernels and graphs: which took most time, and how large they are."""

from __future__ import annotations

import polars as pl

from nitro.analyzer import Analysis
from nitro.analyzer.message import message

from .. import figures, numbers
from ..blocks import Block, Column, Figure, Table
from ..names import kernel_label
from ..palette import SERIES
from ..report import Section
from ._devices import heading, shown

_SHOWN = 10
_ROWS_KEPT = 300
_MOST_DRAWN = 250
_LABEL_DRAWN = 70


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return the kernels and graphs that took most time, for each device."""
    blocks: list[Block] = []
    for device in shown(analysis):
        work = work_of(analysis, device.device_id)
        if work is None:
            continue
        if len(analysis.devices) > 1:
            blocks += heading(analysis, device)
        blocks.append(_top(work, device.device_id))
        shapes = analysis.table("kernel_shapes", device.device_id)
        if shapes is not None and len(shapes.frame):
            blocks.append(_scatter(shapes.frame, device.device_id, device.sm_count))
    return tuple(blocks)


def _top(work: pl.DataFrame, device_id: int) -> Table:
    kept = work.head(_ROWS_KEPT)
    total_unit, totals = numbers.durations(kept["total_ns"].to_list())
    unit, medians = numbers.durations(kept["median_ns"].to_list())
    longest = [numbers.in_time_unit(value, unit) for value in kept["max_ns"].to_list()]
    rows = tuple(
        (numbers.percent(share), total, numbers.count(count), median, maximum, label)
        for share, total, count, median, maximum, label in zip(
            kept["share"], totals, kept["count"], medians, longest, labels_of(kept), strict=True
        )
    )
    columns = (
        Column(message("share")),
        Column(message("total {unit}", unit=total_unit)),
        Column(message("count")),
        Column(message("median {unit}", unit=unit)),
        Column(message("max {unit}", unit=unit)),
        Column(message("kernel or graph"), "left", flexible=True, is_name=True),
    )
    rest = work[_SHOWN:]
    note: str = message("Share: of the time of all kernels, graphs, copies and memsets.")
    if len(rest):
        share = numbers.percent(float(rest["share"].sum()))
        note = message(
            "{note} Behind the first {shown}: {count:,} more take {share} together.",
            note=note,
            shown=_SHOWN,
            count=len(rest),
            share=share,
        )
    title = message("Kernels and graphs by time")
    return Table(columns, rows, note, title, f"kernels-gpu{device_id}", shown=_SHOWN)


def labels_of(work: pl.DataFrame) -> list[str]:
    """Return the name of each row; a graph has none but its ids."""
    return [
        kernel_label(name)
        if name is not None
        else message(
            "CUDA graph {graph} (executable {executable})",
            graph="?" if graph is None else graph,
            executable="?" if executable is None else executable,
        )
        for name, graph, executable in work.select("name", "graph_id", "graph_exec_id").iter_rows()
    ]


def work_of(analysis: Analysis, device_id: int) -> pl.DataFrame | None:
    """Return kernels and graphs of a device in one frame, those that took most time first; `None` without any."""
    shared = ("count", "total_ns", "share", "median_ns", "max_ns")
    ids = ("graph_id", "graph_exec_id")
    frames = []
    kernels, graphs = analysis.table("kernels", device_id), analysis.table("graphs", device_id)
    if kernels is not None:
        nothing = (pl.lit(None, pl.Int64).alias(name) for name in ids)
        frames.append(kernels.frame.select(*shared, pl.col("name").cast(pl.String), *nothing))
    if graphs is not None:
        known = (pl.col(name).cast(pl.Int64) for name in ids)
        frames.append(graphs.frame.select(*shared, pl.lit(None, pl.String).alias("name"), *known))
    if not frames:
        return None
    return pl.concat(frames).sort(["total_ns", "name", *ids], descending=[True, False, False, False])


def _scatter(shapes: pl.DataFrame, device_id: int, sm_count: int | None) -> Figure:
    """Return the figure of kernel sizes: blocks per launch against duration, the area of a mark its summed time."""
    tensor, other = message("tensor cores, by name"), message("other kernels")
    values = [
        {
            "blocks": row["grid_blocks"],
            "us": row["mean_ns"] / 1e3,
            "total": row["total_ns"] / 1e6,
            "kind": tensor if row["tensor_hint"] else other,
            "name": _cut(kernel_label(row["name"])),
            "duration": numbers.duration(row["mean_ns"]),
            "sum": numbers.duration(row["total_ns"]),
            "count": numbers.count(row["count"]),
        }
        for row in shapes.head(_MOST_DRAWN).iter_rows(named=True)
        if row["grid_blocks"] and row["mean_ns"]
    ]
    marks = {
        "mark": {"type": "point", "filled": True, "opacity": 0.65, "stroke": "#ffffff", "strokeWidth": 0.5},
        "encoding": {
            "x": {
                "field": "blocks",
                "type": "quantitative",
                "scale": {"type": "log"},
                "axis": {"tickCount": 5},
                "title": message("thread blocks per launch (log scale)"),
            },
            "y": {
                "field": "us",
                "type": "quantitative",
                "scale": {"type": "log"},
                "axis": {"tickCount": 5},
                "title": message("mean duration, µs (log scale)"),
            },
            "size": {
                "field": "total",
                "type": "quantitative",
                "legend": {"title": message("summed time, ms"), "values": _round_values(values)},
                "scale": {"range": [15, 500]},
            },
            "color": {
                "field": "kind",
                "type": "nominal",
                "scale": {"domain": [tensor, other], "range": [SERIES[1].colour, SERIES[0].colour]},
            },
            "shape": {
                "field": "kind",
                "type": "nominal",
                "scale": {"domain": [tensor, other], "range": ["diamond", "circle"]},
            },
            "tooltip": [
                {"field": "name", "type": "nominal", "title": message("kernel")},
                {"field": "blocks", "type": "quantitative", "title": message("thread blocks"), "format": ","},
                {"field": "duration", "type": "nominal", "title": message("mean duration")},
                {"field": "count", "type": "nominal", "title": message("count")},
                {"field": "sum", "type": "nominal", "title": message("summed time")},
            ],
        },
    }
    layers = [marks]
    sentence = message(
        "Each mark is one kernel at one launch size; its area is the time that it took in all. Large marks at the top "
        "are worth a faster kernel; many marks at the bottom are worth fusing or a CUDA graph."
    )
    if sm_count:
        layers.append(
            {
                "data": figures.ONE_ROW,
                "mark": {"type": "rule", "strokeDash": [4, 3]},
                "encoding": {"x": {"datum": sm_count}},
            }
        )
        sentence = message(
            "{sentence} Left of the dashed line a launch has fewer blocks than the GPU has SMs ({count}), so some stay "
            "empty.",
            sentence=sentence,
            count=sm_count,
        )
    spec: figures.Spec = {"data": {"values": values}, "height": 225, "layer": layers}
    return Figure(f"kernel-sizes-gpu{device_id}", message("Size and duration of kernels"), sentence, spec)


def _round_values(values: list[figures.Spec]) -> list[float]:
    """Return three round numbers for the legend of areas."""
    highest = max((float(value["total"]) for value in values), default=1.0)
    magnitude = 1.0
    while magnitude > highest:
        magnitude /= 10
    while magnitude * 10 <= highest:
        magnitude *= 10
    return [magnitude / 10, magnitude]


def _cut(name: str) -> str:
    return name if len(name) <= _LABEL_DRAWN else name[: _LABEL_DRAWN - 1] + "…"


SECTION = Section("kernels", message("Kernels"), 50, build)
