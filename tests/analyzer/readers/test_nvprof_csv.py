"""Metrics of nvprof by name, the counters of the original Jetson Nano."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import gpu, kernel, trace
from nitro.analyzer import analyze
from nitro.analyzer.counters import KernelCounters, per_launch
from nitro.analyzer.opening import open_input
from nitro.errors import InputError

HEAD = '"Device","Kernel","Invocations","Metric Name","Metric Description","Min","Max","Avg"\n'
NANO = '"NVIDIA Tegra X1 (0)","void net::conv<int=3>(float*)",12,'
TEXT = f"""==99== NVPROF is profiling process 99, command: ./app
hello, "world"
==99== Metric result:
{HEAD}{NANO}"sm_efficiency","Multiprocessor Activity",90.0%,99.0%,95.5%
{NANO}"achieved_occupancy","Achieved Occupancy",0.4,0.5,0.45
{NANO}"issue_slot_utilization","Issue Slot Utilization",20.00%,30.00%,25.00%
{NANO}"single_precision_fu_utilization","FP32","Low (2)","High (8)","Mid (6)"
{NANO}"dram_utilization","Device Memory Utilization","Low (1)","Low (3)","Low (2)"
{NANO}"dram_read_throughput","Device Memory Read Throughput",1.00GB/s,3.00GB/s,2.00GB/s
{NANO}"broken","No value",<OVERFLOW>,<OVERFLOW>,<OVERFLOW>
==99== Warning: the end
"""


def read(path: Path, text: str = TEXT) -> KernelCounters:
    path.write_text(text)
    opened = open_input(path)
    assert isinstance(opened, KernelCounters)
    return opened


def test_values_come_with_their_units(tmp_path: Path) -> None:
    counters = read(tmp_path / "metrics.log")
    values = {metric: (value, unit) for _, metric, value, unit in counters.values.iter_rows()}
    assert values["sm_efficiency"] == (95.5, "%")
    assert values["dram_utilization"] == (2.0, "level")
    assert values["dram_read_throughput"] == (2e9, "byte/s")
    assert (counters.records, counters.left_out) == (6, 1)
    (launch,) = counters.launches.to_dicts()
    assert (launch["function_name"], launch["device_name"], launch["grid_x"]) == ("conv", "NVIDIA Tegra X1", None)


def test_they_mean_the_same_as_those_of_ncu(tmp_path: Path) -> None:
    row = per_launch(read(tmp_path / "m")).row(0, named=True)
    assert (row["sm_active_ratio"], row["occupancy_ratio"], row["issue_active_ratio"]) == (0.955, 0.45, 0.25)
    assert (row["sm_throughput_ratio"], row["memory_throughput_ratio"]) == (0.6, 0.2)
    assert row["tensor_active_ratio"] is None


def test_they_are_joined_by_function_and_lend_ratios_alone(tmp_path: Path) -> None:
    built = trace(kernels=[kernel(0, 100, "conv", grid_x=4)], devices=[gpu(0, name="NVIDIA Tegra X1")])
    analysis = analyze(built, read(tmp_path / "m"), window="all")
    assert {name: part.value for name, part in analysis.parts("counter_join_time").items() if part.value} == {
        "name": 100
    }
    assert analysis.value("counted_sm_active_ratio") == pytest.approx(0.955)
    assert {name: part.value for name, part in analysis.parts("bound_time").items()} == {"compute": 100}


def test_a_table_without_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no value of a metric"):
        read(tmp_path / "m", HEAD)


def test_what_a_chip_does_not_have_is_said_with_the_reason(tmp_path: Path) -> None:
    nano = gpu(0, name="NVIDIA Tegra X1", compute_capability="5.3")
    built = trace(kernels=[kernel(0, 100, "conv", grid_x=4)], devices=[nano])
    analysis = analyze(built, read(tmp_path / "m"), window="all")
    assert analysis.reason("counted_tensor_active_ratio") == "this GPU has no tensor cores"
