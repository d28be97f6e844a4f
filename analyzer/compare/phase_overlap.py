"""Whether phases of an iteration (the encoders of a model) run at the same time on the GPU, and what that can gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np

from ..intervals import Intervals, clip, overlap_of, union
from ..nvtx import PATH_SEPARATOR, without_counter
from ..phases import phases_of
from ..view import View
from .sequence import inside_iteration

_MOST_PHASES = 6


@dataclass(frozen=True, slots=True)
class PairOfPhases:
    """Two phases of one side, in ns of a mean iteration: their lengths on the GPU, and how long either or both ran."""

    first_ns: Fraction
    second_ns: Fraction
    either_ns: Fraction

    @property
    def both_ns(self) -> Fraction:
        """How long both ran at the same time."""
        return self.first_ns + self.second_ns - self.either_ns

    @property
    def overlap_ratio(self) -> float:
        """Share of the shorter phase that runs beside the other, 0 to 1."""
        shorter = min(self.first_ns, self.second_ns)
        return float(self.both_ns / shorter) if shorter else 0.0


@dataclass(frozen=True, slots=True)
class PhaseOverlap:
    """A pair of phases before and after.

    `bound` is the most that overlap can gain for phases as long as those before, (a + b) / max(a, b), since the longer
    one has to run; `gain` is how much shorter both together became, time before / time after.
    """

    first: str
    second: str
    before: PairOfPhases
    after: PairOfPhases

    @property
    def bound(self) -> float:
        """The most that overlap can gain over one after the other."""
        longer = max(self.before.first_ns, self.before.second_ns)
        return float((self.before.first_ns + self.before.second_ns) / longer) if longer else 1.0

    @property
    def gain(self) -> float:
        """Time in either phase before, divided by that after."""
        return float(self.before.either_ns / self.after.either_ns) if self.after.either_ns else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON, ns of a mean iteration."""

        def side(pair: PairOfPhases) -> dict[str, float]:
            return {
                "first_ns": float(pair.first_ns),
                "second_ns": float(pair.second_ns),
                "either_ns": float(pair.either_ns),
                "both_ns": float(pair.both_ns),
                "overlap_ratio": pair.overlap_ratio,
            }

        return {
            "first": self.first,
            "second": self.second,
            "before": side(self.before),
            "after": side(self.after),
            "bound": self.bound,
            "gain": self.gain,
        }


def phase_overlaps(before: Sequence[View], after: Sequence[View]) -> tuple[PhaseOverlap, ...]:
    """Return the pairs of phases directly below the iteration that both sides have, the longest first.

    A phase is what its NVTX ranges launched, from the first start to the last end, on all chosen devices.
    """
    sides = [[_phases(view) for view in views] for views in (before, after)]
    iterations = [sum(max(view.periods, 1) for view in views) for views in (before, after)]
    common = [
        name for name in (sides[0][0] if sides[0] else {}) if all(name in phases for side in sides for phases in side)
    ]
    made = []
    for first, second in combinations(common[:_MOST_PHASES], 2):
        pairs = []
        for side, count in zip(sides, iterations, strict=True):
            lengths = [
                (phases[first].total, phases[second].total, overlap_of(phases[first], phases[second]))
                for phases in side
            ]
            one, two, both = (sum(column) for column in zip(*lengths, strict=True))
            pairs.append(PairOfPhases(Fraction(one, count), Fraction(two, count), Fraction(one + two - both, count)))
        made.append(PhaseOverlap(first, second, *pairs))
    return tuple(made)


def _phases(view: View) -> dict[str, Intervals]:
    """Return the phases directly below the iteration, clipped to the window, the longest first."""
    labels = {without_counter(iteration.name) for iteration in view.window.iterations}
    found: dict[str, Intervals] = {}
    for phase in phases_of(view):
        name = inside_iteration(phase.path, labels)
        if not phase.in_window or not name or name == phase.path or PATH_SEPARATOR in name:
            continue
        inside = clip(phase.covered.starts, phase.covered.ends, view.window.start_ns, view.window.end_ns)
        known = found.get(name, Intervals(np.empty(0, np.int64), np.empty(0, np.int64)))
        spans = union(np.concatenate((known.starts, inside.starts)), np.concatenate((known.ends, inside.ends)))
        if len(spans):
            found[name] = spans
    return dict(sorted(found.items(), key=lambda item: (-item[1].total, item[0])))
