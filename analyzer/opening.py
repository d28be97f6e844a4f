"""`open_trace`: find the reader for a file by its content."""

from __future__ import annotations

from pathlib import Path

from .trace import Trace


def open_trace(path: str | Path) -> Trace:
    """Return the trace in a file.

    Args:
        path: an nsys SQLite export, plain or compressed (xz, gzip, zstandard). It is never changed, and nothing
            is written beside it.

    Raises:
        nitro.errors.InputError: the file is missing, damaged or of a kind that no reader knows.
    """
    from .readers import nsys_sqlite

    return nsys_sqlite.read(Path(path))
