"""Pages laid out and painted by WeasyPrint, as a PDF.

WeasyPrint takes half a second to be imported and longer than that for a report. So a `Press` has it in a process of its
own, which gets ready while the traces are analysed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from nitro.errors import ToolError

from . import _press_worker
from ._worker import Worker

_MISSING = {
    "WeasyPrint": (
        "PDF output needs WeasyPrint, which is not installed; install it with `pip install 'nitro-analyze[pdf]'`."
    )
}
_MISSING_LIBRARY = (
    "PDF output needs the system library {name}, which is missing; install Pango, on Debian and Ubuntu with "
    "`sudo apt-get install libpango-1.0-0 libpangoft2-1.0-0`."
)


class Press:
    """Prints documents one after the other in a process of its own, which is to be closed."""

    def __init__(self) -> None:
        self._started: Worker | None = None

    def get_ready(self) -> None:
        """Start the process, unless it has been started; the first document would do it, too."""
        if self._started is None:
            self._started = Worker(_press_worker.__file__)

    @property
    def _worker(self) -> Worker:
        self.get_ready()
        assert self._started is not None
        return self._started

    def begin(self, html: str, figures: Iterable[str], figure_count: int) -> None:
        """Send a document, in which `figure:0` and so on are addresses of its figures, which are SVG.

        It is read while its figures are drawn, and laid out while there is something else to do.
        """
        self._worker.tell(json.dumps({"html": html, "figures": figure_count}).encode())
        for figure in figures:
            self._worker.tell(json.dumps(figure).encode())

    def finish(self) -> bytes:
        """Return the document that was begun as PDF.

        Raises:
            ToolError: WeasyPrint, or Pango that it needs from the system, is not there, or the page cannot be laid out.
        """
        line = self._worker.answer()
        answer: dict[str, Any] = (
            json.loads(line) if line else {"trouble": self._worker.last_words() or "WeasyPrint ended"}
        )
        if name := answer.get("missing"):
            raise ToolError(_MISSING.get(name) or _MISSING_LIBRARY.format(name=name))
        if size := answer.get("size"):
            pdf = self._worker.content(size)
            if len(pdf) == size:
                return pdf
            answer = {"trouble": "WeasyPrint ended"}
        raise ToolError(f"the PDF could not be laid out ({answer['trouble']}); write the report as HTML instead.")

    def close(self) -> None:
        """End the process."""
        if self._started is not None:
            self._started.close()
