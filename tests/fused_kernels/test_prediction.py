from __future__ import annotations

import pytest

from nitro.fused_kernels.cases import P_NORM, predicted_time_s
from nitro.fused_kernels.prediction import Sample, calibrate, calibrated_p, mean_error, quality, relative_error


def fused_by(p: float, case: str, kernel_class: str, first: float = 4.0, second: float = 3.0) -> Sample:
    return Sample(case, kernel_class, first, second, predicted_time_s(first, second, p))


def test_the_error_is_relative_to_what_was_measured() -> None:
    # sqrt(4^2 + 3^2) = 5 predicted, 4 measured.
    assert relative_error(Sample("a", "gemm", 4.0, 3.0, 4.0), 2.0) == pytest.approx(0.25)


def test_calibration_finds_the_p_that_made_the_times_class_by_class() -> None:
    samples = [fused_by(2.0, "a", "gemm"), fused_by(2.0, "b", "gemm", 4.0, 1.5), fused_by(1.3, "c", "conv")]
    assert calibrate(samples) == {"gemm": pytest.approx(2.0), "conv": pytest.approx(1.3)}


def test_without_samples_the_p_of_the_rule_stands() -> None:
    assert calibrated_p([]) == P_NORM
    assert mean_error([], {}) is None


def test_a_pair_that_takes_as_long_as_both_is_at_the_lower_end() -> None:
    assert calibrated_p([Sample("a", "gemm", 4.0, 3.0, 7.5)]) == 1.0


def test_judging_samples_do_not_calibrate() -> None:
    tuning = [fused_by(2.0, "a", "gemm"), fused_by(2.0, "b", "gemm")]
    judging = [Sample("a", "gemm", 4.0, 3.0, 4.0), Sample("b", "gemm", 4.0, 3.0, 5.0)]
    found = quality(tuning, judging)
    assert found.p == {"gemm": pytest.approx(2.0)}
    assert found.held_out == pytest.approx((0.25 + 0.0) / 2, abs=1e-9)
    assert found.worst == pytest.approx(0.25)
    assert found.worst_case == "a"
    assert found.cases == 2


def test_a_case_that_is_left_out_is_predicted_by_the_others_of_its_class() -> None:
    tuning = [fused_by(1.5, "a", "gemm"), fused_by(2.5, "b", "gemm"), fused_by(1.1, "c", "conv")]
    found = quality(tuning, tuning)
    expected = (relative_error(tuning[0], 2.5) + relative_error(tuning[1], 1.5) + relative_error(tuning[2], P_NORM)) / 3
    assert found.left_out == pytest.approx(expected, abs=2e-3)
    assert found.fixed == pytest.approx(sum(relative_error(one, P_NORM) for one in tuning) / 3)


def test_nothing_measured_predicts_nothing() -> None:
    found = quality([], [])
    assert (found.held_out, found.left_out, found.worst, found.worst_case) == (None, None, None, None)
