"""`nitro-analyze TRACE...`: the overview of a trace, and its numbers as files."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nitro.commands._logs import LogOptions, log_options
from nitro.commands._options import part_options, time_ns, window_option
from nitro.commands._reports import ReportOptions, report_options
from nitro.errors import UsageError

if TYPE_CHECKING:
    from nitro.analyzer import Analysis, Source
    from nitro.reports.output import Settings
    from nitro.reports.renderers.svg import Drawer


@click.command("analyze")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=click.Path(path_type=Path))
@report_options
@window_option
@click.option(
    "--since",
    "since_ns",
    callback=time_ns,
    metavar="TIME",
    help="Start of the window since session start, as 1.5s or 200ms.",
)
@click.option("--until", "until_ns", callback=time_ns, metavar="TIME", help="End of the window.")
@part_options
@log_options
def command(inputs: tuple[Path, ...], wanted: ReportOptions, logs: LogOptions, **scope: Any) -> None:
    """Show where the time and the energy of a run went.

    INPUT is a trace (an nsys SQLite export, plain or compressed: xz, gz, zst) or what another tool recorded of the same
    run, such as a tegrastats log: it is placed on the clock of the trace before it, or of the only one. What a file is,
    its content tells. Several traces give one report with a chapter for each. Title, author, lang, paper and template
    may also stand under [report] in nitro.toml.
    """
    with ExitStack() as stack:
        # What draws for paper starts first, and gets ready while the rest is imported and analysed.
        drawer = wanted.drawer()
        if drawer is not None:
            stack.enter_context(drawer)
        wanted.check(inputs)
        settings = wanted.settings()
        if drawer is not None and wanted.is_printed:
            drawer.press.get_ready()
        _write(_analyses(inputs, wanted, logs, scope), wanted, settings, drawer)


def _analyses(
    inputs: Sequence[Path], wanted: ReportOptions, logs: LogOptions, scope: Mapping[str, Any]
) -> list[Analysis]:
    """Return the analysis of each trace among the inputs, with the digests of its files where it is to be written."""
    from nitro.analyzer import analyze
    from nitro.commands._inputs import open_inputs
    from nitro.reports import output

    opened = open_inputs(inputs)
    logs.check(entry for one in opened for entry in one.evidence)
    if len(opened) > 1 and (wanted.json_file or wanted.csv_dir or ".json" in wanted.suffixes):
        raise UsageError("JSON and CSV take one trace; run them once for each trace.")
    with_timeline = bool(wanted.assets) or any(suffix in output.FORMATS for suffix in wanted.suffixes)
    analyses = [
        analyze(
            one.trace,
            *logs.applied_to(one.evidence),
            clock_offset_ns=logs.clock_offset_ns,
            with_timeline=with_timeline,
            **scope,
        )
        for one in opened
    ]
    if not wanted.outputs and wanted.json_file is None:
        return analyses
    return [_with_digest(analysis, one.paths) for analysis, one in zip(analyses, opened, strict=True)]


def _write(analyses: Sequence[Analysis], wanted: ReportOptions, settings: Settings, drawer: Drawer | None) -> None:
    """Write every output, then what belongs on standard output."""
    from nitro.reports import output

    made = output.Documents(analyses, settings, drawer)
    if wanted.is_printed:
        made.begin_pdf()
    overview = "" if wanted.is_json_alone else output.overview(analyses, sys.stdout, settings.language)
    for file, suffix in zip(wanted.outputs, wanted.suffixes, strict=True):
        draw = output.FORMATS.get(suffix)
        output.write_file(file, draw(made) if draw is not None else output.json_bytes(analyses[0]))
    if wanted.named_json is not None:
        output.write_file(wanted.named_json, output.json_bytes(analyses[0]))
    if wanted.csv_dir is not None:
        output.write_csv(wanted.csv_dir, analyses[0])
    if wanted.assets is not None:
        made.write_assets(wanted.assets)
    # Printed last: who reads only the head of it, as in `| head`, ends this program.
    if wanted.is_json_alone:
        sys.stdout.buffer.write(output.json_bytes(analyses[0]))
    else:
        sys.stdout.write(overview)


def _with_digest(analysis: Analysis, paths: tuple[Path, ...]) -> Analysis:
    """Return the analysis with the digests of its files: the trace's first, then those of the evidence."""
    trace, *beside = paths
    evidence = tuple(
        replace(placed, evidence=replace(placed.evidence, source=_digested(placed.evidence.source, path)))
        for placed, path in zip(analysis.evidence, beside, strict=True)
    )
    return replace(analysis, source=_digested(analysis.source, trace), evidence=evidence)


def _digested(source: Source, path: Path) -> Source:
    # Of what came out of a bundle the digest is known, and the path may be that of the whole archive.
    is_known = source.sha256 is not None or path.is_dir()
    return source if is_known else replace(source, sha256=_digest(path))


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        if sys.version_info >= (3, 11):
            return hashlib.file_digest(stream, "sha256").hexdigest()
        digest = hashlib.sha256()
        while part := stream.read(1 << 20):
            digest.update(part)
        return digest.hexdigest()


COMMAND = command
