"""Launches: the time of the calls, the wait in the queue, and what of it the GPU felt."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from ..causes import Cause
from ..metric import GPU_TABLES, NO_GPU_OPERATIONS, Measurement, Metric, NotMeasured, Result, ResultColumn, ResultTable
from ..operations import NO_ROW
from ..view import View
from ._names import call_name, thread_name

_NO_LAUNCH = "no GPU operation has an API call in the trace, so launches cannot be timed"
_COLUMNS = (
    ResultColumn("api_call", "", "the outermost call, without version suffix"),
    ResultColumn("thread", "", "process and thread"),
    ResultColumn("calls", "1", "calls that submitted work which begins inside the window"),
    ResultColumn("operations", "1", "GPU operations that they submitted; a graph launch counts once"),
    ResultColumn("api_ns", "ns", "summed duration of the calls"),
    ResultColumn("mean_api_ns", "ns", "mean duration of a call"),
    ResultColumn("median_queue_ns", "ns", "median time from the end of the call to the start of the operation"),
    ResultColumn("max_queue_ns", "ns", "longest such time"),
)


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
    queue = np.maximum(operations.starts[counted] - view.calls.ends[counted], 0)
    launched = pl.DataFrame({"row": operations.launch[counted], "queue_ns": queue})
    by_call = launched.group_by("row").agg(pl.len().alias("operations"), pl.col("queue_ns").max())
    calls = api_calls[by_call["row"].to_numpy()].select("global_tid", "name", "start_ns", "end_ns")
    calls = calls.with_columns(by_call["operations"], by_call["queue_ns"])
    api_ns = (pl.col("end_ns") - pl.col("start_ns")).sum().alias("api_ns")
    by_thread = calls.group_by("global_tid").agg(api_ns, pl.len().alias("calls")).sort("global_tid")
    queue_by_thread = np.unique(view.call_threads[counted], return_inverse=True)
    waited = np.bincount(queue_by_thread[1], weights=queue)
    for global_tid, api, count in by_thread.iter_rows():
        yield Measurement("launch_api_time", api, "ns", by=thread_name(global_tid), count=count)
        total = int(waited[np.searchsorted(queue_by_thread[0], global_tid)])
        yield Measurement("launch_queue_time", total, "ns", by=thread_name(global_tid), count=count)
    for device in view.devices:
        idle = device.idle
        for cause in (Cause.LAUNCH_CALL, Cause.LAUNCH_LATENCY):
            value, pieces = int(idle.total_ns[cause]), int(idle.pieces[cause])
            yield Measurement("launch_exposed", value, "ns", device.device_id, by=cause.id, count=pieces)
    yield ResultTable("launch_calls", "Launch calls", _COLUMNS, _table(calls))


def _table(calls: pl.DataFrame) -> pl.DataFrame:
    api_ns = pl.col("end_ns") - pl.col("start_ns")
    grouped = calls.group_by("name", "global_tid").agg(
        pl.len().cast(pl.Int64).alias("calls"),
        pl.col("operations").sum().cast(pl.Int64),
        api_ns.sum().alias("api_ns"),
        api_ns.mean().alias("mean_api_ns"),
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
    title="Launches",
    provides=("launch_api_time", "launch_queue_time", "launch_exposed", "launch_calls"),
    needs=GPU_TABLES,
    missing=NO_GPU_OPERATIONS,
    better="lower",
    reference="API and queue time as in nsys `cuda_kern_exec_sum`, with one call for each operation",
    compute=compute,
    order=40,
)
