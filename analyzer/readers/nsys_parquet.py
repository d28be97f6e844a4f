"""Nsight Systems `parquetdir` exports: a folder with one Parquet file a table, columns as in the SQLite export.

Event tables are read with polars. What the reader of SQLite asks in SQL (facts, names, messages) is asked of a database
in memory, into which a table is copied when it is first named.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from nitro.errors import InputError

from ..message import message
from ..reader import Head, Reader
from ..trace import Trace
from ._sqlite_file import SqliteFile, quoted
from .nsys_sqlite import trace_of

FORMAT = "nsys-parquetdir"
_SUFFIX = ".parquet"
_KNOWN_BY = ("StringIds", "TARGET_INFO_SESSION_START_TIME", "CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_RUNTIME")
_ROWS_PER_INSERT = 50_000


def recognises(head: Head) -> bool:
    """Tell whether this is a folder with tables of nsys as Parquet files."""
    return head.is_folder and any(f"{name}{_SUFFIX}" in head.names for name in _KNOWN_BY)


def read(path: Path) -> Trace:
    """Return the trace in a folder that `nsys export --type parquetdir` wrote.

    Raises:
        InputError: the folder holds no table of nsys, or a file in it is damaged.
    """
    folder = ParquetFolder(path)
    size = sum(file.stat().st_size for file in folder.files.values())
    return trace_of(folder, FORMAT, size)


class ParquetFolder(SqliteFile):
    """A folder of Parquet files that answers as a SQLite file does. Nothing in it is changed."""

    def __init__(self, path: Path) -> None:
        """List the tables of a folder.

        Raises:
            InputError: there are none, or the footer of one is damaged.
        """
        # The base class opens a file, which a folder is not; beyond that it asks `_schema` and `_connection` alone.
        self.path = path
        self.notes = []
        self._temporary = None
        self.files = {
            file.name.removesuffix(_SUFFIX): file for file in sorted(path.iterdir()) if file.name.endswith(_SUFFIX)
        }
        if not any(name in self.files for name in _KNOWN_BY):
            raise InputError(
                f"{path}: no table of nsys in this folder; give one made by "
                "`nsys export --type parquetdir REPORT.nsys-rep`."
            )
        self._types = {name: self._schema_of(file) for name, file in self.files.items()}
        self._schema = {name: tuple(types) for name, types in self._types.items()}
        self._connection = sqlite3.connect(":memory:", check_same_thread=False)
        self._copied: set[str] = set()

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query over tables, which are copied into a database in memory first."""
        for name in re.findall(r"\w+", sql):
            if name in self.files and name not in self._copied:
                self._copy(name)
        return super().rows(sql, parameters)

    def integers(
        self, table: str, columns: Sequence[str], types: Mapping[str, type[pl.DataType]] | None = None
    ) -> pl.DataFrame:
        """Return integer columns of a table, all rows in the order of the file; `rowid` counts them from 1.

        Raises:
            InputError: the file is damaged or a column holds something else than integers.
        """
        known = [name for name in columns if name in self.columns(table)]
        # The length of a table is asked apart, since a frame without columns has none.
        whole = (
            self._read(self.files[table], known or [self.columns(table)[0]]) if table in self.files else pl.DataFrame()
        )
        frame = whole.with_row_index("rowid", offset=1).with_columns(pl.col("rowid").cast(pl.Int64))
        for name in known:
            dtype = frame.schema[name]
            if not (dtype.is_integer() or dtype in (pl.Boolean, pl.Null)):
                raise InputError(
                    f"{self.files[table]}: column {name} holds {dtype} values where nsys writes integers; export again."
                )
        return frame.select(pl.col(name).cast((types or {}).get(name, pl.Int64), strict=False) for name in columns)

    def _schema_of(self, file: Path) -> dict[str, pl.DataType]:
        try:
            return dict(pl.read_parquet_schema(file))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise self._broken(file, error) from None

    def _read(self, file: Path, columns: Sequence[str]) -> pl.DataFrame:
        try:
            return pl.read_parquet(file, columns=list(columns))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise self._broken(file, error) from None

    def _broken(self, file: Path, error: Exception) -> InputError:
        detail = " ".join(str(error).split())[:160]
        return InputError(f"{file}: the Parquet file is damaged ({detail}); copy it again or export the report again.")

    def _copy(self, name: str) -> None:
        """Copy what SQLite can hold of a table: integers, reals and text."""
        usable = [column for column, dtype in self._types[name].items() if dtype != pl.Binary and not dtype.is_nested()]
        frame = self._read(self.files[name], usable).with_columns(
            pl.selectors.categorical().cast(pl.String), pl.selectors.by_dtype(pl.Boolean).cast(pl.Int8)
        )
        # A column that SQLite cannot hold stays, empty, so that its place in a row is kept.
        names = self._schema[name]
        self._connection.execute(f"create table {quoted(name)} ({', '.join(map(quoted, names))})")
        marks = ", ".join("?" * len(usable))
        sql = f"insert into {quoted(name)} ({', '.join(map(quoted, usable))}) values ({marks})"
        for part in frame.iter_slices(_ROWS_PER_INSERT):
            self._connection.executemany(sql, part.iter_rows())
        self._copied.add(name)


READER = Reader(
    format=FORMAT,
    title=message("Nsight Systems parquetdir export"),
    gives="trace",
    recognises=recognises,
    read=read,
    rank=45,
)
