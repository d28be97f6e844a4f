"""The one shape that most reports share: durations summed by name, with the share of the total."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from ._aggregate import rounded, share_percent, statistics
from ._report import StatsColumn


def time_columns(count: str, *names: StatsColumn) -> tuple[StatsColumn, ...]:
    """Return the columns of a time summary; `count` is NVIDIA's word for the number of rows."""
    return (
        StatsColumn("Time (%)", "decimal"),
        StatsColumn("Total Time (ns)", "integer"),
        StatsColumn(count, "integer"),
        StatsColumn("Avg (ns)", "decimal"),
        StatsColumn("Med (ns)", "decimal"),
        StatsColumn("Min (ns)", "integer"),
        StatsColumn("Max (ns)", "integer"),
        StatsColumn("StdDev (ns)", "decimal"),
        *names,
    )


def time_summary(
    frame: pl.DataFrame, by: Sequence[str], count: str, *, then_by: Sequence[str] | None = None
) -> pl.DataFrame:
    """Return the statistics of `duration_ns` by group, the largest total first.

    Args:
        frame: one row per event, with `duration_ns` and the columns `by`.
        by: what makes a group; null is a group too.
        count: header of the number of rows; it can be named in `then_by`.
        then_by: order among equal totals, ascending with null first; by default that of `by`.

    Returns:
        The columns `by` and those of `time_columns` that hold numbers.
    """
    ties = list(by if then_by is None else then_by)
    groups = frame.group_by(by).agg(pl.len().cast(pl.Int64).alias(count), *statistics("duration_ns"))
    descending = [True, *(False for _ in ties)]
    ordered = groups.sort(["duration_ns_total", *ties], descending=descending, nulls_last=descending)
    table = ordered.with_columns(share_percent(ordered["duration_ns_total"]).alias("Time (%)")).rename(
        {
            "duration_ns_total": "Total Time (ns)",
            "duration_ns_mean": "Avg (ns)",
            "duration_ns_median": "Med (ns)",
            "duration_ns_min": "Min (ns)",
            "duration_ns_max": "Max (ns)",
            "duration_ns_stdev": "StdDev (ns)",
        }
    )
    return rounded(table, ["Time (%)", "Avg (ns)", "Med (ns)", "StdDev (ns)"])


def duration() -> pl.Expr:
    """Return `end_ns` − `start_ns` as `duration_ns`."""
    return (pl.col("end_ns") - pl.col("start_ns")).alias("duration_ns")
