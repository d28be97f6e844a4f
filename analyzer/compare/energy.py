"""Energy of both sides, where power was logged beside their runs: per item, or per iteration where items are unknown.

The numbers are those of an analysis of each run alone (`nitro.analyzer.metrics.power`), with their bounds. Two sides
are held against each other only where every run has a value, and where their logs measured the same: what a Jetson
draws as a whole is not what its GPU draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from ..message import Message, message
from ..metric import Measurement, NotMeasured
from ..metrics.power import METRIC as POWER
from ..power_log import PowerLog, rails_of
from ..view import View

# What is compared, in this order of preference: items are the same on both sides, iterations may not be.
METRICS = ("energy_per_item", "energy_per_iteration")
# The format of logs whose rails are boards of GPUs.
_BOARDS = "nvidia-smi"
_NO_LOG = message("no power was logged beside it")


@dataclass(frozen=True, slots=True)
class Amount:
    """A measured number with the bound of what it may be off by, in its unit."""

    value: float
    error: float = 0.0

    @property
    def share(self) -> float:
        """The bound as a share of the number; 1 where the number is not positive."""
        return self.error / self.value if self.value > 0 else 1.0

    def to_dict(self) -> dict[str, float]:
        """Return the fields under their own names."""
        return {"value": self.value, "error": self.error}


@dataclass(frozen=True, slots=True)
class RunEnergy:
    """What is known of the energy of one run.

    `amounts` are energies in J by metric, `power_w` the mean power of the window, `measured` what the log measures as a
    whole. `reasons` say by metric why there is no energy; `has_log` is whether there is a power log at all.
    """

    file_name: str
    has_log: bool
    amounts: Mapping[str, Amount]
    power_w: Amount | None = None
    measured: str | None = None
    reasons: Mapping[str, str] | None = None

    def reason(self, metric: str) -> str:
        """Why a metric has no value."""
        return _NO_LOG if not self.has_log else (self.reasons or {}).get(metric, _NO_LOG)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {
            "file_name": self.file_name,
            "measured": self.measured,
            "power_w": None if self.power_w is None else self.power_w.to_dict(),
            **{f"{name}_j": self.amounts[name].to_dict() if name in self.amounts else None for name in METRICS},
        }


@dataclass(frozen=True, slots=True)
class Energy:
    """The energy of both sides.

    `metric` is what they are compared by, `None` where they cannot be, and `reason` says why not.
    """

    before: tuple[RunEnergy, ...]
    after: tuple[RunEnergy, ...]
    metric: str | None
    reason: str = ""

    @property
    def is_known(self) -> bool:
        """Whether the energy of any run is known."""
        return any(run.amounts for run in (*self.before, *self.after))

    @property
    def measured(self) -> tuple[str, ...]:
        """What the logs measure, each thing once."""
        return tuple(dict.fromkeys(run.measured for run in (*self.before, *self.after) if run.measured))

    @property
    def shown_metric(self) -> str:
        """What is shown of the sides: what is compared, or where nothing is, the best that any run has."""
        runs = (*self.before, *self.after)
        return self.metric or next((name for name in METRICS if any(name in run.amounts for run in runs)), METRICS[1])

    def values(self, side: Sequence[RunEnergy]) -> tuple[Amount, ...]:
        """Return what is known of the shown metric on a side."""
        return tuple(run.amounts[self.shown_metric] for run in side if self.shown_metric in run.amounts)

    def typical(self, side: Sequence[RunEnergy]) -> Amount | None:
        """Return the median of a side in J, with the largest bound of any run; `None` where no run has a value."""
        return typical(self.values(side))

    def typical_power(self, side: Sequence[RunEnergy]) -> Amount | None:
        """Return the median of the mean power of a side in W; see `typical`."""
        return typical([run.power_w for run in side if run.power_w is not None])

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {
            "metric": self.metric,
            "reason": self.reason,
            "before": [run.to_dict() for run in self.before],
            "after": [run.to_dict() for run in self.after],
        }


def typical(amounts: Sequence[Amount]) -> Amount | None:
    """Return the median of amounts with the largest of their bounds as a share of it; `None` where there is none."""
    if not amounts:
        return None
    middle = median(amount.value for amount in amounts)
    return Amount(middle, abs(middle) * max(amount.share for amount in amounts))


def energy_between(before: Iterable[RunEnergy], after: Iterable[RunEnergy]) -> Energy:
    """Return the energy of two sides, and by what they can be compared."""
    sides = (tuple(before), tuple(after))
    runs = (*sides[0], *sides[1])
    metric = next((name for name in METRICS if all(name in run.amounts for run in runs)), None)
    if metric is None:
        return Energy(*sides, None, _why_not(sides))
    measured = [list(dict.fromkeys(run.measured or "" for run in side)) for side in sides]
    if len({name for side in measured for name in side}) > 1:
        reason = message(
            "the power logs do not measure the same ({before} before, {after} after)",
            before=", ".join(measured[0]),
            after=", ".join(measured[1]),
        )
        return Energy(*sides, None, reason)
    return Energy(*sides, metric)


def _why_not(sides: tuple[tuple[RunEnergy, ...], tuple[RunEnergy, ...]]) -> Message:
    """Return why two sides have no energy in common."""
    logged = [sum(run.has_log for run in side) for side in sides]
    if not any(logged):
        return message("no power was logged; give the log of each run behind its trace")
    if not all(logged):
        known = message("before") if logged[0] else message("after")
        return message("power was logged on one side only ({side})", side=known)
    missing = next(run for side in sides for run in side if METRICS[1] not in run.amounts)
    return message("{file}: {reason}", file=missing.file_name, reason=missing.reason(METRICS[1]))


def energy_of(view: View) -> RunEnergy:
    """Return the energy of a run whose trace is at hand."""
    name = view.trace.source.file_name
    logs = view.evidence_of(PowerLog)
    if not logs:
        return RunEnergy(name, has_log=False, amounts={})
    # As the metric has it, of several logs the one with most records counts.
    log = max(logs, key=lambda placed: placed.evidence.records)
    found = tuple(POWER.results(view))
    known = {
        (entry.metric, entry.by): Amount(float(entry.value), entry.error or 0.0)
        for entry in found
        if isinstance(entry, Measurement)
    }
    reasons = {entry.metric: entry.reason for entry in found if isinstance(entry, NotMeasured)}
    rails = [by for metric, by in known if metric == "power_by_rail" and by]
    return _run(name, known, reasons, _measured(log.evidence.source.format, rails))


def energy_of_values(
    file_name: str,
    value: Callable[[str, str | None], Amount | None],
    reasons: Mapping[str, str],
    rails: Sequence[str],
    log_format: str | None,
) -> RunEnergy:
    """Return the energy of a run that is known from a saved analysis.

    Args:
        file_name: of its trace.
        value: returns a measurement by metric and part.
        reasons: why metrics were not measured.
        rails: names of the rails that have a mean power.
        log_format: of the power log beside the trace with most records, which is the one that counts; `None` where
            there was no log.
    """
    if log_format is None:
        return RunEnergy(file_name, has_log=False, amounts={})
    wanted = (*((name, None) for name in METRICS), ("power", "mean"))
    known = {key: amount for key in wanted if (amount := value(*key)) is not None}
    return _run(file_name, known, reasons, _measured(log_format, rails))


def _run(
    name: str, known: Mapping[tuple[str, str | None], Amount], reasons: Mapping[str, str], measured: str
) -> RunEnergy:
    amounts = {metric: known[metric, None] for metric in METRICS if (metric, None) in known}
    return RunEnergy(name, True, amounts, known.get(("power", "mean")), measured, reasons)


def _measured(log_format: str, rails: Sequence[str]) -> str:
    """Return what a log measures as a whole, in words that are the same for the same rails whoever logged them."""
    if log_format == _BOARDS:
        # How the boards are called, by number or by UUID, depends on the columns that were asked for.
        return message("the boards of {count} GPUs", count=len(rails)) if len(rails) > 1 else message("the GPU's board")
    return rails_of({name: np.empty(0) for name in sorted(rails)})[2]
