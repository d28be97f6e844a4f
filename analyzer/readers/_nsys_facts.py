"""Facts of a capture beside its events: exporter, session, devices, options. Nothing here can name a person.

Environment variables, command lines, host, user and process names are never read: each query asks for the keys
that it needs, and for no other row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..hardware import integrated_memory_bandwidth
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
    duration_ns = start_utc_ns = None
    if "duration" in file.columns("ANALYSIS_DETAILS"):
        rows = file.rows("select duration from ANALYSIS_DETAILS where duration is not null limit 1")
        duration_ns = int(rows[0][0]) if rows else None
    if "utcEpochNs" in file.columns("TARGET_INFO_SESSION_START_TIME"):
        rows = file.rows("select utcEpochNs from TARGET_INFO_SESSION_START_TIME where utcEpochNs is not null limit 1")
        start_utc_ns = int(rows[0][0]) if rows else None
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
    return Capture(duration_ns, start_utc_ns, options, recorded)


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
        found = [_device(row, "cuDevice" if by_cuda_number else "id") for row in rows]
    elif file.columns("TARGET_INFO_CUDA_GPU"):
        found = [_device_of_2020(row) for row in _dicts(file, "TARGET_INFO_CUDA_GPU")]
    else:
        found = []
    unique = {device.device_id: device for device in reversed(found)}
    return tuple(unique[key] for key in sorted(unique))


def physical_gpus(file: SqliteFile) -> dict[tuple[int, int], int]:
    """Return (process id, CUDA number in that process) → id of the physical GPU, where the export knows it."""
    if {"gpuId", "cudaId", "pid"} <= set(file.columns("TARGET_INFO_CUDA_DEVICE")):
        rows = file.rows("select pid, cudaId, gpuId from TARGET_INFO_CUDA_DEVICE")
        return {(int(pid), int(cuda)): int(gpu) for pid, cuda, gpu in rows if None not in (pid, cuda, gpu)}
    return {}


def _has_rows(file: SqliteFile, table: str) -> bool:
    return bool(file.columns(table)) and bool(file.rows(f"select 1 from {quoted(table)} limit 1"))


def _dicts(file: SqliteFile, table: str) -> list[dict[str, Any]]:
    names = file.columns(table)
    return [dict(zip(names, row, strict=True)) for row in file.rows(f"select * from {quoted(table)}")]


def _device(row: Mapping[str, Any], id_column: str) -> Device:
    chip = row.get("chipName") or None
    is_integrated = None if row.get("isDiscrete") is None else not row["isDiscrete"]
    bandwidth = row.get("memoryBandwidth") or None
    source: str | None = "driver" if bandwidth else None
    if is_integrated:
        bandwidth, source = integrated_memory_bandwidth(chip, row.get("smCount"), row.get("totalMemory"))
    major, minor = row.get("computeMajor"), row.get("computeMinor")
    return Device(
        device_id=int(row[id_column]),
        name=str(row.get("name") or chip or "GPU").strip(),
        chip=chip,
        compute_capability=None if major is None else f"{major}.{minor}",
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
    )


def _device_of_2020(row: Mapping[str, Any]) -> Device:
    """Read TARGET_INFO_CUDA_GPU: clocks in kHz, bandwidth in kB/s, memory in bytes or, in 2020.3, in MB."""
    memory = row.get("globalMemorySize") or 0
    memory_bytes = memory * 1_000_000 if 0 < memory < 10_000_000 else memory
    bandwidth = (row.get("globalMemoryBandwidth") or 0) * 1000
    return Device(
        device_id=int(row["deviceId"]),
        name=str(row.get("name") or "GPU").strip(),
        compute_capability=f"{row.get('computeCapabilityMajor')}.{row.get('computeCapabilityMinor')}",
        sm_count=row.get("numMultiprocessors") or None,
        sm_clock_hz=(row.get("coreClockRate") or 0) * 1000 or None,
        memory_bytes=memory_bytes or None,
        memory_bandwidth_bytes_per_s=bandwidth or None,
        memory_bandwidth_source="driver" if bandwidth else None,
        l2_cache_bytes=row.get("l2CacheSize") or None,
        max_warps_per_sm=row.get("maxWarpsPerMultiprocessor") or None,
        max_blocks_per_sm=row.get("maxBlocksPerMultiprocessor") or None,
        registers_per_sm=row.get("maxRegistersPerMultiprocessor") or None,
        shared_memory_per_sm_bytes=row.get("maxSharedMemoryPerMultiprocessor") or None,
        is_integrated=None,
    )
