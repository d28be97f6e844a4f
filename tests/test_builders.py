"""The builders are believed by every other test: what they write is what the reader reads."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import pytest
from polars.testing import assert_frame_equal

from builders import (
    PID,
    Schema,
    call,
    context_switch,
    empty_trace,
    gpu,
    kernel,
    memory_event,
    nvtx_domain,
    nvtx_range,
    on_thread,
    operation,
    process,
    sample,
    scheduled,
    stream_wait,
    thread,
    trace,
    write_nsys_sqlite,
)
from nitro.analyzer import Capture, Trace, open_trace
from nitro.analyzer.tables import SAMPLED_METRICS, TABLES

SCHEMAS = get_args(Schema)
# Ranges that a framework's own profiler recorded are in no nsys export.
NSYS_TABLES = [table for table in TABLES if table.name != "framework_ranges"]
DEVICE: dict[str, Any] = {
    "compute_capability": "8.7",
    "sm_count": 8,
    "sm_clock_hz": 1_020_000_000,
    "memory_bytes": 8_000_000_000,
    "memory_bandwidth_bytes_per_s": 68_000_000_000,
    "l2_cache_bytes": 2_097_152,
    "max_warps_per_sm": 48,
}


def full_trace(schema: str) -> Trace:
    """Return a trace with rows in every table, two GPUs and two processes."""
    # Only newer exports say which GPU a process means by its number.
    ordinal = 0 if schema == "3.20.3" else 1
    second = {"device_id": 1, "device_ordinal": ordinal, "global_pid": process(PID + 1)}
    return trace(
        kernels=[
            kernel(10, 20, "void add<float>(float*)", correlation_id=1),
            kernel(30, 40, None, correlation_id=2, registers_per_thread=255),
            kernel(30, 45, "mul", correlation_id=2, **second),
        ],
        graph_launches=[operation(50, 90, correlation_id=3, graph_id=4, graph_exec_id=5)],
        memcpys=[operation(21, 22, bytes=1 << 40, copy_kind=2, src_kind=2, dst_kind=1)],
        memsets=[operation(23, 24, bytes=64)],
        api_calls=[
            call(1, 9, correlation_id=1),
            call(2, 8, "cuLaunchKernel", correlation_id=1),
            call(3, 4, correlation_id=2, tid=thread(7, PID + 1)),
        ],
        os_calls=[on_thread(5, 6), on_thread(5, 7, name="poll")],
        nvtx=[
            nvtx_domain(3, "decoder"),
            nvtx_range(0, 100, "step 1", payload=16),
            nvtx_range(10, None, None, domain_id=3),
            nvtx_range(11, 12, "Schritt \N{HANGUL SYLLABLE GA}", domain_id=3, end_global_tid=thread(9)),
        ],
        synchronizations=[stream_wait(60), operation(60, 70)],
        profiler_overheads=[on_thread(0, 1)],
        cuda_overheads=[on_thread(0, 2)],
        sched_events=[scheduled(0, False), scheduled(3, True)],
        context_switches=[context_switch(15, 8, device_id=1), context_switch(18, 7, PID + 1)],
        memory_events=[memory_event(5, 4096, 64), memory_event(95, 4096, 64, is_release=True)],
        gpu_metric_samples=[
            sample(time, metric, value)
            for time in (100, 200)
            for value, metric in enumerate(SAMPLED_METRICS)
            if not metric.endswith("clock")
        ],
        devices=[gpu(0, **DEVICE), gpu(1, "Other GPU", **DEVICE)],
    )


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_table_comes_back_from_the_export_as_it_was_built(tmp_path: Path, schema: Schema) -> None:
    built = full_trace(schema)
    read = open_trace(write_nsys_sqlite(tmp_path / "built.sqlite", built, schema))
    for table in NSYS_TABLES:
        expected, actual = built.table(table.name), read.table(table.name)
        assert expected is not None
        assert actual is not None
        assert_frame_equal(actual, expected)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_table_that_was_not_recorded_stays_apart_from_an_empty_one(tmp_path: Path, schema: Schema) -> None:
    built = trace(kernels=[(0, 10)], memcpys=[])
    read = open_trace(write_nsys_sqlite(tmp_path / "built.sqlite", built, schema))
    assert read.memsets is None
    assert read.memcpys is not None
    assert read.memcpys.is_empty()


@pytest.mark.parametrize("schema", SCHEMAS)
def test_devices_come_back(tmp_path: Path, schema: Schema) -> None:
    built = full_trace(schema)
    read = open_trace(write_nsys_sqlite(tmp_path / "built.sqlite", built, schema))
    assert [device.name for device in read.devices] == ["Test GPU 0", "Other GPU"]
    for device in read.devices:
        assert {name: getattr(device, name) for name in DEVICE} == DEVICE
        assert device.memory_bandwidth_source == "driver"


def test_facts_of_the_capture_come_back(tmp_path: Path) -> None:
    capture = Capture(duration_ns=5_000, start_utc_ns=1_700_000_000_000_000_000)
    built = trace(kernels=[(0, 10)], capture=capture)
    read = open_trace(write_nsys_sqlite(tmp_path / "built.sqlite", built))
    assert read.capture.duration_ns == 5_000
    assert read.capture.start_utc_ns == 1_700_000_000_000_000_000
    assert read.source.schema_version == "3.20.3"
    assert read.source.tool_version == "2025.3.2.367"


def test_nvtx_domains_come_back(tmp_path: Path) -> None:
    built = full_trace("3.20.3")
    read = open_trace(write_nsys_sqlite(tmp_path / "built.sqlite", built))
    assert built.nvtx_domains == read.nvtx_domains == {(process(), 3): "decoder"}


def test_the_three_shapes_differ_as_the_real_exports_do(tmp_path: Path) -> None:
    found: dict[str, tuple[set[str], set[str]]] = {}
    for schema in SCHEMAS:
        path = write_nsys_sqlite(tmp_path / f"{schema}.sqlite", full_trace(schema), schema)
        with closing(sqlite3.connect(path)) as connection:
            tables = {row[0] for row in connection.execute("select name from sqlite_master")}
            columns = {row[1] for row in connection.execute("pragma table_info(CUPTI_ACTIVITY_KIND_KERNEL)")}
        found[schema] = tables, columns
    gpus = {"TARGET_INFO_GPU", "TARGET_INFO_CUDA_GPU", "TARGET_INFO_CUDA_DEVICE"}
    about = {"META_DATA_EXPORT", "EXPORT_META_DATA"} | gpus
    assert found["none"][0] & about == {"TARGET_INFO_CUDA_GPU"}
    assert found["2.9.1"][0] & about == {"EXPORT_META_DATA", "TARGET_INFO_GPU"}
    assert found["3.20.3"][0] & about == {"META_DATA_EXPORT", "TARGET_INFO_GPU", "TARGET_INFO_CUDA_DEVICE"}
    added = {"mangledName", "greenContextId"}
    assert found["none"][1] & added == set()
    assert found["2.9.1"][1] & added == {"mangledName"}
    assert found["3.20.3"][1] & added == added


def test_a_row_needs_no_more_than_start_and_end() -> None:
    built = trace(kernels=[(0, 10)])
    assert built.kernels is not None
    assert built.kernels.select("start_ns", "end_ns", "device_id", "stream_id").row(0) == (0, 10, 0, 7)
    assert [device.device_id for device in built.devices] == [0]


def test_a_misspelt_column_is_refused() -> None:
    with pytest.raises(ValueError, match="table kernels has no column durations"):
        trace(kernels=[kernel(0, 1, durations=3)])


def test_built_frames_keep_to_the_contract() -> None:
    for built in (full_trace("3.20.3"), empty_trace()):
        for table in NSYS_TABLES:
            frame = built.table(table.name)
            assert frame is not None
            assert frame.columns == list(table.column_names)
            assert all(frame[column.name].dtype == column.dtype for column in table.columns)
