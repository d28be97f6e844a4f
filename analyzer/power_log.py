"""`PowerLog`: power by rail over time, with the loads, clocks and temperatures that the same tool wrote beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from .clock import Float64, Load, place, refined
from .evidence import Evidence, Placement
from .intervals import Int64
from .message import Message, message

if TYPE_CHECKING:
    from .view import View

Role = Literal["total", "part"]

# What a board measures as its whole input; whatever else it measures lies behind it.
_TOTALS = ("VDD_IN", "POM_5V_IN", "VIN")
# Fewer values than these do not show the step of a sensor; then the last digit that is printed counts.
_FEWEST_VALUES, _PRINTED_W = 20, 0.001
# A sensor that is read faster than it measures repeats itself in a steady beat: nearly no change comes after fewer than
# two records, and most changes come one beat apart. A load that goes up and down in a steady beat has few levels.
_FEWEST_CHANGES, _EARLIEST_PERCENTILE, _LEAST_RECORDS_HELD = 20, 10, 2
_BEAT_TOLERANCE, _LEAST_ON_THE_BEAT, _FEWEST_DIFFERENT = 0.35, 0.6, 10
# Rails that are no consumer of their own: not connected, or a sum that the sensor itself makes.
_NO_RAILS = ("NC", "sum of shunt voltages")


@dataclass(frozen=True, slots=True)
class Rail:
    """One supply rail: its name on the board, its power in W (n,), NaN where a record has none, and its role."""

    name: str
    watts: Float64
    role: Role


@dataclass(frozen=True, slots=True, eq=False)
class Board:
    """The board of one GPU in a log of GPUs: the name of its rail, what tells it from others, and the log of it alone.

    `index` is the number that nvidia-smi gave it; `uuid` and `pci_bus_id` are as `gpu_identity` writes them.
    """

    name: str
    index: int | None
    uuid: str | None
    pci_bus_id: str | None
    log: PowerLog


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLog(Evidence):
    """A log of power.

    `times_ns` (n,) ascend strictly on `clock`. `total_w` (n,) is the power of what the log measures as a whole:
    `total_source` says which rail that is, or that it is a sum. `loads` are ratios 0 to 1 (`gpu`, `memory`),
    `clocks_hz` have the same names, `temperatures_c` those of the sensors, `online_cpus` counts CPU cores. `limits` are
    reasons for which the tool itself said that clocks were held down, each with a flag per record. `edge_load` names
    what shows the edges of load best. Arrays have one entry per record, NaN where it has none. `boards` are those of a
    log of GPUs as long as it is open which of them count, and `choice` says it of several, as one of the notes does.
    """

    kind: ClassVar[str] = "power"

    times_ns: Int64
    rails: tuple[Rail, ...]
    total_w: Float64
    total_source: str
    has_total: bool
    loads: Mapping[str, Float64] = field(default_factory=dict)
    clocks_hz: Mapping[str, Float64] = field(default_factory=dict)
    temperatures_c: Mapping[str, Float64] = field(default_factory=dict)
    online_cpus: Float64 | None = None
    limits: Mapping[str, Float64] = field(default_factory=dict)
    edge_load: Literal["gpu", "power"] = "gpu"
    boards: tuple[Board, ...] = ()
    choice: str = ""

    @property
    def period_ns(self) -> int:
        """Median time between two records."""
        return int(np.median(np.diff(self.times_ns))) if len(self.times_ns) > 1 else 0

    @property
    def sensor_period_ns(self) -> int:
        """Time between two measurements of the sensor: that between records, unless these repeat what it measured.

        The driver of a server GPU measures ten times a second, however often nvidia-smi asks.
        """
        changes = np.flatnonzero(np.diff(self.total_w) != 0) + 1
        if len(changes) < _FEWEST_CHANGES:
            return self.period_ns
        held = np.diff(self.times_ns[changes])
        beat = float(np.median(held))
        on_the_beat = np.abs(held - beat) <= _BEAT_TOLERANCE * beat
        is_held = (
            np.percentile(held, _EARLIEST_PERCENTILE) >= _LEAST_RECORDS_HELD * self.period_ns
            and on_the_beat.mean() >= _LEAST_ON_THE_BEAT
            and len(np.unique(self.total_w[changes])) >= _FEWEST_DIFFERENT
        )
        return int(beat) if is_held else self.period_ns

    def measurements(self) -> npt.NDArray[np.intp]:
        """Return the records (m,) at which the sensor had measured anew; all of them where it is as fast as the log.

        Where it measured the same again, a record is taken after each of its periods.
        """
        beat = self.sensor_period_ns
        if beat == self.period_ns:
            return np.arange(len(self.times_ns))
        changes = np.concatenate(([0], np.flatnonzero(np.diff(self.total_w) != 0) + 1))
        starts = self.times_ns[changes]
        ends = np.append(starts[1:], self.times_ns[-1] + beat)
        # How often it measured each value: the last time must be most of a beat before the next one.
        times = np.maximum(np.rint((ends - starts) / beat).astype(np.int64), 1)
        turn = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
        due = np.repeat(starts, times) + turn * beat
        return np.asarray(np.minimum(np.searchsorted(self.times_ns, due), len(self.times_ns) - 1), np.intp)

    @property
    def resolution_w(self) -> float:
        """Step in which the sensor reads: a small one of the distances between the values that occur.

        The sensors of a Jetson read in steps of some 40 mW, whatever digits are printed.
        """
        values = np.unique(self.total_w)
        if len(values) < _FEWEST_VALUES:
            return _PRINTED_W
        return max(float(np.percentile(np.diff(values), 10)), _PRINTED_W)

    def seen_by(self, view: View) -> PowerLog:
        """Return the log of the GPUs that the trace used, where it is of several and that can be told."""
        from .power_boards import boards_of_trace

        return boards_of_trace(self, view)

    def placed(self, view: View, offset_ns: int | None) -> Placement | None:
        """Place the log by its stamps, then by the edges of load, unless the user gave an offset."""
        if self.clock is None:
            return None
        placement = place(self.clock, view, self.source.file_name, offset_ns)
        return placement if offset_ns is not None else refined(placement, self._load(), view)

    def respaced(self, interval_ns: int) -> PowerLog:
        """Return the log with so much time between its records, where these carry no times of their own."""
        if self.clock is None or self.clock.kind != "counted":
            return self
        times = np.arange(len(self.times_ns), dtype=np.int64) * interval_ns
        clock = replace(self.clock, first_ns=0, last_ns=int(times[-1]), error_ns=interval_ns // 2)
        return replace(self, times_ns=times, clock=clock)

    def _load(self) -> Load:
        gpu = self.loads.get("gpu")
        # A load that the driver averages over up to a second has no sharp edges; power then has.
        if gpu is None or self.edge_load == "power" or np.isnan(gpu).all():
            return Load(self.times_ns, self.total_w)
        return Load(self.times_ns, gpu)


def rails_of(watts: Mapping[str, Float64]) -> tuple[tuple[Rail, ...], Float64, Message, bool]:
    """Return rails with their roles, the total power, where it comes from, and whether it is measured.

    Where the board measures its input (VDD_IN, POM_5V_IN or VIN), that is the total and all other rails are parts of
    it. Else the total is the sum of the rails, NaN where one of them is missing.
    """
    kept = {name: values for name, values in watts.items() if name not in _NO_RAILS}
    total = next((name for name in _TOTALS if name in kept), None)
    rails = tuple(Rail(name, values, "total" if name == total else "part") for name, values in kept.items())
    if total is not None:
        return rails, kept[total], message("{rail}, the input of the module", rail=total), True
    names = ", ".join(kept)
    summed = np.sum(list(kept.values()), axis=0) if kept else np.zeros(0)
    source = message("the sum of {rails}, since the board measures no total", rails=names)
    return rails, np.asarray(summed, np.float64), source, False
