"""The sweeps over nested intervals, against the definition on small random input."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nitro.analyzer.intervals import Intervals
from nitro.analyzer.stats._chains import NONE, chains, depths, smallest_container, window_minimum

_INTERVALS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)).map(sorted), max_size=25).map(
    lambda pairs: Intervals(
        np.array([low for low, _ in pairs], np.int64), np.array([high for _, high in pairs], np.int64)
    )
)


@given(_INTERVALS)
def test_chains_hold_every_row_once_with_starts_and_ends_ascending(intervals: Intervals) -> None:
    found = list(chains(intervals))
    assert sorted(row for chain in found for row in chain) == list(range(len(intervals)))
    for chain in found:
        assert (np.diff(intervals.starts[chain]) >= 0).all()
        assert (np.diff(intervals.ends[chain]) >= 0).all()


@given(_INTERVALS)
def test_smallest_container_is_the_shortest_other_interval_around(intervals: Intervals) -> None:
    bounds = list(zip(intervals.starts.tolist(), intervals.ends.tolist(), strict=True))
    expected = []
    for row, (start, end) in enumerate(bounds):
        around = [
            (other_end - other_start, other)
            for other, (other_start, other_end) in enumerate(bounds)
            if other != row and other_start <= start and end <= other_end
        ]
        expected.append(min(around)[1] if around else -1)
    assert smallest_container(intervals).tolist() == expected


@given(
    st.lists(st.integers(-9, 9), max_size=20),
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=20),
)
def test_window_minimum_is_that_of_the_slice(values: list[int], windows: list[tuple[int, int]]) -> None:
    bounds = [(min(first, len(values)), min(stop, len(values))) for first, stop in windows]
    found = window_minimum(
        np.array(values, np.int64),
        np.array([first for first, _ in bounds], np.intp),
        np.array([stop for _, stop in bounds], np.intp),
    )
    assert found.tolist() == [min(values[first:stop], default=NONE) for first, stop in bounds]


def test_depth_counts_parents_and_a_cycle_has_none() -> None:
    # 0 is the top, 1 and 2 are below it, 3 below 2; 4 and 5 are each other's parents and 6 hangs below them.
    depth, is_cyclic = depths(np.array([-1, 0, 0, 2, 5, 4, 5], np.intp))
    assert depth[:4].tolist() == [0, 1, 1, 2]
    assert is_cyclic.tolist() == [False, False, False, False, True, True, True]


def test_nothing_has_no_containers_and_no_depths() -> None:
    nothing = np.empty(0, np.int64)
    assert smallest_container(Intervals(nothing, nothing)).tolist() == []
    assert depths(np.empty(0, np.intp))[0].tolist() == []
