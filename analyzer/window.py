"""The analysis window: the part of a capture that the numbers are about, and the iterations in it.

Model load and warm-up must not pollute a result. `auto` looks for repeated iterations, in this order:

1. NVTX ranges of one thread whose names repeat or differ only by a number, do not overlap each other and come at
   regular intervals; of several such families the one that launched most kernel time, then the outermost.
2. Launches of the CUDA graph that ran longest.
3. A sequence of kernel names that repeats.

Iterations tile the window: a period runs from the first operation of an iteration to the first operation of the
next one, so N iterations give N - 1 periods, and the window ends with the last full period. Leading iterations are
warm-up while their period is more than 1.25 times the median period of the second half of the iterations; at most
half of the iterations are dropped that way.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from nitro.errors import UsageError

from .intervals import Int64
from .kernel_names import known_names
from .message import message
from .nvtx import Projections, Ranges, family_of
from .operations import Kind, Operations
from .tables import enum_texts
from .trace import Trace

WARM_UP_RATIO = 1.25
_FEWEST_ITERATIONS = 3
_LEAST_COVERAGE = 0.5
# Half of the periods lie within this share of the median, counted both ways, if iterations are regular.
_WIDEST_SPREAD = 0.5
_SAME_NAME_RATIO = 0.95


@dataclass(frozen=True, slots=True)
class Iteration:
    """One iteration. Times in ns; `cpu_*` is `None` where no NVTX range marks it."""

    name: str
    start_ns: int
    end_ns: int
    cpu_start_ns: int | None = None
    cpu_end_ns: int | None = None
    payload: int | None = None

    @property
    def latency_ns(self) -> int | None:
        """What the caller waits for: from the start of the CPU range to its end or that of its projection."""
        if self.cpu_start_ns is None or self.cpu_end_ns is None:
            return None
        return max(self.cpu_end_ns, self.end_ns) - self.cpu_start_ns


@dataclass(frozen=True, slots=True)
class Window:
    """The chosen window.

    `by_device` has (start, end) for devices whose window is their own (`all`); others share `start_ns`, `end_ns`.
    `iterations` are those whose first operations tile the window; the last of them ends it. `dropped` names
    iterations that were found and left out, with the rule. `is_fallback`: `auto` found no iterations.
    """

    start_ns: int
    end_ns: int
    mode: str
    reason: str
    iterations: tuple[Iteration, ...] = ()
    dropped: tuple[tuple[str, str], ...] = ()
    by_device: dict[int, tuple[int, int]] = field(default_factory=dict)
    is_fallback: bool = False

    def of_device(self, device_id: int) -> tuple[int, int]:
        """Return start and end of the window on a device, ns."""
        return self.by_device.get(device_id, (self.start_ns, self.end_ns))

    @property
    def periods_ns(self) -> Int64:
        """Times between the first operations of neighbouring iterations, shape (iterations - 1,)."""
        starts = np.array([iteration.start_ns for iteration in self.iterations], np.int64)
        return starts[1:] - starts[:-1]

    @property
    def typical(self) -> tuple[int, int] | None:
        """Start and end of the period whose length is nearest the median, `None` where there are no iterations."""
        periods = self.periods_ns
        if not self.iterations:
            return None
        if not len(periods):
            return self.iterations[0].start_ns, self.iterations[0].end_ns
        nearest = int(np.argmin(np.abs(periods - np.median(periods))))
        return self.iterations[nearest].start_ns, self.iterations[nearest + 1].start_ns

    @property
    def is_pipelined(self) -> bool:
        """Whether an iteration's work still runs when the next one's begins, so that none stands alone."""
        pairs = zip(self.iterations, self.iterations[1:], strict=False)
        return any(before.end_ns > after.start_ns for before, after in pairs)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {
            "start_ns": self.start_ns,
            "end_ns": self.end_ns,
            "mode": self.mode,
            "is_fallback": self.is_fallback,
            "reason": self.reason,
            "iterations": max(len(self.iterations) - 1, 0) or len(self.iterations),
            "iteration_names": [iteration.name for iteration in self.iterations],
            "dropped": [{"name": name, "reason": reason} for name, reason in self.dropped],
            "devices": [
                {"device_id": device_id, "start_ns": start, "end_ns": end}
                for device_id, (start, end) in sorted(self.by_device.items())
            ],
        }


@dataclass(frozen=True, slots=True)
class _Found:
    iterations: tuple[Iteration, ...]
    what: str


def choose_window(
    trace: Trace,
    operations: Operations,
    ranges: Ranges,
    projections: Projections,
    *,
    mode: str = "auto",
    since_ns: int | None = None,
    until_ns: int | None = None,
    nvtx: str | None = None,
) -> Window:
    """Choose the window of an analysis.

    Args:
        trace: the capture.
        operations: all GPU operations that count.
        ranges, projections: NVTX ranges and what they launched on any device.
        mode: `auto` or `all`.
        since_ns, until_ns: explicit edges, ns since session start; either overrides `mode`.
        nvtx: name of the ranges that are the iterations; `*` matches anything.

    Raises:
        UsageError: no range matches `nvtx`, or the window would be empty.
    """
    if since_ns is not None or until_ns is not None:
        return _explicit(operations, since_ns, until_ns)
    if nvtx is not None:
        return _of_iterations(_named_ranges(ranges, projections, nvtx), "nvtx", drop_warm_up=False)
    if mode == "auto" and len(operations):
        found = (
            _nvtx_family(operations, ranges, projections)
            or _graph_launches(trace, operations)
            or _kernel_sequence(trace, operations)
        )
        if found:
            return _of_iterations(found, "auto", drop_warm_up=True)
    return _whole(operations, mode)


def _whole(operations: Operations, mode: str) -> Window:
    if not len(operations):
        return Window(0, 0, "all", message("the trace has no GPU operation"))
    by_device = {}
    for device_id in operations.device_ids:
        own = operations.of_device(device_id)
        by_device[device_id] = (int(own.starts[0]), int(own.ends.max()))
    reason = message("from the first to the last GPU operation of each device")
    if mode == "auto":
        reason = message(
            "no repeated iteration was found (NVTX, graph launches, kernel names), so {reason}", reason=reason
        )
    starts, ends = zip(*by_device.values(), strict=True)
    return Window(min(starts), max(ends), "all", reason, by_device=by_device, is_fallback=mode == "auto")


def _explicit(operations: Operations, since_ns: int | None, until_ns: int | None) -> Window:
    first = int(operations.starts[0]) if len(operations) else 0
    last = int(operations.ends.max()) if len(operations) else 0
    start, end = (first if since_ns is None else since_ns), (last if until_ns is None else until_ns)
    if end <= start:
        raise UsageError(
            f"the window from {start} to {end} ns is empty; GPU operations run from {first} to {last} ns, "
            "so choose --since and --until in between."
        )
    return Window(start, end, "explicit", message("as given by --since and --until"))


def _of_iterations(found: _Found, mode: str, *, drop_warm_up: bool) -> Window:
    iterations = found.iterations
    warm_up = _warm_up_count(iterations) if drop_warm_up else 0
    kept = iterations[warm_up:]
    rule = message("warm-up: its period is over {ratio} x the median of the second half", ratio=WARM_UP_RATIO)
    dropped = tuple((iteration.name, rule) for iteration in iterations[:warm_up])
    if len(kept) == 1:
        only = kept[0]
        reason = message("the one iteration of {what}", what=found.what)
        return Window(only.start_ns, only.end_ns, mode, reason, kept, dropped)
    if warm_up:
        reason = message(
            "{count} iterations of {what}, the first {warm_up} left out as warm-up; "
            "the window ends where the last one begins",
            count=len(iterations),
            what=found.what,
            warm_up=warm_up,
        )
    else:
        reason = message(
            "{count} iterations of {what}; the window ends where the last one begins",
            count=len(iterations),
            what=found.what,
        )
    return Window(kept[0].start_ns, kept[-1].start_ns, mode, reason, kept, dropped)


def _warm_up_count(iterations: tuple[Iteration, ...]) -> int:
    periods = np.diff([iteration.start_ns for iteration in iterations])
    if len(periods) < 2:
        return 0
    limit = WARM_UP_RATIO * float(np.median(periods[len(periods) // 2 :]))
    steady = np.flatnonzero(periods <= limit)
    count = int(steady[0]) if len(steady) else 0
    return count if count <= len(iterations) // 2 else 0


def _is_regular(starts: Int64) -> bool:
    periods = np.diff(starts[_warm_up_candidates(starts) :])
    if not len(periods):
        return False
    lower, middle, upper = np.percentile(periods, (25, 50, 75))
    return bool(middle > 0 and (upper - lower) <= _WIDEST_SPREAD * middle)


def _warm_up_candidates(starts: Int64) -> int:
    return _warm_up_count(tuple(Iteration("", start, start) for start in starts.tolist()))


def _ranges_as_iterations(ranges: Ranges, projections: Projections, rows: Iterable[int]) -> tuple[Iteration, ...]:
    made = [
        Iteration(
            name=ranges.names[ranges.name[row]],
            start_ns=int(projections.starts[row]),
            end_ns=int(projections.ends[row]),
            cpu_start_ns=int(ranges.starts[row]),
            cpu_end_ns=int(ranges.ends[row]),
            payload=int(ranges.payload[row]) if ranges.has_payload[row] else None,
        )
        for row in rows
    ]
    return tuple(sorted(made, key=lambda iteration: (iteration.start_ns, iteration.end_ns)))


def _named_ranges(ranges: Ranges, projections: Projections, pattern: str) -> _Found:
    wanted = [fnmatch.fnmatchcase(name, pattern) or pattern in (name, name.partition(":")[2]) for name in ranges.names]
    named = np.array([*wanted, False])[ranges.name]
    if not named.any():
        some = ", ".join(dict.fromkeys(family_of(name) for name in ranges.names[:200])) or "none"
        raise UsageError(f"no NVTX range is named {pattern!r}; the trace has: {_shortened(some)}.")
    rows = np.flatnonzero(named & (projections.operations > 0))
    # Of matching ranges inside each other the outermost are the iterations.
    rows = rows[[not _has_matching_ancestor(ranges, row, named) for row in rows.tolist()]]
    if not len(rows):
        raise UsageError(f"no NVTX range named {pattern!r} launched GPU work; choose another range or --window all.")
    what = message("NVTX ranges {name!r} (--nvtx)", name=pattern)
    return _Found(_ranges_as_iterations(ranges, projections, rows.tolist()), what)


def _has_matching_ancestor(ranges: Ranges, row: int, named: Any) -> bool:
    above = int(ranges.parent[row])
    while above >= 0:
        if named[above]:
            return True
        above = int(ranges.parent[above])
    return False


def _shortened(text: str, limit: int = 160) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _nvtx_family(operations: Operations, ranges: Ranges, projections: Projections) -> _Found | None:
    if not len(ranges):
        return None
    families: dict[str, int] = {}
    family_of_name = np.array([families.setdefault(family_of(name), len(families)) for name in ranges.names])
    threads, thread = np.unique(ranges.thread, return_inverse=True)
    key = family_of_name[ranges.name] * len(threads) + thread
    filled = projections.operations > 0
    counts = np.bincount(key[filled], minlength=1)
    # Coverage counts kernels only: loading a model is mostly copies, and may outweigh all inference.
    work = np.where(operations.kind <= Kind.GRAPH, operations.ends - operations.starts, 0)
    best: tuple[tuple[int, int], Int64, str] | None = None
    for candidate in np.flatnonzero(counts >= _FEWEST_ITERATIONS).tolist():
        rows = np.flatnonzero((key == candidate) & filled)
        if (ranges.starts[rows][1:] < ranges.ends[rows][:-1]).any():
            continue
        starts = np.sort(projections.starts[rows])
        between = (operations.starts >= starts[0]) & (operations.starts < int(projections.ends[rows].max()))
        if work[between].sum() < _LEAST_COVERAGE * work.sum() or not _is_regular(starts):
            continue
        score = (int(projections.kernel_time[rows].sum()), -int(ranges.depth[rows].min()))
        if best is None or score > best[0]:
            best = (score, rows, list(families)[candidate // len(threads)])
    if best is None:
        return None
    what = message("NVTX ranges {name!r}", name=best[2])
    return _Found(_ranges_as_iterations(ranges, projections, best[1].tolist()), what)


def _graph_launches(trace: Trace, operations: Operations) -> _Found | None:
    graphs = np.flatnonzero(operations.kind == Kind.GRAPH)
    if len(graphs) < _FEWEST_ITERATIONS:
        return None
    executables = trace.table_or_empty("graph_launches")["graph_exec_id"].cast(pl.Int64).fill_null(-1).to_numpy()
    executable = executables[operations.row[graphs]]
    unique, inverse = np.unique(executable, return_inverse=True)
    durations = operations.ends[graphs] - operations.starts[graphs]
    longest = int(np.argmax(np.bincount(inverse, weights=durations)))
    marks = graphs[inverse == longest]
    starts = operations.starts[marks]
    if len(marks) < _FEWEST_ITERATIONS or not _is_regular(starts):
        return None
    what = message("launches of CUDA graph executable {number}", number=int(unique[longest]))
    return _Found(_iterations_at(operations, starts, message("graph launch")), what)


def _kernel_sequence(trace: Trace, operations: Operations) -> _Found | None:
    """Find a kernel name that comes at equal distances in a sequence that repeats at that distance."""
    kernels = np.flatnonzero(operations.kind == Kind.KERNEL)
    if len(kernels) < 2 * _FEWEST_ITERATIONS:
        return None
    column = known_names(trace.table_or_empty("kernels"))
    names = column.to_physical().cast(pl.Int64).fill_null(-1).to_numpy()[operations.row[kernels]]
    if len(np.unique(operations.device_id[kernels])) > 1:
        return None
    order = np.argsort(names, kind="stable")
    bounds = np.flatnonzero(np.diff(names[order])) + 1
    best: tuple[tuple[float, int, float], Int64, int] | None = None
    for positions in np.split(order, bounds):
        if len(positions) < _FEWEST_ITERATIONS:
            continue
        distances = np.diff(positions)
        period = int(np.median(distances))
        if period < 2 or (distances == period).mean() < _SAME_NAME_RATIO:
            continue
        ratio = float((names[positions[0] : -period] == names[positions[0] + period :]).mean())
        starts = operations.starts[kernels[positions]]
        if ratio < _SAME_NAME_RATIO or not _is_regular(starts):
            continue
        # The pause before the kernel tells where an iteration begins, of several kernels that occur once in each.
        before = np.maximum(positions - 1, 0)
        pause = float(np.median(starts - operations.ends[kernels[before]]))
        score = (round(ratio, 2), -period, pause)
        if best is None or score > best[0]:
            best = (score, positions, period)
    if best is None:
        return None
    starts = operations.starts[kernels[best[1]]]
    texts = enum_texts(column)
    mark = _shortened(texts[int(names[best[1][0]])], 60) if names[best[1][0]] >= 0 else "?"
    what = message("a sequence of {count} kernels that repeats, each beginning with {name}", count=best[2], name=mark)
    return _Found(_iterations_at(operations, starts, message("sequence")), what)


def _iterations_at(operations: Operations, starts: Int64, what: str) -> tuple[Iteration, ...]:
    """Iterations that begin at these operations; each ends with the last operation begun before the next one."""
    first = np.searchsorted(operations.starts, starts, side="left")
    stop = np.append(first[1:], len(operations.starts))
    ends = [int(operations.ends[low:high].max()) for low, high in zip(first.tolist(), stop.tolist(), strict=True)]
    # Work that reaches past the start of the next iteration is cut there: without NVTX nothing tells whose it is.
    limits = [*starts[1:].tolist(), ends[-1]]
    return tuple(
        Iteration(message("{what} {number}", what=what, number=number), int(start), min(end, limit))
        for number, (start, end, limit) in enumerate(zip(starts.tolist(), ends, limits, strict=True))
    )
