"""`nitro-analyze compare`: two sides of one or several runs, the change between them explained and judged."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nitro.commands._logs import LogOptions, log_options
from nitro.commands._options import part_options, window_option
from nitro.commands._reports import ReportOptions, report_options
from nitro.commands._runs import SavedFile, digested, files_in, runs_in
from nitro.errors import UsageError

if TYPE_CHECKING:
    from nitro.analyzer.compare import Comparison, SavedRun
    from nitro.analyzer.opening import Opened
    from nitro.analyzer.view import Scope, View
    from nitro.reports.output import Settings
    from nitro.reports.renderers.svg import Drawer

_SIDES = ("--before", "--after")


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
    metavar="RUN...",
    help="The runs before the change.",
)
@click.option(
    "--after",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    metavar="RUN...",
    help="The runs after it.",
)
@report_options
@window_option
@part_options
@log_options
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
    wanted: ReportOptions,
    mapping: Path | None,
    allow: tuple[str, ...],
    threshold: float,
    is_paired: bool,
    logs: LogOptions,
    **scope: Any,
) -> None:
    """Compare two sides: where the change came from, exactly, and whether it is real.

    RUN is an nsys SQLite export, plain or compressed (xz, gz, zst), or an analysis saved with `-o run.json`, which
    gives the waterfall and the verdict but kernels by name alone; or a folder of such files. A power log behind a trace
    is of the same run, and gives its energy. Name several runs a side where you have them: one run does not tell how
    much runs differ by themselves. Exit code 4: the sides cannot be compared.

    \b
    nitro-analyze compare --before eager*.sqlite --after graph*.sqlite -o report.html
    nitro-analyze compare --before a.sqlite a_power.csv --after b.sqlite b_power.csv
    """  # noqa: D301 - click wants the character itself
    with ExitStack() as stack:
        # What draws for paper starts first, and gets ready while the rest is imported and compared.
        drawer = wanted.drawer()
        if drawer is not None:
            stack.enter_context(drawer)
        sides = (*before, *after)
        wanted.check((*sides, *files_in(sides)), mapping)
        settings = wanted.settings()
        kernels = None if mapping is None else _mapping(mapping)
        if drawer is not None and wanted.is_printed:
            drawer.press.get_ready()
        is_written = bool(wanted.outputs or wanted.json_file)
        judged = {"mapping": kernels, "threshold": threshold, "allow": allow, "is_paired": is_paired}
        made = _compared((before, after), scope, logs, with_digests=is_written, **judged)
        _write(made, wanted, settings, drawer)


def _compared(
    sides: Sequence[Sequence[Path]],
    scope: Mapping[str, Any],
    logs: LogOptions,
    *,
    with_digests: bool,
    **judged: Any,
) -> Comparison:
    """Return the comparison of two sides; `judged` is how they are held against each other, as `compare` takes it."""
    from rich.console import Console

    from nitro.analyzer.compare import compare
    from nitro.analyzer.view import Scope

    wanted = Scope(**scope)
    with Console(stderr=True).status("Comparing"):
        given = [runs_in(side) for side in sides]
        _check_logs(given, logs)
        _check_parts(given, wanted)
        before, after = ([_run(run, wanted, logs, with_digest=with_digests) for run in side] for side in given)
        return compare(before, after, **judged)


def _write(made: Comparison, wanted: ReportOptions, settings: Settings, drawer: Drawer | None) -> None:
    """Write every output, then what belongs on standard output."""
    from nitro.reports import comparison as report
    from nitro.reports import output

    documents = report.ComparisonDocuments(made, settings, drawer)
    # Everything is drawn before anything is written: where one output cannot be drawn, none is there.
    drawn = [
        output.FORMATS[suffix](documents) if suffix in output.FORMATS else report.comparison_json(made)
        for suffix in wanted.suffixes
    ]
    for file, content in zip(wanted.outputs, drawn, strict=True):
        output.write_file(file, content)
    if wanted.named_json is not None:
        output.write_file(wanted.named_json, report.comparison_json(made))
    if wanted.assets is not None:
        documents.write_assets(wanted.assets)
    if wanted.csv_dir is not None:
        report.write_comparison_csv(wanted.csv_dir, made)
    # Printed last: who reads only the head of it, as in `| head`, ends this program.
    if wanted.is_json_alone:
        sys.stdout.buffer.write(report.comparison_json(made))
    else:
        report.print_comparison(made, sys.stdout, settings.language)


def _check_logs(sides: Sequence[Sequence[Opened | SavedFile]], logs: LogOptions) -> None:
    logs.check(entry for side in sides for run in side if not isinstance(run, SavedFile) for entry in run.evidence)


def _check_parts(sides: Sequence[Sequence[Opened | SavedFile]], scope: Scope) -> None:
    saved = next((run for side in sides for run in side if isinstance(run, SavedFile)), None)
    if saved is not None and (scope.nvtx, scope.device_ids, scope.pids) != (None, None, None):
        raise UsageError(
            f"{saved.path}: --nvtx, --device and --pid choose a part of a trace, and this is a saved analysis; give "
            "them when it is saved."
        )


def _run(run: Opened | SavedFile, scope: Scope, logs: LogOptions, *, with_digest: bool) -> View | SavedRun:
    """Return a run as it is compared: a trace seen through its window, or a saved analysis."""
    from nitro.analyzer.analysis import check_scope
    from nitro.analyzer.compare import read_saved
    from nitro.analyzer.view import View

    if isinstance(run, SavedFile):
        return read_saved(run.path)
    opened = digested(run) if with_digest else run
    view = View(opened.trace, scope, logs.applied_to(opened.evidence), logs.clock_offset_ns)
    check_scope(view)
    return view


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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
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
