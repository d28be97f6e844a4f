"""GPU busy time of the whole capture, whatever the window."""

from __future__ import annotations

from collections.abc import Iterator

from ..intervals import union
from ..message import message
from ..metric import GPU_TABLES, NO_GPU_OPERATIONS, Measurement, Metric, NotMeasured, Result
from ..view import View


def compute(view: View) -> Iterator[Result]:
    """Busy time and span of each device over the whole capture.

    `capture_gpu_span` runs from the first start to the last end of the GPU operations of the device;
    `capture_gpu_busy` is the union of these operations (kernels, graph launches, copies, memsets). Both ignore the
    window, so that a window can be seen in its proportion.
    """
    if not view.devices:
        yield from (NotMeasured(name, NO_GPU_OPERATIONS) for name in METRIC.provides)
    for device in view.devices:
        operations = device.operations
        span = int(operations.ends.max()) - int(operations.starts.min())
        busy = union(operations.starts, operations.ends).total
        yield Measurement("capture_gpu_span", span, "ns", device.device_id)
        yield Measurement("capture_gpu_busy", busy, "ns", device.device_id, count=len(operations))


METRIC = Metric(
    id="capture_gpu_busy",
    title=message("GPU busy, whole capture"),
    provides={"capture_gpu_busy": "ns", "capture_gpu_span": "ns"},
    needs=GPU_TABLES,
    missing=NO_GPU_OPERATIONS,
    better="neither",
    reference=message("interval union, as the complement of nsys `gpu_gaps` without its threshold"),
    compute=compute,
    order=5,
)
