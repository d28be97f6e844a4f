"""The process that lays pages out: a document a line comes in, its figures follow, a PDF goes out.

The first line is `{"html": "…", "figures": n}`; the n lines after it are figures as JSON texts, which the document
calls `figure:0` and so on. The answer is `{"size": n}` and n bytes of PDF, or what is wrong: `{"missing": "…"}` names
what must be installed, `{"trouble": "…"}` what could not be laid out.
"""

from __future__ import annotations

import ctypes.util
import gc
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SCHEME = "figure"
# Weights and families of the report; what finds their files is slow for the first text of each.
_FIRST = """<style>p { font-family: Inter, "Noto Sans", "Liberation Sans", Arial, "DejaVu Sans", sans-serif }</style>
<table><thead><tr><th>Nitro<tbody><tr><td>1.5 ms</table><p><b>kernels</b> <i>of</i> <code>a model</code>
<img src='data:image/svg+xml,<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><path d="M0,0h9"/></svg>'>"""


def main() -> None:
    """Make PDF files until there is nothing more to make."""
    # Reference cycles are looked for when nobody waits.
    gc.disable()
    try:
        with _no_compiler_asked():
            import weasyprint
    except ImportError:
        _say({"missing": "WeasyPrint"})
        return
    except OSError as error:
        _say({"missing": str(error).split("'")[1] if "'" in str(error) else "Pango"})
        return
    from weasyprint.text.fonts import FontConfiguration

    # Hints about CSS that paper does not need are of no use to who reads a report.
    logging.getLogger("weasyprint").setLevel(logging.CRITICAL)
    logging.getLogger("fontTools").setLevel(logging.CRITICAL)
    # What is loaded and found for the first document serves those to come: it may be done before anybody waits.
    fonts = FontConfiguration()
    weasyprint.HTML(string=_FIRST).write_pdf(font_config=fonts)
    for line in sys.stdin.buffer:
        document = json.loads(line)
        figures = _Figures(document["figures"])
        try:
            page = weasyprint.HTML(string=document["html"], url_fetcher=_fetcher(weasyprint, figures))
            pdf = page.write_pdf(font_config=fonts)
        except Exception as error:  # noqa: BLE001 - whatever it is, the user gets to know it
            _say({"trouble": f"{type(error).__name__}: {error}"})
            return
        figures.read(document["figures"])  # those that no template showed, too, are not the next document
        _say({"size": len(pdf)}, pdf)
        gc.collect()


def _say(answer: dict[str, object], content: bytes = b"") -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + content)
    sys.stdout.buffer.flush()


class _Figures:
    """The figures of a document, each read when it is first wanted: by then it may have been drawn."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._read: list[bytes] = []

    def __getitem__(self, number: int) -> bytes:
        if number >= self._count:
            raise ValueError(f"figure {number} was never asked for")
        self.read(number + 1)
        return self._read[number]

    def read(self, count: int) -> None:
        while len(self._read) < count:
            self._read.append(json.loads(sys.stdin.buffer.readline()).encode())


def _fetcher(weasyprint: Any, figures: _Figures) -> Any:
    """Return what answers WeasyPrint's requests: with our figures, and nothing else, whatever a stylesheet asks for.

    As a picture of its own an SVG is read by the XML parser, four times as fast as inside HTML; its text stays text.
    """

    class Fetcher(weasyprint.urls.URLFetcher):  # type: ignore[misc]
        def fetch(self, url: str, _headers: object = None) -> Any:
            scheme, _, number = url.partition(":")
            if scheme == "data":
                return super().fetch(url)
            if scheme != SCHEME or not number.isdecimal():
                raise ValueError(f"a report fetches nothing, not even {url}")
            return weasyprint.urls.URLFetcherResponse(url, figures[int(number)], {"Content-Type": "image/svg+xml"})

    return Fetcher()


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


if __name__ == "__main__":
    main()
