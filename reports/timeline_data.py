"""A `Timeline` as one text that a web page can carry, and the words that its picture needs.

The text is base64 of a zlib stream of: the length of a JSON header (4 bytes, little-endian), the header, and the
columns that the header refers to. A column is a list `[offset, count, base, planes, is_cumulative]`: `count` integers
of `planes` bytes each, written plane by plane (first all lowest bytes, and so on: like bytes side by side compress
well), to each of which `base` is added. A cumulative column holds differences, the first one to 0. Spans are stored as
the gap since the end of the span before (the first one since the start of the timeline) and the length, so that every
time is exact below 2**53 ns.

Names of kernels and ranges are a stranger's input. They are shortened and made printable here, and are data to the
page, never markup.
"""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from nitro.analyzer.causes import TEXTS, Cause, class_of_call
from nitro.analyzer.message import Message, Translate, message, say
from nitro.analyzer.operations import Kind
from nitro.analyzer.timeline import DeviceLanes, IdleLane, SampledLane, Shapes, Spans, StreamLane, ThreadLanes, Timeline

from .names import kernel_label, printable
from .palette import COLOURS

FORMAT_VERSION = 1
LONGEST_NAME = 2_000
# Above this many bytes a higher level costs more time than it saves space: 0.2 s more for 6 % of a million kernels.
_LARGE = 4_000_000
_LEVEL, _LEVEL_OF_LARGE = 6, 1
_CUT = " …"
_API_VERSION = re.compile(r"_v\d+$")
_MEAN_SCALE = 10

# Words with a number or a name in them keep a field in single braces for the page, hence the doubled ones here.
LABELS: tuple[tuple[str, Message], ...] = (
    ("title", message("Timeline of the capture")),
    (
        "help",
        message(
            "Left and right arrows move, plus and minus zoom, Home shows the whole capture. Up and down choose a lane, "
            "n and p go to its next and previous item, Enter zooms to the chosen item, Escape lets it go. The facts of "
            "the item are read below the chart."
        ),
    ),
    ("hint", message("Wheel zooms, drag moves, drag on the ruler zooms to a span, double click zooms to an item.")),
    ("loading", message("The timeline is being unpacked.")),
    ("unsupported", message("This browser is too old to unpack the timeline. Use one of 2023 or newer.")),
    ("damaged", message("The data of the timeline cannot be read.")),
    ("empty", message("The capture holds nothing to show over time.")),
    ("whole", message("Whole capture")),
    ("window", message("Window")),
    ("typical", message("Typical iteration")),
    ("zoom_in", message("Zoom in")),
    ("zoom_out", message("Zoom out")),
    ("search", message("Find by name")),
    ("search_none", message("not found")),
    ("search_count", message("{{count}} found")),
    ("search_place", message("{{place}} of {{count}}")),
    ("next", message("Next")),
    ("previous", message("Previous")),
    ("more_rows", message("Show {{count}} more rows")),
    ("thread", message("Thread {{tid}}")),
    ("thread_of_process", message("Thread {{tid}} of process {{pid}}")),
    ("threads_left_out", message("{{count}} threads with fewer calls are not shown.")),
    ("gpu", message("GPU {{id}}")),
    ("gpu_named", message("GPU {{id}}, {{name}}")),
    ("stream", message("Stream {{id}}")),
    ("stream_of_context", message("Stream {{id}}, context {{context}}, process {{pid}}")),
    ("lane_nvtx", message("NVTX ranges")),
    ("lane_api", message("CUDA calls")),
    ("lane_idle", message("Idle, by cause")),
    ("metric_gr_active", message("GR active")),
    ("metric_sm_active", message("SM active")),
    ("metric_sm_issue", message("SM issue")),
    ("metric_tensor_active", message("Tensor active")),
    ("metric_dram_read", message("DRAM read")),
    ("metric_dram_write", message("DRAM write")),
    ("metric_gpc_clock", message("GPC clock")),
    ("kind_kernel", message("kernel")),
    ("kind_graph", message("CUDA graph")),
    ("kind_memcpy", message("copy")),
    ("kind_memset", message("memset")),
    ("kind_nvtx", message("NVTX range")),
    ("kind_call", message("CUDA call")),
    ("kind_idle", message("idle")),
    ("kind_sample", message("sample")),
    ("copy_0", message("copy")),
    ("copy_1", message("copy, host to device")),
    ("copy_2", message("copy, device to host")),
    ("copy_3", message("copy, host to array")),
    ("copy_4", message("copy, array to host")),
    ("copy_5", message("copy, array to array")),
    ("copy_6", message("copy, array to device")),
    ("copy_7", message("copy, device to array")),
    ("copy_8", message("copy, device to device")),
    ("copy_9", message("copy, host to host")),
    ("copy_10", message("copy, device to other device")),
    ("copy_11", message("unified memory, host to device")),
    ("copy_12", message("unified memory, device to host")),
    ("copy_13", message("unified memory, device to device")),
    ("graph_launch", message("CUDA graph launch")),
    ("nothing_chosen", message("Nothing chosen. Click an item, or choose a lane and press n.")),
    ("fact_start", message("Start")),
    ("fact_duration", message("Duration")),
    ("fact_lane", message("Lane")),
    ("fact_kind", message("Kind")),
    ("fact_launch", message("Launch")),
    ("fact_grid", message("Grid")),
    ("fact_block", message("Block")),
    ("fact_registers", message("Registers per thread")),
    ("fact_shared_memory", message("Shared memory per block")),
    ("fact_bytes", message("Size")),
    ("fact_cause", message("Cause")),
    ("fact_value", message("Value")),
    ("shared_static_dynamic", message("{{static}} static, {{dynamic}} dynamic")),
    ("value_range", message("{{mean}} on average, {{low}} to {{high}}")),
    (
        "launched",
        message("launched at {{start}} by thread {{tid}}, call took {{took}}, waited {{waited}} in the queue"),
    ),
    (
        "launched_empty",
        message(
            "launched at {{start}} by thread {{tid}}, call took {{took}}, began {{waited}} before the call returned"
        ),
    ),
    ("launch_unknown", message("no launch call in the capture")),
    ("calls_not_singly", message("Outside the typical iteration, calls under {{limit}} are shown as coverage only.")),
    ("idle_not_singly", message("Outside the typical iteration, idle time under {{limit}} is shown as coverage only.")),
    ("launches_left_out", message("There are too many operations to keep the launch call of each.")),
    ("shapes_left_out", message("There are too many different launches to keep their grids and sizes.")),
)


def labels(translate: Translate = str) -> dict[str, str]:
    """Return the words of the timeline by key, in the language of `translate`; English without it.

    A word may have fields in braces, as in `{count} found`, which the page fills.
    """
    words = {key: text.said(translate) for key, text in LABELS}
    for cause in Cause:
        words[f"cause_{cause.id}"] = str(say(TEXTS[cause].title, translate))
        words[f"meaning_{cause.id}"] = str(say(TEXTS[cause].meaning, translate))
    return words


def packed(timeline: Timeline) -> str:
    """Return the timeline as ASCII text for `NitroTimeline.mount`; the same timeline gives the same text."""
    columns = _Columns()
    header = {
        "version": FORMAT_VERSION,
        "start": timeline.start_ns,
        "end": timeline.end_ns,
        "zero": timeline.session_start_ns,
        "window": list(timeline.window),
        "windowMode": timeline.window_mode,
        "typical": None if timeline.typical is None else list(timeline.typical),
        "iterations": {
            "starts": columns.add(timeline.iterations.starts, is_cumulative=True),
            "ends": columns.add(timeline.iterations.ends, is_cumulative=True),
            "names": [_shown(name) for name in timeline.iteration_names],
        },
        "bins": {"start": timeline.bins.start_ns, "width": timeline.bins.width_ns, "count": timeline.bins.count},
        "names": [_shown(name) for name in timeline.names],
        "short": _short_names(timeline),
        "callCauses": _call_causes(timeline),
        "shapes": _shapes(timeline.shapes, columns),
        "launchingThreads": [tid & 0xFFFFFF for tid in timeline.launching_threads],
        "callsAtLeast": timeline.calls_at_least_ns,
        "threadsLeftOut": timeline.threads_left_out,
        "hasLaunches": timeline.has_launches,
        "hasShapes": timeline.has_shapes,
        "causes": [cause.id for cause in Cause],
        "colours": COLOURS,
        "groups": [
            *(_thread(thread, timeline, columns) for thread in timeline.threads),
            *(_device(device, timeline, columns) for device in timeline.devices),
        ],
    }
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    stream = zlib.compressobj(_LEVEL if columns.size <= _LARGE else _LEVEL_OF_LARGE)
    made = [stream.compress(struct.pack("<I", len(text)) + text)]
    made += [stream.compress(part) for part in columns.parts]
    made.append(stream.flush())
    return base64.b64encode(b"".join(made)).decode("ascii")


class _Columns:
    """Columns of integers, one behind the other: `size` bytes together."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0

    def add(self, values: npt.NDArray[np.integer], *, is_cumulative: bool = False) -> list[int]:
        """Append a column and return what finds it again."""
        whole = np.asarray(values, np.int64)
        if is_cumulative:
            whole = np.diff(whole, prepend=0)
        base = int(whole.min()) if len(whole) else 0
        planes = (int(whole.max()) - base).bit_length() + 7 >> 3 if len(whole) else 0
        reference = [self.size, len(whole), base, planes, int(is_cumulative)]
        if planes:
            rest = (whole - base).astype("<i8")
            self.parts.append(rest.view(np.uint8).reshape(-1, 8)[:, :planes].T.tobytes())
            self.size += planes * len(whole)
        return reference


def _shown(name: str) -> str:
    cut = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - len(_CUT)] + _CUT
    return cut if cut.isprintable() else printable(cut)


def _short_names(timeline: Timeline) -> list[str | int]:
    """Return what is written on an item in place of its name; 0 where it is the name."""
    short: list[str | int] = [0] * len(timeline.names)
    kernels = timeline.shapes.name[timeline.shapes.kind == Kind.KERNEL]
    for index in np.unique(kernels[kernels >= 0]).tolist():
        short[index] = kernel_label(_shown(timeline.names[index]))
    for index in _called(timeline):
        short[index] = _API_VERSION.sub("", _shown(timeline.names[index]))
    return [0 if text == _shown(name) else text for text, name in zip(short, timeline.names, strict=True)]


def _call_causes(timeline: Timeline) -> list[int]:
    """Return the cause whose colour a CUDA call of each name has, -1 where no call has that name."""
    causes = [-1] * len(timeline.names)
    for index in _called(timeline):
        cause = class_of_call(timeline.names[index])
        # Which operation a launch is for, and so whether it is another one, depends on who asks.
        causes[index] = int(Cause.LAUNCH_CALL if cause is Cause.LAUNCHING_OTHER else cause)
    return causes


def _called(timeline: Timeline) -> list[int]:
    return sorted({index for thread in timeline.threads for index in np.unique(thread.calls.what).tolist()})


def _shapes(shapes: Shapes, columns: _Columns) -> dict[str, Any]:
    return {
        "kind": columns.add(shapes.kind),
        "name": columns.add(shapes.name),
        "launch": [columns.add(column) for column in shapes.launch.T],
        "bytes": columns.add(shapes.bytes),
        "copyKind": columns.add(shapes.copy_kind),
    }


def _spans(spans: Spans, timeline: Timeline, columns: _Columns) -> dict[str, Any]:
    before = np.concatenate(([timeline.start_ns], spans.ends[:-1]))[: len(spans)]
    return {
        "gap": columns.add(spans.starts - before),
        "length": columns.add(spans.ends - spans.starts),
        "row": columns.add(spans.row),
        "what": columns.add(spans.what),
        "rows": spans.rows,
    }


def _thread(thread: ThreadLanes, timeline: Timeline, columns: _Columns) -> dict[str, Any]:
    key = f"thread:{thread.pid}:{thread.tid}"
    lanes: list[dict[str, Any]] = []
    if len(thread.ranges):
        lanes.append({"type": "nvtx", "key": f"{key}:nvtx", **_spans(thread.ranges, timeline, columns)})
    if thread.call_count:
        more = None if thread.more_calls is None else columns.add(thread.more_calls)
        lanes.append({"type": "api", "key": f"{key}:api", "more": more, **_spans(thread.calls, timeline, columns)})
    return {"type": "thread", "key": key, "pid": thread.pid, "tid": thread.tid, "lanes": lanes}


def _device(device: DeviceLanes, timeline: Timeline, columns: _Columns) -> dict[str, Any]:
    key = f"device:{device.device_id}"
    lanes = [_stream(key, lane, timeline, columns) for lane in device.streams]
    lanes.append(_idle(key, device.idle, timeline, columns))
    times: tuple[npt.NDArray[np.int64], list[int]] | None = None
    for lane in device.sampled:
        # The metrics of a device are sampled together, so that one column of times serves them all.
        if times is None or not np.array_equal(times[0], lane.times):
            times = lane.times, columns.add(lane.times, is_cumulative=True)
        lanes.append({"key": f"{key}:{lane.metric}", "times": times[1], **_sampled(lane, columns)})
    return {"type": "device", "key": key, "id": device.device_id, "name": _shown(device.name), "lanes": lanes}


def _stream(key: str, lane: StreamLane, timeline: Timeline, columns: _Columns) -> dict[str, Any]:
    launches = None
    if lane.launches is not None:
        launches = {
            "before": columns.add(lane.launches.before_ns),
            "took": columns.add(lane.launches.call_ns),
            "thread": columns.add(lane.launches.thread),
        }
    return {
        "type": "stream",
        "key": f"{key}:stream:{lane.pid}:{lane.context_id}:{lane.stream_id}",
        "pid": lane.pid,
        "context": lane.context_id,
        "stream": lane.stream_id,
        "launches": launches,
        **_spans(lane.operations, timeline, columns),
    }


def _idle(key: str, lane: IdleLane, timeline: Timeline, columns: _Columns) -> dict[str, Any]:
    return {
        "type": "idle",
        "key": f"{key}:idle",
        "atLeast": lane.at_least_ns,
        "more": {int(cause): columns.add(share) for cause, share in lane.more.items()},
        **_spans(lane.pieces, timeline, columns),
    }


def _sampled(lane: SampledLane, columns: _Columns) -> dict[str, Any]:
    whole = lane.samples_per_step == 1
    scale = 1 if whole else _MEAN_SCALE
    return {
        "type": "metric",
        "metric": lane.metric,
        "scale": scale,
        "mean": columns.add(np.rint(lane.mean * scale).astype(np.int64)),
        "low": None if whole else columns.add(lane.low.astype(np.int64)),
        "high": None if whole else columns.add(lane.high.astype(np.int64)),
        "together": lane.samples_per_step,
    }
