"""The analysis window: how iterations are found, which of them are warm-up, and where the window ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import Row, call, kernel, nvtx_domain, nvtx_range, operation, thread, trace
from nitro.analyzer import Trace, analyze
from nitro.analyzer.view import Scope, View
from nitro.analyzer.window import Window
from nitro.errors import UsageError


def window(built: Trace, mode: str = "auto", **scope: int | str | None) -> Window:
    return View(built, Scope(window=mode, **scope)).window  # type: ignore[arg-type]


def marked(
    starts: Sequence[int],
    *,
    length: int = 40,
    work: int = 20,
    name: str = "infer:{}",
    kernels: Sequence[Row | tuple[int, int]] = (),
    memcpys: Sequence[Row | tuple[int, int]] | None = None,
    nvtx: Sequence[Row] = (),
) -> Trace:
    """Iterations with NVTX ranges that begin at these moments; each launches one kernel 10 ns later."""
    own = [kernel(start + 10, start + 10 + work, correlation_id=n) for n, start in enumerate(starts, 1)]
    return trace(
        kernels=[*own, *kernels],
        memcpys=memcpys,
        api_calls=[call(start + 2, start + 5, correlation_id=n) for n, start in enumerate(starts, 1)],
        nvtx=[*(nvtx_range(start, start + length, name.format(n)) for n, start in enumerate(starts)), *nvtx],
    )


def names(found: Window) -> list[str]:
    return [iteration.name for iteration in found.iterations]


class TestNvtx:
    def test_ranges_that_differ_by_a_number_are_iterations(self) -> None:
        found = window(marked([0, 100, 200, 300]))
        assert names(found) == ["infer:0", "infer:1", "infer:2", "infer:3"]
        assert "4 iterations of NVTX ranges 'infer:#'" in found.reason
        assert found.mode == "auto"

    def test_n_iterations_give_n_minus_1_periods_that_tile_the_window(self) -> None:
        found = window(marked([0, 100, 200, 300]))
        assert (found.start_ns, found.end_ns) == (10, 310)
        assert found.periods_ns.tolist() == [100, 100, 100]
        assert found.to_dict()["iterations"] == 3

    def test_ranges_of_one_name_are_iterations_too(self) -> None:
        assert names(window(marked([0, 100, 200], name="step"))) == ["step"] * 3

    def test_the_projection_is_the_iteration_and_the_range_its_latency(self) -> None:
        first = window(marked([0, 100, 200], work=60)).iterations[0]
        assert (first.start_ns, first.end_ns) == (10, 70)
        assert (first.cpu_start_ns, first.cpu_end_ns) == (0, 40)
        assert first.latency_ns == 70

    def test_the_latency_of_a_range_that_outlasts_its_work_is_its_length(self) -> None:
        assert window(marked([0, 100, 200], work=20)).iterations[0].latency_ns == 40

    def test_two_ranges_are_too_few(self) -> None:
        found = window(marked([0, 100]))
        assert found.mode == "all"
        assert "no repeated iteration was found" in found.reason

    def test_ranges_that_overlap_each_other_are_no_iterations(self) -> None:
        assert window(marked([0, 100, 200, 300], length=120)).mode == "all"

    def test_ranges_at_irregular_moments_are_no_iterations(self) -> None:
        assert window(marked([0, 100, 600, 650, 3000, 3100])).mode == "all"

    def test_ranges_that_hold_less_than_half_of_the_kernel_time_are_no_iterations(self) -> None:
        # The four iterations hold 80 ns.
        assert window(marked([0, 100, 200, 300], kernels=[(1000, 1080)])).mode == "auto"
        assert window(marked([0, 100, 200, 300], kernels=[(1000, 1081)])).mode == "all"

    def test_copies_do_not_count_towards_that_half(self) -> None:
        assert window(marked([0, 100, 200, 300], memcpys=[(1000, 9000)])).mode == "auto"

    def two_families(self, *, inner_work: int, outer_work: int) -> Trace:
        """Ranges `outer` with a kernel of their own and, inside, ranges `inner` with another."""
        kernels, calls, events = [], [], []
        for number in range(4):
            at = 100 * number
            events += [nvtx_range(at, at + 50, "outer"), nvtx_range(at + 10, at + 20, "inner")]
            calls += [call(at + 11, at + 12, correlation_id=2 * number + 1)]
            kernels += [kernel(at + 20, at + 20 + inner_work, correlation_id=2 * number + 1)]
            if outer_work:
                calls += [call(at + 30, at + 31, correlation_id=2 * number + 2)]
                kernels += [kernel(at + 40, at + 40 + outer_work, correlation_id=2 * number + 2)]
        return trace(kernels=kernels, api_calls=calls, nvtx=events)

    def test_of_two_families_the_one_with_more_kernel_time_wins(self) -> None:
        assert names(window(self.two_families(inner_work=10, outer_work=1)))[0] == "outer"

    def test_of_two_families_with_the_same_work_the_outermost_wins(self) -> None:
        assert names(window(self.two_families(inner_work=10, outer_work=0)))[0] == "outer"

    def test_a_range_without_gpu_work_is_no_iteration(self) -> None:
        built = marked([0, 100, 200], nvtx=[nvtx_range(300, 340, "infer:3")])
        assert names(window(built)) == ["infer:0", "infer:1", "infer:2"]

    def test_iterations_of_two_threads_are_two_families(self) -> None:
        others = [nvtx_range(at, at + 40, "infer:9", tid=thread(2)) for at in (20, 120, 220)]
        assert names(window(marked([0, 100, 200], nvtx=others))) == ["infer:0", "infer:1", "infer:2"]


def graphs(starts: Sequence[int], *, length: int = 30, executable: int = 2) -> list[Row]:
    return [operation(start, start + length, graph_exec_id=executable) for start in starts]


class TestGraphLaunches:
    def test_launches_of_a_graph_are_iterations(self) -> None:
        found = window(trace(graph_launches=graphs([0, 100, 200, 300])))
        assert (found.start_ns, found.end_ns) == (0, 300)
        assert "4 iterations of launches of CUDA graph" in found.reason
        assert names(found) == [f"graph launch {number}" for number in range(4)]

    def test_the_graph_that_ran_longest_marks_them(self) -> None:
        rows = [*graphs([0, 100, 200, 300]), *graphs([40, 60, 140, 160, 240, 260], length=5, executable=3)]
        assert window(trace(graph_launches=rows)).start_ns == 0

    def test_other_work_up_to_the_next_launch_belongs_to_an_iteration(self) -> None:
        built = trace(graph_launches=graphs([0, 100, 200]), kernels=[(40, 60), (140, 160)])
        assert [iteration.end_ns for iteration in window(built).iterations] == [60, 160, 230]

    def test_work_that_reaches_into_the_next_iteration_is_cut_there(self) -> None:
        built = trace(graph_launches=graphs([0, 100, 200]), kernels=[(40, 150)])
        found = window(built)
        assert [iteration.end_ns for iteration in found.iterations] == [100, 130, 230]
        assert not found.is_pipelined

    def test_nothing_says_how_long_the_caller_waited(self) -> None:
        assert window(trace(graph_launches=graphs([0, 100, 200]))).iterations[0].latency_ns is None

    def test_two_launches_are_too_few(self) -> None:
        assert window(trace(graph_launches=graphs([0, 100]))).mode == "all"

    def test_nvtx_ranges_go_before_graph_launches(self) -> None:
        starts = [0, 100, 200]
        built = trace(
            graph_launches=[operation(at + 10, at + 40, correlation_id=n) for n, at in enumerate(starts, 1)],
            api_calls=[
                call(at + 2, at + 3, "cudaGraphLaunch_v10000", correlation_id=n) for n, at in enumerate(starts, 1)
            ],
            nvtx=[nvtx_range(at, at + 20, "frame") for at in starts],
        )
        assert names(window(built)) == ["frame"] * 3


def sequence(repeats: int, *, period: int = 100, kernels: str = "abc") -> list[Row]:
    """Kernels that repeat: 10 ns long, 15 ns apart, and a longer pause before the first of each round."""
    return [
        kernel(round_ * period + place * 15, round_ * period + place * 15 + 10, name)
        for round_ in range(repeats)
        for place, name in enumerate(kernels)
    ]


class TestKernelSequence:
    def test_a_repeating_sequence_begins_after_its_pause(self) -> None:
        found = window(trace(kernels=sequence(5)))
        assert (found.start_ns, found.end_ns) == (0, 400)
        assert "a sequence of 3 kernels that repeats, each beginning with a" in found.reason

    def test_kernels_before_the_sequence_do_not_hide_it(self) -> None:
        start_up = [kernel(at, at + 5, f"init{at}") for at in (-900, -700, -650)]
        found = window(trace(kernels=[*start_up, *sequence(40)]))
        assert (found.start_ns, found.end_ns) == (0, 3900)

    def test_one_kernel_over_and_over_has_no_iterations(self) -> None:
        assert window(trace(kernels=sequence(12, kernels="a"))).mode == "all"

    def test_kernels_without_order_have_no_iterations(self) -> None:
        order = "abcacbbacbcacabccbaabcbca"
        assert window(trace(kernels=[kernel(20 * n, 20 * n + 10, name) for n, name in enumerate(order)])).mode == "all"

    def test_a_sequence_on_two_devices_is_not_looked_for(self) -> None:
        other = [row | {"device_id": 1} for row in sequence(5)]
        assert window(trace(kernels=[*sequence(5), *other])).mode == "all"


class TestWarmUp:
    def test_slow_first_iterations_are_dropped_and_named(self) -> None:
        # Periods 400, 200, then 100: the limit is 1.25 x 100.
        found = window(marked([0, 400, 600, 700, 800, 900, 1000]))
        assert names(found)[0] == "infer:2"
        assert [name for name, _ in found.dropped] == ["infer:0", "infer:1"]
        assert all("over 1.25 x the median" in rule for _, rule in found.dropped)
        assert (found.start_ns, found.end_ns) == (610, 1010)
        assert "the first 2 left out as warm-up" in found.reason

    def test_a_period_of_exactly_the_limit_is_no_warm_up(self) -> None:
        assert window(marked([0, 125, 225, 325, 425])).dropped == ()
        assert [name for name, _ in window(marked([0, 126, 226, 326, 426])).dropped] == ["infer:0"]

    def test_a_slow_iteration_later_on_stays(self) -> None:
        assert window(marked([0, 100, 200, 500, 600, 700, 800])).dropped == ()

    def test_never_more_than_half_is_dropped(self) -> None:
        found = window(marked([0, 200, 400, 600, 700, 800]))
        assert [name for name, _ in found.dropped] == ["infer:0", "infer:1", "infer:2"]
        kept = window(marked([0, 200, 400, 600, 800, 900, 1000]))
        assert len(kept.dropped) <= 3

    def test_three_iterations_are_enough_to_tell(self) -> None:
        assert [name for name, _ in window(marked([0, 130, 230])).dropped] == ["infer:0"]

    def test_iterations_named_by_the_user_are_all_kept(self) -> None:
        found = window(marked([0, 400, 600, 700, 800, 900, 1000]), nvtx="infer:*")
        assert len(found.iterations) == 7
        assert found.dropped == ()

    @given(st.lists(st.sampled_from([80, 100, 120, 124, 126, 150]), min_size=3, max_size=14))
    def test_the_rule_is_the_sentence_that_states_it(self, periods: list[int]) -> None:
        starts = [0, *np.cumsum(periods).tolist()]
        found = window(marked(starts))
        limit = 1.25 * float(np.median(periods[len(periods) // 2 :]))
        leading = 0
        while leading < len(periods) and periods[leading] > limit:
            leading += 1
        if found.mode == "auto" and leading <= len(starts) // 2:
            assert len(found.dropped) == leading
            assert found.start_ns == starts[leading] + 10


class TestExplicit:
    def test_edges_are_taken_as_given(self) -> None:
        found = window(marked([0, 100, 200]), since_ns=15, until_ns=115)
        assert (found.start_ns, found.end_ns, found.mode) == (15, 115, "explicit")
        assert found.iterations == ()

    def test_an_edge_that_is_not_given_is_the_first_or_last_operation(self) -> None:
        built = marked([0, 100, 200])
        assert (window(built, since_ns=50).start_ns, window(built, since_ns=50).end_ns) == (50, 230)
        assert (window(built, until_ns=50).start_ns, window(built, until_ns=50).end_ns) == (10, 50)

    @pytest.mark.parametrize(("since", "until"), [(50, 50), (60, 50), (230, None), (None, 10)])
    def test_an_empty_window_is_refused_with_the_edges_that_would_do(
        self, since: int | None, until: int | None
    ) -> None:
        with pytest.raises(UsageError, match="GPU operations run from 10 to 230 ns"):
            window(marked([0, 100, 200]), since_ns=since, until_ns=until)

    def test_operations_that_straddle_an_edge_are_clipped(self) -> None:
        analysis = analyze(trace(kernels=[(0, 100), (150, 300)]), since_ns=60, until_ns=200)
        assert analysis.value("kernel_time_sum") == 40 + 50
        assert analysis.value("kernel_count") == 2


class TestNamed:
    def test_a_single_range_is_its_projection(self) -> None:
        found = window(marked([0, 100, 200]), nvtx="infer:1")
        assert (found.start_ns, found.end_ns) == (110, 130)
        assert names(found) == ["infer:1"]

    def test_the_name_may_leave_the_domain_out(self) -> None:
        events = [nvtx_domain(4, "app"), nvtx_range(0, 20, "frame", domain_id=4)]
        built = trace(kernels=[kernel(30, 50, correlation_id=1)], api_calls=[call(5, 6, correlation_id=1)], nvtx=events)
        assert names(window(built, nvtx="frame")) == names(window(built, nvtx="app:frame")) == ["app:frame"]

    def test_of_matching_ranges_inside_each_other_the_outermost_count(self) -> None:
        built = trace(
            kernels=[kernel(30, 50, correlation_id=1)],
            api_calls=[call(5, 6, correlation_id=1)],
            nvtx=[nvtx_range(0, 20, "infer all"), nvtx_range(4, 10, "infer one")],
        )
        assert names(window(built, nvtx="infer*")) == ["infer all"]

    def test_an_unknown_name_is_refused_with_the_names_there_are(self) -> None:
        with pytest.raises(UsageError, match=r"no NVTX range is named 'frame'; the trace has: infer:#"):
            window(marked([0, 100, 200]), nvtx="frame")

    def test_ranges_without_gpu_work_are_refused(self) -> None:
        built = trace(kernels=[(0, 10)], nvtx=[nvtx_range(0, 20, "load")])
        with pytest.raises(UsageError, match="no NVTX range named 'load' launched GPU work"):
            window(built, nvtx="load")


class TestWhole:
    def test_each_device_has_the_window_of_its_own_operations(self) -> None:
        built = trace(kernels=[kernel(0, 50, device_id=0), kernel(20, 90, device_id=1), kernel(60, 70, device_id=0)])
        found = window(built, "all")
        assert found.of_device(0) == (0, 70)
        assert found.of_device(1) == (20, 90)
        assert (found.start_ns, found.end_ns) == (0, 90)

    def test_an_operation_that_outlasts_the_last_one_ends_the_window(self) -> None:
        assert window(trace(kernels=[(0, 500), (10, 20)]), "all").end_ns == 500

    def test_all_does_not_look_for_iterations(self) -> None:
        found = window(marked([0, 100, 200]), "all")
        assert found.iterations == ()
        assert "no repeated iteration was found" not in found.reason

    def test_a_trace_without_operations_has_an_empty_window(self) -> None:
        found = window(trace(kernels=[]))
        assert (found.start_ns, found.end_ns) == (0, 0)
        assert found.reason == "the trace has no GPU operation"

    def test_an_unknown_mode_is_refused(self) -> None:
        with pytest.raises(UsageError, match="window 'some' is unknown; choose auto or all"):
            analyze(marked([0, 100]), window="some")


class TestVariation:
    def test_jitter_is_the_median_step_from_one_period_to_the_next(self) -> None:
        # Periods 100, 110, 90, 95, 100: steps 10, 20, 5, 5.
        analysis = analyze(marked([0, 100, 210, 300, 395, 495]))
        jitter = analysis.find("iteration_jitter")
        assert jitter is not None
        assert (jitter.value, jitter.count) == (7.5, 4)

    def test_a_period_beyond_the_fence_is_an_outlier(self) -> None:
        # Periods 100 x 6 and 300: the quartiles are both 100, so the fence is 100.
        analysis = analyze(marked([0, 100, 200, 300, 600, 700, 800, 900]))
        outliers = analysis.find("iteration_outliers")
        assert outliers is not None
        assert (outliers.value, outliers.count) == (1, 7)

    def test_a_period_on_the_fence_is_none(self) -> None:
        analysis = analyze(marked([0, 100, 200, 300, 400, 500]))
        assert analysis.value("iteration_outliers") == 0

    def test_three_periods_are_too_few(self) -> None:
        reason = analyze(marked([0, 100, 200, 300])).reason("iteration_jitter")
        assert reason == "how iterations vary needs at least 4 periods in the window"


class TestPipelining:
    def test_iterations_whose_work_still_runs_when_the_next_begins_are_pipelined(self) -> None:
        assert window(marked([0, 100, 200, 300], work=120)).is_pipelined

    def test_iterations_that_touch_are_not_pipelined(self) -> None:
        assert not window(marked([0, 100, 200, 300], work=100)).is_pipelined

    def test_pipelined_iterations_have_a_mean_period_and_nothing_else(self) -> None:
        analysis = analyze(marked([0, 100, 210, 300], work=120))
        assert list(analysis.parts("iteration_period")) == ["mean"]
        assert analysis.value("iteration_period", by="mean") == 100
        assert analysis.reason("iteration_latency") == (
            "iterations overlap on the GPU, so none stands alone; only the mean period is given"
        )

    def test_iterations_that_stand_alone_have_percentiles(self) -> None:
        analysis = analyze(marked([0, 100, 210, 300]))
        assert {by: part.value for by, part in analysis.parts("iteration_period").items()} == {
            "p50": 100,
            "p90": pytest.approx(108),  # 100 + 0.8 x (110 - 100), between the second and the third of 90, 100, 110
            "p99": pytest.approx(109.8),
            "mean": 100,
        }
