"""nvprof and Visual Profiler SQLite files (`nvprof -o FILE.nvvp`): the tracer of the original Jetson Nano.

They are dumps of CUPTI activity records, one table a kind. Beside the nsys export they differ in this:

- Times are absolute, ns since 1970; a `Trace` counts from the first event, and `Capture.start_utc_ns` is that event.
- Calls are in two tables, RUNTIME and DRIVER, by number (cbid). A kernel's launch is in one of them.
- Kernels are in CONCURRENT_KERNEL (or KERNEL, when nvprof was told to run them one by one).
- A thread is a pthread value, which is no thread id of the system; threads are numbered in order of appearance.
- NVTX ranges are two MARKER rows, start and end, with one id.
- Every table is there, also those of data that were not asked for: an empty table of GPU memory means "not recorded".
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import polars as pl

from nitro.errors import InputError

from ..hardware import integrated_memory_bandwidth
from ..message import message, one_or_many
from ..nvtx import PUSH_POP, START_END
from ..profile import Profile
from ..reader import Head, Reader
from ..trace import Capture, Device, Source, Trace
from ._contract import Threads, conformed, file_name, global_pid, named
from ._cupti_calls import DRIVER_CALLS, RUNTIME_CALLS
from ._demangled import demangled, function_name
from ._sqlite_file import SqliteFile, head_of, quoted

FORMAT = "nvprof-sqlite"
_PREFIX = "CUPTI_ACTIVITY_KIND_"
_KERNEL_TABLES = ("CONCURRENT_KERNEL", "KERNEL")
_TIMED = (*_KERNEL_TABLES, "MEMCPY", "MEMCPY2", "MEMSET", "RUNTIME", "DRIVER", "SYNCHRONIZATION", "OVERHEAD")
_DRIVER_NAME_IDS = 1 << 16
_NVTX_MARK = 34
_MARK, _MARK_START, _MARK_END = 1, 2, 4
_OBJECT_PROCESS, _OBJECT_THREAD = 1, 2
# CUpti_ActivityOverheadKind → overhead_type of the contract: JIT, buffer flush, instrumentation, resource.
_OVERHEAD_TYPES = {1: 2, 1 << 16: 3, 2 << 16: 4, 3 << 16: 5}
# Where CUPTI counts memory kinds from 1 (0 is unknown), the contract counts from 0.
_MEMORY_KIND_OFFSET = 1
_CHIP_OF_TEGRA = {"5.3": "GM20B", "6.2": "GP10B", "7.2": "GV11B"}
_NOT_A_DOUBLE = 1e-290
_SQLITE = b"SQLite format 3\x00"
_KNOWN_BY = ("StringTable", f"{_PREFIX}RUNTIME", f"{_PREFIX}CONCURRENT_KERNEL")


def recognises(head: Head) -> bool:
    """Tell whether this is an nvprof file, or a session of the Visual Profiler, which has the same suffix."""
    if head.data.startswith(_SQLITE):
        # The rest of its fifty tables are described further on in the file.
        return b"CREATE TABLE StringTable(" in head.data and _PREFIX.encode() in head.data
    return _is_session(head.data)


def read(path: Path) -> Profile:
    """Return the profile in an nvprof SQLite file, plain or compressed with xz, gzip or zstandard.

    Raises:
        InputError: the file is no nvprof file or is damaged.
    """
    if _is_session(head_of(path)):
        raise InputError(
            f"{path}: this is a session of the Visual Profiler (XML), which holds its settings and views and is not "
            "read; give the records, a SQLite file made by `nvprof -o trace.nvvp PROGRAM`."
        )
    with SqliteFile(path) as file:
        if not set(_KNOWN_BY) <= set(file.tables):
            raise InputError(f"{path}: SQLite, but not an nvprof file; give a file made by `nvprof -o FILE.nvvp`.")
        trace = _Reader(file).trace()
    records = sum(len(frame) for frame in trace.tables.values() if frame is not None)
    return Profile(source=trace.source, records=records, notes=trace.notes, trace=trace)


def _is_session(head: bytes) -> bool:
    return head.lstrip().startswith(b"<?xml") and b"<session" in head


def counters(path: Path) -> pl.DataFrame:
    """Return the metrics and events that nvprof collected for each kernel (`--metrics`, `--events`).

    The file has no names for them: `number` is the id that CUPTI gave a metric or event on that kind of GPU, and
    nvprof alone turns it into a name; `readers/nvprof_csv.py` reads what it then prints.

    Returns:
        One row a value: `correlation_id` (of the kernel), `kind` (`metric` or `event`), `number`, `value` (float,
        null where nvprof marked it invalid). No rows where none were collected.
    """
    with SqliteFile(path) as file:
        rows: list[tuple[int, str, int, float | None]] = []
        if file.columns(f"{_PREFIX}METRIC"):
            for correlation_id, number, value, flags in file.rows(
                f"select correlationId, id, value, flags from {_PREFIX}METRIC"
            ):
                rows.append((correlation_id, "metric", number, None if flags & 2 else _metric_value(value)))
        if file.columns(f"{_PREFIX}EVENT"):
            for correlation_id, number, value in file.rows(f"select correlationId, id, value from {_PREFIX}EVENT"):
                rows.append((correlation_id, "event", number, float(value)))
    schema = {"correlation_id": pl.UInt32, "kind": pl.String, "number": pl.Int64, "value": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _metric_value(raw: bytes) -> float | None:
    """Return the number in the eight bytes of a CUpti_MetricValue, which is a double or an integer.

    The record does not say which. The bits of an integer below 2**54, read as a double, are a number so small that no
    metric has it.
    """
    if not isinstance(raw, bytes) or len(raw) < 8:
        return None
    (as_double,), (as_integer,) = struct.unpack("<d", raw[:8]), struct.unpack("<q", raw[:8])
    return float(as_integer) if abs(as_double) < _NOT_A_DOUBLE else as_double


class _Reader:
    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._texts = {
            key: str(value) for key, value in file.rows("select _id_, value from StringTable") if key and value
        }
        self._threads = Threads()
        self._start_ns = self._first_time()
        self._left_out = 0
        self._calls = {kind: self._integers(kind, "start", "end", *_CALL) for kind in ("RUNTIME", "DRIVER")}
        pids = {int(pid) for frame in self._calls.values() for pid in frame["processId"].drop_nulls().unique()}
        self._pid = pids.pop() if len(pids) == 1 else None
        self._device_of_context = self._contexts()

    def trace(self) -> Trace:
        tables: dict[str, pl.DataFrame | None] = {
            "api_calls": self._api_calls(),
            "kernels": self._kernels(),
            "memcpys": self._memcpys(),
            "memsets": self._memsets(),
            "synchronizations": self._synchronizations(),
            "memory_events": self._memory_events(),
        }
        tables["nvtx_events"], domains = self._nvtx()
        tables["cuda_overheads"] = self._overheads()
        version = self._file.rows("select version from Version") if "Version" in self._file.tables else []
        path = self._file.path
        return Trace(
            source=Source(
                file_name=file_name(path.name),
                format=FORMAT,
                size_bytes=path.stat().st_size,
                tool="NVIDIA nvprof",
                schema_version=str(version[0][0]) if version else None,
            ),
            devices=self._devices(),
            tables={name: frame if frame is None else conformed(name, frame) for name, frame in tables.items()},
            capture=Capture(
                duration_ns=self._last_time() - self._start_ns,
                start_utc_ns=self._start_ns or None,
                recorded=self._recorded(),
            ),
            nvtx_domains=domains,
            notes=self._notes(),
        )

    def _notes(self) -> tuple[str, ...]:
        notes = list(self._file.notes)
        if self._left_out:
            one = message("1 record without a start or an end was left out: nvprof had not seen it finish.")
            many = message(
                "{count:,} records without a start or an end were left out: nvprof had not seen them finish.",
                count=self._left_out,
            )
            notes.append(one_or_many(self._left_out, one, many))
        counted = self._count("METRIC") + self._count("EVENT")
        if counted:
            one = message(
                "1 value of metrics and events is in the file by number and without its name; give the CSV of `nvprof "
                "--csv --metrics all PROGRAM` beside it."
            )
            many = message(
                "{count:,} values of metrics and events are in the file by number and without their names; give "
                "the CSV of `nvprof --csv --metrics all PROGRAM` beside it.",
                count=counted,
            )
            notes.append(one_or_many(counted, one, many))
        if self._count("UNIFIED_MEMORY_COUNTER"):
            notes.append(message("Counters of unified memory are in the file and were not read."))
        return tuple(notes)

    def _recorded(self) -> tuple[str, ...]:
        found = {"gpu_memory_usage": "MEMORY", "kernel_metrics": "METRIC", "kernel_events": "EVENT"}
        return tuple(name for name, table in found.items() if self._count(table))

    def _count(self, kind: str) -> int:
        table = _PREFIX + kind
        return int(self._file.rows(f"select count(*) from {quoted(table)}")[0][0]) if self._file.columns(table) else 0

    def _edge(self, function: str, column: str) -> list[int]:
        """Return the first or last time of every table that has one; CUPTI writes 0 for a time that it lacks."""
        tables = [(_PREFIX + kind, column) for kind in _TIMED]
        tables.append((f"{_PREFIX}MARKER", "timestamp"))
        found = [
            self._file.rows(f"select {function}({quoted(name)}) from {quoted(table)} where {quoted(name)} > 0")[0][0]
            for table, name in tables
            if name in self._file.columns(table)
        ]
        return [value for value in found if isinstance(value, int)]

    def _first_time(self) -> int:
        return min(self._edge("min", "start"), default=0)

    def _last_time(self) -> int:
        return max(self._edge("max", "end"), default=self._start_ns)

    def _integers(self, kind: str, *columns: str) -> pl.DataFrame:
        """Return columns of a table, null where the version of nvprof had none; times count from the first one."""
        table = _PREFIX + kind
        present = self._file.columns(table)
        nothing = pl.DataFrame(schema=dict.fromkeys(columns, pl.Int64))
        frame = self._file.integers(table, [name for name in columns if name in present]) if present else nothing
        missing = [pl.lit(None, pl.Int64).alias(name) for name in columns if name not in frame.columns]
        frame = frame.with_columns(missing) if len(frame) else nothing
        if "start" not in columns:
            return frame
        whole = frame.filter((pl.col("start") > 0) & (pl.col("end") >= pl.col("start")))
        self._left_out += len(frame) - len(whole)
        times = (pl.col("start", "end") - self._start_ns).name.suffix("_ns")
        return whole.with_columns(times)

    def _api_calls(self) -> pl.DataFrame:
        parts = []
        for kind, names, first_id in (("RUNTIME", RUNTIME_CALLS, 0), ("DRIVER", DRIVER_CALLS, _DRIVER_NAME_IDS)):
            frame = self._calls[kind]
            parts.append(
                frame.select(
                    "start_ns",
                    "end_ns",
                    self._threads.ids_of(frame["processId"], frame["threadId"]).alias("global_tid"),
                    pl.col("correlationId").alias("correlation_id"),
                    (pl.col("cbid") + first_id).alias("name_id"),
                    named(frame["cbid"], names).alias("name"),
                )
            )
        return pl.concat(parts).sort("start_ns", "end_ns", descending=[False, True], maintain_order=True)

    def _operations(self, kind: str, *columns: str) -> pl.DataFrame:
        """Return a table of GPU operations with the columns of the contract that all of them share."""
        frame = self._integers(kind, "start", "end", *_WHERE, *columns)
        pid = None if self._pid is None else global_pid(self._pid)
        return frame.with_columns(
            pl.col("deviceId").alias("device_id"),
            pl.col("deviceId").alias("device_ordinal"),
            pl.col("contextId").alias("context_id"),
            pl.col("streamId").alias("stream_id"),
            pl.col("correlationId").alias("correlation_id"),
            pl.lit(pid, pl.Int64).alias("global_pid"),
        )

    def _kernels(self) -> pl.DataFrame:
        frame = pl.concat([self._operations(kind, *_KERNEL) for kind in _KERNEL_TABLES])
        frame = frame.rename(_KERNEL).sort("start_ns", maintain_order=True)
        names = {key: demangled(self._texts[key]) for key in frame["name"].unique().to_list() if key in self._texts}
        short = {key: function_name(name) for key, name in names.items()}
        return frame.with_columns(
            named(frame["name"], names).alias("demangled_name"), named(frame["name"], short).alias("short_name")
        )

    def _memcpys(self) -> pl.DataFrame:
        columns = ("bytes", "copyKind", "srcKind", "dstKind")
        frame = pl.concat([self._operations(kind, *columns) for kind in ("MEMCPY", "MEMCPY2")])
        return frame.with_columns(
            pl.col("copyKind").alias("copy_kind"),
            (pl.col("srcKind") - _MEMORY_KIND_OFFSET).alias("src_kind"),
            (pl.col("dstKind") - _MEMORY_KIND_OFFSET).alias("dst_kind"),
        ).sort("start_ns", maintain_order=True)

    def _memsets(self) -> pl.DataFrame:
        return self._operations("MEMSET", "bytes")

    def _synchronizations(self) -> pl.DataFrame:
        frame = self._operations("SYNCHRONIZATION", "type")
        devices = named(frame["contextId"], {k: str(v) for k, v in self._device_of_context.items()}).cast(pl.Int32)
        return frame.with_columns(
            devices.alias("device_id"), devices.alias("device_ordinal"), pl.col("type").alias("sync_type")
        )

    def _contexts(self) -> dict[int, int]:
        if not {"contextId", "deviceId"} <= set(self._file.columns(f"{_PREFIX}CONTEXT")):
            return {}
        return dict(self._file.rows(f"select contextId, deviceId from {_PREFIX}CONTEXT"))

    def _memory_events(self) -> pl.DataFrame | None:
        """Return allocations and releases; nvprof has one row for both, with the time of each."""
        if not self._count("MEMORY"):
            return None
        columns = ("start", "end", "processId", "deviceId", "address", "bytes", "memoryKind")
        frame = self._file.integers(f"{_PREFIX}MEMORY", columns)
        parts = []
        for operation, time in enumerate(("start", "end")):
            happened = frame.filter(pl.col(time) > 0)
            parts.append(
                happened.select(
                    (pl.col(time) - self._start_ns).alias("start_ns"),
                    pl.lit(None if self._pid is None else global_pid(self._pid), pl.Int64).alias("global_pid"),
                    pl.col("deviceId").alias("device_id"),
                    pl.col("deviceId").alias("device_ordinal"),
                    "address",
                    "bytes",
                    (pl.col("memoryKind") - _MEMORY_KIND_OFFSET).alias("memory_kind"),
                    pl.lit(operation).alias("operation"),
                )
            )
        return pl.concat(parts).sort("start_ns", "operation", maintain_order=True)

    def _nvtx(self) -> tuple[pl.DataFrame, dict[tuple[int, int], str]]:
        """Return NVTX events and the names of their domains; a range is the pair of its start and its end marker."""
        ends: dict[int, list[tuple[int, int]]] = {}
        begun: list[tuple[int, int, int, int, int, int]] = []
        sql = f"select id, flags, timestamp, objectKind, objectId, name, domain from {_PREFIX}MARKER order by timestamp"
        markers = self._file.rows(sql) if self._file.columns(f"{_PREFIX}MARKER") else []
        for number, flags, timestamp, object_kind, object_id, name, domain in markers:
            thread = self._thread_of(object_kind, object_id)
            if flags & _MARK_END:
                ends.setdefault(number, []).append((timestamp, thread))
            elif flags & (_MARK | _MARK_START):
                begun.append((number, flags, timestamp, thread, name, domain))
        rows: list[dict[str, Any]] = []
        for number, flags, timestamp, thread, name, domain in begun:
            row: dict[str, Any] = {"start_ns": timestamp - self._start_ns, "end_ns": None, "event_type": _NVTX_MARK}
            row |= {"global_tid": thread, "end_global_tid": None, "domain_id": domain, "text": self._texts.get(name)}
            if flags & _MARK_START:
                end, end_thread = ends[number].pop(0) if ends.get(number) else (None, thread)
                row["end_ns"] = None if end is None else end - self._start_ns
                row["event_type"] = PUSH_POP if end_thread == thread else START_END
                row["end_global_tid"] = None if end_thread == thread else end_thread
            rows.append(row)
        schema: dict[str, Any] = {**dict.fromkeys(_NVTX_COLUMNS, pl.Int64), "text": pl.String}
        domains = {
            (row["global_tid"] & ~0xFFFFFF, row["domain_id"]): self._texts[row["domain_id"]]
            for row in rows
            if row["domain_id"] in self._texts
        }
        return pl.DataFrame(rows, schema=schema), domains

    def _thread_of(self, object_kind: int, object_id: bytes) -> int:
        """Return the thread in a CUpti_ActivityObjectKindId: process id and thread id, 32 bits each."""
        if not isinstance(object_id, bytes) or len(object_id) < 8:
            return 0
        pid, tid = struct.unpack("<Ii", object_id[:8])
        if object_kind == _OBJECT_THREAD:
            return self._threads.id_of(pid, tid)
        # A record of a whole process belongs to its thread where it has one alone.
        mine = [thread for thread in self._threads.all if thread & ~0xFFFFFF == global_pid(pid)]
        return mine[0] if object_kind == _OBJECT_PROCESS and len(mine) == 1 else global_pid(pid)

    def _overheads(self) -> pl.DataFrame:
        columns = ("overheadKind", "objectKind", "objectId", "start", "end")
        rows = []
        if set(columns) <= set(self._file.columns(f"{_PREFIX}OVERHEAD")):
            selected = ", ".join(columns)
            rows = self._file.rows(f"select {selected} from {_PREFIX}OVERHEAD where start > 0 and end >= start")
        made = [
            (start - self._start_ns, end - self._start_ns, self._thread_of(kind, object_id), _OVERHEAD_TYPES.get(what))
            for what, kind, object_id, start, end in rows
        ]
        names = ("start_ns", "end_ns", "global_tid", "overhead_type")
        return pl.DataFrame(made, schema=dict.fromkeys(names, pl.Int64), orient="row")

    def _devices(self) -> tuple[Device, ...]:
        table = f"{_PREFIX}DEVICE"
        names = self._file.columns(table)
        rows = (
            [dict(zip(names, row, strict=True)) for row in self._file.rows(f"select * from {table}")] if names else []
        )
        known = {int(row["id"]): self._device(row) for row in rows}
        return tuple(known[key] for key in sorted(known))

    def _device(self, row: dict[str, Any]) -> Device:
        name = self._texts.get(row.get("name", 0), "GPU").strip()
        capability = f"{row.get('computeCapabilityMajor')}.{row.get('computeCapabilityMinor')}"
        chip = _CHIP_OF_TEGRA.get(capability)
        bandwidth: int | None = (row.get("globalMemoryBandwidth") or 0) * 1000 or None
        source: str | None = message("driver") if bandwidth else None
        sm_count, memory_bytes = row.get("numMultiprocessors") or None, row.get("globalMemorySize") or None
        if chip is not None:
            bandwidth, source = integrated_memory_bandwidth(chip, sm_count, memory_bytes)
        return Device(
            device_id=int(row["id"]),
            name=name,
            chip=chip,
            compute_capability=capability,
            sm_count=sm_count,
            sm_clock_hz=(row.get("coreClockRate") or 0) * 1000 or None,
            memory_bytes=memory_bytes,
            memory_bandwidth_bytes_per_s=bandwidth,
            memory_bandwidth_source=source,
            l2_cache_bytes=row.get("l2CacheSize") or None,
            max_warps_per_sm=row.get("maxWarpsPerMultiprocessor") or None,
            max_blocks_per_sm=row.get("maxBlocksPerMultiprocessor") or None,
            registers_per_sm=row.get("maxRegistersPerMultiprocessor") or None,
            shared_memory_per_sm_bytes=row.get("maxSharedMemoryPerMultiprocessor") or None,
            is_integrated=chip is not None,
        )


_CALL = ("cbid", "processId", "threadId", "correlationId")
_WHERE = ("deviceId", "contextId", "streamId", "correlationId")
_KERNEL = {
    "name": "name",
    "gridX": "grid_x",
    "gridY": "grid_y",
    "gridZ": "grid_z",
    "blockX": "block_x",
    "blockY": "block_y",
    "blockZ": "block_z",
    "registersPerThread": "registers_per_thread",
    "staticSharedMemory": "static_shared_memory_bytes",
    "dynamicSharedMemory": "dynamic_shared_memory_bytes",
}
_NVTX_COLUMNS = ("start_ns", "end_ns", "event_type", "global_tid", "end_global_tid", "domain_id")

READER = Reader(
    format=FORMAT,
    title=message("nvprof SQLite"),
    gives="evidence",
    recognises=recognises,
    read=read,
    rank=30,
)
