"""Idle time of a device, every nanosecond with exactly one cause.

A gap is a stretch of the window in which no operation of the device runs; operations are ordered by
(start, end, correlation id), and a gap ends with the operation after it, whose launch call is `r` on thread `T`.

- Before `r` begins: split by what `T` was doing at each moment (see `threads`).
- While `r` runs: `launch_call`, or `copy_call` when `r` is a memcpy or memset call.
- After `r`: `launch_latency` if `r` ended inside the gap (the queue was empty). If the operation had been queued
  before the gap began: `other_context` while another process's context held the GPU, then `dependency` (a stream-wait
  on its stream, issued between the previous launch on that stream and `r`), else `device_gap`.
- No operation follows: `after_last`. The operation has no call in the trace: `unattributed`.

The causes add up to the idle time to the nanosecond; this is checked each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .causes import Cause, class_of_call
from .contexts import Holders, holders_of
from .distinct import distinct
from .intervals import Int64, Intervals, intersect, running_end, subtract
from .operations import NO_ROW, Operations, stream_keys
from .tables import enum_texts
from .threads import Codes, ThreadActivity, chunks
from .trace import Trace

STREAM_WAIT_EVENT = 2
_GAPS_PER_CHUNK = 100_000


@dataclass(frozen=True, slots=True)
class Gaps:
    """Idle stretches of a device inside the window, ascending.

    `begins` is where a gap began before the window cut it; `ended_by` the operation after it, or -1.
    """

    starts: Int64
    ends: Int64
    begins: Int64
    ended_by: npt.NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def total(self) -> int:
        """Idle time, ns."""
        return int((self.ends - self.starts).sum())


@dataclass(frozen=True, slots=True)
class IdlePieces:
    """Parts of gaps with one cause each. `thread` is the launching thread, 0 where there is none."""

    gap: npt.NDArray[np.intp]
    starts: Int64
    ends: Int64
    codes: Codes
    thread: Int64

    def __len__(self) -> int:
        return len(self.starts)


def gaps_of(operations: Operations, low: int, high: int) -> Gaps:
    """Return the idle stretches of one device (operations in their order) inside [low, high)."""
    if not len(operations):
        empty = np.empty(0, np.int64)
        if high <= low:
            return Gaps(empty, empty, empty, np.empty(0, np.intp))
        return Gaps(np.array([low]), np.array([high]), np.array([low]), np.array([NO_ROW]))
    busy_until = running_end(operations.ends)
    before = np.concatenate(([np.iinfo(np.int64).min], busy_until[:-1]))
    ender = np.flatnonzero(operations.starts > before)
    begins = np.concatenate((before[ender], busy_until[-1:]))
    stops = np.concatenate((operations.starts[ender], [np.iinfo(np.int64).max]))
    ended_by = np.concatenate((ender, [NO_ROW]))
    starts, ends = np.clip(begins, low, high), np.clip(stops, low, high)
    keep = ends > starts
    return Gaps(starts[keep], ends[keep], begins[keep], ended_by[keep])


class IdleAttribution:
    """Gives every gap of a trace its causes."""

    def __init__(
        self, trace: Trace, operations: Operations, activity: ThreadActivity, without: frozenset[Cause] = frozenset()
    ) -> None:
        """Prepare the attribution.

        Args:
            trace: the capture.
            operations: the operations of one device, in their order.
            activity: what the threads were doing.
            without: `DEPENDENCY` and `OTHER_CONTEXT` to leave them out; their time is then `DEVICE_GAP`.
        """
        self._operations = operations
        self._activity = activity
        api_calls = trace.api_calls
        launched = operations.launch
        self._has_launch = launched != NO_ROW
        if api_calls is None or not len(api_calls):
            zeros = np.zeros(len(operations), np.int64)
            self._call_start, self._call_end, self._thread = zeros, zeros, zeros
            self._is_copy_call = np.zeros(len(operations), np.bool_)
        else:
            self._call_start = api_calls["start_ns"].to_numpy()[launched]
            self._call_end = api_calls["end_ns"].to_numpy()[launched]
            self._thread = api_calls["global_tid"].to_numpy()[launched]
            names = api_calls["name"]
            copies = [class_of_call(name) is Cause.COPY_CALL for name in enum_texts(names)]
            category = names.to_physical().fill_null(len(copies)).to_numpy()
            self._is_copy_call = np.array([*copies, False])[category[launched]]
        self._holders: Holders | None = None
        if Cause.OTHER_CONTEXT not in without and len(operations):
            self._holders = holders_of(trace, int(operations.device_id[0]))
        self._waited = np.zeros(len(operations), np.bool_)
        if Cause.DEPENDENCY not in without:
            self._waited = _after_stream_wait(trace, operations, self._call_start)

    def pieces(self, gaps: Gaps) -> Iterator[IdlePieces]:
        """Return the pieces of the gaps, some gaps at a time; together they tile the gaps exactly."""
        return (self.pieces_of(gaps, part) for part in self.parts(gaps))

    def parts(self, gaps: Gaps) -> Iterator[slice]:
        """Return slices of the gaps that are small enough to be split at once."""
        return chunks(len(gaps), _GAPS_PER_CHUNK)

    def prepare(self, gaps: Gaps) -> None:
        """Make what all parts need, so that parts can then be split in several threads."""
        for global_tid in distinct(self._thread[gaps.ended_by[gaps.ended_by != NO_ROW]]):
            self._activity.layers(global_tid)

    def pieces_of(self, gaps: Gaps, part: slice) -> IdlePieces:
        """Return the pieces of some of the gaps."""
        some = Gaps(gaps.starts[part], gaps.ends[part], gaps.begins[part], gaps.ended_by[part])
        pieces = self._of_some(some)
        if int((pieces.ends - pieces.starts).sum()) != some.total:
            raise AssertionError("idle causes do not add up to the idle time")
        pieces.gap[:] += part.start
        return pieces

    def _of_some(self, gaps: Gaps) -> IdlePieces:
        made: list[IdlePieces] = []

        def add(gap: npt.NDArray[np.intp], starts: Int64, ends: Int64, codes: Codes, thread: Int64) -> None:
            keep = ends > starts
            if keep.any():
                made.append(IdlePieces(gap[keep], starts[keep], ends[keep], codes[keep], thread[keep]))

        def one_cause(gap: npt.NDArray[np.intp], cause: Cause) -> None:
            codes = np.full(len(gap), cause, np.uint8)
            add(gap, gaps.starts[gap], gaps.ends[gap], codes, np.zeros(len(gap), np.int64))

        one_cause(np.flatnonzero(gaps.ended_by == NO_ROW), Cause.AFTER_LAST)
        followed = np.flatnonzero(gaps.ended_by != NO_ROW)
        launched = self._has_launch[gaps.ended_by[followed]]
        one_cause(followed[~launched], Cause.UNATTRIBUTED)

        gap = followed[launched]
        operation = gaps.ended_by[gap]
        starts, ends, thread = gaps.starts[gap], gaps.ends[gap], self._thread[operation]
        call_from = np.clip(self._call_start[operation], starts, ends)
        call_to = np.clip(self._call_end[operation], starts, ends)

        for global_tid in distinct(thread):
            mine = np.flatnonzero((thread == global_tid) & (call_from > starts))
            stretch = self._activity.split(global_tid, Intervals(starts[mine], call_from[mine]))
            where = gap[mine[stretch.rows]]
            add(where, stretch.starts, stretch.ends, stretch.codes, np.full(len(where), global_tid, np.int64))

        is_copy = self._is_copy_call[operation]
        codes = np.where(is_copy, np.uint8(Cause.COPY_CALL), np.uint8(Cause.LAUNCH_CALL))
        add(gap, call_from, call_to, codes, thread)
        # The call that ended before the gap began had queued the operation behind running work.
        queue_was_empty = self._call_end[operation] > gaps.begins[gap]
        codes = np.where(queue_was_empty, np.uint8(Cause.LAUNCH_LATENCY), np.uint8(Cause.DEVICE_GAP))
        codes[~queue_was_empty & self._waited[operation]] = Cause.DEPENDENCY
        if self._holders is None or not len(self._holders.spans):
            add(gap, call_to, ends, codes, thread)
            return _joined(made)
        add(*(part[queue_was_empty] for part in (gap, call_to, ends, codes, thread)))
        process = self._operations.process[operation]
        for owner in distinct(process[~queue_was_empty]):
            mine = np.flatnonzero(~queue_was_empty & (process == owner))
            after = Intervals(call_to[mine], ends[mine])
            away = self._holders.away_from(owner)
            held = intersect(after, away)
            rows = mine[held.left]
            add(gap[rows], held.starts, held.ends, np.full(len(rows), Cause.OTHER_CONTEXT, np.uint8), thread[rows])
            rest = subtract(after, away)
            rows = mine[rest.left]
            add(gap[rows], rest.starts, rest.ends, codes[rows], thread[rows])
        return _joined(made)


def _joined(made: list[IdlePieces]) -> IdlePieces:
    if not made:
        empty = np.empty(0, np.int64)
        return IdlePieces(np.empty(0, np.intp), empty, empty, np.empty(0, np.uint8), empty)
    names = ("gap", "starts", "ends", "codes", "thread")
    return IdlePieces(*(np.concatenate([getattr(piece, name) for piece in made]) for name in names))


def _after_stream_wait(trace: Trace, operations: Operations, call_start: Int64) -> npt.NDArray[np.bool_]:
    """Tell for each operation whether its stream was told to wait between the launch before its own and its own."""
    waited = np.zeros(len(operations), np.bool_)
    synchronizations = trace.synchronizations
    if synchronizations is None:
        return waited
    waits = synchronizations.filter(synchronizations["sync_type"] == STREAM_WAIT_EVENT)
    wait_stream, wait_time = stream_keys(waits), waits["start_ns"].to_numpy()
    for stream in distinct(wait_stream):
        mine = np.flatnonzero((operations.stream == stream) & (operations.launch != NO_ROW))
        mine = mine[np.argsort(call_start[mine], kind="stable")]
        launches = call_start[mine]
        times = np.sort(wait_time[wait_stream == stream])
        count = np.searchsorted(times, launches, side="right")
        before = np.concatenate(([0], count[:-1]))
        waited[mine] = count > before
    return waited
