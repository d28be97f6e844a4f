"""What follows from the results of a study: gains, targets, prediction, winners, and all of it as text.

In every comparison each side is the winner on tuning samples of its group, and is judged by its judging samples. A
difference of less than 2 % is a tie.
"""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .candidates import FUSED, LIBRARY, OURS, SIMPLE, Family
from .cases import cases
from .prediction import Quality, Sample, quality
from .sm_budget import Budget
from .study_results import CaseResult, Timing

TIE = 0.02
_RESAMPLES = 2000
_SAID = 76  # letters of what a line of the summary is about


def geometric_mean(values: Sequence[float]) -> float | None:
    """Return the geometric mean of positive numbers; None without any."""
    return math.exp(sum(math.log(value) for value in values) / len(values)) if values else None


def gain_interval(slow: Timing, fast: Timing, *, seed: int = 1) -> tuple[float, float]:
    """Return the 95 % interval of the ratio of two medians, by resampling the rounds in which both were timed."""
    both = np.array([slow.samples_us, fast.samples_us])
    picks = np.random.default_rng(seed).integers(0, both.shape[1], (_RESAMPLES, both.shape[1]))
    medians = np.median(both[:, picks], axis=2)
    low, high = np.percentile(medians[0] / medians[1], (2.5, 97.5))
    return float(low), float(high)


def verdict(gain: float) -> str:
    """Return what a gain means: `win`, `loss`, or `tie` for less than 2 %."""
    if abs(gain - 1) < TIE:
        return "tie"
    return "win" if gain > 1 else "loss"


# The baselines of a case, and the families that each of them may use.
BASELINES: dict[str, tuple[Family, ...]] = {
    "simple": SIMPLE,
    "simple_and_elastic": (*SIMPLE, "elastic"),
    "everything": (*SIMPLE, "elastic", *LIBRARY),
    "everything_in_our_layout": (*SIMPLE, "elastic", "library_same_layout"),
    "elastic": ("elastic",),
    "library": LIBRARY,
}


def baseline_of(result: CaseResult, name: str) -> Timing | None:
    """Return the winner of a baseline; None where it did not run, or is to hold a library and none ran."""
    families = BASELINES[name]
    needs_library = not set(LIBRARY).isdisjoint(families)
    return None if needs_library and not result.winner(*LIBRARY) else result.winner(*families)


def gains_of(result: CaseResult) -> dict[str, float | None]:
    """Return the gain of the fused winner over each baseline; None where a side did not run."""
    fused = result.winner(*FUSED)
    sides = ((name, baseline_of(result, name)) for name in BASELINES)
    return {name: other.median_us / fused.median_us if other and fused else None for name, other in sides}


def row(result: CaseResult) -> dict[str, Any]:
    """Return the numbers of a case that a table shows; None where a side did not run."""
    fused, gains = result.winner(*FUSED), gains_of(result)
    intervals: dict[str, tuple[float, float] | None] = {}
    for name in BASELINES:
        baseline = baseline_of(result, name)
        intervals[name] = gain_interval(baseline, fused) if baseline and fused else None
    return {
        "case": result.name,
        "accepted": result.decision.accepted,
        "measured_ratio": result.decision.second_us / result.decision.first_us,
        **{f"{family}_us": _median(result.winner(family)) for family in ("first", "second", "elastic")},
        "simple_us": _median(result.winner(*SIMPLE)),
        "library_us": _median(result.winner(*LIBRARY)),
        "fused_us": _median(fused),
        "fused": fused.name if fused else None,
        "bound": _largest_gain(result),
        "gains": gains,
        "intervals": intervals,
        "verdicts": {name: verdict(gain) if gain else None for name, gain in gains.items()},
        "share_of_bound": _share_of_bound(result),
        "fastest": fastest_families(result),
    }


def _largest_gain(result: CaseResult) -> float | None:
    """Return the gain over running in turn if the shorter of the two cost nothing."""
    bound, sequential = result.bound_us, result.winner("sequential")
    return sequential.median_us / bound if sequential and bound else None


def _share_of_bound(result: CaseResult) -> float | None:
    most, simple = _largest_gain(result), gains_of(result)["simple"]
    return (simple - 1) / (most - 1) if simple and most and most > 1 else None


def _median(timing: Timing | None) -> float | None:
    return timing.median_us if timing else None


def fastest_families(result: CaseResult) -> list[str]:
    """Return the families of ours whose winner is the fastest on judging samples, or ties with the fastest."""
    times = {family: timing.median_us for family in OURS if (timing := result.winner(family))}
    least = min(times.values(), default=0.0)
    return [family for family, time_us in sorted(times.items(), key=lambda one: one[1]) if time_us < least * (1 + TIE)]


@dataclass(frozen=True, slots=True)
class Target:
    """A number that was asked for before anything was measured. `met` is None if it could not be measured."""

    what: str
    asked: float
    measured: float | None
    at_least: bool = True

    @property
    def met(self) -> bool | None:
        """Return whether the number is as good as asked."""
        if self.measured is None:
            return None
        return self.measured >= self.asked if self.at_least else self.measured <= self.asked


def summarise(results: Sequence[CaseResult], budget: Budget | None = None) -> dict[str, Any]:
    """Return what follows from the results: geometric means, targets, prediction, regret, winners.

    There are targets for the committed cases on a whole GPU; nothing was asked of other pairs, or of a part of one.
    """
    unlike = [one for one in results if not one.is_control]
    controls = [one for one in results if one.is_control]
    accepted = [one for one in unlike if one.decision.accepted]
    fp32 = [one for one in accepted if one.kernel_class.endswith("float32")]
    gains = {name: _gains(accepted, name) for name in BASELINES}
    found: dict[str, Any] = {
        "cases": len(unlike),
        "controls": len(controls),
        "accepted": len(accepted),
        "accepted_cases": _statistics(accepted),
        "accepted_fp32_cases": _statistics(fp32),
        "accepted_fp16_cases": _statistics([one for one in accepted if one not in fp32]),
        "all_cases_rejected_as_1": {
            name: geometric_mean(found + [1.0] * (len(unlike) - len(accepted)))
            for name, found in gains.items()
            if len(found) == len(accepted)
        },
        "all_cases_fused": _statistics(unlike),
        "all_cases_as_tuned": {name: geometric_mean(_tuned_gains(unlike, name)) for name in ("simple", "everything")},
        "controls_rejected": sum(not one.decision.accepted for one in controls),
        "controls_gain_over_simple": {one.name: gains_of(one)["simple"] for one in controls},
        "fastest": {family: _wins(unlike, family) for family in OURS},
        "prediction": asdict(predictions(unlike)),
        "regret": {one.name: one.regret.regret for one in results if one.regret},
        "same_bits": all(one.same_bits for one in results if one.same_bits is not None),
    }
    committed = {case.name for case in cases()}
    asked = not budget and bool(results) and all(one.name in committed for one in results)
    targets = _targets(found, {one.name.partition("+")[0] for one in accepted}) if asked else ()
    return {**found, "targets": [{**asdict(target), "met": target.met} for target in targets]}


def _targets(found: Mapping[str, Any], compute_bodies: Collection[str]) -> tuple[Target, ...]:
    """Return what was asked for before anything was tuned, beside what was found."""
    simple = found["accepted_cases"]["simple"]
    return (
        Target("accepted cases", 8, found["accepted"]),
        Target("compute bodies among the accepted cases", 3, len(compute_bodies)),
        Target("geometric mean over simple, accepted cases", 1.25, simple["geometric_mean"]),
        Target("least gain over simple, accepted cases", 1.00, simple["least"]),
        Target("best gain over simple, accepted cases", 1.55, simple["best"]),
        Target(
            "geometric mean over simple and elastic, accepted cases",
            1.10,
            found["accepted_cases"]["simple_and_elastic"]["geometric_mean"],
        ),
        Target(
            "geometric mean over everything with the library, accepted fp32 cases",
            1.05,
            found["accepted_fp32_cases"]["everything"]["geometric_mean"],
        ),
        Target("controls rejected", found["controls"], found["controls_rejected"]),
        Target("mean error of the predicted time", 0.10, found["prediction"]["held_out"], at_least=False),
        Target("largest regret of the tuner", 0.03, max(found["regret"].values(), default=None), at_least=False),
    )


def _gains(results: Iterable[CaseResult], baseline: str) -> list[float]:
    found = (gains_of(one)[baseline] for one in results)
    return [gain for gain in found if gain is not None]


def _tuned_gains(results: Iterable[CaseResult], baseline: str) -> list[float]:
    """Return the gains of what the tuner would run, fused or not."""
    pairs = ((baseline_of(one, baseline), one.chosen) for one in results)
    return [other.median_us / own.median_us for other, own in pairs if other and own]


def _statistics(results: Sequence[CaseResult]) -> dict[str, Any]:
    found: dict[str, Any] = {"cases": len(results)}
    for name in BASELINES:
        gains = _gains(results, name)
        verdicts = [verdict(gain) for gain in gains]
        found[name] = {
            "geometric_mean": geometric_mean(gains),
            "least": min(gains, default=None),
            "best": max(gains, default=None),
            **{word: verdicts.count(word) for word in ("win", "tie", "loss")},
        }
    shares = [share for one in results if (share := _share_of_bound(one)) is not None]
    found["mean_share_of_bound"] = statistics.mean(shares) if shares else None
    return found


def _wins(results: Iterable[CaseResult], family: str) -> dict[str, int]:
    ranks = [fastest_families(one) for one in results]
    return {
        "fastest": sum(rank[:1] == [family] for rank in ranks),
        "fastest_or_tied": sum(family in rank for rank in ranks),
    }


def predictions(results: Sequence[CaseResult]) -> Quality:
    """Return how well the p-norm model predicts the fused times of cases."""
    samples: dict[str, list[Sample]] = {"tuning": [], "judging": []}
    for result in results:
        best = min((one for one in result.tuning if one.family in FUSED), key=lambda one: one.median_us, default=None)
        judged = result.winner(*FUSED)
        if best is None or judged is None:
            continue
        alone = (result.decision.first_us, result.decision.second_us)
        for part, timing in (("tuning", best), ("judging", judged)):
            samples[part].append(Sample(result.name, result.kernel_class, *alone, timing.median_us))
    return quality(samples["tuning"], samples["judging"])


# ---- text -------------------------------------------------------------------------------------------------------


# Columns that a narrow terminal does without, the first ones first.
_DISPENSABLE = ("first", "second", "bound", "ratio", "fastest of ours", "rule", "library", "elastic", "/all")


def table(results: Sequence[CaseResult], width: int | None = None) -> str:
    """Return one line a case: the times in microseconds, the gains of fusion, the decision, who is fastest.

    With a `width` in letters, columns are left out until lines fit, those without a number first, and the last line
    names them.
    """
    rows = [row(result) for result in results]
    columns = {"case": ["case", *(f"{one['case']}" for one in rows)]}
    columns["ratio"] = _column("ratio", 5, 2, [one["measured_ratio"] for one in rows])
    for name in ("first", "second", "simple", "elastic", "library", "fused"):
        columns[name] = _column(name, 7, 1, [one[f"{name}_us"] for one in rows])
    columns["bound"] = _column("bound", 5, 2, [one["bound"] for one in rows])
    columns["/simple (95 %)"] = [f"{text:>18}" for text in ("/simple (95 %)", *map(_between, rows))]
    columns["/elastic"] = _column("/elastic", 8, 3, [one["gains"]["simple_and_elastic"] for one in rows])
    columns["/all"] = _column("/all", 6, 3, [one["gains"]["everything"] for one in rows])
    columns["rule"] = [" rule  ", *(" accept" if one["accepted"] else " reject" for one in rows)]
    columns["fastest of ours"] = [" fastest of ours", *(f" {', '.join(one['fastest'])}" for one in rows)]
    empty = [name for name in _DISPENSABLE if {cell.strip() for cell in columns[name][1:]} == {"-"}]
    gone: list[str] = []
    for name in dict.fromkeys([*empty, *_DISPENSABLE]):
        if width is None or max(map(len, _lines(columns))) <= width:
            break
        del columns[name]
        gone.append(name)
    return "\n".join(_lines(columns) + ([f"left out for the width: {', '.join(gone)}"] if gone else []))


def _lines(columns: Mapping[str, Sequence[str]]) -> list[str]:
    longest = [max(map(len, cells)) for cells in columns.values()]
    return [
        " ".join(f"{cell:<{size}}" for cell, size in zip(cells, longest, strict=True)).rstrip()
        for cells in zip(*columns.values(), strict=True)
    ]


def _column(name: str, width: int, digits: int, values: Sequence[float | None]) -> list[str]:
    return [f"{name:>{width}}", *(_cell(value, width, digits) for value in values)]


def _between(one: Mapping[str, Any]) -> str:
    gain, interval = one["gains"]["simple"], one["intervals"]["simple"]
    return f"{gain:.3f} {interval[0]:.3f}-{interval[1]:.3f}" if gain and interval else "-"


def budget_text(budget: Budget, results: Sequence[CaseResult]) -> str:
    """Return what a budget of SMs was, and what its eater read."""
    eaten = [one.eaten_bytes_per_s for one in results if one.eaten_bytes_per_s]
    text = f"measured on {budget.sms} of {budget.of} SMs"
    if eaten and budget.eater_strength:
        rate = statistics.median(eaten) / 1e9
        text += f", while an eater of strength {budget.eater_strength:g} read {rate:.0f} GB/s on the others"
    return text + "; a part of a large GPU, not a small GPU."


def _cell(value: float | None, width: int, digits: int) -> str:
    return f"{value:>{width}.{digits}f}" if value is not None else f"{'-':>{width}}"


def study_text(results: Sequence[CaseResult], budget: Budget | None = None, width: int | None = None) -> str:
    """Return the table of a study, what follows if it has several cases, and the part of a GPU that it was done on."""
    parts = [table(results, width)]
    parts += [
        f"{one.name}: the fused winner did not compute the bits of its bodies alone, so its times mean nothing."
        for one in results
        if one.same_bits is False
    ]
    if len(results) > 1:
        parts.append(summary_text(summarise(results, budget)))
    if budget:
        parts.append(budget_text(budget, results))
    lines = "\n".join(parts).splitlines()
    return "\n".join(_wrapped(line, width) for line in lines)


def _wrapped(line: str, width: int | None) -> str:
    if width is None or len(line) <= width:
        return line
    return textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False)


def summary_text(summary: Mapping[str, Any]) -> str:
    """Return the targets, one a line, and by how much one was missed, then means and winners."""
    lines = []
    for target in summary["targets"]:
        measured = target["measured"]
        state = {True: "met", False: "missed", None: "not measured"}[target["met"]]
        if target["met"] is False:
            state += f" by {abs(target['measured'] - target['asked']):.3g}"
        limit = f"{'at least' if target['at_least'] else 'at most'} {target['asked']:g}"
        value = "-" if measured is None else f"{measured:.3f}".rstrip("0").rstrip(".")
        lines.append(f"{target['what']:<{_SAID}} {limit:>14}  {value:>7}  {state}")
    for name, mean in summary["all_cases_rejected_as_1"].items():
        text = "-" if mean is None else f"{mean:.3f}"
        lines.append(f"{f'geometric mean over {name}, all cases, rejected ones as 1':<{_SAID}} {'':>14}  {text:>7}")
    never = [family for family, wins in summary["fastest"].items() if not wins["fastest_or_tied"]]
    for family, wins in summary["fastest"].items():
        of = f"{wins['fastest']:>3} of {summary['cases']} cases, {wins['fastest_or_tied']:>3} with ties"
        lines += [] if family in never else [f"fastest: {family:<20} {of}"]
    lines += [f"never fastest: {', '.join(never)}"] if never else []
    return "\n".join(lines)
