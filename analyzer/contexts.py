"""Which process's context held a GPU when, from its context-switch events.

Without MPS, contexts of different processes never run at the same time: the GPU saves one and restores the other. A
context holds the GPU from its RESTORE_START (or CONTEXT_START) to its SAVE_END; between the two the GPU is switching.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from .intervals import EMPTY, Int64, Intervals, union
from .operations import process_of
from .trace import Trace

SAVE_END, RESTORE_START, CONTEXT_START = 7, 8, 9
# Long before and after any session: the state before the first event and after the last one.
_ALWAYS = 1 << 60


@dataclass(frozen=True, slots=True)
class Holders:
    """Disjoint stretches of one GPU, each with the process whose context held it, -1 while it was switching."""

    spans: Intervals
    process: npt.NDArray[np.int64]
    switches: Int64

    def of(self, process: int) -> Intervals:
        """Return when contexts of this process held the GPU."""
        mine = self.process == process
        return Intervals(self.spans.starts[mine], self.spans.ends[mine])

    def away_from(self, process: int) -> Intervals:
        """Return when the GPU was held by others, or switching to or from them."""
        others = self.process != process
        return union(self.spans.starts[others], self.spans.ends[others])


NOBODY = Holders(EMPTY, np.empty(0, np.int64), np.empty(0, np.int64))


def holders_of(trace: Trace, device_id: int) -> Holders | None:
    """Return who held a GPU when, `None` where context switches were not recorded.

    `Holders.switches` are the moments at which a context was restored.
    """
    events = trace.table("context_switches")
    if events is None:
        return None
    known = pl.col("tag").is_in((SAVE_END, RESTORE_START, CONTEXT_START))
    events = events.filter(known & (pl.col("device_id") == device_id)).sort("start_ns", maintain_order=True)
    if events.is_empty():
        return NOBODY
    times = events["start_ns"].to_numpy()
    process = process_of(events["global_pid"].fill_null(-1).to_numpy())
    leaves = events["tag"].to_numpy() == SAVE_END
    after = np.where(leaves, -1, process)
    before_first = process[0] if leaves[0] else -1
    starts = np.concatenate(([-_ALWAYS], times))
    ends = np.concatenate((times, [_ALWAYS]))
    held = np.concatenate(([before_first], after))
    keep = ends > starts
    return Holders(Intervals(starts[keep], ends[keep]), held[keep], times[~leaves])
