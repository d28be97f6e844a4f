"""Launch and synchronisation."""

from __future__ import annotations

from nitro.analyzer import Analysis
from nitro.analyzer.message import message

from .. import numbers
from ..blocks import Block, Column, KeyValues, Table
from ..names import nvtx_label
from ..report import Section

_SHOWN = 4


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return launch calls and synchronising calls, with what of them the GPU felt."""
    blocks: list[Block] = []
    launches = analysis.table("launch_calls")
    if launches is not None and len(launches.frame):
        columns = (
            Column(message("launch call"), "left", is_name=True),
            Column(message("calls")),
            Column(message("mean call")),
            Column(message("median queue")),
            Column(message("thread"), "left", flexible=True, is_name=True),
        )
        rows = tuple(
            (
                row["api_call"],
                numbers.count(row["calls"]),
                numbers.duration(row["mean_api_ns"]),
                numbers.duration(row["median_queue_ns"]),
                row["thread"],
            )
            for row in launches.frame.iter_rows(named=True)
        )
        note = message("Call: time inside the API call. Queue: from its end to the start of the work on the GPU.")
        blocks.append(Table(columns, rows, note, message("Launch calls"), "launch-calls", shown=_SHOWN))
    if analysis.parts("launch_exposed"):
        total = sum(m.value for m in analysis.measurements if m.metric == "launch_exposed")
        text = message("{time} in which a GPU waited for a launch", time=numbers.duration(total))
        blocks.append(KeyValues(((message("Exposed launch time"), text),)))
    syncs = analysis.table("sync_calls")
    if syncs is not None and len(syncs.frame):
        columns = (
            Column(message("synchronising call"), "left", is_name=True),
            Column(message("calls")),
            Column(message("total")),
            Column(message("exposed")),
            Column(message("NVTX range"), "left", flexible=True, is_name=True),
        )
        rows = tuple(
            (
                row["api_call"],
                numbers.count(row["calls"]),
                numbers.duration(row["total_ns"]),
                numbers.duration(row["exposed_ns"]),
                nvtx_label(row["nvtx_path"]),
            )
            for row in syncs.frame.iter_rows(named=True)
        )
        note = message("Exposed: the part in which the GPU had nothing to do.")
        blocks.append(Table(columns, rows, note, message("Synchronising calls"), "sync-calls", shown=_SHOWN))
    return tuple(blocks)


SECTION = Section("launch_sync", message("Launch and synchronisation"), 55, build)
