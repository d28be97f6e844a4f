"""`cuda_gpu_kern_sum`: kernel executions by kernel name.

Source: every row of `kernels` (CUPTI_ACTIVITY_KIND_KERNEL), of all devices, contexts and processes. Kernels inside
CUDA graphs are there only when the capture traced graphs by node.

Total Time is the sum of end − start; Time (%) is its share of the totals of all kernels, not of wall time, so
kernels that ran side by side count twice. A kernel of no length counts as an instance. Avg, Med, Min, Max and
StdDev (of a sample, 0.0 for one instance) are those of end − start.

`cuda_gpu_kern_sum` groups by the demangled name with its template arguments, `cuda_gpu_kern_sum:base` by the
function name alone. Kernels whose name the export lost form one group with an empty name.

Order: total time descending, then instances ascending, then name.
"""

from __future__ import annotations

from functools import partial

import polars as pl

from ..trace import Trace
from ._report import Report, StatsColumn
from ._summary import duration, time_columns, time_summary

_COUNT = "Instances"


def kernel_sum(trace: Trace, *, name_column: str) -> pl.DataFrame:
    """Return the kernel summary by the names in `name_column` of the table `kernels`."""
    kernels = trace.table_or_empty("kernels").select(pl.col(name_column).alias("Name"), duration())
    # Time of one name is summed over its text, so that two string ids with one text are one row.
    table = time_summary(kernels, ["Name"], _COUNT, then_by=[_COUNT, "Name"])
    return table.with_columns(pl.col("Name").cast(pl.String))


def _report(name: str, title: str, name_column: str) -> Report:
    return Report(
        name=name,
        title=title,
        definition=__doc__ or "",
        columns=time_columns(_COUNT, StatsColumn("Name", "text")),
        needs=(("kernels",),),
        compute=partial(kernel_sum, name_column=name_column),
        no_rows="the trace has no kernels",
        record_with="--trace=cuda, and --cuda-graph-trace=node for kernels in graphs",
    )


REPORTS = (
    _report("cuda_gpu_kern_sum", "GPU kernels by full name", "demangled_name"),
    _report("cuda_gpu_kern_sum:base", "GPU kernels by function name", "short_name"),
)
