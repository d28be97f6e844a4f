#!/usr/bin/env python3
"""Make docs/pictures: what the reports about the sample trace look like, in a real browser and on paper.

Run it as `python docs/make_report_pictures.py`. It needs Chromium, playwright, Pillow and poppler's pdftoppm.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from nitro.analyzer import analyze, open_trace
from nitro.reports.blocks import Language
from nitro.reports.output import Documents, Settings, drawing

_ROOT = Path(__file__).resolve().parent.parent
_SAMPLE = _ROOT / "examples" / "dual_encoder.sqlite.xz"
FOLDER = _ROOT / "docs" / "pictures"
_ENDINGS: dict[Language, str] = {"en": ".png", "ko": ".ko.png"}
_WIDTH, _HEIGHT, _SCALE = 1240, 760, 1.4
_PAGE_WIDTH, _PAPER_GAP = 700, 16
_DESK = (225, 229, 233)


def pictures() -> Iterator[tuple[str, Image.Image]]:
    """Yield (file name, picture) of each picture, in English and, with `.ko` in the name, in Korean."""
    with drawing() as drawer, tempfile.TemporaryDirectory() as folder:
        analyses = [analyze(open_trace(_SAMPLE), with_timeline=True)]
        html, pdf = Path(folder) / "report.html", Path(folder) / "report.pdf"
        for language, ending in _ENDINGS.items():
            documents = Documents(analyses, Settings(language), drawer)
            html.write_bytes(documents.html())
            pdf.write_bytes(documents.pdf())
            with _opened(html) as page:
                yield f"report{ending}", _seen(page)
                yield f"timeline{ending}", _timeline(page)
                page.evaluate("NitroReport.chooseTheme('dark')")
                yield f"dark{ending}", _section_until_first_figure(page, f"{language}-time")
            yield f"pdf{ending}", _paper(pdf)


@contextmanager
def _opened(html: Path) -> Iterator[Page]:
    """Open a report, in a browser that is cut off from every network."""
    chromium = os.environ.get("NITRO_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(
            viewport={"width": _WIDTH, "height": _HEIGHT}, device_scale_factor=_SCALE, offline=True
        )
        page = context.new_page()
        page.goto(html.as_uri())
        page.evaluate("document.fonts.ready")
        yield page
        browser.close()


def _seen(page: Page, clip: dict[str, float] | None = None) -> Image.Image:
    """Return what the window shows, or a part of it."""
    page.wait_for_timeout(600)
    return Image.open(io.BytesIO(page.screenshot(clip=clip)))  # type: ignore[arg-type]


def _timeline(page: Page) -> Image.Image:
    """Return the timeline with its buttons, zoomed to the typical iteration, with a piece of idle time chosen."""
    timeline = page.locator(".page:visible .timeline-mount")
    timeline.scroll_into_view_if_needed()
    page.locator(".page:visible .nt-chart").wait_for(timeout=20_000)
    page.locator(".page:visible [data-act=typical]").click()
    page.wait_for_timeout(800)
    idle = page.locator(".page:visible .nt-lane[data-key^='device:0:idle'] canvas")
    box = idle.bounding_box()
    assert box is not None
    idle.click(position={"x": 0.9 * box["width"], "y": box["height"] / 2})
    page.mouse.move(0, 0)
    page.wait_for_timeout(600)
    return Image.open(io.BytesIO(timeline.screenshot()))


def _section_until_first_figure(page: Page, name: str) -> Image.Image:
    """Return the top of a section, down to the end of its first figure or table."""
    page.evaluate(f"document.getElementById('{name}').scrollIntoView()")
    section, figure = page.locator(f"#{name}").bounding_box(), page.locator(f"#{name} figure").first.bounding_box()
    assert section is not None
    assert figure is not None
    height = figure["y"] + figure["height"] - section["y"] + 16
    return _seen(page, {"x": section["x"] - 20, "y": section["y"], "width": section["width"] + 40, "height": height})


def _paper(pdf: Path) -> Image.Image:
    """Return the first two pages side by side."""
    size = ("-scale-to-x", str(_PAGE_WIDTH), "-scale-to-y", "-1")
    subprocess.run(("pdftoppm", "-png", "-l", "2", *size, str(pdf), str(pdf.parent / "p")), check=True)
    pages = [Image.open(path) for path in sorted(pdf.parent.glob("p-*.png"))]
    gap = _PAPER_GAP
    desk_size = (gap + sum(page.width + gap for page in pages), max(page.height for page in pages) + 2 * gap)
    desk = Image.new("RGB", desk_size, _DESK)
    for number, page in enumerate(pages):
        desk.paste(page, (gap + number * (page.width + gap), gap))
    return desk


def _small(picture: Image.Image) -> bytes:
    """Return a picture as PNG with a palette of its most frequent colours: a page has few, but they have a meaning."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.int32)
    colours, places, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True)
    kept = colours[np.argsort(-counts, kind="stable")[:256]]
    nearest = ((colours[:, None, :] - kept[None, :, :]) ** 2).sum(axis=2).argmin(axis=1)
    small = Image.fromarray(nearest[places.reshape(pixels.shape[:2])].astype(np.uint8))
    small.putpalette(kept.astype(np.uint8).tobytes())
    stream = io.BytesIO()
    small.save(stream, "PNG", optimize=True)
    return stream.getvalue()


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file_name, picture in pictures():
        (FOLDER / file_name).write_bytes(_small(picture))
