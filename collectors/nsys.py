"""Nsight Systems: an SQLite export of its reports, made with an nsys that is installed here.

nsys reads reports of its own version and of older ones, never of newer ones. A report says which version
wrote it, so an nsys that is too old is told from one that fails. `nsys` is looked for in `NSYS`, on the PATH,
and where the installers of Nsight Systems, CUDA and Nsight Compute put it; the first that is new enough is used.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nitro.errors import ToolError

_HEAD_BYTES, _TAIL_BYTES = 512, 4096
# "NVIDIA Tegra Profiler Report 2023@4@4@54-2344..." of .nsys-rep and .qdrep, "NVIDIA Nsight Systems Stream 2023.4.4.54"
# of .qdstrm. The nsys inside Nsight Compute writes the number of its build there, and its version at the end.
_WRITER = re.compile(rb"NVIDIA (?:Tegra Profiler Report|Nsight Systems Stream) (\d+(?:[@.]\d+)+)")
_AT_THE_END = re.compile(rb"\b(20\d\d(?:\.\d+){3})\b")
_STREAM = b"NVIDIA Nsight Systems Stream"
_VERSION = re.compile(r"(\d{4}(?:\.\d+)+)")
_PLACES = (
    "/opt/nvidia/nsight-systems*/*/bin/nsys",
    "/opt/nvidia/nsight-systems*/*/target-linux-*/nsys",
    "/usr/local/cuda*/bin/nsys",
    "/usr/lib/*/nsight-systems/target-linux-*/nsys",
    "/opt/nvidia/nsight-compute/*/host/target-linux-*/nsys",
)
# Where QdstrmImporter lies, seen from a folder above nsys.
_IMPORTERS = (
    "host-linux-*/QdstrmImporter",
    "linux-desktop-*/QdstrmImporter",
    "lib/nsight-systems/host-linux-*/QdstrmImporter",
)
_FOLDERS_ABOVE = 5
_ANSWER_S = 30

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Nsys:
    """An installed nsys."""

    path: Path
    version: Version

    @property
    def name(self) -> str:
        """Name and version, as in "nsys 2025.3.2"."""
        return f"nsys {_text(self.version)}"

    def reads(self, writer: Version | None) -> bool:
        """Whether it reads reports of a version: its own release or an older one; builds of a release do not matter."""
        return writer is None or self.version[:2] >= writer[:2]


def export_sqlite(report: Path, folder: Path) -> tuple[Path, str]:
    """Export a report to SQLite.

    Args:
        report: .nsys-rep, .qdrep or .qdstrm, whatever its name; it is not changed, and nothing is written beside it.
        folder: where to write.

    Returns:
        The export, and the name and version of the nsys that made it.

    Raises:
        ToolError: no nsys is found, all that are found are too old, or it fails.
    """
    is_stream, writer = _writer(report)
    nsys = _nsys_for(report, writer)
    # A copy, since QdstrmImporter writes into the stream that it reads; and the name decides what nsys takes it for.
    source = folder / ("report.qdstrm" if is_stream else "report.nsys-rep")
    shutil.copyfile(report, source)
    if is_stream:
        importer = _importer(report, nsys)
        imported = folder / "imported.nsys-rep"
        _run(report, [str(importer), "-i", str(source), "-o", str(imported)], imported)
        source = imported
    exported = folder / "report.sqlite"
    command = [str(nsys.path), "export", "--type=sqlite", "--force-overwrite=true", f"--output={exported}", str(source)]
    _run(report, command, exported)
    source.unlink()
    return exported, nsys.name


def installed() -> Iterator[Nsys]:
    """Yield the nsys programs of this machine that answer, in the order in which they are preferred."""
    seen: set[Path] = set()
    for path in _candidates():
        real = path.resolve()
        if real in seen:
            continue
        seen.add(real)
        version = _version(path)
        if version is not None:
            yield Nsys(path, version)


def _candidates() -> Iterator[Path]:
    for name in (os.environ.get("NSYS"), "nsys"):
        found = shutil.which(name) if name else None
        if found is not None:
            yield Path(found)
    for pattern in _PLACES:
        # Names of folders are versions, so the last ones are the newest, or nearly.
        yield from sorted(Path("/").glob(pattern.lstrip("/")), reverse=True)


def _version(path: Path) -> Version | None:
    try:
        answer = subprocess.run(
            [str(path), "--version"], capture_output=True, stdin=subprocess.DEVNULL, timeout=_ANSWER_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.search(answer.stdout.decode(errors="replace"))
    return None if found is None else tuple(map(int, found.group(1).split(".")))


def _writer(report: Path) -> tuple[bool, Version | None]:
    """Return whether a report is a .qdstrm, and the version that wrote it, `None` where it does not say."""
    with report.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
        stream.seek(max(report.stat().st_size - _TAIL_BYTES, 0))
        tail = stream.read()
    found = _WRITER.search(head) or _AT_THE_END.search(tail)
    version = None if found is None else tuple(map(int, re.split(rb"[@.]", found.group(1))))
    return _STREAM in head, version


def _nsys_for(report: Path, writer: Version | None) -> Nsys:
    too_old: list[Nsys] = []
    for nsys in installed():
        if nsys.reads(writer):
            return nsys
        too_old.append(nsys)
    wanted = "Nsight Systems" if writer is None else f"Nsight Systems {_text(writer[:2])} or newer"
    what = "an nsys report" if writer is None else f"a report of nsys {_text(writer)}"
    if too_old:
        newest = max(too_old, key=lambda nsys: nsys.version)
        found = f"the newest nsys found here is {_text(newest.version)} ({newest.path}), which reads older reports only"
    else:
        found = "no nsys is found here to read it (NSYS, PATH, /opt/nvidia, /usr/local/cuda)"
    raise ToolError(
        f"{report}: this is {what}, and {found}; install {wanted}, or run `nsys export --type sqlite {report.name}` "
        "where it was recorded and give the .sqlite file."
    )


def _importer(report: Path, nsys: Nsys) -> Path:
    """Return the program that makes a report of a .qdstrm, of the same installation."""
    given = os.environ.get("QDSTRM_IMPORTER")
    if given is not None and (found := shutil.which(given)) is not None:
        return Path(found)
    for above in list(nsys.path.resolve().parents)[:_FOLDERS_ABOVE]:
        for pattern in _IMPORTERS:
            beside = next(iter(sorted(above.glob(pattern))), None)
            if beside is not None:
                return beside
    raise ToolError(
        f"{report}: this .qdstrm must be imported first, and the installation of {nsys.path} has no QdstrmImporter; "
        "set QDSTRM_IMPORTER to that of Nsight Systems for a host, or import it where that is installed."
    )


def _run(report: Path, command: Sequence[str], made: Path) -> None:
    """Run a program that makes a file.

    Raises:
        ToolError: it cannot be started, fails, or makes no file.
    """
    name = Path(command[0]).name
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    except OSError as error:
        raise ToolError(f"{report}: {command[0]} cannot be started ({error.strerror}); reinstall it.") from None
    if done.returncode != 0 or not made.exists():
        raise ToolError(
            f"{report}: {name} could not convert it (exit code {done.returncode}: {_last_words(done)}); copy the "
            "report again, or export it where it was recorded and give the .sqlite file."
        )


def _last_words(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return the last line that a program printed, the one that says most; progress is drawn with carriage returns."""
    text = (done.stdout + b"\n" + done.stderr).decode(errors="replace")
    lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
    said = [line for line in lines if line and not line.startswith("Processing")]
    return said[-1][:300] if said else "no message"


def _text(version: Version) -> str:
    # The fourth number counts builds.
    return ".".join(map(str, version[:3]))
