"""The reports on traces small enough to compute by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import (
    Row,
    call,
    empty_trace,
    kernel,
    nvtx_domain,
    nvtx_range,
    on_thread,
    operation,
    thread,
    trace,
    write_nsys_sqlite,
)
from nitro.analyzer import Trace, open_trace
from nitro.analyzer.stats import Report, known_reports, stats_report
from nitro.analyzer.stats._aggregate import round_to_tenths
from nitro.errors import UsageError

_START_END = 60
_VIRTUAL_MACHINE = 1 << 49


def rows(built: Trace, report: str, *headers: str) -> list[tuple[Any, ...]]:
    """Return the rows of a report, reduced to some columns."""
    table = stats_report(built, report)
    assert table.missing is None, table.missing
    return table.frame.select(headers or table.frame.columns).rows()


def kernels_lasting(*durations: int, name: str = "kernel") -> list[Row]:
    return [kernel(0, duration, name) for duration in durations]


# Rounding and statistics


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2.25, 2.3),  # a tie that a double holds exactly: Python's round gives 2.2
        (0.15, 0.2),  # a tie that the double misses by a little on the low side
        (0.35, 0.4),
        (1_000_000_000.05, 1_000_000_000.1),
        (2.24, 2.2),
        (9.96, 10.0),
        (0.0, 0.0),
        (7.0, 7.0),
        (2e17, 2e17),
    ],
)
def test_rounding_is_half_up_on_the_decimal_value(value: float, expected: float) -> None:
    assert round_to_tenths(np.array([value])).tolist() == [expected]


def test_average_is_rounded_as_sqlite_does_it() -> None:
    # (2 + 2 + 2 + 3) / 4 = 2.25; the sample deviation is 0.5.
    assert rows(trace(kernels=kernels_lasting(2, 2, 2, 3)), "cuda_gpu_kern_sum") == [
        (100.0, 9, 4, 2.3, 2.0, 2, 3, 0.5, "kernel")
    ]


def test_deviation_is_that_of_a_sample_and_zero_for_one() -> None:
    built = trace(kernels=[*kernels_lasting(1, 2, 3, 4, name="four"), *kernels_lasting(5, name="one")])
    # Deviations of 1, 2, 3, 4 from 2.5: (2.25 + 0.25 + 0.25 + 2.25) / 3 = 1.667, and its root is 1.291.
    assert rows(built, "cuda_gpu_kern_sum", "Name", "StdDev (ns)") == [("four", 1.3), ("one", 0.0)]


def test_median_of_an_even_number_is_the_mean_of_the_middle_two() -> None:
    assert rows(trace(kernels=kernels_lasting(1, 2, 5, 100)), "cuda_gpu_kern_sum", "Med (ns)") == [(3.5,)]


# cuda_gpu_kern_sum


def test_kernels_are_ordered_by_total_then_instances_then_name() -> None:
    built = trace(
        kernels=[
            *kernels_lasting(2, 4, name="a pair"),
            *kernels_lasting(6, name="single b"),
            *kernels_lasting(6, name="single a"),
            *kernels_lasting(7, name="z"),
        ]
    )
    assert [name for (name,) in rows(built, "cuda_gpu_kern_sum", "Name")] == ["z", "single a", "single b", "a pair"]


def test_kernel_of_no_length_is_an_instance_and_no_time_has_no_share() -> None:
    assert rows(trace(kernels=kernels_lasting(0, 4)), "cuda_gpu_kern_sum") == [
        (100.0, 4, 2, 2.0, 2.0, 0, 4, 2.8, "kernel")
    ]
    assert rows(trace(kernels=kernels_lasting(0)), "cuda_gpu_kern_sum") == [(None, 0, 1, 0.0, 0.0, 0, 0, 0.0, "kernel")]


def test_base_groups_by_function_name_and_a_lost_name_is_a_group() -> None:
    built = trace(kernels=[kernel(0, 4, "gemm<float>"), kernel(0, 2, "gemm<int>"), kernel(0, 1, None)])
    by_function = rows(built, "cuda_gpu_kern_sum:base", "Name", "Instances", "Time (%)")
    assert by_function == [("gemm", 2, 85.7), (None, 1, 14.3)]
    assert [name for (name,) in rows(built, "cuda_gpu_kern_sum", "Name")] == ["gemm<float>", "gemm<int>", None]


# cuda_api_sum and osrt_sum


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cudaLaunchKernel_v7000", "cudaLaunchKernel"),
        ("cudaGraphLaunch_v10000", "cudaGraphLaunch_v10000"),
        ("cudaMemcpy_ptsz_v7000", "cudaMemcpy_ptsz"),
        ("cuLaunchKernel", "cuLaunchKernel"),
        ("cuLaunch_V7000", "cuLaunch_V7000"),
        ("_v7000", ""),
    ],
)
def test_api_name_loses_a_version_of_four_characters_only(name: str, shown: str) -> None:
    assert rows(trace(api_calls=[call(0, 1, name)]), "cuda_api_sum", "Name") == [(shown,)]


def test_api_names_that_are_alike_without_version_stay_apart_by_string_id() -> None:
    calls = [call(0, 3, "cudaFree_v3020"), call(0, 3, "cudaFree_v9999"), call(0, 2, "cudaFree_v3020")]
    assert rows(trace(api_calls=calls), "cuda_api_sum", "Name", "Num Calls", "Total Time (ns)") == [
        ("cudaFree", 2, 5),
        ("cudaFree", 1, 3),
    ]


def test_os_calls_are_those_of_class_27() -> None:
    built = trace(
        os_calls=[on_thread(0, 5, name="poll"), on_thread(0, 90, name="thread", event_class=31), on_thread(0, 15)]
    )
    assert rows(built, "osrt_sum", "Name", "Num Calls", "Time (%)") == [("read", 1, 75.0), ("poll", 1, 25.0)]


# cuda_gpu_mem_time_sum and cuda_gpu_mem_size_sum


def test_copies_and_memsets_by_kind_with_sizes_in_decimal_megabytes() -> None:
    built = trace(
        memcpys=[
            operation(0, 10, copy_kind=1, bytes=1_000_000),
            operation(0, 20, copy_kind=1, bytes=3_000_000),
            operation(0, 5, copy_kind=12, bytes=2_000_500),
        ],
        memsets=[operation(0, 5, bytes=500)],
    )
    assert rows(built, "cuda_gpu_mem_time_sum", "Operation", "Total Time (ns)", "Count", "Time (%)") == [
        ("[CUDA memcpy Host-to-Device]", 30, 2, 75.0),
        ("[CUDA memcpy Unified Device-to-Host]", 5, 1, 12.5),
        ("[CUDA memset]", 5, 1, 12.5),
    ]
    assert rows(built, "cuda_gpu_mem_size_sum", "Operation", "Total (MB)", "Avg (MB)") == [
        ("[CUDA memcpy Host-to-Device]", 4.0, 2.0),
        ("[CUDA memcpy Unified Device-to-Host]", 2.0005, 2.0005),
        ("[CUDA memset]", 0.0005, 0.0005),
    ]


def test_copy_of_an_unknown_kind_is_left_out_as_nvidia_does() -> None:
    built = trace(memcpys=[operation(0, 10, copy_kind=1), operation(0, 30, copy_kind=99)])
    assert rows(built, "cuda_gpu_mem_time_sum", "Operation", "Time (%)") == [("[CUDA memcpy Host-to-Device]", 100.0)]


# cuda_kern_exec_sum


def test_launch_has_call_queue_and_execution() -> None:
    built = trace(kernels=[kernel(50, 90, correlation_id=1)], api_calls=[call(10, 20, correlation_id=1)])
    (row,) = rows(
        built, "cuda_kern_exec_sum", *("PID", "TID", "Count", "QCount"), *(f"{part}Avg (ns)" for part in "AQKT")
    )
    assert row == (100, 1, 1, 1, 10.0, 30.0, 40.0, 80.0)


def test_kernel_that_starts_before_its_call_returns_has_no_queue_time() -> None:
    built = trace(
        kernels=[kernel(15, 30, correlation_id=1), kernel(40, 45, correlation_id=2), kernel(61, 62, correlation_id=3)],
        api_calls=[
            call(10, 20, correlation_id=1),
            call(30, 40, correlation_id=2),
            call(50, 65, correlation_id=3),
        ],
    )
    # The second starts just when its call returns: its queue time is 0 and counts. The call of the third is the
    # last to end, so that the total runs to the end of the call.
    columns = ("Count", "QCount", "QAvg (ns)", "QStdDev (ns)", "TMax (ns)", "TMin (ns)")
    assert rows(built, "cuda_kern_exec_sum", *columns) == [(3, 1, 0.0, 0.0, 20, 15)]


def test_queue_columns_are_empty_where_no_launch_queued() -> None:
    built = trace(kernels=[kernel(15, 30, correlation_id=1)], api_calls=[call(10, 20, correlation_id=1)])
    columns = ("QCount", "QAvg (ns)", "QMed (ns)", "QMin (ns)", "QMax (ns)", "QStdDev (ns)")
    assert rows(built, "cuda_kern_exec_sum", *columns) == [(0, None, None, None, None, 0.0)]


def test_nested_driver_call_doubles_a_launch() -> None:
    built = trace(
        kernels=[kernel(50, 60, correlation_id=1)],
        api_calls=[
            call(10, 20, "cudaLaunchKernel_v7000", correlation_id=1),
            call(12, 18, "cuLaunchKernel", correlation_id=1),
        ],
    )
    assert rows(built, "cuda_kern_exec_sum", "API Name", "Count", "AAvg (ns)") == [
        ("cudaLaunchKernel", 1, 10.0),
        ("cuLaunchKernel", 1, 6.0),
    ]


def test_graph_launch_gives_a_row_for_each_of_its_kernels() -> None:
    built = trace(
        kernels=[kernel(20, 30, correlation_id=1), kernel(30, 40, correlation_id=1), kernel(40, 50, correlation_id=1)],
        api_calls=[call(0, 10, "cudaGraphLaunch_v10000", correlation_id=1)],
    )
    # Queue times 10, 20, 30; totals 30, 40, 50.
    columns = ("Count", "AAvg (ns)", "QAvg (ns)", "TAvg (ns)", "API Name")
    assert rows(built, "cuda_kern_exec_sum", *columns) == [(3, 10.0, 20.0, 40.0, "cudaGraphLaunch_v10000")]


def test_kernel_joins_only_calls_of_its_own_process() -> None:
    built = trace(
        kernels=[kernel(20, 30, correlation_id=1), kernel(20, 30, correlation_id=7)],
        api_calls=[call(0, 10, correlation_id=1), call(0, 9, correlation_id=1, tid=thread(1, pid=200))],
    )
    assert rows(built, "cuda_kern_exec_sum", "PID", "Count") == [(100, 1)]


def test_launches_are_ordered_by_average_total_not_by_time_or_count() -> None:
    built = trace(
        kernels=[
            kernel(10, 20, "often", correlation_id=1),
            kernel(30, 40, "often", correlation_id=2),
            kernel(70, 85, "once", correlation_id=3),
        ],
        api_calls=[call(5, 8, correlation_id=1), call(25, 28, correlation_id=2), call(65, 68, correlation_id=3)],
    )
    assert rows(built, "cuda_kern_exec_sum", "Kernel Name", "TAvg (ns)") == [("once", 20.0), ("often", 15.0)]


def test_process_and_thread_numbers_ignore_host_and_machine_bits() -> None:
    far = thread(3, pid=4242) - (1 << 63)
    built = trace(
        kernels=[kernel(20, 30, correlation_id=1, global_pid=far - 3)],
        api_calls=[call(0, 10, correlation_id=1, tid=far)],
    )
    assert rows(built, "cuda_kern_exec_sum", "PID", "TID") == [(4242, 3)]


# nvtx_sum


def test_ranges_are_grouped_by_name_and_style_with_their_domain() -> None:
    built = trace(
        nvtx=[
            nvtx_domain(3, "DOM"),
            nvtx_range(0, 10, "step"),
            nvtx_range(0, 10, "step", event_type=_START_END),
            nvtx_range(0, 30, "step", domain_id=3),
            nvtx_range(0, 50, "step", domain_id=9),  # no such domain was created
            nvtx_range(0, 0, "a mark", event_type=34),
        ]
    )
    assert rows(built, "nvtx_sum", "Range", "Style", "Total Time (ns)", "Instances", "Time (%)") == [
        ("step", "PushPop", 60, 2, 60.0),
        ("DOM:step", "PushPop", 30, 1, 30.0),
        ("step", "StartEnd", 10, 1, 10.0),
    ]


def test_domain_belongs_to_the_process_that_created_it() -> None:
    other = thread(1, pid=200)
    built = trace(
        nvtx=[
            nvtx_domain(3, "DOM"),
            nvtx_range(0, 10, "here", domain_id=3, tid=thread(2) | _VIRTUAL_MACHINE),
            nvtx_range(0, 5, "there", domain_id=3, tid=other),
        ]
    )
    assert rows(built, "nvtx_sum", "Range") == [("DOM:here",), ("there",)]


def test_domain_that_is_created_again_keeps_its_first_name(tmp_path: Path) -> None:
    built = trace(nvtx=[nvtx_domain(3, "first"), nvtx_domain(3, "second"), nvtx_range(0, 10, "step", domain_id=3)])
    exported = open_trace(write_nsys_sqlite(tmp_path / "trace.sqlite", built))
    assert rows(exported, "nvtx_sum", "Range") == [("first:step",)]


def test_unclosed_range_ends_with_the_last_event() -> None:
    built = trace(
        nvtx=[nvtx_range(10, None, "open"), nvtx_range(20, 60, "closed"), nvtx_range(90, None, event_type=34)]
    )
    assert rows(built, "nvtx_sum", "Range", "Total Time (ns)") == [("open", 80), ("closed", 40)]


def test_unclosed_range_has_no_length_where_nothing_ends() -> None:
    built = trace(nvtx=[nvtx_range(10, None, "open")])
    assert rows(built, "nvtx_sum") == [(None, None, 1, None, None, None, None, 0.0, "PushPop", "open")]


def test_ranges_without_a_text_are_a_group() -> None:
    built = trace(nvtx=[nvtx_range(0, 10, None), nvtx_range(0, 5, "")])
    assert rows(built, "nvtx_sum", "Range", "Total Time (ns)") == [(None, 10), ("", 5)]


# nvtx_gpu_proj_sum


def launching(*spans: tuple[int, int, int, int], nvtx: list[Row]) -> Trace:
    """Return a trace of kernels and their calls from (call start, call end, kernel start, kernel end)."""
    numbered = list(enumerate(spans, start=1))
    return trace(
        kernels=[kernel(start, end, correlation_id=number) for number, (_, _, start, end) in numbered],
        api_calls=[call(start, end, correlation_id=number) for number, (start, end, _, _) in numbered],
        nvtx=nvtx,
    )


_PROJECTION = ("Range", "Total Proj Time (ns)", "Total Range Time (ns)", "Total GPU Ops", "Avg Range Lvl")


def test_projection_is_the_span_of_the_operations_launched_inside() -> None:
    built = launching(
        (10, 12, 100, 110),
        (30, 32, 200, 230),
        (70, 72, 300, 310),
        nvtx=[nvtx_range(0, 50, "outer"), nvtx_range(25, 40, "inner"), nvtx_range(60, 65, "launches nothing")],
    )
    # outer: first start 100, last end 230. inner: 200 to 230, and outer is its parent.
    assert rows(built, "nvtx_gpu_proj_sum", *_PROJECTION, "Avg Num Child") == [
        ("outer", 130, 50, 2, 0.0, 1.0),
        ("inner", 30, 15, 1, 1.0, 0.0),
    ]


def test_call_that_straddles_the_end_belongs_to_the_outer_range_only() -> None:
    built = launching(
        (10, 20, 100, 110),
        (38, 41, 200, 210),
        nvtx=[nvtx_range(0, 50, "outer"), nvtx_range(10, 40, "inner")],
    )
    # The first call starts just when the inner range starts, and is inside.
    assert rows(built, "nvtx_gpu_proj_sum", "Range", "Total Proj Time (ns)") == [("outer", 110), ("inner", 10)]


def test_driver_call_inside_counts_its_operation_where_the_runtime_call_around_it_straddles() -> None:
    built = trace(
        kernels=[kernel(100, 110, correlation_id=1)],
        api_calls=[call(10, 50, correlation_id=1), call(12, 30, correlation_id=1)],
        nvtx=[nvtx_range(0, 60, "outer"), nvtx_range(11, 40, "inner")],
    )
    assert rows(built, "nvtx_gpu_proj_sum", "Range", "Total GPU Ops") == [("inner", 1), ("outer", 1)]


def test_calls_side_by_side_with_one_correlation_id_are_one_operation() -> None:
    built = trace(
        kernels=[kernel(100, 110, correlation_id=1)],
        api_calls=[call(10, 20, correlation_id=1), call(30, 40, correlation_id=1), call(50, 60, correlation_id=1)],
        nvtx=[nvtx_range(0, 45, "two"), nvtx_range(0, 70, "three"), nvtx_range(5, 25, "one")],
    )
    counts = rows(built, "nvtx_gpu_proj_sum", "Range", "Total GPU Ops", "Total Proj Time (ns)")
    assert counts == [("one", 1, 10), ("three", 1, 10), ("two", 1, 10)]


def test_graph_launch_is_one_operation() -> None:
    built = trace(
        kernels=[kernel(20, 30, correlation_id=1), kernel(40, 50, correlation_id=1)],
        memsets=[operation(60, 70, correlation_id=1)],
        api_calls=[call(0, 10, "cudaGraphLaunch_v10000", correlation_id=1)],
        nvtx=[nvtx_range(0, 10, "step")],
    )
    assert rows(built, "nvtx_gpu_proj_sum", *_PROJECTION) == [("step", 50, 10, 1, 0.0)]


def test_range_of_another_thread_does_not_see_the_launch() -> None:
    built = launching(
        (10, 20, 100, 110),
        nvtx=[nvtx_range(0, 50, "here"), nvtx_range(0, 50, "elsewhere", tid=thread(2))],
    )
    assert rows(built, "nvtx_gpu_proj_sum", "Range") == [("here",)]


def test_range_ended_by_a_named_thread_is_left_out_even_of_the_levels() -> None:
    built = launching(
        (10, 20, 100, 110),
        nvtx=[
            nvtx_range(0, 50, "by another", event_type=_START_END, end_global_tid=thread(2)),
            nvtx_range(1, 49, "by itself", event_type=_START_END, end_global_tid=thread(1)),
            nvtx_range(2, 48, "plain", event_type=_START_END),
        ],
    )
    assert rows(built, "nvtx_gpu_proj_sum", "Range", "Style", "Avg Range Lvl") == [("plain", "StartEnd", 0.0)]


def test_unclosed_range_takes_the_launches_until_the_last_range_and_parents_the_others() -> None:
    built = launching(
        (10, 20, 100, 110),
        (60, 70, 200, 210),
        (95, 96, 300, 310),
        nvtx=[nvtx_range(5, None, "open"), nvtx_range(50, 80, "closed"), nvtx_range(99, None, event_type=34)],
    )
    # The last range ends at 80; the mark at 99 closes ranges in nvtx_sum only.
    assert rows(built, "nvtx_gpu_proj_sum", *_PROJECTION) == [("open", 110, 75, 2, 0.0), ("closed", 10, 30, 1, 1.0)]


def test_equal_ranges_and_those_inside_them_have_no_level() -> None:
    built = launching(
        (10, 20, 100, 110),
        nvtx=[nvtx_range(0, 50, "a"), nvtx_range(0, 50, "b"), nvtx_range(5, 30, "c")],
    )
    assert rows(built, "nvtx_gpu_proj_sum", "Range", "Avg Range Lvl", "Avg Num Child") == [
        ("a", None, 2.0),
        ("b", None, 1.0),
        ("c", None, 0.0),
    ]


def test_nameless_range_is_hidden_but_counts_as_a_parent() -> None:
    built = launching(
        (10, 20, 100, 110),
        nvtx=[nvtx_range(0, 50, None), nvtx_range(5, 30, "inner")],
    )
    assert rows(built, "nvtx_gpu_proj_sum", "Range", "Avg Range Lvl") == [("inner", 1.0)]


def test_instances_are_averaged() -> None:
    built = launching(
        (10, 12, 100, 110),
        (14, 16, 120, 130),
        (30, 32, 200, 203),
        nvtx=[nvtx_range(5, 20, "step"), nvtx_range(25, 40, "step"), nvtx_range(50, 60, "step")],
    )
    # Projections of 30 and 3 ns; the third instance launched nothing. Deviation: 27 / √2 = 19.09.
    assert rows(built, "nvtx_gpu_proj_sum") == [
        ("step", "PushPop", 33, 30, 2, 16.5, 16.5, 3, 30, 19.1, 3, 1.5, 0.0, 0.0)
    ]


# What is missing


@pytest.mark.parametrize("report", known_reports())
def test_report_without_a_table_says_which(report: str) -> None:
    table = stats_report(trace(), report)
    assert table.frame.is_empty()
    assert table.frame.columns == [column.header for column in table.columns]
    assert table.missing is not None
    assert table.missing.startswith("the trace has no ")
    assert " table (record with --trace=" in table.missing


@pytest.mark.parametrize("report", known_reports())
def test_report_without_rows_says_so(report: str) -> None:
    table = stats_report(empty_trace(), report)
    assert table.frame.is_empty()
    assert str(table.missing).startswith("the trace has no rows in ")


def test_rows_that_do_not_meet_are_explained() -> None:
    built = trace(
        kernels=[kernel(0, 1, correlation_id=1)],
        api_calls=[call(0, 1, correlation_id=2)],
        nvtx=[nvtx_range(0, 9, event_type=34)],
        os_calls=[on_thread(0, 1, event_class=31)],
    )
    assert str(stats_report(built, "cuda_kern_exec_sum").missing).startswith("no kernel of the trace has an API call")
    assert str(stats_report(built, "nvtx_gpu_proj_sum").missing).startswith("no API call that launched GPU work lies")
    assert stats_report(built, "nvtx_sum").missing == "the NVTX events of the trace hold no ranges"
    assert stats_report(built, "osrt_sum").missing == "the trace has no rows of calls in os_calls"


def test_unknown_report_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"there is no report 'kern'; choose from cuda_api_sum, .*, osrt_sum\."):
        stats_report(trace(), "kern")


@pytest.mark.parametrize("report", known_reports().values(), ids=lambda report: report.name)
def test_report_is_defined_with_source_and_order(report: Report) -> None:
    assert f"`{report.name.partition(':')[0]}`" in report.definition
    assert "Source: " in report.definition
    assert "Order: " in report.definition
