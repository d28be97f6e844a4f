"""Launch sizes: how many blocks and warps a kernel brings, and what keeps more from an SM."""

from __future__ import annotations

import polars as pl

from nitro.analyzer import Analysis
from nitro.analyzer.message import message

from .. import numbers
from ..blocks import Block, Column, Table
from ..names import kernel_label, table_word
from ..report import Section
from ._devices import shown

_SHOWN = 8
_ROWS_KEPT = 300


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return the table of launch sizes of each device."""
    tables = ((device, analysis.table("kernel_shapes", device.device_id)) for device in shown(analysis))
    return tuple(
        _table(table.frame, device.device_id) for device, table in tables if table is not None and len(table.frame)
    )


def _table(shapes: pl.DataFrame, device_id: int) -> Table:
    columns = (
        Column(message("total")),
        Column(message("blocks")),
        Column(message("threads")),
        Column(message("registers")),
        Column(message("shared memory")),
        Column(message("occupancy")),
        Column(message("limited by"), "left"),
        Column(message("waves")),
        Column(message("empty SMs")),
        Column(message("kernel"), "left", flexible=True, is_name=True),
    )
    rows = tuple(
        (
            numbers.duration(row["total_ns"]),
            numbers.count(row["grid_blocks"]),
            numbers.count(row["block_threads"]),
            numbers.count(row["registers_per_thread"]),
            numbers.size(row["shared_memory_bytes"]),
            numbers.percent(row["occupancy"]),
            table_word(row["limiter"] or ""),
            numbers.MISSING if row["waves"] is None else numbers.significant(row["waves"], 2),
            numbers.percent(row["empty_sm_ratio"]),
            kernel_label(row["name"]),
        )
        for row in shapes.head(_ROWS_KEPT).iter_rows(named=True)
    )
    note = message(
        "Occupancy is theoretical: the warps that fit on an SM with these registers, shared memory and block size. "
        "Waves: blocks of the launch / blocks that the whole GPU holds at once. Limited by none: the grid is too small "
        "for an SM to be full."
    )
    return Table(
        columns,
        rows,
        note,
        message("Launch sizes and occupancy limits"),
        f"kernel-shapes-gpu{device_id}",
        shown=_SHOWN,
    )


SECTION = Section("kernel_shapes", message("Occupancy limits"), 52, build, for_documents=True)
