"""Bad input through the real command line: one sentence that names the file, exit 3, and nothing written anywhere."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import zstandard

import recorded_runs
from builders import Schema, call, gpu, kernel, nvtx_range, on_thread, operation, sample, trace, write_nsys_sqlite
from nitro.analyzer import Capture, Trace, analyze, open_trace
from nitro.errors import InputError
from nitro.reports.output import json_bytes, print_overview

TIMEOUT_S = 60


def small_trace() -> Trace:
    return trace(
        kernels=[kernel(at, at + 50, f"kernel_{at % 300}", correlation_id=at) for at in range(100, 3100, 100)],
        memcpys=[operation(20, 40)],
        api_calls=[call(at - 40, at - 20, correlation_id=at) for at in range(100, 3100, 100)],
        nvtx=[nvtx_range(at, at + 300, f"step {at}") for at in range(0, 3000, 300)],
        os_calls=[on_thread(10, 20)],
    )


def described_trace() -> Trace:
    """A trace with all that an export says about the machine and the session, and with GPU metrics."""
    facts: dict[str, Any] = {"sm_count": 8, "sm_clock_hz": 10**9, "memory_bytes": 10**10, "compute_capability": "8.7"}
    return trace(
        kernels=[kernel(at, at + 50) for at in range(100, 3100, 100)],
        gpu_metric_samples=[sample(at, name, 50) for at in range(0, 4000, 100) for name in ("sm_active", "gr_active")],
        devices=[gpu(0, memory_bandwidth_bytes_per_s=10**11, max_warps_per_sm=48, is_integrated=False, **facts)],
        capture=Capture(duration_ns=4000, start_utc_ns=10**18),
    )


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A small export, alone in a folder of its own."""
    folder = tmp_path / "traces"
    folder.mkdir()
    return write_nsys_sqlite(folder / "good.sqlite", small_trace())


def nitro(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return recorded_runs.nitro(*arguments, cwd=cwd, code=None)


def nitro_in_time(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, which is ended where it reads on and on."""
    command = [sys.executable, "-m", "nitro.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def contents(folder: Path) -> dict[str, tuple[int, int, int, str]]:
    """Return size, times and content of everything in a folder."""
    made = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        is_small_file = path.is_file() and facts.st_size < 1 << 24
        content = sha256(path.read_bytes()).hexdigest() if is_small_file and os.access(path, os.R_OK) else ""
        made[str(path.relative_to(folder))] = (facts.st_size, facts.st_mtime_ns, facts.st_ino, content)
    return made


def refused(path: Path) -> str:
    """Analyse a file that cannot be read; check how that is told, and return the sentence."""
    before = contents(path.parent)
    done = nitro(path)
    assert done.returncode == 3, (done.returncode, done.stderr)
    assert done.stdout == ""
    assert contents(path.parent) == before
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"nitro-analyze: {path}: ")
    assert lines[0].endswith(".")
    return lines[0].removeprefix(f"nitro-analyze: {path}: ")


def accepted(path: Path) -> str:
    """Analyse a file that can be read, and return what is printed."""
    before = contents(path.parent)
    done = nitro(path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert contents(path.parent) == before
    return done.stdout


def outcome(path: Path) -> str | None:
    """Analyse in this process, where many files are tried: the sentence of the error, or None where all is well.

    `nitro.cli` prints an InputError and exits with 3; whatever else is raised would be a traceback, and fails here.
    """
    try:
        analyze(open_trace(path))
    except InputError as error:
        sentence = str(error)
    else:
        return None
    assert sentence.startswith(f"{path}: ")
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence.removeprefix(f"{path}: ")


def changed(path: Path, *statements: str) -> Path:
    """Change an export by SQL."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)
    return path


class TestNotATrace:
    def test_an_empty_file(self, tmp_path: Path) -> None:
        path = tmp_path / "empty.sqlite"
        path.touch()
        assert "the file is empty" in refused(path)

    def test_a_pointer_of_git_lfs(self, tmp_path: Path) -> None:
        path = tmp_path / "pointer.sqlite"
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
        assert "run `git lfs pull` first" in refused(path)

    @pytest.mark.parametrize("name", ["run.nsys-rep", "run.sqlite", "run"])
    def test_a_report_where_nothing_may_export_it(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        path.write_bytes(b"\x08\x01NVIDIA Tegra Profiler Report\x00" + bytes(range(256)) * 40)
        with pytest.raises(InputError, match=f"nsys export --type sqlite {name}"):
            open_trace(path)

    @pytest.mark.parametrize("content", [b"hello", b"\x00" * 4096, "한국어".encode() * 100, os.urandom(4096)])
    def test_a_file_of_another_kind(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "other.sqlite"
        path.write_bytes(content)
        assert "not a SQLite file" in refused(path)

    def test_a_table_made_from_a_log(self, tmp_path: Path) -> None:
        path = tmp_path / "power.csv"
        path.write_text("t_ms,ram_mb_used,gpu_pct\n0,519,0\n")
        sentence = refused(path)
        assert 'begins with "t_ms,ram_mb_used,gpu_pct"' in sentence
        assert "a log as its tool wrote it, not a table made from one" in sentence

    def test_sqlite_of_another_program(self, tmp_path: Path) -> None:
        path = changed(tmp_path / "other.sqlite", "create table users (name text)", "create table orders (id int)")
        assert "not an nsys export (it holds orders, users)" in refused(path)

    def test_sqlite_without_tables(self, tmp_path: Path) -> None:
        path = changed(tmp_path / "other.sqlite", "create table t (a)", "drop table t")
        assert "it holds no tables" in refused(path)

    def test_a_folder(self, tmp_path: Path) -> None:
        path = tmp_path / "folder"
        path.mkdir()
        assert "this is a directory" in refused(path)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        assert "no such file" in refused(tmp_path / "missing.sqlite")

    def test_a_link_to_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "link.sqlite"
        path.symlink_to(tmp_path / "gone.sqlite")
        assert "no such file" in refused(path)

    def test_a_file_below_a_file(self, good: Path) -> None:
        done = nitro(good / "trace.sqlite")
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.count("\n") == 1

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_file_without_permission(self, good: Path) -> None:
        good.chmod(0)
        assert "cannot be read (Permission denied)" in refused(good)

    def test_a_pipe(self, tmp_path: Path) -> None:
        path = tmp_path / "pipe.sqlite"
        os.mkfifo(path)
        assert "not a regular file" in refused(path)

    def test_a_device(self) -> None:
        done = nitro_in_time("/dev/zero")
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.count("\n") == 1


class TestDamaged:
    @pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9, 0.999])
    def test_a_database_that_was_cut(self, good: Path, share: float) -> None:
        content = good.read_bytes()
        good.write_bytes(content[: int(len(content) * share)])
        assert "is cut" in refused(good)

    @pytest.mark.parametrize("size", [1, 16, 50, 99])
    def test_a_database_that_was_cut_inside_its_header(self, good: Path, size: int) -> None:
        good.write_bytes(good.read_bytes()[:size])
        assert refused(good)

    def test_a_database_whose_pages_are_gone(self, good: Path) -> None:
        content = good.read_bytes()
        good.write_bytes(content[:100] + b"\xff" * (len(content) - 100))
        assert "damaged" in refused(good)

    @pytest.mark.parametrize("kind", ["", ".xz"])
    @pytest.mark.parametrize("seed", range(40))
    def test_random_damage_is_survived_or_told(self, good: Path, seed: int, kind: str) -> None:
        chance = random.Random(seed)
        content = bytearray(good.read_bytes())
        for _ in range(chance.choice([1, 3, 20, 200])):
            content[chance.randrange(16, len(content))] = chance.randrange(256)
        path = good.with_name("damaged.sqlite" + kind)
        path.write_bytes(lzma.compress(content, preset=0) if kind else content)
        outcome(path)


class TestWrongContent:
    def test_a_required_column_is_missing(self, good: Path) -> None:
        changed(good, "alter table CUPTI_ACTIVITY_KIND_KERNEL drop column start")
        assert "column start of table CUPTI_ACTIVITY_KIND_KERNEL is missing" in refused(good)

    @pytest.mark.parametrize(
        ("table", "column"),
        [("CUPTI_ACTIVITY_KIND_RUNTIME", "globalTid"), ("NVTX_EVENTS", "eventType"), ("OSRT_API", "nameId")],
    )
    def test_a_required_column_of_another_table_is_missing(self, good: Path, table: str, column: str) -> None:
        changed(good, f"alter table {table} drop column {column}")
        assert f"column {column} of table {table} is missing" in str(outcome(good))

    @pytest.mark.parametrize(
        ("table", "column"),
        [
            ("CUPTI_ACTIVITY_KIND_KERNEL", "globalPid"),
            ("CUPTI_ACTIVITY_KIND_KERNEL", "deviceId"),
            ("CUPTI_ACTIVITY_KIND_KERNEL", "demangledName"),
            ("CUPTI_ACTIVITY_KIND_KERNEL", "correlationId"),
            ("NVTX_EVENTS", "domainId"),
            ("NVTX_EVENTS", "textId"),
            ("TARGET_INFO_GPU", "smCount"),
        ],
    )
    def test_a_column_that_is_not_required_may_be_missing(self, good: Path, table: str, column: str) -> None:
        analysis = analyze(open_trace(changed(good, f"alter table {table} drop column {column}")), window="all")
        assert analysis.value("kernel_count") == 30

    def test_names_may_all_be_lost(self, good: Path) -> None:
        changed(good, "drop table StringIds")
        assert "(name lost)" in accepted(good)

    @pytest.mark.parametrize("table", ["CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_RUNTIME", "OSRT_API"])
    def test_rows_that_end_before_they_start(self, good: Path, table: str) -> None:
        changed(good, f"update {table} set end = start - 1 where rowid = 1")
        assert f"1 row(s) of table {table} end before they start" in str(outcome(good))

    @pytest.mark.parametrize("time", [2**62, -(2**62), 2**63 - 1, -(2**63)])
    def test_times_that_no_session_can_have(self, good: Path, time: int) -> None:
        changed(good, f"update CUPTI_ACTIVITY_KIND_KERNEL set start = {time}, end = {time} where rowid = 3")
        assert "times of more than ten years" in str(outcome(good))

    @pytest.mark.parametrize("value", ["'soon'", "x'00ff'", "1.5", "1e300", "''"])
    @pytest.mark.parametrize(
        ("table", "column"),
        [
            ("CUPTI_ACTIVITY_KIND_KERNEL", "start"),
            ("CUPTI_ACTIVITY_KIND_KERNEL", "gridX"),
            ("CUPTI_ACTIVITY_KIND_RUNTIME", "globalTid"),
            ("CUPTI_ACTIVITY_KIND_RUNTIME", "correlationId"),
            ("NVTX_EVENTS", "domainId"),
        ],
    )
    def test_something_else_where_nsys_writes_an_integer(self, good: Path, table: str, column: str, value: str) -> None:
        sentence = outcome(changed(good, f"update {table} set {column} = {value} where rowid = 2"))
        assert sentence is not None
        assert table in sentence
        assert "integers" in sentence

    @pytest.mark.parametrize(
        ("table", "column"),
        [
            ("CUPTI_ACTIVITY_KIND_KERNEL", "start"),
            ("CUPTI_ACTIVITY_KIND_KERNEL", "deviceId"),
            ("CUPTI_ACTIVITY_KIND_KERNEL", "globalPid"),
            ("CUPTI_ACTIVITY_KIND_KERNEL", "correlationId"),
            ("CUPTI_ACTIVITY_KIND_KERNEL", "demangledName"),
            ("CUPTI_ACTIVITY_KIND_RUNTIME", "end"),
            ("CUPTI_ACTIVITY_KIND_RUNTIME", "globalTid"),
            ("CUPTI_ACTIVITY_KIND_RUNTIME", "nameId"),
            ("NVTX_EVENTS", "globalTid"),
            ("NVTX_EVENTS", "eventType"),
            ("OSRT_API", "globalTid"),
        ],
    )
    @pytest.mark.parametrize("rows", ["rowid = 2", "true"])
    def test_values_may_be_null(self, good: Path, table: str, column: str, rows: str) -> None:
        assert outcome(changed(good, f"update {table} set {column} = null where {rows}")) is None

    @pytest.mark.parametrize("value", [-1, 2**31, 2**32, 2**62])
    @pytest.mark.parametrize("column", ["deviceId", "contextId", "streamId", "correlationId", "globalPid", "gridX"])
    def test_numbers_that_are_out_of_any_range(self, good: Path, column: str, value: int) -> None:
        outcome(changed(good, f"update CUPTI_ACTIVITY_KIND_KERNEL set {column} = {value} where rowid = 2"))

    @pytest.mark.parametrize(
        ("table", "column"),
        [
            *(("TARGET_INFO_GPU", name) for name in ("id", "smCount", "totalMemory", "clockRate", "memoryBandwidth")),
            *(("TARGET_INFO_GPU", name) for name in ("name", "computeMajor", "computeMinor", "maxWarpsPerSm")),
            *(("TARGET_INFO_CUDA_DEVICE", name) for name in ("gpuId", "cudaId", "pid")),
            *(("TARGET_INFO_CUDA_GPU", name) for name in ("deviceId", "globalMemorySize", "coreClockRate")),
            *(("TARGET_INFO_GPU_METRICS", name) for name in ("typeId", "metricId", "metricName")),
            ("ANALYSIS_DETAILS", "duration"),
            ("TARGET_INFO_SESSION_START_TIME", "utcEpochNs"),
            ("META_DATA_EXPORT", "value"),
            ("StringIds", "value"),
        ],
    )
    @pytest.mark.parametrize("value", ["null", "'lots'", "x'ff'", "-108", "1.5"])
    def test_a_damaged_fact_is_left_out(self, tmp_path: Path, table: str, column: str, value: str) -> None:
        schema: Schema = "none" if table == "TARGET_INFO_CUDA_GPU" else "3.20.3"
        path = write_nsys_sqlite(tmp_path / "facts.sqlite", described_trace(), schema)
        changed(path, f"update {table} set {column} = {value}")
        shown = io.StringIO()
        for window in ("auto", "all"):
            analysis = analyze(open_trace(path), window=window)
            print_overview([analysis], shown)
            assert json_bytes(analysis)
        assert "\nKERNELS\n" in shown.getvalue()

    @pytest.mark.parametrize("column", ["timestamp", "typeId", "metricId", "value"])
    @pytest.mark.parametrize("value", ["null", "-1", "2147483647"])
    def test_a_damaged_sample_is_left_out(self, tmp_path: Path, column: str, value: str) -> None:
        path = write_nsys_sqlite(tmp_path / "samples.sqlite", described_trace())
        outcome(changed(path, f"update GPU_METRICS set {column} = {value} where rowid % 2 = 0"))

    def test_a_graph_without_a_number_is_shown(self, tmp_path: Path) -> None:
        path = write_nsys_sqlite(tmp_path / "graph.sqlite", trace(graph_launches=[operation(0, 10)]))
        changed(path, "update CUPTI_ACTIVITY_KIND_GRAPH_TRACE set graphExecId = null")
        assert "CUDA graph 1 (executable ?)" in accepted(path)

    def test_text_that_is_not_utf_8(self, good: Path) -> None:
        changed(good, "update StringIds set value = cast(x'fffe41' as text) where value like 'kernel%'")
        assert "\N{REPLACEMENT CHARACTER}" in accepted(good)

    def test_control_characters_in_names_do_not_reach_the_terminal(self, good: Path) -> None:
        changed(good, "update StringIds set value = char(27) || '[31mred' where value like 'kernel%'")
        assert "\x1b" not in accepted(good)

    def test_tables_without_rows(self, good: Path) -> None:
        changed(good, "delete from CUPTI_ACTIVITY_KIND_KERNEL", "delete from CUPTI_ACTIVITY_KIND_MEMCPY")
        assert "no GPU operation" in accepted(good)

    def test_a_view_in_place_of_a_table(self, good: Path) -> None:
        changed(
            good,
            "alter table CUPTI_ACTIVITY_KIND_KERNEL rename to hidden",
            "create view CUPTI_ACTIVITY_KIND_KERNEL as select * from hidden",
        )
        outcome(good)


NAMES = [
    *("50%.sqlite", "%41.sqlite", "what?.sqlite", "a b  c.sqlite", "run#1.sqlite", "추적 기록.sqlite", "no suffix"),
    *("quote'd\".sqlite", "?mode=rw&immutable=0.sqlite", "semi;colon.sqlite", "-dash.sqlite", "back\\slash.sqlite"),
]


class TestNames:
    @pytest.mark.parametrize("name", NAMES)
    def test_a_trace_of_any_name_is_read(self, good: Path, name: str) -> None:
        path = good.with_name(name)
        good.rename(path)
        assert name in accepted(path).splitlines()[0]

    @pytest.mark.parametrize("name", NAMES)
    def test_a_folder_of_any_name_is_read(self, good: Path, name: str) -> None:
        folder = good.parent.with_name(name)
        good.parent.rename(folder)
        assert outcome(folder / good.name) is None

    def test_a_path_that_begins_with_a_dash_follows_two_dashes(self, good: Path) -> None:
        good.rename(good.with_name("-o.sqlite"))
        assert nitro("--", "-o.sqlite", cwd=good.parent).returncode == 0

    def test_a_file_that_is_called_like_a_command_is_reached_by_its_path(self, good: Path) -> None:
        good.rename(good.with_name("list"))
        assert nitro("./list", cwd=good.parent).stdout.startswith("list")

    def test_the_name_in_an_error_is_the_name_as_given(self, tmp_path: Path) -> None:
        path = tmp_path / "추적 50%?.sqlite"
        path.touch()
        refused(path)


Compress = Callable[[bytes], bytes]
KINDS: list[tuple[str, Compress]] = [
    (".xz", lambda data: lzma.compress(data, preset=0)),
    (".gz", gzip.compress),
    (".zst", zstandard.compress),
]
each_compression = pytest.mark.parametrize(("suffix", "compress"), KINDS, ids=["xz", "gz", "zst"])


class TestCompressed:
    @each_compression
    def test_a_compressed_trace_gives_the_same_numbers(self, good: Path, suffix: str, compress: Compress) -> None:
        packed = good.with_name("packed.sqlite" + suffix)
        packed.write_bytes(compress(good.read_bytes()))
        plain, unpacked = (nitro(path, "--json", "-").stdout for path in (good, packed))
        without_source = re.compile(r'"source": \{.*?\}', re.DOTALL)
        assert plain
        assert without_source.sub("", unpacked) == without_source.sub("", plain)
        accepted(packed)

    @each_compression
    def test_the_content_counts_and_not_the_suffix(self, good: Path, suffix: str, compress: Compress) -> None:
        good.write_bytes(compress(good.read_bytes()))
        accepted(good)
        plain = write_nsys_sqlite(good.with_name("plain.sqlite" + suffix), small_trace())
        accepted(plain)

    @each_compression
    @pytest.mark.parametrize("share", [0.01, 0.5, 0.98])
    def test_compressed_data_that_were_cut(self, good: Path, suffix: str, compress: Compress, share: float) -> None:
        path = good.with_name("cut.sqlite" + suffix)
        packed = compress(good.read_bytes())
        path.write_bytes(packed[: max(int(len(packed) * share), 10)])
        assert outcome(path) is not None

    @each_compression
    def test_compressed_data_with_wrong_bytes_inside(self, good: Path, suffix: str, compress: Compress) -> None:
        path = good.with_name("flipped.sqlite" + suffix)
        packed = bytearray(compress(good.read_bytes()))
        middle = len(packed) // 2
        packed[middle : middle + 40] = bytes(byte ^ 0xFF for byte in packed[middle : middle + 40])
        path.write_bytes(packed)
        assert "damaged" in refused(path)

    @each_compression
    def test_a_compressed_file_of_another_kind(self, tmp_path: Path, suffix: str, compress: Compress) -> None:
        path = tmp_path / ("text.sqlite" + suffix)
        path.write_bytes(compress(b"hello"))
        assert "not a SQLite file" in refused(path)

    @each_compression
    def test_nothing_compressed(self, tmp_path: Path, suffix: str, compress: Compress) -> None:
        path = tmp_path / ("empty.sqlite" + suffix)
        path.write_bytes(compress(b""))
        assert "the file is empty" in refused(path)


class TestSize:
    def test_ten_gigabytes_of_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "sparse.sqlite"
        with path.open("wb") as stream:
            stream.truncate(10 * 10**9)
        assert "not a SQLite file" in refused(path)

    def test_a_trace_with_ten_gigabytes_of_nothing_behind_it(self, good: Path) -> None:
        with good.open("r+b") as stream:
            stream.truncate(10 * 10**9)
        assert nitro_in_time(good).returncode in (0, 3)


class TestBeside:
    @pytest.mark.parametrize("suffix", ["-wal", "-journal"])
    def test_pending_writes_beside_a_trace_are_named_and_left_alone(self, good: Path, suffix: str) -> None:
        beside = good.with_name(good.name + suffix)
        beside.write_bytes(os.urandom(8192))
        printed = " ".join(accepted(good).split())
        assert f"{beside.name} beside the trace holds changes that are not in the trace itself" in printed

    def test_an_empty_log_beside_a_trace_is_no_news(self, good: Path) -> None:
        good.with_name(good.name + "-wal").touch()
        assert "-wal" not in accepted(good)

    def test_a_trace_in_wal_mode_gets_no_log_beside_it(self, good: Path) -> None:
        with closing(sqlite3.connect(good)) as connection:
            assert connection.execute("pragma journal_mode = wal").fetchone() == ("wal",)
        accepted(good)
        assert [path.name for path in good.parent.iterdir()] == [good.name]

    def test_a_folder_that_cannot_be_written_is_enough(self, good: Path) -> None:
        good.chmod(0o444)
        good.parent.chmod(0o555)
        try:
            accepted(good)
        finally:
            good.parent.chmod(0o755)


class TestSeveral:
    def test_the_first_bad_file_of_several_is_named(self, good: Path) -> None:
        bad = good.with_name("bad.sqlite")
        bad.touch()
        done = nitro(good, bad)
        assert done.returncode == 3
        assert done.stderr.startswith(f"nitro-analyze: {bad}: ")
        assert done.stderr.count("\n") == 1

    def test_an_output_that_is_the_trace_itself_is_refused(self, good: Path) -> None:
        path = good.rename(good.with_suffix(".json"))
        before = contents(path.parent)
        done = nitro(path, "-o", path)
        assert done.returncode == 2
        assert "this is the trace itself" in done.stderr
        assert contents(path.parent) == before

    def test_no_output_is_left_behind_by_a_trace_that_cannot_be_read(self, good: Path) -> None:
        good.write_bytes(good.read_bytes()[:5000])
        out = good.parent.parent / "out.json"
        assert nitro(good, "-o", out).returncode == 3
        assert not out.exists()


def traced(arguments: Iterable[str | Path], log: Path) -> list[str]:
    """Run the command under strace, and return the calls by which files are changed or a network is reached."""
    files = "open,openat,creat,unlink,unlinkat,rename,renameat,renameat2,mkdir,mkdirat,truncate,ftruncate"
    command = ["strace", "-f", "-qq", "-e", f"trace={files},socket,connect", "-o", str(log)]
    command += [sys.executable, "-m", "nitro.cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=1)[1] for line in log.read_text().splitlines()]
    assert any("openat(" in line for line in lines)
    reading = re.compile(r"^open(at)?\(.*O_RDONLY(?!.*(O_CREAT|O_TRUNC))")
    return [line for line in lines if not reading.match(line) and not line.startswith(("---", "+++", "<..."))]


def can_trace() -> bool:
    strace = shutil.which("strace")
    return (
        strace is not None and subprocess.run([strace, "-qq", "true"], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not can_trace(), reason="needs strace, and the right to trace a process")
class TestSystemCalls:
    @pytest.mark.parametrize("schema", ["none", "3.20.3"])
    def test_an_analysis_opens_nothing_for_writing_and_no_socket(self, tmp_path: Path, schema: Schema) -> None:
        path = write_nsys_sqlite(tmp_path / "good.sqlite", small_trace(), schema)
        assert traced([path], tmp_path / "log") == []

    def test_a_compressed_trace_is_unpacked_into_no_file(self, good: Path, tmp_path: Path) -> None:
        if not hasattr(sqlite3.Connection, "deserialize"):
            pytest.skip("this Python cannot open a database in memory")
        packed = good.with_name("packed.sqlite.xz")
        packed.write_bytes(lzma.compress(good.read_bytes(), preset=0))
        assert traced([packed], tmp_path / "log") == []

    def test_only_the_named_outputs_are_written(self, good: Path, tmp_path: Path) -> None:
        outputs = [tmp_path / "out.json", tmp_path / "out.md"]
        calls = traced([good, "-o", outputs[0], "-o", outputs[1]], tmp_path / "log")
        # Each is written beside its place and then renamed, so that there is never half a file.
        opened = [match.group(1) for line in calls if (match := re.search(r'"([^"]*)".*O_(?:WRONLY|RDWR)', line))]
        renamed = [
            match.groups() for line in calls if (match := re.search(r'rename\w*\(.*?"([^"]*)".*?"([^"]*)"', line))
        ]
        assert renamed == list(zip(opened, map(str, outputs), strict=True))
        assert [Path(beside).parent for beside in opened] == [tmp_path, tmp_path]
        assert sorted(path.name for path in tmp_path.glob("*out*")) == ["out.json", "out.md"]
