"""The capture cannot answer a question that matters for it."""

from __future__ import annotations

from collections.abc import Iterator

from ..analysis import Analysis
from ..causes import Cause
from ..message import message
from ..rule import Evidence, Finding, Rule
from ._idle import idle_of, windows

_MUCH = 0.20
_SOME = 0.05


def check(analysis: Analysis) -> Iterator[Finding]:
    """Tell, as `info`, when much of the time cannot be explained by this capture.

    That is: CUDA graphs traced as a whole take at least 20 % of the window; at least 5 % of it is idle without a known
    launch; the profiler itself occupied the launching thread for at least 5 % of it; no iterations were found. Also
    when the power log has negative values inside the window, which count in its energy as they stand. At stake is 0:
    nothing is known to be wrong.
    """
    for device_id, window in windows(analysis):
        graphs = analysis.value("graph_time_sum", device_id) or 0
        if graphs >= _MUCH * window:
            yield _finding(
                device_id,
                message("Most GPU work is inside CUDA graphs that were traced as a whole"),
                Evidence("graph_time_sum", graphs, "ns", message("time of graphs whose kernels are not in the trace")),
                message(
                    "Record once more with --cuda-graph-trace=node to see the kernels; keep this trace for the timing."
                ),
            )
        unattributed = idle_of(analysis, device_id, Cause.UNATTRIBUTED)
        if unattributed >= _SOME * window:
            yield _finding(
                device_id,
                message("Idle time before operations without API call cannot be explained"),
                Evidence("gpu_idle_by_cause", unattributed, "ns", message("idle, unattributed")),
                message(
                    "Record the whole run with --trace=cuda; cut traces and unified-memory migrations have no launches."
                ),
            )
        overhead = idle_of(analysis, device_id, Cause.PROFILER_OVERHEAD)
        if overhead >= _SOME * window:
            yield _finding(
                device_id,
                message("The profiler itself held the launching thread up"),
                Evidence("gpu_idle_by_cause", overhead, "ns", message("idle, profiler overhead")),
                message("Trace less (only cuda,nvtx), keep call stacks and memory usage off, or shorten the capture."),
            )
    window_ns = analysis.value("window")
    if analysis.window.is_fallback and window_ns:
        yield _finding(
            None,
            message("No repeated iterations were found, so start-up and warm-up are inside the numbers"),
            Evidence("window", window_ns, "ns", message("the window covers the whole capture")),
            message("Put an NVTX range around each inference, or name ranges that the trace has with --nvtx."),
        )
    lowest = analysis.value("power", by="min")
    if lowest is not None and lowest < 0:
        yield _finding(
            None,
            message("The power log has negative values, so its energy may be too low"),
            Evidence("power", lowest, "W", message("lowest record of the window")),
            message(
                "Look at the sensor: it is damaged, connected the other way round, or on a rail that also charges a "
                "battery. Record the power anew, or leave the log out."
            ),
        )


def _finding(device_id: int | None, title: str, evidence: Evidence, remedy: str) -> Finding:
    return Finding(
        rule=RULE.id,
        severity="info",
        title=title,
        time_at_stake_ns=0,
        evidence=(evidence,),
        remedy=remedy,
        confidence="high",
        limits=message("This is about the recording, not about the program."),
        device_id=device_id,
    )


RULE = Rule(
    id="capture_limits",
    title=message("What the capture cannot answer"),
    needs=("gpu_busy",),
    threshold=message(
        "graphs as a whole >= 20 %, unattributed or profiler overhead >= 5 % of the window; no iterations; power < 0 W"
    ),
    reference=message("Nitro"),
    check=check,
)
