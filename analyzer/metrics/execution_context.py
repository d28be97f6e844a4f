"""Execution-context duration: how long one inference occupies launch queue and GPU."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..intervals import Int64
from ..message import message
from ..metric import GPU_TABLES, NO_GPU_OPERATIONS, Measurement, Metric, NotMeasured, Result
from ..operations import NO_ROW
from ..view import View

_ENQUEUE = "ExecutionContext::enqueue"
_NOT_MARKED = message(
    "neither TensorRT enqueue ranges nor iterations marked by NVTX were found, so no inference can be told from another"
)
_PERCENTILES = (50, 90, 99)


def compute(view: View) -> Iterator[Result]:
    """Time from the first launch call to the last end of GPU work of one inference.

    An inference is a TensorRT `ExecutionContext::enqueue` range where the trace has them, else an iteration marked by
    an NVTX range. Counted are those whose GPU work begins inside the window; where none does, all of the capture. It
    grows with everything that shares the GPU, which makes it the number to watch when several processes run.
    """
    if not view.devices:
        yield NotMeasured("execution_context_duration", NO_GPU_OPERATIONS)
        return
    ranges, projections = view.ranges, view.projections
    enqueue = np.array([name.endswith(_ENQUEUE) for name in ranges.names] or [False])
    rows = np.flatnonzero(enqueue[ranges.name] & (projections.operations > 0)) if len(ranges) else np.empty(0, np.intp)
    by = "TensorRT enqueue"
    if not len(rows):
        by = "iteration"
        marked = [iteration for iteration in view.window.iterations if iteration.cpu_start_ns is not None]
        names = {(iteration.cpu_start_ns, iteration.cpu_end_ns) for iteration in marked}
        pairs = zip(ranges.starts.tolist(), ranges.ends.tolist(), strict=True)
        rows = np.flatnonzero([pair in names for pair in pairs]) if names else rows
    inside = (projections.starts[rows] >= view.window.start_ns) & (projections.starts[rows] < view.window.end_ns)
    rows = rows[inside] if inside.any() else rows
    if not len(rows):
        yield NotMeasured("execution_context_duration", _NOT_MARKED)
        return
    durations = projections.ends[rows] - _first_launch(view, rows)
    for percentile in _PERCENTILES:
        value = float(np.percentile(durations, percentile))
        yield Measurement("execution_context_duration", value, "ns", by=f"{by} p{percentile}", count=len(rows))
    mean = float(durations.mean())
    yield Measurement("execution_context_duration", mean, "ns", by=f"{by} mean", count=len(rows))


def _first_launch(view: View, rows: Int64) -> Int64:
    """Return the start of the first launch call inside each range, which has one."""
    ranges = view.ranges
    first = np.zeros(len(rows), np.int64)
    for global_tid in np.unique(ranges.thread[rows]):
        mine = ranges.thread[rows] == global_tid
        own = (view.operations.launch != NO_ROW) & (view.call_threads == global_tid)
        calls = np.sort(view.calls.starts[own])
        first[mine] = calls[np.searchsorted(calls, ranges.starts[rows][mine], side="left")]
    return first


METRIC = Metric(
    id="execution_context_duration",
    title=message("Execution-context duration"),
    provides={"execution_context_duration": "ns"},
    needs=GPU_TABLES,
    missing=NO_GPU_OPERATIONS,
    better="lower",
    reference=message("arXiv 2508.08430, kernel level: execution-context duration"),
    compute=compute,
    order=9,
)
