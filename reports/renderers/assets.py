"""The figures and tables of a report as separate files, for a paper: SVG and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from typing import Any

from .. import blocks
from ..names import printable
from ..numbers import Quantity
from ..report import Report
from . import svg


def draw(report: Report, drawer: svg.Drawer) -> Iterator[tuple[str, bytes]]:
    """Yield (file name, content) of every figure, as SVG with its data as CSV, and of every named table, as CSV.

    Numbers are in the unit that the head of their column names, else in base units: ns, bytes, bytes/s, ratios.
    """
    used: dict[str, int] = {}
    for block in _leaves(report.side_by_side):
        yield f"{block.name}.csv", _table(block) if isinstance(block, blocks.Table) else b""
    chapters = len(report.chapters) > 1
    for number, chapter in enumerate(report.chapters, start=1):
        prefix = f"{number}-" if chapters else ""
        for block in _leaves(block for section in chapter.sections for block in section.blocks):
            name = prefix + re.sub(r"[^a-z0-9-]+", "-", block.name.lower())
            used[name] = used.get(name, 0) + 1
            stem = name if used[name] == 1 else f"{name}-{used[name]}"
            if isinstance(block, blocks.Figure):
                yield f"{stem}.svg", drawer.drawn(drawer.ask(block, report.language)).encode()
                yield f"{stem}.csv", _data(block.spec)
            else:
                yield f"{stem}.csv", _table(block)


def _leaves(found: Iterable[blocks.Block]) -> Iterator[blocks.Figure | blocks.Table]:
    for block in found:
        if isinstance(block, blocks.Timeline):
            yield from block.still
        elif isinstance(block, blocks.Figure) or (isinstance(block, blocks.Table) and block.name):
            yield block


def _table(block: blocks.Table) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([printable(column.title) for column in block.columns])
    writer.writerows([_cell(cell) for cell in row] for row in block.rows)
    return stream.getvalue().encode()


def _cell(cell: str) -> str | float | None:
    return cell.value if isinstance(cell, Quantity) else printable(cell)


def _data(spec: Any) -> bytes:
    """Return the rows behind a figure; a figure of several parts has their rows under one another."""
    rows = list(_rows(spec))
    columns = list(dict.fromkeys(name for row in rows for name in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: printable(str(value)) for name, value in row.items()} for row in rows)
    return stream.getvalue().encode()


def _rows(spec: Any) -> Iterator[dict[str, Any]]:
    yield from spec.get("data", {}).get("values", ())
    for joint in ("hconcat", "vconcat"):
        for part in spec.get(joint, ()):
            yield from _rows(part)
