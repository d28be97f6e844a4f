"""The clock falls while the GPU works."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ..analysis import Analysis
from ..message import message
from ..power_events import ANY
from ..rule import Evidence, Finding, Rule, severity_of
from ._idle import windows

_LEAST_ACTIVE = 0.5
_LEAST_FALL = 0.05
_PART = 5


def check(analysis: Analysis) -> Iterator[Finding]:
    """Fire when, over the busy parts of the window, the GPC clock of the last fifth is at least 5 % below the first's.

    Busy parts are the bins of `sampled_over_time` with GR active of at least 50 %; at least ten are needed. At stake is
    the window times the mean shortfall against the first fifth. Where a power log says what holds the clocks down, the
    rule `clocks_held_down` has it.
    """
    if analysis.value("limited_time", by=ANY):
        return
    for device_id, window in windows(analysis):
        table = analysis.table("sampled_over_time", device_id)
        if table is None:
            continue
        busy = table.frame.filter((pl.col("gr_active") >= _LEAST_ACTIVE) & pl.col("gpc_clock").is_not_null())
        if len(busy) < 2 * _PART:
            continue
        clocks = busy["gpc_clock"].to_numpy()
        part = len(clocks) // _PART
        first, last = float(clocks[:part].mean()), float(clocks[-part:].mean())
        if last > (1 - _LEAST_FALL) * first:
            continue
        stake = round(window * max(1 - float(clocks.mean()) / first, 0.0))
        yield Finding(
            rule=RULE.id,
            severity=severity_of(stake, window),
            title=message("The GPU clock falls by {share:.0%} under load", share=1 - last / first),
            time_at_stake_ns=stake,
            evidence=(
                Evidence("gpc_clock", first, "Hz", message("mean of the first fifth of the busy time")),
                Evidence("gpc_clock", last, "Hz", message("mean of the last fifth")),
            ),
            remedy=message(
                "Check temperature and power limit (tegrastats, nvidia-smi -q -d PERFORMANCE), improve cooling, or fix "
                "the clocks for measurements (jetson_clocks, nvpmodel) so that runs compare."
            ),
            confidence="medium",
            limits=message(
                "The trace does not say why the clock fell: heat, power limit, or a governor that saw less load."
            ),
            device_id=device_id,
        )


RULE = Rule(
    id="throttling",
    title=message("Clock falls under load"),
    needs=("sampled_over_time",),
    threshold=message("GPC clock of the last fifth of the busy time <= 95 % of the first fifth's"),
    reference=message("Nitro"),
    check=check,
)
