"""Print traces as PDF, one a line: a process for `conftest.py`, which runs two of them side by side.

Reads lines of JSON, [trace, folder, papers], and answers each with a line when `NAME.LANGUAGE.PAPER.pdf` are written.
"""

from __future__ import annotations

import json
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from nitro.analyzer import analyze, open_trace
from nitro.reports.language import LANGUAGES
from nitro.reports.output import Documents, Paper, Settings, drawing

if TYPE_CHECKING:
    from nitro.reports.renderers.svg import Drawer

TITLE, AUTHOR = "A title, <b>&amp;", "Ada & 에이다"


def print_trace(trace: Path, folder: Path, papers: list[Paper], drawer: Drawer) -> None:
    """Write the PDF of a trace in every language on every paper."""
    analyses = [analyze(open_trace(trace), with_timeline=True)]
    for language in LANGUAGES:
        for paper in papers:
            settings = Settings(language=language, title=TITLE, author=AUTHOR, paper=paper)
            (folder / f"{language}.{paper}.pdf").write_bytes(Documents(analyses, settings, drawer).pdf())


def main() -> None:
    """Print until there is nothing more to print."""
    with ExitStack() as stack:
        # It takes seconds to start, and draws for one trace after the other.
        drawer = stack.enter_context(drawing())
        for line in sys.stdin:
            trace, folder, papers = json.loads(line)
            try:
                print_trace(Path(trace), Path(folder), papers, drawer)
                answer = ""
            except Exception:  # noqa: BLE001 - the test that waits for the answer fails with it
                answer = traceback.format_exc()
                drawer = stack.enter_context(drawing())  # the one before may wait for what never came
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
