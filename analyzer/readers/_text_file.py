"""Text files in chunks of whole lines, decompressed where they are compressed, in UTF-8 whatever they were in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..reader import decoded
from ._sqlite_file import _opened

_CHUNK_BYTES = 1 << 23
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_UTF_8_MARK = b"\xef\xbb\xbf"


def text_chunks(path: Path, chunk_bytes: int = _CHUNK_BYTES) -> Iterator[bytes]:
    """Return the lines of a text file in chunks, each of whole lines that end in a line feed only.

    Raises:
        nitro.errors.InputError: the file cannot be read. A compressed file that ends early gives the lines before its
            end, and the error then.
    """
    with _opened(path) as stream:
        rest = stream.read(2)
        if rest in _UTF_16:
            # A shell of Windows writes logs so; they are small.
            yield from _split(decoded(rest + stream.read()).encode(), chunk_bytes)
            return
        while part := stream.read(chunk_bytes):
            part = rest + part
            end = part.rfind(b"\n") + 1
            rest = part[end:]
            if end:
                yield _plain(part[:end])
        if rest:
            yield _plain(rest)


def _split(data: bytes, size: int) -> Iterator[bytes]:
    while data:
        end = data.rfind(b"\n", 0, size) + 1 or len(data)
        yield _plain(data[:end])
        data = data[end:]


def _plain(data: bytes) -> bytes:
    data = data.removeprefix(_UTF_8_MARK)
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data
