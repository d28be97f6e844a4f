"""Activity of the GPU while the trace has no operation on it: someone else's work."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..intervals import Intervals, gaps, union
from ..message import message
from ..metric import Measurement, Metric, NotMeasured, Result
from ..samples import FEWEST_SAMPLES, Sampled
from ..view import DeviceView, View
from .sampled import NO_SAMPLES

_PERIODS_APART = 2
_METRICS = {"sm_active": "sm_active_without_operations", "gr_active": "gr_active_without_operations"}
_NOT_SAMPLED = message(
    "GPU metrics were sampled, but not this one, or in fewer than {fewest} periods", fewest=FEWEST_SAMPLES
)


def compute(view: View) -> Iterator[Result]:
    """Activity that the sampler saw where the whole trace has no GPU operation on that device.

    Looked at are the stretches of the sampled time in which no operation of the trace runs, without the two sampling
    periods next to an operation. A value is the time-weighted mean there, `by` before the first, between, and after the
    last operation, and `anywhere`; `count` is the number of samples.

    - `sm_active_without_operations`: SM-cycles with a warp. Values above a few percent mean that another process, or
      work that the profiler did not record, uses the GPU.
    - `gr_active_without_operations`: time in which the graphics and compute engine had any work, however few SMs it
      takes. Processes take turns on that engine unless they share it (MPS): near 1, another one holds the GPU, and what
      this program launches waits, even where hardly an SM is active.
    """
    for name, metric in _METRICS.items():
        found = False
        for device in view.devices:
            sampled = device.sampled.get(name)
            if sampled is None or len(sampled.times) <= FEWEST_SAMPLES:
                continue
            found = True
            yield from _by_place(device, sampled, metric)
        if not found:
            yield NotMeasured(metric, _NOT_SAMPLED if any(device.sampled for device in view.devices) else NO_SAMPLES)


def _by_place(device: DeviceView, sampled: Sampled, metric: str) -> Iterator[Measurement]:
    low, high = int(sampled.times[0]), int(sampled.times[-1])
    margin = round(float(np.median(sampled.times[1:] - sampled.times[:-1])) * _PERIODS_APART)
    operations = device.operations
    free = gaps(union(operations.starts - margin, operations.ends + margin), low, high)
    first, last = int(operations.starts.min()), int(operations.ends.max())
    parts = {
        "before the first": free.ends <= first,
        "between": (free.starts >= first) & (free.ends <= last),
        "after the last": free.starts >= last,
        "anywhere": np.ones(len(free), np.bool_),
    }
    for by, chosen in parts.items():
        spans = Intervals(free.starts[chosen], free.ends[chosen])
        mean = sampled.mean(spans)
        count = sum(sampled.count(int(a), int(b)) for a, b in zip(spans.starts, spans.ends, strict=True))
        if mean is not None and count >= FEWEST_SAMPLES:
            yield Measurement(metric, mean / 100, "ratio", device.device_id, by, count, 0.005)


METRIC = Metric(
    id="sm_active_without_operations",
    title=message("SM and engine activity without operations"),
    provides=dict.fromkeys(_METRICS.values(), "ratio"),
    needs=(),
    missing="",
    better="lower",
    reference=message("Nsight Systems user guide, GPU metrics: sm__cycles_active, gr__cycles_active"),
    compute=compute,
    order=23,
)
