"""`nitro-analyze export`: a trace for other programs, as a Perfetto trace or as Parquet tables."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from nitro.commands._logs import LogOptions, log_options
from nitro.commands._outputs import check_outputs
from nitro.errors import UsageError

if TYPE_CHECKING:
    from nitro.analyzer.opening import Opened


@click.command("export")
@click.argument("inputs", nargs=-1, required=True, metavar="TRACE [EVIDENCE]...", type=click.Path(path_type=Path))
@click.option(
    "--perfetto",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write a trace for ui.perfetto.dev, such as out.pftrace.",
)
@click.option(
    "--parquet",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write every table as Parquet into a new or empty folder, which is an input again.",
)
@log_options
def COMMAND(  # noqa: N802
    inputs: tuple[Path, ...],
    perfetto: Path | None,
    parquet: Path | None,
    logs: LogOptions,
) -> None:
    """Write a trace in a format that other programs open.

    The Perfetto trace has every call, NVTX range, kernel, copy and graph launch, the flows from launch calls to what
    they launched, the idle time of each GPU by cause, sampled metrics, and the power logs given beside the trace.
    The Parquet tables are those that the analysis works on; a README in the folder says what their columns mean.
    """
    _check(inputs, perfetto, parquet)
    from rich.console import Console

    from nitro.commands._inputs import open_inputs

    opened = open_inputs(inputs)
    if len(opened) > 1:
        raise UsageError("export takes one trace and what was recorded beside it; run it once for each trace.")
    one = opened[0]
    one = _exportable(one, inputs, perfetto, logs)
    # What was written is said on stderr, since the trace itself may go to a pipe.
    if perfetto is not None:
        with Console(stderr=True).status(f"Writing {perfetto.name}"):
            said = _export_perfetto(one, perfetto, logs)
        click.echo(said, err=True)
    if parquet is not None:
        from nitro.analyzer.export import write_parquet

        with Console(stderr=True).status(f"Writing {parquet.name}"):
            rows = write_parquet(one.trace, parquet)
        click.echo(f"{parquet}: {len(rows)} tables, {sum(rows.values()):,} rows", err=True)


def _check(inputs: tuple[Path, ...], perfetto: Path | None, parquet: Path | None) -> None:
    """Refuse what cannot be written before any work is done."""
    if perfetto is None and parquet is None:
        raise UsageError("nothing to write: give --perfetto FILE, --parquet DIR, or both.")
    check_outputs(inputs, (), None if perfetto is None else str(perfetto), (parquet,))


def _exportable(one: Opened, inputs: Sequence[Path], perfetto: Path | None, logs: LogOptions) -> Opened:
    """Return the trace and its power logs; what else a bundle holds is left out, what was named is refused."""
    from nitro.analyzer.bundle import is_bundle
    from nitro.analyzer.power_log import PowerLog

    logs.check(one.evidence)
    kept = []
    for entry, path in zip(one.evidence, one.paths[1:], strict=True):
        is_named = path in inputs and not is_bundle(path)
        if is_named and perfetto is None:
            raise UsageError(f"{path}: Parquet holds the tables of the trace alone; leave it out.")
        if is_named and not isinstance(entry, PowerLog):
            raise UsageError(f"{path}: of what lies beside a trace, export writes power logs alone; leave it out.")
        if isinstance(entry, PowerLog):
            kept.append((entry, path))
    return replace(one, evidence=tuple(e for e, _ in kept), paths=(one.paths[0], *(path for _, path in kept)))


def _export_perfetto(one: Opened, file: Path, logs: LogOptions) -> str:
    from nitro.analyzer.export import write_perfetto
    from nitro.analyzer.view import Scope, View

    view = View(one.trace, Scope(window="all"), logs.applied_to(one.evidence), logs.clock_offset_ns)
    with _written(file) as stream:
        written = write_perfetto(view, stream)
    said = f"{file}: {written.slices:,} slices, {written.flows:,} flows, {written.samples:,} samples"
    if written.shift_ns:
        said += f"; its times are {written.shift_ns:,} ns later than those of the trace, which begin before 0"
    return said


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing piece by piece: beside its place, then renamed, so that there is never half a file.

    A device such as `/dev/stdout` cannot be renamed to and is written straight away.
    """
    # A link stays a link: what it points to is replaced.
    target = path.resolve()
    is_device = path.exists() and not path.is_file()
    beside = path if is_device else target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}")
    try:
        try:
            with beside.open("wb" if is_device else "xb") as stream:
                yield stream
            if not is_device:
                os.replace(beside, target)
        finally:
            if not is_device:
                beside.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}); choose another place.") from None
