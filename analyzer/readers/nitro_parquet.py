"""Folders that `nitro-analyze export --parquet` wrote: the tables of the contract as Parquet, and a manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import polars as pl

from nitro.errors import InputError

from ..message import message
from ..reader import Head, Reader
from ..tables import TABLE_BY_NAME, TABLES
from ..trace import Capture, Device, Source, Trace
from ._contract import conformed, file_name

FORMAT = "nitro-parquet"
MANIFEST = "nitro-trace.json"
# History of the folder, one line a version:
# 1 (0.1.0): first version.
FORMAT_VERSION = 1

_TIMES = ("start_ns", "end_ns", "time_ns")
# The capture need not see the end of an NVTX range.
_OPEN_ENDED = "nvtx_events"
_WAY_OUT = "export the trace again with `nitro-analyze export --parquet`."

Fact = TypeVar("Fact", Device, Capture)


def recognises(head: Head) -> bool:
    """Tell whether this is a folder with the manifest of an export."""
    return head.is_folder and MANIFEST in head.names


def read(path: Path) -> Trace:
    """Return the trace in a folder; tables are read when they are first asked for.

    Raises:
        InputError: the manifest or a table that it names is missing, damaged, or of a newer version.
    """
    manifest = _manifest(path)
    try:
        names = [name for name in manifest["tables"] if name in TABLE_BY_NAME]
        domains = {(entry["global_pid"], entry["domain_id"]): entry["name"] for entry in manifest["nvtx_domains"]}
        capture, devices = manifest["capture"], [_fact(Device, entry) for entry in manifest["devices"]]
        capture = _fact(Capture, {**capture, "recorded": tuple(capture["recorded"])})
        told = {name: manifest["source"].get(name) for name in ("tool", "tool_version", "schema_version")}
        notes = tuple(map(str, manifest["notes"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise _broken(path / MANIFEST, f"{type(error).__name__} at {error}") from None
    files = {name: path / f"{name}.parquet" for name in names}
    for name, file in files.items():
        _check_columns(name, file)
    size = sum(file.stat().st_size for file in files.values())
    source = Source(file_name=file_name(path.resolve().name), format=FORMAT, size_bytes=size, **told)
    return Trace(source, tuple(devices), _Tables(files), capture, domains, notes)


def _manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); check its permissions.") from None
    except (ValueError, RecursionError):
        raise _broken(file, "it is no JSON") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _broken(file, f"its format is not {FORMAT}")
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{file}: this export has version {version} and this program reads {FORMAT_VERSION}; "
            "read it with the version of Nitro that wrote it, or export the trace again."
        )
    return manifest


def _fact(kind: type[Fact], told: Mapping[str, Any]) -> Fact:
    """Return a device or capture from the fields that this version knows."""
    return kind(**{field.name: told[field.name] for field in fields(kind) if field.name in told})


def _check_columns(name: str, file: Path) -> None:
    """Refuse a table without the columns that make it one."""
    try:
        present = pl.read_parquet_schema(file)
    except FileNotFoundError:
        raise InputError(f"{file}: the table is missing, and {MANIFEST} names it; {_WAY_OUT}") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _broken(file, error) from None
    for column in TABLE_BY_NAME[name].columns:
        if column.name in _TIMES and column.name not in present:
            raise InputError(f"{file}: column {column.name} is missing; {_WAY_OUT}")
        if column.name in present and column.dtype is not pl.Enum and not _is_integer(present[column.name]):
            raise InputError(
                f"{file}: column {column.name} holds {present[column.name]} values instead of integers; {_WAY_OUT}"
            )


def _is_integer(dtype: pl.DataType) -> bool:
    return dtype.is_integer() or dtype == pl.Null


class _Tables(Mapping[str, "pl.DataFrame | None"]):
    """The tables of a folder; each is read once, when it is first looked up."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files
        self._loaded: dict[str, pl.DataFrame] = {}
        self._lock = Lock()

    def __iter__(self) -> Iterator[str]:
        return iter(table.name for table in TABLES)

    def __len__(self) -> int:
        return len(TABLES)

    def __getitem__(self, name: str) -> pl.DataFrame | None:
        if name not in self._files:
            return None
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self._load(name)
            return self._loaded[name]

    def _load(self, name: str) -> pl.DataFrame:
        file = self._files[name]
        try:
            whole = pl.read_parquet(file)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise _broken(file, error) from None
        frame = conformed(name, whole)
        times = [column for column in frame.columns if column in _TIMES and (name, column) != (_OPEN_ENDED, "end_ns")]
        missing = sum(frame[column].null_count() for column in times)
        backwards = (frame["end_ns"] < frame["start_ns"]).sum() if "end_ns" in frame.columns else 0
        if missing or backwards:
            raise InputError(f"{file}: {missing + backwards:,} rows have no time or end before they start; {_WAY_OUT}")
        return frame


def _broken(file: Path, error: object) -> InputError:
    detail = " ".join(str(error).split())[:160]
    return InputError(f"{file}: the file is damaged ({detail}); copy it again, or {_WAY_OUT}")


READER = Reader(
    format=FORMAT,
    title=message("tables exported by nitro-analyze, as Parquet"),
    gives="trace",
    recognises=recognises,
    read=read,
    rank=40,
)
