"""Alignment of two sequences of kernels: which place of one is which of the other, in order.

Small stretches are aligned exactly: dynamic programming over pairs that score by the time they hold, an exact match
(name and launch geometry) more than one of the name alone, and gaps cost nothing. Long ones are first cut at anchors:
what begins or ends them on both sides, then tokens that occur once on both sides, then tokens that occur equally often
on both sides (the k-th with the k-th), of each the longest run in the same order. Where a long stretch has no anchor,
the dynamic programming stays within a band around its diagonal. For n and m places the work is O((n + m) log(n + m)),
plus n x m for stretches of up to a million pairs, plus n x 512 for those without anchors.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..intervals import Index

Float64 = npt.NDArray[np.float64]

EXACT, SAME_NAME = 1.0, 0.6
# Every place weighs something, whatever its time.
_LEAST_WEIGHT = 0.1
_MOST_PAIRS = 1_000_000
_HALF_BAND = 256
# Cells of the table that are made at once: few enough to stay in the cache of a core.
_CELLS_AT_ONCE = 1 << 17
_LONGEST_REMEMBERED = 64
_SKIP_ROW, _SKIP_COLUMN, _TAKE = range(3)


@dataclass(frozen=True, slots=True)
class Tokens:
    """A sequence to align: ids of name with geometry and of name, shared by both sides, and the time of each place."""

    exact: Index
    name: Index
    time: Float64

    def __len__(self) -> int:
        return len(self.exact)

    def part(self, start: int, stop: int) -> Tokens:
        """Return a stretch."""
        return Tokens(self.exact[start:stop], self.name[start:stop], self.time[start:stop])


def align(left: Tokens, right: Tokens) -> tuple[Index, Index]:
    """Return the matched places of both sides, ascending on both, shape (matches,)."""
    mean = (left.time.sum() + right.time.sum()) / max(len(left) + len(right), 1) or 1.0
    left, right = (Tokens(side.exact, side.name, side.time / mean + _LEAST_WEIGHT) for side in (left, right))
    pairs: list[tuple[Index, Index]] = []
    remembered: dict[bytes, tuple[Index, Index]] = {}
    stack = [(0, len(left), 0, len(right))]
    while stack:
        first, stop, other, other_stop = stack.pop()
        first, stop, other, other_stop = _without_ends(left, right, (first, stop, other, other_stop), pairs)
        if first == stop or other == other_stop:
            continue
        a, b = left.part(first, stop), right.part(other, other_stop)
        if not np.isin(a.name, b.name).any():
            continue
        if len(a) * len(b) <= _MOST_PAIRS:
            i, j = _small(a, b, remembered)
            pairs.append((i + first, j + other))
            continue
        i, j = _anchors(a, b, is_unique=True)
        if not len(i):
            i, j = _anchors(a, b, is_unique=False)
        if not len(i):
            i, j = _best(a, b, _HALF_BAND)
            pairs.append((i + first, j + other))
            continue
        i, j = i + first, j + other
        pairs.append((i, j))
        starts = zip((first, *(i + 1).tolist()), (*i.tolist(), stop), strict=True)
        others = zip((other, *(j + 1).tolist()), (*j.tolist(), other_stop), strict=True)
        stack.extend((p, q, r, s) for (p, q), (r, s) in zip(starts, others, strict=True) if p < q and r < s)
    if not pairs:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    i, j = (np.concatenate(side) for side in zip(*pairs, strict=True))
    order = np.argsort(i)
    return i[order], j[order]


def _without_ends(
    left: Tokens, right: Tokens, span: tuple[int, int, int, int], pairs: list[tuple[Index, Index]]
) -> tuple[int, int, int, int]:
    """Match equal places at both ends and return what is between them."""
    first, stop, other, other_stop = span
    size = min(stop - first, other_stop - other)
    same = left.exact[first : first + size] == right.exact[other : other + size]
    front = size if same.all() else int(np.argmin(same))
    size -= front
    same = left.exact[stop - size : stop][::-1] == right.exact[other_stop - size : other_stop][::-1]
    back = size if same.all() else int(np.argmin(same))
    for start, other_start, count in ((first, other, front), (stop - back, other_stop - back, back)):
        if count:
            pairs.append((np.arange(start, start + count), np.arange(other_start, other_start + count)))
    return first + front, stop - back, other + front, other_stop - back


def _anchors(a: Tokens, b: Tokens, *, is_unique: bool) -> tuple[Index, Index]:
    """Return places of tokens that occur once, or equally often, on both sides: the longest run in the same order."""
    ids, inverse = np.unique(np.concatenate((a.exact, b.exact)), return_inverse=True)
    in_a, in_b = inverse[: len(a)], inverse[len(a) :]
    count_a, count_b = (np.bincount(side, minlength=len(ids)) for side in (in_a, in_b))
    good = (count_a == 1) & (count_b == 1) if is_unique else (count_a == count_b) & (count_a > 0)
    # Sorted stably by token, the k-th of one side stands where the k-th of the other does.
    i = np.argsort(in_a, kind="stable")
    j = np.argsort(in_b, kind="stable")
    i, j = i[good[in_a[i]]], j[good[in_b[j]]]
    order = np.argsort(i)
    i, j = i[order], j[order]
    kept = _longest_ascending(j.tolist())
    return i[kept], j[kept]


def _longest_ascending(values: list[int]) -> Index:
    """Return the places of a longest strictly ascending subsequence."""
    tails: list[int] = []
    tail_places: list[int] = []
    before = [-1] * len(values)
    for place, value in enumerate(values):
        length = bisect_left(tails, value)
        if length == len(tails):
            tails.append(value)
            tail_places.append(place)
        else:
            tails[length], tail_places[length] = value, place
        before[place] = tail_places[length - 1] if length else -1
    kept: list[int] = []
    place = tail_places[-1] if tail_places else -1
    while place >= 0:
        kept.append(place)
        place = before[place]
    return np.array(kept[::-1], np.intp)


def _small(a: Tokens, b: Tokens, remembered: dict[bytes, tuple[Index, Index]]) -> tuple[Index, Index]:
    """Align exactly; short stretches that come again, as the layers of a model do, are aligned in the same way."""
    if len(a) + len(b) > _LONGEST_REMEMBERED:
        return _best(a, b, len(a) + len(b))
    memory = a.exact.tobytes() + b"|" + b.exact.tobytes()
    if memory not in remembered:
        remembered[memory] = _best(a, b, len(a) + len(b))
    return remembered[memory]


def _best(a: Tokens, b: Tokens, half_band: int) -> tuple[Index, Index]:
    """Return the alignment with the highest score whose places lie within a band around the diagonal.

    With free gaps a row of the table is a running maximum. What can be computed for many rows at once is, so that a row
    itself costs three operations on its columns.
    """
    n, m = len(a), len(b)
    width = min(2 * half_band + 1, m)
    lows = np.clip(np.arange(n) * m // n - half_band, 0, m - width)
    # best[c] is the score of the best alignment of the rows so far with the columns below low + c.
    best = np.zeros(width + 1)
    moves = np.zeros((n, width), np.uint8)
    at_once = max(_CELLS_AT_ONCE // width, 1)
    for first in range(0, n, at_once):
        part = slice(first, min(first + at_once, n))
        gain = _gains(a, b, part, lows[part], width)
        before, after = np.empty((2, len(gain), width + 1))
        for row, low in enumerate(lows[part].tolist(), start=first):
            step = low - int(lows[max(row - 1, 0)])
            if step:
                best = np.concatenate((best[step:], np.full(min(step, width + 1), best[-1])))[: width + 1]
            here = after[row - first]
            before[row - first] = best
            np.add(best[:-1], gain[row - first], out=here[1:])
            here[0] = best[0]
            np.maximum(here, best, out=here)
            np.maximum.accumulate(here, out=here)
            best = here
        best = best.copy()
        moves[part] = np.where(
            after[:, 1:] == before[:, 1:], _SKIP_ROW, np.where(after[:, 1:] == after[:, :-1], _SKIP_COLUMN, _TAKE)
        )
    rows: list[int] = []
    columns: list[int] = []
    row, column = n - 1, m - 1
    while row >= 0 and column >= 0:
        low = int(lows[row])
        column = min(column, low + width - 1)
        move = moves[row, column - low] if column >= low else _SKIP_ROW
        if move == _TAKE:
            rows.append(row)
            columns.append(column)
        if move != _SKIP_COLUMN:
            row -= 1
        if move != _SKIP_ROW:
            column -= 1
    return np.array(rows[::-1], np.intp), np.array(columns[::-1], np.intp)


def _gains(a: Tokens, b: Tokens, rows: slice, lows: Index, width: int) -> Float64:
    """Return what matching each of some rows with each column of its band adds to the score, shape (rows, width)."""
    exact, name, time = b.exact, b.name, b.time
    if width < len(b):
        columns = lows[:, None] + np.arange(width)
        exact, name, time = exact[columns], name[columns], time[columns]
    quality = np.where(name == a.name[rows, None], SAME_NAME, 0.0)
    quality[exact == a.exact[rows, None]] = EXACT
    quality *= time + a.time[rows, None]
    return quality
