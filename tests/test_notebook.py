"""The tour notebook runs, and its stored copy shows what the code gives now; results look right in a notebook."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest

from builders import kernel, trace
from nitro.analyzer import analyze

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_notebook", DOCS / "make_notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown(book: Any) -> list[str]:
    """Return what each code cell shows, as text."""
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    return [output.get("text") or output["data"].get("text/html") or output["data"]["text/plain"] for output in outputs]


def test_the_tour_runs_and_its_stored_copy_is_up_to_date(generator: ModuleType) -> None:
    stored = nbformat.read(DOCS / "tour.ipynb", as_version=4)
    assert shown(stored) == shown(generator.run(generator.notebook())), "run `python docs/make_notebook.py`"


def test_names_from_a_trace_are_escaped_in_a_notebook() -> None:
    analysis = analyze(trace(kernels=[kernel(0, 10, "<script>alert(1)</script>")]), window="all")
    table = analysis.table("kernels")
    assert table is not None
    for html in (analysis._repr_html_(), table._repr_html_()):
        assert "<script>" not in html
    assert "&lt;script&gt;" in table._repr_html_()


def test_an_analysis_shows_busy_and_idle_time_and_its_tables() -> None:
    html = analyze(trace(kernels=[kernel(0, 10), kernel(30, 40)]), window="all")._repr_html_()
    assert "<td>busy</td><td>0.000 ms</td><td>50.0%</td>" in html
    assert "<code>kernels</code>" in html
