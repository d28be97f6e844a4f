"""Counters joined to the kernels of a trace, the roofline, and what holds a kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import gpu, kernel, trace
from nitro.analyzer import Analysis, Device, Source, Trace, analyze
from nitro.analyzer.counters import LAUNCH_COLUMNS, SHAPE, VALUE_COLUMNS, KernelCounters, joined_to_kernels, per_launch
from nitro.analyzer.roofline import bound_of, most_time, roofs_of
from nitro.errors import InputError

ORIN = Device(0, "Orin", compute_capability="8.7", sm_count=8, memory_bandwidth_bytes_per_s=10**11)
TIME, SM, MEMORY = (
    "gpu__time_duration.sum",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed",
)
FMA = "smsp__sass_thread_inst_executed_op_ffma_pred_on.sum"
ACTIVE, ELAPSED = "sm__cycles_active.avg", "sm__cycles_elapsed.avg"


def counters(*launches: tuple[str, int, Mapping[str, float]], **more: Any) -> KernelCounters:
    """Return counters of launches: function, blocks in x, and values by metric."""
    rows = [
        {"launch": number, "name": name, "function_name": name, "device_name": None, "compute_capability": None}
        | dict.fromkeys(SHAPE, 1)
        | {"grid_x": blocks}
        | more
        for number, (name, blocks, _) in enumerate(launches)
    ]
    values = [(n, metric, value, "") for n, (_, _, given) in enumerate(launches) for metric, value in given.items()]
    return KernelCounters(
        source=Source("counters.csv", "ncu"),
        records=len(rows),
        launches=pl.DataFrame(rows, schema=LAUNCH_COLUMNS),
        values=pl.DataFrame(values, schema=VALUE_COLUMNS, orient="row"),
    )


def kernels(*launches: tuple[str, int, int], devices: Sequence[Device] = (ORIN,)) -> Trace:
    """Return a trace of kernels one after the other: function, blocks in x, duration."""
    rows, at = [], 0
    for name, blocks, duration in launches:
        shape = dict.fromkeys(SHAPE, 1) | {"grid_x": blocks}
        rows.append(kernel(at, at + duration, name, **shape))
        at += duration
    return trace(kernels=rows, devices=list(devices))


def joins(analysis: Analysis) -> dict[str, float]:
    return {name: part.value for name, part in analysis.parts("counter_join_time").items() if part.value}


class TestJoin:
    def test_as_many_launches_on_both_sides_are_joined_one_by_one_in_order(self) -> None:
        ran = kernels(("a", 4, 100), ("b", 4, 50), ("a", 4, 200))
        counted = per_launch(counters(("a", 4, {TIME: 1}), ("b", 4, {TIME: 2}), ("a", 4, {TIME: 3})))
        assert ran.kernels is not None
        joined = joined_to_kernels(counted, ran.kernels)
        assert joined["counted_ns"].to_list() == [1, 2, 3]
        assert joined["join"].to_list() == ["order"] * 3

    def test_with_fewer_counted_launches_their_mean_is_taken(self) -> None:
        ran = kernels(("a", 4, 100), ("a", 4, 100), ("a", 4, 100))
        counted = per_launch(counters(("a", 4, {TIME: 10}), ("a", 4, {TIME: 20})))
        assert ran.kernels is not None
        joined = joined_to_kernels(counted, ran.kernels)
        assert joined["counted_ns"].to_list() == [15, 15, 15]
        assert joined["join"].to_list() == ["shape"] * 3

    def test_another_geometry_lends_its_ratios_and_no_amounts(self) -> None:
        ran = kernels(("a", 8, 100), ("other", 8, 100))
        counted = per_launch(counters(("a", 4, {TIME: 10, ACTIVE: 5, ELAPSED: 10})))
        assert ran.kernels is not None
        joined = joined_to_kernels(counted, ran.kernels)
        assert joined["join"].to_list() == ["name", "none"]
        assert joined["sm_active_ratio"].to_list() == [0.5, None]
        assert joined["counted_ns"].to_list() == [None, None]

    @given(
        ran=st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 2)), max_size=12),
        counted=st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 2)), min_size=1, max_size=12),
    )
    def test_against_a_count_by_hand(self, ran: list[tuple[str, int]], counted: list[tuple[str, int]]) -> None:
        rows = [(name, blocks, 10) for name, blocks in ran]
        frame = kernels(*rows).table_or_empty("kernels") if rows else kernels(("a", 1, 1)).table_or_empty("kernels")[:0]
        table = per_launch(counters(*((name, blocks, {TIME: n + 1.0}) for n, (name, blocks) in enumerate(counted))))
        joined = joined_to_kernels(table, frame)
        for place, key in enumerate(ran):
            same = [n + 1.0 for n, other in enumerate(counted) if other == key]
            turn, times = ran[:place].count(key), ran.count(key)
            named = any(name == key[0] for name, _ in counted)
            how = "order" if len(same) == times else "shape" if same else "name" if named else "none"
            assert joined["join"][place] == how
            value = joined["counted_ns"][place]
            if how == "order":
                assert value == same[turn]
            elif how == "shape":
                assert value == pytest.approx(sum(same) / len(same))
            else:
                assert value is None

    def test_the_quality_of_the_join_is_reported_in_time(self) -> None:
        ran = kernels(("a", 4, 100), ("a", 8, 30), ("b", 4, 7))
        analysis = analyze(ran, counters(("a", 4, {TIME: 1})), window="all")
        assert joins(analysis) == {"order": 100, "name": 30, "none": 7}


class TestPlace:
    def test_counters_of_another_program_are_refused(self) -> None:
        with pytest.raises(InputError, match=r"counters\.csv: none of its kernels \(other\)"):
            analyze(kernels(("a", 4, 100)), counters(("other", 4, {TIME: 1})))

    def test_counters_of_another_gpu_are_refused(self) -> None:
        foreign = counters(("a", 4, {TIME: 1}), compute_capability="9.0", device_name="NVIDIA H200")
        with pytest.raises(InputError, match=r"ran on NVIDIA H200 \(9\.0\).*Orin \(8\.7\)"):
            analyze(kernels(("a", 4, 100)), foreign)

    def test_the_same_gpu_with_and_without_its_maker_is_one(self) -> None:
        same = counters(("a", 4, {TIME: 1}), compute_capability="8.7", device_name="NVIDIA Orin")
        assert analyze(kernels(("a", 4, 100)), same).evidence[0].placement is None


class TestValues:
    def test_shares_of_active_cycles_become_shares_of_elapsed_ones(self) -> None:
        given = {ACTIVE: 50, ELAPSED: 100, "smsp__issue_active.avg.pct_of_peak_sustained_active": 40.0}
        given |= {"sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active": 60.0}
        row = per_launch(counters(("a", 1, given))).row(0, named=True)
        assert row["sm_active_ratio"] == 0.5
        assert row["issue_active_ratio"] == pytest.approx(0.2)
        assert row["tensor_active_ratio"] == pytest.approx(0.3)

    def test_operations_count_an_fma_twice(self) -> None:
        given = {FMA: 10, FMA.replace("ffma", "fadd"): 3, FMA.replace("ffma", "dmul"): 4}
        assert per_launch(counters(("a", 1, given)))["flops"][0] == 27

    def test_an_instruction_on_halves_works_on_two_of_them(self) -> None:
        given = {FMA.replace("ffma", "hfma"): 10, FMA.replace("ffma", "hadd"): 1}
        assert per_launch(counters(("a", 1, given)))["flops"][0] == 42

    def test_rates_that_ncu_multiplied_are_not_multiplied_again(self) -> None:
        name = "derived__smsp__sass_thread_inst_executed_op_{}_pred_on_x{}"
        given = {ELAPSED: 100, name.format("ffma", 2): 8.0, name.format("hfma", 4): 0.5}
        assert per_launch(counters(("a", 1, given)))["flops"][0] == 850

    def test_operations_of_tensor_cores_are_added_and_a_type_is_not_counted_twice(self) -> None:
        head = "sm__ops_path_tensor_src_fp16_dst_fp32"
        given = {FMA: 10, f"{head}.sum": 1000, f"{head}_sparsity_off.sum": 1000, ELAPSED: 50}
        given |= {"sm__ops_path_tensor_src_bf16_dst_fp32.sum.per_cycle_elapsed": 2}
        assert per_launch(counters(("a", 1, given)))["flops"][0] == 20 + 1000 + 100

    def test_operations_are_unknown_where_tensor_cores_worked_uncounted(self) -> None:
        active = "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed"
        table = per_launch(counters(("a", 1, {FMA: 10, active: 40.0}), ("b", 1, {FMA: 10, active: 0.5})))
        assert table["flops"].to_list() == [None, 20]

    def test_the_roofline_set_has_rates_alone(self) -> None:
        # 2 GHz for 1000 ns are 2000 cycles, in each of which 3 FMAs ran.
        given = {TIME: 1000.0, "smsp__cycles_elapsed.avg.per_second": 2e9, f"{FMA}.per_cycle_elapsed": 3.0}
        row = per_launch(counters(("a", 1, given))).row(0, named=True)
        assert (row["flops"], row["sm_clock_hz"]) == (12_000, 2e9)

    def test_what_was_not_counted_is_null_and_never_zero(self) -> None:
        row = per_launch(counters(("a", 1, {TIME: 5}))).row(0, named=True)
        known = {name for name, value in row.items() if value is not None} - set(LAUNCH_COLUMNS)
        assert known == {"counted_ns"}

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ({"dram__bytes.sum": 7.0}, 7.0),
            ({"dram__bytes_read.sum": 3.0, "dram__bytes_write.sum": 2.0}, 5.0),
            ({"dram__bytes.sum.per_second": 4e9, TIME: 1000.0}, 4000.0),
            (
                {
                    # Half of 2 x 1 GHz x 64 bit, for a microsecond.
                    "fbpa__dram_sectors.avg.pct_of_peak_sustained_elapsed": 50.0,
                    "device__attribute_max_mem_frequency_khz": 1e6,
                    "device__attribute_fb_bus_width": 64,
                    TIME: 1000.0,
                },
                8000.0,
            ),
        ],
    )
    def test_dram_bytes_in_every_form(self, given: dict[str, float], expected: float) -> None:
        assert per_launch(counters(("a", 1, given)))["dram_bytes"][0] == pytest.approx(expected)

    def test_the_most_frequent_stall_reason_without_the_warp_that_issues(self) -> None:
        name = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"
        given = {name.format("long_scoreboard"): 3.0, name.format("barrier"): 1.0, name.format("selected"): 9.0}
        row = per_launch(counters(("a", 1, given))).row(0, named=True)
        assert (row["stall"], row["stall_ratio"]) == ("long_scoreboard", 0.75)

    def test_means_are_weighted_by_the_time_in_the_trace(self) -> None:
        ran = kernels(("a", 1, 300), ("b", 1, 100))
        given = counters(("a", 1, {ACTIVE: 80, ELAPSED: 100}), ("b", 1, {ACTIVE: 40, ELAPSED: 100}))
        analysis = analyze(ran, given, window="all")
        assert analysis.value("counted_sm_active_ratio") == pytest.approx((300 * 0.8 + 100 * 0.4) / 400)
        assert analysis.value("counted_tensor_active_ratio") is None
        assert "not in the report" in (analysis.reason("counted_tensor_active_ratio") or "")


class TestRoofline:
    @pytest.mark.parametrize(
        ("compute", "memory", "expected"),
        [
            (0.7, 0.3, "compute"),
            (0.3, 0.6, "memory"),
            (0.9, 0.95, "memory"),
            (0.59, 0.59, "latency"),
            (None, 0.8, "memory"),
            (0.1, None, "latency"),
            (None, None, None),
        ],
    )
    def test_bounds(self, compute: float | None, memory: float | None, expected: str | None) -> None:
        assert bound_of(compute, memory) == expected

    def test_most_time_decides_not_most_kernels(self) -> None:
        assert most_time(["latency", "latency", "memory", None], [1, 1, 5, 100]) == "memory"
        assert most_time([None], [1]) is None

    def test_peaks_of_known_chips_are_those_of_their_data_sheets(self) -> None:
        # (compute capability, SMs, boost clock in Hz) → dense TFLOP/s, FP32 and FP16 tensor.
        for capability, sms, clock, fp32, tensor in (
            ("7.0", 80, 1.53e9, 15.7, 125),
            ("8.0", 108, 1.41e9, 19.5, 312),
            ("9.0", 132, 1.83e9, 61.8, 989),
            ("8.7", 16, 1.3e9, 5.3, 42.5),
            ("5.3", 1, 0.9216e9, 0.236, 0),
        ):
            roofs = roofs_of(Device(0, "x", compute_capability=capability, sm_count=sms), clock, None)
            assert roofs.fp32_per_s == pytest.approx(fp32 * 1e12, rel=0.01)
            assert (roofs.tensor_fp16_per_s or 0) == pytest.approx(tensor * 1e12, rel=0.01)

    def test_the_roofs_stand_at_the_clock_that_was_measured(self) -> None:
        given = {TIME: 1000.0, ELAPSED: 500.0, FMA: 400.0, "dram__bytes.sum": 100.0, SM: 10.0, MEMORY: 70.0}
        analysis = analyze(kernels(("a", 1, 100)), counters(("a", 1, given)), window="all")
        table = analysis.table("roofline")
        assert table is not None
        assert dict(table.frame.select("roof", "per_s").iter_rows()) == {
            "fp32": 8 * 256 * 0.5e9,
            "tensor_fp16": 8 * 2048 * 0.5e9,
            "dram": 1e11,
        }
        points = analysis.table("kernel_counters")
        assert points is not None
        (row,) = points.frame.to_dicts()
        assert (row["intensity"], row["flops_per_s"], row["bound"]) == (8.0, 8e8, "memory")
        assert {name: part.value for name, part in analysis.parts("bound_time").items()} == {"memory": 100}

    @pytest.mark.parametrize(
        ("given", "device", "reason"),
        [
            ({TIME: 1.0, "dram__bytes.sum": 1.0}, ORIN, "operations were not counted"),
            ({TIME: 1.0, ELAPSED: 1.0, FMA: 1.0}, ORIN, "DRAM belongs to the whole chip"),
            ({TIME: 1.0, ELAPSED: 1.0, FMA: 1.0, "dram__bytes.sum": 1.0}, gpu(0, name="new"), "not in our table"),
        ],
    )
    def test_without_a_counter_there_is_a_reason(self, given: dict[str, float], device: Device, reason: str) -> None:
        analysis = analyze(kernels(("a", 1, 100), devices=[device]), counters(("a", 1, given)), window="all")
        assert analysis.table("roofline") is None
        assert reason in (analysis.reason("roofline") or "")

    def test_without_counters_the_reason_names_the_boards(self) -> None:
        reason = analyze(kernels(("a", 1, 100))).reason("kernel_counters") or ""
        assert "ncu" in reason
        assert "nvprof" in reason


def test_counters_reach_the_layers() -> None:
    from builders import call, nvtx_range

    given = {ACTIVE: 80, ELAPSED: 100, "dram__bytes.sum": 5.0, SM: 90.0, MEMORY: 10.0}
    ran = trace(
        kernels=[
            kernel(100, 200, "a", correlation_id=1, **dict.fromkeys(SHAPE, 1)),
            kernel(200, 300, "a", correlation_id=2, **dict.fromkeys(SHAPE, 1)),
        ],
        api_calls=[call(10, 20, correlation_id=1), call(30, 40, correlation_id=2)],
        nvtx=[nvtx_range(0, 50, "model"), nvtx_range(5, 25, "layer")],
        devices=[ORIN],
    )
    table = analyze(ran, counters(("a", 1, given)), window="all").table("layers")
    assert table is not None
    rows = {row["name"]: row for row in table.frame.to_dicts()}
    assert (rows["model"]["dram_bytes"], rows["layer"]["dram_bytes"]) == (10.0, 5.0)
    assert rows["layer"]["sm_active_ratio"] == pytest.approx(0.8)
    assert rows["model"]["bound"] == "compute"
