"""One clock: placing a log on a trace by what both say of UTC, and by the edges of load."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import kernel, trace
from nitro.analyzer import Trace
from nitro.analyzer.clock import MOST_REFINED_NS, Load, place, refined
from nitro.analyzer.evidence import Clock, ClockKind, Placement
from nitro.analyzer.trace import Capture
from nitro.analyzer.view import View
from nitro.errors import InputError

S = 1_000_000_000
HOUR = 3600 * S
START = 1_776_574_349 * S  # 2026-04-19 04:52:29 UTC


def view(zone_s: int | None = None, *, start_utc: int | None = START, load: tuple[int, int] = (5 * S, 15 * S)) -> View:
    """Return a trace of 20 s whose GPU is busy from the fifth to the fifteenth second."""
    return View(built(zone_s, start_utc, load))


def built(zone_s: int | None, start_utc: int | None, load: tuple[int, int]) -> Trace:
    low, high = load
    busy = [kernel(at, at + S // 10 - 1000) for at in range(low, high, S // 10)]
    capture = Capture(duration_ns=20 * S, start_utc_ns=start_utc, utc_offset_s=zone_s)
    return trace(kernels=busy, capture=capture)


def clock(kind: ClockKind, first: int, last: int, **more: object) -> Clock:
    return Clock(kind, first, last, **more)  # type: ignore[arg-type]


def test_utc_times_are_used_as_they_are() -> None:
    placement = place(clock("utc", START + S, START + 3 * S, error_ns=7), view(), "a.log")
    assert (placement.start_ns, placement.end_ns, placement.error_ns) == (S, 3 * S, 7)
    assert (placement.method, placement.shift_ns) == ("stamps", 0)


@pytest.mark.parametrize("hours", [-8, 0, 5.5, 9, 12.75])
def test_wall_clock_times_are_those_of_the_traced_machine(hours: float) -> None:
    ahead = int(hours * 3600)
    placement = place(clock("local", START + ahead * S, START + ahead * S + S), view(ahead), "a.log")
    assert (placement.start_ns, placement.end_ns) == (0, S)


def test_a_log_from_a_container_in_utc_is_understood() -> None:
    placement = place(clock("local", START, START + S), view(9 * 3600), "a.log")
    assert placement.start_ns == 0
    assert "taken as UTC" in placement.reason


@pytest.mark.parametrize("quarters", [-48, -14, 0, 1, 22, 36, 56])
def test_a_trace_that_names_no_zone_lets_a_short_log_tell_it(quarters: int) -> None:
    ahead = quarters * 900 * S
    placement = place(clock("local", START + ahead, START + ahead + 10 * S), view(None), "a.log")
    assert placement.start_ns == 0


def test_a_log_whose_clock_was_set_by_an_hour_fits_before_or_after() -> None:
    jumped = clock("local", START + HOUR, START + HOUR + S, jumps_ns=(-HOUR,))
    assert place(jumped, view(0), "a.log").start_ns == 0


def test_a_log_that_does_not_overlap_is_refused_with_both_spans() -> None:
    late = START + 2320 * S
    with pytest.raises(InputError) as refused:
        place(clock("utc", late, late + 72 * S), view(), "tegra.log")
    text = str(refused.value)
    assert "2026-04-19 05:31:09 to 2026-04-19 05:32:21 UTC" in text
    assert "2026-04-19 04:52:29 to 2026-04-19 04:52:49 UTC" in text
    assert "38.3 min apart" in text
    assert text.count("\n") == 0


def test_a_log_of_38_minutes_later_fits_no_zone_either() -> None:
    late = START + 2320 * S
    with pytest.raises(InputError, match="not recorded during the trace"):
        place(clock("local", late, late + 72 * S), view(None), "tegra.log")


def test_what_the_user_gives_is_added_and_never_refined() -> None:
    placement = place(clock("utc", START + 2320 * S, START + 2330 * S), view(), "a.log", -2320 * S)
    assert (placement.start_ns, placement.method, placement.shift_ns) == (0, "given", -2320 * S)


def test_records_without_times_need_a_place() -> None:
    with pytest.raises(InputError, match="--clock-offset"):
        place(clock("counted", 0, 10 * S), view(), "a.log")
    assert place(clock("counted", 0, 10 * S), view(), "a.log", 3 * S).start_ns == 3 * S


def test_a_trace_without_utc_needs_a_place() -> None:
    with pytest.raises(InputError, match="does not say when it began"):
        place(clock("utc", START, START + S), view(start_utc=None), "a.log")
    assert place(clock("utc", START, START + S), view(start_utc=None), "a.log", 3 * S).start_ns == 3 * S


@pytest.mark.parametrize("time", [-(2**62), 2**62])
def test_damaged_stamps_are_refused_in_a_sentence(time: int) -> None:
    with pytest.raises(InputError, match="apart"):
        place(clock("utc", time, time + 1), view(), "a.log")


# --- edges of load ---


@dataclass
class Logged:
    """A log of a load that is high from `low` to `high`, sampled every `period`, whose stamps are late by `late`."""

    period: int = S // 10
    late: int = 0
    low: int = 5 * S
    high: int = 15 * S
    idle: float = 5.0
    busy: float = 20.0

    def load(self) -> Load:
        times = np.arange(self.period // 3, 20 * S, self.period, dtype=np.int64)
        values = np.where((times >= self.low) & (times < self.high), self.busy, self.idle)
        return Load(times + self.late, values)


def stamps(logged: Logged) -> Placement:
    first, last = int(logged.load().times_ns[0]), int(logged.load().times_ns[-1])
    return Placement(0, "stamps", S // 2, first, last, 0, "by stamps")


@given(st.integers(-900, 900), st.integers(20, 200))
def test_the_edges_of_load_correct_a_late_log(late_ms: int, period_ms: int) -> None:
    logged = Logged(period=period_ms * 1_000_000, late=late_ms * 1_000_000)
    placement = refined(stamps(logged), logged.load(), view())
    assert placement.method == "edges"
    assert abs(placement.shift_ns + logged.late) <= placement.error_ns
    assert placement.error_ns <= 2 * logged.period + 10_000_000


@pytest.mark.parametrize("late", [-1.3, 1.2, 3.0])
def test_more_than_a_second_is_not_corrected(late: float) -> None:
    logged = Logged(late=int(late * S))
    assert refined(stamps(logged), logged.load(), view()).method == "stamps"
    assert MOST_REFINED_NS == S


def test_a_load_without_contrast_keeps_the_stamps() -> None:
    logged = Logged(late=S // 2, busy=5.5)
    assert refined(stamps(logged), logged.load(), view()).method == "stamps"


def test_edges_that_disagree_keep_the_stamps() -> None:
    logged = Logged(high=15 * S + 8 * S // 10)
    assert refined(stamps(logged), logged.load(), view()).method == "stamps"


def test_periodic_load_keeps_the_stamps() -> None:
    """Bursts of half a second: every shift by a second would fit as well."""
    times = np.arange(0, 20 * S, S // 20, dtype=np.int64)
    load = Load(times + S // 4, np.where(times % S < S // 2, 20.0, 5.0))
    busy = [kernel(at, at + S // 2) for at in range(0, 20 * S, S)]
    periodic = View(trace(kernels=busy, capture=Capture(duration_ns=20 * S, start_utc_ns=START)))
    placement = Placement(0, "stamps", S // 2, 0, 20 * S, 0, "by stamps")
    assert refined(placement, load, periodic) == placement


def test_a_log_that_begins_in_the_load_keeps_the_stamps() -> None:
    logged = Logged(low=-S)
    assert refined(stamps(logged), logged.load(), view()).method == "stamps"


def test_a_trace_without_work_keeps_the_stamps() -> None:
    logged = Logged()
    empty = View(trace(kernels=[], capture=Capture(duration_ns=20 * S, start_utc_ns=START)))
    assert refined(stamps(logged), logged.load(), empty).method == "stamps"
