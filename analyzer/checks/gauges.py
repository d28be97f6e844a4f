"""What a budget can be about: the metrics of the JSON, and the columns of its tables of NVTX ranges.

Most metrics of a window grow with it (`gpu_idle`, `kernel_count`), and two runs rarely have the same number of
iterations. Such a total is judged per iteration unless a budget says otherwise.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from ..analysis import all_metrics
from ..metric import Better

Per = Literal["iteration", "window"]

# Ids whose value is a sum over the window.
WINDOW_TOTALS = frozenset(
    {
        "window",
        "gpu_busy",
        "kernel_busy",
        "gpu_busy_sum",
        "overlap",
        "kernel_time_sum",
        "graph_time_sum",
        "memcpy_time_sum",
        "memset_time_sum",
        "kernel_count",
        "graph_launch_count",
        "memcpy_count",
        "memset_count",
        "gpu_busy_by_stream",
        "gpu_busy_by_process",
        "stream_concurrency",
        "phase_overlap",
        "gpu_idle",
        "gpu_idle_by_cause",
        "iteration_outliers",
        "launch_api_time",
        "launch_queue_time",
        "launch_exposed",
        "sync_time",
        "sync_exposed",
        "sync_drained_time",
        "blocking_copy_time",
        "small_grid_time",
        "tiny_kernel_time",
        "tiny_kernel_count",
        "fusable_kernel_time",
        "allocation_count",
        "allocation_bytes",
        "sm_active_cycles",
        "sm_issue_slot_cycles",
        "tensor_active_cycles",
        "gpu_context_switch_time",
        "gpu_context_switch_count",
        "energy",
        "energy_above_idle",
        "limited_time",
        "counter_join_time",
        "bound_time",
    }
)
# A file of metrics declares one direction for a whole family; these of its members have another.
_OWN_DIRECTION: Mapping[str, Better] = {
    "iterations_per_s": "higher",
    "throughput": "higher",
    "unallocated_warps_ratio": "lower",
    "phase_overlap": "higher",
    "stream_concurrency": "neither",
    "gpu_memory_in_use": "lower",
    "blocking_copy_time": "lower",
    "small_grid_time": "lower",
    "small_grid_empty_sm_ratio": "lower",
    "tiny_kernel_time": "lower",
    "tiny_kernel_count": "lower",
    "gpu_busy_ratio": "higher",
    "gr_active_ratio": "higher",
    "iterations_per_joule": "higher",
    "items_per_joule": "higher",
    "logged_gpu_load": "higher",
    "logged_gpu_clock": "higher",
    "limited_clock": "higher",
}
_MOST_LISTED = 25
PROCESS = re.compile(r"\bpid \d+")


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number that can be budgeted. `of_phase`: it belongs to an NVTX range, as a column of the table `table`."""

    name: str
    unit: str
    better: Better
    is_window_total: bool
    of_phase: bool = False
    table: str | None = None


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """One value of a gauge in a run: which part, on which device, in which NVTX range; empty and -1 mean "none"."""

    metric: str
    by: str = ""
    device_id: int = -1
    nvtx: str = ""

    @property
    def text(self) -> str:
        """The key as one reads it, as in `iteration_period:p50` or `sm_active in 'infer:# > vision' on GPU 0`."""
        name = f"{self.metric}:{self.by}" if self.by else self.metric
        name += f" in '{self.nvtx}'" if self.nvtx else ""
        return name + (f" on GPU {self.device_id}" if self.device_id >= 0 else "")

    @property
    def is_lasting(self) -> bool:
        """Whether the next run can have the same key; parts that are named after a process id cannot come again."""
        return PROCESS.search(self.by) is None


def _phase(name: str, unit: str, better: Better, table: str, *, is_window_total: bool = False) -> Gauge:
    return Gauge(name, unit, better, is_window_total, of_phase=True, table=table)


_PHASES = (
    _phase("cpu_mean_ns", "ns", "lower", "nvtx_phases"),
    _phase("cpu_total_ns", "ns", "lower", "nvtx_phases", is_window_total=True),
    _phase("projection_mean_ns", "ns", "lower", "nvtx_phases"),
    _phase("operations", "1", "lower", "nvtx_phases", is_window_total=True),
    _phase("operation_time_ns", "ns", "lower", "nvtx_phases", is_window_total=True),
    _phase("gpu_busy_ratio", "ratio", "higher", "nvtx_phases"),
    *(
        _phase(name, "ratio", "higher", "sampled_by_phase")
        for name in (
            "gr_active",
            "sm_active",
            "sm_issue",
            "tensor_active",
            "compute_warps",
            "dram_read",
            "dram_write",
        )
    ),
)


@cache
def gauges(*, of_phase: bool) -> Mapping[str, Gauge]:
    """Return what can be budgeted by name: values of the whole window, or those of an NVTX range."""
    if of_phase:
        return {gauge.name: gauge for gauge in _PHASES}
    return {
        name: Gauge(name, unit, _OWN_DIRECTION.get(name, metric.better), name in WINDOW_TOTALS)
        for metric in all_metrics()
        for name, unit in metric.provides.items()
        if unit not in ("table", "reason")
    }


def gauge_of(name: str, *, of_phase: bool) -> Gauge:
    """Return a gauge by its name.

    Raises:
        ValueError: there is none; the message names the nearest ones.
    """
    known = gauges(of_phase=of_phase)
    if name in known:
        return known[name]
    where = "of an NVTX range" if of_phase else "of the whole window"
    if name in gauges(of_phase=not of_phase):
        way = "leave nvtx out" if of_phase else "name the range with nvtx"
        raise ValueError(f"{name!r} is no metric {where}; {way}")
    raise ValueError(f"there is no metric {where} called {name!r}; {nearest(name, known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence: the names nearest to a wrong one, or where all of them stand."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    if len(known) <= _MOST_LISTED:
        return f"there are {', '.join(known)}."
    return "`nitro-analyze list metrics` shows what exists."


def matches(pattern: str, text: str) -> bool:
    """Tell whether a text is what a pattern says; `*` stands for anything, every other letter for itself."""
    pieces = map(re.escape, pattern.split("*"))
    return re.fullmatch(".*".join(pieces), text, re.DOTALL) is not None
