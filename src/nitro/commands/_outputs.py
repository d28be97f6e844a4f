"""Whether everything that a command is to write can be written, asked before any of it is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from nitro.errors import UsageError


def suffix_of(file: Path) -> str:
    """Return the suffix that says in which format a file is to be."""
    return file.suffix.lower()


def check_outputs(
    inputs: Sequence[Path],
    outputs: Sequence[Path],
    json_file: str | None,
    folders: Sequence[Path | None] = (),
    mapping: Path | None = None,
) -> None:
    """Do nothing if all outputs can be written.

    Args:
        inputs: what is read, and never written to.
        outputs: reports, whose suffix is their format.
        json_file: of --json; `-` is standard output.
        folders: of --csv and --assets, which are made where they do not exist; `None` for one that was not given.
        mapping: which kernels belong together, which is read, too.

    Raises:
        UsageError: one of them cannot be written, or must not be.
    """
    from nitro.reports.output import SUFFIXES

    for file in outputs:
        if file.is_dir():
            raise UsageError(f"{file}: this is a folder; name a file in it, such as {file / 'report.html'}.")
        if suffix_of(file) not in SUFFIXES:
            known = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
            raise UsageError(f"{file}: cannot tell the format from the suffix; use {known}.")
    files = [*outputs, *([Path(json_file)] if json_file not in (None, "-") else [])]
    for file in files:
        _check_file(file, inputs, mapping)
    for folder in filter(None, folders):
        _check_folder(folder, inputs, files)


def _check_file(file: Path, inputs: Sequence[Path], mapping: Path | None) -> None:
    target = file.resolve()
    if any(target == given.resolve() for given in inputs):
        raise UsageError(
            f"{file}: this is the trace itself, or a file beside it, and never written to; choose another name."
        )
    if mapping is not None and target == mapping.resolve():
        raise UsageError(f"{file}: this is the mapping, and never written to; choose another name.")
    if not target.parent.is_dir():
        raise UsageError(
            f"{file}: cannot be written, since there is no folder {file.parent}; make it first, or choose another one."
        )
    if not file.exists() and not os.access(target.parent, os.W_OK):
        raise UsageError(f"{file}: cannot be written, since {file.parent} is not writable; choose another place.")


def _check_folder(folder: Path, inputs: Sequence[Path], files: Sequence[Path]) -> None:
    target = folder.resolve()
    if any(target == given.resolve() for given in inputs):
        raise UsageError(f"{folder}: this is an input, and never written to; choose another folder.")
    if any(target == file.resolve() for file in files):
        raise UsageError(f"{folder}: this is to be a file and a folder; give each its own name.")
    there = next(part for part in _and_its_parents(target) if part.exists())
    if not there.is_dir():
        shown = folder if there == target else there
        raise UsageError(
            f"{folder}: cannot be written, since {shown.name} is a file, and no folder can be made there; choose "
            "another folder."
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{folder}: cannot be written, since {there} is not writable; choose another folder.")


def _and_its_parents(path: Path) -> Iterator[Path]:
    yield path
    yield from path.parents
