"""Power and energy of a run of known power: the stated uncertainty covers the truth, and parts add up exactly."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import call, kernel, nvtx_range, trace
from nitro.analyzer import Analysis, Trace, analyze, open_input
from nitro.analyzer.energy import PowerCurve
from nitro.analyzer.intervals import Intervals
from nitro.analyzer.power_events import ANY, CLOCK_DROP, CORES, MEMORY_CLOCK
from nitro.analyzer.power_log import PowerLog, rails_of
from nitro.analyzer.power_phases import OUTSIDE, SEVERAL, SHORT
from nitro.errors import InputError
from power_logs import DURATION, FIRST, ITERATIONS, MS, PERIOD, START, S, energy_of, log, run
from power_logs import truth as true_power

FOLDER = Path(os.environ.get("NITRO_TRACES", "/nonexistent")) / "tegrastats"
WINDOW = (FIRST, FIRST + (ITERATIONS - 1) * PERIOD)


def phases(analysis: Analysis) -> pl.DataFrame:
    table = analysis.table("energy_by_phase")
    assert table is not None
    return table.frame


def assert_adds_up(analysis: Analysis) -> None:
    """Assert that the rows of each depth hold all nanoseconds and all nanojoules of the window."""
    frame = phases(analysis)
    energy = analysis.value("energy")
    assert energy is not None
    window = analysis.window.end_ns - analysis.window.start_ns
    for depth in frame["depth"].unique().to_list():
        rows = frame.filter(pl.col("depth") == depth)
        assert rows["energy_nj"].sum() == round(energy * S)
        assert rows.filter(pl.col("energy_nj").is_not_null())["time_ns"].sum() == window


def held(beat_ms: float, phase_ms: float, period_ms: int = 20) -> PowerLog:
    """Return a log that asks a slow sensor: each record repeats what it measured last, and no two values are alike."""
    made = log(period_ms * MS)
    times = made.times_ns - START
    measured = np.floor((times - phase_ms * MS) / (beat_ms * MS)) * beat_ms * MS + phase_ms * MS
    noise = np.random.default_rng(7).uniform(-0.003, 0.003, DURATION // int(beat_ms * MS) + 3)
    watts = np.round(true_power(measured), 3) + noise[((measured - measured.min()) / (beat_ms * MS)).astype(int)]
    return replace(made, total_w=watts)


@settings(max_examples=25, deadline=None)
@given(st.floats(60, 260), st.floats(0, 60))
def test_a_sensor_slower_than_the_log_widens_the_uncertainty(beat_ms: float, phase_ms: float) -> None:
    made = held(beat_ms, phase_ms)
    assert made.sensor_period_ns == pytest.approx(beat_ms * MS, abs=20 * MS)
    analysis = analyze(run(), made, batch=4, window="auto", clock_offset_ns=0)
    energy = analysis.find("energy")
    assert energy is not None
    assert energy.error is not None
    # A measurement shows up to a record late, and is off by 3 mW.
    assert abs(energy.value - energy_of(*WINDOW)) <= energy.error + 0.003 * (WINDOW[1] - WINDOW[0]) / S
    assert_adds_up(analysis)
    rows = phases(analysis)
    assert rows.filter(pl.col("nvtx_path") == "infer:#")["samples"].to_list() == pytest.approx(
        [(WINDOW[1] - WINDOW[0]) / S * 1620 / 2000 / beat_ms * 1000], rel=0.15
    )


def test_what_repeats_for_another_reason_is_no_slow_sensor() -> None:
    # A load between few levels, a coarse sensor at rest, one as fast as it is asked, and too few records.
    assert log().sensor_period_ns == 20 * MS
    quiet = np.repeat(np.random.default_rng(1).integers(0, 3, 700), np.random.default_rng(2).integers(1, 5, 700)) * 0.04
    made = log()
    coarse = np.asarray(5 + quiet[: len(made.times_ns)], np.float64)
    assert replace(made, total_w=coarse).sensor_period_ns == 20 * MS
    fast = replace(made, total_w=np.random.default_rng(3).normal(10, 1, len(made.times_ns)))
    assert fast.sensor_period_ns == 20 * MS
    assert fast.measurements().tolist() == list(range(len(made.times_ns)))
    short = held(100, 0)
    cut = replace(short, times_ns=short.times_ns[:80], total_w=short.total_w[:80])
    assert cut.sensor_period_ns == 20 * MS


def test_a_value_that_was_measured_again_is_a_measurement() -> None:
    made = held(100, 0)
    # The sensor gives one value for two seconds.
    rest = (made.times_ns - START >= 20 * S) & (made.times_ns - START < 22 * S)
    still = replace(made, total_w=np.where(rest, 5.0, made.total_w))
    rows = still.measurements()
    inside = still.times_ns[rows] - START
    assert ((inside >= 20 * S) & (inside < 22 * S)).sum() == pytest.approx(20, abs=1)
    assert (np.diff(inside) < 200 * MS).all()
    assert (np.diff(inside) > 0).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(5, 250), st.integers(0, 200), st.floats(-1, 1), st.integers(0, 19))
def test_the_uncertainty_covers_the_truth_and_phases_add_up(
    period_ms: int, error_ms: int, late: float, phase_ms: int
) -> None:
    made = log(period_ms * MS, low=phase_ms * MS, late_ns=int(late * error_ms * MS), error_ns=error_ms * MS)
    analysis = analyze(run(), made, batch=4, window="auto", clock_offset_ns=0)
    energy = analysis.find("energy")
    assert energy is not None
    assert energy.error is not None
    assert abs(energy.value - energy_of(*WINDOW)) <= energy.error + 1e-6
    assert_adds_up(analysis)
    item = analysis.find("energy_per_item")
    assert item is not None
    assert item.value == pytest.approx(energy.value / (4 * (ITERATIONS - 1)))
    for row in (
        phases(analysis)
        .filter(pl.col("energy_nj").is_not_null() & (pl.col("nvtx_path") == "infer:# > vision"))
        .iter_rows(named=True)
    ):
        truth = sum(energy_of(FIRST + n * PERIOD, FIRST + n * PERIOD + 800 * MS) for n in range(ITERATIONS - 1))
        assert abs(row["energy_nj"] / S - truth) <= row["uncertainty_nj"] / S + 1e-6


@settings(max_examples=25, deadline=None)
@given(st.integers(10, 150), st.integers(-950, 950))
def test_the_uncertainty_also_covers_what_the_refined_clock_leaves(period_ms: int, late_ms: int) -> None:
    made = log(period_ms * MS, low=-2 * S, high=DURATION + 2 * S, late_ns=late_ms * MS, error_ns=S)
    analysis = analyze(run(), made)
    energy, placement = analysis.find("energy"), analysis.evidence[0].placement
    assert energy is not None
    assert energy.error is not None
    assert placement is not None
    assert abs(energy.value - energy_of(*WINDOW)) <= energy.error + 1e-6
    assert abs(placement.shift_ns + late_ms * MS) <= placement.error_ns
    assert_adds_up(analysis)


def test_power_and_energy_of_the_window() -> None:
    analysis = analyze(run(), log(), batch=4)
    assert (analysis.window.start_ns, analysis.window.end_ns) == WINDOW
    true_energy = energy_of(*WINDOW)
    energy = analysis.find("energy")
    assert energy is not None
    assert energy.value == pytest.approx(true_energy, rel=0.01)
    power = analysis.parts("power")
    assert power["mean"].value == pytest.approx(energy.value / 16)
    assert (power["min"].value, power["max"].value) == (5.0, 20.0)
    assert analysis.value("energy_per_iteration") == pytest.approx(energy.value / 8)
    assert analysis.value("energy_per_item") == pytest.approx(energy.value / 32)
    assert analysis.value("items_per_joule") == pytest.approx(32 / energy.value)
    # Performance per watt is throughput by power.
    throughput = analysis.value("throughput")
    assert throughput is not None
    assert analysis.value("items_per_joule") == pytest.approx(throughput / power["mean"].value)
    assert analysis.value("idle_power") == 5.0
    assert analysis.value("energy_above_idle") == pytest.approx(energy.value - 5.0 * 16)


def test_children_of_the_input_rail_are_never_added() -> None:
    analysis = analyze(run(), log())
    rails = {name: part.value for name, part in analysis.parts("power_by_rail").items()}
    mean = analysis.parts("power")["mean"].value
    assert rails["VDD_IN"] == pytest.approx(mean, rel=0.01)
    assert rails["VDD_CPU_GPU_CV"] == pytest.approx(mean / 2, rel=0.01)


def test_a_board_without_an_input_rail_says_so() -> None:
    one = np.array([1.0, 2.0])
    rails, total, source, has_total = rails_of({"VDD_GPU_SOC": one, "VDD_CPU_CV": one, "NC": one})
    assert (total.tolist(), has_total) == ([2.0, 4.0], False)
    assert source == "the sum of VDD_GPU_SOC, VDD_CPU_CV, since the board measures no total"
    assert {rail.role for rail in rails} == {"part"}


def test_phases_alone_together_too_short_and_none() -> None:
    frame = phases(analyze(run(), log()))
    inner = {row["nvtx_path"].removeprefix("infer:# > "): row for row in frame.filter(pl.col("depth") == 1).to_dicts()}
    # 8 instances each: vision 0.8 s, text without the 0.1 s that it shares, "both" likewise, short 0.02 s.
    assert {name: row["time_ns"] // MS for name, row in inner.items()} == {
        "vision": 8 * 800,
        "text": 8 * 600,
        "both": 8 * 100,
        "short": 8 * 20,
        SHORT: 8 * 20,
        SEVERAL: 8 * 100,
        OUTSIDE: 8 * 380,
    }
    assert inner["vision"]["power_w"] == pytest.approx(20.0, abs=0.2)
    assert inner["text"]["power_w"] == pytest.approx(12.0, abs=0.2)
    outside = inner[OUTSIDE]
    assert abs(outside["energy_nj"] - 5 * outside["time_ns"]) <= outside["uncertainty_nj"] < 0.5 * outside["energy_nj"]
    assert inner["short"]["energy_nj"] is None
    assert inner["short"]["power_w"] is None
    assert inner["vision"]["energy_per_instance_j"] == pytest.approx(16.0, rel=0.02)


@pytest.mark.parametrize(("period_ms", "has_joules"), [(39, True), (99, False), (270, False)])
def test_a_phase_needs_20_records_and_three_periods(period_ms: int, has_joules: bool) -> None:
    """`both` lasts 200 ms and has 8 x 100 ms alone: 20 records up to 40 ms, three periods up to 66 ms."""
    frame = phases(analyze(run(), log(period_ms * MS)))
    both = frame.filter(pl.col("nvtx_path") == "infer:# > both").to_dicts()[0]
    assert (both["energy_nj"] is not None) is has_joules
    assert both["samples"] in range(8 * 100 // period_ms - 8, 8 * 100 // period_ms + 9)


def test_a_log_of_a_part_of_the_window_gives_power_but_no_energy() -> None:
    analysis = analyze(run(), log(high=FIRST + 8 * S))
    assert analysis.parts("power")["mean"].value == pytest.approx((0.8 * 20 + 0.82 * 12 + 0.38 * 5) / 2, abs=0.1)
    assert analysis.value("energy") is None
    assert "covers 49." in (analysis.reason("energy") or "") or "covers 50." in (analysis.reason("energy") or "")
    assert analysis.reason("energy_by_phase") == analysis.reason("energy")


def test_a_gap_in_the_log_is_not_bridged() -> None:
    whole = log()
    keep = (whole.times_ns < whole.times_ns[0] + 10 * S) | (whole.times_ns > whole.times_ns[0] + 11 * S)
    cut = replace(
        whole,
        records=int(keep.sum()),
        times_ns=whole.times_ns[keep],
        total_w=whole.total_w[keep],
        rails=tuple(replace(rail, watts=rail.watts[keep]) for rail in whole.rails),
    )
    assert "has gaps" in (analyze(run(), cut).reason("energy") or "")


def test_a_log_beside_the_window_says_so() -> None:
    analysis = analyze(run(), log(high=FIRST - S))
    assert analysis.reason("power") == "no record of the power log lies in the window"


def test_without_a_log_the_reason_says_how_to_record_one() -> None:
    analysis = analyze(run())
    assert "tegrastats" in (analysis.reason("power") or "")
    assert analysis.evidence == ()


def test_a_trace_without_gpu_work_has_no_window_to_integrate() -> None:
    analysis = analyze(trace(kernels=[], capture=run().capture), log())
    assert "no GPU operation" in (analysis.reason("power") or "")


def test_without_items_energy_per_item_is_not_measured() -> None:
    analysis = analyze(run(), log())
    assert analysis.value("energy_per_iteration") is not None
    assert "--batch" in (analysis.reason("energy_per_item") or "")


def test_the_log_with_most_records_counts() -> None:
    coarse, fine = log(500 * MS, watts=lambda times: np.full(len(times), 99.0)), log(20 * MS)
    for logs in ((coarse, fine), (fine, coarse)):
        assert analyze(run(), *logs).parts("power")["max"].value == 20.0


def test_the_placement_is_kept_with_the_result() -> None:
    entry = analyze(run(), log(late_ns=300 * MS, error_ns=500 * MS)).to_dict()["evidence"][0]
    assert (entry["kind"], entry["records"], entry["source"]["file_name"]) == (
        "power",
        DURATION // (20 * MS),
        "power.log",
    )
    assert entry["placement"]["error_ns"] == 500 * MS


def test_a_log_of_another_hour_is_refused() -> None:
    with pytest.raises(InputError, match=r"it runs from .* the trace from"):
        analyze(run(), log(late_ns=3600 * S))


def test_what_the_driver_says_of_low_clocks_is_counted() -> None:
    times = np.arange(0, DURATION, 20 * MS)
    flags = ((times >= FIRST) & (times < FIRST + 2 * S)).astype(float)
    analysis = analyze(run(), log(limits={"hardware slowdown": flags}))
    held = {name: part.value for name, part in analysis.parts("limited_time").items()}
    assert held == {"hardware slowdown": 2 * S, ANY: 2 * S}


def test_a_clock_that_falls_under_load_is_found() -> None:
    times = np.arange(0, DURATION, 20 * MS)
    busy = (times >= FIRST) & (times < FIRST + 16 * S)
    low = (times >= FIRST + 4 * S) & (times < FIRST + 6 * S)
    clock = np.where(low, 600e6, np.where(busy, 1000e6, 300e6))
    analysis = analyze(run(), log(loads={"gpu": busy.astype(float)}, clocks_hz={"gpu": clock}))
    assert analysis.parts("limited_time")[str(CLOCK_DROP)].value == 2 * S
    events = analysis.table("power_events")
    assert events is not None
    row = events.frame.row(0, named=True)
    assert (row["what"], row["before"], row["after"]) == (CLOCK_DROP, "1000 MHz", "600 MHz")


def test_a_clock_that_still_rises_is_no_limit() -> None:
    times = np.arange(0, DURATION, 20 * MS)
    busy = (times >= FIRST) & (times < FIRST + 16 * S)
    clock = np.where(busy & (times >= FIRST + S), 1000e6, 300e6)
    analysis = analyze(run(), log(loads={"gpu": busy.astype(float)}, clocks_hz={"gpu": clock}))
    assert {name: part.value for name, part in analysis.parts("limited_time").items()} == {ANY: 0}


def test_a_change_of_the_power_mode_is_found() -> None:
    times = np.arange(0, DURATION, 20 * MS)
    cores = np.where(times < 10 * S, 6.0, 4.0)
    memory = np.where(times < 12 * S, 2133e6, 3199e6)
    events = analyze(run(), log(online_cpus=cores, clocks_hz={"memory": memory})).table("power_events")
    assert events is not None
    found = [(row["what"], row["before"], row["after"], row["start_ns"]) for row in events.frame.to_dicts()]
    assert found == [(CORES, "6", "4", 10 * S), (MEMORY_CLOCK, "2133 MHz", "3199 MHz", 12 * S)]


def test_idle_records_need_an_idle_gpu_in_trace_and_log() -> None:
    times = np.arange(0, DURATION, 20 * MS)
    # Another program used the GPU before the run.
    load = np.where(times < FIRST - S, 1.0, 0.0)
    foreign = log(loads={"gpu": load}, watts=lambda at: np.where(at < FIRST - S, 30.0, 6.0))
    assert analyze(run(), foreign).value("idle_power") == 6.0
    busy = trace(kernels=[kernel(0, DURATION)], capture=run().capture)
    assert "10 records" in (analyze(busy, log()).reason("idle_power") or "")


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs real logs: set NITRO_TRACES")
def test_the_energy_of_the_orin_nano_log_equals_a_hand_integration() -> None:
    made = open_input(next(FOLDER.glob("hokwangchoi*.raw")))
    assert isinstance(made, PowerLog)
    lines = next(FOLDER.glob("hokwangchoi*.raw")).read_text().splitlines()
    watts = [int(line.split("VDD_IN ")[1].split("mW")[0]) / 1000 for line in lines]
    times = (made.times_ns / 1e9).tolist()
    by_hand = sum((watts[k] + watts[k + 1]) / 2 * (times[k + 1] - times[k]) for k in range(len(watts) - 1))
    curve = PowerCurve(made.times_ns, made.total_w)
    whole = Intervals(made.times_ns[:1], made.times_ns[-1:])
    assert curve.energy(whole) / S == pytest.approx(by_hand, rel=1e-6)
    # 661 lines from 01:31:10 to 01:32:22 at a mean of 12.1 W, which tegrastats itself gives in its last line.
    assert by_hand / (times[-1] - times[0]) == pytest.approx(12.128, rel=0.01)


def short_iterations(period_ns: int) -> Trace:
    """Return a trace whose GPU works in the first half of each of 200 short iterations."""
    kernels, calls, ranges = [], [], []
    for number in range(200):
        begin = 2 * S + number * period_ns
        kernels.append(kernel(begin, begin + period_ns // 2, correlation_id=number + 1))
        calls.append(call(begin - 500, begin - 100, correlation_id=number + 1))
        ranges.append(nvtx_range(begin - 600, begin - 50, f"infer:{number}"))
    return trace(kernels=kernels, api_calls=calls, nvtx=ranges, capture=run().capture)


@pytest.mark.parametrize(("period_ms", "is_in_step"), [(100, True), (200, True), (73, False)])
def test_a_log_in_step_with_the_iterations_says_so_by_its_uncertainty(period_ms: int, is_in_step: bool) -> None:
    """20 W and 5 W in turn, every 50 ms: 12.5 W, but who looks every 100 ms sees one of the two."""
    period = 100 * MS

    def power(times: np.ndarray) -> np.ndarray:
        inside = (times >= 2 * S) & (times < 22 * S)
        return np.where(inside & ((times - 2 * S) % period < period // 2), 20.0, 5.0)

    made = log(period_ms * MS, low=10 * MS, watts=power, error_ns=0)
    energy = analyze(short_iterations(period), made, clock_offset_ns=0).find("energy")
    assert energy is not None
    assert energy.error is not None
    assert abs(energy.value - 12.5 * 19.9) <= energy.error
    # In step, the error is of the size of the energy itself.
    assert (energy.error > 0.5 * energy.value) is is_in_step
