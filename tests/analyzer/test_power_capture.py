"""One run on an H200 that nsys, nvidia-smi and ncu recorded, put together (tests/data/power_capture)."""

from __future__ import annotations

import csv
import itertools
import lzma
import shutil
import zipfile
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nitro.analyzer import Analysis, analyze, open_inputs
from nitro.analyzer.counters import AMOUNTS, BY_SHAPE, NONE, RATIOS, KernelCounters, per_launch
from nitro.analyzer.energy import NJ_PER_J
from nitro.analyzer.opening import open_input
from nitro.analyzer.power_events import ANY, DRIVER_LIMITS, limits_of
from nitro.analyzer.power_log import PowerLog

FOLDER = Path(__file__).parents[1] / "data" / "power_capture"
MS = 1_000_000
POWER_CAP = str(DRIVER_LIMITS[0x4])


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    (opened,) = open_inputs([FOLDER])
    return analyze(opened.trace, *opened.evidence)


@pytest.fixture(scope="module")
def whole() -> Analysis:
    (opened,) = open_inputs([FOLDER])
    return analyze(opened.trace, *opened.evidence, window="all")


def log_of(name: str) -> PowerLog:
    log = open_input(FOLDER / name)
    assert isinstance(log, PowerLog)
    return log


def by_hand(start_utc_ns: int, low: int, high: int) -> float:
    """Return the energy of [low, high) ns since session start in J, with the standard library alone.

    A record counts where its power differs from the one before, and 101 ms after the last one that counts.
    """
    with lzma.open(FOLDER / "power.csv.xz", "rt") as stream:
        rows = [[cell.strip() for cell in row] for row in csv.reader(stream)][1:]
    points: list[tuple[float, float]] = []
    for row in rows:
        moment = datetime.strptime(row[0], "%Y/%m/%d %H:%M:%S.%f").replace(tzinfo=timezone.utc).timestamp()
        at, watts = moment - start_utc_ns / 1e9, float(row[2].split()[0])
        if not points or watts != points[-1][1] or at - points[-1][0] > 0.15:
            points.append((at, watts))
    total, begin, end = 0.0, low / 1e9, high / 1e9
    for (t0, p0), (t1, p1) in itertools.pairwise(points):
        a, b = max(t0, begin), min(t1, end)
        if a < b:
            slope = (p1 - p0) / (t1 - t0)
            total += (p0 + slope * (a - t0) + p0 + slope * (b - t0)) / 2 * (b - a)
    return total


def test_records_that_repeat_a_measurement_are_told_from_measurements() -> None:
    log = log_of("power.csv.xz")
    assert (log.period_ns, log.sensor_period_ns) == (20 * MS, 101 * MS)
    rows = log.measurements()
    steps = np.diff(log.times_ns[rows]) / MS
    assert len(rows) == pytest.approx(len(log.times_ns) * 20.2 / 101, rel=0.01)
    assert np.percentile(steps, 5) >= 80
    assert np.percentile(steps, 95) <= 123
    # No value is left out.
    values = [watts for n, watts in enumerate(log.total_w) if n == 0 or watts != log.total_w[n - 1]]
    kept = log.total_w[rows]
    assert [watts for n, watts in enumerate(kept) if n == 0 or watts != kept[n - 1]] == values


def test_the_energy_equals_a_hand_integration(analysis: Analysis) -> None:
    energy = analysis.find("energy")
    assert energy is not None
    window, start = analysis.window, analysis.capture.start_utc_ns
    assert start is not None
    # The places of repeated measurements are chosen in another way here, which moves the energy by parts of a percent.
    assert energy.value == pytest.approx(by_hand(start, window.start_ns, window.end_ns), rel=5e-3)
    assert energy.error is not None
    assert 0.02 < energy.error / energy.value < 0.15
    assert analysis.value("energy_per_item") == pytest.approx(energy.value / 4 / 8192)
    assert analysis.value("idle_power") == pytest.approx(77.7, abs=1)


@pytest.mark.parametrize("which", ["analysis", "whole"])
def test_phases_and_what_is_outside_add_up_to_the_window_exactly(which: str, request: pytest.FixtureRequest) -> None:
    made: Analysis = request.getfixturevalue(which)
    table, energy = made.table("energy_by_phase"), made.value("energy")
    assert table is not None
    assert energy is not None
    # The rows of short phases stand for themselves alone; their energy is in a row of all of them.
    counted = table.frame.drop_nulls("energy_nj")
    depths = counted.group_by("depth").agg(pl.col("energy_nj").sum(), pl.col("time_ns").sum())
    assert len(depths) == 3
    assert set(depths["energy_nj"].to_list()) == {round(energy * NJ_PER_J)}
    assert set(depths["time_ns"].to_list()) == {made.window.end_ns - made.window.start_ns}


def test_only_phases_that_the_sensor_resolves_have_joules(analysis: Analysis, whole: Analysis) -> None:
    measured = {}
    for name, made in (("window", analysis), ("all", whole)):
        table = made.table("energy_by_phase")
        assert table is not None
        named = table.frame.filter((pl.col("depth") == 1) & ~pl.col("nvtx_path").str.starts_with("("))
        measured[name] = {
            path.rpartition(" > ")[2]: (samples, energy is not None)
            for path, samples, energy in named.select("nvtx_path", "samples", "energy_nj").iter_rows()
        }
    # The mean projection of `preprocess` is 228 ms, less than three times 101; `vision` has 19 measurements of 20.
    assert {name: known for name, (_, known) in measured["window"].items()} == {
        "text": True,
        "vision": False,
        "preprocess": False,
        "sync": False,
    }
    assert measured["window"]["vision"][0] == 19
    assert measured["all"]["vision"] == (30, True)
    assert not measured["all"]["preprocess"][1]


def test_layers_have_the_joules_of_their_phases_and_no_others(whole: Analysis) -> None:
    layers, phases = whole.table("layers"), whole.table("energy_by_phase")
    assert layers is not None
    assert phases is not None
    known = dict(layers.frame.drop_nulls("energy_nj").select("path", "energy_nj").iter_rows())
    expected = dict(
        phases.frame.filter(pl.col("instances") > 0)
        .drop_nulls("energy_nj")
        .select("nvtx_path", "energy_nj")
        .iter_rows()
    )
    assert known == expected
    assert set(known) == {"infer:#", "infer:# > text", "infer:# > vision"}
    assert layers.frame.filter(pl.col("path").str.ends_with("layer1"))["energy_nj"].to_list() == [None]


def test_the_driver_says_what_holds_the_clocks_down(analysis: Analysis) -> None:
    limited = {by: part.value for by, part in analysis.parts("limited_time").items()}
    window = analysis.window.end_ns - analysis.window.start_ns
    assert limited[POWER_CAP] / window > 0.95
    (finding,) = [found for found in analysis.findings if found.rule == "clocks_held_down"]
    assert finding.confidence == "high"
    assert POWER_CAP in finding.title
    clocks = {by: part.value for by, part in analysis.parts("limited_clock").items()}
    assert clocks["highest"] == 1.98e9
    assert clocks["limited"] < 1.9e9
    stake = limited[ANY] * (1 - clocks["limited"] / clocks["highest"])
    assert finding.time_at_stake_ns == round(stake)


def test_a_gpu_at_its_power_limit() -> None:
    log = log_of("power_limit.csv.xz")
    assert log.sensor_period_ns == 101 * MS
    limits = limits_of(log, log.times_ns, int(log.times_ns[0]), int(log.times_ns[-1]))
    held = limits.time_by_kind[POWER_CAP]
    loaded = log.total_w > 600
    assert held == pytest.approx(np.diff(log.times_ns)[loaded[:-1]].sum(), rel=0.08)
    assert limits.limited_clock_hz is not None
    assert limits.limited_clock_hz < 0.9 * 1.98e9
    assert limits.highest_clock_hz == 1.98e9


def test_counters_of_the_text_tower_reach_every_one_of_its_kernels(analysis: Analysis) -> None:
    layers = analysis.table("layers")
    assert layers is not None
    for number in range(12):
        row = layers.frame.filter(pl.col("path") == f"infer:# > text > layers.{number}").row(0, named=True)
        assert row["bound"] is not None
        # 16 executions, each of which reads and writes activations of 0.5 GB at least ten times.
        assert row["dram_bytes"] > 16 * 10 * 0.5e9
    shares = {by: part.value for by, part in analysis.parts("counter_join_time").items()}
    assert shares[BY_SHAPE] / sum(shares.values()) > 0.55
    assert shares[NONE] > 0
    assert analysis.table("roofline") is not None


def test_the_csv_gives_the_analysis_of_the_report() -> None:
    pytest.importorskip("ncu_report", reason="NVIDIA's ncu-report is an extra of x86-64 machines")
    made = {name: open_input(FOLDER / name) for name in ("kernels.ncu-rep.xz", "kernels.csv.xz")}
    report, printed = made.values()
    assert isinstance(report, KernelCounters)
    assert isinstance(printed, KernelCounters)
    assert report.records == printed.records == 28
    assert report.launches.drop("name", "device_name").equals(printed.launches.drop("name", "device_name"))
    assert set(report.values["metric"]) == set(printed.values["metric"])
    # The CSV has as many digits as fit the unit of a column, such as three behind the point of a Mbyte.
    for name in RATIOS:
        assert per_launch(report)[name].to_list() == pytest.approx(per_launch(printed)[name].to_list(), abs=1e-4)
    for name in AMOUNTS:
        assert per_launch(report)[name].to_list() == pytest.approx(
            per_launch(printed)[name].to_list(), rel=1e-3, abs=500
        )
    trace = FOLDER / "dual_encoder.sqlite.xz"
    tables = []
    for name in made:
        (opened,) = open_inputs([trace, FOLDER / name])
        table = analyze(opened.trace, *opened.evidence).table("kernel_counters", 0)
        assert table is not None
        tables.append(table.frame.select("name", "grid", "block", "total_ns", "bound", "stall", "join"))
    assert tables[0].equals(tables[1])


def test_the_values_are_those_that_ncu_report_gives(tmp_path: Path) -> None:
    ncu_report = pytest.importorskip("ncu_report", reason="NVIDIA's ncu-report is an extra of x86-64 machines")
    plain = tmp_path / "kernels.ncu-rep"
    with lzma.open(FOLDER / "kernels.ncu-rep.xz") as packed, plain.open("wb") as target:
        shutil.copyfileobj(packed, target)
    ours = open_input(plain)
    assert isinstance(ours, KernelCounters)
    known = {
        (launch, metric): value for launch, metric, value in ours.values.select("launch", "metric", "value").rows()
    }
    actions = ncu_report.load_report(str(plain)).range_by_idx(0)
    assert actions.num_actions() == ours.records
    for number in range(actions.num_actions()):
        action = actions.action_by_idx(number)
        for name in ("gpu__time_duration.sum", "dram__bytes_read.sum", "lts__t_bytes.sum", "sm__cycles_active.sum"):
            assert known[number, name] == action.metric_by_name(name).as_double()


def test_the_bundle_is_the_same_as_an_archive(analysis: Analysis, tmp_path: Path) -> None:
    path = tmp_path / "capture"
    with zipfile.ZipFile(path, "w") as archive:
        for file in FOLDER.iterdir():
            archive.write(file, f"power_capture/{file.name}")
    (opened,) = open_inputs([path])
    again = analyze(opened.trace, *opened.evidence)
    assert opened.facts == {"precision": "fp16"}
    assert again.measurements == analysis.measurements
    assert again.findings == analysis.findings
