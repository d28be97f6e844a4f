"""Names in a trace are a stranger's input: they are shown as they are, and do nothing. Odd traces give a report too."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from builders import call, gpu, kernel, nvtx_range, operation, thread, trace, write_nsys_sqlite
from nitro.analyzer import Trace

if TYPE_CHECKING:
    from reports.conftest import Open

NAMES = (
    "<script>window.pwned=1;alert(1)</script>",
    '"><img src=x onerror="window.pwned=1">',
    "</script><script>window.pwned=1</script>",
    "<!-- <script>",
    "{{ 7*7 }}",
    "{% raise %}",
    "{0} {name} {",
    "%s %(name)s %",
    "two\nlines\tand a tab",
    "right \u202eto left\u202c \u200f",
    "bell \x07 escape \x1b[31mred\x1b[0m nul-like \x01",
    "`code` | *star* [link](javascript:window.pwned=1) # | \\",
    "'quotes' \"double\" `back`",
    "=cmd|'/c calc'!A1",
    "javascript:window.pwned=1",
    "이름 日本語 🚀 ﷽",
    "",
    " ",
    "template<" + "int, " * 12_000 + "int>(void)",
)
FILE = "{{ 7*7 }} <img src=x onerror=window.pwned=1> & ' %s {0}.sqlite"
OUTPUTS = ("a.html", "a.pdf", "a.md", "a.json")


def hostile() -> Trace:
    steps = range(3 * len(NAMES))
    return trace(
        kernels=[
            kernel(at * 1000 + 100, at * 1000 + 600, NAMES[at % len(NAMES)], correlation_id=at + 1) for at in steps
        ],
        memcpys=[operation(at * 1000 + 650, at * 1000 + 700) for at in steps],
        api_calls=[
            call(at * 1000, at * 1000 + 50, NAMES[at % len(NAMES)] or "x", correlation_id=at + 1) for at in steps
        ],
        nvtx=[nvtx_range(at * 1000, at * 1000 + 900, NAMES[at % len(NAMES)]) for at in steps]
        + [nvtx_range(at * 3000, at * 3000 + 2950, "{{ 7*7 }} step") for at in range(len(NAMES))],
        devices=[gpu(0, "<script>window.pwned=1</script> {{ 7*7 }} GPU", sm_count=8)],
    )


def one_kernel() -> Trace:
    return trace(kernels=[kernel(100, 200)])


def no_kernels() -> Trace:
    return trace(kernels=[], memcpys=[], api_calls=[call(0, 10, "cudaMalloc_v3020")], devices=[gpu(0)])


def nothing() -> Trace:
    return trace(kernels=[], devices=[])


def hundred_devices() -> Trace:
    return trace(
        kernels=[
            kernel(at * 100, at * 100 + 60, f"kernel_{at % 7}", device_id=device, correlation_id=at * 100 + device + 1)
            for device in range(100)
            for at in range(3)
        ],
        devices=[gpu(device) for device in range(100)],
    )


def hundred_threads() -> Trace:
    return trace(
        kernels=[kernel(at * 100, at * 100 + 60, correlation_id=at + 1, stream_id=at) for at in range(100)],
        api_calls=[
            call(at * 100 - 50, at * 100 - 20, correlation_id=at + 1, tid=thread(at + 1)) for at in range(1, 100)
        ],
    )


MADE: dict[str, Any] = {
    made.__name__: made for made in (hostile, one_kernel, no_kernels, nothing, hundred_devices, hundred_threads)
}


@pytest.fixture(scope="module")
def outputs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with every output of a trace, made by the command line."""
    folder = tmp_path_factory.mktemp("outputs")
    write_nsys_sqlite(folder / FILE, MADE[request.param]())
    command = [sys.executable, "-m", "nitro.cli", FILE, "--assets", "assets", "--csv", "csv"]
    for name in OUTPUTS:
        command += ["-o", name]
    environment = os.environ | {"LANG": "en_US.UTF-8", "LC_ALL": "", "LC_MESSAGES": "", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (folder / "terminal.txt").write_text(done.stdout, encoding="utf-8")
    return folder


every = pytest.mark.parametrize("outputs", MADE, indirect=True)
only_hostile = pytest.mark.parametrize("outputs", ["hostile"], indirect=True)


@every
def test_every_output_is_made(outputs: Path) -> None:
    assert all((outputs / name).stat().st_size > 500 for name in OUTPUTS)
    assert json.loads((outputs / "a.json").read_text())["source"]["file_name"] == FILE
    assert (outputs / "a.pdf").read_bytes().startswith(b"%PDF-")
    for table in (outputs / "assets").glob("*.csv"):
        with table.open(newline="", encoding="utf-8") as stream:
            assert len({len(row) for row in csv.reader(stream)}) <= 1


@every
def test_page_runs_nothing_of_the_trace(outputs: Path, open_page: Open) -> None:
    opened = open_page(outputs / "a.html")
    for language in ("en", "ko"):
        opened.choose("language", language)
        opened.draw_all()
        for mount in opened.page.locator(".timeline-mount:visible").all():
            mount.scroll_into_view_if_needed()
            mount.evaluate("mount => mount.nitroTimeline.ready")
        opened.settle()
        assert opened.page.evaluate("window.pwned") is None
        content, window = opened.widths()
        assert content <= window
    assert opened.page.locator("main img, main iframe, main object, a[href^='javascript:' i]").count() == 0
    assert opened.page.locator("h1").all_inner_texts()[0] == FILE or opened.page.title() == FILE


@only_hostile
def test_names_are_shown_as_they_are(outputs: Path, open_page: Open) -> None:
    opened = open_page(outputs / "a.html")
    text = opened.page.locator(".page:lang(en)").text_content()
    for name in (
        "{{ 7*7 }}",
        "{% raise %}",
        "<script>window.pwned=1;alert(1)</script>",
        "{0} {name} {",
        "%s %(name)s %",
    ):
        assert name in text
    assert "49" not in opened.page.title()
    assert opened.page.title() == FILE
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u200e\u200f]", text)


@only_hostile
def test_texts_hold_no_letter_that_steers(outputs: Path) -> None:
    for name in ("terminal.txt", "a.md"):
        text = (outputs / name).read_text(encoding="utf-8")
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u200e\u200f]", text), name
        assert "{{ 7*7 }}" in text or "\\{\\{ 7\\*7 \\}\\}" in text
    for table in (outputs / "assets").glob("*"):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u200e\u200f]", table.read_text(encoding="utf-8"))


@only_hostile
def test_markdown_makes_no_element_and_no_link_of_a_name(outputs: Path) -> None:
    text = (outputs / "a.md").read_text(encoding="utf-8")
    assert not re.search(r"(?<!\\)<", text)
    assert not re.search(r"(?<!\\)\]\(", text)
    # A mark between columns is written with a backslash inside a cell, so rows keep their columns.
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert tables
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table}) == 1


@only_hostile
@pytest.mark.usefixtures("poppler")
def test_names_fit_on_paper(outputs: Path) -> None:
    done = subprocess.run(["pdftotext", outputs / "a.pdf", "-"], capture_output=True, text=True, check=True)
    assert "{{ 7*7 }}" in done.stdout
    assert len(re.findall("\f", done.stdout)) < 40
