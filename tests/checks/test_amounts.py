"""Amounts of a budget: numbers with the units that people write."""

from __future__ import annotations

import pytest

from nitro.analyzer.analysis import all_metrics
from nitro.analyzer.checks.amounts import EXAMPLES, SUFFIXES, amount, share


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("15 ms", "ns", 15e6),
        ("15ms", "ns", 15e6),
        ("1.5 s", "ns", 1.5e9),
        ("30 us", "ns", 30e3),
        ("30 µs", "ns", 30e3),
        (120, "1", 120),
        ("1,200", "1", 1200),
        ("1,234,567.5 ns", "ns", 1234567.5),
        ("1_200", "1", 1200),
        ("30 %", "ratio", 0.3),
        (0.3, "ratio", 0.3),
        ("60 /s", "1/s", 60),
        (60, "items/s", 60),
        ("1.5 GiB", "bytes", 1.5 * 2**30),
        ("2 MB", "bytes", 2e6),
        ("50 GB/s", "bytes/s", 50e9),
        ("900 MHz", "Hz", 900e6),
        ("1e6", "cycles", 1e6),
        ("120 mJ", "J", 0.12),
        ("15 W", "W", 15),
        ("85 °C", "degC", 85),
    ],
)
def test_an_amount_is_read_in_the_unit_of_its_metric(text: object, unit: str, value: float) -> None:
    assert amount(text, unit) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        (15, "ns"),
        ("15", "ns"),
        ("15 kg", "ns"),
        ("15 ms", "bytes"),
        (900, "Hz"),
        (1000, "bytes"),
        ("fast", "1"),
        (True, "1"),
        (None, "1"),
        (float("nan"), "1"),
        ("", "ns"),
    ],
)
def test_what_nobody_can_read_is_refused_with_an_example(text: object, unit: str) -> None:
    with pytest.raises(ValueError, match="write") as caught:
        amount(text, unit)
    assert EXAMPLES[unit] in str(caught.value)


@pytest.mark.parametrize(
    ("text", "unit", "way"),
    [
        ("16,5 ms", "ns", "write 16.5 ms"),
        ("1,5 GiB", "bytes", "write 1.5 GiB"),
        ("2,5 %", "ratio", "write 2.5 %"),
        ("1,2345", "1", "write 1.2345"),
        ("0,125 s", "ns", "write 0.125 s"),
        ("1234,567", "1", "write 1234.567"),
        ("1,2,3", "1", "write 1,200 or 1.2"),
        ("1,50.5", "1", "write 1,200 or 1.2"),
    ],
)
def test_a_decimal_comma_is_refused_and_never_dropped(text: str, unit: str, way: str) -> None:
    with pytest.raises(ValueError, match="has a comma that parts no thousands") as caught:
        amount(text, unit)
    assert str(caught.value).endswith(way)


def test_a_share_with_a_decimal_comma_is_refused() -> None:
    with pytest.raises(ValueError, match=r'write "2\.5 %"'):
        share("2,5 %")


def test_every_unit_of_a_metric_can_be_read() -> None:
    units = {unit for metric in all_metrics() for unit in metric.provides.values()} - {"table", "reason"}
    assert units <= set(SUFFIXES)
    assert set(EXAMPLES) == set(SUFFIXES)


@pytest.mark.parametrize("unit", SUFFIXES)
def test_each_example_can_be_read(unit: str) -> None:
    first = EXAMPLES[unit].partition(" or ")[0]
    assert amount(first.strip('"') if first.startswith('"') else float(first), unit) > 0


@pytest.mark.parametrize(("text", "value"), [("3 %", 0.03), (0.03, 0.03), ("0.5%", 0.005)])
def test_a_share_is_read(text: object, value: float) -> None:
    assert share(text) == pytest.approx(value)


@pytest.mark.parametrize("text", [3, 0, "0 %", "100 %", -0.1, "3 ms", "three", None])
def test_a_share_outside_of_0_to_1_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is no share"):
        share(text)
