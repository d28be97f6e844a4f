"""Numbers in the sentences of a comparison: short texts that are the same in every language."""

from __future__ import annotations

from fractions import Fraction

_MOST_DIGITS = 9
_UNITS = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"))


def duration_text(ns: Fraction | float, digits: int = 3) -> str:
    """Return the size of a duration with its unit, without sign, such as `1.9 ms`, with so many significant digits."""
    size = abs(float(ns))
    for scale, unit in _UNITS:
        # What would round up to 1000 of a unit is 1 of the next.
        if size >= 0.9995 * scale:
            return f"{_significant(size / scale, digits)} {unit}"
    return f"{_significant(size, digits)} ns"


def duration_texts(before: Fraction | float, after: Fraction | float) -> tuple[str, str]:
    """Return two durations with as many digits, from three to seven, as it takes to tell them apart."""
    for digits in range(3, 8):
        texts = duration_text(before, digits), duration_text(after, digits)
        if texts[0] != texts[1]:
            return texts
    return duration_text(before), duration_text(after)


def percent_text(ratio: float) -> str:
    """Return the size of a ratio in percent, without sign, such as `4.7 %`; what is less than 100 % never reads so."""
    size = abs(ratio) * 100
    texts = (_significant(size, digits) for digits in range(3, _MOST_DIGITS + 1))
    return f"{next((text for text in texts if size >= 100 or text != '100'), '100')} %"


def count_text(count: Fraction | float) -> str:
    """Return the size of a count, without sign: whole where it is, else with one digit behind the point."""
    size = abs(float(count))
    return f"{size:,.0f}" if size >= 100 or abs(size - round(size)) < 0.05 else f"{size:,.1f}"


def factor_text(factor: float) -> str:
    """Return a factor with two digits behind the point, such as `1.82x`."""
    return f"{factor:.2f}x"


def _significant(value: float, digits: int = 3) -> str:
    whole = 1 if value < 9.995 else 2 if value < 99.95 else 3
    text = f"{value:,.{max(digits - whole, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
