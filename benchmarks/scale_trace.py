#!/usr/bin/env python3
"""Make a large nsys SQLite export out of a real one: its events N times, one copy after the other in time.

    python benchmarks/scale_trace.py TRACE.sqlite[.xz] LARGE.sqlite COPIES

Correlation ids are moved apart, so that each copy keeps its own launches. Sampled GPU metrics are left out.
"""

from __future__ import annotations

import lzma
import shutil
import sqlite3
import sys
from pathlib import Path

_TIMES = ("start", "end", "timestamp")
_LEFT_OUT = ("GPU_METRICS", "GENERIC_EVENTS")
_NOT_EVENTS = ("TARGET_INFO_SESSION_START_TIME", "ANALYSIS_DETAILS")
_PAUSE_NS = 1_000_000


def scale(source: Path, target: Path, copies: int) -> None:
    """Write `target` with the events of `source` repeated `copies` times."""
    with lzma.LZMAFile(source) if source.suffix == ".xz" else source.open("rb") as stream, target.open("wb") as out:
        shutil.copyfileobj(stream, out)
    connection = sqlite3.connect(target)
    connection.executescript("pragma journal_mode = off; pragma synchronous = off; pragma cache_size = -1000000;")
    tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
    columns = {name: [row[1] for row in connection.execute(f'pragma table_info("{name}")')] for name in tables}
    for name in set(tables) & set(_LEFT_OUT):
        connection.execute(f'delete from "{name}"')
    events = [name for name in tables if {"start", "end"} <= set(columns[name]) and name not in _NOT_EVENTS]
    spans = [connection.execute(f'select min(start), max("end") from "{name}"').fetchone() for name in events]
    span = max(end for _, end in spans if end) - min(start for start, _ in spans if start is not None) + _PAUSE_NS
    ids = [f'select max(correlationId) from "{name}"' for name in events if "correlationId" in columns[name]]
    next_id = max(connection.execute(query).fetchone()[0] or 0 for query in ids) + 1
    for name in events:
        count = connection.execute(f'select count(*) from "{name}"').fetchone()[0]
        for copy in range(1, copies):
            moved = ", ".join(_moved(column, copy * span, copy * next_id) for column in columns[name])
            connection.execute(f'insert into "{name}" select {moved} from (select * from "{name}" limit {count})')
    connection.commit()
    connection.execute("vacuum")
    connection.close()


def _moved(column: str, time_ns: int, correlation: int) -> str:
    if column in _TIMES:
        return f'"{column}" + {time_ns}'
    return f'"{column}" + {correlation}' if column == "correlationId" else f'"{column}"'


if __name__ == "__main__":
    scale(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
