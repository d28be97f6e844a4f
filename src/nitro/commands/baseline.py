"""`nitro-analyze baseline`: what later runs are held against, kept in a folder that lives in Git."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nitro.commands import _checking as shared
from nitro.commands._options import lang_option
from nitro.config import CheckSettings
from nitro.errors import InputError, NitroError, UsageError

if TYPE_CHECKING:
    from nitro.analyzer.checks import Baseline, Entry, Run, Store
    from nitro.analyzer.checks.baselines import Kind
    from nitro.reports.blocks import Language

_traces = click.argument("traces", nargs=-1, required=True, metavar="TRACE...", type=click.Path(path_type=Path))
_name = click.argument("name")
_label = click.option("--label", default="", metavar="TEXT", help="What the runs are of, such as a commit.")
_owner = click.option("--owner", default="", metavar="TEXT", help="Who answers for the entry.")


@click.group("baseline")
def group() -> None:
    """Keep what later runs are held against.

    A baseline is a folder of JSON files, one an entry, under .nitro/baselines. Commit it. Entries are only added, so
    that the history shows how the numbers came about.
    """


@group.command("save")
@_name
@_traces
@click.option("--reason", default="", metavar="TEXT", help="Why this is the baseline.")
@_owner
@_label
@shared.store_option
@shared.budgets_option
@shared.allow_option
@shared.scope_options
@shared.today_option
def save(name: str, traces: tuple[Path, ...], **options: Any) -> None:
    """Begin a baseline with repeated runs, best at least 5."""
    settings = shared.settings_of(options["budgets_file"])
    store = shared.store_of(options["store_folder"], settings)
    if store.has(name):
        raise UsageError(
            f"{store.folder}: there is a baseline called {name!r} already; move it on with `nitro-analyze baseline "
            f"update {name} TRACE...`, or choose another name."
        )
    runs = _runs(traces, settings, options)
    _add(store, name, _entry(1, "save", runs, options))


@group.command("update")
@_name
@_traces
@click.option("--reason", default="", metavar="TEXT", help="Why the baseline moves on.")
@click.option("--history-only", is_flag=True, help="Keep the runs for `trend` alone; the reference stays.")
@click.option(
    "--inconclusive",
    type=click.Choice(["pass", "fail"]),
    default="fail",
    show_default=True,
    help="pass: move on although the runs cannot tell, or to one run.",
)
@_owner
@_label
@shared.store_option
@shared.budgets_option
@shared.allow_option
@shared.scope_options
@shared.today_option
@lang_option
def update(name: str, traces: tuple[Path, ...], **options: Any) -> None:
    """Move a baseline on to new runs, if they keep every relative budget against it.

    Where they do not, or where the runs cannot tell, nothing is written and the exit code is that of `check`;
    `baseline accept` takes them all the same.
    """
    settings = shared.settings_of(options["budgets_file"])
    store = shared.store_of(options["store_folder"], settings)
    baseline = store.read(name)
    runs = _runs(traces, settings, options)
    kind: Kind = "record" if options["history_only"] else "update"
    if kind == "update":
        _refuse_worse(baseline, runs, settings, options)
    else:
        _refuse_others(baseline, runs, shared.today(options["today"]), (*settings.allow, *options["allow"]))
        _refuse_known(baseline, runs)
    _add(store, name, _entry(baseline.next_number, kind, runs, options))


@group.command("accept")
@_name
@_traces
@click.option("--reason", required=True, metavar="TEXT", help="Why it may be worse.")
@shared.day_option(
    "--expires", "Day from which on it counts no longer, and the entry before it is the reference again."
)
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Accept this metric alone; may be repeated.")
@_owner
@_label
@shared.store_option
@shared.budgets_option
@shared.allow_option
@shared.scope_options
@shared.today_option
def accept(name: str, traces: tuple[Path, ...], **options: Any) -> None:
    """Take runs as the reference although they are worse, for a reason."""
    if not options["reason"].strip():
        raise UsageError("--reason is empty; say why the change is accepted, for whoever asks in a year.")
    day, expires = shared.today(options["today"]), options["expires"]
    if expires is not None and expires <= day:
        raise UsageError(f"--expires {expires} is not after {day}, so the acceptance would never count.")
    _check_metrics(options["metrics"])
    settings = shared.settings_of(options["budgets_file"])
    store = shared.store_of(options["store_folder"], settings)
    baseline = store.read(name)
    runs = _runs(traces, settings, options)
    _refuse_others(baseline, runs, day, (*settings.allow, *options["allow"]))
    entry = _entry(baseline.next_number, "accept", runs, options)
    _add(store, name, replace(entry, expires=expires, metrics=tuple(options["metrics"])))


@group.command("list")
@shared.store_option
@shared.budgets_option
@shared.today_option
def list_(store_folder: Path | None, budgets_file: Path | None, today: date | None) -> None:
    """List the baselines, each with the entry that runs are held against.

    Exit code 3: one of them is damaged. The others are listed all the same.
    """
    store = shared.store_of(store_folder, shared.settings_of(budgets_file))
    names = store.names()
    if not names:
        click.echo(f"{store.folder}: no baseline yet; save one with `nitro-analyze baseline save main TRACE...`.")
        return
    width = max(map(len, names))
    lines = [_line(store, name, shared.today(today)) for name in names]
    for name, line in zip(names, lines, strict=True):
        click.echo(f"{name:<{width}}  {line or 'damaged'}")
    if not all(lines):
        sys.exit(InputError.exit_code)


def _line(store: Store, name: str, day: date) -> str:
    """Return what `list` says of a baseline; where it is damaged, say so on standard error and return nothing."""
    try:
        return _reference_text(store.read(name), day)
    except NitroError as error:
        click.echo(f"nitro-analyze: {error}", err=True)
        return ""


def _reference_text(baseline: Baseline, day: date) -> str:
    """Return which entry of a baseline is the reference on a day, and how many came after it without becoming one."""
    entry = baseline.reference("", day)
    gpu = ", ".join(dict.fromkeys(device.name for run in entry.runs for device in run.facts.devices))
    runs = f"{len(entry.runs)} run" + ("s" if len(entry.runs) > 1 else "")
    later = [each for each in baseline.entries if each.number > entry.number]
    text = f"entry {entry.number} ({entry.kind}) of {entry.day}, {runs}, {gpu}"
    for each in later:
        if each.metrics and not each.is_expired(day):
            text += f"; for {', '.join(each.metrics)} entry {each.number} ({each.kind})"
    others = sum(not each.metrics or each.is_expired(day) for each in later)
    return text + (f"; {others} later that {'are' if others > 1 else 'is'} no reference" if others else "")


@group.command("show")
@_name
@click.option("--json", "as_json", is_flag=True, help="Print the newest entry as it is stored.")
@shared.store_option
@shared.budgets_option
@lang_option
def show(name: str, as_json: bool, store_folder: Path | None, budgets_file: Path | None, lang: Language | None) -> None:
    """Show the history of a baseline."""
    from nitro.analyzer.checks import entry_bytes
    from nitro.reports.checks.report import baseline_report

    baseline = shared.store_of(store_folder, shared.settings_of(budgets_file)).read(name)
    if as_json:
        sys.stdout.buffer.write(entry_bytes(baseline.entries[-1]))
    else:
        shared.print_report(baseline_report(baseline), lang)


def _runs(traces: Sequence[Path], settings: CheckSettings, options: dict[str, Any]) -> tuple[Run, ...]:
    """Return the runs, which must be fit to be repetitions of each other."""
    from nitro.analyzer.checks.facts import check_allowed, reasons_among, refusals

    allow = (*settings.allow, *options["allow"])
    check_allowed(allow)
    runs = shared.runs_of(traces, shared.scope_of(settings, options))
    _raise_for(refusals(reasons_among(runs), allow), "the traces are no repetitions of one run")
    return runs


def _refuse_others(baseline: Baseline, runs: tuple[Run, ...], day: date, allow: tuple[str, ...]) -> None:
    from nitro.analyzer.checks.facts import reasons_between, refusals

    reference = baseline.reference("", day)
    refused = refusals(reasons_between(reference.runs, runs), allow)
    _raise_for(refused, f"the traces cannot be compared with the baseline {baseline.name}")


def _refuse_known(baseline: Baseline, runs: tuple[Run, ...]) -> None:
    """Refuse captures that the history has: counted twice, they would feign a level of their own."""
    entries = {run.fingerprint: entry.number for entry in baseline.entries for run in entry.runs}
    for run in runs:
        if run.fingerprint in entries:
            raise UsageError(
                f"{run.file_name}: this capture is in entry {entries[run.fingerprint]} of {baseline.name} already; "
                "name only new ones."
            )


def _raise_for(refused: Sequence[Any], what: str) -> None:
    from nitro.analyzer.compare import NotComparable

    if refused:
        keys = " ".join(f"--allow {key}" for key in dict.fromkeys(reason.key for reason in refused))
        texts = "; ".join(reason.text for reason in refused)
        raise NotComparable(f"{what}: {texts}. Record them alike, or go on all the same with {keys}.")


def _refuse_worse(baseline: Baseline, runs: tuple[Run, ...], settings: CheckSettings, options: dict[str, Any]) -> None:
    """Print the check and leave with its exit code where the runs do not keep the budgets against the baseline.

    What `check` lets pass because the runs cannot tell is a warning of one day; a reference that moved stays. So the
    settings of the file and of budgets about it do not count here.
    """
    from nitro.analyzer.checks import budgets_of, check, default_budgets
    from nitro.reports.checks.report import check_report

    if len(runs) == 1 and options["inconclusive"] == "fail":
        raise UsageError(
            f"one run cannot tell whether it is as good as the baseline {baseline.name}; record at least 5 runs, keep "
            "it for `trend` with --history-only, or move on all the same with --inconclusive pass."
        )
    every = budgets_of(settings.budgets, settings.file, settings.lines)
    relative = tuple(
        replace(budget, maximum=None, minimum=None, inconclusive=None)
        for budget in every
        if budget.max_regression is not None
    )
    made = check(
        runs,
        relative or default_budgets(runs),
        day=shared.today(options["today"]),
        baseline=baseline,
        inconclusive=options["inconclusive"],
        allow=(*settings.allow, *options["allow"]),
    )
    if made.exit_code:
        shared.print_report(check_report(made), options["lang"])
        click.echo(
            f"nitro-analyze: {baseline.name} stays as it was; take these runs all the same with `nitro-analyze "
            f"baseline accept {baseline.name} TRACE... --reason TEXT`.",
            err=True,
        )
        sys.exit(made.exit_code)


def _check_metrics(metrics: Sequence[str]) -> None:
    from nitro.analyzer.checks.gauges import gauge_of, gauges

    for name in metrics:
        if name not in gauges(of_phase=True):
            try:
                gauge_of(name, of_phase=False)
            except ValueError as error:
                text = f"--metric: {error}"
                raise UsageError(text + ("" if text.endswith(("?", ".")) else ".")) from None


def _entry(number: int, kind: Kind, runs: tuple[Run, ...], options: dict[str, Any]) -> Entry:
    from nitro.analyzer.checks import Entry

    texts = {name: options[name].strip() for name in ("reason", "owner", "label")}
    return Entry(number=number, kind=kind, day=shared.today(options["today"]), runs=runs, **texts)


def _add(store: Store, name: str, entry: Entry) -> None:
    from nitro.analyzer.checks import entry_bytes
    from nitro.reports import output

    file = store.path_of(name, entry)
    content = entry_bytes(entry)
    output.make_folder(file.parent)
    output.write_file(file, content)
    runs = f"{len(entry.runs)} run" + ("s" if len(entry.runs) > 1 else "")
    click.echo(f"{file}: entry {entry.number} of {name}, {runs}, {len(content):,} bytes. Commit it.")
    if len(entry.runs) == 1:
        click.echo(
            "One run does not tell how much runs differ by themselves, so every verdict against it will be "
            "inconclusive; 5 runs make a baseline."
        )


COMMAND = group
