"""Baselines: what earlier runs measured, entry by entry, and which entry a value is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, get_args

from ..metric import Unit
from .gauges import Key, gauges
from .runs import Run

Kind = Literal["save", "update", "accept", "record"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MOST_PHASES = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """What one call added to a baseline.

    `save` begins it, `update` moves it on, `accept` moves it on although it got worse, for a `reason` and where
    `expires` is set until that day; `record` is history alone. An acceptance may be of some `metrics` only. `runs` are
    the repetitions; their values are those of keys that can come again. `has_bounds` is false of entries from before it
    was kept by how much values may be off.
    """

    number: int
    kind: Kind
    day: date
    runs: tuple[Run, ...]
    reason: str = ""
    owner: str = ""
    label: str = ""
    expires: date | None = None
    metrics: tuple[str, ...] = ()
    nitro_version: str = ""
    has_bounds: bool = True

    def is_expired(self, day: date) -> bool:
        """Tell whether an acceptance holds no longer; on its last day it already does not."""
        return self.expires is not None and day >= self.expires

    def is_reference(self, metric: str, day: date) -> bool:
        """Tell whether values of a metric are held against this entry on a day, if no later one is."""
        if self.kind == "record" or self.is_expired(day):
            return False
        return not self.metrics or metric in self.metrics


@dataclass(frozen=True, slots=True)
class Baseline:
    """A named baseline: its entries, the oldest first."""

    name: str
    entries: tuple[Entry, ...]

    def reference(self, metric: str, day: date) -> Entry:
        """Return the entry that a metric is held against on a day: the newest that counts.

        The first entry always counts.
        """
        return next(
            (entry for entry in reversed(self.entries) if entry.is_reference(metric, day)),
            self.entries[0],
        )

    def expired(self, day: date) -> tuple[Entry, ...]:
        """Return the acceptances that have run out and were not overtaken by a later entry for everything."""
        found: list[Entry] = []
        for entry in self.entries:
            if entry.is_expired(day):
                found.append(entry)
            elif entry.kind != "record" and not entry.metrics:
                found.clear()
        return tuple(found)

    @property
    def next_number(self) -> int:
        """The number of the entry that comes next."""
        return self.entries[-1].number + 1 if self.entries else 1

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys of every value in the history, sorted."""
        return tuple(sorted({key for entry in self.entries for run in entry.runs for key in run.values}))


def unit_of(key: Key) -> Unit:
    """Return the unit of a key's values."""
    gauge = gauges(of_phase=bool(key.nvtx)).get(key.metric)
    return gauge.unit if gauge is not None else ""  # type: ignore[return-value]


def kept_keys(runs: Sequence[Run]) -> tuple[Key, ...]:
    """Return the keys that a baseline keeps of runs, sorted.

    Parts that are named after a process id cannot come again. Of NVTX ranges at most `MOST_PHASES` are kept, those
    whose operations took the longest.
    """
    keys = {key for run in runs for key in run.values if key.is_lasting}
    time: dict[str, float] = {}
    for run in runs:
        for key, value in run.values.items():
            if key.nvtx and key.metric == "operation_time_ns":
                time[key.nvtx] = time.get(key.nvtx, 0.0) + value
    phases = {key.nvtx for key in keys if key.nvtx}
    longest = sorted(phases, key=lambda path: (-time.get(path, 0.0), path))[:MOST_PHASES]
    kept = {"", *longest}
    return tuple(sorted(key for key in keys if key.nvtx in kept))
