"""`osrt_sum`: operating-system runtime calls by name.

Source: the rows of `os_calls` (OSRT_API) of event class 27; the other classes of that table are starts and ends of
threads and processes, which are no calls.

Groups are string ids of the export. Total Time is the sum of end − start over all threads, so it may exceed wall
time; Time (%) is its share of the totals of all calls. Avg, Med, Min, Max and StdDev (of a sample, 0.0 for one
call) are those of end − start.

Order: total time descending, then string id.
"""

from __future__ import annotations

import polars as pl

from ..trace import Trace
from ._report import Report, StatsColumn
from ._summary import duration, time_columns, time_summary

_COUNT = "Num Calls"
_OS_RUNTIME_CALL = 27


def os_runtime_sum(trace: Trace) -> pl.DataFrame:
    """Return the summary of operating-system calls by string id."""
    calls = trace.table_or_empty("os_calls").filter(pl.col("event_class") == _OS_RUNTIME_CALL)
    table = time_summary(calls.select("name_id", "name", duration()), ["name_id", "name"], _COUNT)
    return table.with_columns(pl.col("name").cast(pl.String).alias("Name"))


REPORTS = (
    Report(
        name="osrt_sum",
        title="Operating-system calls",
        definition=__doc__ or "",
        columns=time_columns(_COUNT, StatsColumn("Name", "text")),
        needs=(("os_calls",),),
        compute=os_runtime_sum,
        no_rows="the trace has no rows of calls in os_calls",
        record_with="--trace=osrt",
    ),
)
