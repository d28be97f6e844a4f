"""Phases: NVTX ranges of one path, as the stretches of GPU time that their projections cover."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .intervals import Intervals, overlap_of, union
from .nvtx import PATH_SEPARATOR
from .view import View

_MOST_PHASES = 40
_DEEPEST = 2


@dataclass(frozen=True, slots=True)
class Phase:
    """The projections of the ranges of one path; `covered` is their union."""

    path: str
    depth: int
    instances: int
    covered: Intervals
    in_window: bool

    def is_around(self, other: Phase) -> bool:
        """Whether the other phase is nested in this one."""
        return other.path.startswith(self.path + PATH_SEPARATOR)


def phases_of(view: View) -> tuple[Phase, ...]:
    """Return the phases that launched GPU work, the outer three levels, longest first, at most 40.

    Instances in the window and outside of it make different phases; outside ones are only returned where the window
    has none.
    """
    ranges, projections, window = view.ranges, view.projections, view.window
    if not len(ranges):
        return ()
    counted = (projections.operations > 0) & (ranges.depth <= _DEEPEST)
    inside = (projections.starts >= window.start_ns) & (projections.starts < window.end_ns)
    in_window = bool((counted & inside).any())
    rows = np.flatnonzero(counted & (inside if in_window else ~inside))
    found = []
    for path in np.unique(ranges.path[rows]).tolist():
        mine = rows[ranges.path[rows] == path]
        covered = union(projections.starts[mine], projections.ends[mine])
        found.append(Phase(ranges.paths[path], int(ranges.depth[mine[0]]), len(mine), covered, in_window))
    found.sort(key=lambda phase: (-phase.covered.total, phase.path))
    return tuple(found[:_MOST_PHASES])


def shared_ns(phase: Phase, phases: tuple[Phase, ...]) -> int:
    """Return how long projections of phases that are neither around nor inside a phase ran at the same time."""
    others = [
        other.covered
        for other in phases
        if other is not phase and not phase.is_around(other) and not other.is_around(phase)
    ]
    if not others:
        return 0
    starts = np.concatenate([spans.starts for spans in others])
    ends = np.concatenate([spans.ends for spans in others])
    return overlap_of(phase.covered, union(starts, ends))
