"""Trends: a value over the history, and changes of level where there are enough runs to see one."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from nitro.analyzer.checks import Baseline, Entry, Key, trends
from nitro.analyzer.checks.trend import FEWEST_RUNS, change_places
from nitro.errors import UsageError
from recorded_runs import DAY, PERIOD, run

IDLE = Key("gpu_idle", device_id=0)


def history(values: list[float], key: Key = PERIOD) -> Baseline:
    entries = [Entry(number, "update", DAY, (run({key: value}),), label=f"c{number}") for number, value in
               enumerate(values, 1)]  # fmt: skip
    return Baseline("main", tuple(entries))


def noisy(levels: list[float], each: int, spread: float, seed: int) -> list[float]:
    generator = np.random.default_rng(seed)
    return [float(level * np.exp(spread * generator.standard_normal())) for level in levels for _ in range(each)]


def test_a_new_level_is_found_where_it_begins() -> None:
    (made,) = trends(history(noisy([10e6, 10.8e6], 15, 0.01, 3)), "iteration_period:p50")
    (change,) = made.change_points
    assert (change.at, change.entry) == (15, 16)
    assert change.change == pytest.approx(0.08, abs=0.01)


def test_two_changes_are_found() -> None:
    (made,) = trends(history(noisy([10e6, 11e6, 9e6], 12, 0.01, 5)), "iteration_period:p50")
    assert [change.at for change in made.change_points] == [12, 24]


def test_noise_rarely_looks_like_a_change_and_a_change_rarely_like_noise() -> None:
    generator = np.random.default_rng(11)
    trials, length = 100, 30
    series = generator.normal(0, 0.01, (trials, length))
    false_alarms = sum(bool(change_places(logs)) for logs in series)
    series[:, length // 2 :] += np.log(1.05)
    found = sum(any(abs(place - length // 2) <= 1 for place in change_places(logs)) for logs in series)
    assert false_alarms <= 5
    assert found >= 95


def test_counts_that_never_vary_have_no_change_and_a_step_has_one() -> None:
    flat, stepped = [214.0] * 30, [214.0] * 15 + [71.0] * 15
    key = Key("launches_per_iteration")
    assert trends(history(flat, key), "launches_per_iteration")[0].change_points == ()
    assert [change.at for change in trends(history(stepped, key), "launches_per_iteration")[0].change_points] == [15]


def test_below_20_runs_it_says_that_it_did_not_look() -> None:
    values = noisy([10e6, 20e6], 10, 0.01, 1)
    (short,) = trends(history(values[1:]), "iteration_period:p50")
    (enough,) = trends(history(values), "iteration_period:p50")
    assert (len(short.points), short.change_points) == (FEWEST_RUNS - 1, ())
    assert short.note == "change points are looked for from 20 runs on, and there are 19"
    assert enough.note == ""
    assert len(enough.change_points) == 1


def test_without_ruptures_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ruptures", None)
    (made,) = trends(history([10e6] * 20), "iteration_period:p50")
    assert made.note == "change points need the package ruptures: pip install 'nitro-analyze[trend]'"


def test_a_value_of_0_has_no_logarithm() -> None:
    (made,) = trends(history([0.0] * 20, Key("iteration_jitter")), "iteration_jitter")
    assert "a value is 0 or less" in made.note


def test_a_total_is_given_per_iteration_unless_asked_otherwise() -> None:
    entry = Entry(1, "save", DAY, (run({IDLE: 100.0}, periods=50),))
    one = Baseline("main", (entry,))
    assert trends(one, "gpu_idle")[0].points[0].value == 2
    assert trends(one, "gpu_idle", per="window")[0].points[0].value == 100


def test_a_run_without_the_value_is_a_hole() -> None:
    entries = (Entry(1, "save", DAY, (run({PERIOD: 1.0}), run({}), run({PERIOD: 3.0}))),)
    (made,) = trends(Baseline("main", entries), "iteration_period:p50")
    assert [point.value for point in made.points] == [1, None, 3]
    assert len(made.known) == 2


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("iteration_perid", "did you mean iteration_period"),
        ("iteration_period:p51", "did you mean p50?"),
        ("gpu_idle", "it was not measured in any run of its history."),
        ("projection_mean_ns", "name the range with nvtx."),
    ],
)
def test_what_the_history_does_not_have_is_told(name: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        trends(history([1.0]), name)
    assert sentence in str(caught.value)
    assert str(caught.value).endswith((".", "?"))


def mixed(key: Key = PERIOD, *, each: int = 20) -> Baseline:
    """A history of runs in turn on two boards, of about 10 ms and 30 ms."""
    generator = np.random.default_rng(2)
    entries = []
    for number in range(1, 2 * each + 1):
        name, level = (("Orin Nano", 10e6), ("AGX Orin", 30e6))[number % 2]
        value = float(level * np.exp(0.002 * generator.standard_normal()))
        entries.append(Entry(number, "record", DAY, (run({key: value}, devices=(name,)),)))
    return Baseline("main", tuple(entries))


@pytest.mark.parametrize("key", [PERIOD, IDLE])
def test_runs_on_gpus_of_other_names_are_other_histories(key: Key) -> None:
    made = {trend.gpu: trend for trend in trends(mixed(key), f"{key.metric}:{key.by}".rstrip(":"))}
    assert list(made) == ["AGX Orin", "Orin Nano"]
    for name, level in (("AGX Orin", 30e6), ("Orin Nano", 10e6)):
        # The fixture's runs have 100 iterations, by which a total of the window is divided.
        scale = 100 if key == IDLE else 1
        values = [(point.value or 0) * scale for point in made[name].points]
        assert len(values) == 20
        assert values == pytest.approx([level] * 20, rel=0.02)
        # From one board to the other is no change of level.
        assert made[name].change_points == ()
        assert made[name].note == ""
    assert {point.entry for point in made["AGX Orin"].points} == set(range(1, 41, 2))


def test_a_gpu_is_chosen_by_its_name() -> None:
    (made,) = trends(mixed(), "iteration_period:p50", gpu="*Nano")
    assert made.gpu == "Orin Nano"
    with pytest.raises(UsageError, match="has no iteration_period of a GPU called Thor; it has it for AGX Orin, Orin"):
        trends(mixed(), "iteration_period", gpu="Thor")


def test_several_gpus_of_a_run_are_one_machine_for_what_belongs_to_none() -> None:
    entries = [
        Entry(number, "record", DAY, (run({PERIOD: 1e6, IDLE: 2e6}, devices=("Big", "Small")),))
        for number in range(1, 4)
    ]
    made = Baseline("main", tuple(entries))
    assert [trend.gpu for trend in trends(made, "iteration_period")] == ["Big, Small"]
    assert [trend.gpu for trend in trends(made, "gpu_idle")] == ["Big"]
