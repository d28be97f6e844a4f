"""`cuda_gpu_mem_time_sum` and `cuda_gpu_mem_size_sum`: copies and memsets by kind, as time and as size.

Source: every row of `memcpys` and `memsets` (CUPTI_ACTIVITY_KIND_MEMCPY, _MEMSET), unified-memory migrations
included. Groups are the kinds of copy, and one for all memsets; a copy of a kind that CUPTI does not name is left
out, as `nsys stats` does.

By time: Total Time is the sum of end − start, Time (%) its share of all groups, and Avg, Med, Min, Max and StdDev
(of a sample, 0.0 for one operation) are those of end − start. Order: total time descending, then name.

By size: the same statistics of the bytes, in MB of 1,000,000 bytes. Order: total bytes descending, then name.

Older exports carry no table of copy kinds, and there Nsight Systems 2023.4 skips both reports; the kinds are
CUPTI's constants, so here these traces are answered too.
"""

from __future__ import annotations

import polars as pl

from ..trace import Trace
from ._aggregate import divided, statistics
from ._report import Report, StatsColumn
from ._summary import duration, time_columns, time_summary

_COUNT = "Count"
_BYTES_PER_MB = 1_000_000
_COPY_KINDS = {
    0: "Unknown",
    1: "Host-to-Device",
    2: "Device-to-Host",
    3: "Host-to-Array",
    4: "Array-to-Host",
    5: "Array-to-Array",
    6: "Array-to-Device",
    7: "Device-to-Array",
    8: "Device-to-Device",
    9: "Host-to-Host",
    10: "Peer-to-Peer",
    11: "Unified Host-to-Device",
    12: "Unified Device-to-Host",
    13: "Unified Device-to-Device",
}
_SIZES = {"Total": "total", "Avg": "mean", "Med": "median", "Min": "min", "Max": "max", "StdDev": "stdev"}
_MEMSET = "[CUDA memset]"
_OPERATIONS = pl.Enum(sorted([_MEMSET, *(f"[CUDA memcpy {kind}]" for kind in _COPY_KINDS.values())]))


def memory_time_sum(trace: Trace) -> pl.DataFrame:
    """Return the time of copies and memsets by kind."""
    table = time_summary(_operations(trace), ["Operation"], _COUNT)
    return table.with_columns(pl.col("Operation").cast(pl.String))


def memory_size_sum(trace: Trace) -> pl.DataFrame:
    """Return the bytes of copies and memsets by kind, in MB."""
    groups = (
        _operations(trace)
        .group_by("Operation")
        .agg(pl.len().cast(pl.Int64).alias(_COUNT), *statistics("bytes"))
        .sort(["bytes_total", "Operation"], descending=[True, False])
    )
    return groups.select(
        pl.col("Operation").cast(pl.String),
        _COUNT,
        *(
            divided(groups[f"bytes_{statistic}"], _BYTES_PER_MB).alias(f"{header} (MB)")
            for header, statistic in _SIZES.items()
        ),
    )


def _operations(trace: Trace) -> pl.DataFrame:
    """Return one row per copy or memset: its kind, duration and bytes."""
    names = {kind: f"[CUDA memcpy {name}]" for kind, name in _COPY_KINDS.items()}
    copies = trace.table_or_empty("memcpys").filter(pl.col("copy_kind").is_in(list(names)))
    memsets = trace.table_or_empty("memsets")
    kind = pl.col("copy_kind").replace_strict(names, return_dtype=_OPERATIONS)
    return pl.concat(
        [
            copies.select(kind.alias("Operation"), duration(), "bytes"),
            memsets.select(pl.lit(_MEMSET, _OPERATIONS).alias("Operation"), duration(), "bytes"),
        ]
    )


_NEEDS = (("memcpys", "memsets"),)
_NO_ROWS = "the trace has no copies of a known kind and no memsets"

REPORTS = (
    Report(
        name="cuda_gpu_mem_time_sum",
        title="Copies and memsets by time",
        definition=__doc__ or "",
        columns=time_columns(_COUNT, StatsColumn("Operation", "text")),
        needs=_NEEDS,
        compute=memory_time_sum,
        no_rows=_NO_ROWS,
        record_with="--trace=cuda",
    ),
    Report(
        name="cuda_gpu_mem_size_sum",
        title="Copies and memsets by size",
        definition=__doc__ or "",
        columns=(
            StatsColumn("Total (MB)", "megabytes"),
            StatsColumn(_COUNT, "integer"),
            *(StatsColumn(f"{name} (MB)", "megabytes") for name in _SIZES if name != "Total"),
            StatsColumn("Operation", "text"),
        ),
        needs=_NEEDS,
        compute=memory_size_sum,
        no_rows=_NO_ROWS,
        record_with="--trace=cuda",
    ),
)
