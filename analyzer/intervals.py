"""Arithmetic of half-open integer intervals [start, end): the only copy in the project.

All arrays are int64 of shape (n,). "Disjoint" means sorted by start and not overlapping; touching is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Index = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Intervals:
    """Starts and ends, int64, shape (n,)."""

    starts: Int64
    ends: Int64

    @property
    def total(self) -> int:
        """Sum of the lengths; the covered time only where the intervals are disjoint."""
        return int((self.ends - self.starts).sum())

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(frozen=True, slots=True)
class Pieces:
    """Non-empty intersections of two disjoint lists, and the row of each list that they come from."""

    left: Index
    right: Index
    starts: Int64
    ends: Int64


EMPTY = Intervals(np.empty(0, np.int64), np.empty(0, np.int64))


def clip(starts: Int64, ends: Int64, low: int, high: int) -> Intervals:
    """Cut every interval to [low, high); one that lies outside keeps its place with length 0."""
    return Intervals(np.clip(starts, low, high), np.clip(ends, low, high))


def running_end(ends: Int64) -> Int64:
    """Return for each interval (sorted by start) the latest end among it and those before it."""
    return np.maximum.accumulate(ends)


def union(starts: Int64, ends: Int64) -> Intervals:
    """Merge overlapping and touching intervals.

    Args:
        starts, ends: any order. Intervals of length 0 are left out.

    Returns:
        Disjoint intervals that do not touch each other.
    """
    keep = ends > starts
    starts, ends = starts[keep], ends[keep]
    if not len(starts):
        return EMPTY
    if (np.diff(starts) < 0).any():
        order = np.argsort(starts, kind="stable")
        starts, ends = starts[order], ends[order]
    latest = running_end(ends)
    first = np.concatenate(([True], starts[1:] > latest[:-1]))
    last = np.concatenate((np.flatnonzero(first)[1:] - 1, [len(starts) - 1]))
    return Intervals(starts[first], latest[last])


def gaps(busy: Intervals, low: int, high: int) -> Intervals:
    """Return the parts of [low, high) that the disjoint intervals `busy` leave uncovered, without empty ones."""
    inside = clip(busy.starts, busy.ends, low, high)
    starts = np.concatenate(([low], inside.ends))
    ends = np.concatenate((inside.starts, [high]))
    keep = ends > starts
    return Intervals(starts[keep], ends[keep])


def intersect(left: Intervals, right: Intervals) -> Pieces:
    """Return every non-empty intersection of an interval of `left` with one of `right`, in ascending order.

    Args:
        left, right: each disjoint.
    """
    first = np.searchsorted(right.ends, left.starts, side="right")
    stop = np.searchsorted(right.starts, left.ends, side="left")
    counts = np.maximum(stop - first, 0)
    left_row = np.repeat(np.arange(len(left)), counts)
    offset = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    right_row = np.repeat(first, counts) + offset
    starts = np.maximum(left.starts[left_row], right.starts[right_row])
    ends = np.minimum(left.ends[left_row], right.ends[right_row])
    keep = ends > starts
    if not keep.all():
        left_row, right_row, starts, ends = left_row[keep], right_row[keep], starts[keep], ends[keep]
    return Pieces(left_row, right_row, starts, ends)


def overlap_of(left: Intervals, right: Intervals) -> int:
    """Return how long both disjoint lists are covered at the same time, in ns."""
    pieces = intersect(left, right)
    return int((pieces.ends - pieces.starts).sum())


def subtract(left: Intervals, right: Intervals) -> Pieces:
    """Return what is left of `left` (disjoint) where `right` (disjoint) does not cover it.

    `Pieces.left` is the row of `left`; `Pieces.right` is the row of the complement of `right`.
    """
    if not len(left):
        return Pieces(np.empty(0, np.intp), np.empty(0, np.intp), EMPTY.starts, EMPTY.ends)
    return intersect(left, gaps(right, int(left.starts[0]), int(left.ends.max())))


def covered_before(busy: Intervals, times: Int64) -> Int64:
    """Return for each time how many ns before it the disjoint intervals `busy` cover.

    The covered part of [a, b) is then `covered_before(busy, b) - covered_before(busy, a)`.
    """
    if not len(busy):
        return np.zeros(len(times), np.int64)
    lengths = busy.ends - busy.starts
    before = np.concatenate(([0], np.cumsum(lengths)))
    row = np.searchsorted(busy.starts, times, side="right")
    inside = np.minimum(times - busy.starts[np.maximum(row - 1, 0)], lengths[np.maximum(row - 1, 0)])
    return np.asarray(before[np.maximum(row - 1, 0)] + np.where(row > 0, inside, 0), np.int64)
