"""Facts of a capture beside its events: exporter, session, devices, options. Nothing here can name a person.

Environment variables, command lines, host, user and process names are never read: each query asks for the keys
that it needs, and for no other row.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..gpu_identity import gpu_uuid, pci_bus_id
from ..hardware import integrated_memory_bandwidth
from ..message import message
from ..trace import Capture, Device
from ._sqlite_file import SqliteFile, quoted

_EXPORT_TABLES = ("META_DATA_EXPORT", "EXPORT_META_DATA")
_OPTIONS = {
    # With the prefix in exports up to 2025, without it in newer ones.
    "PROCESS_0:CUDA_GRAPH_TRACE_OPTIONS:MODE": "cuda_graph_trace",
    "CUDA_GRAPH_TRACE_OPTIONS:MODE": "cuda_graph_trace",
    "PROCESS_0:COLLECT_GPU_MEMORY_USAGE": "cuda_memory_usage",
    "COLLECT_GPU_MEMORY_USAGE": "cuda_memory_usage",
    "GPU_METRICS_OPTIONS:SAMPLING_FREQUENCY": "gpu_metrics_frequency_hz",
    "COLLECT_GPU_CTX_SW_TRACE": "gpu_context_switches",
}
_RECORDED = {
    "gpu_metrics": "GPU_METRICS",
    "gpu_memory_usage": "CUDA_GPU_MEMORY_USAGE_EVENTS",
    "cpu_samples": "COMPOSITE_EVENTS",
}
# nameEnum of TARGET_INFO_SYSTEM_ENV, which is there in every export, where the name column is not.
_SYSTEM = {205: "driver_version", 601: "software_platform", 617: "l4t_version", 3: "cpu_architecture"}


_QUARTER_S = 900

# The text columns of the tables of GPUs; all others that are read hold integers.
_TEXTS = ("name", "chipName", "uuid", "busLocation")


def export_facts(file: SqliteFile) -> dict[str, str]:
    """Return product, version and schema version of the exporter; empty for exports before 2022."""
    for table in _EXPORT_TABLES:
        if {"name", "value"} <= set(file.columns(table)):
            wanted = ("EXPORT_PRODUCT_NAME", "EXPORT_PRODUCT_VERSION", "EXPORT_SCHEMA_VERSION")
            sql = f"select name, value from {table} where name in (?, ?, ?)"
            return {str(name): str(value) for name, value in file.rows(sql, wanted)}
    return {}


def capture_facts(file: SqliteFile) -> Capture:
    """Return when and how long was recorded, and the options that decide what can be measured."""
    duration_ns = _integer(file, "ANALYSIS_DETAILS", "duration")
    start_utc_ns = _integer(file, "TARGET_INFO_SESSION_START_TIME", "utcEpochNs")
    options: dict[str, str] = {}
    if {"name", "value"} <= set(file.columns("META_DATA_CAPTURE")):
        marks = ", ".join("?" * len(_OPTIONS))
        for name, value in file.rows(
            f"select name, value from META_DATA_CAPTURE where name in ({marks})", tuple(_OPTIONS)
        ):
            options[_OPTIONS[name]] = str(value)
    if {"nameEnum", "value"} <= set(file.columns("TARGET_INFO_SYSTEM_ENV")):
        marks = ", ".join("?" * len(_SYSTEM))
        sql = f"select nameEnum, value from TARGET_INFO_SYSTEM_ENV where nameEnum in ({marks})"
        for key, value in file.rows(sql, tuple(_SYSTEM)):
            options.setdefault(_SYSTEM[key], str(value))
    recorded = tuple(name for name, table in _RECORDED.items() if _has_rows(file, table))
    return Capture(duration_ns, start_utc_ns, options, recorded, _utc_offset_s(file))


def devices(file: SqliteFile) -> tuple[Device, ...]:
    """Return the GPUs that the export describes, by ascending id; none where it has no GPU table."""
    if "smCount" in file.columns("TARGET_INFO_GPU"):
        rows = _dicts(file, "TARGET_INFO_GPU")
        # Without TARGET_INFO_CUDA_DEVICE the events name a GPU by its CUDA number, which is not the row's id.
        cuda_numbers = [row.get("cuDevice") for row in rows]
        by_cuda_number = (
            not file.columns("TARGET_INFO_CUDA_DEVICE")
            and None not in cuda_numbers
            and len(set(cuda_numbers)) == len(rows)
        )
        id_column = "cuDevice" if by_cuda_number else "id"
        found = [_device(row, id_column) for row in rows if id_column in row]
    elif file.columns("TARGET_INFO_CUDA_GPU"):
        found = [_device_of_2020(row) for row in _dicts(file, "TARGET_INFO_CUDA_GPU") if "deviceId" in row]
    else:
        found = []
    unique = {device.device_id: device for device in reversed(found)}
    return tuple(unique[key] for key in sorted(unique))


def physical_gpus(file: SqliteFile) -> dict[tuple[int, int], int]:
    """Return (process id, CUDA number in that process) → id of the physical GPU, where the export knows it."""
    if {"gpuId", "cudaId", "pid"} <= set(file.columns("TARGET_INFO_CUDA_DEVICE")):
        rows = file.rows("select pid, cudaId, gpuId from TARGET_INFO_CUDA_DEVICE")
        return {(pid, cuda): gpu for pid, cuda, gpu in rows if all(isinstance(v, int) for v in (pid, cuda, gpu))}
    return {}


def _has_rows(file: SqliteFile, table: str) -> bool:
    return bool(file.columns(table)) and bool(file.rows(f"select 1 from {quoted(table)} limit 1"))


def _integer(file: SqliteFile, table: str, column: str) -> int | None:
    """Return the first integer of a column, `None` where there is none."""
    if column not in file.columns(table):
        return None
    rows = file.rows(f"select {quoted(column)} from {quoted(table)} where typeof({quoted(column)}) = 'integer' limit 1")
    return rows[0][0] if rows else None


def _utc_offset_s(file: SqliteFile) -> int | None:
    """Return by how much the machine's wall clock was ahead of UTC, in whole quarters of an hour."""
    table = "TARGET_INFO_SESSION_START_TIME"
    if not {"utcTime", "localTime"} <= set(file.columns(table)):
        return None
    for utc, local in file.rows(f"select utcTime, localTime from {table} limit 1"):
        try:
            ahead = datetime.fromisoformat(str(local)) - datetime.fromisoformat(str(utc))
        except (ValueError, TypeError):
            return None
        return round(ahead.total_seconds() / _QUARTER_S) * _QUARTER_S
    return None


def _dicts(file: SqliteFile, table: str) -> list[dict[str, Any]]:
    """Return the rows of a table of GPUs, without the values that are null or damaged."""
    names = file.columns(table)
    rows = (zip(names, row, strict=True) for row in file.rows(f"select * from {quoted(table)}"))
    return [{name: value for name, value in row if isinstance(value, str if name in _TEXTS else int)} for row in rows]


def _capability(row: Mapping[str, Any], prefix: str) -> str | None:
    major, minor = row.get(f"{prefix}Major"), row.get(f"{prefix}Minor")
    return None if major is None or minor is None else f"{major}.{minor}"


def _device(row: Mapping[str, Any], id_column: str) -> Device:
    chip = row.get("chipName") or None
    is_integrated = None if row.get("isDiscrete") is None else not row["isDiscrete"]
    bandwidth = row.get("memoryBandwidth") or None
    source: str | None = message("driver") if bandwidth else None
    if is_integrated:
        bandwidth, source = integrated_memory_bandwidth(chip, row.get("smCount"), row.get("totalMemory"))
    return Device(
        device_id=row[id_column],
        name=str(row.get("name") or chip or "GPU").strip(),
        chip=chip,
        compute_capability=_capability(row, "compute"),
        sm_count=row.get("smCount") or None,
        sm_clock_hz=row.get("clockRate") or None,
        memory_bytes=row.get("totalMemory") or None,
        memory_bandwidth_bytes_per_s=bandwidth,
        memory_bandwidth_source=source,
        l2_cache_bytes=row.get("l2CacheSize") or None,
        max_warps_per_sm=row.get("maxWarpsPerSm") or None,
        max_blocks_per_sm=row.get("maxBlocksPerSm") or None,
        registers_per_sm=row.get("maxRegistersPerSm") or None,
        shared_memory_per_sm_bytes=row.get("maxShmemPerSm") or None,
        is_integrated=is_integrated,
        uuid=gpu_uuid(row.get("uuid")),
        pci_bus_id=pci_bus_id(row.get("busLocation")),
    )


def _device_of_2020(row: Mapping[str, Any]) -> Device:
    """Read TARGET_INFO_CUDA_GPU: clocks in kHz, bandwidth in kB/s, memory in bytes or, in 2020.3, in MB."""
    memory = row.get("globalMemorySize") or 0
    memory_bytes = memory * 1_000_000 if 0 < memory < 10_000_000 else memory
    bandwidth = (row.get("globalMemoryBandwidth") or 0) * 1000
    return Device(
        device_id=row["deviceId"],
        name=str(row.get("name") or "GPU").strip(),
        compute_capability=_capability(row, "computeCapability"),
        sm_count=row.get("numMultiprocessors") or None,
        sm_clock_hz=(row.get("coreClockRate") or 0) * 1000 or None,
        memory_bytes=memory_bytes or None,
        memory_bandwidth_bytes_per_s=bandwidth or None,
        memory_bandwidth_source=message("driver") if bandwidth else None,
        l2_cache_bytes=row.get("l2CacheSize") or None,
        max_warps_per_sm=row.get("maxWarpsPerMultiprocessor") or None,
        max_blocks_per_sm=row.get("maxBlocksPerMultiprocessor") or None,
        registers_per_sm=row.get("maxRegistersPerMultiprocessor") or None,
        shared_memory_per_sm_bytes=row.get("maxSharedMemoryPerMultiprocessor") or None,
        is_integrated=None,
    )
