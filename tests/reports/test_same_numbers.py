"""A number is the same wherever it is read: terminal, Markdown, page, paper and JSON."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from nitro.reports import numbers
from nitro.reports.output import Documents, json_bytes, print_overview

if TYPE_CHECKING:
    from reports.conftest import Library, Press

SAMPLE = "dual_encoder"
_NS = {"s": 1e9, "ms": 1e6, "µs": 1e3, "ns": 1.0}


@dataclass
class Cell:
    """A cell of a table: its text, and the number behind it."""

    value: str | None
    text: str = ""


@dataclass
class Page(HTMLParser):
    """The key figures and the tables of the English edition of a page."""

    html: str
    figures: list[dict[str, str]] = field(default_factory=list)
    tables: dict[str, list[list[Cell]]] = field(default_factory=dict)
    _place: str = ""
    _table: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        classes = found.get("class", "").split()
        if tag == "figure":
            self._table = found.get("id", "")
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append(Cell(found.get("data-value")))
            self._place = "cell"
        elif tag == "ul" and "key-figures" in classes:
            self._place = "figures"
        elif tag == "li" and self._place.startswith("figures"):
            self.figures.append({})
        elif tag in ("strong", "span") and self._place.startswith("figures"):
            self._place = f"figures {classes[0]}"

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "ul"):
            self._place = ""
        elif tag in ("strong", "span") and self._place.startswith("figures"):
            self._place = "figures"

    def handle_data(self, data: str) -> None:
        if self._place == "cell":
            self.tables[self._table][-1][-1].text += data
        elif self._place.startswith("figures "):
            part = self._place.removeprefix("figures ")
            self.figures[-1][part] = self.figures[-1].get(part, "") + data


@pytest.fixture(scope="module")
def page(library: Library) -> Page:
    html = library.page(SAMPLE).read_text(encoding="utf-8")
    made = Page(html)
    made.figures = made.figures[: len(made.figures) // 2]  # those of the other language come after
    return made


@pytest.fixture(scope="module")
def answer(library: Library) -> dict[str, Any]:
    return dict(json.loads(json_bytes(library.analysis(SAMPLE))))


def value(answer: dict[str, Any], metric: str, by: str | None = None) -> float:
    return float(next(m["value"] for m in answer["measurements"] if (m["metric"], m["by"]) == (metric, by)))


def rows(answer: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return list(next(table["rows"] for table in answer["tables"] if table["name"] == name))


def ways_to_write(number: float) -> set[str]:
    """Every text that `numbers` makes of a number."""
    made = {
        numbers.duration(number),
        numbers.count(number),
        numbers.percent(number),
        numbers.size(number),
        numbers.times(number),
        numbers.significant(number),
        numbers.significant(number, 2),
        *(numbers.rate(number, unit) for unit in ("Hz", "B/s", "/s")),
    }
    # A column of times has one unit, in its head, and as many decimals as its middle asks for.
    return {str(text) for text in made} | {f"{number:,.{decimals}f}" for decimals in (0, 1, 2, 3)}


def test_every_number_in_a_table_is_the_one_behind_it(page: Page) -> None:
    cells = [cell for table in page.tables.values() for row in table for cell in row if cell.value is not None]
    assert len(cells) > 300
    wrong = [cell for cell in cells if cell.text not in ways_to_write(float(cell.value or 0))]
    assert wrong == []


def test_cells_without_a_number_behind_them_hold_none(page: Page) -> None:
    quantity = re.compile(r"-?[\d.,]+ ?(%|x|[kMG]?Hz|[µnm]?s|[KMG]i?B)")
    for name, table in page.tables.items():
        if name.startswith("en-") and "time-gpu" not in name:  # bars are not sorted
            assert [c.text for row in table for c in row if c.value is None and quantity.fullmatch(c.text)] == []


def test_key_figures_are_the_same_everywhere(page: Page, library: Library, press: Press) -> None:
    analysis = library.analysis(SAMPLE)
    stream = io.StringIO()
    print_overview([analysis], stream)
    terminal = re.sub(r"\s+", " ", stream.getvalue())
    markdown = Documents([analysis]).markdown().decode()
    paper = re.sub(r"\s+", " ", press(SAMPLE, "en").text)
    assert len(page.figures) == 6
    for figure in page.figures:
        assert figure["value"] in terminal
        assert figure["label"] in terminal
        assert f"**{figure['value']}** {figure['label']}" in markdown
        assert figure["value"] in paper
        assert figure["label"] in paper


def test_key_figures_are_the_numbers_of_the_json(page: Page, answer: dict[str, Any]) -> None:
    shown = {figure["label"]: figure["value"] for figure in page.figures}
    window = value(answer, "window")
    causes = [m["value"] for m in answer["measurements"] if m["metric"] == "gpu_idle_by_cause"]
    assert shown == {
        "Iteration latency, median": numbers.duration(value(answer, "iteration_latency", "p50")),
        "Iterations": f"{numbers.significant(value(answer, 'iterations_per_s'))} per second",
        "GPU busy": numbers.percent(value(answer, "gpu_busy") / window),
        "Largest cause of idle time": numbers.percent(max(causes) / window),
        "SM active": numbers.percent(value(answer, "sm_active_ratio")),
        "Launches per iteration": numbers.count(value(answer, "launches_per_iteration")),
    }


def test_rows_of_the_tables_are_those_of_the_json(page: Page, answer: dict[str, Any]) -> None:
    def behind(table: str, column: int) -> list[float]:
        """The numbers behind a column; times in the unit that its head names, if it names one, as ns."""
        head, *cells = (row[column] for row in page.tables[table])
        size = _NS.get(head.text.split()[-1], 1.0)
        return [float(cell.value or "nan") * size for cell in cells]

    kernels = rows(answer, "kernels")
    for column, name in enumerate(("share", "total_ns", "count", "median_ns", "max_ns")):
        expected = [row[name] for row in kernels][: len(page.tables["en-kernels-gpu0"]) - 1]
        assert behind("en-kernels-gpu0", column) == pytest.approx(expected, rel=1e-12)
    calls = rows(answer, "cuda_api_calls")
    assert behind("en-cuda-api-calls", 0) == [row["total_ns"] for row in calls]
    assert behind("en-cuda-api-calls", 1) == [row["calls"] for row in calls]
    assert sum(behind("en-kernels-gpu0", 1)) <= value(answer, "kernel_time_sum") + value(answer, "graph_time_sum")


def test_both_languages_hold_the_same_numbers(page: Page) -> None:
    english = {name[3:]: table for name, table in page.tables.items() if name.startswith("en-")}
    korean = {name[3:]: table for name, table in page.tables.items() if name.startswith("ko-")}
    assert english.keys() == korean.keys()
    for name, table in english.items():
        mine = [[cell.value for cell in row] for row in table]
        assert mine == [[cell.value for cell in row] for row in korean[name]]
