"""What a CPU thread was doing at each moment: layers of disjoint intervals, of which the first that covers it wins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from .causes import Cause, class_of_call
from .intervals import EMPTY, Int64, Intervals, intersect, subtract, union
from .tables import enum_texts
from .trace import Trace

Codes = npt.NDArray[np.uint8]

# CUPTI overhead types that are the profiler's own work: buffer flush, instrumentation, resource tracking.
_PROFILER_OVERHEAD_TYPES = (3, 4, 5)
LAYER_CAUSES = (Cause.PROFILER_OVERHEAD, Cause.OS_CALL, Cause.NOT_SCHEDULED)


@dataclass(frozen=True, slots=True)
class Layer:
    """Disjoint intervals of one thread, each with the cause that it stands for."""

    spans: Intervals
    codes: Codes

    def between(self, low: int, high: int) -> Layer:
        """Return the part that touches [low, high), as views."""
        first = int(np.searchsorted(self.spans.ends, low, side="right"))
        stop = int(np.searchsorted(self.spans.starts, high, side="left"))
        spans = Intervals(self.spans.starts[first:stop], self.spans.ends[first:stop])
        return Layer(spans, self.codes[first:stop])


@dataclass(frozen=True, slots=True)
class Stretch:
    """Parts of given intervals, the row of the interval each lies in, and the cause it is given."""

    rows: npt.NDArray[np.intp]
    starts: Int64
    ends: Int64
    codes: Codes


class ThreadActivity:
    """The layers of the threads of a trace, made when a thread is first asked for."""

    def __init__(self, trace: Trace, without: frozenset[Cause] = frozenset()) -> None:
        """Prepare the layers.

        Args:
            trace: the capture.
            without: layers to leave out (of `LAYER_CAUSES`); their time falls to the next layer.
        """
        self._trace = trace
        self._without = without
        self._layers: dict[int, tuple[Layer, ...]] = {}
        self._call_layers: dict[int, Layer] = {}

    def layers(self, global_tid: int) -> tuple[Layer, ...]:
        """Return the layers of a thread, the deciding one first."""
        if global_tid not in self._layers:
            made = (
                self._overhead(global_tid),
                self.calls(global_tid),
                self._os(global_tid),
                self._off_cpu(global_tid),
            )
            self._layers[global_tid] = tuple(layer for layer in made if layer is not None and len(layer.spans))
        return self._layers[global_tid]

    def calls(self, global_tid: int) -> Layer:
        """Return the outermost CUDA calls of a thread, with the cause that each stands for."""
        if global_tid not in self._call_layers:
            self._call_layers[global_tid] = self._calls(global_tid) or Layer(EMPTY, np.empty(0, np.uint8))
        return self._call_layers[global_tid]

    def split(self, global_tid: int, parts: Intervals) -> Stretch:
        """Cut disjoint intervals into stretches of one cause; what no layer covers is `HOST_CODE`.

        The stretches of an interval add up to it exactly.
        """
        rows: list[npt.NDArray[np.intp]] = []
        starts: list[Int64] = []
        ends: list[Int64] = []
        codes: list[Codes] = []
        left, left_rows = parts, np.arange(len(parts))
        for layer in self.layers(global_tid):
            if not len(left):
                break
            near = layer.between(int(left.starts[0]), int(left.ends[-1]))
            hit = intersect(left, near.spans)
            rows.append(left_rows[hit.left])
            starts.append(hit.starts)
            ends.append(hit.ends)
            codes.append(near.codes[hit.right])
            rest = subtract(left, near.spans)
            left, left_rows = Intervals(rest.starts, rest.ends), left_rows[rest.left]
        rows.append(left_rows)
        starts.append(left.starts)
        ends.append(left.ends)
        codes.append(np.full(len(left), Cause.HOST_CODE, np.uint8))
        return Stretch(np.concatenate(rows), np.concatenate(starts), np.concatenate(ends), np.concatenate(codes))

    def _overhead(self, global_tid: int) -> Layer | None:
        if Cause.PROFILER_OVERHEAD in self._without:
            return None
        frames = [_of_thread(self._trace.table("profiler_overheads"), global_tid)]
        cuda = _of_thread(self._trace.table("cuda_overheads"), global_tid)
        if cuda is not None:
            frames.append(cuda.filter(pl.col("overhead_type").is_in(_PROFILER_OVERHEAD_TYPES)))
        return _covered_by(frames, Cause.PROFILER_OVERHEAD)

    def _calls(self, global_tid: int) -> Layer | None:
        frame = _of_thread(self._trace.api_calls, global_tid)
        if frame is None or frame.is_empty():
            return None
        spans, rows = outermost(frame["start_ns"].to_numpy(), frame["end_ns"].to_numpy())
        names = frame["name"]
        by_category = np.array([class_of_call(name) for name in enum_texts(names)], np.uint8)
        # One more entry, reached through the index -1, for calls whose name is lost.
        by_category = np.append(by_category, np.uint8(Cause.OTHER_CUDA_API))
        category = names.to_physical().cast(pl.Int32).fill_null(-1).to_numpy()
        return Layer(spans, by_category[category[rows]])

    def _os(self, global_tid: int) -> Layer | None:
        if Cause.OS_CALL in self._without:
            return None
        return _covered_by([_of_thread(self._trace.os_calls, global_tid)], Cause.OS_CALL)

    def _off_cpu(self, global_tid: int) -> Layer | None:
        if Cause.NOT_SCHEDULED in self._without:
            return None
        frame = _of_thread(self._trace.table("sched_events"), global_tid)
        if frame is None or len(frame) < 2:
            return None
        frame = frame.sort("start_ns", maintain_order=True)
        times = frame["start_ns"].to_numpy()
        leaves = frame["is_sched_in"].to_numpy()[:-1] == 0
        spans = union(times[:-1][leaves], times[1:][leaves])
        return Layer(spans, np.full(len(spans), Cause.NOT_SCHEDULED, np.uint8))


def outermost(starts: Int64, ends: Int64) -> tuple[Intervals, npt.NDArray[np.intp]]:
    """Return disjoint intervals in which one call of a thread is the outermost, and the rows of those calls.

    Calls nest; where two overlap without nesting (a clock artefact), the later one begins when the earlier ends.
    """
    if (np.diff(starts) > 0).all():
        order = np.arange(len(starts))
    else:
        order = np.lexsort((-ends, starts))
        starts, ends = starts[order], ends[order]
    if (starts[1:] >= ends[:-1]).all() and (ends > starts).all():
        return Intervals(starts, ends), order
    latest = np.maximum.accumulate(ends)
    before = np.concatenate((starts[:1], latest[:-1]))
    keep = ends > before
    keep[:1] = True
    return Intervals(np.maximum(starts, before)[keep], ends[keep]), order[keep]


def _of_thread(frame: pl.DataFrame | None, global_tid: int) -> pl.DataFrame | None:
    if frame is None or frame.is_empty():
        return frame
    threads = frame["global_tid"]
    if threads.min() == threads.max() == global_tid:
        return frame
    return frame.filter(pl.col("global_tid") == global_tid)


def _covered_by(frames: Iterable[pl.DataFrame | None], cause: Cause) -> Layer | None:
    present = [frame for frame in frames if frame is not None and len(frame)]
    if not present:
        return None
    starts = np.concatenate([frame["start_ns"].to_numpy() for frame in present])
    ends = np.concatenate([frame["end_ns"].to_numpy() for frame in present])
    spans = union(starts, ends)
    return Layer(spans, np.full(len(spans), cause, np.uint8))


def chunks(length: int, size: int) -> Iterator[slice]:
    """Return slices that cover `range(length)` in pieces of `size`."""
    return (slice(first, min(first + size, length)) for first in range(0, length, size))
