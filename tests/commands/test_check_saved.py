"""`check` and `baseline` with saved analyses: the same judgement as of the traces, with every exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builders import call, gpu, trace, write_nsys_sqlite
from power_runs import write_log, write_run
from recorded_runs import nitro, record, record_side

BUDGETS = """
[[budget]]
metric = "iteration_period"
by = "p50"
max = "{limit}"
owner = "us"
reason = "a test"

[[budget]]
metric = "iteration_period"
by = "p50"
max_regression = "2 %"
owner = "us"
reason = "a test"
"""


def save(folder: Path, traces: list[Path]) -> list[Path]:
    for path in traces:
        nitro(path, "-o", path.with_suffix(".json"), cwd=folder)
    return [path.with_suffix(".json") for path in traces]


def judged(folder: Path, *arguments: str | Path, code: int = 0) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(nitro("check", *arguments, "--json", "-", cwd=folder, code=code).stdout)
    return made


def statuses(made: dict[str, Any]) -> list[str]:
    return [judgement["status"] for judgement in made["judgements"]]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A baseline of five traces with periods of 10 ms, and budgets of which the first is 12 ms."""
    nitro("baseline", "save", "main", *record_side(tmp_path, "base"), cwd=tmp_path)
    (tmp_path / "nitro.toml").write_text('[check]\nbaseline = "main"\n' + BUDGETS.format(limit="12 ms"))
    return tmp_path


def test_they_pass_as_their_traces_do(project: Path) -> None:
    traces = record_side(project, "same")
    traced, known = judged(project, *traces), judged(project, *save(project, traces))
    assert statuses(known) == ["pass", "pass"]
    for mine, theirs in zip(known["judgements"], traced["judgements"], strict=True):
        assert mine == theirs
    assert [reason["key"] for reason in known["reasons"] if reason["level"] == "refuse"] == []


def test_a_regression_is_1(project: Path) -> None:
    made = judged(project, *save(project, record_side(project, "slow", period_ms=10.8)), code=1)
    assert statuses(made) == ["pass", "fail"]


def test_a_limit_that_is_exceeded_is_1(project: Path) -> None:
    made = judged(project, *save(project, record_side(project, "slow", period_ms=13)), code=1)
    assert statuses(made) == ["fail", "fail"]


def test_a_part_of_it_is_wrong_usage(project: Path) -> None:
    (file,) = save(project, [record(project / "one.sqlite")])
    done = nitro("check", file, "--device", "0", cwd=project, code=2)
    assert "choose a part of a trace, and this is a saved analysis" in done.stderr


def _spoilt(rows: list[dict[str, Any]], key: str) -> None:
    for row in rows:
        row[key] = "0"


def _phases(known: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = next(table["rows"] for table in known["tables"] if table["name"] == "nvtx_phases")
    return rows


def test_what_is_nested_without_end_is_told(project: Path) -> None:
    """The parsers of JSON and TOML run out of stack there."""
    deep = "[" * 100_000 + "]" * 100_000
    (project / "deep.json").write_text(f'{{"a": {deep}}}')
    (project / "deep.toml").write_text(f"a = {deep}")
    (project / "tables").mkdir()
    (project / "tables" / "nitro-trace.json").write_text(f'{{"a": {deep}}}')
    run = record(project / "one.sqlite")
    for words, code, sentence in (
        (("check", "deep.json"), 3, "this is not JSON"),
        (("compare", "--before", "deep.json", "--after", run), 3, "this is not JSON"),
        (("compare", "--before", run, "--after", run, "--mapping", "deep.toml"), 2, "this is not TOML"),
        (("check", run, "--budgets", "deep.toml"), 2, "this is not TOML"),
        (("analyze", "tables"), 3, "it is no JSON"),
    ):
        assert sentence in nitro(*words, cwd=project, code=code).stderr
    entry = project / ".nitro" / "baselines" / "main" / "0001.json"
    entry.write_text(entry.read_text().replace("{", f'{{"later": {deep},', 1))
    assert "restore the file from Git" in nitro("check", run, cwd=project, code=3).stderr


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda known: known.pop("window"), "is no analysis of nitro-analyze, since it has no 'window'"),
        (lambda known: known["window"].pop("start_ns"), "is damaged"),
        (lambda known: known.update(format_version=99), "has format 99"),
        (lambda known: known.update(measurements=[]), "is damaged"),
        # A text is less than no limit, and must not pass a gate.
        (lambda known: _spoilt(known["measurements"], "value"), "'0' is no number"),
        (lambda known: _spoilt(_phases(known), "cpu_total_ns"), "'0' is no number"),
    ],
)
def test_a_damaged_one_is_3(project: Path, change: Any, sentence: str) -> None:
    (file,) = save(project, [record(project / "one.sqlite")])
    known = json.loads(file.read_text())
    change(known)
    file.write_text(json.dumps(known))
    done = nitro("check", file, cwd=project, code=3)
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    file.write_text(file.read_text()[:500])
    assert "this is not JSON" in nitro("check", file, cwd=project, code=3).stderr


def test_one_of_a_trace_without_gpu_work_is_3(project: Path) -> None:
    write_nsys_sqlite(project / "idle.sqlite", trace(kernels=[], api_calls=[call(0, 10)], devices=[gpu(0)]))
    (file,) = save(project, [project / "idle.sqlite"])
    done = nitro("check", file, cwd=project, code=3)
    assert "idle.sqlite: the trace has no GPU operation, so nothing can be judged" in done.stderr


def test_what_it_does_not_hold_is_3(project: Path) -> None:
    (project / "nitro.toml").write_text(
        '[[budget]]\nmetric = "energy_per_iteration"\nmax = "5 J"\nowner = "us"\nreason = "a test"\n'
    )
    made = judged(project, *save(project, [record(project / "one.sqlite")]), code=3)
    assert statuses(made) == ["not_measured"]
    assert "power is not part of an nsys trace" in made["judgements"][0]["reason"]


def test_another_gpu_is_4(project: Path) -> None:
    made = judged(project, *save(project, record_side(project, "other", device="Other GPU")), code=4)
    assert statuses(made) == ["pass", "not_comparable"]


def test_the_same_capture_twice_is_4(project: Path) -> None:
    first, *_ = save(project, [record(project / "one.sqlite")])
    (project / "copy.json").write_bytes(first.read_bytes())
    made = judged(project, first, "copy.json", code=4)
    assert "stands twice on a side" in made["judgements"][0]["reason"]


def test_a_folder_of_runs_is_never_written_into_one_of_them(project: Path) -> None:
    (project / "new").mkdir()
    traces = record_side(project / "new", "same")
    assert statuses(judged(project, "new")) == ["pass", "pass"]
    for file in save(project, traces):
        file.rename(project / file.name)
    content = traces[0].read_bytes()
    done = nitro("check", "new", "--junit", traces[0], cwd=project, code=2)
    assert "never written to" in done.stderr
    assert traces[0].read_bytes() == content


def test_a_baseline_of_saved_analyses_holds_the_same_values(project: Path) -> None:
    traces = [project / f"base_{number}.sqlite" for number in range(5)]
    nitro("baseline", "save", "saved", *save(project, traces), cwd=project)
    stored = [
        json.loads(next((project / ".nitro" / "baselines" / name).glob("*.json")).read_text())
        for name in ("main", "saved")
    ]
    assert stored[0]["values"] == stored[1]["values"]
    assert stored[0]["runs"][0]["facts"] | {"recorded": None} == stored[1]["runs"][0]["facts"]
    new = record_side(project, "same")
    assert statuses(judged(project, *new, "--baseline", "saved")) == ["pass", "pass"]


def test_energy_can_be_budgeted(tmp_path: Path) -> None:
    """20 W over periods of 500 ms: 10 J an iteration, 1.25 J an item."""
    for number in range(3):
        write_run(tmp_path / f"run_{number}.sqlite", number)
        write_log(tmp_path / f"run_{number}.csv", 20.0 + number / 100)
    traces = [f"run_{number}.{kind}" for number in range(3) for kind in ("sqlite", "csv")]
    nitro("baseline", "save", "main", *traces, "--batch", "8", cwd=tmp_path)
    budget = '[[budget]]\nmetric = "energy_per_item"\n{limit}\nowner = "us"\nreason = "a battery"\n'
    for limit, code, status in (
        ('max = "1.3 J"', 0, "pass"),
        ('max = "1200 mJ"', 1, "fail"),
        ('max_regression = "3 %"', 0, "pass"),
    ):
        (tmp_path / "nitro.toml").write_text(budget.format(limit=limit))
        made = judged(tmp_path, *traces, "--batch", "8", "--baseline", "main", code=code)
        assert statuses(made) == [status]
        assert made["judgements"][0]["value"] == pytest.approx(20.01 * 0.5 / 8, rel=1e-9)
    for number in range(3):
        write_log(tmp_path / f"run_{number}.csv", 22.0 + number / 100)
        nitro(f"run_{number}.sqlite", f"run_{number}.csv", "--batch", "8", "-o", f"{number}.json", cwd=tmp_path)
    made = judged(tmp_path, "0.json", "1.json", "2.json", "--baseline", "main", code=1)
    assert made["judgements"][0]["effect"]["verdict"] == "regression"
    assert made["judgements"][0]["effect"]["ratio"] == pytest.approx(1.1, rel=1e-3)


def test_energy_is_held_against_a_baseline_with_what_the_logs_may_be_off_by(tmp_path: Path) -> None:
    """A log that swings by 10 % and a change of 1 %: no regression, whether saved as an analysis or read from the log.

    The bound of an entry is that of the analyses that it was made of; without it, as older ones are, that of the runs
    alone is counted, and it is said.
    """
    for number in range(3):
        write_run(tmp_path / f"run_{number}.sqlite", number)
        for name, watts in (("before", 20.0), ("now", 20.2)):
            write_log(tmp_path / f"{name}_{number}.csv", watts + number / 1000, swing=watts / 10)
        nitro(f"run_{number}.sqlite", f"now_{number}.csv", "-o", f"now_{number}.json", cwd=tmp_path)
    before, now = (
        [text for n in range(3) for text in (f"run_{n}.sqlite", f"{side}_{n}.csv")] for side in ("before", "now")
    )
    saved = [f"now_{n}.json" for n in range(3)]
    (tmp_path / "nitro.toml").write_text(
        '[[budget]]\nmetric = "energy_per_iteration"\nmax_regression = "0.5 %"\nowner = "us"\nreason = "a battery"\n'
    )
    nitro("baseline", "save", "main", *before, cwd=tmp_path)
    errors = [
        next(entry["error"] / entry["value"] for entry in json.loads((tmp_path / file).read_text())["measurements"]
             if entry["metric"] == "energy_per_iteration")
        for file in saved
    ]  # fmt: skip
    assert min(errors) > 0.001
    for inputs in (now, saved):
        made = judged(tmp_path, *inputs, "--baseline", "main")
        assert statuses(made) == ["inconclusive"]
        effect = made["judgements"][0]["effect"]
        assert effect["ratio"] == pytest.approx(1.01, rel=1e-3)
        assert effect["measurement_error"] == pytest.approx([max(errors), max(errors)], rel=1e-2)
        assert "what the measurement may be off by" not in str(made["reasons"])
    entry = tmp_path / ".nitro/baselines/main/0001.json"
    first_format = json.loads(entry.read_text()) | {"format_version": 1}
    for row in first_format["values"]:
        row.pop("errors", None)
    entry.write_text(json.dumps(first_format))
    made = judged(tmp_path, *now, "--baseline", "main")
    assert made["judgements"][0]["effect"]["measurement_error"] == [0.0, pytest.approx(max(errors), rel=1e-2)]
    shown = nitro("check", *now, "--baseline", "main", cwd=tmp_path).stdout
    assert shown.count("was kept without what its energy may be off by") == 1
