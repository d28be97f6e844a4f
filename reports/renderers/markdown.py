"""The report as Markdown, for a merge request or a notebook."""

from __future__ import annotations

import re

from typing_extensions import assert_never

from .. import blocks
from ..names import printable
from ..report import Report

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|])")


def draw(report: Report) -> str:
    """Return the report as Markdown text."""
    parts = [f"# {_escaped(report.title)}", _escaped(report.subtitle)]
    for section in report.sections:
        parts.append(f"## {_escaped(section.title)}")
        parts += [_drawn(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _drawn(block: blocks.Block) -> str:
    match block:
        case blocks.Paragraph(text):
            return _escaped(text)
        case blocks.KeyValues(rows) | blocks.Points(rows):
            return "\n".join(f"- **{_escaped(label)}**: {_escaped(text)}" for label, text in rows)
        case blocks.Advice():
            return _advice(block)
        case blocks.Table(columns, rows, note):
            header = [(column.title, column.align) for column in columns]
            return _table(header, rows, note)
        case blocks.Bars(value_titles, bars, note):
            header = [("", "left"), *((title, "right") for title in value_titles)]
            rows = tuple((_label(bar.label), *bar.values) for bar in bars)
            return _table(header, rows, note)
        case _:
            assert_never(block)


def _advice(block: blocks.Advice) -> str:
    lines = [f"**{_escaped(block.title)}** ({_escaped(block.stake)}; confidence {block.confidence})", ""]
    lines += [f"- {_escaped(line)}" for line in block.evidence]
    return "\n".join([*lines, "", _escaped(f"To do: {block.remedy}"), "", _escaped(f"Limits: {block.limits}")])


def _label(label: str) -> str:
    # Leading blanks would be lost in a Markdown table.
    return "— " + label.strip() if label.startswith(" ") else label


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
    return _SPECIAL.sub(r"\\\1", printable(text))
