"""Sampled GPU metrics: SM, issue and tensor activity, occupancy, DRAM, PCIe, clocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from ..intervals import Intervals
from ..message import message, one_or_many
from ..metric import Measurement, Metric, NotMeasured, Result, ResultColumn, ResultTable, Unit
from ..phases import Phase, phases_of, shared_ns
from ..samples import FEWEST_SAMPLES, Sampled
from ..trace import Device
from ..view import DeviceView, View

NO_SAMPLES = message(
    "GPU metrics were not sampled; record with --gpu-metrics-devices=all (Turing or newer, Orin or newer; needs root)"
)
_RATIOS = {
    "gr_active": ("gr_active_ratio", None),
    "sm_active": ("sm_active_ratio", None),
    "sm_issue": ("sm_issue_ratio", None),
    "tensor_active": ("tensor_active_ratio", None),
    "compute_warps": ("sm_occupancy", None),
    "unallocated_warps": ("unallocated_warps_ratio", None),
    "dram_read": ("dram_throughput", "read"),
    "dram_write": ("dram_throughput", "write"),
    "pcie_rx": ("pcie_throughput", "received"),
    "pcie_tx": ("pcie_throughput", "sent"),
}
_CYCLES = {
    "sm_active": "sm_active_cycles",
    "sm_issue": "sm_issue_slot_cycles",
    "tensor_active": "tensor_active_cycles",
}
_NOT_ON_THIS_CHIP = message("the chip's metric set does not have it (Orin has no DRAM and PCIe metrics)")
# Samples are whole percents.
_QUANTISATION = 0.005
_BINS = 240
_PHASE_METRICS = ("gr_active", "sm_active", "sm_issue", "tensor_active", "compute_warps", "dram_read", "dram_write")
_PHASE_COLUMNS = (
    ResultColumn("nvtx_path", "", message("range with those around it")),
    ResultColumn("in_window", "", message("whether its instances belong to the window")),
    ResultColumn("instances", "1", message("ranges that launched GPU work")),
    ResultColumn("projection_ns", "ns", message("time that their projections cover")),
    ResultColumn("shared_ratio", "ratio", message("part of it in which projections of other phases ran too")),
    ResultColumn("samples", "1", message("sampling periods in it")),
    *(
        ResultColumn(name, "ratio", message("time-weighted mean of {name} over the projections", name=name))
        for name in _PHASE_METRICS
    ),
)
_OVER_TIME_METRICS = (*_PHASE_METRICS, "gpc_clock")
_OVER_TIME_COLUMNS = (
    ResultColumn("start_ns", "ns", message("start of the bin, since session start")),
    ResultColumn("end_ns", "ns", message("end of the bin")),
    *(
        ResultColumn(name, "Hz" if name == "gpc_clock" else "ratio", message("time-weighted mean of {name}", name=name))
        for name in _OVER_TIME_METRICS
    ),
)


def compute(view: View) -> Iterator[Result]:
    """What the hardware sampler saw inside the window, weighted by time.

    A sample at t covers (t_prev, t]; the first, partial one is dropped. Samples are whole percents, so every value has
    a quantisation error of 0.5 points beside its sampling error.

    - `gr_active_ratio`: any engine had work. `sm_active_ratio`: SM-cycles with at least one warp resident; 50 % may
      be all SMs half of the time or half of the SMs all the time. `sm_issue_ratio`: instructions against the four per
      cycle and SM that are possible. `tensor_active_ratio`: cycles with busy tensor pipes. `sm_occupancy`: resident
      compute warps against all warp slots. `unallocated_warps_ratio`: free warp slots on active SMs.
    - `dram_throughput`, `pcie_throughput`: of the peak, by direction; `dram_bandwidth` in bytes/s where the peak is
      known.
    - `gpc_clock`: mean, lowest and highest sample in Hz.
    - `sm_active_cycles` = sum over samples of ratio x SM count x GPC clock x time; `sm_issue_slot_cycles` and
      `tensor_active_cycles` likewise. The issue-slot equivalent is not the issue-active counter of Nsight Compute, and
      the two are never compared. `error` is the quantisation error, `count` the number of samples.
    - Tables: `sampled_by_phase` over the projections of NVTX ranges, `sampled_over_time` in equal bins of the window.

    The sampler sees the whole GPU: work of other processes is in these numbers too.
    """
    devices = [device for device in view.devices if device.sampled]
    if not devices:
        yield from (NotMeasured(name, NO_SAMPLES) for name in METRIC.provides)
        return
    phases = phases_of(view)
    for device in devices:
        count = max(sampled.count(device.low, device.high) for sampled in device.sampled.values())
        if count < FEWEST_SAMPLES:
            one = message("only 1 sample lies in the window; at least {fewest} are needed", fewest=FEWEST_SAMPLES)
            many = message(
                "only {count} samples lie in the window; at least {fewest} are needed",
                count=count,
                fewest=FEWEST_SAMPLES,
            )
            reason = one_or_many(count, one, many)
            yield from (NotMeasured(name, reason, device.device_id) for name in METRIC.provides)
            continue
        yield from _ratios(device)
        yield from _clocks_and_cycles(device)
        if phases:
            rows = [_phase_row(device, phase, phases) for phase in phases]
            schema = {column.name: _dtype(column.unit) for column in _PHASE_COLUMNS} | {"in_window": pl.Boolean}
            frame = pl.DataFrame(rows, schema=schema, orient="row")
            yield ResultTable(
                "sampled_by_phase", message("Sampled metrics by phase"), _PHASE_COLUMNS, frame, device.device_id
            )
        yield _over_time(device)


def _dtype(unit: Unit) -> type[pl.DataType]:
    return {"": pl.String, "ns": pl.Int64, "1": pl.Int64}.get(unit, pl.Float64)


def _window(device: DeviceView) -> Intervals:
    return Intervals(np.array([device.low]), np.array([device.high]))


def _ratios(device: DeviceView) -> Iterator[Result]:
    missing: dict[str, None] = {}
    described = device.view.trace.device(device.device_id)
    for name, (metric, part) in _RATIOS.items():
        sampled = device.sampled.get(name)
        mean = None if sampled is None else sampled.mean(_window(device))
        if sampled is None or mean is None:
            missing[metric] = None
            continue
        count = sampled.count(device.low, device.high)
        yield Measurement(metric, mean / 100, "ratio", device.device_id, part, count, _QUANTISATION)
        bandwidth = described.memory_bandwidth_bytes_per_s if described else None
        if metric == "dram_throughput" and bandwidth:
            value, error = mean / 100 * bandwidth, _QUANTISATION * bandwidth
            yield Measurement("dram_bandwidth", value, "bytes/s", device.device_id, part, count, error)
    if "dram_throughput" in missing:
        missing["dram_bandwidth"] = None
    yield from (NotMeasured(metric, _NOT_ON_THIS_CHIP, device.device_id) for metric in missing)


def _clocks_and_cycles(device: DeviceView) -> Iterator[Result]:
    clock = device.sampled.get("gpc_clock")
    described = device.view.trace.device(device.device_id)
    window = _window(device)
    if clock is None:
        yield from (NotMeasured(name, _NOT_ON_THIS_CHIP, device.device_id) for name in ("gpc_clock", *_CYCLES.values()))
        return
    inside = clock.values[(clock.times[1:] > device.low) & (clock.times[:-1] < device.high)]
    count = len(inside)
    for part, value in (("mean", clock.mean(window)), ("min", inside.min()), ("max", inside.max())):
        yield Measurement("gpc_clock", float(value or 0), "Hz", device.device_id, part, count)
    for name, metric in _CYCLES.items():
        reason = _cycles_impossible(device, described, device.sampled.get(name), clock)
        sampled = device.sampled.get(name)
        if reason or sampled is None or described is None or described.sm_count is None:
            yield NotMeasured(metric, reason or _NOT_ON_THIS_CHIP, device.device_id)
            continue
        per_second = Sampled(clock.times, sampled.values / 100 * clock.values * described.sm_count / 1e9)
        most = Sampled(clock.times, _QUANTISATION * clock.values * described.sm_count / 1e9)
        value = float(per_second.integral(window.starts, window.ends)[0])
        error = float(most.integral(window.starts, window.ends)[0])
        yield Measurement(metric, value, "cycles", device.device_id, None, count, error)


def _cycles_impossible(
    device: DeviceView, described: Device | None, sampled: Sampled | None, clock: Sampled
) -> str | None:
    if sampled is None:
        return _NOT_ON_THIS_CHIP
    if described is None or not described.sm_count:
        return message("the export does not say how many SMs the GPU has")
    if len(sampled.times) != len(clock.times) or (sampled.times != clock.times).any():
        return message(
            "its samples and those of the clock were not taken at the same times on GPU {device_id}",
            device_id=device.device_id,
        )
    return None


def _phase_row(device: DeviceView, phase: Phase, phases: tuple[Phase, ...]) -> tuple[object, ...]:
    spans = phase.covered
    means = [None if (sampled := device.sampled.get(name)) is None else sampled.mean(spans) for name in _PHASE_METRICS]
    any_metric = next(iter(device.sampled.values()))
    samples = sum(
        any_metric.count(start, end) for start, end in zip(spans.starts.tolist(), spans.ends.tolist(), strict=True)
    )
    total = spans.total
    return (
        phase.path,
        phase.in_window,
        phase.instances,
        total,
        shared_ns(phase, phases) / total if total else 0.0,
        samples,
        *(None if mean is None or samples < FEWEST_SAMPLES else mean / 100 for mean in means),
    )


def _over_time(device: DeviceView) -> ResultTable:
    edges = np.linspace(device.low, device.high, _BINS + 1).astype(np.int64)
    starts, ends = edges[:-1], edges[1:]
    columns: dict[str, object] = {"start_ns": starts, "end_ns": ends}
    for name in _OVER_TIME_METRICS:
        sampled = device.sampled.get(name)
        if sampled is None:
            columns[name] = pl.Series(name, [None] * _BINS, dtype=pl.Float64)
            continue
        covered = sampled.covered(starts, ends)
        scale = 1.0 if name == "gpc_clock" else 0.01
        with np.errstate(invalid="ignore", divide="ignore"):
            values = sampled.integral(starts, ends) / covered * scale
        columns[name] = pl.Series(name, values).fill_nan(None)
    return ResultTable(
        "sampled_over_time",
        message("Sampled metrics over time"),
        _OVER_TIME_COLUMNS,
        pl.DataFrame(columns),
        device.device_id,
    )


METRIC = Metric(
    id="sm_active_ratio",
    title=message("Sampled GPU metrics"),
    provides={
        **dict.fromkeys((metric for metric, _ in _RATIOS.values()), "ratio"),
        "dram_bandwidth": "bytes/s",
        "gpc_clock": "Hz",
        **dict.fromkeys(_CYCLES.values(), "cycles"),
        "sampled_by_phase": "table",
        "sampled_over_time": "table",
    },
    needs=(),
    missing="",
    better="higher",
    reference=message(
        "Nsight Systems user guide, GPU metrics: sm__cycles_active, sm__inst_executed, pipe_tensor_cycles_active"
    ),
    compute=compute,
    order=22,
)
