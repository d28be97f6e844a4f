"""A user's SQLite file, opened so that nothing can be written: not to the file, not beside it.

Integer columns come through ADBC as Arrow, in several threads over row-id ranges. Text comes through the
standard library, because ADBC takes the type of a column from its first rows and passes damaged UTF-8 on.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import polars as pl

from nitro.errors import InputError

from ..message import message

_MAGIC = b"SQLite format 3\x00"
_HEADER_BYTES = 100
# How reports of nsys begin (.nsys-rep and .qdrep), and the streams that they are made of (.qdstrm).
REPORT_MAGICS = (b"NVIDIA Tegra Profiler Report", b"NVIDIA Nsight Systems Stream")
_ROWS_PER_PART = 200_000
_MOST_THREADS = 4
_BATCH_ROWS = "65536"
_CHUNK_BYTES = 1 << 22
_COMPRESSED = {b"\xfd7zXZ\x00": "xz", b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstandard"}


def quoted(identifier: str) -> str:
    """Return an SQL identifier in double quotes."""
    return '"' + identifier.replace('"', '""') + '"'


def head_of(path: Path, size: int = 512) -> bytes:
    """Return the first bytes of the file, after decompression where the file is compressed.

    Raises:
        InputError: the path cannot be read, is a directory, or its compressed data are damaged.
    """
    with _opened(path) as stream:
        return stream.read(size)


def compression_of(path: Path) -> str | None:
    """Return the name of the compression that the file's first bytes show, or `None`."""
    # A pipe would have to be waited for, and cannot be read twice.
    try:
        if path.is_fifo():
            raise InputError(f"{path}: this is a pipe, not a regular file; write the data to a file first.")
        with path.open("rb") as raw:
            head = raw.read(8)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the path of an nsys SQLite export.") from None
    except IsADirectoryError:
        raise InputError(f"{path}: this is a directory; give the path of a trace file in it.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions.") from None
    return next((name for magic, name in _COMPRESSED.items() if head.startswith(magic)), None)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open the file for reading, decompressing on the fly, with every damage told in one sentence."""
    kind = compression_of(path)
    # The codecs are imported where they are needed: most traces are plain files, and a start must be quick.
    stream: Any
    damage: tuple[type[Exception], ...] = (EOFError,)
    if kind == "xz":
        import lzma

        stream, damage = lzma.LZMAFile(path), (EOFError, lzma.LZMAError)  # noqa: SIM115 - closed below
    elif kind == "gzip":
        import gzip
        import zlib

        stream, damage = gzip.GzipFile(path), (EOFError, gzip.BadGzipFile, zlib.error)
    elif kind == "zstandard":
        import zstandard

        stream = zstandard.open(path, "rb")
        damage = (EOFError, zstandard.ZstdError)
    else:
        stream = path.open("rb")
    try:
        with stream:
            yield stream
    except damage as error:
        raise InputError(
            f"{path}: the {kind} data end early or are damaged ({error}); copy or compress the file again."
        ) from None


class SqliteFile:
    """A read-only view of one SQLite file; use it as a context manager.

    A compressed file is decompressed into memory, never beside the original. Python 3.10 cannot open a database
    in memory: there a private file in the system's temporary folder takes its place until the view is closed.
    """

    def __init__(self, path: Path) -> None:
        """Open `path`.

        Raises:
            InputError: it is not a SQLite file, is empty or cut, or cannot be read.
        """
        self.path = path
        self.notes: list[str] = []
        self._uri: str | None = None
        self._temporary: IO[bytes] | None = None
        try:
            if compression_of(path) is None:
                self.size_bytes = path.stat().st_size
                with path.open("rb") as stream:
                    self._check_header(stream.read(_HEADER_BYTES))
                self._connection = self._connect(path)
                self._note_pending_writes()
            elif hasattr(sqlite3.Connection, "deserialize"):
                self._connection = self._in_memory()
            else:
                self._connection = self._connect(self._decompressed_to_temporary_file())
            self._connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            self._schema = self._read_schema()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> SqliteFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and give a decompressed copy back."""
        if hasattr(self, "_connection"):
            self._connection.close()
        if self._temporary is not None:
            self._temporary.close()

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables."""
        return tuple(self._schema)

    def columns(self, table: str) -> tuple[str, ...]:
        """Names of the columns of a table, none when the table does not exist."""
        return self._schema.get(table, ())

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a small query, text decoded with replacement.

        Raises:
            InputError: the file is damaged.
        """
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise self._damaged(error) from None

    def integers(
        self, table: str, columns: Sequence[str], types: Mapping[str, type[pl.DataType]] | None = None
    ) -> pl.DataFrame:
        """Return integer columns of a table, all rows in the order of the file.

        Args:
            table: name of a table with row ids.
            columns: their names in the file.
            types: narrower types for columns, Int64 for those not named; a value that does not fit becomes null.

        Raises:
            InputError: the file is damaged or a column holds something else than integers.
        """
        narrow = [pl.col(name).cast(dtype, strict=False) for name, dtype in (types or {}).items() if name in columns]
        if columns and self._uri is None:
            return self._scan_in_memory(table, columns).with_columns(narrow)
        # Two queries, since SQLite answers min and max together by reading the whole table.
        span = [self.rows(f"select {edge}(rowid) from {quoted(table)}")[0][0] for edge in ("min", "max")]
        if not columns or None in span:
            return pl.DataFrame({name: pl.Series(name, [], dtype=pl.Int64) for name in columns}).with_columns(narrow)
        low, high = span
        bounds = [*range(low, high + 1, _ROWS_PER_PART), high + 1]
        selected = ", ".join(quoted(name) for name in columns)

        def part(number: int) -> pl.DataFrame:
            sql = f"select {selected} from {quoted(table)}"
            if len(bounds) > 2:
                sql += f" where rowid >= {bounds[number]} and rowid < {bounds[number + 1]}"
            # Each part is made narrow before the next one is read, which keeps the peak of memory low.
            return self._checked(table, self._scan(sql)).with_columns(narrow)

        try:
            if len(bounds) == 2:
                return part(0)
            with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS)) as pool:
                return pl.concat(pool.map(part, range(len(bounds) - 1)), rechunk=True)
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 - the driver's error classes are private; all mean damage
            raise self._not_integers(table, error) from None

    def _checked(self, table: str, frame: pl.DataFrame) -> pl.DataFrame:
        for name, dtype in frame.schema.items():
            if dtype != pl.Int64:
                raise InputError(
                    f"{self.path}: column {name} of table {table} holds {dtype} values where nsys writes integers; "
                    "export the report again."
                )
        return frame

    def _scan(self, sql: str) -> pl.DataFrame:
        """Run one query through ADBC in a connection of its own."""
        # The low-level driver is used because the DB-API module of ADBC imports pyarrow wherever it is installed,
        # which costs more than reading a small trace.
        import adbc_driver_manager
        import adbc_driver_sqlite

        database = adbc_driver_manager.AdbcDatabase(driver=adbc_driver_sqlite._driver_path(), uri=self._uri or "")
        try:
            connection = adbc_driver_manager.AdbcConnection(database)
            try:
                statement = adbc_driver_manager.AdbcStatement(connection)
                try:
                    statement.set_options(**{"adbc.sqlite.query.batch_rows": _BATCH_ROWS})
                    statement.set_sql_query(sql)
                    stream, _ = statement.execute_query()
                    return pl.DataFrame(stream)
                finally:
                    statement.close()
            finally:
                connection.close()
        finally:
            database.close()

    def _scan_in_memory(self, table: str, columns: Sequence[str]) -> pl.DataFrame:
        """Read integer columns through the standard library, for a database that has no file."""
        cursor = self._connection.execute(f"select {', '.join(map(quoted, columns))} from {quoted(table)}")
        schema = dict.fromkeys(columns, pl.Int64)
        frames = [pl.DataFrame(schema=schema)]
        try:
            while rows := cursor.fetchmany(int(_BATCH_ROWS)):
                frames.append(pl.DataFrame(rows, schema=schema, orient="row"))
        except (sqlite3.DatabaseError, TypeError, OverflowError) as error:
            raise self._not_integers(table, error) from None
        except pl.exceptions.PolarsError as error:
            raise self._not_integers(table, error) from None
        return pl.concat(frames)

    def _not_integers(self, table: str, error: Exception) -> InputError:
        detail = " ".join(str(error).split())[:160]
        return InputError(
            f"{self.path}: table {table} cannot be read as integers ({detail}); the file is damaged or was changed "
            "by another tool, so export the report again."
        )

    def _read_schema(self) -> dict[str, tuple[str, ...]]:
        names = self.rows("select name from sqlite_master where type in ('table', 'view') order by name")
        return {name: tuple(row[1] for row in self.rows(f"pragma table_info({quoted(name)})")) for (name,) in names}

    def _damaged(self, error: sqlite3.DatabaseError | UnicodeDecodeError) -> InputError:
        return InputError(
            f"{self.path}: the SQLite file is damaged ({' '.join(str(error).split())}); "
            "copy it again or export the report again."
        )

    def _check_header(self, header: bytes) -> None:
        if not header:
            raise InputError(f"{self.path}: the file is empty; export the report again.")
        if header.startswith(b"version https://git-lfs"):
            raise InputError(f"{self.path}: this is a Git LFS pointer, not the data; run `git lfs pull` first.")
        if any(magic in header for magic in REPORT_MAGICS) or self.path.suffix in {".nsys-rep", ".qdrep", ".qdstrm"}:
            raise InputError(
                f"{self.path}: this is an Nsight Systems report; export it with "
                f"`nsys export --type sqlite {self.path.name}` and give the .sqlite file."
            )
        first_line = header.splitlines()[0].decode("ascii", "replace")
        if header.isascii() and not header.startswith(_MAGIC) and first_line.isprintable():
            raise InputError(
                f'{self.path}: not a SQLite file, but text that no reader knows (it begins with "{first_line[:40]}"); '
                "give an nsys export, or a log as its tool wrote it, not a table made from one."
            )
        if not header.startswith(_MAGIC):
            raise InputError(
                f"{self.path}: not a SQLite file; give an export made by `nsys export --type sqlite REPORT.nsys-rep`."
            )
        if len(header) < _HEADER_BYTES:
            raise InputError(f"{self.path}: the file ends inside the SQLite header; copy it again.")
        page_bytes = struct.unpack(">H", header[16:18])[0]
        page_bytes = 65536 if page_bytes == 1 else page_bytes
        change_counter, page_count = struct.unpack(">II", header[24:32])
        valid_for = struct.unpack(">I", header[92:96])[0]
        # The page count is only meaningful where the writer kept it up to date (SQLite file format, 1.3.7).
        if change_counter == valid_for and page_count * page_bytes > self.size_bytes:
            raise InputError(
                f"{self.path}: the file is cut: {self.size_bytes:,} of {page_count * page_bytes:,} bytes are there; "
                "copy it again."
            )

    def _note_pending_writes(self) -> None:
        for suffix in ("-wal", "-journal"):
            beside = self.path.with_name(self.path.name + suffix)
            if beside.exists() and beside.stat().st_size:
                self.notes.append(
                    message(
                        "{name} beside the trace holds changes that are not in the trace itself; they were not read.",
                        name=beside.name,
                    )
                )

    def _connect(self, plain: Path) -> sqlite3.Connection:
        self._uri = f"file:{quote(os.fsencode(plain.absolute()))}?mode=ro&immutable=1"
        return sqlite3.connect(self._uri, uri=True, check_same_thread=False)

    def _in_memory(self) -> sqlite3.Connection:
        with _opened(self.path) as stream:
            data = bytearray(stream.read())
        self.size_bytes = len(data)
        self._check_header(bytes(data[:_HEADER_BYTES]))
        # A database in memory cannot have a write-ahead log, which bytes 18 and 19 announce.
        data[18:20] = b"\x01\x01"
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        connection.deserialize(data)
        return connection

    def _decompressed_to_temporary_file(self) -> Path:
        import tempfile

        self._temporary = tempfile.NamedTemporaryFile(prefix="nitro-", suffix=".sqlite")  # noqa: SIM115
        with _opened(self.path) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                self._temporary.write(chunk)
        self._temporary.flush()
        plain = Path(self._temporary.name)
        self.size_bytes = plain.stat().st_size
        with plain.open("rb") as copy:
            self._check_header(copy.read(_HEADER_BYTES))
        return plain
