"""GPU busy time, overlap, and the time of each kind of operation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..distinct import distinct
from ..intervals import union
from ..message import message
from ..metric import GPU_TABLES, NO_GPU_OPERATIONS, Measurement, Metric, NotMeasured, Result
from ..operations import Kind
from ..view import DeviceView, View

_TIME_OF_KIND = {
    Kind.KERNEL: "kernel_time_sum",
    Kind.GRAPH: "graph_time_sum",
    Kind.MEMCPY: "memcpy_time_sum",
    Kind.MEMSET: "memset_time_sum",
}
_COUNT_OF_KIND = {
    Kind.KERNEL: "kernel_count",
    Kind.GRAPH: "graph_launch_count",
    Kind.MEMCPY: "memcpy_count",
    Kind.MEMSET: "memset_count",
}


def compute(view: View) -> Iterator[Result]:
    """How long each device worked inside the window.

    - `window`: length of the window on the device.
    - `gpu_busy`: time in which at least one operation ran, the union of kernels, graph launches, copies and memsets
      of all processes on the physical GPU, clipped to the window. `gpu_busy_ratio` = `gpu_busy` / `window`.
    - `kernel_busy`: the union of kernels and graph launches alone, without copies and memsets.
    - `kernel_time_sum`, `graph_time_sum`, `memcpy_time_sum`, `memset_time_sum`: sums of clipped durations.
    - `gpu_busy_sum` = the four together; `overlap` = `gpu_busy_sum` - `gpu_busy`, never negative: the time that
      concurrency saved.
    - `gpu_busy_by_stream`, `gpu_busy_by_process`: the union for each stream and process alone.
    - `kernel_count`, `graph_launch_count`, `memcpy_count`, `memset_count`: operations that run or begin inside the
      window. A graph launch counts once; nsys does not record its kernels unless told to trace by node.

    "GPU utilisation" has three meanings: this union, the sampled GR Active, and GR3D of tegrastats. They differ.
    """
    if not view.devices:
        yield from (NotMeasured(name, NO_GPU_OPERATIONS) for name in METRIC.provides)
    for device in view.devices:
        yield from _of_device(device)


def _of_device(device: DeviceView) -> Iterator[Result]:
    device_id, busy = device.device_id, device.busy.total
    yield Measurement("window", device.window_ns, "ns", device_id)
    yield Measurement("gpu_busy", busy, "ns", device_id)
    if device.window_ns:
        yield Measurement("gpu_busy_ratio", busy / device.window_ns, "ratio", device_id)
    computing = device.operations.kind <= Kind.GRAPH
    kernel_busy = union(device.inside.starts[computing], device.inside.ends[computing]).total
    yield Measurement("kernel_busy", kernel_busy, "ns", device_id)
    times = {kind: device.time_of(kind) for kind in Kind}
    yield Measurement("gpu_busy_sum", sum(times.values()), "ns", device_id)
    yield Measurement("overlap", sum(times.values()) - busy, "ns", device_id)
    for kind in Kind:
        count = int(device.touching(kind).sum())
        yield Measurement(_TIME_OF_KIND[kind], times[kind], "ns", device_id, count=count)
        yield Measurement(_COUNT_OF_KIND[kind], count, "1", device_id)
    yield from _parts(device, "gpu_busy_by_stream", device.operations.stream, _stream_name)
    yield from _parts(device, "gpu_busy_by_process", device.operations.process, _process_name)


def _parts(device: DeviceView, metric: str, keys: np.ndarray, name_of: object) -> Iterator[Result]:
    assert callable(name_of)
    active = device.inside.ends > device.inside.starts
    parts = distinct(keys[active])
    for key in parts:
        mine = active & (keys == key) if len(parts) > 1 else active
        busy = union(device.inside.starts[mine], device.inside.ends[mine]).total
        yield Measurement(metric, busy, "ns", device.device_id, by=name_of(key), count=int(mine.sum()))


def _stream_name(key: int) -> str:
    pid = str(key >> 40) if key >= 0 else "unknown"
    return f"pid {pid} context {(key >> 24) & 0xFFFF} stream {key & 0xFFFFFF}"


def _process_name(key: int) -> str:
    return f"pid {key & 0xFFFFFF}" if key >= 0 else "pid unknown"


METRIC = Metric(
    id="gpu_busy",
    title=message("GPU busy"),
    provides={
        "window": "ns",
        "gpu_busy": "ns",
        "gpu_busy_ratio": "ratio",
        "kernel_busy": "ns",
        "gpu_busy_sum": "ns",
        "overlap": "ns",
        **dict.fromkeys(_TIME_OF_KIND.values(), "ns"),
        **dict.fromkeys(_COUNT_OF_KIND.values(), "1"),
        "gpu_busy_by_stream": "ns",
        "gpu_busy_by_process": "ns",
    },
    needs=GPU_TABLES,
    missing=NO_GPU_OPERATIONS,
    better="neither",
    reference=message(
        "interval union; nsys `gpu_time_util` adds overlapping operations up instead, and may exceed 100 %"
    ),
    compute=compute,
    order=10,
)
