"""NVTX phases: the CPU range and its projection on the GPU side by side."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from ..intervals import covered_before, union
from ..message import message
from ..metric import Metric, NotMeasured, Result, ResultColumn, ResultTable
from ..operations import Operations
from ..view import View

_NO_NVTX = message(
    "the trace has no NVTX ranges; mark phases with torch.cuda.nvtx.range_push or nvtx.annotate and record with "
    "--trace=cuda,nvtx"
)
_COLUMNS = (
    ResultColumn("nvtx_path", "", message("range with those around it; a counter at the end of a name is shown as #")),
    ResultColumn("depth", "1", message("ranges around it")),
    ResultColumn("in_window", "", message("whether these instances belong to the window; others are listed apart")),
    ResultColumn("count", "1", message("instances")),
    ResultColumn("first_start_ns", "ns", message("start of the first instance")),
    ResultColumn("cpu_total_ns", "ns", message("summed length of the CPU ranges")),
    ResultColumn("cpu_mean_ns", "ns", message("mean length of the CPU range")),
    ResultColumn("with_gpu_work", "1", message("instances that launched GPU work")),
    ResultColumn("projection_mean_ns", "ns", message("mean length of the projection, over instances with GPU work")),
    ResultColumn("operations", "1", message("GPU operations launched in it; a graph launch counts once")),
    ResultColumn("operation_time_ns", "ns", message("summed duration of these operations")),
    ResultColumn("gpu_busy_ratio", "ratio", message("part of the projections in which any chosen GPU was busy")),
)


def compute(view: View) -> Iterator[Result]:
    """NVTX ranges by path, CPU range and projection side by side.

    The projection of a range runs from the first start to the last end of the GPU operations whose launch call lies
    inside it on the same thread; the CPU range often ends long before. An instance belongs to the window if its
    projection, or without GPU work its CPU range, begins in it. `operation_time_ns` sums over nested ranges too, so
    the rows of different depths overlap. `gpu_busy_ratio` counts any work of the chosen GPUs, also of other phases
    that run at the same time.
    """
    ranges = view.ranges
    if not len(ranges):
        yield NotMeasured("nvtx_phases", _NO_NVTX)
        return
    projections = view.projections
    has_work = projections.operations > 0
    begins = np.where(has_work, projections.starts, ranges.starts)
    window = view.window
    inside = (begins >= window.start_ns) & (begins < window.end_ns)
    lengths = np.where(has_work, projections.ends - projections.starts, 0)
    frame = pl.DataFrame(
        {
            "path": ranges.path,
            "depth": ranges.depth.astype(np.int64),
            "in_window": inside,
            "start_ns": ranges.starts,
            "cpu_ns": ranges.ends - ranges.starts,
            "has_work": has_work,
            "projection_ns": lengths,
            "operations": projections.operations,
            "operation_time_ns": projections.operation_time,
            "busy_ns": _busy_inside(view.operations, projections.starts, projections.ends),
        }
    )
    if view.scope.pids is not None:
        chosen = np.array([view.counts_thread(tid) for tid in ranges.thread.tolist()], np.bool_)
        frame = frame.filter(chosen)
    work = pl.col("projection_ns").filter(pl.col("has_work"))
    grouped = frame.group_by("path", "in_window").agg(
        pl.col("depth").first(),
        pl.len().cast(pl.Int64).alias("count"),
        pl.col("start_ns").min().alias("first_start_ns"),
        pl.col("cpu_ns").sum().alias("cpu_total_ns"),
        pl.col("cpu_ns").mean().alias("cpu_mean_ns"),
        pl.col("has_work").sum().cast(pl.Int64).alias("with_gpu_work"),
        work.mean().alias("projection_mean_ns"),
        pl.col("operations").sum(),
        pl.col("operation_time_ns").sum(),
        (pl.col("busy_ns").sum() / work.sum()).alias("gpu_busy_ratio"),
    )
    paths = pl.Series("paths", ranges.paths, dtype=pl.String)
    grouped = grouped.with_columns(
        paths.gather(grouped["path"]).alias("nvtx_path"),
        pl.when(pl.col("with_gpu_work") > 0).then(pl.col("gpu_busy_ratio")),
    ).sort(
        ["in_window", "depth", "operation_time_ns", "first_start_ns", "nvtx_path"],
        descending=[True, False, True, False, False],
    )
    yield ResultTable(
        "nvtx_phases", message("NVTX phases"), _COLUMNS, grouped.select(column.name for column in _COLUMNS)
    )


def _busy_inside(operations: Operations, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    busy = union(operations.starts, operations.ends)
    return covered_before(busy, ends) - covered_before(busy, starts)


METRIC = Metric(
    id="nvtx_phases",
    title=message("NVTX phases"),
    provides={"nvtx_phases": "table"},
    needs=("nvtx_events",),
    missing=_NO_NVTX,
    better="neither",
    reference=message("projection as in nsys `nvtx_gpu_proj_sum`, with one call for each operation"),
    compute=compute,
    order=25,
)
