"""Power and energy: of the window, per iteration, per item and per phase; loads, clocks and limits beside them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from ..energy import NJ_PER_J, PowerCurve
from ..evidence import Placed
from ..intervals import Intervals
from ..message import message
from ..metric import NO_GPU_OPERATIONS, Measurement, Metric, NotMeasured, Result, ResultColumn, ResultTable
from ..phases import phases_of
from ..power_events import limits_of
from ..power_log import PowerLog
from ..power_phases import energy_by_phase
from ..view import View
from .iterations import NO_BATCH, items_per_iteration

NO_POWER = message(
    "power is not part of an nsys trace; log it beside the run (tegrastats on a Jetson, nvidia-smi on a desktop) and "
    "give the log too, as in `nitro-analyze trace.sqlite tegrastats.log`"
)
_NO_IDLE = message("the log has fewer than 10 records at which the GPU ran nothing; log some seconds before the run")
_NO_ITERATIONS = message("no iterations were found; mark each with an NVTX range, or name the ranges with --nvtx")
_NOT_LOGGED = message("the log does not have it")
_NO_CLOCKS = message(
    "the log has neither reasons of the driver for low clocks nor GPU clock and load (tegrastats needs sudo for clocks)"
)
_NOT_LIMITED = message("nothing held the GPU clock down in the window, or the log has no GPU clock")
_NO_PHASES = message("no NVTX range that launched GPU work lies in the window")
_FEWEST_IDLE, _IDLE_PERCENTILE = 10, 10
_IDLE_GUARD_PERIODS = 2
_IDLE_LOAD = 0.05
# Records further apart than this many periods have a gap between them, of which nothing is known.
_GAP_PERIODS = 5
_BINS = 240
# Where iterations are shorter than so many sampling periods, records must fall into all parts of them.
_SHORT_ITERATION_PERIODS = 2
_LARGEST_EVEN_GAP = 0.25
_OVER_TIME_COLUMNS = (
    ResultColumn("start_ns", "ns", message("start of the bin, since session start")),
    ResultColumn("end_ns", "ns", message("end of the bin")),
    ResultColumn("power_w", "W", message("mean power of the total")),
    ResultColumn("gpu_load", "ratio", message("mean GPU load as the log has it")),
    ResultColumn("memory_load", "ratio", message("mean load of the memory controller as the log has it")),
    ResultColumn("gpu_clock", "Hz", message("mean GPU clock as the log has it")),
)


def compute(view: View) -> Iterator[Result]:
    """Power and energy over the window, from a log beside the trace.

    Of several logs the one with most records counts.

    The total is what the board measures as its input (`VDD_IN`, `POM_5V_IN`, `VIN`); other rails are parts of it and
    are never added to it. A board without such a rail gets the sum of its rails. Only instantaneous values are used,
    not the running mean that tegrastats prints beside them.

    - `power`: mean (energy / window), lowest and highest record.
    - `power_by_rail`: mean of the records of each rail.
    - `energy`: trapezoids between records, clipped to the window. Where a sensor measures more slowly than the log has
      records, which then repeat it in a steady beat, only its measurements are records, here and below.
    - `energy_per_iteration`, `energy_per_item`: energy / periods, and / items.
    - `iterations_per_joule`, `items_per_joule`: their inverses; items per joule are the performance per watt.
    - `idle_power`: 10th percentile of the records at which the trace has no GPU operation for two sampling periods
      before and after, and the log at most 5 % load.
    - `energy_above_idle`: energy - idle power x window.
    - `energy_by_phase`: NVTX phases by depth. A phase gets joules only where its mean projection lasts at least 3
      sampling periods and its own time holds at least 20 records; the others are one row together. Time of several
      phases at once and time outside of phases are rows of their own, so the rows of each depth add up to the window,
      exactly.
    - `power_over_time`: at most 240 equal parts of the window, with the means of power, loads and clock.
    - `logged_gpu_load`, `logged_memory_load`: mean and highest record of what the log calls load (GR3D_FREQ, EMC_FREQ,
      utilization.gpu).
    - `logged_gpu_clock`, `logged_temperature`: mean, lowest and highest record; highest record of each sensor.
    - `limited_time`, `power_events`: time in which something held the clocks down, by what and for any reason; when
      that was, and when the power mode changed.
    - `limited_clock`: mean GPU clock while something held it down, and the highest of the whole log.

    `error` bounds the energy's error by what happened between records (anything between the values of two neighbours),
    by the clock error of the log, and by half of the step in which the sensor reads. Where iterations are shorter than
    two sampling periods and records fall at the same place of each, any power of the log may hide in the rest, which is
    in it too. The accuracy of the sensor is not, since no log states it.
    """
    placed = chosen_log(view)
    if placed is None or not view.devices:
        reason = NO_POWER if placed is None else NO_GPU_OPERATIONS
        yield from (NotMeasured(name, reason) for name in METRIC.provides)
        return
    log, window = placed.evidence, view.window
    times = placed.trace_times(log.times_ns)
    inside = (times >= window.start_ns) & (times < window.end_ns)
    if len(times) < 2 or inside.sum() < 1:
        reason = message("no record of the power log lies in the window")
        yield from (NotMeasured(name, reason) for name in METRIC.provides)
        return
    curve = power_curve(view, placed)
    yield from _power_and_energy(view, placed, curve)
    load = log.loads.get("gpu")
    yield from _idle(view, curve, None if load is None else load[log.measurements()])
    yield from _logged(placed, inside)
    yield from _limits(view, placed)
    yield _over_time(view, placed, curve)


def chosen_log(view: View) -> Placed[PowerLog] | None:
    """Return the power log that counts, the one with most records."""
    return max(view.evidence_of(PowerLog), key=lambda log: log.evidence.records, default=None)


def power_curve(view: View, placed: Placed[PowerLog]) -> PowerCurve:
    """Return the power that the sensor measured, on the trace's clock."""
    log = placed.evidence
    rows = log.measurements()
    times, watts = placed.trace_times(log.times_ns)[rows], log.total_w[rows]
    # A measurement shows in the first record after it.
    delay = log.period_ns if len(rows) < len(log.times_ns) else 0
    return PowerCurve(
        times,
        watts,
        clock_error_ns=delay + (0 if placed.placement is None else placed.placement.error_ns),
        longest_step_ns=_GAP_PERIODS * log.sensor_period_ns,
        resolution_w=log.resolution_w,
        unresolved_w=_unresolved_w(view, times, watts, log.sensor_period_ns),
    )


def _unresolved_w(view: View, times: np.ndarray, watts: np.ndarray, period_ns: int) -> float:
    """Return by how much the mean power may be off where records fall at the same place of each short iteration.

    Iterations shorter than two sampling periods change the power more than once between two records. As long as records
    fall everywhere in them, that evens out. A part of the iteration in which no record ever falls may have any power
    that the log shows.
    """
    starts = np.array([iteration.start_ns for iteration in view.window.iterations], np.int64)
    if len(starts) < 2 or float(np.median(np.diff(starts))) >= _SHORT_ITERATION_PERIODS * period_ns:
        return 0.0
    inside = (times >= starts[0]) & (times < starts[-1])
    row = np.searchsorted(starts, times[inside], side="right") - 1
    place = np.sort((times[inside] - starts[row]) / (starts[row + 1] - starts[row]))
    if not len(place):
        return 0.0
    gap = float(np.diff(np.concatenate((place, [place[0] + 1.0]))).max())
    if gap <= _LARGEST_EVEN_GAP:
        return 0.0
    mean = float(watts[inside].mean())
    return gap * max(float(watts.max()) - mean, mean - float(watts.min()))


def _window(view: View) -> Intervals:
    return Intervals(np.array([view.window.start_ns]), np.array([view.window.end_ns]))


def _power_and_energy(view: View, placed: Placed[PowerLog], curve: PowerCurve) -> Iterator[Result]:
    low, high = view.window.start_ns, view.window.end_ns
    inside = curve.watts[(curve.times >= low) & (curve.times < high)]
    covered = curve.covered_ns(low, high)
    if covered < high - low:
        mean = float(inside.mean())
        yield Measurement("power", mean, "W", by="mean", count=len(inside))
    else:
        window = _window(view)
        total, bound = curve.energy(window), curve.uncertainty(window)
        mean_error = bound / (high - low)
        yield Measurement("power", total / (high - low), "W", by="mean", count=len(inside), error=mean_error)
    yield Measurement("power", float(inside.min()), "W", by="min", count=len(inside))
    yield Measurement("power", float(inside.max()), "W", by="max", count=len(inside))
    rows = placed.evidence.measurements()
    for rail in placed.evidence.rails:
        part = rail.watts[rows][(curve.times >= low) & (curve.times < high)]
        if not np.isnan(part).all():
            yield Measurement("power_by_rail", float(np.nanmean(part)), "W", by=rail.name, count=len(part))
    if covered < high - low:
        reason = message(
            "the power log covers {part:.1%} of the window only (it begins late, ends early or has gaps)",
            part=covered / (high - low),
        )
        yield from (NotMeasured(name, reason) for name in _ENERGIES)
        return
    yield Measurement("energy", total / NJ_PER_J, "J", count=len(inside), error=bound / NJ_PER_J)
    yield from _per_iteration(view, total, bound)
    yield from _by_phase(view, placed, curve)


def _per_iteration(view: View, total_nj: int, bound_nj: float) -> Iterator[Result]:
    if not view.window.iterations:
        names = ("energy_per_iteration", "iterations_per_joule", "energy_per_item", "items_per_joule")
        yield from (NotMeasured(name, _NO_ITERATIONS) for name in names)
        return
    yield from _shared_out("energy_per_iteration", "iterations_per_joule", view.periods, total_nj, bound_nj)
    items = items_per_iteration(view)
    if items is None:
        yield from (NotMeasured(name, NO_BATCH) for name in ("energy_per_item", "items_per_joule"))
        return
    yield from _shared_out("energy_per_item", "items_per_joule", items * view.periods, total_nj, bound_nj)


def _shared_out(each: str, rate: str, count: float, total_nj: int, bound_nj: float) -> Iterator[Result]:
    joules, error = total_nj / NJ_PER_J, bound_nj / NJ_PER_J
    yield Measurement(each, joules / count, "J", count=round(count), error=error / count)
    if joules > 0:
        relative = error / joules
        yield Measurement(rate, count / joules, "1/J", count=round(count), error=count / joules * relative)


def _by_phase(view: View, placed: Placed[PowerLog], curve: PowerCurve) -> Iterator[Result]:
    phases = tuple(phase for phase in phases_of(view) if phase.in_window)
    if not phases:
        yield NotMeasured("energy_by_phase", _NO_PHASES)
        return
    yield energy_by_phase(phases, curve, placed.evidence.sensor_period_ns, view.window.start_ns, view.window.end_ns)


def _idle(view: View, curve: PowerCurve, load: np.ndarray | None) -> Iterator[Result]:
    busy_starts, busy_ends = view.operations.starts, view.operations.ends
    guard = max(_IDLE_GUARD_PERIODS * int(np.median(np.diff(curve.times))), curve.clock_error_ns)
    # Operations are ordered by start, so the latest end before a moment is a running maximum.
    latest = np.maximum.accumulate(busy_ends)
    before = np.searchsorted(busy_starts, curve.times + guard, side="right")
    quiet = (before == 0) | (latest[np.maximum(before - 1, 0)] < curve.times - guard)
    if load is not None:
        # What the trace does not know of, such as another program, shows in the log.
        quiet &= np.isnan(load) | (load <= _IDLE_LOAD)
    records = curve.watts[quiet]
    if len(records) < _FEWEST_IDLE:
        yield NotMeasured("idle_power", _NO_IDLE)
        yield NotMeasured("energy_above_idle", _NO_IDLE)
        return
    idle = float(np.percentile(records, _IDLE_PERCENTILE))
    yield Measurement("idle_power", idle, "W", count=len(records))
    low, high = view.window.start_ns, view.window.end_ns
    if curve.covered_ns(low, high) == high - low:
        window = _window(view)
        above = (curve.energy(window) - idle * (high - low)) / NJ_PER_J
        yield Measurement("energy_above_idle", above, "J", error=curve.uncertainty(window) / NJ_PER_J)


def _logged(placed: Placed[PowerLog], inside: np.ndarray) -> Iterator[Result]:
    log = placed.evidence
    for name, metric in (("gpu", "logged_gpu_load"), ("memory", "logged_memory_load")):
        values = log.loads.get(name, np.empty(0))[inside] if name in log.loads else np.empty(0)
        known = values[~np.isnan(values)]
        if not len(known):
            yield NotMeasured(metric, _NOT_LOGGED)
            continue
        yield Measurement(metric, float(known.mean()), "ratio", by="mean", count=len(known))
        yield Measurement(metric, float(known.max()), "ratio", by="max", count=len(known))
    clocks = log.clocks_hz["gpu"][inside] if "gpu" in log.clocks_hz else np.empty(0)
    known = clocks[~np.isnan(clocks)]
    if len(known):
        for by, value in (("mean", known.mean()), ("min", known.min()), ("max", known.max())):
            yield Measurement("logged_gpu_clock", float(value), "Hz", by=by, count=len(known))
    else:
        yield NotMeasured("logged_gpu_clock", _NOT_LOGGED)
    sensors = {name: values[inside] for name, values in log.temperatures_c.items()}
    hottest = {name: float(np.nanmax(v)) for name, v in sensors.items() if not np.isnan(v).all()}
    for name, value in hottest.items():
        yield Measurement("logged_temperature", value, "degC", by=name)
    if not hottest:
        yield NotMeasured("logged_temperature", _NOT_LOGGED)


def _limits(view: View, placed: Placed[PowerLog]) -> Iterator[Result]:
    low, high = view.window.start_ns, view.window.end_ns
    found = limits_of(placed.evidence, placed.trace_times(placed.evidence.times_ns), low, high)
    if found.time_by_kind:
        for kind, time_ns in found.time_by_kind.items():
            yield Measurement("limited_time", time_ns, "ns", by=kind)
    else:
        yield NotMeasured("limited_time", _NO_CLOCKS)
    if found.limited_clock_hz is None or found.highest_clock_hz is None:
        yield NotMeasured("limited_clock", _NOT_LIMITED if found.time_by_kind else _NO_CLOCKS)
    else:
        yield Measurement("limited_clock", found.limited_clock_hz, "Hz", by="limited")
        yield Measurement("limited_clock", found.highest_clock_hz, "Hz", by="highest")
    yield found.table


def _over_time(view: View, placed: Placed[PowerLog], curve: PowerCurve) -> ResultTable:
    low, high = view.window.start_ns, view.window.end_ns
    count = curve.count(_window(view))
    bins = max(1, min(_BINS, count, high - low))
    edges = np.linspace(low, high, bins + 1).astype(np.int64)
    starts, ends = edges[:-1], edges[1:]
    covered = (starts >= curve.times[0]) & (ends <= curve.times[-1])
    energy = curve.energy_before(ends) - curve.energy_before(starts)
    power = np.where(covered, energy / (ends - starts), np.nan)
    columns: dict[str, pl.Series] = {
        "start_ns": pl.Series(starts),
        "end_ns": pl.Series(ends),
        "power_w": pl.Series(power).fill_nan(None),
    }
    log = placed.evidence
    which = np.searchsorted(edges, placed.trace_times(log.times_ns), side="right") - 1
    series = (
        ("gpu_load", log.loads.get("gpu")),
        ("memory_load", log.loads.get("memory")),
        ("gpu_clock", log.clocks_hz.get("gpu")),
    )
    for name, values in series:
        columns[name] = _binned(which, values, bins)
    return ResultTable("power_over_time", message("Power over time"), _OVER_TIME_COLUMNS, pl.DataFrame(columns))


def _binned(which: np.ndarray, values: np.ndarray | None, bins: int) -> pl.Series:
    if values is None:
        return pl.Series([None] * bins, dtype=pl.Float64)
    good = (which >= 0) & (which < bins) & ~np.isnan(values)
    counts = np.bincount(which[good], minlength=bins)
    sums = np.bincount(which[good], weights=values[good], minlength=bins)
    with np.errstate(invalid="ignore", divide="ignore"):
        return pl.Series(sums / counts).fill_nan(None)


_ENERGIES = (
    "energy",
    "energy_per_iteration",
    "iterations_per_joule",
    "energy_per_item",
    "items_per_joule",
    "energy_above_idle",
    "energy_by_phase",
)

METRIC = Metric(
    id="power",
    title=message("Power and energy"),
    provides={
        "power": "W",
        "power_by_rail": "W",
        "energy": "J",
        "energy_per_iteration": "J",
        "iterations_per_joule": "1/J",
        "energy_per_item": "J",
        "items_per_joule": "1/J",
        "idle_power": "W",
        "energy_above_idle": "J",
        "logged_gpu_load": "ratio",
        "logged_memory_load": "ratio",
        "logged_gpu_clock": "Hz",
        "logged_temperature": "degC",
        "limited_time": "ns",
        "limited_clock": "Hz",
        "energy_by_phase": "table",
        "power_over_time": "table",
        "power_events": "table",
    },
    needs=(),
    missing="",
    better="lower",
    reference=message("tegrastats and INA3221 documentation of Jetson Linux; NVML, for nvidia-smi"),
    compute=compute,
    order=12,
)
