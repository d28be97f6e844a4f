"""Baselines as files that live in Git: a folder a baseline, a JSON file an entry, one value a line.

An entry is never written again, so histories of two branches merge without a conflict inside a file. Keys have one
order, values are sorted, and nothing tells where the traces lay: the same runs give the same bytes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import msgspec

from nitro import __version__
from nitro.errors import InputError, UsageError

from .baselines import Baseline, Entry, Kind, kept_keys, unit_of
from .gauges import Key, nearest
from .runs import DeviceFacts, Facts, Run

# History of the saved format, one line a version:
# 1: first version.
# 2: `errors` beside values that may be off, in their unit.
FORMAT_VERSION = 2
DEFAULT_FOLDER = Path(".nitro") / "baselines"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FILE = re.compile(r"(\d{4,})\.json")


class _StoredFacts(msgspec.Struct, frozen=True):
    devices: tuple[DeviceFacts, ...]
    tool: str | None
    options: dict[str, str]
    recorded: tuple[str, ...] | None
    window: str
    iteration_mark: str | None
    iteration_name: str | None
    batch: float | None
    told: dict[str, str]
    kernels: tuple[str, ...]


class _StoredRun(msgspec.Struct, frozen=True):
    file_name: str
    fingerprint: str
    start_utc_ns: int | None
    periods: int
    facts: _StoredFacts


class _StoredValue(msgspec.Struct, frozen=True):
    metric: str
    by: str | None
    device_id: int | None
    nvtx: str | None
    unit: str
    values: tuple[float | None, ...]
    errors: tuple[float | None, ...] = ()


class _StoredEntry(msgspec.Struct, frozen=True):
    format_version: Literal[1, 2]
    nitro_version: str
    number: int
    kind: Kind
    day: date
    label: str
    owner: str
    reason: str
    expires: date | None
    metrics: tuple[str, ...]
    runs: tuple[_StoredRun, ...]
    values: tuple[_StoredValue, ...]


@dataclass(frozen=True, slots=True)
class Store:
    """The folder with the baselines of a project. It reads; what it has to write it returns as bytes."""

    folder: Path

    def names(self) -> tuple[str, ...]:
        """Return the names of the baselines, sorted; none where the folder does not exist."""
        if not self.folder.is_dir():
            return ()
        return tuple(sorted(path.name for path in self.folder.iterdir() if any(_entry_files(path))))

    def read(self, name: str) -> Baseline:
        """Return a baseline with its whole history.

        Raises:
            UsageError: there is none of that name.
            InputError: a file of it is damaged or was written by a newer Nitro.
        """
        check_name(name)
        files = sorted(_entry_files(self.folder / name))
        if not files:
            known = self.names()
            way = nearest(name, known) if known else f"save one with `nitro-analyze baseline save {name} TRACE...`."
            raise UsageError(f"{self.folder}: there is no baseline called {name!r}; {way}")
        entries = tuple(_entry(path) for _, path in files)
        for (number, path), entry in zip(files, entries, strict=True):
            if entry.number != number:
                raise InputError(f"{path}: the entry inside has number {entry.number}; restore the file from Git.")
        return Baseline(name, entries)

    def has(self, name: str) -> bool:
        """Tell whether there is a baseline of that name.

        Raises:
            UsageError: the name is not fit for a folder.
        """
        check_name(name)
        return any(_entry_files(self.folder / name))

    def path_of(self, name: str, entry: Entry) -> Path:
        """Return the file of an entry."""
        return self.folder / name / f"{entry.number:04}.json"


def check_name(name: str) -> None:
    """Do nothing if a name is fit for a baseline.

    Raises:
        UsageError: it is not.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a baseline; use letters, digits, dots, dashes and underscores, as in main."
        )


def entry_bytes(entry: Entry) -> bytes:
    """Return an entry as the text of its file: indented JSON in which each value has a line of its own."""
    head: dict[str, Any] = {
        "format_version": FORMAT_VERSION if entry.has_bounds else 1,
        "nitro_version": entry.nitro_version or __version__,
        "number": entry.number,
        "kind": entry.kind,
        "day": entry.day.isoformat(),
        "label": entry.label,
        "owner": entry.owner,
        "reason": entry.reason,
        "expires": entry.expires.isoformat() if entry.expires else None,
        "metrics": list(entry.metrics),
        "runs": [_run_to_dict(run) for run in entry.runs],
    }
    opened = json.dumps(head, ensure_ascii=False, indent=1).removesuffix("\n}")
    rows = (json.dumps(row, ensure_ascii=False) for row in _rows(entry))
    return f'{opened},\n "values": [\n  {_LINE_BREAK.join(rows)}\n ]\n}}\n'.encode(errors="replace")


_LINE_BREAK = ",\n  "


def _rows(entry: Entry) -> Iterator[dict[str, Any]]:
    for key in kept_keys(entry.runs):
        errors = [_short(run.errors.get(key)) for run in entry.runs]
        row: dict[str, Any] = {
            "metric": key.metric,
            "by": key.by or None,
            "device_id": key.device_id if key.device_id >= 0 else None,
            "nvtx": key.nvtx or None,
            "unit": unit_of(key),
            "values": [_short(run.values.get(key)) for run in entry.runs],
        }
        yield row | {"errors": errors} if any(error is not None for error in errors) else row


def _short(value: float | None) -> float | int | None:
    # A whole number stays one in the file: 12 and not 12.0.
    return int(value) if value is not None and value.is_integer() and abs(value) < 2**53 else value


def _run_to_dict(run: Run) -> dict[str, Any]:
    facts = run.facts
    devices = [{name: getattr(device, name) for name in DeviceFacts.__slots__} for device in facts.devices]
    return {
        "file_name": run.file_name,
        "fingerprint": run.fingerprint,
        "start_utc_ns": run.start_utc_ns,
        "periods": run.periods,
        "facts": {
            "devices": devices,
            "tool": facts.tool,
            "options": _sorted(facts.options),
            "recorded": None if facts.recorded is None else list(facts.recorded),
            "window": facts.window,
            "iteration_mark": facts.iteration_mark,
            "iteration_name": facts.iteration_name,
            "batch": _short(facts.batch),
            "told": _sorted(facts.told),
            "kernels": list(facts.kernels),
        },
    }


def _sorted(texts: Mapping[str, str]) -> dict[str, str]:
    return {name: texts[name] for name in sorted(texts)}


def _entry_files(folder: Path) -> Iterator[tuple[int, Path]]:
    if folder.is_dir():
        for path in folder.iterdir():
            if match := _FILE.fullmatch(path.name):
                yield int(match[1]), path


def _entry(path: Path) -> Entry:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    version = _version(path, content)
    if version > FORMAT_VERSION:
        raise InputError(
            f"{path}: this baseline has format {version}, written by a newer Nitro; this one reads up to "
            f"{FORMAT_VERSION}, so update Nitro."
        )
    try:
        stored = msgspec.json.decode(content, type=_StoredEntry)
        return _restored(stored)
    except (msgspec.DecodeError, ValueError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: this entry of a baseline is damaged ({error}); restore the file from Git.") from None


def _version(path: Path, content: bytes) -> int:
    class Versioned(msgspec.Struct):
        format_version: int

    try:
        return msgspec.json.decode(content, type=Versioned).format_version
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: this is no entry of a baseline ({error}); restore the file from Git.") from None


def _restored(stored: _StoredEntry) -> Entry:
    if not stored.runs:
        raise ValueError("it has no run")
    for value in stored.values:
        if len(value.values) != len(stored.runs):
            raise ValueError(f"{value.metric} has {len(value.values)} values for {len(stored.runs)} runs")
        if value.errors and len(value.errors) != len(stored.runs):
            raise ValueError(f"{value.metric} has {len(value.errors)} errors for {len(stored.runs)} runs")
        if any(error is not None and not 0 <= error < math.inf for error in value.errors):
            raise ValueError(f"{value.metric} has an error below 0")
    keys = [
        Key(row.metric, row.by or "", -1 if row.device_id is None else row.device_id, row.nvtx or "")
        for row in stored.values
    ]
    runs = []
    for number, run in enumerate(stored.runs):
        facts = Facts(**{name: getattr(run.facts, name) for name in _StoredFacts.__struct_fields__})
        values = _of_run(keys, (row.values for row in stored.values), number)
        errors = _of_run(keys, (row.errors for row in stored.values), number)
        runs.append(Run(run.file_name, run.fingerprint, run.start_utc_ns, run.periods, facts, values, errors=errors))
    told = {name: getattr(stored, name) for name in ("number", "kind", "day", "label", "owner", "reason", "expires")}
    return Entry(
        **told,
        metrics=stored.metrics,
        nitro_version=stored.nitro_version,
        runs=tuple(runs),
        has_bounds=stored.format_version > 1,
    )


def _of_run(keys: Iterable[Key], rows: Iterable[Sequence[float | None]], number: int) -> dict[Key, float]:
    """Return what the rows hold of one run, by key; a row without columns holds nothing."""
    return {
        key: float(known) for key, row in zip(keys, rows, strict=True) if row and (known := row[number]) is not None
    }
