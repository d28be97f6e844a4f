"""Top NVTX phases: CPU range and GPU projection side by side."""

from __future__ import annotations

import polars as pl

from nitro.analyzer import Analysis

from .. import numbers
from ..blocks import Block, Column, Paragraph, Table
from ..report import Section

_SHOWN = 8
_DEEPEST = 1
_COLUMNS = (
    Column("range", "left", flexible=True),
    Column("count"),
    Column("CPU mean"),
    Column("projection mean"),
    Column("GPU busy in it"),
    Column("operations"),
)


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return the phases of the window, and those outside it where the window has none."""
    table = analysis.table("nvtx_phases")
    if table is None:
        return ()
    inside = table.frame.filter(pl.col("in_window"))
    outside = table.frame.filter(~pl.col("in_window"))
    blocks: list[Block] = []
    if len(inside):
        blocks.append(_table(inside))
        if len(outside) and not len(inside.filter(pl.col("with_gpu_work") > 0)):
            blocks += [Paragraph("Outside the window:"), _table(outside)]
    elif len(outside):
        blocks += [Paragraph("No range lies inside the window. Outside of it:"), _table(outside)]
    return tuple(blocks)


def _table(frame: pl.DataFrame) -> Table:
    """Show the outer two levels: most GPU work first chosen, then most CPU time, in the order of their begin."""
    outer = frame.filter(pl.col("depth") <= _DEEPEST)
    ranked = outer.sort(["operation_time_ns", "cpu_total_ns", "nvtx_path"], descending=[True, True, False]).head(_SHOWN)
    ranked = ranked.sort("first_start_ns", "depth")
    rows = tuple(
        (
            _indented(row["nvtx_path"], ranked["nvtx_path"].to_list()),
            numbers.count(row["count"]),
            numbers.duration(row["cpu_mean_ns"]),
            numbers.duration(row["projection_mean_ns"]),
            numbers.percent(row["gpu_busy_ratio"]),
            numbers.count(row["operations"]),
        )
        for row in ranked.iter_rows(named=True)
    )
    more = len(frame) - len(ranked)
    return Table(_COLUMNS, rows, f"{more:,} more ranges are in the JSON and CSV output." if more > 0 else "")


def _indented(path: str, shown: list[str]) -> str:
    """Show a range below its parent by its own name, else by its whole path."""
    parent, separator, name = path.rpartition(" > ")
    if not separator:
        return path
    return "  " * path.count(" > ") + name if parent in shown else path


SECTION = Section("phases", "NVTX phases", 60, build)
