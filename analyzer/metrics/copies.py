"""Copies and memsets by kind and size, with the bandwidth they achieved."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ..intervals import Intervals, overlap_of, subtract, union
from ..message import message
from ..metric import Measurement, Metric, NotMeasured, Result, ResultColumn, ResultTable
from ..operations import NO_ROW, TABLE_OF_KIND, Kind
from ..view import DeviceView, View

_NO_COPIES = message("the trace has no copies and no memsets")
COPY_KINDS = {
    0: "unknown",
    1: "host to device",
    2: "device to host",
    3: "host to array",
    4: "array to host",
    5: "array to array",
    6: "array to device",
    7: "device to array",
    8: "device to device",
    9: "host to host",
    10: "peer to peer",
    11: "unified memory, host to device",
    12: "unified memory, device to host",
    13: "unified memory, device to device",
}
MEMORY_KINDS = {
    0: "pageable",
    1: "pinned",
    2: "device",
    3: "array",
    4: "managed",
    5: "device static",
    6: "managed static",
    7: "unknown",
}
_SIZES = ((1 << 12, "up to 4 KiB"), (1 << 16, "4 to 64 KiB"), (1 << 20, "64 KiB to 1 MiB"))
_LARGE = "over 1 MiB"
_COLUMNS = (
    ResultColumn("kind", "", message("direction of the copy, or memset")),
    ResultColumn("memory", "", message("memory kinds of source and destination")),
    ResultColumn("size", "", message("size class of one operation")),
    ResultColumn("count", "1", message("operations that run or begin inside the window")),
    ResultColumn("total_bytes", "bytes", message("bytes of these operations")),
    ResultColumn("total_ns", "ns", message("summed time inside the window")),
    ResultColumn("median_ns", "ns", message("median duration of whole operations")),
    ResultColumn(
        "bandwidth_bytes_per_s", "bytes/s", message("bytes divided by the summed duration of whole operations")
    ),
)


def compute(view: View) -> Iterator[Result]:
    """Copies and memsets inside the window by kind, memory and size class, the longest total first.

    `bandwidth_bytes_per_s` is bytes over summed duration of whole operations: small ones are limited by latency,
    which is why they have classes of their own.

    `blocking_copy_time` is the time inside the window in which a device ran copies and nothing else, while the thread
    that launches its work was inside a copy call: a pageable copy is staged by the driver and holds its caller.
    """
    found = False
    for device in view.devices:
        yield Measurement("blocking_copy_time", _blocking(device), "ns", device.device_id)
        frames = [frame for kind in (Kind.MEMCPY, Kind.MEMSET) if (frame := _operations(device, kind)) is not None]
        if frames:
            found = True
            yield ResultTable(
                "copies", message("Copies and memsets"), _COLUMNS, _table(pl.concat(frames)), device.device_id
            )
    if not found:
        yield NotMeasured("copies", _NO_COPIES)
    if not view.devices:
        yield NotMeasured("blocking_copy_time", _NO_COPIES)


def _blocking(device: DeviceView) -> int:
    """Return how long only copies ran while their callers were inside the copy calls, ns."""
    is_copy = device.operations.kind == Kind.MEMCPY
    copying = union(device.inside.starts[is_copy], device.inside.ends[is_copy])
    working = union(device.inside.starts[~is_copy], device.inside.ends[~is_copy])
    alone = subtract(copying, working)
    of_device = device.view.operations.device_id == device.device_id
    called = of_device & (device.view.operations.kind == Kind.MEMCPY) & (device.view.operations.launch != NO_ROW)
    calls = union(device.view.calls.starts[called], device.view.calls.ends[called])
    return overlap_of(Intervals(alone.starts, alone.ends), calls)


def _operations(device: DeviceView, kind: Kind) -> pl.DataFrame | None:
    counted = device.touching(kind)
    if not counted.any():
        return None
    table = device.view.trace.table_or_empty(TABLE_OF_KIND[kind])[device.operations.row[counted]]
    names: list[pl.Expr]
    if kind is Kind.MEMSET:
        names = [pl.lit("memset").alias("kind"), pl.lit("").alias("memory")]
    else:
        source, target = (_named(name, MEMORY_KINDS) for name in ("src_kind", "dst_kind"))
        names = [
            _named("copy_kind", COPY_KINDS).alias("kind"),
            pl.format("{} to {}", source, target).alias("memory"),
        ]
    inside = pl.Series("inside_ns", (device.inside.ends - device.inside.starts)[counted])
    duration = (pl.col("end_ns") - pl.col("start_ns")).alias("duration_ns")
    return table.select(*names, pl.col("bytes").fill_null(0), duration, inside)


def _named(column: str, names: dict[int, str]) -> pl.Expr:
    return pl.col(column).replace_strict(names, default="unknown", return_dtype=pl.String)


def _table(operations: pl.DataFrame) -> pl.DataFrame:
    size = pl.lit(_LARGE)
    for limit, text in reversed(_SIZES):
        size = pl.when(pl.col("bytes") <= limit).then(pl.lit(text)).otherwise(size)
    grouped = operations.group_by("kind", "memory", size.alias("size")).agg(
        pl.len().cast(pl.Int64).alias("count"),
        pl.col("bytes").sum().alias("total_bytes"),
        pl.col("inside_ns").sum().alias("total_ns"),
        pl.col("duration_ns").median().alias("median_ns"),
        (pl.col("bytes").sum() / pl.col("duration_ns").sum() * 1e9).alias("bandwidth_bytes_per_s"),
    )
    grouped = grouped.with_columns(
        # A copy of length 0 has no bandwidth.
        pl.when(pl.col("bandwidth_bytes_per_s").is_finite()).then(pl.col("bandwidth_bytes_per_s"))
    )
    order = ["total_ns", "kind", "memory", "size"]
    return grouped.sort(order, descending=[True, False, False, False]).select(column.name for column in _COLUMNS)


METRIC = Metric(
    id="copies",
    title=message("Copies and memsets"),
    provides={"copies": "table", "blocking_copy_time": "ns"},
    needs=("memcpys", "memsets"),
    missing=_NO_COPIES,
    better="neither",
    reference=message("CUPTI activity kinds; sums as in nsys `cuda_gpu_mem_time_sum`, inside the window"),
    compute=compute,
    order=60,
)
