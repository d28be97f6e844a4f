"""The few different values of a long array."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import polars as pl


def distinct(values: npt.NDArray[Any]) -> list[int]:
    """Return the different integers of an array, ascending.

    Threads, streams and devices are few among millions of rows: hashing finds them several times faster than the sort
    of `numpy.unique`, and one value needs no search at all.
    """
    if not len(values):
        return []
    low, high = int(values.min()), int(values.max())
    return [low] if low == high else pl.Series(values).unique().sort().to_list()
