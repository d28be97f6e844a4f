"""The parts of a global thread id of nsys: host 8 bits, virtual machine 8, process 24, thread 24."""

from __future__ import annotations

import polars as pl

_SIZE = 1 << 24


def process_of(global_tid: str) -> pl.Expr:
    """Return the global process id: the thread id with its thread bits zero."""
    return pl.col(global_tid) - pl.col(global_tid) % _SIZE


def pid_of(global_id: str) -> pl.Expr:
    """Return the process number as the operating system gave it."""
    return pl.col(global_id) // _SIZE % _SIZE


def tid_of(global_tid: str) -> pl.Expr:
    """Return the thread number as the operating system gave it."""
    return pl.col(global_tid) % _SIZE
