"""What `check`, `baseline` and `trend` share: options, the settings of nitro.toml, and runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nitro.commands._logs import LogOptions, log_gpu_option
from nitro.commands._options import F, Option, part_options, together, window_or_settings_option
from nitro.commands._outputs import check_files
from nitro.commands._runs import SavedFile, runs_in
from nitro.config import CheckSettings, check_settings
from nitro.errors import InputError, UsageError

if TYPE_CHECKING:
    from nitro.analyzer.checks import Run, Store
    from nitro.analyzer.opening import Opened
    from nitro.reports.blocks import Language
    from nitro.reports.report import Report

store_option = click.option(
    "--store",
    "store_folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of the baselines.  [default: .nitro/baselines, or store under [check] in nitro.toml]",
)
budgets_option = click.option(
    "--budgets",
    "budgets_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File with [check] and [[budget]].  [default: nitro.toml, if there is one]",
)
allow_option = click.option(
    "--allow",
    multiple=True,
    metavar="REASON",
    help="Compare in spite of a reason that speaks against it, such as driver; may be repeated.",
)


def _day(_ctx: click.Context, param: click.Parameter, value: str | None) -> date | None:
    if value is None:
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no day; write 2027-01-31.", param=param) from None


def _facts(_ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    told = {}
    for value in values:
        name, sign, text = value.partition("=")
        if not sign or not name.strip() or not text.strip():
            raise click.BadParameter(f"{value!r} is no fact; write precision=bf16.", param=param)
        told[name.strip()] = text.strip()
    return told


def day_option(name: str, text: str) -> Option[F]:
    """Return an option that takes a day."""
    return click.option(name, callback=_day, metavar="YYYY-MM-DD", help=text)


today_option: Option[Any] = day_option("--today", "Judge as on this day.  [default: today, in UTC]")


scope_options: Option[Any] = together(
    window_or_settings_option,
    part_options,
    click.option(
        "--fact",
        "told",
        multiple=True,
        callback=_facts,
        metavar="NAME=TEXT",
        help="What no trace tells, such as precision=bf16: runs whose facts differ are not compared.",
    ),
    log_gpu_option,
)


@dataclass(frozen=True, slots=True)
class Scope:
    """The part of the traces that is looked at: options before nitro.toml before the defaults."""

    window: str
    nvtx: str | None
    batch: int | None
    device_ids: tuple[int, ...] | None
    pids: tuple[int, ...] | None
    told: Mapping[str, str]
    logs: LogOptions


def scope_of(settings: CheckSettings, given: Mapping[str, Any]) -> Scope:
    """Return the scope from the options of `scope_options` and the settings."""
    return Scope(
        window=given["window"] or settings.window or "auto",
        nvtx=given["nvtx"] or settings.nvtx,
        batch=given["batch"] or settings.batch,
        device_ids=given["device_ids"],
        pids=given["pids"],
        told={**settings.told, **given["told"]},
        logs=LogOptions(gpus=given["log_gpus"]),
    )


def settings_of(file: Path | None) -> CheckSettings:
    """Return the settings of `[check]` and the budgets.

    Raises:
        UsageError: the file is wrong, or was named and does not exist.
    """
    return check_settings(file)


def store_of(folder: Path | None, settings: CheckSettings) -> Store:
    """Return the store of the baselines."""
    from nitro.analyzer.checks import DEFAULT_FOLDER, Store

    return Store(folder or settings.store or DEFAULT_FOLDER)


def check_outputs(
    inputs: Sequence[Path], outputs: Sequence[Path], settings: CheckSettings, store_folder: Path | None
) -> None:
    """Refuse what cannot be written, or must not be, before any work is done and any file is there.

    Raises:
        UsageError: one of the outputs is an input, the budgets, a file of the store, or cannot be written.
    """
    check_files(inputs, outputs)
    store = store_of(store_folder, settings).folder
    for file in outputs:
        target = file.resolve()
        if target == Path(settings.file).resolve():
            raise UsageError(f"{file}: this is the file with the budgets; choose another name.")
        if store.resolve() in target.parents:
            raise UsageError(f"{file}: this is in {store}, where the baselines are kept; choose another folder.")


def runs_of(inputs: Sequence[Path], scope: Scope) -> tuple[Run, ...]:
    """Return a run for each trace or saved analysis; a power log belongs to the trace before it.

    Raises:
        InputError: an input cannot be read, or a window holds no GPU work.
        UsageError: a file is given twice, or a part of a saved analysis is asked for.
    """
    found = runs_in(inputs)
    saved = next((run for run in found if isinstance(run, SavedFile)), None)
    if saved is not None and (scope.device_ids, scope.pids) != (None, None):
        raise UsageError(
            f"{saved.path}: --device and --pid choose a part of a trace, and this is a saved analysis; give them when "
            "it is saved."
        )
    scope.logs.check(entry for run in found if not isinstance(run, SavedFile) for entry in run.evidence)
    return tuple(_saved_run(run.path, scope) if isinstance(run, SavedFile) else _run(run, scope) for run in found)


def _saved_run(path: Path, scope: Scope) -> Run:
    from nitro.analyzer.checks import run_of_saved
    from nitro.analyzer.compare.saved import damage_named, read_analysis

    known = read_analysis(path)
    with damage_named(path):
        return run_of_saved(known, batch=scope.batch, told=scope.told)


def _run(opened: Opened, scope: Scope) -> Run:
    from nitro.analyzer import analyze
    from nitro.analyzer.checks import run_of

    options = {name: getattr(scope, name) for name in ("window", "nvtx", "batch", "device_ids", "pids")}
    try:
        analysis = analyze(opened.trace, *scope.logs.applied_to(opened.evidence), **options)
    except UsageError as error:
        # The same options hold for every run of a gate, so what one of them lacks is a fault of that capture.
        raise InputError(f"{opened.paths[0]}: {error}") from None
    # What the manifest of a bundle says of a run is as good as what the user says, who goes first.
    return run_of(opened.trace, analysis, batch=scope.batch, told={**opened.facts, **scope.told})


def today(day: date | None) -> date:
    """Return the day to judge by."""
    return day or datetime.now(timezone.utc).date()


def language(lang: Language | None) -> Language:
    """Return the language of the text."""
    from nitro.reports.language import language_of

    return lang or language_of(os.environ)


def print_report(report: Report, lang: Language | None) -> None:
    """Print a report in a language."""
    import sys

    from nitro.reports.language import translated
    from nitro.reports.renderers import terminal

    terminal.print_report(translated(report, language(lang)), sys.stdout)
