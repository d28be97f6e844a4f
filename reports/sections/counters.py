"""Hardware counters of the kernels: which took most time, how busy they kept the GPU, and what held them."""

from __future__ import annotations

import polars as pl

from nitro.analyzer import Analysis
from nitro.analyzer.counters import JOINS
from nitro.analyzer.message import joined, message
from nitro.analyzer.roofline import BOUNDS

from .. import numbers
from ..blocks import Bar, Bars, Block, Column, Paragraph, Table
from ..names import kernel_label
from ..report import Section
from ._devices import heading, shown

_SHOWN = 10
_ROWS_KEPT = 300
_COLOURS = {"compute": "kernel", "memory": "memcpy", "latency": "launch_latency"}


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return counters for each device that has them."""
    blocks: list[Block] = []
    for device in shown(analysis):
        table = analysis.table("kernel_counters", device.device_id)
        if table is None or not len(table.frame):
            continue
        blocks += heading(analysis, device)
        blocks.append(_quality(analysis, device.device_id))
        bars = _bounds(analysis, device.device_id)
        if bars is not None:
            blocks.append(bars)
        blocks.append(_table(table.frame, device.device_id))
    return tuple(blocks)


def _quality(analysis: Analysis, device_id: int) -> Paragraph:
    parts = analysis.parts("counter_join_time", device_id)
    whole = sum(part.value for part in parts.values()) or 1
    found = joined(
        ", ",
        (
            message("{share} {how}", share=numbers.percent(part.value / whole), how=JOINS[join])
            for join, part in parts.items()
            if part.value
        ),
    )
    text = message(
        "Counters are of another run, in which each kernel was replayed. Of the kernel time of the window, they were "
        "found for: {found}.",
        found=found,
    )
    means = [
        message("{what} {value}", what=what, value=numbers.percent(value))
        for name, what in (
            ("counted_sm_active_ratio", message("SM active")),
            ("counted_issue_active_ratio", message("issue active")),
            ("counted_tensor_active_ratio", message("tensor active")),
            ("counted_occupancy_ratio", message("occupancy")),
        )
        if (value := analysis.value(name, device_id)) is not None
    ]
    if means:
        text = message("{text} Means, weighted by time: {means}.", text=text, means=joined(", ", means))
    return Paragraph(text)


def _bounds(analysis: Analysis, device_id: int) -> Bars | None:
    parts = analysis.parts("bound_time", device_id)
    whole = sum(part.value for part in parts.values())
    if not whole:
        return None
    bars = tuple(
        Bar(
            BOUNDS[bound],
            part.value / whole,
            (numbers.percent(part.value / whole), numbers.duration(part.value), numbers.count(part.count)),
            _COLOURS[bound],
        )
        for bound, part in sorted(parts.items(), key=lambda item: -item[1].value)
    )
    note = message(
        "Compute- or memory-bound: the busiest unit of that kind works at 60 % of its peak or more. Latency-bound: "
        "neither does, so the kernel waits more than it works."
    )
    titles = (message("share"), message("kernel time"), message("kernels"))
    title = message("What holds the kernels of GPU {device}", device=device_id)
    return Bars(titles, bars, note, title, f"bounds-gpu{device_id}")


def _table(frame: pl.DataFrame, device_id: int) -> Table:
    rows = tuple(
        (
            numbers.duration(row["total_ns"]),
            numbers.percent(row["sm_active_ratio"]),
            numbers.percent(row["issue_active_ratio"]),
            numbers.percent(row["tensor_active_ratio"]),
            numbers.percent(row["occupancy_ratio"]),
            numbers.percent(row["dram_throughput_ratio"]),
            BOUNDS.get(row["bound"], numbers.MISSING),
            kernel_label(row["name"]),
        )
        for row in frame.head(_ROWS_KEPT).iter_rows(named=True)
    )
    columns = (
        Column(message("time")),
        Column(message("SM")),
        Column(message("issue")),
        Column(message("tensor")),
        Column(message("occup.")),
        Column(message("DRAM")),
        Column(message("held by"), "left"),
        Column(message("kernel"), "left", flexible=True, is_name=True),
    )
    note = message(
        "SM, issue, tensor: active, of elapsed cycles. Occup.: achieved occupancy. DRAM: share of its peak. A dash: "
        "the report lacks the counter, or the chip does."
    )
    title = message("Counters of the kernels that took most time")
    return Table(columns, rows, note, title, f"kernel-counters-gpu{device_id}", shown=_SHOWN)


SECTION = Section("counters", message("Kernel counters"), 53, build)
