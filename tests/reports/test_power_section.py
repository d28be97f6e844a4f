"""The SoC level of a report with a power log: numbers, figure and table, in every output."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from nitro.analyzer import Analysis, analyze
from nitro.analyzer.power_phases import OUTSIDE
from nitro.reports import output
from nitro.reports.blocks import Figure, KeyFigures, KeyValues, Table
from nitro.reports.report import build_report
from power_logs import DURATION, FIRST, MS, PERIOD, S, log, run


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    times = np.arange(0, DURATION, 20 * MS)
    busy = ((times >= FIRST) & (times < FIRST + 9 * PERIOD)).astype(float)
    clock = np.where((times >= FIRST + 4 * S) & (times < FIRST + 6 * S), 600e6, 1000e6)
    made = log(
        loads={"gpu": busy, "memory": busy / 2},
        clocks_hz={"gpu": clock},
        temperatures_c={"tj": np.full(len(times), 59.84)},
        notes=("a note of the reader",),
        left_out=3,
    )
    return analyze(run(), made, batch=4, with_timeline=True)


def section(analysis: Analysis) -> list[object]:
    (found,) = (part for part in build_report(analysis).chapters[0].sections if part.name == "soc_level")
    return list(found.blocks)


def facts(analysis: Analysis) -> dict[str, str]:
    block = section(analysis)[0]
    assert isinstance(block, KeyValues)
    return dict(block.rows)


def test_the_facts_of_the_section(analysis: Analysis) -> None:
    found = facts(analysis)
    energy = analysis.find("energy")
    assert energy is not None
    assert energy.error is not None
    assert found["Energy"].startswith(f"{energy.value:.0f} J ± {energy.error:.2f} J in the window")
    assert "27.7 J" in found["Energy"]
    assert found["Total"] == "VDD_IN, the input of the module"
    assert found["Performance per watt"] == "0.144 items/J"
    assert found["Throughput"] == "2.00 items/s"
    assert found["Idle floor"].startswith("5.00 W while the GPU ran nothing")
    assert found["Highest temperature"] == "tj 59.8 °C"
    assert found["Clocks held down"] == "in 12.5 % of the window: GPU clock below its level under load"
    assert "lines left out: 3; a note of the reader" in found["Power log"]
    assert "off by" in found["Power log"]


def test_the_figure_has_power_loads_and_clock_over_the_window(analysis: Analysis) -> None:
    (figure,) = (block for block in section(analysis) if isinstance(block, Figure))
    power, loads, clock = figure.spec["vconcat"]
    values = [entry["value"] for entry in power["data"]["values"]]
    assert len(values) == 240
    assert (min(values), max(values)) == pytest.approx((5.0, 20.0), abs=0.1)
    assert {entry["series"] for entry in loads["data"]["values"]} == {"GPU load", "memory controller load"}
    assert {round(entry["value"]) for entry in clock["data"]["values"]} >= {600, 1000}


def test_the_table_adds_up_and_says_what_is_too_short(analysis: Analysis) -> None:
    tables = [block for block in section(analysis) if isinstance(block, Table)]
    energy, events = tables
    rows = {row[0]: row for row in energy.rows if row[1] == "1"}
    assert rows["infer:# > short"][5:] == ("–", "–", "–", "–", "–")
    shares = [float(row[7].removesuffix(" %")) for row in rows.values() if row[7] != "–"]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert str(OUTSIDE) in rows
    assert events.rows[0][0] == "GPU clock below its level under load"


def test_without_a_log_the_section_says_why() -> None:
    bare = analyze(run())
    assert "log it beside the run" in facts(bare)["Power and energy"]
    assert len(section(bare)) == 1


def test_a_log_of_a_part_gives_power_and_the_reason() -> None:
    found = facts(analyze(run(), log(high=FIRST + 8 * S)))
    assert "of the window only" in found["Energy"]
    assert "mean" in found["Power"]


@pytest.mark.parametrize("suffix", [".html", ".md", ".json"])
def test_every_output_has_the_energy(analysis: Analysis, suffix: str) -> None:
    made = output.Documents([analysis], output.Settings(), None)
    draw = output.FORMATS.get(suffix)
    data = draw(made) if draw is not None else output.json_bytes(analysis)
    text = data.decode()
    energy = analysis.value("energy")
    assert energy is not None
    if suffix == ".json":
        found = json.loads(text)
        assert [entry["value"] for entry in found["measurements"] if entry["metric"] == "energy"] == [energy]
        assert found["evidence"][0]["notes"] == ["a note of the reader"]
    else:
        assert f"{energy:.0f} J ±" in re.sub(r"\s+", " ", text)
        assert "Energy by phase" in text


def test_the_summary_has_the_energy_where_it_is_known(analysis: Analysis) -> None:
    def key_figures(of: Analysis) -> dict[str, str]:
        (found,) = (part for part in build_report(of).chapters[0].sections if part.name == "summary")
        (block,) = (part for part in found.blocks if isinstance(part, KeyFigures))
        return {figure.label: figure.value for figure in block.figures}

    item = analysis.value("energy_per_item")
    assert item is not None
    assert key_figures(analysis)["Energy an item"] == f"{item:.2f} J"
    assert "Energy an iteration" in key_figures(analyze(run(), log()))
    assert not any("Energy" in label for label in key_figures(analyze(run())))


def test_the_provenance_names_every_file(analysis: Analysis) -> None:
    (found,) = (part for part in build_report(analysis).chapters[0].sections if part.name == "provenance")
    (block,) = (part for part in found.blocks if isinstance(part, KeyValues))
    assert dict(block.rows)["Beside it"] == "power.log (built): 1,500 records, 3 left out; a note of the reader"
