"""The report about a comparison: figures, what is shown of every side, hostile names, and Korean pages."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builders import call, gpu, kernel, nvtx_range, sample, trace, write_nsys_sqlite
from nitro.analyzer import Trace, open_trace
from nitro.analyzer.causes import Cause
from nitro.analyzer.compare import Comparison, compare
from nitro.analyzer.compare.waterfall import KEYS
from nitro.reports import blocks, comparison_numbers, figures
from nitro.reports.comparison import (
    ComparisonDocuments,
    all_comparison_sections,
    build_comparison_report,
    comparison_json,
    print_comparison,
)
from nitro.reports.numbers import Quantity
from nitro.reports.output import Settings
from nitro.reports.palette import COLOURS
from nitro.reports.report import Report
from vega_lite import assert_is_vega_lite

if TYPE_CHECKING:
    from reports.conftest import Open

PAIRS = Path(__file__).resolve().parents[1] / "data" / "pairs"
NAMES = (
    "<script>window.pwned=1;alert(1)</script>",
    '"><img src=x onerror="window.pwned=1">',
    "</script><script>window.pwned=1</script>",
    "{{ 7*7 }}",
    "{0} {name} {",
    "%s %(name)s %",
    "right \u202eto left\u202c",
    "bell \x07 escape \x1b[31mred\x1b[0m",
    "`code` | *star* [link](javascript:window.pwned=1)",
    "=cmd|'/c calc'!A1",
    "이름 日本語 🚀",
    "",
    "template<" + "int, " * 6_000 + "int>(void)",
)


@cache
def comparison() -> Comparison:
    sides = [[open_trace(PAIRS / f"{name}_{number}.sqlite.xz") for number in (1, 2)] for name in ("eager", "graph")]
    return compare(sides[0], sides[1])


@cache
def report() -> Report:
    return build_comparison_report(comparison())


def found(kind: type[blocks.Block]) -> Iterator[blocks.Block]:
    for section in report().chapters[0].sections:
        yield from (block for block in section.blocks if isinstance(block, kind))


def drawn() -> dict[str, blocks.Figure]:
    return {figure.name: figure for figure in found(blocks.Figure) if isinstance(figure, blocks.Figure)}


FIGURES = ("waterfall-gpu0", "timelines-compared", "phases-compared-gpu0", "effects", "iterations-compared")


def test_it_has_every_section_and_figure() -> None:
    assert [section.name for section in report().chapters[0].sections] == [s.name for s in all_comparison_sections()]
    assert tuple(drawn()) == FIGURES


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_valid_vega_lite_and_says_what_it_shows(name: str) -> None:
    figure = drawn()[name]
    assert figure.sentence.endswith(".")
    for scheme in figures.INKS:
        assert_is_vega_lite(figures.dressed(figure.spec, width=700, scheme=scheme))


def test_every_step_has_a_colour_of_its_own() -> None:
    assert set(KEYS) <= set(COLOURS)
    assert len({COLOURS[key] for key in KEYS}) == len(KEYS)


def test_bars_of_the_waterfall_begin_where_others_end_and_reach_the_whole_change() -> None:
    *steps, whole = drawn()["waterfall-gpu0"].spec["data"]["values"]
    assert steps[0]["from"] == 0
    assert [bar["from"] for bar in steps[1:]] == [bar["to"] for bar in steps[:-1]]
    assert steps[-1]["to"] == whole["to"] == pytest.approx(float(comparison().devices[0].waterfall.delta) / 1e6)
    assert whole["from"] == 0


def test_both_timelines_share_their_scale() -> None:
    before, after = drawn()["timelines-compared"].spec["vconcat"]
    domains = [part["layer"][0]["encoding"]["x"]["scale"]["domain"] for part in (before, after)]
    assert domains[0] == domains[1]
    ends = [part["layer"][-1]["encoding"]["x"]["datum"] for part in (before, after)]
    assert max(ends) == domains[0][1]
    assert min(ends) < domains[0][1] / 2


def test_no_kernel_is_left_out_of_the_table() -> None:
    (table,) = (block for block in found(blocks.Table) if getattr(block, "name", "").startswith("matched"))
    assert isinstance(table, blocks.Table)
    (device,) = comparison().devices
    assert len(table.rows) == len(device.matching.rows)
    changes = [cell.value for row in table.rows if isinstance(cell := row[-1], Quantity)]
    unit = {"µs": 1e3, "ms": 1e6}[table.columns[-1].title.rpartition(" ")[2]]
    assert sum(value for value in changes if value is not None) * unit == pytest.approx(float(device.matching.delta_ns))


def test_idle_causes_are_below_their_sum() -> None:
    (table,) = (block for block in found(blocks.Table) if getattr(block, "name", "") == "waterfall-gpu0")
    assert isinstance(table, blocks.Table)
    titles = [row[0] for row in table.rows]
    (device,) = comparison().devices
    shown = [step for step in device.waterfall.steps if step.key in {cause.id for cause in Cause}]
    place = titles.index("GPU idle")
    assert [title.strip() for title in titles[place + 1 : -1]] == [step.title for step in shown]


def test_each_sentence_of_the_story_is_shown() -> None:
    (points,) = (section.blocks[0] for section in report().chapters[0].sections if section.name == "story")
    assert isinstance(points, blocks.Points)
    (device,) = comparison().devices
    assert [text.lower().rstrip(".") for _, text in points.items] == [
        sentence.text.lower() for sentence in device.story[1:]
    ]


def test_json_is_the_comparison() -> None:
    assert json.loads(comparison_json(comparison())) == json.loads(json.dumps(comparison().to_dict(), default=str))


def test_the_terminal_has_no_sections_of_documents() -> None:
    stream = io.StringIO()
    print_comparison(comparison(), stream)
    text = stream.getvalue()
    assert "PROVENANCE" not in text
    assert "WHERE THE CHANGE CAME FROM" in text


class TestNumbers:
    def test_durations_of_a_column_add_up(self) -> None:
        values = [1_234_567, 7_654_321, 111_112]
        shown = [comparison_numbers.fixed(value, "ms") for value in values]
        assert shown == ["1.235", "7.654", "0.111"]
        assert comparison_numbers.fixed(sum(values), "ms") == "9.000"

    def test_a_change_has_its_sign_and_nothing_has_none(self) -> None:
        assert comparison_numbers.fixed(-1_500_000, "ms", is_signed=True) == "-1.500"
        assert comparison_numbers.fixed(1_500_000, "ms", is_signed=True) == "+1.500"
        assert comparison_numbers.fixed(-4, "ms", is_signed=True) == "0.000"
        assert comparison_numbers.signed_percent(-0.00001) == "0.00 %"
        assert comparison_numbers.signed_percent(0.5) == "+50.0 %"
        assert comparison_numbers.signed_duration(-1_900_000) == "-1.90 ms"

    def test_the_unit_is_that_of_the_longest(self) -> None:
        assert comparison_numbers.unit_of(5, 999_999) == "µs"
        assert comparison_numbers.unit_of(5, -1_000_000) == "ms"
        assert comparison_numbers.unit_of() == "ns"

    def test_a_missing_side_is_a_dash(self) -> None:
        shown = comparison_numbers.from_to(None, 0.25, comparison_numbers.bare_percent)
        assert (shown, shown.value) == ("– → 25.0", None)
        assert comparison_numbers.from_to(0.5, 0.25, comparison_numbers.bare_percent).value == -0.25


def hostile(scale: int) -> Trace:
    """Return iterations with hostile names everywhere; `scale` makes the kernels longer."""
    kernels, calls, ranges, samples = [], [], [], []
    now, identifier = 1_000, 0
    for _ in range(6):
        begin = now
        for name in NAMES[scale - 1 :]:
            identifier += 1
            ranges.append(nvtx_range(now, now + 900, name or "x"))
            calls.append(call(now + 10, now + 50, correlation_id=identifier))
            kernels.append(kernel(now + 100, now + 100 + 300 * scale, name, correlation_id=identifier))
            samples.append(sample(now + 500, "sm_active", 10 * scale))
            now += 1_000
        ranges.append(nvtx_range(begin - 10, now - 20, "{{ 7*7 }} <b>step</b>"))
    device = gpu(0, "<script>window.pwned=1</script> GPU", sm_count=8)
    return trace(kernels=kernels, api_calls=calls, nvtx=ranges, gpu_metric_samples=samples, devices=[device])


FILES = ("{{ 7*7 }} <img src=x onerror=window.pwned=1>.sqlite", "' %s {0} after.sqlite")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with every output of a comparison of hostile traces, made by the command line."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, scale in zip(FILES, (1, 2), strict=True):
        write_nsys_sqlite(folder / name, hostile(scale))
    command = [sys.executable, "-m", "nitro.cli", "compare", "--before", FILES[0], "--after", FILES[1]]
    for name in ("a.html", "a.pdf", "a.md", "a.json"):
        command += ["-o", name]
    command += ["--assets", "assets", "--csv", "csv"]
    environment = os.environ | {"LANG": "en_US.UTF-8", "LC_ALL": "", "LC_MESSAGES": "", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (folder / "terminal.txt").write_text(done.stdout, encoding="utf-8")
    return folder


def test_hostile_names_reach_every_output_as_text(outputs: Path) -> None:
    assert (outputs / "a.pdf").read_bytes().startswith(b"%PDF-")
    for name in ("terminal.txt", "a.md"):
        text = (outputs / name).read_text(encoding="utf-8")
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u200e\u200f]", text), name
    page = (outputs / "a.html").read_text(encoding="utf-8")
    assert "<script>window.pwned" not in page
    assert "{{ 7*7 }}" in page
    for file in (*(outputs / "csv").iterdir(), *(outputs / "assets").glob("*.csv")):
        assert not re.search("(?m)(^|,)=cmd", file.read_text(encoding="utf-8")), file.name
    made = json.loads((outputs / "a.json").read_text())
    assert made["before"][0]["source"]["file_name"] == FILES[0]


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_page_runs_nothing_of_the_traces_and_fits(outputs: Path, open_page: Open, language: str) -> None:
    opened = open_page(outputs / "a.html")
    opened.choose("language", language)
    opened.draw_all()
    opened.settle()
    assert opened.page.evaluate("window.pwned") is None
    assert opened.complaints == []
    assert opened.requests == []
    content, window = opened.widths()
    assert content <= window
    assert opened.page.locator("main .plot canvas:visible, main .plot svg:visible").count() >= 4


def test_user_settings_are_in_the_documents() -> None:
    documents = ComparisonDocuments(comparison(), Settings(title="Fused at last", author="A. Author"))
    text = documents.markdown().decode()
    assert text.startswith("# Fused at last")
    assert "A. Author" in text
