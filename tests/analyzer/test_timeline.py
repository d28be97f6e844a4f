"""The timeline: lanes by hand, coverage against brute force, and every row of a trace in its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import call, empty_trace, kernel, nvtx_range, operation, process, sample, thread, trace
from nitro.analyzer import Trace, open_trace
from nitro.analyzer import timeline as module
from nitro.analyzer.causes import Cause
from nitro.analyzer.intervals import clip
from nitro.analyzer.operations import Kind
from nitro.analyzer.timeline import Bins, DeviceLanes, Spans, StreamLane, Timeline, timeline_of
from nitro.analyzer.view import Scope, View

SAMPLE = Path(__file__).parents[2] / "examples" / "dual_encoder.sqlite.xz"


def built(scope: Scope | None = None, **tables: Any) -> Timeline:
    return timeline_of(View(trace(**tables), scope or Scope()))


def spans_of(spans: Spans) -> list[tuple[int, int, int]]:
    """(start, end, row) of each span."""
    return list(zip(spans.starts.tolist(), spans.ends.tolist(), spans.row.tolist(), strict=True))


def named(timeline: Timeline, spans: Spans) -> list[str]:
    return [timeline.names[what] for what in spans.what.tolist()]


def only_stream(timeline: Timeline) -> StreamLane:
    return timeline.devices[0].streams[0]


def assert_rows_do_not_overlap(spans: Spans) -> None:
    assert (np.diff(spans.starts) >= 0).all()
    for row in range(spans.rows):
        mine = spans.row == row
        assert (spans.starts[mine][1:] >= spans.ends[mine][:-1]).all()


def test_nested_ranges_get_a_row_for_each_depth_and_calls_only_their_outermost() -> None:
    timeline = built(
        kernels=[(30, 40)],
        nvtx=[nvtx_range(0, 100, "outer"), nvtx_range(10, 20, "a"), nvtx_range(20, 60, "b"), nvtx_range(25, 30, "c")],
        api_calls=[call(5, 15, "cudaLaunchKernel_v7000"), call(6, 14, "cuLaunchKernel"), call(50, 55, None)],
    )
    (only,) = timeline.threads
    assert spans_of(only.ranges) == [(0, 100, 0), (10, 20, 1), (20, 60, 1), (25, 30, 2)]
    assert named(timeline, only.ranges) == ["outer", "a", "b", "c"]
    assert spans_of(only.calls) == [(5, 15, 0), (50, 55, 0)]
    assert named(timeline, only.calls) == ["cudaLaunchKernel_v7000", module.NO_NAME]
    assert only.more_calls is None
    assert (timeline.start_ns, timeline.end_ns, timeline.session_start_ns) == (0, 100, 0)


def test_ranges_that_overlap_without_nesting_go_to_the_first_free_row() -> None:
    timeline = built(
        nvtx=[nvtx_range(0, 10, "a"), nvtx_range(5, 15, "b"), nvtx_range(8, 20, "c"), nvtx_range(10, 12, "d")]
    )
    assert spans_of(timeline.threads[0].ranges) == [(0, 10, 0), (5, 15, 1), (8, 20, 2), (10, 12, 0)]


def test_range_that_ends_on_another_thread_stands_where_it_began() -> None:
    other = nvtx_range(5, 30, "moved", event_type=60, end_global_tid=thread(2))
    timeline = built(nvtx=[nvtx_range(0, 10, "stays"), other])
    (only,) = timeline.threads
    assert named(timeline, only.ranges) == ["stays", "moved"]
    assert spans_of(only.ranges) == [(0, 10, 0), (5, 30, 1)]


def test_operations_of_a_stream_that_overlap_go_to_further_rows_and_keep_their_kind() -> None:
    timeline = built(
        kernels=[kernel(0, 10, "k", grid_x=7), kernel(5, 8, "k", grid_x=8), kernel(20, 30, "k", grid_x=7)],
        memcpys=[operation(8, 12, bytes=64, copy_kind=2)],
        memsets=[operation(40, 41, bytes=16)],
        graph_launches=[operation(50, 60)],
    )
    lane = only_stream(timeline)
    assert spans_of(lane.operations) == [(0, 10, 0), (5, 8, 1), (8, 12, 1), (20, 30, 0), (40, 41, 0), (50, 60, 0)]
    shapes, what = timeline.shapes, lane.operations.what
    assert shapes.kind[what].tolist() == [Kind.KERNEL, Kind.KERNEL, Kind.MEMCPY, Kind.KERNEL, Kind.MEMSET, Kind.GRAPH]
    assert shapes.launch[what][:, 0].tolist() == [7, 8, -1, 7, -1, -1]
    assert shapes.bytes[what].tolist() == [-1, -1, 64, -1, 16, -1]
    assert shapes.copy_kind[what].tolist() == [-1, -1, 2, -1, -1, -1]
    assert len(shapes) == 5
    assert timeline.operation_count == 6


def test_streams_are_told_apart_by_process_and_device() -> None:
    timeline = built(
        kernels=[
            kernel(0, 1, stream_id=7),
            kernel(0, 2, stream_id=9),
            kernel(0, 3, stream_id=7, global_pid=process(200)),
            kernel(0, 4, stream_id=7, device_id=1),
        ]
    )
    found = {
        (device.device_id, lane.pid, lane.stream_id): lane.operations.ends.tolist()
        for device in timeline.devices
        for lane in device.streams
    }
    assert found == {(0, 100, 7): [1], (0, 100, 9): [2], (0, 200, 7): [3], (1, 100, 7): [4]}


def test_operation_knows_its_launch() -> None:
    timeline = built(
        kernels=[kernel(100, 120, correlation_id=1), kernel(130, 140, correlation_id=2), kernel(150, 160)],
        api_calls=[call(70, 90, correlation_id=1), call(95, 135, correlation_id=2, tid=thread(5))],
    )
    launches = only_stream(timeline).launches
    assert launches is not None
    assert launches.before_ns.tolist() == [30, 35, 0]
    assert launches.call_ns.tolist() == [20, 40, 0]
    assert [timeline.launching_threads[row] if row >= 0 else None for row in launches.thread] == [
        thread(),
        thread(5),
        None,
    ]


def test_launches_are_dropped_where_operations_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LAUNCH_LINKS", 1)
    timeline = built(kernels=[(0, 1), (2, 3)])
    assert not timeline.has_launches
    assert only_stream(timeline).launches is None


def test_grids_are_dropped_where_they_are_too_many_and_names_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SHAPES", 3)
    timeline = built(kernels=[kernel(start, start + 1, f"k{start % 2}", grid_x=start + 1) for start in range(10)])
    assert not timeline.has_shapes
    assert named(timeline, replace(only_stream(timeline).operations, what=timeline.shapes.name)) == ["k0", "k1"]
    assert (timeline.shapes.launch == -1).all()


def test_kernel_without_full_name_has_its_short_one() -> None:
    timeline = built(
        kernels=[kernel(0, 1, None), {**kernel(2, 3, None), "short_name": "short"}, kernel(4, 5, "full(int)")]
    )
    names = [timeline.names[name] for name in timeline.shapes.name[only_stream(timeline).operations.what]]
    assert names == [module.NO_NAME, "short", "full(int)"]


def test_only_the_busiest_threads_are_shown_and_the_others_counted() -> None:
    calls = [
        call(100 * tid + step, 100 * tid + step + 1, tid=thread(tid)) for tid in range(1, 16) for step in range(tid)
    ]
    timeline = built(kernels=[(0, 1)], api_calls=calls)
    assert [lane.tid for lane in timeline.threads] == list(range(15, 3, -1))
    assert timeline.threads_left_out == 3


def test_threads_of_other_processes_are_not_shown() -> None:
    timeline = built(
        Scope(pids=(100,)),
        kernels=[(0, 1)],
        api_calls=[call(0, 1), call(0, 1, tid=thread(1, 200))],
        nvtx=[nvtx_range(0, 5, "theirs", tid=thread(3, 200))],
    )
    assert [(lane.pid, lane.tid) for lane in timeline.threads] == [(100, 1)]
    assert timeline.threads_left_out == 0


def test_typical_iteration_is_the_period_nearest_the_median() -> None:
    starts = [0, 100, 210, 309, 420]
    timeline = built(
        Scope(nvtx="step *"),
        kernels=[kernel(start, start + 20, correlation_id=place + 1) for place, start in enumerate(starts)],
        api_calls=[call(start - 5, start - 1, correlation_id=place + 1) for place, start in enumerate(starts)],
        nvtx=[nvtx_range(start - 6, start, f"step {place}") for place, start in enumerate(starts)],
    )
    # Periods 100, 110, 99, 111: the median is 105, and 100 and 110 are as near; the first one counts.
    assert timeline.typical == (0, 100)
    assert timeline.iterations.starts.tolist() == starts
    assert timeline.iteration_names == tuple(f"step {place}" for place in range(5))
    assert timeline.window == (0, 420)


def test_no_iterations_give_no_typical_one() -> None:
    assert built(kernels=[(0, 1)]).typical is None


def test_short_calls_outside_the_typical_iteration_become_coverage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CALLS_OUTSIDE", 2)
    calls = [call(start, start + 1 + start // 100) for start in range(0, 1000, 100)]
    timeline = built(Scope(since_ns=0, until_ns=1000), kernels=[(0, 1000)], api_calls=calls)
    (only,) = timeline.threads
    assert timeline.calls_at_least_ns == 9
    assert spans_of(only.calls) == [(800, 809, 0), (900, 910, 0)]
    assert only.call_count == 10
    assert only.more_calls is not None
    # 1000 ns are 1000 bins of 1 ns: each is covered or not.
    assert timeline.bins.width_ns == 1
    assert np.flatnonzero(only.more_calls).tolist() == [
        moment for start in range(0, 800, 100) for moment in range(start, start + 1 + start // 100)
    ]
    assert set(only.more_calls.tolist()) == {0, 255}


def test_calls_of_one_length_beyond_the_limit_all_become_coverage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CALLS_OUTSIDE", 2)
    timeline = built(kernels=[(0, 100)], api_calls=[call(start, start + 4) for start in range(0, 50, 10)])
    assert timeline.calls_at_least_ns == 5
    assert not len(timeline.threads[0].calls)


def test_idle_pieces_tile_the_capture_outside_the_window_too() -> None:
    timeline = built(
        Scope(since_ns=100, until_ns=200),
        kernels=[kernel(50, 100, correlation_id=1), kernel(150, 160, correlation_id=2), kernel(300, 310)],
        api_calls=[call(0, 20, correlation_id=1), call(110, 120, correlation_id=2), call(320, 340, "cudaFree_v3020")],
    )
    pieces = timeline.devices[0].idle.pieces
    assert [(s, e, Cause(w).id) for (s, e, _), w in zip(spans_of(pieces), pieces.what.tolist(), strict=True)] == [
        (0, 20, "launch_call"),
        (20, 50, "launch_latency"),
        (100, 110, "host_code"),
        (110, 120, "launch_call"),
        (120, 150, "launch_latency"),
        (160, 300, "unattributed"),
        (310, 340, "after_last"),
    ]


def test_idle_pieces_inside_the_window_are_those_of_the_analysis() -> None:
    view = View(open_trace(SAMPLE))
    device = view.devices[0]
    pieces = timeline_of(view).devices[0].idle.pieces
    inside = clip(pieces.starts, pieces.ends, device.low, device.high)
    total = np.bincount(pieces.what, weights=inside.ends - inside.starts, minlength=len(Cause))
    assert total.astype(np.int64).tolist() == device.idle.total_ns.tolist()


def test_sampled_metrics_are_steps() -> None:
    samples = [sample(time, "sm_active", time // 10) for time in range(0, 100, 10)]
    timeline = built(kernels=[(0, 90)], gpu_metric_samples=samples)
    (lane,) = timeline.devices[0].sampled
    assert lane.metric == "sm_active"
    assert lane.times.tolist() == list(range(0, 100, 10))
    assert lane.mean.tolist() == list(range(1, 10))
    assert lane.samples_per_step == 1


def test_many_samples_become_steps_with_their_lowest_highest_and_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SAMPLES_OF_LANE", 3)
    times, values = [0, 10, 20, 40, 50, 60], [0, 5, 9, 2, 4, 8]
    samples = [sample(time, "sm_active", value) for time, value in zip(times, values, strict=True)]
    (lane,) = built(kernels=[(0, 60)], gpu_metric_samples=samples).devices[0].sampled
    assert lane.samples_per_step == 2
    assert lane.times.tolist() == [0, 20, 50, 60]
    assert lane.low.tolist() == [5, 2, 8]
    assert lane.high.tolist() == [9, 4, 8]
    assert lane.mean.tolist() == [7, (2 * 20 + 4 * 10) / 30, 8]


def test_empty_trace_has_no_lanes() -> None:
    timeline = timeline_of(View(empty_trace()))
    assert (timeline.start_ns, timeline.end_ns, timeline.bins.count) == (0, 0, 0)
    assert timeline.threads == ()
    assert timeline.devices == ()
    assert timeline.typical is None


def test_one_kernel_alone() -> None:
    timeline = built(kernels=[kernel(5, 8, "only")])
    assert spans_of(only_stream(timeline).operations) == [(5, 8, 0)]
    assert (timeline.start_ns, timeline.end_ns) == (5, 8)
    assert not len(timeline.devices[0].idle.pieces)


intervals = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 60)), max_size=40).map(
    lambda pairs: sorted((start, start + length) for start, length in pairs)
)


@settings(max_examples=200, deadline=None)
@given(spans=intervals, shift=st.integers(0, 6), groups=st.integers(1, 3))
def test_coverage_of_bins_is_what_counting_moments_gives(spans: list[tuple[int, int]], shift: int, groups: int) -> None:
    bins = Bins(-3, 470, shift)
    starts = np.array([start for start, _ in spans], np.int64)
    ends = np.array([end for _, end in spans], np.int64)
    group = (np.arange(len(spans)) % groups).astype(np.uint8)
    counted = np.zeros((groups, bins.count * bins.width_ns), np.int64)
    for place, (start, end) in enumerate(spans):
        counted[place % groups, start + 3 : end + 3] += 1
    expected = counted.reshape(groups, bins.count, bins.width_ns).sum(axis=2)
    assert module._covered(starts, ends, group, groups, bins).tolist() == expected.tolist()
    assert bins.edges[0] == -3
    assert bins.edges[-1] >= 470


@settings(max_examples=200, deadline=None)
@given(spans=intervals)
def test_each_interval_gets_the_first_free_row(spans: list[tuple[int, int]]) -> None:
    starts = np.array([start for start, _ in spans], np.int64)
    ends = np.array([end for _, end in spans], np.int64)
    busy_until: list[int] = []
    expected = []
    for start, end in spans:
        row = next((row for row, until in enumerate(busy_until) if until <= start), len(busy_until))
        busy_until[row : row + 1] = [max(end, start + 1)]
        expected.append(row)
    assert module._rows(starts, ends).tolist() == expected


def test_rows_have_a_limit() -> None:
    starts = np.arange(100, dtype=np.int64)
    rows = module._rows(starts, starts + 1000)
    assert rows[:64].tolist() == list(range(64))


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(0, 12), max_size=60), most=st.integers(0, 30))
def test_threshold_keeps_as_many_as_may_be_kept(lengths: list[int], most: int) -> None:
    least = module._threshold(np.array(lengths, np.int64), most)
    assert sum(length >= least for length in lengths) <= most or len(lengths) <= most
    shorter = [length for length in lengths if length < least]
    if shorter:
        assert sum(length >= max(shorter) for length in lengths) > most


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 17)), min_size=1, max_size=80),
    parts=st.integers(1, 6),
    most=st.integers(1, 20),
)
def test_long_idle_pieces_are_the_same_however_they_come(pieces: list[tuple[int, int]], parts: int, most: int) -> None:
    ends = np.cumsum([length + 1 for length, _ in pieces])
    starts = ends - np.array([length for length, _ in pieces])
    codes = np.array([code for _, code in pieces], np.uint8)
    bins = Bins(0, int(ends[-1]), 2)
    chosen = module._LongPieces(most, None, bins)
    for part in np.array_split(np.arange(len(pieces)), parts):
        chosen.add((starts[part], ends[part], codes[part]))
    lane = chosen.lane()
    least = module._threshold(ends - starts, most)
    kept = ends - starts >= least
    assert lane.at_least_ns == least
    assert lane.pieces.starts.tolist() == starts[kept].tolist()
    assert lane.pieces.what.tolist() == codes[kept].tolist()
    assert lane.piece_count == len(pieces)
    short = module._in_bytes(module._covered(starts[~kept], ends[~kept], codes[~kept], len(Cause), bins), bins)
    assert {cause: share.tolist() for cause, share in lane.more.items()} == {
        cause: short[cause].tolist() for cause in Cause if short[cause].any()
    }


def assert_complete(opened: Trace) -> None:
    """Every operation and range of a trace is in the timeline, once, with its exact times."""
    view = View(opened)
    timeline = timeline_of(view)
    for kind, table in (("kernels", Kind.KERNEL), ("memcpys", Kind.MEMCPY), ("memsets", Kind.MEMSET)):
        frame = opened.table_or_empty(kind)
        shown = sorted(
            pair
            for device in timeline.devices
            for lane in device.streams
            for pair, what in zip(
                zip(lane.operations.starts.tolist(), lane.operations.ends.tolist(), strict=True),
                lane.operations.what.tolist(),
                strict=True,
            )
            if timeline.shapes.kind[what] == table
        )
        assert shown == sorted(zip(frame["start_ns"].to_list(), frame["end_ns"].to_list(), strict=True))
    ranges = opened.table_or_empty("nvtx_events")
    ranges = ranges.filter(ranges["event_type"].is_in([59, 60, 70, 71]))
    assert sum(len(lane.ranges) for lane in timeline.threads) == len(ranges)
    for lane in timeline.threads:
        assert_rows_do_not_overlap(lane.ranges)
        assert_rows_do_not_overlap(lane.calls)
    for device in timeline.devices:
        assert_rows_do_not_overlap(device.idle.pieces)
        assert_names(opened, timeline, device)


def assert_names(opened: Trace, timeline: Timeline, device: DeviceLanes) -> None:
    kernels = opened.table_or_empty("kernels")
    names = {row: (name, grid) for row, name, grid in kernels.select("start_ns", "demangled_name", "grid_x").rows()}
    for lane in device.streams:
        assert_rows_do_not_overlap(lane.operations)
        for start, what in zip(lane.operations.starts.tolist(), lane.operations.what.tolist(), strict=True):
            if timeline.shapes.kind[what] == Kind.KERNEL:
                assert (timeline.names[timeline.shapes.name[what]], timeline.shapes.launch[what, 0]) == names[start]


def test_sample_is_complete_and_exact() -> None:
    assert_complete(open_trace(SAMPLE))
