"""The tables of `nitro-analyze stats` as CSV, JSON and text; numbers keep NVIDIA's digits in all three."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import IO

from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.text import Text

from nitro.analyzer.stats import StatsColumn, StatsTable

_GAP = "  "
_NARROWEST_NAME = 30
_NAME_LINES = 2
_UNITS = {" (ns)": "times in ns", " (MB)": "sizes in MB of 1,000,000 bytes"}


def csv_text(table: StatsTable) -> str:
    """Return the table as CSV with a header line; a table without rows is its header.

    Equal to `nsys stats --format csv --timeunit nsec` byte by byte, except for names that hold a quotation mark or
    a line break: nsys writes those as they are, which no CSV reader understands; here they are quoted.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.header for column in table.columns])
    writer.writerows(zip(*_exact_cells(table), strict=True))
    return text.getvalue()


def json_text(table: StatsTable) -> str:
    """Return the table as a JSON array with an object per row, keyed by the headers; empty cells are null."""
    cells = _exact_cells(table)
    for column, number in zip(table.columns, range(len(cells)), strict=True):
        if column.kind in {"label", "text"}:
            names = table.frame[column.header].to_list()
            cells[number] = [json.dumps(name, ensure_ascii=False) for name in names]
        cells[number] = [cell or "null" for cell in cells[number]]
    keys = [json.dumps(column.header) for column in table.columns]
    rows = (
        ",\n".join(f"    {key}: {cell}" for key, cell in zip(keys, row, strict=True))
        for row in zip(*cells, strict=True)
    )
    body = ",\n".join(f"  {{\n{row}\n  }}" for row in rows)
    return f"[\n{body}\n]\n" if body else "[]\n"


def print_table(table: StatsTable, stream: IO[str]) -> None:
    """Print the table for people: fitted to the terminal, or with one whole line per row in a pipe."""
    console = Console(file=stream, highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        # Straight to the stream, so that a reader who leaves (`| head`) is noticed by the command line, not by rich.
        stream.writelines(f"{line.plain}\n" for line in table_lines(table, None))
        return
    for line in table_lines(table, console.width):
        console.print(line, soft_wrap=True)


def table_lines(table: StatsTable, width: int | None) -> Iterator[Text]:
    """Yield the lines of a table.

    Args:
        table: one with rows.
        width: columns of the terminal. A table that is too wide puts the names on lines of their own, and each part
            of a row on a line where its columns have parts; `None` keeps one line per row, as wide as it gets.
    """
    columns = [_Column(column, table, stacked=width is not None) for column in table.columns]
    numbers = [column for column in columns if not column.is_text]
    names = sorted((column for column in columns if column.is_text), key=lambda column: column.spec.kind == "text")
    units = ", ".join(dict.fromkeys(unit for unit in map(_unit, table.columns) if unit))
    title = Text(f"{table.title} ({table.name})", style="bold")
    yield title.append(f", {units}" if units else "", style="not bold dim")
    used = sum(column.width + len(_GAP) for column in numbers)
    if width is None or width - used >= _NARROWEST_NAME:
        yield from _one_line_each(numbers, names, None if width is None else width - used)
        return
    parts = _Parts(numbers)
    if parts.names and parts.width <= width:
        yield from _one_line_per_part(parts, names, width)
    else:
        yield from _names_above(numbers, names, width)


class _Column:
    """A column as text for people: header without unit (a word a line if `stacked`), cells with separators."""

    def __init__(self, spec: StatsColumn, table: StatsTable, *, stacked: bool) -> None:
        self.spec = spec
        self.is_text = spec.kind in {"label", "text"}
        self.header = spec.header.removesuffix(_unit_suffix(spec))
        self.header_lines = self.header.split() if stacked else [self.header]
        values = table.frame[spec.header].to_list()
        form = {"identifier": "d", "integer": ",d", "decimal": ",.1f", "megabytes": ",.3f"}.get(spec.kind, "")
        self.cells = [_printable("" if value is None else format(value, form)) for value in values]
        self.width = max(map(cell_len, (*self.header_lines, *self.cells)))

    def aligned(self, text: str) -> str:
        """Return a cell or a line of the header, padded to the width."""
        return _fitted(text, self.width) if self.is_text else text.rjust(self.width)


def _headers(columns: Sequence[_Column]) -> Iterator[Text]:
    """Yield the lines of the headers, which stand on their last line."""
    height = max(len(column.header_lines) for column in columns)
    for level in range(height, 0, -1):
        words = (column.header_lines[-level] if level <= len(column.header_lines) else "" for column in columns)
        line = _GAP.join(column.aligned(word) for column, word in zip(columns, words, strict=True))
        yield Text(line.rstrip(), style="dim")


def _one_line_each(numbers: Sequence[_Column], names: Sequence[_Column], room: int | None) -> Iterator[Text]:
    """Yield one line per row, names at the end; a long last name continues below itself."""
    ordered = [*numbers, *names[:-1]]
    last = names[-1]
    used = sum(column.width + len(_GAP) for column in ordered)
    left = None if room is None else max(room - sum(c.width + len(_GAP) for c in names[:-1]), _NARROWEST_NAME // 2)
    yield from _headers([*ordered, last])
    for row, name in enumerate(last.cells):
        first, *more = [name] if left is None else _folded(name, left)
        yield Text(_GAP.join([*(column.aligned(column.cells[row]) for column in ordered), first]).rstrip())
        yield from (Text(" " * used + line) for line in more)


def _names_above(numbers: Sequence[_Column], names: Sequence[_Column], width: int) -> Iterator[Text]:
    """Yield the names of a row on lines of their own, and its numbers below, on as many lines as they need."""
    lines: list[list[_Column]] = [[]]
    for column in numbers:
        if lines[-1] and sum(c.width + len(_GAP) for c in lines[-1]) + column.width > width:
            lines.append([])
        lines[-1].append(column)
    for line in lines:
        yield from _headers(line)
    for row in range(len(names[-1].cells)):
        yield from _name_lines(names, row, width)
        for line in lines:
            yield Text(_GAP.join(column.aligned(column.cells[row]) for column in line).rstrip())


class _Parts:
    """Columns seen as a small table per row: a line for each part, a column for each statistic."""

    def __init__(self, numbers: Sequence[_Column]) -> None:
        self.facts = [column for column in numbers if column.spec.part is None]
        placed = [(column.spec.part, column.spec.statistic, column) for column in numbers]
        self._columns = {(part, statistic): column for part, statistic, column in placed if part and statistic}
        self.names = list(dict.fromkeys(part for part, _ in self._columns))
        self._label = max(map(len, self.names), default=0)
        self._widths = {statistic: len(statistic) for _, statistic in self._columns}
        for (_, statistic), column in self._columns.items():
            self._widths[statistic] = max(self._widths[statistic], *map(len, column.cells))
        self.width = self._label + sum(width + len(_GAP) for width in self._widths.values())

    @property
    def header(self) -> str:
        """The names of the statistics above their columns."""
        return _GAP.join([" " * self._label, *(name.rjust(width) for name, width in self._widths.items())])

    def line(self, part: str, row: int) -> str:
        """Return the statistics of one part of a row."""
        columns = ((self._columns.get((part, name)), width) for name, width in self._widths.items())
        cells = (("" if column is None else column.cells[row]).rjust(width) for column, width in columns)
        return _GAP.join([part.ljust(self._label), *cells]).rstrip()


def _one_line_per_part(parts: _Parts, names: Sequence[_Column], width: int) -> Iterator[Text]:
    """Yield names and facts of a row, and then a line for each part with its statistics."""
    yield Text(parts.header, style="dim")
    for row in range(len(names[-1].cells)):
        yield from _name_lines(names, row, width)
        known = ", ".join(f"{column.header} {column.cells[row]}" for column in parts.facts if column.cells[row])
        yield from (Text(line, style="dim") for line in _folded(known, width))
        for part in parts.names:
            yield Text(parts.line(part, row))


def _name_lines(names: Sequence[_Column], row: int, width: int) -> Iterator[Text]:
    """Yield the name of a row in bold, after its label."""
    *labels, name = (column.cells[row] for column in names)
    label = "".join(text + _GAP for text in labels)
    for number, line in enumerate(_folded(label + (name or "(no name)"), width)):
        text = Text(line, style="bold")
        if number == 0:
            text.stylize("not bold dim", 0, len(label))
        yield text


def _folded(text: str, width: int) -> list[str]:
    """Break a text into at most `_NAME_LINES` lines of a width; what is left over becomes an ellipsis."""
    lines = chop_cells(text, width) or [""]
    if len(lines) <= _NAME_LINES:
        return lines
    kept = lines[:_NAME_LINES]
    return [*kept[:-1], _fitted(kept[-1], width - 1).rstrip() + "…"]


def _fitted(text: str, width: int) -> str:
    fitted = Text(text)
    fitted.truncate(width, overflow="crop", pad=True)
    return fitted.plain


def _exact_cells(table: StatsTable) -> list[list[str]]:
    """Return the cells of each column as NVIDIA prints them; null is an empty text."""
    return [[_exact(column, value) for value in table.frame[column.header].to_list()] for column in table.columns]


def _exact(column: StatsColumn, value: float | str | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if column.kind == "megabytes" else str(value)


def _printable(text: str) -> str:
    """Return the text with control characters escaped: a name in a trace must not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _unit(column: StatsColumn) -> str | None:
    return _UNITS.get(_unit_suffix(column))


def _unit_suffix(column: StatsColumn) -> str:
    return next((suffix for suffix in _UNITS if column.header.endswith(suffix)), "")
