"""Opening of what a command is given: files, capture bundles, and reports of nsys, which an installed nsys exports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nitro.analyzer import Trace
    from nitro.analyzer.opening import Opened


def open_inputs(paths: Sequence[str | Path]) -> tuple[Opened, ...]:
    """Return the traces among several inputs, each with the evidence beside it; see `nitro.analyzer.open_inputs`.

    Raises:
        nitro.errors.InputError: an input cannot be read, or none of them is a trace.
        nitro.errors.ToolError: an input is a report of nsys, and no nsys can export it.
        nitro.errors.UsageError: a file is given twice.
    """
    from nitro.analyzer import opening

    return opening.open_inputs(paths, _exported)


def open_trace(path: str | Path) -> Trace:
    """Return the trace in a file; see `nitro.analyzer.open_trace`, and `open_inputs` for what it raises."""
    from nitro.analyzer import opening

    return opening.open_trace(path, _exported)


def _exported(report: Path, folder: Path) -> tuple[Path, str]:
    from rich.console import Console

    from nitro.collectors import nsys

    with Console(stderr=True).status(f"Exporting {report.name} with nsys"):
        return nsys.export_sqlite(report, folder)
