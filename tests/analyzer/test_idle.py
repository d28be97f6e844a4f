"""Idle time by cause: each cause by hand, and all of them against the definition, nanosecond by nanosecond."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import (
    Row,
    call,
    context_switch,
    kernel,
    on_thread,
    operation,
    process,
    scheduled,
    stream_wait,
    thread,
    trace,
)
from idle_by_definition import CONTEXT_START, RESTORE_START, SAVE_END, busy_ns, idle_causes, operations_in_order
from nitro.analyzer import Trace, analyze
from nitro.analyzer.causes import Cause
from nitro.analyzer.idle import IdleAttribution, gaps_of
from nitro.analyzer.metric import Measurement
from nitro.analyzer.metrics.gpu_idle import METRIC as GPU_IDLE
from nitro.analyzer.threads import ThreadActivity
from nitro.analyzer.view import Scope, View


def causes(built: Trace, low: int, high: int, device_id: int = 0) -> dict[str, int]:
    """Idle ns by cause in a window, without causes of 0 ns."""
    found = GPU_IDLE.results(View(built, Scope(since_ns=low, until_ns=high)))
    return {
        str(part.by): int(part.value)
        for part in found
        if isinstance(part, Measurement) and (part.metric, part.device_id) == ("gpu_idle_by_cause", device_id)
    }


def cause_of_each_ns(built: Trace, low: int, high: int, device_id: int = 0) -> dict[int, str]:
    view = View(built, Scope(since_ns=low, until_ns=high))
    device = next(device for device in view.devices if device.device_id == device_id)
    attribution = IdleAttribution(built, device.operations, view.activity)
    found: dict[int, str] = {}
    for pieces in attribution.pieces(device.gaps):
        for start, end, code in zip(pieces.starts.tolist(), pieces.ends.tolist(), pieces.codes.tolist(), strict=True):
            for moment in range(start, end):
                assert moment not in found
                found[moment] = Cause(code).id
    return found


def before_second_kernel(*calls: Row, **tables: Any) -> Trace:
    """Two kernels with a gap from 100 to 200; the second is launched by a call from 180 to 190."""
    return trace(
        kernels=[kernel(0, 100, correlation_id=1), kernel(200, 300, correlation_id=2)],
        api_calls=[call(-20, -10, correlation_id=1), call(180, 190, correlation_id=2), *calls],
        **tables,
    )


def test_time_outside_cuda_is_host_code_then_the_launch_call_then_latency() -> None:
    assert causes(before_second_kernel(), 0, 300) == {"host_code": 80, "launch_call": 10, "launch_latency": 10}


def test_the_window_may_cut_a_gap_on_both_sides() -> None:
    assert causes(before_second_kernel(), 150, 185) == {"host_code": 30, "launch_call": 5}


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("cudaDeviceSynchronize_v3020", "synchronization"),
        ("cuEventSynchronize", "synchronization"),
        ("cudaMemcpyAsync_v3020", "copy_call"),
        ("cuMemsetD8Async", "copy_call"),
        ("cudaMalloc_v3020", "memory_management"),
        ("cuMemAlloc_v2", "memory_management"),
        ("cudaHostAlloc_v3020", "memory_management"),
        ("cudaFree_v3020", "memory_management"),
        ("cuModuleLoadData", "module_load"),
        ("cuLibraryLoadData", "module_load"),
        ("cuLinkComplete", "module_load"),
        ("cuKernelGetFunction", "module_load"),
        ("cudaGraphLaunch_v10000", "launching_other"),
        ("cudaEventRecord_v3020", "other_cuda_api"),
        (None, "other_cuda_api"),
    ],
)
def test_a_call_before_the_launch_has_the_class_of_its_name(name: str | None, cause: str) -> None:
    expected = {cause: 40, "host_code": 40, "launch_call": 10, "launch_latency": 10}
    assert causes(before_second_kernel(call(120, 160, name)), 0, 300) == expected


def test_of_nested_calls_the_outermost_decides() -> None:
    built = before_second_kernel(call(120, 160, "cudaMalloc_v3020"), call(130, 150, "cuCtxSynchronize"))
    assert causes(built, 0, 300)["memory_management"] == 40


def test_calls_of_another_thread_do_not_matter() -> None:
    built = before_second_kernel(call(120, 160, "cudaMalloc_v3020", tid=thread(2)))
    assert causes(built, 0, 300) == {"host_code": 80, "launch_call": 10, "launch_latency": 10}


def test_profiler_overhead_goes_before_every_call_and_os_calls_come_after() -> None:
    built = before_second_kernel(
        call(120, 140, "cudaMalloc_v3020"),
        profiler_overheads=[on_thread(110, 130)],
        os_calls=[on_thread(105, 150)],
        sched_events=[scheduled(100, False), scheduled(170, True)],
    )
    expected = {
        "profiler_overhead": 20,
        "memory_management": 10,
        "os_call": 5 + 10,
        "not_scheduled": 5 + 20,
        "host_code": 10,
        "launch_call": 10,
        "launch_latency": 10,
    }
    assert causes(built, 0, 300) == expected


@pytest.mark.parametrize(("overhead_type", "counts"), [(2, False), (3, True), (4, True), (5, True), (6, False)])
def test_of_cupti_overheads_only_the_profilers_own_count(overhead_type: int, counts: bool) -> None:
    built = before_second_kernel(cuda_overheads=[on_thread(110, 130, overhead_type=overhead_type)])
    assert causes(built, 0, 300).get("profiler_overhead", 0) == (20 if counts else 0)


def test_a_copy_whose_own_call_runs_waits_for_a_copy_call() -> None:
    built = trace(
        memcpys=[operation(0, 100), operation(200, 300, correlation_id=2)],
        api_calls=[call(180, 250, "cudaMemcpy_v3020", correlation_id=2)],
    )
    assert causes(built, 0, 300) == {"host_code": 80, "copy_call": 20}


def test_an_operation_queued_before_the_gap_shows_a_device_gap() -> None:
    built = trace(
        kernels=[kernel(0, 100, correlation_id=1), kernel(130, 200, correlation_id=2)],
        api_calls=[call(-20, -10, correlation_id=1), call(-9, -5, correlation_id=2)],
    )
    assert causes(built, 0, 200) == {"device_gap": 30}


def test_a_launch_that_returned_as_the_gap_began_had_queued_the_operation() -> None:
    built = trace(kernels=[(0, 100), kernel(130, 200, correlation_id=2)], api_calls=[call(90, 100, correlation_id=2)])
    assert causes(built, 0, 200) == {"device_gap": 30}


def test_a_launch_that_returned_inside_the_gap_met_an_empty_queue() -> None:
    built = trace(kernels=[(0, 100), kernel(130, 200, correlation_id=2)], api_calls=[call(90, 101, correlation_id=2)])
    assert causes(built, 0, 200) == {"launch_call": 1, "launch_latency": 29}


def test_whether_the_queue_was_empty_is_told_by_the_whole_gap_not_by_the_window() -> None:
    built = trace(kernels=[(0, 100), kernel(130, 200, correlation_id=2)], api_calls=[call(90, 101, correlation_id=2)])
    assert causes(built, 120, 200) == {"launch_latency": 10}


def queued_with(*waits: Row) -> Trace:
    """Three launches on one stream at -40, -30 and -20; before the third kernel there is a gap of 30 ns."""
    return trace(
        kernels=[
            kernel(0, 50, correlation_id=1),
            kernel(50, 100, correlation_id=2),
            kernel(130, 200, correlation_id=3),
        ],
        api_calls=[call(at, at + 5, correlation_id=number) for number, at in enumerate((-40, -30, -20), start=1)],
        synchronizations=list(waits),
    )


def test_a_stream_wait_between_the_launch_before_and_its_own_is_a_dependency() -> None:
    assert causes(queued_with(stream_wait(-25)), 0, 200) == {"dependency": 30}


def test_a_stream_wait_before_the_launch_before_concerned_that_one() -> None:
    assert causes(queued_with(stream_wait(-35)), 0, 200) == {"device_gap": 30}


def test_a_stream_wait_after_the_launch_came_too_late() -> None:
    assert causes(queued_with(stream_wait(-15)), 0, 200) == {"device_gap": 30}


def test_a_stream_wait_at_the_moment_of_a_launch_belongs_to_that_launch() -> None:
    assert causes(queued_with(stream_wait(-20)), 0, 200) == {"dependency": 30}
    assert causes(queued_with(stream_wait(-30)), 0, 200) == {"device_gap": 30}


@pytest.mark.parametrize("elsewhere", [{"stream_id": 8}, {"context_id": 2}, {"global_pid": process(5)}])
def test_a_stream_wait_of_another_stream_does_not_matter(elsewhere: dict[str, int]) -> None:
    assert causes(queued_with(stream_wait(-25, **elsewhere)), 0, 200) == {"device_gap": 30}


def test_other_kinds_of_synchronisation_are_no_stream_wait() -> None:
    assert causes(queued_with(operation(-25, -25, sync_type=1)), 0, 200) == {"device_gap": 30}


def queued_while(*events: Row, **tables: Any) -> Trace:
    """A gap from 50 to 100 before an operation that had been queued long before."""
    return trace(
        kernels=[kernel(0, 50, correlation_id=1), kernel(100, 150, correlation_id=2)],
        api_calls=[call(-40, -35, correlation_id=1), call(-30, -25, correlation_id=2)],
        context_switches=list(events),
        **tables,
    )


def test_a_queued_operation_waits_for_another_context_from_its_save_to_its_restore() -> None:
    built = queued_while(
        context_switch(60, SAVE_END),
        context_switch(62, RESTORE_START, 200),
        context_switch(80, SAVE_END, 200),
        context_switch(85, RESTORE_START),
    )
    assert causes(built, 0, 150) == {"device_gap": 10 + 15, "other_context": 25}


def test_of_another_context_and_a_stream_wait_the_context_goes_first() -> None:
    built = queued_while(
        context_switch(60, SAVE_END), context_switch(80, RESTORE_START), synchronizations=[stream_wait(-32)]
    )
    assert causes(built, 0, 150) == {"dependency": 10 + 20, "other_context": 20}


def test_context_switches_of_another_device_and_other_events_do_not_matter() -> None:
    assert causes(queued_while(context_switch(60, SAVE_END, device_id=1)), 0, 150) == {"device_gap": 50}
    assert causes(queued_while(context_switch(60, 1)), 0, 150) == {"device_gap": 50}


def test_an_operation_that_was_launched_into_an_empty_queue_does_not_wait_for_a_context() -> None:
    built = before_second_kernel(context_switches=[context_switch(150, SAVE_END), context_switch(199, RESTORE_START)])
    assert causes(built, 0, 300) == {"host_code": 80, "launch_call": 10, "launch_latency": 10}


def test_time_after_the_last_operation_is_after_last() -> None:
    assert causes(trace(kernels=[(0, 100)]), 0, 150) == {"after_last": 50}


def test_an_operation_without_a_call_leaves_its_gap_unattributed() -> None:
    assert causes(trace(kernels=[(0, 100), (130, 200)], api_calls=[]), 0, 200) == {"unattributed": 30}


def test_time_before_the_window_ends_belongs_to_the_next_operation_beyond_it() -> None:
    assert causes(before_second_kernel(), 100, 150) == {"host_code": 50}


def test_an_operation_of_length_zero_ends_a_gap_and_begins_the_next() -> None:
    built = trace(
        kernels=[(0, 100), kernel(150, 150, correlation_id=2), kernel(200, 300, correlation_id=3)],
        api_calls=[call(90, 95, correlation_id=2), call(160, 170, "cudaLaunchKernel_v7000", correlation_id=3)],
    )
    expected = {"device_gap": 50, "host_code": 10, "launch_call": 10, "launch_latency": 30}
    assert causes(built, 0, 300) == expected


def test_touching_operations_leave_no_gap() -> None:
    assert causes(trace(kernels=[(0, 100), (100, 200)]), 0, 200) == {}


def test_an_operation_inside_another_ends_no_gap() -> None:
    built = trace(kernels=[(0, 100), (10, 20), kernel(130, 200, correlation_id=2)], api_calls=[])
    assert causes(built, 0, 200) == {"unattributed": 30}


def test_a_device_is_idle_although_another_one_works() -> None:
    built = trace(kernels=[kernel(0, 10, device_id=0), kernel(0, 50, device_id=1), kernel(40, 50, device_id=0)])
    assert causes(built, 0, 50, device_id=0) == {"unattributed": 30}
    assert causes(built, 0, 50, device_id=1) == {}


def test_causes_switched_off_leave_their_time_to_the_next_that_applies() -> None:
    built = before_second_kernel(
        profiler_overheads=[on_thread(110, 130)],
        os_calls=[on_thread(105, 150)],
        sched_events=[scheduled(100, False), scheduled(170, True)],
    )
    off = frozenset({Cause.PROFILER_OVERHEAD, Cause.OS_CALL, Cause.NOT_SCHEDULED, Cause.DEPENDENCY})
    view = View(built, Scope(window="all"))
    operations = view.operations
    attribution = IdleAttribution(built, operations, ThreadActivity(built, off), off)
    found: Counter[str] = Counter()
    for pieces in attribution.pieces(gaps_of(operations, 0, 300)):
        for length, code in zip((pieces.ends - pieces.starts).tolist(), pieces.codes.tolist(), strict=True):
            found[Cause(code).id] += length
    assert found == {"host_code": 80, "launch_call": 10, "launch_latency": 10}


def test_a_name_lost_among_256_names_of_calls_is_still_another_cuda_call() -> None:
    others = [call(1_000 + number, 1_000 + number, f"cuThing{number}") for number in range(255)]
    built = before_second_kernel(call(120, 160, None), *others)
    assert causes(built, 0, 300)["other_cuda_api"] == 40


TIMES = st.integers(0, 40)
THREADS = (thread(1), thread(1), thread(2), thread(1, 200))
OPERATION_TABLES = ("kernels", "kernels", "graph_launches", "memcpys", "memsets")
LAUNCHES = ("cudaLaunchKernel_v7000", "cudaGraphLaunch_v10000", "cudaMemcpyAsync_v3020", None)
OTHER_CALLS = (
    *("cudaDeviceSynchronize_v3020", "cudaMalloc_v3020", "cuModuleLoadData", "cudaEventRecord_v3020"),
    *("cudaLaunchKernel_v7000", "cudaMemsetAsync_v3020", None),
)


# Strategies are made once, which takes longer than to draw from them.
SHORT, COIN, ONE_IN_TEN = st.integers(0, 5), st.booleans(), st.integers(0, 9)
TIDS, DEVICES, STREAMS = st.sampled_from(THREADS), st.sampled_from([0, 0, 0, 1]), st.integers(7, 8)
CORRELATIONS, LAUNCH_NAMES = st.sampled_from([*range(1, 8), 0]), st.sampled_from(LAUNCHES)
INNER, QUEUE, FIRST_OR_SECOND = st.integers(0, 2), st.integers(0, 15), st.integers(0, 1)
TABLES_OF_OPERATIONS = st.sampled_from(OPERATION_TABLES)


@st.composite
def launches(draw: st.DrawFn) -> tuple[str, Row, list[Row]]:
    """An operation, the table it belongs to, and its calls: a runtime call, a driver call in it, or none."""
    tid, correlation_id = draw(TIDS), draw(CORRELATIONS)
    start = draw(TIMES) - 6
    end = start + draw(SHORT)
    calls = [call(start, end, draw(LAUNCH_NAMES), correlation_id=correlation_id, tid=tid)]
    if draw(COIN):
        inner = call(start + draw(INNER), end, "cuLaunchKernel", correlation_id=correlation_id, tid=tid)
        calls.insert(draw(FIRST_OR_SECOND), inner)
    begin = start + draw(QUEUE)
    launched = operation(
        begin,
        begin + draw(SHORT),
        correlation_id=correlation_id,
        device_id=draw(DEVICES),
        stream_id=draw(STREAMS),
        global_pid=tid & ~0xFFFFFF,
    )
    return draw(TABLES_OF_OPERATIONS), launched, calls if draw(ONE_IN_TEN) else []


def _maybe(rows: st.SearchStrategy[Row], most: int) -> st.SearchStrategy[list[Row] | None]:
    return st.none() | st.lists(rows, max_size=most)


SPANS = st.builds(
    lambda time, length, tid: on_thread(time - 6, time - 6 + length, tid=tid), TIMES, st.integers(0, 12), TIDS
)
EXTRA_CALLS = st.lists(
    st.builds(
        lambda row, name: call(row["start_ns"], row["end_ns"], name, tid=row["global_tid"]),
        SPANS,
        st.sampled_from(OTHER_CALLS),
    ),
    max_size=8,
)
WAITS = st.builds(
    lambda time, kind, stream: operation(time - 6, time - 6, sync_type=kind, stream_id=stream),
    TIMES,
    st.sampled_from([1, 2, 2, 2]),
    STREAMS,
)
SWITCHES = st.builds(
    lambda time, tag, pid, device_id: context_switch(time - 6, tag, pid, device_id=device_id),
    TIMES,
    st.sampled_from([1, SAVE_END, SAVE_END, RESTORE_START, CONTEXT_START]),
    st.sampled_from([100, 100, 200]),
    DEVICES,
)
OVERHEADS = st.builds(lambda row, kind: row | {"overhead_type": kind}, SPANS, st.integers(1, 7))
LAUNCHED = st.lists(launches(), min_size=1, max_size=7)
OTHER_TABLES = st.fixed_dictionaries(
    {
        "os_calls": _maybe(SPANS, 4),
        "synchronizations": _maybe(WAITS, 6),
        "profiler_overheads": _maybe(SPANS, 2),
        "cuda_overheads": _maybe(OVERHEADS, 2),
        "context_switches": _maybe(SWITCHES, 6),
        "sched_events": _maybe(st.builds(scheduled, TIMES, COIN, TIDS), 6),
    }
)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    made = draw(LAUNCHED)
    calls = [row for _, _, own in made for row in own] + draw(EXTRA_CALLS)
    rows = {name: [row for table, row, _ in made if table == name] or None for name in OPERATION_TABLES}
    others: dict[str, Any] = draw(OTHER_TABLES)
    return trace(
        kernels=rows["kernels"],
        graph_launches=rows["graph_launches"],
        memcpys=rows["memcpys"],
        memsets=rows["memsets"],
        api_calls=calls if draw(ONE_IN_TEN) else None,
        **others,
    )


def works_on_device_0(built: Trace) -> bool:
    return bool(operations_in_order(built, 0))


@settings(max_examples=400, deadline=None)
@given(traces().filter(works_on_device_0), st.integers(-10, 20), st.integers(1, 50))
def test_every_nanosecond_has_the_cause_that_the_definition_gives_it(built: Trace, low: int, length: int) -> None:
    expected = idle_causes(built, 0, low, low + length)
    assert cause_of_each_ns(built, low, low + length) == expected
    assert causes(built, low, low + length) == dict(Counter(expected.values()))


@settings(max_examples=150, deadline=None)
@given(traces(), st.integers(-10, 20), st.integers(1, 50))
def test_busy_and_idle_make_the_window_and_overlap_is_never_negative(built: Trace, low: int, length: int) -> None:
    analysis = analyze(built, since_ns=low, until_ns=low + length)
    for device in analysis.devices:
        busy, idle = (analysis.value(name, device.device_id) for name in ("gpu_busy", "gpu_idle"))
        assert busy == busy_ns(built, device.device_id, low, low + length)
        assert idle == length - busy
        overlap = analysis.value("overlap", device.device_id)
        assert overlap is not None
        assert overlap >= 0
