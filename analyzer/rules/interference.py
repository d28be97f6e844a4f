"""Another process uses the GPU."""

from __future__ import annotations

from collections.abc import Iterator

from ..analysis import Analysis
from ..message import message
from ..rule import Evidence, Finding, Rule, severity_of
from ._idle import windows

_LEAST_ACTIVE = 0.05
_WHEN = {
    "before the first": message("before the first"),
    "between": message("between"),
    "after the last": message("after the last"),
    "anywhere": message("anywhere"),
}


def check(analysis: Analysis) -> Iterator[Finding]:
    """Fire when SMs are active for at least 5 % of the time before the first, between, or after the last GPU operation.

    At stake is the window times that activity: what the other work takes, if it goes on at the same rate.
    """
    for device_id, window in windows(analysis):
        parts = analysis.parts("sm_active_without_operations", device_id)
        worst = max((part.value for part in parts.values()), default=0.0)
        if worst < _LEAST_ACTIVE:
            continue
        stake = round(min(worst, 1.0) * window)
        evidence = tuple(
            Evidence(
                "sm_active_without_operations",
                part.value,
                "ratio",
                message("SM active {when} ({count} samples)", when=_WHEN[by], count=part.count),
            )
            for by, part in parts.items()
            if by != "anywhere" or len(parts) == 1
        )
        yield Finding(
            rule=RULE.id,
            severity=severity_of(stake, window),
            title=message("The GPU is busy while this trace has no work on it: another process uses it"),
            time_at_stake_ns=stake,
            evidence=evidence,
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


RULE = Rule(
    id="interference",
    title=message("Interference"),
    needs=("sm_active_without_operations",),
    threshold=message("SM active >= 5 % before the first, between, or after the last operation of the trace"),
    reference=message("Nitro"),
    check=check,
)
