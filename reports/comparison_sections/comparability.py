"""Comparability: what speaks against holding the two sides against each other."""

from __future__ import annotations

from nitro.analyzer.compare import Comparison
from nitro.analyzer.compare.comparability import KEYS
from nitro.analyzer.message import capitalised, joined, message

from ..blocks import Block, Column, Paragraph, Table
from ..comparison import ComparisonSection

_LEVELS = {"warn": message("note"), "refuse": message("refused, but allowed")}


def build(comparison: Comparison, is_document: bool) -> tuple[Block, ...]:
    """Return every reason, the ones that were allowed among them."""
    blocks: list[Block] = []
    if comparison.reasons:
        columns = (
            Column(message("level"), "left"),
            Column(message("what"), "left", flexible=True),
            Column(message("before"), "left", flexible=True, is_name=True),
            Column(message("after"), "left", flexible=True, is_name=True),
        )
        rows = tuple(
            (_LEVELS[reason.level], capitalised(reason.text), reason.before, reason.after)
            for reason in comparison.reasons
        )
        if is_document:
            blocks.append(Table(columns, rows, "", message("What speaks against the comparison"), "comparability"))
        else:
            blocks += [
                Paragraph(message("{level}: {reason}.", level=capitalised(row[0]), reason=row[1])) for row in rows
            ]
    else:
        blocks.append(Paragraph(message("Nothing in the captures speaks against the comparison.")))
    text = message(
        "Compared were: {what}. Power mode, model and precision are known only where a capture bundle tells them, and "
        "the input never is: that they are the same on both sides is for who recorded them to say.",
        what=joined("; ", KEYS.values()),
    )
    if is_document:
        blocks.append(Paragraph(text))
    return tuple(blocks)


SECTION = ComparisonSection("comparability", message("Comparability"), 60, build)
