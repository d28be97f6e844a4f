"""A run as a check sees it: its values, and the facts that decide what it may be compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nitro.errors import InputError

from ..analysis import Analysis
from ..causes import Cause
from ..compare.energy import Amount
from ..compare.saved import SavedRun, checked, numeric, saved_run
from ..message import message
from ..nvtx import family_of
from ..trace import Capture, Device, Source, Trace
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
    `recorded` is `None` where it is not known, as of a saved analysis.
    """

    devices: tuple[DeviceFacts, ...]
    tool: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    recorded: tuple[str, ...] | None = ()
    window: str = "auto"
    iteration_mark: str | None = None
    iteration_name: str | None = None
    batch: float | None = None
    told: Mapping[str, str] = field(default_factory=dict)
    kernels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """One run: `values` by key, `periods` full iterations in its window, `fingerprint` the same for the same capture.

    `not_measured` has the reason for metrics without a value, `errors` by how much values may be off in their unit; a
    value without one is exact.
    """

    file_name: str
    fingerprint: str
    start_utc_ns: int | None
    periods: int
    facts: Facts
    values: Mapping[Key, float]
    not_measured: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[Key, float] = field(default_factory=dict)

    def value(self, key: Key, gauge: Gauge, per: str) -> float | None:
        """Return a value, a total divided by the iterations where `per` says so; `None` where there is none."""
        value = self.values.get(key)
        if value is None or not (gauge.is_window_total and per == "iteration"):
            return value
        return value / self.periods if self.periods else None

    def amount(self, key: Key) -> Amount | None:
        """Return a value of the whole window with its bound, `None` where it has no value or no bound is known."""
        if key not in self.values or key not in self.errors:
            return None
        return Amount(self.values[key], self.errors[key])

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
        batch: items per iteration as the user gave them; otherwise they come from the iterations' payload, or
            from the bundle of the capture.
        told: facts that no trace has, such as the precision.

    Raises:
        InputError: the window holds no GPU work, so nothing in it can be judged.
    """
    _check_work(
        analysis.source.file_name, (entry.value for entry in analysis.measurements if entry.metric == "gpu_busy")
    )
    window = analysis.window
    marks = window.iterations
    return Run(
        file_name=analysis.source.file_name,
        fingerprint=_fingerprint(trace),
        start_utc_ns=analysis.capture.start_utc_ns,
        periods=len(marks) - 1 if len(marks) > 1 else len(marks),
        facts=Facts(
            devices=tuple(
                _device_facts(analysis.devices, lambda device_id: analysis.value("gpc_clock", device_id, "mean"))
            ),
            tool=_tool(analysis.source),
            options=_options(analysis.capture, has_graphs=_has_graphs(trace)),
            recorded=tuple(name for name in _TABLES if trace.table(name) is not None),
            window=window.mode,
            iteration_mark=None if not marks else "nvtx" if marks[0].cpu_start_ns is not None else "gpu",
            iteration_name=family_of(marks[0].name) if marks and marks[0].cpu_start_ns is not None else None,
            batch=float(batch) if batch is not None else _payload(analysis) or analysis.capture.items_per_iteration,
            told=dict(told or {}),
            kernels=tuple(
                _longest(
                    row
                    for table in analysis.tables
                    if table.name == "kernels"
                    for row in table.frame.select("short_name", "total_ns").iter_rows()
                )
            ),
        ),
        values=dict(_values(analysis)),
        errors=_errors((entry.metric, entry.by, entry.device_id, entry.error) for entry in analysis.measurements),
        not_measured=_reasons(
            {entry.metric: entry.reason for entry in analysis.not_measured},
            is_whole=window.mode == "all" and not window.is_fallback,
        ),
    )


def run_of_saved(known: Mapping[str, Any], *, batch: float | None = None, told: Mapping[str, str] | None = None) -> Run:
    """Return a run from an analysis that was saved as JSON; see `run_of` for the arguments.

    Which tables were recorded and what marked the iterations such a file does not always tell; that is no reason
    against a comparison then. Its fingerprint is that of its numbers, so the trace it came from has another one.

    Raises:
        InputError: the window holds no GPU work.
        KeyError, TypeError, ValueError: the file is damaged.
    """
    saved = saved_run(known)
    if saved.device_ids or any(saved.kernels.values()):
        checked(saved)
    window, source, capture = known["window"], saved.run.source, saved.run.capture
    busy = {device_id: saved.value("gpu_busy", device_id) for device_id in saved.device_ids}
    _check_work(source.file_name, busy.values())
    reasons = {entry["metric"]: entry["reason"] for entry in known["not_measured"]}
    is_marked = saved.value("iteration_latency", None, "mean") is not None
    names = window["iteration_names"]
    return Run(
        file_name=source.file_name,
        fingerprint=_digest_of((window["start_ns"], window["end_ns"], sorted(busy.items()))),
        start_utc_ns=capture.start_utc_ns,
        periods=saved.run.iterations,
        facts=Facts(
            devices=tuple(
                _device_facts(saved.run.devices, lambda device_id: saved.value("gpc_clock", device_id, "mean"))
            ),
            tool=_tool(source),
            options=_options(capture, has_graphs=any(map(saved.has_graphs, saved.device_ids))),
            recorded=None,
            window=window["mode"],
            iteration_mark="nvtx" if is_marked else None,
            iteration_name=family_of(names[0]) if is_marked and names else None,
            batch=float(batch) if batch is not None else _items(saved),
            told=dict(told or {}),
            kernels=tuple(
                _longest(
                    (row["short_name"], row["total_ns"])
                    for table in known["tables"]
                    if table["name"] == "kernels"
                    for row in table["rows"]
                )
            ),
        ),
        values=dict(_saved_values(known, reasons)),
        errors=_errors(
            (entry["metric"], entry["by"], entry["device_id"], entry.get("error")) for entry in known["measurements"]
        ),
        not_measured=_reasons(reasons, is_whole=window["mode"] == "all" and window.get("is_fallback") is False),
    )


def _items(saved: SavedRun) -> float | None:
    """Return the items per iteration, as far as a saved analysis lets them be computed from its rates."""
    items, iterations = saved.value("throughput", None), saved.value("iterations_per_s", None)
    return round(items / iterations, 6) if items is not None and iterations else None


def _check_work(name: str, busy: Iterable[float | None]) -> None:
    busy = list(busy)
    if not any(busy):
        what = "the window has no GPU work" if busy else "the trace has no GPU operation"
        raise InputError(
            f"{name}: {what}, so nothing can be judged; record with `nsys profile --trace=cuda,nvtx`, and look with "
            f"`nitro-analyze {name}` at what was recorded and where the window lies."
        )


def _tool(source: Source) -> str | None:
    return f"{source.tool} {source.tool_version}" if source.tool_version else None


def _reasons(reasons: Mapping[str, str], *, is_whole: bool) -> dict[str, str]:
    """Return why metrics have no value, by metric; `is_whole`: the user asked for the whole trace."""
    without = reasons.get("iteration_period")
    if not is_whole or without is None:
        return dict(reasons)
    return {metric: WHOLE_TRACE if reason == without else reason for metric, reason in reasons.items()}


def _options(capture: Capture, *, has_graphs: bool) -> dict[str, str]:
    """Return what was set when the run was recorded, as far as it can have changed what is in it.

    How graphs are traced says nothing of a run that launches none, and such runs stay comparable.
    """
    known = capture.options
    options = {name: known[name] for name in _OPTIONS if name in known}
    if not has_graphs:
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


def _digest_of(facts: object) -> str:
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _device_facts(devices: Iterable[Device], clock_of: Callable[[int], float | None]) -> Iterator[DeviceFacts]:
    for device in devices:
        clock = clock_of(device.device_id)
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
    only = analysis.capture.items_per_iteration if only is None else only
    return None if only is None else float(only)


def _longest(kernels: Iterable[tuple[str | None, int]]) -> list[str]:
    """Return the short names of the kernels with the most time, by name, so that a changed order changes nothing."""
    names: dict[str, int] = {}
    for name, total in kernels:
        if name is not None:
            names[name] = names.get(name, 0) + total
    longest = sorted(names, key=lambda name: (-names[name], name))[:MOST_KERNEL_NAMES]
    return sorted(longest)


def _values(analysis: Analysis) -> Iterator[tuple[Key, float]]:
    columns = _phase_columns()
    yield from _with_all_causes(
        ((entry.metric, entry.by, entry.device_id, entry.value) for entry in analysis.measurements),
        {entry.metric for entry in analysis.not_measured},
    )
    for table in analysis.tables:
        if wanted := [name for name in columns.get(table.name, ()) if name in table.frame.columns]:
            rows = table.frame.select("nvtx_path", "in_window", *wanted).iter_rows(named=True)
            yield from _phase_values(rows, wanted, table.device_id)


def _saved_values(known: Mapping[str, Any], not_measured: Collection[str]) -> Iterator[tuple[Key, float]]:
    columns = _phase_columns()
    yield from _with_all_causes(
        ((entry["metric"], entry["by"], entry["device_id"], entry["value"]) for entry in known["measurements"]),
        not_measured,
    )
    for table in known["tables"]:
        there = {column["name"] for column in table["columns"]}
        if wanted := [name for name in columns.get(table["name"], ()) if name in there]:
            yield from _phase_values(table["rows"], wanted, table["device_id"])


def _errors(measured: Iterable[tuple[str, str | None, int | None, float | None]]) -> dict[Key, float]:
    """Return by how much values may be off, of those of which it is known."""
    return {
        Key(metric, by or "", _device(device_id)): float(numeric(error))
        for metric, by, device_id, error in measured
        if error is not None
    }


def _with_all_causes(
    measured: Iterable[tuple[str, str | None, int | None, float]], not_measured: Collection[str]
) -> Iterator[tuple[Key, float]]:
    """Yield what was measured, and 0 for the idle causes that a device spent no time on, which no analysis lists."""
    values = {Key(metric, by or "", _device(device_id)): float(value) for metric, by, device_id, value in measured}
    yield from values.items()
    unknown = set(_TOLD_BY_OTHERS).intersection(not_measured)
    for device_id in [key.device_id for key in values if key.metric == "gpu_idle"]:
        for cause in Cause:
            key = Key("gpu_idle_by_cause", cause.id, device_id)
            if key not in values and cause.id not in unknown:
                yield key, 0.0


def _phase_columns() -> dict[str, list[str]]:
    """Return the columns of tables that hold values of NVTX ranges, by table."""
    columns: dict[str, list[str]] = {}
    for gauge in gauges(of_phase=True).values():
        columns.setdefault(gauge.table or "", []).append(gauge.name)
    return columns


def _phase_values(
    rows: Iterable[Mapping[str, Any]], wanted: Sequence[str], device_id: int | None
) -> Iterator[tuple[Key, float]]:
    """Yield the values of NVTX ranges that belong to the window."""
    for row in rows:
        if row["in_window"]:
            yield from (
                (Key(name, "", _device(device_id), row["nvtx_path"]), float(numeric(row[name])))
                for name in wanted
                if row[name] is not None
            )


def _device(device_id: int | None) -> int:
    return -1 if device_id is None else device_id
