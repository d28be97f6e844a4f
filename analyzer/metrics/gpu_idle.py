"""GPU idle time by cause."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ..causes import TEXTS, Cause
from ..message import message
from ..metric import GPU_TABLES, NO_GPU_OPERATIONS, Measurement, Metric, NotMeasured, Result, ResultColumn, ResultTable
from ..view import DeviceView, View

_HOST_COLUMNS = (
    ResultColumn("nvtx_path", "", message("innermost NVTX range of the launching thread, with those around it")),
    ResultColumn("idle_ns", "ns", message("idle time while that thread ran code outside CUDA there")),
    ResultColumn("pieces", "1", message("stretches of idle time")),
)
_LONGEST_COLUMNS = (
    ResultColumn("cause", "", message("cause of the idle stretch")),
    ResultColumn("start_ns", "ns", message("start, since session start")),
    ResultColumn("duration_ns", "ns", message("length")),
)


def compute(view: View) -> Iterator[Result]:
    """Idle time of each device inside the window, every nanosecond with exactly one cause.

    `gpu_idle` = `window` - `gpu_busy`. A gap ends with an operation that was launched by a call `r` on a thread `T`
    (the outermost call with its correlation id). `gpu_idle_by_cause` splits it:

    - before `r` begins, by what `T` was doing, the first that applies: `profiler_overhead`, `synchronization`,
      `copy_call`, `memory_management`, `module_load`, `launching_other`, `other_cuda_api`, `os_call`,
      `not_scheduled`, `host_code`;
    - while `r` runs: `launch_call`, or `copy_call` when `r` is a memcpy or memset call;
    - after `r`: `launch_latency` if `r` ended inside the gap, since the queue was then empty; else `other_context`
      while another process's context held the GPU, `dependency` (a stream-wait on its stream, issued between the launch
      before on that stream and `r`), else `device_gap`;
    - `after_last`: no operation follows in the trace; `unattributed`: the operation has no API call in the trace.

    The causes add up to `gpu_idle` to the nanosecond. `count` is the number of stretches. `host_code_by_path` splits
    `host_code` by NVTX path; `longest_idle` lists the longest stretches as evidence.
    """
    if not view.devices:
        yield from (NotMeasured(name, NO_GPU_OPERATIONS) for name in METRIC.provides)
    for device in view.devices:
        yield from _of_device(device)


def _of_device(device: DeviceView) -> Iterator[Result]:
    idle = device.gaps.total
    if idle + device.busy.total != device.window_ns:
        raise AssertionError("busy and idle time do not add up to the window")
    yield Measurement("gpu_idle", idle, "ns", device.device_id, count=len(device.gaps))
    summary = device.idle
    for cause in Cause:
        if summary.pieces[cause]:
            value, pieces = int(summary.total_ns[cause]), int(summary.pieces[cause])
            yield Measurement("gpu_idle_by_cause", value, "ns", device.device_id, by=cause.id, count=pieces)
    host = sorted(summary.host_paths.items(), key=lambda item: (-item[1][0], item[0]))
    frame = pl.DataFrame(
        {
            "nvtx_path": [path for path, _ in host],
            "idle_ns": [ns for _, (ns, _) in host],
            "pieces": [pieces for _, (_, pieces) in host],
        },
        schema={"nvtx_path": pl.String, "idle_ns": pl.Int64, "pieces": pl.Int64},
    )
    yield ResultTable(
        "host_code_by_path", message("Idle while host code ran, by NVTX path"), _HOST_COLUMNS, frame, device.device_id
    )
    longest = sorted(
        (
            (start - end, str(TEXTS[cause].title), start)
            for cause, spans in summary.longest.items()
            for start, end in spans
        )
    )[:20]
    frame = pl.DataFrame(
        {
            "cause": [title for _, title, _ in longest],
            "start_ns": [start for _, _, start in longest],
            "duration_ns": [-length for length, _, _ in longest],
        },
        schema={"cause": pl.String, "start_ns": pl.Int64, "duration_ns": pl.Int64},
    )
    yield ResultTable("longest_idle", message("Longest idle stretches"), _LONGEST_COLUMNS, frame, device.device_id)


METRIC = Metric(
    id="gpu_idle",
    title=message("GPU idle by cause"),
    provides={"gpu_idle": "ns", "gpu_idle_by_cause": "ns", "host_code_by_path": "table", "longest_idle": "table"},
    needs=GPU_TABLES,
    missing=NO_GPU_OPERATIONS,
    better="lower",
    reference=message("gaps as in nsys `gpu_gaps`, with threshold 0 and over all processes of the GPU; causes: Nitro"),
    compute=compute,
    order=20,
)
