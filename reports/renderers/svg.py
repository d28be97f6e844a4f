"""Figures as SVG, with text that stays text.

What turns Vega-Lite into SVG is a JavaScript engine that takes most of a second to start and holds the interpreter's
lock while it works. So a `Drawer` runs it in a process of its own, beside whatever else there is to do.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from queue import SimpleQueue
from threading import Thread
from types import TracebackType

from nitro.errors import ToolError

from .. import blocks, figures
from ..templating import json_in_script
from . import _svg_worker

WIDTH = 620
_MARK = re.compile(r"<[a-z][^<>]*>")
_OPACITY = re.compile(r' opacity="([^"]+)"')
# The folder that a program starts in is on Python's path: a `json.py` that lies there must not be imported.
_START = (
    "import sys; sys.path[:1] = [] if sys.path[0] == '' else sys.path[:1]; "
    "import runpy; runpy.run_path(sys.argv[1], run_name='__main__')"
)


class Drawer:
    """Draws figures one after the other in a process of its own, which starts at once. Use it in a `with` statement.

    Raises:
        ToolError: vl-convert is not installed.
    """

    def __init__(self) -> None:
        if find_spec("vl_convert") is None:
            raise ToolError(
                "drawing figures needs vl-convert, which is not installed; install it with "
                "`pip install 'nitro-analyze[pdf]'`."
            )
        command = [sys.executable, "-c", _START, _svg_worker.__file__]
        pipe = subprocess.PIPE
        # In a session of its own, Ctrl-C reaches this process, which then ends the other.
        self._worker = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        self._waiting: SimpleQueue[bytes | None] = SimpleQueue()
        # The pipe to the worker may be full while it draws; who asks need not wait for that.
        Thread(target=self._feed, daemon=True).start()
        self._asked = 0
        self._drawn: list[str] = []

    def __enter__(self) -> Drawer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.put(None)
        if kind is not None or len(self._drawn) < self._asked:
            self._worker.kill()
        self._worker.communicate()

    def ask(self, figure: blocks.Figure, language: blocks.Language = "en") -> int:
        """Queue a figure; return the number by which `drawn` gives it."""
        dressed = figures.dressed(figure.spec, width=WIDTH, language=language)
        # A description of every mark would be most of the file, and paper reads none of them.
        dressed["config"]["aria"] = False
        self._waiting.put(json_in_script(dressed).encode() + b"\n")
        self._asked += 1
        return self._asked - 1

    def drawn(self, number: int) -> str:
        """Return a figure that was asked for as SVG, as soon as it is there.

        Raises:
            ToolError: it could not be drawn.
        """
        assert self._worker.stdout is not None
        if not 0 <= number < self._asked:
            raise ToolError(f"figure {number} was never asked for; a stylesheet must not use url(figure:…).")
        while len(self._drawn) <= number:
            answer = self._worker.stdout.readline()
            if not answer:
                assert self._worker.stderr is not None
                last = self._worker.stderr.read().decode(errors="replace").strip().splitlines()[-1:]
                raise ToolError(
                    f"a figure could not be drawn ({''.join(last) or 'vl-convert ended'}); try without PDF."
                )
            self._drawn.append(_without_groups(json.loads(answer)))
        return self._drawn[number]

    def _feed(self) -> None:
        assert self._worker.stdin is not None
        # Where the worker has ended, who waits for its answer says so.
        with suppress(OSError, ValueError):
            while (line := self._waiting.get()) is not None:
                self._worker.stdin.write(line)
                self._worker.stdin.flush()


def _without_groups(svg: str) -> str:
    """Return an SVG whose marks have no opacity as a whole, only that of their fill and stroke, which look the same.

    WeasyPrint makes a group of every mark with an opacity, and viewers read the fonts again for each: a Korean PDF took
    seconds to open.
    """
    return _MARK.sub(_with_opaque_parts, svg)


def _with_opaque_parts(found: re.Match[str]) -> str:
    mark = found.group().replace(' opacity="1"', "")
    if "fill-opacity=" in mark or "stroke-opacity=" in mark:
        return mark
    return _OPACITY.sub(r' fill-opacity="\1" stroke-opacity="\1"', mark)
