"""The tables of a trace, written as Parquet, are the same trace when they are read again."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from builders import (
    allocation,
    call,
    context_switch,
    empty_trace,
    gpu,
    kernel,
    nvtx_domain,
    nvtx_range,
    on_thread,
    operation,
    sample,
    scheduled,
    trace,
)
from nitro.analyzer import Capture, Trace, analyze, open_trace
from nitro.analyzer.export import write_parquet
from nitro.analyzer.opening import all_readers, head_of_input
from nitro.analyzer.readers.nitro_parquet import MANIFEST
from nitro.analyzer.tables import TABLES
from nitro.errors import InputError, UsageError

FOLDER = Path(os.environ.get("NITRO_TRACES", "/nonexistent"))
REAL = (
    "nsys/hokwangchoi__jetson-orin-nano-benchmarks__trt_image_20260419_005228__3bd3de.sqlite.xz",
    "nsys/GindaChen__nsys-ai__h100_2gpu_1s__3dc0af.sqlite.xz",
    "nsys/morluto__flameox__nsight-2025.5.2__53aaf0.sqlite",
)


@pytest.fixture
def built() -> Trace:
    return trace(
        kernels=[kernel(300, 700, "mul<int>", correlation_id=1), kernel(800, 900, None, correlation_id=None)],
        memcpys=[operation(10, 20, bytes=9)],
        memsets=[],
        graph_launches=[operation(920, 990, graph_id=5)],
        api_calls=[call(100, 200, correlation_id=1)],
        os_calls=[on_thread(1, 2, name="read")],
        nvtx=[nvtx_domain(5, "mine"), nvtx_range(90, None, "추론:1", domain_id=5, payload=3)],
        sched_events=[scheduled(5, True)],
        context_switches=[context_switch(5, 7)],
        memory_events=[allocation(7, 100)],
        gpu_metric_samples=[sample(100, "sm_active", 7), sample(200, "sm_active", 70)],
        devices=[gpu(0, "Orin", sm_count=8, is_integrated=True)],
        capture=Capture(duration_ns=1000, start_utc_ns=5, options={"trace": "cuda"}, recorded=("gpu_metrics",)),
    )


def assert_same(one: Trace, other: Trace) -> None:
    for table in TABLES:
        first, second = one.table(table.name), other.table(table.name)
        assert (first is None) == (second is None), table.name
        if first is not None and second is not None:
            assert first.schema == second.schema, table.name
            assert first.equals(second), table.name
    assert (one.devices, one.nvtx_domains, one.notes) == (other.devices, other.nvtx_domains, other.notes)
    # By how much a wall clock was ahead of UTC stays out of every output.
    assert replace(one.capture, utc_offset_s=None) == other.capture
    assert (one.source.tool, one.source.tool_version) == (other.source.tool, other.source.tool_version)


def test_every_table_and_fact_comes_back(built: Trace, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "tables"
    rows = write_parquet(built, folder)
    assert rows["kernels"] == 2
    assert rows["memsets"] == 0
    assert "synchronizations" not in rows
    read = open_trace(folder)
    assert_same(built, read)
    assert (read.source.file_name, read.source.format) == ("tables", "nitro-parquet")


def test_empty_tables_are_not_missing_ones(tmp_path: Path) -> None:
    write_parquet(empty_trace(), tmp_path / "a")
    assert_same(empty_trace(), open_trace(tmp_path / "a"))


@pytest.mark.parametrize("name", REAL)
def test_real_traces_come_back(name: str, tmp_path: Path) -> None:
    if not (FOLDER / name).exists():
        pytest.skip("NITRO_TRACES is not set")
    one = open_trace(FOLDER / name)
    write_parquet(one, tmp_path / "a")
    other = open_trace(tmp_path / "a")
    assert_same(one, other)
    assert analyze(one).to_dict()["measurements"] == analyze(other).to_dict()["measurements"]


def test_only_its_own_reader_claims_the_folder(built: Trace, tmp_path: Path) -> None:
    write_parquet(built, tmp_path / "a")
    head = head_of_input(tmp_path / "a")
    assert [reader.format for reader in all_readers() if reader.recognises(head)] == ["nitro-parquet"]


def test_the_readme_describes_every_column(built: Trace, tmp_path: Path) -> None:
    rows = write_parquet(built, tmp_path / "a")
    text = (tmp_path / "a" / "README.md").read_text()
    for table in TABLES:
        assert (f"## {table.name}\n" in text) == (table.name in rows)
        if table.name in rows:
            assert all(f"| `{column.name}` |" in text for column in table.columns)


def test_an_export_is_replaced_and_other_files_are_not(built: Trace, tmp_path: Path) -> None:
    write_parquet(built, tmp_path / "a")
    write_parquet(trace(kernels=[(1, 2)]), tmp_path / "a")
    assert {entry.name for entry in (tmp_path / "a").iterdir()} == {"kernels.parquet", "README.md", MANIFEST}
    (tmp_path / "a" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        write_parquet(built, tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "README.md").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        write_parquet(built, tmp_path / "b")
    assert (tmp_path / "b" / "README.md").read_text() == "mine"


def test_a_half_written_export_is_refused_and_can_be_replaced(
    built: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_frame: pl.DataFrame, _file: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pl.DataFrame, "write_parquet", full)
        with pytest.raises(UsageError, match="No space left"):
            write_parquet(built, tmp_path / "a")
    with pytest.raises(InputError, match="the table is missing"):
        open_trace(tmp_path / "a")
    write_parquet(built, tmp_path / "a")
    assert_same(built, open_trace(tmp_path / "a"))


def damaged(folder: Path, what: str) -> None:
    manifest, kernels = folder / MANIFEST, folder / "kernels.parquet"
    told = json.loads(manifest.read_text())
    frame = pl.read_parquet(kernels)
    if what == "no JSON":
        manifest.write_text("{")
    elif what == "another format":
        manifest.write_text("[]")
    elif what == "a newer version":
        manifest.write_text(json.dumps(told | {"format_version": 99}))
    elif what == "no devices":
        manifest.write_text(json.dumps({key: value for key, value in told.items() if key != "devices"}))
    elif what == "a table is gone":
        kernels.unlink()
    elif what == "a cut table":
        kernels.write_bytes(kernels.read_bytes()[:-20])
    elif what == "a column is gone":
        frame.drop("end_ns").write_parquet(kernels)
    elif what == "text for numbers":
        frame.with_columns(start_ns=pl.lit("soon")).write_parquet(kernels)
    elif what == "backwards":
        frame.with_columns(end_ns=pl.lit(0)).write_parquet(kernels)
    else:
        frame.with_columns(start_ns=pl.lit(None, pl.Int64)).write_parquet(kernels)


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("no JSON", "it is no JSON"),
        ("another format", "its format is not nitro-parquet"),
        ("a newer version", "has version 99 and this program reads 1"),
        ("no devices", "damaged .*'devices'"),
        ("a table is gone", "the table is missing"),
        ("a cut table", "damaged"),
        ("a column is gone", "column end_ns is missing"),
        ("text for numbers", "column start_ns holds String values instead of integers"),
        ("backwards", "2 rows have no time or end before they start"),
        ("no times", "2 rows have no time or end before they start"),
    ],
)
def test_damage_is_one_sentence(built: Trace, tmp_path: Path, what: str, sentence: str) -> None:
    write_parquet(built, tmp_path / "a")
    damaged(tmp_path / "a", what)
    with pytest.raises(InputError, match=sentence) as caught:
        open_trace(tmp_path / "a").table("kernels")
    assert "\n" not in str(caught.value)


def test_a_column_that_a_later_version_adds_is_null(built: Trace, tmp_path: Path) -> None:
    write_parquet(built, tmp_path / "a")
    file = tmp_path / "a" / "kernels.parquet"
    pl.read_parquet(file).drop("registers_per_thread").with_columns(more=1).write_parquet(file)
    kernels = open_trace(tmp_path / "a").kernels
    assert kernels is not None
    assert kernels["registers_per_thread"].null_count() == 2
    assert "more" not in kernels.columns
