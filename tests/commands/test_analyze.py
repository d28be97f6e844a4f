"""The default command through the real command line, on the sample trace that ships with the project."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

import recorded_runs

SAMPLE = Path(__file__).resolve().parents[2] / "examples" / "dual_encoder.sqlite.xz"
SECTIONS = (
    "SUMMARY",
    "DEVICE AND CAPTURE",
    "WINDOW",
    "FINDINGS",
    "WHERE THE TIME GOES",
    "ITERATIONS",
    "GPU LEVEL",
    "KERNELS",
)


def run(*arguments: str | Path, fails_with: int = 0) -> subprocess.CompletedProcess[str]:
    return recorded_runs.nitro(*arguments, code=fails_with)


def run_as_process(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nitro.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


@pytest.fixture(scope="module")
def overview() -> str:
    return run(SAMPLE).stdout


def test_the_overview_fits_100_columns_and_is_plain_in_a_pipe(overview: str) -> None:
    assert max(cell_len(line) for line in overview.splitlines()) <= 100
    assert "\x1b" not in overview
    assert [line for line in overview.splitlines() if line != line.rstrip()] == []


def test_the_overview_has_its_sections_in_order(overview: str) -> None:
    places = [overview.index(f"\n{section}\n") for section in SECTIONS]
    assert places == sorted(places)


def test_iterations_are_found_and_warm_up_is_named(overview: str) -> None:
    assert "NVTX ranges 'infer:#'" in overview
    assert "infer:0 (warm-up: " in overview


def test_slow_libraries_stay_out_of_the_default_run() -> None:
    code = (
        "import sys\nfrom nitro import cli\n"
        f"sys.argv = ['nitro-analyze', {str(SAMPLE)!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'scipy', 'altair', 'weasyprint', 'pandas', 'pyarrow'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_json_in_a_pipe_is_the_whole_answer() -> None:
    answer = json.loads(run_as_process(SAMPLE, "--json", "-").stdout)
    assert answer["format_version"] == 1
    assert answer["window"]["iteration_names"][0] == "infer:1"


def test_files_are_written_by_suffix_and_agree_with_each_other(tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    run(SAMPLE, "-o", tmp_path / "a.json", "-o", tmp_path / "a.md", "--csv", tables)
    answer = json.loads((tmp_path / "a.json").read_text())
    with (tables / "measurements.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["metric"] for row in rows] == [entry["metric"] for entry in answer["measurements"]]
    assert {path.stem for path in tables.iterdir()} == {"measurements", *(t["name"] for t in answer["tables"])}
    assert (tmp_path / "a.md").read_text().startswith("# dual\\_encoder.sqlite.xz\n")


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.json", "two.json"):
        run_as_process(SAMPLE, "-o", tmp_path / name)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_an_unknown_suffix_is_refused_before_any_work(tmp_path: Path) -> None:
    done = run(SAMPLE, "-o", tmp_path / "a.xyz", fails_with=2)
    assert "cannot tell the format" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_trace_is_never_an_output(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    trace.write_bytes(SAMPLE.read_bytes())
    assert "never written to" in run(trace, "-o", trace, fails_with=2).stderr
    assert trace.read_bytes() == SAMPLE.read_bytes()


def test_part_of_a_capture_can_be_chosen() -> None:
    answer = json.loads(run(SAMPLE, "--since", "0.3s", "--until", "320ms", "--json", "-").stdout)
    assert (answer["window"]["start_ns"], answer["window"]["end_ns"]) == (300_000_000, 320_000_000)


def test_the_name_of_the_iterations_can_be_given() -> None:
    answer = json.loads(run(SAMPLE, "--nvtx", "vision", "--json", "-").stdout)
    assert set(answer["window"]["iteration_names"]) == {"vision"}


def test_the_batch_gives_the_throughput() -> None:
    answer = json.loads(run(SAMPLE, "--batch", "4", "--json", "-").stdout)
    values = {entry["metric"]: entry["value"] for entry in answer["measurements"] if entry["by"] is None}
    assert values["throughput"] == pytest.approx(4 * values["iterations_per_s"])


def test_what_is_not_in_the_trace_is_said_with_what_is() -> None:
    assert "infer:#, preprocess, sync, text, vision" in run(SAMPLE, "--nvtx", "decode", fails_with=2).stderr
    assert "the trace has devices 0" in run(SAMPLE, "--device", "7", fails_with=2).stderr
