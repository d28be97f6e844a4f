"""`nitro-analyze baseline`: histories that are only added to, and refuse what they should."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nitro.analyzer.checks import Store
from recorded_runs import nitro, record, record_side

BUDGETS = """
[[budget]]
metric = "iteration_period"
by = "p50"
max_regression = "3 %"
owner = "vision team"
reason = "60 fps"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "nitro.toml").write_text(BUDGETS)
    before = record_side(tmp_path, "before")
    nitro("baseline", "save", "main", *before, "--label", "abc123", "--reason", "release 1", cwd=tmp_path)
    return tmp_path


def store(project: Path) -> Store:
    return Store(project / ".nitro" / "baselines")


def files(project: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((project / ".nitro" / "baselines" / "main").iterdir())}


def test_saving_writes_one_entry_with_its_runs(project: Path) -> None:
    (entry,) = store(project).read("main").entries
    assert (entry.number, entry.kind, entry.label, entry.reason, len(entry.runs)) == (
        1,
        "save",
        "abc123",
        "release 1",
        5,
    )
    assert [device.name for device in entry.runs[0].facts.devices] == ["Test GPU"]


def test_a_name_that_is_taken_is_not_saved_again(project: Path) -> None:
    before = files(project)
    done = nitro("baseline", "save", "main", *record_side(project, "other"), cwd=project, code=2)
    assert "there is a baseline called 'main' already" in done.stderr
    assert files(project) == before


def test_an_update_adds_an_entry_and_leaves_the_first_as_it_was(project: Path) -> None:
    before = files(project)
    nitro("baseline", "update", "main", *record_side(project, "faster", period_ms=9), cwd=project)
    after = files(project)
    assert sorted(after) == ["0001.json", "0002.json"]
    assert after["0001.json"] == before["0001.json"]
    assert store(project).read("main").entries[1].kind == "update"


def test_an_update_with_a_regression_writes_nothing(project: Path) -> None:
    before = files(project)
    slower = record_side(project, "slower", period_ms=11)
    done = nitro("baseline", "update", "main", *slower, cwd=project, code=1)
    assert "baseline accept main TRACE... --reason TEXT" in done.stderr
    assert "regression: worse by" in " ".join(done.stdout.split())
    assert files(project) == before


def test_an_update_to_runs_that_cannot_tell_writes_nothing_unless_told(project: Path) -> None:
    """Five runs that differ by 8 % cannot tell 3 %, whatever the settings let pass in a check."""
    (project / "nitro.toml").write_text('[check]\ninconclusive = "pass"\n' + BUDGETS + 'inconclusive = "pass"\n')
    before = files(project)
    noisy = record_side(project, "noisy", spread=0.08)
    nitro("check", *noisy, "--baseline", "main", cwd=project, code=0)
    done = nitro("baseline", "update", "main", *noisy, cwd=project, code=1)
    assert "inconclusive" in done.stdout
    assert "main stays as it was" in done.stderr
    assert files(project) == before
    nitro("baseline", "update", "main", *noisy, "--inconclusive", "pass", cwd=project)
    assert sorted(files(project)) == ["0001.json", "0002.json"]


def test_an_update_to_one_run_is_refused_unless_told(project: Path) -> None:
    before = files(project)
    run = record(project / "run.sqlite")
    done = nitro("baseline", "update", "main", run, cwd=project, code=2)
    assert "one run cannot tell whether it is as good as the baseline main" in done.stderr
    assert files(project) == before
    nitro("baseline", "update", "main", run, "--inconclusive", "pass", cwd=project)
    assert len(store(project).read("main").entries) == 2


def test_history_alone_takes_a_regression_and_does_not_move_the_reference(project: Path) -> None:
    slower = record_side(project, "slower", period_ms=11)
    nitro("baseline", "update", "main", *slower, "--history-only", cwd=project)
    assert store(project).read("main").entries[1].kind == "record"
    nitro("check", *slower, "--baseline", "main", cwd=project, code=1)


def test_history_alone_takes_neither_another_gpu_nor_a_capture_twice(project: Path) -> None:
    before = files(project)
    other = record_side(project, "other", device="Another GPU")
    done = nitro("baseline", "update", "main", *other, "--history-only", cwd=project, code=4)
    assert "the traces cannot be compared with the baseline main" in done.stderr
    again = sorted(project.glob("before_*.sqlite"))
    done = nitro("baseline", "update", "main", *again, "--history-only", cwd=project, code=2)
    assert "before_0.sqlite: this capture is in entry 1 of main already; name only new ones." in done.stderr
    assert files(project) == before
    nitro("baseline", "update", "main", *other, "--history-only", "--allow", "device", cwd=project)
    assert store(project).read("main").entries[1].kind == "record"


def test_list_shows_the_entry_that_counts(project: Path) -> None:
    slower = record_side(project, "slower", period_ms=11)
    nitro("baseline", "update", "main", slower[0], "--history-only", cwd=project)
    listed = nitro("baseline", "list", cwd=project).stdout
    assert listed.startswith("main  entry 1 (save) of ")
    assert listed.endswith("5 runs, Test GPU; 1 later that is no reference\n")
    accepted = ("--reason", "x", "--metric", "gpu_busy", "--today", "2026-06-01", "--expires", "2026-07-01")
    nitro("baseline", "accept", "main", *slower, *accepted, cwd=project)
    assert "; for gpu_busy entry 3 (accept); 1 later that is no reference\n" in (
        nitro("baseline", "list", "--today", "2026-06-30", cwd=project).stdout
    )
    assert nitro("baseline", "list", "--today", "2026-07-01", cwd=project).stdout.endswith("; 2 later that are no reference\n")  # fmt: skip  # noqa: E501


def test_list_goes_on_after_a_damaged_baseline(project: Path) -> None:
    nitro("baseline", "save", "a", *record_side(project, "a"), cwd=project)
    (project / ".nitro" / "baselines" / "a" / "0001.json").write_text("{")
    done = nitro("baseline", "list", cwd=project, code=3)
    damaged, whole = done.stdout.splitlines()
    assert damaged.split() == ["a", "damaged"]
    assert whole.startswith("main  entry 1 (save)")
    assert "0001.json: this is no entry of a baseline" in done.stderr


def test_what_was_accepted_passes_until_it_expires(project: Path) -> None:
    slower = record_side(project, "slower", period_ms=11)
    nitro("check", *slower, "--baseline", "main", cwd=project, code=1)
    accepted = ("--reason", "the new model is larger", "--today", "2026-06-01", "--expires", "2026-07-01")
    nitro("baseline", "accept", "main", *slower, *accepted, cwd=project)
    nitro("check", *slower, "--baseline", "main", "--today", "2026-06-30", cwd=project)
    done = nitro("check", *slower, "--baseline", "main", "--today", "2026-07-01", "--github", cwd=project, code=1)
    assert "counts only until 2026-07-01" in " ".join(done.stdout.split())
    assert "::warning title=Nitro%3A baseline main::entry 2, accepted because of" in done.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--reason", " "), "--reason is empty"),
        (("--reason", "x", "--today", "2026-06-01", "--expires", "2026-06-01"), "is not after 2026-06-01"),
        (("--reason", "x", "--metric", "iteration_perid"), "--metric: there is no metric"),
        (("--reason", "x", "--metric", "zzzz"), "shows what exists.\n"),
        (("--reason", "x", "--expires", "soon"), "'soon' is no day"),
        ((), "Missing option '--reason'"),
    ],
)
def test_an_acceptance_needs_a_reason_and_a_day_to_come(project: Path, options: tuple[str, ...], told: str) -> None:
    before = files(project)
    run = record(project / "run.sqlite")
    assert told in nitro("baseline", "accept", "main", run, *options, cwd=project, code=2).stderr
    assert files(project) == before


def test_runs_of_another_gpu_are_not_added(project: Path) -> None:
    before = files(project)
    other = record_side(project, "other", device="Another GPU")
    nitro("baseline", "update", "main", *other, cwd=project, code=4)
    nitro("baseline", "accept", "main", *other, "--reason", "x", cwd=project, code=4)
    assert files(project) == before


def test_runs_that_are_no_repetitions_are_not_saved(tmp_path: Path) -> None:
    mixed = [record(tmp_path / "a.sqlite"), record(tmp_path / "b.sqlite", device="Another GPU", seed=5)]
    done = nitro("baseline", "save", "main", *mixed, cwd=tmp_path, code=4)
    assert "the traces are no repetitions of one run: the GPU differs" in done.stderr
    assert not (tmp_path / ".nitro").exists()


def test_a_broken_trace_leaves_nothing_behind(tmp_path: Path) -> None:
    good = record(tmp_path / "good.sqlite")
    (tmp_path / "cut.sqlite").write_bytes(good.read_bytes()[:5000])
    nitro("baseline", "save", "main", good, "cut.sqlite", cwd=tmp_path, code=3)
    assert not (tmp_path / ".nitro").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / ".nitro").write_text("a file")
    done = nitro("baseline", "save", "main", record(tmp_path / "run.sqlite"), cwd=tmp_path, code=2)
    assert "cannot be written" in done.stderr


def test_one_run_is_saved_with_a_warning(tmp_path: Path) -> None:
    done = nitro("baseline", "save", "main", record(tmp_path / "run.sqlite"), cwd=tmp_path)
    assert "One run does not tell how much runs differ" in done.stdout


def test_list_and_show_tell_what_there_is(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert "main  entry 1 (save) of " in (listed := nitro("baseline", "list", cwd=project).stdout)
    assert listed.endswith(", 5 runs, Test GPU\n")
    shown = nitro("baseline", "show", "main", "--lang", "en", cwd=project).stdout
    for told in ("abc123", "release 1", "Test GPU", "11, 11, 11, 11, 11"):
        assert told in shown
    stored = nitro("baseline", "show", "main", "--json", cwd=project).stdout
    assert json.loads(stored)["label"] == "abc123"
    assert stored.encode() == files(project)["0001.json"]
    nothing = nitro("baseline", "list", cwd=tmp_path_factory.mktemp("empty")).stdout
    assert "no baseline yet" in nothing


def test_the_same_traces_give_the_same_file(tmp_path: Path) -> None:
    traces = record_side(tmp_path, "before")
    made = []
    for name in ("one", "two"):
        nitro("baseline", "save", name, *traces, "--today", "2026-06-01", cwd=tmp_path)
        made.append((tmp_path / ".nitro" / "baselines" / name / "0001.json").read_bytes())
    assert made[0] == made[1]
