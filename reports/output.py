"""Analyses as files and on the terminal: one function a form."""

from __future__ import annotations

import csv
import io
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import msgspec

from nitro.analyzer import Analysis
from nitro.errors import NitroWarning, UsageError

from .blocks import Language
from .language import LANGUAGES, translated
from .report import Report, build_report

if TYPE_CHECKING:
    from .renderers import svg

Paper = Literal["a4", "letter"]
NO_KOREAN_FONT = (
    "no font here has Korean letters, so the PDF is in English; install one, on Debian and Ubuntu with "
    "`sudo apt-get install fonts-noto-cjk`."
)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a report is to look: its language, title, author, paper, and a folder of the user's own templates."""

    language: Language = "en"
    title: str | None = None
    author: str = ""
    paper: Paper = "a4"
    templates: Path | None = None
    command: str | None = None


def drawing() -> AbstractContextManager[svg.Drawer]:
    """Return what draws figures for paper; it starts to get ready at once.

    Raises:
        nitro.errors.ToolError: vl-convert is not installed.
    """
    from .renderers import svg

    return svg.Drawer()


def json_bytes(analysis: Analysis) -> bytes:
    """Return the documented JSON of an analysis, indented, with a line end."""
    return msgspec.json.format(msgspec.json.encode(analysis.to_dict(), enc_hook=str), indent=2) + b"\n"


class Documents:
    """The documents about some analyses. The report is built once, when the first of them is asked for."""

    def __init__(
        self, analyses: Sequence[Analysis], settings: Settings = Settings(), drawer: svg.Drawer | None = None
    ) -> None:
        """Make documents about at least one analysis.

        A PDF and the assets need a `drawer`; one that was made before the analysis has had time to start.
        """
        self._analyses = analyses
        self._drawer = drawer
        self._settings = settings
        self._report: Report | None = None
        self._finish_pdf: Callable[[], bytes] | None = None

    def _in(self, language: Language) -> Report:
        settings = self._settings
        if self._report is None:
            self._report = build_report(
                *self._analyses, title=settings.title, author=settings.author, command=settings.command
            )
        return translated(self._report, language)

    def html(self) -> bytes:
        """Return the page, in every language, the chosen one first."""
        from .renderers import html

        first = self._settings.language
        editions = [self._in(language) for language in (first, *(other for other in LANGUAGES if other != first))]
        return html.draw(editions, user_templates=self._settings.templates).encode()

    def pdf(self) -> bytes:
        """Return the PDF.

        Where no font has Korean letters, a Korean PDF is written in English, with a warning.

        Raises:
            nitro.errors.ToolError: what draws it is not installed.
        """
        with self._drawing() as drawer:
            finish = self._finish_pdf or self._begun_pdf(drawer)
            self._finish_pdf = None
            return finish()

    def begin_pdf(self) -> None:
        """Begin the PDF, which others lay out while there is something else to do; `pdf` then returns it sooner.

        The drawer that the documents were made with is busy with it until then.
        """
        if self._drawer is not None and self._finish_pdf is None:
            self._finish_pdf = self._begun_pdf(self._drawer)

    def _begun_pdf(self, drawer: svg.Drawer) -> Callable[[], bytes]:
        from .fonts import has_korean_font
        from .renderers import pdf

        settings = self._settings
        language = settings.language
        if language == "ko" and not has_korean_font():
            warnings.warn(NO_KOREAN_FONT, NitroWarning, stacklevel=3)
            language = "en"
        report = self._in(language)
        return pdf.begin(report, drawer, paper=settings.paper, user_templates=settings.templates)

    def markdown(self) -> bytes:
        """Return the report as Markdown."""
        from .renderers import markdown

        return markdown.draw(self._in(self._settings.language)).encode()

    def write_assets(self, folder: Path) -> None:
        """Write every figure as SVG and every table as CSV into a folder, for a paper.

        Raises:
            UsageError: the folder cannot be written.
        """
        from .renderers import assets

        make_folder(folder)
        with self._drawing() as drawer:
            for name, content in assets.draw(self._in(self._settings.language), drawer):
                write_file(folder / name, content)

    def _drawing(self) -> AbstractContextManager[svg.Drawer]:
        """Return the drawer that was given, or one for this time alone."""
        return nullcontext(self._drawer) if self._drawer is not None else drawing()


FORMATS: dict[str, Callable[[Documents], bytes]] = {
    ".html": Documents.html,
    ".pdf": Documents.pdf,
    ".md": Documents.markdown,
}
SUFFIXES = (*FORMATS, ".json")


def overview(analyses: Sequence[Analysis], stream: IO[str], language: Language = "en") -> str:
    """Return the report as it is to be written to a terminal or a pipe."""
    from .renderers import terminal

    return terminal.text_for(translated(build_report(*analyses, for_documents=False), language), stream)


def print_overview(analyses: Sequence[Analysis], stream: IO[str], language: Language = "en") -> None:
    """Print the report to a terminal or a pipe."""
    stream.write(overview(analyses, stream, language))


def write_file(path: Path, content: bytes) -> None:
    """Write a named output: beside its place first, then renamed, so that there is never half a file.

    A device such as `/dev/stdout` cannot be renamed to and is written straight away.

    Raises:
        UsageError: the file cannot be written.
    """
    if path.is_dir():
        raise UsageError(f"{path}: this is a folder; name a file in it.")
    beside: str | None = None
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
        # A link stays a link: what it points to is replaced.
        target = path.resolve()
        handle, beside = tempfile.mkstemp(prefix=f".{target.name[:40]}.", dir=target.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.chmod(beside, _mode_of(target))
        os.replace(beside, target)
        beside = None
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}); choose another place.") from None
    finally:
        if beside is not None:
            Path(beside).unlink(missing_ok=True)


def _mode_of(target: Path) -> int:
    """Return the permissions that a file written in the plain way would have."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def make_folder(folder: Path) -> None:
    """Make a folder for outputs if it does not exist.

    Raises:
        UsageError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror}); choose another folder.") from None


def write_csv(folder: Path, analysis: Analysis) -> None:
    """Write the measurements and every table as CSV into a folder, which is made if it does not exist.

    Files are named after the table, with the device where several have the same table.

    Raises:
        UsageError: the folder cannot be written.
    """
    names = [table.name for table in analysis.tables]
    make_folder(folder)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("metric", "device_id", "by", "value", "unit", "count"))
    for entry in analysis.measurements:
        writer.writerow((entry.metric, entry.device_id, entry.by, entry.value, entry.unit, entry.count))
    write_file(folder / "measurements.csv", stream.getvalue().encode())
    for table in analysis.tables:
        suffix = f"_gpu{table.device_id}" if names.count(table.name) > 1 else ""
        write_file(folder / f"{table.name}{suffix}.csv", table.frame.write_csv().encode())
