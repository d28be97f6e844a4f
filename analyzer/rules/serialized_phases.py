"""Two phases run one after the other and could overlap: the story of kernel fusion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..analysis import Analysis
from ..message import message
from ..rule import Evidence, Finding, Rule, severity_of
from ._idle import windows

_MOST_TOGETHER = 0.10
_LEAST_SHARE = 0.05
_LEAST_GAIN = 1.25
_RESOURCES = (("sm_active",), ("dram_read", "dram_write"))


@dataclass(frozen=True, slots=True)
class _Chance:
    """What overlap of a pair could win: `stake_ns` of the window, `gain` on the pair, with or without measured room."""

    stake_ns: int
    gain: float
    room_is_known: bool
    row: dict[str, Any]


def check(analysis: Analysis) -> Iterator[Finding]:
    """Fire when two phases side by side in repeated iterations share less than 10 % of the shorter one.

    For phases of lengths a and b, overlap can win at most (a + b) / max(a, b, room), where `room` is what both need of
    the busier resource (SM activity, DRAM) in time at full use, and max(a, b) alone where nothing was sampled. The rule
    fires where that is at least 1.25 and the time saved, in which a GPU is busy now, at least 5 % of the window. Gaps
    inside the shorter phase are left out: they wait for the host, and other rules have them. The pair with most at
    stake is named.
    """
    overlap, phases = analysis.table("phase_pairs"), analysis.table("nvtx_phases")
    if overlap is None or phases is None or not analysis.window.iterations:
        return
    busy = {row["nvtx_path"]: row["gpu_busy_ratio"] or 0.0 for row in phases.frame.to_dicts() if row["in_window"]}
    found = list(windows(analysis))
    # Phases are not told apart by device; with several, the finding is about none of them in particular.
    for device_id, window in found[:1]:
        use = _use(analysis, device_id) if len(found) == 1 else {}
        chances = [
            chance
            for row in overlap.frame.to_dicts()
            if row["in_window"] and row["share_of_shorter"] < _MOST_TOGETHER
            if (chance := _chance(row, busy.get(row["second"], 0.0), use)).gain >= _LEAST_GAIN
            and chance.stake_ns >= _LEAST_SHARE * window
        ]
        best = max(chances, key=lambda chance: chance.stake_ns, default=None)
        if best is None:
            continue
        names = [best.row[side].rpartition(" > ")[2] for side in ("first", "second")]
        yield Finding(
            rule=RULE.id,
            severity=severity_of(best.stake_ns, window),
            title=message(
                "{first} and {second} run one after the other; overlap could win {gain:.2f} x at most",
                first=names[0],
                second=names[1],
                gain=best.gain,
            ),
            time_at_stake_ns=best.stake_ns,
            evidence=(
                Evidence(
                    "phase_pairs", best.row["bound"], "ratio", message("bound from the lengths alone"), (best.row,)
                ),
                Evidence("phase_pairs", best.gain, "ratio", message("bound with the room that SMs and DRAM leave")),
            ),
            remedy=message(
                "If neither needs the other's result, run them on two streams, as parallel branches of one CUDA graph, "
                "or as a horizontally fused kernel that pairs compute-bound with memory-bound work."
            ),
            confidence="medium" if best.room_is_known else "low",
            limits=message(
                "Whether the phases depend on each other is not in the trace. Real overlap wins less than the bound: "
                "blocks of one phase slow those of the other."
            ),
            device_id=device_id if len(found) == 1 else None,
        )


def _chance(row: dict[str, Any], busy_ratio: float, use: dict[str, tuple[float, ...]]) -> _Chance:
    a, b = row["first_ns"], row["second_ns"]
    first, second = use.get(row["first"]), use.get(row["second"])
    room = 0.0
    if first is not None and second is not None:
        room = max(one * a + other * b for one, other in zip(first, second, strict=True))
    shortest = max(a, b, room)
    saved = min((a + b) - shortest, b - row["together_ns"])
    return _Chance(round(max(saved, 0) * busy_ratio), (a + b) / shortest if shortest else 1.0, room > 0, row)


def _use(analysis: Analysis, device_id: int) -> dict[str, tuple[float, ...]]:
    """Return, for each phase with samples, how much of SMs and of DRAM it uses (0 to 1)."""
    table = analysis.table("sampled_by_phase", device_id)
    if table is None:
        return {}
    return {
        row["nvtx_path"]: tuple(sum(row[name] or 0.0 for name in names) for names in _RESOURCES)
        for row in table.frame.to_dicts()
        if row["sm_active"] is not None
    }


RULE = Rule(
    id="serialized_phases",
    title=message("Serialised phases"),
    needs=("phase_pairs",),
    threshold=message("overlap < 10 % of the shorter phase, bound >= 1.25, busy time saved >= 5 % of the window"),
    reference=message("Nitro; bound (a + b) / max(a, b)"),
    check=check,
)
