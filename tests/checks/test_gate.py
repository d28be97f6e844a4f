"""The gate: what passes, what does not, and that what could not be judged never passes."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from nitro.analyzer.checks import Budget, Check, Entry, Key, budget, check, default_budgets
from nitro.analyzer.checks.facts import ALLOWED_KEYS
from nitro.analyzer.checks.gate import STATUSES, Status
from nitro.analyzer.compare.statistics import Effect
from nitro.errors import UsageError
from nitro.reports.checks.sentences import sentence
from recorded_runs import DAY, PERIOD, around, baseline, run, runs

MS = 1e6
IDLE = Key("gpu_idle", device_id=0)
LATER = DAY + timedelta(days=1)


def period(**settings: Any) -> Budget:
    return budget("iteration_period", by="p50", **settings)


def statuses(made: Check) -> list[Status]:
    return [judgement.status for judgement in made.judgements]


def gated(before: list[float], now: list[float], **settings: Any) -> Check:
    limit = period(max_regression=settings.pop("max_regression", "3 %"))
    held_against = baseline(runs(PERIOD, before))
    return check(runs(PERIOD, now), [limit], day=DAY, baseline=held_against, **settings)


class TestAbsoluteLimits:
    @pytest.mark.parametrize(
        ("limits", "value", "status"),
        [
            ({"max": "10 ms"}, 10 * MS, "pass"),
            ({"max": "10 ms"}, 10 * MS + 1, "fail"),
            ({"min": "10 ms"}, 10 * MS, "pass"),
            ({"min": "10 ms"}, 10 * MS - 1, "fail"),
        ],
    )
    def test_a_value_at_the_limit_keeps_it_and_one_beyond_does_not(
        self, limits: dict[str, str], value: float, status: str
    ) -> None:
        made = check(runs(PERIOD, [value]), [period(**limits)], day=DAY)
        assert statuses(made) == [status]
        assert made.exit_code == (0 if status == "pass" else 1)

    def test_of_several_runs_the_median_decides(self) -> None:
        made = check(runs(PERIOD, [9 * MS, 9 * MS, 30 * MS]), [period(max="10 ms")], day=DAY)
        assert statuses(made) == ["pass"]
        assert made.judgements[0].value == 9 * MS

    def test_every_limit_of_a_budget_is_judged_apart(self) -> None:
        made = check(runs(PERIOD, [5 * MS]), [period(max="10 ms", min="6 ms")], day=DAY)
        assert statuses(made) == ["pass", "fail"]

    def test_a_total_is_judged_per_iteration_unless_the_budget_says_otherwise(self) -> None:
        side = (run({IDLE: 100 * MS}, periods=50),)
        each = check(side, [budget("gpu_idle", max="2 ms")], day=DAY)
        whole = check(side, [budget("gpu_idle", max="2 ms", per="window")], day=DAY)
        assert (each.judgements[0].value, statuses(each)) == (2 * MS, ["pass"])
        assert (whole.judgements[0].value, statuses(whole)) == (100 * MS, ["fail"])

    def test_a_total_without_iterations_was_not_measured_per_iteration(self) -> None:
        made = check((run({IDLE: 100 * MS}, periods=0),), [budget("gpu_idle", max="2 ms")], day=DAY)
        assert statuses(made) == ["not_measured"]
        assert 'set per = "window"' in made.judgements[0].reason

    def test_a_budget_holds_on_every_device_that_it_does_not_rule_out(self) -> None:
        side = (run({Key("gpu_idle", device_id=n): (n + 1.0) for n in (0, 1)}, periods=1, devices=("A", "B")),)
        every = check(side, [budget("gpu_idle", max="1 ns")], day=DAY)
        one = check(side, [budget("gpu_idle", max="1 ns", device=1)], day=DAY)
        named = check(side, [budget("gpu_idle", max="1 ns", device="A*")], day=DAY)
        assert statuses(every) == ["pass", "fail"]
        assert statuses(one) == ["fail"]
        assert statuses(named) == ["pass"]

    def test_a_gpu_that_no_run_used_is_no_pass_for_what_belongs_to_no_gpu(self) -> None:
        side = runs(PERIOD, [1.0])
        made = check(side, [period(device=7, max="1 ms")], day=DAY)
        assert (statuses(made), made.exit_code) == (["not_measured"], 3)
        assert made.judgements[0].reason == "no run used GPU 7; used were 0"
        assert statuses(check(side, [period(device=0, max="1 ms")], day=DAY)) == ["pass"]

    @pytest.mark.parametrize(
        ("periods", "value", "status"), [(11, 5, "inconclusive"), (11, 30, "fail"), (100, 5, "pass")]
    )
    def test_a_percentile_of_few_iterations_can_break_a_limit_and_not_keep_it(
        self, periods: int, value: float, status: str
    ) -> None:
        side = runs(Key("iteration_period", "p99"), [value * MS], periods=periods)
        made = check(side, [budget("iteration_period", by="p99", max="10 ms")], day=DAY)
        assert statuses(made) == [status]
        if status == "inconclusive":
            assert sentence(made.judgements[0]) == ("the percentile needs 100 iterations in each run, and a run has 11")

    def test_a_pattern_of_nvtx_ranges_holds_for_each_of_them(self) -> None:
        values = {
            Key("projection_mean_ns", nvtx=f"infer > {name}"): at * MS for name, at in (("text", 1), ("vision", 3))
        }
        made = check((run(values),), [budget("projection_mean_ns", nvtx="infer > *", max="2 ms")], day=DAY)
        assert [(judgement.key.nvtx, judgement.status) for judgement in made.judgements if judgement.key] == [
            ("infer > text", "pass"),
            ("infer > vision", "fail"),
        ]


class TestAgainstABaseline:
    def test_a_slowdown_beyond_the_limit_is_a_regression(self) -> None:
        made = gated(around(10 * MS), around(11 * MS))
        assert statuses(made) == ["fail"]
        assert made.exit_code == 1
        effect = made.judgements[0].effect
        assert isinstance(effect, Effect)
        assert effect.verdict == "regression"
        assert effect.ratio == pytest.approx(1.1, rel=1e-3)

    def test_a_speed_up_passes(self) -> None:
        assert statuses(gated(around(10 * MS), around(9 * MS))) == ["pass"]

    def test_the_same_again_passes(self) -> None:
        made = gated(around(10 * MS), around(10 * MS))
        assert statuses(made) == ["pass"]
        assert isinstance(made.judgements[0].effect, Effect)
        assert made.judgements[0].effect.verdict == "no_meaningful_difference"

    @pytest.mark.parametrize(("before", "now"), [(1, 1), (1, 5), (5, 1)])
    def test_with_one_run_on_a_side_nothing_is_ever_a_regression(self, before: int, now: int) -> None:
        made = gated(around(10 * MS, number=before), around(30 * MS, number=now))
        assert statuses(made) == ["inconclusive"]
        assert made.exit_code == 0
        assert gated(around(10 * MS, number=before), around(30 * MS, number=now), inconclusive="fail").exit_code == 1

    def test_the_budget_decides_about_what_is_inconclusive_before_the_call_does(self) -> None:
        limits = [period(max_regression="3 %", inconclusive="fail")]
        held_against = baseline(runs(PERIOD, [10 * MS]))
        made = check(runs(PERIOD, [10 * MS]), limits, day=DAY, baseline=held_against, inconclusive="pass")
        assert (statuses(made), made.exit_code) == (["inconclusive"], 1)

    def test_runs_that_vary_too_much_are_inconclusive(self) -> None:
        assert statuses(gated(around(10 * MS, 0.08), around(10.5 * MS, 0.08))) == ["inconclusive"]

    def test_of_a_rate_less_is_worse(self) -> None:
        rate = Key("iterations_per_s")
        limits = [budget("iterations_per_s", max_regression="3 %")]
        held_against = baseline(runs(rate, around(100)))
        slower = check(runs(rate, around(90)), limits, day=DAY, baseline=held_against)
        faster = check(runs(rate, around(110)), limits, day=DAY, baseline=held_against)
        assert statuses(slower) == ["fail"]
        assert statuses(faster) == ["pass"]

    def test_many_limits_share_one_correction(self) -> None:
        """One metric a little worse: alone it is a regression, among twenty it may be chance."""
        before, now = around(10 * MS, 0.01), around(10.55 * MS, 0.01)
        keys = [Key("gpu_idle_by_cause", f"cause {number}", 0) for number in range(20)]
        one = budget("gpu_idle_by_cause", by="cause 0", max_regression="3 %")
        limits = [one, *(budget("gpu_idle_by_cause", by=key.by, max_regression="3 %") for key in keys[1:])]

        def side(changed: list[float]) -> tuple[Any, ...]:
            return tuple(run({keys[0]: x} | dict.fromkeys(keys[1:], y)) for x, y in zip(changed, before, strict=True))

        held_against = baseline(side(before))
        assert statuses(check(side(now), [one], day=DAY, baseline=held_against)) == ["fail"]
        made = check(side(now), limits, day=DAY, baseline=held_against)
        assert made.judgements[0].status == "inconclusive"
        effect = made.judgements[0].effect
        assert isinstance(effect, Effect)
        assert effect.adjusted_p is not None
        assert effect.p_value is not None
        assert effect.adjusted_p == pytest.approx(20 * effect.p_value)
        assert "alone it would be beyond the threshold" in sentence(made.judgements[0])

    def test_totals_of_windows_of_different_length_are_comparable(self) -> None:
        before = tuple(run({IDLE: value * 50}, periods=50) for value in around(2 * MS))
        now = tuple(run({IDLE: value * 75}, periods=75) for value in around(2 * MS))
        limits = [budget("gpu_idle", max_regression="3 %")]
        assert statuses(check(now, limits, day=DAY, baseline=baseline(before))) == ["pass"]

    @pytest.mark.parametrize(
        ("before", "now", "better", "status"),
        [
            ([0.0] * 3, [0.0] * 3, "lower", "pass"),
            ([0.0] * 3, [7.0] * 3, "lower", "fail"),
            ([0.0] * 3, [7.0] * 3, "higher", "pass"),
            ([7.0] * 3, [0.0] * 3, "lower", "pass"),
            ([7.0] * 3, [0.0] * 3, "higher", "fail"),
            ([0.0] * 3, [0.0, 7.0, 7.0], "lower", "not_measured"),
            ([0.0, 7.0, 7.0], [7.0] * 3, "lower", "not_measured"),
            ([0.0], [7.0] * 3, "lower", "inconclusive"),
        ],
    )
    def test_what_was_or_is_0_is_judged_without_a_ratio(
        self, before: list[float], now: list[float], better: str, status: str
    ) -> None:
        key = Key("memcpy_count", device_id=0)
        limits = [budget("memcpy_count", better=better, max_regression="3 %")]
        made = check(runs(key, now), limits, day=DAY, baseline=baseline(runs(key, before)))
        assert statuses(made) == [status]
        assert made.exit_code == {"pass": 0, "inconclusive": 0, "fail": 1, "not_measured": 3}[status]
        assert sentence(made.judgements[0])

    def test_a_clear_improvement_by_less_than_the_threshold_passes_although_its_good_side_is_open(self) -> None:
        """From 5 % better to the same: no regression, and neither an improvement beyond 3 % nor no difference."""
        made = gated(around(10 * MS, 0.02), around(9.75 * MS, 0.02))
        (judged,) = made.judgements
        assert isinstance(judged.effect, Effect)
        assert judged.effect.verdict == "inconclusive"
        assert judged.status == "pass"
        assert sentence(judged).startswith("no regression")

    def test_the_same_change_for_the_worse_stays_inconclusive(self) -> None:
        assert statuses(gated(around(9.75 * MS, 0.02), around(10 * MS, 0.02))) == ["inconclusive"]

    def test_of_what_is_better_when_higher_the_lower_end_decides(self) -> None:
        key = Key("gpu_busy_ratio", device_id=0)
        limits = [budget("gpu_busy_ratio", max_regression="3 %")]
        low, high = (runs(key, around(middle, 0.02)) for middle in (0.80, 0.82))
        assert statuses(check(high, limits, day=DAY, baseline=baseline(low))) == ["pass"]
        assert statuses(check(low, limits, day=DAY, baseline=baseline(high))) == ["inconclusive"]

    def test_a_percentile_needs_iterations_beyond_it(self) -> None:
        key = Key("iteration_period", "p99")
        limits = [budget("iteration_period", by="p99", max_regression="3 %")]
        few, many = (
            check(
                runs(key, around(20 * MS), periods=number),
                limits,
                day=DAY,
                baseline=baseline(runs(key, around(10 * MS), periods=number)),
            )
            for number in (99, 100)
        )
        assert statuses(few) == ["inconclusive"]
        assert statuses(many) == ["fail"]

    def test_a_part_named_by_a_process_is_compared_with_nothing(self) -> None:
        assert not Key("sync_time", "pid 460 tid 460").is_lasting
        assert Key("gpu_idle_by_cause", "host_code", 0).is_lasting

    def test_one_gpu_may_have_another_number(self) -> None:
        before = tuple(run({Key("gpu_busy_ratio", device_id=0): value}) for value in around(0.8))
        now = tuple(run({Key("gpu_busy_ratio", device_id=1): value}) for value in around(0.8))
        moved = tuple(
            replace(each, facts=replace(each.facts, devices=(replace(each.facts.devices[0], device_id=1),)))
            for each in now
        )
        limits = [budget("gpu_busy_ratio", max_regression="3 %")]
        assert statuses(check(moved, limits, day=DAY, baseline=baseline(before))) == ["pass"]

    def test_without_budgets_the_median_period_is_gated(self) -> None:
        held_against = baseline(runs(PERIOD, around(10 * MS)))
        now = runs(PERIOD, around(11 * MS))
        made = check(now, default_budgets(now), day=DAY, baseline=held_against)
        assert statuses(made) == ["fail"]

    def test_without_budgets_and_with_overlapping_iterations_the_mean_is(self) -> None:
        mean = Key("iteration_period", "mean")
        now = runs(mean, around(11 * MS))
        made = check(now, default_budgets(now), day=DAY, baseline=baseline(runs(mean, around(10 * MS))))
        assert statuses(made) == ["fail"]
        assert made.judgements[0].key == mean

    def test_a_percentile_of_overlapping_iterations_was_not_measured(self) -> None:
        made = check(runs(Key("iteration_period", "mean"), [1.0]), [period(max="1 ms")], day=DAY)
        assert (statuses(made), made.exit_code) == (["not_measured"], 3)


class TestBounds:
    """Energies that a log may be off by 3 %: 5 % and less may be no change, 10 % is one."""

    ENERGY = Key("energy_per_item")

    def judged(self, share: float, *, bounds: tuple[float, float] = (0.03, 0.03), **entry: object) -> Check:
        before, now = (
            [
                run({self.ENERGY: value}, errors={self.ENERGY: value * bound} if bound else {})
                for value in around(middle, spread=0.001)
            ]
            for middle, bound in zip((10.0, 10.0 * (1 + share)), bounds, strict=True)
        )
        limits = [budget("energy_per_item", max_regression="2 %")]
        return check(now, limits, day=DAY, baseline=baseline(before, **entry))

    @pytest.mark.parametrize(("share", "status"), [(0.05, "inconclusive"), (0.1, "fail"), (-0.1, "pass")])
    def test_a_change_within_the_bounds_is_no_regression(self, share: float, status: str) -> None:
        (judgement,) = self.judged(share).judgements
        assert judgement.status == status
        assert isinstance(judgement.effect, Effect)
        assert judgement.effect.measurement_error == pytest.approx((0.03, 0.03))
        told = "cannot be told from what the measurement may be off by, 3 % before and 3 % after"
        assert (told in sentence(judgement)) == (status == "inconclusive")

    def test_without_bounds_the_same_change_is_one(self) -> None:
        made = self.judged(0.05, bounds=(0.0, 0.0))
        assert statuses(made) == ["fail"]
        assert not made.reasons

    @pytest.mark.parametrize(("share", "status"), [(-0.04, "inconclusive"), (-0.07, "pass")])
    def test_what_may_be_worse_within_the_bounds_does_not_simply_pass(self, share: float, status: str) -> None:
        """4 % less, and off by 3 % on both sides, may be 2 % more; 7 % less may not."""
        before, now = (
            [run({self.ENERGY: value}, errors={self.ENERGY: value * 0.03}) for value in around(middle, spread=0.001)]
            for middle in (10.0, 10.0 * (1 + share))
        )
        limits = [budget("energy_per_item", max_regression="1 %")]
        assert statuses(check(now, limits, day=DAY, baseline=baseline(before))) == [status]

    def test_an_entry_from_before_bounds_were_kept_counts_and_is_noted_once(self) -> None:
        made = self.judged(0.05, bounds=(0.0, 0.03), has_bounds=False)
        (judgement,) = made.judgements
        assert isinstance(judgement.effect, Effect)
        assert judgement.effect.measurement_error == pytest.approx((0.0, 0.03))
        assert judgement.status == "inconclusive"
        (reason,) = made.reasons
        assert (reason.level, reason.key) == ("warn", "capture")
        assert "entry 1 of the baseline was kept without what its energy may be off by" in reason.text

    def test_nothing_is_noted_where_no_energy_is_judged(self) -> None:
        held_against = baseline(runs(PERIOD, around(10 * MS)), has_bounds=False)
        made = check(runs(PERIOD, around(10 * MS)), [period(max_regression="3 %")], day=DAY, baseline=held_against)
        assert not made.reasons

    def test_a_total_of_an_iteration_has_the_bound_of_the_window_as_a_share(self) -> None:
        total = Key("energy")
        before, now = (
            [run({total: value}, errors={total: value * 0.03}, periods=periods) for value in around(middle, 0.001)]
            for middle, periods in ((100.0, 10), (210.0, 20))
        )
        limits = [budget("energy", max_regression="2 %")]
        (judgement,) = check(now, limits, day=DAY, baseline=baseline(before)).judgements
        assert isinstance(judgement.effect, Effect)
        assert judgement.effect.ratio == pytest.approx(1.05, rel=1e-3)
        assert judgement.effect.measurement_error == pytest.approx((0.03, 0.03))


class TestWhatCannotBeJudged:
    def test_a_metric_that_was_not_measured_is_no_pass(self) -> None:
        reason = "GPU context switches were not recorded"
        side = (run({PERIOD: 1.0}, not_measured={"gpu_context_switch_time": reason}),)
        made = check(side, [budget("gpu_context_switch_time", by="switching", max="1 ms")], day=DAY)
        assert (statuses(made), made.exit_code) == (["not_measured"], 3)
        assert made.judgements[0].reason == reason

    def test_a_value_that_one_of_the_runs_lacks_is_no_pass(self) -> None:
        side = (run({PERIOD: 1.0}), run({}, not_measured={"iteration_period": "no iterations were found"}))
        made = check(side, [period(max="1 ms")], day=DAY)
        assert (statuses(made), made.exit_code) == (["not_measured"], 3)
        assert made.judgements[0].reason == f"{side[1].file_name}: no iterations were found"

    def test_a_value_that_the_baseline_lacks_is_no_pass(self) -> None:
        made = check(
            runs(PERIOD, around(10 * MS)), [period(max_regression="3 %")], day=DAY, baseline=baseline(runs(IDLE, [1.0]))
        )
        assert (statuses(made), made.exit_code) == (["not_measured"], 3)

    def test_an_nvtx_range_that_is_not_there_is_told_with_the_nearest(self) -> None:
        side = (run({Key("projection_mean_ns", nvtx="infer > vision"): 1.0}),)
        made = check(side, [budget("projection_mean_ns", nvtx="infer > visoin", max="1 ms")], day=DAY)
        assert (statuses(made), made.exit_code) == (["not_measured"], 3)
        assert "the nearest are 'infer > vision'" in made.judgements[0].reason

    def test_a_gpu_that_is_not_there_is_no_pass(self) -> None:
        made = check(runs(IDLE, [1.0]), [budget("gpu_idle", device=3, max="1 ms")], day=DAY)
        assert (statuses(made), made.exit_code) == (["not_measured"], 3)

    def test_budgets_of_other_boards_are_skipped_but_not_all_of_them(self) -> None:
        orin, ours = budget("gpu_idle", device="*Orin*", max="1 ns"), budget("gpu_idle", device="GPU*", max="1 ms")
        side = runs(IDLE, [1.0])
        assert statuses(both := check(side, [orin, ours], day=DAY)) == ["skipped", "pass"]
        assert both.exit_code == 0
        assert check(side, [orin], day=DAY).exit_code == 3

    @pytest.mark.parametrize(
        ("facts", "key"),
        [
            ({"devices": ("GPU B",)}, "device"),
            ({"told": {"precision": "fp16"}}, "told"),
            ({"batch": 8.0}, "batch"),
            ({"iteration_name": "train:#"}, "iteration_names"),
            ({"kernels": ("other",)}, "workload"),
            ({"options": {"cuda_graph_trace": "Node"}}, "capture"),
        ],
    )
    def test_what_cannot_be_compared_is_no_pass_until_it_is_allowed(self, facts: dict[str, Any], key: str) -> None:
        known: dict[str, Any] = {
            "told": {"precision": "bf16"},
            "batch": 1.0,
            "iteration_name": "infer:#",
            "options": {"cuda_graph_trace": "Graph"},
        }
        held_against = baseline(runs(PERIOD, around(10 * MS), **known))
        now = runs(PERIOD, around(10 * MS), **(known | facts))
        refused = check(now, [period(max_regression="3 %")], day=DAY, baseline=held_against)
        assert (statuses(refused), refused.exit_code) == (["not_comparable"], 4)
        assert [reason.key for reason in refused.reasons if reason.level == "refuse"] == [key]
        allowed = check(now, [period(max_regression="3 %")], day=DAY, baseline=held_against, allow=[key])
        assert (statuses(allowed), allowed.exit_code) == (["pass"], 0)

    def test_another_driver_is_only_noted(self) -> None:
        held_against = baseline(runs(PERIOD, around(10 * MS), options={"driver_version": "1"}))
        now = runs(PERIOD, around(10 * MS), options={"driver_version": "2"})
        made = check(now, [period(max_regression="3 %")], day=DAY, baseline=held_against)
        assert made.exit_code == 0
        assert [(reason.level, reason.key) for reason in made.reasons] == [("warn", "driver")]

    def test_an_absolute_limit_needs_no_comparison(self) -> None:
        held_against = baseline(runs(PERIOD, around(10 * MS)))
        made = check(
            runs(PERIOD, around(10 * MS), devices=("GPU B",)), [period(max="20 ms")], day=DAY, baseline=held_against
        )
        assert made.exit_code == 0

    def test_a_run_that_is_counted_twice_is_no_repetition(self) -> None:
        side = runs(PERIOD, [1.0, 1.0], fingerprint="same")
        made = check(side, [period(max="20 ms")], day=DAY)
        assert (statuses(made), made.exit_code) == (["not_comparable"], 4)

    def test_a_budget_that_has_expired_is_no_pass(self) -> None:
        kept, broken = period(max="20 ms", expires=str(DAY)), period(max="5 ms", expires=str(DAY))
        before = check(runs(PERIOD, [10 * MS]), [kept], day=DAY - timedelta(days=1))
        assert before.exit_code == 0
        made = check(runs(PERIOD, [10 * MS]), [kept, broken], day=DAY)
        assert (statuses(made), made.exit_code) == (["expired", "fail"], 1)

    def test_a_relative_budget_that_has_expired_is_no_pass(self) -> None:
        limits = [period(max_regression="3 %", expires=str(DAY))]
        made = check(runs(PERIOD, around(9 * MS)), limits, day=DAY, baseline=baseline(runs(PERIOD, around(10 * MS))))
        assert (statuses(made), made.exit_code) == (["expired"], 1)

    @pytest.mark.parametrize(
        ("found", "code"),
        [
            (["pass"], 0),
            (["pass", "skipped"], 0),
            (["pass", "inconclusive"], 0),
            (["not_comparable", "pass"], 4),
            (["not_measured", "not_comparable"], 3),
            (["fail", "not_measured", "not_comparable"], 1),
            (["expired", "not_comparable"], 1),
            (["skipped"], 3),
        ],
    )
    def test_what_is_certain_decides_the_exit_code(self, found: list[Status], code: int) -> None:
        made = check(runs(PERIOD, [1.0]), [period(max="1 ms")], day=DAY)
        (one,) = made.judgements
        assert replace(made, judgements=tuple(replace(one, status=status) for status in found)).exit_code == code

    def test_every_status_has_its_place_in_the_order(self) -> None:
        from typing import get_args

        assert sorted(STATUSES) == sorted(get_args(Status))


class TestWrongUse:
    def test_a_relative_limit_needs_a_baseline(self) -> None:
        with pytest.raises(UsageError, match="name one with --baseline"):
            check(runs(PERIOD, [1.0]), [period(max_regression="3 %")], day=DAY)

    def test_a_metric_in_parts_needs_the_part(self) -> None:
        with pytest.raises(UsageError, match="measured in parts, so its budget needs by; there are p50"):
            check(runs(PERIOD, [1.0]), [budget("iteration_period", max="1 ms")], day=DAY)

    def test_a_part_that_does_not_exist_is_told(self) -> None:
        with pytest.raises(UsageError, match="has no part 'p42'; there are p50"):
            check(runs(PERIOD, [1.0]), [budget("iteration_period", by="p42", max="1 ms")], day=DAY)
        with pytest.raises(UsageError, match="has no part 'mean'; leave by out"):
            check(runs(IDLE, [1.0]), [budget("gpu_idle", by="mean", max="1 ms")], day=DAY)

    def test_a_reason_that_does_not_exist_cannot_be_allowed(self) -> None:
        with pytest.raises(UsageError, match="--allow drivr is unknown; did you mean driver"):
            check(runs(PERIOD, [1.0]), [period(max="1 ms")], day=DAY, allow=["drivr"])
        with pytest.raises(UsageError) as caught:
            check(runs(PERIOD, [1.0]), [period(max="1 ms")], day=DAY, allow=["xyzzy"])
        assert str(caught.value) == f"--allow xyzzy is unknown; there are {', '.join(sorted(ALLOWED_KEYS))}."

    def test_nothing_cannot_be_checked(self) -> None:
        with pytest.raises(UsageError, match="at least one trace"):
            check([], [period(max="1 ms")], day=DAY)
        with pytest.raises(UsageError, match="at least one budget"):
            check(runs(PERIOD, [1.0]), [], day=DAY)


class TestAcceptance:
    """An accepted regression: the new level is the reference, until it expires, and for what it was accepted for."""

    OLD, NEW = around(10 * MS), around(11 * MS)

    def held(self, day: date, *, expires: date | None = None, metrics: tuple[str, ...] = ()) -> Check:
        made = baseline(runs(PERIOD, self.OLD))
        accepted = Entry(2, "accept", DAY, runs(PERIOD, self.NEW), "new model", expires=expires, metrics=metrics)
        made = replace(made, entries=(*made.entries, accepted))
        return check(runs(PERIOD, self.NEW), [period(max_regression="3 %")], day=day, baseline=made)

    def test_what_was_accepted_is_the_reference(self) -> None:
        made = self.held(DAY)
        assert (statuses(made), made.judgements[0].entry) == (["pass"], 2)

    def test_an_acceptance_that_has_expired_counts_no_longer(self) -> None:
        made = self.held(LATER, expires=LATER)
        assert (statuses(made), made.judgements[0].entry, made.exit_code) == (["fail"], 1, 1)
        assert [entry.number for entry in made.expired_acceptances] == [2]
        assert self.held(DAY, expires=LATER).exit_code == 0

    def test_what_was_accepted_for_another_metric_counts_only_there(self) -> None:
        assert self.held(DAY, metrics=("gpu_memory_peak",)).exit_code == 1
        assert self.held(DAY, metrics=("iteration_period",)).exit_code == 0

    def test_history_alone_is_no_reference(self) -> None:
        made = baseline(runs(PERIOD, self.OLD))
        made = replace(made, entries=(*made.entries, Entry(2, "record", DAY, runs(PERIOD, self.NEW))))
        assert made.reference("iteration_period", DAY).number == 1

    def test_a_later_update_makes_an_expired_acceptance_history(self) -> None:
        made = baseline(runs(PERIOD, self.OLD))
        accepted = Entry(2, "accept", DAY, runs(PERIOD, self.NEW), "new model", expires=LATER)
        updated = Entry(3, "update", DAY, runs(PERIOD, self.NEW))
        made = replace(made, entries=(*made.entries, accepted, updated))
        assert made.expired(LATER) == ()
        assert made.reference("iteration_period", LATER).number == 3
