"""A trace with a power log beside it, through the command line: one analysis, or one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import write_nsys_sqlite
from power_logs import MS, START, S, log, run

FOLDER = Path(os.environ.get("NITRO_TRACES", "/nonexistent"))


def nitro(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nitro.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def analysed(*arguments: str | Path) -> dict[str, Any]:
    done = nitro(*arguments, "--json", "-")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refused(code: int, *arguments: str | Path) -> str:
    done = nitro(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


def write_log(path: Path, *, first_ns: int = START) -> Path:
    """Write the power log of the run in the format of Nitro's collector."""
    made = log(20 * MS)
    lines = ["# nitro power log 1", "realtime_ns,VDD_IN_mw,VDD_SOC_mw"]
    for time, watts in zip((made.times_ns - START + first_ns).tolist(), made.total_w.tolist(), strict=True):
        lines.append(f"{time},{watts * 1000:.0f},{watts * 250:.0f}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def trace_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.sqlite"
    write_nsys_sqlite(path, run())
    return path


def value(analysis: dict[str, Any], metric: str) -> float | None:
    found = [entry["value"] for entry in analysis["measurements"] if entry["metric"] == metric]
    return found[0] if found else None


def test_a_trace_and_a_log_make_one_analysis_in_either_order(trace_file: Path, tmp_path: Path) -> None:
    power = write_log(tmp_path / "no suffix that says anything")
    first = analysed(trace_file, power, "--batch", "2")
    assert first == analysed(power, trace_file, "--batch", "2")
    energy = value(first, "energy")
    assert energy is not None
    assert value(first, "energy_per_item") == pytest.approx(energy / 16)
    entry = first["evidence"][0]
    assert (entry["kind"], entry["source"]["format"], entry["left_out"]) == ("power", "nitro-power-log", 0)
    assert entry["placement"]["method"] in ("stamps", "edges")


def test_the_files_are_told_apart_by_their_digests(trace_file: Path, tmp_path: Path) -> None:
    power = write_log(tmp_path / "power.csv")
    out = tmp_path / "out.json"
    assert nitro(trace_file, power, "-o", out).returncode == 0
    made = json.loads(out.read_text())
    assert len({made["source"]["sha256"], made["evidence"][0]["source"]["sha256"]}) == 2


def test_each_log_belongs_to_the_trace_before_it(trace_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "second.sqlite"
    other.write_bytes(trace_file.read_bytes())
    power = write_log(tmp_path / "power.csv")
    report = tmp_path / "report.md"
    assert nitro(trace_file, other, power, "-o", report).returncode == 0
    text = report.read_text()
    assert text.index("second.sqlite") < text.index("power.csv")


def test_a_log_of_another_run_is_refused_with_both_spans(trace_file: Path, tmp_path: Path) -> None:
    power = write_log(tmp_path / "power.csv", first_ns=START + 2400 * S)
    text = refused(3, trace_file, power)
    assert "2026-04-19 05:32:29 to 2026-04-19 05:32:58 UTC" in text
    assert "2026-04-19 04:52:29 to 2026-04-19 04:52:" in text
    moved = analysed(trace_file, power, "--clock-offset", "-2400s")
    assert value(moved, "energy") == value(
        analysed(trace_file, write_log(tmp_path / "right.csv"), "--clock-offset", "0"), "energy"
    )


def test_a_log_alone_is_refused(tmp_path: Path) -> None:
    assert "belongs beside a trace" in refused(3, write_log(tmp_path / "power.csv"))


def test_a_file_given_twice_is_refused(trace_file: Path, tmp_path: Path) -> None:
    power = write_log(tmp_path / "power.csv")
    assert "given twice" in refused(2, trace_file, power, power)


@pytest.mark.parametrize("option", ["--clock-offset", "--log-interval"])
def test_an_option_about_logs_needs_one(trace_file: Path, option: str) -> None:
    assert "beside the trace; give one too" in refused(2, trace_file, option, "1s")


def test_an_output_must_not_be_the_log(trace_file: Path, tmp_path: Path) -> None:
    power = write_log(tmp_path / "power.json")
    before = power.read_bytes()
    refused(2, trace_file, power, "-o", power)
    assert power.read_bytes() == before


def test_a_log_without_times_needs_its_place_and_interval(trace_file: Path, tmp_path: Path) -> None:
    line = "RAM 1/2MB CPU [1%@102] POM_5V_IN 5000/5000\n"
    power = tmp_path / "nano.log"
    power.write_text(line * 300)
    assert "no record carries a time" in refused(3, trace_file, power)
    made = analysed(trace_file, power, "--clock-offset", "0", "--log-interval", "100ms")
    assert made["evidence"][0]["placement"]["end_ns"] == 299 * 100 * MS
    assert value(made, "energy") == pytest.approx(5.0 * 16)
    assert "longer than nothing" in refused(2, trace_file, power, "--clock-offset", "0", "--log-interval", "0")


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs real traces: set NITRO_TRACES")
def test_the_pair_of_the_orin_nano_is_38_minutes_apart() -> None:
    trace = next((FOLDER / "nsys").glob("hokwangchoi*"))
    power = next((FOLDER / "tegrastats").glob("hokwangchoi*.raw"))
    text = refused(3, trace, power)
    assert "2026-04-19 05:31:10 to 2026-04-19 05:32:22 UTC" in text
    assert "2026-04-19 04:52:29 to 2026-04-19 04:52:37 UTC" in text
    assert "38.6 min apart" in text
    made = analysed(trace, power, "--clock-offset", "-2321s")
    records = [entry["count"] for entry in made["measurements"] if entry["metric"] == "energy"]
    assert np.all(np.array(records) > 10)
