"""`nitro-analyze trend`: the history of a baseline in the terminal, as JSON and as CSV."""

from __future__ import annotations

import csv
import json
from datetime import timedelta
from pathlib import Path

import pytest

from nitro.analyzer.checks import Entry, Store, entry_bytes
from recorded_runs import DAY, PERIOD, around, nitro, run


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A history of 24 runs in 8 entries, 9 % slower from the 5th entry on."""
    store = Store(tmp_path / ".nitro" / "baselines")
    for number in range(1, 9):
        level = 10e6 if number < 5 else 10.9e6
        runs = tuple(run({PERIOD: value}) for value in around(level, 0.004, 3))
        entry = Entry(number, "update", DAY + timedelta(days=number), runs, label=f"commit{number}")
        path = store.path_of("main", entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(entry_bytes(entry))
    return tmp_path


def test_the_terminal_shows_ticks_the_last_runs_and_the_change(project: Path) -> None:
    printed = nitro("trend", "main", "iteration_period:p50", "--lang", "en", cwd=project).stdout
    assert "▁" in printed
    assert "█" in printed
    assert "commit8" in printed
    assert "+9 %" in printed
    assert "from entry 5 of 2026-06-06 on: 10.9 ms after 10.0 ms" in " ".join(printed.split())


def test_json_and_csv_hold_every_run(project: Path) -> None:
    nitro("trend", "main", "iteration_period", "--json", "t.json", "--csv", "t.csv", cwd=project)
    (trend,) = json.loads((project / "t.json").read_text())["trends"]
    rows = list(csv.DictReader((project / "t.csv").read_text().splitlines()))
    assert len(trend["points"]) == len(rows) == 24
    assert [float(row["value"]) for row in rows] == [point["value"] for point in trend["points"]]
    assert [(change["at"], change["entry"]) for change in trend["change_points"]] == [(12, 5)]
    assert [place for place, row in enumerate(rows) if row["new_level"] == "1"] == [12]
    assert json.loads(nitro("trend", "main", "iteration_period", "--json", "-", cwd=project).stdout)["trends"] == [
        trend
    ]


@pytest.mark.parametrize(
    ("outputs", "sentence"),
    [
        (("--csv", ".nitro/baselines/main/0001.json"), "where the baselines are kept"),
        (("--csv", "t", "--json", "t"), "two outputs have this name"),
        (("--json", "none/t.json", "--csv", "t.csv"), "there is no folder none"),
    ],
)
def test_nothing_is_written_where_one_output_cannot_be(project: Path, outputs: tuple[str, ...], sentence: str) -> None:
    before = sorted(project.iterdir())
    assert sentence in nitro("trend", "main", "iteration_period", *outputs, cwd=project, code=2).stderr
    assert sorted(project.iterdir()) == before


def test_a_short_history_says_that_it_did_not_look(project: Path) -> None:
    for number in (7, 8):
        (project / ".nitro" / "baselines" / "main" / f"{number:04}.json").unlink()
    printed = nitro("trend", "main", "iteration_period:p50", cwd=project).stdout
    assert "change points are looked for from 20 runs on, and there are 18" in printed


def test_what_does_not_exist_is_told(project: Path) -> None:
    assert "did you mean iteration_period" in nitro("trend", "main", "iteration_perid", cwd=project, code=2).stderr
    assert "there is no baseline called 'other'" in nitro("trend", "other", "gpu_idle", cwd=project, code=2).stderr
    (project / ".nitro" / "baselines" / "main" / "0003.json").write_text("{}")
    assert "restore the file from Git" in nitro("trend", "main", "gpu_idle", cwd=project, code=3).stderr


def test_runs_on_two_boards_are_shown_apart(tmp_path: Path) -> None:
    store = Store(tmp_path / ".nitro" / "baselines")
    for number, (name, level) in enumerate((("Orin Nano", 10e6), ("AGX Orin", 30e6), ("Orin Nano", 10.2e6)), 1):
        path = store.path_of("main", entry := Entry(number, "record", DAY, (run({PERIOD: level}, devices=(name,)),)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(entry_bytes(entry))
    files = ("--json", "t.json", "--csv", "t.csv")
    text = nitro("trend", "main", "iteration_period:p50", "--lang", "en", *files, cwd=tmp_path).stdout
    assert "ITERATION_PERIOD:P50, ORIN NANO" in text
    assert "ITERATION_PERIOD:P50, AGX ORIN" in text
    assert "3 runs" in text
    assert "+2.0 %" in text
    assert "200" not in text
    found = json.loads((tmp_path / "t.json").read_text())["trends"]
    assert [(trend["gpu"], len(trend["points"])) for trend in found] == [("Orin Nano", 2), ("AGX Orin", 1)]
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert [row["gpu"] for row in rows] == ["Orin Nano", "Orin Nano", "AGX Orin"]
    alone = nitro("trend", "main", "iteration_period:p50", "--gpu", "AGX*", "--lang", "en", cwd=tmp_path).stdout
    assert "NANO" not in alone.upper()
