"""Energy of layers: joules of those that last long enough for the sensor, and of no others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .energy import PowerCurve
from .intervals import Intervals, clip, subtract, union
from .layers import LayerTree
from .nvtx import Projections
from .power_phases import FEWEST_SAMPLES, LEAST_PERIODS


@dataclass(frozen=True, slots=True)
class LayerEnergy:
    """Energy of one part of a tree in the window, and by how much it may be off in either direction, nJ."""

    energy_nj: int
    uncertainty_nj: int


def energy_of_layers(
    tree: LayerTree, projections: Projections, curve: PowerCurve, period_ns: int, low: int, high: int
) -> dict[int, LayerEnergy]:
    """Return the energy of parts by their numbers, of those alone that the sensor resolves.

    The time of a part is the union of the projections of its ranges that start in the window. Time in which another
    part of the same depth runs too belongs to none of them. What remains must hold 20 measurements, and a projection
    must last three measuring periods on average, as for phases (`power_phases`).

    Args:
        tree: the parts.
        projections: those of the tree's ranges.
        curve: power on the trace's clock, which covers the window.
        period_ns: time between two measurements of the sensor.
        low, high: the window.
    """
    ranges = tree.ranges
    counted = (projections.operations > 0) & (projections.starts >= low) & (projections.starts < high)
    rows = np.flatnonzero(counted)
    if not len(rows):
        return {}
    parts, depths = ranges.path[rows], ranges.depth[rows]
    spans = clip(projections.starts[rows], projections.ends[rows], low, high)
    lengths = spans.ends - spans.starts
    found: dict[int, LayerEnergy] = {}
    # Few parts are long; sums tell which may be, before anything is merged.
    instances = np.bincount(parts, minlength=len(ranges.paths))
    together = np.bincount(parts, lengths, minlength=len(ranges.paths))
    longest = (together >= LEAST_PERIODS * period_ns * instances) & (together >= (FEWEST_SAMPLES - 1) * period_ns)
    for part in np.flatnonzero(longest & (instances > 0)).tolist():
        mine = parts == part
        beside = (depths == depths[mine][0]) & ~mine
        covered = union(spans.starts[mine], spans.ends[mine])
        alone = subtract(covered, union(spans.starts[beside], spans.ends[beside]))
        own = Intervals(alone.starts, alone.ends)
        enough = covered.total >= LEAST_PERIODS * period_ns * int(instances[part])
        if enough and curve.count(own) >= FEWEST_SAMPLES:
            found[part] = LayerEnergy(curve.energy(own), round(curve.uncertainty(own)))
    return found
