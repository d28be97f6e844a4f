"""Where each canonical column comes from in an nsys SQLite export: data, not code.

Sources were read out of real exports from 2020 (no metadata table) to schema 3.25. A column takes the first of
its source names that the table has; where none is there, it is null, or an error if the column is required.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """A canonical column and the names it has had. `string` marks an id that is looked up in StringIds."""

    name: str
    sources: tuple[str, ...]
    required: bool = False
    string: bool = False


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A canonical table, the name it has in an export, and its columns."""

    name: str
    source: str
    columns: tuple[SourceColumn, ...]


def _same(*names: str) -> tuple[SourceColumn, ...]:
    """Columns whose canonical name is the snake_case form of one source name."""
    return tuple(SourceColumn(_snake(name), (name,)) for name in names)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


_SPAN = (SourceColumn("start_ns", ("start",), required=True), SourceColumn("end_ns", ("end",), required=True))
_WHERE = (
    SourceColumn("device_ordinal", ("deviceId",)),
    *_same("contextId", "streamId", "correlationId", "globalPid"),
)
_THREAD = (SourceColumn("global_tid", ("globalTid",), required=True),)
_NAME_ID = (SourceColumn("name_id", ("nameId",), required=True),)
_NAME = (SourceColumn("name", ("nameId",), string=True),)
_NODE = _same("graphNodeId")

SOURCE_TABLES: tuple[SourceTable, ...] = (
    SourceTable(
        "kernels",
        "CUPTI_ACTIVITY_KIND_KERNEL",
        (
            *_SPAN,
            *_WHERE,
            SourceColumn("demangled_name", ("demangledName",), string=True),
            SourceColumn("short_name", ("shortName",), string=True),
            *_same("gridX", "gridY", "gridZ", "blockX", "blockY", "blockZ", "registersPerThread"),
            SourceColumn("static_shared_memory_bytes", ("staticSharedMemory",)),
            SourceColumn("dynamic_shared_memory_bytes", ("dynamicSharedMemory",)),
            *_NODE,
        ),
    ),
    SourceTable(
        "graph_launches",
        "CUPTI_ACTIVITY_KIND_GRAPH_TRACE",
        (*_SPAN, *_WHERE, *_same("graphId", "graphExecId")),
    ),
    SourceTable(
        "memcpys",
        "CUPTI_ACTIVITY_KIND_MEMCPY",
        (*_SPAN, *_WHERE, *_same("bytes", "copyKind", "srcKind", "dstKind"), *_NODE),
    ),
    SourceTable("memsets", "CUPTI_ACTIVITY_KIND_MEMSET", (*_SPAN, *_WHERE, *_same("bytes"), *_NODE)),
    SourceTable(
        "api_calls",
        "CUPTI_ACTIVITY_KIND_RUNTIME",
        (*_SPAN, *_THREAD, *_same("correlationId"), *_NAME_ID, *_NAME),
    ),
    SourceTable("os_calls", "OSRT_API", (*_SPAN, *_THREAD, *_same("eventClass"), *_NAME_ID, *_NAME)),
    SourceTable("synchronizations", "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION", (*_SPAN, *_WHERE, *_same("syncType"))),
    SourceTable("profiler_overheads", "PROFILER_OVERHEAD", (*_SPAN, *_THREAD, *_NAME)),
    SourceTable("cuda_overheads", "CUPTI_ACTIVITY_KIND_OVERHEAD", (*_SPAN, *_THREAD, *_same("overheadType"))),
    SourceTable(
        "sched_events",
        "SCHED_EVENTS",
        (SourceColumn("start_ns", ("start",), required=True), *_same("isSchedIn"), *_THREAD),
    ),
    SourceTable(
        "context_switches",
        "GPU_CONTEXT_SWITCH_EVENTS",
        (
            SourceColumn("start_ns", ("timestamp", "start"), required=True),
            *_same("tag", "contextId", "globalPid"),
            SourceColumn("device_id", ("gpuId",)),
        ),
    ),
    SourceTable(
        "memory_events",
        "CUDA_GPU_MEMORY_USAGE_EVENTS",
        (
            SourceColumn("start_ns", ("start",), required=True),
            SourceColumn("device_ordinal", ("deviceId",)),
            SourceColumn("memory_kind", ("memKind",)),
            SourceColumn("operation", ("memoryOperationType",), required=True),
            *_same("globalPid", "address", "bytes", "correlationId"),
        ),
    ),
    # `text` is read apart, since it is the one text column of the event tables; the payload is the first
    # integer value that an event carries.
    SourceTable(
        "nvtx_events",
        "NVTX_EVENTS",
        (
            SourceColumn("start_ns", ("start",), required=True),
            SourceColumn("end_ns", ("end",), required=True),
            SourceColumn("event_type", ("eventType",), required=True),
            SourceColumn("global_tid", ("globalTid",)),
            *_same("endGlobalTid", "domainId", "textId", "int64Value", "uint64Value", "int32Value", "uint32Value"),
        ),
    ),
)

SOURCE_TABLE_BY_NAME = {table.name: table for table in SOURCE_TABLES}
