"""The report as a PDF: the same document, in one language, on paper."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup

from .. import blocks
from ..blocks import Language
from ..document import Document
from ..figures import FONTS
from ..report import Report
from ..templating import environment, raw, rendered
from . import svg
from ._press_worker import SCHEME
from .thin_svg import thinned

Paper = Literal["a4", "letter"]
_STYLES = ("report.css", "print.css", "user.css")
_SIZE = {"a4": "A4", "letter": "Letter"}


def begin(
    report: Report, drawer: svg.Drawer, *, paper: Paper = "a4", user_templates: Path | None = None
) -> Callable[[], bytes]:
    """Begin a PDF file, and return what finishes it: until then, there is time for something else.

    `drawer` draws its figures, and its press prints it. To finish it raises a `ToolError` where WeasyPrint is not
    installed, or failed.

    Raises:
        ToolError: a figure could not be drawn.
        UsageError: a template of the user has a mistake.
    """
    asked: list[int] = []

    def picture(figure: blocks.Figure) -> dict[str, Any]:
        asked.append(drawer.ask(figure, report.language))
        return {"picture": f"{SCHEME}:{len(asked) - 1}"}

    document = Document(report, draw_figure=picture, draw_timeline=None, all_rows=False)
    edition = document.values()  # by now the figures are being drawn, while the page is made
    made = environment(user_templates)
    values = {
        "is_screen": False,
        "editions": [edition],
        "generator": "Nitro",
        "styles": Markup(_page_rule(paper, report.language)) + raw(made, *_STYLES),
    }
    html = rendered(made, "report.html", values)
    drawer.press.begin(html, (thinned(drawer.drawn(number)) for number in asked), len(asked))
    return drawer.press.finish


def _page_rule(paper: Paper, language: Language) -> str:
    """Return the paper's size, and the font of its margins, which inherit from no element that has a language."""
    return (
        f"@page {{ size: {_SIZE[paper]}; font-family: {FONTS[language]}; @bottom-right {{ "
        "content: counter(page) ' / ' counter(pages); font-size: 7.5pt; color: #56626e; } }\n"
    )
