"""A trace with a power log beside it, through the command line: one analysis, or one sentence."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

import power_runs
import recorded_runs
from builders import write_nsys_sqlite
from power_logs import MS, START, S, log, run

FOLDER = Path(os.environ.get("NITRO_TRACES", "/nonexistent"))


def nitro(*arguments: str | Path) -> CompletedProcess[str]:
    return recorded_runs.nitro(*arguments, code=None)


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


@pytest.mark.parametrize("option", ["--clock-offset", "--log-interval", "--log-gpu"])
def test_an_option_about_logs_needs_one(trace_file: Path, option: str) -> None:
    assert "beside a trace; give one too" in refused(2, trace_file, option, "1s")


class TestSeveralGpus:
    """A log of two boards, 100 W and 300 W, beside a run that used the second one."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        slots = ["00000000:01:00.0", "00000000:41:00.0"]
        begin = datetime.fromtimestamp(power_runs.START / S, timezone.utc)
        moments = [begin + timedelta(milliseconds=20 * record) for record in range(power_runs.DURATION // (20 * MS))]
        rows = [
            f"{moment:%Y/%m/%d %H:%M:%S}.{moment.microsecond // 1000:03}, {number}, {slot}, {watts} W"
            for moment in moments
            for number, (slot, watts) in enumerate(zip(slots, (100, 300), strict=True))
        ]
        (tmp_path / "power.csv").write_text(
            "\n".join(["timestamp, index, pci.bus_id, power.draw.instant [W]", *rows, ""])
        )
        run = power_runs.run()
        devices = (replace(run.devices[0], pci_bus_id=slots[1]),)
        write_nsys_sqlite(tmp_path / "run.sqlite", replace(run, devices=devices))
        return tmp_path

    @pytest.mark.parametrize(
        ("options", "watts", "said"),
        [
            ([], 300, "the trace used GPU 1; the others are left out"),
            (["--log-gpu", "0"], 100, "GPU 0 was chosen; the others are left out"),
            (["--log-gpu", "01:00.0", "--log-gpu", "1"], 400, ""),
            (["--log-gpu", "all"], 400, ""),
        ],
    )
    def test_the_gpu_that_the_trace_used_counts_unless_others_are_chosen(
        self, folder: Path, options: list[str], watts: float, said: str
    ) -> None:
        given: tuple[str | Path, ...] = (folder / "run.sqlite", folder / "power.csv", *options)
        made = analysed(*given)
        assert value(made, "energy_per_iteration") == pytest.approx(watts / 2)
        assert said in "".join(made["evidence"][0]["notes"])
        assert said in " ".join(nitro(*given).stdout.split())
        (folder / "nitro.toml").write_text(
            f'[[budget]]\nmetric = "energy_per_iteration"\nmin = "{watts * 0.499} J"\nmax = "{watts * 0.501} J"\n'
            'owner = "a"\nreason = "b"\n'
        )
        recorded_runs.nitro("check", *given, cwd=folder)
        side = ("run.sqlite", "power.csv")
        done = recorded_runs.nitro("compare", "--before", *side, "--after", *side, *options, "--json", "-", cwd=folder)
        before = json.loads(done.stdout)["energy"]["before"][0]
        assert before["energy_per_iteration_j"]["value"] == pytest.approx(watts / 2)

    def test_a_gpu_that_the_log_does_not_have_is_refused(self, folder: Path) -> None:
        text = refused(2, folder / "run.sqlite", folder / "power.csv", "--log-gpu", "7")
        assert "power.csv: no GPU of this log is called 7; choose among GPU 0, GPU 1" in text

    def test_a_log_of_no_gpus_has_none_to_choose(self, trace_file: Path, tmp_path: Path) -> None:
        power = write_log(tmp_path / "power.csv")
        assert "--log-gpu is about a power log of nvidia-smi" in refused(2, trace_file, power, "--log-gpu", "0")


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
