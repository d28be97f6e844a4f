"""`open_trace`, `open_input` and `open_inputs`: find the reader for a file by its content, and take bundles apart."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from nitro.errors import InputError, NitroError, ToolError, UsageError
from nitro.registry import declared

from .bundle import Bundle, BundledRun, TemporaryFolder, is_bundle, is_zip, not_an_input, open_bundle
from .evidence import Evidence
from .message import message
from .reader import HEAD_BYTES, Head, Reader
from .trace import Source, Trace

# Makes an nsys export of a report: (report, private folder to write into) -> (the export, the tool that made it). It
# starts a program, so it comes from outside: nothing of the analyzer does.
Export = Callable[[Path, Path], tuple[Path, str]]

_REPORT_MAGIC_WITHIN = 512


@dataclass(frozen=True, slots=True)
class Opened:
    """A trace with the evidence beside it, and the files that they came from (the trace's first).

    Of a file in a zip archive, `paths` has the archive. `facts` are what a bundle says of the run.
    """

    trace: Trace
    evidence: tuple[Evidence, ...]
    paths: tuple[Path, ...]
    facts: Mapping[str, str] = field(default_factory=dict)


@cache
def all_readers() -> tuple[Reader, ...]:
    """Return the declared readers in the order in which they are asked."""
    from . import readers

    return tuple(sorted(declared(readers, "READER", Reader), key=lambda reader: (reader.rank, reader.format)))


def open_trace(path: str | Path, export: Export | None = None) -> Trace:
    """Return the trace in a file.

    Args:
        path: an nsys SQLite export, plain or compressed (xz, gzip, zstandard), or any other input that is a trace by
            itself (docs/inputs.md), or a bundle of one run. It is never changed, and nothing is written beside it.
        export: see `open_inputs`.

    Raises:
        nitro.errors.InputError: the file is missing, damaged, of a kind that no reader knows, or no trace.
        nitro.errors.UsageError: a bundle of several runs.
    """
    opened = open_inputs([path], export)
    if len(opened) > 1:
        raise UsageError(f"{path}: this bundle holds {len(opened)} runs; give the trace of one of them.")
    return opened[0].trace


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
    if is_zip(head.data):
        raise not_an_input(path)
    from .readers import nsys_sqlite

    # What nobody knows is most likely meant to be an export; its reader says best what the file is instead.
    return nsys_sqlite.read(path)


def open_inputs(paths: Sequence[str | Path], export: Export | None = None) -> tuple[Opened, ...]:
    """Return the traces among several inputs, each with the evidence beside it.

    Evidence belongs to the trace before it; what stands before the first trace belongs to that one, so the order does
    not matter where there is one trace. Evidence that can stand alone as a trace (a PyTorch or nvprof profile) does so
    where none of the inputs is a trace. A capture bundle (`bundle`) stands for the files of its runs.

    Args:
        paths: files and bundles.
        export: turns an nsys report into an export, for who wants reports read; without it they are refused.

    Raises:
        nitro.errors.InputError: an input cannot be read, or none of them is a trace.
        nitro.errors.UsageError: the same file is given twice.
        nitro.errors.ToolError: a report cannot be exported.
    """
    files = [Path(path) for path in paths]
    twice = given_twice(files)
    if twice is not None:
        raise UsageError(f"{twice}: this file is given twice; give each input once.")
    given = [one for file in files for one in _given(file)]
    inputs = [_read(one, export) for one in given]
    if not any(isinstance(entry, Trace) for entry in inputs):
        inputs = [(entry.as_trace() or entry) if isinstance(entry, Evidence) else entry for entry in inputs]
    groups: list[tuple[list[tuple[_Given, Trace]], list[tuple[_Given, Evidence]]]] = [([], [])]
    for one, entry in zip(given, inputs, strict=True):
        if isinstance(entry, Evidence):
            groups[-1][1].append((one, entry))
            continue
        if groups[-1][0]:
            groups.append(([], []))
        groups[-1][0].append((one, entry))
    if not groups[0][0]:
        raise _no_trace(files[0], inputs[0].source.format)
    return tuple(
        Opened(
            trace,
            tuple(entry for _, entry in beside),
            (one.path, *(other.path for other, _ in beside)),
            {} if one.run is None else one.run.facts,
        )
        for [(one, trace)], beside in groups
    )


def given_twice(files: Sequence[Path]) -> Path | None:
    """Return a path to the same file as one before it; what cannot be looked up is like no other."""
    seen: set[tuple[int, int]] = set()
    for file in files:
        try:
            found = file.stat()
        except (OSError, ValueError):
            # Who opens it says what is wrong with it.
            continue
        if (found.st_dev, found.st_ino) in seen:
            return file
        seen.add((found.st_dev, found.st_ino))
    return None


def is_report(path: Path) -> bool:
    """Whether a file is a report of nsys (.nsys-rep, .qdrep) or what it is made from (.qdstrm)."""
    from .readers._sqlite_file import REPORT_MAGICS

    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            head = stream.read(_REPORT_MAGIC_WITHIN)
    except OSError:
        return False
    return any(magic in head for magic in REPORT_MAGICS)


@dataclass(frozen=True, slots=True)
class _Given:
    """One file that is to be read: `path`, as the user knows it; `file`, where it lies; the run of a bundle it is of.

    `is_trace`: the bundle says that this is the trace of its run.
    """

    path: Path
    file: Path
    name: str
    run: BundledRun | None = None
    is_trace: bool = False
    sha256: str | None = None
    folder: TemporaryFolder | None = None


def _given(path: Path) -> Iterator[_Given]:
    """Yield the files that a path stands for."""
    if not is_bundle(path):
        yield _Given(path, path, path.name)
        return
    bundle = open_bundle(path)
    for run in bundle.manifest.runs:
        yield from (_bundled(bundle, run, name) for name in run.files)


def _bundled(bundle: Bundle, run: BundledRun, name: str) -> _Given:
    file = bundle.files[name]
    return _Given(
        path=file if bundle.folder is None else bundle.path,
        file=file,
        name=file.name,
        run=run,
        is_trace=name == run.trace,
        sha256=bundle.sha256.get(name),
        folder=bundle.folder,
    )


def _read(one: _Given, export: Export | None) -> Trace | Evidence:
    """Return what a file holds, with what the bundle around it says."""
    entry: Trace | Evidence
    folders = [one.folder] if one.folder is not None else []
    try:
        if export is not None and is_report(one.file):
            folders.append(TemporaryFolder())
            entry = _exported(one, export, folders[-1].path)
        else:
            entry = open_input(one.file)
    except (InputError, ToolError) as error:
        if one.folder is None:
            raise
        raise _renamed(error, one.file, f"{one.path}: {one.name}") from None
    if isinstance(entry, Evidence) and one.is_trace:
        entry = entry.as_trace() or entry
        if isinstance(entry, Evidence):
            raise InputError(
                f"{one.path}: {one.name} is named as the trace of a run, and is {entry.source.format} data."
            )
    elif isinstance(entry, Trace) and one.run is not None and not one.is_trace:
        raise InputError(
            f"{one.path}: {one.name} is named beside the trace of a run, and is a trace itself; give it a run of its "
            "own."
        )
    if one.sha256 is not None:
        entry = replace(entry, source=replace(entry.source, sha256=one.sha256))
    if isinstance(entry, Trace) and one.run is not None:
        told = replace(
            entry.capture,
            options={**one.run.facts, **entry.capture.options},
            items_per_iteration=one.run.items_per_iteration,
        )
        entry = replace(entry, capture=told)
    kept = entry if isinstance(entry, Trace) else entry.as_trace()
    if kept is not None:
        for folder in folders:
            folder.keep_for(kept.tables)
    return entry


def _exported(one: _Given, export: Export, folder: Path) -> Trace:
    made, tool = export(one.file, folder)
    try:
        trace = open_trace(made)
    except InputError as error:
        raise _renamed(error, made, f"{one.path}: what {tool} exported of it") from None
    source: Source = replace(trace.source, file_name=one.name, size_bytes=one.file.stat().st_size)
    note = message("The report was exported to SQLite with {tool} for this analysis.", tool=tool)
    return replace(trace, source=source, notes=(*trace.notes, note))


def _renamed(error: NitroError, file: Path, name: str) -> NitroError:
    """Return an error about a file of a private folder, which is gone by then, with a name that tells the user more."""
    return type(error)(str(error).replace(str(file), name))


def head_of_input(path: Path) -> Head:
    """Return what recognition looks at.

    Raises:
        nitro.errors.InputError: the path cannot be read, or its compressed data are damaged from the start.
    """
    from .readers._sqlite_file import head_of

    # Where a folder above must not be looked into, `os.path` says no, and a Path raises.
    if os.path.isdir(path):
        try:
            names = tuple(sorted(entry.name for entry in path.iterdir()))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions.") from None
        return Head(b"", is_folder=True, names=names)
    return Head(head_of(path, HEAD_BYTES))


def _no_trace(path: Path, given: str) -> InputError:
    return InputError(
        f"{path}: this is {given} data, which belongs beside a trace; give the trace too, as in "
        f"`nitro-analyze trace.sqlite {path.name}`."
    )
