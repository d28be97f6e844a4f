"""GPU operations as one list, and the launch of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import Row, call, kernel, operation, process, thread, trace
from nitro.analyzer.operations import NO_ROW, Kind, operations_of, stream_keys


def test_all_four_kinds_of_operation_come_ordered_by_start_end_and_correlation_id() -> None:
    built = trace(
        kernels=[kernel(10, 20, correlation_id=2), kernel(10, 20, correlation_id=1)],
        graph_launches=[operation(10, 15, correlation_id=9)],
        memcpys=[operation(5, 30, correlation_id=4)],
        memsets=[operation(10, 20, correlation_id=3)],
    )
    found = operations_of(built)
    assert found.kind.tolist() == [Kind.MEMCPY, Kind.GRAPH, Kind.KERNEL, Kind.KERNEL, Kind.MEMSET]
    assert found.correlation_id.tolist() == [4, 9, 1, 2, 3]
    assert found.row.tolist() == [0, 0, 1, 0, 0]


def test_a_trace_without_gpu_tables_has_no_operation() -> None:
    assert len(operations_of(trace(api_calls=[(0, 1)]))) == 0
    assert operations_of(trace()).device_ids == ()


def test_each_device_has_its_own_operations() -> None:
    built = trace(kernels=[kernel(0, 1, device_id=3), kernel(2, 3, device_id=0), kernel(4, 5, device_id=3)])
    found = operations_of(built)
    assert found.device_ids == (0, 3)
    assert found.of_device(3).starts.tolist() == [0, 4]


def test_a_driver_call_inside_a_runtime_call_is_not_a_second_launch() -> None:
    built = trace(
        kernels=[kernel(100, 200, correlation_id=7)],
        api_calls=[call(12, 18, "cuLaunchKernel", correlation_id=7), call(10, 20, correlation_id=7)],
    )
    assert operations_of(built).launch.tolist() == [1]


def test_of_calls_that_begin_together_the_longest_is_the_launch() -> None:
    built = trace(
        kernels=[kernel(100, 200, correlation_id=7)],
        api_calls=[call(10, 15, "cuLaunchKernel", correlation_id=7), call(10, 20, correlation_id=7)],
    )
    assert operations_of(built).launch.tolist() == [1]


def test_calls_are_found_in_any_order_of_rows() -> None:
    built = trace(
        kernels=[kernel(100, 200, correlation_id=1), kernel(200, 300, correlation_id=2)],
        api_calls=[call(30, 40, correlation_id=2), call(10, 20, correlation_id=1)],
    )
    assert operations_of(built).launch.tolist() == [1, 0]


def test_the_same_id_in_two_processes_is_two_launches() -> None:
    built = trace(
        kernels=[
            kernel(100, 110, correlation_id=1, global_pid=process(11)),
            kernel(120, 130, correlation_id=1, global_pid=process(12)),
        ],
        api_calls=[
            call(1, 2, correlation_id=1, tid=thread(5, 12)),
            call(3, 4, correlation_id=1, tid=thread(5, 11)),
        ],
    )
    assert operations_of(built).launch.tolist() == [1, 0]


def test_an_operation_of_a_process_without_calls_has_no_launch() -> None:
    built = trace(
        kernels=[kernel(100, 110, correlation_id=1, global_pid=process(99))],
        api_calls=[call(1, 2, correlation_id=1)],
    )
    assert operations_of(built).launch.tolist() == [NO_ROW]


def test_without_process_ids_the_calls_of_the_only_process_are_taken() -> None:
    built = trace(
        kernels=[kernel(100, 110, correlation_id=1, global_pid=None)],
        api_calls=[call(1, 2, correlation_id=1), call(3, 4, correlation_id=2, tid=thread(8))],
    )
    assert operations_of(built).launch.tolist() == [0]


def test_without_process_ids_and_with_two_processes_nobody_can_tell() -> None:
    built = trace(
        kernels=[kernel(100, 110, correlation_id=1, global_pid=None)],
        api_calls=[call(1, 2, correlation_id=1), call(3, 4, correlation_id=2, tid=thread(8, 12))],
    )
    assert operations_of(built).launch.tolist() == [NO_ROW]


@pytest.mark.parametrize("missing", [0, None])
def test_an_operation_without_an_id_has_no_launch(missing: int | None) -> None:
    built = trace(kernels=[kernel(100, 110, correlation_id=missing)], api_calls=[call(1, 2, correlation_id=0)])
    assert operations_of(built).launch.tolist() == [NO_ROW]


def test_an_operation_whose_call_was_not_recorded_has_no_launch() -> None:
    built = trace(kernels=[kernel(100, 110, correlation_id=5)], api_calls=[call(1, 2, correlation_id=4)])
    assert operations_of(built).launch.tolist() == [NO_ROW]


def test_huge_sparse_ids_are_joined_without_a_table_of_that_size() -> None:
    highest = 2**32 - 1
    built = trace(
        kernels=[
            kernel(100, 110, correlation_id=highest),
            kernel(120, 130, correlation_id=highest - 1),
            kernel(140, 150, correlation_id=1),
        ],
        api_calls=[
            call(1, 2, correlation_id=1),
            call(3, 9, correlation_id=highest),
            call(4, 8, "cuLaunchKernel", correlation_id=highest),
        ],
    )
    assert operations_of(built).launch.tolist() == [1, NO_ROW, 0]


def test_streams_of_the_same_number_are_told_apart_by_process_and_context() -> None:
    built = trace(
        kernels=[
            kernel(0, 1, stream_id=7),
            kernel(1, 2, stream_id=7, context_id=2),
            kernel(2, 3, stream_id=7, global_pid=process(5)),
            kernel(3, 4, stream_id=8),
            kernel(4, 5, stream_id=7),
        ]
    )
    assert built.kernels is not None
    keys = stream_keys(built.kernels).tolist()
    assert len(set(keys)) == 4
    assert keys[0] == keys[4]


PIDS = (11, 12)
IDS = (0, 1, 2, 3, 2**32 - 1)


@st.composite
def calls(draw: st.DrawFn) -> Row:
    start = draw(st.integers(0, 9))
    tid = thread(draw(st.integers(1, 2)), draw(st.sampled_from(PIDS)))
    return call(start, start + draw(st.integers(0, 5)), correlation_id=draw(st.sampled_from(IDS)), tid=tid)


@st.composite
def kernels(draw: st.DrawFn) -> Row:
    pid = draw(st.sampled_from([*map(process, PIDS), None]))
    start = draw(st.integers(0, 9))
    return kernel(start, start + draw(st.integers(0, 3)), correlation_id=draw(st.sampled_from(IDS)), global_pid=pid)


def launch_by_definition(operation: Row, calls: list[Row]) -> int:
    """Return the row of the outermost call of the operation's own process with its id."""
    processes = {row["global_tid"] >> 24 for row in calls}
    pid = operation["global_pid"]
    if pid is None and len(processes) == 1:
        pid = processes.pop() << 24
    own = [
        (row["start_ns"], -row["end_ns"], position)
        for position, row in enumerate(calls)
        if row["correlation_id"] == operation["correlation_id"] > 0
        and pid is not None
        and row["global_tid"] >> 24 == pid >> 24
    ]
    return min(own)[2] if own else NO_ROW


@given(st.lists(kernels(), min_size=1, max_size=8), st.lists(calls(), max_size=12))
def test_the_join_is_the_definition(given_kernels: list[Row], given_calls: list[Row]) -> None:
    found = operations_of(trace(kernels=given_kernels, api_calls=given_calls))
    expected = [launch_by_definition(given_kernels[row], given_calls) for row in found.row.tolist()]
    assert found.launch.tolist() == expected


@given(st.lists(kernels(), min_size=1, max_size=8))
def test_the_order_is_start_end_id(given_kernels: list[Row]) -> None:
    found = operations_of(trace(kernels=given_kernels))
    keys: list[Any] = list(zip(found.starts, found.ends, found.correlation_id, strict=True))
    assert keys == sorted(keys)
    assert sorted(found.row.tolist()) == list(range(len(given_kernels)))
    assert (np.diff(found.starts) >= 0).all()
