"""Sampled activity of the same phase before and after, from samples whose values are known."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from builders import call, gpu, kernel, nvtx_range, sample, trace
from nitro.analyzer import Trace
from nitro.analyzer.compare import PhaseActivity, compare
from nitro.analyzer.compare.phase_activity import WHOLE_ITERATION, phase_activities
from nitro.analyzer.view import View

STEP = 10_000
ITERATIONS = 8


# The first sample of a capture is dropped, so that some of the first phase has none: means differ by less than 1 %.


def run(phases: dict[str, tuple[int, int]], *, is_sampled: bool = True, tensor: int | None = 20) -> Trace:
    """Return iterations of phases one after the other: name -> (length in steps of 10 us, SM active in percent)."""
    kernels, calls, ranges, samples = [], [], [], []
    identifier, now = 0, STEP
    for iteration in range(ITERATIONS):
        begin = now
        for name, (steps, active) in phases.items():
            identifier += 1
            end = now + steps * STEP
            ranges.append(nvtx_range(now - 60, now - 10, name))
            calls.append(call(now - 50, now - 20, correlation_id=identifier))
            kernels.append(kernel(now, end, f"{name}_kernel", correlation_id=identifier))
            for time in range(now + STEP // 2, end + 1, STEP // 2):
                samples.append(sample(time, "sm_active", active))
                if tensor is not None:
                    samples.append(sample(time, "tensor_active", tensor))
            now = end
        ranges.append(nvtx_range(begin - 100, now - 100, f"infer:{iteration}"))
    return trace(
        kernels=kernels,
        api_calls=calls,
        nvtx=ranges,
        devices=[gpu(0, sm_count=8)],
        **({"gpu_metric_samples": samples} if is_sampled else {}),  # type: ignore[arg-type]
    )


def activities(before: Trace, after: Trace) -> dict[str, PhaseActivity]:
    found = phase_activities([View(before)], [View(after)], (0, 0))
    return {phase.path: phase for phase in found}


def test_a_phase_has_the_mean_of_its_own_samples() -> None:
    found = activities(run({"vision": (6, 40), "text": (4, 80)}), run({"vision": (3, 90), "text": (4, 80)}))
    assert list(found) == [WHOLE_ITERATION, "vision", "text"]
    vision = found["vision"]
    assert vision.before is not None
    assert vision.after is not None
    assert vision.before.values["sm_active"] == pytest.approx(0.40)
    assert vision.after.values["sm_active"] == pytest.approx(0.90)
    assert vision.delta("sm_active") == pytest.approx(0.50)
    assert found["text"].delta("sm_active") == pytest.approx(0)
    assert (vision.before.projection_ns, vision.after.projection_ns) == (Fraction(6 * STEP), Fraction(3 * STEP))


def test_the_whole_iteration_weighs_phases_by_time() -> None:
    found = activities(run({"vision": (6, 40), "text": (4, 80)}), run({"vision": (3, 90), "text": (4, 80)}))
    whole = found[WHOLE_ITERATION]
    assert whole.before is not None
    assert whole.after is not None
    assert whole.before.values["sm_active"] == pytest.approx((6 * 40 + 4 * 80) / 1000, rel=0.01)
    assert whole.after.values["sm_active"] == pytest.approx((3 * 90 + 4 * 80) / 700, rel=0.01)


def test_a_phase_of_one_side_is_kept() -> None:
    found = activities(run({"vision": (6, 40), "text": (4, 80)}), run({"both": (5, 90)}))
    assert found["vision"].after is None
    assert found["both"].before is None
    assert found["both"].delta("sm_active") is None
    assert found["both"].to_dict()["before"] is None


def test_what_was_not_sampled_is_none_and_not_0() -> None:
    found = activities(run({"vision": (6, 40)}, tensor=None), run({"vision": (6, 40)}))
    vision = found["vision"]
    assert vision.before is not None
    assert vision.before.values["tensor_active"] is None
    assert vision.before.values["dram_read"] is None
    assert vision.delta("tensor_active") is None


def test_too_few_samples_give_no_value() -> None:
    kept = run({"vision": (60, 40), "blink": (1, 99)})
    phases = activities(kept, kept)
    # Two samples in each of seven iterations are enough, and each is of the phase alone.
    blink = phases["blink"].before
    assert blink is not None
    assert blink.samples >= 5
    assert blink.values["sm_active"] == pytest.approx(0.99)


def test_a_phase_shorter_than_a_sampling_period_has_no_value() -> None:
    built = run({"vision": (20, 40), "blink": (1, 99)})
    frame = built.table("gpu_metric_samples")
    assert frame is not None
    # Every eighth sample: a period of 40 us, of which a blink of 10 us is a quarter.
    kept = frame.filter((frame["time_ns"] // (STEP // 2)) % 8 == 0)
    coarse = replace(built, tables={**built.tables, "gpu_metric_samples": kept})
    phases = activities(coarse, built)
    blink, vision = phases["blink"], phases["vision"]
    assert blink.before is not None
    assert blink.after is not None
    assert vision.before is not None
    assert blink.before.samples >= 5
    assert blink.before.values["sm_active"] is None
    assert blink.after.values["sm_active"] == pytest.approx(0.99)
    assert vision.before.values["sm_active"] is not None


def test_without_samples_there_is_nothing() -> None:
    sides = [run({"vision": (6, 40)}, is_sampled=False) for _ in range(2)]
    assert phase_activities([View(sides[0])], [View(sides[1])], (0, 0)) == ()


def test_runs_of_a_side_are_weighed_by_time() -> None:
    short, long = run({"vision": (2, 90)}), run({"vision": (6, 50)})
    comparison = compare([short, long], [short, long], allow=("duplicate_runs",))
    (device,) = comparison.devices
    vision = next(phase for phase in device.phases if phase.path == "vision")
    assert vision.before is not None
    assert vision.before.values["sm_active"] == pytest.approx((2 * 90 + 6 * 50) / 800, rel=0.01)
