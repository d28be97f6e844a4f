"""Traces written by hand in a test: as frames of the column contract, and as small SQLite exports of nsys.

    trace(
        kernels=[kernel(10, 20, correlation_id=1), (30, 40)],
        api_calls=[call(2, 8, correlation_id=1)],
        nvtx=[nvtx_range(0, 50, "step")],
    )

A row is what a function of this module returns, a dict of columns of the contract, or just `(start, end)`;
columns that a row leaves out get a plain default. A table that is not given was not recorded; one given as
`[]` recorded nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import polars as pl

from nitro.analyzer import Capture, Device, Source, Trace
from nitro.analyzer.readers._nsys_columns import SOURCE_TABLES, SourceTable
from nitro.analyzer.tables import SAMPLED_METRICS, TABLE_BY_NAME, TABLES, Table

Row = dict[str, Any]
Rows = Sequence[Row | tuple[int, int]]
Schema = Literal["none", "2.9.1", "3.20.3"]

_HOST = 1 << 48
PID = 100
NVTX_PUSH_POP, NVTX_DOMAIN = 59, 75


def process(pid: int = PID) -> int:
    """Return the global id of a process."""
    return _HOST | pid << 24


def thread(tid: int = 1, pid: int = PID) -> int:
    """Return the global id of a thread."""
    return process(pid) | tid


def gpu(device_id: int = 0, name: str | None = None, **facts: Any) -> Device:
    """Return a GPU."""
    return Device(device_id, name or f"Test GPU {device_id}", **facts)


def kernel(start: int, end: int, name: str | None = "kernel", *, correlation_id: int | None = 0, **columns: Any) -> Row:
    """Return a kernel; its short name is the name up to the first `<` or `(`."""
    short = None if name is None else name.partition("<")[0].partition("(")[0]
    names = {"demangled_name": name, "short_name": short}
    return operation(start, end, correlation_id=correlation_id, **names, **columns)


def operation(start: int, end: int, *, correlation_id: int | None = 0, **columns: Any) -> Row:
    """Return a graph launch, a copy, a memset or a synchronisation record."""
    # The number by which a process sees the GPU is the GPU's own unless said otherwise.
    ordinal = {"device_ordinal": columns["device_id"]} if "device_id" in columns else {}
    return {"start_ns": start, "end_ns": end, "correlation_id": correlation_id} | ordinal | columns


def stream_wait(time: int, **columns: Any) -> Row:
    """Return the record of a stream that is told to wait for an event."""
    return operation(time, time, sync_type=2, **columns)


def call(
    start: int,
    end: int,
    name: str | None = "cudaLaunchKernel_v7000",
    *,
    correlation_id: int = 0,
    tid: int | None = None,
) -> Row:
    """Return a CUDA API call; `tid` is a global id from `thread`."""
    return {
        "start_ns": start,
        "end_ns": end,
        "name": name,
        "correlation_id": correlation_id,
        "global_tid": thread() if tid is None else tid,
    }


def on_thread(start: int, end: int, tid: int | None = None, **columns: Any) -> Row:
    """Return a row of a table whose rows belong to a thread, such as an OS call or profiler overhead."""
    return {"start_ns": start, "end_ns": end, "global_tid": thread() if tid is None else tid} | columns


def scheduled(time: int, is_in: bool, tid: int | None = None) -> Row:
    """Return a thread coming onto a CPU, or leaving it."""
    return {"start_ns": time, "is_sched_in": int(is_in), "global_tid": thread() if tid is None else tid}


def nvtx_range(start: int, end: int | None, text: str | None = None, *, tid: int | None = None, **columns: Any) -> Row:
    """Return an NVTX push/pop range; `end=None` is a range that the capture did not see end."""
    where = thread() if tid is None else tid
    return {"start_ns": start, "end_ns": end, "text": text, "global_tid": where} | columns


def nvtx_domain(domain_id: int, name: str, *, tid: int | None = None) -> Row:
    """Return the event by which a process names an NVTX domain."""
    return nvtx_range(0, None, name, tid=tid, event_type=NVTX_DOMAIN, domain_id=domain_id)


def context_switch(time: int, tag: int, pid: int = PID, *, device_id: int = 0) -> Row:
    """Return an event of a GPU's contexts; of the tags, 7 is SAVE_END, 8 RESTORE_START and 9 CONTEXT_START."""
    return {"start_ns": time, "tag": tag, "global_pid": process(pid), "device_id": device_id}


def memory_event(time: int, size: int, address: int = 1, *, is_release: bool = False, **columns: Any) -> Row:
    """Return an allocation of GPU memory, or its release."""
    row = {"start_ns": time, "bytes": size, "address": address, "operation": int(is_release)}
    return row | ({"device_ordinal": columns["device_id"]} if "device_id" in columns else {}) | columns


def sample(time: int, metric: str, value: int, *, device_id: int = 0) -> Row:
    """Return a sample of a GPU metric, under its name in `SAMPLED_METRICS`."""
    return {"time_ns": time, "metric": metric, "value": value, "device_id": device_id}


def trace(
    *,
    kernels: Rows | None = None,
    graph_launches: Rows | None = None,
    memcpys: Rows | None = None,
    memsets: Rows | None = None,
    api_calls: Rows | None = None,
    os_calls: Rows | None = None,
    nvtx: Rows | None = None,
    synchronizations: Rows | None = None,
    profiler_overheads: Rows | None = None,
    cuda_overheads: Rows | None = None,
    sched_events: Rows | None = None,
    context_switches: Rows | None = None,
    memory_events: Rows | None = None,
    gpu_metric_samples: Rows | None = None,
    devices: Sequence[Device] | None = None,
    capture: Capture | None = None,
) -> Trace:
    """Return a trace of these rows. Without `devices`, every GPU that an operation names is described."""
    rows = {
        "kernels": kernels,
        "graph_launches": graph_launches,
        "memcpys": memcpys,
        "memsets": memsets,
        "api_calls": api_calls,
        "os_calls": os_calls,
        "nvtx_events": nvtx,
        "synchronizations": synchronizations,
        "profiler_overheads": profiler_overheads,
        "cuda_overheads": cuda_overheads,
        "sched_events": sched_events,
        "context_switches": context_switches,
        "memory_events": memory_events,
        "gpu_metric_samples": gpu_metric_samples,
    }
    completed = {
        name: [_completed(TABLE_BY_NAME[name], row) for row in given]
        for name, given in rows.items()
        if given is not None
    }
    ids = _string_ids(completed)
    tables = {name: _frame(TABLE_BY_NAME[name], given, ids) for name, given in completed.items()}
    return Trace(
        source=Source("built.sqlite", "built"),
        devices=_used_gpus(tables) if devices is None else tuple(devices),
        tables=tables,
        capture=capture or Capture(),
        nvtx_domains={
            (row["global_tid"] & ~0xFFFFFF, row["domain_id"]): row["text"]
            for row in completed.get("nvtx_events", ())
            if row["event_type"] == NVTX_DOMAIN
        },
    )


def empty_trace() -> Trace:
    """Return a trace that has every table and no row."""
    return Trace(Source("built.sqlite", "built"), (), {table.name: table.empty() for table in TABLES})


_WHERE: Row = {
    "device_id": 0,
    "device_ordinal": 0,
    "context_id": 1,
    "stream_id": 7,
    "correlation_id": 0,
    "global_pid": process(),
}
_SHAPE: Row = {f"{what}_{axis}": size for what, size in (("grid", 1), ("block", 32)) for axis in "xyz"}
_THREAD: Row = {"global_tid": thread()}
_DEFAULTS: dict[str, Row] = {
    "kernels": {
        **_WHERE,
        **_SHAPE,
        "demangled_name": "kernel",
        "short_name": "kernel",
        "registers_per_thread": 16,
        "static_shared_memory_bytes": 0,
        "dynamic_shared_memory_bytes": 0,
    },
    "graph_launches": {**_WHERE, "graph_id": 1, "graph_exec_id": 2},
    "memcpys": {**_WHERE, "bytes": 4, "copy_kind": 1, "src_kind": 0, "dst_kind": 2},
    "memsets": {**_WHERE, "bytes": 4},
    "api_calls": {**_THREAD, "correlation_id": 0, "name": "cudaLaunchKernel_v7000"},
    "os_calls": {**_THREAD, "event_class": 27, "name": "read"},
    "nvtx_events": {**_THREAD, "event_type": NVTX_PUSH_POP, "domain_id": 0, "text": "range"},
    "synchronizations": {**_WHERE, "sync_type": 3},
    "profiler_overheads": {**_THREAD, "name": "CUDA profiling overhead"},
    "cuda_overheads": {**_THREAD, "overhead_type": 3},
    "sched_events": _THREAD,
    "context_switches": {"tag": 1, "context_id": 1, "global_pid": process(), "device_id": 0},
    "memory_events": {
        **{name: _WHERE[name] for name in ("device_id", "device_ordinal", "correlation_id", "global_pid")},
        "memory_kind": 2,
        "operation": 0,
    },
    "gpu_metric_samples": {"device_id": 0},
}


def _completed(table: Table, row: Row | tuple[int, int]) -> Row:
    given = {"start_ns": row[0], "end_ns": row[1]} if isinstance(row, tuple) else row
    unknown = set(given) - set(table.column_names)
    if unknown:
        raise ValueError(f"table {table.name} has no column {', '.join(sorted(unknown))}")
    return dict.fromkeys(table.column_names) | _DEFAULTS[table.name] | given


def _string_ids(rows: Mapping[str, list[Row]]) -> dict[str, int]:
    """Number the names of calls, as StringIds of an export does."""
    names = {row["name"] for given in rows.values() for row in given if row.get("name") is not None}
    return {name: number for number, name in enumerate(sorted(names), start=1)}


def _frame(table: Table, rows: list[Row], ids: Mapping[str, int]) -> pl.DataFrame:
    columns = []
    for column in table.columns:
        values = [row[column.name] for row in rows]
        if column.name == "name_id":
            values = [ids.get(row["name"]) for row in rows]
        dtype: pl.DataType | type[pl.DataType] = column.dtype
        if column.dtype is pl.Enum:
            used = sorted({value for value in values if value is not None})
            dtype = pl.Enum(list(SAMPLED_METRICS) if table.name == "gpu_metric_samples" else used)
        columns.append(pl.Series(column.name, values, dtype=dtype))
    return pl.DataFrame(columns)


_OPERATION_TABLES = ("kernels", "graph_launches", "memcpys", "memsets")


def _used_gpus(tables: Mapping[str, pl.DataFrame]) -> tuple[Device, ...]:
    ids = (tables[name]["device_id"].drop_nulls().to_list() for name in _OPERATION_TABLES if name in tables)
    used = {device_id for some in ids for device_id in some}
    return tuple(gpu(device_id) for device_id in sorted(used))


# The columns of a real export in its order, where the reader maps only some of them.
_ORDER: dict[str, tuple[str, ...]] = {
    "CUPTI_ACTIVITY_KIND_KERNEL": (
        *("start", "end", "deviceId", "contextId", "greenContextId", "streamId", "correlationId"),
        *("globalPid", "demangledName", "shortName", "mangledName", "launchType", "cacheConfig"),
        *("registersPerThread", "gridX", "gridY", "gridZ", "blockX", "blockY", "blockZ", "staticSharedMemory"),
        *("dynamicSharedMemory", "localMemoryPerThread", "localMemoryTotal", "gridId", "graphNodeId"),
    ),
    "CUPTI_ACTIVITY_KIND_RUNTIME": (
        *("start", "end", "eventClass", "globalTid", "correlationId", "nameId", "returnValue"),
    ),
    "NVTX_EVENTS": (
        *("start", "end", "eventType", "rangeId", "category", "color", "text", "globalTid", "endGlobalTid"),
        *("textId", "domainId", "uint64Value", "int64Value", "doubleValue", "uint32Value", "int32Value"),
    ),
    "SCHED_EVENTS": ("start", "cpu", "isSchedIn", "globalTid"),
}
_SCHEMAS_WITH: dict[str, tuple[Schema, ...]] = {
    "greenContextId": ("3.20.3",),
    "mangledName": ("2.9.1", "3.20.3"),
}
_VERSIONS: dict[Schema, tuple[str, str]] = {
    "2.9.1": ("EXPORT_META_DATA", "2022.2.1.31"),
    "3.20.3": ("META_DATA_EXPORT", "2025.3.2.367"),
}


_NAME_OF_SAMPLED = {
    "gpc_clock": "GPC Clock Frequency [MHz]",
    "sys_clock": "SYS Clock Frequency [MHz]",
    "gr_active": "GR Active [Throughput %]",
    "async_compute_in_flight": "Async Compute in Flight [Throughput %]",
    "sync_compute_in_flight": "Sync Compute in Flight [Throughput %]",
    "sm_active": "SMs Active [Throughput %]",
    "sm_issue": "SM Issue [Throughput %]",
    "tensor_active": "Tensor Active [Throughput %]",
    "compute_warps": "Compute Warps in Flight [Throughput %]",
    "unallocated_warps": "Unallocated Warps in Active SMs [Throughput %]",
    "dram_read": "DRAM Read Bandwidth [Throughput %]",
    "dram_write": "DRAM Write Bandwidth [Throughput %]",
    "pcie_rx": "PCIe RX Throughput [Throughput %]",
    "pcie_tx": "PCIe TX Throughput [Throughput %]",
}


def write_nsys_sqlite(path: Path, built: Trace, schema: Schema = "3.20.3") -> Path:
    """Write a trace as nsys would export it, and return the path.

    Args:
        path: the file to make.
        built: what `trace` returned.
        schema: the shape of the export. `none` is nsys 2020: no metadata, TARGET_INFO_CUDA_GPU, fewer
            columns; `2.9.1` is nsys 2022 with EXPORT_META_DATA; `3.20.3` is nsys 2025 with META_DATA_EXPORT,
            TARGET_INFO_CUDA_DEVICE, and NVTX messages as registered strings.
    """
    with closing(sqlite3.connect(path)) as connection, connection:
        ids = _ids_of_all_texts(built)
        _insert(connection, "StringIds", {"id": [*ids.values()], "value": [*ids]})
        for table in SOURCE_TABLES:
            frame = built.table(table.name)
            if frame is not None:
                _insert(connection, table.source, _source_columns(table, frame, ids, schema))
        for name, rows in (_facts(built, schema) | _samples(built)).items():
            if rows:
                _insert(connection, name, {column: [row[column] for row in rows] for column in rows[0]})
    return path


def _ids_of_all_texts(built: Trace) -> dict[str, int]:
    ids: dict[str, int] = {}
    texts: set[str] = set()
    for table in TABLES:
        frame = built.table(table.name)
        if frame is None:
            continue
        if "name_id" in frame.columns:
            ids.update((name, number) for name, number in frame.select("name", "name_id").iter_rows() if name)
        for column in table.columns:
            if column.dtype is pl.Enum:
                texts.update(frame[column.name].drop_nulls().cast(pl.String).to_list())
    first = max(ids.values(), default=0) + 1
    return ids | {text: number for number, text in enumerate(sorted(texts - set(ids)), start=first)}


def _source_columns(
    table: SourceTable, frame: pl.DataFrame, ids: Mapping[str, int], schema: Schema
) -> dict[str, list[Any]]:
    """Return the columns of one table under the names of the export."""
    sources = {column.sources[0]: column.name for column in table.columns if column.name in frame.columns}
    if table.name == "nvtx_events":
        sources |= {"textId" if schema == "3.20.3" else "text": "text", "int64Value": "payload"}
    names = _ORDER.get(table.source, tuple(sources))
    if not set(sources) <= set(names):
        raise ValueError(f"the column list of {table.source} lacks {sorted(set(sources) - set(names))}")
    columns: dict[str, list[Any]] = {}
    for name in names:
        if schema not in _SCHEMAS_WITH.get(name, (schema,)):
            continue
        values = frame[sources[name]].to_list() if name in sources else [None] * len(frame)
        if name in sources and isinstance(frame[sources[name]].dtype, pl.Enum) and name != "text":
            values = [None if text is None else ids[text] for text in values]
        columns[name] = values
    return columns


def _facts(built: Trace, schema: Schema) -> dict[str, list[Row]]:
    """Return the tables that are no events: exporter, session, GPUs."""
    if schema == "none":
        return {"TARGET_INFO_CUDA_GPU": [_gpu_of_2020(device) for device in built.devices]}
    metadata, version = _VERSIONS[schema]
    product = {"PRODUCT_NAME": "NVIDIA Nsight Systems", "PRODUCT_VERSION": version, "SCHEMA_VERSION": schema}
    capture = built.capture
    start = [{"utcEpochNs": capture.start_utc_ns}]
    details = [{"globalVid": _HOST, "duration": capture.duration_ns, "startTime": 0}]
    return {
        metadata: [{"name": f"EXPORT_{name}", "value": value} for name, value in product.items()],
        "ANALYSIS_DETAILS": details if capture.duration_ns is not None else [],
        "TARGET_INFO_SESSION_START_TIME": start if capture.start_utc_ns is not None else [],
        "TARGET_INFO_GPU": [_gpu_of_2021(device) for device in built.devices],
        "TARGET_INFO_CUDA_DEVICE": _cuda_devices(built) if schema == "3.20.3" else [],
    }


def _samples(built: Trace) -> dict[str, list[Row]]:
    """Return GPU metric samples and what their numbers mean; the numbers differ from capture to capture."""
    rows = built.table_or_empty("gpu_metric_samples").to_dicts()
    number = {metric: place for place, metric in enumerate(SAMPLED_METRICS, start=30)}
    return {
        "GPU_METRICS": [
            {
                "timestamp": row["time_ns"],
                "typeId": _HOST | row["device_id"],
                "metricId": number[row["metric"]],
                "value": row["value"],
            }
            for row in rows
        ],
        "TARGET_INFO_GPU_METRICS": [
            {"typeId": _HOST | device_id, "metricId": number[metric], "metricName": _NAME_OF_SAMPLED[metric]}
            for device_id, metric in sorted({(row["device_id"], row["metric"]) for row in rows})
        ],
    }


def _capability(device: Device) -> tuple[int | None, int | None]:
    if device.compute_capability is None:
        return None, None
    major, _, minor = device.compute_capability.partition(".")
    return int(major), int(minor)


def _gpu_of_2020(device: Device) -> Row:
    major, minor = _capability(device)
    return {
        "name": device.name,
        "deviceId": device.device_id,
        "globalMemorySize": device.memory_bytes or 0,
        "globalMemoryBandwidth": (device.memory_bandwidth_bytes_per_s or 0) // 1000,
        "coreClockRate": (device.sm_clock_hz or 0) // 1000,
        "numMultiprocessors": device.sm_count or 0,
        "l2CacheSize": device.l2_cache_bytes or 0,
        "maxWarpsPerMultiprocessor": device.max_warps_per_sm or 0,
        "computeCapabilityMajor": major,
        "computeCapabilityMinor": minor,
    }


def _gpu_of_2021(device: Device) -> Row:
    major, minor = _capability(device)
    return {
        "vmId": _HOST,
        "id": device.device_id,
        "name": device.name,
        "isDiscrete": None if device.is_integrated is None else int(not device.is_integrated),
        "l2CacheSize": device.l2_cache_bytes,
        "totalMemory": device.memory_bytes,
        "memoryBandwidth": device.memory_bandwidth_bytes_per_s,
        "clockRate": device.sm_clock_hz,
        "smCount": device.sm_count,
        "chipName": device.chip,
        "cuDevice": device.device_id,
        "maxWarpsPerSm": device.max_warps_per_sm,
        "computeMajor": major,
        "computeMinor": minor,
    }


def _cuda_devices(built: Trace) -> list[Row]:
    seen = {
        (device_id, ordinal, (pid >> 24) & 0xFFFFFF)
        for name in (*_OPERATION_TABLES, "synchronizations")
        for device_id, ordinal, pid in built.table_or_empty(name)
        .select("device_id", "device_ordinal", "global_pid")
        .drop_nulls()
        .iter_rows()
    }
    return [{"gpuId": device_id, "cudaId": ordinal, "pid": pid} for device_id, ordinal, pid in sorted(seen)]


def _insert(connection: sqlite3.Connection, table: str, columns: Mapping[str, list[Any]]) -> None:
    texts = {name for name, values in columns.items() if any(isinstance(value, str) for value in values)}
    declared = ", ".join(f'"{name}" {"TEXT" if name in texts else "INTEGER"}' for name in columns)
    connection.execute(f'create table "{table}" ({declared})')
    marks = ", ".join("?" * len(columns))
    connection.executemany(f'insert into "{table}" values ({marks})', zip(*columns.values(), strict=True))
