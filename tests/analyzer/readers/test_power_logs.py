"""Power logs of nvidia-smi and of Nitro's own collector."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nitro.analyzer.opening import open_input
from nitro.analyzer.power_events import DRIVER_LIMITS
from nitro.analyzer.power_log import PowerLog
from nitro.analyzer.readers import ina3221, nvidia_smi
from nitro.errors import InputError

SMI = (
    "timestamp, power.draw.instant [W], power.draw.average [W], utilization.gpu [%], utilization.memory [%], "
    "clocks.current.sm [MHz], clocks.current.memory [MHz], temperature.gpu, clocks_event_reasons.active\n"
    "2026/11/21 02:02:50.120, 115.31 W, 110.02 W, 0 %, 0 %, 345 MHz, 3201 MHz, 31, 0x0000000000000001\n"
    "2026/11/21 02:02:50.140, 690.50 W, 111.00 W, 100 %, 42 %, 1980 MHz, 3201 MHz, 44, 0x0000000000000004\n"
    "2026/11/21 02:02:50.160, 699.99 W, 115.75 W, 100 %, 43 %, 1755 MHz, 3201 MHz, 45, 0x0000000000000044\n"
)
OWN = (
    "# nitro power log 1\n# interval_ms: 10\n"
    "realtime_ns,VDD_IN_mw,VDD_SOC_mv,VDD_SOC_ma,gpu_load_permille,gpu_clock_hz,memory_clock_hz,gpu_millidegree_c,"
    "online_cpus,other\n"
    "1788249045575991132,5000,5000,200,340,1013000000,3199000000,49843,6,x\n"
    "1788249045585991132,6000,5000,240,990,1013000000,3199000000,50000,6,\n"
    "1788249045595991132,7000,5000,280,,1013000000,3199000000,50100,4,\n"
)


def log_of(tmp_path: Path, text: str | bytes) -> PowerLog:
    path = tmp_path / "log.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    found = open_input(path)
    assert isinstance(found, PowerLog)
    return found


def refused(tmp_path: Path, text: str) -> str:
    path = tmp_path / "log.txt"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        open_input(path)
    assert str(error.value).count("\n") == 0
    return str(error.value)


class TestNvidiaSmi:
    def test_a_log_of_one_gpu(self, tmp_path: Path) -> None:
        log = log_of(tmp_path, SMI)
        assert log.source.format == "nvidia-smi"
        assert log.total_w.tolist() == [115.31, 690.5, 699.99]
        assert log.loads["gpu"].tolist() == [0, 1, 1]
        assert log.loads["memory"].tolist() == [0, 0.42, 0.43]
        assert log.clocks_hz["gpu"].tolist() == [345e6, 1980e6, 1755e6]
        assert log.clocks_hz["memory"].tolist() == [3201e6] * 3
        assert log.temperatures_c["gpu"].tolist() == [31, 44, 45]
        begin = datetime(2026, 11, 21, 2, 2, 50, 120_000, timezone.utc)
        assert log.clock is not None
        assert (log.clock.kind, log.clock.first_ns) == ("local", round(begin.timestamp() * 1000) * 10**6)
        assert log.clock.error_ns == 1_000_000
        assert (log.left_out, log.notes) == (0, ())

    def test_reasons_for_low_clocks_are_bits(self, tmp_path: Path) -> None:
        limits = log_of(tmp_path, SMI).limits
        assert {str(name): flags.tolist() for name, flags in limits.items() if flags.any()} == {
            "software power cap": [0, 1, 1],
            "hardware thermal slowdown": [0, 0, 1],
        }
        assert set(limits) == set(DRIVER_LIMITS.values())

    def test_without_units_and_with_older_names(self, tmp_path: Path) -> None:
        text = (
            "timestamp, index, name, power.draw, clocks.gr\n"
            "2026/11/21 02:02:50.120, 0, NVIDIA GeForce RTX 3090, 115.31, 345\n"
            "2026/11/21 02:02:50.140, 0, NVIDIA GeForce RTX 3090, 120.00, 345\n"
        )
        log = log_of(tmp_path, text)
        assert log.total_w.tolist() == [115.31, 120.0]
        assert any("mean of the last second" in note for note in log.notes)

    def test_several_gpus_add_up_at_the_times_of_one(self, tmp_path: Path) -> None:
        text = "timestamp, index, power.draw.instant [W]\n" + "".join(
            f"2026/11/21 02:02:50.{100 + 20 * n + gpu:03}, {gpu}, {100 * (gpu + 1) + n}.00 W\n"
            for n in range(3)
            for gpu in range(2)
        )
        log = log_of(tmp_path, text)
        assert [rail.name for rail in log.rails] == ["GPU 0", "GPU 1"]
        assert log.total_w == pytest.approx([300, 301.95, 303.95], abs=0.06)
        assert "sum of the boards of 2 GPUs" in log.total_source

    def test_damaged_lines_are_counted(self, tmp_path: Path) -> None:
        lines = SMI.splitlines(keepends=True)
        text = (
            "$ nvidia-smi --query-gpu=...\n"
            + "".join(lines[:2])
            + lines[0]
            + "Unable to determine the device handle\n"
            + lines[2].replace("690.50 W", "[N/A]")
            + lines[3]
            + lines[3][:20]
        )
        log = log_of(tmp_path, text)
        assert (log.records, log.left_out) == (2, 4)

    @pytest.mark.parametrize("power", ["1e30 W", "690.50.1 W", "690,50 W", "nan W", "inf W"])
    def test_what_is_no_number_is_not_read_as_its_beginning(self, tmp_path: Path, power: str) -> None:
        log = log_of(tmp_path, SMI.replace("690.50 W", power))
        assert log.total_w.tolist() == [115.31, 699.99]
        assert log.left_out == 1

    @pytest.mark.parametrize("code", ["0xffffffffffffffff", "0x" + "f" * 40])
    def test_reasons_of_any_width_are_read(self, tmp_path: Path, code: str) -> None:
        limits = log_of(tmp_path, SMI.replace("0x0000000000000004", code)).limits
        assert all(flags[1] == 1 for flags in limits.values())

    def test_a_gpu_that_reports_no_power_is_refused(self, tmp_path: Path) -> None:
        text = SMI.replace("115.31 W", "[N/A]").replace("690.50 W", "[N/A]").replace("699.99 W", "[Not Supported]")
        assert "may not report power.draw.instant" in refused(tmp_path, text)

    def test_a_header_alone_is_refused(self, tmp_path: Path) -> None:
        assert "no record" in refused(tmp_path, SMI.splitlines()[0] + "\n")

    def test_a_log_of_a_windows_shell(self, tmp_path: Path) -> None:
        assert log_of(tmp_path, SMI.replace("\n", "\r\n").encode("utf-16")).records == 3

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.one_of(st.sampled_from(SMI.splitlines()), st.text(max_size=40)), max_size=8))
    def test_any_mixture_is_read_or_refused(self, tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
        path = tmp_path_factory.mktemp("log") / "log"
        path.write_bytes("\n".join([*lines, ""]).encode("utf-8", "surrogatepass"))
        try:
            log = nvidia_smi.read(path)
        except InputError:
            return
        assert (np.diff(log.times_ns) > 0).all()


class TestOwn:
    def test_rails_in_milliwatts_and_in_volts_and_amperes(self, tmp_path: Path) -> None:
        log = log_of(tmp_path, OWN)
        assert {rail.name: rail.watts.tolist() for rail in log.rails} == {
            "VDD_IN": [5.0, 6.0, 7.0],
            "VDD_SOC": pytest.approx([1.0, 1.2, 1.4]),
        }
        assert log.total_w.tolist() == [5, 6, 7]
        assert log.times_ns.tolist() == [1788249045575991132 + k * 10_000_000 for k in range(3)]
        assert log.clock is not None
        assert log.clock.kind == "utc"
        assert log.loads["gpu"].tolist()[:2] == [0.34, 0.99]
        assert np.isnan(log.loads["gpu"][2])
        assert log.clocks_hz["gpu"].tolist() == [1.013e9] * 3
        assert log.temperatures_c["gpu"][0] == pytest.approx(49.843)
        assert log.online_cpus is not None
        assert log.online_cpus.tolist() == [6, 6, 4]
        assert log.left_out == 0

    def test_damaged_lines_are_counted(self, tmp_path: Path) -> None:
        lines = OWN.splitlines(keepends=True)
        log = log_of(tmp_path, "".join([*lines[:4], "garbage\n", lines[4].replace("6000", ""), *lines[5:], "178824"]))
        assert (log.records, log.left_out) == (2, 3)
        assert any("3 damaged lines" in note for note in log.notes)

    def test_a_clock_that_was_set_back(self, tmp_path: Path) -> None:
        lines = OWN.splitlines(keepends=True)
        log = log_of(tmp_path, "".join([*lines, *lines[3:5]]))
        assert (log.records, log.left_out) == (3, 2)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            (OWN.replace("log 1", "log 2"), "upgrade Nitro"),
            ("# nitro power log 1\n", "header of the power log is missing"),
            (OWN.replace("realtime_ns", "time"), "header of the power log is missing"),
            (OWN.replace("VDD_IN_mw", "VDD_SOC_mv"), "header of the power log is missing"),
            (OWN.replace("_mw", "").replace("_mv", ""), "no rail"),
            ("".join(OWN.splitlines(keepends=True)[:3]), "no record"),
        ],
    )
    def test_what_is_refused(self, tmp_path: Path, text: str, reason: str) -> None:
        assert reason in refused(tmp_path, text)

    def test_the_format_is_recognised_by_its_first_line(self, tmp_path: Path) -> None:
        assert log_of(tmp_path, OWN).source.format == ina3221.FORMAT
