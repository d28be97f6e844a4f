"""Sampled GPU metrics of an nsys export: found by name, since their numbers change from capture to capture.

Names drift between versions and chips: `SM Active`, `SMs Active [Throughput %]`; `DRAM Read Throughput`,
`DRAM Read Bandwidth [Throughput %]`; on Turing `Tensor Active / FP16 Active`. Of the variants of one metric only the
one in percent is taken. Newer exports hold them in GPU_METRICS, older ones as JSON in GENERIC_EVENTS too.
"""

from __future__ import annotations

import json
import re

import numpy as np
import polars as pl

from ..tables import SAMPLED_METRICS
from ._sqlite_file import SqliteFile

_UNIT = re.compile(r"\s*\[([^\]]*)\]$")
_PERCENT, _MEGAHERTZ = "throughput %", "mhz"
_CANONICAL = {
    "gpc clock frequency": "gpc_clock",
    "sys clock frequency": "sys_clock",
    "gr active": "gr_active",
    "async compute in flight": "async_compute_in_flight",
    "sync compute in flight": "sync_compute_in_flight",
    "sm active": "sm_active",
    "sm issue": "sm_issue",
    "tensor active": "tensor_active",
    "compute warps in flight": "compute_warps",
    "unallocated warps in active sm": "unallocated_warps",
    "dram read": "dram_read",
    "dram write": "dram_write",
    "pcie rx": "pcie_rx",
    "pcie tx": "pcie_tx",
}
_GPU_OF_TYPE = 0xFF
_WRAP = 1 << 32
# Metrics are numbered from 0 on, some hundreds of them; a larger number is damage.
_NUMBERS = 1 << 16


def canonical_metric(name: str) -> str | None:
    """Return the name in `SAMPLED_METRICS` for a metric name of an export, `None` for others and other variants."""
    unit = _UNIT.search(name)
    if unit and unit.group(1).lower() not in (_PERCENT, _MEGAHERTZ):
        return None
    plain = _UNIT.sub("", name).replace("\\/", "/").lower().partition(" / ")[0]
    plain = re.sub(r"\bsms\b", "sm", plain)
    plain = re.sub(r" (throughput|bandwidth)$", "", plain).strip()
    return _CANONICAL.get(plain)


def samples(file: SqliteFile) -> pl.DataFrame | None:
    """Return the samples of an export with the columns of `gpu_metric_samples`, `None` where there are none."""
    if {"timestamp", "typeId", "metricId", "value"} <= set(file.columns("GPU_METRICS")):
        return _from_gpu_metrics(file)
    if {"rawTimestamp", "typeId", "data"} <= set(file.columns("GENERIC_EVENTS")):
        return _from_generic_events(file)
    return None


def _from_gpu_metrics(file: SqliteFile) -> pl.DataFrame | None:
    if not {"typeId", "metricId", "metricName"} <= set(file.columns("TARGET_INFO_GPU_METRICS")):
        return None
    rows = file.rows("select typeId, metricId, metricName from TARGET_INFO_GPU_METRICS")
    wanted = {
        (type_id, number): metric
        for type_id, number, name in rows
        if isinstance(name, str) and isinstance(number, int) and 0 <= number < _NUMBERS
        if (metric := canonical_metric(name))
    }
    if not wanted:
        return None
    categories = list(SAMPLED_METRICS)
    raw = file.integers("GPU_METRICS", ["timestamp", "typeId", "metricId", "value"], {"metricId": pl.Int32})
    raw = raw.drop_nulls()
    types = raw["typeId"].unique().to_list()
    frames = []
    for type_id in types:
        own = raw if len(types) == 1 else raw.filter(pl.col("typeId") == type_id)
        codes = {m: categories.index(metric) for (t, m), metric in wanted.items() if t == type_id}
        if not codes:
            continue
        number = own["metricId"].to_numpy()
        # The last entry is that of every number without a name.
        table = np.full(max(codes) + 2, -1, np.int16)
        table[list(codes)] = list(codes.values())
        code = table[np.where((number >= 0) & (number < len(table)), number, -1)]
        keep = code >= 0
        frames.append(
            _frame(own["timestamp"].to_numpy()[keep], type_id & _GPU_OF_TYPE, code[keep], own["value"].to_numpy()[keep])
        )
    return pl.concat(frames) if frames else None


def _from_generic_events(file: SqliteFile) -> pl.DataFrame | None:
    categories = list(SAMPLED_METRICS)
    known: dict[str, int] = {}
    times: list[int] = []
    devices: list[int] = []
    codes: list[int] = []
    values: list[int] = []
    for time_ns, type_id, data in file.rows("select rawTimestamp, typeId, data from GENERIC_EVENTS"):
        try:
            fields = json.loads(data)
        except (TypeError, ValueError, RecursionError):
            continue
        if not isinstance(fields, dict) or time_ns is None:
            continue
        for name, value in fields.items():
            if name not in known:
                metric = canonical_metric(name)
                known[name] = categories.index(metric) if metric else -1
            number = _integer(value)
            if known[name] >= 0 and number is not None:
                times.append(time_ns)
                devices.append(type_id & _GPU_OF_TYPE)
                codes.append(known[name])
                values.append(number)
    if not times:
        return None
    return _frame(np.array(times), np.array(devices), np.array(codes), np.array(values))


def _integer(value: object) -> int | None:
    try:
        return int(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _frame(times: np.ndarray, device: np.ndarray | int, code: np.ndarray, values: np.ndarray) -> pl.DataFrame:
    # Clocks above 2.1 GHz wrap in a signed 32-bit integer in some exports.
    values = np.where(values < 0, values + _WRAP, values)
    return pl.DataFrame(
        {
            "time_ns": times,
            "device_id": np.broadcast_to(np.asarray(device, np.int32), times.shape),
            "metric": pl.Series(code.astype(np.uint32)).cat.to(pl.Enum(list(SAMPLED_METRICS))),
            "value": values,
        }
    )
