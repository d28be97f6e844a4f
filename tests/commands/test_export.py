"""`nitro-analyze export` through the command line: files, or one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import power_logs
import recorded_runs
from builders import call, kernel, trace, write_nsys_sqlite
from nitro.analyzer import open_trace

LOG = "# nitro power log 1\nrealtime_ns,VDD_IN_mw\n"


def export(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return recorded_runs.nitro("export", *arguments, code=None)


def refused(code: int, *arguments: str | Path) -> str:
    done = export(*arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.fixture
def run(tmp_path: Path) -> Path:
    built = trace(kernels=[kernel(300, 700, "k", correlation_id=1)], api_calls=[call(100, 200, correlation_id=1)])
    return write_nsys_sqlite(tmp_path / "run.sqlite", built)


def test_both_outputs_at_once(run: Path, tmp_path: Path) -> None:
    before = run.read_bytes()
    file, folder = tmp_path / "out.pftrace", tmp_path / "tables"
    done = export(run, "--perfetto", file, "--parquet", folder)
    assert done.returncode == 0, done.stderr
    assert f"{file}: 2 slices, 1 flows, 0 samples" in done.stderr
    assert f"{folder}: 2 tables, 2 rows" in done.stderr
    assert file.read_bytes()[0] == 0x0A
    assert open_trace(folder).table_or_empty("kernels").equals(open_trace(run).table_or_empty("kernels"))
    assert run.read_bytes() == before
    assert {entry.name for entry in tmp_path.iterdir()} == {"run.sqlite", "out.pftrace", "tables"}


def test_the_export_is_an_input_of_the_export(run: Path, tmp_path: Path) -> None:
    """In two processes, whose sets have different orders."""
    tables = tmp_path / "tables"
    for words in (
        (run, "--perfetto", tmp_path / "a.pftrace", "--parquet", tables),
        (tables, "--perfetto", "b.pftrace"),
    ):
        subprocess.run([sys.executable, "-m", "nitro.cli", "export", *map(str, words)], cwd=tmp_path, check=True)
    assert (tmp_path / "a.pftrace").read_bytes() == (tmp_path / "b.pftrace").read_bytes()


def test_a_power_log_beside_the_trace_becomes_counters(tmp_path: Path) -> None:
    run = write_nsys_sqlite(tmp_path / "run.sqlite", power_logs.run())
    log = tmp_path / "power.csv"
    log.write_text(LOG + "".join(f"{power_logs.START + n * 100 * power_logs.MS},{5000 + n}\n" for n in range(300)))
    done = export(run, log, "--clock-offset", "0", "--perfetto", tmp_path / "out.pftrace")
    assert done.returncode == 0, done.stderr
    # Ten records a second, from the first range of the trace to the end of the last one.
    ranges = open_trace(run).table_or_empty("nvtx_events")
    first, last = min(ranges["start_ns"].to_list()), max(ranges["end_ns"].to_list())
    inside = sum(first <= n * 100 * power_logs.MS <= last for n in range(300))
    assert f"{inside} samples" in done.stderr
    assert b"VDD_IN" in (tmp_path / "out.pftrace").read_bytes()


def test_what_cannot_be_is_one_sentence(run: Path, tmp_path: Path) -> None:
    (tmp_path / "a_file").write_text("mine")
    assert "nothing to write" in refused(2, run)
    assert "this is a folder" in refused(2, run, "--perfetto", tmp_path)
    assert "never written to" in refused(2, run, "--perfetto", run)
    assert "holds other files" in refused(2, run, "--parquet", tmp_path)
    assert "cannot be written" in refused(2, run, "--perfetto", tmp_path / "no" / "out.pftrace")
    assert "cannot be written" in refused(2, run, "--parquet", tmp_path / "a_file" / "tables")
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "manifest.json").write_text("{}")
    assert "lies in the input" in refused(2, tmp_path / "exported", "--perfetto", tmp_path / "exported" / "out.pftrace")
    assert "give one too" in refused(2, run, "--perfetto", tmp_path / "a", "--clock-offset", "1s")
    other = write_nsys_sqlite(tmp_path / "other.sqlite", trace(kernels=[(0, 9)]))
    assert "takes one trace" in refused(2, run, other, "--perfetto", tmp_path / "a")
    assert refused(3, tmp_path / "none.sqlite", "--perfetto", tmp_path / "a")
    log = tmp_path / "power.csv"
    log.write_text(LOG + "".join(f"{1788249045000000000 + n * 10**8},5000\n" for n in range(20)))
    assert "Parquet holds the tables of the trace alone" in refused(2, run, log, "--parquet", tmp_path / "tables")
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "tables").exists()
