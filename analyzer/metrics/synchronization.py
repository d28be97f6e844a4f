"""Synchronisation: who waited, where, and for how long the GPU had nothing to do meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from ..causes import Cause, class_of_call
from ..distinct import distinct
from ..intervals import Int64, Intervals, clip, covered_before
from ..message import message
from ..metric import (
    NO_API_CALLS,
    NO_GPU_OPERATIONS,
    Measurement,
    Metric,
    NotMeasured,
    Result,
    ResultColumn,
    ResultTable,
)
from ..operations import NO_ROW
from ..tables import enum_texts
from ..threads import outermost
from ..view import OUTSIDE_NVTX, View
from ._names import call_name, thread_name

_COLUMNS = (
    ResultColumn("api_call", "", message("the outermost synchronising call, without version suffix")),
    ResultColumn("thread", "", message("process and thread that waited")),
    ResultColumn("nvtx_path", "", message("innermost NVTX range in which the call began")),
    ResultColumn("calls", "1", message("calls that touch the window")),
    ResultColumn("total_ns", "ns", message("summed time inside the window")),
    ResultColumn("mean_ns", "ns", message("mean time of a call inside the window")),
    ResultColumn("max_ns", "ns", message("longest time of a call inside the window")),
    ResultColumn("exposed_ns", "ns", message("part of the total in which no chosen GPU ran anything")),
)


@dataclass(frozen=True, slots=True)
class _Waits:
    """Outermost synchronising calls of one thread, clipped to the window."""

    spans: Intervals
    begins: Int64
    rows: npt.NDArray[np.intp]


def compute(view: View) -> Iterator[Result]:
    """Time that threads spent in synchronising CUDA calls inside the window.

    A call synchronises if its name contains `Synchronize`; of nested calls the outermost counts. `sync_time` is by
    process and thread, `sync_exposed` the part of it in which no chosen GPU ran anything: the rest only waited for
    work that had to be done. Both are clipped to the window. `sync_calls` is a table by call, thread and NVTX path.

    `sync_drained_time`, by device, is the idle time of gaps that begin while the thread which launches the next
    operation is inside a synchronising call: without the wait it could have queued that operation before. Such a gap
    lasts beyond the call, through host code and the next launch, and all of it counts.
    """
    api_calls = view.trace.api_calls
    if api_calls is None or not len(view.operations):
        reason = NO_API_CALLS if api_calls is None else NO_GPU_OPERATIONS
        yield from (NotMeasured(name, reason) for name in METRIC.provides)
        return
    yield from _drained(view)
    names = api_calls["name"]
    synchronizing = [class_of_call(name) is Cause.SYNCHRONIZATION for name in enum_texts(names)]
    codes = names.to_physical().cast(pl.Int64).fill_null(len(synchronizing)).to_numpy()
    rows = np.flatnonzero(np.array([*synchronizing, False])[codes])
    rows = rows[api_calls["end_ns"].to_numpy()[rows] > view.window.start_ns]
    rows = rows[api_calls["start_ns"].to_numpy()[rows] < view.window.end_ns]
    chosen = api_calls[rows]
    frames = []
    for global_tid in chosen["global_tid"].unique().sort().to_list():
        if not view.counts_thread(global_tid):
            continue
        mine = np.flatnonzero(chosen["global_tid"].to_numpy() == global_tid)
        waits = _waits_of(view, chosen[mine])
        exposed = _exposed(view, waits.spans)
        by = thread_name(global_tid)
        yield Measurement("sync_time", waits.spans.total, "ns", by=by, count=len(waits.spans))
        yield Measurement("sync_exposed", int(exposed.sum()), "ns", by=by, count=len(waits.spans))
        path = view.ranges.path_at(global_tid, waits.begins)
        frames.append(
            pl.DataFrame(
                {
                    "name": chosen[mine[waits.rows]]["name"],
                    "global_tid": np.full(len(waits.rows), global_tid, np.int64),
                    "nvtx_path": [view.ranges.paths[p] if p >= 0 else OUTSIDE_NVTX for p in path.tolist()],
                    "waited_ns": waits.spans.ends - waits.spans.starts,
                    "exposed_ns": exposed,
                }
            )
        )
    if not frames:
        yield Measurement("sync_time", 0, "ns", count=0)
        yield Measurement("sync_exposed", 0, "ns", count=0)
        return
    yield ResultTable("sync_calls", message("Synchronising calls"), _COLUMNS, _table(pl.concat(frames)))


def _drained(view: View) -> Iterator[Result]:
    for device in view.devices:
        gaps = device.gaps
        followed = np.flatnonzero(gaps.ended_by != NO_ROW)
        threads = device.launching_threads[gaps.ended_by[followed]]
        total = count = 0
        for global_tid in distinct(threads):
            if not global_tid:
                continue
            mine = followed[threads == global_tid]
            calls = view.activity.calls(global_tid)
            waits = calls.codes == Cause.SYNCHRONIZATION
            starts, ends = calls.spans.starts[waits], calls.spans.ends[waits]
            if not len(starts):
                continue
            row = np.searchsorted(starts, gaps.begins[mine], side="right") - 1
            inside = (row >= 0) & (ends[np.maximum(row, 0)] > gaps.begins[mine])
            total += int((gaps.ends[mine] - gaps.starts[mine])[inside].sum())
            count += int(inside.sum())
        yield Measurement("sync_drained_time", total, "ns", device.device_id, count=count)


def _waits_of(view: View, calls: pl.DataFrame) -> _Waits:
    starts, ends = calls["start_ns"].to_numpy(), calls["end_ns"].to_numpy()
    spans, rows = outermost(starts, ends)
    return _Waits(clip(spans.starts, spans.ends, view.window.start_ns, view.window.end_ns), starts[rows], rows)


def _exposed(view: View, spans: Intervals) -> Int64:
    busy = view.busy_anywhere
    return (spans.ends - spans.starts) - (covered_before(busy, spans.ends) - covered_before(busy, spans.starts))


def _table(waits: pl.DataFrame) -> pl.DataFrame:
    grouped = waits.group_by("name", "global_tid", "nvtx_path").agg(
        pl.len().cast(pl.Int64).alias("calls"),
        pl.col("waited_ns").sum().alias("total_ns"),
        pl.col("waited_ns").mean().alias("mean_ns"),
        pl.col("waited_ns").max().alias("max_ns"),
        pl.col("exposed_ns").sum(),
    )
    return (
        grouped.with_columns(call_name("name").alias("api_call"), thread_name("global_tid").alias("thread"))
        .sort(["total_ns", "api_call", "thread", "nvtx_path"], descending=[True, False, False, False])
        .select(column.name for column in _COLUMNS)
    )


METRIC = Metric(
    id="sync_time",
    title=message("Synchronisation"),
    provides={"sync_time": "ns", "sync_exposed": "ns", "sync_drained_time": "ns", "sync_calls": "table"},
    needs=("api_calls",),
    missing=NO_API_CALLS,
    better="lower",
    reference=message("Nitro"),
    compute=compute,
    order=50,
)
