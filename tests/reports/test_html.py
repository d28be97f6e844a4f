"""The HTML report in a real browser, opened from a file without a network."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pypdf import PdfReader

from nitro.reports import numbers

if TYPE_CHECKING:
    from reports.conftest import Library, Open, Opened

SAMPLE = "dual_encoder"
LARGEST_BYTES = 4_000_000
WIDE, NARROW = 1400, 390
_LOADING = ("src", "href", "srcset", "poster", "data", "action", "formaction", "background", "xlink:href", "style")


class Parsed(HTMLParser):
    """What of a page loads something, its stylesheets, its ids, and its meta elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loading: list[str] = []
        self.ids: list[str] = []
        self.metas: dict[str, str] = {}
        self.styles = ""
        self._in_style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.loading += [value for name, value in found.items() if name in _LOADING]
        self.ids += [found["id"]] if "id" in found else []
        if tag == "meta":
            self.metas[found.get("http-equiv") or found.get("name", "")] = found.get("content", "")
        self._in_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.styles += data


def test_page_is_one_file_that_loads_nothing(library: Library, trace_name: str) -> None:
    content = library.page(trace_name).read_bytes()
    assert len(content) <= LARGEST_BYTES
    page = Parsed(content.decode())
    assert page.metas["Content-Security-Policy"].startswith("default-src 'none';")
    assert "url(" not in page.styles
    assert "@import" not in page.styles
    assert [value for value in page.loading if re.search(r"\w+://|^//|url\(", value)] == []
    assert sorted(set(page.ids)) == sorted(page.ids)


def drawn_texts(opened: Opened) -> list[int]:
    """How many texts each figure of the language that is shown has in its picture."""
    return list(
        opened.page.evaluate(
            '[...document.querySelectorAll(`.page[lang="${document.documentElement.lang}"] .plot`)]'
            ".map(plot => plot.querySelectorAll('svg text').length)"
        )
    )


def nameless(opened: Opened) -> list[str]:
    """Roles of the figures and pictures of which a screen reader would not say what they are."""
    session = opened.page.context.new_cdp_session(opened.page)
    nodes = {node["nodeId"]: node for node in session.send("Accessibility.getFullAXTree")["nodes"]}
    session.detach()
    found = []
    for node in nodes.values():
        role = node.get("role", {}).get("value", "")
        # The picture on a button, that of a figure's menu, goes by the button's name.
        parent = nodes.get(node.get("parentId"), {}).get("role", {}).get("value")
        if not node["ignored"] and role in ("figure", "image") and parent != "DisclosureTriangle":
            found.append((role, node.get("name", {}).get("value", "")))
    assert found
    return [role for role, name in found if not name.strip()]


def show_timelines(opened: Opened) -> list[int]:
    """Bring every timeline of the shown language into view; return how many items each has."""
    mounts = opened.page.locator(".timeline-mount:visible")
    items = []
    for mount in mounts.all():
        mount.scroll_into_view_if_needed()
        items.append(
            mount.evaluate(
                "async mount => { await mount.nitroTimeline.ready; return mount.nitroTimeline.stats().items; }"
            )
        )
        assert mount.locator("canvas").count() > 0
    return items


def test_page_of_every_trace_draws_and_fits_in_both_languages(
    library: Library, open_page: Open, trace_name: str
) -> None:
    opened = open_page(library.page(trace_name), width=WIDE)
    timeline = library.analysis(trace_name).timeline
    for language, widths in (("en", (WIDE, NARROW)), ("ko", (NARROW, WIDE))):
        opened.choose("language", language)
        for width in widths:
            opened.page.set_viewport_size({"width": width, "height": 900})
            opened.page.evaluate("NitroReport.drawAll()")
            items = show_timelines(opened)
            opened.settle()
            content, window = opened.widths()
            assert content <= window == width
            opened.screenshot(f"{trace_name[:40]}-{language}-{width}")
        assert all(drawn_texts(opened))
        assert len(items) == (timeline is not None and timeline.end_ns > timeline.start_ns)
        assert all(items)
        assert nameless(opened) == []
