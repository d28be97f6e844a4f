"""Capture bundles: a folder or an archive gives the same runs, and nothing leaves the private folder."""

from __future__ import annotations

import gc
import json
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

import power_logs
from builders import kernel, trace, write_nsys_sqlite
from nitro.analyzer import Evidence, Source, Trace, analyze, bundle, open_inputs, open_trace
from nitro.analyzer.bundle import MANIFEST
from nitro.errors import InputError, UsageError

LOG = "# nitro power log 1\nrealtime_ns,VDD_IN_mw\n" + "".join(
    f"{power_logs.START + n * 100 * power_logs.MS},{5000 + n}\n" for n in range(300)
)


def manifest(*runs: dict[str, Any], **more: Any) -> str:
    return json.dumps({"format": "nitro-bundle", "version": 1, "runs": runs} | more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle of two runs, the first with a power log, and facts."""
    made = tmp_path / "bundle"
    (made / "logs").mkdir(parents=True)
    write_nsys_sqlite(made / "one.sqlite", power_logs.run())
    write_nsys_sqlite(made / "two.sqlite", trace(kernels=[kernel(0, 10)]))
    (made / "logs" / "one.log").write_text(LOG)
    told = {"items_per_iteration": 4, "facts": {"power_mode": "MAXN", "precision": "fp16"}, "command": ["python3"]}
    runs = ({"trace": "one.sqlite", "beside": ["logs/one.log"]} | told, {"trace": "two.sqlite"})
    digests = {"one.sqlite": sha256((made / "one.sqlite").read_bytes()).hexdigest()}
    (made / MANIFEST).write_text(manifest(*runs, sha256=digests, recorded_by="somebody"))
    return made


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that temporary files go to."""
    made = tmp_path / "temporary"
    made.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    return made


def packed(folder: Path, target: Path, top: str = "", compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(target, "w", compression) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, top + str(path.relative_to(folder)))
    return target


PACKERS: dict[str, Callable[[Path, Path], Path]] = {
    "folder": lambda folder, _: folder,
    "zip": packed,
    "stored": lambda folder, target: packed(folder, target, compression=zipfile.ZIP_STORED),
    "lzma": lambda folder, target: packed(folder, target, compression=zipfile.ZIP_LZMA),
    "folder in zip": lambda folder, target: packed(folder, target, "bundle/"),
}


@pytest.mark.parametrize("how", PACKERS)
def test_a_bundle_stands_for_its_files(folder: Path, tmp_path: Path, private: Path, how: str) -> None:
    path = PACKERS[how](folder, tmp_path / "capture")
    first, second = open_inputs([path])
    (plain,) = open_inputs([folder / "one.sqlite", folder / "logs" / "one.log"])
    assert first.trace.source.file_name == "one.sqlite"
    assert [entry.source.file_name for entry in first.evidence] == ["one.log"]
    assert first.trace.source.sha256 == sha256((folder / "one.sqlite").read_bytes()).hexdigest()
    assert second.trace.source.file_name == "two.sqlite"
    assert (first.facts["power_mode"], second.facts) == ("MAXN", {})
    told, bare = (analyze(one.trace, *one.evidence, window="auto") for one in (first, plain))
    assert told.value("energy") == bare.value("energy") is not None
    # What the manifest says of the run is used, and not where the user says something else.
    assert told.value("energy_per_item") == pytest.approx(bare.value("energy_per_iteration") / 4)  # type: ignore[operator]
    assert bare.value("energy_per_item") is None
    again = analyze(first.trace, *first.evidence, batch=2)
    assert again.value("energy_per_item") == pytest.approx(bare.value("energy_per_iteration") / 2)  # type: ignore[operator]
    assert told.capture.options["power_mode"] == "MAXN"
    assert len(list(private.iterdir())) == (0 if how == "folder" else 1)


def test_what_was_unpacked_goes_when_nobody_needs_it(folder: Path, tmp_path: Path, private: Path) -> None:
    opened = open_inputs([packed(folder, tmp_path / "capture.zip")])
    traces = [one.trace for one in opened]
    del opened
    gc.collect()
    assert len(list(private.iterdir())) == 1
    assert len(traces[1].table_or_empty("kernels")) == 1
    del traces
    gc.collect()
    assert list(private.iterdir()) == []


def test_evidence_on_the_command_line_joins_the_last_run(folder: Path, tmp_path: Path) -> None:
    extra = tmp_path / "extra.log"
    extra.write_text(LOG)
    first, second = open_inputs([folder, extra])
    assert [len(first.evidence), len(second.evidence)] == [1, 1]


def test_a_single_trace_is_found_in_a_bundle_of_one_run(folder: Path) -> None:
    with pytest.raises(UsageError, match="holds 2 runs"):
        open_trace(folder)
    (folder / MANIFEST).write_text(manifest({"trace": "two.sqlite"}))
    assert open_trace(folder).source.file_name == "two.sqlite"


def test_a_folder_that_is_an_input_may_be_packed_too(folder: Path, tmp_path: Path) -> None:
    from nitro.analyzer.export import write_parquet

    write_parquet(open_trace(folder / "two.sqlite"), folder / "tables")
    (folder / MANIFEST).write_text(manifest({"trace": "tables"}))
    for path in (folder, packed(folder, tmp_path / "capture.zip")):
        assert len(open_trace(path).table_or_empty("kernels")) == 1


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_inputs([path])
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: "), sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is not understood"),
        ("[1]", "Expected `object`"),
        ("{", "is not understood"),
        ('{"version": 1}', "is not that of a bundle"),
        ('{"format": "nitro-bundle", "version": 2, "runs": "other"}', "version 2, and this Nitro reads up to 1"),
        ('{"format": "nitro-bundle", "version": 0, "runs": [{"trace": "one.sqlite"}]}', "a version from 1"),
        (manifest(), "at least one run"),
        (manifest({}), "missing required field `trace`"),
        (manifest({"trace": 5}), "$.runs[0].trace"),
        (manifest({"trace": "one.sqlite", "items_per_iteration": 0}), "at least 1"),
        (manifest({"trace": "one.sqlite", "facts": {"a": 1}}), "Expected `str`"),
        (manifest({"trace": "three.sqlite"}), "three.sqlite is named in its manifest.json and is not there"),
        (manifest({"trace": "one.sqlite"}, sha256={"one.sqlite": "0" * 64}), "its SHA-256 differs"),
        (manifest({"trace": "../bundle/one.sqlite"}), "lies outside of it"),
        (manifest({"trace": "/etc/passwd"}), "lies outside of it"),
        (manifest({"trace": "C:\\one.sqlite"}), "lies outside of it"),
        (manifest({"trace": "logs\\..\\..\\one"}), "lies outside of it"),
        (manifest({"trace": "."}), "lies outside of it"),
        (manifest({"trace": "a"}, more="x" * (1 << 20)), "larger than 1 MiB"),
        (manifest({"trace": ""}), "names '', which lies outside of it"),
        (manifest({"trace": "a\0\x1b[2J"}), r"names 'a\x00\x1b[2J', which lies outside of it"),
        (manifest({"trace": "one.sqlite"}, {"trace": "one.sqlite"}), "names one.sqlite twice"),
        (manifest({"trace": "one.sqlite", "beside": ["one.sqlite"]}), "names one.sqlite twice"),
        (manifest({"trace": "one.sqlite"})[:-1] + ', "x": ' + "[" * 100_000 + "]" * 100_000 + "}", "is not understood"),
    ],
)
@pytest.mark.parametrize("as_zip", [False, True])
def test_a_manifest_that_cannot_be_used(folder: Path, tmp_path: Path, as_zip: bool, text: str, expected: str) -> None:
    (folder / MANIFEST).write_text(text)
    assert expected in refused(packed(folder, tmp_path / "c.zip") if as_zip else folder)


def test_a_log_is_not_the_trace_of_a_run(folder: Path) -> None:
    (folder / MANIFEST).write_text(manifest({"trace": "logs/one.log"}))
    with pytest.raises(InputError, match=r"one\.log is named as the trace of a run, and is nitro-power-log data"):
        open_inputs([folder])


def test_a_trace_beside_a_trace_is_refused(folder: Path) -> None:
    (folder / MANIFEST).write_text(manifest({"trace": "one.sqlite", "beside": ["two.sqlite"]}))
    with pytest.raises(InputError, match=r"two\.sqlite is named beside the trace of a run, and is a trace itself"):
        open_inputs([folder])


def test_a_log_may_stand_beside_several_runs(folder: Path) -> None:
    beside = ["logs/one.log"]
    (folder / MANIFEST).write_text(
        manifest({"trace": "one.sqlite", "beside": beside}, {"trace": "two.sqlite", "beside": beside})
    )
    assert [len(run.evidence) for run in open_inputs([folder])] == [1, 1]


def test_a_manifest_as_tools_of_windows_write_it(folder: Path) -> None:
    digest = sha256((folder / "two.sqlite").read_bytes()).hexdigest().upper()
    text = manifest({"trace": "two.sqlite"}, sha256={"two.sqlite": digest})
    (folder / MANIFEST).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert open_trace(folder).source.sha256 == digest.lower()


@pytest.mark.parametrize("name", ["x" * 5000, "loop"])
def test_a_file_that_cannot_be_looked_up(folder: Path, name: str) -> None:
    (folder / "loop").symlink_to("loop")
    (folder / MANIFEST).write_text(manifest({"trace": name}))
    # Before or after Python 3.13, a loop of links cannot be followed, or leads to nothing.
    assert "in it cannot be read" in refused(folder) or "is not there" in refused(folder)


def test_a_link_out_of_the_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / MANIFEST).write_text(manifest({"trace": "link"}))
    assert "lies outside of it" in refused(folder)


def test_entries_of_an_archive_that_would_leave_the_private_folder(folder: Path, tmp_path: Path, private: Path) -> None:
    target = tmp_path / "c.zip"
    (folder / MANIFEST).write_text(manifest({"trace": "tables"}))
    packed(folder, target)
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr("tables/nitro-trace.json", "{}")
        archive.writestr("tables/../../../evil", "x")
    assert "lies outside of it" in refused(target)
    assert not list(tmp_path.rglob("evil"))
    gc.collect()
    assert list(private.iterdir()) == []


def test_a_link_in_an_archive(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "c.zip"
    (folder / MANIFEST).write_text(manifest({"trace": "link"}))
    packed(folder, target)
    with zipfile.ZipFile(target, "a") as archive:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    assert "is a link" in refused(target)


def test_an_archive_that_grows_beyond_reason(folder: Path, tmp_path: Path, private: Path) -> None:
    (folder / MANIFEST).write_text(manifest({"trace": "zeros"}))
    with (folder / "zeros").open("wb") as stream:
        stream.truncate(300 << 20)
    assert "which no recording does" in refused(packed(folder, tmp_path / "c.zip"))
    assert list(private.iterdir()) == []


def test_a_disk_that_is_too_small(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(folder, tmp_path / "c.zip")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    assert "set TMPDIR" in refused(path)


def test_a_damaged_or_locked_archive(folder: Path, tmp_path: Path) -> None:
    path = packed(folder, tmp_path / "c.zip")
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("two.sqlite").header_offset + 60
    for place in range(at, at + 40):
        data[place] ^= 0xFF
    path.write_bytes(bytes(data))
    assert "two.sqlite in it" in refused(path)
    locked = bytearray(packed(folder, tmp_path / "d.zip").read_bytes())
    # Bit 0 of the flags of an entry, in its own header and in the directory, says that it is encrypted.
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := locked.find(mark, at + 1)) >= 0:
            locked[at + flags] |= 1
    (tmp_path / "d.zip").write_bytes(bytes(locked))
    assert "without a password" in refused(tmp_path / "d.zip")


def test_an_archive_without_its_directory_is_no_bundle(folder: Path, tmp_path: Path) -> None:
    path = packed(folder, tmp_path / "c.zip")
    path.write_bytes(path.read_bytes()[:200])
    assert not bundle.is_bundle(path)
    assert "the zip archive is damaged" in refused(path)


@pytest.mark.parametrize("names", [[], ["one.sqlite"]])
def test_an_archive_without_a_manifest(folder: Path, tmp_path: Path, names: list[str]) -> None:
    path = tmp_path / "c.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.write(folder / name, name)
    assert "a zip archive without manifest.json" in refused(path)


def test_a_bundle_in_a_bundle(folder: Path) -> None:
    packed(folder, folder / "inner.zip")
    (folder / MANIFEST).write_text(manifest({"trace": "inner.zip"}))
    with pytest.raises(InputError, match="which is not read inside of another"):
        open_inputs([folder])


def test_what_is_wrong_in_an_archive_is_told_by_its_name(folder: Path, tmp_path: Path, private: Path) -> None:
    (folder / "two.sqlite").write_text("nothing that anybody knows")
    sentence = refused(packed(folder, tmp_path / "c.zip"))
    assert sentence.startswith(f"{tmp_path / 'c.zip'}: two.sqlite: not a SQLite file")
    assert str(private) not in sentence


def test_reports_are_exported_by_who_can(tmp_path: Path, private: Path) -> None:
    made = write_nsys_sqlite(tmp_path / "made.sqlite", trace(kernels=[kernel(0, 10)]))
    report = tmp_path / "run.bin"
    report.write_bytes(b"NVIDIA Tegra Profiler Report 2025@3@2@474")
    asked: list[Path] = []

    def export(path: Path, folder: Path) -> tuple[Path, str]:
        asked.append(path)
        target = folder / "report.sqlite"
        target.write_bytes(made.read_bytes())
        return target, "nsys 2025.3.2"

    (opened,) = open_inputs([report], export)
    assert asked == [report]
    assert opened.paths == (report,)
    assert opened.trace.source.file_name == "run.bin"
    assert opened.trace.source.size_bytes == report.stat().st_size
    assert any("nsys 2025.3.2" in note for note in opened.trace.notes)
    assert len(opened.trace.table_or_empty("kernels")) == 1
    del opened
    gc.collect()
    assert list(private.iterdir()) == []
    with pytest.raises(InputError, match="nsys export --type sqlite"):
        open_inputs([report])


def test_an_export_that_is_none_is_told_by_the_name_of_its_report(tmp_path: Path, private: Path) -> None:
    report = tmp_path / "run.nsys-rep"
    report.write_bytes(b"NVIDIA Tegra Profiler Report 2025@3@2@474")

    def export(_: Path, folder: Path) -> tuple[Path, str]:
        (folder / "report.sqlite").write_text("hello")
        return folder / "report.sqlite", "nsys 2025.3.2"

    with pytest.raises(
        InputError, match=r"run\.nsys-rep: what nsys 2025\.3\.2 exported of it: not a SQLite file"
    ) as caught:
        open_inputs([report], export)
    assert str(private) not in str(caught.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile(Evidence):
    """Evidence that can stand alone."""

    trace: Trace

    def as_trace(self) -> Trace | None:
        return self.trace


def test_a_profile_may_be_the_trace_of_a_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nitro.analyzer import opening

    profile = Profile(source=Source("p", "profile"), records=1, trace=trace(kernels=[kernel(0, 5)]))
    real = opening.open_input

    def opened(path: Path) -> Trace | Evidence:
        return profile if path.name == "p" else real(path)

    monkeypatch.setattr(opening, "open_input", opened)
    (folder / "p").write_text("a profile")
    (folder / MANIFEST).write_text(manifest({"trace": "p", "beside": ["logs/one.log"]}, {"trace": "two.sqlite"}))
    first, second = open_inputs([folder])
    assert len(first.trace.table_or_empty("kernels")) == 1
    assert len(first.evidence) == 1
    assert second.trace.source.file_name == "two.sqlite"
