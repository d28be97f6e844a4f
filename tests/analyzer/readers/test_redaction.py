"""`redact`: planted secrets are gone from the bytes, and everything that is measured is still there."""

from __future__ import annotations

import gzip
import lzma
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
import pytest
import zstandard
from click.testing import CliRunner

from nitro.analyzer.opening import open_trace
from nitro.analyzer.readers import _nsys_redaction
from nitro.analyzer.readers._nsys_redaction import REMOVED, RedactionSummary, _Learning, _Rules, redact
from nitro.commands.redact import COMMAND
from nitro.errors import InputError, NitroError, UsageError

USER, HOST = "planted_user", "planted-host"
HOME = f"/home/{USER}"
UUID = "0a1b2c3d-1111-2222-3333-444455556666"
GUID = -6431419543862918343
ENVIRONMENT = (
    f"HOME={HOME}\0USER={USER}\0LOGNAME=kim\0HOSTNAME={HOST}.lab.example\0SSH_CLIENT=203.0.113.77 50240 22\0"
    "PROJECT=planted-project\0HF_TOKEN=planted-token-1\0PYTHONPATH=/planted/lib/python"
)
# Nothing of this may be found in the bytes of a copy.
PLANTED = (
    *("planted_user", "planted-host", "planted-project", "planted-token-1", "/planted/lib", "203.0.113.77", "/home/"),
    *("planted-argument", "planted-command", "planted-output", "planted-file", "planted-process", "planted-thread"),
    *("planted-mail", "planted_nic", "planted-install", "planted-session", "198.51.100.5", UUID, "lab.example"),
    *("/scratch/", "planted-payload", "planted-key-of-a-future-nsys", "GMT-planted", "02:00:5e:10:00:01"),
)
KERNEL = "void cutlass::Kernel<cutlass_80_tensorop_f16_s16816gemm>(T1::Params)"
API = "cudaLaunchKernel_v7000"
LAYERS = (
    "/conv1/Conv + PWN(/blocks.0/attn)",
    "{ForeignNode[/model/layers.0/MatMul.../model/layers.3/self_attn/qkv_proj]}",
    "aten::to, seq = 12",
    "/data/Conv_1_output_0",
    "/lib/layers.3/mlp",
    "torch/nn/modules/module.py(1501): _call_impl",
    "TensorRT 10.0.1.6 on step 3/4",
)
STRINGS = {
    1: KERNEL,
    2: API,
    3: f"{HOME}/proj/train.py(12): forward",
    4: "planted-thread",
    5: ENVIRONMENT,
    6: f"{HOME}/lib/libcudart.so.12",
    7: f"/opt/lib{USER}.so",
    8: f"loss nan, mail planted-mail@lab.example from 198.51.100.5 for {USER.upper()}",
    9: "planted-output: done",
    10: f"{HOME}/out.log",
    11: "python3\0planted-command\0--data=/scratch/kim/set",
    12: "cuda-EvtHandlr",
    13: "planted-process",
    14: "cuLaunchKernel",
    15: "0xfeed",
    16: '{"file": "\\/scratch\\/planted-project\\/a.json", "lr": 3}',
}


def export(path: Path, *statements: str) -> Path:
    """Write a small export of schema 3.20 with secrets in every place where nsys, or another tool, may put them."""
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(
            """
            create table StringIds (id INTEGER NOT NULL PRIMARY KEY, value TEXT);
            create table META_DATA_CAPTURE (name TEXT NOT NULL, value TEXT);
            create table META_DATA_EXPORT (name TEXT NOT NULL, value TEXT);
            create table TARGET_INFO_SYSTEM_ENV (
                globalVid INTEGER, devStateName TEXT NOT NULL, name TEXT NOT NULL, nameEnum INTEGER, value TEXT);
            create table TARGET_INFO_SESSION_START_TIME (utcEpochNs INTEGER, utcTime TEXT, localTime TEXT);
            create table TARGET_INFO_GPU (id INTEGER, name TEXT, uuid TEXT, smCount INTEGER, chipName TEXT);
            create table TARGET_INFO_CUDA_DEVICE (gpuId INTEGER, cudaId INTEGER, pid INTEGER, uuid TEXT);
            create table TARGET_INFO_NIC_INFO (GUID INTEGER NOT NULL, stateName TEXT, nicId INTEGER, name TEXT);
            create table NET_IB_DEVICE_PORT_INFO (guid INTEGER, portNumber INTEGER, portLabel TEXT);
            create table ENUM_CUDA_MEMCPY_OPER (id INTEGER NOT NULL PRIMARY KEY, name TEXT, label TEXT);
            create table PROCESSES (globalPid INTEGER, pid INTEGER, name TEXT);
            create table ThreadNames (nameId INTEGER NOT NULL, priority INTEGER, globalTid INTEGER);
            create table ProcessStreams (globalPid INTEGER, filenameId INTEGER NOT NULL, contentId INTEGER NOT NULL);
            create table ANALYSIS_FILE (id INTEGER, filename TEXT, content TEXT, globalPid INTEGER);
            create table DIAGNOSTIC_EVENT (timestamp INTEGER NOT NULL, text TEXT NOT NULL, globalPid INTEGER);
            create table OSRT_FILE_ACCESS_DESCRIPTORS (fileAccessId INTEGER, filePath TEXT);
            create table CUPTI_ACTIVITY_KIND_KERNEL (
                start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER, contextId INTEGER, streamId INTEGER,
                correlationId INTEGER, globalPid INTEGER, demangledName INTEGER NOT NULL, shortName INTEGER NOT NULL);
            create table CUPTI_ACTIVITY_KIND_RUNTIME (
                start INTEGER NOT NULL, end INTEGER NOT NULL, globalTid INTEGER, correlationId INTEGER,
                nameId INTEGER NOT NULL);
            create table SAMPLING_CALLCHAINS (id INTEGER, symbol INTEGER, module INTEGER, originalIP INTEGER);
            create table NVTX_EVENTS (
                start INTEGER NOT NULL, end INTEGER, eventType INTEGER NOT NULL, text TEXT, globalTid INTEGER,
                textId INTEGER, domainId INTEGER, jsonTextId INTEGER, binaryData TEXT);
            create table UNKNOWN_TOOL (id INTEGER, note TEXT, attachment BLOB, number INTEGER, ratio REAL);
            """
        )
        database.executemany("insert into StringIds values (?, ?)", STRINGS.items())
        database.executemany("insert into META_DATA_CAPTURE values (?, ?)", _capture_options())
        database.executemany("insert into META_DATA_EXPORT values (?, ?)", _export_options())
        database.executemany(
            "insert into TARGET_INFO_SYSTEM_ENV values (1, ?, ?, ?, ?)",
            [
                ("Local (CLI)", "Hostname", 619, HOST),
                ("Local (CLI)", "DeviceEnvironment", 610, ENVIRONMENT.replace("\0", ";")),
                ("Local (CLI)", "TargetInstallDir", 170, "/opt/planted-install"),
                (f"{USER}@{HOST}", "NvDriverVersion", 205, "550.54.15"),
                ("Local (CLI)", "L4TVersion", 617, "36.5.0"),
                ("Local (CLI)", "CpuCores", 1, "8"),
                ("Local (CLI)", "Future", 9999, "planted-key-of-a-future-nsys"),
            ],
        )
        for table, rows in _rows().items():
            for row in rows:
                database.execute(f"insert into {table} values ({', '.join('?' * len(row))})", row)
        for statement in statements:
            database.execute(statement)
    return path


def _capture_options() -> list[tuple[str, str]]:
    settings = [("PROCESS_0:ENVIRONMENT_VARIABLE", entry.replace("=", '="') + '"') for entry in ENVIRONMENT.split("\0")]
    return [
        *settings,
        ("PROCESS_0:COMMAND", "planted-command"),
        ("PROCESS_0:ARGUMENT_0", "planted-argument"),
        ("PROCESS_0:ARGUMENT_1", "8"),
        ("PROCESS_0:WORKING_DIR", f"{HOME}/proj"),
        ("PROCESS_0:USER_NAME", USER),
        ("DEVICE_DISPLAY_NAME", HOST),
        ("PROFILING_SESSION_UUID", "planted-session"),
        ("NEW_TEXT", "planted-key-of-a-future-nsys"),
        ("CAPTURE_EVENT_TYPE", "Cuda"),
        ("PROCESS_0:CUDA_GRAPH_TRACE_OPTIONS:MODE", "Graph"),
        ("GPU_METRICS_OPTIONS:SAMPLING_FREQUENCY", "10000"),
        ("NEW_NUMBER", "7"),
    ]


def _export_options() -> list[tuple[str, str]]:
    return [
        ("EXPORT_PRODUCT_NAME", "NVIDIA Nsight Systems"),
        ("EXPORT_PRODUCT_VERSION", "2025.3.2.367"),
        ("EXPORT_SCHEMA_VERSION", "3.20.3"),
        ("EXPORT_HOST", f"{HOST}.lab.example"),
        ("EXPORT_USER", USER),
        ("EXPORT_PARAM_OUTPUT_PATH", f"{HOME}/planted-file.sqlite"),
        ("EXPORT_PARAM_LAZY", "true"),
    ]


def _rows() -> dict[str, list[tuple[Any, ...]]]:
    return {
        "TARGET_INFO_SESSION_START_TIME": [(1_700_000_000_000_000_000, "2023-11-14T22:13:20", "GMT-planted")],
        "TARGET_INFO_GPU": [(0, "NVIDIA GeForce RTX 3060", UUID, 28, "GA106")],
        "TARGET_INFO_CUDA_DEVICE": [(0, 0, 100, UUID)],
        "TARGET_INFO_NIC_INFO": [(GUID, "Local (CLI)", 0, "planted_nic0"), (0, "Local (CLI)", 1, "planted_nic1")],
        "NET_IB_DEVICE_PORT_INFO": [(GUID, 1, f"{HOST} HCA-1")],
        "ENUM_CUDA_MEMCPY_OPER": [(1, "CUDA_MEMCPY_KIND_HTOD", "Host-to-Device")],
        "PROCESSES": [(100 << 24, 100, "python3"), (101 << 24, 101, "planted-process")],
        "ThreadNames": [(4, 0, 1), (12, 0, 2), (13, 0, 3)],
        "ProcessStreams": [(100 << 24, 10, 9)],
        "ANALYSIS_FILE": [(1, "planted-file", "planted-output", 100 << 24)],
        "DIAGNOSTIC_EVENT": [
            (1, "Process was launched by the profiler, see /tmp/nsys/planted-session/out.log.", 1),
            (2, f"Number of CUDA events collected: 60 on {HOST}, 02:00:5e:10:00:01", 1),
        ],
        "OSRT_FILE_ACCESS_DESCRIPTORS": [(1, "planted-file.bin"), (2, "Unknown file #1"), (3, "/x/libfoo.so.1")],
        "CUPTI_ACTIVITY_KIND_KERNEL": [(10, 20, 0, 1, 7, 1, 100 << 24, 1, 1), (30, 45, 0, 1, 7, 2, 100 << 24, 1, 1)],
        "CUPTI_ACTIVITY_KIND_RUNTIME": [(5, 8, 100 << 24 | 100, 1, 2), (22, 26, 100 << 24 | 100, 2, 14)],
        "SAMPLING_CALLCHAINS": [(1, 15, 6, 4096), (1, 15, 7, 8192)],
        "NVTX_EVENTS": [
            (0, 50, 59, None, 1, 3, 0, None, None),
            (0, 50, 59, None, 1, 8, 0, 16, None),
            (1, 2, 59, f"load ~/planted-file.bin and C:\\Users\\{USER}\\w.bin", 1, None, 0, None, "planted-payload"),
            *((1, 2, 59, layer, 1, None, 0, None, None) for layer in LAYERS),
        ],
        "UNKNOWN_TOOL": [
            (1, f"ran by {USER}, kim, on {HOST}; kimono", b"\x01\x00/scratch/x/y\x00", 5, 0.5),
            (2, "harmless", b"\x00\xff\x00", 6, 0.25),
            (3, None, f"{USER}".encode("utf-16-le"), 7, None),
            (4, f"{USER}\0tail", None, 8, None),
        ],
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return export(tmp_path / "trace.sqlite")


def shared(source: Path, **options: Any) -> tuple[Path, RedactionSummary]:
    target = source.with_name("shared.sqlite")
    return target, redact(source, target, **options)


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)) as database:
        database.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        return database.execute(sql).fetchall()


def columns(path: Path) -> dict[str, list[str]]:
    names = rows(path, "select name from sqlite_master where type = 'table' order by name")
    return {name: [row[1] for row in rows(path, f'pragma table_info("{name}")')] for (name,) in names}


def numbers(path: Path, table: str, names: list[str]) -> list[tuple[Any, ...]]:
    """Return the numbers and nulls of a table; of a text or BLOB only its type, of a GUID whether it is 0."""
    return rows(path, f'select {", ".join(number(name) for name in names)} from "{table}"')


def number(name: str, table: str = "") -> str:
    """Return the SQL for what `numbers` returns of a column."""
    column = f'{table}."{name}"' if table else f'"{name}"'
    value = f"{column} != 0" if name.lower() == "guid" else column
    return f"case when typeof({column}) in ('text', 'blob') then typeof({column}) else {value} end"


def has_the_numbers_of(path: Path, other: Path, table: str, names: list[str]) -> bool:
    """Whether two files have the same `numbers` of a table, row by row: asked of SQLite, for tables of millions."""
    size = f'select count(*), max(rowid) from "{table}"'
    counts = rows(path, size)
    if rows(other, size) != counts or counts[0][0] != (counts[0][1] or 0):
        # A copy numbers its rows anew where some are missing in between.
        return numbers(path, table, names) == numbers(other, table, names)
    differs = " or ".join(f"{number(name, 'a')} is not {number(name, 'b')}" for name in names)
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)) as database:
        database.execute("attach ? as other", (f"file:{quote(str(other))}?mode=ro&immutable=1",))
        sql = f'select 1 from main."{table}" a join other."{table}" b on a.rowid = b.rowid where {differs} limit 1'
        return database.execute(sql).fetchone() is None


def test_a_number_that_differs_is_noticed(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one.sqlite", "two.sqlite", "three.sqlite")]
    for file, (value, guid) in zip(files, ((2, 5), (3, 5), (2, 0)), strict=True):
        with closing(sqlite3.connect(file)) as database, database:
            database.execute("create table t (a, guid, name)")
            database.executemany("insert into t values (?, ?, ?)", [(1, 7, "x"), (value, guid, None)])
    for other in files:
        assert has_the_numbers_of(files[0], other, "t", ["a", "guid", "name"]) == (other == files[0])
        assert has_the_numbers_of(files[0], other, "t", ["a"]) == (other != files[1])


def has_rows_removed(table: str) -> bool:
    return table.startswith("META_DATA") or table in {"TARGET_INFO_SYSTEM_ENV", "EXPORT_META_DATA"}


def texts_of_nvtx(path: Path) -> list[str]:
    frame = open_trace(path).nvtx_events
    assert frame is not None
    return frame["text"].cast(pl.String).to_list()


# ---- A trace with planted secrets


def test_no_planted_secret_is_left_in_the_bytes(source: Path) -> None:
    original = source.read_bytes()
    assert [text for text in PLANTED if text.encode() not in original] == []
    target, _ = shared(source)
    copy = target.read_bytes()
    assert [text for text in PLANTED if re.search(re.escape(text).encode(), copy, re.IGNORECASE)] == []
    assert USER.encode("utf-16-le") not in copy


def test_names_of_kernels_and_api_functions_are_intact(source: Path) -> None:
    target, _ = shared(source)
    before, after = open_trace(source), open_trace(target)
    for name in ("kernels", "api_calls"):
        frame, expected = after.table(name), before.table(name)
        assert frame is not None
        assert expected is not None
        assert frame.equals(expected)
    assert after.kernels is not None
    assert after.kernels["demangled_name"].unique().to_list() == [KERNEL]


def test_names_of_layers_are_intact(source: Path) -> None:
    target, _ = shared(source)
    assert set(LAYERS) <= set(texts_of_nvtx(target))


def test_only_the_private_part_of_a_message_is_replaced(source: Path) -> None:
    target, _ = shared(source)
    texts = texts_of_nvtx(target)
    assert "<path>(12): forward" in texts
    assert "loss nan, mail <email> from <ip> for <user>" in texts
    assert "load <path> and <path>" in texts
    values = dict(rows(target, "select id, value from StringIds"))
    assert values[16] == '{"file": "<path>", "lr": 3}'
    diagnostics = [text for (text,) in rows(target, "select text from DIAGNOSTIC_EVENT")]
    assert diagnostics == [
        "Process was launched by the profiler, see <path>.",
        "Number of CUDA events collected: 60 on <host>, <mac>",
    ]
    assert rows(target, "select note from UNKNOWN_TOOL") == [
        ("ran by <user>, <user>, on <host>; kimono",),
        ("harmless",),
        (None,),
        (REMOVED,),
    ]


def test_strings_are_treated_by_what_they_are_used_as(source: Path) -> None:
    target, _ = shared(source)
    values = dict(rows(target, "select id, value from StringIds"))
    assert values.keys() == STRINGS.keys()
    assert (values[1], values[2], values[14], values[15]) == (KERNEL, API, "cuLaunchKernel", "0xfeed")
    assert (values[4], values[12], values[13]) == ("<name>", "cuda-EvtHandlr", "<name>")
    assert {values[5], values[9], values[10], values[11]} == {REMOVED}
    assert (values[6], values[7]) == ("<path>/libcudart.so.12", "<path>")


def test_blobs_are_emptied_only_where_they_hold_something_private(source: Path) -> None:
    target, _ = shared(source)
    assert rows(target, "select attachment from UNKNOWN_TOOL") == [(b"",), (b"\x00\xff\x00",), (b"",), (None,)]


def test_every_number_and_every_row_stays(source: Path) -> None:
    target, _ = shared(source)
    assert columns(target) == columns(source)
    for table, names in columns(source).items():
        if not has_rows_removed(table):
            assert numbers(target, table, names) == numbers(source, table, names), table


def test_guids_become_numbers_that_still_join(source: Path) -> None:
    target, _ = shared(source)
    assert rows(target, "select GUID, name from TARGET_INFO_NIC_INFO") == [(1, "<nic>"), (0, "<nic>")]
    assert rows(target, "select guid from NET_IB_DEVICE_PORT_INFO") == [(1,)]


def test_uuids_of_gpus_become_numbers_that_still_join(source: Path) -> None:
    target, _ = shared(source)
    assert rows(target, "select uuid from TARGET_INFO_GPU") == rows(target, "select uuid from TARGET_INFO_CUDA_DEVICE")
    assert rows(target, "select uuid, name from TARGET_INFO_GPU") == [("<gpu-1>", "NVIDIA GeForce RTX 3060")]


def test_what_the_analysis_needs_of_the_metadata_stays(source: Path) -> None:
    target, _ = shared(source)
    before, after = open_trace(source), open_trace(target)
    assert after.capture == before.capture
    assert after.capture.start_utc_ns == 1_700_000_000_000_000_000
    assert after.devices == before.devices
    assert after.source.tool_version == "2025.3.2.367"
    assert dict(rows(target, "select name, value from META_DATA_CAPTURE")) == {
        "CAPTURE_EVENT_TYPE": "Cuda",
        "PROCESS_0:CUDA_GRAPH_TRACE_OPTIONS:MODE": "Graph",
        "GPU_METRICS_OPTIONS:SAMPLING_FREQUENCY": "10000",
        "NEW_NUMBER": "7",
    }
    assert rows(target, "select devStateName, name, value from TARGET_INFO_SYSTEM_ENV") == [
        ("<target>", "NvDriverVersion", "550.54.15"),
        ("Local (CLI)", "L4TVersion", "36.5.0"),
        ("Local (CLI)", "CpuCores", "8"),
    ]


def test_redacting_twice_changes_nothing_more(source: Path, tmp_path: Path) -> None:
    once, _ = shared(source)
    twice = tmp_path / "twice.sqlite"
    assert redact(once, twice).changes == ()
    for table in columns(once):
        assert rows(twice, f'select * from "{table}"') == rows(once, f'select * from "{table}"')


def test_the_same_trace_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    target, _ = shared(source)
    redact(source, tmp_path / "again.sqlite")
    assert (tmp_path / "again.sqlite").read_bytes() == target.read_bytes()


def test_the_source_is_not_changed_and_nothing_is_left_beside_it(source: Path) -> None:
    before, stamp = source.read_bytes(), source.stat().st_mtime_ns
    target, _ = shared(source)
    assert source.read_bytes() == before
    assert source.stat().st_mtime_ns == stamp
    assert sorted(source.parent.iterdir()) == sorted([source, target])


def test_text_of_deleted_rows_does_not_survive_in_free_pages(tmp_path: Path) -> None:
    filler = "insert into UNKNOWN_TOOL (note) select 'planted-argument' || hex(zeroblob(900)) from StringIds"
    source = export(
        tmp_path / "trace.sqlite",
        "commit",
        "pragma secure_delete = off",
        filler,
        "commit",
        "delete from UNKNOWN_TOOL where note like 'planted%'",
    )
    assert source.read_bytes().count(b"planted-argument") > 10
    target, _ = shared(source)
    assert b"planted-argument" not in target.read_bytes()


def test_the_summary_counts_by_table(source: Path) -> None:
    _, summary = shared(source)
    counted = {(change.table, change.what): change.count for change in summary.changes}
    assert counted["StringIds", "names of processes and threads"] == 2
    assert counted["StringIds", "program output"] == 2
    assert counted["StringIds", "unused strings, environments among them"] == 2
    assert counted["TARGET_INFO_SYSTEM_ENV", "rows: environment, host, install paths"] == 4
    assert counted["UNKNOWN_TOOL", "BLOBs emptied"] == 2
    assert summary.notes == ()
    assert summary.source_bytes == source.stat().st_size


def test_a_kernel_that_bears_the_name_of_the_user_is_left_and_told(tmp_path: Path) -> None:
    source = export(tmp_path / "trace.sqlite", f"update StringIds set value = 'gemm_{USER}' where id = 1")
    target, summary = shared(source)
    assert rows(target, "select value from StringIds where id = 1") == [(f"gemm_{USER}",)]
    assert len(summary.notes) == 1
    assert f"gemm_{USER}" in summary.notes[0]


def test_text_that_is_no_utf8_is_swept_too(tmp_path: Path) -> None:
    source = export(
        tmp_path / "trace.sqlite", f"update UNKNOWN_TOOL set note = cast(x'ff' || '{HOME}/a' as text) where id = 2"
    )
    target, _ = shared(source)
    assert rows(target, "select cast(note as blob) from UNKNOWN_TOOL where id = 2") == [(b"\xff<path>",)]


def test_tables_are_left_out_on_demand_but_still_teach_names(source: Path) -> None:
    target, summary = shared(source, drop_tables=["sampling_callchains", "META_DATA_CAPTURE"])
    assert columns(source).keys() - columns(target).keys() == {"SAMPLING_CALLCHAINS", "META_DATA_CAPTURE"}
    assert USER.encode() not in target.read_bytes()
    assert dict(rows(target, "select id, value from StringIds"))[6] == REMOVED
    assert ("SAMPLING_CALLCHAINS", 2) in [(change.table, change.count) for change in summary.changes]


def test_a_table_that_does_not_exist_cannot_be_left_out(source: Path) -> None:
    with pytest.raises(UsageError, match=r"no table NOPE to drop; the trace holds ANALYSIS_FILE, "):
        shared(source, drop_tables=["NOPE"])


def test_a_table_whose_constraint_refuses_tokens_is_named_with_the_way_out(tmp_path: Path) -> None:
    source = export(
        tmp_path / "trace.sqlite",
        "create table ODD (note TEXT UNIQUE)",
        f"insert into ODD values ('{HOME}/a'), ('{HOME}/b')",
    )
    with pytest.raises(InputError, match="leave it out with --drop-table ODD"):
        shared(source)
    target, _ = shared(source, drop_tables=["ODD"])
    assert "ODD" not in columns(target)


def test_a_virtual_table_is_refused_but_can_be_left_out(tmp_path: Path) -> None:
    source = export(tmp_path / "trace.sqlite", "create virtual table INDEXED using fts5(note)")
    with pytest.raises(InputError, match="INDEXED is a virtual table"):
        shared(source)
    target, _ = shared(source, drop_tables=["INDEXED"])
    assert not [table for table in columns(target) if table.startswith("INDEXED")]


def test_triggers_do_not_copy_old_values_aside(tmp_path: Path) -> None:
    source = export(
        tmp_path / "trace.sqlite",
        "create table AUDIT (old TEXT)",
        "create trigger keep after update on UNKNOWN_TOOL begin insert into AUDIT values (old.id || 'x'); end",
    )
    target, _ = shared(source)
    assert rows(target, "select * from AUDIT") == []


@pytest.mark.parametrize(
    ("suffix", "magic"),
    [(".sqlite.xz", b"\xfd7zXZ"), (".sqlite.gz", b"\x1f\x8b"), (".sqlite.zst", b"\x28\xb5\x2f\xfd")],
)
def test_the_suffix_decides_the_compression(source: Path, tmp_path: Path, suffix: str, magic: bytes) -> None:
    plain, _ = shared(source)
    target = tmp_path / f"packed{suffix}"
    redact(source, target)
    packed = target.read_bytes()
    assert packed.startswith(magic)
    assert b"packed" not in packed
    open_packed: dict[str, Any] = {".sqlite.xz": lzma.open, ".sqlite.gz": gzip.open, ".sqlite.zst": zstandard.open}
    with open_packed[suffix](target, "rb") as stream:
        assert stream.read() == plain.read_bytes()


def test_a_compressed_trace_is_read(source: Path, tmp_path: Path) -> None:
    packed = tmp_path / "trace.sqlite.xz"
    packed.write_bytes(lzma.compress(source.read_bytes()))
    plain, _ = shared(source)
    redact(packed, tmp_path / "from_packed.sqlite")
    assert (tmp_path / "from_packed.sqlite").read_bytes() == plain.read_bytes()


def test_a_failure_leaves_no_file(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_nsys_redaction, "_compressed", fail)
    with pytest.raises(UsageError, match="cannot be written"):
        shared(source)
    assert list(source.parent.iterdir()) == [source]


def test_a_failure_leaves_the_file_that_was_there(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = source.with_name("shared.sqlite")
    old.write_bytes(b"old")
    monkeypatch.setattr(_nsys_redaction, "_compressed", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        shared(source)
    assert old.read_bytes() == b"old"


def test_a_database_that_is_no_nsys_export_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as database:
        database.execute("create table notes (text)")
    with pytest.raises(InputError, match="not an nsys export"):
        shared(other)
    assert list(tmp_path.iterdir()) == [other]


# ---- The command


def command(*arguments: object) -> tuple[int, str]:
    """Run the command and return the exit code that `nitro.cli.main` gives, and what was said."""
    outcome = CliRunner().invoke(COMMAND, [str(argument) for argument in arguments])
    if isinstance(outcome.exception, NitroError):
        return outcome.exception.exit_code, str(outcome.exception)
    return outcome.exit_code, outcome.output


def test_the_command_says_what_it_removed(source: Path, tmp_path: Path) -> None:
    code, said = command(source, "-o", tmp_path / "out.sqlite")
    assert code == 0
    assert re.search(r"^PROCESSES +1  names of processes$", said, re.MULTILINE)
    assert command(tmp_path / "out.sqlite", "-o", tmp_path / "two.sqlite")[1].startswith("Nothing private was found.")


def test_an_existing_file_is_overwritten_only_by_force(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.sqlite"
    target.write_bytes(b"old")
    code, said = command(source, "-o", target)
    assert code == 2
    assert "--force" in said
    assert target.read_bytes() == b"old"
    assert command(source, "-o", target, "--force")[0] == 0
    assert target.read_bytes().startswith(b"SQLite format 3")


def test_the_trace_itself_is_never_the_output(source: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.sqlite"
    link.symlink_to(source)
    before = source.read_bytes()
    for target in (source, link):
        code, said = command(source, "-o", target, "--force")
        assert code == 2
        assert "never changed" in said
    with pytest.raises(UsageError, match="never changed"):
        redact(source, link)
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("output", "reason"), [("out.db", "suffix"), ("missing/out.sqlite", "folder does not exist"), (".", "directory")]
)
def test_an_output_that_cannot_be_is_refused(source: Path, tmp_path: Path, output: str, reason: str) -> None:
    code, said = command(source, "-o", tmp_path / output)
    assert code == 2
    assert reason in said


def test_a_missing_trace_is_an_input_error(tmp_path: Path) -> None:
    code, said = command(tmp_path / "missing.sqlite", "-o", tmp_path / "out.sqlite")
    assert code == 3
    assert "no such file" in said


# ---- Rules for one text


def rules(*settings: str) -> _Rules:
    learning = _Learning()
    for setting in settings:
        learning.setting(setting)
    return _Rules(learning.owner(), frozenset({"cudaLaunchKernel"}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/alice/x.py(123): forward", "<path>(123): forward"),
        ('open "/home/alice/My Project/run.py" now', 'open "<path>" now'),
        ("see /tmp/a/b.log and stderr.log.", "see <path> and stderr.log."),
        ("-I/usr/include -L/opt/x", "-I<path> -L<path>"),
        ("file:///home/x/y", "file:<path>"),
        ("/usr/lib/libcudart.so.12", "<path>/libcudart.so.12"),
        ("/opt/libalice.so", "<path>"),
        ("/workspace/model/vit.onnx", "<path>"),
        ("/data/projects/x", "<path>"),
        ("/unusual/place/x", "<path>"),
        ("~/x/y", "<path>"),
        ("C:\\Users\\Hong Gil\\proj\\a.dll", "<path>/a.dll"),
        ("\\\\server\\share\\f", "<path>"),
        ('{"p":"\\/home\\/x\\/y"}', '{"p":"<path>"}'),
        ("alice_model, AliceNet and libalice", "<user>_model, <user>Net and lib<user>"),
        ("ran on LAB-BOX and lab-box.example.org", "ran on <host> and <host>"),
        ("김철수의 서버", "<user>의 서버"),
        ("mail bob@corp.com or bob@box:/data/x", "mail <email> or <user>@<host>:<path>"),
        ("http://user:pw@10.1.2.3:80/a", "http://<user>@<ip>:80/a"),
        ("from 2001:db8::7", "from <ip>"),
        ("by carol on bench-7", "by <user> on <host>"),
        ("HF_TOKEN=abc --api-key abc hf_abcdefghijklmnopqrstuvwx", "HF_TOKEN=<secret> --api-key=<secret> <secret>"),
        ("HOME=/srv/x only", "HOME=<removed> only"),
        ("HOME=/x;USER=bob;FOO=1", REMOVED),
        ("a\0b", REMOVED),
    ],
)
def test_private_parts_of_a_text_are_replaced(text: str, expected: str) -> None:
    sweep = rules(
        *("HOME=/home/alice", "HOSTNAME=lab-box.example.org", "SUDO_USER=김철수", "SSH_CLIENT=2001:db8::7 1 22"),
        *("PYTHONPATH=/unusual/place", "PWD=/home/alice", "REMOTE_HOST=carol@bench-7"),
    ).text
    assert sweep(text) == expected
    assert sweep(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        *LAYERS,
        "/stem/conv/Conv_1_output_0",
        "/global/Conv + /Relu",
        "/model/layers.3/self_attn/qkv_proj",
        "cudaLaunchKernel",
        "operator/(a, b) x / y /z",
        "void f<a::b>(std::vector<int>) [clone .isra.0]",
        "~Foo() step 1/2 12:34:56 a::b::c",
        "libcudnn.so.8.9.2.26 v1.2.3.4 5.15.167.4-microsoft",
        "__libc_start_main@@GLIBC_2.2.5",
        "malice alicecorp palisade",
        "batch=8 token=5 num_tokens=128 MAX_TOKENS=32",
        "https://developer.nvidia.com/nsight-systems",
        "/home",
        "user@",
    ],
)
def test_what_is_not_private_is_left(text: str) -> None:
    assert rules("HOME=/home/alice", "USER=alice", "PWD=/model", "HOST=x86_64-conda-linux-gnu").text(text) == text


@pytest.mark.parametrize("name", ["root", "user", "nvidia", "jetson", "hc", "1000"])
def test_names_that_tell_nothing_are_not_learned(name: str) -> None:
    text = f"range of {name} and nvidia"
    assert rules(f"USER={name}", f"HOSTNAME={name}").text(text) == text


# ---- Real traces


def real_traces() -> Iterator[Path]:
    folder = os.environ.get("NITRO_TRACES")
    if folder:
        for pattern in ("nsys/*.sqlite", "nsys/*.sqlite.xz", "own/*.sqlite.xz"):
            yield from sorted(Path(folder).glob(pattern))


REAL: list[Path | None] = list(real_traces())
# Values that other rows of a trace hold as well and that identify nobody.
HARMLESS = re.compile(r"root|user|python[\d.]*|.{0,3}|/|/root|/home|/tmp", re.IGNORECASE)


def own_words(path: Path) -> set[str]:
    """Return what an export tells about who captured it: users, hosts, folders, addresses, GPU UUIDs."""
    tables, words, settings = columns(path), set[str](), list[str]()
    for table in ("META_DATA_CAPTURE", "META_DATA_EXPORT", "EXPORT_META_DATA"):
        for name, value in rows(path, f"select name, value from {table}") if table in tables else ():
            if "ENVIRONMENT" in name:
                settings.append(value)
            elif re.search(r"HOST|USER|PATH|COMMAND|WORKING|DISPLAY_NAME|UUID", name):
                words.add(value or "")
    if "TARGET_INFO_SYSTEM_ENV" in tables:
        for key, value in rows(path, "select nameEnum, value from TARGET_INFO_SYSTEM_ENV"):
            settings += re.split("[\0;]", value) if key == 610 else []
            words |= {value} if key in {170, 619} else set()
    if "StringIds" in tables:
        for (value,) in rows(path, "select value from StringIds where instr(cast(value as blob), x'00')"):
            settings += value.split("\0")
    if "uuid" in tables.get("TARGET_INFO_GPU", ()):
        words |= {uuid for (uuid,) in rows(path, "select uuid from TARGET_INFO_GPU") if uuid.strip("0-")}
    private_key = re.compile(
        r"HOME|USER|LOGNAME|HOSTNAME|HOST|PWD|OLDPWD|SSH_\w+|\w+_(?:USER|HOST|HOME|TOKEN|KEY)|SLURMD_NODENAME|MAIL"
    )
    for setting in settings:
        key, _, value = setting.partition("=")
        if private_key.fullmatch(key.strip()):
            words.add(value.strip('"'))
            words.update(value.strip('"').split() if key.startswith("SSH_") else ())
    return {word for word in words if not HARMLESS.fullmatch(word) and not word.isdigit()}


@pytest.fixture(scope="module", params=REAL or [None], ids=lambda path: path.name if path else "none")
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a plain copy of a real trace and its redacted copy."""
    if request.param is None:
        pytest.skip("set NITRO_TRACES to a folder with real traces (nsys/*.sqlite, own/*.sqlite.xz)")
    folder = tmp_path_factory.mktemp("real")
    plain = folder / "plain.sqlite"
    data = request.param.read_bytes()
    plain.write_bytes(lzma.decompress(data) if request.param.suffix == ".xz" else data)
    redact(plain, folder / "shared.sqlite")
    return plain, folder / "shared.sqlite"


def test_real_trace_tells_nothing_about_its_owner(real: tuple[Path, Path]) -> None:
    plain, target = real
    copy = target.read_bytes()
    words = own_words(plain)
    left = sum(word.encode("utf-8", "surrogateescape") in copy for word in words)
    # A count only: a report of tests must not print what is private.
    assert left == 0, f"{left} of {len(words)} private words are left"


def test_real_trace_is_analysed_the_same(real: tuple[Path, Path]) -> None:
    plain, target = real
    before, after = open_trace(plain), open_trace(target)
    # The time zone goes too: it tells where the machine stands.
    capture = replace(before.capture, utc_offset_s=None)
    assert (after.capture, after.devices, after.nvtx_domains) == (capture, before.devices, before.nvtx_domains)
    for name in before.tables:
        frame, other = before.table(name), after.table(name)
        assert (frame is None) == (other is None), name
        if frame is None or other is None:
            continue
        if name != "nvtx_events":
            assert frame.equals(other), name
            continue
        assert frame.drop("text").equals(other.drop("text"))
        texts = pl.DataFrame({"was": frame["text"].cast(pl.String), "now": other["text"].cast(pl.String)})
        differing = texts.filter(pl.col("was").ne_missing(pl.col("now")))
        assert differing["was"].str.contains(r"[/\\]").all()
        assert differing["now"].str.contains("<path>", literal=True).all()


def test_real_trace_keeps_every_number(real: tuple[Path, Path]) -> None:
    plain, target = real
    assert columns(target) == columns(plain)
    for table, names in columns(plain).items():
        if not has_rows_removed(table):
            assert has_the_numbers_of(target, plain, table, names), table


def test_real_trace_redacted_twice_changes_nothing_more(real: tuple[Path, Path]) -> None:
    _, target = real
    assert redact(target, target.with_name("twice.sqlite")).changes == ()
