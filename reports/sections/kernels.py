"""Top kernels and graphs."""

from __future__ import annotations

import polars as pl

from nitro.analyzer import Analysis

from .. import numbers
from ..blocks import Block, Column, Paragraph, Table
from ..names import kernel_label
from ..report import Section

_SHOWN = 10


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return the kernels and graphs that took most time, for each device."""
    blocks: list[Block] = []
    for device in analysis.devices:
        work = _work(analysis, device.device_id)
        if work is None:
            continue
        if len(analysis.devices) > 1:
            blocks.append(Paragraph(f"GPU {device.device_id}, {device.name}"))
        top = work.head(_SHOWN)
        total_unit, totals = numbers.durations(top["total_ns"].to_list())
        unit, medians = numbers.durations(top["median_ns"].to_list())
        _, longest = unit, [numbers.MISSING if v is None else _in_unit(v, unit) for v in top["max_ns"].to_list()]
        rows = tuple(
            (numbers.percent(share), total, numbers.count(count), median, maximum, kernel_label(name))
            for share, total, count, median, maximum, name in zip(
                top["share"], totals, top["count"], medians, longest, top["shown"], strict=True
            )
        )
        columns = (
            Column("share"),
            Column(f"total {total_unit}"),
            Column("count"),
            Column(f"median {unit}"),
            Column(f"max {unit}"),
            Column("kernel or graph", "left", flexible=True),
        )
        rest = work[_SHOWN:]
        note = ""
        if len(rest):
            note = f"{len(rest):,} more take {numbers.percent(float(rest['share'].sum()))} together."
        blocks.append(Table(columns, rows, note))
    return tuple(blocks)


def _in_unit(value: float, unit: str) -> str:
    scale = {"s": 1e9, "ms": 1e6, "µs": 1e3, "ns": 1.0}[unit]
    return numbers.significant(value / scale)


def _work(analysis: Analysis, device_id: int) -> pl.DataFrame | None:
    shared = ("count", "total_ns", "share", "median_ns", "max_ns")
    frames = []
    kernels, graphs = analysis.table("kernels", device_id), analysis.table("graphs", device_id)
    if kernels is not None:
        frames.append(kernels.frame.select(*shared, pl.col("name").alias("shown")))
    if graphs is not None:
        known = (pl.col(name).cast(pl.String).fill_null("?") for name in ("graph_id", "graph_exec_id"))
        frames.append(graphs.frame.select(*shared, pl.format("CUDA graph {} (executable {})", *known).alias("shown")))
    if not frames:
        return None
    return pl.concat(frames).sort(["total_ns", "shown"], descending=[True, False])


SECTION = Section("kernels", "Top kernels", 50, build)
