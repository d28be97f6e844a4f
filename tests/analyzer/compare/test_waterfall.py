"""The waterfall adds up, on traces by hand, on random ones, and on every real one."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import Row, call, kernel, nvtx_range, operation, trace
from nitro.analyzer import Trace, analyze, open_trace
from nitro.analyzer.compare.waterfall import (
    KEYS,
    Parts,
    parts_of,
    parts_of_analysis,
    pooled,
    waterfall_of,
)
from nitro.analyzer.view import Scope, View
from nitro.reports.palette import COLOURS

FOLDER = Path(os.environ.get("NITRO_TRACES", "/nonexistent"))
REAL = sorted(file for name in ("nsys", "own") for file in (FOLDER / name).glob("*.sqlite*"))


def iterations(*, work: int, copy: int, pause: int, count: int = 5) -> Trace:
    """Iterations: a kernel of `work` ns, a copy of `copy` ns beside it, and then `pause` ns of host code."""
    kernels, copies, calls, events = [], [], [], []
    for number in range(count):
        at = 1000 + number * (work + pause)
        calls += [call(at - 20, at - 10, correlation_id=2 * number + 1)]
        kernels += [kernel(at, at + work, correlation_id=2 * number + 1)]
        if copy:
            calls += [call(at - 8, at - 2, "cudaMemcpyAsync_v3020", correlation_id=2 * number + 2)]
            copies += [operation(at + 5, at + 5 + copy, correlation_id=2 * number + 2)]
        events += [nvtx_range(at - 25, at - 1, f"infer:{number}")]
    return trace(kernels=kernels, memcpys=copies, api_calls=calls, nvtx=events)


def parts(built: Trace, **scope: int) -> Parts:
    return parts_of(View(built, Scope(**scope)), 0)  # type: ignore[arg-type]


class TestByHand:
    def test_each_part_is_a_step(self) -> None:
        before = parts(iterations(work=400, copy=100, pause=100))
        after = parts(iterations(work=300, copy=0, pause=160))
        waterfall = waterfall_of(before, after)
        assert before.mean_period_ns == 500
        assert after.mean_period_ns == 460
        steps: dict[str, tuple[object, ...]] = {
            step.key: (step.before, step.after, step.delta) for step in waterfall.steps
        }
        assert steps["kernel"] == (400, 300, -100)
        assert steps["memcpy"] == (100, 0, -100)
        assert steps["overlap"] == (100, 0, 100)
        # The gap is split at the launch call, which runs from 20 to 10 ns before the kernel.
        assert steps["host_code"] == (80, 140, 60)
        assert steps["launch_call"] == (10, 10, 0)
        assert steps["launch_latency"] == (10, 10, 0)
        assert waterfall.delta == -40
        assert waterfall.ratio == pytest.approx(0.92)

    def test_periods_that_do_not_divide_stay_exact(self) -> None:
        kernels = [kernel(at, at + 10) for at in (0, 100, 201, 303)]
        events = [nvtx_range(at, at + 5, "i") for at in (0, 100, 201, 303)]
        calls = [call(at + 1, at + 2, correlation_id=n) for n, at in enumerate((0, 100, 201, 303), 1)]
        rows: list[Row] = [row | {"correlation_id": n} for n, row in enumerate(kernels, 1)]
        side = parts(trace(kernels=rows, api_calls=calls, nvtx=events))
        assert side.mean_period_ns == 101
        assert (
            waterfall_of(side, Parts(0, 100, 3, dict.fromkeys(KEYS, 0) | {"kernel": 100})).delta
            == Fraction(100, 3) - 101
        )

    def test_runs_are_pooled_by_iteration(self) -> None:
        short, long = iterations(work=100, copy=0, pause=50, count=3), iterations(work=200, copy=0, pause=50, count=9)
        side = pooled([parts(short), parts(long)])
        assert side.mean_period_ns == Fraction(2 * 150 + 8 * 250, 10)
        assert side.per_iteration("kernel") == Fraction(2 * 100 + 8 * 200, 10)

    def test_idle_causes_split_by_path(self) -> None:
        """A thread that synchronises inside a range: the cause of the gap is told with the range."""
        built = trace(
            kernels=[kernel(0, 100, correlation_id=1), kernel(300, 400, correlation_id=2)],
            api_calls=[
                call(-20, -10, correlation_id=1),
                call(50, 250, "cudaStreamSynchronize_v3020"),
                call(280, 290, correlation_id=2),
            ],
            nvtx=[nvtx_range(-30, 295, "text"), nvtx_range(40, 270, "encode")],
        )
        waterfall = waterfall_of(parts(trace(kernels=[(0, 100)])), parts(built))
        assert waterfall.idle_path_deltas("synchronization") == {"text > encode": 150}
        assert waterfall.idle_path_deltas("host_code") == {"text > encode": 20, "text": 10}

    def test_a_saved_analysis_gives_the_same_steps_without_paths(self) -> None:
        built = iterations(work=400, copy=100, pause=100)
        known = parts_of_analysis(analyze(built), 0)
        assert known.by_key == parts(built).by_key
        assert known.mean_period_ns == parts(built).mean_period_ns
        assert not known.idle_paths

    def test_the_keys_have_colours(self) -> None:
        assert set(KEYS) - {"overlap"} <= COLOURS.keys()

    def test_parts_that_do_not_add_up_are_refused(self) -> None:
        with pytest.raises(AssertionError, match="do not add up"):
            Parts(0, 100, 1, dict.fromkeys(KEYS, 0) | {"kernel": 99})

    def test_a_side_needs_a_run_and_a_device_operations(self) -> None:
        with pytest.raises(ValueError, match="at least one run"):
            pooled([])
        with pytest.raises(ValueError, match="device 3 has no operation"):
            parts_of(View(trace(kernels=[(0, 10)])), 3)


@st.composite
def random_traces(draw: st.DrawFn) -> Trace:
    """Kernels, copies and memsets on two streams, some launched by calls, and iterations that may be found."""
    spans = st.tuples(st.integers(0, 400), st.integers(1, 60))
    tables: dict[str, list[Row]] = {"kernels": [], "memcpys": [], "memsets": []}
    calls: list[Row] = []
    for number, (start, length) in enumerate(draw(st.lists(spans, min_size=1, max_size=14)), 1):
        name = draw(st.sampled_from(sorted(tables)))
        stream = draw(st.sampled_from([7, 8]))
        launched = draw(st.booleans())
        make = kernel if name == "kernels" else operation
        columns = {"correlation_id": number if launched else 0, "stream_id": stream}
        tables[name].append(make(start, start + length, **columns))  # type: ignore[arg-type]
        if launched:
            begin = start - draw(st.integers(0, 80))
            calls.append(call(begin, begin + draw(st.integers(0, 40)), correlation_id=number))
    begin = draw(st.integers(0, 300))
    calls.append(
        call(begin, begin + draw(st.integers(1, 90)), draw(st.sampled_from(["cudaFree", "cudaDeviceSynchronize"])))
    )
    events = [nvtx_range(at, at + 90, "infer") for at in range(-100, 500, 100)] if draw(st.booleans()) else []
    return trace(**tables, api_calls=calls, nvtx=events)  # type: ignore[arg-type]


@given(random_traces(), random_traces())
@settings(max_examples=80, deadline=None)
def test_steps_add_up_on_random_traces(before: Trace, after: Trace) -> None:
    sides = [parts(before), parts(after)]
    waterfall = waterfall_of(*sides)
    assert sum(step.delta for step in waterfall.steps) == sides[1].mean_period_ns - sides[0].mean_period_ns
    back = waterfall_of(sides[1], sides[0])
    assert [step.delta for step in back.steps] == [-step.delta for step in waterfall.steps]
    for step in waterfall.steps:
        changes = waterfall.idle_path_deltas(step.key)
        if step.key in sides[0].idle_paths or step.key in sides[1].idle_paths:
            assert sum(changes.values()) == step.delta


@pytest.mark.skipif(not REAL, reason="needs real traces: set NITRO_TRACES to the folder that holds nsys/ and own/")
@pytest.mark.parametrize("file", REAL, ids=lambda file: file.name.partition(".sqlite")[0])
def test_a_real_trace_against_its_second_half_adds_up_and_against_itself_is_nothing(file: Path) -> None:
    built = open_trace(file)
    whole = View(built)
    for device in whole.devices:
        side = parts_of(whole, device.device_id)
        assert all(step.delta == 0 for step in waterfall_of(side, side).steps)
        low, high = whole.window.of_device(device.device_id)
        half = View(built, Scope(since_ns=(low + high) // 2, until_ns=high))
        if high - low < 2 or device.device_id not in half.operations.device_ids:
            continue
        later = parts_of(half, device.device_id)
        waterfall = waterfall_of(side, later)
        assert sum(step.delta for step in waterfall.steps) == later.mean_period_ns - side.mean_period_ns
