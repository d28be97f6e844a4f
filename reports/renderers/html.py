"""The report as one HTML file: every language, every figure and the timeline in it, and nothing fetched."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from .. import blocks, figures, timeline_data
from ..document import Document
from ..language import translate_into
from ..report import Report
from ..templating import environment, json_in_script, raw, rendered

# Nothing may be loaded from anywhere; scripts and styles are those in the file.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)
_STYLES = ("report.css", "screen.css", "timeline.css", "user.css")
_SCRIPTS = ("timeline.js", "report.js")


def draw(editions: Sequence[Report], *, user_templates: Path | None = None) -> str:
    """Return the page.

    Args:
        editions: the same report in one or several languages, the one to show first first.
        user_templates: a folder whose templates and stylesheets stand in front of ours; its `user.css` is added.
    """
    made = environment(user_templates)
    timelines: dict[int, dict[str, Any]] = {}
    shown = [_edition(report, timelines) for report in editions]
    values = {
        "is_screen": True,
        "editions": shown,
        "timelines": list(timelines.values()),
        "content_security_policy": CONTENT_SECURITY_POLICY,
        "generator": "Nitro",
        "styles": raw(made, *_STYLES),
        "scripts": [raw(made, name) for name in _SCRIPTS],
        "vega_bundle": _vega_bundle(),
        "looks": json_in_script(
            {
                "schema": figures.SCHEMA,
                **{
                    report.language: {
                        "light": figures.config("light", report.language),
                        "dark": figures.config("dark", report.language),
                        "words": {"SVG_ACTION": report.words["save_svg"], "PNG_ACTION": report.words["save_png"]},
                    }
                    for report in editions
                },
            }
        ),
    }
    return rendered(made, "report.html", values)


def _edition(report: Report, timelines: dict[int, dict[str, Any]]) -> dict[str, Any]:
    def timeline(block: blocks.Timeline) -> dict[str, Any]:
        # All languages share the events of a timeline, only its words differ.
        key = id(block.data)
        if key not in timelines:
            timelines[key] = {"id": f"timeline-{len(timelines) + 1}", "data": timeline_data.packed(block.data)}
        return {
            "timeline": timelines[key]["id"],
            "labels": json_in_script(timeline_data.labels(translate_into(report.language))),
        }

    document = Document(
        report,
        draw_figure=lambda block: {"spec": json_in_script(block.spec)},
        draw_timeline=timeline,
        all_rows=True,
    )
    return document.values()


def _vega_bundle() -> str:
    packed = (resources.files("nitro.templates") / "vendor" / "vega-embed.js.gz").read_bytes()
    return base64.b64encode(packed).decode()
