"""`nitro-analyze check` as a CI runs it: exit codes that are never mixed up, files, and the inputs left alone."""

from __future__ import annotations

import json
import lzma
import os
import shutil
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from lxml import etree

from builders import call, kernel, nvtx_range, trace, write_nsys_sqlite
from nitro.analyzer import Capture
from recorded_runs import nitro, record, record_side

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "examples" / "dual_encoder.sqlite.xz"
FAULTS = ROOT / "tests" / "data" / "faults"
PAIRS = ROOT / "tests" / "data" / "pairs"
SCHEMA = ROOT / "tests" / "checks" / "junit.xsd"
TRACES = Path(os.environ.get("NITRO_TRACES", "/nonexistent"))
TIMEOUT_S = 120
BUDGET = """
[[budget]]
metric = "iteration_period"
by = "p50"
{limit}
owner = "vision team"
reason = "the camera delivers 60 frames a second"
"""


def budgets(folder: Path, *limits: str, head: str = "") -> Path:
    file = folder / "nitro.toml"
    file.write_text(head + "".join(BUDGET.format(limit=limit) for limit in limits), encoding="utf-8")
    return file


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a baseline of 5 runs of 10 ms."""
    nitro("baseline", "save", "main", *record_side(tmp_path, "before"), cwd=tmp_path, code=0)
    return tmp_path


def sentence(done: CompletedProcess[str]) -> str:
    """Return the one sentence on standard error."""
    (line,) = done.stderr.splitlines()
    assert line.startswith("nitro-analyze: ")
    assert line.endswith((".", "?"))
    assert done.stdout == ""
    return line.removeprefix("nitro-analyze: ")


class TestExitCodes:
    def test_0_every_limit_is_kept(self, project: Path) -> None:
        budgets(project, 'max = "12 ms"\nmax_regression = "3 %"')
        done = nitro("check", *record_side(project, "same"), "--baseline", "main", cwd=project, code=0)
        assert "passed: 2 passed" in done.stdout

    def test_1_a_regression(self, project: Path) -> None:
        budgets(project, 'max_regression = "3 %"')
        slower = record_side(project, "slower", period_ms=11)
        done = nitro("check", *slower, "--baseline", "main", cwd=project, code=1)
        assert "regression: worse by " in " ".join(done.stdout.split())

    def test_1_without_any_budget_the_median_period_is_gated(self, project: Path) -> None:
        slower = record_side(project, "slower", period_ms=11)
        nitro("check", *slower, "--baseline", "main", cwd=project, code=1)

    def test_0_an_improvement(self, project: Path) -> None:
        faster = record_side(project, "faster", period_ms=9)
        nitro("check", *faster, "--baseline", "main", cwd=project, code=0)

    def test_1_an_absolute_limit(self, tmp_path: Path) -> None:
        budgets(tmp_path, 'max = "5 ms"')
        nitro("check", record(tmp_path / "run.sqlite"), cwd=tmp_path, code=1)

    def test_0_and_1_one_run_is_inconclusive(self, project: Path) -> None:
        run = record(project / "twice.sqlite", period_ms=20)
        done = nitro("check", run, "--baseline", "main", cwd=project, code=0)
        assert "record at least 5 runs a side" in " ".join(done.stdout.split())
        nitro("check", run, "--baseline", "main", "--inconclusive", "fail", cwd=project, code=1)
        (project / "nitro.toml").write_text('[check]\ninconclusive = "fail"\n')
        nitro("check", run, "--baseline", "main", cwd=project, code=1)
        nitro("check", run, "--baseline", "main", "--inconclusive", "pass", cwd=project, code=0)

    def test_1_a_budget_that_has_expired(self, tmp_path: Path) -> None:
        run = record(tmp_path / "run.sqlite")
        budgets(tmp_path, 'max = "12 ms"\nexpires = 2026-06-01')
        nitro("check", run, "--today", "2026-05-31", cwd=tmp_path, code=0)
        done = nitro("check", run, "--today", "2026-06-01", cwd=tmp_path, code=1)
        assert "the budget of vision team" in done.stdout
        assert "expired on 2026-06-01" in " ".join(done.stdout.split())

    def test_2_nothing_to_check(self, tmp_path: Path) -> None:
        done = nitro("check", record(tmp_path / "run.sqlite"), cwd=tmp_path, code=2)
        assert "write [[budget]] tables, or name a baseline" in sentence(done)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("[[budget]]\nmetric = x\n", "nitro.toml: this is not TOML (Invalid value (at line 2, column 10))"),
            ("[budget]\nmetric = 1", "budgets are tables under [[budget]]"),
            (
                BUDGET.format(limit="max = '1 ms'").replace("[budget]", "[budgets]"),
                "'budgets' at the top of the file; did",
            ),
            ("[chek]\nbaseline = 'main'", "'chek' at the top of the file; did you mean check?"),
            ("baseline = 'main'", "it knows [check], [[budget]] and [report]."),
            ("[check]\nbaselin = 'x'", "[check] has no setting 'baselin'; it knows baseline, store"),
            ("[check]\ninconclusive = 'maybe'", 'inconclusive in [check] must be "pass" or "fail", not \'maybe\''),
            (BUDGET.format(limit="max = 5"), "nitro.toml, line 2: max of iteration_period: 5 has no unit"),
            (
                BUDGET.format(limit="max = '1 ms'").replace("_period", "_perod"),
                "there is no metric of the whole window called 'iteration_perod'; did you mean iteration_period",
            ),
            (BUDGET.format(limit="max_regression = 0.03"), "name one with --baseline"),
        ],
    )
    def test_2_a_mistake_in_the_budgets(self, tmp_path: Path, text: str, told: str) -> None:
        run = record(tmp_path / "run.sqlite")
        (tmp_path / "nitro.toml").write_text(text, encoding="utf-8")
        assert told in sentence(nitro("check", run, "--junit", "report.xml", cwd=tmp_path, code=2))
        assert not (tmp_path / "report.xml").exists()

    def test_2_files_and_names_that_do_not_exist(self, project: Path) -> None:
        run = record(project / "run.sqlite")
        assert "no.toml: cannot be read" in sentence(nitro("check", run, "--budgets", "no.toml", cwd=project, code=2))
        assert "did you mean main?" in sentence(nitro("check", run, "--baseline", "mian", cwd=project, code=2))
        assert "this is the trace itself" in sentence(
            nitro("check", run, "--baseline", "main", "--junit", run, cwd=project, code=2)
        )

    def test_3_a_trace_that_is_broken(self, project: Path) -> None:
        good = record(project / "good.sqlite")
        content = good.read_bytes()
        (project / "cut.sqlite").write_bytes(content[: len(content) // 2])
        (project / "text.sqlite").write_text("no database")
        for bad in ("cut.sqlite", "text.sqlite", "missing.sqlite"):
            done = nitro("check", good, bad, "--baseline", "main", "--junit", "report.xml", cwd=project, code=3)
            assert bad in sentence(done)
            assert not (project / "report.xml").exists()

    def test_3_a_window_without_gpu_work(self, project: Path) -> None:
        empty = write_nsys_sqlite(project / "empty.sqlite", trace(kernels=[]))
        done = nitro("check", empty, "--baseline", "main", cwd=project, code=3)
        assert "so nothing can be judged" in sentence(done)

    def test_3_no_nvtx_range_of_that_name(self, project: Path) -> None:
        run = record(project / "run.sqlite")
        done = nitro("check", run, "--baseline", "main", "--nvtx", "infer*", cwd=project, code=3)
        assert "no NVTX range is named 'infer*'" in sentence(done)

    def test_3_a_metric_that_was_not_measured(self, tmp_path: Path) -> None:
        run = write_nsys_sqlite(tmp_path / "run.sqlite", trace(kernels=[kernel(0, 100), kernel(500, 900)]))
        budgets(tmp_path, 'max = "5 ms"')
        done = nitro("check", run, cwd=tmp_path, code=3)
        assert "no iterations were found" in done.stdout

    def test_3_the_whole_trace_has_no_iterations(self, project: Path) -> None:
        run = record(project / "run.sqlite")
        done = nitro("check", run, "--baseline", "main", "--window", "all", cwd=project, code=3)
        printed = " ".join(done.stdout.split())
        assert "with --window all the window has no iterations; leave it out" in printed
        assert "mark each with an NVTX range" not in printed
        table = '[[budget]]\nmetric = "gpu_busy"\nmax = "1 s"\nowner = "a"\nreason = "b"\n'
        (project / "nitro.toml").write_text(table)
        done = nitro("check", run, "--window", "all", cwd=project, code=3)
        assert "with --window all the window has no iterations" in " ".join(done.stdout.split())
        (project / "nitro.toml").write_text(table + 'per = "window"\n')
        nitro("check", run, "--window", "all", cwd=project, code=0)

    def test_4_another_gpu(self, project: Path) -> None:
        other = record_side(project, "other", device="Another GPU")
        done = nitro("check", *other, "--baseline", "main", cwd=project, code=4)
        assert "refused, --allow device" in done.stdout
        nitro("check", *other, "--baseline", "main", "--allow", "device", cwd=project, code=0)

    def test_4_another_precision(self, project: Path) -> None:
        options = ("--store", "store", "--fact")
        nitro(
            "baseline", "save", "main", *record_side(project, "bf16"), *options, "precision=bf16", cwd=project, code=0
        )
        same = record_side(project, "same")
        nitro("check", *same, "--baseline", "main", *options, "precision=bf16", cwd=project, code=0)
        done = nitro("check", *same, "--baseline", "main", *options, "precision=fp16", cwd=project, code=4)
        assert "the fact precision differs (bf16 and fp16)" in done.stdout

    def test_4_a_run_that_stands_there_twice(self, project: Path) -> None:
        run = record(project / "run.sqlite")
        shutil.copy(run, project / "copy.sqlite")
        done = nitro("check", run, project / "copy.sqlite", "--baseline", "main", cwd=project, code=4)
        assert "stands twice on a side" in done.stdout

    def test_3_a_baseline_that_is_broken(self, project: Path) -> None:
        (project / ".nitro" / "baselines" / "main" / "0001.json").write_text("{")
        done = nitro("check", record(project / "run.sqlite"), "--baseline", "main", cwd=project, code=3)
        assert "restore the file from Git" in sentence(done)


def test_a_process_ends_with_the_code(project: Path) -> None:
    """The same as above, once for each code, through a process of its own."""
    run, text = record(project / "run.sqlite"), project / "text.sqlite"
    text.write_text("no database")
    budgets(project, 'max = "5 ms"')
    other = record(project / "other.sqlite", device="Another GPU", seed=9)
    lenient = project / "lenient.toml"
    lenient.write_text(BUDGET.format(limit='max = "50 ms"'))
    for arguments, code in (
        ((run, "--budgets", lenient), 0),
        ((run,), 1),
        ((run, "--baseline", "mian"), 2),
        ((text,), 3),
        ((other, "--budgets", os.devnull, "--baseline", "main"), 4),
    ):
        command = [sys.executable, "-m", "nitro.cli", "check", *map(str, arguments)]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_the_help_has_a_line_for_each_code(tmp_path: Path) -> None:
    printed = nitro("check", "--help", cwd=tmp_path).stdout
    assert [line.strip()[:2] for line in printed.splitlines() if line[2:4] in ("1:", "2:", "3:", "4:")] == [
        "1:",
        "2:",
        "3:",
        "4:",
    ]


class TestOutputs:
    def test_as_in_a_ci(self, project: Path) -> None:
        """Everything at once: a regression, an absolute limit that is kept, and a metric that is missing."""
        extra = '\n[[budget]]\nmetric = "gpu_context_switch_count"\nmax = 0\nowner = "vision team"\nreason = "alone"\n'
        file = budgets(project, 'max_regression = "3 %"', 'max = "20 ms"')
        file.write_text(file.read_text() + extra)
        summary = project / "summary.md"
        summary.write_text("before\n")
        slower = record_side(project, "slower", period_ms=11)
        files = ("--junit", "report.xml", "--markdown", "comment.md", "--json", "check.json")
        done = nitro(
            "check",
            *slower,
            "--baseline",
            "main",
            "--github",
            *files,
            cwd=project,
            code=1,
            environment={"GITHUB_STEP_SUMMARY": str(summary)},
        )
        report = etree.parse(project / "report.xml")
        etree.XMLSchema(etree.parse(SCHEMA)).assertValid(report)
        assert [(case.get("name"), [child.tag for child in case]) for case in report.iter("testcase")] == [
            ("iteration_period:p50 max_regression", ["failure"]),
            ("iteration_period:p50 max", []),
            ("gpu_context_switch_count max", ["error"]),
        ]
        annotations = [line for line in done.stdout.splitlines() if line.startswith("::")]
        assert [line.partition("::")[2].partition(",title")[0] for line in annotations] == [
            "error file=nitro.toml,line=2",
            "error file=nitro.toml,line=16",
        ]
        told = json.loads((project / "check.json").read_text())
        assert (told["outcome"], told["exit_code"], told["baseline"]) == ("failed", 1, "main")
        assert [entry["status"] for entry in told["judgements"]] == ["fail", "pass", "not_measured"]
        comment = (project / "comment.md").read_text(encoding="utf-8")
        assert summary.read_text(encoding="utf-8") == "before\n" + comment
        assert comment.startswith("<!-- nitro-analyze check -->\n# Check of slower")

    @pytest.mark.parametrize(
        ("file", "told"),
        [
            ("nodir/m.md", "there is no folder nodir"),
            ("nitro.toml", "this is the file with the budgets"),
            (".nitro/baselines/main/0001.json", "where the baselines are kept"),
            ("j.xml", "two outputs have this name"),
            (".", "this is a folder"),
        ],
    )
    def test_nothing_is_written_where_one_of_the_outputs_cannot_be(self, project: Path, file: str, told: str) -> None:
        budgets(project, 'max = "12 ms"')
        run = record(project / "run.sqlite")
        before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
        arguments = ("--baseline", "main", "--junit", "j.xml", "--markdown", file)
        assert told in sentence(nitro("check", run, *arguments, cwd=project, code=2))
        assert before == {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}

    def test_a_summary_that_cannot_be_written_is_a_warning_and_the_verdict_stays(self, project: Path) -> None:
        budgets(project, 'max = "5 ms"')
        missing = {"GITHUB_STEP_SUMMARY": str(project / "nodir" / "summary.md")}
        run = record(project / "run.sqlite")
        done = nitro("check", run, "--github", "--junit", "j.xml", cwd=project, code=1, environment=missing)
        assert "summary.md: the summary cannot be written" in done.stderr
        assert "is over the limit of" in " ".join(done.stdout.split())
        assert "::error file=nitro.toml,line=2" in done.stdout
        assert (project / "j.xml").is_file()

    def test_json_alone_on_standard_output(self, project: Path) -> None:
        run = record(project / "run.sqlite")
        done = nitro("check", run, "--baseline", "main", "--json", "-", "--github", cwd=project, code=0)
        assert json.loads(done.stdout)["outcome"] == "passed"
        assert done.stderr.startswith("::warning title=Nitro%3A iteration_period%3Ap50 inconclusive::")

    def test_the_inputs_stay_as_they_are_and_the_same_call_gives_the_same_files(self, project: Path) -> None:
        budgets(project, 'max_regression = "3 %"')
        same = record_side(project, "same")
        files = {path: sha256(path.read_bytes()).hexdigest() for path in project.rglob("*") if path.is_file()}
        made = []
        for _ in range(2):
            out = project / "out"
            out.mkdir()
            arguments = ("--junit", out / "a.xml", "--markdown", out / "a.md", "--json", out / "a.json")
            nitro("check", *same, "--baseline", "main", *arguments, cwd=project, code=0)
            made.append({path.name: path.read_bytes() for path in out.iterdir()})
            shutil.rmtree(out)
        assert made[0] == made[1]
        assert sorted(made[0]) == ["a.json", "a.md", "a.xml"]
        assert files == {path: sha256(path.read_bytes()).hexdigest() for path in project.rglob("*") if path.is_file()}

    def test_settings_of_the_project_are_used(self, project: Path) -> None:
        """Baseline, store, allowed reasons and facts from [check]; paths begin where the file stands."""
        (project / ".nitro").rename(project / "kept")
        head = (
            '[check]\nbaseline = "main"\nstore = "kept/baselines"\nallow = ["device"]\n[check.facts]\nmodel = "clip"\n'
        )
        budgets(project, 'max_regression = "3 %"', head=head)
        other = record_side(project, "other", device="Another GPU")
        elsewhere = project / "elsewhere"
        elsewhere.mkdir()
        done = nitro("check", *other, "--budgets", "../nitro.toml", "--json", "-", cwd=elsewhere, code=0)
        told = json.loads(done.stdout)
        assert told["allowed"] == ["device"]
        assert any(reason["key"] == "told" for reason in told["reasons"])


def test_energy_is_judged_where_a_power_log_follows_its_trace(tmp_path: Path) -> None:
    """30 W for half a second an iteration are 15 J; without the log the budget is no pass."""
    half, begin = 500_000_000, datetime(2026, 6, 1, tzinfo=timezone.utc)
    steps = [(number * half, number) for number in range(2, 14)]
    run = write_nsys_sqlite(
        tmp_path / "run.sqlite",
        trace(
            kernels=[kernel(at + 1000, at + 400_000_000, "gemm", correlation_id=number) for at, number in steps],
            api_calls=[call(at, at + 500, correlation_id=number) for at, number in steps],
            nvtx=[nvtx_range(at, at + 450_000_000, f"step {number}") for at, number in steps],
            capture=Capture(start_utc_ns=int(begin.timestamp()) * 10**9, duration_ns=8 * 10**9),
        ),
    )
    times = (begin + timedelta(milliseconds=50 * number) for number in range(160))
    rows = (f"{time:%Y/%m/%d %H:%M:%S}.{time.microsecond // 1000:03}, 0, 30.0 W, 90 %\n" for time in times)
    (tmp_path / "power.csv").write_text(
        "timestamp, index, power.draw [W], utilization.gpu [%]\n" + "".join(rows), encoding="utf-8"
    )
    (tmp_path / "nitro.toml").write_text(
        '[[budget]]\nmetric = "energy_per_iteration"\nmin = "14 J"\nmax = "16 J"\nowner = "a"\nreason = "b"\n'
    )
    done = nitro("check", run, "power.csv", "--json", "-", cwd=tmp_path, code=0)
    assert json.loads(done.stdout)["judgements"][0]["value"] == pytest.approx(15, rel=0.02)
    nitro("check", run, cwd=tmp_path, code=3)


class TestRealTraces:
    def test_the_sample_keeps_budgets_by_phase_and_metric(self, tmp_path: Path) -> None:
        (tmp_path / "nitro.toml").write_text(
            """
[check]
batch = 1

[[budget]]
metric = "throughput"
min = "100 /s"
owner = "vision team"
reason = "100 images a second"

[[budget]]
metric = "projection_mean_ns"
nvtx = "infer:# > vision"
max = "4 ms"
owner = "vision team"
reason = "the vision encoder's share of 10 ms"

[[budget]]
metric = "gpu_idle_by_cause"
by = "module_load"
max = "0 ms"
owner = "runtime team"
reason = "nothing is loaded in steady state"

[[budget]]
metric = "gpu_memory_peak"
by = "total"
max = "1 GiB"
owner = "vision team"
reason = "the board has 4 GB"
"""
        )
        done = nitro("check", SAMPLE, "--json", "-", cwd=tmp_path, code=0)
        judged = {entry["name"]: entry["value"] for entry in json.loads(done.stdout)["judgements"]}
        assert judged["throughput"] == pytest.approx(107.127, abs=1e-3)
        assert judged["gpu_memory_peak:total on GPU 0"] == 304265798
        assert judged["gpu_idle_by_cause:module_load on GPU 0"] == 0
        assert judged["projection_mean_ns in 'infer:# > vision'"] == pytest.approx(3.71e6, rel=1e-2)

    def test_a_planted_fault_breaks_the_budget_of_its_cause(self, tmp_path: Path) -> None:
        """Synchronisation after every two kernels: its idle time per iteration is over the budget."""
        (tmp_path / "nitro.toml").write_text(
            '[[budget]]\nmetric = "gpu_idle_by_cause"\nby = "synchronization"\nmax = "50 us"\n'
            'owner = "runtime team"\nreason = "the loop does not wait for the GPU"\n'
        )
        nitro("check", FAULTS / "none.sqlite.xz", cwd=tmp_path, code=0)
        nitro("check", FAULTS / "synchronization_blocking.sqlite.xz", cwd=tmp_path, code=1)

    def test_waiting_that_a_graph_never_had_and_only_some_runs_have_now_is_no_pass(self, tmp_path: Path) -> None:
        """As a graph the model never waits for memory management; eager it does so in some runs and not in all."""
        (tmp_path / "nitro.toml").write_text(
            '[[budget]]\nmetric = "gpu_idle_by_cause"\nby = "memory_management"\nmax_regression = "3 %"\n'
            'owner = "runtime team"\nreason = "no allocation in the loop"\n'
        )
        graph, eager = (sorted(PAIRS.glob(f"{name}_[123].sqlite.xz")) for name in ("graph", "eager"))
        allowed = ("--allow", "workload", "--allow", "capture", "--allow", "iteration_names")
        nitro("baseline", "save", "g", *graph, cwd=tmp_path, code=0)
        done = nitro("check", *eager, "--baseline", "g", *allowed, cwd=tmp_path, code=3)
        assert "a value is 0 or less in some runs and not in all" in " ".join(done.stdout.split())

    def test_a_real_capture_that_was_cut_is_no_pass(self, tmp_path: Path) -> None:
        content = lzma.decompress(SAMPLE.read_bytes())
        (tmp_path / "cut.sqlite").write_bytes(content[: len(content) // 2])
        budgets(tmp_path, 'max = "1 s"')
        nitro("check", tmp_path / "cut.sqlite", cwd=tmp_path, code=3)

    @pytest.mark.skipif(not TRACES.is_dir(), reason="needs real traces: set NITRO_TRACES")
    def test_one_real_run_against_another_is_inconclusive_and_another_gpu_is_refused(self, tmp_path: Path) -> None:
        before, after = sorted((TRACES / "nsys").glob("NERSC__*"))
        nitro("baseline", "save", "main", before, cwd=tmp_path, code=0)
        done = nitro("check", after, "--baseline", "main", "--json", "-", cwd=tmp_path, code=0)
        (judged,) = json.loads(done.stdout)["judgements"]
        assert judged["status"] == "inconclusive"
        nitro("check", SAMPLE, "--baseline", "main", cwd=tmp_path, code=4)
