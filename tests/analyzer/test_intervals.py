"""Interval arithmetic, by hand and against sets of nanoseconds."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nitro.analyzer.intervals import (
    Int64,
    Intervals,
    Pieces,
    clip,
    covered_before,
    gaps,
    intersect,
    overlap_of,
    running_end,
    subtract,
    union,
)

Pairs = list[tuple[int, int]]
TIMES = st.integers(-20, 40)
ANY_INTERVALS = st.lists(st.tuples(TIMES, st.integers(0, 12)).map(lambda pair: (pair[0], sum(pair))), max_size=12)


# Sorted intervals that do not overlap; they may touch.
DISJOINT = st.lists(TIMES, max_size=20).map(
    lambda edges: [
        (start, end) for start, end in zip(sorted(edges)[0::2], sorted(edges)[1::2], strict=False) if start < end
    ]
)


def columns(pairs: Pairs) -> tuple[Int64, Int64]:
    return np.array([start for start, _ in pairs], np.int64), np.array([end for _, end in pairs], np.int64)


def intervals(pairs: Pairs) -> Intervals:
    return Intervals(*columns(pairs))


def pairs_of(found: Intervals | Pieces) -> Pairs:
    return list(zip(found.starts.tolist(), found.ends.tolist(), strict=True))


def moments(pairs: Pairs) -> set[int]:
    """The nanoseconds t for which [t, t + 1) is covered."""
    return {moment for start, end in pairs for moment in range(start, end)}


def runs(covered: set[int]) -> Pairs:
    """The maximal intervals that cover exactly these nanoseconds."""
    starts = sorted(moment for moment in covered if moment - 1 not in covered)
    ends = sorted(moment + 1 for moment in covered if moment + 1 not in covered)
    return list(zip(starts, ends, strict=True))


def test_union_merges_overlapping_and_touching_intervals() -> None:
    assert pairs_of(union(*columns([(0, 10), (5, 12), (12, 15), (20, 25)]))) == [(0, 15), (20, 25)]


def test_union_takes_intervals_in_any_order() -> None:
    assert pairs_of(union(*columns([(20, 25), (5, 12), (0, 10)]))) == [(0, 12), (20, 25)]


def test_union_keeps_an_interval_inside_another_out() -> None:
    assert pairs_of(union(*columns([(0, 100), (10, 20), (30, 40)]))) == [(0, 100)]


def test_union_drops_intervals_of_length_zero() -> None:
    assert pairs_of(union(*columns([(5, 5), (7, 9)]))) == [(7, 9)]
    assert pairs_of(union(*columns([(5, 5)]))) == []
    assert pairs_of(union(*columns([]))) == []


def test_union_adds_no_rounding_to_times_beyond_the_floats() -> None:
    start = 2**60 + 1
    assert union(*columns([(start, start + 3), (start + 1, start + 4)])).total == 4


@given(ANY_INTERVALS)
def test_union_covers_what_the_intervals_cover(pairs: Pairs) -> None:
    assert pairs_of(union(*columns(pairs))) == runs(moments(pairs))


def test_gaps_leave_no_empty_piece_at_the_edges() -> None:
    busy = intervals([(0, 10), (15, 20)])
    assert pairs_of(gaps(busy, 0, 20)) == [(10, 15)]
    assert pairs_of(gaps(busy, -5, 30)) == [(-5, 0), (10, 15), (20, 30)]
    assert pairs_of(gaps(busy, 12, 14)) == [(12, 14)]
    assert pairs_of(gaps(busy, 2, 8)) == []


def test_gaps_of_nothing_are_everything() -> None:
    assert pairs_of(gaps(intervals([]), 3, 9)) == [(3, 9)]


def test_an_interval_of_length_zero_cuts_a_gap_and_takes_nothing_of_it() -> None:
    assert pairs_of(gaps(intervals([(5, 5)]), 0, 10)) == [(0, 5), (5, 10)]


@given(DISJOINT, TIMES, st.integers(0, 50))
def test_gaps_are_the_complement_inside_the_window(pairs: Pairs, low: int, length: int) -> None:
    expected = set(range(low, low + length)) - moments(pairs)
    found = pairs_of(gaps(intervals(pairs), low, low + length))
    assert found == runs(expected)


@given(ANY_INTERVALS, TIMES, st.integers(0, 50))
def test_busy_and_gaps_add_up_to_the_window(pairs: Pairs, low: int, length: int) -> None:
    inside = clip(*columns(pairs), low, low + length)
    busy = union(inside.starts, inside.ends)
    assert busy.total + gaps(busy, low, low + length).total == length


def test_clip_keeps_the_place_of_an_interval_outside() -> None:
    clipped = clip(*columns([(0, 5), (8, 12), (30, 40)]), 4, 10)
    assert (clipped.ends - clipped.starts).tolist() == [1, 2, 0]


def test_running_end_remembers_the_longest() -> None:
    assert running_end(np.array([5, 3, 9, 4], np.int64)).tolist() == [5, 5, 9, 9]


def test_intersect_names_the_rows_of_both_sides() -> None:
    found = intersect(intervals([(0, 10), (20, 30)]), intervals([(5, 22), (25, 26), (40, 50)]))
    assert pairs_of(found) == [(5, 10), (20, 22), (25, 26)]
    assert found.left.tolist() == [0, 1, 1]
    assert found.right.tolist() == [0, 0, 1]


def test_intervals_that_touch_do_not_intersect() -> None:
    assert len(intersect(intervals([(0, 10)]), intervals([(10, 20)])).starts) == 0


@given(DISJOINT, DISJOINT)
def test_intersect_gives_every_common_piece_once(left: Pairs, right: Pairs) -> None:
    expected = [
        (i, j, max(a, c), min(b, d))
        for i, (a, b) in enumerate(left)
        for j, (c, d) in enumerate(right)
        if max(a, c) < min(b, d)
    ]
    found = intersect(intervals(left), intervals(right))
    rows = zip(found.left.tolist(), found.right.tolist(), *zip(*pairs_of(found), strict=True), strict=True)
    assert (list(rows) if len(found.starts) else []) == expected


@given(DISJOINT, DISJOINT)
def test_overlap_is_the_time_that_both_cover(left: Pairs, right: Pairs) -> None:
    assert overlap_of(intervals(left), intervals(right)) == len(moments(left) & moments(right))


def test_subtract_cuts_a_hole_and_keeps_the_row() -> None:
    found = subtract(intervals([(0, 10), (20, 30)]), intervals([(3, 5), (28, 40)]))
    assert pairs_of(found) == [(0, 3), (5, 10), (20, 28)]
    assert found.left.tolist() == [0, 0, 1]


@given(DISJOINT, DISJOINT)
def test_subtract_and_intersect_share_each_interval_out(left: Pairs, right: Pairs) -> None:
    rest = subtract(intervals(left), intervals(right))
    covered = moments(right)
    for row, (start, end) in enumerate(left):
        mine = [pair for pair, owner in zip(pairs_of(rest), rest.left.tolist(), strict=True) if owner == row]
        assert mine == runs(set(range(start, end)) - covered)


def test_covered_before_counts_up_to_the_moment() -> None:
    busy = intervals([(10, 20), (30, 35)])
    times = np.array([0, 10, 14, 20, 25, 32, 35, 99], np.int64)
    assert covered_before(busy, times).tolist() == [0, 0, 4, 10, 10, 12, 15, 15]


def test_nothing_is_covered_before_any_moment_of_no_interval() -> None:
    assert covered_before(intervals([]), np.array([1, 2], np.int64)).tolist() == [0, 0]


@given(DISJOINT, st.lists(st.integers(-30, 70), max_size=8))
def test_covered_before_counts_the_nanoseconds_before(pairs: Pairs, times: list[int]) -> None:
    covered = moments(pairs)
    expected = [sum(moment < time for moment in covered) for time in times]
    assert covered_before(intervals(pairs), np.array(times, np.int64)).tolist() == expected
