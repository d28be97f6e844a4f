"""Launch and synchronisation."""

from __future__ import annotations

from nitro.analyzer import Analysis

from .. import numbers
from ..blocks import Block, Column, KeyValues, Table
from ..report import Section

_ROWS = 4


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return launch calls and synchronising calls, with what of them the GPU felt."""
    blocks: list[Block] = []
    exposed = analysis.parts("launch_exposed")
    launches = analysis.table("launch_calls")
    if launches is not None and len(launches.frame):
        columns = ("launch call", "calls", "mean call", "median queue", "thread")
        rows = tuple(
            (
                row["api_call"],
                numbers.count(row["calls"]),
                numbers.duration(row["mean_api_ns"]),
                numbers.duration(row["median_queue_ns"]),
                row["thread"],
            )
            for row in launches.frame.head(_ROWS).iter_rows(named=True)
        )
        blocks.append(_table(columns, rows, left=(0, 4)))
    if exposed:
        total = sum(m.value for m in analysis.measurements if m.metric == "launch_exposed")
        blocks.append(
            KeyValues((("Exposed launch time", f"{numbers.duration(total)} in which a GPU waited for a launch"),))
        )
    syncs = analysis.table("sync_calls")
    if syncs is not None and len(syncs.frame):
        columns = ("synchronising call", "calls", "total", "exposed", "NVTX range")
        rows = tuple(
            (
                row["api_call"],
                numbers.count(row["calls"]),
                numbers.duration(row["total_ns"]),
                numbers.duration(row["exposed_ns"]),
                row["nvtx_path"],
            )
            for row in syncs.frame.head(_ROWS).iter_rows(named=True)
        )
        blocks.append(_table(columns, rows, left=(0, 4)))
    return tuple(blocks)


def _table(titles: tuple[str, ...], rows: tuple[tuple[str, ...], ...], left: tuple[int, ...]) -> Table:
    columns = tuple(
        Column(title, "left" if index in left else "right", flexible=index == 4) for index, title in enumerate(titles)
    )
    return Table(columns, rows)


SECTION = Section("launch_sync", "Launch and synchronisation", 70, build)
