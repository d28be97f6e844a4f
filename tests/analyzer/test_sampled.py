"""Sampled metrics, memory, concurrency and context switches: numbers by hand, and real samples by straight SQL."""

from __future__ import annotations

import lzma
import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from builders import call, gpu, kernel, nvtx_range, process, trace
from nitro.analyzer import Analysis, Trace, analyze, open_trace
from nitro.analyzer.tables import SAMPLED_METRICS, TABLE_BY_NAME
from nitro.analyzer.view import Scope, View

TRACES = os.environ.get("NITRO_TRACES")
needs_traces = pytest.mark.skipif(TRACES is None, reason="NITRO_TRACES does not name a folder of real traces")
HZ = 1_000_000_000


def with_samples(built: Trace, rows: list[tuple[int, str, int]]) -> Trace:
    frame = pl.DataFrame(
        {
            "time_ns": [row[0] for row in rows],
            "device_id": pl.Series([0] * len(rows), dtype=pl.Int32),
            "metric": pl.Series([row[1] for row in rows], dtype=pl.Enum(list(SAMPLED_METRICS))),
            "value": [row[2] for row in rows],
        }
    )
    return replace(built, tables={**built.tables, "gpu_metric_samples": frame})


def with_rows(built: Trace, table: str, rows: list[dict[str, int]]) -> Trace:
    contract = TABLE_BY_NAME[table]
    columns = {c.name: pl.Series(c.name, [row.get(c.name) for row in rows], dtype=c.dtype) for c in contract.columns}
    return replace(built, tables={**built.tables, table: pl.DataFrame(columns)})


def sampled(*, sm_count: int | None = 10) -> Analysis:
    """Kernels in [0, 1000); a sample every 100 ns: 50 % in the first half of the window, 100 % in the second."""
    built = trace(kernels=[kernel(0, 1000)], devices=[gpu(0, sm_count=sm_count)])
    rows = [(time, "sm_active", 50 if time <= 500 else 100) for time in range(0, 1200, 100)]
    rows += [(time, "gpc_clock", HZ) for time in range(0, 1200, 100)]
    return analyze(with_samples(built, rows), window="all")


def test_samples_are_weighted_by_the_time_they_cover() -> None:
    assert sampled().value("sm_active_ratio") == pytest.approx(0.75)


def test_cycles_are_ratio_times_sms_times_clock_times_time() -> None:
    found = sampled().find("sm_active_cycles")
    assert found is not None
    # 500 ns at half and 500 ns at full activity of 10 SMs at 1 GHz.
    assert found.value == pytest.approx(10 * (250 + 500))
    assert found.error == pytest.approx(10 * 1000 * 0.005)
    assert found.count == 10


def test_cycles_need_the_number_of_sms() -> None:
    analysis = sampled(sm_count=None)
    assert analysis.value("sm_active_cycles") is None
    assert "how many SMs" in (analysis.reason("sm_active_cycles") or "")


def test_fewer_than_five_samples_are_no_measurement() -> None:
    built = with_samples(trace(kernels=[kernel(0, 300)]), [(t, "sm_active", 50) for t in range(0, 400, 100)])
    analysis = analyze(built, window="all")
    assert analysis.value("sm_active_ratio") is None
    assert "at least 5" in (analysis.reason("sm_active_ratio") or "")


def test_without_samples_nothing_is_zero() -> None:
    analysis = analyze(trace(kernels=[kernel(0, 300)]), window="all")
    assert analysis.value("sm_active_ratio") is None
    assert "--gpu-metrics-devices" in (analysis.reason("sm_active_ratio") or "")


def test_activity_without_operations_is_told_by_place() -> None:
    built = trace(kernels=[kernel(2000, 3000)])
    rows = [(time, "sm_active", 80 if time <= 1000 else 0) for time in range(0, 5100, 100)]
    analysis = analyze(with_samples(built, rows), window="all")
    parts = {by: part.value for by, part in analysis.parts("sm_active_without_operations").items()}
    # Two periods next to the kernel are left out: 1000 of 1800 ns before it at 80 %.
    assert parts["before the first"] == pytest.approx(0.8 * 1000 / 1800)
    assert parts["after the last"] == 0


def test_the_engine_is_told_beside_the_sms() -> None:
    built = trace(kernels=[kernel(2000, 3000), kernel(4000, 5000)])
    rows = [(time, "sm_active", 2) for time in range(0, 6100, 100)]
    rows += [(time, "gr_active", 100 if 3000 < time <= 3500 else 10) for time in range(0, 6100, 100)]
    analysis = analyze(with_samples(built, rows), window="all")
    parts = {by: part.value for by, part in analysis.parts("gr_active_without_operations").items()}
    # Of [3200, 3800), what is left of the gap, 300 ns at 100 % and 300 ns at 10 %.
    assert parts["between"] == pytest.approx(0.55)
    assert parts["before the first"] == parts["after the last"] == pytest.approx(0.1)
    assert {part.value for part in analysis.parts("sm_active_without_operations").values()} == {0.02}


def test_an_engine_that_was_not_sampled_is_not_idle() -> None:
    analysis = sampled()
    assert analysis.parts("gr_active_without_operations") == {}
    assert "not this one" in (analysis.reason("gr_active_without_operations") or "")
    assert "not this one" not in (analysis.reason("sm_active_without_operations") or "")


def test_phases_that_run_together_are_shared() -> None:
    built = trace(
        kernels=[kernel(100, 300, correlation_id=1, stream_id=1), kernel(200, 400, correlation_id=2, stream_id=2)],
        api_calls=[call(11, 12, correlation_id=1), call(21, 22, correlation_id=2)],
        nvtx=[nvtx_range(0, 50, "step"), nvtx_range(10, 15, "vision"), nvtx_range(20, 25, "text")],
    )
    analysis = analyze(built, window="all")
    table = analysis.table("phase_pairs")
    assert table is not None
    row = table.frame.row(0, named=True)
    assert (row["first_ns"], row["second_ns"], row["together_ns"]) == (200, 200, 100)
    assert (row["share_of_shorter"], row["gain"], row["bound"]) == (0.5, pytest.approx(400 / 300), 2.0)
    streams = {by: part.value for by, part in analysis.parts("stream_concurrency").items()}
    assert streams == {"1": 200, "2": 100}


def test_phases_of_a_typical_iteration_are_clipped_to_it() -> None:
    kernels, calls, ranges = [], [], []
    # Periods 1000, 1000, 1400: the first of those nearest the median is typical.
    for number, start in enumerate((0, 1000, 2000, 3400)):
        first, second = 2 * number + 1, 2 * number + 2
        kernels += [
            kernel(start + 100, start + 300, correlation_id=first, stream_id=1),
            kernel(start + 200, start + 1100, correlation_id=second, stream_id=2),
        ]
        calls += [
            call(start + 11, start + 12, correlation_id=first),
            call(start + 21, start + 22, correlation_id=second),
        ]
        ranges += [
            nvtx_range(start, start + 50, f"step:{number}"),
            nvtx_range(start + 10, start + 15, "vision"),
            nvtx_range(start + 20, start + 25, "text"),
        ]
    analysis = analyze(trace(kernels=kernels, api_calls=calls, nvtx=ranges))
    assert analysis.window.typical == (100, 1100)
    table = analysis.table("phase_lanes")
    assert table is not None
    assert table.frame.rows() == [
        ("step:#", 100, 1100),
        ("step:# > vision", 100, 300),
        ("step:# > text", 200, 1100),
    ]


def test_without_iterations_there_are_no_lanes() -> None:
    built = trace(
        kernels=[kernel(100, 300, correlation_id=1)],
        api_calls=[call(11, 12, correlation_id=1)],
        nvtx=[nvtx_range(0, 50, "step")],
    )
    analysis = analyze(built, window="all")
    assert analysis.table("phase_lanes") is None
    assert "no iteration" in (analysis.reason("phase_lanes") or "")


def test_memory_is_a_running_sum_with_a_peak() -> None:
    rows = [
        {"start_ns": 0, "bytes": 100, "operation": 0, "memory_kind": 2, "device_id": 0, "global_pid": process()},
        {"start_ns": 50, "bytes": 40, "operation": 0, "memory_kind": 2, "device_id": 0, "global_pid": process()},
        {"start_ns": 60, "bytes": 40, "operation": 1, "memory_kind": 2, "device_id": 0, "global_pid": process()},
        {"start_ns": 70, "bytes": 7, "operation": 0, "memory_kind": 1, "device_id": 0, "global_pid": process()},
    ]
    analysis = analyze(with_rows(trace(kernels=[kernel(10, 100)]), "memory_events", rows), window="all")
    assert {by: part.value for by, part in analysis.parts("gpu_memory_peak").items()} == {
        "pinned": 7,
        "device": 140,
        "total": 140,
        "in window": 140,
    }
    assert analysis.value("gpu_memory_in_use", by="window end") == 100
    assert (analysis.value("allocation_count"), analysis.value("allocation_bytes")) == (1, 40)


def test_context_switches_tell_who_held_the_gpu() -> None:
    switches = [(200, 7, 100), (220, 8, 999), (500, 7, 999), (530, 8, 100)]
    rows = [
        {"start_ns": time, "tag": tag, "context_id": pid, "global_pid": process(pid), "device_id": 0}
        for time, tag, pid in switches
    ]
    analysis = analyze(with_rows(trace(kernels=[kernel(0, 1000)]), "context_switches", rows), window="all")
    times = {by: part.value for by, part in analysis.parts("gpu_context_switch_time").items()}
    assert times == {"pid 100": 200 + 470, "pid 999": 280, "switching": 20 + 30}
    assert analysis.value("gpu_context_switch_count") == 2


@needs_traces
def test_busy_samples_before_the_first_kernel_are_someone_elses_work() -> None:
    path = next(Path(TRACES or "", "nsys").glob("als244*"))
    analysis = analyze(open_trace(path), window="all")
    assert analysis.value("sm_active_ratio") == pytest.approx(0.71, abs=0.01)
    assert analysis.findings[0].rule == "interference"


@needs_traces
def test_phases_of_a_real_capture_equal_straight_sql(tmp_path: Path) -> None:
    source = Path(TRACES or "", "own", "h200_dual_encoder.sqlite.xz")
    plain = tmp_path / "own.sqlite"
    plain.write_bytes(lzma.decompress(source.read_bytes()))
    view = View(open_trace(plain), Scope())
    table = analyze(view.trace).table("sampled_by_phase")
    assert table is not None
    names = {"sm_active": "SMs Active [Throughput %]", "sm_issue": "SM Issue [Throughput %]"}
    with sqlite3.connect(plain) as connection:
        for row in table.frame.iter_rows(named=True):
            path = view.ranges.paths.index(row["nvtx_path"])
            chosen = (view.ranges.path == path) & (view.projections.operations > 0)
            chosen &= (view.projections.starts >= view.window.start_ns) & (view.projections.starts < view.window.end_ns)
            starts, ends = view.projections.starts[chosen].tolist(), view.projections.ends[chosen].tolist()
            for metric, name in names.items():
                weighted = covered = 0
                for start, end in zip(starts, ends, strict=True):
                    value, time = connection.execute(_MEAN, {"name": name, "start": start, "end": end}).fetchone()
                    weighted, covered = weighted + value, covered + time
                assert covered
                assert row[metric] * 100 == pytest.approx(weighted / covered, abs=0.1)


_MEAN = """
select sum(value * length), sum(length) from (
    select value, min(timestamp, :end) - max(before, :start) as length from (
        select value, timestamp, lag(timestamp) over (order by timestamp) as before
        from GPU_METRICS join TARGET_INFO_GPU_METRICS using (typeId, metricId)
        where metricName = :name and timestamp between :start - 1000000 and :end + 1000000
    ) where before is not null and timestamp > :start and before < :end
)
"""
