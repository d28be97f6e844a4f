"""What the tests of documents share: traces and their documents, a browser, and the tools that read a PDF.

The shared captures are not part of the repository: the environment variable NITRO_TRACES names the folder that holds
them. Without it the sample that ships with the project stands alone. Each trace is analysed once a session.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nitro.analyzer import Analysis, Trace, analyze, open_trace
from nitro.reports.output import Documents

ROOT = Path(__file__).parents[2]
SAMPLE = "dual_encoder"
_SAMPLE_FILE = ROOT / "examples" / f"{SAMPLE}.sqlite.xz"
_FOLDER = Path(os.environ.get("NITRO_TRACES", "/nonexistent"))
_PRINTERS = 2
_DPI = 30
_END = "printed.txt"
_LONGEST_PRINT_S = 600


def _found() -> dict[str, Path]:
    files = (file for folder in ("nsys", "own") for file in sorted((_FOLDER / folder).glob("*.sqlite*")))
    return {SAMPLE: _SAMPLE_FILE} | {file.name.partition(".sqlite")[0]: file for file in files}


TRACES = _found()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for a `trace_name` for the sample and for every shared trace."""
    if "trace_name" in metafunc.fixturenames:
        metafunc.parametrize("trace_name", TRACES)


def tool(*names: str) -> str:
    """Return the path of a program; without it skip, but fail where everything has been installed: in CI."""
    for name in names:
        if path := os.environ.get(f"NITRO_{name.upper()}") or shutil.which(name):
            return path
    text = f"{names[0]} is not installed"
    if os.environ.get("CI"):
        pytest.fail(f"{text}, and CI must not leave these tests out", pytrace=False)
    pytest.skip(text)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of Chromium."""
    return tool("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def poppler() -> None:
    """Ask for poppler, which reads PDF files."""
    for name in ("pdftotext", "pdftoppm", "pdffonts", "pdfinfo"):
        tool(name)


# --- traces and pages -------------------------------------------------------------------------------------------------


@dataclass
class Library:
    """Traces by name, with their analyses and pages; each is made once, when it is first asked for."""

    folder: Path
    _traces: dict[str, Trace] = field(default_factory=dict, repr=False)
    _analyses: dict[str, Analysis] = field(default_factory=dict, repr=False)

    def trace(self, name: str) -> Trace:
        """Return a trace, read."""
        if name not in self._traces:
            self._traces[name] = open_trace(TRACES[name])
        return self._traces[name]

    def analysis(self, name: str) -> Analysis:
        """Return the analysis of a trace, with its timeline."""
        if name not in self._analyses:
            # Only the rows of the sample are looked at again; those of the others would fill the memory.
            trace = self.trace(name) if name == SAMPLE else open_trace(TRACES[name])
            self._analyses[name] = analyze(trace, with_timeline=True)
        return self._analyses[name]

    def page(self, name: str) -> Path:
        """Return the HTML file of a trace."""
        file = self.folder / f"{name}.html"
        if not file.exists():
            file.write_bytes(Documents([self.analysis(name)]).html())
        return file


@pytest.fixture(scope="session")
def shared_names() -> frozenset[str]:
    """Return the names of the traces that are here."""
    return frozenset(TRACES)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Return the traces."""
    return Library(tmp_path_factory.mktemp("pages"))


# --- the browser ------------------------------------------------------------------------------------------------------


@dataclass
class Opened:
    """A page that was opened from a file: what it complained about, and what it asked for."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(f"page error: {error}"))
        self.page.on("request", lambda request: self._ask(request.url))
        self.page.on("dialog", self._refuse)

    def _hear(self, said: Any) -> None:
        if said.type in ("error", "warning"):
            self.complaints.append(f"{said.type}: {said.text}")

    def _ask(self, url: str) -> None:
        if url.partition(":")[0] not in ("file", "data", "blob"):
            self.requests.append(url)

    def _refuse(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def settle(self) -> None:
        """Wait until the page has been painted twice."""
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def draw_all(self) -> None:
        """Draw every figure of the language that is shown."""
        self.page.evaluate("NitroReport.drawAll()")
        self.settle()

    def choose(self, what: str, value: str) -> None:
        """Choose a language or a theme as a reader does."""
        self.page.locator(f".choose-{what}:visible").select_option(value)
        self.settle()

    def widths(self) -> tuple[int, int]:
        """Return the width of the page's content and of the window."""
        content, window = self.page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        return int(content), int(window)

    def screenshot(self, name: str) -> None:
        """Save a picture of the whole page into the folder that NITRO_SCREENSHOTS names."""
        if folder := os.environ.get("NITRO_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    def assert_quiet(self) -> None:
        """Fail where the page complained, asked for something, or opened a dialog."""
        assert (self.complaints, self.requests, self.dialogs) == ([], [], [])


# Not for the whole session: while it runs, Playwright holds the event loop of this thread, which others need.
@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    """Return Chromium, started."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        tool("playwright")
        raise
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


Open = Callable[..., Opened]


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Return what opens a file in the browser, without a network. At the end, no page may have complained."""
    contexts, pages = [], []

    def opened(file: Path, *, width: int = 1400, **options: Any) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": 900}, **{"color_scheme": "light"} | options)
        context.set_offline(True)
        contexts.append(context)
        made = Opened(context.new_page())
        pages.append(made)
        made.page.goto(file.as_uri())
        return made

    yield opened
    for context in contexts:
        context.close()
    for page in pages:
        page.assert_quiet()


# --- paper ------------------------------------------------------------------------------------------------------------


@dataclass
class Printed:
    """A PDF file and what poppler makes of it."""

    file: Path

    @cached_property
    def text(self) -> str:
        """Return the text, laid out as on paper, pages apart by form feeds."""
        return self.file.with_suffix(".txt").read_text(encoding="utf-8")

    @cached_property
    def pages(self) -> list[npt.NDArray[np.uint8]]:
        """Return a picture of each page, in grey, 255 white."""
        pictures = sorted(self.file.parent.glob(f"{self.file.stem}-*.pgm"))
        return [_grey(picture.read_bytes()) for picture in pictures]

    @staticmethod
    def pixels(millimetres: float) -> int:
        """Return how many whole pixels of a picture lie in a length."""
        return int(millimetres / 25.4 * _DPI)

    def read(self) -> None:
        """Have poppler write the text and the pictures."""
        subprocess.run(["pdftotext", "-layout", self.file, self.file.with_suffix(".txt")], check=True)
        picture = self.file.with_suffix("")
        subprocess.run(["pdftoppm", "-r", str(_DPI), "-gray", self.file, picture], check=True)


def _grey(pgm: bytes) -> npt.NDArray[np.uint8]:
    kind, width, height, most, _ = pgm.split(maxsplit=4)
    assert (kind, most) == (b"P5", b"255")
    pixels = int(width) * int(height)
    return np.frombuffer(pgm[-pixels:], np.uint8).reshape(int(height), int(width))


class Press:
    """Prints traces in processes of its own, ahead of the tests that look at them.

    Where tests run in several processes, these share a folder: a trace is printed by the first that claims it.
    """

    def __init__(self, folder: Path, names: list[str], *, printers: int) -> None:
        self._folder = folder
        self._workers: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()
        self._all: list[subprocess.Popen[str]] = []
        for _ in range(min(printers, len(names))):
            worker = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("print_traces.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self._workers.put(worker)
            self._all.append(worker)
        self._pool = ThreadPoolExecutor(max(len(self._all), 1))
        for name in names:
            self._pool.submit(self._print, name)

    def __call__(self, name: str, language: str, paper: str = "a4") -> Printed:
        """Return a trace on paper, as soon as it is there."""
        self._print(name)  # before those that nobody waits for yet
        end = self._folder / name / _END
        deadline = time.monotonic() + _LONGEST_PRINT_S
        while not end.exists():
            assert time.monotonic() < deadline, f"whoever prints {name} does not come to an end"
            time.sleep(0.1)
        if trouble := end.read_text(encoding="utf-8"):
            raise AssertionError(trouble)
        return Printed(self._folder / name / f"{language}.{paper}.pdf")

    def close(self) -> None:
        """Stop the printers."""
        self._pool.shutdown(cancel_futures=True)
        for worker in self._all:
            worker.communicate()

    def _print(self, name: str) -> None:
        folder = self._folder / name
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            return  # it is printed, or somebody is at it
        try:
            trouble = self._trouble_with(name, folder)
        except Exception:  # noqa: BLE001 - the tests that wait for it fail with it
            trouble = traceback.format_exc()
        part = folder / f"{_END}.part"
        part.write_text(trouble, encoding="utf-8")
        part.rename(folder / _END)

    def _trouble_with(self, name: str, folder: Path) -> str:
        """Print a trace; return what went wrong."""
        worker = self._workers.get()
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            papers = ["a4", "letter"] if name == SAMPLE else ["a4"]
            worker.stdin.write(json.dumps([str(TRACES[name]), str(folder), papers]) + "\n")
            worker.stdin.flush()
            answer = worker.stdout.readline()
        finally:
            self._workers.put(worker)
        assert answer, "the process that prints has ended"
        trouble: str = json.loads(answer)
        for file in () if trouble else folder.glob("*.pdf"):
            Printed(file).read()
        return trouble


@pytest.fixture(scope="session")
def press(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Press]:
    """Return the traces on paper: of this run's tests those that are looked at."""
    request.getfixturevalue("poppler")
    names = [
        item.callspec.params.get("trace_name", SAMPLE) if hasattr(item, "callspec") else SAMPLE
        for item in request.session.items
        if "press" in getattr(item, "fixturenames", ())
    ]
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    folder = tmp_path_factory.getbasetemp().parent / "papers" if processes > 1 else tmp_path_factory.mktemp("papers")
    made = Press(folder, list(dict.fromkeys(names)), printers=max(_PRINTERS // processes, 1))
    yield made
    made.close()
