"""`cuda_api_sum`: CUDA runtime and driver calls by name.

Source: every row of `api_calls` (CUPTI_ACTIVITY_KIND_RUNTIME). A driver call nested in a runtime call has its own
row, so nested time counts twice, and so does time in several threads.

Groups are string ids of the export, not texts: two ids with one text stay two rows. Names lose a version suffix of
exactly `_v` and four characters. Total Time is the sum of end − start; Time (%) is its share of the totals of all
calls. Avg, Med, Min, Max and StdDev (of a sample, 0.0 for one call) are those of end − start.

Order: total time descending, then string id.
"""

from __future__ import annotations

import polars as pl

from ..trace import Trace
from ._api_names import without_version
from ._report import Report, StatsColumn
from ._summary import duration, time_columns, time_summary

_COUNT = "Num Calls"


def api_sum(trace: Trace) -> pl.DataFrame:
    """Return the summary of CUDA calls by string id."""
    calls = trace.table_or_empty("api_calls").select("name_id", "name", duration())
    table = time_summary(calls, ["name_id", "name"], _COUNT)
    return table.with_columns(without_version(table["name"]).alias("Name"))


REPORTS = (
    Report(
        name="cuda_api_sum",
        title="CUDA API calls",
        definition=__doc__ or "",
        columns=time_columns(_COUNT, StatsColumn("Name", "text")),
        needs=(("api_calls",),),
        compute=api_sum,
        no_rows="the trace has no CUDA API calls",
        record_with="--trace=cuda",
    ),
)
