"""Capture bundles: a folder or zip archive with `manifest.json` and the files of one or several runs.

The manifest says which files belong together, and what no file of them says: the command, how many items an iteration
works on, the power mode. Version 1 is

    {
      "format": "nitro-bundle",
      "version": 1,
      "runs": [
        {
          "trace": "run.sqlite.xz",
          "beside": ["run.power.log", "run.ncu-rep"],
          "command": ["python3", "infer.py"],
          "items_per_iteration": 8,
          "facts": {"power_mode": "MAXN", "precision": "fp16"}
        }
      ],
      "sha256": {"run.sqlite.xz": "..."}
    }

where only `format`, `version` and, of each run, `trace` must be there. Other keys are passed over, so that a collector
may say more. What kind a file is, its content decides, as always.
"""

from __future__ import annotations

import hashlib
import lzma
import re
import shutil
import stat
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar

from nitro.errors import InputError

MANIFEST = "manifest.json"
FORMAT = "nitro-bundle"
VERSION = 1
_MOST_MANIFEST_BYTES = 1 << 20
# SQLite and text deflate by a factor of 4 to 30; a file that grows far more was made to fill the disk.
_MOST_GROWTH, _FREE_GROWTH_BYTES = 100, 1 << 28
_COPY_BYTES = 1 << 20
_DRIVE = re.compile(r"^[A-Za-z]:")
_ZIP_HEADS = (b"PK\x03\x04", b"PK\x05\x06")
# Editors of Windows put it in front of UTF-8.
_UTF_8_MARK = b"\xef\xbb\xbf"

Told = TypeVar("Told")


@dataclass(frozen=True, slots=True)
class BundledRun:
    """One run of a bundle: names of its files inside the bundle, and what the manifest says of it."""

    trace: str
    beside: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    items_per_iteration: int | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> tuple[str, ...]:
        """All files, the trace first."""
        return (self.trace, *self.beside)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `manifest.json` says. `sha256` has the digests of those files that it has one for."""

    runs: tuple[BundledRun, ...]
    sha256: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle: where each file of the manifest lies, and its digest where it was computed.

    `folder` is the private temporary folder that an archive was unpacked into, `None` where the bundle is a folder.
    """

    path: Path
    manifest: Manifest
    files: Mapping[str, Path]
    sha256: Mapping[str, str]
    folder: TemporaryFolder | None = None


class TemporaryFolder:
    """A private folder that is removed when nobody needs it any more, at the latest when the program ends.

    The tables of a trace are read from its file when they are first asked for, so its file must stay that long.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="nitro-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def keep_for(self, user: object) -> None:
        """Keep the folder as long as an object lives; what reads files later is never a plain `dict`."""
        if not isinstance(user, dict):
            # The finalizer holds this folder, and lets go of it with the object.
            weakref.finalize(user, _let_go, self)


def _let_go(_folder: TemporaryFolder) -> None:
    """Do nothing: that the folder is no longer held is all."""


def is_bundle(path: Path) -> bool:
    """Whether a path is a folder with a manifest, or a zip archive with one; raises nothing."""
    try:
        if path.is_dir():
            return (path / MANIFEST).is_file()
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            if not is_zip(stream.read(4)):
                return False
        with zipfile.ZipFile(path) as archive:
            return _top(archive) is not None
    except (OSError, zipfile.BadZipFile):
        return False


def is_zip(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a zip archive, be it empty or damaged further on."""
    return head.startswith(_ZIP_HEADS)


def not_an_input(path: Path) -> InputError:
    """Return why a zip archive is no input by itself."""
    if is_bundle(path):
        return InputError(f"{path}: this is a capture bundle, which is not read inside of another; give it by itself.")
    try:
        with zipfile.ZipFile(path):
            return InputError(f"{path}: a zip archive without {MANIFEST}; give the files in it, or make a bundle.")
    except (OSError, zipfile.BadZipFile) as error:
        return _damaged(path, error)


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: the zip archive is damaged ({error}); copy or make it again.")


def open_bundle(path: Path) -> Bundle:
    """Read the manifest, and unpack an archive's files into a private temporary folder.

    Raises:
        InputError: the manifest is damaged or of a newer version, names a file that is not there or lies outside the
            bundle, a digest differs, or the archive is damaged or would unpack to far more than it holds.
    """
    if path.is_dir():
        return _of_folder(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _of_archive(path, archive)
    except zipfile.BadZipFile as error:
        raise _damaged(path, error) from None


def _of_folder(path: Path) -> Bundle:
    try:
        text = (path / MANIFEST).open("rb").read(_MOST_MANIFEST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: its {MANIFEST} cannot be read ({error.strerror}); check its permissions.") from None
    manifest = read_manifest(text, path)
    files, digests = {}, {}
    root = path.resolve()
    for name in _names(manifest):
        file = path / name
        try:
            if not file.resolve().is_relative_to(root):
                raise _outside(path, name)
            if not file.exists():
                raise _missing(path, name)
            if name in manifest.sha256 and file.is_file():
                with file.open("rb") as stream:
                    digests[name] = _copied(stream, None)
        except (OSError, RuntimeError) as error:
            # A loop of links is a RuntimeError before Python 3.13.
            reason = getattr(error, "strerror", None) or "its links go round in a circle"
            shown = _shown(name)
            raise InputError(f"{path}: {shown} in it cannot be read ({reason}); copy the bundle again.") from None
        files[name] = file
    _check_digests(path, manifest, digests)
    return Bundle(path, manifest, files, digests)


def _of_archive(path: Path, archive: zipfile.ZipFile) -> Bundle:
    top = _top(archive)
    if top is None:
        raise not_an_input(path)
    entries = {entry.filename: entry for entry in archive.infolist()}
    with _entry(path, archive, entries[top + MANIFEST]) as stream:
        manifest = read_manifest(stream.read(_MOST_MANIFEST_BYTES + 1), path)
    chosen: dict[str, zipfile.ZipInfo] = {}
    for name in _names(manifest):
        entry = entries.get(top + name)
        # A folder (parquetdir) is packed as the files in it.
        inside = [entry] if entry is not None else [e for n, e in entries.items() if n.startswith(f"{top}{name}/")]
        if not inside:
            raise _missing(path, name)
        chosen |= {each.filename[len(top) :]: each for each in inside if not each.is_dir()}
    _check_growth(path, chosen.values())
    folder = TemporaryFolder()
    digests = {}
    for name, entry in chosen.items():
        _check_name(path, name)
        target = folder.path / name
        with _entry(path, archive, entry) as stream:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as copy:
                digests[name] = _copied(stream, copy)
    _check_digests(path, manifest, digests)
    return Bundle(path, manifest, {name: folder.path / name for name in _names(manifest)}, digests, folder)


def _top(archive: zipfile.ZipFile) -> str | None:
    """Return what stands before the names of the bundle's files: nothing, or the one folder that was packed."""
    names = archive.namelist()
    if MANIFEST in names:
        return ""
    found = [name for name in names if name.count("/") == 1 and name.endswith(f"/{MANIFEST}")]
    return found[0].removesuffix(MANIFEST) if len(found) == 1 else None


def _check_growth(path: Path, entries: Iterable[zipfile.ZipInfo]) -> None:
    entries = list(entries)
    packed, whole = sum(entry.compress_size for entry in entries), sum(entry.file_size for entry in entries)
    if whole > _FREE_GROWTH_BYTES and whole > _MOST_GROWTH * packed:
        raise InputError(
            f"{path}: {packed:,} bytes would unpack to {whole:,}, which no recording does; unpack it by hand and give "
            "the folder if you trust it."
        )
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if whole > free:
        raise InputError(
            f"{path}: unpacking needs {whole:,} bytes, and {tempfile.gettempdir()} has {free:,}; set TMPDIR to a "
            "larger disk, or give the unpacked folder."
        )


@contextmanager
def _entry(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
    """Open a file of an archive, with every damage told in one sentence."""
    name = _shown(entry.filename)
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise InputError(f"{path}: {name} in it is a link; pack the file itself.")
    try:
        with archive.open(entry) as stream:
            yield stream
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError, ValueError) as error:
        raise InputError(
            f"{path}: {name} in it cannot be unpacked ({error}); make the archive again, without a password."
        ) from None
    except (zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{path}: {name} in it is damaged ({error}); make the archive again.") from None


def _copied(source: IO[bytes], target: IO[bytes] | None) -> str:
    """Return the SHA-256 of a stream, and write it to another one."""
    digest = hashlib.sha256()
    while part := source.read(_COPY_BYTES):
        digest.update(part)
        if target is not None:
            target.write(part)
    return digest.hexdigest()


def _check_digests(path: Path, manifest: Manifest, found: Mapping[str, str]) -> None:
    for name, digest in found.items():
        # Some tools write digests in capitals.
        if manifest.sha256.get(name, digest).lower() != digest:
            raise InputError(
                f"{path}: {_shown(name)} is not the file that was recorded (its SHA-256 differs from the manifest's); "
                "copy the bundle again."
            )


def _names(manifest: Manifest) -> list[str]:
    return list(dict.fromkeys(name for run in manifest.runs for name in run.files))


def _missing(path: Path, name: str) -> InputError:
    return InputError(
        f"{path}: {_shown(name)} is named in its {MANIFEST} and is not there; copy the whole bundle again."
    )


def _outside(path: Path, name: str) -> InputError:
    shown = _shown(name)
    return InputError(f"{path}: its {MANIFEST} names {shown}, which lies outside of it; only files inside are read.")


def _shown(name: str) -> str:
    """Return a name as a message may show it: control characters, which a terminal would obey, are escaped."""
    return name if name.isprintable() and name else ascii(name)


def _check_name(path: Path, name: str) -> None:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or _DRIVE.match(name) or "\0" in name:
        raise _outside(path, name)


def read_manifest(text: bytes, path: Path) -> Manifest:
    """Return what a manifest says; `path` is that of the bundle, for messages.

    Raises:
        InputError: it is no manifest of a bundle, of a newer version, or a value in it has another type.
    """
    if len(text) > _MOST_MANIFEST_BYTES:
        raise InputError(f"{path}: its {MANIFEST} is larger than 1 MiB; a manifest names files and holds none.")
    head = _decoded(text, path, _Head)
    if head.format != FORMAT:
        raise InputError(f'{path}: its {MANIFEST} is not that of a bundle, which says "format": "{FORMAT}".')
    if head.version > VERSION:
        raise InputError(
            f"{path}: its {MANIFEST} has version {head.version}, and this Nitro reads up to {VERSION}; update Nitro."
        )
    manifest = _decoded(text, path, Manifest)
    if head.version < 1 or not manifest.runs:
        raise InputError(f"{path}: its {MANIFEST} must have a version from 1 and at least one run; make it again.")
    if any(run.items_per_iteration is not None and run.items_per_iteration < 1 for run in manifest.runs):
        raise InputError(f"{path}: items_per_iteration in its {MANIFEST} must be at least 1; leave it out if unknown.")
    for name in _names(manifest):
        _check_name(path, name)
    every = [run.trace for run in manifest.runs]
    twice = next((run.trace for run in manifest.runs if every.count(run.trace) > 1 or run.trace in run.beside), None)
    if twice is not None:
        raise InputError(
            f"{path}: its {MANIFEST} names {_shown(twice)} twice; a trace belongs to one run, and stands in it once."
        )
    return manifest


@dataclass(frozen=True, slots=True)
class _Head:
    """What a manifest of any version says."""

    format: str = ""
    version: int = 0


def _decoded(text: bytes, path: Path, kind: type[Told]) -> Told:
    import msgspec

    try:
        return msgspec.json.decode(text.removeprefix(_UTF_8_MARK), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: its {MANIFEST} is not understood ({error}); mend it or make it again.") from None
