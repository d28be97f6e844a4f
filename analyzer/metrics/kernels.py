"""The kernel table and the graph table."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from ..kernel_names import KERNEL_NAME, NAME_LOST, known_names
from ..message import message
from ..metric import NO_GPU_OPERATIONS, Metric, NotMeasured, Result, ResultColumn, ResultTable
from ..operations import TABLE_OF_KIND, Kind
from ..view import DeviceView, View

_TIMES = (
    ResultColumn("count", "1", message("executions that run or begin inside the window")),
    ResultColumn("total_ns", "ns", message("summed time inside the window")),
    ResultColumn("share", "ratio", message("of the summed time of all kernels, graphs, copies and memsets")),
    ResultColumn("mean_ns", "ns", message("mean duration of whole executions, as are the columns up to max")),
    ResultColumn("median_ns", "ns", message("median")),
    ResultColumn("min_ns", "ns", message("minimum")),
    ResultColumn("lower_quartile_ns", "ns", message("25th percentile, linear between order statistics")),
    ResultColumn("upper_quartile_ns", "ns", message("75th percentile")),
    ResultColumn("max_ns", "ns", message("maximum")),
    ResultColumn("standard_deviation_ns", "ns", message("of a sample (n - 1); null for a single execution")),
)
_KERNEL_COLUMNS = (
    ResultColumn("name", "", message("full name; the function name, or (name lost), where the export lost it")),
    ResultColumn("short_name", "", message("function name")),
    *_TIMES,
    ResultColumn("shapes", "1", message("different launch shapes (grid and block)")),
    ResultColumn("grid", "", message("thread blocks x, y, z of the most frequent launch shape")),
    ResultColumn("block", "", message("threads x, y, z of the most frequent launch shape")),
    ResultColumn("registers_per_thread", "1", message("highest over the executions")),
    ResultColumn("shared_memory_bytes", "bytes", message("static and dynamic, per block, highest over the executions")),
)
_GRAPH_COLUMNS = (
    ResultColumn("graph_id", "1", message("graph, as CUPTI numbers it")),
    ResultColumn("graph_exec_id", "1", message("instantiated graph")),
    *_TIMES,
)
_GRAPH_KEYS = ("graph_id", "graph_exec_id")
_SHAPE = ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z")
_SHARED_MEMORY = pl.col("static_shared_memory_bytes") + pl.col("dynamic_shared_memory_bytes")
_KERNEL_KEYS = (
    "short_name",
    *_SHAPE,
    "registers_per_thread",
    _SHARED_MEMORY.alias("shared_memory_bytes"),
)


def compute(view: View) -> Iterator[Result]:
    """Every kernel by its full name, and every CUDA graph traced as a whole, the longest total first.

    Counted are executions that run or begin inside the window. `total_ns` is clipped to the window, so the totals
    add up to `kernel_time_sum` and `graph_time_sum`; the other statistics are over whole executions.
    """
    if not view.devices:
        yield from (NotMeasured(name, NO_GPU_OPERATIONS) for name in METRIC.provides)
    for device in view.devices:
        work = sum(device.time_of(kind) for kind in Kind)
        kernels = _executions(device, Kind.KERNEL)
        if kernels is not None:
            yield ResultTable("kernels", message("Kernels"), _KERNEL_COLUMNS, _kernels(kernels, work), device.device_id)
        graphs = _executions(device, Kind.GRAPH)
        if graphs is not None:
            frame = _times(graphs, list(_GRAPH_KEYS), work)
            yield ResultTable("graphs", message("CUDA graphs"), _GRAPH_COLUMNS, frame, device.device_id)


def _executions(device: DeviceView, kind: Kind) -> pl.DataFrame | None:
    """Return the table's rows that count, with what the statistics need and no other column."""
    table = device.view.trace.table(TABLE_OF_KIND[kind])
    counted = device.touching(kind)
    if table is None or not counted.any():
        return None
    start, end = pl.col("start_ns"), pl.col("end_ns")
    columns = (
        *(_GRAPH_KEYS if kind is Kind.GRAPH else (known_names(table), *_KERNEL_KEYS)),
        (end - start).alias("duration_ns"),
        (end.clip(device.low, device.high) - start.clip(device.low, device.high)).alias("inside_ns"),
    )
    keep = np.zeros(len(table), np.bool_)
    keep[device.operations.row[counted]] = True
    selected = table.select(columns)
    return selected if keep.all() else selected.filter(keep)


def _statistics() -> list[pl.Expr]:
    duration = pl.col("duration_ns")
    return [
        pl.len().cast(pl.Int64).alias("count"),
        pl.col("inside_ns").sum().alias("total_ns"),
        duration.mean().alias("mean_ns"),
        duration.median().alias("median_ns"),
        duration.min().alias("min_ns"),
        duration.quantile(0.25, "linear").alias("lower_quartile_ns"),
        duration.quantile(0.75, "linear").alias("upper_quartile_ns"),
        duration.max().alias("max_ns"),
        duration.std().alias("standard_deviation_ns"),
    ]


def _times(rows: pl.DataFrame, keys: list[str], work: int, *more: pl.Expr) -> pl.DataFrame:
    grouped = rows.group_by(keys).agg(*_statistics(), *more)
    share = (pl.col("total_ns") / max(work, 1)).alias("share")
    names = [column.name for column in _TIMES]
    extra = [name for name in grouped.columns if name not in names and name not in keys]
    grouped = grouped.with_columns(share).select(*keys, *names, *extra)
    return grouped.sort(["total_ns", "count", *keys], descending=[True, False, *([False] * len(keys))])


def _kernels(rows: pl.DataFrame, work: int) -> pl.DataFrame:
    frame = _times(
        rows,
        [KERNEL_NAME],
        work,
        pl.col("short_name").first(),
        pl.col("registers_per_thread").max(),
        pl.col("shared_memory_bytes").max(),
    )
    shapes = (
        rows.group_by(KERNEL_NAME, *_SHAPE)
        .agg(pl.len().alias("launches"))
        .sort("launches", *_SHAPE, descending=[True, *([False] * len(_SHAPE))])
        .group_by(KERNEL_NAME, maintain_order=True)
        .agg(pl.len().cast(pl.Int64).alias("shapes"), *(pl.col(name).first() for name in _SHAPE))
    )
    frame = frame.join(shapes, on=KERNEL_NAME, how="left", nulls_equal=True, maintain_order="left")
    return frame.select(
        pl.col(KERNEL_NAME).cast(pl.String).fill_null(NAME_LOST).alias("name"),
        pl.col("short_name").cast(pl.String).fill_null(NAME_LOST),
        *(column.name for column in _TIMES),
        "shapes",
        pl.concat_str(_SHAPE[:3], separator=" x ").alias("grid"),
        pl.concat_str(_SHAPE[3:], separator=" x ").alias("block"),
        "registers_per_thread",
        "shared_memory_bytes",
    )


METRIC = Metric(
    id="kernels",
    title=message("Kernels and graphs"),
    provides={"kernels": "table", "graphs": "table"},
    needs=("kernels", "graph_launches"),
    missing=message("the trace has neither kernels nor graph launches; record with `nsys profile --trace=cuda`"),
    better="neither",
    reference=message("columns as in nsys `cuda_gpu_kern_sum`, but inside the window and by device"),
    compute=compute,
    order=30,
)
