"""The reverse of the reader: a `Trace` as a small SQLite file in the shape of an nsys export, for synthetic traces."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import polars as pl

from ..tables import SAMPLED_METRICS, TABLES
from ..trace import Device, Trace
from ._nsys_columns import SOURCE_TABLES, SourceTable
from ._sqlite_file import quoted

_Row = dict[str, Any]
Schema = Literal["none", "2.9.1", "3.20.3"]

# Host and VM bits of every global id.
HOST = 1 << 48

_TABLES_WITH_GPU = ("kernels", "graph_launches", "memcpys", "memsets", "synchronizations", "memory_events")

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


def write_nsys_sqlite(path: str | Path, built: Trace, schema: Schema = "3.20.3") -> Path:
    """Write a trace as nsys would export it, and return the path.

    `open_trace` reads the same tables back. One thing cannot be held: samples that were recorded but are none
    (`gpu_metric_samples=[]`) come back as not recorded. The notes and the options of the capture
    are not written, nor the facts of a `Device` that the analyzer looks up itself.

    Args:
        path: the file to make; there must be no file with content yet.
        built: what `nitro.analyzer.synthetic.trace` returned.
        schema: the shape of the export. `none` is nsys 2020: no metadata, TARGET_INFO_CUDA_GPU, fewer
            columns, and processes name a GPU by its own number; `2.9.1` is nsys 2022 with EXPORT_META_DATA;
            `3.20.3` is nsys 2025 with META_DATA_EXPORT, TARGET_INFO_CUDA_DEVICE, and NVTX messages as
            registered strings.

    Raises:
        FileExistsError: the file is there and is not empty.
    """
    path = Path(path)
    if path.exists() and path.stat().st_size:
        raise FileExistsError(f"{path}: the file is there already; give the path of a new one.")
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


def _facts(built: Trace, schema: Schema) -> dict[str, list[_Row]]:
    """Return the tables that are no events: exporter, session, GPUs."""
    if schema == "none":
        return {"TARGET_INFO_CUDA_GPU": [_gpu_of_2020(device) for device in built.devices]}
    metadata, version = _VERSIONS[schema]
    product = {"PRODUCT_NAME": "NVIDIA Nsight Systems", "PRODUCT_VERSION": version, "SCHEMA_VERSION": schema}
    capture = built.capture
    start = [{"utcEpochNs": capture.start_utc_ns}]
    details = [{"globalVid": HOST, "duration": capture.duration_ns, "startTime": 0}]
    return {
        metadata: [{"name": f"EXPORT_{name}", "value": value} for name, value in product.items()],
        "ANALYSIS_DETAILS": details if capture.duration_ns is not None else [],
        "TARGET_INFO_SESSION_START_TIME": start if capture.start_utc_ns is not None else [],
        "TARGET_INFO_GPU": [_gpu_of_2021(device) for device in built.devices],
        "TARGET_INFO_CUDA_DEVICE": _cuda_devices(built) if schema == "3.20.3" else [],
    }


def _samples(built: Trace) -> dict[str, list[_Row]]:
    """Return GPU metric samples and what their numbers mean; the numbers differ from capture to capture."""
    rows = built.table_or_empty("gpu_metric_samples").to_dicts()
    number = {metric: place for place, metric in enumerate(SAMPLED_METRICS, start=30)}
    return {
        "GPU_METRICS": [
            {
                "timestamp": row["time_ns"],
                "typeId": HOST | row["device_id"],
                "metricId": number[row["metric"]],
                "value": row["value"],
            }
            for row in rows
        ],
        "TARGET_INFO_GPU_METRICS": [
            {"typeId": HOST | device_id, "metricId": number[metric], "metricName": _NAME_OF_SAMPLED[metric]}
            for device_id, metric in sorted({(row["device_id"], row["metric"]) for row in rows})
        ],
    }


def _capability(device: Device) -> tuple[int | None, int | None]:
    if device.compute_capability is None:
        return None, None
    major, _, minor = device.compute_capability.partition(".")
    return int(major), int(minor)


def _gpu_of_2020(device: Device) -> _Row:
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


def _gpu_of_2021(device: Device) -> _Row:
    major, minor = _capability(device)
    return {
        "vmId": HOST,
        "id": device.device_id,
        "name": device.name,
        "isDiscrete": None if device.is_integrated is None else int(not device.is_integrated),
        "l2CacheSize": device.l2_cache_bytes,
        "totalMemory": device.memory_bytes,
        "memoryBandwidth": device.memory_bandwidth_bytes_per_s,
        "clockRate": device.sm_clock_hz,
        "smCount": device.sm_count,
        "chipName": device.chip,
        "busLocation": device.pci_bus_id,
        "uuid": device.uuid,
        "cuDevice": device.device_id,
        "maxWarpsPerSm": device.max_warps_per_sm,
        "computeMajor": major,
        "computeMinor": minor,
    }


def _cuda_devices(built: Trace) -> list[_Row]:
    seen = {
        (device_id, ordinal, (pid >> 24) & 0xFFFFFF)
        for name in _TABLES_WITH_GPU
        for device_id, ordinal, pid in built.table_or_empty(name)
        .select("device_id", "device_ordinal", "global_pid")
        .drop_nulls()
        .iter_rows()
    }
    return [{"gpuId": device_id, "cudaId": ordinal, "pid": pid} for device_id, ordinal, pid in sorted(seen)]


def _insert(connection: sqlite3.Connection, table: str, columns: Mapping[str, list[Any]]) -> None:
    texts = {name for name, values in columns.items() if any(isinstance(value, str) for value in values)}
    declared = ", ".join(f"{quoted(name)} {'TEXT' if name in texts else 'INTEGER'}" for name in columns)
    connection.execute(f"create table {quoted(table)} ({declared})")
    marks = ", ".join("?" * len(columns))
    connection.executemany(f"insert into {quoted(table)} values ({marks})", zip(*columns.values(), strict=True))
