"""An analysis as files and on the terminal: one function a form."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec

from nitro.analyzer import Analysis
from nitro.errors import UsageError

from .report import build_report


def json_bytes(analysis: Analysis) -> bytes:
    """Return the documented JSON of an analysis, indented, with a line end."""
    return msgspec.json.format(msgspec.json.encode(analysis.to_dict(), enc_hook=str), indent=2) + b"\n"


def markdown_bytes(analysis: Analysis) -> bytes:
    """Return the report as Markdown."""
    from .renderers import markdown

    return markdown.draw(build_report(analysis)).encode()


FORMATS: dict[str, Callable[[Analysis], bytes]] = {".json": json_bytes, ".md": markdown_bytes}


def print_overview(analysis: Analysis, stream: IO[str]) -> None:
    """Print the report to a terminal or a pipe."""
    from .renderers import terminal

    terminal.print_report(build_report(analysis), stream)


def write_file(path: Path, content: bytes) -> None:
    """Write a named output.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}); choose another place.") from None


def write_csv(folder: Path, analysis: Analysis) -> None:
    """Write the measurements and every table as CSV into a folder, which is made if it does not exist.

    Files are named after the table, with the device where several have the same table.

    Raises:
        UsageError: the folder cannot be written.
    """
    names = [table.name for table in analysis.tables]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "measurements.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("metric", "device_id", "by", "value", "unit", "count"))
            for entry in analysis.measurements:
                writer.writerow((entry.metric, entry.device_id, entry.by, entry.value, entry.unit, entry.count))
        for table in analysis.tables:
            suffix = f"_gpu{table.device_id}" if names.count(table.name) > 1 else ""
            table.frame.write_csv(folder / f"{table.name}{suffix}.csv")
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror}); choose another folder.") from None
