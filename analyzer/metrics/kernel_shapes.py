"""Kernels by launch shape: occupancy and its limiter, waves, empty SMs, tiny kernels."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import polars as pl

from ..kernel_names import KERNEL_NAME, NAME_LOST, known_names
from ..message import message
from ..metric import Measurement, Metric, NotMeasured, Result, ResultColumn, ResultTable
from ..occupancy import LIMITERS, limits_of, occupancy
from ..operations import NO_ROW, Kind
from ..view import DeviceView, View

_NO_KERNELS = message("the trace has no kernels of its own; record with `nsys profile --trace=cuda`")
_NO_LIMITS = message("the export does not tell the limits of the GPU's SMs (registers, shared memory, warps)")
_ROWS = 200
_TENSOR_NAME = re.compile(
    r"(?:h|s|i|bf)(?:16816|1688|884|8816|16832)|tensorop|[hi]mma|wgmma|_mma_|xmma_(?:gemm|fprop)_(?:f16|bf16|i8)|nvjet"
)
_PERIODS_NEEDED = 3
_COLUMNS = (
    ResultColumn("name", "", message("full name")),
    ResultColumn("grid_blocks", "1", message("thread blocks")),
    ResultColumn("block_threads", "1", message("threads per block")),
    ResultColumn("registers_per_thread", "1", message("registers")),
    ResultColumn("shared_memory_bytes", "bytes", message("static and dynamic, per block")),
    ResultColumn("count", "1", message("executions in the window with this shape")),
    ResultColumn("total_ns", "ns", message("their summed time inside the window")),
    ResultColumn("mean_ns", "ns", message("their mean duration")),
    ResultColumn("occupancy", "ratio", message("theoretical: resident warps that fit, of those an SM can hold")),
    ResultColumn(
        "limiter", "", message("what keeps more blocks from an SM; none where the grid is too small to feel it")
    ),
    ResultColumn("waves", "1", message("thread blocks / blocks that the whole GPU holds at once")),
    ResultColumn("tail_ratio", "ratio", message("part of the last wave's slots that stay empty, over all waves")),
    ResultColumn("empty_sm_ratio", "ratio", message("SMs that get no block at all")),
    ResultColumn(
        "tensor_active", "ratio", message("sampled, over executions of at least three sampling periods; null if none")
    ),
    ResultColumn(
        "tensor_hint", "", message("yes where the name alone suggests tensor cores; a hint, not a measurement")
    ),
)


def compute(view: View) -> Iterator[Result]:
    """Kernels of the window by name and launch shape, the 200 longest totals.

    - `occupancy` is theoretical, from registers, shared memory and block size against the limits of the device;
      `limiter` names what is exhausted first. `waves` = blocks / (SMs x blocks per SM).
    - `small_grid_time`: summed time of kernels with fewer blocks than the GPU has SMs; the time-weighted share of empty
      SMs in it is `small_grid_empty_sm_ratio`.
    - `tiny_kernel_time`, `tiny_kernel_count`: kernels that ran shorter than their own launch call took, so that the
      CPU cannot keep ahead of the GPU.
    - `tensor_active` is measured where an execution lasts at least three sampling periods; shorter ones cannot be told
      from their neighbours. The name of a kernel is only ever a hint.
    """
    found = False
    for device in view.devices:
        rows = _kernels(device)
        if rows is None:
            continue
        found = True
        yield from _tiny(device)
        yield from _shapes(device, rows)
    if not found:
        yield from (NotMeasured(name, _NO_KERNELS) for name in METRIC.provides)


def _kernels(device: DeviceView) -> pl.DataFrame | None:
    """Return the window's kernels on a device with their shape and times."""
    table = device.view.trace.kernels
    counted = device.touching(Kind.KERNEL)
    if table is None or not counted.any():
        return None
    keep = np.zeros(len(table), np.bool_)
    keep[device.operations.row[counted]] = True
    start, end = pl.col("start_ns"), pl.col("end_ns")
    grid = pl.col("grid_x").cast(pl.Int64) * pl.col("grid_y") * pl.col("grid_z")
    block = pl.col("block_x").cast(pl.Int64) * pl.col("block_y") * pl.col("block_z")
    shared = pl.col("static_shared_memory_bytes").cast(pl.Int64) + pl.col("dynamic_shared_memory_bytes")
    return table.select(
        known_names(table),
        grid.alias("grid_blocks"),
        block.alias("block_threads"),
        pl.col("registers_per_thread").cast(pl.Int64),
        shared.alias("shared_memory_bytes"),
        start,
        end,
        (end.clip(device.low, device.high) - start.clip(device.low, device.high)).alias("inside_ns"),
    ).filter(keep)


def _tiny(device: DeviceView) -> Iterator[Result]:
    view = device.view
    here = (view.operations.device_id == device.device_id) & (view.operations.launch != NO_ROW)
    here &= (view.operations.kind == Kind.KERNEL) & view.starts_in_window
    duration = (view.operations.ends - view.operations.starts)[here]
    call = (view.calls.ends - view.calls.starts)[here]
    tiny = duration < call
    yield Measurement("tiny_kernel_count", int(tiny.sum()), "1", device.device_id, count=len(duration))
    yield Measurement("tiny_kernel_time", int(duration[tiny].sum()), "ns", device.device_id, count=int(tiny.sum()))


def _shapes(device: DeviceView, rows: pl.DataFrame) -> Iterator[Result]:
    keys = [KERNEL_NAME, "grid_blocks", "block_threads", "registers_per_thread", "shared_memory_bytes"]
    grouped = rows.group_by(keys).agg(
        pl.len().cast(pl.Int64).alias("count"),
        pl.col("inside_ns").sum().alias("total_ns"),
        (pl.col("end_ns") - pl.col("start_ns")).mean().alias("mean_ns"),
    )
    described = device.view.trace.device(device.device_id)
    sm_count = described.sm_count if described else None
    if sm_count:
        small = grouped.filter(pl.col("grid_blocks") < sm_count)
        total = int(small["total_ns"].sum())
        count = int(small["count"].sum())
        yield Measurement("small_grid_time", total, "ns", device.device_id, count=count)
        # In whole numbers, since groups come in no fixed order and sums of fractions would differ in the last digit.
        empty_sm_ns = int((small["total_ns"] * (sm_count - small["grid_blocks"])).sum())
        if total:
            yield Measurement("small_grid_empty_sm_ratio", empty_sm_ns / sm_count / total, "ratio", device.device_id)
    else:
        for name in ("small_grid_time", "small_grid_empty_sm_ratio"):
            yield NotMeasured(name, message("the export does not say how many SMs the GPU has"), device.device_id)
    top = grouped.sort(["total_ns", *keys], descending=[True, *([False] * len(keys))]).head(_ROWS)
    complete = top.drop_nulls(keys[1:])
    limits = limits_of(described) if described else None
    if limits is None or not sm_count:
        yield NotMeasured("kernel_shapes", _NO_LIMITS, device.device_id)
        return
    numbers = {name: complete[name].to_numpy() for name in keys[1:]}
    threads = np.maximum(numbers["block_threads"], 1)
    fits = occupancy(limits, threads, numbers["registers_per_thread"], numbers["shared_memory_bytes"])
    slots = np.maximum(fits.blocks_per_sm * sm_count, 1)
    waves = numbers["grid_blocks"] / slots
    whole = np.ceil(waves)
    names = complete[KERNEL_NAME].cast(pl.String).fill_null(NAME_LOST)
    frame = complete.with_columns(
        names.alias("name"),
        pl.Series("occupancy", fits.ratio),
        pl.Series(
            "limiter", [LIMITERS[i] if wave > 1 else "none" for i, wave in zip(fits.limiter, waves, strict=True)]
        ),
        pl.Series("waves", waves),
        pl.Series("tail_ratio", np.where(waves > 1, (whole - waves) / np.maximum(whole, 1), 0.0)),
        pl.Series("empty_sm_ratio", np.maximum(1 - numbers["grid_blocks"] / sm_count, 0.0)),
        pl.Series("tensor_active", _tensor_active(device, rows, complete, keys), dtype=pl.Float64),
        pl.Series("tensor_hint", ["yes" if _TENSOR_NAME.search(name) else "" for name in names]),
    )
    title = message("Kernels by launch shape")
    yield ResultTable(
        "kernel_shapes", title, _COLUMNS, frame.select(column.name for column in _COLUMNS), device.device_id
    )


def _tensor_active(device: DeviceView, rows: pl.DataFrame, shapes: pl.DataFrame, keys: list[str]) -> list[float | None]:
    sampled = device.sampled.get("tensor_active")
    if sampled is None or len(sampled.times) < 2:
        return [None] * len(shapes)
    period = float(np.median(sampled.times[1:] - sampled.times[:-1]))
    long = rows.filter((pl.col("end_ns") - pl.col("start_ns")) >= _PERIODS_NEEDED * period)
    if long.is_empty():
        return [None] * len(shapes)
    starts, ends = long["start_ns"].to_numpy(), long["end_ns"].to_numpy()
    measured = long.select(keys).with_columns(
        pl.Series("integral", sampled.integral(starts, ends)), pl.Series("covered", sampled.covered(starts, ends))
    )
    means = measured.group_by(keys).agg(
        (pl.col("integral").sum() / pl.col("covered").sum() / 100).alias("tensor_active")
    )
    joined = shapes.join(means, on=keys, how="left", nulls_equal=True, maintain_order="left")
    return joined["tensor_active"].fill_nan(None).to_list()


METRIC = Metric(
    id="kernel_shapes",
    title=message("Kernels by launch shape"),
    provides={
        "kernel_shapes": "table",
        "small_grid_time": "ns",
        "small_grid_empty_sm_ratio": "ratio",
        "tiny_kernel_time": "ns",
        "tiny_kernel_count": "1",
    },
    needs=("kernels",),
    missing=_NO_KERNELS,
    better="neither",
    reference=message("CUDA occupancy calculator; waves and tail as Nsight Compute's launch__waves_per_multiprocessor"),
    compute=compute,
    order=32,
)
