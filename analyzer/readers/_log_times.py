"""Times of log lines: stamps of a second are spread, clock jumps found, records that go back in time left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..clock import SECOND_NS
from ..evidence import Clock, ClockKind
from ..intervals import Int64
from ..message import Message, message, one_or_many

_HOUR_NS = 3600 * SECOND_NS
_HOUR_TOLERANCE_NS = 5 * SECOND_NS


@dataclass(frozen=True, slots=True)
class LogTimes:
    """Times (k,) of the records that are kept, `rows` of these among all (k,), the clock, and what was odd."""

    times_ns: Int64
    rows: npt.NDArray[np.intp]
    clock: Clock
    notes: tuple[Message, ...]


def log_times(stamps_ns: Int64, resolution_ns: int, kind: ClockKind) -> LogTimes:
    """Return the times of records with stamps, in the order in which they were written.

    A wall clock that was set by an hour (daylight saving) is told by its step and set back; any other step back in time
    splits the log, and its longest part is kept. Stamps cut to whole seconds are spread evenly over their second.

    Args:
        stamps_ns: one for each record, at least one.
        resolution_ns: what the stamps are cut to.
        kind: `utc` or `local`.
    """
    notes: list[Message] = []
    stamps, jumps = _without_hours(stamps_ns, notes) if kind == "local" else (stamps_ns, ())
    rows = _longest_ascending(stamps, notes)
    stamps = stamps[rows]
    if resolution_ns >= SECOND_NS:
        times, error = _spread(stamps)
    else:
        times, error = stamps, resolution_ns
    # Of records with the same time the first counts.
    new = np.concatenate(([True], times[1:] > times[:-1]))
    same = int((~new).sum())
    if same:
        one = message("1 record with the time of the one before it was left out")
        many = message("{count:,} records with the time of the one before them were left out", count=same)
        notes.append(one_or_many(same, one, many))
    times, rows = times[new], rows[new]
    return LogTimes(times, rows, Clock(kind, int(times[0]), int(times[-1]), error, jumps), tuple(notes))


def counted_times(count: int, interval_ns: int) -> LogTimes:
    """Return the times of records without stamps, at equal distances."""
    times = np.arange(count, dtype=np.int64) * interval_ns
    note = message(
        "no line carries a time; {interval:g} s between lines were assumed, the default of tegrastats",
        interval=interval_ns / SECOND_NS,
    )
    return LogTimes(times, np.arange(count), Clock("counted", 0, int(times[-1]), interval_ns // 2), (note,))


def _without_hours(stamps: Int64, notes: list[Message]) -> tuple[Int64, tuple[int, ...]]:
    steps = np.diff(stamps)
    if not len(steps):
        return stamps, ()
    off = steps - int(np.median(steps))
    hours = np.flatnonzero(np.abs(np.abs(off) - _HOUR_NS) <= _HOUR_TOLERANCE_NS)
    # A pause of an hour looks like the start of summer time; only a step back, or one that the log takes back, is sure.
    hours = np.array([row for row in hours if off[row] < 0 or len(hours) > 1], np.intp)
    if not len(hours):
        return stamps, ()
    correction = np.zeros(len(stamps), np.int64)
    jumps = []
    for row in hours.tolist():
        step = _HOUR_NS if off[row] < 0 else -_HOUR_NS
        correction[row + 1 :] += step
        jumps.append(-int(correction[-1]))
    text = message("the wall clock was set by an hour in its course, which was taken back (daylight saving time)")
    notes.append(text)
    return stamps + correction, tuple(jump for jump in jumps if jump)


def _longest_ascending(stamps: Int64, notes: list[Message]) -> npt.NDArray[np.intp]:
    back = np.flatnonzero(np.diff(stamps) < 0) + 1
    if not len(back):
        return np.arange(len(stamps))
    parts = np.split(np.arange(len(stamps)), back)
    longest = max(parts, key=len)
    left_out = len(stamps) - len(longest)
    notes += _notes_on_steps_back(len(back), left_out)
    return longest


def _notes_on_steps_back(times: int, left_out: int) -> tuple[Message, Message]:
    went = one_or_many(
        times,
        message("the clock went back once in its course"),
        message("the clock went back {times} times in its course", times=times),
    )
    used = one_or_many(
        left_out,
        message("the longest part was used, 1 record left out"),
        message("the longest part was used, {count:,} records left out", count=left_out),
    )
    return went, used


def _spread(stamps: Int64) -> tuple[Int64, int]:
    """Spread records over the second that their stamps name: (times, by how much they may be off).

    The first and the last second may be cut, so their records keep the distance that the others have.
    """
    seconds, first, counts = np.unique(stamps, return_index=True, return_counts=True)
    inner = counts[1:-1] if len(counts) > 2 else counts
    # Seconds without a record count too: every third one has a line where the interval is three seconds.
    span = max(int(seconds[-1] - seconds[0]) // SECOND_NS - 1, 1)
    typical = max(float(np.median(inner)), 1.0) if inner.sum() >= span else inner.sum() / span
    if typical < 2:
        times = stamps + SECOND_NS // 2
        # Two records in one second, one in the next: the interval is about a second, and order is all there is.
        order = np.arange(len(stamps)) - np.repeat(first, counts)
        return times + order * (SECOND_NS // 4), SECOND_NS // 2
    number = np.arange(len(stamps)) - np.repeat(first, counts)
    each = np.repeat(counts, counts).astype(np.float64)
    each[: counts[0]] = max(typical, counts[0])
    each[len(stamps) - counts[-1] :] = max(typical, counts[-1])
    place = (number + 0.5) / each
    if len(counts) > 1:
        place[: counts[0]] += 1 - counts[0] / each[0]
    return stamps + (place * SECOND_NS).astype(np.int64), int(SECOND_NS / typical)
