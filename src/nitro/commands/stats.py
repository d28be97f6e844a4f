"""`nitro-analyze stats`: the summary tables of `nsys stats`, number for number."""

from __future__ import annotations

import sys
from pathlib import Path

import click


class _ListsReports(click.Command):
    """Adds the names of the reports to the help; they are only looked up when the help is printed."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from nitro.analyzer.stats import known_reports

        with formatter.section("Reports"):
            formatter.write_dl([(name, report.title) for name, report in known_reports().items()])
        super().format_epilog(ctx, formatter)


@click.command("stats", cls=_ListsReports)
@click.argument("trace", type=click.Path(path_type=Path))
@click.option(
    "-r",
    "--report",
    "reports",
    multiple=True,
    metavar="NAME",
    help="Report to print; may be given several times, or as NAME,NAME. Default: every report.",
)
@click.option(
    "-f",
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="table: for people; csv: as `nsys stats --format csv --timeunit nsec`; json: an array of rows.",
)
def command(trace: Path, reports: tuple[str, ...], form: str) -> None:
    """Print the summary tables of `nsys stats`, with the same rows, order and digits.

    TRACE is an nsys SQLite export, plain or compressed (xz, gz, zst). Times are in ns.

    A report that the trace cannot answer is named on standard error, and the exit code stays 0; as CSV it is then
    the header alone, as JSON an empty array. Several reports are separated by an empty line.
    """
    from nitro.analyzer.stats import find_report, known_reports
    from nitro.commands._inputs import open_trace
    from nitro.reports import stats_text

    names = [name.strip() for given in reports for name in given.split(",")] or list(known_reports())
    chosen = [find_report(name) for name in names]
    opened = open_trace(trace)
    for note in opened.notes:
        click.echo(f"nitro-analyze: {note}", err=True)
    printed = 0
    for report in chosen:
        table = report.table(opened)
        if table.missing is not None:
            # What was printed so far comes first where both streams end in one terminal.
            sys.stdout.flush()
            click.echo(f"report {table.name}: {table.missing}", err=True)
            if form == "table":
                continue
        if printed:
            click.echo()
        printed += 1
        if form == "csv":
            click.echo(stats_text.csv_text(table), nl=False)
        elif form == "json":
            click.echo(stats_text.json_text(table), nl=False)
        else:
            stats_text.print_table(table, sys.stdout)


COMMAND = command
