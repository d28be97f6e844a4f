"""Two phases run one after the other and could overlap: the story of kernel fusion."""

from __future__ import annotations

from collections.abc import Iterator

from ..analysis import Analysis
from ..rule import Confidence, Evidence, Finding, Rule, severity_of
from ._idle import windows

_MOST_TOGETHER = 0.10
_LEAST_SHARE = 0.05
_FULL = 0.80


def check(analysis: Analysis) -> Iterator[Finding]:
    """Fire when two phases side by side in repeated iterations share less than 10 % of the shorter one.

    At stake is the part of the shorter phase that does not overlap yet and in which a GPU is busy: with room for both
    at full speed, it would vanish. Gaps inside the phase are left out: they wait for the host, and other rules have
    them. It must be at least 5 % of the window; the pair with most at stake is named. Where the SM activity of both
    phases is known and together exceeds 80 %, there is little room and the confidence is low.
    """
    overlap, phases = analysis.table("phase_overlap"), analysis.table("nvtx_phases")
    if overlap is None or phases is None or not analysis.window.iterations:
        return
    busy = {row["nvtx_path"]: row["gpu_busy_ratio"] or 0.0 for row in phases.frame.to_dicts() if row["in_window"]}
    for device_id, window in windows(analysis):
        stakes = [
            (round((row["second_ns"] - row["together_ns"]) * busy.get(row["second"], 0.0)), row)
            for row in overlap.frame.to_dicts()
            if row["in_window"] and row["share_of_shorter"] < _MOST_TOGETHER
        ]
        stake, worst = max(stakes, key=lambda pair: pair[0], default=(0, None))
        if worst is None or stake < _LEAST_SHARE * window:
            continue
        activity = _sm_activity(analysis, device_id, worst["first"], worst["second"])
        confidence: Confidence = "medium" if activity is None or activity <= _FULL else "low"
        evidence = [Evidence("phase_overlap", worst["bound"], "ratio", "most that overlap could win", (worst,))]
        if activity is not None:
            evidence.append(Evidence("sm_active_ratio", activity, "ratio", "SM activity of both phases, added up"))
        names = [worst[side].rpartition(" > ")[2] for side in ("first", "second")]
        yield Finding(
            rule=RULE.id,
            severity=severity_of(stake, window),
            title=f"{names[0]} and {names[1]} run one after the other; overlap wins {worst['bound']:.2f} x at most",
            time_at_stake_ns=stake,
            evidence=tuple(evidence),
            remedy=(
                "If neither needs the other's result, run them on two streams, as parallel branches of one CUDA graph, "
                "or as a horizontally fused kernel that pairs compute-bound with memory-bound work."
            ),
            confidence=confidence,
            limits=(
                "Whether the phases depend on each other is not in the trace. Overlap wins only where one leaves SMs "
                "or memory bandwidth free that the other can use."
            ),
            device_id=device_id,
        )


def _sm_activity(analysis: Analysis, device_id: int, *paths: str) -> float | None:
    table = analysis.table("sampled_by_phase", device_id)
    if table is None:
        return None
    found = {row["nvtx_path"]: row["sm_active"] for row in table.frame.to_dicts()}
    values = [found.get(path) for path in paths]
    return None if None in values else sum(value for value in values if value is not None)


RULE = Rule(
    id="serialized_phases",
    title="Serialised phases",
    needs=("phase_overlap",),
    threshold="overlap < 10 % of the shorter phase, whose busy time without overlap is >= 5 % of the window",
    reference="Nitro; bound (a + b) / max(a, b)",
    check=check,
)
