"""Questions about which intervals lie inside which, answered by sweeps.

The intervals are first split into chains: in a chain, starts and ends both ascend. The members of a chain that lie
inside (or around) a given interval are then neighbours, found with two binary searches, and their minimum comes from
a table of minima over powers of two. Intervals that nest d deep need d chains, so n intervals and q questions take
O(d (n + q) log n) steps in array operations, whatever the intervals look like.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..intervals import Index, Int64, Intervals

NONE = np.iinfo(np.int64).max


def chains(intervals: Intervals) -> Iterator[Index]:
    """Yield rows of `intervals` such that starts and ends ascend along each yield; every row comes once.

    An interval comes no later than those it contains.
    """
    rows = np.lexsort((-intervals.ends, intervals.starts))
    while len(rows):
        ends = intervals.ends[rows]
        outermost = ends >= np.maximum.accumulate(ends)
        yield rows[outermost]
        rows = rows[~outermost]


def window_minimum(values: Int64, first: Index, stop: Index) -> Int64:
    """Return the minimum of `values[first:stop]` for each pair of bounds, `NONE` where the window is empty."""
    result = np.full(len(first), NONE, np.int64)
    lengths = np.maximum(stop - first, 0)
    # frexp(n) gives n = m · 2**e with m in [0.5, 1): the largest power of two that fits into n is 2**(e - 1).
    levels = np.frexp(lengths.astype(np.float64))[1] - 1
    table = values
    for level in range(int(levels.max(initial=-1)) + 1):
        here = np.flatnonzero(levels == level)
        width = 1 << level
        result[here] = np.minimum(table[first[here]], table[stop[here] - width])
        table = np.minimum(table[:-width], table[width:])
    return result


def smallest_container(intervals: Intervals) -> Index:
    """Return for each interval the row of the shortest other one that contains it, -1 where there is none.

    Equal intervals contain each other. Among containers of one length the first row wins.
    """
    count = len(intervals)
    by_length = np.argsort(intervals.ends - intervals.starts, kind="stable")
    rank = np.empty(count, np.int64)
    rank[by_length] = np.arange(count)
    best = np.full(count, NONE, np.int64)
    pending = np.ones(count, bool)
    for chain in chains(intervals):
        # Only this chain and later ones can hold intervals inside a member of this chain.
        inner = np.flatnonzero(pending)
        first = np.searchsorted(intervals.ends[chain], intervals.ends[inner], side="left")
        stop = np.searchsorted(intervals.starts[chain], intervals.starts[inner], side="right")
        position = np.full(count, -1, np.intp)
        position[chain] = np.arange(len(chain))
        own = position[inner]
        # A member of the chain is not its own container: look on either side of it.
        before = window_minimum(rank[chain], first, np.where(own >= 0, own, stop))
        after = window_minimum(rank[chain], np.where(own >= 0, own + 1, stop), stop)
        best[inner] = np.minimum(best[inner], np.minimum(before, after))
        pending[chain] = False
    found = best != NONE
    return np.where(found, by_length[np.where(found, best, 0)], -1)


def depths(parents: Index) -> tuple[Int64, Index]:
    """Return how many parents each row has above it, and which rows hang in a cycle and so have no depth.

    Args:
        parents: row of the parent, -1 for none.

    Returns:
        The depths, 0 without a parent, and a boolean array that is true for the rows without a depth.
    """
    count = len(parents)
    # The extra row at the end stands for "above the top": it is its own parent, at no distance.
    jump = np.append(np.where(parents < 0, count, parents), count)
    distance = np.append(np.where(parents < 0, 0, 1), 0)
    for _ in range(max(count, 1).bit_length()):
        distance = distance + distance[jump]
        jump = jump[jump]
    return distance[:count], jump[:count] != count
