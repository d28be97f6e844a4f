"""The sections about a run that nsys, nvidia-smi and ncu recorded (tests/data/power_capture)."""

from __future__ import annotations

from pathlib import Path

import pytest

from nitro.analyzer import Analysis, analyze, open_inputs
from nitro.analyzer.power_log import PowerLog
from nitro.reports.blocks import Block, Figure, KeyValues, Paragraph, Table
from nitro.reports.output import Documents
from nitro.reports.sections import layers, roofline, soc_level

FOLDER = Path(__file__).parents[1] / "data" / "power_capture"


def analysed(*beside: str, window: str = "auto") -> Analysis:
    (opened,) = open_inputs([FOLDER / name for name in ("dual_encoder.sqlite.xz", *beside)])
    return analyze(opened.trace, *opened.evidence, window=window)


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analysed("power.csv.xz", "kernels.csv.xz")


def tables(blocks: tuple[Block, ...]) -> dict[str, Table]:
    return {block.name: block for block in blocks if isinstance(block, Table)}


def test_layers_that_the_sensor_resolves_have_a_table_of_joules(analysis: Analysis) -> None:
    table = tables(layers.build(analysis))["energy-of-layers"]
    assert [row[-1] for row in table.rows] == ["infer:#", "text (infer:#)"]
    energy = analysis.value("energy")
    assert energy is not None
    assert table.rows[0][0] == f"{energy / 1000:.2f} kJ"
    assert "at least 303 ms on average" in table.note
    assert "at least 20 of its samples" in table.note


def test_where_the_sensor_resolves_none_a_sentence_says_so(analysis: Analysis) -> None:
    log = next(placed.evidence for placed in analysis.evidence if isinstance(placed.evidence, PowerLog))
    (opened,) = open_inputs([FOLDER / name for name in ("dual_encoder.sqlite.xz", "kernels.csv.xz")])
    # 0.8 s of the run are too short for 20 measurements of anything.
    low = 5_000_000_000
    short = analyze(opened.trace, log, *opened.evidence, since_ns=low, until_ns=low + 800_000_000)
    blocks = layers.build(short)
    assert "energy-of-layers" not in tables(blocks)
    (said,) = [block.text for block in blocks if isinstance(block, Paragraph)]
    assert "none lasts long enough" in said


def test_without_a_log_nothing_is_said_of_joules() -> None:
    blocks = layers.build(analysed("kernels.csv.xz"))
    assert set(tables(blocks)) == {"layers"}
    assert not [block for block in blocks if isinstance(block, Paragraph)]


def test_the_section_of_power_says_how_often_the_sensor_measured(analysis: Analysis) -> None:
    blocks = soc_level.build(analysis)
    facts = dict(next(block for block in blocks if isinstance(block, KeyValues)).rows)
    assert "the sensor measures every 101 ms" in facts["Power log"]
    assert "98.3 % of the window: software power cap" in facts["Clocks held down"]
    rows = tables(blocks)["energy-by-phase"].rows
    # Of the many short layers, none has a row; short phases of the outer depths have one without joules.
    assert {row[1] for row in rows} == {"0", "1"}
    assert {row[0]: row[5] for row in rows}["infer:# > vision"] == "–"


def test_the_roofline_is_drawn_and_its_kernels_are_listed(analysis: Analysis) -> None:
    blocks = roofline.build(analysis)
    (figure,) = [block for block in blocks if isinstance(block, Figure)]
    assert "Roofs at 1.96 GHz" in figure.sentence
    rows = tables(blocks)["kernel-amounts-gpu0"].rows
    assert "nvjet" in rows[0][-1]
    assert rows[0][4] == "674 TFLOP/s"


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_page_has_all_three(analysis: Analysis, language: str) -> None:
    from nitro.reports.output import Settings

    page = Documents([analysis], Settings(language=language)).html().decode()  # type: ignore[arg-type]
    for name in ("roofline-gpu0", "power-over-time", "energy-by-phase", "energy-of-layers", "kernel-amounts-gpu0"):
        assert name in page
