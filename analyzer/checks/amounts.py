"""Amounts as people write them in a budget: `15 ms`, `3 %`, `1.5 GiB`, `900 MHz`, `60 /s`, `120`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

_AMOUNT = re.compile(r"^\s*([-+]?\d[\d_,]*(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*(.*?)\s*$")
# Neither 16,5 nor 1,5.0 counts thousands; whoever writes a decimal comma must not get ten times the limit.
_GROUPED = re.compile(r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_DECIMAL = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BYTES = {prefix + "B": factor for prefix, factor in _DECIMAL.items()} | {
    f"{prefix}iB": 1024.0**power for power, prefix in enumerate("KMGT", 1)
}
# What may stand behind a number, by the unit of the metric. The empty text means that a bare number is clear enough.
SUFFIXES: Mapping[str, Mapping[str, float]] = {
    "ns": {"ns": 1.0, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9},
    "1": {"": 1.0},
    "ratio": {"": 1.0, "%": 0.01},
    "1/s": {"": 1.0, "/s": 1.0, "1/s": 1.0},
    "items/s": {"": 1.0, "/s": 1.0, "items/s": 1.0},
    "bytes": _BYTES,
    "bytes/s": {f"{name}/s": factor for name, factor in _BYTES.items()},
    "Hz": {f"{prefix}Hz": factor for prefix, factor in _DECIMAL.items()},
    "cycles": {"": 1.0, "cycles": 1.0},
    "W": {"W": 1.0, "mW": 1e-3, "kW": 1e3},
    "J": {"J": 1.0, "mJ": 1e-3, "kJ": 1e3},
    "nJ": {"nJ": 1.0, "µJ": 1e3, "uJ": 1e3, "mJ": 1e6, "J": 1e9},
    "1/J": {"": 1.0, "/J": 1.0, "1/J": 1.0},
    "degC": {"": 1.0, "°C": 1.0, "degC": 1.0},
}
EXAMPLES: Mapping[str, str] = {
    "ns": '"15 ms"',
    "1": "120",
    "ratio": '"30 %" or 0.3',
    "1/s": "60",
    "items/s": "60",
    "bytes": '"1.5 GiB"',
    "bytes/s": '"50 GB/s"',
    "Hz": '"900 MHz"',
    "cycles": "1000000",
    "W": '"15 W"',
    "J": '"120 mJ"',
    "nJ": '"120 mJ"',
    "1/J": "8.5",
    "degC": '"85 °C"',
}


def amount(text: object, unit: str) -> float:
    """Return a number in a unit of the metrics.

    Args:
        text: a number, or a number with a suffix as in `"15 ms"`. A bare number is refused where nobody could tell what
            it counts (times, bytes, clocks).
        unit: see `nitro.analyzer.metric.Unit`.

    Raises:
        ValueError: this is no amount of that unit; the message gives an example of one.
    """
    suffixes = SUFFIXES[unit]
    number, suffix = math.nan, ""
    if isinstance(text, str) and (match := _AMOUNT.match(text)):
        number, suffix = _number(text, match[1]), match[2]
    elif isinstance(text, int | float) and not isinstance(text, bool):
        number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is no amount; write {EXAMPLES[unit]}")
    if suffix not in suffixes:
        wrong = f"has the unit {suffix!r}" if suffix else "has no unit"
        raise ValueError(f"{text!r} {wrong}; write {EXAMPLES[unit]}")
    return number * suffixes[suffix]


def _number(text: str, digits: str) -> float:
    """Return the number in front of a suffix; commas may only part groups of three digits."""
    if "," in digits and not _GROUPED.fullmatch(digits):
        way = text.strip().replace(",", ".") if text.count(",") == 1 and "." not in digits else "1,200 or 1.2"
        raise ValueError(f"{text!r} has a comma that parts no thousands; write {way}")
    return float(re.sub("[_,]", "", digits))


def share(text: object) -> float:
    """Return a share such as `"3 %"` or 0.03, above 0 and below 1.

    Raises:
        ValueError: it is no such share.
    """
    if isinstance(text, str) and "," in text:
        raise ValueError(f'{text!r} is no share between 0 and 1; write "{text.strip().replace(",", ".")}"')
    try:
        number = amount(text, "ratio")
    except ValueError:
        number = math.nan
    if not 0 < number < 1:
        raise ValueError(f'{text!r} is no share between 0 and 1; write "3 %" or 0.03')
    return number
