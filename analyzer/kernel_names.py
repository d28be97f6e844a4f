"""The name by which a kernel is known, where an export holds both of its names, one, or none."""

from __future__ import annotations

import polars as pl

from .tables import enum_texts

KERNEL_NAME = "kernel_name"
NAME_LOST = "(name lost)"


def known_names(kernels: pl.DataFrame) -> pl.Series:
    """Return the full name of each row of a kernel table, the function's name where the full one was lost.

    Args:
        kernels: rows with the columns `demangled_name` and `short_name` of the column contract.

    Returns:
        An Enum series `KERNEL_NAME` in the order of the rows, its categories sorted as they were; null where the row
        has neither name. `nsys stats` leaves the name empty where the full one is lost, and so do its tables here.
    """
    full, short = (kernels[name].alias(KERNEL_NAME) for name in ("demangled_name", "short_name"))
    if not full.null_count() or short.null_count() == len(short):
        return full
    names = pl.Enum(sorted({*enum_texts(full), *enum_texts(short)}))
    return full.cast(names).zip_with(full.is_not_null(), short.cast(names))
