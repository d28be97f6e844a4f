"""Reading what Nsight Compute counted: `benchmarks/fusion_counters.py` on text as ncu writes it."""

from __future__ import annotations

import importlib.util
import json
import stat
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nitro.fused_kernels.study_store import read_document
from nitro.fused_kernels.subjects import subjects

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "fusion_counters.py"
STUDY = BENCHMARK.parent / "results" / "fusion_h200" / "study.json"


@pytest.fixture(scope="module")
def counters() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fusion_counters", BENCHMARK)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["fusion_counters"] = module
    spec.loader.exec_module(module)
    return module


CSV = """==PROF== Connected to process 7
"ID","Name","gpu__time_duration.sum","dram__throughput.avg.pct_of_peak_sustained_elapsed","sm__cycles_active.avg.pct_of_peak_sustained_elapsed"
"","","ns","%","%"
"0","range","1,234,500","40.5","80"
"1","range","2000","n/a",""
==PROF== Disconnected
"""


def test_numbers_come_in_si_units_and_what_is_missing_is_none(counters: ModuleType) -> None:
    first, second = counters.parse(CSV)
    assert first["time_us"] == pytest.approx(1234.5)
    assert first["dram_ratio"] == pytest.approx(0.405)
    assert first["sm_active_ratio"] == pytest.approx(0.8)
    assert first["issue_ratio"] is None
    assert second["time_us"] == pytest.approx(2.0)
    assert second["dram_ratio"] is None
    assert second["sm_active_ratio"] is None


def test_the_reasons_to_wait_come_largest_first(counters: ModuleType) -> None:
    stalls = {"stalled_barrier": 0.5, "stalled_wait": 2.0, "stalled_long_scoreboard": 7.04, "stalled_not_selected": 9.0}
    assert counters.top_stalls(stalls) == "long_scoreboard 7.0, wait 2.0"
    assert counters.top_stalls({}) == ""


def content(counters: ModuleType) -> dict[str, object]:
    ways = [("first", [80]), ("sequential", [80, 40])]
    rows = counters.parse(CSV)
    return {
        "runs_in_a_range": 5,
        "ranges": [
            {
                "case": "a+b",
                "way": way,
                "kernels": [{"registers": count, "blocks_per_sm": 3} for count in registers],
                "counters": row,
            }
            for (way, registers), row in zip(ways, rows, strict=True)
        ],
    }


def test_the_table_has_a_line_a_way_and_the_busy_time_of_one_run(counters: ModuleType) -> None:
    lines = counters.table(content(counters)).splitlines()
    assert lines[2].startswith("| a+b | first | 198 | ")
    assert "| 80 + 40 | 3 + 3 |" in lines[3]
    assert {line.count("|") for line in lines} == {lines[0].count("|")}


def fake_ncu(folder: Path, csv_text: str, ranges: int, *, code: int = 0) -> str:
    """Return a program that writes a log and a workload as ncu and the workload would."""
    workload = {"device": {}, "ranges": [{"case": "a+b", "way": str(n), "kernels": []} for n in range(ranges)]}
    program = folder / "ncu"
    program.write_text(
        f"""#!{sys.executable}
import sys
words = sys.argv
if "--query-metrics" in words:
    print("dram__throughput   Throughput %")
    sys.exit(0)
open(words[words.index("--log-file") + 1], "w").write({csv_text!r})
open(words[words.index("--workload") + 1], "w").write({json.dumps(workload)!r})
sys.exit({code})
""",
        encoding="utf-8",
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


def test_each_range_gets_the_counters_of_its_place(counters: ModuleType, tmp_path: Path) -> None:
    ncu = fake_ncu(tmp_path, CSV, 2)
    assert counters.available(ncu) == {"dram__throughput"}
    found = counters.profile(ncu, [], STUDY, ["m"], "range", tmp_path)
    assert [one["counters"]["time_us"] for one in found["ranges"]] == [pytest.approx(1234.5), pytest.approx(2.0)]


def test_other_numbers_of_ranges_are_an_error(counters: ModuleType, tmp_path: Path) -> None:
    from nitro.errors import ToolError

    with pytest.raises(ToolError, match="ncu counted 2 ranges of 3; try another --replay mode"):
        counters.profile(fake_ncu(tmp_path, CSV, 3), [], STUDY, ["m"], "range", tmp_path)
    denied = "==ERROR== ERR_NVGPUCTRPERM - no permission\n"
    with pytest.raises(ToolError, match=r"ncu did not count: .*ERR_NVGPUCTRPERM.*; look at its permissions"):
        counters.profile(fake_ncu(tmp_path, denied, 0, code=1), [], STUDY, ["m"], "range", tmp_path)


def test_a_missing_ncu_and_an_unknown_case_are_one_sentence(
    counters: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fusion_counters", "--ncu", "no-such-ncu"])
    assert counters.main() == 5
    assert "no-such-ncu was not found; install Nsight Compute, or name it with --ncu." in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["fusion_counters", "--case", "tea"])
    assert counters.main() == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_every_winner_of_the_committed_study_is_known_today(counters: ModuleType) -> None:
    results = {result.name: result for result in read_document(STUDY)[0]}
    for case in subjects(counters.CASES):
        found = [family for family, _ in counters.winners(results[case.name], case, 90)]
        assert found == list(counters.FAMILIES)
