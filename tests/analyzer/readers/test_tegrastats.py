"""tegrastats logs: thirteen real lines from as many boards and releases, whole logs, and logs that went wrong."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nitro.analyzer.opening import open_input
from nitro.analyzer.power_log import PowerLog
from nitro.analyzer.readers.tegrastats import read
from nitro.errors import InputError

FOLDER = Path(os.environ.get("NITRO_TRACES", "/nonexistent")) / "tegrastats"
needs_logs = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs real logs: set NITRO_TRACES")

HEAD = "RAM 613/3964MB (lfb 634x4MB) CPU [2%@102,1%@102]"
# Lines as boards wrote them; cores and fields that the reader passes over are cut short, fields in use are not.
NANO = (
    "RAM 613/3964MB (lfb 634x4MB) SWAP 0/1982MB (cached 0MB) CPU [2%@102,1%@102,0%@102,0%@102] EMC_FREQ 0% "
    "GR3D_FREQ 0% PLL@39C CPU@40.5C PMIC@100C GPU@41C AO@46C thermal@41C POM_5V_IN 900/943 POM_5V_GPU 0/0 "
    "POM_5V_CPU 123/123"
)
NANO_SUDO = (
    "RAM 1923/3964MB (lfb 2x2MB) SWAP 191/1982MB (cached 6MB) IRAM 0/252kB(lfb 252kB) CPU [5%@1224,2%@1224] "
    "EMC_FREQ 0%@1600 GR3D_FREQ 0%@76 APE 25 PLL@37C POM_5V_IN 1750/1628 POM_5V_GPU 0/2 POM_5V_CPU 289/202"
)
TX2 = (
    "RAM 284/7860MB (lfb 1808x4MB) CPU [48%@2034,off,off,53%@2034,43%@2033,41%@2034] EMC_FREQ 2%@1600 GR3D_FREQ @0 "
    "APE 150 PLL@29.5C MCPU@29.5C PMIC@100C Tboard@26C GPU@27.5C BCPU@29.5C thermal@28.7C Tdiode@25C "
    "VDD_SYS_GPU 192/192 VDD_SYS_SOC 529/529 VDD_4V0_WIFI 38/38 VDD_IN 3566/3566 VDD_SYS_CPU 1156/1156 "
    "VDD_SYS_DDR 902/902"
)
AGX_XAVIER = f"{HEAD} GPU 0/0 CPU 216/216 SOC 864/864 CV 0/0 VDDRQ 144/144 SYS5V 1889/1889"
XAVIER_NX_JP4 = (
    f"{HEAD} EMC_FREQ 2%@1600 GR3D_FREQ 0%@1109 APE 150 MTS fg 1% bg 9% AO@29C VDD_IN 6140/5510 "
    "VDD_CPU_GPU_CV 2706/2119 VDD_SOC 1074/1051"
)
XAVIER_NX_JP5 = (
    "07-09-2024 13:31:31 RAM 3168/6851MB (lfb 4x4MB) CPU [2%@1190,off] GR3D_FREQ 0%@[114] VIC_FREQ 115 APE 150 "
    "VDD_IN 2763mW/2846mW VDD_CPU_GPU_CV 650mW/670mW VDD_SOC 650mW/711mW"
)
ORIN_NANO_JP5 = (
    "01-24-2024 09:17:09 RAM 3503/7337MB (lfb 7x1MB) CPU [1%@729] EMC_FREQ 0%@2133 GR3D_FREQ 0%@305 GR3D2_FREQ 0%@0 "
    "VIC_FREQ 115 APE 174 CV0@42.718C VDD_IN 4915mW/4915mW VDD_CPU_GPU_CV 449mW/449mW VDD_SOC 1431mW/1431mW"
)
ORIN_NANO_JP6 = (
    "04-19-2026 01:32:18 RAM 4239/7607MB (lfb 5x2MB) CPU [0%@1728,9%@1728] EMC_FREQ 80%@3199 GR3D_FREQ 99%@[1013] "
    "NVDEC off NVJPG off NVJPG1 off VIC off OFA off APE 200 cpu@56.906C soc2@56.375C soc0@55.343C gpu@59.843C "
    "tj@59.843C soc1@53.781C VDD_IN 21663mW/11830mW VDD_CPU_GPU_CV 9299mW/4566mW VDD_SOC 6090mW/3643mW"
)
STAMPED = (
    "1788249045575991132\t09-01-2026 15:50:45 RAM 4084/7620MB (lfb 16x4MB) SWAP 361/3810MB (cached 0MB) "
    "CPU [27%@1344,14%@1344] GR3D_FREQ 34% cpu@49.406C VDD_IN 5942mW/5575mW VDD_CPU_GPU_CV 1067mW/1079mW "
    "VDD_SOC 1740mW/1611mW"
)
AGX_ORIN_JP5 = (
    f"{HEAD} GR3D_FREQ 0%@0 GR3D2_FREQ 0%@0 GPU@-256C VDD_GPU_SOC 2412mW/2412mW VDD_CPU_CV 804mW/804mW "
    "VIN_SYS_5V0 4707mW/4707mW NC 0mW/0mW VDDQ_VDD2_1V8AO 301mW/301mW NC 0mW/0mW"
)
AGX_ORIN_JP6 = (
    "05-09-2026 18:42:06 RAM 18207/62841MB (lfb 466x4MB) CPU [1%@729] EMC_FREQ 3%@2133 GR3D_FREQ 0%@[0,0] "
    "NVENC 79%@166 NVDEC off NVDLA0 off NVDLA1 off PVA0_FREQ off APE 174 cpu@52.562C VDD_GPU_SOC 2412mW/2412mW "
    "VDD_CPU_CV 1607mW/1607mW VIN_SYS_5V0 4707mW/4707mW"
)
ORIN_JP7 = (
    "07-25-2026 09:08:28 RAM 20642/62817MB (lfb 1x2MB) CPU [3%@729] EMC_FREQ 3%@3199 GR3D_FREQ 12%@[1300,1300] "
    "NVENC0 off cpu@52.968C/52.968C VDD_GPU_SOC 5139mW/5139mW/5139mW VDD_CPU_CV 1607mW/1600mW/1900mW"
)
THOR = (
    f"{HEAD} EMC_FREQ 0%@665 GR3D_FREQ @[0,0,0] NVENC0_FREQ @0 APE 300 cpu@34.468C tj@34.5C soc012@33.5C "
    "VDD_GPU 0mW/0mW VDD_CPU_SOC_MSS 4165mW/4165mW VIN_SYS_5V0 4126mW/4126mW"
)

# line: rails in W, total in W, whether the board measures it, GPU load and clock in MHz, memory load and clock
KNOWN: dict[str, tuple[str, dict[str, float], float, bool, tuple[float | None, ...]]] = {
    "nano": (NANO, {"POM_5V_IN": 0.9, "POM_5V_GPU": 0, "POM_5V_CPU": 0.123}, 0.9, True, (0, None, 0, None)),
    "nano sudo": (
        NANO_SUDO,
        {"POM_5V_IN": 1.75, "POM_5V_GPU": 0, "POM_5V_CPU": 0.289},
        1.75,
        True,
        (0, 76, 0, 1600),
    ),
    "tx2": (
        TX2,
        {
            "VDD_SYS_GPU": 0.192,
            "VDD_SYS_SOC": 0.529,
            "VDD_4V0_WIFI": 0.038,
            "VDD_IN": 3.566,
            "VDD_SYS_CPU": 1.156,
            "VDD_SYS_DDR": 0.902,
        },
        3.566,
        True,
        (None, 0, 0.02, 1600),
    ),
    "agx xavier": (
        AGX_XAVIER,
        {"GPU": 0, "CPU": 0.216, "SOC": 0.864, "CV": 0, "VDDRQ": 0.144, "SYS5V": 1.889},
        3.113,
        False,
        (None, None, None, None),
    ),
    "xavier nx 4": (
        XAVIER_NX_JP4,
        {"VDD_IN": 6.14, "VDD_CPU_GPU_CV": 2.706, "VDD_SOC": 1.074},
        6.14,
        True,
        (0, 1109, 0.02, 1600),
    ),
    "xavier nx 5": (
        XAVIER_NX_JP5,
        {"VDD_IN": 2.763, "VDD_CPU_GPU_CV": 0.65, "VDD_SOC": 0.65},
        2.763,
        True,
        (0, 114, None, None),
    ),
    "orin nano 5": (
        ORIN_NANO_JP5,
        {"VDD_IN": 4.915, "VDD_CPU_GPU_CV": 0.449, "VDD_SOC": 1.431},
        4.915,
        True,
        (0, 305, 0, 2133),
    ),
    "orin nano 6": (
        ORIN_NANO_JP6,
        {"VDD_IN": 21.663, "VDD_CPU_GPU_CV": 9.299, "VDD_SOC": 6.09},
        21.663,
        True,
        (0.99, 1013, 0.8, 3199),
    ),
    "stamped": (
        STAMPED,
        {"VDD_IN": 5.942, "VDD_CPU_GPU_CV": 1.067, "VDD_SOC": 1.74},
        5.942,
        True,
        (0.34, None, None, None),
    ),
    "agx orin 5": (
        AGX_ORIN_JP5,
        {"VDD_GPU_SOC": 2.412, "VDD_CPU_CV": 0.804, "VIN_SYS_5V0": 4.707, "VDDQ_VDD2_1V8AO": 0.301},
        8.224,
        False,
        (0, 0, None, None),
    ),
    "agx orin 6": (
        AGX_ORIN_JP6,
        {"VDD_GPU_SOC": 2.412, "VDD_CPU_CV": 1.607, "VIN_SYS_5V0": 4.707},
        8.726,
        False,
        (0, 0, 0.03, 2133),
    ),
    "orin 7": (ORIN_JP7, {"VDD_GPU_SOC": 5.139, "VDD_CPU_CV": 1.607}, 6.746, False, (0.12, 1300, 0.03, 3199)),
    "thor": (
        THOR,
        {"VDD_GPU": 0, "VDD_CPU_SOC_MSS": 4.165, "VIN_SYS_5V0": 4.126},
        8.291,
        False,
        (None, 0, 0, 665),
    ),
}


def log_of(tmp_path: Path, text: str | bytes, name: str = "a.log") -> PowerLog:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    found = open_input(path)
    assert isinstance(found, PowerLog)
    return found


def dated(second: int, watts: int = 5000, line: str = ORIN_NANO_JP6) -> str:
    """Return a line of an Orin Nano at a second of an hour, with so many mW."""
    stamp = f"04-19-2026 {1 + second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
    return line.replace("04-19-2026 01:32:18", stamp).replace("21663mW", f"{watts}mW") + "\n"


def first(values: np.ndarray | None) -> float | None:
    return None if values is None or np.isnan(values[0]) else float(values[0])


@pytest.mark.parametrize("board", KNOWN)
def test_a_real_line_of_each_board_and_release(tmp_path: Path, board: str) -> None:
    line, rails, total, has_total, (load, clock, memory_load, memory_clock) = KNOWN[board]
    log = log_of(tmp_path, f"{line}\n{line}\n" if "-20" not in line else f"{line}\n")
    assert {rail.name: rail.watts[0] for rail in log.rails} == pytest.approx(rails)
    assert log.total_w[0] == pytest.approx(total)
    assert log.has_total is has_total
    assert first(log.loads.get("gpu")) == (None if load is None else pytest.approx(load))
    assert first(log.clocks_hz.get("gpu")) == (None if clock is None else pytest.approx(clock * 1e6))
    assert first(log.loads.get("memory")) == (None if memory_load is None else pytest.approx(memory_load))
    assert first(log.clocks_hz.get("memory")) == (None if memory_clock is None else pytest.approx(memory_clock * 1e6))
    assert (log.left_out, log.source.format) == (0, "tegrastats")


def test_the_sensor_of_a_block_that_is_off_has_no_temperature(tmp_path: Path) -> None:
    assert np.isnan(log_of(tmp_path, f"{AGX_ORIN_JP5}\n").temperatures_c["gpu"]).all()
    assert log_of(tmp_path, f"{ORIN_JP7}\n").temperatures_c["cpu"][0] == 52.968


def test_cores_that_are_off_do_not_count(tmp_path: Path) -> None:
    online = log_of(tmp_path, f"{TX2}\n").online_cpus
    assert online is not None
    assert online.tolist() == [4]


def test_whole_seconds_are_spread_over_their_second(tmp_path: Path) -> None:
    lines = "".join(dated(second) for second in (9, *[10] * 10, *[11] * 10, *[12] * 10, 13))
    log = log_of(tmp_path, lines)
    assert log.clock is not None
    assert (log.clock.kind, log.clock.error_ns) == ("local", 100_000_000)
    assert np.diff(log.times_ns).tolist() == [100_000_000] * 31
    # Ten lines of second 10 lie at 0.05, 0.15, ... of it.
    assert log.times_ns[1] % 1_000_000_000 == 50_000_000


def test_a_line_a_second_lies_in_the_middle_of_it(tmp_path: Path) -> None:
    log = log_of(tmp_path, "".join(dated(second) for second in (10, 11, 12, 14, 15)))
    assert (log.times_ns % 1_000_000_000).tolist() == [500_000_000] * 5
    assert log.clock is not None
    assert log.clock.error_ns == 500_000_000


def test_stamps_of_a_pipe_win_over_those_of_tegrastats(tmp_path: Path) -> None:
    log = log_of(tmp_path, f"{STAMPED}\n")
    assert log.clock is not None
    assert (log.clock.kind, log.clock.first_ns) == ("utc", 1788249045575991132)


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("1788249045", 1788249045 * 10**9),
        ("1788249045.575991", 1788249045575991000),
        ("1788249045575", 1788249045575 * 10**6),
        ("1788249045575991", 1788249045575991 * 10**3),
        ("1788249045575991132", 1788249045575991132),
        ("2026-09-01T07:50:45.5Z", 1788249045500000000),
        ("2026-09-01T15:50:45.500+08:00", 1788249045500000000),
        ("2026-09-01 03:50:45,500 -0400", 1788249045500000000),
    ],
)
def test_stamps_of_many_forms(tmp_path: Path, stamp: str, expected: int) -> None:
    log = log_of(tmp_path, f"{stamp} {NANO}\n{stamp[:-1]}{stamp[-1]} {NANO}\n")
    assert log.clock is not None
    assert log.clock.kind == "utc"
    whole = expected // 10**9 * 10**9
    # One stamp of a whole second is put in the middle of it.
    assert log.times_ns[0] in (expected, whole + 5 * 10**8, whole + 25 * 10**7)


def test_lines_without_stamps_are_counted(tmp_path: Path) -> None:
    log = log_of(tmp_path, f"{NANO}\n" * 5)
    assert log.clock is not None
    assert (log.clock.kind, log.clock.last_ns) == ("counted", 4 * 10**9)
    assert any("no line carries a time" in note for note in log.notes)
    assert log.respaced(10**8).times_ns.tolist() == [0, 10**8, 2 * 10**8, 3 * 10**8, 4 * 10**8]


def test_a_prompt_on_top_and_garbage_in_between_are_left_out(tmp_path: Path) -> None:
    text = "nvidia@linux:~$ sudo tegrastats \n[sudo] password for nvidia: \n" + dated(1) + "Traceback: \x1b[31mno\n"
    text += dated(2) + "\n" + dated(3) + "RAM is full\n" + dated(4)[:120] + "\n" + dated(5)
    log = log_of(tmp_path, text)
    assert log.records == 4
    assert log.left_out == 5
    assert any("'nvidia@linux:~$ sudo tegrastats'" in note for note in log.notes)
    assert any("1 line is cut" in note for note in log.notes)
    assert not any("\x1b" in note for note in log.notes)


def test_two_programs_that_wrote_into_one_line(tmp_path: Path) -> None:
    text = dated(1) + "epoch 3: loss 0.2 " + dated(2) + dated(3).replace(" CPU [", " oops CPU [") + dated(4)
    log = log_of(tmp_path, text)
    assert log.records == 4
    assert log.total_w.tolist() == [5.0] * 4


def test_layouts_may_change_in_the_course(tmp_path: Path) -> None:
    """Without sudo at first, then with; a board that gains a rail."""
    other = ORIN_NANO_JP6.replace(" EMC_FREQ 80%@3199", "").replace("99%@[1013]", "99%")
    log = log_of(tmp_path, "".join(dated(n, 4000 + n, other if n % 2 else ORIN_NANO_JP6) for n in range(20)))
    assert log.total_w.tolist() == [4.0 + n / 1000 for n in range(20)]
    assert np.isnan(log.clocks_hz["gpu"]).tolist() == [bool(n % 2) for n in range(20)]


def test_daylight_saving_ends_in_the_course(tmp_path: Path) -> None:
    log = log_of(tmp_path, "".join(map(dated, [3597, 3598, 3599, 0, 1, 2, 3])))
    assert (log.records, log.left_out) == (7, 0)
    assert np.diff(log.times_ns).tolist() == [10**9] * 6
    assert log.clock is not None
    assert log.clock.jumps_ns == (-3600 * 10**9,)
    assert any("daylight saving" in note for note in log.notes)


def test_a_clock_that_was_set_back_splits_the_log(tmp_path: Path) -> None:
    log = log_of(tmp_path, "".join(map(dated, [100, 101, 102, 40, 41, 42, 43, 44])))
    assert (log.records, log.left_out) == (5, 3)
    assert any("the clock went back once" in note for note in log.notes)


def test_a_pause_is_no_daylight_saving(tmp_path: Path) -> None:
    log = log_of(tmp_path, "".join(map(dated, [1, 2, 3, 3603, 3604])))
    assert int(np.diff(log.times_ns).max()) == 3600 * 10**9
    assert log.clock is not None
    assert log.clock.jumps_ns == ()


@pytest.mark.parametrize("how", ["crlf", "utf-16", "utf-8 mark", "gzip", "no line feed at the end"])
def test_files_of_other_systems(tmp_path: Path, how: str) -> None:
    text = "".join(map(dated, range(5)))
    data = {
        "crlf": text.replace("\n", "\r\n").encode(),
        "utf-16": text.encode("utf-16"),
        "utf-8 mark": text.encode("utf-8-sig"),
        "gzip": gzip.compress(text.encode()),
        "no line feed at the end": text.rstrip("\n").encode(),
    }[how]
    log = log_of(tmp_path, data)
    assert (log.records, log.left_out) == (5, 0)


def test_a_cut_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    data = gzip.compress(np.random.default_rng(1).bytes(70_000) + "".join(map(dated, range(900))).encode())
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="end early or are damaged"):
        read(path)


def test_a_log_without_power_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text(f"{HEAD} GR3D_FREQ 3%\n")
    with pytest.raises(InputError, match="no power rail"):
        read(path)


def test_the_input_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text(dated(1) + "garbage\n")
    before = (path.read_bytes(), sorted(tmp_path.iterdir()))
    read(path)
    assert (path.read_bytes(), sorted(tmp_path.iterdir())) == before


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([line for line, *_ in KNOWN.values()]),
            st.text(max_size=60),
            st.sampled_from([ORIN_NANO_JP6, NANO, TX2]).flatmap(
                lambda line: st.integers(0, len(line)).map(lambda at: line[:at])
            ),
        ),
        max_size=12,
    ),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
)
def test_any_mixture_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: str) -> None:
    path = tmp_path_factory.mktemp("log") / "a.log"
    path.write_bytes(end.join(lines).encode("utf-8", "surrogatepass"))
    try:
        log = read(path)
    except InputError:
        return
    assert log.records == len(log.times_ns) == len(log.total_w) > 0
    assert (np.diff(log.times_ns) > 0).all()
    assert not np.isnan(log.total_w).any()


@needs_logs
def test_every_line_of_the_real_logs_is_read() -> None:
    found = {path.name.partition("__")[0]: open_input(path) for path in sorted(FOLDER.glob("*.[lrt]*"))}
    counts = {name: (log.records, log.left_out) for name, log in found.items() if isinstance(log, PowerLog)}
    assert counts == {
        "FlankKaicoder": (5, 2),  # a comment on top, and the last line is cut
        "SumantBagri": (114, 0),
        "bjgeiser": (103, 0),
        "hokwangchoi": (661, 0),
        "putmotorsport": (2, 2),  # a shell prompt and a question for a password
    }


@needs_logs
def test_the_orin_nano_log_equals_what_its_author_made_of_it() -> None:
    raw = read(next(FOLDER.glob("hokwangchoi*.raw")))
    columns = np.genfromtxt(next(FOLDER.glob("hokwangchoi*.csv")), delimiter=",", names=True)
    assert len(columns) == raw.records == 661
    assert raw.total_w == pytest.approx(columns["power_in_mw"] / 1000)
    rails = {rail.name: rail.watts for rail in raw.rails}
    assert rails["VDD_CPU_GPU_CV"] == pytest.approx(columns["power_cpu_gpu_cv_mw"] / 1000)
    assert rails["VDD_SOC"] == pytest.approx(columns["power_soc_mw"] / 1000)
    assert raw.loads["gpu"] == pytest.approx(columns["gpu_pct"] / 100)
    assert raw.clocks_hz["gpu"] == pytest.approx(columns["gpu_freq_mhz"] * 1e6)


@needs_logs
def test_what_somebody_derived_from_a_log_is_no_log() -> None:
    with pytest.raises(InputError):
        open_input(next(FOLDER.glob("hokwangchoi*.csv")))
