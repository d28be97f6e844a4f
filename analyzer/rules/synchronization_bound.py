"""The GPU runs dry because a thread waits for it."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ..analysis import Analysis
from ..causes import Cause
from ..rule import Evidence, Finding, Rule, severity_of
from ._idle import idle_of, windows

_LEAST_SHARE = 0.02


def check(analysis: Analysis) -> Iterator[Finding]:
    """Fire when a device is idle for at least 2 % of the window while its launching thread is in a synchronising call.

    Waiting for running work is no fault; at stake is only the idle time with the cause `synchronization`.
    """
    for device_id, window in windows(analysis):
        stake = idle_of(analysis, device_id, Cause.SYNCHRONIZATION)
        if stake < _LEAST_SHARE * window:
            continue
        evidence = [Evidence("gpu_idle_by_cause", stake, "ns", "idle while the launching thread synchronised")]
        calls = analysis.table("sync_calls")
        title = "Synchronisation drains the GPU"
        if calls is not None and len(calls.frame):
            exposed = calls.frame.filter(pl.col("exposed_ns") > 0).sort("exposed_ns", descending=True)
            if len(exposed):
                worst = exposed.row(0, named=True)
                title += f": {worst['api_call']} in {worst['nvtx_path']}"
                rows = tuple(exposed.head(3).to_dicts())
                evidence.append(Evidence("sync_exposed", worst["exposed_ns"], "ns", "idle inside that call", rows))
        yield Finding(
            rule=RULE.id,
            severity=severity_of(stake, window),
            title=title,
            time_at_stake_ns=stake,
            evidence=tuple(evidence),
            remedy=(
                "Queue the next iteration before waiting (double buffering, events instead of device-wide waits), and "
                "remove hidden waits such as .item(), .cpu() or printing a tensor from the loop."
            ),
            confidence="high",
            limits="Where the result is needed at once, the wait itself must stay; only the gap after it can shrink.",
            device_id=device_id,
        )


RULE = Rule(
    id="synchronization_bound",
    title="Synchronisation-bound",
    needs=("gpu_idle_by_cause",),
    threshold="idle time inside synchronising calls >= 2 % of the window",
    reference="Nitro; idle causes",
    check=check,
)
