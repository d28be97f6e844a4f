"""Names of CUDA calls without the version that CUPTI appends."""

from __future__ import annotations

import polars as pl


def without_version(names: pl.Series) -> pl.Series:
    """Return the names without a version suffix of exactly four characters: `cudaMalloc_v3020` → `cudaMalloc`.

    As in `nsys stats`, a suffix of another length stays: `cudaGraphLaunch_v10000` keeps its name.
    """
    return names.cast(pl.String).str.replace(r"(?s)_v.{4}$", "")
