"""A trace for https://ui.perfetto.dev: processes, threads, GPUs and streams as tracks, written piece by piece.

What stands where:

- process > thread > "NVTX", "Framework", "CUDA API", "OS": ranges and calls of a thread, nested as they were.
- GPU > "idle": every nanosecond between the first and the last operation in which none ran, by cause.
- GPU > a track for each stream: kernels, copies, memsets and graph launches, with a flow from the launch call.
- GPU > sampled metrics, and a track for each power log, as counters.

Slices that overlap without nesting are spread over tracks whose names count up. Times are those of the trace, ns since
session start; where something lies before it, all of them are moved by the same amount, so that none is negative.
Messages and numbers of fields: protos/perfetto/trace of https://github.com/google/perfetto.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import polars as pl

from ..causes import TEXTS, Cause
from ..distinct import distinct
from ..idle import IdleAttribution
from ..intervals import Index, Int64
from ..operations import NO_ROW, TABLE_OF_KIND, Kind, Operations
from ..power_log import PowerLog
from ..samples import Float64
from ..tables import SAMPLED_METRICS, enum_texts
from ..timeline import NO_NAME, all_ranges
from ..view import DeviceView, View
from . import protobuf
from .protobuf import Part, delimited, fixed, integer, integers, nested, rows_of
from .slices import Edges, rows_of_slices

ABSENT = -1
_EDGES_PER_WRITE = 1 << 17
_TID_MASK = 0xFFFFFF
_COPY_KINDS = {1: "HtoD", 2: "DtoH", 8: "DtoD", 9: "HtoH", 10: "PtoP", 11: "HtoD", 12: "DtoH", 13: "DtoD"}
_FIRST_UNIFIED_COPY = 11
_CALL_TABLES = {"framework_ranges": "Framework", "api_calls": "CUDA API", "os_calls": "OS"}
_CATEGORIES = ("nvtx", *_CALL_TABLES, *TABLE_OF_KIND.values(), "idle")

# TracePacket, TrackDescriptor, TrackEvent and InternedData: numbers of their fields.
_PACKET = 1
_TIMESTAMP, _TRACK_EVENT, _SEQUENCE, _INTERNED, _SEQUENCE_FLAGS, _DESCRIPTOR = 8, 11, 10, 12, 13, 60
_UUID, _NAME, _PROCESS, _THREAD, _PARENT, _COUNTER, _ORDERING, _RANK, _DESCRIPTION = 1, 2, 3, 4, 5, 8, 11, 12, 14
_EVENT_CATEGORY, _ANNOTATION, _EVENT_TYPE, _EVENT_NAME, _EVENT_TRACK = 3, 4, 9, 10, 11
_EVENT_DOUBLE, _FLOW, _TERMINATING_FLOW = 44, 47, 48
_INTERNED_CATEGORY, _INTERNED_NAME, _INTERNED_KEY, _INTERNED_TEXT = 1, 2, 3, 29
_KEY_OF_ANNOTATION, _INTEGER_OF_ANNOTATION, _TEXT_OF_ANNOTATION = 1, 4, 17
_BEGIN, _END, _COUNTER_VALUE = 1, 2, 4
_STATE_CLEARED, _NEEDS_STATE = 1, 2
_EXPLICIT_ORDER = 3
_EVENT_HEAD = integer(_SEQUENCE, 1) + integer(_SEQUENCE_FLAGS, _NEEDS_STATE)


@dataclass(frozen=True, slots=True)
class Written:
    """How much a file holds, and by how much its times are later than those of the trace, ns."""

    slices: int
    flows: int
    samples: int
    tracks: int
    shift_ns: int


def write_perfetto(view: View, stream: BinaryIO) -> Written:
    """Write the trace of a view, with the power logs beside it, as a Perfetto trace.

    Args:
        view: the trace; its window decides where idle time is looked for, everything else is written whole.
        stream: where to; it is written in order and never read.
    """
    first, last = _extent(view)
    shift = max(-first, 0)
    out = _Writer(stream, shift, last)
    flows = _Flows(view)
    # Threads come first: of two events of the same moment, the one that stands first happened first.
    _write_threads(out, view, flows)
    operations = _Named(out, view)
    for device in view.devices:
        _write_device(out, device, operations, flows)
    for placed in view.evidence_of(PowerLog):
        if placed.placement is not None:
            _write_log(out, placed.evidence, placed.trace_times(placed.evidence.times_ns), (first, last))
    return Written(out.slices, flows.count, out.samples, out.tracks, shift)


@dataclass(frozen=True, slots=True)
class _Detail:
    """A number or a text that belongs to slices: values of shape (n,), `ABSENT` where a slice has none."""

    key: int
    values: Int64
    is_text: bool

    def parts(self, rows: Index) -> list[Part]:
        values = self.values[rows]
        number = _TEXT_OF_ANNOTATION if self.is_text else _INTEGER_OF_ANNOTATION
        width = protobuf.width_for(int(values.max()))
        return nested(_ANNOTATION, [integer(_KEY_OF_ANNOTATION, self.key), *integers(number, values, width)])


@dataclass(frozen=True, slots=True)
class _Slices:
    """Slices as parallel arrays of shape (n,). `flow_in` is the flow that ends in a slice, 0 for none.

    The flows that begin in slice i are `flows_out[first_flow[i] : first_flow[i] + flow_count[i]]`.
    """

    starts: Int64
    ends: Int64
    name: Int64
    category: Int64
    flow_in: Int64 | None = None
    first_flow: Int64 | None = None
    flow_count: Int64 | None = None
    flows_out: Int64 | None = None
    details: tuple[_Detail, ...] = ()

    def take(self, rows: Index) -> _Slices:
        """Return the slices at these positions, in this order."""

        def of(values: Int64 | None) -> Int64 | None:
            return None if values is None else values[rows]

        return _Slices(
            self.starts[rows], self.ends[rows], self.name[rows], self.category[rows],
            of(self.flow_in), of(self.first_flow), of(self.flow_count), self.flows_out,
            tuple(replace(detail, values=detail.values[rows]) for detail in self.details),
        )  # fmt: skip

    def shapes(self) -> Int64:
        """Return a number for each slice; those with the same one are encoded to the same length."""
        shape = np.zeros(len(self.starts), np.int64) if self.flow_count is None else self.flow_count.astype(np.int64)
        present = [] if self.flow_in is None else [self.flow_in > 0]
        for part in (*present, *(detail.values != ABSENT for detail in self.details)):
            shape = shape * 2 + part
        return shape

    def parts(self, rows: Index) -> list[Part]:
        """Return the fields of the beginnings of slices of one shape."""
        name = self.name[rows]
        parts = integers(_EVENT_CATEGORY, self.category[rows], 1)
        parts += integers(_EVENT_NAME, name, protobuf.width_for(int(name.max())))
        one = rows[0]
        if self.flow_in is not None and self.flow_in[one]:
            parts += fixed(_TERMINATING_FLOW, self.flow_in[rows])
        if self.flow_count is not None and self.first_flow is not None and self.flows_out is not None:
            for place in range(int(self.flow_count[one])):
                parts += fixed(_FLOW, self.flows_out[self.first_flow[rows] + place])
        for detail in self.details:
            if detail.values[one] != ABSENT:
                parts += detail.parts(rows)
        return parts


class _Writer:
    """Packets of one sequence: names get numbers when they are first met, tracks when they are first named."""

    def __init__(self, stream: BinaryIO, shift_ns: int, last_ns: int) -> None:
        self._stream = stream
        self._shift = shift_ns
        self._time_width = protobuf.width_for(max(last_ns + shift_ns, 0))
        self._numbers: dict[tuple[int, str], int] = {}
        self._pending: list[bytes] = []
        self.slices = self.samples = self.tracks = 0
        for name in _CATEGORIES:
            self.number(_INTERNED_CATEGORY, name)
        self._write_interned(_STATE_CLEARED)

    def number(self, kind: int, text: str) -> int:
        """Return the number that stands for a text of a kind of interned data."""
        known = self._numbers.get((kind, text))
        if known is None:
            known = self._numbers[kind, text] = len(self._numbers) + 1
            self._pending.append(delimited(kind, integer(1, known) + delimited(2, text)))
        return known

    def numbers(self, kind: int, texts: pl.Series, missing: str | None) -> Int64:
        """Return the number of each text of an Enum column, that of `missing` for a null, or `ABSENT`."""
        known = enum_texts(texts)
        codes = texts.to_physical().cast(pl.Int64).fill_null(-1).to_numpy()
        table = np.full(len(known) + 1, ABSENT, np.int64)
        for code in distinct(codes):
            text = known[code] if code >= 0 else missing
            if text is not None:
                table[code] = self.number(kind, text)
        return np.asarray(table[codes])

    def track(self, name: str, parent: int = 0, extra: bytes = b"") -> int:
        """Describe a track and return its number; tracks of one parent are shown in the order of their numbers."""
        self.tracks += 1
        content = integer(_UUID, self.tracks) + delimited(_NAME, name) + integer(_RANK, self.tracks) + extra
        content += (integer(_PARENT, parent) if parent else b"") + integer(_ORDERING, _EXPLICIT_ORDER)
        self._packet(integer(_SEQUENCE, 1) + delimited(_DESCRIPTOR, content))
        return self.tracks

    def write_slices(self, name: str, parent: int, slices: _Slices, *, nest: bool) -> None:
        """Write slices, ordered by start (the longest first where they nest), on as many tracks as they need."""
        for number, edges in enumerate(rows_of_slices(slices.starts, slices.ends, nest=nest), start=1):
            self.write_edges(self.track(name if number == 1 else f"{name} ({number})", parent), slices, edges)

    def write_edges(self, track: int, slices: _Slices, edges: Edges) -> None:
        """Write slices of one track, in the order of their edges."""
        self._write_interned(_NEEDS_STATE)
        self.slices += len(edges.slice) // 2
        for low in range(0, len(edges.slice), _EDGES_PER_WRITE):
            part = slice(low, low + _EDGES_PER_WRITE)
            self._stream.write(self._encoded(track, slices, edges.slice[part], edges.begins[part]))

    def write_counter(self, name: str, parent: int, unit: str, times: Int64, values: Float64, what: str = "") -> None:
        """Write a counter: each value holds from its time to the next one. A value that is no number is left out."""
        known = ~np.isnan(values)
        times, values = times[known], values[known]
        extra = delimited(_COUNTER, delimited(6, unit)) + (delimited(_DESCRIPTION, what) if what else b"")
        track = self.track(name, parent, extra)
        self.samples += len(times)
        for low in range(0, len(times), _EDGES_PER_WRITE):
            part = slice(low, low + _EDGES_PER_WRITE)
            parts = self._event(times[part], track, _COUNTER_VALUE, fixed(_EVENT_DOUBLE, values[part]))
            self._stream.write(rows_of(parts, len(times[part])).tobytes())

    def _encoded(self, track: int, slices: _Slices, rows: Index, begins: npt.NDArray[np.bool_]) -> bytes:
        """Return edges as packets: those of one shape are encoded together, then all are put in their order."""
        some = slices.take(rows)
        shape = np.where(begins, some.shapes(), -1)
        groups: list[tuple[Index, protobuf.Bytes]] = []
        lengths = np.empty(len(rows), np.int64)
        for kind in distinct(shape):
            mine = np.flatnonzero(shape == kind)
            times, event = (some.ends, _END) if kind < 0 else (some.starts, _BEGIN)
            parts = self._event(times[mine], track, event, [] if kind < 0 else some.parts(mine))
            encoded = rows_of(parts, len(mine))
            groups.append((mine, encoded))
            lengths[mine] = encoded.shape[1]
        offsets = np.cumsum(lengths) - lengths
        out = np.empty(int(lengths.sum()), np.uint8)
        for mine, encoded in groups:
            out[offsets[mine][:, None] + np.arange(encoded.shape[1])] = encoded
        return out.tobytes()

    def _event(self, times: Int64, track: int, kind: int, parts: list[Part]) -> list[Part]:
        event = nested(_TRACK_EVENT, [integer(_EVENT_TYPE, kind) + integer(_EVENT_TRACK, track), *parts])
        stamp = integers(_TIMESTAMP, times + self._shift, self._time_width)
        return nested(_PACKET, [*stamp, _EVENT_HEAD, *event])

    def _write_interned(self, flags: int) -> None:
        if self._pending:
            content = delimited(_INTERNED, b"".join(self._pending))
            self._packet(integer(_SEQUENCE, 1) + integer(_SEQUENCE_FLAGS, flags) + content)
            self._pending.clear()

    def _packet(self, content: bytes) -> None:
        self._stream.write(delimited(_PACKET, content))


class _Flows:
    """The flows from launch calls to operations: the n-th operation of the view has flow n, from 1.

    An operation without a call has none, and neither has one that by the clocks began before its call did.
    """

    def __init__(self, view: View) -> None:
        operations = view.operations
        has = (operations.launch != NO_ROW) & (operations.starts >= view.calls.starts)
        self.of_operation: Int64 = np.where(has, np.arange(1, len(operations) + 1), 0)
        launched = np.flatnonzero(has)
        by_call = launched[np.argsort(operations.launch[launched], kind="stable")]
        self._sorted = self.of_operation[by_call]
        calls = view.trace.api_calls
        self._count = np.bincount(operations.launch[launched], minlength=0 if calls is None else len(calls))
        self.count = len(launched)

    def begun_in(self, slices: _Slices, calls: Index) -> _Slices:
        """Return slices with the flows that begin in them; `calls` are their rows of the API calls."""
        first = np.cumsum(self._count) - self._count
        return replace(slices, first_flow=first[calls], flow_count=self._count[calls], flows_out=self._sorted)


def _write_threads(out: _Writer, view: View, flows: _Flows) -> None:
    processes: dict[int, int] = {}
    lanes = sorted(_lanes(out, view, flows), key=lambda lane: lane[0])
    threads: dict[int, int] = {}
    for global_tid, _, name, slices in lanes:
        process, tid = global_tid & ~_TID_MASK, global_tid & _TID_MASK
        pid = process >> 24 & _TID_MASK
        if process not in processes:
            # 0 stands for an id that the tool did not record; to Perfetto it would be the idle task of the kernel.
            extra = delimited(_PROCESS, integer(1, pid)) if pid else b""
            processes[process] = out.track(f"process {pid}" if pid else "unknown process", extra=extra)
        if global_tid not in threads:
            extra = delimited(_THREAD, integer(1, pid) + integer(2, tid)) if pid and tid else b""
            title = f"thread {tid}" if tid else "unknown thread"
            threads[global_tid] = out.track(title, processes[process], extra)
        out.write_slices(name, threads[global_tid], slices, nest=True)


def _lanes(out: _Writer, view: View, flows: _Flows) -> Iterator[tuple[int, int, str, _Slices]]:
    """Return thread, number, name and slices of everything that happened on threads."""
    ranges = all_ranges(view)
    name = np.zeros(len(ranges.names), np.int64)
    for code in distinct(ranges.name):
        name[code] = out.number(_INTERNED_NAME, ranges.names[code])
    category = np.full(len(ranges), out.number(_INTERNED_CATEGORY, "nvtx"))
    of_ranges = _Slices(ranges.starts, ranges.ends, name[ranges.name], category)
    for global_tid, rows in _by_value(ranges.thread):
        yield global_tid, 0, "NVTX", of_ranges.take(rows)
    for number, (table, title) in enumerate(_CALL_TABLES.items(), start=1):
        frame = view.trace.table_or_empty(table)
        thread = frame["global_tid"].fill_null(0).to_numpy()
        starts, ends = frame["start_ns"].to_numpy(), frame["end_ns"].to_numpy()
        category = np.full(len(frame), out.number(_INTERNED_CATEGORY, table))
        slices = _Slices(starts, ends, out.numbers(_INTERNED_NAME, frame["name"], NO_NAME), category)
        if table == "api_calls":
            slices = flows.begun_in(slices, np.arange(len(frame)))
        order = np.lexsort((-ends, starts))
        for global_tid, rows in _by_value(thread[order]):
            yield global_tid, number, title, slices.take(order[rows])


def _by_value(values: Int64) -> Iterator[tuple[int, Index]]:
    """Return each value with the positions at which it stands, ascending."""
    order = np.argsort(values, kind="stable")
    cuts = np.flatnonzero(np.diff(values[order])) + 1
    for rows in np.split(order, cuts) if len(order) else ():
        yield int(values[rows[0]]), rows


class _Named:
    """Names, categories and details of all operations of a view, shape (n,)."""

    def __init__(self, out: _Writer, view: View) -> None:
        operations = view.operations
        self.name = np.zeros(len(operations), np.int64)
        self.category = np.zeros(len(operations), np.int64)
        details = {key: np.full(len(operations), ABSENT) for key in ("full name", "launch", "bytes")}
        for kind, table in TABLE_OF_KIND.items():
            mine = np.flatnonzero(operations.kind == kind)
            if not len(mine):
                continue
            frame = view.trace.table_or_empty(table)
            rows = operations.row[mine]
            self.category[mine] = out.number(_INTERNED_CATEGORY, table)
            self.name[mine] = _names_of(out, kind, frame)[rows]
            for key, values in _details_of(out, kind, frame):
                details[key][mine] = values[rows]
        self.details = tuple(
            _Detail(out.number(_INTERNED_KEY, key), values, is_text=key != "bytes") for key, values in details.items()
        )

    def slices(self, operations: Operations, flows: _Flows, rows: Index) -> _Slices:
        """Return the operations of these rows as slices."""
        whole = _Slices(
            operations.starts, operations.ends, self.name, self.category, flows.of_operation, details=self.details
        )
        return whole.take(rows)


def _names_of(out: _Writer, kind: Kind, frame: pl.DataFrame) -> Int64:
    if kind is Kind.KERNEL:
        short = out.numbers(_INTERNED_NAME, frame["short_name"], None)
        full = out.numbers(_INTERNED_NAME, frame["demangled_name"], NO_NAME)
        return np.where(short == ABSENT, full, short)
    if kind is Kind.GRAPH:
        names = pl.format("CUDA graph {}", pl.col("graph_id").cast(pl.String).fill_null("?"))
    elif kind is Kind.MEMCPY:
        is_unified = pl.col("copy_kind") >= _FIRST_UNIFIED_COPY
        unified = pl.when(is_unified).then(pl.lit("Unified memory")).otherwise(pl.lit("Memcpy"))
        way = pl.col("copy_kind").replace_strict(_COPY_KINDS, default="", return_dtype=pl.String).fill_null("")
        names = pl.concat_str(unified, way, separator=" ").str.strip_chars()
    else:
        names = pl.repeat("Memset", pl.len())
    return out.numbers(_INTERNED_NAME, _as_enum(frame, names), NO_NAME)


def _details_of(out: _Writer, kind: Kind, frame: pl.DataFrame) -> Iterator[tuple[str, Int64]]:
    if kind is Kind.KERNEL:
        yield "full name", out.numbers(_INTERNED_TEXT, frame["demangled_name"], None)
        grid, block = (
            pl.concat_str([pl.col(f"{what}_{axis}") for axis in "xyz"], separator="x") for what in ("grid", "block")
        )
        shape = pl.concat_str(pl.lit("grid "), grid, pl.lit(", block "), block)
        yield "launch", out.numbers(_INTERNED_TEXT, _as_enum(frame, shape), None)
    elif kind in (Kind.MEMCPY, Kind.MEMSET):
        yield "bytes", frame["bytes"].fill_null(ABSENT).to_numpy()


def _as_enum(frame: pl.DataFrame, texts: pl.Expr) -> pl.Series:
    made = frame.select(texts.alias("text"))["text"]
    return made.cast(pl.Enum(made.drop_nulls().unique().sort()))


def _write_device(out: _Writer, device: DeviceView, named: _Named, flows: _Flows) -> None:
    view = device.view
    described = view.trace.device(device.device_id)
    name = f"GPU {device.device_id}" + (f": {described.name}" if described is not None else "")
    parent = out.track(name)
    _write_idle(out, device, parent)
    here = np.flatnonzero(view.operations.device_id == device.device_id)
    for stream, rows in _by_value(view.operations.stream[here]):
        slices = named.slices(view.operations, flows, here[rows])
        out.write_slices(_stream_name(stream), parent, slices, nest=False)
    for metric, sampled in device.sampled.items():
        unit = "Hz" if metric.endswith("_clock") else "%"
        # A sample covers the period before it, a counter holds from its time on.
        out.write_counter(metric, parent, unit, sampled.times[:-1], sampled.values, SAMPLED_METRICS.get(metric, ""))


def _stream_name(stream: int) -> str:
    """Return the name of a stream by the number that `stream_keys` made."""
    return f"stream {stream & _TID_MASK} (process {stream >> 40 & _TID_MASK}, context {stream >> 24 & 0xFFFF})"


def _write_idle(out: _Writer, device: DeviceView, parent: int) -> None:
    name = np.array([out.number(_INTERNED_NAME, str(TEXTS[cause].title)) for cause in Cause], np.int64)
    category = out.number(_INTERNED_CATEGORY, "idle")
    track = out.track("idle", parent)
    attribution = IdleAttribution(device.view.trace, device.operations, device.view.activity)
    for pieces in attribution.pieces(device.gaps):
        order = np.argsort(pieces.starts, kind="stable")
        starts, ends, codes = pieces.starts[order], pieces.ends[order], pieces.codes[order]
        slices = _Slices(starts, ends, name[codes], np.full(len(order), category))
        for edges in rows_of_slices(starts, ends, nest=False):
            out.write_edges(track, slices, edges)


def _write_log(out: _Writer, log: PowerLog, times: Int64, span: tuple[int, int]) -> None:
    """Write a log as far as the trace reaches; most logs begin long before it."""
    inside = (times >= span[0]) & (times <= span[1])
    parent = out.track(f"power log {log.source.file_name}")
    for name, unit, values in _columns_of(log):
        out.write_counter(name, parent, unit, times[inside], values[inside])


def _columns_of(log: PowerLog) -> Iterable[tuple[str, str, Float64]]:
    if not any(rail.role == "total" for rail in log.rails):
        yield "total power", "W", log.total_w
    yield from ((rail.name, "W", rail.watts) for rail in log.rails)
    yield from ((f"{name} load", "%", values * 100) for name, values in log.loads.items())
    yield from ((f"{name} clock", "Hz", values) for name, values in log.clocks_hz.items())
    yield from ((f"{name} temperature", "degC", values) for name, values in log.temperatures_c.items())


def _extent(view: View) -> tuple[int, int]:
    """Return the first and the last moment of what is written, but for logs; (0, 0) where there is nothing."""
    ranges = all_ranges(view)
    spans = [(view.operations.starts, view.operations.ends), (ranges.starts, ranges.ends)]
    for table in _CALL_TABLES:
        frame = view.trace.table_or_empty(table)
        spans.append((frame["start_ns"].to_numpy(), frame["end_ns"].to_numpy()))
    spans += [(sampled.times, sampled.times) for device in view.devices for sampled in device.sampled.values()]
    kept = [(int(starts.min()), int(ends.max())) for starts, ends in spans if len(starts)]
    return min((first for first, _ in kept), default=0), max((last for _, last in kept), default=0)
