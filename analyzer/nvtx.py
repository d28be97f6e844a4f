"""NVTX ranges: nesting, paths, what a thread is in at a moment, and projections onto the GPU.

A CPU-side range does not contain the work it launches. Its projection on a device runs from the first start to
the last end of the operations whose launch call lies inside the range on the same thread.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from .intervals import Index, Int64, Intervals
from .operations import NO_ROW, Operations
from .tables import enum_texts
from .trace import Trace

PUSH_POP, START_END = 59, 60
_RANGE_TYPES = (PUSH_POP, START_END, 70, 71)
_PROCESS_MASK = ~0xFFFFFF
UNNAMED = "(no message)"
PATH_SEPARATOR = " > "

_NUMBER = re.compile(r"\d+")
_COUNTER_AT_END = re.compile(r"([ :=#(\[]\s*)\d+([)\]]?)$")


def family_of(name: str) -> str:
    """Return the name with every number replaced by `#`: what names that differ only by a number share."""
    return _NUMBER.sub("#", name)


def without_counter(name: str) -> str:
    """Return the name with a counter at its end replaced by `#`, as in `infer:7` and `op_id = 12`.

    A number that belongs to the name (`conv2`, `layers.3`) stays.
    """
    return _COUNTER_AT_END.sub(r"\1#\2", name)


@dataclass(frozen=True, slots=True)
class Ranges:
    """NVTX ranges as parallel arrays of shape (n,), ordered by (thread, start, longest first).

    `parent` is the position of the smallest range around a range on its thread, or -1; `path` is an index into
    `paths`, the chain of names from the outermost range down with counters replaced by `#`. `name` is an index into
    `names`, where a range of a named domain reads `domain:text` as in NVIDIA's reports. A range that the capture
    did not see end lasts until the last NVTX event. On `tangled_threads`, ranges overlap without nesting.
    """

    starts: Int64
    ends: Int64
    thread: Int64
    name: npt.NDArray[np.int32]
    parent: Index
    depth: npt.NDArray[np.int32]
    path: npt.NDArray[np.int32]
    payload: Int64
    has_payload: npt.NDArray[np.bool_]
    names: tuple[str, ...]
    paths: tuple[str, ...]
    tangled_threads: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.starts)

    def innermost(self, global_tid: int) -> tuple[Intervals, npt.NDArray[np.int32]]:
        """Return when a thread was in which range: disjoint intervals and the path of the innermost range of each.

        Moments outside all ranges are in no interval.
        """
        mine = np.flatnonzero((self.thread == global_tid) & (self.ends > self.starts))
        moments = np.concatenate((self.starts[mine], self.ends[mine]))
        # Ends come before starts at the same moment; of two ends the inner one comes first.
        kinds = np.concatenate((np.ones(len(mine), np.int8), np.zeros(len(mine), np.int8)))
        depths = np.concatenate((self.depth[mine], -self.depth[mine]))
        order = np.lexsort((depths, kinds, moments))
        inside_after = np.concatenate((mine, self.parent[mine]))[order]
        if global_tid in self.tangled_threads:
            inside_after = self._innermost_by_sweep(np.concatenate((mine, mine))[order], kinds[order])
        starts, ends = moments[order][:-1], moments[order][1:]
        keep = (ends > starts) & (inside_after[:-1] >= 0)
        return Intervals(starts[keep], ends[keep]), self.path[inside_after[:-1][keep]]

    def _innermost_by_sweep(self, rows: Index, is_start: npt.NDArray[np.int8]) -> Index:
        """Return the innermost open range after each event: the deepest, and of equals the one begun last."""
        open_rows: list[int] = []
        innermost = np.full(len(rows), NO_ROW, np.intp)
        for position, (row, begins) in enumerate(zip(rows.tolist(), is_start.tolist(), strict=True)):
            if begins:
                open_rows.append(row)
            elif row in open_rows:
                open_rows.remove(row)
            if open_rows:
                innermost[position] = max(open_rows, key=lambda other: (int(self.depth[other]), other))
        return innermost

    def path_at(self, global_tid: int, times: Int64) -> npt.NDArray[np.int32]:
        """Return the path of the innermost range of a thread at each moment, -1 outside all ranges."""
        spans, paths = self.innermost(global_tid)
        if not len(spans):
            return np.full(len(times), -1, np.int32)
        row = np.searchsorted(spans.starts, times, side="right") - 1
        inside = (row >= 0) & (times < spans.ends[np.maximum(row, 0)])
        return np.where(inside, paths[np.maximum(row, 0)], -1).astype(np.int32)


@dataclass(frozen=True, slots=True)
class Projections:
    """What the ranges launched on one device, parallel to `Ranges`; start and end are 0 where `operations` is 0.

    `operation_time` is the sum of the durations of the operations, `kernel_time` that of kernels and graphs.
    """

    starts: Int64
    ends: Int64
    operations: Int64
    operation_time: Int64
    kernel_time: Int64


def ranges_of(trace: Trace) -> Ranges:
    """Return the NVTX ranges of a trace; none where NVTX was not recorded.

    Ranges that end on another thread than they began on belong to no thread's nesting and are left out.
    """
    events = trace.table_or_empty("nvtx_events")
    if len(events):
        same_thread = pl.col("end_global_tid").is_null() | (pl.col("end_global_tid") == pl.col("global_tid"))
        last = max(_highest(events["start_ns"]), _highest(events["end_ns"]))
        events = events.filter(pl.col("event_type").is_in(_RANGE_TYPES) & same_thread)
        events = events.with_columns(
            pl.col("end_ns").fill_null(last).clip(lower_bound=pl.col("start_ns")), pl.col("global_tid").fill_null(0)
        )
    starts, ends = events["start_ns"].to_numpy(), events["end_ns"].to_numpy()
    thread = events["global_tid"].to_numpy()
    order = np.lexsort((-ends, starts, thread))
    names, name = _display_names(events, trace.nvtx_domains)
    starts, ends, thread, name = starts[order], ends[order], thread[order], name[order]
    parent, depth, tangled = _nesting(starts, ends, thread)
    paths, path = _paths(names, name, parent, depth)
    payload = events["payload"].cast(pl.Int64).gather(order)
    return Ranges(
        starts,
        ends,
        thread,
        name,
        parent,
        depth,
        path,
        payload.fill_null(0).to_numpy(),
        payload.is_not_null().to_numpy(),
        names,
        paths,
        tangled,
    )


def project(ranges: Ranges, operations: Operations, calls: Intervals, threads: Int64) -> Projections:
    """Project ranges onto operations.

    Args:
        ranges: the NVTX ranges.
        operations: operations of one device, or of all.
        calls, threads: the launch call of each operation and its thread, parallel to `operations`; what stands
            there for an operation without launch is not used.
    """
    size = len(ranges)
    result = Projections(*(np.zeros(size, np.int64) for _ in range(5)))
    launched = operations.launch != NO_ROW
    for global_tid in np.unique(ranges.thread):
        mine = np.flatnonzero(ranges.thread == global_tid)
        own = np.flatnonzero(launched & (threads == global_tid))
        if not len(own):
            continue
        own = own[np.argsort(calls.starts[own], kind="stable")]
        # Outermost calls of a thread do not overlap, so their ends ascend with their starts.
        first = np.searchsorted(calls.starts[own], ranges.starts[mine], side="left")
        stop = np.searchsorted(np.maximum.accumulate(calls.ends[own]), ranges.ends[mine], side="right")
        filled = stop > first
        mine, first, stop = mine[filled], first[filled], stop[filled]
        if not len(mine):
            continue
        starts, ends = operations.starts[own], operations.ends[own]
        result.starts[mine] = _reduced(np.minimum, starts, first, stop)
        result.ends[mine] = _reduced(np.maximum, ends, first, stop)
        result.operations[mine] = stop - first
        result.operation_time[mine] = _summed(ends - starts, first, stop)
        kernels = np.where(operations.kind[own] <= 1, ends - starts, 0)
        result.kernel_time[mine] = _summed(kernels, first, stop)
    return result


def _summed(values: Int64, first: Index, stop: Index) -> Int64:
    total = np.concatenate(([0], np.cumsum(values)))
    return np.asarray(total[stop] - total[first], np.int64)


def _reduced(function: np.ufunc, values: Int64, first: Index, stop: Index) -> Int64:
    """Apply a reduction to values[first:stop] of each pair (first < stop)."""
    padded = np.append(values, values[-1:])
    pairs = np.empty(2 * len(first), np.intp)
    pairs[0::2], pairs[1::2] = first, stop
    return np.asarray(function.reduceat(padded, pairs)[0::2], np.int64)


def _highest(times: pl.Series) -> int:
    high = times.max()
    return int(high) if isinstance(high, int) else 0


def _display_names(
    events: pl.DataFrame, domains: Mapping[tuple[int, int], str]
) -> tuple[tuple[str, ...], npt.NDArray[np.int32]]:
    texts = [*enum_texts(events["text"]), UNNAMED]
    codes = events["text"].to_physical().cast(pl.Int64).fill_null(len(texts) - 1).to_numpy()
    domain_id = events["domain_id"].fill_null(0).to_numpy()
    process = events["global_tid"].to_numpy() & _PROCESS_MASK
    keys = sorted({pair for pair in domains if pair[1] != 0})
    domain = np.zeros(len(events), np.int64)
    for number, (owner, identifier) in enumerate(keys, start=1):
        domain[(process == owner) & (domain_id == identifier)] = number
    combined = domain * len(texts) + codes
    unique, name = np.unique(combined, return_inverse=True)
    prefixes = ["", *(f"{domains[key]}:" for key in keys)]
    names = tuple(prefixes[value // len(texts)] + texts[value % len(texts)] for value in unique.tolist())
    return names, name.astype(np.int32)


def _nesting(starts: Int64, ends: Int64, thread: Int64) -> tuple[Index, npt.NDArray[np.int32], frozenset[int]]:
    """Return parent and depth of ranges ordered by (thread, start, longest first), and the tangled threads."""
    tangled: set[int] = set()
    parent = np.full(len(starts), NO_ROW, np.intp)
    depth = np.zeros(len(starts), np.int32)
    for global_tid in np.unique(thread):
        mine = np.flatnonzero(thread == global_tid)
        own_starts = starts[mine]
        # A range of length 0 is given 1 ns here, so that it can be told from a range that ends where it begins.
        own_ends = np.maximum(ends[mine], own_starts + 1)
        level = np.arange(len(mine)) - np.searchsorted(np.sort(own_ends), own_starts, side="right")
        local = _parents_by_level(level)
        inside = local >= 0
        if (level < 0).any() or (own_ends[inside] > own_ends[local[inside]]).any():
            local, level = _parents_by_stack(own_starts, own_ends)
            tangled.add(int(global_tid))
        parent[mine] = np.where(local >= 0, mine[np.maximum(local, 0)], NO_ROW)
        depth[mine] = level
    return parent, depth, frozenset(tangled)


def _parents_by_level(level: Index) -> Index:
    """Nested ranges: the parent is the last earlier range that is one level up."""
    parent = np.full(len(level), NO_ROW, np.intp)
    above = np.flatnonzero(level == 0)
    for number in range(1, int(level.max(initial=0)) + 1):
        here = np.flatnonzero(level == number)
        place = np.searchsorted(above, here) - 1
        parent[here] = np.where(place >= 0, above[np.maximum(place, 0)], NO_ROW)
        above = here
    return parent


def _parents_by_stack(starts: Int64, ends: Int64) -> tuple[Index, Index]:
    """Ranges that overlap without nesting (start/end ranges may): the smallest range that holds the whole range."""
    parent = np.full(len(starts), NO_ROW, np.intp)
    level = np.zeros(len(starts), np.intp)
    open_ranges: list[int] = []
    for position, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        open_ranges = [other for other in open_ranges if ends[other] > start]
        around = [other for other in open_ranges if ends[other] >= end]
        if around:
            parent[position] = min(around, key=lambda other: int(ends[other] - starts[other]))
            level[position] = level[parent[position]] + 1
        open_ranges.append(position)
    return parent, level


def _paths(
    names: tuple[str, ...], name: npt.NDArray[np.int32], parent: Index, depth: npt.NDArray[np.int32]
) -> tuple[tuple[str, ...], npt.NDArray[np.int32]]:
    shown: dict[str, int] = {}
    short = np.array([shown.setdefault(without_counter(text), len(shown)) for text in names] or [0], np.int64)
    labels = list(shown)
    path = np.full(len(name), -1, np.int32)
    paths: list[str] = []
    for level in range(int(depth.max(initial=-1)) + 1):
        here = np.flatnonzero(depth == level)
        above = np.where(parent[here] >= 0, path[np.maximum(parent[here], 0)], -1).astype(np.int64)
        unique, inverse = np.unique((above + 1) * len(labels) + short[name[here]], return_inverse=True)
        path[here] = len(paths) + inverse
        for value in unique.tolist():
            prefix = paths[value // len(labels) - 1] + PATH_SEPARATOR if value >= len(labels) else ""
            paths.append(prefix + labels[value % len(labels)])
    return tuple(paths), path
