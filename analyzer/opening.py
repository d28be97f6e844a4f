"""`open_trace`, `open_input` and `open_inputs`: find the reader for a file by its content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nitro.errors import InputError, UsageError
from nitro.registry import declared

from .evidence import Evidence
from .reader import HEAD_BYTES, Head, Reader
from .trace import Trace


@dataclass(frozen=True, slots=True)
class Opened:
    """A trace with the evidence beside it, and the files that they came from (the trace's first)."""

    trace: Trace
    evidence: tuple[Evidence, ...]
    paths: tuple[Path, ...]


@cache
def all_readers() -> tuple[Reader, ...]:
    """Return the declared readers in the order in which they are asked."""
    from . import readers

    return tuple(sorted(declared(readers, "READER", Reader), key=lambda reader: (reader.rank, reader.format)))


def open_trace(path: str | Path) -> Trace:
    """Return the trace in a file.

    Args:
        path: an nsys SQLite export, plain or compressed (xz, gzip, zstandard), or any other input that is a trace by
            itself (docs/inputs.md). It is never changed, and nothing is written beside it.

    Raises:
        nitro.errors.InputError: the file is missing, damaged, of a kind that no reader knows, or no trace.
    """
    opened = open_input(path)
    trace = opened.as_trace() if isinstance(opened, Evidence) else opened
    if trace is None:
        raise _no_trace(Path(path), opened.source.format)
    return trace


def open_input(path: str | Path) -> Trace | Evidence:
    """Return what a file holds: a trace, or evidence that belongs beside one.

    Raises:
        nitro.errors.InputError: the file is missing, damaged or of a kind that no reader knows.
    """
    path = Path(path)
    head = head_of_input(path)
    for reader in all_readers():
        if reader.recognises(head):
            return reader.read(path)
    from .readers import nsys_sqlite

    # What nobody knows is most likely meant to be an export; its reader says best what the file is instead.
    return nsys_sqlite.read(path)


def open_inputs(paths: Sequence[str | Path]) -> tuple[Opened, ...]:
    """Return the traces among several inputs, each with the evidence beside it.

    Evidence belongs to the trace before it; what stands before the first trace belongs to that one, so the order does
    not matter where there is one trace. Evidence that can stand alone as a trace (a PyTorch or nvprof profile) does so
    where none of the inputs is a trace.

    Raises:
        nitro.errors.InputError: an input cannot be read, or none of them is a trace.
        nitro.errors.UsageError: the same file is given twice.
    """
    files = [Path(path) for path in paths]
    for number, file in enumerate(files):
        if file.exists() and any(other.exists() and file.samefile(other) for other in files[:number]):
            raise UsageError(f"{file}: this file is given twice; give each input once.")
    inputs: list[Trace | Evidence] = [open_input(file) for file in files]
    if not any(isinstance(entry, Trace) for entry in inputs):
        inputs = [(entry.as_trace() or entry) if isinstance(entry, Evidence) else entry for entry in inputs]
    groups: list[tuple[list[tuple[Path, Trace]], list[tuple[Path, Evidence]]]] = [([], [])]
    for file, entry in zip(files, inputs, strict=True):
        if isinstance(entry, Evidence):
            groups[-1][1].append((file, entry))
            continue
        if groups[-1][0]:
            groups.append(([], []))
        groups[-1][0].append((file, entry))
    if not groups[0][0]:
        raise _no_trace(files[0], inputs[0].source.format)
    return tuple(
        Opened(trace, tuple(entry for _, entry in beside), (path, *(file for file, _ in beside)))
        for [(path, trace)], beside in groups
    )


def head_of_input(path: Path) -> Head:
    """Return what recognition looks at.

    Raises:
        nitro.errors.InputError: the path cannot be read, or its compressed data are damaged from the start.
    """
    from .readers._sqlite_file import head_of

    if path.is_dir():
        try:
            names = tuple(sorted(entry.name for entry in path.iterdir()))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions.") from None
        return Head(b"", is_folder=True, names=names)
    data = head_of(path, HEAD_BYTES)
    # The directory of an archive stands at its end, which a device does not have.
    return Head(data, names=_names_in_zip(path) if data.startswith(b"PK\x03\x04") else ())


def _names_in_zip(path: Path) -> tuple[str, ...]:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return ()


def _no_trace(path: Path, given: str) -> InputError:
    return InputError(
        f"{path}: this is {given} data, which belongs beside a trace; give the trace too, as in "
        f"`nitro-analyze trace.sqlite {path.name}`."
    )
