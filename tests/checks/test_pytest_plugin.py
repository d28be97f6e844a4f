"""The pytest plugin, in test suites of its own."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from nitro.analyzer import analyze, open_trace
from nitro.analyzer.checks import Entry, Store, entry_bytes, run_of
from recorded_runs import DAY, record, record_side

pytest_plugins = ["pytester"]


INSTALLED = any(entry.value == "nitro.pytest_plugin" for entry in entry_points(group="pytest11"))
# Where Nitro was installed before it had a plugin, pytest does not know of it by itself.
LOADED = () if INSTALLED else ("-p", "nitro.pytest_plugin")


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder for a test suite, with a fast and a slow trace."""
    record(pytester.path / "fast.sqlite", period_ms=10, seed=1)
    record(pytester.path / "slow.sqlite", period_ms=20, seed=2)
    return pytester


def outcome(suite: pytest.Pytester, test: str) -> tuple[pytest.RunResult, str]:
    """Run a test as a suite in this process, which is as good as one of its own and starts in no time."""
    suite.makepyfile(test)
    result = suite.runpytest_inprocess(*LOADED, "-p", "no:cacheprovider")
    return result, result.stdout.str()


def test_a_budget_that_is_kept_passes(suite: pytest.Pytester) -> None:
    result, _ = outcome(
        suite,
        """
        def test_it(nitro_trace, assert_budget):
            run = nitro_trace("fast.sqlite")
            made = assert_budget(run, "iteration_period", by="p50", max="15 ms", min="5 ms")
            assert [judgement.status for judgement in made.judgements] == ["pass", "pass"]
            assert 9e6 < run.value("iteration_period", by="p50") < 11e6
            assert run.analysis.window.mode == "auto"
        """,
    )
    result.assert_outcomes(passed=1)


def test_a_budget_that_is_not_kept_fails_with_the_numbers_and_no_traceback(suite: pytest.Pytester) -> None:
    result, printed = outcome(
        suite,
        """
        from nitro.pytest_plugin import assert_budget

        def test_it(nitro_trace):
            assert_budget(
                nitro_trace("slow.sqlite"), "iteration_period", by="p50", max="15 ms", owner="vision", reason="60 fps"
            )
        """,
    )
    result.assert_outcomes(failed=1)
    assert "iteration_period:p50 failed: 20.0 ms is over the limit of 15.0 ms by 33" in printed
    assert "budget of vision: 60 fps" in printed
    assert "runs: slow.sqlite (11 iterations)" in printed
    assert "pytest_plugin.py" not in printed


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ('"iteration_perod", max="1 ms"', "did you mean iteration_period"),
        ('"iteration_period", by="p50", max=15', 'write "15 ms"'),
        (
            '"gpu_context_switch_time", by="switching", max="1 ms"',
            "not measured: GPU context switches were not recorded",
        ),
        ('"iteration_period", by="p50", max_regression="3 %", baseline="main"', "there is no baseline called 'main'"),
        ('"gpu_idle", device="*Orin*", max="1 ms"', "skipped: no GPU of these runs is called *Orin*"),
    ],
)
def test_what_cannot_be_judged_does_not_pass(suite: pytest.Pytester, call: str, sentence: str) -> None:
    result, printed = outcome(
        suite, f"def test_it(nitro_trace, assert_budget): assert_budget(nitro_trace('fast.sqlite'), {call})"
    )
    result.assert_outcomes(failed=1)
    assert sentence in printed


def test_a_broken_trace_fails_the_test_that_reads_it_and_no_other(suite: pytest.Pytester) -> None:
    content = (suite.path / "fast.sqlite").read_bytes()
    (suite.path / "cut.sqlite").write_bytes(content[: len(content) // 3])
    result, printed = outcome(
        suite,
        """
        def test_reads(nitro_trace, assert_budget):
            assert_budget(nitro_trace("cut.sqlite"), "iteration_period", by="p50", max="15 ms")

        def test_only_names(nitro_trace):
            assert "cut.sqlite" in repr(nitro_trace("cut.sqlite"))

        def test_missing(nitro_trace):
            nitro_trace("missing.sqlite")
        """,
    )
    result.assert_outcomes(passed=2, failed=1)
    assert "InputError" in printed


def test_runs_are_held_against_a_baseline(suite: pytest.Pytester) -> None:
    def saved(paths: list[Path]) -> Entry:
        traces = [open_trace(path) for path in paths]
        return Entry(1, "save", DAY, tuple(run_of(trace, analyze(trace)) for trace in traces))

    entry = saved(record_side(suite.path, "before"))
    file = Store(suite.path / ".nitro" / "baselines").path_of("main", entry)
    file.parent.mkdir(parents=True)
    file.write_bytes(entry_bytes(entry))
    record_side(suite.path, "same", period_ms=10)
    record_side(suite.path, "slower", period_ms=11)
    result, printed = outcome(
        suite,
        """
        import pytest

        @pytest.mark.parametrize("side", ["same", "slower"])
        def test_it(nitro_trace, assert_budget, side):
            runs = nitro_trace(*(f"{side}_{number}.sqlite" for number in range(5)))
            assert_budget(runs, "iteration_period", by="p50", max_regression="3 %", baseline="main")
        """,
    )
    result.assert_outcomes(passed=1, failed=1)
    assert "regression: worse by" in printed


def test_a_trace_is_analysed_once_a_session_and_again_when_it_has_changed(suite: pytest.Pytester) -> None:
    result, _ = outcome(
        suite,
        """
        import os

        def test_it(nitro_trace):
            first = nitro_trace("fast.sqlite")
            assert nitro_trace("fast.sqlite") is first
            assert nitro_trace("fast.sqlite", window="all") is not first
            os.utime("fast.sqlite", ns=(1, 1))
            assert nitro_trace("fast.sqlite") is not first
        """,
    )
    result.assert_outcomes(passed=1)


def test_nothing_heavy_is_imported_when_pytest_starts() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import nitro.pytest_plugin; "
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(printed.split()) <= {"nitro", "__future__"}


def test_the_project_declares_the_plugin() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert '[project.entry-points.pytest11]\nnitro = "nitro.pytest_plugin"\n' in text
