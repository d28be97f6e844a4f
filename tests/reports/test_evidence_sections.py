"""Counters, roofline and layers in a report: every output, with the numbers of the analysis."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from builders import call, kernel, nvtx_domain, nvtx_range, trace
from nitro.analyzer import Analysis, Device, analyze
from nitro.analyzer.layers import LAYER_PROFILE_COLUMNS, LayerProfile
from nitro.analyzer.opening import open_input
from nitro.analyzer.trace import Source
from nitro.reports import figures
from nitro.reports.blocks import Bars, Figure, Paragraph, Table
from nitro.reports.output import Documents
from nitro.reports.report import build_report
from nitro.reports.sections import counters, layers, roofline

_PROGRAM = ("ID", "Process ID", "Process Name", "Host Name")
HEAD = (*_PROGRAM, "Kernel Name", "Context", "Stream", "Block Size", "Grid Size", "Device", "CC")
METRICS = {
    "gpu__time_duration.sum": "nsecond",
    "sm__cycles_elapsed.avg": "cycle",
    "sm__cycles_active.avg": "cycle",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "%",
    "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed": "%",
    "dram__bytes.sum": "byte",
    "smsp__sass_thread_inst_executed_op_ffma_pred_on.sum": "inst",
}
# Function → values in the order of METRICS. At 500 cycles in 1000 ns the SMs run at 500 MHz.
COUNTED = {
    "gemm": (1000, 500, 450, 90, 20, 1000, 100_000),
    "copy": (1000, 500, 250, 10, 80, 90_000, 90),
    "tiny<b>": (1000, 500, 50, 5, 4, 100, 10),
}
SHAPE = {f"{which}_{axis}": 1 for which in ("grid", "block") for axis in "xyz"}


def counters_file(path: Path, *, with_operations: bool = True) -> Path:
    names = [name for name in METRICS if with_operations or "ffma" not in name]
    rows: list[tuple[Any, ...]] = [(*HEAD, *names), ("",) * 11 + tuple(METRICS[name] for name in names)]
    for number, (function, values) in enumerate(COUNTED.items()):
        head = (number, 1, "app", "host", function, 1, 7, "(1, 1, 1)", "(1, 1, 1)", 0, "8.7")
        rows.append((*head, *values[: len(names)]))
    with path.open("w", newline="") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows(rows)
    return path


def analysed(folder: Path, *, with_operations: bool = True) -> Analysis:
    kernels, calls, ranges = [], [], [nvtx_domain(3, "TensorRT"), nvtx_range(0, 100, "infer:1")]
    for number, (function, duration) in enumerate((("gemm", 600), ("copy", 300), ("tiny<b>", 100)), 1):
        at = 10 * number
        calls.append(call(at, at + 5, correlation_id=number))
        ranges.append(nvtx_range(at - 1, at + 6, f"layer {number} <i>", domain_id=3))
        kernels.append(kernel(1000 * number, 1000 * number + duration, function, correlation_id=number, **SHAPE))
    device = Device(0, "Orin", compute_capability="8.7", sm_count=8, memory_bandwidth_bytes_per_s=10**11)
    built = trace(kernels=kernels, api_calls=calls, nvtx=ranges, devices=[device])
    profile = LayerProfile(
        source=Source("layers.json", "tensorrt-layers"),
        records=1,
        layers=pl.DataFrame([("layer 1 <i>", 900.0, "Conv", None)], schema=LAYER_PROFILE_COLUMNS, orient="row"),
    )
    counted = open_input(counters_file(folder / "c.csv", with_operations=with_operations))
    return analyze(built, counted, profile, window="all")  # type: ignore[arg-type]


def blocks_of(blocks: tuple[Any, ...], kind: type[Any]) -> Any:
    (found,) = [block for block in blocks if isinstance(block, kind)]
    return found


class TestCounters:
    def test_the_join_and_what_holds_the_kernels(self, tmp_path: Path) -> None:
        blocks = counters.build(analysed(tmp_path))
        assert "100.0 % by function, geometry and order" in blocks_of(blocks, Paragraph).text
        assert "SM active 70.0 %" in blocks_of(blocks, Paragraph).text  # 0.6 x 90 + 0.3 x 50 + 0.1 x 10
        bars = blocks_of(blocks, Bars)
        assert [(bar.label, bar.share) for bar in bars.bars] == [
            ("compute-bound", 0.6),
            ("memory-bound", 0.3),
            ("latency-bound", 0.1),
        ]

    def test_the_table_has_a_dash_for_what_was_not_counted(self, tmp_path: Path) -> None:
        table = blocks_of(counters.build(analysed(tmp_path)), Table)
        assert table.rows[0] == ("600 ns", "90.0 %", "–", "–", "–", "–", "compute-bound", "gemm")

    def test_without_counters_there_is_no_section(self) -> None:
        plain = analyze(trace(kernels=[kernel(0, 10)]))
        assert counters.build(plain) == roofline.build(plain) == ()


class TestRoofline:
    def test_roofs_meet_at_the_ridge_and_marks_are_kernels(self, tmp_path: Path) -> None:
        figure = blocks_of(roofline.build(analysed(tmp_path)), Figure)
        lines, labels, points = figure.spec["layer"]
        fp32 = [(row["x"], row["y"]) for row in lines["data"]["values"] if row["roof"] == "FP32 cores"]
        # 8 SMs x 256 x 500 MHz = 1.024 TFLOP/s, which 100 GB/s reach at 10.24 operations per byte.
        assert fp32[1] == (pytest.approx(10.24), pytest.approx(1.024))
        assert fp32[2][1] == pytest.approx(1.024)
        assert fp32[0][1] == pytest.approx(fp32[0][0] * 0.1)
        assert len(labels["data"]["values"]) == 2
        gemm = points["data"]["values"][0]
        assert (gemm["x"], gemm["y"]) == (pytest.approx(200.0), pytest.approx(0.2))
        assert figure.sentence.startswith("Each mark is a kernel")
        assert "500 MHz" in figure.sentence

    def test_without_operations_the_reason_stands_there(self, tmp_path: Path) -> None:
        blocks = roofline.build(analysed(tmp_path, with_operations=False))
        assert "No roofline: floating-point operations were not counted" in blocks_of(blocks, Paragraph).text
        assert not [block for block in blocks if isinstance(block, Figure)]

    def test_the_figure_can_be_drawn(self, tmp_path: Path) -> None:
        vl_convert = pytest.importorskip("vl_convert")
        figure = blocks_of(roofline.build(analysed(tmp_path)), Figure)
        svg = vl_convert.vegalite_to_svg(figures.dressed(figure.spec, width=600))
        assert "tensor cores, FP16 dense" in svg


class TestLayers:
    def test_layers_by_their_own_time_with_what_holds_them(self, tmp_path: Path) -> None:
        table, profile = (block for block in layers.build(analysed(tmp_path)) if isinstance(block, Table))
        assert [row[0] for row in table.rows] == ["60.0 %", "30.0 %", "10.0 %"]
        assert table.rows[0][-2:] == ("layer 1 <i> (infer:#)", "gemm")
        assert "compute-bound" in table.rows[0]
        assert profile.rows == (("100.0 %", "900 ns", "600 ns", "Conv", "layer 1 <i>"),)

    def test_ranges_of_the_user_alone_are_phases_and_no_layers(self) -> None:
        built = trace(
            kernels=[kernel(100, 200, correlation_id=1)],
            api_calls=[call(10, 20, correlation_id=1)],
            nvtx=[nvtx_range(0, 50, "vision")],
        )
        assert layers.build(analyze(built)) == ()


class TestOutputs:
    def test_every_output_shows_the_sections_and_escapes_names(self, tmp_path: Path) -> None:
        analysis = analysed(tmp_path)
        page = Documents([analysis]).html().decode()
        assert "Roofline of GPU 0" in page
        assert "tiny<b>" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
        titles = {section.name for section in build_report(analysis).chapters[0].sections}
        assert {"counters", "roofline", "layers"} <= titles
        text = Documents([analysis]).markdown().decode()
        assert "Layers by GPU time of their own" in text
        assert "What holds the kernels of GPU 0" in text

    def test_an_analysis_with_counters_can_be_saved(self, tmp_path: Path) -> None:
        saved = analysed(tmp_path).to_dict()
        assert {entry["kind"] for entry in saved["evidence"]} == {"kernel_counters", "layer_profile"}
        assert {"kernel_counters", "roofline", "layers", "tensorrt_layers"} <= {t["name"] for t in saved["tables"]}
