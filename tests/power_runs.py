"""Runs of known power, as traces with a log beside them: for tests of comparisons and budgets of energy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from builders import call, gpu, kernel, nvtx_range, trace, write_nsys_sqlite
from nitro.analyzer import Source, Trace
from nitro.analyzer.evidence import Clock
from nitro.analyzer.power_log import PowerLog, rails_of
from nitro.analyzer.trace import Capture

S, MS = 1_000_000_000, 1_000_000
START = 1_776_574_349 * S
PERIOD, ITERATIONS, FIRST, DURATION = 500 * MS, 9, 3 * S, 12 * S


def run(number: int = 0, *, period_ns: int = PERIOD, name: str = "run.sqlite") -> Trace:
    """Return a run of equal periods; `number` makes it a capture of its own, some ns later than the others."""
    starts = [FIRST + 1000 * number + iteration * period_ns for iteration in range(ITERATIONS)]
    built = trace(
        kernels=[
            kernel(start, start + period_ns // 2, "gemm", correlation_id=at) for at, start in enumerate(starts, 1)
        ],
        api_calls=[call(start - 500, start - 100, correlation_id=at) for at, start in enumerate(starts, 1)],
        nvtx=[nvtx_range(start - 900, start + period_ns - 1000, f"infer:{at}") for at, start in enumerate(starts)],
        devices=[gpu(0, sm_count=8)],
        capture=Capture(duration_ns=DURATION, start_utc_ns=START, utc_offset_s=0),
    )
    return replace(built, source=replace(built.source, file_name=name))


def log(watts: float, *, low: int = 0, high: int = DURATION, rail: str = "VDD_IN", swing: float = 0.0) -> PowerLog:
    """Return a log of this power, a record each 10 ms; `swing` goes up and down from record to record."""
    times = np.arange(low, high, 10 * MS, dtype=np.int64)
    power = watts + swing * np.where(np.arange(len(times)) % 2, 1.0, -1.0)
    rails, total, source, has_total = rails_of({rail: power})
    stamps = times + START
    return PowerLog(
        source=Source("power.log", "built"),
        records=len(times),
        clock=Clock("utc", int(stamps[0]), int(stamps[-1]), 0),
        times_ns=stamps,
        rails=rails,
        total_w=total,
        total_source=source,
        has_total=has_total,
    )


def write_run(path: Path, number: int = 0, *, period_ns: int = PERIOD) -> Path:
    """Write the export of a run."""
    write_nsys_sqlite(path, run(number, period_ns=period_ns))
    return path


def write_log(path: Path, watts: float, *, rail: str = "VDD_IN", swing: float = 0.0) -> Path:
    """Write the log of a run in the format of Nitro's collector; see `log`."""
    made = log(watts, rail=rail, swing=swing)
    lines = ["# nitro power log 1", f"realtime_ns,{rail}_mw"]
    lines += [f"{time},{value * 1000:.0f}" for time, value in zip(made.times_ns.tolist(), made.total_w, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path
