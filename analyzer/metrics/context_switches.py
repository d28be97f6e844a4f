"""GPU context switches: how often, and how long other processes held the GPU."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..contexts import holders_of
from ..distinct import distinct
from ..intervals import Int64, Intervals, overlap_of
from ..message import message
from ..metric import Measurement, Metric, NotMeasured, Result
from ..view import View

_NOT_RECORDED = message("GPU context switches were not recorded; record with --gpuctxsw=true, as root")


def compute(view: View) -> Iterator[Result]:
    """GPU context switches inside the window, from the events of the GPU itself.

    - `gpu_context_switch_count`: contexts restored.
    - `gpu_context_switch_time`: time in which contexts of each process held the GPU (`by` = `pid N`), and the time it
      spent saving and restoring (`switching`). What is not the chosen process's own is time that it could not run.

    Processes that were not traced appear too. A context may hold the GPU without running anything.
    """
    found = False
    for device in view.devices:
        holders = holders_of(view.trace, device.device_id)
        if holders is None:
            continue
        found = True
        inside = (holders.switches >= device.low) & (holders.switches < device.high)
        yield Measurement("gpu_context_switch_count", int(inside.sum()), "1", device.device_id)
        if not len(holders.spans):
            continue
        window = Intervals(_one(device.low), _one(device.high))
        for process in distinct(holders.process):
            held = overlap_of(holders.of(process), window)
            if held:
                by = "switching" if process == -1 else f"pid {process & 0xFFFFFF}"
                yield Measurement("gpu_context_switch_time", held, "ns", device.device_id, by=by)
    if not found:
        yield from (NotMeasured(name, _NOT_RECORDED) for name in METRIC.provides)


def _one(value: int) -> Int64:
    return np.array([value], np.int64)


METRIC = Metric(
    id="gpu_context_switch_time",
    title=message("GPU context switches"),
    provides={"gpu_context_switch_time": "ns", "gpu_context_switch_count": "1"},
    needs=("context_switches",),
    missing=_NOT_RECORDED,
    better="lower",
    reference=message("GPU_CONTEXT_SWITCH_EVENTS of nsys: SAVE_END, RESTORE_START"),
    compute=compute,
    order=28,
)
