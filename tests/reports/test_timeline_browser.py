"""The timeline in a real browser without network: what it shows must be what the trace says."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import call, empty_trace, kernel, nvtx_range, trace
from nitro.analyzer import Trace, open_trace
from nitro.analyzer import timeline as analyzer_timeline
from nitro.analyzer.operations import Kind
from nitro.analyzer.timeline import Timeline, timeline_of
from nitro.analyzer.view import View
from nitro.reports import numbers
from nitro.reports.timeline_data import labels, packed

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "templates"
SAMPLE = ROOT / "examples" / "dual_encoder.sqlite.xz"
CSP = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
STREAM = "device:0:stream:460:1:7"
TIMELINE = "document.getElementById('chart').nitroTimeline"

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = os.environ.get("NITRO_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


def page_of(packed_text: str, *, options: str = "{lazy: false}", more: str = "", css: str = "") -> str:
    words = json.dumps(labels()).replace("<", "\\u003c")
    mount = f"""NitroTimeline.mount(document.getElementById('chart'), "{packed_text}", {words}, {options})"""
    return (
        f'<!doctype html><html lang="en" data-theme="light"><meta charset="utf-8"><title>t</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{CSP}">'
        f"<style>{(TEMPLATES / 'timeline.css').read_text()}{css}</style><body>{more}<div id=chart></div>"
        f"<script>{(TEMPLATES / 'timeline.js').read_text()}</script><script>{mount}</script>"
    )


@cache
def sample() -> tuple[Trace, Timeline, str]:
    opened = open_trace(SAMPLE)
    timeline = timeline_of(View(opened))
    return opened, timeline, packed(timeline)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Shown:
    """A page with a timeline, what it complained about, and what it asked the network for."""

    def __init__(self, page: Any, folder: Path) -> None:
        self.page = page
        self.folder = folder
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _hear(self, said: Any) -> None:
        # These tests read pictures back, which a page does not.
        if said.type in ("error", "warning") and "willReadFrequently" not in said.text:
            self.complaints.append(said.text)

    def open(self, html: str, *, wait: bool = True) -> Shown:
        file = self.folder / "page.html"
        file.write_text(html, encoding="utf-8")
        self.page.goto(file.as_uri())
        if wait:
            self.page.evaluate(f"{TIMELINE}.ready")
            self.settle()
        return self

    def settle(self) -> None:
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def ask(self, call: str) -> Any:
        return self.page.evaluate(f"{TIMELINE}.{call}")

    def panel(self) -> dict[str, str]:
        return dict(self.page.evaluate("({...document.querySelector('.nt-details').dataset})"))

    def canvas(self, key: str = STREAM) -> Any:
        return self.page.locator(f'.nt-lane[data-key="{key}"] canvas')

    def colours(self, key: str = STREAM) -> int:
        """How many colours a lane's picture has."""
        return int(
            self.page.evaluate(
                "key => { const canvas = document.querySelector(`.nt-lane[data-key='${key}'] canvas`);"
                "const data = new Uint32Array(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)"
                ".data.buffer); return new Set(data).size; }",
                key,
            )
        )


@pytest.fixture
def shown(browser: Any, tmp_path: Path) -> Iterator[Shown]:
    context = browser.new_context(viewport={"width": 1200, "height": 900}, color_scheme="light")
    context.set_offline(True)
    page = context.new_page()
    made = Shown(page, tmp_path)

    def refuse(route: Any) -> None:
        if route.request.url.startswith("file:"):
            route.continue_()
        else:
            made.requests.append(route.request.url)
            route.abort()

    context.route("**/*", refuse)
    yield made
    assert made.complaints == []
    assert made.requests == []
    context.close()


def longest_kernel() -> tuple[int, str, int, int]:
    """Position on the stream, name, start and duration of the longest kernel of the sample, from the trace's rows."""
    opened, _, _ = sample()
    kernels = opened.kernels
    assert kernels is not None
    row = int((kernels["end_ns"] - kernels["start_ns"]).arg_max() or 0)
    start, end, name = kernels.row(row, named=True)["start_ns"], kernels["end_ns"][row], kernels["demangled_name"][row]
    operations = View(opened).operations
    place = int(np.flatnonzero((operations.starts == start) & (operations.kind == Kind.KERNEL))[0])
    return place, name, start, end - start


def test_sample_is_shown_whole_and_without_complaint(shown: Shown) -> None:
    _, timeline, text = sample()
    shown.open(page_of(text))
    keys = shown.ask("laneKeys()")
    assert keys[:4] == ["thread:460:460:nvtx", "thread:460:460:api", STREAM, "device:0:idle"]
    assert shown.ask(f"laneLength('{STREAM}')") == timeline.operation_count
    expected = sum(len(thread.ranges) + len(thread.calls) for thread in timeline.threads) + sum(
        sum(len(stream.operations) for stream in device.streams)
        + len(device.idle.pieces)
        + sum(len(lane.mean) for lane in device.sampled)
        for device in timeline.devices
    )
    assert shown.ask("stats()")["items"] == expected
    shown.page.click("[data-act=whole]")
    start, end = shown.ask("visibleSpan()")
    assert start <= timeline.start_ns
    assert end >= timeline.end_ns
    shown.page.click("[data-act=typical]")
    assert timeline.typical is not None
    start, end = shown.ask("visibleSpan()")
    assert start <= timeline.typical[0] < timeline.typical[1] <= end
    assert end - start < 1.1 * (timeline.typical[1] - timeline.typical[0])
    shown.settle()
    assert shown.colours() > 5
    assert shown.colours("device:0:idle") > 3


def test_wheel_zooms_to_a_kernel_that_a_click_then_describes(shown: Shown) -> None:
    place, name, start, duration = longest_kernel()
    shown.open(page_of(sample()[2]))
    shown.ask(f"zoomTo({start - 3_000_000}, {start + duration + 3_000_000})")
    shown.settle()
    box = shown.canvas().bounding_box()
    before = shown.ask("visibleSpan()")

    def x_of(time: float) -> float:
        low, high = shown.ask("visibleSpan()")
        return float(box["x"] + (time - low) / (high - low) * box["width"])

    middle = start + duration / 2
    for _ in range(12):
        shown.page.mouse.move(x_of(middle), box["y"] + 10)
        shown.page.mouse.wheel(0, -300)
        shown.settle()
    after = shown.ask("visibleSpan()")
    assert after[1] - after[0] < 0.05 * (before[1] - before[0])
    assert after[0] < middle < after[1]
    shown.page.mouse.click(x_of(middle), box["y"] + 10)
    panel = shown.panel()
    assert panel["name"] == name
    assert int(panel["startNs"]) == start
    assert int(panel["durationNs"]) == duration
    assert panel["kind"] == "kernel"
    assert panel["lane"] == STREAM
    assert panel["item"] == str(place)
    assert numbers.duration(duration) in shown.page.inner_text(".nt-details")


def test_keyboard_alone_reaches_every_kernel(shown: Shown) -> None:
    opened, timeline, text = sample()
    shown.open(page_of(text))
    shown.page.focus(".nt-chart")
    shown.page.keyboard.press("Home")
    shown.page.keyboard.press("ArrowDown")
    shown.page.keyboard.press("ArrowDown")
    assert shown.panel()["lane"] == STREAM
    operations = View(opened).operations
    assert int(shown.panel()["startNs"]) == operations.starts[0]
    for key, place in (("n", 1), ("]", 2), ("n", 3), ("p", 2), ("[", 1)):
        shown.page.keyboard.press(key)
        assert int(shown.panel()["startNs"]) == operations.starts[place]
        assert int(shown.panel()["durationNs"]) == operations.ends[place] - operations.starts[place]
    whole = shown.ask("visibleSpan()")
    shown.page.keyboard.press("Enter")
    low, high = shown.ask("visibleSpan()")
    assert low <= operations.starts[1] < operations.ends[1] <= high
    assert high - low <= 2 * (operations.ends[1] - operations.starts[1])
    shown.page.keyboard.press("ArrowRight")
    assert shown.ask("visibleSpan()")[0] > low
    shown.page.keyboard.press("-")
    wider = shown.ask("visibleSpan()")
    assert wider[1] - wider[0] > high - low
    shown.page.keyboard.press("+")
    shown.page.keyboard.press("Home")
    assert shown.ask("visibleSpan()") == pytest.approx(whole)
    shown.page.keyboard.press("Escape")
    assert "name" not in shown.panel()
    assert timeline.start_ns >= whole[0]


def test_each_item_is_the_row_of_the_trace(shown: Shown) -> None:
    _, timeline, text = sample()
    shown.open(page_of(text))
    lane = timeline.devices[0].streams[0]
    assert lane.launches is not None
    starts, ends = shown.page.evaluate(
        f"(() => {{ const t = {TIMELINE}; const n = t.laneLength('{STREAM}'); const all = [...Array(n).keys()]"
        f".map(i => t.itemAt('{STREAM}', i)); return [all.map(x => x.startNs), all.map(x => x.endNs)]; }})()"
    )
    assert starts == lane.operations.starts.tolist()
    assert ends == lane.operations.ends.tolist()
    shape = timeline.shapes.launch[lane.operations.what[100]].tolist()
    facts = dict(shown.ask(f"itemAt('{STREAM}', 100)")["rows"])
    assert facts["Grid"] == " × ".join(f"{size:,}" for size in shape[:3])
    assert facts["Block"] == " × ".join(f"{size:,}" for size in shape[3:6])
    waited = int(lane.launches.before_ns[100] - lane.launches.call_ns[100])
    assert f"call took {numbers.duration(int(lane.launches.call_ns[100]))}" in facts["Launch"]
    assert numbers.duration(abs(waited)) in facts["Launch"]


def test_search_counts_steps_and_dims(shown: Shown) -> None:
    opened, _, text = sample()
    shown.open(page_of(text))
    kernels = opened.kernels
    assert kernels is not None
    expected = int(kernels["demangled_name"].cast(str).str.to_lowercase().str.contains("gemm", literal=True).sum())
    assert expected
    before = shown.canvas().screenshot()
    shown.page.fill(".nt-search", "GEMM")
    shown.settle()
    assert shown.page.inner_text(".nt-finding") == f"{expected:,} found"
    assert shown.canvas().screenshot() != before
    shown.page.click("[data-act=whole]")
    shown.page.press(".nt-search", "Enter")
    assert "gemm" in shown.panel()["name"].lower()
    first = int(shown.panel()["startNs"])
    assert shown.page.inner_text(".nt-finding") == f"1 of {expected:,}"
    shown.page.click("[data-act=next]")
    assert int(shown.panel()["startNs"]) > first
    assert shown.page.inner_text(".nt-finding") == f"2 of {expected:,}"
    shown.page.click("[data-act=previous]")
    assert int(shown.panel()["startNs"]) == first
    shown.page.click("[data-act=previous]")
    assert shown.page.inner_text(".nt-finding") == f"{expected:,} of {expected:,}"
    shown.page.fill(".nt-search", "no such kernel")
    assert shown.page.inner_text(".nt-finding") == "not found"


def test_theme_repaints_and_the_picture_is_not_blank(shown: Shown) -> None:
    shown.open(page_of(sample()[2]))
    light = shown.page.screenshot()
    shown.page.evaluate(
        "document.documentElement.dataset.theme = 'dark'; document.dispatchEvent(new Event('nitro-theme'))"
    )
    shown.settle()
    assert shown.page.screenshot() != light
    corner = shown.page.evaluate(
        f"[...document.querySelector(\".nt-lane[data-key='{STREAM}'] canvas\").getContext('2d')"
        ".getImageData(0, 0, 1, 1).data]"
    )
    assert max(corner[:3]) < 60
    assert shown.colours("device:0:idle") > 3


def test_dragging_moves_and_dragging_on_the_ruler_zooms(shown: Shown) -> None:
    shown.open(page_of(sample()[2]))
    shown.page.click("[data-act=typical]")
    shown.settle()
    box, ruler = shown.canvas().bounding_box(), shown.page.locator(".nt-ruler").bounding_box()
    mouse = shown.page.mouse
    low, high = shown.ask("visibleSpan()")
    mouse.move(box["x"] + 600, box["y"] + 8)
    mouse.down()
    mouse.move(box["x"] + 500, box["y"] + 8, steps=4)
    mouse.up()
    moved = shown.ask("visibleSpan()")
    assert moved[0] - low == pytest.approx(100 / box["width"] * (high - low), rel=0.02)
    assert moved[1] - moved[0] == pytest.approx(high - low)
    mouse.move(ruler["x"] + 200, ruler["y"] + 10)
    mouse.down()
    mouse.move(ruler["x"] + 300, ruler["y"] + 10, steps=4)
    mouse.up()
    zoomed = shown.ask("visibleSpan()")
    assert zoomed[1] - zoomed[0] == pytest.approx(100 / ruler["width"] * (high - low), rel=0.02)
    mouse.move(box["x"] + 300, box["y"] + 8)
    shown.page.keyboard.down("Shift")
    mouse.wheel(0, 200)
    shown.page.keyboard.up("Shift")
    shown.settle()
    panned = shown.ask("visibleSpan()")
    assert panned[0] > zoomed[0]
    assert panned[1] - panned[0] == pytest.approx(zoomed[1] - zoomed[0])


def test_column_of_an_almost_idle_stream_is_as_tall_as_its_share(shown: Shown) -> None:
    # A kernel of 10 ns in every 100 ns: the stream is busy for a tenth of the time, whatever the zoom.
    kernels = [kernel(start, start + 10) for start in range(0, 1_000_000, 100)]
    shown.open(page_of(packed(timeline_of(View(trace(kernels=kernels))))))
    shown.ask("zoomTo(0, 1000000)")
    shown.settle()
    key = next(key for key in shown.ask("laneKeys()") if ":stream:" in key)
    assert drawn_share(shown, key, "(data[i + 1] - data[i]) / 158") == pytest.approx(17 * 0.1, rel=0.15)


def test_idle_time_is_as_tall_where_only_its_coverage_was_kept(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    # Idle for 90 % of the first half and 50 % of the second; bins of 64 ns tell nothing of when within them.
    kernels = [kernel(start, start + 10) for start in range(0, 500_000, 100)]
    kernels += [kernel(start, start + 50) for start in range(500_000, 1_000_000, 100)]
    monkeypatch.setattr(analyzer_timeline, "MOST_IDLE_PIECES", 5)
    timeline = timeline_of(View(trace(kernels=kernels)))
    assert len(timeline.devices[0].idle.pieces) <= 5
    shown.open(page_of(packed(timeline)))
    for low, expected in ((200_000, 0.9), (700_000, 0.5)):
        for span in (100_000, 1_000_000 / 5):
            shown.ask(f"zoomTo({low}, {low + span})")
            shown.settle()
            tall = drawn_share(shown, "device:0:idle", "(255 - data[i]) / 159")
            assert tall == pytest.approx(26 * expected, rel=0.1)  # the row is 26 pixels tall


def drawn_share(shown: Shown, key: str, weight: str) -> float:
    """Mean height in pixels of what is drawn in the middle of a lane; `weight` tells from a pixel's colour, 0 to 1."""
    return float(
        shown.page.evaluate(
            "key => { const canvas = document.querySelector(`.nt-lane[data-key='${key}'] canvas`);"
            "const {width, height} = canvas; const x = Math.floor(width / 2) - 50;"
            "const data = canvas.getContext('2d').getImageData(x, 0, 100, height).data; let sum = 0;"
            f"for (let i = 0; i < data.length; i += 4) sum += Math.min(Math.max({weight}, 0), 1);"
            "return sum / 100; }",
            key,
        )
    )


def test_wide_kernels_between_narrow_ones_are_all_drawn(shown: Shown) -> None:
    # 1000 kernels of 990 ns follow each other, with one of 5 ns in every pause: nearly everything is green.
    kernels = [kernel(1000 * n, 1000 * n + 990) for n in range(1000)]
    kernels += [kernel(1000 * n + 992, 1000 * n + 997) for n in range(1000)]
    shown.open(page_of(packed(timeline_of(View(trace(kernels=kernels))))))
    key = next(key for key in shown.ask("laneKeys()") if ":stream:" in key)
    for span in (1_000_000, 300_000, 50_000):
        shown.ask(f"zoomTo(0, {span})")
        shown.settle()
        assert drawn_share(shown, key, "(data[i + 1] - data[i]) / 90") > 0.88 * 17, span


def test_tooltip_and_print(shown: Shown) -> None:
    place, _, start, duration = longest_kernel()
    shown.open(page_of(sample()[2]))
    shown.ask(f"zoomTo({start - duration}, {start + 2 * duration})")
    shown.settle()
    box = shown.canvas().bounding_box()
    shown.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 8)
    tip = shown.page.locator(".nt-tip")
    assert tip.is_visible()
    assert numbers.duration(duration) in tip.inner_text()
    assert shown.ask(f"itemAt('{STREAM}', {place})")["label"][:20] in tip.inner_text()
    shown.page.mouse.move(2, 2)
    assert not tip.is_visible()
    assert shown.page.pdf().startswith(b"%PDF")


def test_duration_text_is_that_of_python(shown: Shown) -> None:
    random = np.random.default_rng(7)
    values = [0, 1, 9, 99, 999, 1000, 1001, 12_500, 999_499, 999_500, 999_999, 1_000_000, 1_125_000, 1_135_000, 2_500]
    values += [10_125, 12_345, 100_500, 101_500, 1_005_000, 1_015_000, 1_025_000, 2**53 - 1, 10**15, 2_675_000_000]
    values += [125 * step for step in range(0, 40_000, 37)] + [500 * step + 500 for step in range(3_000)]
    values += (10 ** random.uniform(0, 15.9, 20_000)).astype(np.int64).tolist()
    floats = [0.5, 0.25, 0.125, 1.5, 2.5, 0.0625, 0.01, 0.00001, 12.345, 999.5, 1000.5, -1.5, -2_500, -0.5]
    floats += random.uniform(0, 3000, 5_000).tolist()
    shown.open(page_of(sample()[2]))
    for given in (values, floats):
        texts = shown.page.evaluate("values => values.map(NitroTimeline.duration)", given)
        assert texts == [numbers.duration(value) for value in given]
    assert shown.page.evaluate("NitroTimeline.duration(null)") == numbers.MISSING


def test_names_are_text_and_never_markup(shown: Shown) -> None:
    names = [
        "</script><script>window.bad = 1</script>",
        "<img src=x onerror='window.bad = 1'>",
        "x" * 60_000,
        "a\u202eb\x07",
    ]
    built = trace(
        kernels=[kernel(1000 * place, 1000 * place + 900, name) for place, name in enumerate(names)],
        nvtx=[nvtx_range(1000 * place, 1000 * place + 900, name) for place, name in enumerate(names)],
    )
    shown.open(page_of(packed(timeline_of(View(built)))))
    for lane, key in enumerate(shown.ask("laneKeys()")):
        for item in range(shown.ask(f"laneLength('{key}')")):
            shown.ask(f"select({lane}, {item})")
    shown.settle()
    assert shown.page.evaluate("window.bad") is None
    assert shown.page.evaluate("document.querySelectorAll('.nt img, .nt script').length") == 0
    lane = next(place for place, key in enumerate(shown.ask("laneKeys()")) if ":stream:" in key)
    shown.ask(f"select({lane}, 0)")
    assert shown.panel()["name"] == names[0]
    shown.ask(f"select({lane}, 2)")
    assert len(shown.panel()["name"]) == 2_000
    shown.ask(f"select({lane}, 3)")
    assert "\u202e" not in shown.panel()["name"]


def test_times_beyond_32_bits_stay_exact(shown: Shown) -> None:
    base = 2**52
    spans = [(base, base + 1), (base + 3, base + 2**33 + 5), (base + 2**34 + 7, base + 2**34 + 8)]
    shown.open(page_of(packed(timeline_of(View(trace(kernels=spans))))))
    key = next(key for key in shown.ask("laneKeys()") if ":stream:" in key)
    items = [shown.ask(f"itemAt('{key}', {item})") for item in range(3)]
    assert [(item["startNs"], item["endNs"]) for item in items] == spans


def test_empty_capture_says_so(shown: Shown) -> None:
    shown.open(page_of(packed(timeline_of(View(empty_trace())))))
    assert shown.page.inner_text("#chart") == labels()["empty"]


def test_damaged_data_says_so(shown: Shown) -> None:
    shown.open(page_of("AAAA"))
    assert shown.page.inner_text("#chart") == labels()["damaged"]


def test_two_timelines_of_a_page_wait_until_they_are_seen(shown: Shown) -> None:
    words = {**labels(), "whole": "Ganze Aufnahme"}
    more = '<div id=second style="margin-top: 3000px"></div>'
    html = page_of(sample()[2]).replace("<div id=chart></div>", "<div id=chart></div>" + more)
    second = (
        "<script>NitroTimeline.mount(document.getElementById('second'), "
        f'"{sample()[2]}", {json.dumps(words)})</script>'
    )
    shown.open(html + second)
    page = shown.page
    assert page.locator("#second .nt-chart").count() == 0
    page.evaluate("document.getElementById('second').scrollIntoView()")
    page.wait_for_selector("#second .nt-chart")
    assert page.inner_text("#second [data-act=whole]") == "Ganze Aufnahme"
    assert page.inner_text("#chart [data-act=whole]") == "Whole capture"
    page.evaluate("document.getElementById('second').nitroTimeline.search('gemm')")
    assert shown.ask("stats()")["matches"] == 0
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(each => each.id)")
    assert len(ids) == len(set(ids))


def test_rows_beyond_the_first_forty_wait_behind_a_control(shown: Shown) -> None:
    kernels = [kernel(10 * stream, 10 * stream + 5, stream_id=stream) for stream in range(60)]
    shown.open(page_of(packed(timeline_of(View(trace(kernels=kernels, api_calls=[call(0, 5)]))))))
    visible = shown.page.locator(".nt-lane:visible")
    assert visible.count() == 40
    shown.page.click(".nt-more")
    assert visible.count() == 62
    assert not shown.page.locator(".nt-more").is_visible()
    head = shown.page.locator(".nt-head").first
    tall = shown.page.locator(".nt-lane").first.bounding_box()["height"]
    head.click()
    assert head.get_attribute("aria-expanded") == "false"
    assert shown.page.locator(".nt-lane").first.bounding_box()["height"] < tall


def test_chart_is_described_for_a_screen_reader(shown: Shown) -> None:
    shown.open(page_of(sample()[2]))
    chart = shown.page.locator(".nt-chart")
    assert chart.get_attribute("role") == "application"
    assert chart.get_attribute("tabindex") == "0"
    assert chart.get_attribute("aria-label") == labels()["title"]
    described = chart.get_attribute("aria-describedby")
    assert shown.page.text_content(f"#{described}") == labels()["help"]
    assert shown.page.locator(".nt-details").get_attribute("aria-live") == "polite"
    unnamed = shown.page.evaluate(
        "[...document.querySelectorAll('.nt button, .nt input')].filter(each => !(each.getAttribute('aria-label')"
        " || each.textContent.trim())).length"
    )
    assert unnamed == 0
