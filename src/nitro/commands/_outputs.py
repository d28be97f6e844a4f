"""Whether everything that a command is to write can be written, asked before any of it is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
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
        inputs: what is read, and never written to; nor is anything in a folder that is an input by itself.
        outputs: reports, whose suffix is their format.
        json_file: of --json; `-` is standard output.
        folders: of --csv and --assets, which are made where they do not exist; `None` for one that was not given.
        mapping: which kernels belong together, which is read, too.

    Raises:
        UsageError: one of them cannot be written, or must not be.
    """
    from nitro.reports.output import SUFFIXES

    for file in outputs:
        if os.path.isdir(file):
            raise UsageError(f"{file}: this is a folder; name a file in it, such as {file / 'report.html'}.")
        if suffix_of(file) not in SUFFIXES:
            known = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
            raise UsageError(f"{file}: cannot tell the format from the suffix; use {known}.")
    files = [*outputs, *([Path(json_file)] if json_file not in (None, "-") else [])]
    check_files(inputs, files)
    if mapping is not None and (taken := _first_twice((mapping, *files))) is not None:
        raise UsageError(f"{taken}: this is the mapping, and never written to; choose another name.")
    wanted = [folder for folder in folders if folder is not None]
    for folder in wanted:
        _check_folder(folder, inputs, files)
    if (twice := _first_twice(wanted)) is not None:
        raise UsageError(f"{twice}: --csv and --assets write files of the same names; give each a folder of its own.")


def check_files(inputs: Sequence[Path], files: Sequence[Path]) -> None:
    """Do nothing if all files can be written; see `check_outputs`.

    Raises:
        UsageError: one of them cannot be written, or must not be.
    """
    for file in files:
        _check_file(file, inputs)
    if (twice := _first_twice(files)) is not None:
        raise UsageError(f"{twice}: two outputs have this name; give each its own.")


def _check_file(file: Path, inputs: Sequence[Path]) -> None:
    # Where a folder must not be looked into, `os.path` answers no, and a Path raises.
    if os.path.isdir(file):
        raise UsageError(f"{file}: this is a folder; name a file in it.")
    target = _real(file)
    if any(target == _real(given) for given in inputs):
        raise UsageError(
            f"{file}: this is the trace itself, or a file beside it, and never written to; choose another name."
        )
    _check_outside(file, inputs)
    if not os.path.isdir(target.parent):
        raise UsageError(
            f"{file}: cannot be written, since there is no folder {file.parent}; make it first, or choose another one."
        )
    # A file is replaced by a new one beside it, which a device such as /dev/stdout is not.
    is_device = os.path.exists(file) and not os.path.isfile(file)
    if not is_device and not os.access(target.parent, os.W_OK | os.X_OK):
        raise UsageError(f"{file}: cannot be written, since {file.parent} is not writable; choose another place.")


def _check_outside(place: Path, inputs: Sequence[Path]) -> None:
    """Refuse a place in a bundle or a folder of tables; a folder of runs is none of both."""
    target = _real(place)
    around = [given for given in inputs if _real(given) in target.parents]
    if around:
        from nitro.commands._runs import kind_of

        folder = next((given for given in around if kind_of(given) is not None), None)
        if folder is not None:
            raise UsageError(f"{place}: this lies in the input {folder}, which is never changed; choose another place.")


def _first_twice(paths: Iterable[Path]) -> Path | None:
    """Return the first path that is the same place as one before it."""
    seen: set[Path] = set()
    for path in paths:
        target = _real(path)
        if target in seen:
            return path
        seen.add(target)
    return None


def _real(path: Path) -> Path:
    """Return a path without links; as far as they lead, where they go round in a circle."""
    return Path(os.path.realpath(path))


def _check_folder(folder: Path, inputs: Sequence[Path], files: Sequence[Path]) -> None:
    target = _real(folder)
    if any(target == _real(given) for given in inputs):
        raise UsageError(f"{folder}: this is an input, and never written to; choose another folder.")
    if any(target == _real(file) for file in files):
        raise UsageError(f"{folder}: this is to be a file and a folder; give each its own name.")
    _check_outside(folder, inputs)
    there = next(part for part in _and_its_parents(target) if os.path.exists(part))
    if not os.path.isdir(there):
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
