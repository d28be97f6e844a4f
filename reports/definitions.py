"""Definitions of metrics and rules, cut into the paragraphs and list entries of their docstrings.

The docstring of a metric is its definition, wherever it is read: `explain`, the reference pages, and the method
section of a report, where each piece can be translated.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from nitro.analyzer.analysis import all_metrics, all_rules
from nitro.analyzer.message import Message, verbatim

_ENTRY = re.compile(r"^- ", re.MULTILINE)


def pieces(definition: str) -> tuple[str, ...]:
    """Return the paragraphs and list entries of a docstring, each on one line and without code marks."""
    found = []
    for paragraph in re.split(r"\n\s*\n", definition):
        found += _ENTRY.split(paragraph) if _ENTRY.search(paragraph) else [paragraph]
    return tuple(" ".join(piece.replace("`", "").split()) for piece in found if piece.strip())


def about(definition: str, names: Collection[str]) -> tuple[Message, ...]:
    """Return the first piece of a docstring and those that define one of the names, as messages."""
    first, *others = pieces(definition)
    return tuple(verbatim(piece) for piece in (first, *(other for other in others if _subjects(other) & set(names))))


def _subjects(piece: str) -> set[str]:
    """Return the ids that a list entry defines, those before its colon."""
    head, colon, _ = piece.partition(": ")
    return {word.strip() for word in head.split(",")} if colon else set()


def all_pieces() -> tuple[str, ...]:
    """Return every piece of the definitions of all metrics and rules, for the catalogues."""
    definitions = [*(metric.definition for metric in all_metrics()), *(rule.definition for rule in all_rules())]
    return tuple(dict.fromkeys(piece for definition in definitions for piece in pieces(definition)))
