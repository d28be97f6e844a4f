"""The outputs that a command is asked for, and how its reports are to look."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nitro.commands._options import F, Option, json_option, lang_option, together
from nitro.commands._outputs import check_outputs, suffix_of
from nitro.errors import UsageError

if TYPE_CHECKING:
    from nitro.reports.blocks import Language
    from nitro.reports.output import Paper, Settings
    from nitro.reports.renderers.svg import Drawer

PAPERS = ("a4", "letter")
_options: Option[Any] = together(
    click.option(
        "-o",
        "--output",
        "outputs",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Write the report as .html, .pdf, .md or .json, by suffix; may be given several times.",
    ),
    json_option,
    click.option("--csv", "csv_dir", type=click.Path(path_type=Path), metavar="DIR", help="Write every table as CSV."),
    lang_option,
    click.option("--title", help="Title of the report; by default made of the names of the traces."),
    click.option("--author", help="Author, shown under the title."),
    click.option("--paper", type=click.Choice(["a4", "letter"]), help="Paper of the PDF.  [default: a4]"),
    click.option(
        "--template",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Your own templates, stylesheets and user.css, in front of ours.",
    ),
    click.option(
        "--assets",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Write each figure as SVG and each table as CSV.",
    ),
)


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """The options about outputs; what was not given is `None` or empty."""

    outputs: tuple[Path, ...]
    json_file: str | None
    csv_dir: Path | None
    lang: Language | None
    title: str | None
    author: str | None
    paper: Paper | None
    template: Path | None
    assets: Path | None

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The suffixes of the outputs, in their order."""
        return tuple(map(suffix_of, self.outputs))

    @property
    def is_printed(self) -> bool:
        """Whether one of the outputs is for paper."""
        return ".pdf" in self.suffixes

    @property
    def is_json_alone(self) -> bool:
        """Whether standard output is taken by JSON."""
        return self.json_file == "-"

    @property
    def named_json(self) -> Path | None:
        """The file of --json, `None` where there is none."""
        return None if self.json_file is None or self.is_json_alone else Path(self.json_file)

    def drawer(self) -> Drawer | None:
        """Return what draws figures where one is needed; it starts to get ready at once, which takes a second."""
        from nitro.reports.renderers.svg import Drawer

        return Drawer() if self.assets or self.is_printed else None

    def check(self, inputs: Sequence[Path], mapping: Path | None = None) -> None:
        """Do nothing if all outputs can be written; see `check_outputs`."""
        check_outputs(inputs, self.outputs, self.json_file, (self.csv_dir, self.assets), mapping)

    def settings(self) -> Settings:
        """Return how the report is to look; see `settings_of`."""
        return settings_of(self.lang, self.title, self.author, self.paper, self.template)


def report_options(function: F) -> Callable[..., Any]:
    """Add the options about outputs, which the command gets as one argument `wanted`."""

    @wraps(function)
    def with_reports(*arguments: Any, **options: Any) -> Any:
        wanted = ReportOptions(**{name: options.pop(name) for name in ReportOptions.__slots__})
        return function(*arguments, wanted=wanted, **options)

    return _options(with_reports)  # type: ignore[no-any-return]


def settings_of(
    lang: Language | None, title: str | None, author: str | None, paper: Paper | None, template: Path | None
) -> Settings:
    """Return how the report is to look: options before nitro.toml before the defaults."""
    from nitro.config import FILE_NAME, report_settings
    from nitro.reports.language import LANGUAGES, language_of
    from nitro.reports.output import Settings

    chosen = report_settings()
    for key, known in (("lang", LANGUAGES), ("paper", PAPERS)):
        if chosen.get(key) not in (None, *known):
            raise UsageError(f"{FILE_NAME}: {key} {chosen[key]!r} is unknown; choose {' or '.join(known)}.")
    folder = template or (Path(chosen["template"]) if "template" in chosen else None)
    if folder is not None and not folder.is_dir():
        raise UsageError(f"{folder}: this is no folder; --template takes a folder of templates and stylesheets.")
    return Settings(
        language=lang or chosen.get("lang") or language_of(os.environ),  # type: ignore[arg-type]
        title=_whole(title or chosen.get("title", "")) or None,
        author=_whole(author or chosen.get("author", "")),
        paper=paper or chosen.get("paper", "a4"),  # type: ignore[arg-type]
        templates=folder,
        command=_command_line(click.get_current_context().params),
    )


def _whole(text: str) -> str:
    """Return a text of the command line; bytes that are no UTF-8 become question marks."""
    return text.encode(errors="replace").decode()


def _command_line(options: Mapping[str, Any]) -> str:
    """Return the command as it was given, files without their folders: where they lie is nobody's business."""
    given = [part for value in options.values() for part in (value if isinstance(value, tuple) else (value,))]
    files = [*(part for part in given if isinstance(part, Path)), options.get("json_file")]
    paths = {os.path.normpath(path) for path in files if path not in (None, "-")}
    return _whole(shlex.join(("nitro-analyze", *(_without_folder(word, paths) for word in sys.argv[1:]))))


def _without_folder(word: str, paths: set[str]) -> str:
    """Return a word of the command line; one that is a path, or ends in one as --output=PATH and -oPATH, is cut."""
    heads = ["", word[:2]]
    if word.startswith("--") and "=" in word:
        heads.append(word[: word.index("=") + 1])
    for head in heads:
        rest = word[len(head) :]
        if rest and os.path.normpath(rest) in paths and (not head or word.startswith("-")):
            return head + Path(os.path.normpath(rest)).name
    return word
