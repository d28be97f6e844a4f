"""A run as a check sees it: its values, and the facts that decide what it may be compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nitro.errors import InputError

from ..analysis import Analysis
from ..causes import Cause
from ..message import message
from ..nvtx import family_of
from ..trace import Trace
from .gauges import Gauge, Key, gauges

MOST_KERNEL_NAMES = 20
# Why nothing of iterations is known where the user asked for the whole trace; marking them would change nothing.
WHOLE_TRACE = message(
    "with --window all the window has no iterations; leave it out (and take window out of [check] in nitro.toml), or "
    'judge a total of the window, such as gpu_busy, with per = "window"'
)
_TABLES = ("api_calls", "nvtx_events", "os_calls", "sched_events", "gpu_metric_samples", "context_switches")
_OPTIONS = (
    "driver_version",
    "l4t_version",
    "software_platform",
    "cpu_architecture",
    "cuda_graph_trace",
    "gpu_metrics_frequency_hz",
)
# Causes that a trace cannot tell apart where this was not recorded: their absence is no zero.
_TOLD_BY_OTHERS = ("os_call", "not_scheduled")


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What a run says of one GPU; `gpc_clock_hz` is the sampled mean in the window."""

    device_id: int
    name: str
    sm_count: int | None = None
    sm_clock_hz: int | None = None
    gpc_clock_hz: float | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a run was: machine, recording, window, workload.

    `told` is what the user says of it, such as precision and model; `kernels` are the kernels with the most time.
    """

    devices: tuple[DeviceFacts, ...]
    tool: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    recorded: tuple[str, ...] = ()
    window: str = "auto"
    iteration_mark: str | None = None
    iteration_name: str | None = None
    batch: float | None = None
    told: Mapping[str, str] = field(default_factory=dict)
    kernels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """One run: `values` by key, `periods` full iterations in its window, `fingerprint` the same for the same capture.

    `not_measured` has the reason for metrics without a value.
    """

    file_name: str
    fingerprint: str
    start_utc_ns: int | None
    periods: int
    facts: Facts
    values: Mapping[Key, float]
    not_measured: Mapping[str, str] = field(default_factory=dict)

    def value(self, key: Key, gauge: Gauge, per: str) -> float | None:
        """Return a value, a total divided by the iterations where `per` says so; `None` where there is none."""
        value = self.values.get(key)
        if value is None or not (gauge.is_window_total and per == "iteration"):
            return value
        return value / self.periods if self.periods else None

    @property
    def phases(self) -> frozenset[str]:
        """The NVTX paths that the run has values for."""
        return frozenset(key.nvtx for key in self.values if key.nvtx)

    @property
    def device_ids(self) -> tuple[int, ...]:
        """The devices of the run."""
        return tuple(device.device_id for device in self.facts.devices)


def run_of(
    trace: Trace, analysis: Analysis, *, batch: float | None = None, told: Mapping[str, str] | None = None
) -> Run:
    """Return a run from a trace and its analysis.

    Args:
        trace, analysis: the capture and what `analyze` made of it.
        batch: items per iteration as the user gave them; otherwise they come from the iterations' payload.
        told: facts that no trace has, such as the precision.

    Raises:
        InputError: the window holds no GPU work, so nothing in it can be judged.
    """
    _check_window(analysis)
    window = analysis.window
    marks = window.iterations
    return Run(
        file_name=analysis.source.file_name,
        fingerprint=_fingerprint(trace),
        start_utc_ns=analysis.capture.start_utc_ns,
        periods=len(marks) - 1 if len(marks) > 1 else len(marks),
        facts=Facts(
            devices=tuple(_device_facts(analysis)),
            tool=_tool(analysis),
            options=_options(trace, analysis),
            recorded=tuple(name for name in _TABLES if trace.table(name) is not None),
            window=window.mode,
            iteration_mark=None if not marks else "nvtx" if marks[0].cpu_start_ns is not None else "gpu",
            iteration_name=family_of(marks[0].name) if marks and marks[0].cpu_start_ns is not None else None,
            batch=float(batch) if batch is not None else _payload(analysis),
            told=dict(told or {}),
            kernels=tuple(_longest_kernels(analysis)),
        ),
        values=dict(_values(analysis)),
        not_measured=_reasons(analysis),
    )


def _check_window(analysis: Analysis) -> None:
    busy = [entry.value for entry in analysis.measurements if entry.metric == "gpu_busy"]
    if not any(busy):
        name = analysis.source.file_name
        what = "the window has no GPU work" if busy else "the trace has no GPU operation"
        raise InputError(
            f"{name}: {what}, so nothing can be judged; record with `nsys profile --trace=cuda,nvtx`, and look with "
            f"`nitro-analyze {name}` at what was recorded and where the window lies."
        )


def _tool(analysis: Analysis) -> str | None:
    source = analysis.source
    return f"{source.tool} {source.tool_version}" if source.tool_version else None


def _reasons(analysis: Analysis) -> dict[str, str]:
    """Return why metrics have no value, by metric."""
    reasons = {entry.metric: entry.reason for entry in analysis.not_measured}
    window, without = analysis.window, reasons.get("iteration_period")
    if window.mode != "all" or window.is_fallback or without is None:
        return reasons
    return {metric: WHOLE_TRACE if reason == without else reason for metric, reason in reasons.items()}


def _options(trace: Trace, analysis: Analysis) -> dict[str, str]:
    """Return what was set when the run was recorded, as far as it can have changed what is in it.

    How graphs are traced says nothing of a run that launches none, and such runs stay comparable.
    """
    known = analysis.capture.options
    options = {name: known[name] for name in _OPTIONS if name in known}
    if not _has_graphs(trace):
        options.pop("cuda_graph_trace", None)
    return options


def _has_graphs(trace: Trace) -> bool:
    if trace.table_or_empty("graph_launches").height:
        return True
    nodes = (trace.table_or_empty(name)["graph_node_id"] for name in ("kernels", "memcpys", "memsets"))
    return any(column.len() > column.null_count() for column in nodes)


def _fingerprint(trace: Trace) -> str:
    """Return a digest of when the first operations ran; two captures that agree in it are one."""
    digest = hashlib.sha256()
    for name in ("kernels", "graph_launches", "memcpys", "memsets"):
        frame = trace.table_or_empty(name)
        digest.update(f"{name} {len(frame)} ".encode())
        digest.update(frame["start_ns"].head(1000).to_numpy().tobytes())
    return digest.hexdigest()[:16]


def _device_facts(analysis: Analysis) -> Iterator[DeviceFacts]:
    for device in analysis.devices:
        clock = analysis.value("gpc_clock", device.device_id, "mean")
        yield DeviceFacts(
            device.device_id,
            str(device.name),
            device.sm_count,
            device.sm_clock_hz,
            None if clock is None else float(clock),
        )


def _payload(analysis: Analysis) -> float | None:
    payloads = {iteration.payload for iteration in analysis.window.iterations[:-1]}
    only = payloads.pop() if len(payloads) == 1 else None
    return None if only is None else float(only)


def _longest_kernels(analysis: Analysis) -> list[str]:
    """Return the short names of the kernels with the most time, by name, so that a changed order changes nothing."""
    names: dict[str, int] = {}
    for table in analysis.tables:
        if table.name == "kernels":
            for name, total in table.frame.select("short_name", "total_ns").iter_rows():
                if name is not None:
                    names[name] = names.get(name, 0) + total
    longest = sorted(names, key=lambda name: (-names[name], name))[:MOST_KERNEL_NAMES]
    return sorted(longest)


def _values(analysis: Analysis) -> Iterator[tuple[Key, float]]:
    for entry in analysis.measurements:
        yield Key(entry.metric, entry.by or "", _device(entry.device_id)), float(entry.value)
    yield from _causes_without_time(analysis)
    yield from _phase_values(analysis)


def _causes_without_time(analysis: Analysis) -> Iterator[tuple[Key, float]]:
    """Yield 0 for the idle causes that a device spent no time on; the analysis lists the others alone."""
    unknown = {entry.metric for entry in analysis.not_measured}.intersection(_TOLD_BY_OTHERS)
    for idle in analysis.measurements:
        if idle.metric == "gpu_idle":
            there = analysis.parts("gpu_idle_by_cause", idle.device_id)
            for cause in Cause:
                if cause.id not in there and cause.id not in unknown:
                    yield Key("gpu_idle_by_cause", cause.id, _device(idle.device_id)), 0.0


def _phase_values(analysis: Analysis) -> Iterator[tuple[Key, float]]:
    """Yield the values of NVTX ranges that belong to the window."""
    columns: dict[str, list[str]] = {}
    for gauge in gauges(of_phase=True).values():
        columns.setdefault(gauge.table or "", []).append(gauge.name)
    for table in analysis.tables:
        wanted = [name for name in columns.get(table.name, ()) if name in table.frame.columns]
        if not wanted:
            continue
        rows: Iterable[dict[str, Any]] = table.frame.select("nvtx_path", "in_window", *wanted).iter_rows(named=True)
        for row in rows:
            if row["in_window"]:
                yield from (
                    (Key(name, "", _device(table.device_id), row["nvtx_path"]), float(row[name]))
                    for name in wanted
                    if row[name] is not None
                )


def _device(device_id: int | None) -> int:
    return -1 if device_id is None else device_id
