"""Traces of one pair of kernels run four ways (`tests/data/fusion`): what they hold, and what `compare` makes of them.

Periods, kernel time and overlap are worked out again from the tables of the export, in another way than the analyzer's.
"""

from __future__ import annotations

import lzma
import re
import sqlite3
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

from nitro.analyzer import Trace, analyze, open_trace
from nitro.analyzer.compare import Comparison, DeviceComparison, compare
from nitro.analyzer.compare.waterfall import KEYS
from recorded_runs import nitro

FOLDER = Path(__file__).resolve().parents[1] / "data" / "fusion"
ROUNDS = {"sequential": (1, 3), "streams": (1, 2, 3), "elastic": (1, 2, 3), "fused": (1, 2, 3)}
ITERATIONS = 40
WAYS = tuple(ROUNDS)
PAIRS = [(before, after) for at, before in enumerate(WAYS) for after in WAYS[at + 1 :]]


def paths_of(way: str) -> list[Path]:
    return [FOLDER / f"{way}_{number}.sqlite.xz" for number in ROUNDS[way]]


@cache
def traces(way: str) -> tuple[Trace, ...]:
    return tuple(map(open_trace, paths_of(way)))


@cache
def compared(before: str, after: str) -> Comparison:
    return compare(traces(before), traces(after))


def device_of(before: str, after: str) -> DeviceComparison:
    (device,) = compared(before, after).devices
    return device


def story_text(comparison: Comparison, key: str) -> str:
    return next(one.text for one in comparison.devices[0].story if one.key == key)


def tables(path: Path, folder: Path) -> sqlite3.Connection:
    plain = folder / path.stem
    plain.write_bytes(lzma.decompress(path.read_bytes()))
    return sqlite3.connect(plain)


@dataclass(frozen=True)
class Kernel:
    """A kernel, and the number of the iteration whose range holds its launch."""

    iteration: int
    start_ns: int
    end_ns: int
    name: str
    stream: int


@dataclass(frozen=True)
class Recorded:
    """A run as its tables have it. Its window ends where the last iteration begins."""

    kernels: tuple[Kernel, ...]

    @property
    def begins_ns(self) -> list[int]:
        return [min(one.start_ns for one in self.kernels if one.iteration == at) for at in range(ITERATIONS)]

    @property
    def window_ns(self) -> int:
        return self.begins_ns[-1] - self.begins_ns[0]

    @property
    def clipped(self) -> list[tuple[int, int]]:
        end = self.begins_ns[-1]
        return sorted((one.start_ns, min(one.end_ns, end)) for one in self.kernels if one.start_ns < end)

    @property
    def kernel_ns(self) -> int:
        return sum(end - start for start, end in self.clipped)

    @property
    def busy_ns(self) -> int:
        busy, reached = 0, 0
        for start, end in self.clipped:
            busy += max(0, end - max(start, reached))
            reached = max(reached, end)
        return busy

    @property
    def overlap_ns(self) -> int:
        return self.kernel_ns - self.busy_ns


_LAUNCHED = """
SELECT n.text, k.start, k.end, s.value, k.streamId
FROM CUPTI_ACTIVITY_KIND_KERNEL k
JOIN CUPTI_ACTIVITY_KIND_RUNTIME r ON r.correlationId = k.correlationId
JOIN NVTX_EVENTS n ON n.start <= r.start AND r.end <= n.end AND n.globalTid = r.globalTid AND n.text LIKE 'infer:%'
JOIN StringIds s ON s.id = k.shortName
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Recorded]]:
    folder = tmp_path_factory.mktemp("fusion")
    found: dict[str, list[Recorded]] = {}
    for way in WAYS:
        for path in paths_of(way):
            with tables(path, folder) as export:
                rows = export.execute(_LAUNCHED).fetchall()
            kernels = tuple(Kernel(int(text.partition(":")[2]), *rest) for text, *rest in rows)
            found.setdefault(way, []).append(Recorded(kernels))
    return found


class TestRuns:
    @pytest.mark.parametrize(
        ("way", "launches", "streams"), [("sequential", 2, 1), ("streams", 2, 2), ("elastic", 2, 2), ("fused", 1, 1)]
    )
    def test_an_iteration_is_the_pair(
        self, recorded: dict[str, list[Recorded]], way: str, launches: int, streams: int
    ) -> None:
        for run in recorded[way]:
            assert Counter(one.iteration for one in run.kernels) == dict.fromkeys(range(ITERATIONS), launches)
            assert len({one.stream for one in run.kernels}) == streams
            names = {one.name for one in run.kernels}
            assert len(names) == launches
            assert [sum(body in name for name in names) for body in ("gemm_f32", "layer_norm_f32")] == [1, 1]

    def test_fused_the_kernel_is_both(self, recorded: dict[str, list[Recorded]]) -> None:
        for run in recorded["fused"]:
            (name,) = {one.name for one in run.kernels}
            assert re.fullmatch(r"gemm_f32_\w+_and_layer_norm_f32_\w+_intra_block_\w+", name)

    def test_what_overlaps(self, recorded: dict[str, list[Recorded]]) -> None:
        shares = {
            way: [run.overlap_ns / min(kernel_ns(run, "gemm"), kernel_ns(run, "layer_norm")) for run in recorded[way]]
            for way in ("sequential", "streams", "elastic")
        }
        assert not any(shares["sequential"])
        # Each kernel alone fills the GPU, so that the second one runs beside the last blocks of the first.
        assert all(0 < share < 0.05 for share in shares["streams"])
        assert all(share > 0.9 for share in shares["elastic"])
        assert not any(run.overlap_ns for run in recorded["fused"])


def kernel_ns(run: Recorded, body: str) -> int:
    return sum(one.end_ns - one.start_ns for one in run.kernels if one.name.startswith(body))


class TestAttribution:
    @pytest.mark.parametrize(("before", "after"), PAIRS)
    def test_it_is_what_the_tables_say_and_adds_up(
        self, recorded: dict[str, list[Recorded]], before: str, after: str
    ) -> None:
        waterfall = device_of(before, after).waterfall
        for parts, way in ((waterfall.before, before), (waterfall.after, after)):
            runs = recorded[way]
            count = len(runs) * (ITERATIONS - 1)
            assert parts.iterations == count
            assert parts.mean_period_ns == Fraction(sum(run.window_ns for run in runs), count)
            assert parts.per_iteration("kernel") == Fraction(sum(run.kernel_ns for run in runs), count)
            assert parts.per_iteration("overlap") == Fraction(sum(run.overlap_ns for run in runs), count)
            assert parts.idle_ns == Fraction(sum(run.window_ns - run.busy_ns for run in runs), count)
        assert sum(waterfall.step(key).delta for key in KEYS) == waterfall.delta

    @pytest.mark.parametrize(("before", "after"), PAIRS)
    def test_the_rows_of_kernels_are_the_kernel_step(self, before: str, after: str) -> None:
        device = device_of(before, after)
        assert sum(row.delta_ns for row in device.matching.rows) == device.waterfall.step("kernel").delta
        assert device.matching.quality.unmatched == 0

    @pytest.mark.parametrize("before", WAYS[:-1])
    def test_fused_the_kernel_stands_where_two_stood(self, before: str) -> None:
        device = device_of(before, "fused")
        (row,) = device.matching.rows
        assert (row.kind, row.is_fusion, row.label, row.path) == ("group", True, "faster", "pair")
        assert sorted(member.name.partition("_f32")[0] for member in row.before) == ["gemm", "layer_norm"]
        assert ["_and_" in member.name for member in row.after] == [True]
        assert [row.executions_before, row.executions_after] == [2, 1]
        assert device.launches is not None
        assert [device.launches.before, device.launches.after] == [2, 1]


class TestStory:
    def test_from_one_after_the_other_fusion_saves_kernel_time(self) -> None:
        assert re.fullmatch(
            r"fusion removed 1 launch and \d+ µs of kernel time", story_text(compared("sequential", "fused"), "work")
        )

    def test_from_elastic_streams_it_is_less_than_the_kernel_time(self, recorded: dict[str, list[Recorded]]) -> None:
        sentence = next(one for one in device_of("elastic", "fused").story if one.key == "work")
        assert re.fullmatch(
            r"fusion removed 1 launch and \d+ µs of kernel time, but operations overlap by \d+ µs less: "
            r"the GPU is busy for \d+ µs less",
            sentence.text,
        )
        busy = [sum(run.busy_ns for run in recorded[way]) for way in ("elastic", "fused")]
        assert sentence.delta_ns == Fraction(busy[1] - busy[0], 3 * (ITERATIONS - 1))

    def test_elastic_streams_slow_both_kernels_and_gain(self) -> None:
        device = device_of("sequential", "elastic")
        assert {row.label for row in device.matching.rows} == {"slower"}
        assert re.fullmatch(
            r"kernels take \d+ µs longer, with as many launches, but operations overlap by \d+ µs more: "
            r"the GPU is busy for \d+ µs less",
            story_text(compared("sequential", "elastic"), "work"),
        )
        assert device.waterfall.delta < 0

    def test_the_report_names_both_kernels_and_the_one_they_became(self, tmp_path: Path) -> None:
        before, after = paths_of("sequential")[0], paths_of("fused")[0]
        said = nitro("compare", "--before", before, "--after", after, "-o", "report.md", cwd=tmp_path).stdout
        assert "+ 1 more → gemm_f32" in said
        assert re.search(r"calls that launch +2 +1 +-50.0 %", said)
        (row,) = [line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("| fused, ")]
        cells = row.replace("\\", "").split(" | ")
        assert cells[0] == "| fused, faster"
        assert [part.partition("_f32")[0] for part in cells[1].split(" + ")] == ["gemm", "layer_norm"]
        assert "_and_" in cells[2]
        assert (cells[3], cells[4]) == ("pair · place", "2 → 1")


class TestVerdicts:
    def test_three_runs_a_side_decide(self) -> None:
        assert compared("streams", "fused").verdict == "improvement"
        assert compared("elastic", "fused").verdict == "improvement"

    def test_two_do_not_though_the_gain_is_as_large(self) -> None:
        comparison = compared("sequential", "fused")
        assert comparison.verdict == "inconclusive"
        assert "3 runs a side should decide" in comparison.metrics[0].sentence

    def test_a_run_beside_another_program_makes_the_comparison_say_nothing(self) -> None:
        disturbed = open_trace(FOLDER / "sequential_shared_gpu.sqlite.xz")
        comparison = compare([*traces("sequential"), disturbed], traces("fused"))
        # Each of its iterations waited for 2 ms, so that the mean period promises twice the gain.
        ratio = comparison.devices[0].waterfall.ratio
        assert ratio is not None
        assert ratio < 0.5
        assert comparison.verdict == "inconclusive"
        # The kernels took as long as ever.
        assert story_text(comparison, "work") == story_text(compared("sequential", "fused"), "work")
        assert "launch latency" in story_text(comparison, "launch_latency")


_METRIC = """
SELECT timestamp, value FROM GPU_METRICS JOIN TARGET_INFO_GPU_METRICS USING (typeId, metricId)
WHERE metricName = ? ORDER BY timestamp
"""


def between_operations(export: sqlite3.Connection, metric: str) -> float:
    """Return the mean of a sampled metric between operations, two sampling periods away from each, period by period."""
    samples = export.execute(_METRIC, (metric,)).fetchall()
    periods = [(before, at, value) for (before, _), (at, value) in pairwise(samples)]
    margin = 2 * median(at - before for before, at, _ in periods)
    names = {name for (name,) in export.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    operations = sorted(
        span
        for kind in ("KERNEL", "MEMCPY", "MEMSET")
        if f"CUPTI_ACTIVITY_KIND_{kind}" in names
        for span in export.execute(f"SELECT start, end FROM CUPTI_ACTIVITY_KIND_{kind}")
    )
    weighted = covered = 0.0
    for (_, ended), (begins, _) in pairwise(operations):
        for before, at, value in periods:
            shared = min(at, begins - margin) - max(before, ended + margin)
            if shared > 0:
                weighted, covered = weighted + shared * value, covered + shared
    return weighted / covered / 100


class TestSharedGpu:
    def test_the_program_that_holds_the_gpu_is_the_first_finding(self, tmp_path: Path) -> None:
        path = FOLDER / "sequential_shared_gpu.sqlite.xz"
        with tables(path, tmp_path) as export:
            engine = between_operations(export, "GR Active [Throughput %]")
            sms = between_operations(export, "SMs Active [Throughput %]")
            run = Recorded(
                tuple(Kernel(int(text.partition(":")[2]), *rest) for text, *rest in export.execute(_LAUNCHED))
            )
        assert engine > 0.999
        assert sms < 0.02
        finding = analyze(open_trace(path)).findings[0]
        assert (finding.rule, finding.severity) == ("interference", "high")
        told = {entry.metric: entry.value for entry in finding.evidence if " between " in entry.text}
        assert told["gr_active_without_operations"] == pytest.approx(engine, abs=1e-6)
        assert told["sm_active_without_operations"] == pytest.approx(sms, abs=1e-6)
        assert f"{engine:.1%} of the time, SMs for {sms:.1%}" in finding.title
        # The mean of whole percents is all but 1, so that all idle time may be due to it.
        assert finding.time_at_stake_ns == run.window_ns - run.busy_ns

    @pytest.mark.parametrize("way", WAYS)
    def test_a_gpu_of_ones_own_is_not_blamed_on_another(self, way: str) -> None:
        for one in traces(way):
            analysis = analyze(one)
            engine = [part.value for part in analysis.parts("gr_active_without_operations").values()]
            assert engine
            assert max(engine) < 0.03
            assert "interference" not in [finding.rule for finding in analysis.findings]


class TestPrivacy:
    def test_nothing_of_the_machine_is_left(self, tmp_path: Path) -> None:
        for path in sorted(FOLDER.glob("*.xz")):
            with tables(path, tmp_path) as export:
                names = [name for (name,) in export.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
                assert "TARGET_INFO_SYSTEM_ENV" not in names
                content = "\n".join(export.iterdump())
            for word in ("/root", "/home", "/tmp", "/opt", "/work", "HOME=", "PATH=", "HOSTNAME"):
                assert word not in content, (path.name, word)
