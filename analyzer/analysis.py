"""`analyze`: from a trace to an `Analysis`, the numbers and tables that everything else is made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from nitro import __version__
from nitro.errors import UsageError
from nitro.registry import declared

from . import metrics
from .evidence import Evidence, Placed
from .message import message
from .metric import Measurement, Metric, NotMeasured, ResultTable
from .rule import Finding, Rule
from .timeline import Timeline, timeline_of
from .trace import Capture, Device, Source, Trace
from .view import Scope, View
from .window import Window

# History of the saved format, one line a version:
# 1 (0.1.0): first version.
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Analysis:
    """What an analysis found.

    `tables` are the longer results, `notes` sentences about the input; `timeline` is there where it was asked for.
    `evidence` is what lay beside the trace, with its place on the trace's clock.
    """

    source: Source
    capture: Capture
    devices: tuple[Device, ...]
    window: Window
    measurements: tuple[Measurement, ...]
    not_measured: tuple[NotMeasured, ...]
    tables: tuple[ResultTable, ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    timeline: Timeline | None = None
    evidence: tuple[Placed[Evidence], ...] = ()
    nitro_version: str = __version__
    format_version: int = FORMAT_VERSION

    def value(self, metric: str, device_id: int | None = None, by: str | None = None) -> int | float | None:
        """Return the value of a measurement, `None` where there is none.

        Without `device_id`, the first device that has the measurement counts.
        """
        found = self.find(metric, device_id, by)
        return None if found is None else found.value

    def find(self, metric: str, device_id: int | None = None, by: str | None = None) -> Measurement | None:
        """Return a measurement, `None` where there is none; see `value`."""
        for measurement in self.measurements:
            if measurement.metric == metric and measurement.by == by and device_id in (None, measurement.device_id):
                return measurement
        return None

    def parts(self, metric: str, device_id: int | None = None) -> dict[str, Measurement]:
        """Return the measurements of a metric by what they are part of, in their order."""
        return {
            measurement.by: measurement
            for measurement in self.measurements
            if measurement.metric == metric
            and measurement.by is not None
            and device_id in (None, measurement.device_id)
        }

    def table(self, name: str, device_id: int | None = None) -> ResultTable | None:
        """Return a result table, `None` where there is none."""
        for table in self.tables:
            if table.name == name and device_id in (None, table.device_id):
                return table
        return None

    def reason(self, metric: str) -> str | None:
        """Return why a metric was not measured, `None` where it was."""
        return next((entry.reason for entry in self.not_measured if entry.metric == metric), None)

    def _repr_html_(self) -> str:
        from .notebook import analysis_html

        return analysis_html(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON form (docs/json.md)."""
        return {
            "format_version": self.format_version,
            "nitro_version": self.nitro_version,
            "source": self.source.to_dict(),
            "capture": self.capture.to_dict(),
            "devices": [device.to_dict() for device in self.devices],
            "window": self.window.to_dict(),
            "measurements": [measurement.to_dict() for measurement in self.measurements],
            "not_measured": [entry.to_dict() for entry in self.not_measured],
            "findings": [finding.to_dict() for finding in self.findings],
            "tables": [table.to_dict() for table in self.tables],
            "notes": list(self.notes),
            "evidence": [placed.to_dict() for placed in self.evidence],
        }


def all_metrics() -> tuple[Metric, ...]:
    """Return the declared metrics in the order in which they are computed and shown."""
    return tuple(sorted(declared(metrics, "METRIC", Metric), key=lambda metric: (metric.order, metric.id)))


def all_rules() -> tuple[Rule, ...]:
    """Return the declared rules by their id."""
    from . import rules

    return tuple(sorted(declared(rules, "RULE", Rule), key=lambda rule: rule.id))


def findings_of(analysis: Analysis) -> tuple[Finding, ...]:
    """Return what the rules find in an analysis, the most time at stake first, `info` last."""
    found = [finding for rule in all_rules() for finding in rule.check(analysis)]
    return tuple(sorted(found, key=lambda f: (f.severity == "info", -f.time_at_stake_ns, f.rule, f.device_id or 0)))


def analyze(
    trace: Trace,
    *evidence: Evidence,
    window: str = "auto",
    since_ns: int | None = None,
    until_ns: int | None = None,
    nvtx: str | None = None,
    device_ids: Iterable[int] | None = None,
    pids: Iterable[int] | None = None,
    batch: int | None = None,
    clock_offset_ns: int | None = None,
    with_timeline: bool = False,
) -> Analysis:
    """Analyse a trace.

    Args:
        trace: what `open_trace` returned.
        evidence: what other tools recorded of the same run, from `open_input` or `open_inputs`.
        window: `auto` finds repeated iterations and drops warm-up; `all` runs from the first to the last GPU
            operation of each device.
        since_ns, until_ns: explicit edges of the window, ns since session start.
        nvtx: the NVTX ranges that are the iterations, by name; `*` matches anything.
        device_ids: physical GPUs to look at; all by default.
        pids: processes to look at; all by default.
        batch: items per iteration, for the throughput.
        clock_offset_ns: added to the times of the evidence, instead of refining them by the edges of load; the time
            of the first record since session start where the evidence carries no times.
        with_timeline: whether to keep every event for a picture of the whole capture, see `timeline_of`.

    Raises:
        nitro.errors.UsageError: a device, process or range does not exist in the trace, or the window is empty.
        nitro.errors.InputError: some evidence is of another time, device or program than the trace.
    """
    if window not in ("auto", "all"):
        raise UsageError(f"window {window!r} is unknown; choose auto or all, or set its edges.")
    scope = Scope(
        window=window,
        since_ns=since_ns,
        until_ns=until_ns,
        nvtx=nvtx,
        device_ids=None if device_ids is None else tuple(device_ids),
        pids=None if pids is None else tuple(pids),
        batch=batch,
    )
    view = View(trace, scope, evidence, clock_offset_ns)
    check_scope(view)
    measurements: list[Measurement] = []
    not_measured: list[NotMeasured] = []
    tables: list[ResultTable] = []
    for metric in all_metrics():
        for result in metric.results(view):
            if isinstance(result, Measurement):
                measurements.append(result)
            elif isinstance(result, NotMeasured):
                not_measured.append(result)
            else:
                tables.append(result)
    analysis = Analysis(
        source=trace.source,
        capture=trace.capture,
        devices=_used_devices(view),
        window=view.window,
        measurements=tuple(measurements),
        not_measured=tuple(not_measured),
        tables=tuple(tables),
        notes=trace.notes,
        timeline=timeline_of(view) if with_timeline else None,
        evidence=view.evidence,
    )
    return replace(analysis, findings=findings_of(analysis))


def _used_devices(view: View) -> tuple[Device, ...]:
    used = view.operations.device_ids
    if not used:
        return view.trace.devices
    return tuple(
        view.trace.device(device_id)
        or Device(device_id, message("GPU {device_id}, not described by the export", device_id=device_id))
        for device_id in used
    )


def check_scope(view: View) -> None:
    """Raise UsageError where the chosen devices and processes leave no GPU operation."""
    if view.scope.device_ids is None and view.scope.pids is None:
        return
    if len(view.operations):
        return
    whole = View(view.trace)
    devices = ", ".join(str(device) for device in whole.operations.device_ids) or "none"
    pids = ", ".join(str(pid) for pid in sorted({int(p) & 0xFFFFFF for p in set(whole.operations.process.tolist())}))
    raise UsageError(
        f"no GPU operation is left with --device and --pid as given; the trace has devices {devices} and "
        f"processes {pids or 'none'}."
    )
