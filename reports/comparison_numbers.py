"""Numbers of a comparison as text: changes with their sign, and durations that can be added up as they stand."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from . import numbers
from .numbers import MISSING, Quantity, quantity

Number = Fraction | float | int
_UNITS = ((10**9, "s"), (10**6, "ms"), (10**3, "µs"), (1, "ns"))
_DECIMALS = 3


def unit_of(*durations_ns: Number) -> str:
    """Return the unit in which the longest of some durations has one to three digits before the point."""
    longest = max((abs(float(value)) for value in durations_ns), default=0.0)
    return next((name for size, name in _UNITS if longest >= size), "ns")


def fixed(ns: Number | None, unit: str, *, is_signed: bool = False) -> Quantity:
    """Return a duration in a unit with three decimals, without the unit: numbers like these add up to rounding.

    `Quantity.value` is in that unit, which the head of the column has.
    """
    if ns is None:
        return MISSING
    size = next(size for size, name in _UNITS if name == unit)
    value = float(Fraction(ns) / size)
    text = f"{value:{'+' if is_signed else ''},.{_DECIMALS}f}"
    return quantity(_without_lone_sign(text), value)


def signed_duration(ns: Number) -> Quantity:
    """Return a change of a duration with its sign and unit, such as `-1.90 ms`."""
    value = float(ns)
    return quantity(f"{'+' if value > 0 else ''}{numbers.duration(value)}", value)


def signed_percent(ratio: float | None) -> Quantity:
    """Return a relative change in percent with its sign, with as many digits as it takes not to be 0."""
    if ratio is None:
        return MISSING
    percent = ratio * 100
    decimals = 1 if abs(percent) >= 1 else 2
    return quantity(f"{_without_lone_sign(f'{percent:+,.{decimals}f}')} %", ratio)


def bare_percent(ratio: float | None) -> Quantity:
    """Return a ratio in percent without the sign for it, which the head of the column has."""
    return MISSING if ratio is None else quantity(f"{ratio * 100:.1f}", ratio)


def from_to(before: float | None, after: float | None, shown: Callable[[float | None], Quantity]) -> Quantity:
    """Return two values as `2.5 % → 7.3 %`, one that is missing as a dash; sorted by the change."""
    change = None if before is None or after is None else after - before
    if before is None and after is None:
        return MISSING
    return quantity(f"{shown(before)} → {shown(after)}", change)


def _without_lone_sign(text: str) -> str:
    """Return a number whose digits are all 0 without its sign."""
    return text.lstrip("+-") if not text.strip("+-0.,") else text
