"""The report as Markdown, for a merge request or a notebook."""

from __future__ import annotations

import re
from collections.abc import Mapping

from typing_extensions import assert_never

from .. import blocks
from ..names import printable
from ..report import Report

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&$])")
# What would begin a list.
_LIST_MARK = re.compile(r"^(\s*)([-+]|\d+(?=[.)]))(?=[.)]?\s)")


def draw(report: Report) -> str:
    """Return the report as Markdown text."""
    writer = _Writer(report.words)
    parts = [f"# {_escaped(report.title)}", _escaped(report.subtitle)]
    if report.author:
        parts.append(_escaped(report.author))
    if report.side_by_side:
        parts.append(f"## {_escaped(report.words['several'])}")
    parts += [text for block in report.side_by_side if (text := writer.drawn(block))]
    for chapter in report.chapters:
        level = "##"
        if len(report.chapters) > 1:
            parts += [f"## {_escaped(chapter.title)}", _escaped(chapter.subtitle)]
            level = "###"
        for section in chapter.sections:
            parts.append(f"{level} {_escaped(section.title)}")
            parts += [text for block in section.blocks if (text := writer.drawn(block))]
    parts += [f"## {_escaped(report.words['about'])}", _pairs(report.about)]
    return "\n\n".join(parts) + "\n"


class _Writer:
    """Draws blocks one after the other, and counts the figures and tables that it has drawn."""

    def __init__(self, words: Mapping[str, str]) -> None:
        self._words = words
        self._counts = {"figure": 0, "table": 0}

    def drawn(self, block: blocks.Block) -> str:
        """Return the Markdown of a block."""
        match block:
            case blocks.Paragraph(text):
                return _escaped(text)
            case blocks.KeyValues(rows) | blocks.Points(rows):
                return _pairs(rows)
            case blocks.KeyFigures(figures):
                return "\n".join(
                    f"- **{_escaped(figure.value)}** {_escaped(figure.label)}"
                    + (f" ({_escaped(figure.note)})" if figure.note else "")
                    for figure in figures
                )
            case blocks.Advice():
                return self._advice(block)
            case blocks.Table(columns, rows):
                header = [(column.title, column.align) for column in columns]
                drawn = _table(header, rows[: block.shown], self._note(block))
                return self._captioned("table", block.title, drawn)
            case blocks.Bars(value_titles, bars, note):
                header = [("", "left"), *((title, "right") for title in value_titles)]
                drawn = _table(header, tuple((_label(bar), *bar.values) for bar in bars), note)
                return self._captioned("table", block.title, drawn)
            case blocks.Figure() | blocks.Timeline():
                return self._captioned("figure", block.title, _escaped(block.sentence))
            case blocks.Definitions(entries):
                return "\n\n".join(_definition(entry) for entry in entries)
            case _:
                assert_never(block)

    def _captioned(self, kind: str, title: str, drawn: str) -> str:
        if not title:
            return drawn
        self._counts[kind] += 1
        number = self._words[kind].format(number=self._counts[kind])
        return f"**{_escaped(number)}. {_escaped(title)}**\n\n{drawn}"

    def _note(self, block: blocks.Table) -> str:
        more = len(block.rows) - block.shown if block.shown is not None else 0
        left_out = self._words["rows_left_out"].format(count=f"{more:,}") if more > 0 else ""
        return " ".join(part for part in (block.note, left_out) if part)

    def _advice(self, block: blocks.Advice) -> str:
        words = self._words
        confidence = words["confidence_" + block.confidence]
        lines = [f"**{_escaped(block.title)}** ({_escaped(block.stake)}; {_escaped(confidence)})", ""]
        lines += [f"- {_escaped(line)}" for line in block.evidence]
        remedy = f"{_escaped(words['to_do'].capitalize())}: {_escaped(block.remedy)}"
        limits = f"{_escaped(words['limits'].capitalize())}: {_escaped(block.limits)}"
        return "\n".join([*lines, "", remedy, "", limits])


def _pairs(rows: tuple[tuple[str, str], ...]) -> str:
    return "\n".join(f"- **{_escaped(label)}**: {_escaped(text)}" for label, text in rows)


def _definition(entry: blocks.Definition) -> str:
    head = f"**{_escaped(entry.title)}** ({_escaped(entry.term)}): {_escaped(entry.text[0])}"
    lines = [head, *(f"- {_escaped(piece)}" for piece in entry.text[1:])]
    return "\n".join([lines[0], "", *lines[1:]]) if len(lines) > 1 else head


def _label(bar: blocks.Bar) -> str:
    # Leading blanks would be lost in a Markdown table.
    return "— " * bar.depth + bar.label


def _table(
    header: list[tuple[str, str]] | list[tuple[str, blocks.Align]], rows: tuple[tuple[str, ...], ...], note: str
) -> str:
    lines = [
        "| " + " | ".join(_escaped(title) for title, _ in header) + " |",
        "|" + "|".join("---:" if align == "right" else "---" for _, align in header) + "|",
        *("| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in rows),
    ]
    return "\n".join(lines) + (f"\n\n{_escaped(note)}" if note else "")


def _escaped(text: str) -> str:
    return _LIST_MARK.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", printable(text)))
