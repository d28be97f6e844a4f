"""What readers other than that of nsys SQLite share: frames in the shape of the contract, threads as global ids."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from ..tables import TABLE_BY_NAME

# Host and VM bits of every global id, as an nsys export of one machine has them.
HOST = 1 << 48
_THREAD_BITS = 24
_THREAD_MASK = (1 << _THREAD_BITS) - 1
_PROCESS_MASK = (1 << 24) - 1


def conformed(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame with exactly the columns and types of a table of the contract.

    A column that the frame lacks is null, a value that does not fit its type becomes null, and text becomes an Enum
    whose categories are sorted.
    """
    columns: list[pl.Expr | pl.Series] = []
    for column in TABLE_BY_NAME[name].columns:
        if column.dtype is pl.Enum:
            columns.append(_as_enum(frame, column.name))
        elif column.name in frame.columns:
            columns.append(pl.col(column.name).cast(column.dtype, strict=False))
        else:
            columns.append(pl.lit(None, column.dtype).alias(column.name))
    return frame.select(columns) if len(frame) else TABLE_BY_NAME[name].empty()


def named(codes: pl.Series, texts: Mapping[int, str]) -> pl.Series:
    """Return the text of each code, null where a code has none."""
    unique = [code for code in codes.drop_nulls().unique().to_list() if code in texts]
    return codes.replace_strict(unique, [texts[code] for code in unique], default=None, return_dtype=pl.String)


def global_pid(pid: int) -> int:
    """Return a process id with host bits, thread bits zero."""
    return HOST | ((pid & _PROCESS_MASK) << _THREAD_BITS)


class Threads:
    """Global thread ids for threads as tools name them.

    A Linux thread id fits the 24 bits that a global id has for it and stays. A pthread value or a text does not: such
    threads are numbered from 1 in the order in which they are first asked for.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int | str], int] = {}

    def id_of(self, pid: int, tid: int | str) -> int:
        """Return the global id of a thread."""
        key = (pid, tid)
        if key not in self._known:
            fits = isinstance(tid, int) and 0 < tid <= _THREAD_MASK
            number = tid if fits else 1 + sum(1 for process, _ in self._known if process == pid)
            self._known[key] = global_pid(pid) | int(number)
        return self._known[key]

    def ids_of(self, pids: pl.Series, tids: pl.Series) -> pl.Series:
        """Return the global ids of many threads."""
        pairs = pl.DataFrame({"pid": pids, "tid": tids})
        unique = pairs.unique(maintain_order=True)
        ids = [self.id_of(pid, tid) for pid, tid in unique.iter_rows()]
        numbered = unique.with_columns(pl.Series("id", ids, dtype=pl.Int64))
        return pairs.join(numbered, on=["pid", "tid"], how="left", maintain_order="left")["id"]

    @property
    def all(self) -> tuple[int, ...]:
        """The global ids given so far."""
        return tuple(self._known.values())


def _as_enum(frame: pl.DataFrame, name: str) -> pl.Expr | pl.Series:
    if name not in frame.columns:
        return pl.lit(None, pl.Enum([])).alias(name)
    values = frame[name]
    if isinstance(values.dtype, pl.Enum):
        return pl.col(name)
    return values.cast(pl.String).cast(pl.Enum(values.cast(pl.String).drop_nulls().unique().sort()))


def file_name(name: str) -> str:
    """Return a file name as text; one that is not UTF-8 has halves of letters in it, which no output can hold."""
    return name.encode(errors="replace").decode()
