"""A report as the values that templates loop over: what is numbered, shown and sortable is decided here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.cells import cell_len
from typing_extensions import assert_never

from . import blocks
from .names import printable
from .numbers import Quantity
from .palette import COLOURS
from .report import Chapter, Report

_SEARCHABLE_FROM = 12
_SHORT = 12
_LONGEST_ON_PAPER = 150
# How many narrow letters of a table fit side by side on the paper, and how few a column of text can do with.
_CELLS_ON_PAPER = 118
_LEAST_FLEXIBLE = 19
# The room between two columns, in such letters.
_CELLS_BETWEEN = 2
# How much wider a letter is in a head.
_BOLD = 1.2
# Where a line of text may end.
_BREAKS = re.compile(r"\s+|(?<=-)")
_UNIT = re.compile(r"(?<=\d) (?=%|(?:[mµn]?s|[KMGT]?i?B|[kMGT]?Hz|[kMGT]?B/s|x)\b)")
_SUMMARY_SECTIONS = ("summary", "next_steps")
Values = dict[str, Any]


class Document:
    """Turns the blocks of one report in one language into values for templates.

    Args:
        report: the report, translated.
        draw_figure: returns the values that draw a figure (a specification for a page, a picture for paper).
        draw_timeline: the same for a timeline; `None` draws its still figures instead.
        all_rows: whether tables hold all rows, or only those that a reader without a mouse can use.
    """

    def __init__(
        self,
        report: Report,
        *,
        draw_figure: Callable[[blocks.Figure], Values],
        draw_timeline: Callable[[blocks.Timeline], Values] | None,
        all_rows: bool,
    ) -> None:
        self._report = report
        self._draw_figure = draw_figure
        self._draw_timeline = draw_timeline
        self._all_rows = all_rows
        self._counts = {"figure": 0, "table": 0}
        self._ids: dict[str, int] = {}

    def values(self) -> Values:
        """Return everything about the report that a template shows."""
        report = self._report
        return {
            "lang": report.language,
            "title": printable(report.title),
            "subtitle": printable(report.subtitle),
            "author": printable(report.author),
            "words": dict(report.words),
            "side_by_side": list(self._blocks(report.side_by_side)),
            "chapters": [self._chapter(chapter) for chapter in report.chapters],
            "about": [(printable(label), printable(text)) for label, text in report.about],
        }

    def _chapter(self, chapter: Chapter) -> Values:
        return {
            "id": self._id("chapter"),
            "title": printable(chapter.title),
            "subtitle": printable(chapter.subtitle),
            "summary_sections": sum(section.name in _SUMMARY_SECTIONS for section in chapter.sections),
            "sections": [
                {
                    "id": self._id(section.name),
                    "name": section.name,
                    "title": section.title,
                    "blocks": list(self._blocks(section.blocks)),
                }
                for section in chapter.sections
            ],
        }

    def _blocks(self, shown: Iterable[blocks.Block]) -> Iterable[Values]:
        for block in shown:
            if isinstance(block, blocks.Timeline) and self._draw_timeline is None:
                yield from (self._drawn(still) for still in block.still)
            else:
                yield self._drawn(block)

    def _drawn(self, block: blocks.Block) -> Values:
        match block:
            case blocks.Paragraph(text, is_lead):
                return {"kind": "paragraph", "text": _running(text), "is_lead": is_lead}
            case blocks.KeyValues(rows):
                return {"kind": "key-values", "rows": _pairs(rows)}
            case blocks.KeyFigures(figures):
                shown = [{"label": f.label, "value": printable(f.value), "note": printable(f.note)} for f in figures]
                return {"kind": "key-figures", "figures": shown}
            case blocks.Points(items):
                return {"kind": "points", "rows": _pairs(items)}
            case blocks.Advice():
                return _advice(block)
            case blocks.Table():
                return self._table(block)
            case blocks.Bars():
                return self._bars(block)
            case blocks.Figure():
                return self._figure(block)
            case blocks.Timeline():
                return self._timeline(block)
            case blocks.Definitions(entries):
                return {"kind": "definitions", "entries": [_definition(entry) for entry in entries]}
            case _:
                assert_never(block)

    def _table(self, block: blocks.Table) -> Values:
        shown = len(block.rows) if block.shown is None else min(block.shown, len(block.rows))
        kept = block.rows if self._all_rows else block.rows[:shown]
        left_out = len(block.rows) - len(kept)
        note = [printable(block.note)] if block.note else []
        if left_out:
            note.append(self._report.words["rows_left_out"].format(count=f"{left_out:,}"))
        styles = [f"{c.align}{' flexible' if c.flexible else ''}{' code' if c.is_name else ''}" for c in block.columns]
        return {
            "kind": "table",
            "id": self._id(block.name or "table"),
            "label": self._number("table") if block.title else "",
            "title": printable(block.title),
            "columns": [
                {"title": printable(c.title), "align": c.align, "flexible": c.flexible, "percent": f"{share:.1f}"}
                for c, share in zip(block.columns, shares_of_width(block.columns, kept), strict=True)
            ],
            "rows": [
                {
                    "is_more": index >= shown,
                    "cells": [
                        {"text": self._cell(cell, column), "value": _sort_value(cell), "css": css}
                        for cell, column, css in zip(row, block.columns, styles, strict=True)
                    ],
                }
                for index, row in enumerate(kept)
            ],
            "note": " ".join(note),
            "is_short": len(kept) <= _SHORT,
            "is_sortable": len(kept) > 1,
            "is_searchable": len(kept) >= _SEARCHABLE_FROM,
            "has_more": len(kept) > shown,
            "more_text": self._report.words["rows_more"].format(total=f"{len(kept):,}"),
        }

    def _cell(self, cell: str, column: blocks.Column) -> str:
        """Return a cell's text; on paper, where a name may fill a page, names are cut."""
        text = printable(cell)
        if self._all_rows or not column.is_name or len(text) <= _LONGEST_ON_PAPER:
            return text
        return text[: _LONGEST_ON_PAPER - 1] + "…"

    def _bars(self, block: blocks.Bars) -> Values:
        widest = max((bar.share for bar in block.bars), default=0.0) or 1.0
        parts = _leaves(block.bars)
        return {
            "kind": "bars",
            "id": self._id(block.name or "bars"),
            "label": self._number("table") if block.title else "",
            "title": printable(block.title),
            "value_titles": block.value_titles,
            "bars": [
                {
                    "label": printable(bar.label),
                    "cells": bar.values,
                    "depth": bar.depth,
                    "colour": COLOURS[bar.colour],
                    "percent": f"{100 * bar.share / widest:.2f}",
                }
                for bar in block.bars
            ],
            "parts": [
                {
                    "label": printable(bar.label),
                    "value": bar.values[0],
                    "percent": f"{100 * bar.share:.3f}",
                    "colour": COLOURS[bar.colour],
                }
                for bar in parts
            ],
            "note": printable(block.note),
        }

    def _figure(self, block: blocks.Figure) -> Values:
        return {
            "kind": "figure",
            "id": self._id(block.name),
            "label": self._number("figure"),
            "title": printable(block.title),
            "sentence": printable(block.sentence),
            **self._draw_figure(block),
        }

    def _timeline(self, block: blocks.Timeline) -> Values:
        assert self._draw_timeline is not None
        return {
            "kind": "timeline",
            "id": self._id(block.name),
            "label": self._number("figure"),
            "title": printable(block.title),
            "sentence": printable(block.sentence),
            **self._draw_timeline(block),
        }

    def _number(self, kind: str) -> str:
        self._counts[kind] += 1
        return self._report.words[kind].format(number=self._counts[kind])

    def _id(self, name: str) -> str:
        """Return an id that is unique on the page: the language first, a number where a name comes again."""
        key = f"{self._report.language}-{name.replace('_', '-')}"
        self._ids[key] = self._ids.get(key, 0) + 1
        return key if self._ids[key] == 1 else f"{key}-{self._ids[key]}"


def shares_of_width(columns: tuple[blocks.Column, ...], rows: tuple[tuple[str, ...], ...]) -> list[float]:
    """Return the part of the width, in percent, that each column of a table on paper gets.

    Every column first gets what it cannot do without: numbers, which stand on one line, all of themselves; text its
    longest word; flexible columns, which hold long names, a few letters. What is then left is shared by what each would
    still take, and what nobody needs goes to the flexible ones.
    """
    cells = [(column.title, *(row[index] for row in rows)) for index, column in enumerate(columns)]
    least = [_least(column, texts) for column, texts in zip(columns, cells, strict=True)]
    wanted = [
        min(max(_BOLD * cell_len(head), 0, *map(cell_len, texts)) + _CELLS_BETWEEN, _CELLS_ON_PAPER)
        for head, *texts in cells
    ]
    missing = [max(most - size, 0) for size, most in zip(least, wanted, strict=True)]
    spare = max(_CELLS_ON_PAPER - sum(least), 0) / max(sum(missing), 1)
    widths = [size + min(spare, 1) * more for size, more in zip(least, missing, strict=True)]
    flexible = [index for index, column in enumerate(columns) if column.flexible]
    unused = max(_CELLS_ON_PAPER - sum(widths), 0)
    for index in flexible:
        widths[index] += unused / len(flexible)
    return [100 * width / sum(widths) for width in widths]


def _least(column: blocks.Column, texts: tuple[str, ...]) -> int:
    """Return the fewest letters that a column can do with, those between it and the next included."""
    title, *cells = texts
    if column.flexible:
        size = min(_LEAST_FLEXIBLE, max(map(cell_len, texts)))
    else:
        parts = cells if column.align == "right" else [word for cell in cells for word in _BREAKS.split(cell)]
        size = max((cell_len(part) for part in (*title.split(), *parts)), default=0)
    return size + _CELLS_BETWEEN


def _pairs(rows: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(printable(label), _running(text)) for label, text in rows]


def _running(text: str) -> str:
    """Return running text in which no line ends between a number and its unit."""
    return _UNIT.sub("\N{NO-BREAK SPACE}", printable(text))


def _advice(block: blocks.Advice) -> Values:
    return {
        "kind": "advice",
        "title": printable(block.title),
        "stake": _running(block.stake),
        "severity": block.severity,
        "confidence": block.confidence,
        "evidence": [_running(line) for line in block.evidence],
        "remedy": printable(block.remedy),
        "limits": printable(block.limits),
    }


def _definition(entry: blocks.Definition) -> Values:
    return {
        "title": printable(entry.title),
        "term": printable(entry.term),
        "text": [printable(piece) for piece in entry.text],
        "source": printable(entry.source),
    }


def _leaves(bars: tuple[blocks.Bar, ...]) -> list[blocks.Bar]:
    """Return the bars that tile the whole: a bar followed by deeper ones stands for them."""
    following: Mapping[int, int] = {index: bars[index + 1].depth for index in range(len(bars) - 1)}
    return [bar for index, bar in enumerate(bars) if following.get(index, 0) <= bar.depth and bar.share > 0]


def _sort_value(cell: str) -> str | None:
    return repr(cell.value) if isinstance(cell, Quantity) and cell.value is not None else None
