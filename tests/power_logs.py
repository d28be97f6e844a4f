"""A trace of known phases and a power log of known power beside it, for several tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from builders import call, kernel, nvtx_range, trace
from nitro.analyzer import Source, Trace
from nitro.analyzer.evidence import Clock
from nitro.analyzer.power_log import PowerLog, rails_of
from nitro.analyzer.trace import Capture

S = 1_000_000_000
MS = 1_000_000
START = 1_776_574_349 * S
# What an iteration is made of: phase, where it begins and ends in it. "text" and "both" overlap; "short" is too short.
PHASES = (("vision", 0, 800 * MS), ("text", 800 * MS, 1500 * MS), ("both", 1400 * MS, 1600 * MS))
SHORT = ("short", 1600 * MS, 1620 * MS)
PERIOD = 2 * S
ITERATIONS = 9
FIRST = 6 * S
DURATION = 30 * S
WATTS = {"vision": 20.0, "text": 12.0, "idle": 5.0}


def truth(times: np.ndarray) -> np.ndarray:
    """Return the power of the board at times of the trace, W."""
    inside = (times >= FIRST) & (times < FIRST + ITERATIONS * PERIOD)
    place = (times - FIRST) % PERIOD
    watts = np.where(place < 800 * MS, WATTS["vision"], np.where(place < 1620 * MS, WATTS["text"], WATTS["idle"]))
    return np.where(inside, watts, WATTS["idle"])


def energy_of(low: int, high: int) -> float:
    """Return the true energy between two times, J."""
    edges = [low, high]
    for number in range(ITERATIONS + 1):
        edges += [FIRST + number * PERIOD + place for place in (0, 800 * MS, 1620 * MS)]
    cuts = sorted(edge for edge in set(edges) if low <= edge <= high)
    pairs = itertools.pairwise(cuts)
    return float(sum((b - a) * truth(np.array([a]))[0] for a, b in pairs)) / S


def run(*, with_short: bool = True) -> Trace:
    """Return the trace: one stream a phase, a launch for each kernel, NVTX ranges around the launches."""
    kernels, calls, ranges = [], [], []
    number = 0
    for iteration in range(ITERATIONS):
        base = FIRST + iteration * PERIOD
        ranges.append(nvtx_range(base - 900, base + 1700 * MS, f"infer:{iteration}"))
        for stream, (name, low, high) in enumerate((*PHASES, *([SHORT] if with_short else []))):
            number += 1
            begin = base + low
            kernels.append(kernel(begin, base + high, name, correlation_id=number, stream_id=stream))
            calls.append(call(begin - 500, begin - 100, correlation_id=number))
            ranges.append(nvtx_range(begin - 600, begin - 50, name))
    capture = Capture(duration_ns=DURATION, start_utc_ns=START, utc_offset_s=0)
    return trace(kernels=kernels, api_calls=calls, nvtx=ranges, capture=capture)


def log(
    period_ns: int = 20 * MS,
    *,
    low: int = 0,
    high: int = DURATION,
    late_ns: int = 0,
    error_ns: int = 0,
    watts: Callable[[np.ndarray], np.ndarray] = truth,
    **more: object,
) -> PowerLog:
    """Return a log of the run, sampled at equal distances."""
    times = np.arange(low, high, period_ns, dtype=np.int64)
    power = np.round(watts(times), 3)
    rails, total, source, has_total = rails_of({"VDD_IN": power, "VDD_CPU_GPU_CV": power / 2, "VDD_SOC": power / 4})
    stamps = times + START + late_ns
    return PowerLog(
        source=Source("power.log", "built"),
        records=len(times),
        clock=Clock("utc", int(stamps[0]), int(stamps[-1]), error_ns),
        times_ns=stamps,
        rails=rails,
        total_w=total,
        total_source=source,
        has_total=has_total,
        **more,  # type: ignore[arg-type]
    )
