"""The GPU waits for host code."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ..analysis import Analysis
from ..causes import Cause
from ..message import message
from ..rule import Evidence, Finding, Rule, severity_of
from ._idle import OUTSIDE_NVTX, idle_of, place, windows

_LEAST_SHARE = 0.05


def check(analysis: Analysis) -> Iterator[Finding]:
    """Fire when a device is idle for at least 5 % of the window while the launching thread runs code outside CUDA.

    At stake is the idle time with the causes `host_code`, `os_call` and `not_scheduled`; the NVTX path with most of it
    is named.
    """
    for device_id, window in windows(analysis):
        stake = idle_of(analysis, device_id, Cause.HOST_CODE, Cause.OS_CALL, Cause.NOT_SCHEDULED)
        if stake < _LEAST_SHARE * window:
            continue
        evidence = [
            Evidence("gpu_idle_by_cause", stake, "ns", message("idle while the launching thread ran other code"))
        ]
        paths = analysis.table("host_code_by_path", device_id)
        title = message("The GPU waits for host code")
        if paths is not None and len(paths.frame):
            worst = paths.frame.row(0, named=True)
            rows = tuple(paths.frame.head(4).to_dicts())
            text = message("of it in {path}", path=place(worst["nvtx_path"]))
            evidence.append(Evidence("host_code_by_path", worst["idle_ns"], "ns", text, rows))
            marked = paths.frame.filter(pl.col("nvtx_path") != OUTSIDE_NVTX)
            if len(marked) and worst["nvtx_path"] != OUTSIDE_NVTX:
                title = message("The GPU waits for host code, most of all in {path}", path=worst["nvtx_path"])
        for cause in (Cause.OS_CALL, Cause.NOT_SCHEDULED):
            part = idle_of(analysis, device_id, cause)
            if part:
                evidence.append(Evidence("gpu_idle_by_cause", part, "ns", message("of it {cause}", cause=cause.id)))
        yield Finding(
            rule=RULE.id,
            severity=severity_of(stake, window),
            title=title,
            time_at_stake_ns=stake,
            evidence=tuple(evidence),
            remedy=message(
                "Move that work off the launching thread or ahead of it (prefetch, a second thread, pre-processing on "
                "the GPU); where it is framework overhead between launches, a CUDA graph or torch.compile removes it."
            ),
            confidence="high",
            limits=message(
                "What the code was doing is not in the trace; finer NVTX ranges or CPU sampling would tell."
            ),
            device_id=device_id,
        )


RULE = Rule(
    id="host_bound",
    title=message("Host-bound"),
    needs=("gpu_idle_by_cause",),
    threshold=message("idle time in host code, OS calls or off the CPU >= 5 % of the window"),
    reference=message("Nitro; idle causes"),
    check=check,
)
