"""NVTX ranges: nesting, names, what a thread is in at a moment, and projections onto the GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import Row, call, kernel, nvtx_domain, nvtx_range, operation, process, thread, trace
from nitro.analyzer import Trace
from nitro.analyzer.nvtx import Ranges, family_of, ranges_of, without_counter
from nitro.analyzer.view import View

Span = tuple[int, int]


def ranges(*rows: Row) -> Ranges:
    return ranges_of(trace(nvtx=list(rows)))


def named(found: Ranges) -> list[str]:
    return [found.names[number] for number in found.name.tolist()]


def paths(found: Ranges) -> list[str]:
    return [found.paths[number] for number in found.path.tolist()]


def moments(found: Ranges, tid: int | None = None) -> dict[int, str]:
    """The path of the innermost range at every moment that lies in one."""
    spans, path = found.innermost(thread() if tid is None else tid)
    assert (spans.starts[1:] >= spans.ends[:-1]).all()
    stretches = zip(spans.starts.tolist(), spans.ends.tolist(), path.tolist(), strict=True)
    return {moment: found.paths[number] for start, end, number in stretches for moment in range(start, end)}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("infer:7", "infer:#"),
        ("op_id = 12", "op_id = #"),
        ("step 5", "step #"),
        ("batch #3", "batch ##"),
        ("tokens[128]", "tokens[#]"),
        ("call(2)", "call(#)"),
        ("conv2", "conv2"),
        ("layers.3", "layers.3"),
        ("resnet50 forward", "resnet50 forward"),
    ],
)
def test_a_counter_at_the_end_of_a_name_is_shown_as_a_mark(name: str, shown: str) -> None:
    assert without_counter(name) == shown


def test_names_that_differ_by_numbers_only_are_one_family() -> None:
    assert family_of("conv2 step 10") == family_of("conv3 step 9") == "conv# step #"


def test_a_range_knows_its_parent_its_depth_and_its_path() -> None:
    found = ranges(nvtx_range(0, 100, "infer:1"), nvtx_range(10, 40, "vision"), nvtx_range(20, 30, "conv2"))
    assert found.parent.tolist() == [-1, 0, 1]
    assert found.depth.tolist() == [0, 1, 2]
    assert paths(found) == ["infer:#", "infer:# > vision", "infer:# > vision > conv2"]


def test_ranges_of_two_threads_do_not_nest() -> None:
    found = ranges(nvtx_range(0, 100, "outer"), nvtx_range(10, 20, "inner", tid=thread(2)))
    assert found.parent.tolist() == [-1, -1]


def test_a_range_that_begins_where_another_ends_is_not_inside_it() -> None:
    found = ranges(nvtx_range(0, 10, "one"), nvtx_range(10, 20, "two"))
    assert found.parent.tolist() == [-1, -1]


def test_of_ranges_with_one_start_the_longest_is_outside() -> None:
    found = ranges(nvtx_range(0, 10, "inner"), nvtx_range(0, 20, "outer"))
    assert paths(found) == ["outer", "outer > inner"]


def test_a_range_of_length_zero_lies_inside_the_range_that_it_begins_with() -> None:
    found = ranges(nvtx_range(0, 10, "outer"), nvtx_range(0, 0, "first"), nvtx_range(5, 5, "middle"))
    assert paths(found) == ["outer", "outer > first", "outer > middle"]


def test_a_range_of_length_zero_at_the_end_of_another_lies_outside() -> None:
    found = ranges(nvtx_range(0, 10, "outer"), nvtx_range(10, 10, "after"))
    assert paths(found) == ["outer", "after"]


def test_of_ranges_that_overlap_without_nesting_neither_is_the_parent() -> None:
    found = ranges(nvtx_range(0, 10, "one"), nvtx_range(5, 15, "two"), nvtx_range(11, 14, "three"))
    assert found.parent.tolist() == [-1, -1, 1]


def test_a_domain_stands_before_the_message() -> None:
    found = ranges(nvtx_domain(3, "TensorRT"), nvtx_range(0, 10, "enqueue", domain_id=3), nvtx_range(20, 30, "own"))
    assert named(found) == ["TensorRT:enqueue", "own"]


def test_a_domain_belongs_to_the_process_that_named_it() -> None:
    other = thread(1, 200)
    found = ranges(
        nvtx_domain(3, "TensorRT"),
        nvtx_range(0, 10, "enqueue", domain_id=3),
        nvtx_range(0, 10, "enqueue", domain_id=3, tid=other),
    )
    assert named(found) == ["TensorRT:enqueue", "enqueue"]


def test_a_range_without_message_has_a_name_that_says_so() -> None:
    assert named(ranges(nvtx_range(0, 10, None))) == ["(no message)"]


def test_a_range_that_was_not_seen_to_end_lasts_until_the_last_event() -> None:
    found = ranges(nvtx_range(5, None, "open"), nvtx_range(10, 90, "closed", tid=thread(2)))
    assert found.ends.tolist() == [90, 90]


def test_marks_and_ranges_that_end_on_another_thread_are_left_out() -> None:
    found = ranges(
        nvtx_range(0, 10, "kept"),
        nvtx_range(5, 5, "mark", event_type=34),
        nvtx_range(0, 20, "moved", event_type=60, end_global_tid=thread(2)),
        nvtx_range(0, 30, "stayed", event_type=60, end_global_tid=thread(1)),
    )
    assert sorted(named(found)) == ["kept", "stayed"]


def test_payloads_of_zero_and_none_are_told_apart() -> None:
    found = ranges(nvtx_range(0, 1, "a", payload=0), nvtx_range(2, 3, "b"), nvtx_range(4, 5, "c", payload=16))
    assert found.payload.tolist() == [0, 0, 16]
    assert found.has_payload.tolist() == [True, False, True]


def test_a_trace_without_nvtx_has_no_range() -> None:
    assert len(ranges_of(trace())) == 0
    assert len(ranges_of(trace(nvtx=[]))) == 0


def test_a_moment_belongs_to_the_innermost_range() -> None:
    found = ranges(nvtx_range(0, 10, "outer"), nvtx_range(2, 4, "a"), nvtx_range(4, 6, "b"))
    expected = ["outer", "outer", "outer > a", "outer > a", "outer > b", "outer > b", *["outer"] * 4]
    assert moments(found) == dict(enumerate(expected))


def test_moments_outside_all_ranges_have_no_path() -> None:
    found = ranges(nvtx_range(5, 10, "one"), nvtx_range(20, 30, "two"))
    times = np.array([0, 5, 9, 10, 19, 20, 30], np.int64)
    number = {text: row for row, text in enumerate(found.paths)}
    one, two = number["one"], number["two"]
    assert found.path_at(thread(), times).tolist() == [-1, one, one, -1, -1, two, -1]
    assert found.path_at(thread(9), times).tolist() == [-1] * 7


def test_a_range_goes_on_after_one_that_overlapped_it_has_ended() -> None:
    found = ranges(nvtx_range(0, 10, "one", event_type=60), nvtx_range(5, 15, "two", event_type=60))
    assert moments(found)[3] == "one"
    assert moments(found)[12] == "two"


def projected(built: Trace) -> list[tuple[int, int, int, int, int]]:
    """(start, end, operations, operation time, kernel time) of each range, in the order of the ranges."""
    found = View(built).projections
    columns = (found.starts, found.ends, found.operations, found.operation_time, found.kernel_time)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_a_projection_runs_from_the_first_start_to_the_last_end_of_what_was_launched() -> None:
    built = trace(
        kernels=[kernel(50, 60, correlation_id=1), kernel(80, 95, correlation_id=2), kernel(99, 100, correlation_id=3)],
        memcpys=[operation(70, 72, correlation_id=4)],
        api_calls=[
            call(10, 12, correlation_id=1),
            call(14, 16, "cudaMemcpyAsync_v3020", correlation_id=4),
            call(18, 20, correlation_id=2),
            call(21, 22, correlation_id=3),
        ],
        nvtx=[nvtx_range(10, 20, "forward")],
    )
    assert projected(built) == [(50, 95, 3, 10 + 2 + 15, 10 + 15)]


def test_a_graph_launch_is_one_operation_and_counts_as_kernel_time() -> None:
    built = trace(
        graph_launches=[operation(50, 90, correlation_id=1)],
        api_calls=[call(10, 12, "cudaGraphLaunch_v10000", correlation_id=1)],
        nvtx=[nvtx_range(0, 20, "forward")],
    )
    assert projected(built) == [(50, 90, 1, 40, 40)]


@pytest.mark.parametrize(("start", "end"), [(9, 15), (11, 21)])
def test_a_call_that_lies_only_partly_in_a_range_does_not_belong_to_it(start: int, end: int) -> None:
    built = trace(
        kernels=[kernel(50, 60, correlation_id=1)],
        api_calls=[call(start, end, correlation_id=1)],
        nvtx=[nvtx_range(10, 20, "forward")],
    )
    assert projected(built) == [(0, 0, 0, 0, 0)]


def test_a_call_of_another_thread_does_not_belong_to_a_range() -> None:
    built = trace(
        kernels=[kernel(50, 60, correlation_id=1)],
        api_calls=[call(12, 14, correlation_id=1, tid=thread(2))],
        nvtx=[nvtx_range(10, 20, "forward")],
    )
    assert projected(built) == [(0, 0, 0, 0, 0)]


TIMES = st.integers(0, 24)


@st.composite
def nested(draw: st.DrawFn, tid: int) -> list[Row]:
    """Ranges of one thread that nest, as push and pop make them; some of length 0, some touching."""
    made: list[Row] = []

    def fill(low: int, high: int, depth: int) -> None:
        at = low
        while depth < 4 and at <= high and draw(st.booleans()):
            start = draw(st.integers(at, high))
            end = draw(st.integers(start, high))
            # A range of length 0 at the end of the one around it would lie outside of that.
            if (start, end) == (high, high) and depth:
                return
            made.append(nvtx_range(start, end, f"r{len(made) % 3}", tid=tid))
            if end > start:
                fill(start, end, depth + 1)
            at = end + (end == start)

    fill(0, 24, 0)
    return draw(st.permutations(made))


@st.composite
def overlapping(draw: st.DrawFn, tid: int) -> list[Row]:
    """Ranges of one thread in any position to each other."""
    spans = draw(st.lists(st.tuples(TIMES, st.integers(0, 12)), max_size=6))
    return [nvtx_range(start, start + length, f"r{number}", tid=tid) for number, (start, length) in enumerate(spans)]


def order(row: Row) -> tuple[int, int]:
    return row["start_ns"], -row["end_ns"]


def chain_at(rows: list[Row], moment: int) -> str | None:
    """The path of the ranges around a moment, for nested ranges; None outside."""
    around = [row["text"] for row in sorted(rows, key=order) if row["start_ns"] <= moment < row["end_ns"]]
    return " > ".join(around) or None


@settings(deadline=None)
@given(nested(thread(1)), nested(thread(2)))
def test_nested_ranges_give_every_moment_the_chain_around_it(one: list[Row], two: list[Row]) -> None:
    found = ranges(*one, *two)
    for tid, rows in ((thread(1), one), (thread(2), two)):
        expected = {moment: chain for moment in range(30) if (chain := chain_at(rows, moment)) is not None}
        assert moments(found, tid) == expected
        at = [None if number < 0 else found.paths[number] for number in found.path_at(tid, np.arange(30)).tolist()]
        assert at == [expected.get(moment) for moment in range(30)]


def holds(outer: Span, inner: Span) -> bool:
    # A range of length 0 counts as 1 ns long.
    return outer[0] <= inner[0] and max(inner[1], inner[0] + 1) <= max(outer[1], outer[0] + 1)


@settings(deadline=None)
@given(st.one_of(nested(thread()), overlapping(thread())))
def test_the_parent_is_the_smallest_range_around(rows: list[Row]) -> None:
    found = ranges(*rows)
    spans: list[Span] = list(zip(found.starts.tolist(), found.ends.tolist(), strict=True))
    for position, span in enumerate(spans):
        # Of equal ranges the later in the list is the inner one.
        around = [other for other in range(position) if holds(spans[other], span)]
        parent = int(found.parent[position])
        if not around:
            assert parent == -1
            assert found.depth[position] == 0
            continue
        length = {other: spans[other][1] - spans[other][0] for other in around}
        assert parent in around
        assert length[parent] == min(length.values())
        assert found.depth[position] == found.depth[parent] + 1


@settings(deadline=None)
@given(overlapping(thread()))
def test_every_moment_inside_a_range_belongs_to_a_range_that_is_open(rows: list[Row]) -> None:
    found = ranges(*rows)
    belongs = moments(found)
    for moment in range(40):
        open_now = {row["text"] for row in rows if row["start_ns"] <= moment < row["end_ns"]}
        innermost = belongs[moment].rpartition(" > ")[2] if moment in belongs else None
        assert innermost in (open_now or {None})


@st.composite
def launched(draw: st.DrawFn) -> Trace:
    """Calls that do not overlap on their thread, operations at any time, ranges in any position."""
    calls: list[Row] = []
    kernels: list[Row] = []
    for tid in (thread(1), thread(2), thread(1, 200)):
        edges = sorted(draw(st.lists(TIMES, max_size=8, unique=True)))
        for start, end in zip(edges[0::2], edges[1::2], strict=False):
            number = len(calls) + 1
            calls.append(call(start, end, correlation_id=number, tid=tid))
            if draw(st.booleans()):
                calls.append(call(start, end, "cuLaunchKernel", correlation_id=number, tid=tid))
            for _ in range(draw(st.integers(0, 2))):
                begin = draw(st.integers(0, 60))
                length = draw(st.integers(0, 9))
                kernels.append(kernel(begin, begin + length, correlation_id=number, global_pid=tid & ~0xFFFFFF))
    rows = [*draw(overlapping(thread(1))), *draw(overlapping(thread(2))), *draw(overlapping(thread(1, 200)))]
    return trace(kernels=[*kernels, kernel(0, 1, global_pid=process(7))], api_calls=calls, nvtx=rows)


@settings(max_examples=200, deadline=None)
@given(launched())
def test_a_projection_holds_what_was_launched_inside_the_range(built: Trace) -> None:
    found = ranges_of(built)
    calls = built.table_or_empty("api_calls").to_dicts()
    kernels = built.table_or_empty("kernels").to_dicts()
    expected: list[tuple[Any, ...]] = []
    for start, end, tid in zip(found.starts.tolist(), found.ends.tolist(), found.thread.tolist(), strict=True):
        ids = {
            row["correlation_id"]
            for row in calls
            if row["global_tid"] == tid and start <= row["start_ns"] and row["end_ns"] <= end
        }
        own = [row for row in kernels if row["correlation_id"] in ids]
        time = sum(row["end_ns"] - row["start_ns"] for row in own)
        first = min((row["start_ns"] for row in own), default=0)
        last = max((row["end_ns"] for row in own), default=0)
        expected.append((first, last, len(own), time, time))
    assert projected(built) == expected
