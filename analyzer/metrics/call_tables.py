"""CUDA calls and operating-system calls by name."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from ..message import message
from ..metric import NO_API_CALLS, NO_OS_CALLS, Metric, NotMeasured, Result, ResultColumn, ResultTable
from ..operations import process_of
from ..tables import enum_texts
from ..view import View
from ._names import call_name

_COLUMNS = (
    ResultColumn("name", "", message("function, without version suffix")),
    ResultColumn("calls", "1", message("calls that touch the window")),
    ResultColumn("total_ns", "ns", message("summed time inside the window, over all threads")),
    ResultColumn("mean_ns", "ns", message("mean time of a call inside the window")),
    ResultColumn("max_ns", "ns", message("longest time of a call inside the window")),
)
_TABLES = {
    "cuda_api_calls": ("api_calls", message("CUDA calls"), NO_API_CALLS),
    "os_calls": ("os_calls", message("Operating-system calls"), NO_OS_CALLS),
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
    starts, ends = calls["start_ns"].to_numpy(), calls["end_ns"].to_numpy()
    counted = np.ones(len(calls), np.bool_)
    if len(view.operations):
        low, high = view.window.start_ns, view.window.end_ns
        counted = (ends > low) & (starts < high)
        starts, ends = np.maximum(starts, low), np.minimum(ends, high)
    if view.scope.pids is not None:
        process = process_of(calls["global_tid"].to_numpy()) & 0xFFFFFF
        counted &= np.isin(process, view.scope.pids)
    texts = [*enum_texts(calls["name"]), None]
    name = calls["name"].to_physical().cast(pl.Int32).fill_null(len(texts) - 1).to_numpy()[counted]
    inside = (ends - starts)[counted]
    count = np.bincount(name, minlength=len(texts))
    total = np.bincount(name, weights=inside, minlength=len(texts)).astype(np.int64)
    longest = np.zeros(len(texts), np.int64)
    np.maximum.at(longest, name, inside)
    frame = pl.DataFrame(
        {"name": texts, "calls": count, "total_ns": total, "max_ns": longest},
        schema={"name": pl.String, "calls": pl.Int64, "total_ns": pl.Int64, "max_ns": pl.Int64},
    ).filter(pl.col("calls") > 0)
    named = frame.with_columns(call_name("name").alias("name"), (pl.col("total_ns") / pl.col("calls")).alias("mean_ns"))
    return named.sort(["total_ns", "name"], descending=[True, False]).select(column.name for column in _COLUMNS)


METRIC = Metric(
    id="cuda_api_calls",
    title=message("CUDA and operating-system calls"),
    provides=dict.fromkeys(_TABLES, "table"),
    needs=(),
    missing="",
    better="neither",
    reference=message("sums as in nsys `cuda_api_sum` and `osrt_sum`, inside the window"),
    compute=compute,
    order=70,
)
