"""Traces written by hand, with known numbers, to see what the analyzer says about them.

Three microseconds of work with a gap of two, in which the launching thread allocates memory for one:

>>> from nitro.analyzer import analyze
>>> from nitro.analyzer.synthetic import call, kernel, trace
>>> built = trace(
...     kernels=[kernel(0, 1_000, correlation_id=1), kernel(3_000, 5_000, correlation_id=2)],
...     api_calls=[call(1_200, 2_200, "cudaMalloc_v3020"), call(2_800, 2_900, correlation_id=2)],
... )
>>> analysis = analyze(built, window="all")
>>> analysis.value("gpu_idle")
2000
>>> analysis.value("gpu_idle_by_cause", by="memory_management")
1000

A row is what a function of this module returns, a dict of columns of the contract (`nitro.analyzer.tables`), or just
`(start, end)`; columns that a row leaves out get a plain default. A table that is not given was not recorded; one given
as `[]` recorded nothing. Times are integer nanoseconds since the start of the session. `write_nsys_sqlite` writes a
trace as an SQLite export of nsys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from .metric import GPU_TABLES
from .readers._nsys_export import HOST, Schema, write_nsys_sqlite
from .tables import SAMPLED_METRICS, TABLE_BY_NAME, TABLES, Table
from .trace import Capture, Device, Source, Trace

__all__ = [
    "NVTX_DOMAIN",
    "NVTX_PUSH_POP",
    "PID",
    "Row",
    "Rows",
    "Schema",
    "allocation",
    "call",
    "context_switch",
    "empty_trace",
    "gpu",
    "kernel",
    "memory_event",
    "nvtx_domain",
    "nvtx_range",
    "on_thread",
    "operation",
    "process",
    "release",
    "sample",
    "scheduled",
    "stream_wait",
    "thread",
    "trace",
    "write_nsys_sqlite",
]

Row = dict[str, Any]
Rows = Sequence[Row | tuple[int, int]]

PID = 100
NVTX_PUSH_POP, NVTX_DOMAIN = 59, 75


def process(pid: int = PID) -> int:
    """Return the global id of a process."""
    return HOST | pid << 24


def thread(tid: int = 1, pid: int = PID) -> int:
    """Return the global id of a thread."""
    return process(pid) | tid


def gpu(device_id: int = 0, name: str | None = None, **facts: Any) -> Device:
    """Return a GPU; `facts` are fields of `Device`, such as `sm_count` and `sm_clock_hz`."""
    return Device(device_id, name or f"Test GPU {device_id}", **facts)


def kernel(start: int, end: int, name: str | None = "kernel", *, correlation_id: int | None = 0, **columns: Any) -> Row:
    """Return a row of `kernels`, from `start` to `end` in ns.

    The short name is the name up to the first `<` or `(`. `correlation_id` is that of the launch call, 0 for none.
    Other columns of the contract (`device_id`, `stream_id`, `grid_x`, ...) may be given by their names.
    """
    short = None if name is None else name.partition("<")[0].partition("(")[0]
    names = {"demangled_name": name, "short_name": short}
    return operation(start, end, correlation_id=correlation_id, **names, **columns)


def operation(start: int, end: int, *, correlation_id: int | None = 0, **columns: Any) -> Row:
    """Return a row of `graph_launches`, `memcpys`, `memsets` or `synchronizations`, from `start` to `end` in ns.

    The default is a copy of 4 bytes from host to device, a memset of 4 bytes, or the synchronisation of a stream. Give
    `bytes`, `copy_kind`, `sync_type` and other columns of the contract by their names.
    """
    # The number by which a process sees the GPU is the GPU's own unless said otherwise.
    ordinal = {"device_ordinal": columns["device_id"]} if "device_id" in columns else {}
    return {"start_ns": start, "end_ns": end, "correlation_id": correlation_id} | ordinal | columns


def stream_wait(time: int, **columns: Any) -> Row:
    """Return a row of `synchronizations`: at `time`, in ns, a stream was told to wait for an event."""
    return operation(time, time, sync_type=2, **columns)


def call(
    start: int,
    end: int,
    name: str | None = "cudaLaunchKernel_v7000",
    *,
    correlation_id: int = 0,
    tid: int | None = None,
) -> Row:
    """Return a row of `api_calls`, from `start` to `end` in ns.

    The name decides which cause of idle time the call is: `cudaStreamSynchronize` synchronisation, `cudaMalloc` memory
    management, and so on. `correlation_id` links a launch to its operation; `tid` is a global id from `thread`.
    """
    return {
        "start_ns": start,
        "end_ns": end,
        "name": name,
        "correlation_id": correlation_id,
        "global_tid": thread() if tid is None else tid,
    }


def on_thread(start: int, end: int, tid: int | None = None, **columns: Any) -> Row:
    """Return a row of `os_calls`, `profiler_overheads` or `cuda_overheads`, from `start` to `end` in ns."""
    return {"start_ns": start, "end_ns": end, "global_tid": thread() if tid is None else tid} | columns


def scheduled(time: int, is_in: bool, tid: int | None = None) -> Row:
    """Return a row of `sched_events`: at `time`, in ns, a thread came onto a CPU (`is_in`), or left it."""
    return {"start_ns": time, "is_sched_in": int(is_in), "global_tid": thread() if tid is None else tid}


def nvtx_range(start: int, end: int | None, text: str | None = None, *, tid: int | None = None, **columns: Any) -> Row:
    """Return a row of `nvtx_events`: a push/pop range, from `start` to `end` in ns.

    `end=None` is a range that the capture did not see end. `payload` and `domain_id` may be given by their names.
    """
    where = thread() if tid is None else tid
    return {"start_ns": start, "end_ns": end, "text": text, "global_tid": where} | columns


def nvtx_domain(domain_id: int, name: str, *, tid: int | None = None) -> Row:
    """Return the event by which a process names an NVTX domain."""
    return nvtx_range(0, None, name, tid=tid, event_type=NVTX_DOMAIN, domain_id=domain_id)


def context_switch(time: int, tag: int, pid: int = PID, *, device_id: int = 0) -> Row:
    """Return a row of `context_switches` at `time`, in ns.

    Of the tags, 7 is SAVE_END, 8 RESTORE_START and 9 CONTEXT_START. `pid` is a plain process id.
    """
    return {"start_ns": time, "tag": tag, "global_pid": process(pid), "device_id": device_id}


def memory_event(time: int, size: int, address: int = 1, *, is_release: bool = False, **columns: Any) -> Row:
    """Return a row of `memory_events`, `size` in bytes; see `allocation` and `release`."""
    row = {"start_ns": time, "bytes": size, "address": address, "operation": int(is_release)}
    return row | ({"device_ordinal": columns["device_id"]} if "device_id" in columns else {}) | columns


def allocation(time: int, size: int, address: int = 1, **columns: Any) -> Row:
    """Return a row of `memory_events`: `size` bytes of device memory allocated at `time`, in ns.

    `memory_kind` may be given by its name: 1 is pinned host memory, 2 (the default) device memory, 4 managed memory.
    """
    return memory_event(time, size, address, **columns)


def release(time: int, size: int, address: int = 1, **columns: Any) -> Row:
    """Return a row of `memory_events`: what `allocation` took is given back at `time`, in ns, with the same `size`."""
    return memory_event(time, size, address, is_release=True, **columns)


def sample(time: int, metric: str, value: int, *, device_id: int = 0) -> Row:
    """Return a row of `gpu_metric_samples`, which covers the period from the sample before it to `time`, in ns.

    Args:
        time: end of the sampled period.
        metric: a name of `nitro.analyzer.tables.SAMPLED_METRICS`, such as `sm_active`.
        value: percent of the peak, 0 to 100; of a clock, Hz.
        device_id: the GPU.

    Raises:
        ValueError: there is no such metric.
    """
    if metric not in SAMPLED_METRICS:
        raise ValueError(f"sampled metric {metric} is unknown; choose from {', '.join(SAMPLED_METRICS)}")
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
    """Return a trace of these rows, ready for `analyze`.

    Args:
        kernels: rows from `kernel`, or `(start, end)`.
        graph_launches, memcpys, memsets, synchronizations: rows from `operation`, or `(start, end)`.
        api_calls: rows from `call`.
        os_calls, profiler_overheads, cuda_overheads: rows from `on_thread`, or `(start, end)`.
        nvtx: rows from `nvtx_range` and `nvtx_domain`.
        sched_events: rows from `scheduled`.
        context_switches: rows from `context_switch`.
        memory_events: rows from `allocation` and `release`.
        gpu_metric_samples: rows from `sample`.
        devices: GPUs from `gpu`; without them, every GPU that an operation names is described.
        capture: how and for how long was recorded.

    Raises:
        ValueError: a row has a column that its table does not have.
    """
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


def _used_gpus(tables: Mapping[str, pl.DataFrame]) -> tuple[Device, ...]:
    ids = (tables[name]["device_id"].drop_nulls().to_list() for name in GPU_TABLES if name in tables)
    used = {device_id for some in ids for device_id in some}
    return tuple(gpu(device_id) for device_id in sorted(used))
