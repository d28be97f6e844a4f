"""Real captures against numbers from elsewhere: NVIDIA's own reports, a brute-force count, and hand checks.

The captures are not part of the repository; the environment variable NITRO_TRACES names the folder that holds them,
and `../oracle` beside it the numbers.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nitro.analyzer import Analysis, Trace, analyze, open_trace
from nitro.analyzer.causes import Cause
from nitro.analyzer.idle import IdleAttribution
from nitro.analyzer.intervals import gaps, union
from nitro.analyzer.operations import NO_ROW, Kind
from nitro.analyzer.threads import ThreadActivity
from nitro.analyzer.view import Scope, View

FOLDER = Path(os.environ.get("NITRO_TRACES", "/nonexistent"))
ORACLE = FOLDER.parent / "oracle"
pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="needs real traces: set NITRO_TRACES to the folder that holds nsys/ and own/"
)


def found_in(*folders: str) -> dict[str, Path]:
    files = (file for folder in folders for file in sorted((FOLDER / folder).glob("*.sqlite*")))
    return {file.name.partition(".sqlite")[0]: file for file in files}


TRACES = found_in("nsys", "own")
JETSON = "hokwangchoi__jetson-orin-nano-benchmarks__trt_image_20260419_005228__3bd3de"
SAXPY = "hpcgroup__pipit__saxpy-mpi-cuda_nsys_perlmutter0__4f6385"
BEFORE = "NERSC__sc23-dl-tutorial__dali_amp_bf16__03e403__exported"
OWN = "h200_dual_encoder"


@lru_cache(maxsize=2)
def opened(name: str) -> Trace:
    return open_trace(TRACES[name])


@lru_cache(maxsize=4)
def analyzed(name: str, window: str) -> Analysis:
    return analyze(opened(name), window=window)


def values(analysis: Analysis, metric: str) -> dict[int | None, int]:
    """Return the value on each device."""
    return {entry.device_id: int(entry.value) for entry in analysis.measurements if entry.metric == metric}


class TestConservation:
    @pytest.mark.parametrize("window", ["auto", "all"])
    @pytest.mark.parametrize("name", TRACES)
    def test_busy_and_idle_by_cause_add_up_to_the_window(self, name: str, window: str) -> None:
        analysis = analyzed(name, window)
        busy, idle, whole = (values(analysis, metric) for metric in ("gpu_busy", "gpu_idle", "window"))
        assert busy.keys() == idle.keys() == whole.keys()
        for device_id, length in whole.items():
            assert busy[device_id] + idle[device_id] == length
            causes = analysis.parts("gpu_idle_by_cause", device_id)
            assert sum(part.value for part in causes.values()) == idle[device_id]
            kinds = ("kernel_time_sum", "graph_time_sum", "memcpy_time_sum", "memset_time_sum")
            times = sum(values(analysis, kind)[device_id] for kind in kinds)
            assert times == values(analysis, "gpu_busy_sum")[device_id]
            overlap = values(analysis, "overlap")[device_id]
            assert overlap == times - busy[device_id]
            assert overlap >= 0
        assert bool(whole) == any(
            (table := opened(name).table(kind)) is not None and len(table)
            for kind in ("kernels", "graph_launches", "memcpys", "memsets")
        )

    @pytest.mark.parametrize("name", TRACES)
    def test_nothing_is_unattributed_where_every_operation_has_its_call(self, name: str) -> None:
        view = View(opened(name), Scope(window="all"))
        for device in view.devices:
            if (device.operations.launch != NO_ROW).all():
                assert device.idle.total_ns[Cause.UNATTRIBUTED] == 0


WITHOUT = frozenset(
    {Cause.PROFILER_OVERHEAD, Cause.OS_CALL, Cause.NOT_SCHEDULED, Cause.OTHER_CONTEXT, Cause.DEPENDENCY}
)
ORACLE_ROW = re.compile(
    r"^\| (?P<trace>\S+) \| (?P<device>\d+) \| (?P<busy>[\d.]+) \| (?P<idle>[\d.]+) \| (?P<causes>.*) \|$"
)


def nanoseconds(milliseconds: str) -> int:
    return round(float(milliseconds) * 1e6)


def oracle_rows() -> list[tuple[str, int, int, int, dict[str, int]]]:
    """(trace, device, busy, idle, ns by cause) of the brute-force page; it cuts the names of traces short."""
    page = ORACLE / "idle_causes.md"
    if not page.is_file():
        return []
    made = []
    for match in filter(None, map(ORACLE_ROW.match, page.read_text().splitlines())):
        name = next(full for full in TRACES if full.startswith(match["trace"]))
        causes = (part.split(" ")[:2] for part in match["causes"].split(" · "))
        by_cause = {cause: nanoseconds(time) for cause, time in causes}
        made.append((name, int(match["device"]), nanoseconds(match["busy"]), nanoseconds(match["idle"]), by_cause))
    return made


@pytest.mark.parametrize(("name", "device_id", "busy", "idle", "expected"), oracle_rows())
def test_idle_causes_are_those_of_the_brute_force_count(
    name: str, device_id: int, busy: int, idle: int, expected: dict[str, int]
) -> None:
    trace = opened(name)
    device = next(d for d in View(trace, Scope(window="all")).devices if d.device_id == device_id)
    assert device.busy.total == busy
    assert device.gaps.total == idle
    attribution = IdleAttribution(trace, device.operations, ThreadActivity(trace, WITHOUT), WITHOUT)
    found: Counter[str] = Counter()
    for pieces in attribution.pieces(device.gaps):
        for code in np.unique(pieces.codes).tolist():
            mine = pieces.codes == code
            found[Cause(code).id] += int((pieces.ends - pieces.starts)[mine].sum())
    assert found == expected


# Overheads that NVIDIA's rule counts as work of the GPU where they lie inside its span.
FILLING = ("CUDA profiling overhead", "CUDA profiling data flush overhead", "CUDA profiling stop overhead")
NVIDIAS_TABLES = ("kernels", "memcpys", "memsets")
Gap = tuple[int, int, int, int]


def nvidia_gaps(trace: Trace) -> list[Gap]:
    """Idle stretches as NVIDIA's `gpu_gaps` defines them: (duration, start, pid, device number), sorted.

    The rule knows no graph launches, and looks at each process and device number alone.
    """
    columns = ("global_pid", "device_ordinal", "start_ns", "end_ns")
    work = pl.concat([trace.table_or_empty(table).select(columns) for table in NVIDIAS_TABLES])
    work = work.filter(pl.col("start_ns") > 0)
    overheads = trace.table_or_empty("profiler_overheads").filter(pl.col("name").cast(pl.String).is_in(FILLING))
    made: list[Gap] = []
    for global_pid, ordinal in work.select("global_pid", "device_ordinal").unique().iter_rows():
        rows = work.filter((pl.col("global_pid") == global_pid) & (pl.col("device_ordinal") == ordinal))
        starts, ends = rows["start_ns"].to_numpy(), rows["end_ns"].to_numpy()
        low, high = int(starts.min()), int(ends.max())
        filling = overheads.filter(
            (pl.col("global_tid") // (1 << 24) == global_pid >> 24)
            & (pl.col("start_ns") > low)
            & (pl.col("end_ns") < high)
        )
        busy = union(
            np.concatenate((starts, filling["start_ns"].to_numpy())),
            np.concatenate((ends, filling["end_ns"].to_numpy())),
        )
        idle = gaps(busy, low, high)
        pid = (global_pid >> 24) & 0xFFFFFF
        made += [(end - start, start, pid, ordinal) for start, end in zip(idle.starts, idle.ends, strict=True)]
    return sorted(made)


def oracle_gaps(name: str) -> list[Gap]:
    with (ORACLE / name / "gpu_gaps.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    keys = ("Duration (ns)", "Start (ns)", "PID", "Device ID")
    return sorted((int(row[keys[0]]), int(row[keys[1]]), int(row[keys[2]]), int(row[keys[3]])) for row in rows)


WITH_GAPS = [name for name in TRACES if (ORACLE / name / "gpu_gaps.csv").is_file()]


@pytest.mark.parametrize("name", WITH_GAPS)
def test_gaps_are_those_of_nvidia_once_graph_launches_are_left_out(name: str) -> None:
    assert nvidia_gaps(opened(name)) == oracle_gaps(name)


def defines_idle_as_nvidia_does(trace: Trace) -> bool:
    """Whether one process works on each device, without graph launches and overheads that fill gaps."""
    owners = {
        (pid, ordinal)
        for table in NVIDIAS_TABLES
        for pid, ordinal in trace.table_or_empty(table).select("global_pid", "device_ordinal").iter_rows()
    }
    fills = trace.table_or_empty("profiler_overheads")["name"].cast(pl.String).is_in(FILLING).any()
    return not fills and not len(trace.table_or_empty("graph_launches")) and len({o for _, o in owners}) == len(owners)


def test_idle_time_is_the_sum_of_nvidias_gaps_where_both_define_it_alike() -> None:
    alike = [name for name in WITH_GAPS if defines_idle_as_nvidia_does(opened(name))]
    assert len(alike) > 10
    for name in alike:
        idle = values(analyzed(name, "all"), "gpu_idle")
        assert sum(idle.values()) == sum(duration for duration, *_ in oracle_gaps(name)), name


class TestJetson:
    def test_graph_launches_are_busy_time(self) -> None:
        analysis = analyzed(JETSON, "all")
        assert values(analysis, "gpu_busy") == {0: 3_356_330_048}
        assert values(analysis, "window") == {0: 7_454_373_152}
        assert values(analysis, "graph_launch_count") == {0: 127}

    def test_the_drivers_memory_bandwidth_is_not_believed(self) -> None:
        (device,) = analyzed(JETSON, "all").devices
        assert device.is_integrated
        assert device.memory_bandwidth_source != "driver"
        assert device.memory_bandwidth_bytes_per_s != 32_640_000_000


class TestSaxpy:
    def test_five_kernels_stay_five_although_calls_are_recorded_twice(self) -> None:
        view = View(opened(SAXPY), Scope(window="all"))
        kernels = view.operations.kind == Kind.KERNEL
        assert int(kernels.sum()) == 5
        launches = view.operations.launch[kernels]
        assert (launches != NO_ROW).all()
        assert len(set(launches.tolist())) == 5
        assert values(analyzed(SAXPY, "all"), "kernel_count") == {0: 5}


class TestProjection:
    def test_most_work_that_forward_launches_runs_after_its_cpu_range(self) -> None:
        view = View(opened(BEFORE), Scope(window="all"))
        forward = [number for number, name in enumerate(view.ranges.names) if name == "forward"]
        rows = np.flatnonzero(np.isin(view.ranges.name, forward))
        assert len(rows) == 31
        assert view.projections.kernel_time[rows].sum() / 1e9 == pytest.approx(3.54, abs=0.005)

        # The same by another way: each kernel, where its launch call lies, and where the kernel itself lies.
        inside = owned = 0
        kernels = view.operations.kind <= Kind.GRAPH
        for row in rows.tolist():
            start, end, thread = (int(side[row]) for side in (view.ranges.starts, view.ranges.ends, view.ranges.thread))
            mine = kernels & (view.operations.launch != NO_ROW) & (view.call_threads == thread)
            mine &= (view.calls.starts >= start) & (view.calls.ends <= end)
            starts, ends = view.operations.starts[mine], view.operations.ends[mine]
            owned += int((ends - starts).sum())
            inside += int((np.clip(ends, start, end) - np.clip(starts, start, end)).sum())
        assert owned == view.projections.kernel_time[rows].sum()
        assert inside / 1e9 == pytest.approx(0.557, abs=0.0005)


class TestOwnTrace:
    def test_the_eight_inferences_are_the_iterations(self) -> None:
        window = analyzed(OWN, "auto").window
        dropped = [name for name, _ in window.dropped]
        kept = [iteration.name for iteration in window.iterations]
        assert [*dropped, *kept] == [f"infer:{number}" for number in range(8)]
        assert len(kept) >= 3
        for name, rule in window.dropped:
            assert name.startswith("infer:")
            assert "warm-up" in rule

    def test_the_window_runs_from_first_operation_to_first_operation(self) -> None:
        window = analyzed(OWN, "auto").window
        assert window.start_ns == window.iterations[0].start_ns
        assert window.end_ns == window.iterations[-1].start_ns
        assert int(window.periods_ns.sum()) == window.end_ns - window.start_ns
