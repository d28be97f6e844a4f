"""Kernels of one side matched to those of the other, across fusion.

1. A mapping of the user (glob of names before -> glob of names after) makes one group for each NVTX path that has both.
2. Kernels in the same NVTX path are aligned in their order, see `alignment`. The path is the longest one that both
   sides have: what a fused run launches under a range of its own counts as in the range around it. Matched are kernels
   with the same name and launch geometry, or else the same name, unless times say that the job is another one.
3. Kernels left over with the same name and geometry somewhere else in the iteration were moved, and match.
4. What is left between two neighbouring matches of a path belongs together: as many on both sides that are of the same
   families (names without template arguments) match one by one, anything else is a group of N before to M after. A side
   without partner is kept as only before or only after, and so are both sides where nothing at all was matched outside
   of NVTX ranges.

Rows that look the same (the layers of a model) are added up. Times are exact: all rows together are the kernel time of
each side.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..intervals import Index, Int64
from ..message import message
from ..nvtx import PATH_SEPARATOR
from .alignment import Tokens, align
from .sequence import Dim3, KernelKey, Sequence

Kind = Literal["one_to_one", "group", "only_before", "only_after"]
How = Literal["exact", "geometry", "moved", "family", "order", "mapping", "name", "none"]
# Executions and summed ns of the kernels of a run, by name.
NamedKernels = Mapping[str, tuple[int, int]]
Label = Literal["unchanged", "faster", "slower", "fused_away", "new"]

UNCHANGED = 0.02
# A kernel with another launch geometry that takes this much more or less time may do another job.
DOUBTFUL_FACTOR = 1.5
# The place of the path at the top of an iteration.
_TOP = 0
_NO_SHAPE: Dim3 = (0, 0, 0)
TOP_OF_ITERATION = message("(directly in the iteration)")
LABELS: Mapping[Label, str] = {
    "unchanged": message("unchanged"),
    "faster": message("faster"),
    "slower": message("slower"),
    "fused_away": message("fused away"),
    "new": message("new"),
}


@dataclass(frozen=True, slots=True)
class Member:
    """One kernel name on one side of a row: how many launch places of an iteration, and the most frequent shape."""

    name: str
    places: int
    grid: Dim3
    block: Dim3

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {"name": self.name, "places": self.places, "grid": list(self.grid), "block": list(self.block)}


@dataclass(frozen=True, slots=True)
class MatchedRow:
    """Kernels before that correspond to kernels after, in ns and executions of a mean iteration.

    `path` is the lowest NVTX range around all of them. `how` tells what matched them. `places` is how many such groups
    an iteration has; `before` and `after` list the kernels of all of them together.
    """

    kind: Kind
    how: How
    path: str
    before: tuple[Member, ...]
    after: tuple[Member, ...]
    places: int
    before_ns: Fraction
    after_ns: Fraction
    executions_before: Fraction
    executions_after: Fraction

    @property
    def delta_ns(self) -> Fraction:
        """What the row adds to the kernel time of a mean iteration."""
        return self.after_ns - self.before_ns

    @property
    def label(self) -> Label:
        """What became of it; `unchanged` is within 2 % of the time before."""
        if self.kind == "only_before":
            return "fused_away"
        if self.kind == "only_after":
            return "new"
        if abs(self.delta_ns) <= UNCHANGED * self.before_ns:
            return "unchanged"
        return "slower" if self.delta_ns > 0 else "faster"

    @property
    def is_fusion(self) -> bool:
        """Whether fewer kernels do what more did."""
        return self.kind == "group" and self.executions_after < self.executions_before

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON; times as numbers, and their difference exactly, too."""
        return {
            "kind": self.kind,
            "how": self.how,
            "label": self.label,
            "is_fusion": self.is_fusion,
            "path": self.path,
            "places": self.places,
            "before": [member.to_dict() for member in self.before],
            "after": [member.to_dict() for member in self.after],
            "before_ns": float(self.before_ns),
            "after_ns": float(self.after_ns),
            "delta_ns": float(self.delta_ns),
            "delta_exact": str(self.delta_ns),
            "executions_before": float(self.executions_before),
            "executions_after": float(self.executions_after),
        }


@dataclass(frozen=True, slots=True)
class MatchQuality:
    """Shares of the kernel time of both sides, 0 to 1, that add up to 1; all 0 where there is no kernel time."""

    one_to_one: float
    grouped: float
    only_before: float
    only_after: float

    @property
    def unmatched(self) -> float:
        """Share without a partner."""
        return self.only_before + self.only_after

    def to_dict(self) -> dict[str, Any]:
        """Return the fields under their own names, and `unmatched`."""
        return {name: getattr(self, name) for name in self.__slots__} | {"unmatched": self.unmatched}


@dataclass(frozen=True, slots=True)
class Matching:
    """All kernels of both sides in rows, the largest change of time first.

    Raises:
        AssertionError: the rows do not add up to the kernel time of a side.
    """

    rows: tuple[MatchedRow, ...]
    before_ns: Fraction
    after_ns: Fraction
    unused_mappings: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        sides = (
            sum((row.before_ns for row in self.rows), Fraction(0)),
            sum((r.after_ns for r in self.rows), Fraction()),
        )
        if sides != (self.before_ns, self.after_ns):
            raise AssertionError("the matched rows do not add up to the kernel time")

    @property
    def delta_ns(self) -> Fraction:
        """Change of the kernel time of a mean iteration."""
        return self.after_ns - self.before_ns

    @property
    def quality(self) -> MatchQuality:
        """How much of the time was matched, and how."""
        whole = self.before_ns + self.after_ns

        def share(kind: Kind) -> float:
            mine = sum((row.before_ns + row.after_ns for row in self.rows if row.kind == kind), Fraction(0))
            return float(mine / whole) if whole else 0.0

        return MatchQuality(share("one_to_one"), share("group"), share("only_before"), share("only_after"))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {
            "before_ns": float(self.before_ns),
            "after_ns": float(self.after_ns),
            "delta_ns": float(self.delta_ns),
            "quality": self.quality.to_dict(),
            "unused_mappings": list(self.unused_mappings),
            "rows": [row.to_dict() for row in self.rows],
        }


@dataclass(frozen=True, slots=True)
class _Side:
    """Slots of one side with ids that both sides share."""

    sequence: Sequence
    exact: Index
    name: Index
    family: Index
    place: Index

    def tokens(self, slots: Index) -> Tokens:
        time = self.sequence.total_ns[slots] / np.maximum(self.sequence.executions[slots], 1)
        return Tokens(self.exact[slots], self.name[slots], time)


@dataclass(frozen=True, slots=True)
class _Group:
    """Slots of both sides that correspond."""

    how: How
    before: Index
    after: Index


def match_kernels(before: Sequence, after: Sequence, mapping: Mapping[str, str] | None = None) -> Matching:
    """Match the kernels of two sides.

    Args:
        before, after: the typical sequences, several runs merged.
        mapping: globs of kernel names before to globs of names after; they override everything else.
    """
    left, right, paths = _shared(before, after)
    free_left, free_right = np.ones(len(before), np.bool_), np.ones(len(after), np.bool_)
    groups: list[_Group] = []
    unused = []
    for pattern, replacement in (mapping or {}).items():
        made = _mapped(left, right, free_left, free_right, pattern, replacement)
        groups += made
        if not made:
            unused.append(f"{pattern} -> {replacement}")
    pairs, anchors = _pairs(left, right, free_left, free_right, len(paths))
    groups += _between(left, right, free_left, free_right, anchors, len(paths))
    rows = [*_single_rows(left, right, pairs), *_group_rows(left, right, groups)]
    rows.sort(key=_by_change)
    return Matching(
        tuple(rows),
        Fraction(int(before.total_ns.sum()), before.iterations),
        Fraction(int(after.total_ns.sum()), after.iterations),
        tuple(unused),
    )


def match_names(before: Items[NamedKernels], after: Items[NamedKernels], iterations: tuple[int, int]) -> Matching:
    """Match the kernels of two sides by their full name alone, where nothing but sums is known.

    Kernels that became others through fusion have no partner then.

    Args:
        before, after: the runs of each side.
        iterations: of all runs of each side together.
    """
    sides = [_added(runs) for runs in (before, after)]
    rows = []
    for name in dict.fromkeys((*sides[0], *sides[1])):
        members, numbers = [], []
        for side, count in zip(sides, iterations, strict=True):
            executions, total = side.get(name, (0, 0))
            places = max(round(executions / count), 1)
            members.append((Member(name, places, _NO_SHAPE, _NO_SHAPE),) if name in side else ())
            numbers.append((Fraction(total, count), Fraction(executions, count)))
        kind: Kind = "one_to_one" if all(members) else "only_before" if members[0] else "only_after"
        rows.append(
            MatchedRow(
                kind,
                "name" if all(members) else "none",
                "",
                members[0],
                members[1],
                1,
                numbers[0][0],
                numbers[1][0],
                numbers[0][1],
                numbers[1][1],
            )
        )
    rows.sort(key=_by_change)
    sums = [sum((total for _, total in side.values()), 0) for side in sides]
    return Matching(tuple(rows), Fraction(sums[0], iterations[0]), Fraction(sums[1], iterations[1]))


def _added(runs: Items[NamedKernels]) -> dict[str, tuple[int, int]]:
    made: dict[str, tuple[int, int]] = {}
    for run in runs:
        for name, (executions, total) in run.items():
            known = made.get(name, (0, 0))
            made[name] = (known[0] + executions, known[1] + total)
    return made


def _by_change(row: MatchedRow) -> tuple[Fraction, Fraction, str, str]:
    return -abs(row.delta_ns), -row.before_ns - row.after_ns, row.path, str((row.before, row.after))


def _shared(before: Sequence, after: Sequence) -> tuple[_Side, _Side, list[str]]:
    places: dict[str, int] = {"": 0}
    prefixes = [{prefix for key in side.keys for prefix in _prefixes(key.path)} for side in (before, after)]
    common = prefixes[0] & prefixes[1]
    exact: dict[object, int] = {}
    name: dict[object, int] = {}
    family: dict[object, int] = {}

    def side(sequence: Sequence) -> _Side:
        def ids(known: dict[object, int], values: Iterable[object]) -> Index:
            own = np.array([known.setdefault(value, len(known)) for value in values], np.intp)
            return own[sequence.key] if len(own) else np.empty(0, np.intp)

        keys = sequence.keys
        return _Side(
            sequence,
            ids(exact, ((key.name, key.grid, key.block) for key in keys)),
            ids(name, (key.name for key in keys)),
            ids(family, (key.family for key in keys)),
            ids(places, (next(p for p in _prefixes(key.path) if p in common or not p) for key in keys)),  # type: ignore[arg-type]
        )

    return side(before), side(after), list(places)


def _prefixes(path: str) -> list[str]:
    """Return a path and those around it, the innermost first, the top of the iteration last."""
    parts = path.split(PATH_SEPARATOR) if path else []
    return [PATH_SEPARATOR.join(parts[:length]) for length in range(len(parts), -1, -1)]


def _mapped(
    left: _Side,
    right: _Side,
    free_left: npt.NDArray[np.bool_],
    free_right: npt.NDArray[np.bool_],
    pattern: str,
    replacement: str,
) -> list[_Group]:
    def named(side: _Side, glob: str) -> npt.NDArray[np.bool_]:
        hit = [
            fnmatch.fnmatchcase(key.name, glob) or fnmatch.fnmatchcase(key.family, glob) for key in side.sequence.keys
        ]
        return np.array([*hit, False])[side.sequence.key]

    mine, theirs = named(left, pattern) & free_left, named(right, replacement) & free_right
    made = []
    for place in sorted(set(left.place[mine].tolist()) & set(right.place[theirs].tolist())):
        i, j = np.flatnonzero(mine & (left.place == place)), np.flatnonzero(theirs & (right.place == place))
        free_left[i], free_right[j] = False, False
        made.append(_Group("mapping", i, j))
    return made


def _pairs(
    left: _Side,
    right: _Side,
    free_left: npt.NDArray[np.bool_],
    free_right: npt.NDArray[np.bool_],
    places: int,
) -> tuple[dict[How, tuple[Index, Index]], list[tuple[Index, Index]]]:
    """Match one to one; return the pairs by how they matched, and those in order (anchors) for each path."""
    anchors = []
    for mine, theirs in zip(_by_place(left, free_left, places), _by_place(right, free_right, places), strict=True):
        a, b = left.tokens(mine), right.tokens(theirs)
        i, j = _without_doubtful(a, b, *align(a, b))
        anchors.append((mine[i], theirs[j]))
    i, j = (np.concatenate([pair[side] for pair in anchors]) for side in (0, 1))
    free_left[i], free_right[j] = False, False
    same = left.exact[i] == right.exact[j]
    moved_i, moved_j = _moved(left, right, free_left, free_right)
    free_left[moved_i], free_right[moved_j] = False, False
    return {"exact": (i[same], j[same]), "geometry": (i[~same], j[~same]), "moved": (moved_i, moved_j)}, anchors


def _without_doubtful(a: Tokens, b: Tokens, i: Index, j: Index) -> tuple[Index, Index]:
    """Drop pairs by name alone that stand beside unmatched kernels and take quite different times.

    Generic kernels (copies, element-wise wrappers) have one name for many jobs: such a pair is rather part of a group.
    """
    neighbours = np.zeros(len(i), np.bool_)
    for side, chosen in ((a, i), (b, j)):
        is_free = np.ones(len(side) + 2, np.bool_)
        is_free[chosen + 1] = False
        is_free[[0, -1]] = False
        neighbours |= is_free[chosen] | is_free[chosen + 2]
    times = np.maximum(a.time[i], 1.0), np.maximum(b.time[j], 1.0)
    factor = np.maximum(times[0] / times[1], times[1] / times[0])
    keep = (a.exact[i] == b.exact[j]) | ~neighbours | (factor <= DOUBTFUL_FACTOR)
    return i[keep], j[keep]


def _by_place(side: _Side, free: npt.NDArray[np.bool_], places: int) -> list[Index]:
    slots = np.flatnonzero(free)
    order = np.argsort(side.place[slots], kind="stable")
    return np.split(slots[order], np.cumsum(np.bincount(side.place[slots], minlength=places))[:-1])


def _moved(
    left: _Side, right: _Side, free_left: npt.NDArray[np.bool_], free_right: npt.NDArray[np.bool_]
) -> tuple[Index, Index]:
    """Match what is left by name and geometry alone, the k-th of one side with the k-th of the other.

    Those in the same path go first.
    """
    made: list[tuple[Index, Index]] = []
    i, j = np.flatnonzero(free_left), np.flatnonzero(free_right)
    for with_path in (True, False):
        a = left.exact[i] if not with_path else left.exact[i] * (int(left.place.max(initial=0)) + 1) + left.place[i]
        scale = int(left.place.max(initial=0)) + 1
        b = (
            right.exact[j]
            if not with_path
            else np.where(right.place[j] < scale, right.exact[j] * scale + right.place[j], -1)
        )
        p, q = _kth_with_kth(a, b)
        made.append((i[p], j[q]))
        i, j = np.delete(i, p), np.delete(j, q)
    return np.concatenate([pair[0] for pair in made]), np.concatenate([pair[1] for pair in made])


def _kth_with_kth(a: Index, b: Index) -> tuple[Index, Index]:
    """Return places of equal values in both lists, as many of each as both have."""
    ids, inverse = np.unique(np.concatenate((a, b)), return_inverse=True)
    numbered = []
    for side in (inverse[: len(a)], inverse[len(a) :]):
        order = np.argsort(side, kind="stable")
        count = np.bincount(side, minlength=len(ids))
        number = np.empty(len(side), np.int64)
        number[order] = np.arange(len(side)) - np.repeat(np.cumsum(count) - count, count)
        numbered.append(number * len(ids) + side)
    _, p, q = np.intersect1d(numbered[0], numbered[1], assume_unique=True, return_indices=True)
    return p, q


def _between(
    left: _Side,
    right: _Side,
    free_left: npt.NDArray[np.bool_],
    free_right: npt.NDArray[np.bool_],
    anchors: list[tuple[Index, Index]],
    places: int,
) -> list[_Group]:
    """Group what is left between neighbouring anchors of a path."""
    groups: list[_Group] = []
    rest = zip(_by_place(left, free_left, places), _by_place(right, free_right, places), anchors, strict=True)
    for place, (mine, theirs, (i, j)) in enumerate(rest):
        # Slots and anchors of a path ascend, so the gap of a slot is the number of anchors before it.
        gap_left, gap_right = np.searchsorted(i, mine), np.searchsorted(j, theirs)
        for gap in np.union1d(gap_left, gap_right).tolist():
            a = mine[slice(*np.searchsorted(gap_left, (gap, gap + 1)))]
            b = theirs[slice(*np.searchsorted(gap_right, (gap, gap + 1)))]
            if len(a) == len(b) and (left.family[a] == right.family[b]).all():
                groups += [_Group("family", a[n : n + 1], b[n : n + 1]) for n in range(len(a))]
            elif place == _TOP and not len(i) and len(a) and len(b):
                # Neither an NVTX range nor a kernel in common says that these belong together.
                groups += [_Group("none", a, b[:0]), _Group("none", a[:0], b)]
            else:
                groups.append(_Group("order" if len(a) and len(b) else "none", a, b))
    return groups


def _single_rows(left: _Side, right: _Side, pairs: Mapping[How, tuple[Index, Index]]) -> Iterable[MatchedRow]:
    width = len(right.sequence.keys)
    for how, (i, j) in pairs.items():
        both, inverse = np.unique(left.sequence.key[i] * width + right.sequence.key[j], return_inverse=True)
        sums = [
            _sums(inverse, values, len(both))
            for values in (
                left.sequence.total_ns[i],
                right.sequence.total_ns[j],
                left.sequence.executions[i],
                right.sequence.executions[j],
            )
        ]
        places = np.bincount(inverse, minlength=len(both)).tolist()
        for number, value in enumerate(both.tolist()):
            a, b = left.sequence.keys[value // width], right.sequence.keys[value % width]
            count = places[number]
            yield _row(
                left,
                right,
                how,
                _common_path((a.path, b.path)),
                (Member(a.name, count, a.grid, a.block),),
                (Member(b.name, count, b.grid, b.block),),
                count,
                [int(values[number]) for values in sums],
            )


def _sums(inverse: Index, values: Int64, size: int) -> Int64:
    total = np.zeros(size, np.int64)
    np.add.at(total, inverse, values)
    return total


def _group_rows(left: _Side, right: _Side, groups: list[_Group]) -> Iterable[MatchedRow]:
    """Add up groups of the same kernels in the same path."""
    collected: dict[tuple[How, tuple[int, ...], tuple[int, ...]], tuple[list[int], int]] = {}
    for group in groups:
        mine, theirs = (
            tuple(side.sequence.key[slots].tolist()) for side, slots in ((left, group.before), (right, group.after))
        )
        sums = [
            int(values[slots].sum())
            for values, slots in (
                (left.sequence.total_ns, group.before),
                (right.sequence.total_ns, group.after),
                (left.sequence.executions, group.before),
                (right.sequence.executions, group.after),
            )
        ]
        known, count = collected.get((group.how, mine, theirs), ([0, 0, 0, 0], 0))
        collected[group.how, mine, theirs] = ([a + b for a, b in zip(known, sums, strict=True)], count + 1)
    for (how, own, others), (sums, count) in collected.items():
        keys = [[side.sequence.keys[key] for key in numbers] for side, numbers in ((left, own), (right, others))]
        path = _common_path([key.path for side in keys for key in side])
        yield _row(left, right, how, path, _members(keys[0], count), _members(keys[1], count), count, sums)


def _members(keys: list[KernelKey], count: int) -> tuple[Member, ...]:
    """Return the names of kernels in the order in which they come first, each with its most frequent shape."""
    shapes: dict[str, dict[tuple[Dim3, Dim3], int]] = {}
    for key in keys:
        mine = shapes.setdefault(key.name, {})
        mine[key.grid, key.block] = mine.get((key.grid, key.block), 0) + 1
    return tuple(
        Member(name, sum(mine.values()) * count, *max(mine, key=lambda shape: mine[shape]))
        for name, mine in shapes.items()
    )


def _row(
    left: _Side,
    right: _Side,
    how: How,
    path: str,
    before: tuple[Member, ...],
    after: tuple[Member, ...],
    count: int,
    sums: list[int],
) -> MatchedRow:
    sizes = (sum(member.places for member in before), sum(member.places for member in after))
    kind: Kind = "group"
    if not after:
        kind = "only_before"
    elif not before:
        kind = "only_after"
    elif sizes == (count, count):
        kind = "one_to_one"
    iterations = (left.sequence.iterations, right.sequence.iterations) * 2
    exact = [Fraction(value, number) for value, number in zip(sums, iterations, strict=True)]
    return MatchedRow(kind, how, path, before, after, count, *exact)


def _common_path(paths: Iterable[str]) -> str:
    """Return the lowest path that is around all of these."""
    parts = [path.split(PATH_SEPARATOR) if path else [] for path in paths]
    shared: list[str] = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return PATH_SEPARATOR.join(shared)
