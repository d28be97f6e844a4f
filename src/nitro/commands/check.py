"""`nitro-analyze check`: traces held against budgets and a baseline, for a continuous integration."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nitro.commands import _checking as shared
from nitro.commands._options import json_option, lang_option
from nitro.commands._runs import files_in
from nitro.config import CheckSettings
from nitro.errors import NitroWarning, UsageError

if TYPE_CHECKING:
    from nitro.analyzer.checks import Budget, Check
    from nitro.reports.blocks import Language

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
_MARK = "<!-- nitro-analyze check -->\n"


@click.command("check")
@click.argument("traces", nargs=-1, required=True, metavar="TRACE...", type=click.Path(path_type=Path))
@shared.budgets_option
@click.option("--baseline", metavar="NAME", help="Hold relative budgets against this baseline.")
@shared.store_option
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write JUnit XML.")
@click.option(
    "--github", is_flag=True, help="Print annotations for GitHub Actions, and add to the summary of the step."
)
@click.option("--markdown", type=click.Path(path_type=Path), metavar="FILE", help="Write Markdown, for a comment.")
@json_option
@click.option(
    "--inconclusive",
    type=click.Choice(["pass", "fail"]),
    help="What becomes of a limit of which the runs cannot tell.  [default: pass, with a warning]",
)
@shared.allow_option
@shared.scope_options
@shared.today_option
@lang_option
def command(
    traces: tuple[Path, ...],
    budgets_file: Path | None,
    baseline: str | None,
    store_folder: Path | None,
    junit: Path | None,
    github: bool,
    markdown: Path | None,
    json_file: str | None,
    inconclusive: str | None,
    allow: tuple[str, ...],
    today: date | None,
    lang: Language | None,
    **scope: Any,
) -> None:
    """Hold traces against budgets, and against a baseline.

    Several traces are repeated runs of the same thing; one run can never show a regression against a baseline. TRACE
    may also be an analysis saved with `-o run.json`, or a folder of runs. A power log, such as that of tegrastats,
    belongs to the trace before it. Budgets stand under [[budget]] in nitro.toml; with --baseline and without budgets,
    the median iteration period may be 2 % worse.

    \b
    Exit code 0: every limit is kept.
    1: one is exceeded, regressed or has expired.
    2: wrong usage, such as a budget for a metric that does not exist.
    3: a trace is broken, or a metric was not measured.
    4: the traces cannot be compared with the baseline.
    """  # noqa: D301 - click looks for the control character itself
    outputs = [file for file in (junit, markdown, Path(json_file) if json_file not in (None, "-") else None) if file]
    settings = shared.settings_of(budgets_file)
    shared.check_outputs(files_in(traces), outputs, settings, store_folder)
    made = _checked(traces, settings, baseline, store_folder, inconclusive, allow, today, scope)
    # The verdict comes first: no file that cannot be written hides it.
    if json_file == "-":
        sys.stdout.buffer.write(_json(made))
        sys.stdout.flush()
    else:
        from nitro.reports.checks.report import check_report

        shared.print_report(check_report(made), lang)
    _write(made, junit, markdown, json_file, lang)
    if github:
        _tell_github(made, settings, lang)
    sys.exit(made.exit_code)


def _checked(
    traces: Sequence[Path],
    settings: CheckSettings,
    baseline: str | None,
    store_folder: Path | None,
    inconclusive: str | None,
    allow: tuple[str, ...],
    today: date | None,
    scope: dict[str, Any],
) -> Check:
    from nitro.analyzer.checks import check, default_budgets

    name = baseline or settings.baseline
    budgets = _budgets(settings, has_baseline=name is not None)
    # What was written down wrong is found before any trace is read.
    held_against = shared.store_of(store_folder, settings).read(name) if name is not None else None
    runs = shared.runs_of(traces, shared.scope_of(settings, scope))
    return check(
        runs,
        budgets or default_budgets(runs),
        day=shared.today(today),
        baseline=held_against,
        inconclusive=inconclusive or settings.inconclusive or "pass",  # type: ignore[arg-type]
        allow=(*settings.allow, *allow),
    )


def _budgets(settings: CheckSettings, *, has_baseline: bool) -> tuple[Budget, ...]:
    """Return the budgets, none where those by default are meant."""
    from nitro.analyzer.checks import budgets_of

    if not settings.budgets and not has_baseline:
        raise UsageError(
            f"{settings.file} has no budget and no baseline is named, so nothing can be checked; write [[budget]] "
            "tables, or name a baseline with --baseline."
        )
    return budgets_of(settings.budgets, settings.file, settings.lines)


def _json(made: Check) -> bytes:
    return (json.dumps(made.to_dict(), ensure_ascii=False, indent=2) + "\n").encode(errors="replace")


def _markdown(made: Check, lang: Language | None) -> bytes:
    from nitro.reports.checks.report import check_report
    from nitro.reports.language import translated
    from nitro.reports.renderers import markdown

    return (_MARK + markdown.draw(translated(check_report(made), shared.language(lang)))).encode(errors="replace")


def _write(
    made: Check, junit: Path | None, markdown: Path | None, json_file: str | None, lang: Language | None
) -> None:
    from nitro.reports import output
    from nitro.reports.checks import junit as junit_xml

    if junit is not None:
        output.write_file(junit, junit_xml.draw(made))
    if markdown is not None:
        output.write_file(markdown, _markdown(made, lang))
    if json_file not in (None, "-"):
        output.write_file(Path(str(json_file)), _json(made))


def _tell_github(made: Check, settings: CheckSettings, lang: Language | None) -> None:
    """Print annotations, and add the report to the summary of the step where GitHub names its file.

    Annotations go to standard error where standard output is taken by JSON; GitHub reads both. A summary that cannot be
    written changes nothing about the verdict.
    """
    from nitro.reports.checks import github

    to_stderr = click.get_current_context().params["json_file"] == "-"
    for line in github.draw(made, Path(settings.file).as_posix()):
        click.echo(line, err=to_stderr)
    summary = os.environ.get(SUMMARY_VARIABLE)
    if summary:
        try:
            with open(summary, "ab") as stream:
                stream.write(_markdown(made, lang))
        except OSError as error:
            text = f"{summary}: the summary cannot be written ({error.strerror}); unset {SUMMARY_VARIABLE}."
            warnings.warn(NitroWarning(text), stacklevel=2)


COMMAND = command
