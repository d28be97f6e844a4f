"""`View`: a trace seen through a window. What several metrics need is made here, once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import numpy.typing as npt

from .causes import Cause
from .distinct import distinct
from .evidence import AnyEvidence, Evidence, Placed
from .idle import Gaps, IdleAttribution, IdlePieces, gaps_of
from .intervals import Int64, Intervals, clip, intersect, union
from .nvtx import Projections, Ranges, project, ranges_of
from .operations import NO_ROW, Kind, Operations, operations_of
from .samples import Sampled, sampled_metrics
from .threads import ThreadActivity
from .trace import Trace
from .window import Window, choose_window

_LONGEST_KEPT = 10
_MOST_THREADS = 4
OUTSIDE_NVTX = "(outside NVTX ranges)"


@dataclass(frozen=True, slots=True)
class Scope:
    """What to look at: see `analyze`."""

    window: str = "auto"
    since_ns: int | None = None
    until_ns: int | None = None
    nvtx: str | None = None
    device_ids: tuple[int, ...] | None = None
    pids: tuple[int, ...] | None = None
    batch: int | None = None


@dataclass(frozen=True, slots=True)
class IdleSummary:
    """Idle time of a device by cause: total ns and number of pieces by cause, arrays of shape (causes,).

    `host_paths` splits `host_code` by the innermost NVTX path: path → (ns, pieces). `longest` has, for each cause,
    its longest pieces as (start, end) ns, the longest first.
    """

    total_ns: Int64
    pieces: Int64
    host_paths: Mapping[str, tuple[int, int]]
    longest: Mapping[Cause, tuple[tuple[int, int], ...]]


class View:
    """A trace, the operations that count, and the window. All properties are computed when first used."""

    def __init__(
        self,
        trace: Trace,
        scope: Scope = Scope(),
        evidence: Sequence[Evidence] = (),
        clock_offset_ns: int | None = None,
    ) -> None:
        """Look at a trace through `scope`, with the evidence beside it placed on its clock.

        Raises:
            nitro.errors.InputError: some evidence does not belong to this trace.
        """
        self.trace = trace
        self.scope = scope
        self.clock_offset_ns = clock_offset_ns
        self.evidence: tuple[Placed[Evidence], ...] = tuple(
            Placed(seen, seen.placed(self, clock_offset_ns)) for seen in (entry.seen_by(self) for entry in evidence)
        )

    def evidence_of(self, kind: type[AnyEvidence]) -> tuple[Placed[AnyEvidence], ...]:
        """The evidence of one kind, in the order in which it was given."""
        found = (placed for placed in self.evidence if isinstance(placed.evidence, kind))
        return tuple(cast("Placed[AnyEvidence]", placed) for placed in found)

    @cached_property
    def operations(self) -> Operations:
        """GPU operations of the chosen devices and processes."""
        operations = operations_of(self.trace)
        keep = np.ones(len(operations), np.bool_)
        if self.scope.device_ids is not None:
            keep &= np.isin(operations.device_id, self.scope.device_ids)
        if self.scope.pids is not None:
            keep &= np.isin(operations.process & 0xFFFFFF, self.scope.pids)
        return operations if keep.all() else operations.take(keep)

    @cached_property
    def calls(self) -> Intervals:
        """The launch call of each operation; rows of operations without a call hold some other call's times."""
        api_calls = self.trace.api_calls
        if api_calls is None or not len(api_calls):
            return Intervals(np.zeros(len(self.operations), np.int64), np.zeros(len(self.operations), np.int64))
        launch = self.operations.launch
        return Intervals(api_calls["start_ns"].to_numpy()[launch], api_calls["end_ns"].to_numpy()[launch])

    @cached_property
    def call_threads(self) -> Int64:
        """The thread that launched each operation, 0 where no call is known."""
        api_calls = self.trace.api_calls
        if api_calls is None or not len(api_calls):
            return np.zeros(len(self.operations), np.int64)
        thread = api_calls["global_tid"].to_numpy()[self.operations.launch]
        return np.where(self.operations.launch == NO_ROW, 0, thread)

    @cached_property
    def ranges(self) -> Ranges:
        """NVTX ranges."""
        return ranges_of(self.trace)

    @cached_property
    def projections(self) -> Projections:
        """What the NVTX ranges launched, on all chosen devices together."""
        return project(self.ranges, self.operations, self.calls, self.call_threads)

    @cached_property
    def window(self) -> Window:
        """The analysis window."""
        scope = self.scope
        return choose_window(
            self.trace,
            self.operations,
            self.ranges,
            self.projections,
            mode=scope.window,
            since_ns=scope.since_ns,
            until_ns=scope.until_ns,
            nvtx=scope.nvtx,
        )

    @cached_property
    def activity(self) -> ThreadActivity:
        """What the CPU threads were doing."""
        return ThreadActivity(self.trace)

    @cached_property
    def devices(self) -> tuple[DeviceView, ...]:
        """The devices that have operations, each with its part of the window."""
        return tuple(DeviceView(self, device_id) for device_id in self.operations.device_ids)

    @cached_property
    def busy_anywhere(self) -> Intervals:
        """When any chosen device ran something, clipped to the window."""
        inside = clip(self.operations.starts, self.operations.ends, self.window.start_ns, self.window.end_ns)
        return union(inside.starts, inside.ends)

    @cached_property
    def starts_in_window(self) -> npt.NDArray[np.bool_]:
        """Which operations begin inside their device's window."""
        inside = np.zeros(len(self.operations), np.bool_)
        for device_id in self.operations.device_ids:
            low, high = self.window.of_device(device_id)
            starts = self.operations.starts
            inside |= (self.operations.device_id == device_id) & (starts >= low) & (starts < high)
        return inside

    @property
    def periods(self) -> int:
        """How many full periods the window holds; 0 where no iterations were found, 1 for a single iteration."""
        count = len(self.window.iterations)
        return count - 1 if count > 1 else count

    def counts_thread(self, global_tid: int) -> bool:
        """Whether a thread belongs to the chosen processes."""
        return self.scope.pids is None or ((global_tid >> 24) & 0xFFFFFF) in self.scope.pids


class DeviceView:
    """One device of a view."""

    def __init__(self, view: View, device_id: int) -> None:
        """Look at one device."""
        self.view = view
        self.device_id = device_id
        self.low, self.high = view.window.of_device(device_id)

    @property
    def window_ns(self) -> int:
        """Length of the window."""
        return self.high - self.low

    @cached_property
    def operations(self) -> Operations:
        """All operations of the device, also outside the window."""
        return self.view.operations.of_device(self.device_id)

    @cached_property
    def inside(self) -> Intervals:
        """The operations clipped to the window; those outside have length 0."""
        return clip(self.operations.starts, self.operations.ends, self.low, self.high)

    @cached_property
    def busy(self) -> Intervals:
        """When the device ran at least one operation, inside the window."""
        return union(self.inside.starts, self.inside.ends)

    @cached_property
    def gaps(self) -> Gaps:
        """When it ran none, inside the window."""
        return gaps_of(self.operations, self.low, self.high)

    @cached_property
    def idle(self) -> IdleSummary:
        """Idle time by cause."""
        attribution = IdleAttribution(self.view.trace, self.operations, self.view.activity)
        return _summary(attribution, self.gaps, self.view.ranges)

    @cached_property
    def launching_threads(self) -> Int64:
        """The thread that launched each operation of the device, 0 where no call is known."""
        view = self.view
        here = view.operations.device_id == self.device_id
        return view.call_threads if here.all() else view.call_threads[here]

    @cached_property
    def sampled(self) -> Mapping[str, Sampled]:
        """The sampled GPU metrics of the device by name; empty where none were recorded."""
        return sampled_metrics(self.view.trace, self.device_id)

    def time_of(self, kind: Kind) -> int:
        """Return the summed time of one kind of operation inside the window, ns."""
        return int((self.inside.ends - self.inside.starts)[self.operations.kind == kind].sum())

    def touching(self, kind: Kind) -> npt.NDArray[np.bool_]:
        """Tell which operations are of a kind and run, or begin, inside the window."""
        begins = (self.operations.starts >= self.low) & (self.operations.starts < self.high)
        return np.asarray((self.operations.kind == kind) & (begins | (self.inside.ends > self.inside.starts)))


def _summary(attribution: IdleAttribution, gaps: Gaps, ranges: Ranges) -> IdleSummary:
    attribution.prepare(gaps)

    def of_part(part: slice) -> IdleSummary:
        return _summary_of(attribution.pieces_of(gaps, part), ranges)

    parts = list(attribution.parts(gaps))
    if len(parts) <= 1:
        return of_part(slice(0, len(gaps)))
    # numpy lets go of the interpreter in the long loops, so threads do help.
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS)) as pool:
        summaries = list(pool.map(of_part, parts))
    return IdleSummary(
        np.sum([summary.total_ns for summary in summaries], axis=0),
        np.sum([summary.pieces for summary in summaries], axis=0),
        _added(summary.host_paths for summary in summaries),
        {
            cause: _longest(span for summary in summaries for span in summary.longest.get(cause, ()))
            for cause in Cause
            if any(cause in summary.longest for summary in summaries)
        },
    )


def _summary_of(pieces: IdlePieces, ranges: Ranges) -> IdleSummary:
    lengths = pieces.ends - pieces.starts
    count = np.bincount(pieces.codes, minlength=len(Cause))
    by_cause = np.argsort(pieces.codes, kind="stable")  # a radix sort, since codes are bytes
    longest: dict[Cause, tuple[tuple[int, int], ...]] = {}
    for cause, mine in zip(Cause, np.split(by_cause, np.cumsum(count)[:-1]), strict=True):
        if not len(mine):
            continue
        if len(mine) > _LONGEST_KEPT:
            mine = mine[np.argpartition(-lengths[mine], _LONGEST_KEPT)[:_LONGEST_KEPT]]
        longest[cause] = _longest(zip(pieces.starts[mine].tolist(), pieces.ends[mine].tolist(), strict=True))
    return IdleSummary(_summed(pieces.codes, lengths, len(Cause)), count, _host_paths(pieces, ranges), longest)


def _longest(spans: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    return tuple(sorted(spans, key=lambda span: (span[0] - span[1], span))[:_LONGEST_KEPT])


def _added(parts: Iterable[Mapping[str, tuple[int, int]]]) -> dict[str, tuple[int, int]]:
    total: dict[str, tuple[int, int]] = {}
    for part in parts:
        for path, (ns, pieces) in part.items():
            before = total.get(path, (0, 0))
            total[path] = (before[0] + ns, before[1] + pieces)
    return total


def _summed(codes: npt.NDArray[np.integer], lengths: Int64, size: int) -> Int64:
    # Float sums of integers are exact below 2**53 ns, which is 104 days.
    return np.bincount(codes, weights=lengths, minlength=size).astype(np.int64)


def _host_paths(pieces: IdlePieces, ranges: Ranges) -> dict[str, tuple[int, int]]:
    """Split the time of host code by the innermost NVTX range of the launching thread: path → (ns, pieces)."""
    size = len(ranges.paths)
    total = np.zeros((size + 1, 2), np.int64)
    host = pieces.codes == Cause.HOST_CODE
    for global_tid in distinct(pieces.thread[host]):
        mine = host & (pieces.thread == global_tid)
        stretches = Intervals(pieces.starts[mine], pieces.ends[mine])
        spans, path = ranges.innermost(global_tid)
        hit = intersect(stretches, spans)
        lengths = hit.ends - hit.starts
        total[:, 0] += _summed(path[hit.right], lengths, size + 1)
        total[:, 1] += np.bincount(path[hit.right], minlength=size + 1)
        covered = np.bincount(hit.left, weights=lengths, minlength=len(stretches)).astype(np.int64)
        outside = stretches.ends - stretches.starts - covered
        total[-1] += int(outside.sum()), int((outside > 0).sum())
    names = (*ranges.paths, OUTSIDE_NVTX)
    return {names[row]: (int(ns), int(count)) for row, (ns, count) in enumerate(total) if count}
