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
    parts = [("", report.side_by_side)]
    for number, chapter in enumerate(report.chapters, start=1):
        prefix = f"{number}-" if len(report.chapters) > 1 else ""
        parts += [(prefix, section.blocks) for section in chapter.sections]
    for prefix, found in parts:
        for block in _leaves(found):
            name = prefix + re.sub(r"[^a-z0-9-]+", "-", block.name.lower())
            used[name] = used.get(name, 0) + 1
            stem = name if used[name] == 1 else f"{name}-{used[name]}"
            if isinstance(block, blocks.Figure):
                yield f"{stem}.svg", drawer.drawn(drawer.ask(block, report.language)).encode()
                yield f"{stem}.csv", _data(block.spec)
            elif isinstance(block, blocks.Bars):
                head = ["", *block.value_titles]
                yield f"{stem}.csv", _csv(head, [(bar.label, *bar.values) for bar in block.bars])
            else:
                yield f"{stem}.csv", _csv([column.title for column in block.columns], block.rows)


def _leaves(found: Iterable[blocks.Block]) -> Iterator[blocks.Figure | blocks.Table | blocks.Bars]:
    for block in found:
        if isinstance(block, blocks.Timeline):
            yield from block.still
        elif isinstance(block, blocks.Figure) or (isinstance(block, blocks.Table | blocks.Bars) and block.name):
            yield block


def _csv(head: Iterable[str], rows: Iterable[Iterable[str]]) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([_text(title) for title in head])
    writer.writerows([_cell(cell) for cell in row] for row in rows)
    return stream.getvalue().encode()


def _cell(cell: str) -> str | float | None:
    return cell.value if isinstance(cell, Quantity) else _text(cell)


def _text(text: str) -> str:
    """Return a text that a spreadsheet takes for text: a name in a trace may look like a formula."""
    shown = printable(text)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown


def _data(spec: Any) -> bytes:
    """Return the rows behind a figure; a figure of several parts has their rows under one another."""
    rows = list(_rows(spec))
    columns = list(dict.fromkeys(name for row in rows for name in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: _text(value) if isinstance(value, str) else value for name, value in row.items()} for row in rows
    )
    return stream.getvalue().encode()


def _rows(spec: Any) -> Iterator[dict[str, Any]]:
    yield from spec.get("data", {}).get("values", ())
    for joint in ("hconcat", "vconcat"):
        for part in spec.get(joint, ()):
            yield from _rows(part)
