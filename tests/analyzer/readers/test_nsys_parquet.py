"""`parquetdir` exports read to the same trace as the SQLite export of the same capture."""

from __future__ import annotations

import lzma
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest

from builders import call, kernel, nvtx_domain, nvtx_range, sample, trace, write_nsys_sqlite
from nitro.analyzer import Trace, open_trace
from nitro.analyzer.tables import TABLES
from nitro.errors import InputError

FOLDER = Path(os.environ.get("NITRO_TRACES", "/nonexistent"))
REAL = (
    "hpcgroup__pipit__perlmutter-cloverleaf-cuda__8b5d00.sqlite.xz",
    "als244__ResourceEstimation__report3__349122__exported.sqlite.xz",
    "morluto__flameox__nsight-2025.5.2__53aaf0.sqlite",
    "hokwangchoi__jetson-orin-nano-benchmarks__trt_image_20260419_005228__3bd3de.sqlite.xz",
)


def as_parquet(source: Path, folder: Path) -> Path:
    """Write every table of a SQLite export as `nsys export --type parquetdir` lays it out: one file a table."""
    folder.mkdir()
    with closing(sqlite3.connect(source)) as connection:
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        names = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
        for name in names:
            cursor = connection.execute(f'select * from "{name}"')
            columns = [entry[0] for entry in cursor.description]
            rows = cursor.fetchall()
            made = {c: pl.Series([row[place] for row in rows], strict=False) for place, c in enumerate(columns)}
            pl.DataFrame(made).write_parquet(folder / f"{name}.parquet")
    return folder


def assert_same(one: Trace, other: Trace) -> None:
    for table in TABLES:
        first, second = one.table(table.name), other.table(table.name)
        assert (first is None) == (second is None), table.name
        assert first is None or second is None or first.equals(second), table.name
    assert (one.devices, one.capture, one.nvtx_domains) == (other.devices, other.capture, other.nvtx_domains)
    assert (one.source.tool_version, one.source.schema_version) == (
        other.source.tool_version,
        other.source.schema_version,
    )


@pytest.fixture
def small(tmp_path: Path) -> Path:
    built = trace(
        kernels=[kernel(300, 700, "mul", correlation_id=1), kernel(800, 900, "add", correlation_id=2)],
        api_calls=[call(100, 200, correlation_id=1), call(210, 230, correlation_id=2)],
        nvtx=[nvtx_domain(5, "mine"), nvtx_range(90, 250, "infer:1", domain_id=5), nvtx_range(95, 240, "plain")],
        gpu_metric_samples=[sample(100, "sm_active", 40), sample(200, "sm_active", 60)],
    )
    return write_nsys_sqlite(tmp_path / "t.sqlite", built)


def test_a_folder_reads_to_the_same_trace(small: Path, tmp_path: Path) -> None:
    folder = as_parquet(small, tmp_path / "folder")
    assert_same(open_trace(small), open_trace(folder))
    assert open_trace(folder).source.format == "nsys-parquetdir"


def test_nothing_in_the_folder_is_changed(small: Path, tmp_path: Path) -> None:
    folder = as_parquet(small, tmp_path / "folder")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    open_trace(folder).table("nvtx_events")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_damaged_file_is_told_in_a_sentence(small: Path, tmp_path: Path) -> None:
    folder = as_parquet(small, tmp_path / "folder")
    file = folder / "CUPTI_ACTIVITY_KIND_KERNEL.parquet"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match=r"KERNEL\.parquet: the Parquet file is damaged"):
        open_trace(folder)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs real traces: set NITRO_TRACES")
@pytest.mark.parametrize("name", REAL)
def test_real_captures_read_to_the_same_trace(name: str, tmp_path: Path) -> None:
    data = (FOLDER / "nsys" / name).read_bytes()
    source = tmp_path / "t.sqlite"
    source.write_bytes(lzma.decompress(data) if name.endswith("xz") else data)
    assert_same(open_trace(source), open_trace(as_parquet(source, tmp_path / "folder")))
