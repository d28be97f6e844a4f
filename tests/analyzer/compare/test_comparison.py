"""Pairs with a known truth: what was planted has to come out, exactly or within 1 %."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from builders import call, gpu, kernel, nvtx_range, operation, sample, trace
from nitro.analyzer import Capture, Trace, open_trace
from nitro.analyzer.compare import Comparison, NotComparable, compare
from nitro.analyzer.compare.comparability import KEYS
from nitro.analyzer.compare.story import HOST_CAUSES, Sentence
from nitro.analyzer.message import Message
from nitro.analyzer.view import Scope, View
from nitro.errors import InputError, UsageError

FOLDER = Path(os.environ.get("NITRO_TRACES", "/nonexistent"))
US = 1_000
CALL, LATENCY = 2 * US, 1 * US
Item = tuple[object, ...]


def loop(
    items: Sequence[Item], *, iterations: int = 6, scale: float = 1.0, name: str = "infer", **extra: object
) -> Trace:
    """Play an iteration again and again: one thread launches, streams work in their order.

    Items: ("k", name, us[, stream]) a kernel, ("g", us) a graph launch, ("c", us) a copy, ("sync", us) waits for all
    streams and us longer, ("host", us) code outside CUDA, ("in", name) and ("out",) an NVTX range.
    """
    kernels, graphs, copies, calls, events = [], [], [], [], []
    now, identifier = 10_000, 0
    free: dict[int, int] = {}
    for number in range(iterations):
        begin = now
        open_ranges: list[tuple[str, int]] = []
        for kind, *rest in items:
            if kind == "in":
                open_ranges.append((str(rest[0]), now))
                now += 10
            elif kind == "out":
                text, start = open_ranges.pop()
                now += 10
                events.append(nvtx_range(start, now, text))
            elif kind == "host":
                now += int(rest[0]) * US  # type: ignore[call-overload]
            elif kind == "sync":
                end = max(now, *free.values()) + int(rest[0]) * US  # type: ignore[call-overload]
                calls.append(call(now, end + 10, "cudaStreamSynchronize_v3020"))
                now = end + 10
            else:
                identifier += 1
                api = {"k": "cudaLaunchKernel_v7000", "g": "cudaGraphLaunch_v10000", "c": "cudaMemcpyAsync_v3020"}
                calls.append(call(now, now + CALL, api[str(kind)], correlation_id=identifier))
                now += CALL
                length = rest[1] if kind == "k" else rest[0]
                stream = int(rest[2]) if len(rest) > 2 else 7  # type: ignore[call-overload]
                start = max(now + LATENCY, free.get(stream, 0))
                free[stream] = start + round(float(str(length)) * US * scale)
                columns = {"correlation_id": identifier, "stream_id": stream}
                if kind == "k":
                    kernels.append(kernel(start, free[stream], str(rest[0]), **columns))
                elif kind == "g":
                    graphs.append(operation(start, free[stream], **columns))
                else:
                    copies.append(operation(start, free[stream], **columns))
        events.append(nvtx_range(begin, now, f"{name}:{number}"))
        now += 50
    return trace(
        kernels=kernels,
        graph_launches=graphs,
        memcpys=copies,
        api_calls=calls,
        nvtx=events,
        **extra,  # type: ignore[arg-type]
    )


def story(comparison: Comparison) -> dict[str, Sentence]:
    (device,) = comparison.devices
    return {sentence.key: sentence for sentence in device.story}


def delta(comparison: Comparison, *keys: str) -> Fraction:
    return comparison.devices[0].waterfall.delta_of(*keys)


def runs(items: Sequence[Item], scales: Sequence[float] = (1.0, 1.004, 0.997, 1.002, 0.999)) -> list[Trace]:
    """Runs whose kernels differ by fractions of a percent."""
    return [loop(items, scale=scale) for scale in scales]


UNFUSED: list[Item] = [
    ("in", "text"),
    ("in", "encode"),
    ("k", "gemm", 100),
    ("k", "add<float>", 20),
    ("k", "gelu<float>", 30),
    ("k", "relu<float>", 10),
    ("k", "norm", 40),
    ("out",),
    ("out",),
    ("sync", 0),
]
FUSED: list[Item] = [
    ("in", "text"),
    ("in", "encode"),
    ("k", "gemm", 100),
    ("k", "add_gelu_relu", 25),
    ("k", "norm", 40),
    ("out",),
    ("out",),
    ("sync", 0),
]
FUSED_SYNC: list[Item] = [*FUSED[:4], ("sync", 50), *FUSED[4:]]


class TestFusion:
    def test_three_kernels_that_became_one_are_a_group(self) -> None:
        (device,) = compare([loop(UNFUSED)], [loop(FUSED)]).devices
        (fused,) = [row for row in device.matching.rows if row.is_fusion]
        assert [member.name for member in fused.before] == ["add<float>", "gelu<float>", "relu<float>"]
        assert [member.name for member in fused.after] == ["add_gelu_relu"]
        assert (fused.path, fused.label, fused.delta_ns) == ("text > encode", "faster", Fraction(-35 * US))
        assert {row.label for row in device.matching.rows if row is not fused} == {"unchanged"}
        assert device.launches is not None
        assert device.launches.delta == -2
        assert device.matching.quality.one_to_one == pytest.approx(2 * 140 / (200 + 165))

    def test_the_time_saved_is_the_kernel_step_and_nothing_comes_back(self) -> None:
        comparison = compare([loop(UNFUSED)], [loop(FUSED)])
        assert delta(comparison, "kernel") == -35 * US
        assert comparison.devices[0].waterfall.delta == -35 * US
        assert story(comparison)["work"].text == "fusion removed 2 launches and 35 µs of kernel time"

    def test_a_synchronisation_that_eats_the_gain_is_told_with_its_range(self) -> None:
        comparison = compare([loop(UNFUSED)], [loop(FUSED_SYNC)])
        # After the call returns, 10 ns later, the next launch takes 2 us and its start 1 us.
        assert delta(comparison, "kernel") == -35 * US
        assert delta(comparison, "synchronization") == 50 * US + 10
        assert delta(comparison, "launch_call", "launch_latency") == CALL + LATENCY
        assert float(comparison.devices[0].waterfall.delta) == pytest.approx(18 * US, rel=0.01)
        assert story(comparison)["work"].text == (
            "fusion removed 2 launches and 35 µs of kernel time, "
            "but 50 µs came back as synchronization in text > encode"
        )

    def test_what_came_back_is_told_once(self) -> None:
        comparison = compare([loop(UNFUSED)], [loop(FUSED_SYNC)])
        sentences = comparison.devices[0].story
        # 50 us of 260 are far more than the 1 % that has a sentence of its own.
        assert abs(delta(comparison, "synchronization")) > 0.1 * comparison.devices[0].waterfall.before.mean_period_ns
        assert [sentence.key for sentence in sentences if "synchronization" in sentence.text] == ["work"]
        assert story(comparison)["work"].delta_ns == 15 * US + 10

    def test_a_gain_is_an_improvement_and_a_loss_a_regression_with_five_runs_a_side(self) -> None:
        before = runs(UNFUSED)
        faster = compare(before, runs(FUSED, (1.001, 0.998, 1.003, 0.996, 1.0)))
        assert faster.verdict == "improvement"
        slower = compare(before, runs(FUSED_SYNC, (1.001, 0.998, 1.003, 0.996, 1.0)))
        assert slower.verdict == "regression"
        assert slower.metrics[0].sentence.startswith("regression: worse by 8.")
        same = compare(before, runs(UNFUSED, (1.001, 0.998, 1.003, 0.996, 1.0)))
        assert same.verdict == "no_meaningful_difference"

    def test_one_run_a_side_decides_nothing(self) -> None:
        comparison = compare([loop(UNFUSED)], [loop(FUSED)])
        assert comparison.verdict == "inconclusive"
        assert "record at least 5 runs a side" in comparison.metrics[0].sentence

    def test_a_mapping_overrides_the_order(self) -> None:
        comparison = compare([loop(UNFUSED)], [loop(FUSED)], mapping={"g*": "gemm", "nothing": "norm"})
        matching = comparison.devices[0].matching
        (mapped,) = [row for row in matching.rows if row.how == "mapping"]
        assert [member.name for member in mapped.before] == ["gemm", "gelu<float>"]
        assert [member.name for member in mapped.after] == ["gemm"]
        assert matching.unused_mappings == ("nothing -> norm",)


class TestOverlap:
    before = loop(
        [("in", "vision"), ("k", "conv", 100), ("out",), ("in", "text"), ("k", "gemm", 60), ("out",), ("sync", 0)]
    )
    after = loop(
        [("in", "vision"), ("k", "conv", 100), ("out",), ("in", "text"), ("k", "gemm", 60, 8), ("out",), ("sync", 0)]
    )

    def test_overlap_is_the_step_that_saved_time(self) -> None:
        comparison = compare([self.before], [self.after])
        assert delta(comparison, "overlap") == -60 * US
        assert comparison.devices[0].waterfall.delta == -60 * US
        assert delta(comparison, "kernel") == 0

    def test_the_gain_stands_against_the_bound(self) -> None:
        (pair,) = compare([self.before], [self.after]).overlaps
        assert (pair.first, pair.second) == ("vision", "text")
        assert pair.bound == pytest.approx(1.6)
        assert pair.gain == pytest.approx(1.6, rel=0.01)
        assert (pair.before.overlap_ratio, pair.after.overlap_ratio) == (0.0, 1.0)

    def test_the_story_tells_it(self) -> None:
        text = story(compare([self.before], [self.after]))["phases"].text
        assert text.startswith("vision and text run at the same time for 100 % of the shorter one, before for 0 %")
        assert text.endswith("overlap alone can give at most 1.60x")


class TestOverlapOfSlowerKernels:
    """Kernels that share the GPU take longer each, so kernel time and overlap mean little one without the other."""

    alone = loop([("k", "gemm", 100), ("k", "norm", 90), ("sync", 0)])
    streams = loop([("k", "gemm", 150), ("k", "norm", 170, 8), ("sync", 0)])
    fused = loop([("in", "pair"), ("k", "gemm_and_norm", 140), ("out",), ("sync", 0)])

    def test_streams_tell_both_and_what_is_left_of_them(self) -> None:
        comparison = compare([self.alone], [self.streams])
        # The second launch is 2 us behind the first, and its kernel runs 170 us from then on.
        assert delta(comparison, "kernel") == 130 * US
        assert delta(comparison, "overlap") == -148 * US
        sentence = story(comparison)["work"]
        assert sentence.text == (
            "kernels take 130 µs longer, with as many launches, but operations overlap by 148 µs more: "
            "the GPU is busy for 18 µs less"
        )
        assert sentence.delta_ns == -18 * US
        assert "overlap" not in story(comparison)

    def test_fusion_of_streams_does_not_count_what_overlapped_as_gain(self) -> None:
        sentence = story(compare([self.streams], [self.fused]))["work"]
        assert sentence.text == (
            "fusion removed 1 launch and 180 µs of kernel time, but operations overlap by 148 µs less: "
            "the GPU is busy for 32 µs less"
        )
        assert sentence.delta_ns == -32 * US

    def test_streams_that_only_lose_say_so(self) -> None:
        slow = loop([("k", "gemm", 180), ("k", "norm", 200, 8), ("sync", 0)])
        assert story(compare([self.alone], [slow]))["work"].text.endswith("the GPU is busy for 12 µs more")

    def test_an_overlap_that_takes_nothing_back_has_its_own_sentence(self) -> None:
        shorter = loop([("k", "gemm", 80), ("k", "norm", 90, 8), ("sync", 0)])
        told = story(compare([self.alone], [shorter]))
        assert told["work"].text == "kernels take 20 µs less, with as many launches"
        assert told["overlap"].text.startswith("operations overlap by ")


def tiny_kernels(streams: int) -> list[Item]:
    items: list[Item] = []
    for number in range(10):
        items += [("host", 8), ("k", f"k{number}", 4, 7 + number % streams)]
    return [*items, ("sync", 0)]


class TestLaunchBound:
    def test_streams_that_gain_nothing_read_as_launch_bound(self) -> None:
        comparison = compare([loop(tiny_kernels(1))], [loop(tiny_kernels(2))])
        assert comparison.devices[0].waterfall.delta == 0
        text = story(comparison)["launch_bound"].text
        assert text.startswith("both sides are launch-bound: the GPU does the same 40 µs of work and is idle for 6")
        assert text.endswith("more streams do not")

    def test_a_graph_takes_the_idle_time_away(self) -> None:
        comparison = compare([loop(tiny_kernels(1))], [loop([("host", 8), ("g", 40), ("sync", 0)])])
        assert delta(comparison, "kernel", "graph") == 0
        launches = comparison.devices[0].launches
        assert launches is not None
        assert launches.delta == -9
        told = story(comparison)
        assert told["graph"].text.startswith(
            "a CUDA graph replaced 9 launches an iteration: idle time in host code and"
        )
        assert "launch_bound" not in told
        assert "work" not in told
        # In each of the nine launches saved: 8 us of host code, and 2 us + 1 us until it runs, less what ran meanwhile.
        saved = delta(comparison, "host_code", "launch_call", "launch_latency")
        assert float(saved) == pytest.approx(float(comparison.devices[0].waterfall.delta), rel=0.01)

    def test_what_the_graph_saved_is_told_once(self) -> None:
        comparison = compare([loop(tiny_kernels(1))], [loop([("host", 8), ("g", 40), ("sync", 0)])])
        told = story(comparison)
        assert told["graph"].delta_ns == delta(comparison, *HOST_CAUSES)
        assert not set(HOST_CAUSES) & set(told)
        # Without fewer launches each of them has its own sentence.
        slower = [("host", 40) if item[0] == "host" else item for item in tiny_kernels(1)]
        assert "host_code" in story(compare([loop(tiny_kernels(1))], [loop(slower)]))

    def test_idle_time_does_not_come_back_where_nothing_was_saved(self) -> None:
        before: list[Item] = [("k", "a", 50), ("k", "b", 50), ("k", "c", 50), ("sync", 0)]
        after: list[Item] = [("k", "a", 50), ("k", "bc", 130), ("sync", 40)]
        text = story(compare([loop(before)], [loop(after)]))["work"].text
        assert text == (
            "1 launch went away, but kernels take 30 µs longer, and idle time due to synchronization grew by 40 µs"
        )

    def test_fewer_launches_of_the_same_work_are_told_with_what_they_saved(self) -> None:
        before = loop([step for _ in range(12) for step in (("host", 20), ("k", "small", 5))] + [("sync", 0)])
        after = loop([step for _ in range(4) for step in (("host", 20), ("k", "large", 15))] + [("sync", 0)])
        known = story(compare([before], [after]))
        assert "launch_bound" not in known
        assert known["launches"].text.startswith("the GPU does the same 60 µs of work with 8 launches less")
        assert known["launches"].delta_ns == delta(compare([before], [after]), *HOST_CAUSES)
        assert "the GPU is still idle for" in known["left"].text

    def test_kernels_inside_a_graph_are_no_poor_match(self) -> None:
        kernels: list[Item] = [("k", f"kernel_{number}", 20) for number in range(5)]
        before, after = loop([*kernels, ("sync", 0)]), loop([("g", 100), ("sync", 0)])
        known = story(compare([before], [after], allow=("workload",)))
        assert "--cuda-graph-trace=node" in known["match_quality"].text

    def test_a_busy_gpu_is_not_launch_bound(self) -> None:
        assert "launch_bound" not in story(compare([loop(UNFUSED)], [loop(UNFUSED, scale=1.01)]))


class TestCopies:
    def test_a_copy_that_went_away_is_the_memcpy_step(self) -> None:
        before = loop([("k", "gemm", 100), ("c", 40), ("k", "norm", 50), ("sync", 0)])
        after = loop([("k", "gemm", 100), ("k", "norm", 50), ("sync", 0)])
        comparison = compare([before], [after])
        assert delta(comparison, "memcpy") == comparison.devices[0].waterfall.delta == -40 * US
        assert story(comparison)["memcpy"].text == "copies take 40 µs less"


class TestResult:
    def test_the_json_form_is_json_and_adds_up(self) -> None:
        made = json.loads(json.dumps(compare([loop(UNFUSED)], [loop(FUSED_SYNC)]).to_dict()))
        assert made["format_version"] == 1
        (device,) = made["devices"]
        steps = device["waterfall"]["steps"]
        assert sum(Fraction(step["exact"]["delta"]) for step in steps) == Fraction(device["waterfall"]["delta_exact"])
        rows = device["matching"]["rows"]
        kernel_step = next(step for step in steps if step["key"] == "kernel")
        assert sum(Fraction(row["delta_exact"]) for row in rows) == Fraction(kernel_step["exact"]["delta"])

    def test_the_same_input_gives_the_same_output(self) -> None:
        first, second = (compare(runs(UNFUSED), runs(FUSED), seed=4).to_dict() for _ in range(2))
        assert first == second

    def test_a_poor_match_is_told(self) -> None:
        other: list[Item] = [("k", "conv", 90), ("k", "pool", 60), ("sync", 0)]
        told = story(compare([loop([("k", "gemm", 100), ("k", "norm", 50), ("sync", 0)])], [loop(other)]))
        assert told["match_quality"].text.startswith("only 0 % of the kernel time could be matched")

    def test_sentences_can_be_translated(self) -> None:
        comparison = compare([loop(UNFUSED)], [loop(FUSED_SYNC)])
        for sentence in comparison.devices[0].story:
            assert isinstance(sentence.text, Message)
        assert all(isinstance(metric.sentence, Message) for metric in comparison.metrics)

    def test_each_common_device_is_compared_alone(self) -> None:
        rows = [kernel(at, at + 40, device_id=device) for at in range(0, 600, 100) for device in (0, 1)]
        views = [View(trace(kernels=rows), Scope(since_ns=0, until_ns=500)) for _ in range(2)]
        assert [device.before_id for device in compare(views[:1], views[1:]).devices] == [0, 1]

    def test_several_runs_are_pooled_by_their_iterations(self) -> None:
        comparison = compare([loop(UNFUSED, iterations=4), loop(UNFUSED, iterations=9)], [loop(FUSED)])
        assert comparison.devices[0].waterfall.before.iterations == 3 + 8
        assert comparison.devices[0].waterfall.delta == -35 * US


class TestRefusals:
    def refused(self, before: Trace | View, after: Trace | View, key: str) -> str:
        with pytest.raises(NotComparable) as error:
            compare([before], [after])
        assert f"--allow {key}" in str(error.value)
        assert error.value.exit_code == 4
        assert compare([before], [after], allow=[key]).allowed == (key,)
        return str(error.value)

    def test_another_gpu_is_refused(self) -> None:
        text = self.refused(
            loop(UNFUSED, devices=[gpu(0, "Orin Nano")]), loop(UNFUSED, devices=[gpu(0, "H200")]), "device"
        )
        assert "the GPU differs (Orin Nano and H200)" in text

    def test_other_multiprocessors_are_refused(self) -> None:
        sides = [loop(UNFUSED, devices=[gpu(0, "Orin", sm_count=count)]) for count in (8, 16)]
        self.refused(sides[0], sides[1], "sm_count")

    def test_iterations_of_other_names_are_refused(self) -> None:
        text = self.refused(loop(UNFUSED), loop(UNFUSED, name="train step"), "iteration_names")
        assert "infer:#" in text

    def test_runs_without_iterations_are_refused(self) -> None:
        self.refused(trace(kernels=[(0, 10), (20, 50)]), trace(kernels=[(0, 10), (20, 60)]), "iterations")

    @pytest.mark.parametrize("key", ["power_mode", "model", "precision"])
    def test_what_bundles_tell_is_held_against_each_other(self, key: str) -> None:
        told = {"one": UNFUSED, "other": FUSED}
        sides = [replace(loop(items), capture=Capture(options={key: value})) for value, items in told.items()]
        with pytest.raises(NotComparable, match=rf"differs \(one and other\).*--allow {key}"):
            compare([sides[0]], [sides[1]])
        assert [reason.key for reason in compare([sides[0]], [sides[1]], allow=[key]).reasons] == [key]
        # What only one side tells is no reason.
        assert compare([sides[0]], [loop(FUSED)]).reasons == ()

    def test_another_batch_is_refused(self) -> None:
        built = loop(UNFUSED)
        self.refused(View(built, Scope(batch=1)), View(built, Scope(batch=8)), "batch")

    def test_graphs_traced_by_node_and_as_a_whole_are_refused(self) -> None:
        items: list[Item] = [("g", 100), ("sync", 0)]
        sides = [loop(items, capture=Capture(options={"cuda_graph_trace": mode})) for mode in ("Graph", "Node")]
        self.refused(sides[0], sides[1], "capture")

    def test_how_graphs_are_traced_does_not_matter_to_a_side_without_any(self) -> None:
        before = loop(UNFUSED, capture=Capture(options={"cuda_graph_trace": "Graph"}))
        after = loop(FUSED, capture=Capture(options={"cuda_graph_trace": "Node"}))
        assert "capture" not in [reason.key for reason in compare([before], [after]).reasons]

    def test_programs_without_anything_in_common_are_refused(self) -> None:
        sides = [
            View(trace(kernels=[kernel(at, at + 5, name) for at in range(0, 100, 10)]), Scope(since_ns=0, until_ns=100))
            for name in ("a", "b")
        ]
        self.refused(sides[0], sides[1], "workload")

    def test_a_run_that_stands_twice_on_a_side_is_refused(self) -> None:
        built = loop(UNFUSED)
        with pytest.raises(NotComparable, match="stands twice on a side"):
            compare([built, built], [loop(FUSED)])

    def test_a_copy_under_another_name_is_the_same_capture(self) -> None:
        built = loop(UNFUSED)
        copy = replace(built, source=replace(built.source, file_name="copy.sqlite"))
        with pytest.raises(NotComparable, match=r"copy.sqlite is a copy of built.sqlite on the same side"):
            compare([built, copy], [loop(FUSED)])

    def test_whole_captures_on_every_run_are_only_told(self) -> None:
        whole = [View(loop(items), Scope(window="all")) for items in (UNFUSED, FUSED)]
        (reason,) = compare(whole[:1], whole[1:]).reasons
        assert (reason.level, reason.key) == ("warn", "window")
        with pytest.raises(NotComparable, match="no iterations"):
            compare(whole[:1], [loop(FUSED)])

    def test_clocks_far_apart_are_refused_and_near_ones_only_told(self) -> None:
        def at(megahertz: int) -> Trace:
            samples = [sample(time, "gpc_clock", megahertz * 1_000_000) for time in range(0, 2_000_000, 50_000)]
            return loop(UNFUSED, gpu_metric_samples=samples)

        text = self.refused(at(1000), at(900), "clock")
        assert "the mean GPC clock differs by 10 % (1000 and 900 MHz)" in text
        (reason,) = [reason for reason in compare([at(1000)], [at(980)]).reasons if reason.key == "clock"]
        assert reason.level == "warn"

    def test_a_clock_that_drifts_is_told(self) -> None:
        samples = [sample(time, "gpc_clock", 1_000_000_000 - 100 * time) for time in range(0, 2_000_000, 20_000)]
        (reason,) = [
            r for r in compare([loop(UNFUSED, gpu_metric_samples=samples)], [loop(FUSED)]).reasons if r.key == "clock"
        ]
        assert "the GPC clock drifts by" in reason.text

    def test_another_driver_is_only_told(self) -> None:
        sides = [loop(UNFUSED, capture=Capture(options={"driver_version": version})) for version in ("535", "550")]
        (reason,) = [reason for reason in compare(sides[:1], sides[1:]).reasons if reason.key == "driver"]
        assert (reason.level, reason.before, reason.after) == ("warn", "535", "550")

    def test_every_reason_has_a_key_that_can_be_allowed(self) -> None:
        built = loop(UNFUSED)
        assert compare([built], [loop(FUSED)], allow=list(KEYS)).allowed == tuple(KEYS)


class TestBadInput:
    def test_a_side_without_runs(self) -> None:
        with pytest.raises(UsageError, match="--after has none"):
            compare([loop(UNFUSED)], [])

    def test_a_run_without_gpu_work(self) -> None:
        with pytest.raises(InputError, match="no GPU operation"):
            compare([loop(UNFUSED)], [trace(kernels=[])])

    def test_an_unknown_key(self) -> None:
        with pytest.raises(UsageError, match="--allow moon is unknown; choose from device"):
            compare([loop(UNFUSED)], [loop(FUSED)], allow=["moon"])

    def test_paired_sides_of_different_length(self) -> None:
        with pytest.raises(UsageError, match="not 1 and 2"):
            compare([loop(UNFUSED)], [loop(FUSED), loop(FUSED)], is_paired=True)

    def test_a_threshold_of_nothing(self) -> None:
        with pytest.raises(UsageError, match="must be positive"):
            compare([loop(UNFUSED)], [loop(FUSED)], threshold=0)


@pytest.fixture(scope="module")
def pair() -> Comparison:
    names = ("dali_amp_bf16__03e403", "dali_amp_bf16_fused_jit__64d76c")
    files = [FOLDER / "nsys" / f"NERSC__sc23-dl-tutorial__{name}__exported.sqlite.xz" for name in names]
    return compare([open_trace(files[0])], [open_trace(files[1])])


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs real traces: set NITRO_TRACES to the folder that holds nsys/")
class TestRealPair:
    """Training of the same model without and with kernels fused by a just-in-time compiler."""

    def test_the_waterfall_is_that_of_the_analyses(self, pair: Comparison) -> None:
        waterfall = pair.devices[0].waterfall
        # 11.037 s and 10.935 s in 30 periods.
        assert float(waterfall.before.mean_period_ns) == pytest.approx(367.900e6, abs=1e3)
        assert float(waterfall.delta) == pytest.approx(-3.384e6, abs=1e3)
        assert sum(step.delta for step in waterfall.steps) == waterfall.delta
        assert float(waterfall.delta_of("kernel")) == pytest.approx(-5.257e6, abs=1e3)

    def test_fused_kernels_are_matched_across_fusion(self, pair: Comparison) -> None:
        matching = pair.devices[0].matching
        assert matching.quality.one_to_one > 0.75
        assert matching.quality.unmatched < 0.02
        fused = [
            row
            for row in matching.rows
            if row.is_fusion and any(member.name.startswith("triton_") for member in row.after)
        ]
        largest = min(fused, key=lambda row: row.delta_ns)
        # Twelve layers: six kernels (cast, add, layer norm, ...) became three.
        assert largest.path == "forward"
        assert largest.executions_before == 72
        assert largest.executions_after == 36
        attention = [row for row in matching.rows if "fmha_fwd" in row.before[0].name]
        assert [row.label for row in attention] == ["unchanged"]

    def test_the_story_is_that_kernels_got_faster_though_there_are_more(self, pair: Comparison) -> None:
        assert story(pair)["work"].text == "kernels take 5.26 ms less, with 15 launches more"
        assert not [reason for reason in pair.reasons if reason.level == "refuse"]
