"""The tables as CSV, JSON and text, and the command that prints them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.cells import cell_len

from builders import Row, call, kernel, nvtx_range, trace, write_nsys_sqlite
from nitro.analyzer.stats import StatsTable, stats_report
from nitro.commands.stats import COMMAND
from nitro.errors import UsageError
from nitro.reports.stats_text import csv_text, json_text, table_lines


def kernel_table(*rows: Row) -> StatsTable:
    return stats_report(trace(kernels=rows), "cuda_gpu_kern_sum")


def launches() -> StatsTable:
    built = trace(kernels=[kernel(15, 1_000_030, correlation_id=1)], api_calls=[call(10, 20, correlation_id=1)])
    return stats_report(built, "cuda_kern_exec_sum")


def lines(table: StatsTable, width: int | None) -> list[str]:
    return [line.plain for line in table_lines(table, width)]


def test_csv_quotes_names_with_commas() -> None:
    assert csv_text(kernel_table(kernel(0, 1_234_567, "f<a, b>"), kernel(0, 1, "plain"))).splitlines()[1:] == [
        '100.0,1234567,1,1234567.0,1234567.0,1234567,1234567,0.0,"f<a, b>"',
        "0.0,1,1,1.0,1.0,1,1,0.0,plain",
    ]


@pytest.mark.parametrize("name", ['f("a", b)', "two\nlines", ' "', "한국어, é"])
def test_csv_can_be_read_back_whatever_the_name(name: str) -> None:
    text = csv_text(kernel_table(kernel(0, 1, name)))
    assert next(csv.DictReader(io.StringIO(text, newline="")))["Name"] == name


def test_csv_leaves_what_is_not_there_empty() -> None:
    header, row = csv_text(launches()).splitlines()
    cells = dict(zip(header.split(","), row.split(","), strict=True))
    assert [cells[f"Q{what} (ns)"] for what in ("Avg", "Med", "Min", "Max", "StdDev")] == ["", "", "", "", "0.0"]


def test_json_has_numbers_with_the_same_digits_and_null_for_what_is_not_there() -> None:
    (row,) = json.loads(json_text(launches()))
    assert (row["PID"], row["TAvg (ns)"], row["QAvg (ns)"]) == (100, 1_000_020.0, None)
    assert (row["API Name"], row["Kernel Name"]) == ("cudaLaunchKernel", "kernel")
    sizes = stats_report(trace(memcpys=[{"start_ns": 0, "end_ns": 1, "bytes": 4500}]), "cuda_gpu_mem_size_sum")
    assert '"Total (MB)": 0.004,' in json_text(sizes)


def test_json_without_rows_is_an_empty_array_and_csv_the_header() -> None:
    nothing = stats_report(trace(), "cuda_api_sum")
    assert json_text(nothing) == "[]\n"
    assert csv_text(nothing).splitlines() == [",".join(column.header for column in nothing.columns)]


def test_pipe_gets_one_whole_line_per_row() -> None:
    name = "kernel<" + "int, " * 80 + "int>"
    title, header, row = lines(kernel_table(kernel(0, 1_234_567, name)), None)
    assert title == "GPU kernels by full name (cuda_gpu_kern_sum), times in ns"
    assert header.split()[:4] == ["Time", "(%)", "Total", "Time"]
    assert row.split(maxsplit=8)[1:3] == ["1,234,567", "1"]
    assert row.endswith(name)


def test_wide_terminal_folds_the_name_beside_the_numbers() -> None:
    found = lines(kernel_table(kernel(0, 1, "x" * 500)), 120)
    assert [line.split()[:2] for line in found[1:3]] == [["Time", "Total"], ["(%)", "Time"]]
    assert len(found[3:]) == 2
    assert max(map(cell_len, found)) == 120
    assert found[-1].endswith("x…")


@pytest.mark.parametrize("name", ["short", "x" * 500, "행렬곱" * 60])
def test_terminal_of_100_columns_is_never_exceeded(name: str) -> None:
    kernels = [kernel(15, 123_456_789_012, name, correlation_id=1), kernel(15, 987_654_321, name, correlation_id=1)]
    built = trace(kernels=kernels, api_calls=[call(10, 20, correlation_id=1)], nvtx=[nvtx_range(0, 50, name)])
    for report in ("cuda_gpu_kern_sum", "cuda_kern_exec_sum", "nvtx_sum", "nvtx_gpu_proj_sum"):
        for line in lines(stats_report(built, report), 100):
            assert cell_len(line) <= 100


def test_narrow_terminal_gives_each_part_of_a_launch_a_line() -> None:
    assert lines(launches(), 70) == [
        "Kernels with their launch: call, queue and execution (cuda_kern_exec_sum), times in ns",
        "                Avg          Med        Min        Max  StdDev",
        "cudaLaunchKernel  kernel",
        "PID 100, TID 1, DevId 0, Count 1, QCount 0",
        "Total   1,000,020.0  1,000,020.0  1,000,020  1,000,020     0.0",
        "API            10.0         10.0         10         10     0.0",
        "Queue                                                      0.0",
        "Kernel  1,000,015.0  1,000,015.0  1,000,015  1,000,015     0.0",
    ]


def test_control_characters_of_a_name_do_not_reach_the_terminal() -> None:
    text = "\n".join(lines(kernel_table(kernel(0, 1, "evil\x1b[2Jname")), 100))
    assert "\x1b" not in text
    assert "evil\\x1b[2Jname" in text


@pytest.fixture
def export(tmp_path: Path) -> str:
    built = trace(
        kernels=[kernel(30, 40, "k", correlation_id=1)],
        api_calls=[call(10, 20, correlation_id=1)],
    )
    return str(write_nsys_sqlite(tmp_path / "trace.sqlite", built))


def run(*arguments: str) -> tuple[str, str]:
    result = CliRunner().invoke(COMMAND, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout, result.stderr


def test_command_prints_several_reports_with_an_empty_line_between(export: str) -> None:
    out, err = run(export, "--report", "cuda_gpu_kern_sum:base", "-r", "cuda_api_sum", "--format", "csv")
    first, second = out.split("\n\n")
    assert first.splitlines()[1] == "100.0,10,1,10.0,10.0,10,10,0.0,k"
    assert second.splitlines()[1] == "100.0,10,1,10.0,10.0,10,10,0.0,cudaLaunchKernel"
    assert err == ""


def test_command_takes_names_separated_by_commas_and_prints_all_without_names(export: str) -> None:
    assert run(export, "-r", "cuda_gpu_kern_sum,cuda_api_sum")[0].count(", times in ns") == 2
    out, err = run(export)
    assert out.count(", times in ns") == 4
    assert err.count("report ") == 5


@pytest.mark.parametrize(("form", "expected"), [("table", ""), ("json", "[]\n")])
def test_command_says_on_stderr_what_is_missing(export: str, form: str, expected: str) -> None:
    assert run(export, "--report", "nvtx_sum", "--format", form) == (
        expected,
        "report nvtx_sum: the trace has no nvtx_events table (record with --trace=nvtx)\n",
    )


def test_command_refuses_an_unknown_report_before_it_reads_the_trace() -> None:
    with pytest.raises(UsageError, match="choose from cuda_api_sum") as caught:
        CliRunner().invoke(COMMAND, ["missing.sqlite", "--report", "nope"], catch_exceptions=False)
    assert caught.value.exit_code == 2


def test_help_names_every_report() -> None:
    assert "cuda_gpu_kern_sum:base" in run("--help")[0]
