"""`nitro-analyze redact`: a copy of a trace without private data, for sharing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nitro.errors import UsageError

if TYPE_CHECKING:
    from nitro.analyzer.readers._nsys_redaction import RedactionSummary


@click.command("redact")
@click.argument("trace", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="The copy: .sqlite, or compressed .sqlite.xz, .sqlite.zst, .sqlite.gz.",
)
@click.option(
    "--drop-table",
    "drop_tables",
    metavar="NAME",
    multiple=True,
    help="Leave a table out altogether, such as SAMPLING_CALLCHAINS. May be repeated.",
)
@click.option("--force", is_flag=True, help="Overwrite OUT if it exists.")
def COMMAND(trace: Path, output: Path, drop_tables: tuple[str, ...], force: bool) -> None:  # noqa: N802
    """Write a copy of an nsys SQLite export that is fit for sharing.

    Environment variables, command lines, program output, and the names of hosts, users, processes and paths
    are removed. Kernel names, API names and every number stay, so that the analysis of the copy is the same.
    TRACE is never changed.

    Look through the copy before you publish it: words that only you know to be private, such as the name of a
    project in an NVTX message, cannot be found by rules.
    """
    _refuse_bundle(trace)
    _check_output(trace, output, force)
    from rich.console import Console

    from nitro.analyzer.readers._nsys_redaction import redact

    with Console(stderr=True).status(f"Redacting {trace.name}"):
        summary = redact(trace, output, drop_tables=drop_tables)
    click.echo(_described(trace, output, summary))


def _refuse_bundle(trace: Path) -> None:
    from nitro.analyzer.bundle import MANIFEST, is_bundle

    if is_bundle(trace):
        raise UsageError(
            f"{trace}: this is a capture bundle; redact each of its traces, and look through the other files and the "
            f"{MANIFEST} before you share them, since only nsys exports are redacted."
        )


def _check_output(trace: Path, output: Path, force: bool) -> None:
    if not output.exists():
        return
    if output.is_dir():
        raise UsageError(f"{output}: this is a directory; give the name of a file in it.")
    if trace.exists() and output.samefile(trace):
        raise UsageError(f"{output}: this is the trace itself, which is never changed; give another name.")
    if not force:
        raise UsageError(f"{output}: the file exists; give another name or overwrite it with --force.")


def _described(trace: Path, output: Path, summary: RedactionSummary) -> str:
    """Return what was removed as a table, one line for each table and kind."""
    rows = [(change.table, f"{change.count:,}", change.what) for change in summary.changes]
    if not rows:
        lines = ["Nothing private was found."]
    else:
        rows.insert(0, ("table", "values", "removed or replaced"))
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        lines = [f"{table:<{widths[0]}}  {count:>{widths[1]}}  {what}" for table, count, what in rows]
    lines += ["", f"{output}: {summary.target_bytes:,} bytes ({trace.name}: {summary.source_bytes:,} bytes)"]
    lines += [f"Note: {note}" for note in summary.notes]
    return "\n".join(lines)
