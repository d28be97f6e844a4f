"""nvprof files: a small one written here record by record, and the real one of a Jetson Nano."""

from __future__ import annotations

import os
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from nitro.analyzer import analyze, open_trace
from nitro.analyzer.opening import open_input
from nitro.analyzer.operations import NO_ROW, Kind
from nitro.analyzer.profile import Profile
from nitro.analyzer.readers import nvprof
from nitro.analyzer.view import View
from nitro.errors import InputError

FOLDER = Path(os.environ.get("NITRO_TRACES", "/nonexistent"))
T0 = 1_651_206_380_000_000_000
PID, THREAD = 14146, -1673895920
_OBJECT = struct.pack("<Ii", PID, THREAD) + bytes(4)
_TABLES = {
    "RUNTIME": "cbid, start, end, processId, threadId, correlationId, returnValue",
    "DRIVER": "cbid, start, end, processId, threadId, correlationId, returnValue",
    "CONCURRENT_KERNEL": "registersPerThread, start, end, deviceId, contextId, streamId, gridX, gridY, gridZ, blockX, "
    "blockY, blockZ, staticSharedMemory, dynamicSharedMemory, correlationId, name",
    "MEMCPY": "copyKind, srcKind, dstKind, bytes, start, end, deviceId, contextId, streamId, correlationId",
    "MARKER": "flags, timestamp, id, objectKind, objectId, name, domain",
    "OVERHEAD": "overheadKind, objectKind, objectId, start, end",
    "METRIC": "id, value, correlationId, flags",
    "EVENT": "id, value, domain, correlationId",
    "MEMORY": "memoryKind, address, bytes, start, end, processId, deviceId",
}


def write(path: Path, **rows: list[tuple[object, ...]]) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE StringTable( _id_ INTEGER PRIMARY KEY, value TEXT NOT NULL UNIQUE )")
        texts = ["-- null --", "_ZN3net4convILi3EEEvPf", "layer 1", "TensorRT"]
        connection.executemany("insert into StringTable values (?, ?)", enumerate(texts))
        for kind, columns in _TABLES.items():
            connection.execute(f"CREATE TABLE CUPTI_ACTIVITY_KIND_{kind}(_id_ INTEGER PRIMARY KEY, {columns})")
            for row in rows.get(kind, []):
                marks = ", ".join("?" * len(row))
                connection.execute(f"insert into CUPTI_ACTIVITY_KIND_{kind}({columns}) values ({marks})", row)
    return path


def call(cbid: int, start: int, end: int, correlation: int) -> tuple[object, ...]:
    return (cbid, T0 + start, T0 + end, PID, THREAD, correlation, 0)


def kernel(start: int, end: int, correlation: int) -> tuple[object, ...]:
    return (32, T0 + start, T0 + end, 0, 1, 7, 4, 2, 1, 64, 1, 1, 16, 128, correlation, 1)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write(
        tmp_path / "anything.bin",
        RUNTIME=[call(211, 100, 150, 1)],
        DRIVER=[call(307, 200, 260, 2)],
        CONCURRENT_KERNEL=[kernel(300, 400, 1), kernel(500, 700, 2), (32, 0, 0, 0, 1, 7, 1, 1, 1, 1, 1, 1, 0, 0, 3, 1)],
        MEMCPY=[(1, 1, 3, 4096, T0 + 10, T0 + 20, 0, 1, 7, 9)],
        MARKER=[(2, T0 + 90, 5, 2, _OBJECT, 2, 3), (4, T0 + 180, 5, 2, _OBJECT, 0, 3)],
        OVERHEAD=[(2 << 16, 1, struct.pack("<I", PID) + bytes(8), T0 + 110, T0 + 120)],
        MEMORY=[(3, 4096, 256, T0 + 5, T0 + 800, PID, 0)],
    )


def test_times_count_from_the_first_record_and_the_capture_starts_at_it_in_utc(small: Path) -> None:
    trace = open_trace(small)
    assert trace.capture.start_utc_ns == T0 + 10
    assert trace.kernels is not None
    assert trace.kernels["start_ns"].to_list() == [290, 490]


def test_a_kernel_is_joined_to_its_runtime_or_its_driver_call(small: Path) -> None:
    view = View(open_trace(small))
    assert view.trace.api_calls is not None
    names = view.trace.api_calls["name"].to_list()
    kernels = view.operations.kind == Kind.KERNEL
    assert [names[row] for row in view.operations.launch[kernels]] == ["cudaLaunchKernel_v7000", "cuLaunchKernel"]


def test_names_of_kernels_are_readable(small: Path) -> None:
    kernels = open_trace(small).kernels
    assert kernels is not None
    assert kernels["short_name"].to_list() == ["conv", "conv"]
    assert kernels["demangled_name"][0] in ("void net::conv<3>(float*)", "_ZN3net4convILi3EEEvPf")


def test_two_markers_make_a_range_of_their_thread_and_domain(small: Path) -> None:
    trace = open_trace(small)
    (row,) = trace.table_or_empty("nvtx_events").to_dicts()
    assert (row["start_ns"], row["end_ns"], row["event_type"], row["text"]) == (80, 170, 59, "layer 1")
    assert list(trace.nvtx_domains.values()) == ["TensorRT"]
    assert trace.api_calls is not None
    assert row["global_tid"] == trace.api_calls["global_tid"][0]


def test_memory_kinds_are_those_of_the_contract(small: Path) -> None:
    trace = open_trace(small)
    (copy,) = trace.table_or_empty("memcpys").to_dicts()
    assert (copy["copy_kind"], copy["src_kind"], copy["dst_kind"]) == (1, 0, 2)
    events = trace.table_or_empty("memory_events").to_dicts()
    assert [(e["operation"], e["memory_kind"], e["bytes"]) for e in events] == [(0, 2, 256), (1, 2, 256)]


def test_overhead_of_a_process_with_one_thread_is_that_of_the_thread(small: Path) -> None:
    trace = open_trace(small)
    (row,) = trace.table_or_empty("cuda_overheads").to_dicts()
    assert trace.api_calls is not None
    assert (row["overhead_type"], row["global_tid"]) == (4, trace.api_calls["global_tid"][0])


def test_a_kernel_without_times_is_left_out_and_said(small: Path) -> None:
    (note,) = open_trace(small).notes
    assert note.startswith("1 record without a start or an end was left out")


def test_metric_values_are_doubles_or_integers_as_their_bits_say(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.nvvp",
        METRIC=[
            (11, struct.pack("<d", 0.75), 1, 0),
            (12, struct.pack("<q", 123_456_789), 1, 0),
            (13, struct.pack("<d", 1.0), 2, 2),
        ],
        EVENT=[(21, 4711, 0, 2)],
    )
    values = {(row["kind"], row["number"]): row["value"] for row in nvprof.counters(path).to_dicts()}
    assert values == {("metric", 11): 0.75, ("metric", 12): 123_456_789, ("metric", 13): None, ("event", 21): 4711}


def test_a_session_of_the_visual_profiler_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "session.nvvp"
    path.write_text('<?xml version="1.0"?>\n<session version="2" name="NewSession1.nvvp">')
    with pytest.raises(InputError, match=r"Visual Profiler \(XML\).*nvprof -o"):
        open_input(path)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs real traces: set NITRO_TRACES")
class TestJetsonNano:
    FILE = "nvprof/F64081169__Nvprof_Jetson_Nano_Example__yolo__5bdd18.nvvp"

    def test_all_51_kernels_have_their_call_32_in_the_runtime_and_19_in_the_driver(self) -> None:
        view = View(open_trace(FOLDER / self.FILE))
        kernels = view.operations.kind == Kind.KERNEL
        launches = view.operations.launch[kernels]
        assert len(launches) == 51
        assert (launches != NO_ROW).all()
        assert view.trace.api_calls is not None
        names = np.array(view.trace.api_calls["name"].to_list())[launches]
        unique, counts = np.unique(names, return_counts=True)
        assert dict(zip(unique.tolist(), counts.tolist(), strict=True)) == {
            "cudaLaunchKernel_v7000": 32,
            "cuLaunchKernel": 19,
        }

    def test_the_file_agrees_with_itself_through_plain_sql(self) -> None:
        path = FOLDER / self.FILE
        trace = open_trace(path)
        with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
            ((count, total, first),) = connection.execute(
                "select count(*), sum(end - start), min(start) from CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL"
            ).fetchall()
        kernels = trace.kernels
        assert kernels is not None
        assert (len(kernels), (kernels["end_ns"] - kernels["start_ns"]).sum()) == (count, total)
        assert trace.capture.start_utc_ns is not None
        assert kernels["start_ns"].min() == first - trace.capture.start_utc_ns

    def test_every_layer_of_tensorrt_is_in_the_tree_with_its_kernels(self) -> None:
        table = analyze(open_trace(FOLDER / self.FILE)).table("layers")
        assert table is not None
        layers = {row["name"]: row for row in table.frame.to_dicts()}
        assert len(layers) == 58
        assert {row["kind"] for row in layers.values()} == {"TensorRT layer"}
        assert layers["ExecutionContext::enqueue"]["launches"] == 78
        assert layers["036_convolutional + 036_convolutional_bn"]["total_ns"] == 5_897_080

    def test_it_is_a_profile_that_can_stand_alone(self) -> None:
        opened = open_input(FOLDER / self.FILE)
        assert isinstance(opened, Profile)
        assert opened.as_trace().devices[0].memory_bandwidth_bytes_per_s == 25_600_000_000

    def test_the_xml_session_is_refused(self) -> None:
        with pytest.raises(InputError, match="XML"):
            open_input(FOLDER / "odd/xstupi00__N-Body-OpenACC__profile__XML.nvvp")
