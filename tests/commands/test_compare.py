"""`compare` through the real command line, on captured pairs, built pairs, and input that is no good."""

from __future__ import annotations

import csv
import json
import os
import re
from fractions import Fraction
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from rich.cells import cell_len

import recorded_runs
from builders import call, gpu, kernel, nvtx_range, trace, write_nsys_sqlite

ROOT = Path(__file__).resolve().parents[2]
PAIRS = ROOT / "tests" / "data" / "pairs"
FAULT = ROOT / "tests" / "data" / "faults" / "tiny_kernels.sqlite.xz"
NERSC = Path(os.environ.get("NITRO_TRACES", "/nonexistent")) / "nsys"
NERSC_PAIR = tuple(
    NERSC / f"NERSC__sc23-dl-tutorial__{name}__exported.sqlite.xz"
    for name in ("dali_amp_bf16__03e403", "dali_amp_bf16_fused_jit__64d76c")
)
SECTIONS = (
    "SUMMARY",
    "WHAT CHANGED",
    "WHERE THE CHANGE CAME FROM",
    "KERNELS BEFORE AND AFTER",
    "WHAT FUSION CHANGED",
    "ENERGY",
    "IS IT REAL?",
    "COMPARABILITY",
)
needs_nersc = pytest.mark.skipif(not NERSC_PAIR[0].is_file(), reason="needs real traces: set NITRO_TRACES")


def run(*arguments: str | Path, fails_with: int = 0, cwd: Path | None = None) -> CompletedProcess[str]:
    environment = {"LANG": "en_US.UTF-8", "LC_ALL": "", "LC_MESSAGES": ""}
    done = recorded_runs.nitro("compare", *arguments, cwd=cwd, code=fails_with, environment=environment)
    assert "Traceback" not in done.stderr
    return done


def three(name: str) -> list[Path]:
    return [PAIRS / f"{name}_{number}.sqlite.xz" for number in (1, 2, 3)]


def unfolded(text: str) -> str:
    """Return text as one line, however it was broken into lines."""
    return re.sub(r"\s+", " ", text)


@pytest.fixture(scope="module")
def streams() -> str:
    return run("--before", *three("eager"), "--after", *three("streams")).stdout


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with every output about eager against a CUDA graph."""
    folder = tmp_path_factory.mktemp("graph")
    outputs = [word for name in ("r.html", "r.md", "r.json") for word in ("-o", name)]
    done = run(
        "--before", *three("eager"), "--after", *three("graph"), *outputs, "--csv", "csv", "--lang", "en", cwd=folder
    )
    assert done.stderr == ""
    (folder / "terminal.txt").write_text(done.stdout, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def known(graph: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((graph / "r.json").read_text())
    return made


@pytest.fixture(scope="module")
def nersc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nersc")
    outputs = [word for name in ("r.html", "r.pdf", "r.md", "r.json") for word in ("-o", name)]
    done = run("--before", NERSC_PAIR[0], "--after", NERSC_PAIR[1], *outputs, "--lang", "ko", cwd=folder)
    assert done.stderr == ""
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    for path in (*three("eager")[:2], *three("graph")[:2]):
        name = path.name.partition(".")[0]
        recorded_runs.nitro(path, "--json", f"{name}.json", cwd=folder)
    return folder


class TestTerminal:
    def test_the_help_shows_the_example_as_a_line(self) -> None:
        lines = [line.strip() for line in run("--help").stdout.splitlines()]
        assert "nitro-analyze compare --before eager*.sqlite --after graph*.sqlite -o report.html" in lines
        assert not any("\\b" in line or "\b" in line for line in lines)

    def test_it_fits_100_columns_and_is_plain_in_a_pipe(self, streams: str, graph: Path) -> None:
        for text in (streams, (graph / "terminal.txt").read_text()):
            assert max(cell_len(line) for line in text.splitlines()) <= 100
            assert "\x1b" not in text
            assert [line for line in text.splitlines() if line != line.rstrip()] == []

    def test_sections_are_in_order(self, streams: str) -> None:
        places = [streams.index(f"\n{section}\n") for section in SECTIONS]
        assert places == sorted(places)

    def test_korean_headings(self) -> None:
        text = run("--before", three("eager")[0], "--after", three("graph")[0], "--lang", "ko").stdout
        assert re.search("[가-힣]", text)


class TestLaunchBoundPairs:
    def test_two_streams_gain_nothing_and_it_says_why(self, streams: str) -> None:
        text = unfolded(streams)
        assert "both sides are launch-bound: the GPU does the same 1.2 ms of work" in text
        assert "idle for 91.6 % of the iteration before and 92.2 % after" in text
        assert "most of it waiting for host code and launch calls" in text
        assert "more streams do not" in text
        assert "Inconclusive: the change of" in text

    def test_a_graph_takes_the_idle_time_of_launches_away(self, graph: Path) -> None:
        text = unfolded((graph / "terminal.txt").read_text())
        assert "A mean iteration takes 4.81 ms instead of 14.2 ms: 66.2 % less" in text
        assert "a CUDA graph replaced 415 launches an iteration" in text
        assert "idle time in host code and launch calls fell from 12.8 ms to 3.48 ms" in text
        assert "The GPU is still idle for 74.3 % of the iteration" in text
        assert "most of it in preprocess" in text
        assert "Improvement: better by" in text
        assert "both sides are launch-bound" not in text

    def test_kernels_of_a_graph_recorded_as_a_whole_are_not_called_gone(self, graph: Path) -> None:
        text = (graph / "terminal.txt").read_text()
        assert "in a graph?" in text
        assert "fused away" not in text
        assert "--cuda-graph-trace=node" in text

    def test_kernels_of_a_graph_recorded_by_node_are_matched(self) -> None:
        after = PAIRS / "graph_node_1.sqlite.xz"
        made = json.loads(run("--before", three("eager")[0], "--after", after, "--json", "-").stdout)
        (device,) = made["devices"]
        assert device["matching"]["quality"]["one_to_one"] > 0.99
        assert device["launches_per_iteration"] == {"before": 426.0, "after": 11.0, "delta": -415.0}
        keys = [sentence["key"] for sentence in device["story"]]
        assert "launches" in keys
        assert "launch_bound" not in keys
        # One run a side never yields more.
        assert made["verdict"] == "inconclusive"


class TestJson:
    def test_the_waterfall_adds_up_exactly(self, known: dict[str, Any]) -> None:
        (device,) = known["devices"]
        waterfall = device["waterfall"]
        before, after = (Fraction(waterfall[side]["mean_period_exact"]) for side in ("before", "after"))
        deltas = [Fraction(step["exact"]["delta"]) for step in waterfall["steps"]]
        assert sum(deltas) == after - before == Fraction(waterfall["delta_exact"])
        for step in waterfall["steps"]:
            assert step["delta_ns"] == float(Fraction(step["exact"]["delta"]))

    def test_the_rows_add_up_to_the_kernel_step(self, known: dict[str, Any]) -> None:
        (device,) = known["devices"]
        (kernels,) = [step for step in device["waterfall"]["steps"] if step["key"] == "kernel"]
        rows = device["matching"]["rows"]
        assert sum(Fraction(row["delta_exact"]) for row in rows) == Fraction(kernels["exact"]["delta"])

    def test_both_sides_tell_where_they_come_from(self, known: dict[str, Any]) -> None:
        for side in ("before", "after"):
            assert len(known[side]) == 3
            for entry in known[side]:
                assert len(entry["source"]["sha256"]) == 64
                assert entry["window"]["iterations"] >= 10
                assert entry["is_saved"] is False

    def test_phases_have_sampled_activity(self, known: dict[str, Any]) -> None:
        phases = {phase["path"]: phase for phase in known["devices"][0]["phases"]}
        assert {"", "preprocess", "sync", "vision", "text", "vision+text"} <= set(phases)
        whole = phases[""]
        # The same work in a third of the time: the SMs are active three times as often.
        assert 2 < whole["after"]["sm_active"] / whole["before"]["sm_active"] < 4
        assert whole["delta"]["sm_active"] == whole["after"]["sm_active"] - whole["before"]["sm_active"]
        assert phases["vision"]["after"] is None
        assert phases["vision+text"]["before"] is None

    def test_it_is_the_same_whether_printed_or_written(self, known: dict[str, Any]) -> None:
        printed = run("--before", *three("eager"), "--after", *three("graph"), "--json", "-").stdout
        assert json.loads(printed) == known

    def test_every_key_is_documented(self, known: dict[str, Any]) -> None:
        text = (ROOT / "docs" / "json.md").read_text()
        (device,) = known["devices"]
        metric = known["metrics"][0]
        found = [known, device, metric, device["waterfall"], device["waterfall"]["steps"][0], device["matching"]]
        found += [device["matching"]["rows"][0], device["matching"]["quality"], device["phases"][0]]
        found += [metric["effects"][0], metric["effects"][0]["spread_before"], device["story"][0], known["before"][0]]
        found += known["phase_overlaps"][:1]
        missing = {key for part in found for key in part if f"`{key}`" not in text}
        assert missing == set()


class TestSameNumbers:
    def test_the_terminal_shows_what_the_json_holds(self, graph: Path, known: dict[str, Any]) -> None:
        text = (graph / "terminal.txt").read_text()
        for step in known["devices"][0]["waterfall"]["steps"]:
            if step["key"] in ("kernel", "graph"):
                shown = (f"{step['before_ns'] / 1e6:.3f}", f"{step['after_ns'] / 1e6:.3f}")
                assert f"{' '.join(shown)} {step['delta_ns'] / 1e6:+.3f}" in re.sub(r" +", " ", text)

    def test_the_columns_of_the_waterfall_add_up_as_shown(self, graph: Path) -> None:
        rows = _markdown_rows((graph / "r.md").read_text(), "of a mean iteration", "before, ms")
        shown = [[float(cell.replace(",", "")) for cell in row[1:4]] for row in rows]
        top = [row for row, cells in zip(shown, rows, strict=True) if not cells[0].startswith("\N{NO-BREAK SPACE}")]
        causes = [row for row, cells in zip(shown, rows, strict=True) if cells[0].startswith("\N{NO-BREAK SPACE}")]
        assert len(causes) >= 5
        for column in range(3):
            *parts, whole = (row[column] for row in top)
            assert abs(sum(parts) - whole) <= 0.0005 * (len(parts) + 1)
            # The causes add up to the idle time, which is the last part before the whole.
            assert abs(sum(row[column] for row in causes) - parts[-1]) <= 0.0005 * (len(causes) + 1)

    def test_page_markdown_and_terminal_agree(self, graph: Path) -> None:
        page, markdown, terminal = (
            (graph / name).read_text(encoding="utf-8") for name in ("r.html", "r.md", "terminal.txt")
        )
        for text in ("4.81 ms", "-68.2 %", "14.231", "4.806", "-9.425", "-6.105"):
            assert text in page
            assert text in terminal
            assert text.replace("-", "\\-", 1) in markdown or text in markdown

    def test_csv_has_the_exact_values_of_the_json(self, graph: Path, known: dict[str, Any]) -> None:
        rows = _csv(graph / "csv" / "waterfall.csv")
        steps = known["devices"][0]["waterfall"]["steps"]
        assert [(row["key"], float(row["delta_ns"])) for row in rows] == [(s["key"], s["delta_ns"]) for s in steps]
        matched = _csv(graph / "csv" / "matched_kernels.csv")
        assert len(matched) == len(known["devices"][0]["matching"]["rows"])
        effects = _csv(graph / "csv" / "effects.csv")
        assert effects[0]["metric"] == "iteration_period"
        assert float(effects[0]["ratio"]) == known["metrics"][0]["effects"][0]["ratio"]


class TestNersc:
    """A real pair of a network with and without fused kernels."""

    pytestmark = needs_nersc

    def test_every_format_is_written(self, nersc: Path) -> None:
        assert (nersc / "r.pdf").read_bytes().startswith(b"%PDF-")
        page = (nersc / "r.html").read_text(encoding="utf-8")
        assert 'lang="en"' in page
        assert 'lang="ko"' in page
        assert "365.093" in page
        assert "365.093" in (nersc / "r.md").read_text(encoding="utf-8")

    def test_it_is_matched_across_fusion_and_adds_up(self, nersc: Path) -> None:
        made = json.loads((nersc / "r.json").read_text())
        (device,) = made["devices"]
        quality = device["matching"]["quality"]
        assert quality["unmatched"] == 0
        assert quality["grouped"] > 0.2
        largest = device["matching"]["rows"][0]
        assert largest["is_fusion"] is True
        assert largest["path"] == "forward"
        assert (largest["executions_before"], largest["executions_after"]) == (72.0, 36.0)
        steps = device["waterfall"]["steps"]
        assert sum(Fraction(step["exact"]["delta"]) for step in steps) == Fraction(device["waterfall"]["delta_exact"])
        assert made["verdict"] == "inconclusive"


class TestSaved:
    def test_the_waterfall_is_that_of_the_traces(self, saved: Path) -> None:
        files = ("--before", "eager_1.json", "eager_2.json", "--after", "graph_1.json", "graph_2.json")
        from_saved = json.loads(run(*files, "--json", "-", cwd=saved).stdout)
        traces: list[str | Path] = ["--before", *three("eager")[:2], "--after", *three("graph")[:2]]
        traced = json.loads(run(*traces, "--json", "-").stdout)
        assert from_saved["devices"][0]["waterfall"] == traced["devices"][0]["waterfall"]
        assert [m["effects"][0]["ratio"] for m in from_saved["metrics"]] == pytest.approx(
            [m["effects"][0]["ratio"] for m in traced["metrics"]]
        )
        assert {row["how"] for row in from_saved["devices"][0]["matching"]["rows"]} == {"name", "none"}
        assert from_saved["devices"][0]["phases"] == []
        assert [entry["is_saved"] for entry in from_saved["before"]] == [True, True]

    def test_it_says_what_a_saved_analysis_cannot_give(self, saved: Path) -> None:
        done = run("--before", "eager_1.json", "--after", three("graph")[0], "-o", "r.md", "--lang", "en", cwd=saved)
        assert "a saved analysis, which holds sums alone" in unfolded(done.stdout).replace("A run is ", "a run is ")
        assert "saved analysis" in (saved / "r.md").read_text()

    def test_launches_are_those_of_the_traces(self, saved: Path) -> None:
        name = "graph_node_1"
        recorded_runs.nitro(PAIRS / f"{name}.sqlite.xz", "--json", f"{name}.json", cwd=saved)
        made = json.loads(run("--before", "eager_1.json", "--after", f"{name}.json", "--json", "-", cwd=saved).stdout)
        (device,) = made["devices"]
        assert device["launches_per_iteration"] == {"before": 426.0, "after": 11.0, "delta": -415.0}
        assert "launch_bound" not in [sentence["key"] for sentence in device["story"]]

    def test_a_plain_profile_of_pytorch_is_a_trace(self, tmp_path: Path) -> None:
        events = []
        for number in range(8):
            start = 1000 * number
            shared = {"pid": 1, "tid": 1, "ph": "X"}
            events += [
                {"cat": "user_annotation", "name": f"infer:{number}", "ts": start, "dur": 900, **shared},
                {"cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": start + 10, "dur": 5, **shared,
                 "args": {"correlation": number + 1}},
                {"cat": "kernel", "name": "gemm", "ts": start + 20, "dur": 500 + number, "pid": 0, "tid": 7, "ph": "X",
                 "args": {"device": 0, "context": 1, "stream": 7, "correlation": number + 1, "grid": [1, 1, 1],
                          "block": [32, 1, 1]}},
            ]  # fmt: skip
        profile = {"schemaVersion": 1, "deviceProperties": [{"id": 0, "name": "GPU"}], "traceEvents": events}
        (tmp_path / "p.json").write_text(json.dumps(profile))
        assert "on both sides" in unfolded(run("--before", "p.json", "--after", "p.json", cwd=tmp_path).stdout)

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            ("{", "this is not JSON"),
            ("{}", "is no analysis of nitro-analyze"),
            ('{"format_version": 99, "source": 0, "capture": 0, "devices": 0, "window": 0, "measurements": 0, '
             '"tables": 0}', "has format 99"),
            ('{"format_version": 1, "source": 0, "capture": 0, "devices": 0, "window": 0, "measurements": 0, '
             '"tables": 0}', "is damaged"),
        ],
    )  # fmt: skip
    def test_json_that_is_no_analysis_is_named(self, content: str, sentence: str, tmp_path: Path) -> None:
        (tmp_path / "x.json").write_text(content)
        done = run("--before", "x.json", "--after", three("graph")[0], cwd=tmp_path, fails_with=3)
        assert sentence in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


class TestRefusals:
    def test_different_programs_are_not_comparable(self) -> None:
        done = run("--before", three("eager")[0], "--after", FAULT, fails_with=4)
        assert "the two sides cannot be compared" in done.stderr
        assert "--allow iteration_names" in done.stderr
        assert done.stdout == ""

    def test_what_is_allowed_is_compared_and_said(self) -> None:
        done = run("--before", three("eager")[0], "--after", FAULT, "--allow", "iteration_names")
        assert "Refused, but allowed" in unfolded(done.stdout)

    def test_an_unknown_reason_cannot_be_allowed(self) -> None:
        done = run("--before", three("eager")[0], "--after", three("graph")[0], "--allow", "mood", fails_with=2)
        assert "--allow mood is unknown" in done.stderr

    def test_a_run_twice_on_a_side_is_refused(self) -> None:
        done = run("--before", three("eager")[0], three("eager")[0], "--after", three("graph")[0], fails_with=2)
        assert "this file is given twice" in done.stderr

    def test_a_copy_under_another_name_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "x.sqlite.xz").write_bytes(three("eager")[0].read_bytes())
        done = run(
            "--before", three("eager")[0], "x.sqlite.xz", "--after", three("graph")[0], cwd=tmp_path, fails_with=4
        )
        assert "x.sqlite.xz is a copy of eager_1.sqlite.xz" in unfolded(done.stderr)

    def test_a_power_log_of_another_time_is_refused_with_both_spans(self, tmp_path: Path) -> None:
        log = "11-21-2026 10:00:00 RAM 1/2MB (lfb 1x1MB) CPU [1%@100] GR3D_FREQ 5% VDD_IN 4000mW/4000mW\n"
        (tmp_path / "tegrastats.log").write_text(log * 5)
        sides = ("--before", three("eager")[0], "tegrastats.log", "--after", three("graph")[0])
        done = run(*sides, cwd=tmp_path, fails_with=3)
        assert "tegrastats.log: it was not recorded during the trace" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1

    def test_no_output_is_written_where_one_has_no_folder(self, tmp_path: Path) -> None:
        sides = ("--before", three("eager")[0], "--after", three("graph")[0])
        done = run(*sides, "-o", "r.md", "--json", "none/r.json", cwd=tmp_path, fails_with=2)
        assert "there is no folder none" in done.stderr
        assert list(tmp_path.iterdir()) == []

    def test_a_mapping_is_never_written_over(self, tmp_path: Path) -> None:
        mapping = tmp_path / "m.json"
        mapping.write_text("[kernels]\na = 'b'\n")
        sides = ("--before", three("eager")[0], "--after", three("graph")[0])
        done = run(*sides, "--mapping", "m.json", "--json", "m.json", cwd=tmp_path, fails_with=2)
        assert "this is the mapping" in done.stderr
        assert mapping.read_text() == "[kernels]\na = 'b'\n"

    def test_nothing_is_written_where_the_sides_cannot_be_compared(self, tmp_path: Path) -> None:
        outputs = ("-o", "r.html", "--json", "r.json", "--csv", "csv")
        run("--before", three("eager")[0], "--after", FAULT, *outputs, cwd=tmp_path, fails_with=4)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("arguments", "sentence", "code"),
        [
            (("--before", "missing.sqlite", "--after", "x"), "missing.sqlite", 3),
            (("--after", "x"), "Missing option '--before'", 2),
            (("--before", "a", "--after", "b", "-o", "r.docx"), "cannot tell the format", 2),
            (("--before", "a", "--after", "b", "--threshold", "much"), "is no share", 2),
            (("--before", "a", "--after", "b", "--threshold", "0"), "outside of 0 to 100 %", 2),
        ],
    )
    def test_wrong_usage_is_one_sentence(
        self, arguments: tuple[str, ...], sentence: str, code: int, tmp_path: Path
    ) -> None:
        assert sentence in run(*arguments, cwd=tmp_path, fails_with=code).stderr

    def test_an_input_is_never_written_over(self, tmp_path: Path) -> None:
        saved = tmp_path / "a.json"
        saved.write_text("{}")
        done = run("--before", saved, "--after", three("graph")[0], "--json", saved, fails_with=2)
        assert "never written to" in done.stderr
        assert saved.read_text() == "{}"

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            ("kernels = [", "this is not TOML"),
            ("[other]\n", "has a table [kernels]"),
            ("[kernels]\na = 1\n", "must be a text"),
        ],
    )
    def test_a_wrong_mapping_is_named(self, content: str, sentence: str, tmp_path: Path) -> None:
        (tmp_path / "m.toml").write_text(content)
        sides = ("--before", three("eager")[0], "--after", three("graph")[0])
        assert sentence in run(*sides, "--mapping", "m.toml", cwd=tmp_path, fails_with=2).stderr


class TestBuiltPairs:
    """Small traces, so that every row can be looked at."""

    def write(self, folder: Path, name: str, kernels: list[tuple[str, int]]) -> Path:
        length = sum(size for _, size in kernels) * 1000 + 20_000
        rows, calls, ranges = [], [], []
        identifier = 0
        for iteration in range(8):
            now = iteration * length
            ranges.append(nvtx_range(now, now + length - 100, f"infer:{iteration}"))
            for kernel_name, size in kernels:
                identifier += 1
                calls.append(call(now + 10, now + 900, correlation_id=identifier))
                rows.append(kernel(now + 1000, now + 1000 * (1 + size), kernel_name, correlation_id=identifier))
                now += 1000 * size + 1000
        built = trace(kernels=rows, api_calls=calls, nvtx=ranges, devices=[gpu(0, sm_count=8)])
        write_nsys_sqlite(folder / name, built)
        return folder / name

    def test_unmatched_kernels_are_shown_on_both_sides(self, tmp_path: Path) -> None:
        before = self.write(tmp_path, "a.sqlite", [("gemm", 50), ("dropped", 10)])
        after = self.write(tmp_path, "b.sqlite", [("added", 20), ("gemm", 50)])
        text = run("--before", before, "--after", after).stdout
        assert re.search(r"fused away +dropped → – +10\.000 +0\.000 +-10\.000", text)
        assert re.search(r"new +– → added +0\.000 +20\.000 +\+20\.000", text)

    def test_a_mapping_makes_a_group(self, tmp_path: Path) -> None:
        before = self.write(tmp_path, "a.sqlite", [("gemm", 50), ("add", 10), ("relu", 10)])
        after = self.write(tmp_path, "b.sqlite", [("gemm", 50), ("other", 20)])
        (tmp_path / "m.toml").write_text('[kernels]\n"[ar]*" = "other"\n"nothing" = "at_all"\n')
        made = run("--before", before, "--after", after, "--mapping", "m.toml", "--json", "-", cwd=tmp_path).stdout
        (device,) = json.loads(made)["devices"]
        (row,) = [row for row in device["matching"]["rows"] if row["how"] == "mapping"]
        assert [member["name"] for member in row["before"]] == ["add", "relu"]
        assert device["matching"]["unused_mappings"] == ["nothing -> at_all"]

    def test_one_side_without_kernels(self, tmp_path: Path) -> None:
        before = self.write(tmp_path, "a.sqlite", [("gemm", 50)])
        write_nsys_sqlite(tmp_path / "b.sqlite", trace(kernels=[], api_calls=[call(0, 10)], devices=[gpu(0)]))
        done = run("--before", before, "--after", tmp_path / "b.sqlite", fails_with=3)
        assert "has no GPU operation" in done.stderr

    def test_an_unknown_device_is_named(self, tmp_path: Path) -> None:
        before = self.write(tmp_path, "a.sqlite", [("gemm", 50)])
        done = run("--before", before, "--after", before, "--device", "5", fails_with=2)
        assert "the trace has devices 0" in done.stderr

    def test_the_same_capture_on_both_sides_has_no_change(self, tmp_path: Path) -> None:
        before = self.write(tmp_path, "a.sqlite", [("gemm", 50)])
        text = unfolded(run("--before", before, "--after", before).stdout)
        assert "on both sides" in text
        assert "No part of the mean iteration changed." in text

    def test_the_command_line_in_a_report_has_no_folders(self, tmp_path: Path) -> None:
        before = self.write(tmp_path, "a.sqlite", [("gemm", 50)])
        after = self.write(tmp_path, "b.sqlite", [("gemm", 40)])
        run("--before", before, f"--after={after}", "-o", tmp_path / "r.md", "--lang", "en")
        text = (tmp_path / "r.md").read_text()
        assert str(tmp_path) not in text
        assert "--after=b.sqlite" in text.replace("\\", "")


def _csv(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _markdown_rows(text: str, *heads: str) -> list[list[str]]:
    """Return the cells of the table whose head begins with these."""
    lines = text.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("| " + " | ".join(heads)))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.removeprefix(" ").removesuffix(" ").replace("\\", "") for cell in line.strip("|").split("|")])
    return rows
