"""The cases of the fusion benchmark, and the rule that accepts a pair."""

from __future__ import annotations

import pytest

from nitro.fused_kernels.cases import (
    COMPUTE_SHAPES,
    LEAST_RATIO,
    Alone,
    cases,
    estimated_time_s,
    flop,
    is_accepted,
    predicted_time_s,
)

COMPUTE = Alone(300e-6, 2.0)


def test_there_are_enough_cases_on_enough_kernels() -> None:
    unlike = [case for case in cases() if not case.is_control]
    assert len(unlike) >= 24
    assert len({case.first for case in unlike}) >= 3
    assert len({case.name for case in cases()}) == len(cases())
    assert sum(case.is_control for case in cases()) >= 2


def test_operations_by_hand() -> None:
    assert flop("gemm_f32", {"m": 2, "n": 3, "k": 4}) == 48
    shape = {"batch": 1, "height": 2, "width": 2, "c_in": 3, "c_out": 5}
    assert flop("conv3x3_f32", shape) == 2 * 4 * 15 * 9


@pytest.mark.parametrize("case", [case for case in cases() if case.second == "layer_norm" and not case.is_control])
def test_the_memory_side_is_as_long_as_intended(case: object) -> None:
    from nitro.fused_kernels.cases import MEMORY_BYTES_PER_S, Case

    assert isinstance(case, Case)
    moved = case.second_shape["rows"] * case.second_shape["columns"] * 2 * 4
    compute = estimated_time_s(case.first, COMPUTE_SHAPES[case.first])  # type: ignore[arg-type,index]
    assert moved / MEMORY_BYTES_PER_S / compute == pytest.approx(case.ratio, rel=0.02)


def test_the_model_lies_between_the_longer_kernel_and_the_sum() -> None:
    assert 4.0 < predicted_time_s(4.0, 3.0) < 7.0
    assert predicted_time_s(4.0, 0.0) == pytest.approx(4.0)
    assert predicted_time_s(3.0, 4.0, p=2.0) == pytest.approx(5.0)


def test_unlike_kernels_of_like_length_are_accepted() -> None:
    assert is_accepted(COMPUTE, Alone(250e-6, 0.05), is_co_resident=True)
    assert is_accepted(Alone(250e-6, 0.05), COMPUTE, is_co_resident=True)


@pytest.mark.parametrize(
    ("second", "co_resident"),
    [
        (Alone(250e-6, 2.0), True),
        (Alone(250e-6, 0.5), True),
        (Alone(LEAST_RATIO * 300e-6 * 0.99, 0.05), True),
        (Alone(250e-6, 0.05), False),
    ],
    ids=["two compute kernels", "neither the one nor the other", "too short", "no room for both"],
)
def test_a_pair_that_cannot_win_is_rejected(second: Alone, co_resident: bool) -> None:
    assert not is_accepted(COMPUTE, second, is_co_resident=co_resident)


def test_two_memory_kernels_are_rejected() -> None:
    assert not is_accepted(Alone(300e-6, 0.05), Alone(300e-6, 0.1), is_co_resident=True)
