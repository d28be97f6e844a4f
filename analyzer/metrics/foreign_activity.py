"""SM activity while the trace has no GPU operation: someone else's work."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..intervals import Intervals, gaps, union
from ..message import message
from ..metric import Measurement, Metric, NotMeasured, Result
from ..samples import FEWEST_SAMPLES
from ..view import View
from .sampled import NO_SAMPLES

_PERIODS_APART = 2


def compute(view: View) -> Iterator[Result]:
    """SM activity that the sampler saw where the whole trace has no GPU operation on that device.

    Looked at are the stretches of the sampled time in which no operation of the trace runs, without the two sampling
    periods next to an operation. `sm_active_without_operations` is the time-weighted mean there, `by` before the first,
    between, and after the last operation, and `anywhere`; `count` is the number of samples. Values above a few percent
    mean that another process, or work that the profiler did not record, uses the GPU.
    """
    found = False
    for device in view.devices:
        sampled = device.sampled.get("sm_active")
        if sampled is None or len(sampled.times) <= FEWEST_SAMPLES:
            continue
        found = True
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
                metric = "sm_active_without_operations"
                yield Measurement(metric, mean / 100, "ratio", device.device_id, by, count, 0.005)
    if not found:
        yield NotMeasured("sm_active_without_operations", NO_SAMPLES)


METRIC = Metric(
    id="sm_active_without_operations",
    title=message("SM activity without operations"),
    provides={"sm_active_without_operations": "ratio"},
    needs=(),
    missing="",
    better="lower",
    reference=message("Nitro"),
    compute=compute,
    order=23,
)
