"""Figures as SVG, with text that stays text.

What turns Vega-Lite into SVG is a JavaScript engine that takes most of a second to start and holds the interpreter's
lock while it works. So a `Drawer` runs it in a process of its own, beside whatever else there is to do.
"""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING

from nitro.errors import ToolError

from . import _svg_worker
from ._worker import Worker
from .press import Press

if TYPE_CHECKING:
    from .. import blocks

WIDTH = 620
_MARK = re.compile(r"<[a-z][^<>]*>")
_OPACITY = re.compile(r' opacity="([^"]+)"')


class Drawer:
    """Draws figures one after the other in a process of its own, which starts at once. Use it in a `with` statement.

    Its `press` prints PDF files with these figures.

    Raises:
        ToolError: vl-convert is not installed.
    """

    def __init__(self) -> None:
        if find_spec("vl_convert") is None:
            raise ToolError(
                "drawing figures needs vl-convert, which is not installed; install it with "
                "`pip install 'nitro-analyze[pdf]'`."
            )
        self._worker = Worker(_svg_worker.__file__)
        self.press = Press()
        self._asked = 0
        self._drawn: list[str] = []

    def __enter__(self) -> Drawer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.close()
        self.press.close()

    def ask(self, figure: blocks.Figure, language: blocks.Language = "en") -> int:
        """Queue a figure; return the number by which `drawn` gives it."""
        # A drawer starts before anything else is imported, and these take as long as the engine.
        from .. import figures
        from ..templating import json_in_script

        dressed = figures.dressed(figure.spec, width=WIDTH, language=language)
        # A description of every mark would be most of the file, and paper reads none of them.
        dressed["config"]["aria"] = False
        self._worker.tell(json_in_script(dressed).encode())
        self._asked += 1
        return self._asked - 1

    def drawn(self, number: int) -> str:
        """Return a figure that was asked for as SVG, as soon as it is there.

        Raises:
            ToolError: it could not be drawn.
        """
        while len(self._drawn) <= number:
            answer = self._worker.answer()
            if not answer:
                last = self._worker.last_words() or "vl-convert ended"
                raise ToolError(f"a figure could not be drawn ({last}); try without PDF.")
            self._drawn.append(_without_groups(json.loads(answer)))
        return self._drawn[number]


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
