"""Synthetic traces are public: their page runs as it stands, and a file of one gives the same numbers as the frames."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from nitro.analyzer import Analysis, Capture, Trace, analyze, open_trace, synthetic
from nitro.analyzer.synthetic import (
    Schema,
    allocation,
    call,
    context_switch,
    gpu,
    kernel,
    nvtx_range,
    on_thread,
    operation,
    process,
    release,
    sample,
    scheduled,
    trace,
    write_nsys_sqlite,
)

PAGE = Path(__file__).parents[2] / "docs" / "synthetic-traces.md"
CODE_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
every_schema = pytest.mark.parametrize("schema", get_args(Schema))


def loop() -> Trace:
    """Return six iterations of 10 µs: a copy, a kernel, a wait, and memory that is allocated and given back."""
    starts = range(0, 60_000, 10_000)
    numbered = list(enumerate(starts, start=1))
    return trace(
        kernels=[kernel(at + 3_000, at + 7_000, "mul<float>(float*)", correlation_id=2 * n) for n, at in numbered],
        memcpys=[operation(at + 1_000, at + 2_000, correlation_id=2 * n + 1, bytes=4_096) for n, at in numbered],
        memsets=[],
        graph_launches=[],
        api_calls=[
            made
            for n, at in numbered
            for made in (
                call(at + 100, at + 500, "cudaMemcpyAsync_v3020", correlation_id=2 * n + 1),
                call(at + 600, at + 800, correlation_id=2 * n),
                call(at + 900, at + 7_200, "cudaStreamSynchronize_v3020"),
            )
        ],
        os_calls=[on_thread(at + 8_100, at + 8_200) for at in starts],
        nvtx=[nvtx_range(at, at + 8_000, f"infer:{n}", payload=8) for n, at in numbered],
        synchronizations=[operation(at + 900, at + 7_200) for at in starts],
        profiler_overheads=[on_thread(9_000, 9_100)],
        cuda_overheads=[],
        sched_events=[scheduled(8_300, False), scheduled(8_900, True)],
        context_switches=[context_switch(100, 9), context_switch(17_500, 7), context_switch(19_000, 8)],
        memory_events=[
            made
            for at in starts
            for made in (allocation(at + 50, 1 << 20, at + 1), release(at + 7_500, 1 << 20, at + 1))
        ],
        gpu_metric_samples=[
            sample(time, metric, value)
            for time in range(0, 60_001, 1_000)
            for metric, value in (("sm_active", 50), ("sm_issue", 20), ("gpc_clock", 1_000_000_000))
        ],
        devices=[
            gpu(
                compute_capability="8.7",
                sm_count=8,
                sm_clock_hz=1_020_000_000,
                memory_bytes=8_000_000_000,
                memory_bandwidth_bytes_per_s=68_000_000_000,
                max_warps_per_sm=48,
            )
        ],
        capture=Capture(duration_ns=60_000),
    )


def contents(analysis: Analysis) -> dict[str, object]:
    """Return the JSON without what is said about the file and the tool that wrote it."""
    about = {"source", "capture", "devices"}
    return {key: value for key, value in analysis.to_dict().items() if key not in about}


def test_the_page_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = CODE_BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)


def test_the_example_of_the_module_runs() -> None:
    results = doctest.testmod(synthetic)
    assert results.attempted > 0
    assert results.failed == 0


@every_schema
@pytest.mark.parametrize("window", ["auto", "all"])
def test_a_file_gives_what_the_frames_give(tmp_path: Path, schema: Schema, window: str) -> None:
    built = loop()
    read = open_trace(write_nsys_sqlite(tmp_path / "loop.sqlite", built, schema))
    expected = analyze(built, window=window)
    assert contents(analyze(read, window=window)) == contents(expected)
    measured = {measurement.metric for measurement in expected.measurements}
    assert {"gpu_idle_by_cause", "sm_active_ratio", "gpc_clock", "gpu_memory_peak", "allocation_count"} <= measured


@every_schema
def test_what_was_not_recorded_is_not_measured_for_the_same_reason(tmp_path: Path, schema: Schema) -> None:
    built = trace(kernels=[(0, 10), (20, 30)])
    read = open_trace(write_nsys_sqlite(tmp_path / "small.sqlite", built, schema))
    expected = analyze(built)
    assert contents(analyze(read)) == contents(expected)
    assert {"gpu_memory_peak", "sm_active_ratio"} <= {entry.metric for entry in expected.not_measured}


@pytest.mark.parametrize(("schema", "device_id"), [("none", 0), ("2.9.1", 0), ("3.20.3", 1)])
def test_only_new_exports_know_which_gpu_a_process_means(tmp_path: Path, schema: Schema, device_id: int) -> None:
    where: dict[str, Any] = {"device_id": 1, "device_ordinal": 0, "global_pid": process(7)}
    built = trace(
        kernels=[kernel(0, 100, **where)],
        memory_events=[allocation(10, 64, **where)],
        devices=[gpu(0), gpu(1)],
    )
    read = open_trace(write_nsys_sqlite(tmp_path / "two.sqlite", built, schema))
    analysis = analyze(read, window="all")
    assert analysis.value("gpu_busy", device_id) == 100
    assert analysis.value("gpu_memory_peak", device_id, "total") == 64


def test_a_gpu_that_only_memory_events_name_keeps_its_number(tmp_path: Path) -> None:
    event = allocation(10, 64, device_id=1, device_ordinal=0)
    read = open_trace(write_nsys_sqlite(tmp_path / "memory.sqlite", trace(memory_events=[event])))
    assert read.table_or_empty("memory_events")["device_id"].to_list() == [1]


def test_a_sampled_metric_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="sampled metric sm_actve is unknown; choose from gpc_clock"):
        sample(0, "sm_actve", 50)


def test_a_file_with_content_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "mine.sqlite"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="the file is there already"):
        write_nsys_sqlite(path, trace(kernels=[(0, 10)]))
    assert path.read_bytes() == b"mine"


def test_the_analyzer_does_not_load_it_by_itself() -> None:
    code = "import sys, nitro.analyzer; sys.exit('nitro.analyzer.synthetic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
