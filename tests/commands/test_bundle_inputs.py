"""A capture bundle is a run for every command that takes traces."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import power_logs
import recorded_runs
from builders import write_nsys_sqlite

LOG = "# nitro power log 1\nrealtime_ns,VDD_IN_mw\n"


def nitro(*arguments: str | Path, cwd: Path) -> CompletedProcess[str]:
    return recorded_runs.nitro(*arguments, cwd=cwd, code=None)


@pytest.fixture(params=["folder", "zip"])
def bundle(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path / "capture"
    folder.mkdir()
    write_nsys_sqlite(folder / "run.sqlite", power_logs.run())
    records = (f"{power_logs.START + n * 100 * power_logs.MS},{5000 + n}\n" for n in range(300))
    (folder / "power.csv").write_text(LOG + "".join(records))
    run = {"trace": "run.sqlite", "beside": ["power.csv"], "items_per_iteration": 4, "facts": {"precision": "fp16"}}
    (folder / "manifest.json").write_text(json.dumps({"format": "nitro-bundle", "version": 1, "runs": [run]}))
    if request.param == "folder":
        return folder
    with zipfile.ZipFile(tmp_path / "capture.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    return tmp_path / "capture.zip"


def test_analyze(bundle: Path, tmp_path: Path) -> None:
    done = nitro(bundle, "--json", "-", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    known = {entry["metric"]: entry["value"] for entry in made["measurements"]}
    assert known["energy_per_item"] == pytest.approx(known["energy_per_iteration"] / 4)
    assert made["source"]["file_name"] == "run.sqlite"
    assert made["evidence"][0]["source"]["file_name"] == "power.csv"
    assert made["capture"]["options"]["precision"] == "fp16"


def test_stats(bundle: Path, tmp_path: Path) -> None:
    done = nitro("stats", bundle, "-r", "cuda_gpu_kern_sum", "--format", "csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "vision" in done.stdout


def test_export(bundle: Path, tmp_path: Path) -> None:
    done = nitro("export", bundle, "--perfetto", tmp_path / "out.pftrace", "--parquet", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert " 0 samples" not in done.stderr
    assert nitro(tmp_path / "out", cwd=tmp_path).returncode == 0


def test_compare(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    write_nsys_sqlite(other, power_logs.run())
    done = nitro("compare", "--before", bundle, "--after", other, "--allow", "duplicate_runs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "run.sqlite → other.sqlite" in done.stdout


def test_check(bundle: Path, tmp_path: Path) -> None:
    for least, code in (("1 J", 1), ("1000 J", 0)):
        budget = f'[[budget]]\nmetric = "energy_per_item"\nmax = "{least}"\nowner = "us"\nreason = "a test"\n'
        (tmp_path / "nitro.toml").write_text(budget)
        done = nitro("check", bundle, cwd=tmp_path)
        assert done.returncode == code, (done.stdout, done.stderr)


def test_redaction_takes_its_traces_one_by_one(bundle: Path, tmp_path: Path) -> None:
    done = nitro("redact", bundle, "-o", tmp_path / "public.sqlite", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "this is a capture bundle; redact each of its traces" in done.stderr
    assert not (tmp_path / "public.sqlite").exists()
