"""What a CPU thread was doing at each moment."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import Row, call, on_thread, scheduled, thread, trace
from idle_by_definition import doing
from nitro.analyzer import Trace
from nitro.analyzer.causes import Cause
from nitro.analyzer.intervals import Intervals
from nitro.analyzer.threads import ThreadActivity, outermost

LOW, HIGH = -5, 45


def split(built: Trace, *parts: tuple[int, int], tid: int | None = None) -> list[tuple[int, int, int, str]]:
    """Return (row, start, end, cause) of the stretches, in ascending order."""
    starts, ends = (np.array(side, np.int64) for side in zip(*parts, strict=True))
    found = ThreadActivity(built).split(thread() if tid is None else tid, Intervals(starts, ends))
    causes = [Cause(code).id for code in found.codes.tolist()]
    made = zip(found.rows.tolist(), found.starts.tolist(), found.ends.tolist(), causes, strict=True)
    return sorted(made, key=lambda stretch: stretch[1])


def test_a_thread_without_any_row_runs_host_code() -> None:
    assert split(trace(), (0, 10)) == [(0, 0, 10, "host_code")]


def test_parts_are_cut_where_the_activity_changes() -> None:
    built = trace(api_calls=[call(5, 15, "cudaMalloc_v3020")])
    assert split(built, (0, 10), (12, 20)) == [
        (0, 0, 5, "host_code"),
        (0, 5, 10, "memory_management"),
        (1, 12, 15, "memory_management"),
        (1, 15, 20, "host_code"),
    ]


def test_the_thread_is_off_the_cpu_from_leaving_to_the_next_event() -> None:
    events = [scheduled(2, True), scheduled(5, False), scheduled(8, True), scheduled(20, False)]
    assert split(trace(sched_events=events), (0, 30)) == [
        (0, 0, 5, "host_code"),
        (0, 5, 8, "not_scheduled"),
        (0, 8, 30, "host_code"),
    ]


def test_scheduling_events_count_in_the_order_of_time_and_of_threads() -> None:
    events = [scheduled(8, True), scheduled(5, False), scheduled(6, True, thread(2))]
    assert split(trace(sched_events=events), (0, 10))[1] == (0, 5, 8, "not_scheduled")


def outermost_of(*calls: tuple[int, int]) -> list[tuple[int, int, int]]:
    starts, ends = (np.array(side, np.int64) for side in zip(*calls, strict=True))
    spans, rows = outermost(starts, ends)
    return list(zip(spans.starts.tolist(), spans.ends.tolist(), rows.tolist(), strict=True))


def test_a_call_inside_another_disappears() -> None:
    assert outermost_of((0, 10), (2, 8), (12, 15)) == [(0, 10, 0), (12, 15, 2)]


def test_of_calls_that_begin_together_the_longest_is_the_outermost() -> None:
    assert outermost_of((0, 5), (0, 10)) == [(0, 10, 1)]


def test_a_call_that_overlaps_without_nesting_begins_where_the_earlier_one_ends() -> None:
    assert outermost_of((0, 10), (5, 15)) == [(0, 10, 0), (10, 15, 1)]


@st.composite
def rows(draw: st.DrawFn) -> Row:
    start = draw(st.integers(0, 36))
    return on_thread(start, start + draw(st.integers(0, 14)), tid=thread(draw(st.sampled_from([1, 1, 1, 2]))))


NAMES = (
    *("cudaLaunchKernel_v7000", "cudaMemcpyAsync_v3020", "cudaDeviceSynchronize_v3020", "cudaMalloc_v3020"),
    *("cuModuleLoadData", "cudaEventRecord_v3020", None),
)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    def maybe(strategy: st.SearchStrategy[Row], most: int) -> list[Row] | None:
        return draw(st.none() | st.lists(strategy, max_size=most))

    switches = st.builds(scheduled, st.integers(0, 40), st.booleans(), st.sampled_from([thread(1), thread(2)]))
    return trace(
        api_calls=maybe(st.builds(lambda row, name: row | {"name": name}, rows(), st.sampled_from(NAMES)), 8),
        os_calls=maybe(rows(), 5),
        profiler_overheads=maybe(rows(), 2),
        cuda_overheads=maybe(st.builds(lambda row, kind: row | {"overhead_type": kind}, rows(), st.integers(1, 8)), 3),
        sched_events=maybe(switches, 8),
    )


PARTS = st.lists(st.integers(LOW, HIGH), min_size=2, max_size=8, unique=True).map(
    lambda edges: list(zip(sorted(edges)[0::2], sorted(edges)[1::2], strict=False))
)


@settings(max_examples=300, deadline=None)
@given(traces(), PARTS)
def test_each_nanosecond_is_given_to_the_first_layer_that_covers_it(built: Trace, parts: list[tuple[int, int]]) -> None:
    found = [(row, moment, cause) for row, start, end, cause in split(built, *parts) for moment in range(start, end)]
    expected = [
        (row, moment, doing(built, thread(), moment))
        for row, (start, end) in enumerate(parts)
        for moment in range(start, end)
    ]
    assert found == expected
