"""The timeline: every event of the capture to zoom in, and on paper a typical iteration and the whole window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from nitro.analyzer import Analysis
from nitro.analyzer.causes import TEXTS, Cause
from nitro.analyzer.intervals import Intervals, union
from nitro.analyzer.message import message
from nitro.analyzer.operations import Kind
from nitro.analyzer.timeline import DeviceLanes, Spans, Timeline

from .. import figures, numbers
from ..blocks import Block, Figure
from ..blocks import Timeline as TimelineBlock
from ..palette import COLOURS, SERIES
from ..report import Section

_COLUMNS = 400
_MOST_RANGE_ROWS = 4
_MOST_RANGES = 60
_NAME_SHOWN = 26
_MOST_DEVICES = 4
_MOST_STREAMS = 4
_KINDS: Mapping[Kind, tuple[str, Any]] = {
    Kind.KERNEL: ("kernel", message("kernels")),
    Kind.GRAPH: ("graph", message("CUDA graphs")),
    Kind.MEMCPY: ("memcpy", message("copies")),
    Kind.MEMSET: ("memset", message("memsets")),
}


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return the timeline; nothing where it was not asked for or nothing happened."""
    data = analysis.timeline
    if data is None or data.end_ns <= data.start_ns:
        return ()
    sentence = message(
        "Everything that the capture recorded, from whole to single kernel. CPU threads with their NVTX ranges and "
        "CUDA calls are on top, then for each GPU its streams, the causes of its idle time, and the sampled metrics. "
        "A bar that is too short to show is drawn by how much of its pixel it fills."
    )
    title = message("Timeline of the capture")
    return (TimelineBlock("timeline", title, sentence, data, tuple(_still(analysis, data))),)


def _still(analysis: Analysis, data: Timeline) -> Iterator[Figure]:
    cut = _left_out(data)
    if data.typical is not None:
        sentence = message(
            "The iteration whose period is nearest the median ({length}). The paler a stretch, the less of it the "
            "events cover.",
            length=numbers.duration(data.typical[1] - data.typical[0]),
        )
        title = message("Timeline of a typical iteration")
        sentence = message("{sentence} {left_out}", sentence=sentence, left_out=cut) if cut else sentence
        yield Figure("timeline-iteration", title, sentence, picture(data, *data.typical, with_ranges=True))
    start, end = analysis.window.of_device(data.devices[0].device_id) if data.devices else data.window
    if end > start and (start, end) != data.typical:
        sentence = message(
            "The whole window of {length}; the colour is that of what covers most, and the paler, the less of the time "
            "it covers. The shares are in “{section}”.",
            length=numbers.duration(end - start),
            section=message("Where the time goes"),
        )
        yield Figure("timeline-window", message("Timeline of the window"), sentence, picture(data, start, end))


def _left_out(data: Timeline) -> str:
    """Return a sentence about the lanes that there is no room for, nothing where all are shown."""
    streams = sum(max(len(device.streams) - _MOST_STREAMS, 0) for device in data.devices[:_MOST_DEVICES])
    devices, threads = max(len(data.devices) - _MOST_DEVICES, 0), max(len(data.threads) - 1, 0)
    if not (streams or devices or threads):
        return ""
    return message(
        "Not drawn, for want of room: devices {devices}, streams {streams}, CPU threads {threads}; the HTML report has "
        "them.",
        devices=devices,
        streams=streams,
        threads=threads,
    )


def picture(data: Timeline, low: int, high: int, *, with_ranges: bool = False) -> figures.Spec:
    """Return lanes of bars between two moments; times in ms since the first."""
    bars: list[dict[str, Any]] = []
    lanes: list[str] = []
    if with_ranges:
        for thread in data.threads[:1]:
            for row, lane in _range_lanes(thread.ranges):
                named = _named_bars(thread.ranges, row, lane, data.names, low, high)
                if named:
                    lanes.append(lane)
                    bars += named
            lane = message("CUDA calls")
            calls = union(thread.calls.starts, thread.calls.ends)
            called = _columns([(message("CUDA call"), COLOURS["other_cuda_api"], calls)], lane, low, high)
            if called:
                lanes.append(lane)
                bars += called
    for device in data.devices[:_MOST_DEVICES]:
        lanes += _device_bars(data, device, bars, low, high, several=len(data.devices) > 1)
    domain = list(dict.fromkeys(bar["kind"] for bar in bars if bar["kind"]))
    colours = {bar["kind"]: bar["colour"] for bar in bars}
    end_ms = (high - low) / 1e6
    x: figures.Spec = {
        "field": "start",
        "type": "quantitative",
        "title": message("time, ms"),
        "scale": {"domain": [0, end_ms], "nice": False},
        "axis": {"grid": False},
    }
    y: figures.Spec = {
        "field": "lane",
        "type": "nominal",
        "title": None,
        "sort": lanes,
        "scale": {"domain": lanes, "paddingInner": 0.25, "paddingOuter": 0.1},
        "axis": {"domain": False, "ticks": False, **figures.name_labels(22)},
    }
    coloured = {
        "mark": {"type": "bar", "clip": True},
        "encoding": {
            "x": x,
            "x2": {"field": "end"},
            "y": y,
            "color": {
                "field": "kind",
                "type": "nominal",
                "scale": {"domain": domain, "range": [colours[kind] for kind in domain]},
                "legend": {"columns": 5, "symbolType": "square"},
            },
            "opacity": {"field": "covered", "type": "quantitative", "legend": None, "scale": None},
        },
        "transform": [{"filter": "datum.kind != ''"}],
    }
    layers = [coloured]
    if with_ranges:
        named = [{"filter": "datum.kind == ''"}]
        layers.append(
            {
                "mark": {"type": "bar", "clip": True, "color": "#eef1f4", "stroke": "#8a96a3", "strokeWidth": 0.6},
                "encoding": {"x": x, "x2": {"field": "end"}, "y": y},
                "transform": named,
            }
        )
        layers.append(
            {
                "mark": {"type": "text", "align": "left", "dx": 3, "fontSize": 9, "color": "#1d2733", "clip": True},
                "encoding": {"x": x, "y": y, "text": {"field": "shown"}},
                "transform": [*named, {"filter": f"datum.end - datum.start > {end_ms * 0.06:.6g}"}],
            }
        )
    return {"data": {"values": bars}, "height": {"step": 22}, "layer": layers}


def _range_lanes(ranges: Spans) -> list[tuple[int, str]]:
    return [
        (row, message("NVTX {level}", level=row + 1))
        for row in range(min(ranges.rows, _MOST_RANGE_ROWS))
        if len(ranges)
    ]


def _device_bars(
    data: Timeline, device: DeviceLanes, bars: list[dict[str, Any]], low: int, high: int, *, several: bool
) -> list[str]:
    """Add the bars of a device; return its lanes."""
    prefix = f"GPU {device.device_id} " if several else ""
    lanes: list[str] = []
    ids = Counter(stream.stream_id for stream in device.streams)
    for stream in device.streams[:_MOST_STREAMS]:
        lane = message("{gpu}stream {stream}", gpu=prefix, stream=stream.stream_id)
        if ids[stream.stream_id] > 1:
            lane = message("{lane} (pid {pid}, {context})", lane=lane, pid=stream.pid, context=stream.context_id)
        kinds = data.shapes.kind[stream.operations.what]
        parts = [
            (title, COLOURS[colour], _part(stream.operations, kinds == kind))
            for kind, (colour, title) in _KINDS.items()
        ]
        made = _columns(parts, lane, low, high)
        if made:
            lanes.append(lane)
            bars += made
    pieces = device.idle.pieces
    causes = [Cause(int(cause)) for cause in np.unique(pieces.what)]
    parts = [(TEXTS[cause].title, COLOURS[cause.id], _part(pieces, pieces.what == cause)) for cause in causes]
    lane = message("{gpu}idle", gpu=prefix)
    bars += _columns(parts, lane, low, high)
    return [*lanes, lane]


def _part(spans: Spans, keep: npt.NDArray[np.bool_]) -> Intervals:
    return union(spans.starts[keep], spans.ends[keep])


def _columns(parts: Sequence[tuple[str, str, Intervals]], lane: str, low: int, high: int) -> list[dict[str, Any]]:
    """Return bars made of equal columns of time: each has the colour of the part that covers most of it.

    How much of a column all parts together cover is the bar's opacity, in quarters, so that many short kernels do not
    look like one long one. Neighbours that look the same are one bar.
    """
    edges = np.linspace(low, high, _COLUMNS + 1)
    if not parts:
        return []
    covered = np.stack([np.diff(_covered_until(spans, edges)) for _, _, spans in parts]) / (edges[1] - edges[0])
    winner = covered.argmax(axis=0)
    shade = np.ceil(np.minimum(covered.sum(axis=0), 1.0) * 4 - 0.02).astype(int)
    changes = np.flatnonzero((np.diff(winner) != 0) | (np.diff(shade) != 0)) + 1
    places = [0, *changes.tolist(), _COLUMNS]
    return [
        {
            "lane": lane,
            "start": round((edges[first] - low) / 1e6, 6),
            "end": round((edges[last] - low) / 1e6, 6),
            "kind": parts[winner[first]][0],
            "colour": parts[winner[first]][1],
            "covered": 0.35 + 0.65 * int(shade[first]) / 4,
        }
        for first, last in pairwise(places)
        if shade[first]
    ]


def _covered_until(spans: Intervals, times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return how much time before each moment the spans, which do not overlap, cover."""
    if not len(spans.starts):
        return np.zeros(len(times))
    sums = np.concatenate(([0], np.cumsum(spans.ends - spans.starts)))
    place = np.searchsorted(spans.starts, times, side="right")
    begun = np.maximum(place - 1, 0)
    beyond = np.where(place > 0, np.maximum(spans.ends[begun] - times, 0.0), 0.0)
    return np.asarray(sums[place] - beyond, np.float64)


def _named_bars(ranges: Spans, row: int, lane: str, names: Sequence[str], low: int, high: int) -> list[dict[str, Any]]:
    inside = np.flatnonzero((ranges.row == row) & (ranges.ends > low) & (ranges.starts < high))
    longest = inside[np.argsort(ranges.starts[inside] - ranges.ends[inside], kind="stable")][:_MOST_RANGES]
    return [
        {
            "lane": lane,
            "start": (max(int(ranges.starts[place]), low) - low) / 1e6,
            "end": (min(int(ranges.ends[place]), high) - low) / 1e6,
            "kind": "",
            "colour": SERIES[0].colour,
            "shown": _cut(names[ranges.what[place]]),
        }
        for place in np.sort(longest)
    ]


def _cut(name: str) -> str:
    return name if len(name) <= _NAME_SHOWN else name[: _NAME_SHOWN - 1] + "…"


SECTION = Section("timeline", message("Timeline"), 28, build, for_documents=True)
