"""Element-wise kernels in a row that fusion would merge."""

from __future__ import annotations

from collections.abc import Iterator

from ..analysis import Analysis
from ..message import message
from ..rule import Evidence, Finding, Rule, severity_of
from ._idle import windows

_LEAST_SHARE = 0.05


def check(analysis: Analysis) -> Iterator[Finding]:
    """Fire when element-wise kernels that directly follow another one on their stream take 5 % of the window or more.

    At stake is the time of these second kernels: what vertical fusion could save at most.
    """
    for device_id, window in windows(analysis):
        time = analysis.find("fusable_kernel_time", device_id)
        if time is None:
            continue
        # Chains side by side would count twice, and no more than the busy time can be won.
        stake = min(int(time.value), int(analysis.value("kernel_busy", device_id) or 0))
        if stake < _LEAST_SHARE * window:
            continue
        pairs = analysis.table("fusion_candidates", device_id)
        rows = () if pairs is None else tuple(pairs.frame.head(3).to_dicts())
        yield Finding(
            rule=RULE.id,
            severity=severity_of(stake, window),
            title=message("Element-wise kernels run one after another and could be fused"),
            time_at_stake_ns=stake,
            evidence=(
                Evidence(
                    "fusion_candidates",
                    time.value,
                    "ns",
                    message("in {count:,} kernels that follow one", count=time.count),
                    rows,
                ),
            ),
            remedy=message(
                "Let a compiler merge them (torch.compile, TensorRT, nvFuser) or write one kernel for the chain: each "
                "merged kernel saves a pass over memory and a launch."
            ),
            confidence="medium",
            limits=message(
                "Kernels are told apart by name; whether the second reads what the first wrote is not recorded."
            ),
            device_id=device_id,
        )


RULE = Rule(
    id="unfused_chains",
    title=message("Unfused element-wise chains"),
    needs=("fusable_kernel_time",),
    threshold=message("time of element-wise kernels directly after another one >= 5 % of the window"),
    reference=message("Nitro"),
    check=check,
)
