"""Memory is allocated or freed inside the measured loop."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ..analysis import Analysis
from ..causes import Cause, class_of_call
from ..message import message
from ..rule import Evidence, Finding, Rule, severity_of
from ._idle import idle_of, windows

_LEAST_SHARE = 0.01


def check(analysis: Analysis) -> Iterator[Finding]:
    """Fire when a device is idle for at least 1 % of the window while its launching thread allocates or frees memory.

    At stake is the idle time with the cause `memory_management`.
    """
    for device_id, window in windows(analysis):
        stake = idle_of(analysis, device_id, Cause.MEMORY_MANAGEMENT)
        if stake < _LEAST_SHARE * window:
            continue
        evidence = [
            Evidence("gpu_idle_by_cause", stake, "ns", message("idle while the launching thread managed memory"))
        ]
        calls = analysis.table("cuda_api_calls")
        if calls is not None:
            managing = [class_of_call(name) is Cause.MEMORY_MANAGEMENT for name in calls.frame["name"]]
            own = calls.frame.filter(pl.Series(managing, dtype=pl.Boolean))
            count = int(own["calls"].sum())
            rows = tuple(own.head(4).to_dicts())
            evidence.append(
                Evidence("cuda_api_calls", count, "1", message("allocating and freeing calls in the window"), rows)
            )
        growth = analysis.find("gpu_memory_growth", device_id)
        if growth is not None and growth.value > 0:
            evidence.append(Evidence("gpu_memory_growth", growth.value, "bytes", message("kept per iteration")))
        yield Finding(
            rule=RULE.id,
            severity=severity_of(stake, window),
            title=message("Memory is allocated or freed inside the window"),
            time_at_stake_ns=stake,
            evidence=tuple(evidence),
            remedy=message(
                "Allocate once before the loop and reuse the buffers, or use a caching or stream-ordered allocator "
                "(cudaMallocAsync, PyTorch's own); cudaFree and cudaMalloc synchronise the whole device."
            ),
            confidence="high",
            limits=message(
                "Where the window covers start-up, such calls are expected; choose a window of steady iterations."
            ),
            device_id=device_id,
        )


RULE = Rule(
    id="allocation_in_loop",
    title=message("Allocation inside the loop"),
    needs=("gpu_idle_by_cause",),
    threshold=message("idle time inside allocating and freeing calls >= 1 % of the window"),
    reference=message("CUDA best practices guide: allocations synchronise"),
    check=check,
)
