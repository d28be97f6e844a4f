"""The column contract: which tables a `Trace` may hold, with the name, type, unit and meaning of every column.

A table is `None` in a `Trace` when the tool did not record it, and an empty frame when it recorded nothing.
Times are integer nanoseconds since the start of the profiling session. Names follow CUPTI and the
Nsight Systems export, in snake_case, with the unit at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from .message import message


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the contract.

    `dtype` is `pl.Enum` for names: the frame stores small integers and shows text.
    """

    name: str
    dtype: type[pl.DataType]
    meaning: str


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the contract."""

    name: str
    meaning: str
    columns: tuple[Column, ...]

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(column.name for column in self.columns)

    def empty(self) -> pl.DataFrame:
        """Return a frame of this table without rows."""
        return pl.DataFrame(
            {c.name: pl.Series(c.name, [], dtype=pl.Enum([]) if c.dtype is pl.Enum else c.dtype) for c in self.columns}
        )


_SPAN = (
    Column("start_ns", pl.Int64, "start, ns since session start"),
    Column("end_ns", pl.Int64, "end, ns since session start; never before the start"),
)
_WHERE = (
    Column("device_id", pl.Int32, "physical GPU, the id of TARGET_INFO_GPU"),
    Column("device_ordinal", pl.Int32, "device number as the process saw it (CUDA_VISIBLE_DEVICES applies)"),
    Column("context_id", pl.UInt32, "CUDA context"),
    Column("stream_id", pl.UInt32, "CUDA stream as CUPTI numbers it"),
    Column("correlation_id", pl.UInt32, "links the operation to its API call within the process; 0 or null: none"),
    Column("global_pid", pl.Int64, "process id with host and VM bits, thread bits zero"),
)
_THREAD = Column("global_tid", pl.Int64, "thread: host 8 bits, VM 8, process 24, thread 24")
_GRAPH_NODE = Column("graph_node_id", pl.Int64, "node of a CUDA graph; null outside graphs")

TABLES: tuple[Table, ...] = (
    Table(
        "kernels",
        "one row per kernel execution",
        (
            *_SPAN,
            *_WHERE,
            Column("demangled_name", pl.Enum, "full name with template arguments; null when the export lost it"),
            Column("short_name", pl.Enum, "function name only"),
            *(Column(f"grid_{axis}", pl.UInt32, "thread blocks") for axis in "xyz"),
            *(Column(f"block_{axis}", pl.UInt32, "threads") for axis in "xyz"),
            Column("registers_per_thread", pl.UInt32, "registers"),
            Column("static_shared_memory_bytes", pl.UInt32, "per block"),
            Column("dynamic_shared_memory_bytes", pl.UInt32, "per block"),
            _GRAPH_NODE,
        ),
    ),
    Table(
        "graph_launches",
        "one row per CUDA graph execution traced as a whole (the default of nsys); its kernels are not in `kernels`",
        (
            *_SPAN,
            *_WHERE,
            Column("graph_id", pl.Int64, "graph"),
            Column("graph_exec_id", pl.Int64, "instantiated graph"),
        ),
    ),
    Table(
        "memcpys",
        "one row per copy, unified-memory migrations included",
        (
            *_SPAN,
            *_WHERE,
            Column("bytes", pl.Int64, "bytes moved"),
            Column("copy_kind", pl.Int32, "CUPTI copy kind: 1 HtoD, 2 DtoH, 8 DtoD, 10 PtoP, 11-13 unified memory"),
            Column("src_kind", pl.Int32, "memory kind of the source: 0 pageable, 1 pinned, 2 device, 4 managed"),
            Column("dst_kind", pl.Int32, "memory kind of the destination"),
            _GRAPH_NODE,
        ),
    ),
    Table(
        "memsets",
        "one row per memset",
        (*_SPAN, *_WHERE, Column("bytes", pl.Int64, "bytes written"), _GRAPH_NODE),
    ),
    Table(
        "api_calls",
        "one row per CUDA runtime or driver call; a driver call nested in a runtime call has a row of its own",
        (
            *_SPAN,
            _THREAD,
            Column("correlation_id", pl.UInt32, "shared by a runtime call, the driver call in it, and its operations"),
            Column("name_id", pl.Int32, "string id of the name in the export"),
            Column("name", pl.Enum, "function name with the suffix of the export, as in cudaLaunchKernel_v7000"),
        ),
    ),
    Table(
        "os_calls",
        "one row per traced operating-system call",
        (
            *_SPAN,
            _THREAD,
            Column("event_class", pl.Int32, "class of the event; 27 is an OS runtime call"),
            Column("name_id", pl.Int32, "string id of the name in the export"),
            Column("name", pl.Enum, "function name"),
        ),
    ),
    Table(
        "nvtx_events",
        "one row per NVTX event: ranges, marks, domains, thread and category names",
        (
            *_SPAN,
            Column("event_type", pl.Int32, "59 push/pop range, 60 start/end range, 34 mark, 75 domain, 33, 39 names"),
            _THREAD,
            Column("end_global_tid", pl.Int64, "thread that ended a start/end range, null when the same"),
            Column("domain_id", pl.Int64, "NVTX domain; 0 is the default one"),
            Column("payload", pl.Int64, "integer payload, null when none"),
            Column("text", pl.Enum, "message; null when the event has none"),
        ),
    ),
    Table(
        "framework_ranges",
        "one row per range that a framework's own profiler recorded by itself; ranges of the user are `nvtx_events`",
        (
            *_SPAN,
            _THREAD,
            Column("kind", pl.Enum, "module or operator"),
            Column("name", pl.Enum, "name as the framework gives it, as in Linear_0 or aten::addmm"),
        ),
    ),
    Table(
        "synchronizations",
        "one row per synchronisation record of CUPTI",
        (
            *_SPAN,
            *_WHERE,
            Column("sync_type", pl.Int32, "1 event, 2 stream-wait-event (device side), 3 stream, 4 context"),
        ),
    ),
    Table(
        "profiler_overheads",
        "one row per stretch in which the profiler itself occupied a thread",
        (*_SPAN, _THREAD, Column("name", pl.Enum, "kind of overhead")),
    ),
    Table(
        "cuda_overheads",
        "one row per CUPTI overhead record (schema 3.24 and newer)",
        (*_SPAN, _THREAD, Column("overhead_type", pl.Int32, "2 JIT, 3-5 profiler, 6-7 module loading, 8 buffer full")),
    ),
    Table(
        "sched_events",
        "one row per scheduling of a thread on or off a CPU",
        (
            Column("start_ns", pl.Int64, "time, ns since session start"),
            Column("is_sched_in", pl.Int32, "1 on, 0 off"),
            _THREAD,
        ),
    ),
    Table(
        "memory_events",
        "one row per allocation or release of GPU memory; what was there before the capture stands at its begin",
        (
            Column("start_ns", pl.Int64, "time, ns since session start"),
            Column("global_pid", pl.Int64, "process"),
            Column("device_id", pl.Int32, "physical GPU"),
            Column("device_ordinal", pl.Int32, "device number as the process saw it"),
            Column("address", pl.Int64, "address; an allocation and its release share it"),
            Column("bytes", pl.Int64, "size"),
            Column("memory_kind", pl.Int32, "0 pageable, 1 pinned, 2 device, 3 array, 4 managed, 5 device static"),
            Column("operation", pl.Int32, "0 allocation, 1 release"),
            Column("correlation_id", pl.UInt32, "API call that caused it"),
        ),
    ),
    Table(
        "gpu_metric_samples",
        "one row per sample of a GPU metric; the sample at a time covers the period since the sample before it",
        (
            Column("time_ns", pl.Int64, "end of the sampled period, ns since session start"),
            Column("device_id", pl.Int32, "physical GPU"),
            Column("metric", pl.Enum, "name of `SAMPLED_METRICS`, whatever the export calls it"),
            Column("value", pl.Int64, "percent of the peak, 0 to 100; clocks in Hz"),
        ),
    ),
    Table(
        "context_switches",
        "one row per GPU context-switch event",
        (
            Column("start_ns", pl.Int64, "time, ns since session start"),
            Column("tag", pl.Int32, "kind of event as nsys numbers it"),
            Column("context_id", pl.Int64, "GPU context"),
            Column("global_pid", pl.Int64, "owning process"),
            Column("device_id", pl.Int32, "physical GPU"),
        ),
    ),
)

SAMPLED_METRICS: dict[str, str] = {
    "gpc_clock": message("GPC clock, Hz"),
    "sys_clock": message("SYS clock, Hz"),
    "gr_active": message("any graphics or compute engine had work, % of time"),
    "async_compute_in_flight": message("compute work in flight, % of time (CUDA work shows here)"),
    "sync_compute_in_flight": message("compute work in flight beside graphics, % of time"),
    "sm_active": message("SMs with at least one warp resident, % of SM-cycles"),
    "sm_issue": message("instructions issued, % of the four per cycle and SM that are possible"),
    "tensor_active": message("tensor pipes busy, % of cycles"),
    "compute_warps": message("compute warps resident, % of warp slots"),
    "unallocated_warps": message("free warp slots on SMs that are active, % of warp slots"),
    "dram_read": message("DRAM read, % of the peak bandwidth"),
    "dram_write": message("DRAM write, % of the peak bandwidth"),
    "pcie_rx": message("PCIe received, % of the peak"),
    "pcie_tx": message("PCIe sent, % of the peak"),
}

TABLE_BY_NAME = {table.name: table for table in TABLES}


def enum_texts(names: pl.Series) -> list[str]:
    """Return the texts of an Enum column, in the order of the integers that stand for them."""
    dtype = names.dtype
    if not isinstance(dtype, pl.Enum):
        raise TypeError(f"column {names.name} is {dtype}, not an Enum")
    return dtype.categories.to_list()
