"""ncu: reports and CSV give one table; joins, units, and what is refused."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from nitro.analyzer.counters import KernelCounters
from nitro.analyzer.opening import open_input, open_inputs
from nitro.analyzer.readers import ncu
from nitro.errors import InputError, ToolError

FOLDER = Path(os.environ.get("NITRO_TRACES", "/nonexistent"))
REPORTS = sorted((FOLDER / "ncu").glob("*.ncu-rep")) if FOLDER.is_dir() else []
_PROGRAM = ("ID", "Process ID", "Process Name", "Host Name")
HEAD = (*_PROGRAM, "Kernel Name", "Context", "Stream", "Block Size", "Grid Size", "Device", "CC")


def write_csv(path: Path, rows: Iterable[Iterable[Any]], before: str = "") -> Path:
    with path.open("w", newline="") as stream:
        stream.write(before)
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows(rows)
    return path


def launch(number: int, name: str = "void net::conv<3>(float *)") -> tuple[Any, ...]:
    return (number, 1, "app", "host", name, 1, 7, "(64, 1, 1)", "(4, 2, 1)", 0, "8.7")


def values(counters: KernelCounters) -> dict[tuple[int, str], tuple[float, str]]:
    return {(row[0], row[1]): row[2:] for row in counters.values.iter_rows()}


def read(path: Path) -> KernelCounters:
    opened = open_input(path)
    assert isinstance(opened, KernelCounters)
    return opened


class TestCsv:
    def test_the_raw_page_is_brought_to_base_units(self, tmp_path: Path) -> None:
        names = ("gpu__time_duration.sum", "dram__bytes.sum", "sm__throughput.avg.pct_of_peak_sustained_elapsed")
        units = ("usecond", "Mbyte", "%")
        rows = [(*HEAD, *names), ("",) * 11 + units, (*launch(0), "1,234.50", "2.5", "61.7")]
        read_back = read(write_csv(tmp_path / "c.csv", rows, before="==PROF== Connected to process 1\nhello, world\n"))
        assert values(read_back) == {
            (0, names[0]): (1_234_500.0, "ns"),
            (0, names[1]): (2_500_000.0, "byte"),
            (0, names[2]): (61.7, "%"),
        }
        (row,) = read_back.launches.to_dicts()
        assert (row["function_name"], row["compute_capability"]) == ("conv", "8.7")
        assert [row[name] for name in ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z")] == [
            4,
            2,
            1,
            64,
            1,
            1,
        ]

    def test_one_metric_a_row_gives_the_same_table(self, tmp_path: Path) -> None:
        wide = [(*HEAD, "dram__bytes.sum", "smsp__inst_executed.sum"), ("",) * 11 + ("Kbyte", "inst")]
        wide += [(*launch(0), "2", "7"), (*launch(1), "3", "8")]
        long = [(*HEAD, "Section Name", "Metric Name", "Metric Unit", "Metric Value")]
        for number, (kilobytes, count) in enumerate((("2", "7"), ("3", "8"))):
            long.append((*launch(number), "Raw", "dram__bytes.sum", "Kbyte", kilobytes))
            long.append((*launch(number), "Raw", "smsp__inst_executed.sum", "inst", count))
        first, second = read(write_csv(tmp_path / "wide", wide)), read(write_csv(tmp_path / "long", long))
        assert values(first) == values(second)
        assert first.launches.equals(second.launches)

    def test_a_page_with_titles_is_refused_with_the_way_out(self, tmp_path: Path) -> None:
        rows = [(*HEAD, "Section Name", "Metric Name", "Metric Unit", "Metric Value")]
        rows.append((*launch(0), "GPU Speed Of Light Throughput", "Elapsed Cycles", "cycle", "12"))
        with pytest.raises(InputError, match="--page raw"):
            open_input(write_csv(tmp_path / "c.csv", rows))

    def test_damaged_rows_are_counted(self, tmp_path: Path) -> None:
        rows = [(*HEAD, "dram__bytes.sum"), ("",) * 11 + ("byte",), (*launch(0), "1"), ("x", "y"), (*launch(1), "2")]
        counters = read(write_csv(tmp_path / "c.csv", rows))
        assert (counters.records, counters.left_out) == (2, 1)
        assert counters.notes[0].startswith("1 record was no kernel or was damaged, and was left out")

    @pytest.mark.parametrize(
        ("value", "unit", "expected"),
        [
            (1.5, "Gbyte/second", (1.5e9, "byte/s")),
            (1.5, "Gbyte/s", (1.5e9, "byte/s")),
            (1.5, "cycle/nsecond", (1.5e9, "hz")),
            (1.5, "Ghz", (1.5e9, "hz")),
            (2.0, "msecond", (2e6, "ns")),
            (2.0, "us", (2e3, "ns")),
            (3.0, "Kbyte/block", (3e3, "byte/block")),
            (4.0, "inst/cycle", (4.0, "inst/cycle")),
            (5.0, "", (5.0, "")),
        ],
    )
    def test_units(self, value: float, unit: str, expected: tuple[float, str]) -> None:
        made, base = ncu.in_base_unit(value, unit)
        assert base == expected[1]
        assert made == pytest.approx(expected[0], rel=1e-12)


class TestReports:
    def test_without_the_package_the_sentence_names_the_csv(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "ncu_report", None)
        path = tmp_path / "kernels.ncu-rep"
        path.write_bytes(b"NVR\x00\x02\x00\x00\x00")
        with pytest.raises(ToolError, match=r"ncu-report.*--csv --page raw"):
            open_input(path)

    def test_a_damaged_report_is_refused(self, tmp_path: Path) -> None:
        pytest.importorskip("ncu_report")
        path = tmp_path / "kernels.ncu-rep"
        path.write_bytes(b"NVR\x00\x02\x00\x00\x00 and nothing more")
        with pytest.raises(InputError, match=r"kernels\.ncu-rep"):
            open_input(path)

    @pytest.mark.skipif(not REPORTS, reason="needs real traces: set NITRO_TRACES")
    @pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.name[:50])
    def test_values_equal_those_of_ncu_report_for_every_kernel(self, path: Path) -> None:
        ncu_report = pytest.importorskip("ncu_report")
        counters = read(path)
        found = values(counters)
        checked = 0
        report = ncu_report.load_report(str(path))
        actions = [action for group in report for action in group]
        assert counters.launches["function_name"].to_list() == [a.name(a.NameBase_FUNCTION) for a in actions]
        for number, action in enumerate(actions):
            for name in action.metric_names():
                metric = action[name]
                if isinstance(metric.value(), (int, float)):
                    assert (
                        metric.unit() in ("", "ns", "byte", "hz", "cycle", "%")
                        or "/" in metric.unit()
                        or (ncu.in_base_unit(1.0, metric.unit())[0] == 1.0)
                    )
                    assert found[number, name][0] == metric.value()
                    checked += 1
        assert checked == len(counters.values)
        assert checked > 400 * len(actions)

    @pytest.mark.skipif(not REPORTS, reason="needs real traces: set NITRO_TRACES")
    @pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.name[:50])
    def test_the_raw_csv_of_a_report_gives_the_same_table(self, path: Path, tmp_path: Path) -> None:
        pytest.importorskip("ncu_report")
        counters = read(path)
        names = counters.values["metric"].unique(maintain_order=True).to_list()
        units = dict(counters.values.select("metric", "unit").unique("metric").iter_rows())
        found = values(counters)
        rows: list[tuple[Any, ...]] = [(*HEAD, *names), (("",) * 11) + tuple(units[name] for name in names)]
        for row in counters.launches.iter_rows(named=True):
            number = row["launch"]
            sizes = [f"({row[f'{w}_x']}, {row[f'{w}_y']}, {row[f'{w}_z']})" for w in ("block", "grid")]
            head = (number, 1, "app", "host", row["name"], 1, 7, *sizes, 0, row["compute_capability"])
            rows.append((*head, *(repr(found[number, name][0]) if (number, name) in found else "" for name in names)))
        again = read(write_csv(tmp_path / "c.csv", rows))
        assert values(again) == found
        shapes = [name for name in again.launches.columns if name.startswith(("grid", "block", "function"))]
        assert again.launches.select(shapes).equals(counters.launches.select(shapes))


def test_counters_alone_are_no_trace(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "c.csv", [(*HEAD, "dram__bytes.sum"), ("",) * 11 + ("byte",), (*launch(0), "1")])
    with pytest.raises(InputError, match="belongs beside a trace"):
        open_inputs([path])


def test_the_tables_have_the_types_that_they_promise(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "c.csv", [(*HEAD, "dram__bytes.sum"), ("",) * 11 + ("byte",), (*launch(0), "1")])
    assert dict(read(path).values.schema) == {
        "launch": pl.Int64,
        "metric": pl.String,
        "value": pl.Float64,
        "unit": pl.String,
    }
