"""A kernel whose full name the export lost is known by its function name, wherever kernels are named."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import Row, call, gpu, kernel, nvtx_range, trace, write_nsys_sqlite
from nitro.analyzer import Analysis, Source, Trace, analyze, open_trace
from nitro.analyzer.compare import NotComparable, compare
from nitro.analyzer.counters import LAUNCH_COLUMNS, SHAPE, VALUE_COLUMNS, KernelCounters
from nitro.analyzer.kernel_names import NAME_LOST, known_names
from nitro.analyzer.readers._nsys_redaction import redact
from nitro.analyzer.stats import stats_report
from nitro.analyzer.timeline import timeline_of
from nitro.analyzer.view import Scope, View

FOLDER = Path(os.environ.get("NITRO_TRACES", "/nonexistent")) / "nsys"
SHORT_NAMES_ALONE = "GindaChen__nsys-ai__healthy_1pct__6d01e5.sqlite"
FUNCTIONS = ("gemm", "elementwise_add", "gelu_activation", "softmax")
ORIN = gpu(
    name="Orin",
    compute_capability="8.7",
    sm_count=8,
    memory_bandwidth_bytes_per_s=10**11,
    max_warps_per_sm=48,
    max_blocks_per_sm=16,
    registers_per_sm=65_536,
    shared_memory_per_sm_bytes=167_936,
)


def program(*, full: bool, functions: tuple[str, ...] = FUNCTIONS, ranges: bool = False) -> Trace:
    """Play some functions ten times; without `full`, only their function names are in the export."""
    kernels: list[Row] = []
    calls: list[Row] = []
    for step in range(10):
        for place, name in enumerate(functions):
            at, number = 1000 * (len(functions) * step + place), len(kernels) + 1
            row = kernel(at + 100, at + 500 + 50 * place, name, correlation_id=number, grid_x=4)
            kernels.append(row if full else row | {"demangled_name": None})
            calls.append(call(at, at + 50, correlation_id=number))
    width = 1000 * len(functions)
    nvtx = [nvtx_range(width * step, width * (step + 1) - 10, "layer.0") for step in range(10)] if ranges else None
    return trace(kernels=kernels, api_calls=calls, nvtx=nvtx, devices=[ORIN])


def counters() -> KernelCounters:
    facts = {"name": "gemm", "function_name": "gemm", "device_name": None, "compute_capability": None}
    metrics = {"gpu__time_duration.sum": 400.0, "dram__bytes.sum": 4096.0, "sm__cycles_active.avg": 5.0}
    return KernelCounters(
        source=Source("counters.csv", "ncu"),
        records=1,
        launches=pl.DataFrame(
            [{"launch": 0} | facts | dict.fromkeys(SHAPE, 1) | {"grid_x": 4, "block_x": 32}], schema=LAUNCH_COLUMNS
        ),
        values=pl.DataFrame(
            [(0, metric, value, "") for metric, value in metrics.items()], schema=VALUE_COLUMNS, orient="row"
        ),
    )


def names_in(analysis: Analysis, table: str, column: str = "name") -> set[str]:
    return {str(name) for found in analysis.tables if found.name == table for name in found.frame[column].to_list()}


@pytest.mark.parametrize("ranges", [False, True])
def test_function_names_stand_in_for_full_ones_in_every_number_and_table(ranges: bool) -> None:
    lost, whole = (analyze(program(full=full, ranges=ranges), counters()) for full in (False, True))
    assert lost.to_dict() == whole.to_dict()
    for table in ("kernels", "kernel_shapes", "kernel_counters"):
        assert names_in(lost, table) == set(FUNCTIONS)
    assert names_in(lost, "fusion_candidates", "first") | names_in(lost, "fusion_candidates", "second") == set(
        FUNCTIONS[1:]
    )
    if not ranges:
        assert "a sequence of 4 kernels that repeats" in lost.window.reason


def test_function_names_stand_in_for_full_ones_in_the_timeline() -> None:
    lost, whole = (timeline_of(View(program(full=full), Scope())) for full in (False, True))
    assert set(FUNCTIONS) <= set(lost.names)
    assert lost.names == whole.names
    assert lost.shapes.name.tolist() == whole.shapes.name.tolist()


def test_function_names_match_kernels_of_two_sides() -> None:
    before = program(full=False, functions=("gemm", "elementwise_add", "softmax"), ranges=True)
    after = program(full=True, functions=("gemm", "softmax"), ranges=True)
    made = compare([before], [after])
    (device,) = made.devices
    rows = {
        (row.kind, *(" ".join(member.name for member in side) for side in (row.before, row.after)))
        for row in device.matching.rows
    }
    assert rows == {
        ("one_to_one", "gemm", "gemm"),
        ("one_to_one", "softmax", "softmax"),
        ("only_before", "elementwise_add", ""),
    }


def test_sides_whose_function_names_differ_are_other_programs() -> None:
    before, after = (program(full=False, functions=names) for names in (("gemm", "softmax"), ("conv", "norm")))
    with pytest.raises(NotComparable, match="share no kernel name"):
        compare([before], [after])


@given(
    st.lists(st.tuples(st.sampled_from([None, "f<1>(int)", "g()", "f"]), st.sampled_from([None, "f", "g"])), min_size=1)
)
def test_each_row_by_the_definition(pairs: list[tuple[str | None, str | None]]) -> None:
    rows = [kernel(0, 1) | {"demangled_name": full, "short_name": short} for full, short in pairs]
    known = known_names(trace(kernels=rows).table_or_empty("kernels"))
    assert known.to_list() == [full if full is not None else short for full, short in pairs]
    categories = pl.Series(known.dtype.categories).to_list()  # type: ignore[attr-defined]
    assert categories == sorted(categories)


def test_without_either_name_it_says_so() -> None:
    analysis = analyze(trace(kernels=[kernel(0, 10, None), kernel(20, 30, None)]))
    assert names_in(analysis, "kernels") == {NAME_LOST}


def test_the_tables_of_nsys_stay_as_nsys_has_them() -> None:
    table = stats_report(program(full=False), "cuda_gpu_kern_sum")
    assert table.frame["Name"].to_list() == [None]
    assert set(stats_report(program(full=False), "cuda_gpu_kern_sum:base").frame["Name"].to_list()) == set(FUNCTIONS)


def test_redaction_keeps_function_names(tmp_path: Path) -> None:
    path = write_nsys_sqlite(tmp_path / "trace.sqlite", program(full=False))
    redact(path, tmp_path / "redacted.sqlite")
    assert names_in(analyze(open_trace(tmp_path / "redacted.sqlite")), "kernels") == set(FUNCTIONS)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs real traces: set NITRO_TRACES to the folder that holds nsys/")
def test_a_real_export_without_full_names() -> None:
    path = FOLDER / SHORT_NAMES_ALONE
    database = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    counted = database.execute(
        "select value, count(*), sum(end - start) from CUPTI_ACTIVITY_KIND_KERNEL"
        " join StringIds on id = shortName group by value order by value"
    ).fetchall()
    assert len(counted) == 2
    table = analyze(open_trace(path), window="all").table("kernels", 0)
    assert table is not None
    assert table.frame.sort("name").select("name", "count", "total_ns").rows() == counted
