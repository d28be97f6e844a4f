"""CUDA and OS calls."""

from __future__ import annotations

from nitro.analyzer import Analysis
from nitro.analyzer.message import message

from .. import numbers
from ..blocks import Block, Column, Table
from ..report import Section

_SHOWN = 8
_TABLES = (
    ("cuda_api_calls", message("CUDA API calls, summed over threads")),
    ("os_calls", message("Operating-system calls, summed over threads")),
)


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return the tables of calls."""
    blocks: list[Block] = []
    for name, title in _TABLES:
        table = analysis.table(name)
        if table is None or not len(table.frame):
            continue
        rows = tuple(
            (numbers.duration(total), numbers.count(calls), numbers.duration(mean), numbers.duration(longest), function)
            for function, calls, total, mean, longest in table.frame.iter_rows()
        )
        columns = (
            Column(message("total")),
            Column(message("calls")),
            Column(message("mean")),
            Column(message("max")),
            Column(message("function"), "left", flexible=True, is_name=True),
        )
        blocks.append(Table(columns, rows, "", title, name.replace("_", "-"), shown=_SHOWN))
    return tuple(blocks)


SECTION = Section("calls", message("Calls"), 80, build)
