"""PyTorch profiler (Kineto) traces: Chrome JSON, plain or compressed, of NVIDIA and AMD GPUs.

What they are made of:

- Times are microseconds. Newer files count from `baseTimeNanoseconds`, older ones from 1970; `displayTimeUnit` says
  nothing about them. A time of today in microseconds since 1970 has a resolution of a quarter of a microsecond in JSON
  numbers, durations are exact to the nanosecond.
- A kernel, copy or memset and its call share `correlation`. Calls of ROCm are under the names of CUDA's categories.
- `user_annotation` is `record_function` (`ProfilerStep#12`), `cpu_op` an operator, `python_function` a Python frame;
  of the last only modules (`nn.Module: Linear_0`) are kept. The first are ranges of the user, as in NVTX; the other two
  are `framework_ranges`.
- The shared memory of a block is one number, static and dynamic together; it is given as dynamic.

File, host and user names in the metadata are not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from nitro.errors import InputError

from ..message import message, one_or_many
from ..nvtx import PUSH_POP
from ..profile import Profile
from ..reader import Head, Reader
from ..trace import Capture, Device, Source, Trace
from ._contract import Threads, conformed, file_name, global_pid
from ._demangled import function_name

if TYPE_CHECKING:
    from ._chrome_json import Event

FORMAT = "kineto-json"
_MODULE = "nn.Module: "
_OPERATIONS = {"kernel": "kernels", "gpu_memcpy": "memcpys", "gpu_memset": "memsets", "cuda_sync": "synchronizations"}
_KNOWN_BY = ('"deviceProperties"', '"cpu_op"', '"cuda_runtime"', '"python_function"', '"Record function id"')
_SYNC_TYPES = {"Event Sync": 1, "Stream Wait Event": 2, "Stream Sync": 3, "Context Sync": 4}
_COPY_KINDS = (("HtoD", 1), ("DtoH", 2), ("DtoD", 8), ("HtoH", 9), ("PtoP", 10))
_AMD_COPY_KINDS = (("HostToDevice", 1), ("DeviceToHost", 2), ("DeviceToDevice", 8), ("HostToHost", 9))
_MEMORY_KINDS = {"Pageable": 0, "Pinned": 1, "Device": 2, "Array": 3, "Managed": 4}
_EARLIEST_UTC_NS = 10**9 * 86_400 * 365 * 30
_NO_STREAM = -1
# Half a unit of the coarsest times that a file may have: whole microseconds. Ranges nest but for such errors.
_TIME_STEP_NS = 2_000


def recognises(head: Head) -> bool:
    """Tell whether this is Chrome trace JSON."""
    text = head.text.lstrip()
    return text[:1] in "{[" and ('"traceEvents"' in text or '"ph"' in text or '"ph":' in text)


def read(path: Path) -> Profile:
    """Return the profile in a Chrome JSON file of the PyTorch profiler.

    Raises:
        InputError: the file is damaged from its begin, or another program wrote it.
    """
    from ._chrome_json import ChromeJson

    file = ChromeJson(path)
    columns = _Columns()
    for events in file.batches():
        columns.add(events)
    if not columns.is_profile:
        raise InputError(
            f"{path}: Chrome trace JSON, but not of the PyTorch profiler (it has no operators, CUDA calls or kernels); "
            "give a file made by `torch.profiler` with export_chrome_trace()."
        )
    left_out = file.damaged + columns.damaged
    notes = []
    if file.is_cut:
        one = message("The file ends in the middle; what stands before its end was used: 1 event.")
        many = message(
            "The file ends in the middle; what stands before its end was used: {count:,} events.", count=columns.read
        )
        notes.append(one_or_many(columns.read, one, many))
    if left_out:
        one = message("1 event could not be read and was left out.")
        many = message("{count:,} events could not be read and were left out.", count=left_out)
        notes.append(one_or_many(left_out, one, many))
    trace = _trace(path, file.header, columns, tuple(notes))
    return Profile(source=trace.source, records=columns.read, left_out=left_out, notes=tuple(notes), trace=trace)


def _trace(path: Path, header: dict[str, Any], columns: _Columns, notes: tuple[str, ...]) -> Trace:
    base_ns = header.get("baseTimeNanoseconds")
    start_us, end_us = columns.span_us()
    start_utc_ns = (base_ns if isinstance(base_ns, int) else 0) + round(start_us * 1000)
    return Trace(
        source=Source(
            file_name=file_name(path.name),
            format=FORMAT,
            size_bytes=path.stat().st_size,
            tool="PyTorch profiler",
            schema_version=_text(header.get("schemaVersion")),
        ),
        devices=_devices(header.get("deviceProperties"), columns.device_ids()),
        tables=columns.tables(start_us),
        capture=Capture(
            duration_ns=round((end_us - start_us) * 1000),
            start_utc_ns=start_utc_ns if start_utc_ns > _EARLIEST_UTC_NS else None,
        ),
        notes=notes,
    )


class _Columns:
    """The events that count, as frames of one category each; times stay microseconds until all are known."""

    def __init__(self) -> None:
        self.read = 0
        self.damaged = 0
        self.is_profile = False
        self._frames: dict[str, list[pl.DataFrame]] = {}
        self._threads = Threads()

    def add(self, events: list[Event]) -> None:
        """Take the events of a batch."""
        by_kind: dict[str, list[Event]] = {}
        for event in events:
            if event.ph == "X" and isinstance(event.cat, str):
                by_kind.setdefault(event.cat, []).append(event)
        self.read += len(events)
        for category, mine in by_kind.items():
            kind = _kind_of(category)
            if kind is None:
                continue
            self.is_profile = True
            if category == "python_function":
                mine = [event for event in mine if isinstance(event.name, str) and event.name.startswith(_MODULE)]
                for event in mine:
                    event.name = event.name[len(_MODULE) :]
            if not mine:
                continue
            frame = _FRAMES[kind](mine)
            whole = frame.drop_nulls(["ts", "dur"]).filter(pl.col("dur") >= 0)
            self.damaged += len(frame) - len(whole)
            if category in _KIND_OF_RANGE:
                whole = whole.with_columns(pl.lit(_KIND_OF_RANGE[category]).alias("kind"))
            self._frames.setdefault(kind, []).append(whole)

    def span_us(self) -> tuple[float, float]:
        """Return the first start and the last end, microseconds; zeros where there is no event."""
        frames = [frame for parts in self._frames.values() for frame in parts if len(frame)]
        starts = [float(frame["ts"].min()) for frame in frames]  # type: ignore[arg-type]
        ends = [float((frame["ts"] + frame["dur"]).max()) for frame in frames]  # type: ignore[arg-type]
        return min(starts, default=0.0), max(ends, default=0.0)

    def device_ids(self) -> tuple[int, ...]:
        """Return the GPUs that operations ran on."""
        found: set[int] = set()
        for kind in _OPERATIONS.values():
            for frame in self._frames.get(kind, ()):
                found.update(frame["device_id"].drop_nulls().unique().to_list())
        return tuple(sorted(found))

    def tables(self, start_us: float) -> dict[str, pl.DataFrame | None]:
        """Return the tables of the contract, `None` for what the profiler had not been asked for."""
        made = {kind: self._timed(kind, start_us) for kind in self._frames}
        calls = made.get("calls")
        pid = self._process(calls)
        tables: dict[str, pl.DataFrame | None] = {}
        if calls is not None:
            named = calls.with_columns(self._thread_ids(calls), pl.col("name").rank("dense").alias("name_id"))
            tables["api_calls"] = conformed("api_calls", named.sort("start_ns", "end_ns", descending=[False, True]))
        has_gpu_work = any(kind in made for kind in ("kernels", "memcpys", "memsets"))
        for kind in _OPERATIONS.values():
            frame = made.get(kind)
            if frame is None:
                # The profiler records all kinds of GPU work or none.
                tables[kind] = conformed(kind, pl.DataFrame()) if has_gpu_work and kind != "synchronizations" else None
                continue
            owner = pl.lit(None if pid is None else global_pid(pid), pl.Int64)
            frame = frame.with_columns(owner.alias("global_pid"), pl.col("device_id").alias("device_ordinal"))
            tables[kind] = conformed(kind, frame.sort("start_ns", maintain_order=True))
        for kind in ("nvtx_events", "framework_ranges", "profiler_overheads"):
            frame = made.get(kind)
            if frame is not None:
                frame = _nested(frame.with_columns(self._thread_ids(frame)))
                columns = (pl.lit(PUSH_POP).alias("event_type"), pl.col("name").alias("text"))
                tables[kind] = conformed(kind, frame.with_columns(columns) if kind == "nvtx_events" else frame)
        return tables

    def _timed(self, kind: str, start_us: float) -> pl.DataFrame:
        frame = pl.concat(self._frames[kind])
        start = ((pl.col("ts") - start_us) * 1000).round().cast(pl.Int64)
        duration = (pl.col("dur") * 1000).round().cast(pl.Int64)
        return frame.with_columns(start.alias("start_ns"), (start + duration).alias("end_ns")).drop("ts", "dur")

    def _thread_ids(self, frame: pl.DataFrame) -> pl.Series:
        return self._threads.ids_of(frame["pid"].fill_null(0), frame["tid"].fill_null(0)).rename("global_tid")

    @staticmethod
    def _process(calls: pl.DataFrame | None) -> int | None:
        """Return the profiled process: that of the calls; of several, the one that made most."""
        if calls is None or not len(calls):
            return None
        counts = calls["pid"].drop_nulls().value_counts(sort=True)
        return int(counts["pid"][0]) if len(counts) else None


def _kind_of(category: str) -> str | None:
    if category in _OPERATIONS:
        return _OPERATIONS[category]
    if category in _KIND_OF_RANGE:
        return "framework_ranges"
    if category == "user_annotation":
        return "nvtx_events"
    if category == "overhead":
        return "profiler_overheads"
    return "calls" if category.endswith(("_runtime", "_driver")) else None


def _numbers(values: Iterable[Any], dtype: type[pl.DataType] = pl.Int64) -> pl.Series:
    """Return numbers of JSON as a column; what is no number, or does not fit, becomes null."""
    given = list(values)
    try:
        return pl.Series(given, dtype=dtype, strict=True)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        known = [value if isinstance(value, (int, float)) and not isinstance(value, bool) else None for value in given]
        return pl.Series(known, dtype=dtype, strict=False)


def _names(events: Sequence[Event]) -> pl.Series:
    return pl.Series("name", [event.name if isinstance(event.name, str) else None for event in events], pl.String)


def _times(events: Sequence[Event]) -> dict[str, pl.Series]:
    return {
        "ts": _numbers((event.ts for event in events), pl.Float64),
        "dur": _numbers((event.dur for event in events), pl.Float64),
    }


def _on_thread(events: Sequence[Event]) -> dict[str, pl.Series]:
    return {
        "pid": _numbers(event.pid for event in events),
        "tid": _numbers(event.tid for event in events),
        "name": _names(events),
    }


def _calls(events: Sequence[Event]) -> pl.DataFrame:
    ids = _numbers(event.args.correlation if event.args else None for event in events)
    return pl.DataFrame({**_times(events), **_on_thread(events), "correlation_id": ids})


def _ranges(events: Sequence[Event]) -> pl.DataFrame:
    return pl.DataFrame({**_times(events), **_on_thread(events)})


def _operations(events: Sequence[Event]) -> dict[str, pl.Series]:
    """Return the columns that all GPU operations share. A row's process and thread are device and stream."""
    from ._chrome_json import Arguments

    nothing = Arguments()
    arguments = [event.args or nothing for event in events]
    devices = _numbers(event.pid if a.device is None else a.device for event, a in zip(events, arguments, strict=True))
    streams = _numbers(event.tid if a.stream is None else a.stream for event, a in zip(events, arguments, strict=True))
    return {
        **_times(events),
        "device_id": devices,
        "context_id": _numbers(a.context for a in arguments),
        "stream_id": pl.select(pl.when(streams != _NO_STREAM).then(streams)).to_series(),
        "correlation_id": _numbers(a.correlation for a in arguments),
        "bytes": _numbers(a.bytes for a in arguments),
        "graph_node_id": _numbers(a.graph_node for a in arguments),
    }


def _kernels(events: Sequence[Event]) -> pl.DataFrame:
    names = _names(events)
    unique = names.drop_nulls().unique().to_list()
    short = names.replace_strict(unique, [function_name(name) for name in unique], default=None, return_dtype=pl.String)
    arguments = [event.args for event in events]
    shapes = {
        f"{which}_{axis}": _numbers(_axis(getattr(a, which), number) if a else None for a in arguments)
        for which in ("grid", "block")
        for number, axis in enumerate("xyz")
    }
    shared = _numbers(a.shared_memory if a else None for a in arguments)
    return pl.DataFrame(
        {
            **_operations(events),
            "demangled_name": names,
            "short_name": short,
            **shapes,
            "registers_per_thread": _numbers(a.registers if a else None for a in arguments),
            "static_shared_memory_bytes": shared * 0,
            "dynamic_shared_memory_bytes": shared,
        }
    )


def _axis(shape: object, number: int) -> object:
    return shape[number] if isinstance(shape, list) and len(shape) > number else None


def _memcpys(events: Sequence[Event]) -> pl.DataFrame:
    names = _names(events)
    unique = names.drop_nulls().unique().to_list()
    facts = [_copy_facts(name) for name in unique]
    columns = {
        column: names.replace_strict(unique, [fact[place] for fact in facts], default=None, return_dtype=pl.Int64)
        for place, column in enumerate(("copy_kind", "src_kind", "dst_kind"))
    }
    return pl.DataFrame({**_operations(events), **columns})


def _copy_facts(name: str) -> tuple[int | None, int | None, int | None]:
    """Return copy kind and memory kinds of a name such as `Memcpy HtoD (Pinned -> Device)`."""
    kind = next((number for word, number in (*_COPY_KINDS, *_AMD_COPY_KINDS) if word in name), None)
    source, arrow, target = name.partition("(")[2].rstrip(")").partition(" -> ")
    return kind, _MEMORY_KINDS.get(source) if arrow else None, _MEMORY_KINDS.get(target)


def _memsets(events: Sequence[Event]) -> pl.DataFrame:
    return pl.DataFrame(_operations(events))


def _synchronizations(events: Sequence[Event]) -> pl.DataFrame:
    kinds = [event.args.sync_kind if event.args else None for event in events]
    numbers = [
        _SYNC_TYPES.get(kind if isinstance(kind, str) else str(event.name))
        for kind, event in zip(kinds, events, strict=True)
    ]
    return pl.DataFrame({**_operations(events), "sync_type": pl.Series(numbers, dtype=pl.Int64)})


_FRAMES: dict[str, Callable[[Sequence[Event]], pl.DataFrame]] = {
    "calls": _calls,
    "nvtx_events": _ranges,
    "framework_ranges": _ranges,
    "profiler_overheads": _ranges,
    "kernels": _kernels,
    "memcpys": _memcpys,
    "memsets": _memsets,
    "synchronizations": _synchronizations,
}
_KIND_OF_RANGE = {"python_function": "module", "cpu_op": "operator"}


def _nested(ranges: pl.DataFrame) -> pl.DataFrame:
    """Return the ranges in order, each ending no later than the one around it but for real overlaps.

    Starts and durations are rounded apart from each other, so an inner range may seem to outlast the outer one.
    """
    ranges = ranges.sort("global_tid", "start_ns", "end_ns", descending=[False, False, True], maintain_order=True)
    ends: list[int] = []
    around: list[int] = []
    current = None
    for thread, start, end in ranges.select("global_tid", "start_ns", "end_ns").iter_rows():
        if thread != current:
            current, around = thread, []
        while around and around[-1] <= start:
            around.pop()
        if around and around[-1] < end <= around[-1] + _TIME_STEP_NS:
            end = around[-1]
        around.append(end)
        ends.append(end)
    return ranges.with_columns(pl.Series("end_ns", ends, dtype=pl.Int64))


def _devices(described: object, used: Sequence[int]) -> tuple[Device, ...]:
    rows = [row for row in described if isinstance(row, dict)] if isinstance(described, list) else []
    known = {row["id"]: _device(row) for row in rows if isinstance(row.get("id"), int)}
    for device_id in used:
        if device_id not in known:
            title = message("GPU {device_id}, not described by the profile", device_id=device_id)
            known[device_id] = Device(device_id, title)
    return tuple(known[key] for key in sorted(known))


def _device(row: dict[str, Any]) -> Device:
    def number(name: str) -> int | None:
        value = row.get(name)
        return value if isinstance(value, int) and value > 0 else None

    warp, threads = number("warpSize"), number("maxThreadsPerMultiprocessor")
    name = _text(row.get("name")) or "GPU"
    major, minor = row.get("computeMajor"), row.get("computeMinor")
    is_cuda = isinstance(major, int) and isinstance(minor, int) and warp == 32
    return Device(
        device_id=row["id"],
        name=name.strip(),
        compute_capability=f"{major}.{minor}" if is_cuda else None,
        sm_count=number("numSms"),
        memory_bytes=number("totalGlobalMem"),
        max_warps_per_sm=threads // warp if threads and warp else None,
        registers_per_sm=number("regsPerMultiprocessor"),
        shared_memory_per_sm_bytes=number("sharedMemPerMultiprocessor"),
    )


def _text(value: object) -> str | None:
    return str(value) if isinstance(value, (str, int)) else None


READER = Reader(
    format=FORMAT,
    title=message("PyTorch profiler (Kineto) Chrome JSON"),
    gives="evidence",
    recognises=recognises,
    read=read,
    rank=40,
)
