"""Energy of NVTX phases: every nanosecond of the window belongs to exactly one row of each depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from .energy import NJ_PER_J, PowerCurve
from .intervals import Int64, Intervals, clip, union
from .message import message
from .metric import ResultColumn, ResultTable
from .phases import Phase

# A phase needs so many sampling periods on average, and so many measurements in all its own time.
LEAST_PERIODS = 3
FEWEST_SAMPLES = 20

SHORT = message("(phases too short to measure)")
SEVERAL = message("(several phases at once)")
OUTSIDE = message("(outside phases)")

COLUMNS = (
    ResultColumn("depth", "1", message("ranges around it; the rows of each depth add up to the window")),
    ResultColumn("nvtx_path", "", message("range with those around it, or what the time is that no phase has alone")),
    ResultColumn("instances", "1", message("ranges that launched GPU work")),
    ResultColumn("time_ns", "ns", message("time inside the window that belongs to this row alone")),
    ResultColumn("samples", "1", message("measurements of the power sensor in it")),
    ResultColumn("energy_nj", "nJ", message("energy; null where the phase is too short to measure")),
    ResultColumn("uncertainty_nj", "nJ", message("by how much the energy may be off, in either direction")),
    ResultColumn("power_w", "W", message("energy / time")),
    ResultColumn("energy_per_instance_j", "J", message("energy / instances")),
)
_TYPES = {"": pl.String, "ns": pl.Int64, "1": pl.Int64, "nJ": pl.Int64}


def energy_by_phase(phases: Sequence[Phase], curve: PowerCurve, period_ns: int, low: int, high: int) -> ResultTable:
    """Return the energy of phases, depth by depth.

    Time in which the projections of several phases of a depth run belongs to none of them, and has a row of its own.

    Args:
        phases: those of the window.
        curve: power on the trace's clock, which covers the window.
        period_ns: time between two measurements of the sensor.
        low, high: the window.
    """
    rows: list[tuple[object, ...]] = []
    for depth in sorted({phase.depth for phase in phases}):
        rows += _rows([phase for phase in phases if phase.depth == depth], depth, curve, period_ns, low, high)
    schema = {column.name: _TYPES.get(column.unit, pl.Float64) for column in COLUMNS}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return ResultTable("energy_by_phase", message("Energy by phase"), COLUMNS, frame)


def _rows(
    phases: Sequence[Phase], depth: int, curve: PowerCurve, period_ns: int, low: int, high: int
) -> Iterator[tuple[object, ...]]:
    edges, owner = _owners(phases, low, high)
    short: list[int] = []
    for number, phase in enumerate(phases):
        own = _spans(edges, owner == number)
        samples = curve.count(own)
        if phase.covered.total < LEAST_PERIODS * period_ns * phase.instances or samples < FEWEST_SAMPLES:
            short.append(number)
            yield depth, phase.path, phase.instances, own.total, samples, None, None, None, None
        else:
            yield _row(depth, phase.path, phase.instances, own, curve)
    rest = ((SHORT, np.isin(owner, short)), (SEVERAL, owner == _SEVERAL), (OUTSIDE, owner == _NOBODY))
    for name, mask in rest:
        own = _spans(edges, mask)
        if own.total:
            yield _row(depth, name, None, own, curve)


def _row(depth: int, path: str, instances: int | None, own: Intervals, curve: PowerCurve) -> tuple[object, ...]:
    energy = curve.energy(own)
    return (
        depth,
        path,
        instances,
        own.total,
        curve.count(own),
        energy,
        round(curve.uncertainty(own)),
        energy / own.total if own.total else None,
        energy / NJ_PER_J / instances if instances else None,
    )


_NOBODY, _SEVERAL = -1, -2


def _owners(phases: Sequence[Phase], low: int, high: int) -> tuple[Int64, Int64]:
    """Cut the window at every edge of a phase: (edges (n + 1,), which phase owns each piece (n,))."""
    clipped = [clip(phase.covered.starts, phase.covered.ends, low, high) for phase in phases]
    parts = [union(spans.starts, spans.ends) for spans in clipped]
    every = [edge for spans in parts for edge in (spans.starts, spans.ends)]
    edges = np.unique(np.concatenate([*every, [low, high]]).astype(np.int64))
    owner = np.full(len(edges) - 1, _NOBODY, np.int64)
    for number, spans in enumerate(parts):
        # Each interval covers whole pieces, since its edges are edges.
        change = np.zeros(len(edges), np.int64)
        np.add.at(change, np.searchsorted(edges, spans.starts), 1)
        np.add.at(change, np.searchsorted(edges, spans.ends), -1)
        mine = np.cumsum(change)[:-1] > 0
        owner[mine] = np.where(owner[mine] == _NOBODY, number, _SEVERAL)
    return edges, owner


def _spans(edges: Int64, mask: np.ndarray) -> Intervals:
    return union(edges[:-1][mask], edges[1:][mask])
