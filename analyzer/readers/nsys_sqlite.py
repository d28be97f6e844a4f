"""Nsight Systems SQLite exports, from 2020 to schema 3.25 and newer ones with unknown additions.

The export is only ever read: see `_sqlite_file`. Columns are found by name through `_nsys_columns`, so tables may
be absent, empty or have extra columns. Tables are read when they are first asked for, each once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock

import numpy as np
import polars as pl

from nitro.errors import InputError

from ..message import message
from ..reader import Head, Reader
from ..tables import TABLE_BY_NAME, TABLES
from ..trace import Device, Source, Trace
from ._nsys_columns import SOURCE_TABLE_BY_NAME, SourceTable
from ._nsys_facts import capture_facts, devices, export_facts, physical_gpus
from ._nsys_samples import samples
from ._sqlite_file import SqliteFile, quoted

FORMAT = "nsys-sqlite"
_GPU_TABLES = ("kernels", "graph_launches", "memcpys", "memsets", "synchronizations", "memory_events")
_EVENT_TABLES = tuple(table.source for table in SOURCE_TABLE_BY_NAME.values())
_KNOWN_BY = ("StringIds", "TARGET_INFO_SESSION_START_TIME", "META_DATA_EXPORT", "EXPORT_META_DATA", *_EVENT_TABLES)
_IDS_PER_QUERY = 900
_DENSE_IDS = 10_000_000
# A session lasts hours, not decades: a time beyond is damage, and sums of such times would overflow.
_LATEST_NS = 10 * 365 * 86_400 * 10**9
_NVTX_DOMAIN_CREATE = 75


def read(path: Path) -> Trace:
    """Return the trace in an nsys SQLite export, plain or compressed with xz, gzip or zstandard.

    Tables are loaded from the file on demand, which therefore stays open as long as the trace is in use.

    Raises:
        InputError: the file is no nsys export or is damaged.
    """
    file = SqliteFile(path)
    if not any(table in file.tables for table in _KNOWN_BY):
        found = ", ".join(file.tables[:3]) or "no tables"
        file.close()
        raise InputError(
            f"{path}: SQLite, but not an nsys export (it holds {found}); give a file made by "
            "`nsys export --type sqlite REPORT.nsys-rep`."
        )
    return trace_of(file, FORMAT, path.stat().st_size)


def trace_of(file: SqliteFile, format_id: str, size_bytes: int) -> Trace:
    """Return the trace in an export of any form that answers as a `SqliteFile` does."""
    path = file.path
    facts = export_facts(file)
    source = Source(
        # A name that is not UTF-8 has halves of letters in it, which no output can hold.
        file_name=path.name.encode(errors="replace").decode(),
        format=format_id,
        size_bytes=size_bytes,
        tool=facts.get("EXPORT_PRODUCT_NAME", "NVIDIA Nsight Systems"),
        tool_version=facts.get("EXPORT_PRODUCT_VERSION"),
        schema_version=facts.get("EXPORT_SCHEMA_VERSION"),
    )
    tables = _TablesOnDemand(file)
    described = devices(file)
    return Trace(
        source=source,
        devices=described or _devices_of_events(tables),
        tables=tables,
        capture=capture_facts(file),
        nvtx_domains=_nvtx_domains(file),
        notes=tuple(file.notes),
    )


class _TablesOnDemand(Mapping[str, pl.DataFrame | None]):
    """The canonical tables of an export; each is read once, when it is first looked up."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._loaded: dict[str, pl.DataFrame | None] = {}
        self._texts: dict[int, str] = {}
        self._gpus = physical_gpus(file)
        self._lock = Lock()

    def __iter__(self) -> Iterator[str]:
        return iter(table.name for table in TABLES)

    def __len__(self) -> int:
        return len(TABLES)

    def __getitem__(self, name: str) -> pl.DataFrame | None:
        with self._lock:
            if name not in self._loaded:
                if name == "gpu_metric_samples":
                    self._loaded[name] = samples(self._file)
                else:
                    source = SOURCE_TABLE_BY_NAME.get(name)
                    self._loaded[name] = None if source is None else self._load(source)
            return self._loaded[name]

    def _load(self, table: SourceTable) -> pl.DataFrame | None:
        present = self._file.columns(table.source)
        if not present:
            return None
        chosen: dict[str, str] = {}
        for column in table.columns:
            found = next((name for name in column.sources if name in present), None)
            if found is not None:
                chosen[column.name] = found
            elif column.required:
                raise InputError(
                    f"{self._file.path}: column {column.sources[0]} of table {table.source} is missing; "
                    "the export was cut or changed, so export the report again."
                )
        raw = self._file.integers(table.source, sorted(set(chosen.values())), self._narrow(table, chosen))
        if table.name == "nvtx_events":
            return self._conform(table, self._nvtx(raw, chosen))
        frame = raw.select(pl.col(source).alias(name) for name, source in chosen.items())
        frame = self._checked(table, frame)
        if "global_tid" in frame.columns:
            frame = frame.with_columns(pl.col("global_tid").fill_null(0))
        strings = {column.name for column in table.columns if column.string} & set(chosen)
        frame = frame.with_columns(self._named(frame[name]) for name in sorted(strings))
        if table.name in _GPU_TABLES:
            frame = frame.with_columns(self._physical(frame))
        return self._conform(table, frame)

    def _narrow(self, table: SourceTable, chosen: Mapping[str, str]) -> dict[str, type[pl.DataType]]:
        """Return the types of the source columns: those of the contract, and 32 bits for string ids."""
        contract = {column.name: column.dtype for column in TABLE_BY_NAME[table.name].columns}
        types = {source: contract.get(name, pl.Int64) for name, source in chosen.items()}
        return {source: pl.Int32 if dtype is pl.Enum else dtype for source, dtype in types.items()}

    def _checked(self, table: SourceTable, frame: pl.DataFrame) -> pl.DataFrame:
        """Drop rows that the capture did not finish (null times); refuse times that cannot be."""
        times = [name for name in ("start_ns", "end_ns") if name in frame.columns]
        if any(frame[name].null_count() for name in times):
            frame = frame.drop_nulls(times)
        if frame.is_empty():
            return frame
        low = min(int(frame[name].min()) for name in times)  # type: ignore[arg-type]
        high = max(int(frame[name].max()) for name in times)  # type: ignore[arg-type]
        if low < -_LATEST_NS or high > _LATEST_NS:
            raise InputError(
                f"{self._file.path}: table {table.source} has times of more than ten years ({low} to {high} ns); "
                "the file is damaged, so export the report again."
            )
        if len(times) == 2:
            backwards = frame.filter(pl.col("end_ns") < pl.col("start_ns"))
            if len(backwards):
                start, end = backwards.row(0)[:2] if backwards.columns[:2] == times else backwards[times].row(0)
                raise InputError(
                    f"{self._file.path}: {len(backwards)} row(s) of table {table.source} end before they start "
                    f"(first: {start} to {end} ns); the file is damaged, so export the report again."
                )
        return frame

    def _nvtx(self, raw: pl.DataFrame, chosen: Mapping[str, str]) -> pl.DataFrame:
        """Resolve the message (text, or textId, or none) and the payload of NVTX events."""
        frame = raw.select(pl.col(source).alias(name) for name, source in chosen.items())
        own_text = pl.Series("text", [None] * len(frame), dtype=pl.String)
        if "text" in self._file.columns("NVTX_EVENTS"):
            rows = self._file.rows("select rowid, text from NVTX_EVENTS where text is not null")
            if rows:
                order = self._file.integers("NVTX_EVENTS", ["rowid"])["rowid"].to_numpy()
                texts = np.full(len(frame), None, dtype=object)
                texts[np.searchsorted(order, [row[0] for row in rows])] = [row[1] for row in rows]
                own_text = pl.Series("text", texts.tolist(), dtype=pl.String)
        text = own_text
        if "text_id" in frame.columns:
            registered = self._named(frame["text_id"]).cast(pl.String)
            text = registered.rename("text").zip_with(registered.is_not_null(), own_text)
        payloads = [name for name in frame.columns if name.endswith("_value")]
        payload = pl.coalesce(payloads) if payloads else pl.lit(None, pl.Int64)
        categories = text.drop_nulls().unique().sort()
        frame = frame.with_columns(text.cast(pl.Enum(categories)), payload.alias("payload"))
        return frame.filter(pl.col("start_ns").is_not_null())

    def _named(self, ids: pl.Series) -> pl.Series:
        """Turn string ids into names: an Enum series of the same name, null where the id has no text."""
        unique = ids.drop_nulls().unique().to_list()
        missing = [key for key in unique if key not in self._texts]
        if {"id", "value"} <= set(self._file.columns("StringIds")):
            for first in range(0, len(missing), _IDS_PER_QUERY):
                part = missing[first : first + _IDS_PER_QUERY]
                marks = ", ".join("?" * len(part))
                sql = f"select id, value from StringIds where id in ({marks}) and value is not null"
                self._texts.update((key, str(value)) for key, value in self._file.rows(sql, part))
        known = [key for key in unique if key in self._texts]
        categories = sorted({self._texts[key] for key in known})
        position = {text: index for index, text in enumerate(categories)}
        codes = _looked_up(ids, {key: position[self._texts[key]] for key in known})
        return codes.cat.to(pl.Enum(categories))

    def _physical(self, frame: pl.DataFrame) -> pl.Series:
        """Return the physical GPU of each row: by process and CUDA number where known, else the CUDA number."""
        if "device_ordinal" not in frame.columns:
            return pl.Series("device_id", [None] * len(frame), dtype=pl.Int32)
        ordinal = frame["device_ordinal"]
        if not self._gpus or "global_pid" not in frame.columns:
            return ordinal.rename("device_id")
        pids = frame["global_pid"]
        device_id = ordinal.clone()
        for (pid, cuda_number), gpu in self._gpus.items():
            if gpu != cuda_number:
                here = ((pids // (1 << 24)) % (1 << 24) == pid) & (ordinal == cuda_number)
                device_id = device_id.set(here, gpu)
        return device_id.rename("device_id")

    def _conform(self, table: SourceTable, frame: pl.DataFrame) -> pl.DataFrame:
        """Give the frame exactly the columns and types of the contract; a value that does not fit becomes null."""
        contract = TABLE_BY_NAME[table.name]
        columns: list[pl.Expr | pl.Series] = []
        for column in contract.columns:
            if column.name not in frame.columns:
                dtype: pl.DataType | type[pl.DataType] = pl.Enum([]) if column.dtype is pl.Enum else column.dtype
                columns.append(pl.lit(None, dtype).alias(column.name))
            elif column.dtype is pl.Enum:
                columns.append(pl.col(column.name))
            else:
                columns.append(pl.col(column.name).cast(column.dtype, strict=False))
        return frame.select(columns)


def _looked_up(ids: pl.Series, codes: Mapping[int, int]) -> pl.Series:
    """Replace ids by their codes, null where an id has none."""
    highest = max(codes, default=0)
    if codes and min(codes) >= 0 and highest < _DENSE_IDS:
        # A table is several times faster than a join over millions of rows; its last entry means "none".
        table = np.full(highest + 2, len(codes), np.uint32)
        table[list(codes)] = list(codes.values())
        wanted = ids.fill_null(highest + 1).to_numpy()
        if len(wanted) and (wanted.min() < 0 or wanted.max() > highest):
            wanted = np.where((wanted < 0) | (wanted > highest), highest + 1, wanted)
        found = pl.Series(ids.name, table[wanted])
        return found if ids.null_count() == 0 and (found < len(codes)).all() else _without(found, len(codes))
    return ids.replace_strict(list(codes), list(codes.values()), default=None, return_dtype=pl.UInt32)


def _without(values: pl.Series, missing: int) -> pl.Series:
    return values.to_frame().select(pl.when(pl.first() != missing).then(pl.first())).to_series().rename(values.name)


def _devices_of_events(tables: Mapping[str, pl.DataFrame | None]) -> tuple[Device, ...]:
    """Name the GPUs that the events use, for exports without any table of GPUs."""
    used: set[int] = set()
    for name in _GPU_TABLES:
        frame = tables[name]
        if frame is not None:
            used.update(frame["device_id"].drop_nulls().unique().to_list())
    return tuple(
        Device(device_id, message("GPU {device_id}, not described by the export", device_id=device_id))
        for device_id in sorted(used)
    )


def _nvtx_domains(file: SqliteFile) -> dict[tuple[int, int], str]:
    """Return (global process id, domain id) → name of the NVTX domains."""
    if not {"eventType", "domainId", "globalTid", "text"} <= set(file.columns("NVTX_EVENTS")):
        return {}
    text = "text"
    if "textId" in file.columns("NVTX_EVENTS") and "StringIds" in file.tables:
        text = "coalesce(text, (select value from StringIds where id = textId))"
    sql = f"select globalTid, domainId, {text} from {quoted('NVTX_EVENTS')} where eventType = ?"
    process_mask = ~0xFFFFFF
    # A process may create a domain again: its first name stays, as in `nsys stats`.
    return {
        (tid & process_mask, domain): str(name)
        for tid, domain, name in reversed(file.rows(sql, (_NVTX_DOMAIN_CREATE,)))
        if None not in (tid, domain, name)
    }


def _recognises(head: Head) -> bool:
    return head.data.startswith(b"SQLite format 3\x00")


# Asked last: other tools write SQLite too, and their readers know their tables.
READER = Reader(FORMAT, message("Nsight Systems SQLite export"), "trace", _recognises, read, rank=90)
