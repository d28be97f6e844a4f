"""Blocks: what a report is made of. A section returns them, a renderer draws them; they hold finished text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Align = Literal["left", "right"]


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True, slots=True)
class KeyValues:
    """Facts, each with its label."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A table column. `flexible` columns give way when space is short."""

    title: str
    align: Align = "right"
    flexible: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table of finished text. `note` says what the table leaves out or how to read it."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its label, its share of the whole (0 to 1), its values as text, and the colour key of `palette`."""

    label: str
    share: float
    values: tuple[str, ...]
    colour: str


@dataclass(frozen=True, slots=True)
class Bars:
    """Parts of a whole. `value_titles` head the values of the bars; `note` says what the whole is."""

    value_titles: tuple[str, ...]
    bars: tuple[Bar, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Points:
    """A list of sentences, each with the terms that it is about."""

    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Advice:
    """A finding: what was found, what it costs, why we think so, what to do, and what speaks against it."""

    title: str
    stake: str
    severity: Literal["high", "medium", "low", "info"]
    confidence: str
    evidence: tuple[str, ...]
    remedy: str
    limits: str


Block = Paragraph | KeyValues | Table | Bars | Points | Advice
