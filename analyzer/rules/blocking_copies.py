"""Copies that hold the launching thread up."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ..analysis import Analysis
from ..causes import Cause
from ..message import message
from ..rule import Evidence, Finding, Rule, severity_of
from ._idle import idle_of, windows

_LEAST_SHARE = 0.01


def check(analysis: Analysis) -> Iterator[Finding]:
    """Fire when copy calls cost at least 1 % of the window: they hold the thread that launches the GPU's work.

    At stake is the idle time with the cause `copy_call` and the time in which the device ran copies and nothing else
    while a launching thread was inside a copy call. Copies from or to pageable memory are named, since they block
    even where the call says asynchronous.
    """
    for device_id, window in windows(analysis):
        idle = idle_of(analysis, device_id, Cause.COPY_CALL)
        blocked = int(analysis.value("blocking_copy_time", device_id) or 0)
        stake = idle + blocked
        if stake < _LEAST_SHARE * window:
            continue
        evidence = [
            Evidence("gpu_idle_by_cause", idle, "ns", message("idle while the launching thread was in a copy call")),
            Evidence("blocking_copy_time", blocked, "ns", message("nothing but copies ran, their callers held")),
        ]
        copies = analysis.table("copies", device_id)
        pageable = None if copies is None else copies.frame.filter(pl.col("memory").str.contains("pageable"))
        title = message("Copy calls block the launching thread")
        if pageable is not None and len(pageable):
            rows = tuple(pageable.head(3).to_dicts())
            count = int(pageable["count"].sum())
            evidence.append(Evidence("copies", count, "1", message("copies from or to pageable memory"), rows))
            title = message("Copies of pageable memory block the launching thread")
        calls = analysis.table("cuda_api_calls")
        if calls is not None:
            rows = tuple(calls.frame.filter(pl.col("name").str.contains("Memcpy|Memset")).head(3).to_dicts())
            evidence.append(
                Evidence("cuda_api_calls", sum(row["total_ns"] for row in rows), "ns", message("in copy calls"), rows)
            )
        yield Finding(
            rule=RULE.id,
            severity=severity_of(stake, window),
            title=title,
            time_at_stake_ns=stake,
            evidence=tuple(evidence),
            remedy=message(
                "Copy from pinned memory with non_blocking=True (cudaMemcpyAsync on its own stream), join small copies "
                "into one, and on a Jetson share memory with the GPU instead of copying (zero-copy, managed memory)."
            ),
            confidence="high",
            limits=message(
                "Pinned memory is limited, and a copy whose result is needed at once must still be waited for."
            ),
            device_id=device_id,
        )


RULE = Rule(
    id="blocking_copies",
    title=message("Blocking copies"),
    needs=("gpu_idle_by_cause",),
    threshold=message("idle time inside copy calls and time of blocking copies alone >= 1 % of the window"),
    reference=message("nsys analyze rules cuda_memcpy_sync and cuda_memcpy_async list such copies without their cost"),
    check=check,
)
