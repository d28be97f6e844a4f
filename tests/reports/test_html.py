"""The HTML report in a real browser, opened from a file without a network."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
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
        self._in_style &= tag != "style"

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
    assert sum(role == "figure" for role, _ in found) == opened.page.locator("figure:visible").count()
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


# --- what moves, on the sample ----------------------------------------------------------------------------------------

TABLE = "#en-kernels-gpu0"


@pytest.fixture
def sample(library: Library, open_page: Open) -> Opened:
    return open_page(library.page(SAMPLE))


def cells(opened: Opened, column: int) -> list[tuple[str, str | None]]:
    """(text, number behind it) of the cells of a column of the table of kernels, from the top, hidden rows too."""
    found = opened.page.evaluate(
        "([table, column]) => [...document.querySelectorAll(`${table} tbody tr`)]"
        ".map(row => [row.cells[column].textContent, row.cells[column].dataset.value ?? null])",
        [TABLE, column],
    )
    return [(text, value) for text, value in found]


def column_of(opened: Opened, *, numeric: bool) -> int:
    """A column of the table of kernels: the first whose cells are numbers, or the first of texts."""
    known = range(opened.page.locator(f"{TABLE} thead th").count())
    return next(column for column in known if all((value is not None) is numeric for _, value in cells(opened, column)))


def test_sorting_orders_rows_by_number_both_ways_and_by_text(sample: Opened) -> None:
    shown = sample.page.locator(f"{TABLE} tbody tr:visible").count()
    # The time of a kernel is shown in units of its own: `1.02 ms` is more than `900 µs`.
    numeric, text = column_of(sample, numeric=True), column_of(sample, numeric=False)
    headers = sample.page.locator(f"{TABLE} thead th")
    before = sorted(cells(sample, numeric))
    for order, is_down in (("descending", True), ("ascending", False)):
        headers.nth(numeric).locator("button").click()
        assert headers.nth(numeric).get_attribute("aria-sort") == order
        values = [float(value or "nan") for _, value in cells(sample, numeric)]
        assert len(set(values)) > 2
        assert values == sorted(values, reverse=is_down)
    headers.nth(text).locator("button").click()
    assert headers.nth(numeric).get_attribute("aria-sort") is None
    names = [name for name, _ in cells(sample, text)]
    assert len(set(names)) > 2
    # The browser compares as people do, without regard to case and marks.
    letters = [re.sub(r"[^a-z0-9]", "", name.lower())[:1] for name in names]
    assert letters == sorted(letters)
    assert sorted(cells(sample, numeric)) == before
    assert sample.page.locator(f"{TABLE} tbody tr:visible").count() == shown


def test_search_leaves_the_rows_that_fit_and_counts_them(sample: Opened) -> None:
    texts = sample.page.locator(f"{TABLE} tbody tr").all_text_contents()
    field = sample.page.locator(f"{TABLE} input[type=search]")
    field.fill("ELEMENTWISE")
    fitting = [text for text in texts if "elementwise" in text.lower()]
    assert 0 < len(fitting) < len(texts)
    assert sorted(sample.page.locator(f"{TABLE} tbody tr:visible").all_text_contents()) == sorted(fitting)
    assert sample.page.inner_text(f"{TABLE} .table-found") == f"{len(fitting)} of {len(texts)} rows"
    field.fill("no kernel is called so")
    assert sample.page.locator(f"{TABLE} tbody tr:visible").count() == 0
    assert sample.page.inner_text(f"{TABLE} .table-found") == f"0 of {len(texts)} rows"
    field.fill("")
    assert sample.page.inner_text(f"{TABLE} .table-found") == ""
    assert sample.page.locator(f"{TABLE} tbody tr:visible").count() == len(texts)


def test_all_rows_are_shown_on_demand(sample: Opened) -> None:
    rows, more = sample.page.locator(f"{TABLE} tbody tr:visible"), sample.page.locator(f"{TABLE} .show-more")
    few, every = rows.count(), sample.page.locator(f"{TABLE} tbody tr").count()
    assert few < every
    assert more.inner_text() == f"Show all {every:,} rows"
    more.click()
    assert rows.count() == every
    assert more.inner_text() == "Show fewer rows"
    more.click()
    assert rows.count() == few


def test_language_switch_changes_the_page_its_title_and_back(sample: Opened) -> None:
    sample.draw_all()
    english = sample.page.inner_text("body")
    assert "Where the time goes" in english
    sample.choose("language", "ko")
    korean = sample.page.inner_text("body")
    assert sample.page.evaluate("document.documentElement.lang") == "ko"
    assert "Where the time goes" not in korean
    assert len(re.findall("[가-힣]", korean)) > 1000
    assert sample.page.title() == sample.page.inner_text("h1:visible") == "dual_encoder.sqlite.xz"
    assert sample.page.locator(".choose-language:visible").input_value() == "ko"
    sample.choose("language", "en")
    assert sample.page.inner_text("body") == english
    assert sample.page.evaluate("document.documentElement.lang") == "en"


def colours(opened: Opened) -> tuple[str, str]:
    """Return the background of the page, and the colour of the letters of its first figure."""
    opened.draw_all()
    background = "getComputedStyle(document.documentElement).backgroundColor"
    letters = "document.querySelector('.page:lang(en) .plot svg text').getAttribute('fill')"
    return str(opened.page.evaluate(background)), str(opened.page.evaluate(letters))


def brightness(colour: str) -> int:
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3])


def test_theme_switch_repaints_page_and_figures(sample: Opened) -> None:
    light = colours(sample)
    sample.choose("theme", "dark")
    dark = colours(sample)
    assert brightness(light[0]) == 3 * 255
    assert brightness(dark[0]) < 150
    assert dark[1] != light[1]
    sample.screenshot("dark")
    sample.choose("theme", "light")
    assert colours(sample) == light


def test_dark_is_the_reader_s_wish_unless_chosen_otherwise(library: Library, open_page: Open) -> None:
    opened = open_page(library.page(SAMPLE), color_scheme="dark")
    dark = colours(opened)
    assert brightness(dark[0]) < 150
    opened.choose("theme", "light")
    light = colours(opened)
    assert brightness(light[0]) == 3 * 255
    assert light[1] != dark[1]
    opened.choose("theme", "auto")
    assert colours(opened) == dark
    opened.page.emulate_media(color_scheme="light")
    opened.settle()
    assert colours(opened) == light


def test_keyboard_reaches_what_can_be_used(sample: Opened) -> None:
    sample.draw_all()
    reached = []
    for _ in range(400):
        sample.page.keyboard.press("Tab")
        found = sample.page.evaluate(
            "[document.activeElement.tagName, document.activeElement.className, "
            "getComputedStyle(document.activeElement).outlineStyle]"
        )
        if found[0] == "BODY":
            break
        reached.append(tuple(found))
    names = {name for _, classes, _ in reached for name in classes.split()}
    assert {"skip", "choose-language", "choose-theme", "sort", "table-search", "show-more", "nt-chart"} <= names
    # One step after the other shows where it is.
    assert [place for place in reached if place[2] == "none"] == []
    sample.page.focus(".skip:visible")
    sample.page.keyboard.press("Enter")
    assert sample.page.evaluate("document.activeElement.id") == "en-report"
    sample.page.focus(".choose-language:visible")
    sample.page.keyboard.press("ArrowDown")
    sample.settle()
    assert sample.page.evaluate("document.documentElement.lang") == "ko"


def test_sorting_by_keyboard(sample: Opened) -> None:
    button = sample.page.locator(f"{TABLE} .sort").nth(column_of(sample, numeric=True))
    button.focus()
    sample.page.keyboard.press("Enter")
    assert button.locator("..").get_attribute("aria-sort") == "descending"
    sample.page.keyboard.press("Space")
    assert button.locator("..").get_attribute("aria-sort") == "ascending"


def test_print_from_the_browser_has_figures_and_no_toolbar(sample: Opened) -> None:
    # As a reader does it: without having scrolled to every figure before. A browser that prints waits for nothing.
    sample.page.locator(".page:lang(en) .plot:not([data-drawn=yes])").first.wait_for(state="detached", timeout=20_000)
    pages = PdfReader(io.BytesIO(sample.page.pdf(format="A4"))).pages
    text = "\n".join(page.extract_text() for page in pages)
    assert "Where the time goes" in text
    assert "Method and definitions" in text
    for word in ("Theme", "Skip to the report", "Search this table", "Show all"):
        assert word not in text
    assert "시간 사용 내역" not in text
    for title in ("Period and latency of each iteration", "SM activity by phase"):
        assert title in text
    for axis in ("share of iterations", "% of time or cycles"):
        assert axis in text


def test_timeline_is_there_for_printing_though_nobody_scrolled_to_it(sample: Opened) -> None:
    mount = sample.page.locator(".page:lang(en) .timeline-mount").first
    mount.locator("canvas").first.wait_for(state="attached", timeout=20_000)
    assert sample.page.evaluate("scrollY") == 0
    assert mount.bounding_box()["y"] > sample.page.viewport_size["height"] + 400


def test_timeline_in_the_report_shows_a_kernel_as_the_trace_has_it(library: Library, sample: Opened) -> None:
    kernels = library.trace(SAMPLE).kernels
    assert kernels is not None
    place = int((kernels["end_ns"] - kernels["start_ns"]).arg_max() or 0)
    row = kernels.row(place, named=True)
    start, duration = row["start_ns"], row["end_ns"] - row["start_ns"]
    sample.draw_all()
    assert show_timelines(sample)
    timeline = "document.querySelector('.page:lang(en) .timeline-mount').nitroTimeline"
    sample.page.evaluate(f"{timeline}.zoomTo({start - duration}, {start + 2 * duration})")
    sample.settle()
    lane = next(key for key in sample.page.evaluate(f"{timeline}.laneKeys()") if ":stream:" in key)
    sample.page.locator(f'.nt-lane[data-key="{lane}"] canvas:visible').click()
    panel: Any = sample.page.locator(".nt-details:visible")
    facts = panel.evaluate("panel => ({...panel.dataset})")
    assert facts["name"] == row["demangled_name"]
    assert int(facts["startNs"]) == start
    assert int(facts["durationNs"]) == duration
    assert numbers.duration(duration) in panel.inner_text()
    sample.screenshot("timeline-at-a-kernel")
