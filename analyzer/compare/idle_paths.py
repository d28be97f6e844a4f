"""Idle time of a device by cause and by the NVTX path in which the launching thread was."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..causes import Cause
from ..distinct import distinct
from ..idle import IdleAttribution, IdlePieces
from ..intervals import Int64, Intervals, intersect
from ..view import OUTSIDE_NVTX, DeviceView, View

IdleByPath = Mapping[Cause, Mapping[str, int]]


def idle_by_path(view: View, device: DeviceView) -> dict[Cause, dict[str, int]]:
    """Return the idle time of a device inside its window by cause and NVTX path, ns.

    The path is that of the innermost range of the thread that launched the operation after the gap, at each moment;
    `OUTSIDE_NVTX` where there is none, or no such thread. Sums over paths and causes are exactly the idle time.
    Causes and paths without time are left out.
    """
    ranges, gaps = view.ranges, device.gaps
    attribution = IdleAttribution(view.trace, device.operations, view.activity)
    attribution.prepare(gaps)
    width = len(ranges.paths) + 1
    total = np.zeros(len(Cause) * width, np.int64)
    innermost = {thread: ranges.innermost(thread) for thread in distinct(ranges.thread)}
    for pieces in attribution.pieces(gaps):
        _add(total, pieces, innermost, width)
    if int(total.sum()) != gaps.total:
        raise AssertionError("idle time by path does not add up to the idle time")
    names = (*ranges.paths, OUTSIDE_NVTX)
    table = total.reshape(len(Cause), width)
    return {
        cause: {names[place]: int(table[cause, place]) for place in np.flatnonzero(table[cause]).tolist()}
        for cause in Cause
        if table[cause].any()
    }


def _add(total: Int64, pieces: IdlePieces, innermost: Mapping[int, tuple[Intervals, np.ndarray]], width: int) -> None:
    codes = pieces.codes.astype(np.int64)
    for thread in distinct(pieces.thread):
        mine = np.flatnonzero(pieces.thread == thread)
        # Pieces of one thread may lie in gaps of several streams, but gaps of a device do not overlap.
        mine = mine[np.argsort(pieces.starts[mine], kind="stable")]
        lengths = pieces.ends[mine] - pieces.starts[mine]
        if thread in innermost:
            spans, path = innermost[thread]
            hit = intersect(Intervals(pieces.starts[mine], pieces.ends[mine]), spans)
            inside = hit.ends - hit.starts
            np.add.at(total, codes[mine[hit.left]] * width + path[hit.right], inside)
            covered = np.zeros(len(mine), np.int64)
            np.add.at(covered, hit.left, inside)
            lengths = lengths - covered
        np.add.at(total, codes[mine] * width + width - 1, lengths)
