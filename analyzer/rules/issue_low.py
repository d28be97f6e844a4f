"""SMs hold warps that rarely issue."""

from __future__ import annotations

from collections.abc import Iterator

from ..analysis import Analysis
from ..message import message
from ..rule import Evidence, Finding, Rule, severity_of
from ._idle import windows

_LEAST_ACTIVE = 0.3
_LEAST_ISSUE = 0.15
_MUCH_TENSOR = 0.25
_DRAM = {"read": message("DRAM read"), "write": message("DRAM write")}


def check(analysis: Analysis) -> Iterator[Finding]:
    """Fire when SMs are active for at least 30 % of the window and issue less than 15 % of what they could meanwhile.

    Where tensor pipes are busy for a quarter of the active time it stays silent: they need few instructions.
    At stake is the active SM time times 1 - (issued share / 15 %), the part by which the kernels miss that rate: an
    upper bound, since no real kernel issues in every slot.
    """
    for device_id, window in windows(analysis):
        active, issue = analysis.find("sm_active_ratio", device_id), analysis.find("sm_issue_ratio", device_id)
        if active is None or issue is None or active.value < _LEAST_ACTIVE:
            continue
        efficiency = issue.value / active.value
        tensor = analysis.value("tensor_active_ratio", device_id) or 0.0
        if efficiency >= _LEAST_ISSUE or tensor >= _MUCH_TENSOR * active.value:
            continue
        stake = round(window * active.value * (1 - efficiency / _LEAST_ISSUE))
        dram = analysis.parts("dram_throughput", device_id)
        evidence = [
            Evidence("sm_active_ratio", active.value, "ratio", message("SM-cycles with a warp")),
            Evidence("sm_issue_ratio", issue.value, "ratio", message("issue slots used")),
        ]
        evidence += [Evidence("dram_throughput", part.value, "ratio", _DRAM[by]) for by, part in dram.items()]
        yield Finding(
            rule=RULE.id,
            severity=severity_of(stake, window),
            title=message("SMs are active but rarely issue: warps wait for memory or for each other"),
            time_at_stake_ns=stake,
            evidence=tuple(evidence),
            remedy=message(
                "Profile the top kernels with Nsight Compute for their stall reasons; fuse element-wise "
                "kernels to save memory traffic, use half precision, pair memory-bound with compute-bound work."
            ),
            confidence="medium",
            limits=message(
                "Short bursts of tensor-core work, which needs few instructions, may be missed by the sampler. The "
                "time at stake is an upper bound."
            ),
            device_id=device_id,
        )


RULE = Rule(
    id="issue_low",
    title=message("Low issue rate"),
    needs=("sm_active_ratio", "sm_issue_ratio"),
    threshold=message("SM active >= 30 %, SM issue / SM active < 15 %, tensor active < 25 % of SM active"),
    reference=message("Nsight Systems GPU metrics: SM Issue is instructions against four per cycle"),
    check=check,
)
