"""A figure for paper has fewer parts than Vega wrote, and is the same picture."""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from nitro.analyzer import analyze, open_trace
from nitro.reports import blocks
from nitro.reports.renderers.thin_svg import thinned
from nitro.reports.report import build_report

SAMPLE = Path(__file__).resolve().parents[2] / "examples" / "dual_encoder.sqlite.xz"
SVG = "{http://www.w3.org/2000/svg}"


def svg(inside: str) -> str:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="100" height="100" viewBox="0 0 100 100">'
        f'<g fill="none" stroke-miterlimit="10">{inside}</g></svg>'
    )


def parts(text: str) -> list[ElementTree.Element]:
    """The shapes and texts of a thinned picture."""
    return [
        part for part in ElementTree.fromstring(thinned(svg(text))).iter() if part.tag not in (f"{SVG}svg", f"{SVG}g")
    ]


def paths(text: str) -> list[str]:
    return [part.attrib["d"] for part in parts(text)]


def pixels(picture: str) -> npt.NDArray[np.int16]:
    vl_convert = pytest.importorskip("vl_convert")
    with Image.open(io.BytesIO(vl_convert.svg_to_png(picture, scale=2))) as image:
        return np.asarray(image.convert("RGBA"), np.int16)


def test_figures_of_the_sample_are_the_same_pictures_of_far_fewer_parts() -> None:
    svg_renderer = pytest.importorskip("nitro.reports.renderers.svg")
    report = build_report(analyze(open_trace(SAMPLE), with_timeline=True))
    figures = [block for section in report.chapters[0].sections for block in section.blocks]
    found = [still for block in figures if isinstance(block, blocks.Timeline) for still in block.still]
    found += [block for block in figures if isinstance(block, blocks.Figure)]
    counts = []
    with svg_renderer.Drawer() as drawer:
        for figure in found:
            drawn = drawer.drawn(drawer.ask(figure))
            thin = thinned(drawn)
            before, after = pixels(drawn), pixels(thin)
            # Where two edges met, or a line was drawn many times over, the shade of single pixels differs.
            assert (np.abs(before - after).max(axis=2) > 64).mean() < 0.0005, figure.name
            counts.append((drawn.count("<path") + drawn.count("<line"), thin.count("<path") + thin.count("<line")))
            assert drawn.count("<text") - drawn.count('fill-opacity="0"') <= thin.count("<text")
    assert len(counts) == 7
    assert sum(after for _, after in counts) < sum(before for before, _ in counts) / 4


def test_lines_of_one_look_are_one_path_with_each_line_once() -> None:
    line = '<line transform="translate({x},5)" x2="0" y2="5" stroke="#111"/>'
    ticks = "".join(line.format(x=x) for x in (1, 2, 2))
    assert paths(f'<g transform="translate(10,20)"><g class="tick">{ticks}</g></g>') == ["M11,25L11,30M12,25L12,30"]


def test_lines_that_let_something_through_stay_apart() -> None:
    line = '<line x2="9" y2="0" stroke="#111" stroke-opacity="0.5"/>'
    assert len(parts(line * 2)) == 2


def test_lines_of_another_look_keep_their_order() -> None:
    lines = [f'<line x2="{x}" y2="0" stroke="{colour}"/>' for x, colour in ((1, "#111"), (2, "#222"), (3, "#111"))]
    assert paths("".join(lines)) == ["M0,0L1,0", "M0,0L2,0", "M0,0L3,0"]


def bar(x: float, width: float, colour: str, y: float = 0) -> str:
    return f'<path d="M{x},{y}h{width}v4h-{width}Z" fill="{colour}" fill-opacity="0.5"/>'


def test_bars_that_share_no_area_are_one_path_for_each_look() -> None:
    bars = bar(0, 2, "#111") + bar(2, 3, "#222") + bar(5, 1, "#111") + bar(0, 9, "#222", y=4)
    assert sorted(paths(bars)) == ["M0,0h2v4h-2ZM5,0h1v4h-1Z", "M2,0h3v4h-3ZM0,4h9v4h-9Z"]


@pytest.mark.parametrize("second", [bar(1, 3, "#111"), bar(0, 2, "#111", y=2), bar(0.5, 1, "#111")])
def test_bars_that_share_area_stay_apart_since_it_is_darker(second: str) -> None:
    together = parts(bar(0, 2, "#222") + bar(0, 2, "#111") + second)
    assert [part.attrib["fill"] for part in together][:2] == ["#222", "#111"]
    shown = pixels(svg(bar(0, 2, "#111") + second))
    assert (pixels(thinned(svg(bar(0, 2, "#111") + second))) == shown).all()


def test_a_step_of_the_same_value_needs_no_point_and_a_turn_does() -> None:
    line = '<path d="M0,1L1,1L2,1L2,5L2,3L3,3" stroke="#111"/>'
    assert paths(line) == ["M0,1L2,1L2,5L2,3L3,3"]


def test_what_cannot_be_seen_goes_and_texts_stay() -> None:
    seen = parts(
        '<path class="background" d="M0,0h9v9h-9Z"/><path d="M0,0h1" stroke="#111" display="none"/>'
        '<text fill="#111" fill-opacity="0" stroke-opacity="0">hidden</text>'
        '<g transform="translate(3,4)"><text transform="translate(1,2) rotate(-90)" fill="#111">a &lt; b</text></g>'
    )
    assert [(part.tag, part.text, part.attrib) for part in seen] == [
        (f"{SVG}text", "a < b", {"fill": "#111", "transform": "translate(3,4) translate(1,2) rotate(-90)"})
    ]


def test_a_clipped_group_keeps_its_clip_and_its_place() -> None:
    clip = '<defs><clipPath id="clip1"><rect x="0" y="0" width="5" height="5"/></clipPath></defs>'
    group = f'<g transform="translate(7,8)"><g class="marks" clip-path="url(#clip1)">{bar(0, 9, "#111")}</g></g>'
    picture = f"{svg(group).removesuffix('</svg>')}{clip}</svg>"
    assert (pixels(thinned(picture)) == pixels(picture)).all()
    kept = next(ElementTree.fromstring(thinned(picture)).iter(f"{SVG}g"))[0]
    assert kept.attrib == {"clip-path": "url(#clip1)", "transform": "translate(7,8)"}
