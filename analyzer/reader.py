"""`Reader`: how a file format is recognised and read. One file of `readers/` declares one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from .evidence import Evidence
from .trace import Trace

HEAD_BYTES = 1 << 16


@dataclass(frozen=True)
class Head:
    """What recognition may look at: the first 64 KiB after decompression, and whether the path is a folder.

    The name of the file is kept from readers on purpose: what a file is, its content says.
    """

    data: bytes
    is_folder: bool = False
    names: tuple[str, ...] = ()
    """Names in the folder, where it is one."""

    @cached_property
    def text(self) -> str:
        """The head as text: UTF-8, or UTF-16 with its mark, as a Windows shell writes it; damage is replaced."""
        return decoded(self.data)

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """The full lines of the text; the last one, which may be cut, only where it is the only one."""
        lines = self.text.splitlines()
        return tuple(lines[:-1] if len(lines) > 1 and len(self.data) >= HEAD_BYTES else lines)


@dataclass(frozen=True, slots=True)
class Reader:
    """One format.

    `recognises` tells by the head of a file whether this reader is for it. It must be cheap, raise nothing, and not
    claim what belongs to another reader; `rank` decides where two claim a file (lowest first). `read` returns a
    `Trace`, or `Evidence` that belongs beside one; where only a part of the file is good, it uses that part, counts the
    rest in `left_out` and says so in `notes`; where nothing is, it raises `InputError`. Imports beyond numpy and polars
    belong inside `read`.
    """

    format: str
    title: str
    gives: Literal["trace", "evidence"]
    recognises: Callable[[Head], bool]
    read: Callable[[Path], Trace | Evidence]
    rank: int = 50


def decoded(data: bytes) -> str:
    """Return text of bytes: UTF-16 where its mark stands first, else UTF-8; damaged characters are replaced."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data[: len(data) // 2 * 2].decode("utf-16", "replace")
    return data.decode("utf-8-sig", "replace")
