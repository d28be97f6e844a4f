"""The roofline: operations per second of each kernel against its arithmetic intensity, below the roofs of the GPU."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from nitro.analyzer import Analysis
from nitro.analyzer.counters import JOINS
from nitro.analyzer.message import joined, message
from nitro.analyzer.roofline import BOUNDS

from .. import numbers
from ..blocks import Block, Column, Figure, Paragraph, Table
from ..names import kernel_label
from ..palette import SERIES
from ..report import Section
from ._devices import heading, shown

_SHOWN = 10
_ROWS_KEPT = 300
_MOST_DRAWN = 250
_LABEL_DRAWN = 70
_TERA = 1e12
_ROOF_COLOUR = "#7a8794"
_UNKNOWN = message("of unknown class")
_ROOFS = {"fp32": message("FP32 cores"), "tensor_fp16": message("tensor cores, FP16 dense")}
# How far the axis goes beyond the points and the ridge.
_MARGIN = 4.0


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return a roofline for each device whose kernels have operations and bytes counted, else why there is none."""
    blocks: list[Block] = []
    for device in shown(analysis):
        table = analysis.table("kernel_counters", device.device_id)
        if table is None:
            continue
        roofs = analysis.table("roofline", device.device_id)
        if not len(table.frame):
            continue
        blocks += heading(analysis, device)
        points = table.frame.filter((pl.col("intensity") > 0) & (pl.col("flops_per_s") > 0)).head(_MOST_DRAWN)
        if roofs is not None and len(points):
            blocks.append(_figure(points, roofs.frame, device.device_id))
        elif (reason := analysis.reason("roofline")) is not None:
            blocks.append(Paragraph(message("No roofline: {reason}.", reason=reason)))
        blocks.append(_amounts(table.frame, device.device_id))
    return tuple(blocks)


def _amounts(frame: pl.DataFrame, device_id: int) -> Table:
    """Return bytes, operations and stalls of one execution of each kernel."""
    rows = tuple(
        (
            numbers.duration(row["counted_ns"]),
            numbers.size(row["dram_bytes"]),
            numbers.size(row["l2_bytes"]),
            numbers.MISSING
            if row["intensity"] is None
            else numbers.quantity(numbers.significant(row["intensity"]), row["intensity"]),
            numbers.rate(row["flops_per_s"], "FLOP/s"),
            _stall(row["stall"], row["stall_ratio"]),
            JOINS[row["join"]],
            f"{kernel_label(row['name'])} <<<{row['grid']}, {row['block']}>>>",
        )
        for row in frame.head(_ROWS_KEPT).iter_rows(named=True)
    )
    columns = (
        Column(message("time")),
        Column(message("DRAM")),
        Column(message("L2")),
        Column(message("ops/byte")),
        Column(message("attained")),
        Column(message("stall"), "left"),
        Column(message("join"), "left"),
        Column(message("kernel and launch geometry"), "left", flexible=True, is_name=True),
    )
    note = message(
        "Of one execution, in the run that was counted: its time, bytes to and from DRAM and through L2, "
        "operations per DRAM byte, operations per second. Stall: the most frequent reason and its share. Join: how the "
        "counters were found."
    )
    title = message("Bytes, operations and stalls of the kernels that took most time")
    return Table(columns, rows, note, title, f"kernel-amounts-gpu{device_id}", shown=_SHOWN)


def _stall(stall: str | None, share: float | None) -> str:
    if stall is None or share is None:
        return numbers.MISSING
    return f"{stall.replace('_', ' ')} {numbers.percent(share)}"


def _figure(points: pl.DataFrame, roofs: pl.DataFrame, device_id: int) -> Figure:
    peaks = dict(roofs.select("roof", "per_s").iter_rows())
    clock_hz = float(roofs["clock_hz"][0])
    dram = peaks.pop("dram")
    ridge = {name: peak / dram for name, peak in peaks.items()}
    intensities = points["intensity"].to_list()
    low = min(*intensities, *ridge.values()) / _MARGIN
    high = max(*intensities, *ridge.values()) * _MARGIN
    lines = [
        {"roof": _ROOFS[name], "x": x, "y": min(peak, dram * x) / _TERA}
        for name, peak in peaks.items()
        for x in (low, ridge[name], high)
    ]
    labels = [{"x": high, "y": peak / _TERA, "roof": _ROOFS[name]} for name, peak in peaks.items()]
    x = {
        "field": "x",
        "type": "quantitative",
        "scale": {"type": "log", "domain": [low, high], "nice": False},
        "axis": {"tickCount": 6, "grid": False},
        "title": message("arithmetic intensity, operations per DRAM byte (log scale)"),
    }
    y = {
        "field": "y",
        "type": "quantitative",
        "scale": {"type": "log"},
        "axis": {"tickCount": 6, "grid": False},
        "title": message("TFLOP/s (log scale)"),
    }
    roof = {"field": "roof", "type": "nominal"}
    spec = {
        "height": 300,
        "layer": [
            {
                "data": {"values": lines},
                "mark": {"type": "line", "strokeWidth": 1.6, "color": _ROOF_COLOUR},
                "encoding": {"x": x, "y": y, "detail": roof},
            },
            {
                "data": {"values": labels},
                "mark": {"type": "text", "align": "right", "dy": -7, "fontSize": 11},
                "encoding": {"x": x, "y": y, "text": roof},
            },
            {
                "data": {"values": _values(points)},
                "mark": _MARK,
                "encoding": {"x": x, "y": y, **_point_encoding(points)},
            },
        ],
    }
    shares = points.group_by("bound").agg(pl.col("total_ns").sum()).sort("total_ns", descending=True)
    top = shares["bound"][0]
    sentence = message(
        "Each mark is a kernel, its area its time. Below the slanted part of a roof the DRAM limits it, below the flat "
        "part the cores do; far below both it waits. Roofs at {clock}, the clock while counting: {roofs}; DRAM {dram}. "
        "Most kernel time drawn here is {bound}.",
        clock=numbers.rate(clock_hz, "Hz"),
        roofs=joined(
            ", ",
            (
                message("{what} {value}", what=_ROOFS[name], value=numbers.rate(peak, "FLOP/s"))
                for name, peak in peaks.items()
            ),
        ),
        dram=numbers.rate(dram, "B/s"),
        bound=BOUNDS.get(top, _UNKNOWN),
    )
    return Figure(f"roofline-gpu{device_id}", message("Roofline of GPU {device}", device=device_id), sentence, spec)


_MARK: dict[str, Any] = {"type": "point", "filled": True, "opacity": 0.7, "stroke": "#ffffff", "strokeWidth": 0.5}


def _values(points: pl.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "x": row["intensity"],
            "y": row["flops_per_s"] / _TERA,
            "total": row["total_ns"] / 1e6,
            "bound": BOUNDS.get(row["bound"], _UNKNOWN),
            "name": kernel_label(row["name"])[:_LABEL_DRAWN],
            "time": numbers.duration(row["total_ns"]),
            "rate": numbers.rate(row["flops_per_s"], "FLOP/s"),
            "intensity": numbers.significant(row["intensity"]),
        }
        for row in points.iter_rows(named=True)
        if math.isfinite(row["intensity"])
    ]


def _point_encoding(points: pl.DataFrame) -> dict[str, Any]:
    present = set(points["bound"].to_list())
    series = dict(zip((*BOUNDS, None), (SERIES[2], SERIES[0], SERIES[1], SERIES[3]), strict=True))
    domain = [BOUNDS.get(bound or "", _UNKNOWN) for bound in series if bound in present]
    chosen = [entry for bound, entry in series.items() if bound in present]
    return {
        "size": {
            "field": "total",
            "type": "quantitative",
            "legend": None,
            "scale": {"range": [20, 500]},
        },
        "color": {
            "field": "bound",
            "type": "nominal",
            "scale": {"domain": domain, "range": [s.colour for s in chosen]},
        },
        "shape": {"field": "bound", "type": "nominal", "scale": {"domain": domain, "range": [s.shape for s in chosen]}},
        "tooltip": [
            {"field": "name", "type": "nominal", "title": message("kernel")},
            {"field": "bound", "type": "nominal", "title": message("held by")},
            {"field": "intensity", "type": "nominal", "title": message("operations per byte")},
            {"field": "rate", "type": "nominal", "title": message("attained")},
            {"field": "time", "type": "nominal", "title": message("time")},
        ],
    }


SECTION = Section("roofline", message("Roofline"), 54, build, for_documents=True)
