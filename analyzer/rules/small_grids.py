"""Kernels with fewer blocks than the GPU has SMs."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ..analysis import Analysis
from ..message import message
from ..rule import Evidence, Finding, Rule, severity_of
from ._idle import windows

_LEAST_SHARE = 0.03


def check(analysis: Analysis) -> Iterator[Finding]:
    """Fire when SMs that get no block cost at least 3 % of the window, in SM-time of kernels with small grids.

    At stake is the time of kernels with fewer blocks than SMs, times the share of SMs that they leave empty.
    """
    for device_id, window in windows(analysis):
        time = analysis.value("small_grid_time", device_id)
        empty = analysis.value("small_grid_empty_sm_ratio", device_id)
        busy = analysis.value("kernel_busy", device_id) or 0
        if time is None or empty is None or not time:
            continue
        # Small kernels side by side fill each other's SMs: no more than the busy time can be won.
        stake = round(min(time, busy) * empty)
        if stake < _LEAST_SHARE * window:
            continue
        rows: tuple[dict[str, object], ...] = ()
        shapes = analysis.table("kernel_shapes", device_id)
        if shapes is not None:
            rows = tuple(shapes.frame.filter(pl.col("empty_sm_ratio") > 0).head(3).to_dicts())
        yield Finding(
            rule=RULE.id,
            severity=severity_of(stake, window),
            title=message("Small grids leave SMs empty"),
            time_at_stake_ns=stake,
            evidence=(
                Evidence("small_grid_time", time, "ns", message("time of kernels with fewer blocks than SMs"), rows),
                Evidence("small_grid_empty_sm_ratio", empty, "ratio", message("of the SMs empty meanwhile")),
            ),
            remedy=message(
                "Give these kernels company: run independent work beside them (second stream, horizontal fusion), "
                "raise the batch size, or choose a kernel variant that splits the work finer (split-K, smaller tiles)."
            ),
            confidence="medium",
            limits=message("A kernel that waits for memory or latency does not get faster by more blocks."),
            device_id=device_id,
        )


RULE = Rule(
    id="small_grids",
    title=message("Small grids"),
    needs=("small_grid_time",),
    threshold=message("time of kernels with fewer blocks than SMs x share of empty SMs >= 3 % of the window"),
    reference=message("CUDA programming guide: at least one block per SM"),
    check=check,
)
