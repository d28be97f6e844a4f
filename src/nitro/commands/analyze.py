"""`nitro-analyze TRACE...`: the overview of a trace, and its numbers as files."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from nitro.errors import UsageError

_TIME = re.compile(r"^\s*(-?\d+(?:\.\d+)?)\s*(s|ms|us|µs|ns)?\s*$")
_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "µs": 10**3, "ns": 1, None: 10**9}


def _time_ns(_ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Read a time since session start, such as `1.5s`, `200ms` or `3` (seconds), as ns."""
    if value is None:
        return None
    match = _TIME.match(value)
    if not match:
        raise click.BadParameter(f"{value!r} is no time; write 1.5s, 200ms, 30us or 1200ns.", param=param)
    number, unit = match.groups()
    return round(float(number) * _NS[unit]) if "." in number else int(number) * _NS[unit]


@click.command("analyze")
@click.argument("traces", nargs=-1, required=True, metavar="TRACE...", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the result as .json or .md, by suffix; may be given several times.",
)
@click.option("--json", "json_file", metavar="FILE", help="Write JSON to FILE, or to standard output with '-'.")
@click.option("--csv", "csv_dir", type=click.Path(path_type=Path), metavar="DIR", help="Write every table as CSV.")
@click.option(
    "--window",
    type=click.Choice(["auto", "all"]),
    default="auto",
    show_default=True,
    help="auto: the repeated iterations without warm-up; all: first to last GPU operation.",
)
@click.option(
    "--since", callback=_time_ns, metavar="TIME", help="Start of the window since session start, as 1.5s or 200ms."
)
@click.option("--until", callback=_time_ns, metavar="TIME", help="End of the window.")
@click.option("--nvtx", metavar="NAME", help="NVTX ranges that are the iterations; * matches anything.")
@click.option("--device", "devices", multiple=True, type=int, help="Look at this GPU only; may be repeated.")
@click.option("--pid", "pids", multiple=True, type=int, help="Look at this process only; may be repeated.")
@click.option("--batch", type=click.IntRange(min=1), help="Items per iteration, for the throughput.")
def command(
    traces: tuple[Path, ...],
    outputs: tuple[Path, ...],
    json_file: str | None,
    csv_dir: Path | None,
    window: str,
    since: int | None,
    until: int | None,
    nvtx: str | None,
    devices: tuple[int, ...],
    pids: tuple[int, ...],
    batch: int | None,
) -> None:
    """Show where the time of a trace went.

    TRACE is an nsys SQLite export, plain or compressed (xz, gz, zst).
    """
    from nitro.analyzer import analyze, open_trace

    _check_outputs(traces, outputs, json_file, csv_dir)
    for number, path in enumerate(traces):
        analysis = analyze(
            open_trace(path),
            window=window,
            since_ns=since,
            until_ns=until,
            nvtx=nvtx,
            device_ids=devices or None,
            pids=pids or None,
            batch=batch,
        )
        from nitro.reports import output

        if json_file == "-":
            sys.stdout.buffer.write(output.json_bytes(analysis))
        else:
            if number:
                click.echo()
            output.print_overview(analysis, sys.stdout)
            if json_file is not None:
                output.write_file(Path(json_file), output.json_bytes(analysis))
        for file in outputs:
            output.write_file(file, output.FORMATS[file.suffix.lower()](analysis))
        if csv_dir is not None:
            output.write_csv(csv_dir, analysis)


def _check_outputs(
    traces: tuple[Path, ...], outputs: tuple[Path, ...], json_file: str | None, csv_dir: Path | None
) -> None:
    known = {".json", ".md"}
    for file in outputs:
        if file.suffix.lower() not in known:
            raise UsageError(f"{file}: cannot tell the format from the suffix; use {' or '.join(sorted(known))}.")
    files = [*outputs, *([Path(json_file)] if json_file not in (None, "-") else [])]
    if len(traces) > 1 and (files or csv_dir):
        raise UsageError("-o, --json FILE and --csv take one trace; run them once for each trace.")
    for file in files:
        if any(file.resolve() == trace.resolve() for trace in traces):
            raise UsageError(f"{file}: this is the trace itself, which is never written to; choose another name.")


COMMAND = command
