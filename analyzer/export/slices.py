"""Slices of time in the order in which a stack of them opens and closes: what a track of Perfetto is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..intervals import Index, Int64


@dataclass(frozen=True, slots=True)
class Edges:
    """Beginnings and ends of the slices of one row, in order: of which slice, and whether it begins. Shape (2n,)."""

    slice: Index
    begins: npt.NDArray[np.bool_]


@dataclass(slots=True)
class _Row:
    """Slices of one row in order; for each its depth, and the place of the first slice that it does not hold."""

    slices: list[int] = field(default_factory=list)
    depth: list[int] = field(default_factory=list)
    stop: list[int] = field(default_factory=list)
    open_until: list[tuple[int, int]] = field(default_factory=list)

    def close(self, time: int) -> None:
        """Close what ends at a time or before it."""
        while self.open_until and self.open_until[-1][0] <= time:
            self.stop[self.open_until.pop()[1]] = len(self.slices)

    def open(self, number: int, end: int) -> None:
        self.depth.append(len(self.open_until))
        self.open_until.append((end, len(self.slices)))
        self.stop.append(0)
        self.slices.append(number)


def rows_of_slices(starts: Int64, ends: Int64, *, nest: bool) -> Iterator[Edges]:
    """Lay slices into as few rows as first come, first served needs, and return the edges of each row.

    Args:
        starts, ends: the slices, shape (n,), ordered by start, the longest first.
        nest: whether a slice may lie inside another one of its row; else it follows it.
    """
    if not len(starts):
        return
    if (starts[1:] >= ends[:-1]).all():
        yield _edges(np.arange(len(starts)), np.zeros(len(starts), np.intp), np.arange(1, len(starts) + 1))
        return
    rows: list[_Row] = []
    for number, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        for row in rows:
            row.close(start)
            if not row.open_until or (nest and end <= row.open_until[-1][0]):
                break
        else:
            row = _Row()
            rows.append(row)
        row.open(number, end)
    for row in rows:
        row.close(int(ends.max()))
        yield _edges(np.array(row.slices), np.array(row.depth), np.array(row.stop))


def _edges(slices: Index, depth: Index, stop: Index) -> Edges:
    """Return the edges of a row: before a slice begins, all before it have begun, and all but its holders ended."""
    place = np.arange(len(slices))
    begin, end = 2 * place - depth, 2 * stop - depth - 1
    order = np.empty(2 * len(slices), np.intp)
    order[begin], order[end] = slices, slices
    begins = np.zeros(2 * len(slices), np.bool_)
    begins[begin] = True
    return Edges(order, begins)
