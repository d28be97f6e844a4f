"""CUDA calls and operating-system calls by name."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ..metric import NO_API_CALLS, NO_OS_CALLS, Metric, NotMeasured, Result, ResultColumn, ResultTable
from ..view import View
from ._names import call_name

_COLUMNS = (
    ResultColumn("name", "", "function, without version suffix"),
    ResultColumn("calls", "1", "calls that touch the window"),
    ResultColumn("total_ns", "ns", "summed time inside the window, over all threads"),
    ResultColumn("mean_ns", "ns", "mean time of a call inside the window"),
    ResultColumn("max_ns", "ns", "longest time of a call inside the window"),
)
_TABLES = {
    "cuda_api_calls": ("api_calls", "CUDA calls", NO_API_CALLS),
    "os_calls": ("os_calls", "Operating-system calls", NO_OS_CALLS),
}


def compute(view: View) -> Iterator[Result]:
    """CUDA calls and operating-system calls by name, clipped to the window, the longest total first.

    Times add up over threads and so may exceed the window; a driver call nested in a runtime call counts in both.
    In a trace without GPU operations the whole capture is the window.
    """
    for name, (source, title, missing) in _TABLES.items():
        calls = view.trace.table(source)
        if calls is None:
            yield NotMeasured(name, missing)
            continue
        yield ResultTable(name, title, _COLUMNS, _table(view, calls))


def _table(view: View, calls: pl.DataFrame) -> pl.DataFrame:
    start, end = pl.col("start_ns"), pl.col("end_ns")
    if len(view.operations):
        low, high = view.window.start_ns, view.window.end_ns
        calls = calls.lazy().filter((end > low) & (start < high)).collect()
        start, end = start.clip(lower_bound=low), end.clip(upper_bound=high)
    if view.scope.pids is not None:
        calls = calls.filter(((pl.col("global_tid") // (1 << 24)) % (1 << 24)).is_in(view.scope.pids))
    inside = end - start
    grouped = calls.group_by("name").agg(
        pl.len().cast(pl.Int64).alias("calls"),
        inside.sum().alias("total_ns"),
        inside.mean().alias("mean_ns"),
        inside.max().alias("max_ns"),
    )
    order = ["total_ns", "name"]
    named = grouped.with_columns(call_name("name").alias("name"))
    return named.sort(order, descending=[True, False]).select(column.name for column in _COLUMNS)


METRIC = Metric(
    id="cuda_api_calls",
    title="CUDA and operating-system calls",
    provides=tuple(_TABLES),
    needs=(),
    missing="",
    better="neither",
    reference="sums as in nsys `cuda_api_sum` and `osrt_sum`, inside the window",
    compute=compute,
    order=70,
)
