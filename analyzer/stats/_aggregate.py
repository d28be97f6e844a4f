"""Statistics of groups and rounding, as the SQLite functions of `nsys stats` compute them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

# Decimal rounding in SQLite before 3.43 adds this share of the value to half a unit, for values below 2**42, so that
# 0.15, which binary floating point stores a little too small, still becomes 0.2. Beyond 2**52 it leaves values alone.
_ROUNDING_SHARE = 3e-16
_ROUNDING_SHARE_BELOW = float(1 << 42)
_UNROUNDED_ABOVE = float(1 << 52)

STATISTICS = ("total", "mean", "median", "min", "max", "stdev")


def statistics(column: str) -> list[pl.Expr]:
    """Return the aggregations of one integer column, named `{column}_{statistic}` for each of `STATISTICS`.

    Null values are left out. Of no values at all, total, mean, median, min and max are null. The median of an even
    number is the mean of the middle two. The standard deviation is that of a sample (n - 1), and 0.0 for n < 2.
    """
    value = pl.col(column)
    deviation = value - value.mean()
    variance = (deviation * deviation).sum() / (value.count() - 1)
    return [
        pl.when(value.count() > 0).then(value.sum()).alias(f"{column}_total"),
        pl.when(value.count() > 0).then(value.sum() / value.count()).alias(f"{column}_mean"),
        value.median().alias(f"{column}_median"),
        value.min().alias(f"{column}_min"),
        value.max().alias(f"{column}_max"),
        pl.when(value.count() > 1).then(variance.sqrt()).otherwise(0.0).alias(f"{column}_stdev"),
    ]


def share_percent(totals: pl.Series) -> pl.Series:
    """Return 100 × each total ÷ the sum of all; null where the sum is 0."""
    whole = float(totals.sum())
    return divided(totals * 100.0, whole) if whole else pl.Series([None] * len(totals), dtype=pl.Float64)


def divided(series: pl.Series, divisor: float) -> pl.Series:
    """Return the series divided by a number, each quotient rounded once; nulls stay.

    polars multiplies by the reciprocal instead, which can be off by one in the last place: enough to lose a half.
    """
    values = series.cast(pl.Float64)
    quotient = pl.Series(series.name, values.fill_null(0.0).to_numpy() / divisor)
    return quotient.zip_with(values.is_not_null(), pl.Series(series.name, [None], dtype=pl.Float64))


def rounded(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Return the frame with the named columns rounded to one decimal as SQLite does it; nulls stay."""
    return frame.with_columns(_rounded(frame[name]) for name in columns)


def _rounded(series: pl.Series) -> pl.Series:
    values = series.cast(pl.Float64)
    digits = pl.Series(series.name, round_to_tenths(values.fill_null(0.0).to_numpy()))
    return digits.zip_with(values.is_not_null(), pl.Series(series.name, [None], dtype=pl.Float64))


def round_to_tenths(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Round non-negative numbers to one decimal, half up on the decimal value: 2.25 → 2.3, 0.15 → 0.2.

    Matches `round(x, 1)` of SQLite 3.42, which counts in long doubles, for the mean of any integers below 2**42.
    The comparison with the half runs in two-part arithmetic, because one double cannot hold what decides it.
    """
    whole = np.floor(values)
    fraction = values - whole
    # fraction * 10 without loss: the rounded sum of two exact products, and what that rounding dropped.
    eight, two = fraction * 8, fraction * 2
    tenths = eight + two
    lost = two - (tenths - eight)
    digit = np.floor(tenths)
    share = np.where(values < _ROUNDING_SHARE_BELOW, values * (10 * _ROUNDING_SHARE), 0.0)
    above_half = (tenths - digit - 0.5) + lost + share >= 0
    return np.where(values > _UNROUNDED_ABOVE, values, (whole * 10 + digit + above_half) / 10)
