"""Reports of nsys are exported by an nsys that is new enough; what is wrong otherwise is told in one sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nitro.collectors import nsys
from nitro.errors import ToolError

REPORT = b"NVIDIA Tegra Profiler Report 2025@3@2@474-253236389321v0." + bytes(range(256)) * 4
STREAM = b"U3w[END]NVIDIA Nsight Systems Stream 2025.3.2.474-253236389321v0!" + bytes(range(256)) * 4
# An nsys that answers as a real one does; `export` writes what it was given into the file it was told to write.
PROGRAM = """#!{python}
import sys
if sys.argv[1] == "--version":
    print("NVIDIA Nsight Systems version {version}-1234v0")
elif sys.argv[1] == "export" and not {fails}:
    target = next(word for word in sys.argv if word.startswith("--output=")).partition("=")[2]
    open(target, "w").write(" ".join(sys.argv[1:]))
else:
    print("Processing [50%]\\rProcessing [100%]\\nExportation error: bad section")
    sys.exit({fails})
"""
# The real one writes into the stream that it reads, too.
IMPORTER = """#!{python}
import sys
open(sys.argv[2], "a").write("read")
open(sys.argv[4], "w").write("imported")
"""


def program(path: Path, text: str, version: str = "", fails: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.format(python=sys.executable, version=version, fails=fails))
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No nsys anywhere, whatever is installed on the machine that runs the tests."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("NSYS", raising=False)
    monkeypatch.delenv("QDSTRM_IMPORTER", raising=False)
    monkeypatch.setattr(nsys, "_PLACES", (str(tmp_path / "opt" / "*" / "nsys"),))


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "traces" / "run.nsys-rep"
    path.parent.mkdir()
    path.write_bytes(REPORT)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "private"
    made.mkdir()
    return made


def refused(report: Path, folder: Path) -> str:
    with pytest.raises(ToolError) as caught:
        nsys.export_sqlite(report, folder)
    sentence = str(caught.value)
    assert sentence.startswith(f"{report}: ")
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def test_the_version_that_wrote_a_report_and_the_way_out_are_told(report: Path, folder: Path) -> None:
    sentence = refused(report, folder)
    assert "a report of nsys 2025.3.2, and no nsys is found here" in sentence
    assert "install Nsight Systems 2025.3 or newer" in sentence
    assert "`nsys export --type sqlite run.nsys-rep`" in sentence


def test_a_report_of_the_nsys_in_nsight_compute_has_its_version_at_the_end(folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "run.nsys-rep"
    report.write_bytes(
        b"NVIDIA Tegra Profiler Report 36398880.\n" + bytes(9000) + b"*\x02vm2\n2025.3.1.0:\x0836398880\xa2\x01"
    )
    assert "a report of nsys 2025.3.1, and" in refused(report, folder)


def test_a_report_that_names_no_version_is_for_any_nsys(folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "run.qdrep"
    report.write_bytes(b"NVIDIA Tegra Profiler Report \x00\x01\x02")
    assert "this is an nsys report, and no nsys is found here" in refused(report, folder)
    program(tmp_path / "bin" / "nsys", PROGRAM, "2021.1.1.1")
    assert nsys.export_sqlite(report, folder)[1] == "nsys 2021.1.1"


def test_an_nsys_that_is_too_old_is_not_started_on_it(report: Path, folder: Path, tmp_path: Path) -> None:
    program(tmp_path / "bin" / "nsys", PROGRAM, "2023.4.4.54")
    newest = program(tmp_path / "opt" / "b" / "nsys", PROGRAM, "2025.2.9.1")
    assert f"the newest nsys found here is 2025.2.9 ({newest})" in refused(report, folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("version", ["2025.3.0.1", "2025.4.1.1", "2026.1.1.1"])
def test_the_same_release_or_a_newer_one_reads_it(report: Path, folder: Path, tmp_path: Path, version: str) -> None:
    program(tmp_path / "bin" / "nsys", PROGRAM, "2024.6.2.1")
    program(tmp_path / "opt" / "a" / "nsys", PROGRAM, version)
    exported, tool = nsys.export_sqlite(report, folder)
    assert exported.parent == folder
    assert exported.read_text().startswith("export --type=sqlite")
    assert version.startswith(tool.removeprefix("nsys "))
    assert list(report.parent.iterdir()) == [report]
    assert report.read_bytes() == REPORT


def test_the_variable_comes_before_the_path(
    report: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin" / "nsys", PROGRAM, "2026.1.1.1")
    monkeypatch.setenv("NSYS", str(program(tmp_path / "mine", PROGRAM, "2025.5.1.1")))
    assert nsys.export_sqlite(report, folder)[1] == "nsys 2025.5.1"


def test_a_program_that_does_not_answer_is_no_nsys(report: Path, folder: Path, tmp_path: Path) -> None:
    program(tmp_path / "bin" / "nsys", "#!{python}\nprint('a wrapper without the program')\n")
    program(tmp_path / "opt" / "a" / "nsys", "no program at all")
    assert "no nsys is found here" in refused(report, folder)


def test_the_last_words_of_an_nsys_that_fails_are_told(report: Path, folder: Path, tmp_path: Path) -> None:
    program(tmp_path / "bin" / "nsys", PROGRAM, "2025.3.2.1", fails=3)
    assert "nsys could not convert it (exit code 3: Exportation error: bad section)" in refused(report, folder)


def test_a_stream_is_imported_by_the_program_beside_nsys(folder: Path, tmp_path: Path) -> None:
    stream = tmp_path / "run.qdstrm"
    stream.write_bytes(STREAM)
    found = program(tmp_path / "opt" / "target-linux-x64" / "nsys", PROGRAM, "2025.3.2.1")
    assert f"the installation of {found} has no QdstrmImporter" in refused(stream, _empty(folder))
    program(tmp_path / "opt" / "host-linux-x64" / "QdstrmImporter", IMPORTER)
    exported, _ = nsys.export_sqlite(stream, _empty(folder))
    assert exported.read_text().endswith(str(folder / "imported.nsys-rep"))
    assert stream.read_bytes() == STREAM


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder)
    folder.mkdir()
    return folder


class TestRealNsys:
    """With the nsys of this machine, if it has one: a report of a program that uses no GPU."""

    @pytest.fixture
    def real(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.undo()
        found = next(nsys.installed(), None)
        if found is None:
            pytest.skip("no nsys here (NSYS, PATH, /opt/nvidia, /usr/local/cuda)")
        base = tmp_path / "real"
        options = ["--trace=nvtx", "--sample=none", "--cpuctxsw=none", f"--output={base}", "--force-overwrite=true"]
        subprocess.run([found.path, "profile", *options, sys.executable, "-c", ""], capture_output=True, check=False)
        made = [path for path in (base.with_suffix(".nsys-rep"), base.with_suffix(".qdstrm")) if path.exists()]
        if not made:
            pytest.skip(f"{found.name} records nothing on this machine")
        return made[0]

    def analysed(self, path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nitro.cli", str(path)]
        environment = os.environ | variables
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    def test_its_reports_are_inputs(self, real: Path, tmp_path: Path) -> None:
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        before = real.read_bytes()
        done = self.analysed(real, TMPDIR=str(temporary))
        assert done.returncode == 0, done.stderr
        assert real.name in done.stdout
        assert "was exported to SQLite with nsys" in done.stdout
        assert list(temporary.iterdir()) == []
        assert real.read_bytes() == before

    def test_a_report_of_a_newer_one_is_refused(self, real: Path) -> None:
        data = real.read_bytes()
        later = real.with_name("later")
        year = b"2099"
        for mark in (b"Profiler Report ", b"Systems Stream "):
            at = data.find(mark, 0, 600)
            if at >= 0:
                data = data[: at + len(mark)] + year + data[at + len(mark) + 4 :]
        later.write_bytes(data)
        done = self.analysed(later)
        assert done.returncode == 5, done.stderr
        assert "install Nsight Systems 2099." in done.stderr

    def test_half_a_report_is_refused_in_its_words(self, real: Path) -> None:
        half = real.with_name("half")
        half.write_bytes(real.read_bytes()[: real.stat().st_size // 2])
        done = self.analysed(half)
        assert done.returncode == 5
        assert "could not convert it (exit code" in done.stderr
        assert done.stderr.count("\n") == 1
