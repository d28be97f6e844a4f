"""How runs are given to `compare` and `check`: traces with their logs, patterns, folders, saved analyses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from nitro.commands._outputs import check_outputs
from nitro.commands._runs import SavedFile, runs_in
from nitro.errors import InputError, UsageError
from power_runs import MS, write_log, write_run
from recorded_runs import nitro


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs a side with their logs: 20 W before; 16 W, and periods of 400 ms for 500, after."""
    made = tmp_path_factory.mktemp("runs")
    for side, watts, period in (("before", 20.0, 500), ("after", 16.0, 400)):
        (made / side).mkdir()
        for number in (1, 2):
            # As written, the log of a run comes in front of its trace in the order of names.
            write_log(made / side / f"run_{number}.log", watts + number / 100)
            write_run(made / side / f"run_{number}.sqlite", number, period_ns=period * MS)
    return made


def names(runs: tuple[Any, ...]) -> list[list[str]]:
    return [[path.name for path in ((run.path,) if isinstance(run, SavedFile) else run.paths)] for run in runs]


def compared(folder: Path, *arguments: str | Path) -> dict[str, Any]:
    known: dict[str, Any] = json.loads(nitro("compare", *arguments, "--json", "-", cwd=folder).stdout)
    return known


class TestRunsIn:
    def test_a_log_belongs_to_the_trace_before_it(self, folder: Path) -> None:
        given = [folder / "before" / f"run_{number}.{kind}" for number in (1, 2) for kind in ("sqlite", "log")]
        assert names(runs_in(given)) == [["run_1.sqlite", "run_1.log"], ["run_2.sqlite", "run_2.log"]]

    def test_in_a_folder_it_is_found_by_its_name(self, folder: Path) -> None:
        expected = [["run_1.sqlite", "run_1.log"], ["run_2.sqlite", "run_2.log"]]
        assert names(runs_in([folder / "before"])) == expected

    def test_the_longest_name_counts(self, tmp_path: Path) -> None:
        for number in (1, 10):
            write_run(tmp_path / f"run_{number}.sqlite", number)
            write_log(tmp_path / f"run_{number}_power.csv", 10.0)
        assert names(runs_in([tmp_path])) == [
            ["run_1.sqlite", "run_1_power.csv"],
            ["run_10.sqlite", "run_10_power.csv"],
        ]

    def test_a_log_that_is_called_otherwise_is_refused_among_several(self, tmp_path: Path) -> None:
        write_run(tmp_path / "a.sqlite", 1)
        write_log(tmp_path / "power.csv", 10.0)
        assert names(runs_in([tmp_path])) == [["a.sqlite", "power.csv"]]
        write_run(tmp_path / "b.sqlite", 2)
        with pytest.raises(InputError, match=r"power\.csv: no trace beside it .* such as a_power\.csv"):
            runs_in([tmp_path])

    def test_what_is_no_input_is_passed_over_in_a_folder(self, tmp_path: Path) -> None:
        write_run(tmp_path / "a.sqlite")
        (tmp_path / "notes.txt").write_text("cold today\n")
        (tmp_path / "other.json").write_text('{"measurements_of": "something else"}')
        (tmp_path / ".hidden.sqlite").write_text("")
        (tmp_path / "sub").mkdir()
        assert names(runs_in([tmp_path])) == [["a.sqlite"]]

    def test_an_empty_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no file here is a trace or a saved analysis"):
            runs_in([tmp_path])

    def test_a_pattern_that_no_shell_took_apart(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder)
        assert names(runs_in([Path("before/*.sqlite")])) == [["run_1.sqlite"], ["run_2.sqlite"]]
        assert names(runs_in([Path("bef*")])) == names(runs_in([Path("before")]))
        with pytest.raises(InputError, match=r"none\*: no file has such a name"):
            runs_in([Path("none*")])

    def test_a_name_with_brackets_that_exists_is_no_pattern(self, tmp_path: Path) -> None:
        write_run(tmp_path / "run[1].sqlite")
        assert names(runs_in([tmp_path / "run[1].sqlite"])) == [["run[1].sqlite"]]

    def test_a_file_twice_is_refused(self, folder: Path) -> None:
        file = folder / "before" / "run_1.sqlite"
        with pytest.raises(UsageError, match="given twice"):
            runs_in([file, folder / "before"])

    def test_saved_analyses_are_runs(self, folder: Path, tmp_path: Path) -> None:
        trace = folder / "before" / "run_1.sqlite"
        nitro(trace, "-o", tmp_path / "a.json", cwd=tmp_path)
        given = runs_in([trace, tmp_path / "a.json", folder / "before" / "run_2.sqlite"])
        assert [isinstance(run, SavedFile) for run in given] == [False, True, False]
        assert names(runs_in([tmp_path])) == [["a.json"]]

    def test_traces_and_saved_analyses_in_a_folder_are_ambiguous(self, tmp_path: Path) -> None:
        write_run(tmp_path / "a.sqlite")
        nitro("a.sqlite", "-o", "a.json", cwd=tmp_path)
        with pytest.raises(InputError, match=r"traces and saved analyses, such as a\.json"):
            runs_in([tmp_path])


class TestCompare:
    def test_energy_of_both_sides_by_command(self, folder: Path) -> None:
        sides = [
            word
            for side in ("before", "after")
            for word in (
                f"--{side}",
                *(f"{side}/run_{number}.{kind}" for number in (1, 2) for kind in ("sqlite", "log")),
            )
        ]
        made = compared(folder, *sides, "--batch", "8")
        (energy,) = [metric for metric in made["metrics"] if metric["metric"] == "energy_per_item"]
        before, after = (energy["effects"][0][side] for side in ("before", "after"))
        # The median of two runs is on the log scale, hence the geometric mean.
        assert before == pytest.approx((20.01 * 20.02) ** 0.5 * 0.5 / 8, rel=1e-9)
        assert after == pytest.approx((16.01 * 16.02) ** 0.5 * 0.4 / 8, rel=1e-9)
        assert made == compared(folder, "--before", "before", "--after", "after", "--batch", "8")
        assert [entry["source"]["file_name"] for entry in made["before"][0]["evidence"]] == ["run_1.log"]
        assert len(made["before"][0]["evidence"][0]["source"]["sha256"]) == 64

    def test_the_terminal_shows_it_with_its_bound(self, folder: Path) -> None:
        printed = nitro(
            "compare", "--before", "before", "--after", "after", "--batch", "8", "--lang", "en", cwd=folder
        ).stdout
        text = " ".join(printed.split())
        assert "Energy per item: 801 mJ instead of 1.25 J; improvement: better by 36 %" in text
        assert "energy per item 1.25 J ± 31.3 µJ 801 mJ ± 25.0 µJ -36.0 %" in text
        assert "mean power 20.0 W ± 500 µW 16.0 W ± 500 µW -20.0 %" in text
        assert "Measured: VDD_IN, the input of the module." in text

    def test_sides_that_look_the_same_are_not_told_apart(self, folder: Path) -> None:
        run = ("before/run_1.sqlite", "before/run_1.log")
        printed = nitro("compare", "--before", *run, "--after", *run, "--lang", "en", cwd=folder).stdout
        assert "Energy per iteration: 10.0 J on both sides." in " ".join(printed.split())

    def test_one_side_only_says_so(self, folder: Path) -> None:
        printed = nitro(
            "compare", "--before", "before", "--after", "after/run_1.sqlite", "after/run_2.sqlite", "--lang", "en",
            cwd=folder,
        ).stdout  # fmt: skip
        assert "The sides cannot be compared by their energy: power was logged on one side only (before)." in " ".join(
            printed.split()
        )

    def test_saved_analyses_hold_it(self, folder: Path, tmp_path: Path) -> None:
        for side in ("before", "after"):
            (tmp_path / side).mkdir()
            for number in (1, 2):
                files = [folder / side / f"run_{number}.{kind}" for kind in ("sqlite", "log")]
                nitro(*files, "--batch", "8", "-o", tmp_path / side / f"run_{number}.json", cwd=tmp_path)
        saved = compared(tmp_path, "--before", "before", "--after", "after")
        traced = compared(folder, "--before", "before", "--after", "after", "--batch", "8")
        assert saved["energy"] == traced["energy"]
        assert saved["metrics"][-1] == traced["metrics"][-1]

    def test_csv_has_the_energy_of_each_run(self, folder: Path, tmp_path: Path) -> None:
        nitro("compare", "--before", "before", "--after", "after", "--csv", tmp_path / "csv", cwd=folder)
        head, *rows = (tmp_path / "csv" / "energy.csv").read_text().splitlines()
        assert head.startswith("side,file,measured,power_w,power_w_error,energy_per_item_j")
        assert [row.split(",")[:2] for row in rows] == [
            [side, f"run_{number}.sqlite"] for side in ("before", "after") for number in (1, 2)
        ]

    def test_documents_have_it_and_where_it_came_from(self, folder: Path, tmp_path: Path) -> None:
        outputs = ("-o", tmp_path / "r.md", "-o", tmp_path / "r.html", "--lang", "en")
        nitro("compare", "--before", "before", "--after", "after", "--batch", "8", *outputs, cwd=folder)
        markdown, page = ((tmp_path / name).read_text(encoding="utf-8") for name in ("r.md", "r.html"))
        for text in (markdown, page):
            assert "Energy and power" in text
            assert "1.25 J ± 31.3 µJ" in text
            assert "placed by the UTC times of both" in text
        assert "| energy per item | 1.25 J ± 31.3 µJ | 801 mJ ± 25.0 µJ |" in markdown

    def test_a_log_alone_is_refused(self, folder: Path) -> None:
        done = nitro("compare", "--before", "before/run_1.log", "--after", "after", cwd=folder, code=3)
        assert "belongs beside a trace" in done.stderr

    def test_the_offset_of_clocks_needs_a_log(self, folder: Path) -> None:
        trace = "before/run_1.sqlite"
        done = nitro("compare", "--before", trace, "--after", trace, "--clock-offset", "1s", cwd=folder, code=2)
        assert "about a log beside a trace; give one too" in done.stderr

    def test_an_offset_holds_for_every_log(self, folder: Path) -> None:
        made = compared(folder, "--before", "before", "--after", "after", "--clock-offset", "100ms")
        placements = [entry["evidence"][0]["placement"] for side in ("before", "after") for entry in made[side]]
        assert {placement["shift_ns"] for placement in placements} == {100 * MS}

    def test_a_file_in_a_folder_of_runs_is_never_written_over(self, folder: Path) -> None:
        log = folder / "before" / "run_1.log"
        content = log.read_bytes()
        done = nitro("compare", "--before", "before", "--after", "after", "--json", log, cwd=folder, code=2)
        assert "never written to" in done.stderr
        assert log.read_bytes() == content

    def test_a_part_of_a_saved_analysis_cannot_be_chosen(self, folder: Path, tmp_path: Path) -> None:
        nitro(folder / "before" / "run_1.sqlite", "-o", tmp_path / "a.json", cwd=tmp_path)
        sides = ("--before", "a.json", "--after", folder / "after" / "run_1.sqlite")
        done = nitro("compare", *sides, "--device", "0", cwd=tmp_path, code=2)
        assert "give them when it is saved" in done.stderr


class TestBundles:
    """A bundle tells items and power mode, and holds the log."""

    @pytest.fixture
    def bundles(self, folder: Path, tmp_path: Path) -> Path:
        for side in ("before", "after"):
            for number in (1, 2):
                made = tmp_path / side / f"bundle_{number}"
                made.mkdir(parents=True)
                names = [f"run_{number}.{kind}" for kind in ("sqlite", "log")]
                for name in names:
                    (made / name).write_bytes((folder / side / name).read_bytes())
                run = {"trace": names[0], "beside": names[1:], "items_per_iteration": 8, "facts": {"power_mode": "15W"}}
                manifest = {"format": "nitro-bundle", "version": 1, "runs": [run]}
                (made / "manifest.json").write_text(json.dumps(manifest))
        return tmp_path

    def test_they_give_the_energy_per_item_without_any_option(self, bundles: Path, folder: Path) -> None:
        made = compared(bundles, "--before", "before", "--after", "after/bundle_1", "after/bundle_2")
        files = compared(folder, "--before", "before", "--after", "after", "--batch", "8")
        assert made["energy"] == files["energy"]
        assert made["metrics"] == files["metrics"]
        sources = [entry["source"]["sha256"] for entry in made["before"]]
        assert sources == [entry["source"]["sha256"] for entry in files["before"]]

    def test_other_power_modes_are_refused(self, bundles: Path) -> None:
        for number in (1, 2):
            manifest = bundles / "after" / f"bundle_{number}" / "manifest.json"
            manifest.write_text(manifest.read_text().replace("15W", "MAXN"))
        done = nitro("compare", "--before", "before", "--after", "after", cwd=bundles, code=4)
        assert "the power mode differs (15W and MAXN)" in done.stderr
        allowed = compared(bundles, "--before", "before", "--after", "after", "--allow", "power_mode")
        assert allowed["allowed"] == ["power_mode"]

    def test_a_check_holds_what_they_tell_against_its_baseline(self, bundles: Path) -> None:
        nitro("baseline", "save", "main", "before", cwd=bundles)
        made = json.loads(
            nitro("check", "before", "--baseline", "main", "--json", "-", cwd=bundles, code=None).stdout
        )  # fmt: skip
        assert [reason for reason in made["reasons"] if reason["level"] == "refuse"] == []
        for number in (1, 2):
            manifest = bundles / "after" / f"bundle_{number}" / "manifest.json"
            manifest.write_text(manifest.read_text().replace("15W", "MAXN"))
        made = json.loads(nitro("check", "after", "--baseline", "main", "--json", "-", cwd=bundles, code=4).stdout)
        assert "the fact power_mode differs" in made["judgements"][0]["reason"]


class TestWholeTraces:
    """`--window all` where runs have no iterations to speak of."""

    @pytest.fixture
    def saved(self, folder: Path, tmp_path: Path) -> Path:
        for name, side in (("a", "before"), ("b", "after")):
            trace = folder / side / "run_1.sqlite"
            nitro(trace, "--window", "all", "-o", tmp_path / f"{name}_all.json", cwd=tmp_path)
            nitro(trace, "-o", tmp_path / f"{name}_auto.json", cwd=tmp_path)
        return tmp_path

    def test_saved_analyses_of_whole_traces_are_compared(self, saved: Path, folder: Path) -> None:
        made = compared(saved, "--before", "a_all.json", "--after", "b_all.json")
        traces = [folder / side / "run_1.sqlite" for side in ("before", "after")]
        traced = compared(folder, "--before", traces[0], "--after", traces[1], "--window", "all")
        assert made["devices"][0]["waterfall"] == traced["devices"][0]["waterfall"]
        assert made["metrics"][0] == traced["metrics"][0] | {"effects": made["metrics"][0]["effects"]}
        assert [effect["ratio"] for effect in made["metrics"][0]["effects"]] == [
            effect["ratio"] for effect in traced["metrics"][0]["effects"] if "ratio" in effect
        ]
        reasons = {reason["key"]: reason for reason in made["reasons"]}
        assert reasons["window"]["level"] == "warn"
        assert "every run counts from its first to its last GPU operation" in reasons["window"]["text"]

    @pytest.mark.parametrize("files", [("a_all.json", "b_auto.json"), ("a_auto.json", "b_all.json")])
    def test_a_whole_trace_against_iterations_is_refused(self, saved: Path, files: tuple[str, str]) -> None:
        done = nitro("compare", "--before", files[0], "--after", files[1], cwd=saved, code=4)
        assert "has no iterations" in done.stderr

    def test_a_window_that_fell_back_is_refused(self, saved: Path) -> None:
        for name in ("a", "b"):
            known = json.loads((saved / f"{name}_all.json").read_text())
            known["window"]["is_fallback"] = True
            (saved / f"{name}_all.json").write_text(json.dumps(known))
        nitro("compare", "--before", "a_all.json", "--after", "b_all.json", cwd=saved, code=4)


class TestFoldersOfOutputs:
    """What cannot be written is found before anything is."""

    @pytest.mark.parametrize("option", ["--csv", "--assets"])
    @pytest.mark.parametrize("command", ["analyze", "compare"])
    def test_a_file_in_the_place_of_a_folder(self, folder: Path, tmp_path: Path, option: str, command: str) -> None:
        (tmp_path / "taken").write_text("mine")
        trace = folder / "before" / "run_1.sqlite"
        inputs = ["--before", trace, "--after", trace] if command == "compare" else [trace]
        for place in ("taken", "taken/deep/er"):
            done = nitro(command, *inputs, "-o", "r.md", "--json", "r.json", option, place, cwd=tmp_path, code=2)
            assert "taken is a file, and no folder can be made there" in done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["taken"]
        assert (tmp_path / "taken").read_text() == "mine"

    def test_a_report_and_a_folder_of_one_name(self, folder: Path, tmp_path: Path) -> None:
        trace = folder / "before" / "run_1.sqlite"
        done = nitro(trace, "-o", "r.md", "--csv", "r.md", cwd=tmp_path, code=2)
        assert "is to be a file and a folder" in done.stderr
        assert list(tmp_path.iterdir()) == []

    def test_a_report_without_its_folder(self, folder: Path, tmp_path: Path) -> None:
        trace = folder / "before" / "run_1.sqlite"
        done = nitro(trace, "-o", "r.md", "-o", "none/r.html", cwd=tmp_path, code=2)
        assert "there is no folder none" in done.stderr
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_of_runs_is_not_written_into(self, folder: Path) -> None:
        done = nitro("compare", "--before", "before", "--after", "after", "--csv", "after", cwd=folder, code=2)
        assert "this is an input" in done.stderr

    @pytest.mark.parametrize("outputs", [("-o", "r.md", "-o", "./r.md"), ("-o", "r.json", "--json", "r.json")])
    @pytest.mark.parametrize("command", ["analyze", "compare"])
    def test_one_name_for_two_outputs(
        self, folder: Path, tmp_path: Path, outputs: tuple[str, ...], command: str
    ) -> None:
        trace = folder / "before" / "run_1.sqlite"
        inputs = ["--before", trace, "--after", trace] if command == "compare" else [trace]
        done = nitro(command, *inputs, *outputs, cwd=tmp_path, code=2)
        assert "two outputs have this name" in done.stderr
        assert list(tmp_path.iterdir()) == []

    def test_one_folder_for_tables_of_two_kinds(self, folder: Path, tmp_path: Path) -> None:
        trace = folder / "before" / "run_1.sqlite"
        done = nitro(trace, "--csv", "t", "--assets", "t/../t", cwd=tmp_path, code=2)
        assert "--csv and --assets write files of the same names" in done.stderr
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("output", [("--json", "manifest.json"), ("--json", "run_1.log"), ("--csv", "tables")])
    @pytest.mark.parametrize("command", ["analyze", "compare", "check", "export"])
    def test_a_bundle_is_never_changed(
        self, folder: Path, tmp_path: Path, command: str, output: tuple[str, str]
    ) -> None:
        made = tmp_path / "bundles" / "one"
        made.mkdir(parents=True)
        for name in ("run_1.sqlite", "run_1.log"):
            (made / name).write_bytes((folder / "before" / name).read_bytes())
        run = {"trace": "run_1.sqlite", "beside": ["run_1.log"]}
        (made / "manifest.json").write_text(json.dumps({"format": "nitro-bundle", "version": 1, "runs": [run]}))
        budget = '[[budget]]\nmetric = "energy"\nmax = "1 J"\nowner = "us"\nreason = "a test"\n'
        (tmp_path / "nitro.toml").write_text(budget)
        before = {path.name: path.read_bytes() for path in made.iterdir()}
        option, name = output
        # Where the bundle is one of a folder of runs, too.
        inputs: list[str | Path] = ["bundles/one"]
        if command == "compare":
            inputs = ["--before", "bundles", "--after", folder / "after"]
        if command == "export":
            option = "--parquet" if option == "--csv" else "--perfetto"
        if command == "check":
            option = "--junit" if option == "--csv" else option
        done = nitro(command, *inputs, option, made / name, cwd=tmp_path, code=2)
        assert "this lies in the input" in done.stderr
        assert {path.name: path.read_bytes() for path in made.iterdir()} == before

    def test_a_report_may_lie_in_a_folder_of_runs(self, folder: Path, tmp_path: Path) -> None:
        runs = tmp_path / "runs"
        runs.mkdir()
        write_run(runs / "a.sqlite")
        for _ in range(2):
            nitro("compare", "--before", "runs", "--after", folder / "after", "-o", "runs/r.md", cwd=tmp_path)

    def test_a_file_in_a_folder_that_nothing_can_be_made_in(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A superuser may write everywhere, so the answer of the system is made here.
        report = tmp_path / "r.md"
        report.write_text("mine")
        monkeypatch.setattr(os, "access", lambda *_: False)
        with pytest.raises(UsageError, match=r"r\.md: cannot be written, since .* is not writable"):
            check_outputs([folder / "before" / "run_1.sqlite"], [report], None)
        check_outputs([], [], "/dev/null")

    def test_folders_are_made_with_those_above_them(self, folder: Path, tmp_path: Path) -> None:
        nitro(folder / "before" / "run_1.sqlite", "--csv", "deep/er/csv", cwd=tmp_path)
        assert (tmp_path / "deep" / "er" / "csv" / "measurements.csv").is_file()
