"""Blocks: what a report is made of. A section returns them, a renderer draws them; they hold finished text.

Text that we wrote is a `Message` and can be translated; text of the trace (names, paths) is a plain `str`; a number is
a `numbers.Quantity`. `language.translated` turns a report into another language.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from nitro.analyzer.timeline import Timeline as TimelineData

Align = Literal["left", "right"]
Language = Literal["en", "ko"]
Severity = Literal["high", "medium", "low", "info"]


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Running text. A `lead` is what a hurried reader reads."""

    text: str
    is_lead: bool = False


@dataclass(frozen=True, slots=True)
class KeyValues:
    """Facts, each with its label."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class KeyFigure:
    """One number that matters: its label, the number, and what to hold it against."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class KeyFigures:
    """The few numbers that sum a run up."""

    figures: tuple[KeyFigure, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A table column.

    `flexible` columns give way when space is short; `is_name` ones hold names of the trace, which may be of any length
    and are cut on paper.
    """

    title: str
    align: Align = "right"
    flexible: bool = False
    is_name: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table of finished text.

    `note` says what the table leaves out or how to read it. Only the first `shown` rows appear where a reader cannot
    sort or search. A table with a `title` is numbered, and has a `name` for its file.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    title: str = ""
    name: str = ""
    shown: int | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its label, its share of the whole (0 to 1), its values as text, and the colour key of `palette`."""

    label: str
    share: float
    values: tuple[str, ...]
    colour: str
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Bars:
    """Parts of a whole. `value_titles` head the values of the bars; `note` says what the whole is."""

    value_titles: tuple[str, ...]
    bars: tuple[Bar, ...]
    note: str = ""
    title: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure: a Vega-Lite specification with its data, and the sentence that says what it shows.

    The specification has neither theme nor width: renderers know what they draw on. Outputs without pictures show the
    sentence.
    """

    name: str
    title: str
    sentence: str
    spec: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Timeline:
    """All events of a capture, to zoom in. `still` stands for it where nothing can move."""

    name: str
    title: str
    sentence: str
    data: TimelineData
    still: tuple[Figure, ...] = ()


@dataclass(frozen=True, slots=True)
class Points:
    """A list of sentences, each with the terms that it is about."""

    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Definition:
    """What a term means: its title, its id, the paragraphs that define it, and where the definition comes from."""

    title: str
    term: str
    text: tuple[str, ...]
    source: str = ""


@dataclass(frozen=True, slots=True)
class Definitions:
    """Terms and what they mean."""

    entries: tuple[Definition, ...]


@dataclass(frozen=True, slots=True)
class Advice:
    """A finding: what was found, what it costs, why we think so, what to do, and what speaks against it."""

    title: str
    stake: str
    severity: Severity
    confidence: str
    evidence: tuple[str, ...]
    remedy: str
    limits: str


Block = Paragraph | KeyValues | KeyFigures | Table | Bars | Figure | Timeline | Points | Definitions | Advice
