"""The gate: runs held against budgets, and each budget's limits judged apart.

- An absolute limit (`max`, `min`) is held against the median over the runs.
- A relative one (`max_regression`) is held against the reference entry of a baseline, by the statistics of
  `nitro.analyzer.compare`: each run is one observation, all relative limits share Holm's correction, and with one run
  on a side the verdict is always inconclusive.

What cannot be judged never passes: a metric that was not measured, a side that is not comparable, a budget that has
expired each have a status of their own.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from statistics import median
from typing import Any, Literal

import numpy as np

from nitro import __version__
from nitro.errors import UsageError

from ..causes import Cause
from ..compare.comparability import Reason
from ..compare.statistics import Effect, NoEffect, corrected, effect_of
from ..message import joined, message
from .baselines import Baseline, Entry
from .budgets import Budget, OnInconclusive
from .facts import check_allowed, reasons_among, reasons_between, refusals
from .gauges import Key, matches
from .runs import WHOLE_TRACE, Run

# History of the format of `Check.to_dict`, one line a version:
# 1: first version.
FORMAT_VERSION = 1

Status = Literal["pass", "fail", "expired", "inconclusive", "not_measured", "not_comparable", "skipped"]
Limit = Literal["max", "min", "max_regression"]
STATUSES: tuple[Status, ...] = (
    "fail",
    "expired",
    "not_measured",
    "not_comparable",
    "inconclusive",
    "skipped",
    "pass",
)
_NO_VALUE = message("the trace has no value for it")
_KNOWN_PARTS = frozenset(("p50", "p90", "p99", "mean", *(cause.id for cause in Cause)))


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of one limit of one budget for one value.

    `key` is `None` where the budget met no value at all; then, and wherever nothing could be judged, `reason` says why.
    `values` are those of the runs in the unit of the metric, `value` their median, `limit` what it is held against.
    `effect` is there for limits relative to a baseline, `entry` the number of the entry in it.
    """

    budget: Budget
    limit_kind: Limit
    status: Status
    key: Key | None = None
    values: tuple[float, ...] = ()
    limit: float | None = None
    effect: Effect | NoEffect | None = None
    entry: int | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        """What was judged, as in `iteration_period:p50`."""
        return self.key.text if self.key is not None else self.budget.name

    @property
    def value(self) -> float | None:
        """The median over the runs."""
        return median(self.values) if self.values else None

    @property
    def is_per_iteration(self) -> bool:
        """Whether the values are totals of the window divided by its iterations."""
        return self.budget.gauge.is_window_total and self.budget.per == "iteration"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        key = self.key
        return {
            "name": self.name,
            "status": self.status,
            "limit_kind": self.limit_kind,
            "metric": self.budget.gauge.name,
            "by": (key.by or None) if key else self.budget.by,
            "device_id": key.device_id if key and key.device_id >= 0 else None,
            "nvtx": (key.nvtx or None) if key else self.budget.nvtx,
            "unit": self.budget.gauge.unit,
            "per_iteration": self.is_per_iteration,
            "value": self.value,
            "values": list(self.values),
            "limit": self.limit,
            "baseline_entry": self.entry,
            "effect": self.effect.to_dict() if self.effect is not None else None,
            "reason": self.reason,
            "budget": self.budget.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class Check:
    """A check: its judgements, and what speaks against comparing the runs with the baseline.

    `expired_acceptances` are entries of the baseline that no longer count.
    """

    runs: tuple[Run, ...]
    judgements: tuple[Judgement, ...]
    baseline: str | None
    reasons: tuple[Reason, ...]
    allowed: tuple[str, ...]
    expired_acceptances: tuple[Entry, ...]
    day: date
    inconclusive: OnInconclusive
    nitro_version: str = __version__
    format_version: int = FORMAT_VERSION

    def count(self, status: Status) -> int:
        """Return how many judgements have a status."""
        return sum(judgement.status == status for judgement in self.judgements)

    def is_failure(self, judgement: Judgement) -> bool:
        """Tell whether a judgement alone makes the check end with an exit code other than 0."""
        if judgement.status == "inconclusive":
            return (judgement.budget.inconclusive or self.inconclusive) == "fail"
        return judgement.status not in ("pass", "skipped")

    @property
    def exit_code(self) -> int:
        """The exit code: 1 a limit is exceeded or expired, else 3 not measured, else 4 not comparable, else 0.

        What is certain comes first: no missing metric makes a limit that is exceeded undone.
        """
        failed = {judgement.status for judgement in self.judgements if self.is_failure(judgement)}
        if failed & {"fail", "expired", "inconclusive"}:
            return 1
        if "not_measured" in failed or all(judgement.status == "skipped" for judgement in self.judgements):
            return 3
        return 4 if "not_comparable" in failed else 0

    @property
    def outcome(self) -> str:
        """The exit code as a word."""
        return {0: "passed", 1: "failed", 3: "not_measured", 4: "not_comparable"}[self.exit_code]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, which docs/check.md describes."""
        return {
            "format_version": self.format_version,
            "nitro_version": self.nitro_version,
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "day": self.day.isoformat(),
            "inconclusive": self.inconclusive,
            "baseline": self.baseline,
            "allowed": list(self.allowed),
            "counts": {status: self.count(status) for status in STATUSES},
            "runs": [
                {
                    "file_name": run.file_name,
                    "fingerprint": run.fingerprint,
                    "periods": run.periods,
                    "devices": [device.name for device in run.facts.devices],
                }
                for run in self.runs
            ],
            "reasons": [reason.to_dict() for reason in self.reasons],
            "expired_acceptances": [
                {"entry": entry.number, "expires": str(entry.expires), "reason": entry.reason, "owner": entry.owner}
                for entry in self.expired_acceptances
            ],
            "judgements": [judgement.to_dict() for judgement in self.judgements],
        }


def check(
    runs: Sequence[Run],
    budgets: Sequence[Budget],
    *,
    day: date,
    baseline: Baseline | None = None,
    inconclusive: OnInconclusive = "pass",
    allow: Iterable[str] = (),
) -> Check:
    """Hold runs against budgets.

    Args:
        runs: repetitions of one side, at least one.
        budgets: at least one; those with `max_regression` need a baseline.
        day: on which budgets and acceptances may have expired.
        baseline: what relative limits are held against.
        inconclusive: whether a limit of which the runs cannot tell passes, where its budget does not say.
        allow: keys of reasons (`facts.ALLOWED_KEYS`) that do not stop a comparison.

    Raises:
        UsageError: there is no run or no budget, a relative limit has no baseline, a part does not exist, or a key
            cannot be allowed.
    """
    allowed = tuple(dict.fromkeys(allow))
    _check_arguments(runs, budgets, baseline, allowed)
    references = _References(baseline, tuple(runs), day, allowed)
    found = [_expired(made, day) for one in budgets for made in _judged(one, runs, references)]
    return Check(
        runs=tuple(runs),
        judgements=_together(found, day),
        baseline=baseline.name if baseline is not None else None,
        reasons=(*references.reasons, *_unbounded(found, baseline)),
        allowed=allowed,
        expired_acceptances=baseline.expired(day) if baseline is not None else (),
        day=day,
        inconclusive=inconclusive,
    )


class _References:
    """The entries of a baseline that values are held against, and whether the runs may be."""

    def __init__(self, baseline: Baseline | None, runs: tuple[Run, ...], day: date, allowed: tuple[str, ...]) -> None:
        self._baseline = baseline
        self._runs = runs
        self._day = day
        self._allowed = allowed
        self._among = reasons_among(runs)
        self._found: dict[int, tuple[Reason, ...]] = {}

    def entry(self, metric: str) -> Entry:
        """Return the entry for a metric."""
        if self._baseline is None:
            raise AssertionError("a relative limit was let through without a baseline")
        return self._baseline.reference(metric, self._day)

    def refused(self, entry: Entry) -> tuple[Reason, ...]:
        """Return why the runs may not be held against an entry."""
        if entry.number not in self._found:
            self._found[entry.number] = reasons_between(entry.runs, self._runs)
        return refusals(self._found[entry.number], self._allowed)

    @property
    def repeated(self) -> tuple[Reason, ...]:
        """Why the runs may not be taken as repetitions of each other."""
        return refusals(self._among, self._allowed)

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Everything that was found to speak against a comparison."""
        every = [*self._among, *(reason for found in self._found.values() for reason in found)]
        return tuple(dict.fromkeys(every))


def _check_arguments(
    runs: Sequence[Run], budgets: Sequence[Budget], baseline: Baseline | None, allowed: Sequence[str]
) -> None:
    if not runs:
        raise UsageError("a check needs at least one trace.")
    if not budgets:
        raise UsageError("a check needs at least one budget; write [[budget]] tables into nitro.toml.")
    check_allowed(allowed)
    relative = [one.name for one in budgets if one.max_regression is not None]
    if relative and baseline is None:
        raise UsageError(
            f"the budget of {relative[0]} is relative to a baseline; name one with --baseline, or as baseline under "
            "[check] in nitro.toml."
        )


def _unbounded(judgements: Iterable[Judgement], baseline: Baseline | None) -> Iterator[Reason]:
    """Yield a note for each entry that knows no bounds, where those of the values held against it are known."""
    used = {
        judgement.entry
        for judgement in judgements
        if isinstance(judgement.effect, Effect) and judgement.effect.measurement_error is not None
    }
    for entry in baseline.entries if baseline is not None else ():
        if entry.number in used and not entry.has_bounds:
            text = message(
                "entry {number} of the baseline was kept without what its energy may be off by, so only that of the "
                "runs is counted; save it anew from its traces and power logs to have both",
                number=entry.number,
            )
            yield Reason("warn", "capture", text, message("not known"), message("known"))


def _judged(one: Budget, runs: Sequence[Run], references: _References) -> Iterator[Judgement]:
    """Yield a judgement for each limit of a budget and each value that it is about."""
    limits = _limits(one)
    devices = _devices(one, runs)
    if devices is not None and not devices:
        other = message("no GPU of these runs is called {device}", device=str(one.device))
        yield from (Judgement(one, limit, "skipped", reason=other) for limit in limits)
        return
    elsewhere = _no_such_gpu(one, runs)
    if elsewhere:
        yield from (Judgement(one, limit, "not_measured", reason=elsewhere) for limit in limits)
        return
    if references.repeated:
        against = joined("; ", (reason.text for reason in references.repeated))
        yield from (Judgement(one, limit, "not_comparable", reason=against) for limit in limits)
        return
    keys = _keys(one, runs, devices)
    if not keys:
        missing = _why_missing(one, runs)
        yield from (Judgement(one, limit, "not_measured", reason=missing) for limit in limits)
        return
    for key in keys:
        values = [run.value(key, one.gauge, one.per) for run in runs]
        text = _missing_in(one, key, runs, values)
        known = tuple(value for value in values if value is not None)
        for limit in limits:
            if text:
                yield Judgement(one, limit, "not_measured", key, reason=text)
            elif limit == "max_regression":
                yield _relative(one, key, runs, known, references)
            else:
                yield _absolute(one, key, limit, runs, known)


def _limits(one: Budget) -> tuple[Limit, ...]:
    told: tuple[tuple[Limit, float | None], ...] = (
        ("max", one.maximum),
        ("min", one.minimum),
        ("max_regression", one.max_regression),
    )
    return tuple(name for name, limit in told if limit is not None)


def _devices(one: Budget, runs: Sequence[Run]) -> frozenset[int] | None:
    """Return the devices that a budget is about, `None` for all of them."""
    if one.device is None:
        return None
    if isinstance(one.device, int):
        return frozenset({one.device})
    return frozenset(
        device.device_id for run in runs for device in run.facts.devices if matches(one.device, device.name)
    )


def _no_such_gpu(one: Budget, runs: Sequence[Run]) -> str:
    """Return that no run used the GPU with the number of a budget, empty where one did.

    It is asked before any value is: those that belong to no GPU, such as the period, would pass in its name.
    """
    if not isinstance(one.device, int) or any(one.device in run.device_ids for run in runs):
        return ""
    ids = sorted({device_id for run in runs for device_id in run.device_ids})
    return message("no run used GPU {device}; used were {ids}", device=one.device, ids=", ".join(map(str, ids)))


def _keys(one: Budget, runs: Sequence[Run], devices: frozenset[int] | None) -> list[Key]:
    """Return the keys that a budget is about, in any of the runs.

    Raises:
        UsageError: the metric has parts and the budget names none, or one that does not exist.
    """
    of_metric = {key for run in runs for key in run.values if key.metric == one.gauge.name and _is_there(one, key)}
    of_metric = {key for key in of_metric if devices is None or key.device_id in devices or key.device_id == -1}
    parts = sorted({key.by for key in of_metric if key.by})
    if one.by is None and parts:
        raise UsageError(f"{one.gauge.name} is measured in parts, so its budget needs by; there are {_listed(parts)}.")
    if one.by is not None and of_metric and one.by not in parts:
        if parts and one.by in _KNOWN_PARTS:
            # It exists, and this capture could not tell it.
            return []
        way = f"there are {_listed(parts)}." if parts else "leave by out."
        raise UsageError(f"{one.gauge.name} has no part {one.by!r}; {way}")
    return sorted(key for key in of_metric if (key.by or None) == one.by)


def _listed(parts: Sequence[str]) -> str:
    more = f" and {len(parts) - 8} more" if len(parts) > 8 else ""
    return ", ".join(parts[:8]) + more


def _is_there(one: Budget, key: Key) -> bool:
    return not key.nvtx if one.nvtx is None else bool(key.nvtx) and matches(one.nvtx, key.nvtx)


def _why_missing(one: Budget, runs: Sequence[Run]) -> str:
    """Return why no run has a value for a budget."""
    if one.nvtx is not None:
        return _why_no_phase(one, one.nvtx, runs)
    return _reason(runs, one.by, one.gauge.name) or _NO_VALUE


def _why_no_phase(one: Budget, pattern: str, runs: Sequence[Run]) -> str:
    phases = sorted({path for run in runs for path in run.phases})
    if not phases:
        return _reason(runs, "nvtx_phases") or message("the window has no NVTX range")
    if any(matches(pattern, phase) for phase in phases):
        return _reason(runs, one.gauge.table, "sm_active_ratio") or _NO_VALUE
    close = difflib.get_close_matches(pattern, phases, n=3, cutoff=0.0)
    return message(
        "no NVTX range of the window is called {name}; the nearest are {names}",
        name=repr(pattern),
        names=", ".join(map(repr, close)),
    )


def _reason(runs: Sequence[Run], *names: str | None) -> str | None:
    """Return why the first of these was not measured in a run that says so."""
    return next((run.not_measured[name] for name in names if name for run in runs if name in run.not_measured), None)


def _missing_in(one: Budget, key: Key, runs: Sequence[Run], values: Sequence[float | None]) -> str:
    """Return why a value is missing in one of several runs, empty where none is."""
    for run, value in zip(runs, values, strict=True):
        if value is not None:
            continue
        if key in run.values and run.not_measured.get("iteration_period") == WHOLE_TRACE:
            return message("{file}: {reason}", file=run.file_name, reason=WHOLE_TRACE)
        if key in run.values:
            return message(
                "{file}: no iterations were found, and {metric} is judged per iteration; mark iterations with NVTX, or "
                'set per = "window"',
                file=run.file_name,
                metric=key.metric,
            )
        reason = _reason([run], one.gauge.name) or _NO_VALUE
        return message("{file}: {reason}", file=run.file_name, reason=reason)
    return ""


def _absolute(one: Budget, key: Key, limit_kind: Limit, runs: Sequence[Run], values: tuple[float, ...]) -> Judgement:
    limit = one.maximum if limit_kind == "max" else one.minimum
    if limit is None:
        raise AssertionError(f"a budget without {limit_kind} was judged by it")
    middle = median(values)
    is_within = middle <= limit if limit_kind == "max" else middle >= limit
    made = Judgement(one, limit_kind, "pass" if is_within else "fail", key, values, limit)
    # A percentile of too few iterations is one of them: over a limit it is, but that it is within says little.
    lacking = _lacks_iterations(key, runs) if is_within and key.metric.startswith("iteration_") else ""
    return replace(made, status="inconclusive", reason=lacking) if lacking else made


def _relative(
    one: Budget, key: Key, runs: Sequence[Run], values: tuple[float, ...], references: _References
) -> Judgement:
    entry = references.entry(one.gauge.name)
    made = Judgement(one, "max_regression", "not_comparable", key, values, entry=entry.number)
    refused = references.refused(entry)
    if refused:
        return replace(made, reason=joined("; ", (reason.text for reason in refused)))
    there = _paired(key, runs, entry.runs)
    before = [run.value(there, one.gauge, one.per) for run in entry.runs]
    known = tuple(value for value in before if value is not None)
    if len(known) < len(before):
        text = message(
            "entry {number} of the baseline has no value for it; save the baseline anew from traces that have one",
            number=entry.number,
        )
        return replace(made, status="not_measured", reason=text)
    made = replace(made, limit=median(known))
    if not any((*known, *values)):
        # No ratio can say it, and none is needed.
        return replace(made, status="pass", reason=message("it is 0 in every run of both sides"))
    runs_of_both = (*entry.runs, *runs)
    if min((*known, *values)) <= 0 and min(len(known), len(values)) > 1 and not _lacks_iterations(key, runs_of_both):
        status, reason = _without_ratio(one, known, values)
        return replace(made, status=status, reason=reason)
    effect = _effect(one, key, known, values, runs_of_both, _measurement_error((there, entry.runs), (key, runs)))
    return _by_effect(replace(made, effect=effect))


def _without_ratio(one: Budget, before: Sequence[float], now: Sequence[float]) -> tuple[Status, str]:
    """Return what became of a relative limit where a value is 0 or less, so that no ratio can say it."""
    if not any(before) and min(now) > 0:
        text = message("it was 0 in every run of the baseline, and is above 0 in every run now")
        return ("fail" if one.better == "lower" else "pass"), text
    if not any(now) and min(before) > 0:
        text = message("it was above 0 in every run of the baseline, and is 0 in every run now")
        return ("pass" if one.better == "lower" else "fail"), text
    return "not_measured", message(
        "a value is 0 or less in some runs and not in all, and ratios need positive ones; an absolute limit (max or "
        "min) can judge it"
    )


def _paired(key: Key, runs: Sequence[Run], before: Sequence[Run]) -> Key:
    """Return the key of the same value in a baseline; where both sides use one GPU, its number does not matter."""
    ids = [{device_id for run in side for device_id in run.device_ids} for side in (before, runs)]
    if key.device_id >= 0 and len(ids[0]) == len(ids[1]) == 1:
        return replace(key, device_id=next(iter(ids[0])))
    return key


def _effect(
    one: Budget,
    key: Key,
    before: tuple[float, ...],
    now: tuple[float, ...],
    runs: Sequence[Run],
    measurement_error: tuple[float, float] | None,
) -> Effect | NoEffect:
    statistic = key.by or "value"
    lacking = _lacks_iterations(key, runs)
    if lacking:
        return NoEffect(statistic, lacking)
    if min((*before, *now)) <= 0:
        text = message("a value is 0 or less, and ratios need positive ones; an absolute limit (max) can judge it")
        return NoEffect(statistic, text)
    return effect_of(
        [np.array([value]) for value in before],
        [np.array([value]) for value in now],
        better=one.better,
        threshold=one.max_regression or math.nan,
        statistic=statistic,
        measurement_error=measurement_error,
    )


def _measurement_error(*sides: tuple[Key, Sequence[Run]]) -> tuple[float, float] | None:
    """Return by how much, as a share, a value of the baseline and one of the runs may be off at most.

    The runs of a side were measured in the same way, so that what one may be off by, all may. A bound that a side does
    not know is 0; `None` where neither knows one.
    """
    before, now = ([amount.share for run in runs if (amount := run.amount(key))] for key, runs in sides)
    return (max(before, default=0.0), max(now, default=0.0)) if before or now else None


def _lacks_iterations(key: Key, runs: Sequence[Run]) -> str:
    """Return that a run has too few iterations for its percentile to say anything, empty where none has."""
    needed = _iterations_needed(key)
    fewest = min(run.periods for run in runs)
    # What is no percentile needs none, not even where the window was not divided into iterations.
    if needed == 1 or fewest >= needed:
        return ""
    return message(
        "the percentile needs {needed} iterations in each run, and a run has {fewest}", needed=needed, fewest=fewest
    )


def _iterations_needed(key: Key) -> int:
    """Return how many iterations a run must have before its percentile says anything: one beyond it."""
    last = key.by.rpartition(" ")[2]
    if not (last.startswith("p") and last[1:].isdigit()):
        return 1
    beyond = 100 - int(last[1:])
    return math.ceil(100 / beyond) if 0 < beyond < 50 else 1


def _by_effect(judgement: Judgement) -> Judgement:
    """Return a judgement by a relative limit with the status and the reason that its effect gives it."""
    effect = judgement.effect
    if isinstance(effect, Effect) and effect.verdict == "inconclusive" and _is_no_regression(effect):
        text = message(
            "no regression: it may be better or the same, and at the bad end of the 90 % interval it is worse by less "
            "than the limit"
        )
        return replace(judgement, status="pass", reason=text)
    return replace(judgement, status=_status_of(effect), reason="")


def _is_no_regression(effect: Effect) -> bool:
    """Tell whether the interval leaves no room for a change for the worse beyond the threshold.

    As for statements that there is no meaningful difference, each side of the interval is one test at 5 %. What the
    measurement may be off by has to fit in as well.
    """
    interval = effect.equivalence_interval
    if interval is None:
        return False
    high = (1 + effect.threshold) * math.exp(-effect.reach)
    return interval[1] <= high if effect.better == "lower" else interval[0] >= 1 / high


def _status_of(effect: Effect | NoEffect | None) -> Status:
    if not isinstance(effect, Effect) or effect.verdict == "inconclusive":
        return "inconclusive"
    return "fail" if effect.verdict == "regression" else "pass"


def _expired(judgement: Judgement, day: date) -> Judgement:
    """Return a judgement as it stands when its budget may be out of date: what would have passed has expired."""
    if judgement.status in ("pass", "inconclusive") and judgement.budget.is_expired(day):
        return replace(judgement, status="expired")
    return judgement


def _together(judgements: Sequence[Judgement], day: date) -> tuple[Judgement, ...]:
    """Correct the relative limits for their number, and judge them again."""
    effects: Mapping[str, Effect] = {
        str(place): judgement.effect
        for place, judgement in enumerate(judgements)
        if isinstance(judgement.effect, Effect)
    }
    final = corrected(effects)
    made = list(judgements)
    for place, effect in final.items():
        made[int(place)] = _expired(_by_effect(replace(made[int(place)], effect=effect)), day)
    return tuple(made)
