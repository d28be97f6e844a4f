"""The runs that `compare` and `check` are given: traces with the evidence beside them, and saved analyses.

A path may be a file, a pattern such as `runs/*.sqlite` that no shell took apart, or a folder of files. In a folder,
what lies beside a trace is found by its name: it begins as that of the trace, without suffixes. Elsewhere the rule is
that of `analyze`: it belongs to the trace before it.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nitro.errors import InputError, UsageError

if TYPE_CHECKING:
    from nitro.analyzer.opening import Opened

_FIRST_OF_JSON = b"{"


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A file with an analysis that was saved as JSON."""

    path: Path


def runs_in(paths: Sequence[Path]) -> tuple[Opened | SavedFile, ...]:
    """Return the runs among some paths, in their order.

    Raises:
        InputError: a path cannot be read, a folder or pattern holds no run, or there is no trace to some evidence.
        UsageError: a file is given twice.
    """
    from nitro.analyzer.opening import given_twice
    from nitro.commands._inputs import open_inputs

    found: list[Opened | SavedFile] = []
    files = files_in(paths)
    twice = given_twice(files)
    if twice is not None:
        raise UsageError(f"{twice}: this file is given twice; give each run once.")
    for is_saved, group in groupby(files, key=is_saved_analysis):
        part = list(group)
        found += map(SavedFile, part) if is_saved else open_inputs(part)
    return tuple(found)


def files_in(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return the files and bundles that are meant, patterns and folders of files taken apart; see `runs_in`."""
    return tuple(_files(paths))


def is_saved_analysis(path: Path) -> bool:
    """Whether a file is JSON that is not the trace of a profiler."""
    from nitro.analyzer.opening import all_readers, head_of_input

    try:
        with path.open("rb") as stream:
            if not stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_FIRST_OF_JSON):
                return False
    except OSError:
        # Who opens it as a trace says what is wrong with it.
        return False
    head = head_of_input(path)
    return not any(reader.recognises(head) for reader in all_readers())


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        # `os.path` says no where a folder above must not be looked into; who opens the file says that.
        if not os.path.exists(path) and glob.has_magic(str(path)):
            matching = sorted(map(Path, glob.glob(str(path), recursive=True)))
            if not matching:
                raise InputError(f"{path}: no file has such a name; check the pattern, and that it is in this folder.")
            yield from _files(matching)
        elif os.path.isdir(path) and kind_of(path) is None:
            yield from _files_of(path)
        else:
            yield path


def kind_of(path: Path) -> Literal["trace", "evidence"] | None:
    """Return what a path is as an input, by its content; `None` for what no reader knows."""
    from nitro.analyzer.bundle import is_bundle
    from nitro.analyzer.opening import all_readers, head_of_input, is_report

    if is_bundle(path) or is_report(path):
        return "trace"
    head = head_of_input(path)
    return next((reader.gives for reader in all_readers() if reader.recognises(head)), None)


def _files_of(folder: Path) -> Iterator[Path]:
    """Yield the runs of a folder by their names, each trace in front of what lies beside it.

    Raises:
        InputError: there is none, or no trace to some evidence.
    """
    files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    kinds = {path: kind_of(path) for path in files}
    runs = [path for path in files if kinds[path] == "trace"]
    beside = [path for path in files if kinds[path] == "evidence"]
    saved = [path for path in files if kinds[path] is None and path.is_file() and _holds_analysis(path)]
    if saved and (runs or beside):
        raise InputError(
            f"{folder}: this folder has traces and saved analyses, such as {saved[0].name}, which may be of the same "
            "runs; name the files that you mean."
        )
    if not (runs or beside or saved):
        raise InputError(f"{folder}: no file here is a trace or a saved analysis; name the files of the runs.")
    if not runs:
        # A profile can stand alone, and is a trace then.
        yield from saved or beside
        return
    owners = {path: _owner(path, runs) for path in beside}
    for run in runs:
        yield run
        yield from (path for path in beside if owners[path] == run)


def _owner(path: Path, runs: Sequence[Path]) -> Path:
    """Return the run that evidence belongs to: the one with the longest name that begins its own."""
    if len(runs) == 1:
        return runs[0]
    fitting = [run for run in runs if path.name.startswith(_stem(run))]
    if not fitting:
        raise InputError(
            f"{path}: no trace beside it has a name that this one begins with, so it cannot be told which it "
            f"belongs to; call it as its trace, such as {_stem(runs[0])}_power.csv, or name the files one by one."
        )
    return max(fitting, key=lambda run: len(_stem(run)))


def _stem(path: Path) -> str:
    return path.name.partition(".")[0]


def _holds_analysis(path: Path) -> bool:
    """Whether a file in a folder is an analysis; other JSON may lie there as well."""
    if not is_saved_analysis(path):
        return False
    import msgspec

    try:
        known = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(known, dict) and "measurements" in known


def digested(opened: Opened) -> Opened:
    """Return a trace and its evidence with the digests of their files, where each of them came from one."""
    if len(opened.paths) != 1 + len(opened.evidence):
        return opened
    from nitro.commands.analyze import _digested

    first, *beside = opened.paths
    evidence = tuple(
        replace(entry, source=_digested(entry.source, path))
        for entry, path in zip(opened.evidence, beside, strict=True)
    )
    trace = replace(opened.trace, source=_digested(opened.trace.source, first))
    return replace(opened, trace=trace, evidence=evidence)
