"""What the page gets is what the timeline holds: packed, unpacked again by a reader of the documented format."""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from builders import call, empty_trace, kernel, nvtx_range, operation, sample, trace
from nitro.analyzer import open_trace
from nitro.analyzer import timeline as analyzer_timeline
from nitro.analyzer.causes import Cause
from nitro.analyzer.timeline import Spans, Timeline, timeline_of
from nitro.analyzer.view import View
from nitro.reports.timeline_data import LABELS, LONGEST_NAME, labels, packed

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "examples" / "dual_encoder.sqlite.xz"


class Unpacked:
    """The header of a packed timeline, and its columns."""

    def __init__(self, text: str) -> None:
        stream = zlib.decompress(base64.b64decode(text, validate=True))
        (size,) = struct.unpack_from("<I", stream)
        self.header: dict[str, Any] = json.loads(stream[4 : 4 + size].decode("utf-8"))
        self._body = stream[4 + size :]

    def column(self, reference: list[int]) -> list[int]:
        offset, count, base, planes, is_cumulative = reference
        values = [base] * count
        for plane in range(planes):
            part = self._body[offset + plane * count : offset + (plane + 1) * count]
            values = [value + (byte << (8 * plane)) for value, byte in zip(values, part, strict=True)]
        if is_cumulative:
            for place in range(1, count):
                values[place] += values[place - 1]
        return values

    def lane(self, key: str) -> dict[str, Any]:
        (found,) = (lane for group in self.header["groups"] for lane in group["lanes"] if lane["key"] == key)
        return dict(found)

    def spans(self, lane: dict[str, Any]) -> list[tuple[int, int, int, int]]:
        """(start, end, row, what) of each span."""
        made = []
        end = self.header["start"]
        columns = (self.column(lane[name]) for name in ("gap", "length", "row", "what"))
        for gap, length, row, what in zip(*columns, strict=True):
            start = end + gap
            end = start + length
            made.append((start, end, row, what))
        return made


def tuples(spans: Spans) -> list[tuple[int, int, int, int]]:
    columns = (spans.starts, spans.ends, spans.row, spans.what)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def assert_same(timeline: Timeline) -> Unpacked:
    """Everything of the timeline comes back."""
    text = packed(timeline)
    assert text == packed(timeline)
    assert re.fullmatch(r"[A-Za-z0-9+/]*=*", text)
    made = Unpacked(text)
    header = made.header
    assert (header["start"], header["end"], header["zero"]) == (timeline.start_ns, timeline.end_ns, 0)
    assert header["window"] == list(timeline.window)
    assert header["typical"] == (None if timeline.typical is None else list(timeline.typical))
    assert made.column(header["iterations"]["starts"]) == timeline.iterations.starts.tolist()
    assert made.column(header["iterations"]["ends"]) == timeline.iterations.ends.tolist()
    assert [made.column(column) for column in header["shapes"]["launch"]] == timeline.shapes.launch.T.tolist()
    for name, values in (("kind", timeline.shapes.kind), ("name", timeline.shapes.name)):
        assert made.column(header["shapes"][name]) == values.tolist()
    for thread in timeline.threads:
        key = f"thread:{thread.pid}:{thread.tid}"
        if len(thread.ranges):
            assert made.spans(made.lane(f"{key}:nvtx")) == tuples(thread.ranges)
        if thread.call_count:
            lane = made.lane(f"{key}:api")
            assert made.spans(lane) == tuples(thread.calls)
            assert same_or_none(made, lane["more"], thread.more_calls)
    for device in timeline.devices:
        for stream in device.streams:
            lane = made.lane(f"device:{device.device_id}:stream:{stream.pid}:{stream.context_id}:{stream.stream_id}")
            assert made.spans(lane) == tuples(stream.operations)
            if stream.launches is None:
                assert lane["launches"] is None
            else:
                assert made.column(lane["launches"]["before"]) == stream.launches.before_ns.tolist()
                assert made.column(lane["launches"]["took"]) == stream.launches.call_ns.tolist()
                assert made.column(lane["launches"]["thread"]) == stream.launches.thread.tolist()
        lane = made.lane(f"device:{device.device_id}:idle")
        assert made.spans(lane) == tuples(device.idle.pieces)
        assert {int(cause): made.column(share) for cause, share in lane["more"].items()} == {
            int(cause): share.tolist() for cause, share in device.idle.more.items()
        }
        for sampled in device.sampled:
            lane = made.lane(f"device:{device.device_id}:{sampled.metric}")
            assert made.column(lane["times"]) == sampled.times.tolist()
            scaled = np.array(made.column(lane["mean"])) / lane["scale"]
            assert np.abs(scaled - sampled.mean).max() <= 0.5 / lane["scale"]
            assert same_or_none(made, lane["low"] or lane["mean"], sampled.low)
            assert same_or_none(made, lane["high"] or lane["mean"], sampled.high)
    return made


def same_or_none(made: Unpacked, reference: list[int] | None, values: npt.NDArray[Any] | None) -> bool:
    if reference is None or values is None:
        return reference is None and values is None
    return bool(made.column(reference) == values.tolist())


def test_sample_comes_back_exactly_and_is_small() -> None:
    timeline = timeline_of(View(open_trace(SAMPLE)))
    assert_same(timeline)
    assert len(packed(timeline)) < 1_000_000


def test_everything_at_once_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analyzer_timeline, "MOST_CALLS_OUTSIDE", 3)
    monkeypatch.setattr(analyzer_timeline, "MOST_IDLE_PIECES", 3)
    monkeypatch.setattr(analyzer_timeline, "MOST_SAMPLES_OF_LANE", 4)
    made = assert_same(
        timeline_of(
            View(
                trace(
                    kernels=[kernel(10 * n, 10 * n + n % 13, f"k{n % 3}", correlation_id=n) for n in range(1, 60)],
                    memcpys=[operation(5, 400, bytes=1 << 40), operation(6, 40, copy_kind=8)],
                    memsets=[operation(700, 710, device_id=3)],
                    graph_launches=[operation(800, 900)],
                    api_calls=[call(10 * n - 9, 10 * n - n % 7, correlation_id=n) for n in range(1, 60)],
                    nvtx=[nvtx_range(n, 1000 - n, f"r{n}") for n in range(0, 100, 7)],
                    gpu_metric_samples=[sample(7 * n, "sm_active", n * n % 101) for n in range(20)]
                    + [sample(9 * n, "gpc_clock", 1_980_000_000 + n) for n in range(20)],
                )
            )
        )
    )
    assert made.header["callsAtLeast"] > 0
    assert made.lane("device:0:idle")["more"]


@pytest.mark.parametrize("base", [0, -5_000, 2**32 + 1, 2**52])
def test_times_are_exact_wherever_they_lie(base: int) -> None:
    spans = [(base, base + 1), (base + 1, base + 1), (base + 2, base + 2**33), (base + 2**51, base + 2**51 + 3)]
    made = assert_same(timeline_of(View(trace(kernels=spans))))
    assert [span[:2] for span in made.spans(made.lane("device:0:stream:100:1:7"))] == spans


def test_empty_trace() -> None:
    assert assert_same(timeline_of(View(empty_trace()))).header["groups"] == []


def test_one_kernel() -> None:
    made = assert_same(timeline_of(View(trace(kernels=[kernel(5, 8, "only")]))))
    assert made.header["names"] == ["only"]


def test_hundred_devices() -> None:
    made = assert_same(timeline_of(View(trace(kernels=[kernel(n, n + 5, device_id=n) for n in range(100)]))))
    assert [group["id"] for group in made.header["groups"]] == list(range(100))


def test_hostile_names_are_shortened_and_made_printable() -> None:
    hostile = {
        "<script>alert(1)</script>": "<script>alert(1)</script>",
        "x" * 60_000: "x" * (LONGEST_NAME - 2) + " …",
        "red\x1b[31m": "red\N{REPLACEMENT CHARACTER}[31m",
        "turn\u202edenrut": "turn\N{REPLACEMENT CHARACTER}denrut",
        "one\ntwo": "one two",
        "lone \ud800 half": "lone \ud800 half",
        "": "",
        "검증 단계": "검증 단계",
    }
    names = list(hostile)
    built = trace(
        kernels=[kernel(10 * n, 10 * n + 5, name) for n, name in enumerate(names) if "\ud800" not in name],
        nvtx=[nvtx_range(10 * n, 10 * n + 5, name) for n, name in enumerate(names) if "\ud800" not in name],
    )
    timeline = timeline_of(View(built))
    made = assert_same(timeline)
    assert [hostile[name] for name in timeline.names] == made.header["names"]
    assert max(len(str(name)) for name in made.header["short"]) <= LONGEST_NAME


def test_kernels_and_calls_have_short_names() -> None:
    built = trace(
        kernels=[kernel(0, 1, "void at::native::add<int>(int*, int)")], api_calls=[call(0, 1, "cudaLaunchKernel_v7000")]
    )
    header = Unpacked(packed(timeline_of(View(built)))).header
    shown = dict(zip(header["names"], header["short"], strict=True))
    assert shown == {"void at::native::add<int>(int*, int)": "add<int>", "cudaLaunchKernel_v7000": "cudaLaunchKernel"}


def test_labels_are_complete_for_the_page() -> None:
    """Every word that the script asks for is there, and every word that is there is used."""
    script = (ROOT / "templates" / "timeline.js").read_text(encoding="utf-8")
    keys = [key for key, _ in LABELS]
    assert len(keys) == len(set(keys))
    asked = set(re.findall(r"\b(?:say|button)\(\s*'([a-z_]+)'", script)) | set(re.findall(r"'(fact_[a-z_]+)'", script))
    assert asked <= set(keys)
    quoted = set(re.findall(r"'([a-z_]+)'", script))
    families = ("kind_", "lane_", "metric_", "copy_")
    assert {key for key in keys if not key.startswith(families)} <= quoted
    assert {f"metric_{metric}" for metric in analyzer_timeline.SAMPLED_LANES} <= set(keys)
    words = labels()
    assert all(f"cause_{cause.id}" in words and f"meaning_{cause.id}" in words for cause in Cause)


def test_labels_are_translated_and_keep_their_fields() -> None:
    words = labels(lambda text: f"«{text}»")
    assert words["whole"] == "«Whole capture»"
    assert words["search_place"] == "«{place} of {count}»"
