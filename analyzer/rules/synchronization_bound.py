"""The GPU runs dry because a thread waits for it."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ..analysis import Analysis
from ..causes import Cause
from ..message import message
from ..rule import Evidence, Finding, Rule, severity_of
from ._idle import idle_of, place, windows

_LEAST_SHARE = 0.02
_MUCH_HOST_CODE = 0.5


def check(analysis: Analysis) -> Iterator[Finding]:
    """Fire when gaps that begin inside a synchronising call of the launching thread are at least 2 % of the window.

    Waiting for running work is no fault. At stake is the idle time of those gaps (`sync_drained_time`), beyond the call
    itself too: had the thread not waited, it could have queued the next operation before the GPU ran dry. Where host
    code holds the GPU up for half of that time or more, it is taken off, since the host itself is then too slow.
    """
    for device_id, window in windows(analysis):
        drained = int(analysis.value("sync_drained_time", device_id) or 0)
        inside = idle_of(analysis, device_id, Cause.SYNCHRONIZATION)
        host = idle_of(analysis, device_id, Cause.HOST_CODE)
        # Where host code fills such gaps, a thread that did not wait would still be too slow.
        stake = drained if host < _MUCH_HOST_CODE * drained else max(drained - host, inside)
        if stake < _LEAST_SHARE * window:
            continue
        evidence = [
            Evidence("sync_drained_time", drained, "ns", message("in gaps that begin inside a synchronising call")),
            Evidence("gpu_idle_by_cause", inside, "ns", message("idle inside synchronising calls in all")),
        ]
        calls = analysis.table("sync_calls")
        title = message("Synchronisation drains the GPU")
        if calls is not None and len(calls.frame):
            exposed = calls.frame.filter(pl.col("exposed_ns") > 0).sort("exposed_ns", descending=True)
            if len(exposed):
                worst = exposed.row(0, named=True)
                title = message(
                    "Synchronisation drains the GPU: {call} in {path}",
                    call=worst["api_call"],
                    path=place(worst["nvtx_path"]),
                )
                rows = tuple(exposed.head(3).to_dicts())
                evidence.append(
                    Evidence("sync_exposed", worst["exposed_ns"], "ns", message("idle inside that call"), rows)
                )
        yield Finding(
            rule=RULE.id,
            severity=severity_of(stake, window),
            title=title,
            time_at_stake_ns=stake,
            evidence=tuple(evidence),
            remedy=message(
                "Queue the next iteration before waiting (double buffering, events instead of device-wide waits), and "
                "remove hidden waits such as .item(), .cpu() or printing a tensor from the loop."
            ),
            confidence="medium",
            limits=message(
                "Where the result is needed at once, the wait must stay. The gap holds host code and the next launch "
                "too, which stay where the host is the slower side."
            ),
            device_id=device_id,
        )


RULE = Rule(
    id="synchronization_bound",
    title=message("Synchronisation-bound"),
    needs=("sync_drained_time",),
    threshold=message("idle time of gaps that begin inside a synchronising call >= 2 % of the window"),
    reference=message("Nitro; idle causes"),
    check=check,
)
