"""Another process uses the GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..analysis import Analysis
from ..message import Message, message
from ..metric import Measurement
from ..rule import Evidence, Finding, Rule, severity_of
from ._idle import windows

_LEAST_ACTIVE = 0.05
# Of an engine that nobody else uses the sampler shows 1 to 2 % between operations, of one that another program holds
# nearly all: half is far from both, and means that a launch more often waits than not.
_LEAST_HELD = 0.5
_WHEN = {
    "before the first": message("before the first"),
    "between": message("between"),
    "after the last": message("after the last"),
    "anywhere": message("anywhere"),
}


def check(analysis: Analysis) -> Iterator[Finding]:
    """Fire when another program's work shows on the SMs or on the engine while the trace has no GPU operation.

    On the SMs: they are active for at least 5 % of the time before the first, between, or after the last operation. At
    stake is the window times that activity: what the other work takes, if it goes on at the same rate.

    On the engine: the graphics and compute engine is active for at least half of the time between operations, or, where
    nothing was sampled between, before the first or after the last. Another program holds the GPU then, even with few
    SMs. At stake is the idle time of the window times that activity, plus the half point that samples may be off: the
    most that it can be. Where both show, the larger stake counts.
    """
    for device_id, window in windows(analysis):
        sms = analysis.parts("sm_active_without_operations", device_id)
        engine = analysis.parts("gr_active_without_operations", device_id)
        active = max((part.value for part in sms.values()), default=0.0)
        held = _decisive(engine)
        stakes = [min(active, 1.0) * window] if active >= _LEAST_ACTIVE else []
        title = message("The GPU is busy while this trace has no work on it: another process uses it")
        if held is not None and held.value >= _LEAST_HELD:
            idle = analysis.value("gpu_idle", device_id) or 0
            stakes.append(min(held.value + (held.error or 0.0), 1.0) * idle)
            if active < _LEAST_ACTIVE:
                title = _held_title(held, sms)
        if not stakes:
            continue
        stake = round(max(stakes))
        yield Finding(
            rule=RULE.id,
            severity=severity_of(stake, window),
            title=title,
            time_at_stake_ns=stake,
            evidence=(*_evidence(sms), *_evidence(engine)),
            remedy=message(
                "Look for other users of the GPU (nvidia-smi, tegrastats, a desktop, a second container) and stop "
                "them before measuring; or record all processes in one session."
            ),
            confidence="medium",
            limits=message(
                "The sampler sees the whole GPU and cannot tell whose work it is; work that CUDA tracing does not "
                "record (graphics, video) looks the same. Sampled values of this trace include it."
            ),
            device_id=device_id,
        )


def _decisive(engine: Mapping[str, Measurement]) -> Measurement | None:
    """Return what the engine did between operations, or where it was most active if nothing was sampled there."""
    return engine.get("between") or max(engine.values(), key=lambda part: part.value, default=None)


def _held_title(held: Measurement, sms: Mapping[str, Measurement]) -> Message:
    part = sms.get(held.by or "")
    if part is None:
        return message(
            "Another program holds the GPU: while this trace has no work on it, the engine is active for "
            "{engine:.1%} of the time",
            engine=held.value,
        )
    return message(
        "Another program holds the GPU: while this trace has no work on it, the engine is active for {engine:.1%} of "
        "the time, SMs for {sms:.1%}",
        engine=held.value,
        sms=part.value,
    )


def _evidence(parts: Mapping[str, Measurement]) -> Iterator[Evidence]:
    for by, part in parts.items():
        if by == "anywhere" and len(parts) > 1:
            continue
        when, count = _WHEN[by], part.count
        text = message("SM active {when} ({count} samples)", when=when, count=count)
        if part.metric == "gr_active_without_operations":
            text = message("GR active {when} ({count} samples)", when=when, count=count)
        yield Evidence(part.metric, part.value, "ratio", text)


RULE = Rule(
    id="interference",
    title=message("Interference"),
    needs=("sm_active_without_operations", "gr_active_without_operations"),
    threshold=message(
        "SM active >= 5 % before the first, between, or after the last operation of the trace; or GR active >= 50 % "
        "between operations"
    ),
    reference=message("Nitro"),
    check=check,
)
