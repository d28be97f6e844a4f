"""Energy of two sides: known power gives known joules, and what is not known on both sides is not compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from nitro.analyzer import analyze
from nitro.analyzer.compare import Comparison, Effect, compare
from nitro.analyzer.compare.energy import Amount, RunEnergy, energy_between, typical
from nitro.analyzer.compare.saved import SavedRun, saved_run
from nitro.analyzer.power_log import PowerLog
from nitro.analyzer.view import Scope, View
from power_runs import MS, PERIOD, S, log, run

# Half of the sensor's smallest step, 1 mW, is all that a constant power may be off by.
HALF_STEP_W = 0.0005


def side(*watts: float, batch: int | None = 8, first: int = 0, **built: Any) -> list[View]:
    period_ns = built.pop("period_ns", PERIOD)
    return [
        View(run(number, period_ns=period_ns), Scope(batch=batch), [log(power, **built)])
        for number, power in enumerate(watts, first)
    ]


def effect(comparison: Comparison, metric: str) -> Effect:
    found = comparison.metric(metric)
    assert found is not None
    assert isinstance(found.main, Effect)
    return found.main


def saved(view: View, log_: PowerLog | None, batch: int = 8) -> SavedRun:
    made = analyze(view.trace, *([log_] if log_ else []), batch=batch).to_dict()
    return saved_run(json.loads(json.dumps(made, default=str)))


class TestNumbers:
    def test_known_power_gives_known_energy_per_item(self) -> None:
        made = compare(side(20.0), side(16.0, period_ns=400 * MS))
        assert made.energy.metric == "energy_per_item"
        item = effect(made, "energy_per_item")
        assert item.before == pytest.approx(20.0 * PERIOD / S / 8, rel=1e-9)
        assert item.after == pytest.approx(16.0 * 0.4 / 8, rel=1e-9)
        assert item.ratio == pytest.approx(0.64, rel=1e-9)
        assert item.measurement_error == pytest.approx((HALF_STEP_W / 20, HALF_STEP_W / 16), rel=1e-6)

    def test_without_items_it_is_per_iteration(self) -> None:
        made = compare(side(20.0, batch=None), side(10.0, batch=None))
        assert made.energy.metric == "energy_per_iteration"
        assert effect(made, "energy_per_iteration").before == pytest.approx(10.0, rel=1e-9)
        assert effect(made, "energy_per_iteration").after == pytest.approx(5.0, rel=1e-9)
        assert made.metric("energy_per_item") is None

    def test_it_shares_the_correction_of_the_gated_metrics(self) -> None:
        before, after = side(20.0, 20.1, 19.9), side(16.0, 16.1, 15.9)
        made = compare(before, after)
        assert [(metric.metric, metric.is_gated) for metric in made.metrics] == [
            ("iteration_period", True),
            ("iteration_latency", True),
            ("energy_per_item", True),
        ]
        item = effect(made, "energy_per_item")
        assert item.verdict == "improvement"
        assert item.p_value is not None
        assert item.adjusted_p is not None
        # The smallest of three p-values, since neither period nor latency changed.
        assert item.adjusted_p == pytest.approx(3 * item.p_value)

    def test_more_energy_in_as_much_time_is_a_regression(self) -> None:
        made = compare(side(20.0, 20.1, 19.9), side(24.0, 24.1, 23.9))
        assert effect(made, "energy_per_item").verdict == "regression"
        assert made.verdict == "no_meaningful_difference"

    def test_one_run_a_side_decides_nothing(self) -> None:
        item = effect(compare(side(20.0), side(10.0)), "energy_per_item")
        assert (item.verdict, item.interval) == ("inconclusive", None)

    def test_the_json_has_each_run(self) -> None:
        known = compare(side(20.0, 22.0), side(10.0)).to_dict()["energy"]
        assert known["metric"] == "energy_per_item"
        assert known["reason"] == ""
        assert [entry["power_w"]["value"] for entry in known["before"]] == pytest.approx([20.0, 22.0])
        assert [entry["energy_per_iteration_j"]["value"] for entry in known["before"]] == pytest.approx([10.0, 11.0])
        assert known["after"][0]["energy_per_item_j"] == pytest.approx(
            {"value": 10.0 * 0.5 / 8, "error": HALF_STEP_W * 0.5 / 8}
        )
        assert known["after"][0]["measured"] == "VDD_IN, the input of the module"


class TestErrorOfMeasurement:
    def test_a_change_within_what_the_log_may_be_off_by_decides_nothing(self) -> None:
        # Neighbouring records 2 W apart: between them the power may be 1 W more or less than the line says.
        before, after = side(20.0, 20.02, 19.98, swing=1.0), side(19.0, 19.02, 18.98, swing=1.0)
        item = effect(compare(before, after), "energy_per_item")
        assert item.measurement_error == pytest.approx((1 / 20, 1 / 19), rel=0.01)
        assert item.verdict == "inconclusive"
        found = compare(before, after).metric("energy_per_item")
        assert found is not None
        assert "cannot be told from what the measurement may be off by" in found.sentence
        assert item.runs_to_decide is None

    def test_the_same_change_shows_in_a_log_without_such_steps(self) -> None:
        item = effect(compare(side(20.0, 20.02, 19.98), side(19.0, 19.02, 18.98)), "energy_per_item")
        assert item.verdict == "improvement"

    def test_a_change_beyond_it_shows_all_the_same(self) -> None:
        before, after = side(20.0, 20.02, 19.98, swing=1.0), side(15.0, 15.02, 14.98, swing=1.0)
        assert effect(compare(before, after), "energy_per_item").verdict == "improvement"

    def test_that_nothing_changed_is_not_said_where_it_may_have(self) -> None:
        before, after = side(20.0, 20.01, 19.99, swing=1.0), side(20.0, 20.01, 19.99, first=3, swing=1.0)
        assert effect(compare(before, after), "energy_per_item").verdict == "inconclusive"
        exact = compare(side(20.0, 20.01, 19.99), side(20.0, 20.01, 19.99, first=3))
        assert effect(exact, "energy_per_item").verdict == "no_meaningful_difference"

    def test_the_bound_of_a_side_is_the_largest_of_its_runs(self) -> None:
        middle = typical([Amount(10.0, 0.1), Amount(20.0, 0.4), Amount(30.0, 0.3)])
        assert middle is not None
        assert [middle.value, middle.error] == pytest.approx([20.0, 0.4])
        assert typical([]) is None
        assert Amount(0.0, 0.0).share == 1.0


class TestWhatIsNotKnown:
    def reason(self, before: Sequence[View], after: Sequence[View]) -> str:
        made = compare(before, after)
        assert made.energy.metric is None
        assert all(not metric.metric.startswith("energy") for metric in made.metrics)
        return made.energy.reason

    def test_no_log_at_all(self) -> None:
        text = self.reason([View(run(0))], [View(run(1))])
        assert "no power was logged; give the log of each run behind its trace" in text

    @pytest.mark.parametrize("is_before", [True, False])
    def test_one_side_only(self, is_before: bool) -> None:
        sides = [side(20.0), [View(run(5), Scope(batch=8))]]
        text = self.reason(*(sides if is_before else reversed(sides)))
        assert text == f"power was logged on one side only ({'before' if is_before else 'after'})"

    def test_one_run_of_a_side_without_log(self) -> None:
        lacking = replace(run(5), source=replace(run(5).source, file_name="lacking.sqlite"))
        text = self.reason([*side(20.0), View(lacking, Scope(batch=8))], side(20.0))
        assert text == "lacking.sqlite: no power was logged beside it"

    def test_a_log_of_a_part_of_the_window(self) -> None:
        text = self.reason(side(20.0), side(20.0, high=5 * S))
        assert "run.sqlite: the power log covers" in text
        assert "of the window only" in text

    def test_negative_energy_has_no_ratio(self) -> None:
        made = compare(side(20.0), side(-2.0))
        found = made.metric("energy_per_item")
        assert found is not None
        assert found.verdict == "inconclusive"
        assert "a value is 0 or less" in found.sentence
        after = made.energy.typical(made.energy.after)
        assert after is not None
        assert [after.value, after.error] == pytest.approx([-0.125, 0.125])

    def test_logs_of_different_things(self) -> None:
        text = self.reason(side(20.0), side(20.0, rail="VDD_GPU_SOC"))
        assert "the power logs do not measure the same (VDD_IN, the input of the module before, " in text
        assert "VDD_GPU_SOC" in text

    def test_boards_are_the_same_however_the_columns_name_them(self) -> None:
        runs = [
            RunEnergy("a", True, {"energy_per_iteration": Amount(1.0)}, measured="the GPU's board"),
            RunEnergy("b", True, {"energy_per_iteration": Amount(2.0)}, measured="the GPU's board"),
        ]
        assert energy_between(runs[:1], runs[1:]).metric == "energy_per_iteration"
        logs = [
            replace(log(9.0, rail=rail), source=replace(log(9.0).source, format="nvidia-smi"))
            for rail in ("GPU 0", "GPU-d0c5")
        ]
        by_name = [View(run(number), Scope(), [beside]) for number, beside in enumerate(logs)]
        made = compare(by_name[:1], by_name[1:])
        assert made.energy.metric == "energy_per_iteration"
        assert made.energy.measured == ("the GPU's board",)


class TestSaved:
    def test_a_saved_analysis_holds_the_same_energy(self) -> None:
        traced = compare(side(20.0), side(10.0, first=1))
        views = (View(run(0)), View(run(1)))
        known = compare([saved(views[0], log(20.0))], [saved(views[1], log(10.0))])
        assert known.energy.metric == "energy_per_item"
        mine, theirs = (effect(made, "energy_per_item").to_dict() for made in (known, traced))
        assert mine == theirs
        assert known.energy.to_dict() == traced.energy.to_dict()

    def test_a_trace_with_a_log_beside_a_saved_one(self) -> None:
        made = compare(side(20.0), [saved(View(run(1)), log(10.0))])
        assert made.energy.metric == "energy_per_item"
        assert effect(made, "energy_per_item").ratio == pytest.approx(0.5)

    def test_a_saved_analysis_without_log(self) -> None:
        made = compare(side(20.0), [saved(View(run(1)), None)])
        assert made.energy.reason == "power was logged on one side only (before)"
