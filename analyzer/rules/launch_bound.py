"""The GPU waits for launches."""

from __future__ import annotations

from collections.abc import Iterator

from ..analysis import Analysis
from ..causes import Cause
from ..message import message
from ..rule import Evidence, Finding, Rule, severity_of
from ._idle import idle_of, windows

_LEAST_SHARE = 0.03


def check(analysis: Analysis) -> Iterator[Finding]:
    """Fire when a device is idle for at least 3 % of the window because its next launch was under way.

    At stake is the idle time with the causes `launch_call`, `launch_latency` and `launching_other`.
    """
    for device_id, window in windows(analysis):
        stake = idle_of(analysis, device_id, Cause.LAUNCH_CALL, Cause.LAUNCH_LATENCY, Cause.LAUNCHING_OTHER)
        if stake < _LEAST_SHARE * window:
            continue
        evidence = [Evidence("gpu_idle_by_cause", stake, "ns", message("idle while a launch was under way"))]
        launches = analysis.find("launches_per_iteration")
        if launches is not None:
            evidence.append(
                Evidence("launches_per_iteration", launches.value, "1", message("launching calls per iteration"))
            )
        tiny, count = analysis.find("tiny_kernel_count", device_id), analysis.value("kernel_count", device_id)
        if tiny is not None and count:
            text = message("kernels that ran shorter than their launch call")
            evidence.append(Evidence("tiny_kernel_count", tiny.value, "1", text))
        calls = analysis.table("launch_calls")
        if calls is not None:
            rows = tuple(calls.frame.head(3).to_dicts())
            total = int(calls.frame["api_ns"].sum())
            evidence.append(Evidence("launch_calls", total, "ns", message("time in launching calls"), rows))
        yield Finding(
            rule=RULE.id,
            severity=severity_of(stake, window),
            title=message("The GPU waits for kernel launches"),
            time_at_stake_ns=stake,
            evidence=tuple(evidence),
            remedy=message(
                "Capture the iteration as a CUDA graph (torch.cuda.CUDAGraph, torch.compile(mode='reduce-overhead'), "
                "TensorRT with CUDA graphs), fuse small kernels, or raise the batch size: all launch less often."
            ),
            confidence="high",
            limits=message(
                "Profiling makes each launch longer by some microseconds, so the share is smaller without the profiler."
            ),
            device_id=device_id,
        )


RULE = Rule(
    id="launch_bound",
    title=message("Launch-bound"),
    needs=("gpu_idle_by_cause",),
    threshold=message("idle time waiting for launches >= 3 % of the window"),
    reference=message("Nitro; idle causes"),
    check=check,
)
