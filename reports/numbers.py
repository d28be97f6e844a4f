"""The only place where a number becomes text: unit, scale, digits.

Every function returns a `Quantity`, so that an output that sorts or plots still has the number behind the text.
"""

from __future__ import annotations

from collections.abc import Sequence


class Quantity(str):
    """A number as text. `value` is the number in its base unit (ns, bytes, ratio), `None` where there is none."""

    __slots__ = ("value",)

    value: float | None

    def __reduce__(self) -> tuple[object, ...]:
        return quantity, (str(self), self.value)


def quantity(text: str, value: float | None) -> Quantity:
    """Return a text with the number that it stands for."""
    made = Quantity(text)
    made.value = value
    return made


MISSING = quantity("–", None)
_DURATIONS = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns"))
_BYTES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))
# Power and energy of a small board, or of one item, lie below one.
_SMALL_RATES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_RATES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def significant(value: float, digits: int = 3) -> Quantity:
    """Return the value with this many significant digits, at least all those before the point, and separators."""
    if value == 0:
        return quantity("0", value)
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    if whole >= digits:
        return quantity(f"{value:,.0f}", value)
    decimals = digits - whole if whole else _decimals_below_one(abs(value), digits)
    return quantity(f"{value:,.{decimals}f}", value)


def _decimals_below_one(value: float, digits: int) -> int:
    zeros = 0
    while value < 0.1 and zeros < 6:
        value *= 10
        zeros += 1
    return digits + zeros


def duration(ns: float | None) -> Quantity:
    """Return a duration with the unit that leaves one to three digits before the point."""
    if ns is None:
        return MISSING
    size, unit = next((pair for pair in _DURATIONS if abs(ns) >= pair[0]), _DURATIONS[-1])
    return quantity(f"{significant(ns / size)} {unit}", ns)


def seconds(time_ns: int) -> Quantity:
    """Return a time since session start, in seconds to the microsecond."""
    return quantity(f"{time_ns / 1e9:.6f} s", time_ns)


def durations(values: Sequence[float | None]) -> tuple[str, list[Quantity]]:
    """Return one unit for a column of durations, and the values in it, so that they compare at a glance.

    The unit is that of the column's head, so it is the unit of `Quantity.value` too.
    """
    known = sorted(abs(value) for value in values if value)
    middle = known[len(known) // 2] if known else 1.0
    size, unit = next((pair for pair in _DURATIONS if middle >= pair[0]), _DURATIONS[-1])
    decimals = 0 if unit == "ns" else 3 if middle / size < 10 else 2 if middle / size < 100 else 1
    texts = [MISSING if value is None else quantity(f"{value / size:,.{decimals}f}", value / size) for value in values]
    return unit, texts


def in_time_unit(ns: float | None, unit: str) -> Quantity:
    """Return a duration without its unit, in a unit that `durations` chose for a column."""
    if ns is None:
        return MISSING
    size = next(size for size, name in _DURATIONS if name == unit)
    return quantity(significant(ns / size), ns / size)


def count(value: float | None) -> Quantity:
    """Return a count with separators; at most one decimal, and none for whole numbers."""
    if value is None:
        return MISSING
    return quantity(f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}", value)


def percent(ratio: float | None) -> Quantity:
    """Return a ratio in percent with one decimal; a small part is not rounded to nothing."""
    if ratio is None:
        return MISSING
    if 0 < ratio < 0.0005:
        return quantity("<0.1 %", ratio)
    return quantity(f"{ratio * 100:.1f} %", ratio)


def size(number_of_bytes: float | None) -> Quantity:
    """Return bytes with a binary unit."""
    if number_of_bytes is None:
        return MISSING
    scale, unit = next((pair for pair in _BYTES if number_of_bytes >= pair[0]), _BYTES[-1])
    digits = significant(number_of_bytes / scale) if scale > 1 else f"{number_of_bytes:.0f}"
    return quantity(f"{digits} {unit}", number_of_bytes)


def times(factor: float | None) -> Quantity:
    """Return a factor, as in `1.84 x`."""
    if factor is None:
        return MISSING
    return quantity(f"{factor:.2f} x", factor)


def in_unit(value: float, unit: str) -> Quantity:
    """Return a value in the form that its unit asks for."""
    if unit == "ns":
        return duration(value)
    if unit == "ratio":
        return percent(value) if value <= 1 else times(value)
    if unit == "bytes":
        return size(value)
    if unit in ("bytes/s", "Hz", "1/s", "items/s"):
        return rate(value, unit.replace("bytes", "B").replace("1/s", "/s"))
    if unit in ("W", "J"):
        scale, prefix = next((pair for pair in _SMALL_RATES if abs(value) >= pair[0]), (1.0, ""))
        return quantity(f"{significant(value / scale)} {prefix}{unit}", value)
    if unit == "degC":
        return quantity(f"{value:.1f} °C", value)
    return count(value)


def rate(value: float | None, unit: str) -> Quantity:
    """Return a rate with a decimal prefix before its unit, as in `4.81 TB/s`."""
    if value is None:
        return MISSING
    scale, prefix = next((pair for pair in _RATES if abs(value) >= pair[0]), _RATES[-1])
    return quantity(f"{significant(value / scale)} {prefix}{unit}", value)
