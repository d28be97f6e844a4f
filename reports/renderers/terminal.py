"""The report as text: in colour on a terminal, plain in a pipe, never wider than 100 columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text
from typing_extensions import assert_never

from .. import blocks
from ..names import printable
from ..palette import COLOURS
from ..report import Report

MAX_COLUMNS = 100
_INDENT = 2
_BAR_CELLS = 24
_NARROWEST_FLEXIBLE = 16
_BETWEEN_COLUMNS = 3
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def console_for(stream: IO[str], *, force_terminal: bool | None = None) -> Console:
    """Return a console for a stream; in a pipe it is 100 columns wide and without colour."""
    console = Console(file=stream, highlight=False, emoji=False, markup=False, force_terminal=force_terminal)
    width = min(console.width, MAX_COLUMNS) if console.is_terminal else MAX_COLUMNS
    console.width = width
    return console


def print_report(report: Report, stream: IO[str]) -> None:
    """Print a report to a stream."""
    stream.write(text_for(report, stream))


def text_for(report: Report, stream: IO[str]) -> str:
    """Return a report as it is to be written to a stream; in a pipe, lines have no blanks at their ends."""
    console = console_for(stream)
    with console.capture() as capture:
        draw(report, console)
    if console.is_terminal:
        return capture.get()
    return "".join(line.rstrip() + "\n" for line in capture.get().removesuffix("\n").split("\n"))


def draw(report: Report, console: Console) -> None:
    """Draw a report on a console: of each chapter the sections that are not for documents alone."""
    drawer = _Drawer(report.words, console.width - _INDENT, unicode="utf" in console.encoding.lower())
    for number, chapter in enumerate(report.chapters):
        if number:
            console.print()
        console.print(_text(chapter.title, style="bold"), _text(chapter.subtitle, style="dim"), sep="\n")
        for section in chapter.sections:
            if not section.for_documents:
                console.print()
                console.print(_text(section.title.upper(), style="bold cyan"))
                _draw_blocks(section.blocks, drawer, console)
    if report.side_by_side:
        console.print()
        console.print(_text(report.words["several"].upper(), style="bold cyan"))
        _draw_blocks(report.side_by_side, drawer, console)


def _draw_blocks(shown: tuple[blocks.Block, ...], drawer: _Drawer, console: Console) -> None:
    previous: blocks.Block | None = None
    for block in shown:
        drawn = drawer.drawn(block)
        if drawn is None:
            continue
        both_text = isinstance(previous, blocks.Paragraph) and isinstance(block, blocks.Paragraph)
        if previous is not None and not both_text and not isinstance(block, blocks.Points):
            console.print()
        console.print(Padding(drawn, (0, 0, 0, _INDENT), expand=False))
        previous = block


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style)


@dataclass(frozen=True, slots=True)
class _Drawer:
    """Turns blocks into what `rich` prints, with the words of the language, the room, and whether Unicode is there."""

    words: Mapping[str, str]
    width: int
    unicode: bool

    def drawn(self, block: blocks.Block) -> Text | RichTable | None:
        """Return what is printed for a block, `None` for one that a terminal cannot show."""
        match block:
            case blocks.Paragraph(text):
                return _text(text)
            case blocks.KeyValues(rows):
                return _pairs(rows, "dim")
            case blocks.KeyFigures(figures):
                return _key_figures(figures, self.width)
            case blocks.Points(items):
                return _pairs(items, "yellow")
            case blocks.Advice():
                return _advice(block, self.words)
            case blocks.Table():
                return _table(block, self.width)
            case blocks.Bars():
                return _bars(block, unicode=self.unicode)
            case blocks.Figure() | blocks.Timeline():
                return None
            case blocks.Definitions(entries):
                return _pairs(tuple((entry.title, " ".join(entry.text)) for entry in entries), "dim")
            case _:
                assert_never(block)


def _key_figures(figures: tuple[blocks.KeyFigure, ...], width: int) -> RichTable:
    """Draw the figures as cells, three in a row, the number on top."""
    grid = RichTable.grid(padding=(0, 2))
    in_a_row = min(3, len(figures)) or 1
    for _ in range(in_a_row):
        grid.add_column(width=width // in_a_row - 2, overflow="fold")
    for start in range(0, len(figures), in_a_row):
        row = figures[start : start + in_a_row]
        grid.add_row(*(_text(figure.value, "bold") for figure in row))
        grid.add_row(*(_text(figure.label) for figure in row))
        grid.add_row(*(_text(figure.note, "dim") for figure in row))
        if start + in_a_row < len(figures):
            grid.add_row("")
    return grid


_SEVERITY_STYLE = {"high": "bold red", "medium": "bold yellow", "low": "bold", "info": "dim"}


def _advice(block: blocks.Advice, words: Mapping[str, str]) -> RichTable:
    """Draw a finding: its title, then stake, evidence, remedy and limits under their labels."""
    grid = RichTable.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    evidence = "; ".join(block.evidence)
    rows = (
        (words["stake"], f"{block.stake}; {words['confidence_' + block.confidence]}"),
        (words["why"], evidence),
        (words["to_do"], block.remedy),
        (words["limits"], block.limits),
    )
    for label, text in rows:
        grid.add_row(_text(label), _text(text))
    outer = RichTable.grid()
    outer.add_row(_text(block.title, _SEVERITY_STYLE[block.severity]))
    outer.add_row(Padding(grid, (0, 0, 0, 3)))
    return outer


def _pairs(rows: tuple[tuple[str, str], ...], label_style: str) -> RichTable:
    grid = RichTable.grid(padding=(0, 2))
    grid.add_column(style=label_style, max_width=30)
    grid.add_column(overflow="fold")
    for label, text in rows:
        grid.add_row(_text(label), _text(text))
    return grid


def _table(block: blocks.Table, width: int) -> RichTable:
    """Draw a table; numbers keep their width, and flexible text takes what is left."""
    shown = block.rows[: block.shown]
    table = _plain_table(block.note, block.title)
    needed = [
        max(cell_len(column.title), *(cell_len(row[index]) for row in shown), 0)
        for index, column in enumerate(block.columns)
    ]
    fixed = sum(
        size + _BETWEEN_COLUMNS for size, column in zip(needed, block.columns, strict=True) if not column.flexible
    )
    flexible = sum(column.flexible for column in block.columns)
    room = max((width - fixed) // max(flexible, 1) - _BETWEEN_COLUMNS, _NARROWEST_FLEXIBLE)
    for size, column in zip(needed, block.columns, strict=True):
        table.add_column(
            _text(column.title),
            justify=column.align,
            no_wrap=True,
            overflow="ellipsis",
            width=min(size, room) if column.flexible else size,
        )
    for row in shown:
        table.add_row(*map(_text, row))
    return table


def _bars(block: blocks.Bars, *, unicode: bool) -> RichTable:
    table = _plain_table(block.note)
    table.add_column("", no_wrap=True)
    table.add_column("", width=_BAR_CELLS, no_wrap=True)
    for title in block.value_titles:
        table.add_column(_text(title), justify="right", no_wrap=True)
    for bar in block.bars:
        label = _text("  " * bar.depth + bar.label, style="" if bar.depth else "bold")
        drawn = Text(_bar_text(bar.share, unicode=unicode), style=COLOURS[bar.colour])
        table.add_row(label, drawn, *map(_text, bar.values))
    return table


def _plain_table(note: str, title: str = "") -> RichTable:
    return RichTable(
        title=_text(title) if title else None,
        title_justify="left",
        title_style="",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1),
        header_style="dim",
        caption=_text(note, style="dim") if note else None,
        caption_justify="left",
    )


def _bar_text(share: float, *, unicode: bool) -> str:
    """Return a bar of `_BAR_CELLS` cells for a share of 1; something is visible for every share above 0."""
    eighths = round(min(max(share, 0.0), 1.0) * _BAR_CELLS * 8)
    if share > 0:
        eighths = max(eighths, 1)
    if not unicode:
        return "#" * max(round(eighths / 8), 1 if share > 0 else 0)
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
