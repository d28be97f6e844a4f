"""How threads and API calls are named in results."""

from __future__ import annotations

from typing import overload

import polars as pl

from ..kernel_names import NAME_LOST

_VERSION_SUFFIX = r"_v\d{4,5}$"


def call_name(column: str) -> pl.Expr:
    """Return the API name without the version suffix of the export (`_v7000`), `(name lost)` where it is null."""
    return pl.col(column).cast(pl.String).str.replace(_VERSION_SUFFIX, "").fill_null(NAME_LOST)


@overload
def thread_name(global_tid: int) -> str: ...
@overload
def thread_name(global_tid: str) -> pl.Expr: ...
def thread_name(global_tid: int | str) -> str | pl.Expr:
    """Return `pid P tid T` for a global thread id, or an expression for a column of such ids."""
    if isinstance(global_tid, int):
        return f"pid {(global_tid >> 24) & 0xFFFFFF} tid {global_tid & 0xFFFFFF}"
    column = pl.col(global_tid)
    return pl.format("pid {} tid {}", (column // (1 << 24)) % (1 << 24), column % (1 << 24))
