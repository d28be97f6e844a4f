"""Numbers in sentences."""

from __future__ import annotations

from fractions import Fraction

import pytest

from nitro.analyzer.compare.quantities import count_text, duration_text, duration_texts, factor_text, percent_text


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (7, "7 ns"),
        (-1_400_000, "1.4 ms"),
        (Fraction(5_256_643, 1), "5.26 ms"),
        (40_000, "40 µs"),
        (999_960, "1 ms"),
        (123_456_789_000, "123 s"),
        (5e12, "5,000 s"),
    ],
)
def test_durations_have_three_digits_and_no_sign(ns: Fraction | float, text: str) -> None:
    assert duration_text(ns) == text


def test_two_durations_are_told_apart() -> None:
    assert duration_texts(55_000_000, 55_040_000) == ("55 ms", "55.04 ms")
    assert duration_texts(1_234_567, 1_234_567) == ("1.23 ms", "1.23 ms")


def test_less_than_all_is_never_rounded_up_to_all() -> None:
    assert (percent_text(-0.9996), percent_text(0.99999), percent_text(1)) == ("99.96 %", "99.999 %", "100 %")


def test_other_numbers() -> None:
    assert (percent_text(-0.0471), percent_text(0.1), percent_text(12.5)) == ("4.71 %", "10 %", "1,250 %")
    assert (count_text(Fraction(-214)), count_text(2.5), count_text(1234.6)) == ("214", "2.5", "1,235")
    assert factor_text(1.6) == "1.60x"
