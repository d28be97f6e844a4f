"""Of a power log of several GPUs, the boards count whose GPUs the trace used, or those that the user names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from builders import gpu, kernel, trace, write_nsys_sqlite
from nitro.analyzer import Analysis, Trace, analyze, open_input, open_trace
from nitro.analyzer.export import write_parquet
from nitro.analyzer.gpu_identity import gpu_uuid, pci_bus_id
from nitro.analyzer.power_boards import chosen_boards
from nitro.analyzer.power_log import PowerLog
from nitro.analyzer.trace import Capture, Device
from nitro.errors import UsageError
from power_runs import DURATION, MS, START, S

UUIDS = [f"{number}10bc05b-778a-a2aa-f210-230b5a8ea938" for number in range(1, 5)]
BUSES = [f"00000000:{bus}:00.0" for bus in ("01", "41", "81", "c1")]
# What each board draws, so that a sum tells which of them are in it.
WATTS = [100.0, 200.0, 400.0, 800.0]
COLUMNS = {
    "index": [str(number) for number in range(4)],
    "uuid": [f"GPU-{uuid}" for uuid in UUIDS],
    "pci.bus_id": BUSES,
}


def smi(path: Path, columns: Sequence[str], gpus: Sequence[int] = range(4)) -> PowerLog:
    """Write and read a log of some GPUs, in which they are told apart by these columns."""
    begin = datetime.fromtimestamp(START / S, timezone.utc)
    lines = [", ".join(("timestamp", *columns, "power.draw.instant [W]", "utilization.gpu [%]"))]
    for record in range(DURATION // (50 * MS)):
        moment = begin + timedelta(milliseconds=50 * record)
        stamp = f"{moment:%Y/%m/%d %H:%M:%S}.{moment.microsecond // 1000:03}"
        for number in gpus:
            who = [COLUMNS[column][number] for column in columns]
            lines.append(", ".join((stamp, *who, f"{WATTS[number]} W", f"{number} %")))
    path.write_text("\n".join(lines) + "\n")
    log = open_input(path)
    assert isinstance(log, PowerLog)
    return log


def device(number: int, *, facts: str = "uuid bus", device_id: int | None = None) -> Device:
    """Describe a GPU as a trace does, whose numbers are in another order than those of nvidia-smi."""
    return replace(
        gpu(3 - number if device_id is None else device_id),
        uuid=UUIDS[number] if "uuid" in facts else None,
        pci_bus_id=BUSES[number] if "bus" in facts else None,
    )


def used(*numbers: int, described: Sequence[Device] | None = None) -> Trace:
    """Return a run that used some GPUs of a machine with four."""
    return trace(
        kernels=[kernel(3 * S, 7 * S, "gemm", device_id=3 - number) for number in numbers],
        devices=[device(number) for number in range(4)] if described is None else list(described),
        capture=Capture(duration_ns=DURATION, start_utc_ns=START, utc_offset_s=0),
    )


def watts(analysis: Analysis) -> float:
    (power,) = (entry for entry in analysis.measurements if (entry.metric, entry.by) == ("power", "mean"))
    return float(power.value)


def notes(analysis: Analysis) -> str:
    return "; ".join(note for placed in analysis.evidence for note in placed.evidence.notes)


class TestTheGpusOfTheTrace:
    @pytest.mark.parametrize("columns", [["index", "uuid"], ["uuid"], ["pci.bus_id"], ["index"], [*COLUMNS]])
    def test_the_one_that_ran_counts_alone(self, tmp_path: Path, columns: list[str]) -> None:
        log = smi(tmp_path / "power.csv", columns)
        for number in range(4):
            analysis = analyze(used(number), log)
            assert watts(analysis) == WATTS[number]
            assert "the log has 4 GPUs, of which the trace used GPU " in notes(analysis)
            # Its load, too, is its own.
            assert analysis.value("logged_gpu_load", None, "mean") == pytest.approx(number / 100)

    def test_several_that_ran_count_together_and_all_of_them_without_a_note(self, tmp_path: Path) -> None:
        log = smi(tmp_path / "power.csv", ["index", "uuid"])
        two = analyze(used(1, 3), log)
        assert watts(two) == 1000
        assert "the trace used GPU 1, GPU 3" in notes(two)
        every = analyze(used(0, 1, 2, 3), log)
        assert watts(every) == 1500
        assert "of which" not in notes(every)

    def test_of_a_part_of_the_trace_its_gpu_counts(self, tmp_path: Path) -> None:
        log = smi(tmp_path / "power.csv", ["index", "uuid"])
        assert watts(analyze(used(1, 3), log, device_ids=[0])) == WATTS[3]

    @pytest.mark.parametrize(
        ("columns", "described"),
        [
            (["index"], []),
            (["index"], [device(2)]),
            (["index"], [device(number, facts="uuid") for number in range(4)]),
            (["pci.bus_id"], [device(number, facts="uuid") for number in range(4)]),
            (["uuid"], [device(number, facts="bus") for number in range(4)]),
        ],
    )
    def test_where_none_can_tell_all_count_and_it_is_said(
        self, tmp_path: Path, columns: list[str], described: list[Device]
    ) -> None:
        analysis = analyze(used(2, described=described), smi(tmp_path / "power.csv", columns))
        assert watts(analysis) == 1500
        assert "cannot be told which of them the trace used, so all of them count; choose with --log-gpu" in notes(
            analysis
        )

    def test_numbers_that_are_not_all_of_the_machine_tell_nothing(self, tmp_path: Path) -> None:
        """The first two of the trace's four slots are not the two GPUs of the log."""
        analysis = analyze(used(2), smi(tmp_path / "power.csv", ["index"], gpus=[2, 3]))
        assert watts(analysis) == WATTS[2] + WATTS[3]

    def test_a_log_of_one_gpu_is_taken_as_it_is(self, tmp_path: Path) -> None:
        analysis = analyze(used(0), smi(tmp_path / "power.csv", ["uuid"], gpus=[2]))
        assert (watts(analysis), notes(analysis)) == (WATTS[2], "")


class TestTheUsersChoice:
    @pytest.mark.parametrize("name", ["2", "GPU 2", UUIDS[2], f"GPU-{UUIDS[2].upper()}", "81:00.0", "0000:81:00.0"])
    def test_by_number_uuid_or_slot(self, tmp_path: Path, name: str) -> None:
        log = chosen_boards(smi(tmp_path / "power.csv", [*COLUMNS]), [name])
        analysis = analyze(used(0), log)
        assert watts(analysis) == WATTS[2]
        assert "the log has 4 GPUs, of which GPU 2 was chosen" in notes(analysis)

    def test_several_and_all(self, tmp_path: Path) -> None:
        log = smi(tmp_path / "power.csv", ["index", "uuid"])
        assert watts(analyze(used(0), chosen_boards(log, ["0", "3"]))) == 900
        assert watts(analyze(used(0), chosen_boards(log, ["all"]))) == 1500
        assert watts(analyze(used(0), chosen_boards(log, ["0", "1", "2", "3"]))) == 1500

    def test_one_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        log = smi(tmp_path / "power.csv", ["index"], gpus=[0, 1])
        with pytest.raises(UsageError, match="no GPU of this log is called 7; choose among GPU 0, GPU 1"):
            chosen_boards(log, ["7"])
        with pytest.raises(UsageError, match="is called all"):
            chosen_boards(log, ["0", "all"])


class TestIdentity:
    def test_a_trace_tells_uuid_and_slot_and_no_output_holds_the_uuid(self, tmp_path: Path) -> None:
        path = write_nsys_sqlite(tmp_path / "run.sqlite", used(2))
        read = open_trace(path)
        described = {entry.device_id: (entry.uuid, entry.pci_bus_id) for entry in read.devices}
        assert described == {3 - number: (UUIDS[number], BUSES[number]) for number in range(4)}
        write_parquet(read, tmp_path / "tables")
        saved = json.dumps(analyze(read).to_dict()) + "".join(
            file.read_text() for file in (tmp_path / "tables").iterdir() if file.suffix == ".json"
        )
        assert "778a-a2aa" not in saved
        tables = open_trace(tmp_path / "tables")
        assert watts(analyze(tables, smi(tmp_path / "power.csv", ["index"]))) == WATTS[2]

    @pytest.mark.parametrize(
        ("text", "uuid", "bus"),
        [
            ("GPU-110BC05B-778a-a2aa-f210-230b5a8ea938", "110bc05b-778a-a2aa-f210-230b5a8ea938", None),
            ("00000000-0000-0000-0000-000000000000", None, None),
            ("0000:8A:00.0", None, "00000000:8a:00.0"),
            ("00000001:0:1F.7", None, "00000001:00:1f.7"),
            ("8a:00.0", None, "00000000:8a:00.0"),
            ("", None, None),
            ("<gpu-1>", None, None),
            (7, None, None),
            (None, None, None),
        ],
    )
    def test_both_spellings_are_one(self, text: object, uuid: str | None, bus: str | None) -> None:
        assert (gpu_uuid(text), pci_bus_id(text)) == (uuid, bus)
