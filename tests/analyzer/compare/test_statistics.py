"""Verdicts: what they cost when nothing changed, what they find when something did, and what they rest on."""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nitro.analyzer.compare.statistics import (
    Effect,
    Float64,
    NoEffect,
    bootstrap_effects,
    corrected,
    effect_of,
    holm,
    verdict_sentence,
)
from nitro.analyzer.compare.student_t import cdf, quantile

TRIALS = 500
ITERATIONS = 50


def one_run(generator: np.random.Generator, spread: float, *, iterations: int = ITERATIONS) -> Float64:
    """A run around 10 ms: it differs from others by `spread`, its iterations from each other by 2 %, skewed."""
    within = 0.02 * (generator.gamma(4.0, 0.5, iterations) - 2)
    return np.asarray(1e7 * np.exp(generator.normal(0, spread) + within))


def effect(before: list[Float64], after: list[Float64], **options: float) -> Effect:
    made = effect_of(before, after, resamples=0, **options)  # type: ignore[arg-type]
    assert isinstance(made, Effect)
    return made


@lru_cache
def trials(runs: int, spread: float) -> tuple[Counter[str], Counter[str], float]:
    """Verdicts without a change and with a slowdown of 5 %, and how often the interval holds the truth."""
    generator = np.random.default_rng(round(1e4 * spread) + runs)
    same, slower, covered = Counter[str](), Counter[str](), 0
    for _ in range(TRIALS):
        before, after = ([one_run(generator, spread) for _ in range(runs)] for _ in range(2))
        made = effect(before, after)
        same[made.verdict] += 1
        assert made.interval is not None
        covered += made.interval[0] <= 1 <= made.interval[1]
        slower[effect(before, [1.05 * run for run in after]).verdict] += 1
    return same, slower, covered / TRIALS


class TestWhatAVerdictIsWorth:
    """Simulated runs, 5 a side, threshold 2 %; the standard error of a share of 500 trials is at most 2.2 %."""

    @pytest.mark.parametrize("spread", [0.005, 0.01, 0.02, 0.03])
    def test_false_alarms_are_at_most_five_percent(self, spread: float) -> None:
        same, _, _ = trials(5, spread)
        assert same["improvement"] + same["regression"] <= 0.05 * TRIALS

    @pytest.mark.parametrize("spread", [0.005, 0.01])
    def test_a_slowdown_of_five_percent_is_caught(self, spread: float) -> None:
        _, slower, _ = trials(5, spread)
        assert slower["regression"] >= 0.90 * TRIALS

    @pytest.mark.parametrize("spread", [0.005, 0.01])
    def test_no_change_is_called_no_meaningful_difference(self, spread: float) -> None:
        same, _, _ = trials(5, spread)
        assert same["no_meaningful_difference"] >= 0.60 * TRIALS

    @pytest.mark.parametrize("spread", [0.02, 0.03])
    def test_noisy_runs_are_inconclusive_rather_than_wrong(self, spread: float) -> None:
        same, slower, _ = trials(5, spread)
        assert same["inconclusive"] >= 0.9 * TRIALS
        assert slower["improvement"] == 0
        assert slower["no_meaningful_difference"] <= 0.05 * TRIALS

    @pytest.mark.parametrize(("runs", "spread"), [(3, 0.01), (5, 0.005), (5, 0.01), (5, 0.03)])
    def test_the_interval_covers_the_truth(self, runs: int, spread: float) -> None:
        # 95 % less two standard errors of 500 trials.
        assert trials(runs, spread)[2] >= 0.93

    def test_a_percentile_bootstrap_over_few_runs_does_not_cover(self) -> None:
        """Why the interval that decides is another one: with 3 runs a side it misses the truth three times as often."""
        generator = np.random.default_rng(7)
        covered = 0
        for _ in range(200):
            before, after = ([one_run(generator, 0.01) for _ in range(3)] for _ in range(2))
            made = effect_of(before, after, resamples=200)
            assert isinstance(made, Effect)
            assert made.bootstrap_interval is not None
            covered += made.bootstrap_interval[0] <= 1 <= made.bootstrap_interval[1]
        assert covered / 200 < 0.92

    def test_gating_ten_metrics_raises_no_more_false_alarms(self) -> None:
        generator = np.random.default_rng(11)
        alarms = 0
        for _ in range(60):
            effects = {
                str(number): effect(*([one_run(generator, 0.03) for _ in range(3)] for _ in range(2)))
                for number in range(10)
            }
            alarms += any(e.verdict in ("improvement", "regression") for e in corrected(effects).values())
        assert alarms <= 3


def flat(*values: float) -> list[Float64]:
    return [np.array([value]) for value in values]


class TestVerdict:
    @pytest.mark.parametrize(
        ("after", "better", "expected"),
        [
            (110.0, "lower", "regression"),
            (90.0, "lower", "improvement"),
            (110.0, "higher", "improvement"),
            (90.0, "higher", "regression"),
            (100.5, "lower", "no_meaningful_difference"),
        ],
    )
    def test_direction_and_threshold_decide(self, after: float, better: str, expected: str) -> None:
        made = effect_of(flat(100, 100.1, 99.9), flat(after, after * 1.001, after * 0.999), better=better)  # type: ignore[arg-type]
        assert isinstance(made, Effect)
        assert made.verdict == expected

    def test_a_real_change_smaller_than_the_threshold_is_no_meaningful_difference(self) -> None:
        made = effect(flat(100, 100.01, 99.99), flat(101, 101.01, 100.99))
        assert made.interval is not None
        assert made.interval[0] > 1
        assert made.verdict == "no_meaningful_difference"

    def test_a_threshold_of_a_metric_is_its_own(self) -> None:
        sides = flat(100, 100.1, 99.9), flat(105, 105.1, 104.9)
        assert effect(*sides).verdict == "regression"
        assert effect(*sides, threshold=0.1).verdict == "no_meaningful_difference"

    @pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 5), (5, 1)])
    @pytest.mark.parametrize("factor", [0.1, 1.0, 10.0])
    def test_one_run_on_a_side_never_decides(self, before: int, after: int, factor: float) -> None:
        made = effect(flat(*range(100, 100 + before)), flat(*(factor * 100 + n for n in range(after))))
        assert made.verdict == "inconclusive"
        assert (made.interval, made.p_value, made.smallest_effect, made.runs_to_decide) == (None,) * 4

    def test_two_runs_decide_only_what_is_far_beyond_their_spread(self) -> None:
        assert effect(flat(100, 100.1), flat(150, 150.1)).verdict == "regression"
        assert effect(flat(100, 103), flat(106, 109)).verdict == "inconclusive"

    @given(
        st.lists(st.floats(1, 1e6), min_size=2, max_size=8),
        st.lists(st.floats(1, 1e6), min_size=2, max_size=8),
    )
    @settings(max_examples=60, deadline=None)
    def test_swapping_the_sides_turns_the_verdict_round(self, before: list[float], after: list[float]) -> None:
        forth, back = effect(flat(*before), flat(*after)), effect(flat(*after), flat(*before))
        turned = {"improvement": "regression", "regression": "improvement"}
        assert back.verdict == turned.get(forth.verdict, forth.verdict)
        assert back.ratio == pytest.approx(1 / forth.ratio)

    @given(st.floats(1e-3, 1e6))
    @settings(max_examples=30, deadline=None)
    def test_the_unit_does_not_matter(self, unit: float) -> None:
        before, after = (100, 101, 99.5), (103, 104, 102.1)
        plain, scaled = (
            effect(flat(*before), flat(*after)),
            effect(*(flat(*(unit * v for v in s)) for s in (before, after))),
        )
        assert scaled.ratio == pytest.approx(plain.ratio)
        assert scaled.interval == pytest.approx(plain.interval)


class TestNumbers:
    def test_the_effect_is_the_median_of_all_pairs(self) -> None:
        # after / before of all pairs: 2, 1, 4, 2, and 1 with a third run of 400 -> 0.25 and 0.5 ...
        made = effect(flat(100, 200), flat(200, 400))
        assert made.ratio == pytest.approx(2.0)

    def test_one_odd_run_moves_the_effect_little(self) -> None:
        before = flat(100, 101, 99, 100.5, 300)
        assert effect(before, flat(100, 101, 99, 100.5, 100)).ratio == pytest.approx(1.0, abs=0.01)

    def test_pairs_take_out_what_both_of_a_pair_share(self) -> None:
        before, after = (100, 120, 80, 150), (105, 126.2, 83.9, 157.6)
        assert effect(flat(*before), flat(*after)).verdict == "inconclusive"
        made = effect(flat(*before), flat(*after), is_paired=True)
        assert (made.verdict, made.is_paired) == ("regression", True)
        assert made.ratio == pytest.approx(1.05, abs=0.001)

    def test_the_interval_of_two_equal_spreads_is_students(self) -> None:
        logs = np.array([-0.01, 0.0, 0.01])
        made = effect(flat(*np.exp(logs)), flat(*np.exp(logs + 0.1)))
        half = 2.7764451 * 0.01 * math.sqrt(2 / 3)
        assert made.interval == pytest.approx((math.exp(0.1 - half), math.exp(0.1 + half)))

    def test_iterations_and_runs_vary_apart(self) -> None:
        generator = np.random.default_rng(5)
        runs = [one_run(generator, 0.03, iterations=400) for _ in range(200)]
        spread = effect(runs, runs).spread_before
        assert spread.within == pytest.approx(0.02, rel=0.05)
        assert spread.between == pytest.approx(0.03, rel=0.15)
        assert spread.between_alone is not None
        assert spread.between_alone < (spread.between or 0)
        assert (spread.runs, spread.iterations) == (200, 80_000)

    def test_the_smallest_effect_is_shown_four_times_in_five(self) -> None:
        generator = np.random.default_rng(9)
        shown, promised = 0, []
        for _ in range(300):
            before, after = (flat(*np.exp(generator.normal(0, 0.01, 5))) for _ in range(2))
            promised.append(effect(before, after).smallest_effect or 0.0)
        change = 1 + float(np.median(promised))
        for _ in range(300):
            before, after = (flat(*np.exp(generator.normal(0, 0.01, 5))) for _ in range(2))
            shown += effect(before, [change * run for run in after]).verdict == "regression"
        assert 0.72 <= shown / 300 <= 0.9

    def test_more_runs_are_asked_for_until_they_decide(self) -> None:
        generator = np.random.default_rng(3)
        made = effect(*(flat(*np.exp(0.02 * generator.standard_normal(4) + shift)) for shift in (0, 0.06)))
        assert made.verdict == "inconclusive"
        assert made.runs_to_decide is not None
        assert 4 < made.runs_to_decide <= 100
        assert f"{made.runs_to_decide} runs a side should decide" in verdict_sentence(made)

    def test_as_many_runs_as_there_are_are_never_asked_for(self) -> None:
        # Nearly all of the spread is that of one side, which leaves a single degree of freedom.
        made = effect(flat(15.11, 13.81), flat(4.16, 5.84))
        assert made.verdict == "inconclusive"
        assert made.runs_to_decide == 3
        assert corrected({"period": made})["period"].runs_to_decide == 3
        assert "3 runs a side should decide" in verdict_sentence(made)

    def test_a_change_of_just_the_threshold_cannot_be_decided(self) -> None:
        made = effect(flat(100, 102, 98), flat(102, 104.04, 99.96))
        assert made.runs_to_decide is None
        assert "too near the threshold" in verdict_sentence(made)

    def test_runs_that_differ_too_much_are_named_as_the_reason(self) -> None:
        for after in ((101, 58, 176), (100, 180, 60)):
            made = effect(flat(100, 180, 60), flat(*after))
            assert made.runs_to_decide is None
            assert "the runs of a side differ too much" in verdict_sentence(made)
            assert "more than 100 runs" in verdict_sentence(made)

    def test_the_runs_asked_for_show_that_nothing_changed_four_times_in_five(self) -> None:
        # Values with exactly this spread and no change, so that the promise is about what is simulated.
        logs = np.array([-1.0, -1.0, 1.0, 1.0])
        logs *= 0.02 / logs.std(ddof=1)
        runs = effect(flat(*np.exp(logs)), flat(*np.exp(logs))).runs_to_decide
        assert runs is not None
        generator = np.random.default_rng(5)
        shown = 0
        for _ in range(400):
            sides = (flat(*np.exp(generator.normal(0, 0.02, runs))) for _ in range(2))
            shown += effect(*sides).verdict == "no_meaningful_difference"
        assert 0.75 <= shown / 400 <= 0.9

    def test_percentiles_are_each_compared(self) -> None:
        run = np.concatenate((np.full(180, 100.0), np.full(20, 200.0)))
        slower_tail = np.where(run > 150, 300.0, run)
        sides = [run, run * 1.001], [slower_tail, slower_tail * 1.001]
        assert effect(*sides).ratio == pytest.approx(1.0)
        assert effect(*sides, percentile=99).ratio == pytest.approx(1.5)

    def test_a_percentile_needs_its_iterations(self) -> None:
        made = effect_of([np.arange(1.0, 100)], [np.arange(1.0, 300)], percentile=99)
        assert made == NoEffect("p99", "the percentile needs 100 iterations in each run, and a run has 99")
        assert isinstance(effect_of([np.arange(1.0, 11)], [np.arange(1.0, 11)], percentile=90), Effect)

    def test_a_value_of_zero_has_no_ratio(self) -> None:
        made = effect_of(flat(0), flat(5))
        assert isinstance(made, NoEffect)
        assert "0 or less" in made.reason

    @pytest.mark.parametrize(
        ("before", "after", "options", "match"),
        [
            ([], [1.0], {}, "at least one run"),
            ([1.0], [1.0], {"threshold": 0.0}, "must be positive"),
            ([1.0, 2.0], [1.0], {"is_paired": True}, "equally many runs, not 2 and 1"),
        ],
    )
    def test_nonsense_is_refused(
        self, before: list[float], after: list[float], options: dict[str, float], match: str
    ) -> None:
        with pytest.raises(ValueError, match=match):
            effect(flat(*before), flat(*after), **options)


class TestMeasurementError:
    """Values that may be off by a share, all of a side alike; three runs that differ by 0.1 %."""

    RUNS = (0.999, 1.0, 1.001)

    def made(self, ratio: float, error: tuple[float, float] | None) -> Effect:
        before, after = (flat(*(10 * factor * run for run in self.RUNS)) for factor in (1, ratio))
        return effect(before, after, measurement_error=error)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("ratio", "errors", "expected"),
        [
            (1.05, None, "regression"),
            (1.05, (0.0, 0.0), "regression"),
            (1.05, (0.01, 0.01), "regression"),
            (1.05, (0.02, 0.02), "inconclusive"),
            (0.95, (0.02, 0.02), "inconclusive"),
            (0.90, (0.02, 0.02), "improvement"),
            (1.001, None, "no_meaningful_difference"),
            (1.001, (0.005, 0.005), "no_meaningful_difference"),
            (1.001, (0.01, 0.01), "inconclusive"),
        ],
    )
    def test_a_verdict_holds_wherever_the_values_are(
        self, ratio: float, errors: tuple[float, float] | None, expected: str
    ) -> None:
        assert self.made(ratio, errors).verdict == expected

    @given(
        st.floats(0.8, 1.25), st.floats(0, 0.2), st.floats(0, 0.2), st.floats(-1, 1), st.floats(-1, 1)
    )  # fmt: skip
    @settings(max_examples=200, deadline=None)
    def test_it_is_true_of_the_true_values(
        self, ratio: float, off_before: float, off_after: float, where: float, there: float
    ) -> None:
        """Whatever the true values are within their bounds, exact measurement would never say the contrary."""
        said = self.made(ratio, (off_before, off_after)).verdict
        true_ratio = ratio * (1 + there * off_after) / (1 + where * off_before)
        if said == "regression":
            assert true_ratio > 1.02
        elif said == "improvement":
            assert true_ratio < 1 / 1.02
        elif said == "no_meaningful_difference":
            assert 1 / 1.0201 < true_ratio < 1.0201

    def test_the_interval_is_that_of_the_runs_alone(self) -> None:
        exact, off = self.made(1.05, None), self.made(1.05, (0.02, 0.02))
        assert off.interval == exact.interval
        assert off.to_dict()["measurement_error"] == [0.02, 0.02]
        assert exact.to_dict()["measurement_error"] is None

    def test_more_runs_are_not_asked_for_where_they_would_not_help(self) -> None:
        made = self.made(1.03, (0.02, 0.02))
        assert made.runs_to_decide is None
        assert "which more runs do not lessen" in verdict_sentence(made)
        assert "2 % before and 2 % after" in verdict_sentence(made)

    def test_a_value_that_may_be_off_by_all_of_itself_says_nothing(self) -> None:
        made = self.made(5.0, (1.0, 0.0))
        assert made.verdict == "inconclusive"
        assert made.smallest_effect is not None
        assert math.isfinite(made.smallest_effect)


class TestBootstrap:
    def test_the_seed_fixes_it(self) -> None:
        generator = np.random.default_rng(2)
        sides = [[one_run(generator, 0.01) for _ in range(4)] for _ in range(2)]
        first, again, other = (bootstrap_effects(*sides, resamples=300, seed=seed) for seed in (1, 1, 2))
        assert (first == again).all()
        assert (first != other).any()

    @pytest.mark.parametrize("percentile", [50.0, 90.0])
    def test_percentiles_of_resamples_are_distributed_as_those_of_drawn_values(self, percentile: float) -> None:
        generator = np.random.default_rng(4)
        values = np.exp(generator.normal(0, 0.3, 40))
        drawn = np.log(np.percentile(generator.choice(values, (20_000, 40)), percentile, axis=1))
        # One run a side, and a side without any variation: the effect is the resampled percentile of the run.
        made = bootstrap_effects([np.array([1.0])], [values], percentile=percentile, resamples=20_000)
        assert made.mean() == pytest.approx(drawn.mean(), abs=0.003)
        assert made.std() == pytest.approx(drawn.std(), rel=0.03)

    def test_with_many_runs_it_agrees_with_the_interval_that_decides(self) -> None:
        generator = np.random.default_rng(6)
        made = effect_of(*([one_run(generator, 0.01) for _ in range(30)] for _ in range(2)))
        assert isinstance(made, Effect)
        assert made.interval is not None
        assert made.bootstrap_interval == pytest.approx(made.interval, abs=0.002)


class TestHolm:
    def test_the_smallest_is_multiplied_most_and_order_is_kept(self) -> None:
        assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})

    def test_never_above_one(self) -> None:
        assert holm({"a": 0.7, "b": 0.9}) == {"a": 1.0, "b": 1.0}
        assert holm({}) == {}

    def test_a_difference_that_does_not_survive_is_inconclusive(self) -> None:
        weak = effect(flat(100, 101, 99), flat(106.5, 107.5, 105.5))
        assert weak.verdict == "regression"
        assert weak.p_value is not None
        assert 0.005 < weak.p_value < 0.05
        others = {str(n): effect(flat(100, 101, 99), flat(100, 101, 99)) for n in range(9)}
        made = corrected({"weak": weak, **others})["weak"]
        assert made.verdict == "inconclusive"
        assert made.adjusted_p == pytest.approx(10 * weak.p_value)


class TestStudent:
    @pytest.mark.parametrize(
        ("probability", "df", "expected"),
        [
            (0.975, 1, 12.7062047),
            (0.975, 2, 4.30265273),
            (0.975, 8, 2.30600414),
            (0.95, 4, 2.13184679),
            (0.8, 30, 0.85376726),
        ],
    )
    def test_quantiles_are_those_of_the_tables(self, probability: float, df: float, expected: float) -> None:
        assert quantile(probability, df) == pytest.approx(expected, rel=1e-8)
        assert quantile(1 - probability, df) == pytest.approx(-expected, rel=1e-8)

    @given(st.floats(-50, 50))
    def test_one_and_two_degrees_of_freedom_have_closed_forms(self, t: float) -> None:
        assert cdf(t, 1) == pytest.approx(0.5 + math.atan(t) / math.pi, abs=1e-11)
        assert cdf(t, 2) == pytest.approx(0.5 + t / (2 * math.sqrt(2 + t * t)), abs=1e-11)

    @given(st.floats(0.001, 0.999), st.floats(0.6, 200))
    def test_the_quantile_turns_the_distribution_round(self, probability: float, df: float) -> None:
        assert cdf(quantile(probability, df), df) == pytest.approx(probability, abs=1e-9)

    def test_nonsense_is_refused(self) -> None:
        with pytest.raises(ValueError, match="must be positive"):
            cdf(1.0, 0)
        with pytest.raises(ValueError, match="inside"):
            quantile(1.0, 5)
