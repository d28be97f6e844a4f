"""Iterations: period, latency, throughput, launches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..intervals import Int64
from ..message import message
from ..metric import GPU_TABLES, NO_GPU_OPERATIONS, Measurement, Metric, NotMeasured, Result
from ..operations import NO_ROW
from ..view import View

_PERCENTILES = (50, 90, 99)
_NO_ITERATIONS = message("no iterations were found; mark each with an NVTX range, or name the ranges with --nvtx")
_PIPELINED = message("iterations overlap on the GPU, so none stands alone; only the mean period is given")
_FEW = message("how iterations vary needs at least 4 periods in the window")
_FEWEST_FOR_VARIATION = 4
_NO_RANGE = message("latency needs an NVTX range around each iteration; only GPU periods are known here")
NO_BATCH = message("items per iteration are unknown; give them with --batch or as NVTX payload of the iteration ranges")


def compute(view: View) -> Iterator[Result]:
    """Distribution of iterations inside the window, and rates.

    - `iteration_period`: time from the first GPU operation of an iteration to the first of the next. N iterations
      give N - 1 periods, which tile the window.
    - `iteration_latency`: what the caller waits for, from the start of the iteration's NVTX range to its end or the
      end of its GPU work, whichever is later.
    - `iterations_per_s` = periods / window. `throughput` = items per iteration x `iterations_per_s`; the items come
      from `--batch`, an integer payload on every iteration's range, or the manifest of a capture bundle.
    - `iteration_jitter`: median of the differences, without sign, between neighbouring periods.
    - `iteration_outliers`: periods longer than the upper quartile + 1.5 x the distance of the quartiles (the fence of
      Tukey). Both need at least 4 periods.
    - `launches_per_iteration`: API calls that submitted GPU work which begins inside the window, per period. A graph
      launch is one call.

    Percentiles interpolate linearly between order statistics; `by` names them, and `mean`. Where iterations overlap
    on the GPU (pipelining), only means over the window are given.
    """
    iterations = view.window.iterations
    if not view.operations.device_ids:
        yield from (NotMeasured(name, NO_GPU_OPERATIONS) for name in METRIC.provides)
        return
    if not iterations:
        yield from (NotMeasured(name, _NO_ITERATIONS) for name in METRIC.provides)
        return
    length = view.window.end_ns - view.window.start_ns
    pipelined = view.window.is_pipelined
    periods = view.window.periods_ns if len(iterations) > 1 else np.array([length], np.int64)
    yield from _distribution("iteration_period", periods, only_mean=pipelined)
    yield from _variation(periods, is_pipelined=pipelined)
    latencies = [latency for iteration in iterations if (latency := iteration.latency_ns) is not None]
    if pipelined:
        yield NotMeasured("iteration_latency", _PIPELINED)
    elif latencies:
        yield from _distribution("iteration_latency", np.array(latencies, np.int64), only_mean=False)
    else:
        yield NotMeasured("iteration_latency", _NO_RANGE)
    per_second = view.periods / length * 1e9
    yield Measurement("iterations_per_s", per_second, "1/s", count=view.periods)
    items = items_per_iteration(view)
    if items is None:
        yield NotMeasured("throughput", NO_BATCH)
    else:
        yield Measurement("throughput", items * per_second, "items/s", count=view.periods)
    launches = view.operations.launch[view.starts_in_window]
    # A mask over the calls counts them without sorting millions of rows.
    submitting = np.zeros(int(launches.max(initial=NO_ROW)) + 1, np.bool_)
    submitting[launches[launches != NO_ROW]] = True
    submitted = int(submitting.sum())
    yield Measurement("launches_per_iteration", submitted / view.periods, "1", count=submitted)


def _distribution(metric: str, values: Int64, *, only_mean: bool) -> Iterator[Result]:
    if not only_mean:
        for percentile in _PERCENTILES:
            value = float(np.percentile(values, percentile))
            yield Measurement(metric, value, "ns", by=f"p{percentile}", count=len(values))
    yield Measurement(metric, float(values.mean()), "ns", by="mean", count=len(values))


def _variation(periods: Int64, *, is_pipelined: bool) -> Iterator[Result]:
    if is_pipelined or len(periods) < _FEWEST_FOR_VARIATION:
        reason = _PIPELINED if is_pipelined else _FEW
        yield from (NotMeasured(name, reason) for name in ("iteration_jitter", "iteration_outliers"))
        return
    jitter = float(np.median(np.abs(np.diff(periods))))
    yield Measurement("iteration_jitter", jitter, "ns", count=len(periods) - 1)
    lower, upper = np.percentile(periods, (25, 75))
    outliers = int((periods > upper + 1.5 * (upper - lower)).sum())
    yield Measurement("iteration_outliers", outliers, "1", count=len(periods))


def items_per_iteration(view: View) -> float | None:
    """Return how many items an iteration of the window has on average, `None` where nothing says so."""
    if view.scope.batch is not None:
        return float(view.scope.batch)
    # The last iteration only closes the window; its items are not among those that the window counts.
    payloads = [iteration.payload for iteration in view.window.iterations[: view.periods]]
    known = [payload for payload in payloads if payload is not None and payload > 0]
    if known and len(known) == len(payloads):
        return sum(known) / len(known)
    bundled = view.trace.capture.items_per_iteration
    return None if bundled is None else float(bundled)


METRIC = Metric(
    id="iteration_period",
    title=message("Iterations"),
    provides={
        "iteration_period": "ns",
        "iteration_latency": "ns",
        "iteration_jitter": "ns",
        "iteration_outliers": "1",
        "iterations_per_s": "1/s",
        "throughput": "items/s",
        "launches_per_iteration": "1",
    },
    needs=GPU_TABLES,
    missing=NO_GPU_OPERATIONS,
    better="lower",
    reference=message("Nitro; percentiles as numpy `percentile` with linear interpolation"),
    compute=compute,
    order=8,
)
