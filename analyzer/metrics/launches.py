"""Launches: the time of the calls, the wait in the queue, and what of it the GPU felt."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import polars as pl

from ..causes import Cause
from ..message import message
from ..metric import GPU_TABLES, NO_GPU_OPERATIONS, Measurement, Metric, NotMeasured, Result, ResultColumn, ResultTable
from ..operations import NO_ROW
from ..view import View
from ._names import call_name, thread_name

_NO_LAUNCH = message("no GPU operation has an API call in the trace, so launches cannot be timed")
_COLUMNS = (
    ResultColumn("api_call", "", message("the outermost call, without version suffix")),
    ResultColumn("thread", "", message("process and thread")),
    ResultColumn("calls", "1", message("calls that submitted work which begins inside the window")),
    ResultColumn("operations", "1", message("GPU operations that they submitted; a graph launch counts once")),
    ResultColumn("api_ns", "ns", message("summed duration of the calls")),
    ResultColumn("mean_api_ns", "ns", message("mean duration of a call")),
    ResultColumn(
        "median_queue_ns", "ns", message("median time from the end of the call to the start of the operation")
    ),
    ResultColumn("max_queue_ns", "ns", message("longest such time")),
)
_API_NS = pl.col("api_ns").sum()
_QUEUE_SUM = pl.col("queue_sum_ns").sum()


def compute(view: View) -> Iterator[Result]:
    """Calls that submitted GPU work which begins inside the window, each joined once, by its outermost call.

    - `launch_api_time`: summed duration of these calls, by process and thread (`count` = calls).
    - `launch_queue_time`: summed time from the end of the call to the start of its operation, 0 where the operation
      began before the call returned. Time in the queue behind running work is no loss.
    - `launch_exposed`: idle time of the device with cause `launch_call` or `launch_latency`: what the GPU really
      waited for launches. By device.
    - `launch_calls`: a table by call and thread.
    """
    operations = view.operations
    if not len(operations):
        yield from (NotMeasured(name, NO_GPU_OPERATIONS) for name in METRIC.provides)
        return
    counted = view.starts_in_window & (operations.launch != NO_ROW)
    api_calls = view.trace.api_calls
    if api_calls is None or not counted.any():
        yield from (NotMeasured(name, _NO_LAUNCH) for name in METRIC.provides)
        return
    calls = _calls(view, api_calls, counted)
    for key in calls.group_by("global_tid").agg(_API_NS, _QUEUE_SUM, pl.len()).sort("global_tid").iter_rows():
        global_tid, api, queue, count = key
        yield Measurement("launch_api_time", api, "ns", by=thread_name(global_tid), count=count)
        yield Measurement("launch_queue_time", queue, "ns", by=thread_name(global_tid), count=count)
    for device in view.devices:
        idle = device.idle
        for cause in (Cause.LAUNCH_CALL, Cause.LAUNCH_LATENCY):
            value, pieces = int(idle.total_ns[cause]), int(idle.pieces[cause])
            yield Measurement("launch_exposed", value, "ns", device.device_id, by=cause.id, count=pieces)
    yield ResultTable("launch_calls", message("Launch calls"), _COLUMNS, _table(calls))


def _calls(view: View, api_calls: pl.DataFrame, counted: npt.NDArray[np.bool_]) -> pl.DataFrame:
    """Return one row per submitting call: thread, name, duration, and of its operations number and queue time."""
    launch = view.operations.launch[counted]
    queue = np.maximum(view.operations.starts[counted] - view.calls.ends[counted], 0)
    if not (launch[1:] > launch[:-1]).all():
        order = np.argsort(launch, kind="stable")
        launch, queue = launch[order], queue[order]
    first = np.flatnonzero(np.concatenate(([True], launch[1:] != launch[:-1])))
    rows = launch[first]
    return pl.DataFrame(
        {
            "global_tid": api_calls["global_tid"].gather(rows),
            "name": api_calls["name"].gather(rows),
            "api_ns": (api_calls["end_ns"].to_numpy() - api_calls["start_ns"].to_numpy())[rows],
            "operations": np.diff(np.append(first, len(launch))),
            "queue_ns": np.maximum.reduceat(queue, first),
            "queue_sum_ns": np.add.reduceat(queue, first),
        }
    )


def _table(calls: pl.DataFrame) -> pl.DataFrame:
    grouped = calls.group_by("name", "global_tid").agg(
        pl.len().cast(pl.Int64).alias("calls"),
        pl.col("operations").sum().cast(pl.Int64),
        _API_NS,
        pl.col("api_ns").mean().alias("mean_api_ns"),
        pl.col("queue_ns").median().alias("median_queue_ns"),
        pl.col("queue_ns").max().alias("max_queue_ns"),
    )
    return (
        grouped.with_columns(call_name("name").alias("api_call"), thread_name("global_tid").alias("thread"))
        .sort(["api_ns", "api_call", "thread"], descending=[True, False, False])
        .select(column.name for column in _COLUMNS)
    )


METRIC = Metric(
    id="launch_api_time",
    title=message("Launches"),
    provides={"launch_api_time": "ns", "launch_queue_time": "ns", "launch_exposed": "ns", "launch_calls": "table"},
    needs=GPU_TABLES,
    missing=NO_GPU_OPERATIONS,
    better="lower",
    reference=message("API and queue time as in nsys `cuda_kern_exec_sum`, with one call for each operation"),
    compute=compute,
    order=40,
)
