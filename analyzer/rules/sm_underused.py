"""The GPU is busy, its SMs are not."""

from __future__ import annotations

from collections.abc import Iterator

from ..analysis import Analysis
from ..message import message
from ..rule import Evidence, Finding, Rule, severity_of
from ._idle import windows

_LEAST_BUSY = 0.5
_MOST_ACTIVE = 0.5


def check(analysis: Analysis) -> Iterator[Finding]:
    """Fire when kernels and graphs run for at least half of the window, but SMs are active for less than half of that.

    At stake is the time of kernels and graphs times the share of SM-cycles without a warp. Copies are left out: they
    use no SM.
    """
    for device_id, window in windows(analysis):
        busy = analysis.value("kernel_busy", device_id) or 0
        active = analysis.find("sm_active_ratio", device_id)
        if active is None or busy < _LEAST_BUSY * window:
            continue
        while_busy = active.value * window / busy
        if while_busy >= _MOST_ACTIVE:
            continue
        stake = round(busy * (1 - while_busy))
        yield Finding(
            rule=RULE.id,
            severity=severity_of(stake, window),
            title=message("The GPU looks busy, but most SM time is empty"),
            time_at_stake_ns=stake,
            evidence=(
                Evidence("kernel_busy", busy, "ns", message("time with kernels or graphs running")),
                Evidence(
                    "sm_active_ratio",
                    active.value,
                    "ratio",
                    message("sampled SM activity ({count} samples)", count=active.count),
                ),
            ),
            remedy=message(
                "Give the GPU more parallel work at a time: a larger batch, two streams or fused kernels that run side "
                "by side, kernels with more blocks. Utilisation as nvidia-smi and tegrastats show it hides this."
            ),
            confidence="high",
            limits=message("50 % may be half of the SMs all the time, or all of them half of the time."),
            device_id=device_id,
        )


RULE = Rule(
    id="sm_underused",
    title=message("SM time unused while busy"),
    needs=("kernel_busy", "sm_active_ratio"),
    threshold=message("kernels and graphs >= 50 % of the window, SM active < 50 % of that"),
    reference=message("arXiv 2508.08430: utilisation near 100 % with SM use of 15 to 30 %"),
    check=check,
)
