"""The GPU waits for host code."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ..analysis import Analysis
from ..causes import Cause
from ..rule import Evidence, Finding, Rule, severity_of
from ._idle import idle_of, windows

_LEAST_SHARE = 0.05
_OUTSIDE = "(outside NVTX ranges)"


def check(analysis: Analysis) -> Iterator[Finding]:
    """Fire when a device is idle for at least 5 % of the window while the launching thread runs code outside CUDA.

    At stake is the idle time with the causes `host_code`, `os_call` and `not_scheduled`; the NVTX path with most of it
    is named.
    """
    for device_id, window in windows(analysis):
        stake = idle_of(analysis, device_id, Cause.HOST_CODE, Cause.OS_CALL, Cause.NOT_SCHEDULED)
        if stake < _LEAST_SHARE * window:
            continue
        evidence = [Evidence("gpu_idle_by_cause", stake, "ns", "idle while the launching thread ran other code")]
        paths = analysis.table("host_code_by_path", device_id)
        title = "The GPU waits for host code"
        if paths is not None and len(paths.frame):
            worst = paths.frame.row(0, named=True)
            rows = tuple(paths.frame.head(4).to_dicts())
            text = f"of it in {worst['nvtx_path']}"
            evidence.append(Evidence("host_code_by_path", worst["idle_ns"], "ns", text, rows))
            marked = paths.frame.filter(pl.col("nvtx_path") != _OUTSIDE)
            if len(marked) and worst["nvtx_path"] != _OUTSIDE:
                title += f", most of all in {worst['nvtx_path']}"
        for cause in (Cause.OS_CALL, Cause.NOT_SCHEDULED):
            part = idle_of(analysis, device_id, cause)
            if part:
                evidence.append(Evidence("gpu_idle_by_cause", part, "ns", f"of it {cause.id}"))
        yield Finding(
            rule=RULE.id,
            severity=severity_of(stake, window),
            title=title,
            time_at_stake_ns=stake,
            evidence=tuple(evidence),
            remedy=(
                "Move that work off the launching thread or ahead of it (prefetch, a second thread, pre-processing on "
                "the GPU); where it is framework overhead between launches, a CUDA graph or torch.compile removes it."
            ),
            confidence="high",
            limits="What the code was doing is not in the trace; finer NVTX ranges or CPU sampling would tell.",
            device_id=device_id,
        )


RULE = Rule(
    id="host_bound",
    title="Host-bound",
    needs=("gpu_idle_by_cause",),
    threshold="idle time in host code, OS calls or off the CPU >= 5 % of the window",
    reference="Nitro; idle causes",
    check=check,
)
