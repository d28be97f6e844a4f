"""`cuda_kern_exec_sum`: kernels with the calls that launched them, by thread, device, call and kernel.

Source: rows of `kernels` (k) joined with rows of `api_calls` (r) that have the same correlation id in the same
process. The join keeps every pair: a runtime call and the driver call nested in it share the id, so such a launch
gives two rows, and a graph launch gives one for each of its kernels. Kernels without a call are left out. The
metrics of Nitro count each launch once instead.

- API: r.end − r.start, the time in the launch call.
- Queue: k.start − r.end, the time between the call and the kernel. A kernel that starts before its call returns
  has no queue time: it is left out of these columns, and `QCount` counts those that are in.
- Kernel: k.end − k.start.
- Total: from r.start to the end of the call or of the kernel, whichever is later; not the sum of the three.

Avg, Med, Min, Max and StdDev (of a sample, 0.0 for fewer than two) are given of each. Names of calls lose a version
suffix of exactly `_v` and four characters, and calls that are then alike are one group.

Order: average total as printed descending, then PID, TID, device, API name, kernel name.
"""

from __future__ import annotations

import polars as pl

from ..trace import Trace
from ._aggregate import rounded, statistics
from ._api_names import without_version
from ._process import pid_of, process_of, tid_of
from ._report import Report, StatsColumn

_PARTS = {"T": ("Total", "total_ns"), "A": ("API", "api_ns"), "Q": ("Queue", "queue_ns"), "K": ("Kernel", "kernel_ns")}
_SHOWN = {"Avg": "mean", "Med": "median", "Min": "min", "Max": "max", "StdDev": "stdev"}
_GROUP = ("PID", "TID", "DevId", "API Name", "Kernel Name")


def kernel_launch_sum(trace: Trace) -> pl.DataFrame:
    """Return launch, queue and execution times by thread, device, call and kernel."""
    launches = _launches(trace)
    groups = (
        launches.group_by("PID", "TID", "device_ordinal", "api_name", "kernel_name")
        .agg(
            pl.len().cast(pl.Int64).alias("Count"),
            pl.col("queue_ns").count().cast(pl.Int64).alias("QCount"),
            *(expression for _, column in _PARTS.values() for expression in statistics(column)),
        )
        .with_columns(
            pl.col("device_ordinal").cast(pl.Int64).alias("DevId"),
            pl.col("api_name").cast(pl.String).alias("API Name"),
            pl.col("kernel_name").cast(pl.String).alias("Kernel Name"),
        )
    )
    shown = {
        f"{column}_{statistic}": f"{letter}{short} (ns)"
        for letter, (_, column) in _PARTS.items()
        for short, statistic in _SHOWN.items()
    }
    decimals = [f"{letter}{short} (ns)" for letter in _PARTS for short in ("Avg", "Med", "StdDev")]
    # NVIDIA orders by what it prints, so averages that differ by less than 0.1 ns are ties.
    table = rounded(groups.rename(shown), decimals)
    return table.sort(["TAvg (ns)", *_GROUP], descending=[True, *(False for _ in _GROUP)])


def _launches(trace: Trace) -> pl.DataFrame:
    """Return one row per pair of a kernel and a call with its correlation id in its process."""
    kernels = trace.table_or_empty("kernels").select(
        "global_pid",
        "correlation_id",
        "device_ordinal",
        pl.col("demangled_name").alias("kernel_name"),
        pl.col("start_ns").alias("kernel_start_ns"),
        pl.col("end_ns").alias("kernel_end_ns"),
    )
    calls = trace.table_or_empty("api_calls").select(
        process_of("global_tid").alias("global_pid"),
        "correlation_id",
        "global_tid",
        pl.col("name").alias("api_name"),
        pl.col("start_ns").alias("call_start_ns"),
        pl.col("end_ns").alias("call_end_ns"),
    )
    pairs = kernels.join(calls, on=["global_pid", "correlation_id"], how="inner")
    queue = pl.col("kernel_start_ns") - pl.col("call_end_ns")
    end = pl.max_horizontal("call_end_ns", "kernel_end_ns")
    return pairs.select(
        pid_of("global_tid").alias("PID"),
        tid_of("global_tid").alias("TID"),
        "device_ordinal",
        "kernel_name",
        _shown_names(pairs["api_name"]),
        (end - pl.col("call_start_ns")).alias("total_ns"),
        (pl.col("call_end_ns") - pl.col("call_start_ns")).alias("api_ns"),
        pl.when(queue >= 0).then(queue).alias("queue_ns"),
        (pl.col("kernel_end_ns") - pl.col("kernel_start_ns")).alias("kernel_ns"),
    )


def _shown_names(names: pl.Series) -> pl.Series:
    """Return the names without versions, as an Enum: two names that are then alike become one."""
    full = names.drop_nulls().unique().cast(pl.String)
    shown = without_version(full)
    enum = pl.Enum(shown.unique().sort())
    return names.cast(pl.String).replace_strict(full, shown, default=None, return_dtype=enum)


REPORTS = (
    Report(
        name="cuda_kern_exec_sum",
        title="Kernels with their launch: call, queue and execution",
        definition=__doc__ or "",
        columns=(
            *(StatsColumn(name, "identifier") for name in ("PID", "TID", "DevId")),
            *(StatsColumn(name, "integer") for name in ("Count", "QCount")),
            *(
                StatsColumn(f"{letter}{short} (ns)", "integer" if short in {"Min", "Max"} else "decimal", part, short)
                for letter, (part, _) in _PARTS.items()
                for short in _SHOWN
            ),
            StatsColumn("API Name", "label"),
            StatsColumn("Kernel Name", "text"),
        ),
        needs=(("kernels",), ("api_calls",)),
        compute=kernel_launch_sum,
        no_rows="no kernel of the trace has an API call with its correlation id in its process",
        record_with="--trace=cuda",
    ),
)
