"""`nitro-analyze TRACE...`: the overview of a trace, and its numbers as files."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nitro.commands._options import log_options, part_options, report_options, time_ns, window_option
from nitro.commands._outputs import check_outputs, suffix_of
from nitro.errors import UsageError

if TYPE_CHECKING:
    from nitro.analyzer import Analysis, Evidence, Source
    from nitro.reports.blocks import Language
    from nitro.reports.output import Paper, Settings

PAPERS = ("a4", "letter")


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
def command(
    inputs: tuple[Path, ...],
    outputs: tuple[Path, ...],
    json_file: str | None,
    csv_dir: Path | None,
    lang: Language | None,
    title: str | None,
    author: str | None,
    paper: Paper | None,
    template: Path | None,
    assets: Path | None,
    log_interval_ns: int | None,
    **scope: Any,
) -> None:
    """Show where the time and the energy of a run went.

    INPUT is a trace (an nsys SQLite export, plain or compressed: xz, gz, zst) or what another tool recorded of the same
    run, such as a tegrastats log: it is placed on the clock of the trace before it, or of the only one. What a file is,
    its content tells. Several traces give one report with a chapter for each. Title, author, lang, paper and template
    may also stand under [report] in nitro.toml.
    """
    from nitro.reports.renderers.svg import Drawer

    is_printed = ".pdf" in map(suffix_of, outputs)
    with ExitStack() as stack:
        # What draws for paper takes a second to start, and may do so while the rest is imported and analysed.
        drawer = stack.enter_context(Drawer()) if assets or is_printed else None
        from nitro.analyzer import analyze
        from nitro.commands._inputs import open_inputs
        from nitro.reports import output

        check_outputs(inputs, outputs, json_file, (csv_dir, assets))
        settings = _settings(lang, title, author, paper, template)
        if drawer is not None and is_printed:
            drawer.press.get_ready()
        documents = [file for file in outputs if suffix_of(file) in output.FORMATS]
        opened = open_inputs(inputs)
        if not any(one.evidence for one in opened) and (log_interval_ns, scope["clock_offset_ns"]) != (None, None):
            raise UsageError("--clock-offset and --log-interval are about a log beside the trace; give one too.")
        if len(opened) > 1 and (json_file or csv_dir or ".json" in map(suffix_of, outputs)):
            raise UsageError("JSON and CSV take one trace; run them once for each trace.")
        analyses = [
            analyze(
                one.trace, *_spaced(one.evidence, log_interval_ns), with_timeline=bool(documents or assets), **scope
            )
            for one in opened
        ]
        if outputs or json_file is not None:
            analyses = [_with_digest(analysis, one.paths) for analysis, one in zip(analyses, opened, strict=True)]
        made = output.Documents(analyses, settings, drawer)
        if is_printed:
            made.begin_pdf()
        overview = "" if json_file == "-" else output.overview(analyses, sys.stdout, settings.language)
        for file in outputs:
            draw = output.FORMATS.get(suffix_of(file))
            output.write_file(file, draw(made) if draw is not None else output.json_bytes(analyses[0]))
        if json_file is not None and json_file != "-":
            output.write_file(Path(json_file), output.json_bytes(analyses[0]))
        if csv_dir is not None:
            output.write_csv(csv_dir, analyses[0])
        if assets is not None:
            made.write_assets(assets)
        # Printed last: who reads only the head of it, as in `| head`, ends this program.
        if json_file == "-":
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


def _spaced(evidence: tuple[Evidence, ...], interval_ns: int | None) -> tuple[Evidence, ...]:
    """Return the evidence, with so much time between the records of logs that carry none."""
    from nitro.analyzer.power_log import PowerLog

    if interval_ns is None:
        return evidence
    if interval_ns <= 0:
        raise UsageError("--log-interval must be longer than nothing; give it as 100ms or 1s.")
    return tuple(entry.respaced(interval_ns) if isinstance(entry, PowerLog) else entry for entry in evidence)


def _settings(
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
