"""Concurrency: how many streams are busy at once, and how far phases overlap."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import polars as pl

from ..distinct import distinct
from ..intervals import Int64, clip, overlap_of, running_end, union
from ..message import message
from ..metric import (
    GPU_TABLES,
    NO_GPU_OPERATIONS,
    Measurement,
    Metric,
    NotMeasured,
    Result,
    ResultColumn,
    ResultTable,
)
from ..nvtx import PATH_SEPARATOR
from ..phases import Phase, phases_of
from ..view import DeviceView, View

_NO_PHASES = message(
    "overlap needs at least two NVTX phases side by side, with GPU work in each; mark the encoders with ranges"
)
_NO_ITERATION = message("there is no iteration whose phases could be shown; mark each with an NVTX range")
_MOST_LANES = 12
_MOST_SPANS = 100
_LANE_COLUMNS = (
    ResultColumn("nvtx_path", "", message("range with those around it")),
    ResultColumn("start_ns", "ns", message("start of a projection, since session start")),
    ResultColumn("end_ns", "ns", message("its end")),
)
_COLUMNS = (
    ResultColumn("first", "", message("the longer phase")),
    ResultColumn("second", "", message("the shorter phase")),
    ResultColumn("in_window", "", message("whether their instances belong to the window")),
    ResultColumn("first_ns", "ns", message("time that the projections of the first cover (a)")),
    ResultColumn("second_ns", "ns", message("time that the projections of the second cover (b)")),
    ResultColumn("together_ns", "ns", message("time in which both ran")),
    ResultColumn("share_of_shorter", "ratio", message("of the shorter phase, the part that ran beside the longer one")),
    ResultColumn("gain", "ratio", message("(a + b) / time in which either ran: what overlap gives now")),
    ResultColumn("bound", "ratio", message("(a + b) / max(a, b): the most that overlap could give")),
)


def compute(view: View) -> Iterator[Result]:
    """How much runs at once.

    - `stream_concurrency`: time inside the window in which exactly 1, 2, ... streams of a device ran something (`by`).
      The times add up to `gpu_busy`.
    - `phase_overlap`: for each two phases under the same NVTX range (`by`), how long their projections ran together.
      `phase_pairs` is the table of these pairs:
      `gain` = (a + b) / union, between 1 (one after the other) and `bound` = (a + b) / max(a, b), which is reached when
      the shorter phase runs wholly beside the longer one without slowing it. Whether the hardware has room for both is
      another question; see the SM activity of each phase.
    - `phase_lanes`: when the projections of each phase ran in the iteration whose period is nearest the median.
    """
    if not view.devices:
        yield from (NotMeasured(name, NO_GPU_OPERATIONS) for name in METRIC.provides)
        return
    for device in view.devices:
        yield from _streams(device)
    phases = phases_of(view)
    yield from _lanes(view, phases)
    pairs = [pair for pair in combinations(phases, 2) if _side_by_side(*pair)]
    if not pairs:
        yield from (NotMeasured(name, _NO_PHASES) for name in ("phase_overlap", "phase_pairs"))
        return
    rows = sorted((_row(*pair) for pair in pairs), key=lambda row: (-min(row[3], row[4]), row[0], row[1]))
    schema = dict(zip((c.name for c in _COLUMNS), _TYPES, strict=True))
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    for row in frame.iter_rows(named=True):
        yield Measurement("phase_overlap", row["together_ns"], "ns", by=f"{row['first']} + {row['second']}")
    yield ResultTable("phase_pairs", message("Overlap of phases"), _COLUMNS, frame)


_TYPES = (pl.String, pl.String, pl.Boolean, pl.Int64, pl.Int64, pl.Int64, pl.Float64, pl.Float64, pl.Float64)


def _lanes(view: View, phases: tuple[Phase, ...]) -> Iterator[Result]:
    typical = view.window.typical
    inside = [phase for phase in phases if phase.in_window]
    if typical is None or not inside:
        reason = _NO_PHASES if typical is not None else _NO_ITERATION
        yield NotMeasured("phase_lanes", reason)
        return
    rows = []
    for phase in sorted(inside[:_MOST_LANES], key=lambda phase: (int(phase.covered.starts[0]), phase.depth)):
        spans = clip(phase.covered.starts, phase.covered.ends, *typical)
        seen = np.flatnonzero(spans.ends > spans.starts)[:_MOST_SPANS]
        rows += [(phase.path, start, end) for start, end in zip(spans.starts[seen], spans.ends[seen], strict=True)]
    schema = {"nvtx_path": pl.String, "start_ns": pl.Int64, "end_ns": pl.Int64}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    yield ResultTable("phase_lanes", message("Phases of a typical iteration"), _LANE_COLUMNS, frame)


def _streams(device: DeviceView) -> Iterator[Result]:
    starts, ends = [], []
    lengths = device.inside.ends - device.inside.starts
    streams = device.operations.stream
    for stream in distinct(streams[lengths > 0]):
        mine = (streams == stream) & (lengths > 0)
        busy = union(device.inside.starts[mine], device.inside.ends[mine])
        starts.append(busy.starts)
        ends.append(busy.ends)
    if not starts:
        return
    times = _times_by_depth(np.concatenate(starts), np.concatenate(ends))
    for number, time in enumerate(times.tolist()):
        if number and time:
            yield Measurement("stream_concurrency", time, "ns", device.device_id, by=str(number))


def _times_by_depth(starts: Int64, ends: Int64) -> Int64:
    """Return how long exactly 0, 1, 2, ... of the intervals overlap; the entry for 0 has no meaning."""
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], ends[order]
    begins_anew = np.concatenate(([True], starts[1:] >= running_end(ends)[:-1]))
    alone = begins_anew & np.append(begins_anew[1:], True)
    # Most stretches are one stream alone; only the others need the sweep over their edges.
    some_starts, some_ends = starts[~alone], ends[~alone]
    moments = np.concatenate((some_starts, some_ends))
    steps = np.concatenate((np.ones(len(some_starts), np.int64), -np.ones(len(some_ends), np.int64)))
    order = np.argsort(moments, kind="stable")
    depth = np.cumsum(steps[order])[:-1]
    times = np.bincount(depth, weights=np.diff(moments[order]), minlength=2).astype(np.int64)
    times[1] += int((ends - starts)[alone].sum())
    return times


def _side_by_side(first: Phase, second: Phase) -> bool:
    parents = [phase.path.rpartition(PATH_SEPARATOR)[0] for phase in (first, second)]
    return first.depth == second.depth and parents[0] == parents[1]


def _row(first: Phase, second: Phase) -> tuple[str, str, bool, int, int, int, float, float, float]:
    longer, shorter = sorted((first, second), key=lambda phase: (-phase.covered.total, phase.path))
    a, b = longer.covered.total, shorter.covered.total
    together = overlap_of(longer.covered, shorter.covered)
    return (
        longer.path,
        shorter.path,
        longer.in_window,
        a,
        b,
        together,
        together / b if b else 0.0,
        (a + b) / (a + b - together) if a + b > together else 1.0,
        (a + b) / a if a else 1.0,
    )


METRIC = Metric(
    id="stream_concurrency",
    title=message("Concurrency"),
    provides={"stream_concurrency": "ns", "phase_overlap": "ns", "phase_pairs": "table", "phase_lanes": "table"},
    needs=GPU_TABLES,
    missing=NO_GPU_OPERATIONS,
    better="higher",
    reference=message("Nitro; the bound is that of two tasks on one resource each"),
    compute=compute,
    order=27,
)
