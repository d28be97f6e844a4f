"""`nitro-analyze compare`: two sides of one or several runs, the change between them explained and judged."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nitro.commands import analyze as shared
from nitro.errors import InputError, UsageError

if TYPE_CHECKING:
    from nitro.analyzer.compare import SavedRun
    from nitro.analyzer.view import Scope, View
    from nitro.reports.blocks import Language
    from nitro.reports.output import Paper

_SIDES = ("--before", "--after")
_FIRST_OF_JSON = b"{"


class _Command(click.Command):
    """A command whose sides take all words up to the next option, as the shell writes `--before run*.sqlite`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _one_each(args))


def _one_each(words: list[str]) -> list[str]:
    """Return the words with the option of a side in front of each of its files."""
    made: list[str] = []
    side: str | None = None
    for word in words:
        if word.startswith("-") and word != "-":
            name = word.partition("=")[0]
            side = name if name in _SIDES else None
            made.append(word)
        elif side is not None and made[-1] != side:
            made += [side, word]
        else:
            made.append(word)
    return made


def _ratio(_ctx: click.Context, param: click.Parameter, value: str) -> float:
    """Read a share such as `2%` or `0.02`."""
    text = value.strip().removesuffix("%")
    try:
        share = float(text) / (100 if value.strip().endswith("%") else 1)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no share; write 2% or 0.02.", param=param) from None
    if not 0 < share < 1:
        raise click.BadParameter(f"{value} is outside of 0 to 100 %; write 2% or 0.02.", param=param)
    return share


@click.command("compare", cls=_Command)
@click.option(
    "--before",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    metavar="TRACE...",
    help="The runs before the change.",
)
@click.option(
    "--after",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    metavar="TRACE...",
    help="The runs after it.",
)
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the report as .html, .pdf, .md or .json, by suffix; may be given several times.",
)
@click.option("--json", "json_file", metavar="FILE", help="Write JSON to FILE, or to standard output with '-'.")
@click.option("--csv", "csv_dir", type=click.Path(path_type=Path), metavar="DIR", help="Write the tables as CSV.")
@click.option("--lang", type=click.Choice(["en", "ko"]), help="Language of the report; by default that of the locale.")
@click.option("--title", help="Title of the report; by default the names of the traces.")
@click.option("--author", help="Author, shown under the title.")
@click.option("--paper", type=click.Choice(["a4", "letter"]), help="Paper of the PDF.  [default: a4]")
@click.option(
    "--template",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Your own templates, stylesheets and user.css, in front of ours.",
)
@click.option(
    "--assets", type=click.Path(path_type=Path), metavar="DIR", help="Write each figure as SVG and each table as CSV."
)
@click.option(
    "--window",
    type=click.Choice(["auto", "all"]),
    default="auto",
    show_default=True,
    help="auto: the repeated iterations without warm-up; all: first to last GPU operation.",
)
@click.option("--nvtx", metavar="NAME", help="NVTX ranges that are the iterations; * matches anything.")
@click.option(
    "--device",
    "device_ids",
    multiple=True,
    type=int,
    callback=shared._or_none,
    help="Look at this GPU only; may be repeated.",
)
@click.option(
    "--pid",
    "pids",
    multiple=True,
    type=int,
    callback=shared._or_none,
    help="Look at this process only; may be repeated.",
)
@click.option("--batch", type=click.IntRange(min=1), help="Items per iteration, on both sides.")
@click.option("--mapping", type=click.Path(path_type=Path), metavar="FILE", help="Kernels that belong together (TOML).")
@click.option(
    "--allow",
    multiple=True,
    metavar="REASON",
    help="Compare in spite of a reason that speaks against it, such as device; may be repeated.",
)
@click.option(
    "--threshold",
    default="2%",
    show_default=True,
    callback=_ratio,
    metavar="SHARE",
    help="The smallest change that matters.",
)
@click.option("--paired", "is_paired", is_flag=True, help="The runs of both sides were taken in pairs, one by one.")
def command(
    before: tuple[Path, ...],
    after: tuple[Path, ...],
    outputs: tuple[Path, ...],
    json_file: str | None,
    csv_dir: Path | None,
    lang: Language | None,
    title: str | None,
    author: str | None,
    paper: Paper | None,
    template: Path | None,
    assets: Path | None,
    mapping: Path | None,
    allow: tuple[str, ...],
    threshold: float,
    is_paired: bool,
    **scope: Any,
) -> None:
    """Compare two sides: where the change came from, exactly, and whether it is real.

    TRACE is an nsys SQLite export, plain or compressed (xz, gz, zst), or an analysis saved with `-o run.json`, which
    gives the waterfall and the verdict but kernels by name alone. Name several runs a side where you have them: one run
    does not tell how much runs differ by themselves. Exit code 4: the sides cannot be compared.

    \b
    nitro-analyze compare --before eager*.sqlite --after graph*.sqlite -o report.html
    """  # noqa: D301 - click wants the character itself
    from rich.console import Console

    from nitro.analyzer.compare import compare
    from nitro.analyzer.view import Scope
    from nitro.reports import comparison as report
    from nitro.reports import output

    shared._check_outputs((*before, *after), outputs, json_file)
    _check_places([*outputs, *([Path(json_file)] if json_file not in (None, "-") else [])], mapping)
    settings = shared._settings(lang, title, author, paper, template)
    wanted = Scope(**scope)
    kernels = None if mapping is None else _mapping(mapping)
    suffixes = [file.suffix.lower() for file in outputs]
    is_written = bool(outputs or json_file)
    with ExitStack() as stack:
        drawer = stack.enter_context(output.drawing()) if assets or ".pdf" in suffixes else None
        with Console(stderr=True).status("Comparing"):
            sides = [[_run(path, wanted, with_digest=is_written) for path in side] for side in (before, after)]
            made = compare(sides[0], sides[1], mapping=kernels, threshold=threshold, allow=allow, is_paired=is_paired)
        if assets is not None or any(suffix in output.FORMATS for suffix in suffixes):
            documents = report.ComparisonDocuments(made, settings, drawer)
            for file, suffix in zip(outputs, suffixes, strict=True):
                if suffix in output.FORMATS:
                    output.write_file(file, output.FORMATS[suffix](documents))
            if assets is not None:
                documents.write_assets(assets)
        json_files = [file for file, suffix in zip(outputs, suffixes, strict=True) if suffix not in output.FORMATS]
        json_files += [Path(json_file)] if json_file not in (None, "-") else []
        for file in json_files:
            output.write_file(file, report.comparison_json(made))
        if csv_dir is not None:
            report.write_comparison_csv(csv_dir, made)
        # Printed last: who reads only the head of it, as in `| head`, ends this program.
        if json_file == "-":
            sys.stdout.buffer.write(report.comparison_json(made))
        else:
            report.print_comparison(made, sys.stdout, settings.language)


def _check_places(files: list[Path], mapping: Path | None) -> None:
    """Refuse outputs that cannot be written, all of them before any is, and the mapping as one of them."""
    for file in files:
        if mapping is not None and file.resolve() == mapping.resolve():
            raise UsageError(f"{file}: this is the mapping, and never written to; choose another name.")
        folder = file.resolve().parent
        if not folder.is_dir():
            raise UsageError(f"{file}: there is no folder {file.parent}; make it first, or choose another place.")


def _run(path: Path, scope: Scope, *, with_digest: bool) -> View | SavedRun:
    """Open a trace, or an analysis that was saved as JSON."""
    from nitro.analyzer.analysis import check_scope
    from nitro.analyzer.evidence import Evidence
    from nitro.analyzer.opening import open_input
    from nitro.analyzer.view import View

    if _is_saved(path):
        from nitro.analyzer.compare.saved import read_saved

        return read_saved(path)
    opened = open_input(path)
    trace = opened.as_trace() if isinstance(opened, Evidence) else opened
    if trace is None:
        raise InputError(
            f"{path}: this is {opened.source.format} data, and compare reads traces and saved analyses alone; leave it "
            "out."
        )
    if with_digest and path.is_file():
        trace = replace(trace, source=replace(trace.source, sha256=shared._digest(path)))
    view = View(trace, scope)
    check_scope(view)
    return view


def _is_saved(path: Path) -> bool:
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


def _mapping(path: Path) -> dict[str, str]:
    """Read which kernels belong together: globs of names before to globs of names after.

    Raises:
        UsageError: the file cannot be read, is not TOML, or has no table [kernels] of texts.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig")).get("kernels")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: this is not TOML ({error}); mend that line.") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); --mapping takes a TOML file.") from None
    example = '"add_kernel*" = "fused_add_*"'
    if not isinstance(table, dict) or not table:
        raise UsageError(f"{path}: a mapping has a table [kernels] with lines such as {example}.")
    for pattern, replacement in table.items():
        if not isinstance(replacement, str):
            raise UsageError(
                f"{path}: {json.dumps(pattern)} in [kernels] must be a text, such as {example}, not {replacement!r}."
            )
    return table


COMMAND = command
