"""Programs in processes of their own: what they answer, and what is said when they do not."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from pypdf import PdfReader

from nitro.errors import ToolError
from nitro.reports.renderers._worker import Worker
from nitro.reports.renderers.press import Press

FIGURE = '<svg xmlns="http://www.w3.org/2000/svg" width="90" height="20"><text x="1" y="12">{text}</text></svg>'
ENDLESS_S = 3600


def text_of(pdf: bytes) -> str:
    return " ".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)


def test_a_press_prints_one_document_after_the_other_with_figures_that_come_later() -> None:
    pytest.importorskip("weasyprint")
    press = Press()
    try:
        for word in ("one", "two"):
            # The second figure is shown nowhere, and is not taken for the next document.
            figures = (FIGURE.format(text=f"{word} {name}") for name in ("drawn", "unseen"))
            press.begin(f"<p>{word}</p><img src='figure:0'>", figures, 2)
            text = text_of(press.finish())
            assert text.count(word) == 2
            assert "drawn" in text
            assert "unseen" not in text
    finally:
        press.close()


def test_a_figure_that_was_never_asked_for_is_not_waited_for() -> None:
    pytest.importorskip("weasyprint")
    press = Press()
    try:
        html = "<style>p { background: url(figure:9) }</style><p>text</p><img src='figure:1'>"
        press.begin(html, [FIGURE.format(text="a")], 1)
        assert "text" in text_of(press.finish())
    finally:
        press.close()


def test_a_press_that_dies_is_one_sentence() -> None:
    press = Press()
    press._worker._process.kill()
    press.begin("<p>text</p>", [], 0)
    with pytest.raises(
        ToolError, match=r"^the PDF could not be laid out \(WeasyPrint ended\); write .* HTML instead\.$"
    ):
        press.finish()
    press.close()


def program(tmp_path: Path, text: str) -> str:
    file = tmp_path / "program.py"
    file.write_text(text)
    return str(file)


def test_a_worker_answers_lines_and_content(tmp_path: Path) -> None:
    echo = "import sys\nfor line in sys.stdin.buffer:\n    sys.stdout.buffer.write(line * 2)\n    sys.stdout.flush()"
    worker = Worker(program(tmp_path, echo))
    worker.tell(b"word")
    assert worker.answer() == b"word\n"
    assert worker.content(4) == b"word"
    worker.close()


def test_a_worker_that_ends_leaves_its_last_words(tmp_path: Path) -> None:
    # More than a pipe holds: a worker must not wait for somebody to read its complaints.
    worker = Worker(program(tmp_path, "import sys\nsys.stderr.write('noise\\n' * 100_000)\nraise OSError('no disk')"))
    assert worker.answer() == b""
    assert worker.last_words() == "OSError: no disk"
    worker.close()


def test_a_worker_that_reads_nothing_is_closed_at_once(tmp_path: Path) -> None:
    worker = Worker(program(tmp_path, f"import time\ntime.sleep({ENDLESS_S})"))
    worker.tell(b"x" * 1_000_000)
    begin = time.monotonic()
    worker.close()
    assert time.monotonic() - begin < ENDLESS_S / 10
    assert worker._process.returncode


def test_a_module_in_the_working_folder_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('a stranger runs')")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "programs").mkdir()
    worker = Worker(program(tmp_path / "programs", "import json\nprint(json.dumps(1))"))
    assert worker.answer() == b"1\n"
    worker.close()
