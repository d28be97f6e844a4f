"""Traces of the PyTorch profiler: whole, old and new, of NVIDIA and AMD, cut and damaged."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from nitro.analyzer import Trace, analyze, open_trace
from nitro.analyzer.opening import open_input
from nitro.analyzer.profile import Profile
from nitro.analyzer.readers import _chrome_json
from nitro.errors import InputError

FOLDER = Path(os.environ.get("NITRO_TRACES", "/nonexistent"))
KINETO = sorted((FOLDER / "kineto").glob("*.json.gz")) if FOLDER.is_dir() else []
HEADER: dict[str, Any] = {
    "schemaVersion": 1,
    "deviceProperties": [{"id": 0, "name": "NVIDIA Orin", "numSms": 8, "warpSize": 32, "computeMajor": 8}],
}


def event(category: str, name: str, ts: float, dur: float, /, **more: Any) -> dict[str, Any]:
    args = more.pop("args", {})
    return {"ph": "X", "cat": category, "name": name, "pid": 77, "tid": 78, "ts": ts, "dur": dur, "args": args} | more


def kernel(ts: float, dur: float, correlation: int, **args: Any) -> dict[str, Any]:
    shape = {"grid": [4, 2, 1], "block": [64, 1, 1], "registers per thread": 32, "shared memory": 96}
    where = {"device": 0, "context": 1, "stream": 7, "correlation": correlation}
    return event("kernel", "void net::conv<3>(float*)", ts, dur, pid=0, tid=7, args=shape | where | args)


def step(at: float, number: int) -> list[dict[str, Any]]:
    return [
        event("user_annotation", f"ProfilerStep#{number}", at, 90.0),
        event("python_function", "nn.Module: Linear_0", at + 1, 60.0),
        event("python_function", "train.py(3): step", at + 1.5, 59.0),
        event("cpu_op", "aten::linear", at + 2, 50.0),
        event("cuda_runtime", "cudaLaunchKernel", at + 5, 4.5, args={"correlation": number}),
        kernel(at + 20.25, 10.125, number),
    ]


def steps(count: int) -> list[dict[str, Any]]:
    return [made for number in range(count) for made in step(100.0 * number, number + 1)]


def write(path: Path, events: list[dict[str, Any]], header: dict[str, Any] = HEADER) -> Path:
    path.write_text(json.dumps(header | {"traceEvents": events} | {"traceName": "x.json"}))
    return path


def kernel_total_ns(trace: Trace) -> int:
    kernels = trace.kernels
    assert kernels is not None
    return int((kernels["end_ns"] - kernels["start_ns"]).sum())


class TestReading:
    def test_durations_are_exact_to_the_nanosecond_and_times_count_from_the_first_event(self, tmp_path: Path) -> None:
        trace = open_trace(write(tmp_path / "p", steps(1)))
        kernels = trace.kernels
        assert kernels is not None
        (row,) = kernels.to_dicts()
        assert (row["start_ns"], row["end_ns"]) == (20_250, 30_375)
        assert [row[f"grid_{axis}"] for axis in "xyz"] == [4, 2, 1]
        assert (row["short_name"], row["dynamic_shared_memory_bytes"]) == ("conv", 96)

    def test_new_files_count_from_their_base_time_old_ones_from_1970(self, tmp_path: Path) -> None:
        base = 1_767_189_312 * 10**9
        new = open_trace(write(tmp_path / "new", steps(1), HEADER | {"baseTimeNanoseconds": base}))
        assert new.capture.start_utc_ns == base
        old_start_us = 1_712_195_495_000_000
        moved = [made | {"ts": made["ts"] + old_start_us} for made in steps(1)]
        assert open_trace(write(tmp_path / "old", moved)).capture.start_utc_ns == old_start_us * 1000
        assert open_trace(write(tmp_path / "none", steps(1))).capture.start_utc_ns is None

    def test_annotations_are_ranges_of_the_user_modules_and_operators_are_not(self, tmp_path: Path) -> None:
        trace = open_trace(write(tmp_path / "p", steps(2)))
        assert trace.table_or_empty("nvtx_events")["text"].to_list() == ["ProfilerStep#1", "ProfilerStep#2"]
        framework = trace.table_or_empty("framework_ranges").select("kind", "name").unique(maintain_order=True).rows()
        assert framework == [("module", "Linear_0"), ("operator", "aten::linear")]

    def test_an_inner_range_that_seems_to_outlast_the_outer_by_a_rounding_error_is_cut(self, tmp_path: Path) -> None:
        events = [event("cpu_op", "outer", 0.0, 10.0), event("cpu_op", "inner", 5.0, 5.4), *step(20, 1)]
        ranges = open_trace(write(tmp_path / "p", events)).table_or_empty("framework_ranges")
        assert ranges["end_ns"].to_list()[:2] == [10_000, 10_000]

    def test_profiler_steps_are_the_iterations_and_the_whole_analysis_runs(self, tmp_path: Path) -> None:
        analysis = analyze(open_trace(write(tmp_path / "p", steps(6))))
        assert "ProfilerStep" in analysis.window.reason
        assert analysis.value("gpu_busy") == 5 * 10_125
        table = analysis.table("layers")
        assert table is not None
        (layer,) = table.frame.filter(table.frame["kind"] == "module").to_dicts()
        assert (layer["path"], layer["count"], layer["total_ns"]) == (
            "ProfilerStep## > module:Linear_0",
            5,
            5 * 10_125,
        )

    def test_a_plain_list_of_events_is_read_too(self, tmp_path: Path) -> None:
        path = tmp_path / "list.json"
        path.write_text(json.dumps(steps(3)))
        assert kernel_total_ns(open_trace(path)) == 3 * 10_125

    def test_amd(self, tmp_path: Path) -> None:
        header = {"deviceProperties": [{"id": 3, "name": "AMD Instinct MI300X", "numSms": 304, "warpSize": 64}]}
        events = [
            event("cuda_runtime", "hipMemcpyAsync", 0.0, 3.0, args={"correlation": 1}),
            event(
                "gpu_memcpy", "Memcpy HtoD (Host -> Device)", 4.0, 1.0, args={"correlation": 1, "device": 3, "bytes": 8}
            ),
            event("cuda_runtime", "hipModuleLaunchKernel", 5.0, 2.0, args={"correlation": 2}),
            kernel(8.0, 2.5, 2, device=3),
        ]
        analysis = analyze(open_trace(write(tmp_path / "amd", events, header)))
        (device,) = analysis.devices
        assert (device.name, device.sm_count, device.compute_capability) == ("AMD Instinct MI300X", 304, None)
        assert analysis.value("kernel_time_sum") == 2500
        assert analysis.value("memcpy_time_sum") == 1000
        causes = analysis.parts("gpu_idle_by_cause")
        assert "unattributed" not in {cause for cause, part in causes.items() if part.value}

    def test_private_facts_of_the_header_stay_out(self, tmp_path: Path) -> None:
        path = write(tmp_path / "p", steps(3), HEADER | {"username": "someone-private", "host_name": "machine-private"})
        assert "private" not in json.dumps(analyze(open_trace(path)).to_dict())


class TestBatches:
    def read(self, path: Path) -> tuple[list[_chrome_json.Event], _chrome_json.ChromeJson]:
        file = _chrome_json.ChromeJson(path)
        return [made for batch in file.batches() for made in batch], file

    @pytest.mark.parametrize("chunk", [300, 1000, 5000])
    def test_cutting_the_text_loses_nothing(self, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_chrome_json, "_CHUNK_BYTES", chunk)
        events = steps(20)
        # What looks like the border of two events stands inside one, in a text and in a list.
        events[7]["args"]["nested"] = [{"a": 1}, {"a": 2}]
        events[9]["name"] = 'odd "}, {" name'
        path = write(tmp_path / "p", events, HEADER | {"odd": {"traceEvents": [{"ph": "X"}]}})
        read, file = self.read(path)
        assert [(e.name, e.ts) for e in read] == [(e["name"], e["ts"]) for e in events]
        assert (file.damaged, file.is_cut) == (0, False)
        assert file.header["traceName"] == "x.json"
        assert file.header["odd"] == {"traceEvents": [{"ph": "X"}]}

    @pytest.mark.parametrize("chunk", [300, 1 << 22])
    def test_one_damaged_event_costs_one_event(
        self, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_chrome_json, "_CHUNK_BYTES", chunk)
        path = write(tmp_path / "p", steps(10))
        text = path.read_text()
        at = text.index('"ProfilerStep#5"')
        path.write_text(text[:at] + "@" + text[at:])
        read, file = self.read(path)
        assert (len(read), file.damaged, file.is_cut) == (59, 1, False)

    def test_numbers_that_are_no_json_and_bytes_that_are_no_utf8_are_borne(self, tmp_path: Path) -> None:
        path = write(tmp_path / "p", [kernel(1.0, 2.0, 1, bandwidth=float("nan")), *step(10, 2)])
        path.write_bytes(path.read_bytes().replace(b"aten::linear", b"aten::\xff\x01linear"))
        read, file = self.read(path)
        assert (len(read), file.damaged) == (7, 0)

    def test_an_event_that_is_nested_too_deep_costs_one_event(self, tmp_path: Path) -> None:
        path = write(tmp_path / "p", steps(4))
        deep = '{"ph": "X", "name": ' + "[" * 200_000 + "]" * 200_000 + "}, "
        path.write_text(path.read_text().replace('"traceEvents": [', '"traceEvents": [' + deep))
        read, file = self.read(path)
        assert (len(read), file.damaged) == (24, 1)

    def test_text_without_end_is_given_up(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_chrome_json, "_LARGEST_EVENT_BYTES", 1 << 16)
        monkeypatch.setattr(_chrome_json, "_CHUNK_BYTES", 1 << 12)
        path = tmp_path / "p"
        path.write_text('{"traceEvents": [{"ph": "X", "name": "' + "x" * (1 << 18))
        with pytest.raises(InputError, match="no end of an event"):
            self.read(path)


class TestCutFiles:
    def test_cut_json_gives_its_good_part_and_says_so(self, tmp_path: Path) -> None:
        path = write(tmp_path / "p", steps(10))
        path.write_text(path.read_text()[: path.read_text().index('"ProfilerStep#8"')])
        opened = open_input(path)
        assert isinstance(opened, Profile)
        assert kernel_total_ns(opened.as_trace()) == 7 * 10_125
        assert (opened.records, opened.left_out) == (42, 1)
        assert any("ends in the middle" in note for note in analyze(opened.as_trace()).notes)

    def test_cut_gzip_gives_its_good_part(self, tmp_path: Path) -> None:
        path = tmp_path / "p.gz"
        events = steps(3000)
        data = gzip.compress(json.dumps(HEADER | {"traceEvents": events}).encode(), compresslevel=1)
        path.write_bytes(data[: len(data) // 2])
        opened = open_input(path)
        assert isinstance(opened, Profile)
        assert 0 < opened.records < len(events)
        assert kernel_total_ns(opened.as_trace()) >= opened.records // 6 * 10_125
        assert any("ends in the middle" in note for note in opened.notes)

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ('{"traceEvents": []}', "not of the PyTorch profiler"),
            ('[{"ph": "X", "cat": "kv", "name": "a", "ts": 1, "dur": 2}]', "not of the PyTorch profiler"),
            ('{"ph": "X", "schemaVersion": 1}', "without a list of trace events"),
        ],
    )
    def test_what_is_no_profile_is_refused_with_a_sentence(self, text: str, match: str, tmp_path: Path) -> None:
        path = tmp_path / "p.json"
        path.write_text(text)
        with pytest.raises(InputError, match=match):
            open_input(path)

    def test_rows_with_impossible_times_are_counted(self, tmp_path: Path) -> None:
        bad = [event("cpu_op", "a", 1.0, -5.0), event("cpu_op", "b", 1.0, 1.0, ts="soon")]
        opened = open_input(write(tmp_path / "p", [*bad, *steps(3)]))
        assert isinstance(opened, Profile)
        assert opened.left_out == 2


@pytest.mark.skipif(not KINETO, reason="needs real traces: set NITRO_TRACES")
@pytest.mark.parametrize("path", KINETO, ids=lambda path: path.name[:60])
class TestRealProfiles:
    def test_kernel_totals_equal_a_straight_sum_over_the_json(self, path: Path) -> None:
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        mine = [made for made in events if made.get("cat") == "kernel"]
        trace = open_trace(path)
        assert trace.kernels is not None
        assert len(trace.kernels) == len(mine)
        assert kernel_total_ns(trace) == sum(round(made["dur"] * 1000) for made in mine)
        for category, name in (("gpu_memcpy", "memcpys"), ("gpu_memset", "memsets")):
            frame = trace.table_or_empty(name)
            wanted = [made for made in events if made.get("cat") == category]
            assert len(frame) == len(wanted)
            assert frame["bytes"].sum() == sum(made["args"]["bytes"] for made in wanted)

    def test_every_kernel_is_joined_to_the_call_with_its_correlation(self, path: Path) -> None:
        from nitro.analyzer.operations import NO_ROW, Kind
        from nitro.analyzer.view import View

        view = View(open_trace(path))
        calls = view.trace.api_calls
        assert calls is not None
        kernels = view.operations.kind == Kind.KERNEL
        launch, wanted = view.operations.launch[kernels], view.operations.correlation_id[kernels]
        known = set(calls["correlation_id"].to_list())
        ids = calls["correlation_id"].to_numpy()
        for row, correlation in zip(launch.tolist(), wanted.tolist(), strict=True):
            assert (row == NO_ROW) == (correlation not in known)
            assert row == NO_ROW or ids[row] == correlation

    def test_the_whole_analysis_conserves_time(self, path: Path) -> None:
        analysis = analyze(open_trace(path))
        busy, idle, window = (analysis.value(name) for name in ("gpu_busy", "gpu_idle", "window"))
        assert busy is not None
        assert idle is not None
        assert busy + idle == window
        table = analysis.table("layers")
        assert table is not None
        assert 0 < int(table.frame["self_ns"].sum()) <= (analysis.value("gpu_busy_sum") or 0)
