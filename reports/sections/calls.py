"""CUDA and OS calls, for traces without GPU work: there is nothing else to show."""

from __future__ import annotations

from nitro.analyzer import Analysis

from .. import numbers
from ..blocks import Block, Column, Paragraph, Table
from ..report import Section

_SHOWN = 8


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return the tables of calls where no GPU work was traced."""
    if analysis.value("gpu_busy") is not None:
        return ()
    blocks: list[Block] = []
    for name in ("cuda_api_calls", "os_calls"):
        table = analysis.table(name)
        if table is None or not len(table.frame):
            continue
        rows = tuple(
            (numbers.duration(total), numbers.count(calls), numbers.duration(mean), numbers.duration(longest), function)
            for function, calls, total, mean, longest in table.frame.head(_SHOWN).iter_rows()
        )
        columns = (
            Column("total"),
            Column("calls"),
            Column("mean"),
            Column("max"),
            Column("function", "left", flexible=True),
        )
        blocks += [Paragraph(f"{table.title}, summed over threads"), Table(columns, rows)]
    return tuple(blocks)


SECTION = Section("calls", "Calls", 80, build)
