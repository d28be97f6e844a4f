"""Every figure is valid Vega-Lite, and the libraries that draw it on a page are those that draw it on paper."""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from jsonschema.exceptions import ValidationError

from nitro.analyzer import analyze, open_trace
from nitro.reports import blocks, figures
from nitro.reports.report import build_report
from vega_lite import assert_is_vega_lite

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "examples" / "dual_encoder.sqlite.xz"


@cache
def drawn() -> dict[str, blocks.Figure]:
    report = build_report(analyze(open_trace(SAMPLE), with_timeline=True))
    return {figure.name: figure for section in report.chapters[0].sections for figure in _figures(section.blocks)}


def _figures(found: tuple[blocks.Block, ...]) -> Iterator[blocks.Figure]:
    for block in found:
        if isinstance(block, blocks.Figure):
            yield block
        elif isinstance(block, blocks.Timeline):
            yield from block.still


NAMES = (
    "timeline-iteration",
    "timeline-window",
    "iterations",
    "over-time-gpu0",
    "sampled-by-phase-gpu0",
    "kernel-sizes-gpu0",
    "phase-lanes",
)


def test_the_sample_has_every_kind_of_figure() -> None:
    assert tuple(drawn()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_valid_vega_lite(name: str) -> None:
    for scheme in figures.INKS:
        assert_is_vega_lite(figures.dressed(drawn()[name].spec, width=600, scheme=scheme))


def test_a_figure_that_is_not_vega_lite_would_be_found() -> None:
    with pytest.raises(ValidationError):
        assert_is_vega_lite({"mark": "smoke", "data": {"values": []}})


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_says_what_it_shows(name: str) -> None:
    figure = drawn()[name]
    assert figure.title
    assert figure.sentence.endswith(".")


def test_the_page_draws_with_the_libraries_of_the_installed_vl_convert() -> None:
    place = importlib.util.spec_from_file_location("make_vega_bundle", ROOT / "docs" / "make_vega_bundle.py")
    assert place is not None
    assert place.loader is not None
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    kept_version = module.VERSION.read_text().strip()
    if kept_version != module.version():
        pytest.skip(f"the kept libraries are those of {kept_version}, installed is {module.version()}")
    kept = gzip.decompress(module.BUNDLE.read_bytes())
    assert kept == gzip.decompress(module.bundle()), "out of date; run python docs/make_vega_bundle.py"
