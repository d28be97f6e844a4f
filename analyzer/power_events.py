"""What held clocks down, and when: what a power log says of it, and what it shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from .clock import Float64
from .intervals import Int64
from .message import message
from .metric import ResultColumn, ResultTable
from .power_log import PowerLog

ANY = "any"
CLOCK_DROP = message("GPU clock below its level under load")
CORES = message("number of CPU cores online changed")
MEMORY_CLOCK = message("memory clock changed")
# Bits of nvmlClocksEventReasons that hold clocks down; idle, and clocks that a user set, are no limits.
DRIVER_LIMITS = {
    0x4: message("software power cap"),
    0x8: message("hardware slowdown"),
    0x20: message("software thermal slowdown"),
    0x40: message("hardware thermal slowdown"),
    0x80: message("hardware power brake"),
}
_LOADED = 0.9
_DROPPED = 0.9
_FEWEST = 3
_LONGEST_RISE_NS = 500_000_000
_COLUMNS = (
    ResultColumn("start_ns", "ns", message("first record that shows it, since session start")),
    ResultColumn("end_ns", "ns", message("last record that shows it")),
    ResultColumn("what", "", message("what happened, or what the tool said")),
    ResultColumn("before", "", message("value before it")),
    ResultColumn("after", "", message("value in it, or after it")),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Time in the window in which clocks were held down, ns by what, and all events of the log as a table.

    `time_by_kind` has `any` for all reasons together, 0 where there was none; it is empty where the log cannot tell.
    `limited_clock_hz` is the mean GPU clock in that time of the window, `highest_clock_hz` the highest of the log; both
    are `None` where there was no such time or the log has no GPU clock.
    """

    time_by_kind: Mapping[str, int]
    table: ResultTable
    limited_clock_hz: float | None = None
    highest_clock_hz: float | None = None


def limits_of(log: PowerLog, times: Int64, low: int, high: int) -> Limits:
    """Return limits and changes of the power mode.

    - What the tool itself says (the clock event reasons of nvidia-smi), record by record.
    - The GPU clock under at least 90 % load for three records or more at less than 90 % of the level that it mostly
      holds under such load: a limit of power or temperature, since nothing else lowers the clock of a loaded GPU.
    - The number of CPU cores online, or the clock of the memory, changed and stayed: another power mode.

    Args:
        log: the log.
        times: its times on the trace's clock.
        low, high: the window; times are counted inside, events listed anywhere in the log.
    """
    held: dict[str, npt.NDArray[np.bool_]] = {
        name: flags > 0 for name, flags in log.limits.items() if (flags > 0).any()
    }
    rows: list[tuple[object, ...]] = []
    for name, flags in held.items():
        rows += [(int(times[a]), int(times[b]), name, "", "") for a, b in _runs(flags)]
    drops, level = _clock_drops(log)
    if drops.any():
        held[CLOCK_DROP] = drops
        clock = log.clocks_hz["gpu"]
        for a, b in _runs(drops):
            mean = _megahertz(float(np.nanmean(clock[a : b + 1])))
            rows.append((int(times[a]), int(times[b]), CLOCK_DROP, _megahertz(level), mean))
    rows += _changes(log.online_cpus, times, CORES, _whole)
    rows += _changes(log.clocks_hz.get("memory"), times, MEMORY_CLOCK, _megahertz)
    rows.sort(key=lambda row: (row[0], row[2]))
    schema = {c.name: pl.Int64 if c.unit == "ns" else pl.String for c in _COLUMNS}
    table = ResultTable(
        "power_events",
        message("Limits and changes of the power mode"),
        _COLUMNS,
        pl.DataFrame(rows, schema=schema, orient="row"),
    )
    if not log.limits and not {"gpu"} <= set(log.clocks_hz) & set(log.loads):
        return Limits({}, table)
    held[ANY] = np.any([np.zeros(len(times), np.bool_), *held.values()], axis=0)
    by_kind = {name: _time_in(flags, times, low, high) for name, flags in held.items()}
    return Limits(by_kind, table, *_clocks(log, held[ANY], times, low, high))


def _clocks(
    log: PowerLog, held: npt.NDArray[np.bool_], times: Int64, low: int, high: int
) -> tuple[float | None, float | None]:
    """Return the mean GPU clock of the flagged records, weighted by their time in the window, and the highest."""
    clock = log.clocks_hz.get("gpu")
    if clock is None or np.isnan(clock).all():
        return None, None
    weights = np.clip(times[1:], low, high) - np.clip(times[:-1], low, high)
    counted = held[:-1] & ~np.isnan(clock[:-1]) & (weights > 0)
    if not counted.any():
        return None, None
    return float(np.average(clock[:-1][counted], weights=weights[counted])), float(np.nanmax(clock))


def _time_in(flags: npt.NDArray[np.bool_], times: Int64, low: int, high: int) -> int:
    """Return the time that flagged records stand for: from each to the next one, inside the window."""
    starts, ends = np.clip(times[:-1], low, high), np.clip(times[1:], low, high)
    return int((ends - starts)[flags[:-1]].sum())


def _runs(flags: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return first and last position of each run of flags."""
    edges = np.diff(np.concatenate(([0], flags.astype(np.int8), [0])))
    return list(zip(np.flatnonzero(edges == 1).tolist(), (np.flatnonzero(edges == -1) - 1).tolist(), strict=True))


def _clock_drops(log: PowerLog) -> tuple[npt.NDArray[np.bool_], float]:
    """Return which records show a clock below its usual level under load, and that level."""
    none = np.zeros(len(log.times_ns), np.bool_)
    clock, load = log.clocks_hz.get("gpu"), log.loads.get("gpu")
    if clock is None or load is None:
        return none, 0.0
    loaded = (load >= _LOADED) & ~np.isnan(clock)
    if loaded.sum() < 2 * _FEWEST:
        return none, 0.0
    level = float(np.percentile(clock[loaded], 90))
    dropped = none.copy()
    for first, last in _runs(loaded & (clock < _DROPPED * level)):
        begins, ends = first == 0 or not loaded[first - 1], last == len(loaded) - 1 or not loaded[last + 1]
        # The first records under load show a clock that is still rising; a short burst may end before it has risen.
        lasts = int(log.times_ns[last] - log.times_ns[first]) >= _LONGEST_RISE_NS
        is_rise = begins and not (ends and lasts)
        if last - first + 1 >= _FEWEST and not is_rise:
            dropped[first : last + 1] = True
    return dropped, level


def _changes(values: Float64 | None, times: Int64, what: str, show: Callable[[float], str]) -> list[tuple[object, ...]]:
    """Return where a value changed and both the old and the new one held for at least three records."""
    if values is None or len(values) < 2 * _FEWEST:
        return []
    found: list[tuple[object, ...]] = []
    for at in (np.flatnonzero(np.diff(values)) + 1).tolist():
        before, after = values[max(at - _FEWEST, 0) : at], values[at : at + _FEWEST]
        if len(before) == len(after) == _FEWEST and np.ptp(before) == 0 and np.ptp(after) == 0:
            found.append((int(times[at]), int(times[at]), what, show(float(before[0])), show(float(after[0]))))
    return found


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _megahertz(value: float) -> str:
    return f"{value / 1e6:.0f} MHz"
