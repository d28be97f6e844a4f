"""`nvtx_sum`: NVTX ranges by name and style, in CPU time.

Source: the ranges of `nvtx_events` (types 59 and 70 push/pop, 60 and 71 start/end). The name is the text of the
range, after `DOMAIN:` where the process of the range created its domain. A range that was never closed ends at
the latest time of any NVTX event.

Total Time is the sum of end − start; Time (%) is its share of the totals of all ranges, so nested ranges count
again in those around them. Avg, Med, Min, Max and StdDev (of a sample, 0.0 for one range) are those of end − start.

Order: total time descending, then name, then style.
"""

from __future__ import annotations

import polars as pl

from ..trace import Trace
from ._nvtx_ranges import nvtx_ranges
from ._report import Report, StatsColumn
from ._summary import duration, time_columns, time_summary

_COUNT = "Instances"


def nvtx_sum(trace: Trace) -> pl.DataFrame:
    """Return the summary of NVTX ranges by name and style."""
    ranges = nvtx_ranges(trace, open_until="last_event").select("range_name", "style", duration())
    table = time_summary(ranges, ["range_name", "style"], _COUNT)
    return table.with_columns(pl.col("range_name").alias("Range"), pl.col("style").cast(pl.String).alias("Style"))


REPORTS = (
    Report(
        name="nvtx_sum",
        title="NVTX ranges on the CPU",
        definition=__doc__ or "",
        columns=time_columns(_COUNT, StatsColumn("Style", "label"), StatsColumn("Range", "text")),
        needs=(("nvtx_events",),),
        compute=nvtx_sum,
        no_rows="the NVTX events of the trace hold no ranges",
        record_with="--trace=nvtx",
    ),
)
