"""The report as a PDF: the same document, in one language, on paper."""

from __future__ import annotations

import ctypes.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup

from nitro.errors import ToolError

from ..blocks import Language
from ..document import Document
from ..figures import FONTS
from ..report import Report
from ..templating import environment, raw, rendered
from . import svg

Paper = Literal["a4", "letter"]
_STYLES = ("report.css", "print.css", "user.css")
_SCHEME = "figure"
_SIZE = {"a4": "A4", "letter": "Letter"}
_INSTALL = "install it with `pip install 'nitro-analyze[pdf]'`"


def draw(report: Report, drawer: svg.Drawer, *, paper: Paper = "a4", user_templates: Path | None = None) -> bytes:
    """Return the PDF file. `drawer` draws its figures.

    Raises:
        ToolError: WeasyPrint, or Pango that it needs from the system, is not there.
    """
    document = Document(
        report,
        draw_figure=lambda figure: {"picture": f"{_SCHEME}:{drawer.ask(figure, report.language)}"},
        draw_timeline=None,
        all_rows=False,
    )
    edition = document.values()  # by now the figures are being drawn, while WeasyPrint is loaded
    weasyprint = _weasyprint()
    made = environment(user_templates)
    values = {
        "is_screen": False,
        "editions": [edition],
        "generator": "Nitro",
        "styles": Markup(_page_rule(paper, report.language)) + raw(made, *_STYLES),
    }
    html = rendered(made, "report.html", values)
    page = weasyprint.HTML(string=html, url_fetcher=_fetcher(weasyprint, drawer))
    return bytes(page.write_pdf())


def _fetcher(weasyprint: Any, drawer: svg.Drawer) -> Any:
    """Return what answers WeasyPrint's requests: with our figures, and nothing else, whatever a stylesheet asks for.

    As a picture of its own an SVG is read by the XML parser, four times as fast as inside HTML; its text stays text.
    """

    class Figures(weasyprint.urls.URLFetcher):  # type: ignore[misc]
        def fetch(self, url: str, _headers: object = None) -> Any:
            scheme, _, number = url.partition(":")
            if scheme == "data":
                return super().fetch(url)
            if scheme != _SCHEME or not number.isdecimal():
                raise ValueError(f"a report fetches nothing, not even {url}")
            picture = drawer.drawn(int(number)).encode()
            return weasyprint.urls.URLFetcherResponse(url, picture, {"Content-Type": "image/svg+xml"})

    return Figures()


def _page_rule(paper: Paper, language: Language) -> str:
    """Return the paper's size, and the font of its margins, which inherit from no element that has a language."""
    return (
        f"@page {{ size: {_SIZE[paper]}; font-family: {FONTS[language]}; @bottom-right {{ "
        "content: counter(page) ' / ' counter(pages); font-size: 7.5pt; color: #56626e; } }\n"
    )


@contextmanager
def _no_compiler_asked() -> Iterator[None]:
    """Keep `find_library` from running gcc and ld for each name that a library might have.

    WeasyPrint tries many names, most of which exist on no system; the tools would be started thirty times. What they
    would find lies where the loader looks anyway.
    """
    names = [name for name in ("_findLib_gcc", "_findLib_ld") if hasattr(ctypes.util, name)]
    searches = {name: getattr(ctypes.util, name) for name in names}
    for name in names:
        setattr(ctypes.util, name, lambda _library: None)
    try:
        yield
    finally:
        for name, search in searches.items():
            setattr(ctypes.util, name, search)


def _weasyprint() -> Any:
    try:
        with _no_compiler_asked():
            import weasyprint
    except ImportError:
        raise ToolError(f"PDF output needs WeasyPrint, which is not installed; {_INSTALL}.") from None
    except OSError as error:
        library = str(error).split("'")[1] if "'" in str(error) else "Pango"
        raise ToolError(
            f"PDF output needs the system library {library}, which is missing; install Pango, on Debian and Ubuntu "
            "with `sudo apt-get install libpango-1.0-0 libpangoft2-1.0-0`."
        ) from None
    # Hints about CSS that paper does not need are of no use to who reads a report.
    logging.getLogger("weasyprint").setLevel(logging.CRITICAL)
    logging.getLogger("fontTools").setLevel(logging.CRITICAL)
    return weasyprint
