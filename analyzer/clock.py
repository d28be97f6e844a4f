"""One clock: where evidence of another tool lies on the clock of the trace.

The trace says when its session began in UTC, and by how much the machine's wall clock was ahead of UTC. Evidence says
its times in UTC, in the wall-clock time of a zone that it does not name, or not at all. What both clocks say decides; a
start and an end of load that both sides show may correct it by at most one second (`refined`), as much as a stamp that
is cut to whole seconds, or a tool that writes late, can be wrong. Periodic load would fit at every period, so nothing
between the two edges is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nitro.errors import InputError

from .evidence import Clock, Placement
from .intervals import Int64, Intervals, covered_before, union
from .message import message

if TYPE_CHECKING:
    from .view import View

Float64 = npt.NDArray[np.float64]
SECOND_NS = 1_000_000_000
MOST_REFINED_NS = SECOND_NS
_QUARTER_NS = 900 * SECOND_NS
_ZONES = range(-12 * 4, 14 * 4 + 1)
# On each side of an edge: how long the load must be steady, and how busy the GPU then is.
_STEADY_NS = 2 * SECOND_NS
_IDLE_BUSY, _LOADED_BUSY = 0.1, 0.5
_FEWEST_LEVEL_SAMPLES = 3
_LEAST_CONTRAST = 0.2
_NOISE_FACTOR = 5.0
_GRID_NS = 10_000_000


def span_of(view: View) -> tuple[int, int]:
    """Return from when to when the trace recorded, ns since session start."""
    last = int(view.operations.ends.max()) if len(view.operations) else 0
    return 0, max(last, view.trace.capture.duration_ns or 0)


def place(clock: Clock, view: View, name: str, given_ns: int | None = None) -> Placement:
    """Place a clock on that of the trace by what both say of UTC, or as the user says.

    Args:
        clock: that of the evidence.
        view: the trace.
        name: the evidence's file, for messages.
        given_ns: added to the times that the clocks give; the place of the first record, ns since session start, where
            one side says nothing of UTC.

    Raises:
        InputError: evidence and trace do not overlap, or one side says no time and `given_ns` is `None`.
    """
    low, high = span_of(view)
    start_utc = view.trace.capture.start_utc_ns
    if clock.kind == "counted" or start_utc is None:
        if given_ns is None:
            raise _no_time(clock, name)
        offset, shift = given_ns - clock.first_ns, 0
        reason = message("with its first record where --clock-offset says")
        placement = _placement(clock, offset, shift, reason, is_given=True)
    else:
        placement = _by_wall_clock(clock, view, start_utc, given_ns or 0, low, high)
        if given_ns is not None:
            reason = message("{reason}, moved as --clock-offset says", reason=placement.reason)
            placement = replace(placement, method="given", shift_ns=given_ns, reason=reason)
    if placement.end_ns < low or placement.start_ns > high:
        raise _apart(placement, name, low, high, start_utc)
    return placement


def _by_wall_clock(clock: Clock, view: View, start_utc: int, given_ns: int, low: int, high: int) -> Placement:
    """Return the first zone in which the evidence overlaps the trace, that of the machine where none does."""
    tried: list[Placement] = []
    for ahead_ns, reason in _zones(clock, view.trace.capture.utc_offset_s):
        for jump in (0, *clock.jumps_ns):
            offset = jump - ahead_ns - start_utc + given_ns
            placement = _placement(clock, offset, 0, reason, is_given=False)
            if placement.end_ns >= low and placement.start_ns <= high:
                return placement
            tried.append(placement)
    return tried[0]


def _zones(clock: Clock, utc_offset_s: int | None) -> Iterator[tuple[int, str]]:
    if clock.kind == "utc":
        yield 0, message("by the UTC times of both")
        return
    if utc_offset_s is not None:
        yield utc_offset_s * SECOND_NS, message("by its wall-clock times, in the time zone of the traced machine")
    yield 0, message("by its wall-clock times, taken as UTC")
    if utc_offset_s is None:
        # The trace does not name its zone. A log of some minutes fits one quarter of an hour only.
        for quarters in sorted(_ZONES, key=lambda quarter: (quarter % 4, abs(quarter))):
            hours = f"{quarters / 4:+g}"
            yield quarters * _QUARTER_NS, message("by its wall-clock times, taken as UTC{hours} h", hours=hours)


def _placement(clock: Clock, offset: int, shift: int, reason: str, *, is_given: bool) -> Placement:
    return Placement(
        offset_ns=offset,
        method="given" if is_given else "stamps",
        error_ns=clock.error_ns,
        start_ns=clock.first_ns + offset,
        end_ns=clock.last_ns + offset,
        shift_ns=shift,
        reason=reason,
    )


def _no_time(clock: Clock, name: str) -> InputError:
    fact = "no record carries a time" if clock.kind == "counted" else "the trace does not say when it began in UTC"
    return InputError(
        f"{name}: {fact}, so it cannot be placed on the trace's clock; give the time of its first record since session "
        "start with --clock-offset, and next time stamp every line while it is written (docs/inputs.md)."
    )


def _apart(placement: Placement, name: str, low: int, high: int, start_utc: int | None) -> InputError:
    log = _span_text(placement.start_ns, placement.end_ns, start_utc)
    trace = _span_text(low, high, start_utc)
    distance = max(placement.start_ns - high, low - placement.end_ns)
    return InputError(
        f"{name}: it was not recorded during the trace: it runs from {log}, the trace from {trace}, which is "
        f"{_length_text(distance)} apart; give the log of this run, or shift it by --clock-offset if a clock was off."
    )


def _span_text(low: int, high: int, start_utc: int | None) -> str:
    if start_utc is None:
        return f"{low / SECOND_NS:.3f} s to {high / SECOND_NS:.3f} s"
    first, last = (_utc(start_utc + edge) for edge in (low, high))
    return f"{first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S} UTC"


def _utc(time_ns: int) -> datetime:
    # Stamps of damaged logs may lie beyond the years that datetime knows.
    second = min(max(time_ns // SECOND_NS, -62_135_596_800), 253_402_300_799)
    return datetime.fromtimestamp(second, timezone.utc)


def _length_text(ns: int) -> str:
    seconds = ns / SECOND_NS
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True, slots=True)
class Load:
    """How loaded the GPU was, as the evidence saw it: any unit that grows with load, at times of the evidence."""

    times_ns: Int64
    values: Float64


def refined(placement: Placement, load: Load, view: View) -> Placement:
    """Move a placement so that the edges of load coincide, by at most 1 s, or return it as it is.

    The start edge of the trace is where the GPU turns from at most 10 % to at least 50 % busy, each over 2 s; the end
    edge is the reverse, and the last one counts. The edge of the log is where its load crosses the middle between its
    levels before and after. Both edges must be clear (levels apart by at least 20 % and five times their noise, one
    crossing) and agree within two sampling periods; the shift is their mean, and its error half of their
    difference plus half a sampling period, and the step in which the trace was searched.
    """
    edges = _trace_edges(union(view.operations.starts, view.operations.ends))
    if edges is None or len(load.times_ns) < 2 * _FEWEST_LEVEL_SAMPLES:
        return placement
    times = load.times_ns + placement.offset_ns
    period = int(np.median(np.diff(times)))
    *moments, step = edges
    shifts = [_shift_at(edge, times, load.values, period) for edge in moments]
    if None in shifts:
        return placement
    first, last = (int(shift) for shift in shifts if shift is not None)
    shift = (first + last) // 2
    if abs(first - last) > 2 * period or abs(shift) > MOST_REFINED_NS:
        return placement
    return replace(
        placement,
        offset_ns=placement.offset_ns + shift,
        method="edges",
        error_ns=abs(first - last) // 2 + period // 2 + step,
        start_ns=placement.start_ns + shift,
        end_ns=placement.end_ns + shift,
        shift_ns=shift,
        reason=message("{reason}, then moved until start and end of load coincide", reason=placement.reason),
    )


def _trace_edges(busy: Intervals) -> tuple[int, int, int] | None:
    """Return when load begins and ends in the trace, and how exact that is; `None` where either is unclear."""
    if not len(busy):
        return None
    first, last = int(busy.starts[0]) - _GRID_NS, int(busy.ends[-1]) + _GRID_NS
    # Edges are edges of busy intervals, thinned out so that a trace of millions of kernels costs no more.
    step = max(_GRID_NS, (last - first) // 100_000)
    grid = np.arange(first, last + step, step)
    before = covered_before(busy, grid) - covered_before(busy, grid - _STEADY_NS)
    after = covered_before(busy, grid + _STEADY_NS) - covered_before(busy, grid)
    idle, loaded = _IDLE_BUSY * _STEADY_NS, _LOADED_BUSY * _STEADY_NS
    starts = np.flatnonzero((before <= idle) & (after >= loaded))
    ends = np.flatnonzero((before >= loaded) & (after <= idle))
    if not len(starts) or not len(ends):
        return None
    # Of the places that qualify the sharpest is the edge: most work on one side, least on the other.
    contrast = after - before
    start = starts[np.argmax(contrast[starts])]
    end = ends[np.argmin(contrast[ends])]
    return (int(grid[start]), int(grid[end]), step) if grid[start] < grid[end] else None


def _shift_at(edge: int, times: Int64, values: Float64, period: int) -> int | None:
    """Return by how much the log must move for its crossing to meet an edge of the trace, `None` if unclear."""
    guard = MOST_REFINED_NS + period
    before = values[(times >= edge - guard - _STEADY_NS) & (times < edge - guard)]
    after = values[(times > edge + guard) & (times <= edge + guard + _STEADY_NS)]
    before, after = before[~np.isnan(before)], after[~np.isnan(after)]
    if min(len(before), len(after)) < _FEWEST_LEVEL_SAMPLES:
        return None
    low, high = float(np.median(before)), float(np.median(after))
    noise = max(float(np.median(np.abs(side - level))) for side, level in ((before, low), (after, high)))
    if abs(high - low) < max(_LEAST_CONTRAST * max(abs(low), abs(high)), _NOISE_FACTOR * noise):
        return None
    near = np.flatnonzero((times >= edge - guard) & (times <= edge + guard) & ~np.isnan(values))
    above = values[near] > (low + high) / 2
    crossings = np.flatnonzero(above[1:] != above[:-1])
    if len(crossings) != 1:
        return None
    left, right = near[crossings[0]], near[crossings[0] + 1]
    return edge - int((times[left] + times[right]) // 2)
