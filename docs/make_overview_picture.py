#!/usr/bin/env python3
"""Draw docs/overview.svg: the real terminal output for the sample trace, down to where its time goes.

Run it as `python docs/make_overview_picture.py`.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from nitro.analyzer import analyze, open_trace
from nitro.reports.renderers.terminal import MAX_COLUMNS, draw
from nitro.reports.report import Report, build_report

_ROOT = Path(__file__).resolve().parent.parent
_SAMPLE = _ROOT / "examples" / "dual_encoder.sqlite.xz"
_LAST = "time"

# rich's own frame asks a font server for a web font; this one uses what the reader's system has.
_SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}"
 height="{terminal_height}" /></clipPath>{lines}</defs>
<rect fill="#1b1d23" width="{width}" height="{height}" rx="8"/>
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""


def picture() -> str:
    """Return the SVG."""
    console = Console(
        record=True,
        width=MAX_COLUMNS,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
        legacy_windows=False,
    )
    draw(_beginning(build_report(analyze(open_trace(_SAMPLE)), for_documents=False)), console)
    return console.export_svg(title="", code_format=_SVG, unique_id="nitro")


def _beginning(report: Report) -> Report:
    """Return the report without what comes after its section `_LAST`."""
    (chapter,) = report.chapters
    names = [section.name for section in chapter.sections]
    return replace(report, chapters=(replace(chapter, sections=chapter.sections[: names.index(_LAST) + 1]),))


if __name__ == "__main__":
    (_ROOT / "docs" / "overview.svg").write_text(picture(), encoding="utf-8")
