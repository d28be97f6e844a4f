"""Names short enough for a table: what tells kernels apart comes first."""

from __future__ import annotations

import re
from functools import cache

from nitro.analyzer.message import Message
from nitro.analyzer.table_words import TABLE_WORDS

# Controls, marks of direction, what has no width, line separators, and halves of letters.
_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_NOISE = re.compile(
    r"\bvoid |\bat::native::|\b\(anonymous namespace\)::|<unnamed>::|\((?:int|bool|unsigned int|long)\)"
)


def printable(text: str) -> str:
    """Return the text with characters that steer a terminal or turn the direction of writing made visible.

    Names in a trace are a stranger's input: an escape sequence in a kernel name must not reach the terminal.
    """
    return _STEERING.sub("\N{REPLACEMENT CHARACTER}", text.replace("\n", " ").replace("\t", " "))


def kernel_label(name: str) -> str:
    """Return a kernel's name without return type, parameters, and namespaces that many kernels share."""
    return _NOISE.sub("", _without_parameters(name)).strip() or name


def _without_parameters(name: str) -> str:
    """Cut the parameter list: the first parenthesis outside template brackets that does not open the name."""
    depth = 0
    for position, letter in enumerate(name):
        if letter == "<":
            depth += 1
        elif letter == ">":
            depth -= 1
        elif letter == "(" and depth == 0 and position and name[position - 1] not in ": ":
            return name[:position]
    return name


def table_word(text: str) -> str:
    """Return a cell of a result table as a message where it is our word and not the trace's."""
    return _words().get(text, text)


def nvtx_label(path: str) -> str:
    """Return an NVTX path as a message where it is our word for "no range"; every other name is the user's."""
    return table_word(path) if path.startswith("(") else path


@cache
def _words() -> dict[str, Message]:
    return {str(word): word for word in TABLE_WORDS}
