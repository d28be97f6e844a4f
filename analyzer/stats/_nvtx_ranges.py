"""NVTX ranges with the names and ends that the reports of `nsys stats` give them."""

from __future__ import annotations

from typing import Literal

import polars as pl

from ..trace import Trace
from ._process import pid_of

STYLES = {59: "PushPop", 60: "StartEnd", 70: "PushPop", 71: "StartEnd"}
_STYLE = pl.Enum(sorted(set(STYLES.values())))


def nvtx_ranges(trace: Trace, *, open_until: Literal["last_event", "last_range"]) -> pl.DataFrame:
    """Return one row per NVTX range, in the order of the table.

    Args:
        trace: the capture.
        open_until: where a range ends that was never closed: at the latest time of any NVTX event, marks included,
            or of any range. The reports of NVIDIA differ in this.

    Returns:
        `range_name`: the text, after `DOMAIN:` where the range's process created its domain; null without a text.
        `style`: PushPop or StartEnd.
        `start_ns`, `end_ns`: the end of a range that was never closed is null where nothing else has an end either.
        `global_tid`, `end_global_tid`: the threads; the second is null unless the export names the thread that
        ended the range.
    """
    events = trace.table_or_empty("nvtx_events")
    ranges = events.filter(pl.col("event_type").is_in(list(STYLES)))
    latest = pl.max_horizontal(pl.col("start_ns").max(), pl.col("end_ns").max())
    closing = events if open_until == "last_event" else ranges
    last_ns = closing.select(pl.when(pl.col("end_ns").count() > 0).then(latest)).item()
    domains = pl.DataFrame(
        [(pid >> 24 & 0xFFFFFF, domain_id, f"{name}:") for (pid, domain_id), name in trace.nvtx_domains.items()],
        schema={"pid": pl.Int64, "domain_id": pl.Int64, "prefix": pl.String},
        orient="row",
    ).unique(["pid", "domain_id"], keep="last", maintain_order=True)
    named = ranges.with_columns(pid_of("global_tid").alias("pid")).join(
        domains, on=["pid", "domain_id"], how="left", maintain_order="left"
    )
    return named.select(
        (pl.col("prefix").fill_null("") + pl.col("text").cast(pl.String)).alias("range_name"),
        pl.col("event_type").replace_strict(STYLES, return_dtype=_STYLE).alias("style"),
        "start_ns",
        pl.col("end_ns").fill_null(pl.lit(last_ns, pl.Int64)),
        "global_tid",
        "end_global_tid",
    )
