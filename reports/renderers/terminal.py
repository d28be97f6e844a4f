"""The report as text: in colour on a terminal, plain in a pipe, never wider than 100 columns."""

from __future__ import annotations

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
    """Print a report to a stream; in a pipe, lines have no blanks at their ends."""
    console = console_for(stream)
    if console.is_terminal:
        draw(report, console)
        return
    with console.capture() as capture:
        draw(report, console)
    stream.writelines(line.rstrip() + "\n" for line in capture.get().splitlines())


def draw(report: Report, console: Console) -> None:
    """Draw a report on a console."""
    console.print(_text(report.title, style="bold"), _text(report.subtitle, style="dim"), sep="\n")
    for section in report.sections:
        console.print()
        console.print(Text(section.title.upper(), style="bold cyan"))
        for number, block in enumerate(section.blocks):
            if number and not isinstance(block, blocks.Points):
                console.print()
            console.print(Padding(_drawn(block, console), (0, 0, 0, _INDENT), expand=False))


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style)


def _drawn(block: blocks.Block, console: Console) -> Text | RichTable:
    match block:
        case blocks.Paragraph(text):
            return _text(text)
        case blocks.KeyValues(rows):
            return _pairs(rows, "dim")
        case blocks.Points(items):
            return _pairs(items, "yellow")
        case blocks.Advice():
            return _advice(block)
        case blocks.Table():
            return _table(block, console.width - _INDENT)
        case blocks.Bars():
            return _bars(block, unicode="utf" in console.encoding.lower())
        case _:
            assert_never(block)


_SEVERITY_STYLE = {"high": "bold red", "medium": "bold yellow", "low": "bold", "info": "dim"}


def _advice(block: blocks.Advice) -> RichTable:
    """Draw a finding: its title, then stake, evidence, remedy and limits under their labels."""
    grid = RichTable.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    evidence = "; ".join(block.evidence)
    rows = (
        ("stake", f"{block.stake}; confidence {block.confidence}"),
        ("why", evidence),
        ("to do", block.remedy),
        ("limits", block.limits),
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
    table = _plain_table(block.note)
    needed = [
        max(cell_len(column.title), *(cell_len(row[index]) for row in block.rows), 0)
        for index, column in enumerate(block.columns)
    ]
    fixed = sum(
        size + _BETWEEN_COLUMNS for size, column in zip(needed, block.columns, strict=True) if not column.flexible
    )
    flexible = sum(column.flexible for column in block.columns)
    room = max((width - fixed) // max(flexible, 1) - _BETWEEN_COLUMNS, _NARROWEST_FLEXIBLE)
    for size, column in zip(needed, block.columns, strict=True):
        table.add_column(
            Text(column.title),
            justify=column.align,
            no_wrap=True,
            overflow="ellipsis",
            width=min(size, room) if column.flexible else size,
        )
    for row in block.rows:
        table.add_row(*map(_text, row))
    return table


def _bars(block: blocks.Bars, *, unicode: bool) -> RichTable:
    table = _plain_table(block.note)
    table.add_column("", no_wrap=True)
    table.add_column("", width=_BAR_CELLS, no_wrap=True)
    for title in block.value_titles:
        table.add_column(Text(title), justify="right", no_wrap=True)
    for bar in block.bars:
        label = _text(bar.label, style="" if bar.label.startswith(" ") else "bold")
        drawn = Text(_bar_text(bar.share, unicode=unicode), style=COLOURS[bar.colour])
        table.add_row(label, drawn, *map(_text, bar.values))
    return table


def _plain_table(note: str) -> RichTable:
    return RichTable(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1),
        header_style="dim",
        caption=Text(note, style="dim") if note else None,
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
