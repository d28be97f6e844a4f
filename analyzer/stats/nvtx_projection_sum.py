"""`nvtx_gpu_proj_sum`: NVTX ranges projected onto the GPU, by name and style.

Source: the ranges of `nvtx_events` whose end names no thread of its own, and the kernels, copies and memsets of the
trace with their calls in `api_calls` (same correlation id, same process).

An operation belongs to a range when its whole call, start and end, lies inside the range on the same thread; a call
that straddles the end of a range belongs only to the ranges around it. The projection of a range runs from the
first start to the last end of its operations: a span, in which the GPU may also have idled. Ranges without an
operation are left out, and so are ranges without a name. A range that was never closed ends at the latest time of
any NVTX range (in `nvtx_sum`: of any NVTX event).

- Total Proj Time, Proj Avg, Med, Min, Max, StdDev: of the projections.
- Total Range Time: of the ranges themselves, on the CPU.
- Total and Avg GPU Ops: different correlation ids, so a graph launch is one operation.
- Avg Range Lvl and Avg Num Child: the parent of a range is the shortest range around it on its thread, of either
  style; the level is the number of parents above, and a child is a range whose parent it is. Ranges with equal
  bounds are each other's parents, and neither they nor those inside them have a level. Among parents of equal
  length to the nanosecond the first row is taken; in large traces NVIDIA's choice there is arbitrary.

Order: total projected time descending, then name, then style.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from ..intervals import Index, Int64, Intervals
from ..trace import Trace
from ._aggregate import rounded, statistics
from ._chains import NONE, chains, depths, smallest_container, window_minimum
from ._nvtx_ranges import nvtx_ranges
from ._process import process_of
from ._report import Report, StatsColumn

_OPERATION_TABLES = ("kernels", "memcpys", "memsets")


def nvtx_projection_sum(trace: Trace) -> pl.DataFrame:
    """Return the projections of NVTX ranges by name and style."""
    projections = nvtx_projections(trace).filter(pl.col("range_name").is_not_null())
    groups = (
        projections.with_columns(
            (pl.col("projected_end_ns") - pl.col("projected_start_ns")).alias("projected_ns"),
            (pl.col("end_ns") - pl.col("start_ns")).alias("range_ns"),
        )
        .group_by("range_name", "style")
        .agg(
            pl.len().cast(pl.Int64).alias("Range Instances"),
            pl.col("range_ns").sum().alias("Total Range Time (ns)"),
            pl.col("operation_count").sum().alias("Total GPU Ops"),
            pl.col("operation_count").mean().alias("Avg GPU Ops"),
            pl.col("level").mean().alias("Avg Range Lvl"),
            pl.col("child_count").mean().alias("Avg Num Child"),
            *statistics("projected_ns"),
        )
        .sort(["projected_ns_total", "range_name", "style"], descending=[True, False, False])
    )
    table = groups.rename(
        {
            "range_name": "Range",
            "style": "Style",
            "projected_ns_total": "Total Proj Time (ns)",
            "projected_ns_mean": "Proj Avg (ns)",
            "projected_ns_median": "Proj Med (ns)",
            "projected_ns_min": "Proj Min (ns)",
            "projected_ns_max": "Proj Max (ns)",
            "projected_ns_stdev": "Proj StdDev (ns)",
        }
    ).with_columns(pl.col("Style").cast(pl.String))
    return rounded(table, [column.header for column in _COLUMNS if column.kind == "decimal"])


def nvtx_projections(trace: Trace) -> pl.DataFrame:
    """Return one row per NVTX range that has GPU operations, in the order of the table.

    Returns:
        The columns of `nvtx_ranges`, and `projected_start_ns`, `projected_end_ns`, `operation_count`, `level` (null
        where a cycle of equal ranges leaves it undefined) and `child_count`.
    """
    ranges = nvtx_ranges(trace, open_until="last_range").filter(pl.col("end_global_tid").is_null())
    ranges = ranges.drop_nulls(["global_tid", "end_ns"])
    launches = _launches(trace)
    threads = launches["global_tid"].unique()
    ranges = ranges.filter(pl.col("global_tid").is_in(threads.implode()))
    projected = np.zeros((len(ranges), 3), np.int64)
    level = np.full(len(ranges), -1, np.int64)
    children = np.zeros(len(ranges), np.int64)
    rows_of = _rows_by_thread(ranges)
    launches_of = _rows_by_thread(launches)
    range_bounds = Intervals(ranges["start_ns"].to_numpy(), ranges["end_ns"].to_numpy())
    launch_bounds = Intervals(launches["start_ns"].to_numpy(), launches["end_ns"].to_numpy())
    work = launches.select("operations_start_ns", "operations_end_ns", "weight").to_numpy()
    for thread, rows in rows_of.items():
        mine = launches_of[thread]
        projected[rows] = _project(_take(range_bounds, rows), _take(launch_bounds, mine), work[mine])
        used = rows[projected[rows, 2] > 0]
        parents = smallest_container(_take(range_bounds, used))
        depth, is_cyclic = depths(parents)
        level[used] = np.where(is_cyclic, -1, depth)
        children[used] = np.bincount(parents[parents >= 0], minlength=len(used))
    return (
        ranges.with_columns(
            pl.Series("projected_start_ns", projected[:, 0]),
            pl.Series("projected_end_ns", projected[:, 1]),
            pl.Series("operation_count", projected[:, 2]),
            pl.Series("level", level),
            pl.Series("child_count", children),
        )
        .filter(pl.col("operation_count") > 0)
        .with_columns(pl.when(pl.col("level") >= 0).then("level"))
    )


def _project(ranges: Intervals, launches: Intervals, work: Int64) -> Int64:
    """Return first operation start, last operation end and number of operations of each range of one thread.

    Args:
        ranges, launches: of one thread.
        work: shape (launches, 3): start and end of the launch's operations, and its weight in the count.
    """
    first_ns = np.full(len(ranges), NONE, np.int64)
    minus_last_ns = np.full(len(ranges), NONE, np.int64)
    operations = np.zeros(len(ranges), np.int64)
    for chain in chains(launches):
        first = np.searchsorted(launches.starts[chain], ranges.starts, side="left")
        stop = np.maximum(np.searchsorted(launches.ends[chain], ranges.ends, side="right"), first)
        first_ns = np.minimum(first_ns, window_minimum(work[chain, 0], first, stop))
        minus_last_ns = np.minimum(minus_last_ns, window_minimum(-work[chain, 1], first, stop))
        before = np.concatenate(([0], np.cumsum(work[chain, 2])))
        operations += before[stop] - before[first]
    return np.stack((first_ns, -minus_last_ns, operations), axis=1)


def _launches(trace: Trace) -> pl.DataFrame:
    """Return what counts as one operation of a range: the calls of one correlation id on one thread.

    The outer ones of nested calls with one id are left out, since a range that contains them contains the inner one.
    Should an id have several calls side by side, a row of weight −1 and without operations spans each neighbouring
    pair, so that the weights inside any range add up to one.

    Returns:
        `global_tid`, `start_ns` and `end_ns` of the call, `operations_start_ns`, `operations_end_ns`, `weight`.
    """
    spans = ("global_pid", "correlation_id", "start_ns", "end_ns")
    operations = (
        pl.concat([trace.table_or_empty(name).select(spans) for name in _OPERATION_TABLES])
        .drop_nulls(["global_pid", "correlation_id"])
        .group_by("global_pid", "correlation_id")
        .agg(pl.col("start_ns").min().alias("operations_start_ns"), pl.col("end_ns").max().alias("operations_end_ns"))
    )
    calls = trace.table_or_empty("api_calls").select(
        process_of("global_tid").alias("global_pid"), "correlation_id", "global_tid", "start_ns", "end_ns"
    )
    launches = (
        calls.join(operations, on=["global_pid", "correlation_id"], how="inner")
        .drop("global_pid")
        .sort(["global_tid", "correlation_id", "start_ns", "end_ns"], descending=[False, False, False, True])
    )
    follower_is_same = (pl.col("global_tid") == pl.col("global_tid").shift(-1)) & (
        pl.col("correlation_id") == pl.col("correlation_id").shift(-1)
    )
    # Each pass removes the calls whose next neighbour lies inside them; calls nest only a few deep.
    while True:
        is_outer = (follower_is_same & (pl.col("end_ns").shift(-1) <= pl.col("end_ns"))).fill_null(False)
        innermost = launches.filter(~is_outer)
        if len(innermost) == len(launches):
            break
        launches = innermost
    pairs = launches.with_columns(pl.col("end_ns").shift(-1)).filter(
        (launches.select(follower_is_same.fill_null(False))).to_series()
    )
    nothing = pl.lit(NONE, pl.Int64)
    columns = ("global_tid", "start_ns", "end_ns", "operations_start_ns", "operations_end_ns", "weight")
    return pl.concat(
        [
            launches.with_columns(weight=pl.lit(1, pl.Int64)).select(columns),
            pairs.with_columns(
                operations_start_ns=nothing, operations_end_ns=-nothing, weight=pl.lit(-1, pl.Int64)
            ).select(columns),
        ]
    )


def _rows_by_thread(frame: pl.DataFrame) -> dict[int, Index]:
    """Return the rows of each thread, ascending."""
    threads = frame["global_tid"].to_numpy()
    order = np.argsort(threads, kind="stable")
    values, counts = np.unique(threads, return_counts=True)
    stops = np.cumsum(counts)
    bounds = zip(values.tolist(), stops - counts, stops, strict=True)
    return {thread: order[first:stop] for thread, first, stop in bounds}


def _take(intervals: Intervals, rows: Index) -> Intervals:
    return Intervals(intervals.starts[rows], intervals.ends[rows])


_COLUMNS = (
    StatsColumn("Range", "text"),
    StatsColumn("Style", "label"),
    StatsColumn("Total Proj Time (ns)", "integer", "GPU projection", "Total"),
    StatsColumn("Total Range Time (ns)", "integer", "CPU range", "Total"),
    StatsColumn("Range Instances", "integer"),
    StatsColumn("Proj Avg (ns)", "decimal", "GPU projection", "Avg"),
    StatsColumn("Proj Med (ns)", "decimal", "GPU projection", "Med"),
    StatsColumn("Proj Min (ns)", "integer", "GPU projection", "Min"),
    StatsColumn("Proj Max (ns)", "integer", "GPU projection", "Max"),
    StatsColumn("Proj StdDev (ns)", "decimal", "GPU projection", "StdDev"),
    StatsColumn("Total GPU Ops", "integer", "GPU operations", "Total"),
    StatsColumn("Avg GPU Ops", "decimal", "GPU operations", "Avg"),
    StatsColumn("Avg Range Lvl", "decimal", "Level", "Avg"),
    StatsColumn("Avg Num Child", "decimal", "Children", "Avg"),
)

REPORTS = (
    Report(
        name="nvtx_gpu_proj_sum",
        title="NVTX ranges projected onto the GPU",
        definition=__doc__ or "",
        columns=_COLUMNS,
        needs=(("nvtx_events",), ("api_calls",), _OPERATION_TABLES),
        compute=nvtx_projection_sum,
        no_rows="no API call that launched GPU work lies inside a named NVTX range of its thread",
        record_with="--trace=cuda,nvtx",
    ),
)
