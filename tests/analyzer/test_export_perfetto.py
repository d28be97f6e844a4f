"""A Perfetto trace, decoded by a reader of its own, holds every slice, flow and sample of the tables."""

from __future__ import annotations

import io
import os
import struct
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import power_logs
from builders import call, gpu, kernel, nvtx_range, on_thread, operation, sample, thread, trace
from nitro.analyzer import Evidence, Trace, open_inputs, open_trace
from nitro.analyzer.causes import TEXTS, Cause
from nitro.analyzer.export import perfetto, write_perfetto
from nitro.analyzer.export.slices import rows_of_slices
from nitro.analyzer.operations import NO_ROW, TABLE_OF_KIND
from nitro.analyzer.timeline import all_ranges
from nitro.analyzer.view import Scope, View

CAPTURE = Path(__file__).parents[1] / "data" / "power_capture"
FOLDER = Path(os.environ.get("NITRO_TRACES", "/nonexistent"))
REAL = (
    "hokwangchoi__jetson-orin-nano-benchmarks__trt_image_20260419_005228__3bd3de.sqlite.xz",
    "GindaChen__nsys-ai__h100_2gpu_1s__3dc0af.sqlite.xz",
    "hpcgroup__pipit__perlmutter-cloverleaf-cuda__8b5d00.sqlite.xz",
    "openhackathons-org__gpubootcamp__jacobi_memcpy_nvlink_report__552925__exported.sqlite.xz",
)
Message = dict[int, list[Any]]


def decoded(raw: bytes) -> Message:
    """Return the fields of a message by number: integers, 8 bytes, or the bytes of what is delimited."""
    found: Message = defaultdict(list)
    at = 0

    def number() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = raw[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(raw):
        tag = number()
        if tag & 7 == 0:
            found[tag >> 3].append(number())
            continue
        length = {1: 8, 2: 0}[tag & 7] or number()
        assert at + length <= len(raw)
        found[tag >> 3].append(raw[at : at + length])
        at += length
    return found


@dataclass
class Slice:
    track: int
    name: str
    category: str
    start: int
    end: int = -1
    flows: tuple[int, ...] = ()
    ended_flows: tuple[int, ...] = ()
    details: dict[str, int | str] = field(default_factory=dict)


@dataclass
class Decoded:
    """What Perfetto makes of a file: events in the order of their times, those of one moment as they stand."""

    tracks: dict[int, Message]
    slices: list[Slice]
    counters: dict[int, list[tuple[int, float]]]

    def path(self, track: int) -> tuple[str, ...]:
        here = self.tracks[track]
        return (*(self.path(here[5][0]) if 5 in here else ()), here[2][0].decode())

    def on(self, *path: str) -> list[Slice]:
        """Return the slices of a track and of those beside it that took what does not nest."""
        head = path[-1]
        rows = [t for t in self.tracks if self.path(t)[:-1] == path[:-1] and self.path(t)[-1].split(" (")[0] == head]
        return [one for one in self.slices if one.track in rows]

    def counter(self, *path: str) -> list[tuple[int, float]]:
        (track,) = [track for track in self.tracks if self.path(track) == path]
        return self.counters[track]


def understood(raw: bytes) -> Decoded:
    tracks: dict[int, Message] = {}
    texts: dict[int, dict[int, str]] = {1: {}, 2: {}, 3: {}, 29: {}}
    events: list[tuple[int, dict[int, list[Any]]]] = []
    for place, packet in enumerate(map(decoded, decoded(raw)[1])):
        assert packet[10] == [1]
        assert (packet[13] == [1]) == (place == 0)
        for content in packet[12]:
            for kind, entries in decoded(content).items():
                for entry in map(decoded, entries):
                    texts[kind][entry[1][0]] = entry[2][0].decode()
        for content in packet[60]:
            described = decoded(content)
            assert described[1][0] not in tracks
            assert all(parent in tracks for parent in described.get(5, []))
            tracks[described[1][0]] = described
        events += [(packet[8][0], decoded(content)) for content in packet[11]]
    slices: list[Slice] = []
    counters: dict[int, list[tuple[int, float]]] = defaultdict(list)
    stacks: dict[int, list[Slice]] = defaultdict(list)
    for time, event in sorted(events, key=lambda entry: entry[0]):
        (kind,), (track,) = event[9], event[11]
        assert track in tracks
        if kind == 4:
            counters[track].append((time, struct.unpack("<d", event[44][0])[0]))
        elif kind == 2:
            stacks[track].pop().end = time
        else:
            made = Slice(track, texts[2][event[10][0]], texts[1][event[3][0]], time)
            made.flows = tuple(int.from_bytes(entry, "little") for entry in event[47])
            made.ended_flows = tuple(int.from_bytes(entry, "little") for entry in event[48])
            for detail in map(decoded, event[4]):
                value = texts[29][detail[17][0]] if 17 in detail else detail[4][0]
                made.details[texts[3][detail[1][0]]] = value
            slices.append(made)
            stacks[track].append(made)
    assert not any(stacks.values())
    return Decoded(tracks, slices, counters)


def exported(built: Trace, *evidence: Evidence) -> tuple[Decoded, View, perfetto.Written]:
    view = View(built, Scope(window="all"), evidence)
    stream = io.BytesIO()
    written = write_perfetto(view, stream)
    return understood(stream.getvalue()), view, written


def spans(slices: list[Slice]) -> list[tuple[str, int, int]]:
    return sorted((one.name, one.start, one.end) for one in slices)


def flows(found: Decoded) -> dict[int, tuple[Slice, Slice]]:
    """Return the flows with both their slices; a flow that lacks one, or runs backwards, fails."""
    begun = {flow: one for one in found.slices for flow in one.flows}
    ended = {flow: one for one in found.slices for flow in one.ended_flows}
    assert sum(len(one.flows) for one in found.slices) == len(begun) == len(ended)
    assert sum(len(one.ended_flows) for one in found.slices) == len(ended)
    assert set(begun) == set(ended)
    assert all(begun[flow].start <= ended[flow].start for flow in begun)
    return {flow: (begun[flow], ended[flow]) for flow in begun}


def test_threads_streams_and_flows() -> None:
    other = thread(7, pid=200)
    found, _, written = exported(
        trace(
            api_calls=[
                call(100, 200, "cudaLaunchKernel_v7000", correlation_id=1),
                call(120, 180, "cuLaunchKernel", correlation_id=1),
                call(210, 300, "cudaGraphLaunch_v10000", correlation_id=2),
                call(300, 300, "cudaFree_v3020", tid=other),
            ],
            kernels=[
                kernel(250, 400, "void gemm<float>(int)", correlation_id=1, grid_x=3, block_x=64),
                kernel(500, 600, "first", correlation_id=2),
                kernel(550, 600, "second", correlation_id=2),
                kernel(150, 160, "early", correlation_id=2, stream_id=9),
                kernel(700, 700, None),
            ],
            memcpys=[operation(800, 900, bytes=4096, copy_kind=2)],
            memsets=[operation(900, 910, bytes=0)],
            graph_launches=[operation(920, 990, graph_id=5)],
            nvtx=[nvtx_range(90, 250, "infer"), nvtx_range(95, 250, "layer"), nvtx_range(200, 400, "tangled")],
            os_calls=[on_thread(400, 450, name="read")],
            devices=[gpu(0, "Orin")],
        )
    )
    one = ("process 100", "thread 1")
    assert spans(found.on(*one, "CUDA API")) == [
        ("cuLaunchKernel", 120, 180), ("cudaGraphLaunch_v10000", 210, 300), ("cudaLaunchKernel_v7000", 100, 200)
    ]  # fmt: skip
    assert spans(found.on("process 200", "thread 7", "CUDA API")) == [("cudaFree_v3020", 300, 300)]
    assert spans(found.on(*one, "NVTX")) == [("infer", 90, 250), ("layer", 95, 250), ("tangled", 200, 400)]
    assert spans(found.on(*one, "OS")) == [("read", 400, 450)]
    on_stream = [s for s in found.slices if found.path(s.track)[-1].startswith("stream 7 (process 100, context 1)")]
    assert spans(on_stream) == [
        ("(no name)", 700, 700), ("CUDA graph 5", 920, 990), ("Memcpy DtoH", 800, 900), ("Memset", 900, 910),
        ("first", 500, 600), ("second", 550, 600), ("void gemm", 250, 400),
    ]  # fmt: skip
    assert {found.path(s.track)[0] for s in on_stream} == {"GPU 0: Orin"}
    # Kernels of a stream do not nest: the one that overlaps another has a track of its own.
    assert [s.name for s in on_stream if found.path(s.track)[-1].endswith(" (2)")] == ["second"]
    gemm, copy, memset = (next(s for s in on_stream if s.name == n) for n in ("void gemm", "Memcpy DtoH", "Memset"))
    assert gemm.details == {"full name": "void gemm<float>(int)", "launch": "grid 3x1x1, block 64x32x32"}
    assert (copy.details, memset.details) == ({"bytes": 4096}, {"bytes": 0})
    # The outer call launches; one graph launch launches two kernels; what began before its call has no flow.
    assert sorted((a.name, b.name) for a, b in flows(found).values()) == [
        ("cudaGraphLaunch_v10000", "first"), ("cudaGraphLaunch_v10000", "second"),
        ("cudaLaunchKernel_v7000", "void gemm"),
    ]  # fmt: skip
    assert (written.slices, written.flows, written.tracks) == (len(found.slices), 3, len(found.tracks))
    process = found.tracks[next(t for t in found.tracks if found.path(t) == ("process 200",))]
    assert decoded(process[3][0])[1] == [200]
    of_thread = found.tracks[next(t for t in found.tracks if found.path(t) == ("process 200", "thread 7"))]
    assert (decoded(of_thread[4][0])[1], decoded(of_thread[4][0])[2]) == ([200], [7])


def test_sampled_metrics_hold_over_the_period_before_the_sample() -> None:
    found, _, written = exported(
        trace(
            kernels=[kernel(100, 300)],
            gpu_metric_samples=[sample(time, "sm_active", value) for time, value in ((100, 5), (200, 40), (300, 60))],
        )
    )
    assert found.counter("GPU 0: Test GPU 0", "sm_active") == [(100, 40.0), (200, 60.0)]
    assert written.samples == 2


def test_a_power_log_is_written_as_far_as_the_trace_reaches() -> None:
    log = power_logs.log(20 * power_logs.MS)
    found, view, _ = exported(power_logs.run(), log)
    (placed,) = view.evidence
    times = placed.trace_times(log.times_ns)
    first = min(int(view.ranges.starts.min()), int(view.operations.starts.min()))
    last = max(int(view.ranges.ends.max()), int(view.operations.ends.max()))
    inside = (times >= first) & (times <= last)
    assert 0 < inside.sum() < len(times)
    rail = next(rail for rail in log.rails if rail.role == "total")
    expected = list(zip(times[inside].tolist(), rail.watts[inside].tolist(), strict=True))
    assert found.counter(f"power log {log.source.file_name}", rail.name) == expected


def test_times_before_the_session_move_everything() -> None:
    found, _, written = exported(
        trace(kernels=[kernel(50, 60, "k", correlation_id=1)], api_calls=[call(-70, 40, "launch", correlation_id=1)])
    )
    assert written.shift_ns == 70
    assert spans([s for s in found.slices if s.category != "idle"]) == [("k", 120, 130), ("launch", 0, 110)]


def test_a_trace_without_events_is_a_file_without_slices() -> None:
    found, _, written = exported(trace(kernels=[]))
    assert (found.slices, written.slices, written.flows) == ([], 0, 0)


def test_pieces_of_a_long_track_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perfetto, "_EDGES_PER_WRITE", 3)
    calls = [call(10 * n, 10 * n + 9, f"call{n % 3}", correlation_id=n) for n in range(1, 30)]
    kernels = [kernel(10 * n + 5, 10 * n + 12, f"k{n % 5}", correlation_id=n) for n in range(1, 30)]
    found, _, _ = exported(trace(kernels=kernels, api_calls=calls))
    assert spans([s for s in found.slices if s.category == "api_calls"]) == sorted(
        (c["name"], c["start_ns"], c["end_ns"]) for c in calls
    )
    assert len(flows(found)) == 29


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), max_size=12), st.booleans())
def test_rows_open_and_close_what_was_given(pairs: list[tuple[int, int]], nest: bool) -> None:
    ordered = sorted(((start, start + length) for start, length in pairs), key=lambda span: (span[0], -span[1]))
    starts, ends = (np.array([span[side] for span in ordered], np.int64) for side in (0, 1))
    seen = []
    for edges in rows_of_slices(starts, ends, nest=nest):
        stack: list[int] = []
        now = -1
        for number, begins in zip(edges.slice.tolist(), edges.begins.tolist(), strict=True):
            time = int(starts[number] if begins else ends[number])
            assert time >= now
            now = time
            if begins:
                assert nest or not stack
                stack.append(number)
                seen.append(number)
            else:
                assert stack.pop() == number
        assert not stack
    assert sorted(seen) == list(range(len(ordered)))


def totals(rows: Iterator[tuple[Any, int]]) -> Counter[Any]:
    """Return how many and how long, by key."""
    found: Counter[Any] = Counter()
    for key, length in rows:
        found[key, "count"] += 1
        found[key, "ns"] += length
    return found


@pytest.mark.parametrize("name", REAL)
def test_real_traces_keep_every_slice_and_flow(name: str) -> None:
    path = FOLDER / "nsys" / name
    if not path.exists():
        pytest.skip("NITRO_TRACES is not set")
    built = open_trace(path)
    found, view, written = exported(built)

    streams = totals(
        ((found.path(s.track)[0].split(":")[0], found.path(s.track)[-1].split(")")[0], s.category), s.end - s.start)
        for s in found.slices
        if found.path(s.track)[-1].startswith("stream")
    )
    expected: Counter[Any] = Counter()
    for table in TABLE_OF_KIND.values():
        frame = built.table_or_empty(table)
        keys = zip(
            *(frame[c].fill_null(0) for c in ("device_id", "stream_id", "global_pid", "context_id")), strict=True
        )
        labels = ((f"GPU {d}", f"stream {s} (process {p >> 24 & 0xFFFFFF}, context {c}", table) for d, s, p, c in keys)
        expected += totals(zip(labels, (frame["end_ns"] - frame["start_ns"]).to_list(), strict=True))
    assert +streams == +expected

    for table in ("api_calls", "os_calls"):
        frame = built.table_or_empty(table)
        mine = [s for s in found.slices if s.category == table]
        by_thread = totals(((found.path(s.track)[1], s.name), s.end - s.start) for s in mine)
        keyed = frame.select(
            pl.col("global_tid") & 0xFFFFFF,
            pl.col("name").cast(pl.String),
            length=pl.col("end_ns") - pl.col("start_ns"),
        )
        assert by_thread == totals(
            ((f"thread {tid}" if tid else "unknown thread", name), length) for tid, name, length in keyed.iter_rows()
        )
    ranges = all_ranges(view)
    nvtx = [s for s in found.slices if s.category == "nvtx"]
    assert sorted((s.start, s.end) for s in nvtx) == sorted(
        zip(ranges.starts.tolist(), ranges.ends.tolist(), strict=True)
    )

    for device in view.devices:
        idle = totals(
            (s.name, s.end - s.start)
            for s in found.slices
            if s.category == "idle" and found.path(s.track)[0].split(":")[0] == f"GPU {device.device_id}"
        )
        for cause in Cause:
            assert idle[TEXTS[cause].title, "ns"] == device.idle.total_ns[cause]
            assert idle[TEXTS[cause].title, "count"] == device.idle.pieces[cause]

    resolved = flows(found)
    operations = view.operations
    known = np.flatnonzero((operations.launch != NO_ROW) & (operations.starts >= view.calls.starts))
    assert len(resolved) == len(known) == written.flows > 0
    for flow, (launch, launched) in resolved.items():
        place = flow - 1
        assert (launch.start, launch.end) == (view.calls.starts[place], view.calls.ends[place])
        assert (launched.start, launched.end) == (operations.starts[place], operations.ends[place])
    assert written.slices == len(found.slices)


def test_perfetto_reads_the_same_with_its_own_classes() -> None:
    """Slices with their durations, flows, counters and tracks of a capture with a power log beside it.

    Skipped where the `perfetto` package is not installed.
    """
    official = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    unknown = pytest.importorskip("google.protobuf.unknown_fields").UnknownFieldSet
    (opened,) = open_inputs([CAPTURE])
    view = View(opened.trace, Scope(window="all"), opened.evidence)
    stream = io.BytesIO()
    written = write_perfetto(view, stream)
    found = understood(stream.getvalue())
    parsed = official.Trace()
    parsed.ParseFromString(stream.getvalue())
    names: dict[int, str] = {}
    begun, ended, tracks = [], [], {}
    events: list[tuple[int, Any]] = []
    for packet in parsed.packet:
        assert not len(unknown(packet)) + len(unknown(packet.track_event)) + len(unknown(packet.track_descriptor))
        names.update({entry.iid: entry.name for entry in packet.interned_data.event_names})
        if packet.HasField("track_descriptor"):
            tracks[packet.track_descriptor.uuid] = packet.track_descriptor.name
        if packet.HasField("track_event"):
            events.append((packet.timestamp, packet.track_event))
    slices, samples = [], []
    stacks: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for time, event in sorted(events, key=lambda entry: entry[0]):
        if event.type == official.TrackEvent.TYPE_SLICE_BEGIN:
            stacks[event.track_uuid].append((time, names[event.name_iid]))
            begun += list(event.flow_ids)
            ended += list(event.terminating_flow_ids)
        elif event.type == official.TrackEvent.TYPE_SLICE_END:
            start, name = stacks[event.track_uuid].pop()
            slices.append((event.track_uuid, name, start, time))
        else:
            assert event.type == official.TrackEvent.TYPE_COUNTER
            samples.append((event.track_uuid, time, event.double_counter_value))
    assert not any(stacks.values())
    assert len(slices) == written.slices > 50_000
    assert sorted(slices) == sorted((s.track, s.name, s.start, s.end) for s in found.slices)
    assert sorted(samples) == sorted((track, *entry) for track, rows in found.counters.items() for entry in rows)
    assert tracks == {track: found.path(track)[-1] for track in found.tracks}
    assert sorted(begun) == sorted(ended) == sorted(flows(found))
    kernels = opened.trace.table_or_empty("kernels")
    # Every kernel is a slice on the track of its stream, as long as in the trace.
    lengths = Counter((end - start) for _, _, start, end in slices)
    assert not Counter((kernels["end_ns"] - kernels["start_ns"]).to_list()) - lengths
