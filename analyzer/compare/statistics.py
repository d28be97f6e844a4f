"""Whether a difference between two sides is real and large enough to matter, from 1 to 10 runs a side.

Iterations inside a run share what the run was born with (clocks, addresses, neighbours), so they are not independent:
the sample is the run. Each run is first reduced to one value, the median of its iterations (or another percentile).

- Effect: the median of log(after / before) over all pairs of a run before and a run after (the estimator of Hodges and
  Lehmann); where runs are paired, the median of the means of any two pairs' log-ratios (each pair with itself, too).
- Interval: effect +- t x standard error of the difference of the mean logs, with Welch's degrees of freedom (paired:
  of the mean log-ratio, n - 1). This is what decides, since it covers with 3 to 5 runs, where a percentile bootstrap
  is too narrow (docs/adr/0009-comparison.md has the figures).
- Bootstrap: runs are drawn with replacement, then iterations inside each drawn run; the percentiles of the effect stand
  beside the interval, from 3 runs a side on. The seed is fixed.
- Verdict, for a practical threshold that is the same in both directions on the log scale: `regression` or `improvement`
  where the whole 95 % interval lies beyond it; `no_meaningful_difference` where the 90 % interval lies within it (two
  one-sided tests at 5 %); else `inconclusive`. With one run on a side nothing is known about how runs vary, and the
  verdict is always `inconclusive`.
- Error of measurement: where a value itself may be off (energy from a power log), a bound of it is known, and may shift
  all runs of a side alike, which no number of runs would show. Intervals are then widened by the bounds of both sides
  before they are held against the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..message import message
from .quantities import percent_text
from .student_t import cdf, quantile

Float64 = npt.NDArray[np.float64]
Verdict = Literal["improvement", "regression", "no_meaningful_difference", "inconclusive"]
Direction = Literal["lower", "higher"]

THRESHOLD = 0.02
SEED = 20_260
RESAMPLES = 4_999
CONFIDENCE = 0.95
POWER = 0.80
PERCENTILES = (50.0, 90.0, 99.0)
MOST_RUNS = 100
_ALPHA = 1 - CONFIDENCE
# A change nearer to the threshold than this share of it, from runs that would tell such a distance, is too near.
_NEAR = 0.5
_NOTHING_KNOWN = 300.0
_FEWEST_FOR_BOOTSTRAP = 3
_RESAMPLES_AT_ONCE = 1_000
_MOST_ITERATIONS_DRAWN = 2_000


@dataclass(frozen=True, slots=True)
class Spread:
    """How one side varies, as standard deviations of logs (0.01 is about 1 %).

    `within` is that of iterations inside a run, pooled over runs; `None` where no run has two. `between` is that of the
    runs' values, `None` for one run; `between_alone` is what is left of it when the part that the iterations inside
    explain is taken off (for medians, pi / 2 x within^2 / iterations), never below 0.
    """

    runs: int
    iterations: int
    within: float | None
    between: float | None
    between_alone: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields under their own names."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect on one statistic of one metric. Ratios are after / before.

    `interval` (95 %) decides about differences, `equivalence_interval` (90 %) about their absence; both are `None` with
    one run on a side. `p_value` is that of the hypothesis that the difference is within the threshold, `adjusted_p` the
    same after Holm's correction. `smallest_effect` is the smallest change, as a ratio - 1, that runs like these would
    show with a probability of 80 %; `runs_to_decide` how many runs a side would decide with that probability if effect
    and spread stay as they are, `None` where more than 100; more than there are where these did not decide.
    `measurement_error` bounds, as shares, by how much the values of a run before and after may be off; `None` where
    they are exact. The intervals do not hold it, the verdict does.
    """

    statistic: str
    better: Direction
    threshold: float
    before: float
    after: float
    ratio: float
    interval: tuple[float, float] | None
    equivalence_interval: tuple[float, float] | None
    bootstrap_interval: tuple[float, float] | None
    p_value: float | None
    adjusted_p: float | None
    verdict: Verdict
    smallest_effect: float | None
    runs_to_decide: int | None
    spread_before: Spread
    spread_after: Spread
    is_paired: bool
    measurement_error: tuple[float, float] | None = None

    @property
    def reach(self) -> float:
        """By how much the log-ratio may be off for what the values themselves may be off."""
        return _reach(self.measurement_error)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields under their own names."""
        made = {name: getattr(self, name) for name in self.__slots__}
        made |= {
            name: list(made[name]) if made[name] else None
            for name in ("interval", "equivalence_interval", "bootstrap_interval", "measurement_error")
        }
        return made | {"spread_before": self.spread_before.to_dict(), "spread_after": self.spread_after.to_dict()}


@dataclass(frozen=True, slots=True)
class NoEffect:
    """Why an effect cannot be computed."""

    statistic: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields under their own names."""
        return {"statistic": self.statistic, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class _Estimate:
    effect: float
    error: float
    df: float


def effect_of(
    before: Sequence[Float64],
    after: Sequence[Float64],
    *,
    better: Direction = "lower",
    threshold: float = THRESHOLD,
    percentile: float = 50.0,
    statistic: str | None = None,
    is_paired: bool = False,
    seed: int = SEED,
    resamples: int = RESAMPLES,
    measurement_error: tuple[float, float] | None = None,
) -> Effect | NoEffect:
    """Return the effect on one percentile of the iterations.

    Args:
        before, after: one array a run with the values of its iterations, shape (iterations,); a run that is one number
            is an array of one.
        better: whether lower or higher values are better.
        threshold: the smallest change that matters, as a share; 0.02 is 2 %.
        percentile: of the iterations of a run, 0 to 100, linear between order statistics.
        statistic: how it is called; by default `p50` and so on.
        is_paired: whether run i before and run i after were taken together.
        seed: of the bootstrap.
        resamples: of the bootstrap; 0 leaves it out.
        measurement_error: by how much, as a share, the values of runs before and after may be off at most.

    Raises:
        ValueError: a side has no run, a run no iteration, the threshold is not positive, or sides that are paired
            differ in length.
    """
    name = statistic or f"p{percentile:g}"
    _check(before, after, threshold, is_paired=is_paired)
    if any((run <= 0).any() or not np.isfinite(run).all() for run in (*before, *after)):
        return NoEffect(name, message("a value is 0 or less, and ratios need positive ones"))
    fewest = min(len(run) for run in (*before, *after))
    needed = math.ceil(100 / (100 - percentile) - 1e-9) if 50 < percentile < 100 else 1
    if fewest < needed:
        return NoEffect(
            name,
            message(
                "the percentile needs {needed} iterations in each run, and a run has {fewest}",
                needed=needed,
                fewest=fewest,
            ),
        )
    logs_before, logs_after = (np.log([np.percentile(run, percentile) for run in side]) for side in (before, after))
    estimate = _estimate(logs_before, logs_after, is_paired=is_paired)
    spreads = (_spread(before, logs_before), _spread(after, logs_after))
    limits = _limits(threshold, measurement_error)
    made = Effect(
        statistic=name,
        better=better,
        threshold=threshold,
        before=float(np.exp(np.median(logs_before))),
        after=float(np.exp(np.median(logs_after))),
        ratio=math.exp(estimate.effect),
        interval=_interval(estimate, CONFIDENCE),
        equivalence_interval=_interval(estimate, 1 - 2 * _ALPHA),
        bootstrap_interval=_bootstrap(before, after, percentile, is_paired, seed, resamples),
        p_value=_p_value(estimate, limits[1]),
        adjusted_p=None,
        verdict="inconclusive",
        smallest_effect=_smallest_effect(estimate, limits[1]),
        runs_to_decide=_runs_to_decide(estimate, limits, logs_before, logs_after, is_paired=is_paired),
        spread_before=spreads[0],
        spread_after=spreads[1],
        is_paired=is_paired,
        measurement_error=measurement_error,
    )
    return _judged(made)


def _judged(effect: Effect) -> Effect:
    """Return an effect with its verdict; where the runs did not decide, more of them are asked for than there are."""
    verdict, runs = verdict_of(effect), effect.runs_to_decide
    if verdict == "inconclusive" and runs is not None:
        # Spreads that differ leave a few runs fewer degrees of freedom than the same number is promised with.
        runs = max(runs, min(effect.spread_before.runs, effect.spread_after.runs) + 1)
    return replace(effect, verdict=verdict, runs_to_decide=runs)


def verdict_of(effect: Effect) -> Verdict:
    """Return the verdict of an effect; where `adjusted_p` is known, it must confirm a difference."""
    if effect.interval is None or effect.equivalence_interval is None:
        return "inconclusive"
    inner, outer = map(math.exp, _limits(effect.threshold, effect.measurement_error))
    if effect.interval[0] > outer or effect.interval[1] < 1 / outer:
        if effect.adjusted_p is not None and effect.adjusted_p >= _ALPHA:
            return "inconclusive"
        is_higher = effect.interval[0] > outer
        return "regression" if is_higher == (effect.better == "lower") else "improvement"
    if effect.equivalence_interval[0] >= 1 / inner and effect.equivalence_interval[1] <= inner:
        return "no_meaningful_difference"
    return "inconclusive"


def is_lost_in_error(effect: Effect) -> bool:
    """Whether the runs would decide, if only their values were exact."""
    return (
        effect.measurement_error is not None
        and effect.verdict == "inconclusive"
        and verdict_of(replace(effect, measurement_error=None, adjusted_p=None)) != "inconclusive"
    )


def _limits(threshold: float, measurement_error: tuple[float, float] | None) -> tuple[float, float]:
    """Return, as logs, within which a change is none for certain, and beyond which it is one for certain."""
    limit, reach = math.log1p(threshold), _reach(measurement_error)
    return limit - reach, limit + reach


def _reach(measurement_error: tuple[float, float] | None) -> float:
    """Return by how much a log-ratio may be off where the values of both sides may be off by these shares."""
    if measurement_error is None:
        return 0.0
    # A value that may be off by all of itself says nothing.
    return sum(-math.log1p(-share) if share < 1 else _NOTHING_KNOWN for share in measurement_error)


def corrected(effects: Mapping[str, Effect]) -> dict[str, Effect]:
    """Return effects of metrics that are gated together, with Holm's correction of their p-values and new verdicts.

    The correction keeps the probability of any false improvement or regression among them at 5 %. Statements that there
    is no meaningful difference are each made at 5 %.
    """
    tested = {name: effect.p_value for name, effect in effects.items() if effect.p_value is not None}
    adjusted = holm(tested)
    made = {name: replace(effect, adjusted_p=adjusted.get(name)) for name, effect in effects.items()}
    return {name: _judged(effect) for name, effect in made.items()}


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values adjusted by Holm's step-down method, by the same names."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for place, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda item: (item[1], item[0]))):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_value))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def verdict_sentence(effect: Effect) -> str:
    """Return what the verdict says, in a sentence, and where nothing is decided, what would decide it."""
    if effect.interval is None:
        return message(
            "inconclusive: {fewest} run on a side does not tell how much runs differ by themselves; "
            "record at least 5 runs a side",
            fewest=_fewest_runs(effect),
        )
    low, high = (_signed(bound - 1) for bound in effect.interval)
    facts = {"low": low, "high": high, "limit": percent_text(effect.threshold)}
    if effect.verdict == "inconclusive":
        return _undecided(effect, **facts)
    return _decided(effect, **facts)


def _fewest_runs(effect: Effect) -> int:
    return min(effect.spread_before.runs, effect.spread_after.runs)


def _decided(effect: Effect, low: str, high: str, limit: str) -> str:
    change = percent_text(effect.ratio - 1)
    if effect.verdict == "regression":
        return message(
            "regression: worse by {change} (95 % interval {low} to {high}), beyond the threshold of {limit}",
            change=change,
            low=low,
            high=high,
            limit=limit,
        )
    if effect.verdict == "improvement":
        return message(
            "improvement: better by {change} (95 % interval {low} to {high}), beyond the threshold of {limit}",
            change=change,
            low=low,
            high=high,
            limit=limit,
        )
    return message(
        "no meaningful difference: the change of {change} lies within the threshold of {limit}, and so does the "
        "whole 90 % interval",
        change=_signed(effect.ratio - 1),
        limit=limit,
    )


def _undecided(effect: Effect, low: str, high: str, limit: str) -> str:
    change = _signed(effect.ratio - 1)
    if effect.measurement_error is not None and is_lost_in_error(effect):
        before, after = (percent_text(share) for share in effect.measurement_error)
        return message(
            "inconclusive: the change of {change} (95 % interval {low} to {high}) cannot be told from what the "
            "measurement may be off by, {before} before and {after} after, which more runs do not lessen; measure "
            "more exactly, such as by logging the power more often",
            change=change,
            low=low,
            high=high,
            before=before,
            after=after,
        )
    if effect.runs_to_decide is None:
        return _undecidable(effect, low, high, limit)
    return message(
        "inconclusive: the change of {change} (95 % interval {low} to {high}) is neither clearly beyond nor clearly "
        "within {limit}; changes from {smallest} on would show in runs like these, and {runs} runs a side should "
        "decide",
        change=change,
        low=low,
        high=high,
        limit=limit,
        smallest=percent_text(effect.smallest_effect or 0.0),
        runs=effect.runs_to_decide,
    )


def _undecidable(effect: Effect, low: str, high: str, limit: str) -> str:
    """Return why no reasonable number of runs would decide: the change is too near, or the runs differ too much."""
    change = _signed(effect.ratio - 1)
    if _is_near_threshold(effect, _fewest_runs(effect)):
        return message(
            "inconclusive: the change of {change} (95 % interval {low} to {high}) is too near the threshold of {limit} "
            "for any reasonable number of runs to decide; quieten the machine or choose another threshold",
            change=change,
            low=low,
            high=high,
            limit=limit,
        )
    return message(
        "inconclusive: the runs of a side differ too much to decide on the change of {change} (95 % interval "
        "{low} to {high}) against the threshold of {limit}; more than {most} runs a side would be needed, so "
        "quieten the machine first",
        change=change,
        low=low,
        high=high,
        limit=limit,
        most=MOST_RUNS,
    )


def _is_near_threshold(effect: Effect, runs: int) -> bool:
    """Whether it is for the size of a change, not for the spread of the runs, that `MOST_RUNS` do not decide it."""
    assert effect.interval is not None
    limit = math.log1p(effect.threshold)
    # What the interval shrinks to with that many runs, at most.
    half = (math.log(effect.interval[1]) - math.log(effect.interval[0])) / 2 * math.sqrt(runs / MOST_RUNS)
    return max(abs(abs(math.log(effect.ratio)) - limit), half) < _NEAR * limit


def bootstrap_effects(
    before: Sequence[Float64],
    after: Sequence[Float64],
    *,
    percentile: float = 50.0,
    is_paired: bool = False,
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> Float64:
    """Return effects (median log-ratios) of resampled data, shape (resamples,).

    Runs are drawn with replacement, pairs together where they are paired, then iterations inside each drawn run, at
    most 2,000 of them.
    """
    generator = np.random.default_rng(seed)
    drawn: list[Float64] = []
    for first in range(0, resamples, _RESAMPLES_AT_ONCE):
        size = min(_RESAMPLES_AT_ONCE, resamples - first)
        chosen = generator.integers(0, len(before), (size, len(before)))
        other = chosen if is_paired else generator.integers(0, len(after), (size, len(after)))
        left = _resampled(before, chosen, percentile, generator)
        right = _resampled(after, other, percentile, generator)
        drawn.append(_walsh_medians(right - left) if is_paired else _shift_medians(left, right))
    return np.concatenate(drawn) if drawn else np.empty(0)


def _check(before: Sequence[Float64], after: Sequence[Float64], threshold: float, *, is_paired: bool) -> None:
    if not before or not after:
        raise ValueError("each side of a comparison has at least one run")
    if any(not len(run) for run in (*before, *after)):
        raise ValueError("each run has at least one value")
    if not threshold > 0:
        raise ValueError(f"the threshold must be positive, not {threshold}")
    if is_paired and len(before) != len(after):
        raise ValueError(f"paired sides have equally many runs, not {len(before)} and {len(after)}")


def _estimate(before: Float64, after: Float64, *, is_paired: bool) -> _Estimate:
    if is_paired:
        ratios = after - before
        effect = float(_walsh_medians(ratios[None, :])[0])
        if len(ratios) < 2:
            return _Estimate(effect, math.inf, 0.0)
        return _Estimate(effect, float(ratios.std(ddof=1)) / math.sqrt(len(ratios)), len(ratios) - 1.0)
    effect = float(_shift_medians(before[None, :], after[None, :])[0])
    if min(len(before), len(after)) < 2:
        return _Estimate(effect, math.inf, 0.0)
    parts = [float(side.var(ddof=1)) / len(side) for side in (before, after)]
    total = sum(parts)
    if total <= 0:
        return _Estimate(effect, 0.0, len(before) + len(after) - 2.0)
    share = sum((part / total) ** 2 / (len(side) - 1) for part, side in zip(parts, (before, after), strict=True))
    return _Estimate(effect, math.sqrt(total), 1 / share)


def _shift_medians(before: Float64, after: Float64) -> Float64:
    """Median of all differences after - before of each row; shapes (rows, n) and (rows, m)."""
    differences = after[:, None, :] - before[:, :, None]
    return np.asarray(np.median(differences.reshape(len(before), -1), axis=1))


def _walsh_medians(ratios: Float64) -> Float64:
    """Median of the means of any two entries of each row, each with itself included; shape (rows, n)."""
    left, right = np.triu_indices(ratios.shape[1])
    return np.asarray(np.median((ratios[:, left] + ratios[:, right]) / 2, axis=1))


def _interval(estimate: _Estimate, confidence: float) -> tuple[float, float] | None:
    if math.isinf(estimate.error):
        return None
    half = quantile(0.5 + confidence / 2, estimate.df) * estimate.error if estimate.error else 0.0
    # A t quantile of nearly 0 degrees of freedom does not fit exp.
    low, high = max(estimate.effect - half, -700.0), min(estimate.effect + half, 700.0)
    return math.exp(low), math.exp(high)


def _p_value(estimate: _Estimate, limit: float) -> float | None:
    """Two-sided p-value of the hypothesis that the effect lies within the limit."""
    if math.isinf(estimate.error):
        return None
    beyond = abs(estimate.effect) - limit
    if not estimate.error:
        return 0.0 if beyond > 0 else 1.0
    return min(1.0, 2 * cdf(-beyond / estimate.error, estimate.df))


def _smallest_effect(estimate: _Estimate, limit: float) -> float | None:
    if math.isinf(estimate.error):
        return None
    if not estimate.error:
        return math.expm1(limit)
    reach = quantile(1 - _ALPHA / 2, estimate.df) + quantile(POWER, estimate.df)
    return math.expm1(min(limit + reach * estimate.error, 700.0))


def _runs_to_decide(
    estimate: _Estimate, limits: tuple[float, float], before: Float64, after: Float64, *, is_paired: bool
) -> int | None:
    """Return the number of runs a side that would decide with a probability of `POWER`, not below the present one."""
    present = min(len(before), len(after))
    if math.isinf(estimate.error):
        return None
    variance = float((after - before).var(ddof=1)) if is_paired else float(before.var(ddof=1) + after.var(ddof=1))
    inner, outer = limits
    distance = abs(estimate.effect) - outer
    for runs in range(present, MOST_RUNS + 1):
        error, df = math.sqrt(variance / runs), float(runs - 1 if is_paired else 2 * runs - 2)
        if not error:
            return runs if distance > 0 or abs(estimate.effect) < inner else None
        if distance > 0:
            power = cdf(distance / error - quantile(1 - _ALPHA / 2, df), df)
        else:
            # Both one-sided tests have to hold; each fails on its own side, so that their failures add up.
            reach = quantile(1 - _ALPHA, df)
            power = sum(cdf((inner + side * estimate.effect) / error - reach, df) for side in (-1, 1)) - 1
        if power > POWER:
            return runs
    return None


def _spread(runs: Sequence[Float64], logs: Float64) -> Spread:
    inside = [np.log(run) for run in runs if len(run) > 1]
    freedom = sum(len(run) - 1 for run in inside)
    within = math.sqrt(sum(float(run.var()) * len(run) for run in inside) / freedom) if freedom else None
    between = float(logs.std(ddof=1)) if len(logs) > 1 else None
    alone = None
    if between is not None:
        noise = 0.0 if within is None else math.pi / 2 * within**2 * float(np.mean([1 / len(run) for run in runs]))
        alone = math.sqrt(max(between**2 - noise, 0.0))
    return Spread(len(runs), sum(len(run) for run in runs), within, between, alone)


def _bootstrap(
    before: Sequence[Float64],
    after: Sequence[Float64],
    percentile: float,
    is_paired: bool,
    seed: int,
    resamples: int,
) -> tuple[float, float] | None:
    if resamples < 1 or min(len(before), len(after)) < _FEWEST_FOR_BOOTSTRAP:
        return None
    effects = bootstrap_effects(
        before, after, percentile=percentile, is_paired=is_paired, seed=seed, resamples=resamples
    )
    low, high = np.exp(np.percentile(effects, (100 * _ALPHA / 2, 100 - 100 * _ALPHA / 2)))
    return float(low), float(high)


def _resampled(
    runs: Sequence[Float64], chosen: npt.NDArray[np.int64], percentile: float, generator: np.random.Generator
) -> Float64:
    """Return the log of the percentile of resampled iterations of the chosen runs, same shape as `chosen`."""
    made = np.empty(chosen.shape)
    for number, run in enumerate(runs):
        places = chosen == number
        count = int(places.sum())
        if len(run) == 1:
            made[places] = math.log(run[0])
        elif count:
            size = min(len(run), _MOST_ITERATIONS_DRAWN)
            made[places] = np.log(_resampled_percentiles(np.sort(run), count, size, percentile, generator))
    return made


def _resampled_percentiles(
    ordered: Float64, count: int, size: int, percentile: float, generator: np.random.Generator
) -> Float64:
    """Return percentiles of `count` resamples of `size` values without drawing the values.

    The k-th smallest of `size` uniform numbers has a Beta(k, size + 1 - k) distribution, and the next one is the
    smallest of those above it; the values at these places are exactly distributed as those of a resample.
    """
    place = percentile / 100 * (size - 1)
    lower = math.floor(place)
    first = generator.beta(lower + 1, size - lower, count)
    values = ordered[np.minimum((first * len(ordered)).astype(np.intp), len(ordered) - 1)]
    share = place - lower
    if not share:
        return np.asarray(values)
    rest = size - lower - 1
    second = 1 - (1 - first) * generator.random(count) ** (1 / rest)
    above = ordered[np.minimum((second * len(ordered)).astype(np.intp), len(ordered) - 1)]
    return np.asarray(values + share * (above - values))


def _signed(ratio: float) -> str:
    return ("-" if ratio < 0 else "+") + percent_text(ratio)


def any_regression(effects: Iterable[Effect]) -> bool:
    """Return whether any of the effects is a regression."""
    return any(effect.verdict == "regression" for effect in effects)
