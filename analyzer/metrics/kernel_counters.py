"""Hardware counters of the kernels of the window, and what holds each of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from ..counters import (
    AMOUNTS,
    JOINS,
    NONE,
    RATIOS,
    SHAPE,
    KernelCounters,
    counters_of_kernels,
    peak_of_counters,
    per_launch,
)
from ..kernel_names import KERNEL_NAME, NAME_LOST, known_names
from ..message import message
from ..metric import Measurement, Metric, NotMeasured, Result, ResultColumn, ResultTable
from ..operations import Kind
from ..roofline import PEAKS, Roofs, most_time, roofs_of
from ..view import DeviceView, View

_ROWS = 500
_NO_COUNTERS = message(
    "no kernel counters were given; profile the same program with `ncu` (Turing, Xavier or newer) or, on an older GPU "
    "as the original Jetson Nano's, with `nvprof --csv --metrics all`, and give what it writes beside the trace"
)
_NO_FLOPS = message(
    "floating-point operations were not counted; profile with `ncu --set full` or `--set roofline`, which count them"
)
_NO_DRAM_BYTES = message(
    "bytes of the DRAM were not counted; on an integrated GPU the DRAM belongs to the whole chip, and ncu has no "
    "counter for it"
)
_NO_PEAK = message("the peaks of this GPU are not in our table, or the trace does not tell its SMs and its memory")
_COLUMNS = (
    ResultColumn("name", "", message("full name")),
    ResultColumn("grid", "", message("thread blocks x, y, z")),
    ResultColumn("block", "", message("threads x, y, z")),
    ResultColumn("count", "1", message("executions in the window")),
    ResultColumn("total_ns", "ns", message("their summed time inside the window")),
    ResultColumn("join", "", message("how the counters were found: by order, by shape, by name, or none")),
    ResultColumn("sm_active_ratio", "ratio", message("cycles in which an SM had a warp, of elapsed cycles")),
    ResultColumn("issue_active_ratio", "ratio", message("cycles in which a scheduler issued, of elapsed cycles")),
    ResultColumn("tensor_active_ratio", "ratio", message("cycles in which tensor pipes were busy, of elapsed cycles")),
    ResultColumn("occupancy_ratio", "ratio", message("achieved: resident warps on active SMs, of those that fit")),
    ResultColumn("sm_throughput_ratio", "ratio", message("busiest unit of the SM against its peak")),
    ResultColumn("memory_throughput_ratio", "ratio", message("busiest unit of the memory system against its peak")),
    ResultColumn("dram_throughput_ratio", "ratio", message("DRAM against its peak")),
    ResultColumn("sm_active_cycles", "cycles", message("of one execution, summed over SMs")),
    ResultColumn("issue_active_cycles", "cycles", message("of one execution, summed over schedulers")),
    ResultColumn("dram_bytes", "bytes", message("of one execution, between L2 and DRAM")),
    ResultColumn("l2_bytes", "bytes", message("of one execution, through the L2 cache")),
    ResultColumn("flops", "1", message("floating-point operations of one execution, FMA counted twice")),
    ResultColumn("counted_ns", "ns", message("duration of one execution while it was counted")),
    ResultColumn("intensity", "1", message("operations per byte of the DRAM")),
    ResultColumn("flops_per_s", "1/s", message("operations per second while it was counted")),
    ResultColumn("bound", "", message("compute, memory or latency")),
    ResultColumn("stall", "", message("most frequent stall reason")),
    ResultColumn("stall_ratio", "ratio", message("its share of all stalled warps")),
)
_WEIGHTED = {f"counted_{name}": name for name in RATIOS[:4]}
_ROOFS = (
    ResultColumn("roof", "", message("fp32, tensor_fp16 or dram")),
    ResultColumn("per_s", "1/s", message("operations per second, dense; of dram, bytes per second")),
    ResultColumn("clock_hz", "Hz", message("clock of the SMs while the kernels were counted")),
)


def compute(view: View) -> Iterator[Result]:
    """Counters of another run, joined to the kernels of the window by function, launch geometry and order.

    - `counter_join_time`: kernel time by how its counters were found. `order`: as many launches of this function and
      geometry on both sides, so the k-th belongs to the k-th. `shape`: the mean of the counted launches of this
      function and geometry. `name`: only another geometry was counted, so ratios alone are taken. `none`.
    - `counted_...`: means over the kernels of the window that have the counter, weighted by their time in the window.
    - `bound_time`: kernel time by what holds a kernel: compute or memory, whichever is nearer to its peak, where that
      is at least 60 %; else latency.
    - `roofline`: the roofs at the clock that was measured while counting. Operations per second of a kernel are those
      of the run in which it was counted, at that clock.
    """
    joined = counters_of_kernels(view)
    if joined is None:
        yield from (NotMeasured(name, _NO_COUNTERS) for name in METRIC.provides)
        return
    for device in view.devices:
        rows = _kernels(device, joined)
        if rows is not None:
            yield from _of_device(device, rows)


def _kernels(device: DeviceView, joined: pl.DataFrame) -> pl.DataFrame | None:
    table = device.view.trace.kernels
    counted = device.touching(Kind.KERNEL)
    if table is None or not counted.any():
        return None
    keep = np.zeros(len(table), np.bool_)
    keep[device.operations.row[counted]] = True
    start, end = (pl.col(name).clip(device.low, device.high) for name in ("start_ns", "end_ns"))
    columns = (known_names(table), *SHAPE, (end - start).alias("inside_ns"))
    return pl.concat([table.select(columns), joined], how="horizontal").filter(keep)


def _of_device(device: DeviceView, rows: pl.DataFrame) -> Iterator[Result]:
    number = device.device_id
    for join in JOINS:
        mine = rows.filter(pl.col("join") == join)
        time = int(mine["inside_ns"].sum())
        if time or join != NONE:
            yield Measurement("counter_join_time", time, "ns", number, by=join, count=len(mine))
    for name, column in _WEIGHTED.items():
        known = rows.filter(pl.col(column).is_not_null())
        weight = int(known["inside_ns"].sum())
        if not weight:
            yield NotMeasured(name, _why_not_counted(device, column), number)
            continue
        total = float((known[column] * known["inside_ns"]).sum())
        yield Measurement(name, total / weight, "ratio", number, count=len(known))
    times: dict[str, tuple[int, int]] = {}
    for bound, time, count in rows.group_by("bound").agg(pl.col("inside_ns").sum(), pl.len()).iter_rows():
        if bound is not None:
            times[bound] = (time, count)
    for bound in sorted(times):
        yield Measurement("bound_time", times[bound][0], "ns", number, by=bound, count=times[bound][1])
    if not times:
        yield NotMeasured(
            "bound_time", message("the report lacks the throughputs of ncu's section SpeedOfLight"), number
        )
    frame = _by_shape(rows)
    title = message("Counters by kernel and launch shape")
    yield ResultTable("kernel_counters", title, _COLUMNS, frame.head(_ROWS), number)
    yield from _roofline(device, frame)


def _why_not_counted(device: DeviceView, column: str) -> str:
    described = device.view.trace.device(device.device_id)
    peaks = PEAKS.get((described.compute_capability if described else None) or "")
    if column == "tensor_active_ratio" and peaks is not None and not peaks.tensor_fp16:
        return message("this GPU has no tensor cores")
    return message("this counter is not in the report")


def _by_shape(rows: pl.DataFrame) -> pl.DataFrame:
    keys = [KERNEL_NAME, *SHAPE, "join"]
    means = [pl.col(name).mean() for name in (*RATIOS, *AMOUNTS, "stall_ratio")]
    grouped = rows.group_by(keys).agg(
        pl.len().cast(pl.Int64).alias("count"),
        pl.col("inside_ns").sum().alias("total_ns"),
        *means,
        pl.col("stall").drop_nulls().mode().sort().first(),
        pl.col("bound"),
        pl.col("inside_ns"),
    )
    bounds = [most_time(*pair) for pair in grouped.select("bound", "inside_ns").iter_rows()]
    return (
        grouped.drop("inside_ns")
        .with_columns(
            pl.col(KERNEL_NAME).cast(pl.String).fill_null(NAME_LOST).alias("name"),
            pl.concat_str(SHAPE[:3], separator=" x ").alias("grid"),
            pl.concat_str(SHAPE[3:], separator=" x ").alias("block"),
            (pl.col("flops") / pl.col("dram_bytes")).alias("intensity"),
            (pl.col("flops") / pl.col("counted_ns") * 1e9).alias("flops_per_s"),
            pl.Series("bound", bounds, dtype=pl.String),
        )
        .sort(["total_ns", "name", "grid", "block"], descending=[True, False, False, False])
        .select(column.name for column in _COLUMNS)
    )


def _roofline(device: DeviceView, frame: pl.DataFrame) -> Iterator[Result]:
    number = device.device_id
    roofs = _roofs(device)
    if frame["flops"].null_count() == len(frame):
        yield NotMeasured("roofline", _NO_FLOPS, number)
    elif frame["dram_bytes"].null_count() == len(frame):
        yield NotMeasured("roofline", _NO_DRAM_BYTES, number)
    elif roofs is None or roofs.fp32_per_s is None or roofs.dram_bytes_per_s is None:
        yield NotMeasured("roofline", _NO_PEAK, number)
    else:
        known = (("fp32", roofs.fp32_per_s), ("tensor_fp16", roofs.tensor_fp16_per_s), ("dram", roofs.dram_bytes_per_s))
        rows = [(name, value, roofs.clock_hz) for name, value in known if value is not None]
        schema = {"roof": pl.String, "per_s": pl.Float64, "clock_hz": pl.Float64}
        made = pl.DataFrame(rows, schema=schema, orient="row")
        yield ResultTable("roofline", message("Roofs at the measured clock"), _ROOFS, made, number)


def _roofs(device: DeviceView) -> Roofs | None:
    """Return the roofs at the median clock of the counted launches, with what the trace knows of the device first."""
    evidence = device.view.evidence_of(KernelCounters)[0].evidence
    clock = per_launch(evidence)["sm_clock_hz"].median()
    dram, counted_on = peak_of_counters(evidence)
    described = device.view.trace.device(device.device_id)
    if described is None or described.sm_count is None or described.compute_capability is None:
        described = counted_on
    if described is None or not isinstance(clock, float):
        return None
    return roofs_of(described, clock, described.memory_bandwidth_bytes_per_s or dram)


METRIC = Metric(
    id="kernel_counters",
    title=message("Kernel counters and roofline"),
    provides={
        "kernel_counters": "table",
        "roofline": "table",
        "counter_join_time": "ns",
        "bound_time": "ns",
        **dict.fromkeys(_WEIGHTED, "ratio"),
    },
    needs=(),
    missing="",
    better="neither",
    reference=message("Nsight Compute metrics; the bound as in its section GPU Speed Of Light Throughput"),
    compute=compute,
    order=36,
)
