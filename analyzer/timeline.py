"""`timeline_of`: everything that a capture shows over time, lane by lane, for an interactive picture.

The whole capture is covered, not only the analysis window. Every kernel, copy, memset, graph launch and NVTX range is
kept as a span of its own. API calls and pieces of idle time can be many more: the long ones, and the calls around the
typical iteration, are spans; the rest is kept as the share of each bin of time that they cover, so that a picture is
exact where it can be looked at and never says "nothing happened here" where something did.

Times are integer ns since the start of the session, intervals are [start, end).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from .causes import Cause
from .distinct import distinct
from .idle import IdleAttribution, gaps_of
from .intervals import Index, Int64, Intervals, running_end
from .kernel_names import known_names
from .nvtx import Ranges, ranges_of
from .operations import NO_ROW, TABLE_OF_KIND, Kind
from .samples import Float64, Sampled
from .tables import enum_texts
from .threads import outermost
from .view import DeviceView, View

SAMPLED_LANES = ("gr_active", "sm_active", "sm_issue", "tensor_active", "dram_read", "dram_write", "gpc_clock")
MOST_THREADS = 12
MOST_CALLS_OUTSIDE = 50_000
MOST_IDLE_PIECES = 200_000
MOST_BINS = 16_384
MOST_LAUNCH_LINKS = 300_000
MOST_SAMPLES = 1_000_000
MOST_SAMPLES_OF_LANE = 131_072
MOST_SHAPES = 60_000
MOST_ROWS = 64
NO_NAME = "(no name)"
_FULL = 255
_KEY_LIMIT = 1 << 62
_MOST_WORKERS = 4
_SHAPE_COLUMNS = (
    *(f"{what}_{axis}" for what in ("grid", "block") for axis in "xyz"),
    "registers_per_thread",
    "static_shared_memory_bytes",
    "dynamic_shared_memory_bytes",
)


@dataclass(frozen=True, slots=True)
class Spans:
    """What a lane shows one by one, as parallel arrays of shape (n,), ordered by start, the longest first.

    Spans of one `row` (0 is the topmost) do not overlap, but for those beyond the last of `MOST_ROWS` rows, which
    share it. `what` says what a span is: an index into `Timeline.names` for ranges and calls, into `Timeline.shapes`
    for operations, and a `Cause` for pieces of idle time.
    """

    starts: Int64
    ends: Int64
    row: npt.NDArray[np.uint8]
    what: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def rows(self) -> int:
        """How many rows the spans need, at least 1."""
        return int(self.row.max(initial=0)) + 1


@dataclass(frozen=True, slots=True)
class Bins:
    """Equal bins of time over the capture: bin i is [start_ns + i x width_ns, start_ns + (i + 1) x width_ns).

    The last one may reach beyond `end_ns`, where the capture ends. The width is 2 to the power of `shift`.
    """

    start_ns: int
    end_ns: int
    shift: int

    @property
    def width_ns(self) -> int:
        """Width of a bin, ns."""
        return 1 << self.shift

    @property
    def count(self) -> int:
        """How many bins there are, at most `MOST_BINS`."""
        return -(-(self.end_ns - self.start_ns) // self.width_ns)

    @property
    def edges(self) -> Int64:
        """The edges, ns, shape (count + 1,)."""
        return self.start_ns + self.width_ns * np.arange(self.count + 1, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class ThreadLanes:
    """A CPU thread: its NVTX ranges, a row for each depth of nesting, and its outermost CUDA calls.

    `more_calls` is the share of each bin that calls without a span of their own cover, 0 to 255, shape (bins,); it is
    `None` where every call has a span. `call_count` counts all outermost calls.
    """

    global_tid: int
    ranges: Spans
    calls: Spans
    more_calls: npt.NDArray[np.uint8] | None
    call_count: int

    @property
    def pid(self) -> int:
        """The process."""
        return (self.global_tid >> 24) & 0xFFFFFF

    @property
    def tid(self) -> int:
        """The thread."""
        return self.global_tid & 0xFFFFFF


@dataclass(frozen=True, slots=True)
class Launches:
    """The launch call of each operation of a stream, parallel to its spans.

    `before_ns` is how long before its operation the call began, `call_ns` how long it took; `thread` is an index into
    `Timeline.launching_threads`, or -1 where the operation has no call in the trace (the times are then 0).
    """

    before_ns: Int64
    call_ns: Int64
    thread: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class StreamLane:
    """A stream of a device. `stream_id` is CUPTI's number; `launches` is `None` where they were too many to keep."""

    pid: int
    context_id: int
    stream_id: int
    operations: Spans
    launches: Launches | None


@dataclass(frozen=True, slots=True)
class IdleLane:
    """Idle time of a device over the whole capture, each piece with its cause.

    Pieces shorter than `at_least_ns`, outside the typical iteration, are not spans: `more` has for each cause the share
    of each bin that they cover,
    0 to 255, shape (bins,). `piece_count` counts all pieces.
    """

    pieces: Spans
    at_least_ns: int
    more: Mapping[Cause, npt.NDArray[np.uint8]]
    piece_count: int


@dataclass(frozen=True, slots=True)
class SampledLane:
    """A sampled metric as steps: over (`times[i]`, `times[i + 1]`] its mean, lowest and highest sample, shape (n,).

    Percent of the peak, or Hz. `samples_per_step` is 1 where every sample is kept.
    """

    metric: str
    times: Int64
    mean: Float64
    low: Float64
    high: Float64
    samples_per_step: int


@dataclass(frozen=True, slots=True)
class DeviceLanes:
    """A GPU: its streams, its idle time, its sampled metrics."""

    device_id: int
    name: str
    streams: tuple[StreamLane, ...]
    idle: IdleLane
    sampled: tuple[SampledLane, ...]


@dataclass(frozen=True, slots=True)
class Shapes:
    """The different GPU operations of a capture, as parallel arrays of shape (n,).

    `kind` is a `Kind`, `name` an index into `Timeline.names` or -1. `launch`, shape (n, 9), is what a kernel was
    launched with: grid x, y, z, block x, y, z, registers per thread, static and dynamic shared memory per block in
    bytes, -1 where it is not known. `bytes` and `copy_kind` (CUPTI's) describe copies and memsets, -1 elsewhere.
    """

    kind: npt.NDArray[np.uint8]
    name: npt.NDArray[np.int32]
    launch: Int64
    bytes: Int64
    copy_kind: Int64

    def __len__(self) -> int:
        return len(self.kind)


@dataclass(frozen=True, slots=True)
class Timeline:
    """A capture over time.

    `start_ns` and `end_ns` hold everything shown; the session begins at `session_start_ns`, which is 0. `iterations`
    are the first and last moments of the iterations of the window, `typical` that period whose length is nearest the
    median, or `None` where there are no iterations. Outside of `typical`, calls shorter than `calls_at_least_ns` are
    not spans. `has_launches` tells whether operations know their launch call, `has_shapes` whether they know the
    launch parameters and sizes. `threads_left_out` made calls or ranges and are not shown.
    """

    start_ns: int
    end_ns: int
    session_start_ns: int
    window: tuple[int, int]
    window_mode: str
    iterations: Intervals
    iteration_names: tuple[str, ...]
    typical: tuple[int, int] | None
    bins: Bins
    names: tuple[str, ...]
    shapes: Shapes
    threads: tuple[ThreadLanes, ...]
    devices: tuple[DeviceLanes, ...]
    launching_threads: tuple[int, ...]
    calls_at_least_ns: int
    threads_left_out: int
    has_launches: bool
    has_shapes: bool

    @property
    def operation_count(self) -> int:
        """How many GPU operations are shown."""
        return sum(len(lane.operations) for device in self.devices for lane in device.streams)


def timeline_of(view: View) -> Timeline:
    """Return what the capture of a view shows over time, for the chosen devices and processes.

    Everything that the analysis has computed already is used again. A trace without any event gives a timeline from 0
    to 0 without lanes.
    """
    names = _Names()
    ranges = all_ranges(view)
    threads, threads_left_out = _threads(view, ranges)
    calls = {global_tid: _outermost_calls(view, global_tid) for global_tid in threads}
    start, end = _extent(view, ranges, calls)
    bins = Bins(start, end, (max(-(-(end - start) // MOST_BINS), 1) - 1).bit_length())
    typical = view.window.typical
    at_least = _call_threshold(calls, typical)
    thread_lanes = tuple(
        _thread_lanes(each, ranges, calls.pop(each), typical, at_least, bins, names) for each in threads
    )
    shapes, shape_of, has_shapes = _shapes(view, names)
    has_launches = len(view.operations) <= MOST_LAUNCH_LINKS
    launching = tuple(distinct(view.call_threads)) if has_launches else ()
    devices = tuple(
        _device_lanes(device, shape_of, launching if has_launches else None, typical, bins) for device in view.devices
    )
    iterations = view.window.iterations
    return Timeline(
        start_ns=start,
        end_ns=end,
        session_start_ns=0,
        window=(view.window.start_ns, view.window.end_ns),
        window_mode=view.window.mode,
        iterations=Intervals(
            np.array([iteration.start_ns for iteration in iterations], np.int64),
            np.array([iteration.end_ns for iteration in iterations], np.int64),
        ),
        iteration_names=tuple(iteration.name for iteration in iterations),
        typical=typical,
        bins=bins,
        names=names.texts,
        shapes=shapes,
        threads=thread_lanes,
        devices=devices,
        launching_threads=launching,
        calls_at_least_ns=at_least,
        threads_left_out=threads_left_out,
        has_launches=has_launches,
        has_shapes=has_shapes,
    )


class _Names:
    """A list of texts without repetition, filled as they are met."""

    def __init__(self) -> None:
        self._index: dict[str, int] = {}

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(self._index)

    def of(self, text: str) -> int:
        return self._index.setdefault(text, len(self._index))

    def of_codes(self, codes: npt.NDArray[np.integer], texts: list[str] | tuple[str, ...]) -> npt.NDArray[np.int32]:
        """Return the index of the text of each code; a code below 0 has no name."""
        table = np.zeros(len(texts) + 1, np.int32)
        for code in distinct(codes):
            table[code] = self.of(texts[code] if code >= 0 else NO_NAME)
        return np.asarray(table[codes], np.int32)


@dataclass(frozen=True, slots=True)
class _Calls:
    """The outermost calls of a thread: when, and which rows of `name` they are."""

    spans: Intervals
    rows: Index
    name: pl.Series


def _touching(starts: Int64, ends: Int64, span: tuple[int, int] | None) -> npt.NDArray[np.bool_]:
    """Tell which intervals share some moment with a span."""
    if span is None:
        return np.zeros(len(starts), np.bool_)
    return np.asarray((starts < span[1]) & (ends > span[0]))


def all_ranges(view: View) -> Ranges:
    """Return the NVTX ranges, with those that ended on another thread: they stand on the one where they began."""
    events = view.trace.table("nvtx_events")
    if events is None or not (events["end_global_tid"] != events["global_tid"]).any():
        return view.ranges
    moved = events.with_columns(end_global_tid=pl.lit(None, events["end_global_tid"].dtype))
    return ranges_of(replace(view.trace, tables={"nvtx_events": moved}))


def _threads(view: View, ranges: Ranges) -> tuple[list[int], int]:
    """Return the threads with most calls and ranges, the busiest first, and how many were left out."""
    count: dict[int, int] = {}
    api_calls = view.trace.api_calls
    columns = [pl.Series(ranges.thread)] + ([] if api_calls is None else [api_calls["global_tid"]])
    for column in columns:
        for global_tid, number in column.value_counts().iter_rows():
            if view.counts_thread(global_tid):
                count[global_tid] = count.get(global_tid, 0) + number
    busiest = sorted(count, key=lambda global_tid: (-count[global_tid], global_tid))
    return busiest[:MOST_THREADS], len(busiest[MOST_THREADS:])


def _outermost_calls(view: View, global_tid: int) -> _Calls:
    frame = view.trace.table_or_empty("api_calls").select("start_ns", "end_ns", "global_tid", "name")
    if len(frame) and (frame["global_tid"].min() != global_tid or frame["global_tid"].max() != global_tid):
        frame = frame.filter(pl.col("global_tid") == global_tid)
    spans, rows = outermost(frame["start_ns"].to_numpy(), frame["end_ns"].to_numpy())
    return _Calls(spans, rows, frame["name"])


def _extent(view: View, ranges: Ranges, calls: Mapping[int, _Calls]) -> tuple[int, int]:
    lists = [Intervals(view.operations.starts, view.operations.ends), Intervals(ranges.starts, ranges.ends)]
    lists += [each.spans for each in calls.values()]
    lists = [each for each in lists if len(each)]
    if not lists:
        return 0, 0
    return min(int(each.starts.min()) for each in lists), max(int(each.ends.max()) for each in lists)


def _call_threshold(calls: Mapping[int, _Calls], typical: tuple[int, int] | None) -> int:
    """Return the shortest duration, ns, that at most `MOST_CALLS_OUTSIDE` calls outside the typical iteration reach."""
    if sum(len(each.spans) for each in calls.values()) <= MOST_CALLS_OUTSIDE:
        return 0
    lengths = [
        (each.spans.ends - each.spans.starts)[~_touching(each.spans.starts, each.spans.ends, typical)]
        for each in calls.values()
    ]
    return _threshold(np.concatenate(lengths), MOST_CALLS_OUTSIDE)


def _threshold(lengths: Int64, most: int) -> int:
    """Return the least length, ns, that at most `most` of the lengths reach; 0 where there are no more than that."""
    if len(lengths) <= most:
        return 0
    # The longest of those that are one too many must stay below.
    place = len(lengths) - most - 1
    return int(np.partition(lengths, place)[place]) + 1


def _thread_lanes(
    global_tid: int,
    ranges: Ranges,
    calls: _Calls,
    typical: tuple[int, int] | None,
    at_least: int,
    bins: Bins,
    names: _Names,
) -> ThreadLanes:
    first, stop = np.searchsorted(ranges.thread, [global_tid, global_tid + 1])
    mine = slice(int(first), int(stop))
    starts, ends = ranges.starts[mine], ranges.ends[mine]
    row = _rows(starts, ends) if global_tid in ranges.tangled_threads else ranges.depth[mine]
    what = names.of_codes(ranges.name[mine], ranges.names)
    nvtx = Spans(starts, ends, np.minimum(row, MOST_ROWS - 1).astype(np.uint8), what)

    spans, rows = calls.spans, calls.rows
    more = None
    if at_least:
        keep = np.flatnonzero(_touching(spans.starts, spans.ends, typical) | (spans.ends - spans.starts >= at_least))
        covered = _covered(spans.starts, spans.ends, None, 1, bins)
        spans, rows = Intervals(spans.starts[keep], spans.ends[keep]), rows[keep]
        more = _in_bytes((covered - _covered(spans.starts, spans.ends, None, 1, bins))[0], bins)
    codes = calls.name.to_physical().gather(rows).cast(pl.Int64).fill_null(NO_ROW).to_numpy()
    called = names.of_codes(codes, enum_texts(calls.name))
    kept = Spans(spans.starts, spans.ends, np.zeros(len(spans), np.uint8), called)
    return ThreadLanes(global_tid, nvtx, kept, more, len(calls.spans))


def _shapes(view: View, names: _Names) -> tuple[Shapes, npt.NDArray[np.int32], bool]:
    """Return the different operations, which of them each operation is, and whether sizes tell them apart."""
    operations = view.operations
    has_shapes = True
    shape_of = np.zeros(len(operations), np.int32)
    parts: list[Shapes] = []
    for kind, table in TABLE_OF_KIND.items():
        mine = np.flatnonzero(operations.kind == kind)
        if not len(mine):
            continue
        frame = view.trace.table_or_empty(table)
        name, texts = _operation_names(kind, frame)
        given = {column: _integers(frame, column) for column in (*_SHAPE_COLUMNS, "bytes", "copy_kind")}
        ids, first = _distinct_rows([name, *(values for values in given.values() if values is not None)], len(frame))
        if len(first) > MOST_SHAPES:
            has_shapes, given = False, dict.fromkeys(given)
            ids, first = _distinct_rows([name], len(frame))
        shape_of[mine] = ids[operations.row[mine]] + sum(len(part) for part in parts)
        unknown = np.full(len(first), -1, np.int64)
        size, copy_kind = given["bytes"], given["copy_kind"]
        parts.append(
            Shapes(
                np.full(len(first), kind, np.uint8),
                names.of_codes(name[first], texts) if texts else np.full(len(first), -1, np.int32),
                np.stack(
                    [unknown if values is None else values[first] for values in map(given.get, _SHAPE_COLUMNS)], axis=1
                ),
                unknown if size is None else size[first].astype(np.int64),
                unknown if copy_kind is None else copy_kind[first].astype(np.int64),
            )
        )
    columns = ("kind", "name", "launch", "bytes", "copy_kind")
    if not parts:
        none = np.empty(0, np.int64)
        shapes = Shapes(
            none.astype(np.uint8), none.astype(np.int32), np.empty((0, len(_SHAPE_COLUMNS)), np.int64), none, none
        )
    else:
        shapes = Shapes(*(np.concatenate([getattr(part, column) for part in parts]) for column in columns))
    return shapes, shape_of, has_shapes


def _operation_names(kind: Kind, frame: pl.DataFrame) -> tuple[Int64, list[str]]:
    """Return a code for the name of each row, and the texts of the codes; without a full name the short one counts."""
    if kind != Kind.KERNEL:
        return np.zeros(len(frame), np.int64), []
    known = known_names(frame)
    return known.to_physical().cast(pl.Int64).fill_null(NO_ROW).to_numpy(), enum_texts(known)


def _integers(frame: pl.DataFrame, column: str) -> npt.NDArray[np.integer] | None:
    if column not in frame.columns:
        return None
    values = frame[column]
    return (values.cast(pl.Int64).fill_null(-1) if values.null_count() else values).to_numpy()


def _distinct_rows(columns: list[npt.NDArray[np.integer]], count: int) -> tuple[npt.NDArray[np.int32], Index]:
    """Number the different rows of some columns of `count` rows: the number of each row, and a row of each number."""
    key, size = np.zeros(count, np.int64), 1
    for column in columns:
        low, high = int(column.min()), int(column.max())
        if low == high:
            continue
        values, span = column.astype(np.int64) - low, high - low + 1
        if size * span >= _KEY_LIMIT:
            key, size = _dense(key, size)
        if size * span >= _KEY_LIMIT:
            values, span = _dense(values, span)
        key = key * span + values
        size *= span
    ids, size = _dense(key, size)
    first = np.zeros(size, np.intp)
    first[ids[::-1]] = np.arange(count - 1, -1, -1)
    return ids.astype(np.int32), first


def _dense(key: Int64, size: int) -> tuple[Int64, int]:
    """Replace keys below `size` by their ranks: returns them and how many different ones there are."""
    if size <= 4 * len(key) + 1024:
        used = np.zeros(size, np.int64)
        used[key] = 1
        rank = np.cumsum(used) - 1
        return rank[key], int(used.sum())
    unique = np.array(distinct(key), np.int64)
    return np.searchsorted(unique, key), len(unique)


def _device_lanes(
    device: DeviceView,
    shape_of: npt.NDArray[np.int32],
    launching: tuple[int, ...] | None,
    typical: tuple[int, int] | None,
    bins: Bins,
) -> DeviceLanes:
    described = device.view.trace.device(device.device_id)
    return DeviceLanes(
        device.device_id,
        "" if described is None else described.name,
        _stream_lanes(device, shape_of, launching),
        _idle_lane(device, typical, bins),
        _sampled_lanes(device),
    )


def _stream_lanes(
    device: DeviceView, shape_of: npt.NDArray[np.int32], launching: tuple[int, ...] | None
) -> tuple[StreamLane, ...]:
    view, operations = device.view, device.operations
    here: slice | npt.NDArray[np.bool_] = slice(None)
    if len(operations) != len(view.operations):
        here = view.operations.device_id == device.device_id
    shape_of = shape_of[here]
    streams = distinct(operations.stream)
    order, counts = _grouped(operations.stream, streams)
    lanes = []
    for stream, rows in zip(streams, np.split(order, np.cumsum(counts)[:-1]), strict=True):
        starts, ends = operations.starts[rows], operations.ends[rows]
        launches = None
        if launching is not None:
            known = operations.launch[rows] != NO_ROW
            call_start, call_end = view.calls.starts[here][rows], view.calls.ends[here][rows]
            launches = Launches(
                np.where(known, starts - call_start, 0),
                np.where(known, call_end - call_start, 0),
                np.where(known, np.searchsorted(launching, device.launching_threads[rows]), -1).astype(np.int32),
            )
        spans = Spans(starts, ends, _rows(starts, ends), shape_of[rows])
        lanes.append(StreamLane(stream >> 40, (stream >> 24) & 0xFFFF, stream & 0xFFFFFF, spans, launches))
    return tuple(lanes)


def _grouped(keys: Int64, unique: list[int]) -> tuple[Index, Index]:
    """Return the rows ordered by key, in their order within a key, and the number of rows of each key."""
    if len(unique) == 1:
        return np.arange(len(keys)), np.array([len(keys)])
    codes = np.searchsorted(unique, keys)
    if len(unique) <= np.iinfo(np.uint16).max:
        codes = codes.astype(np.uint16)  # numpy sorts these by radix
    return np.argsort(codes, kind="stable"), np.bincount(codes, minlength=len(unique))


def _rows(starts: Int64, ends: Int64) -> npt.NDArray[np.uint8]:
    """Return the first row that is free for each interval (ordered by start); no row is higher than `MOST_ROWS` - 1."""
    row = np.zeros(len(starts), np.uint8)
    if len(starts) < 2:
        return row
    ends = np.maximum(ends, starts + 1)
    free = np.concatenate(([True], starts[1:] >= running_end(ends)[:-1]))
    # Only intervals of a cluster, in which each overlaps one before it, need a second look.
    left = np.flatnonzero(~free | np.append(~free[1:], False))
    for number in range(MOST_ROWS):
        if not len(left):
            break
        row[left] = number
        left = left[~_chain(starts[left], ends[left])]
    return row


def _chain(starts: Int64, ends: Int64) -> npt.NDArray[np.bool_]:
    """Tell which intervals are taken by who takes the first one and then always the next that begins after its end."""
    count = len(starts)
    following = np.append(np.maximum(np.searchsorted(starts, ends, side="left"), np.arange(1, count + 1)), count)
    taken = np.zeros(count + 1, np.bool_)
    taken[0] = True
    reached, steps = np.array([0]), 1
    while steps <= count:
        # All that is reached in fewer than `steps` steps is known; jumping `steps` at once doubles that.
        reached = np.concatenate((reached, following[reached]))
        reached = reached[reached < count]
        taken[reached] = True
        if following[0] == count:
            break
        following = following[following]
        steps *= 2
    return taken[:count]


def _idle_lane(device: DeviceView, typical: tuple[int, int] | None, bins: Bins) -> IdleLane:
    view = device.view
    gaps = gaps_of(device.operations, bins.start_ns, bins.end_ns)
    attribution = IdleAttribution(view.trace, device.operations, view.activity)
    attribution.prepare(gaps)

    def of_part(part: slice) -> _Pieces:
        pieces = attribution.pieces_of(gaps, part)
        return pieces.starts, pieces.ends, pieces.codes

    chosen = _LongPieces(MOST_IDLE_PIECES // max(len(view.devices), 1), typical, bins)
    parts = list(attribution.parts(gaps))
    if len(parts) == 1:
        chosen.add(of_part(parts[0]))
        return chosen.lane()
    workers = min(os.cpu_count() or 1, _MOST_WORKERS)
    with ThreadPoolExecutor(workers) as pool:
        # Few parts are under way at a time: of what is made, only the long pieces stay in memory.
        waiting = [pool.submit(of_part, part) for part in parts[:workers]]
        for part in [*parts[workers:], *([None] * len(waiting))]:
            made = waiting.pop(0).result()
            if part is not None:
                waiting.append(pool.submit(of_part, part))
            chosen.add(made)
    return chosen.lane()


_Pieces = tuple[Int64, Int64, npt.NDArray[np.uint8]]


class _LongPieces:
    """Keeps the pieces of the typical iteration and the `most` longest others, and only the coverage of the rest."""

    def __init__(self, most: int, typical: tuple[int, int] | None, bins: Bins) -> None:
        self._most = most
        self._typical = typical
        self._bins = bins
        self._at_least = 0
        self._count = 0
        self._covered = np.zeros((len(Cause), bins.count), np.int64)
        self._kept: list[_Pieces] = []

    def add(self, pieces: _Pieces) -> None:
        """Take some pieces more, in any order."""
        self._count += len(pieces[0])
        self._kept.append(self._long_ones(pieces))
        if sum(len(starts) for starts, _, _ in self._kept) > 2 * self._most:
            self._shorten()

    def lane(self) -> IdleLane:
        """Return what was taken."""
        self._shorten()
        starts, ends, codes = self._kept[0]
        order = np.argsort(starts, kind="stable")
        row = np.zeros(len(starts), np.uint8)
        spans = Spans(starts[order], ends[order], row, codes[order].astype(np.int32))
        more = {cause: _in_bytes(self._covered[cause], self._bins) for cause in Cause if self._covered[cause].any()}
        return IdleLane(spans, self._at_least, more, self._count)

    def _shorten(self) -> None:
        starts, ends, codes = (np.concatenate(column) for column in zip(*self._kept, _NO_PIECES, strict=True))
        # Whatever is longer than the limit so far is still here, so that this is the limit of all pieces.
        others = ~_touching(starts, ends, self._typical)
        self._at_least = max(self._at_least, _threshold((ends - starts)[others], self._most))
        self._kept = [self._long_ones((starts, ends, codes))]

    def _long_ones(self, pieces: _Pieces) -> _Pieces:
        starts, ends, codes = pieces
        if not self._at_least:
            return pieces
        long = np.flatnonzero((ends - starts >= self._at_least) | _touching(starts, ends, self._typical))
        kept = starts[long], ends[long], codes[long]
        # All but the few that are kept: cheaper than to copy the many that are not.
        self._covered += _covered(starts, ends, codes, len(Cause), self._bins)
        self._covered -= _covered(*kept, len(Cause), self._bins)
        return kept


_NO_PIECES = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint8))


def _in_bytes(covered: Int64, bins: Bins) -> npt.NDArray[np.uint8]:
    """Return ns per bin as a share of the bin in 255ths; what is not 0 stays at least 1."""
    share = (2 * _FULL * covered + bins.width_ns) // (2 * bins.width_ns)
    return np.clip(np.maximum(share, covered > 0), 0, _FULL).astype(np.uint8)


def _covered(starts: Int64, ends: Int64, group: npt.NDArray[np.uint8] | None, groups: int, bins: Bins) -> Int64:
    """Return how many ns of each bin intervals of each group cover, shape (groups, bins); the order does not matter."""
    size = bins.count + 1
    first, stop = (starts - bins.start_ns) >> bins.shift, (ends - bins.start_ns) >> bins.shift
    # Nearly all of many intervals lie within a bin; those that reach into another one take the long way.
    across = np.flatnonzero(first != stop)
    lengths = ends - starts
    lengths[across] = 0
    if group is not None:
        first += size * group.astype(np.int64)
    # Float sums of integers are exact below 2**53 ns.
    total = np.bincount(first, weights=lengths, minlength=groups * size).astype(np.int64).reshape(groups, size)
    opened = np.zeros((groups, size), np.int64)
    for moments, sign in ((starts[across], 1), (ends[across], -1)):
        within = moments - bins.start_ns
        key = within >> bins.shift
        if group is not None:
            key += size * group[across].astype(np.int64)
        rest = np.bincount(key, weights=bins.width_ns - (within & (bins.width_ns - 1)), minlength=groups * size)
        total += sign * rest.astype(np.int64).reshape(groups, size)
        opened += sign * np.bincount(key, minlength=groups * size).reshape(groups, size)
    total[:, 1:] += bins.width_ns * np.cumsum(opened, axis=1)[:, :-1]
    return total[:, :-1]


def _sampled_lanes(device: DeviceView) -> tuple[SampledLane, ...]:
    found = {metric: sampled for metric in SAMPLED_LANES if (sampled := device.sampled.get(metric)) is not None}
    devices = max(len(device.view.devices), 1)
    most = min(max(MOST_SAMPLES // (devices * max(len(found), 1)), 1024), MOST_SAMPLES_OF_LANE)
    return tuple(_steps(metric, sampled, most) for metric, sampled in found.items() if len(sampled.values))


def _steps(metric: str, sampled: Sampled, most: int) -> SampledLane:
    """Return a metric in at most `most` steps, of the same number of samples each but for the last."""
    count = len(sampled.values)
    together = -(-count // most)
    if together <= 1:
        return SampledLane(metric, sampled.times, sampled.values, sampled.values, sampled.values, 1)
    first = np.arange(0, count, together)
    times = np.append(sampled.times[first], sampled.times[-1])
    lengths = sampled.times[1:] - sampled.times[:-1]
    weights = np.add.reduceat(sampled.values * lengths, first)
    mean = weights / np.maximum(times[1:] - times[:-1], 1)
    low, high = np.minimum.reduceat(sampled.values, first), np.maximum.reduceat(sampled.values, first)
    return SampledLane(metric, times, mean, low, high, together)
