"""Chrome trace JSON of any size, in batches: the file is never whole in memory.

The text is cut where one event ends and the next begins, and each part is decoded at once. A cut may only be made
between events of the list itself, not inside the arguments of one. There is a simple proof that it was: a prefix of
the list, with a bracket at both ends, is valid JSON exactly if it ends between two elements. So a likely place is
tried, and the decoder says whether it was one.

What the fast decoder refuses (NaN, control characters, bytes that are no UTF-8) is decoded again event by event, and
the events that cannot be read are counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from nitro.errors import InputError

from ._sqlite_file import _opened

_CHUNK_BYTES = 1 << 22
_LARGEST_EVENT_BYTES = 1 << 26
_CUTS_TRIED = 4
_CUT_WINDOW_BYTES = 1 << 20
_NEXT_EVENT = re.compile(rb"\s*,\s*\{")
_NEXT_EVENT_IN_TEXT = re.compile(r"\}\s*,\s*(?=\{)")
_LIST_KEY = re.compile(rb'"traceEvents"\s*:\s*\[')
_SEPARATORS = re.compile(r"[\s,]*")


_ARGUMENT_NAMES = {
    "registers": "registers per thread",
    "shared_memory": "shared memory",
    "graph_node": "graph node id",
    "sync_kind": "cuda_sync_kind",
}


class Arguments(msgspec.Struct, gc=False, rename=lambda name: _ARGUMENT_NAMES.get(name, name)):
    """The arguments of an event that a profile is made of, as PyTorch calls them; any may hold anything."""

    correlation: Any = None
    device: Any = None
    context: Any = None
    stream: Any = None
    bytes: Any = None
    grid: Any = None
    block: Any = None
    registers: Any = None
    shared_memory: Any = None
    graph_node: Any = None
    sync_kind: Any = None


class Event(msgspec.Struct, gc=False):
    """One event; any field may hold anything."""

    ph: Any = None
    cat: Any = None
    name: Any = None
    pid: Any = None
    tid: Any = None
    ts: Any = None
    dur: Any = None
    args: Arguments | None = None


class ChromeJson:
    """A Chrome trace: iterate over `batches`, then look at the rest.

    `header` has the keys beside the list of events. `damaged` counts events that could not be read. `is_cut`: the file
    ends before its list of events does.
    """

    def __init__(self, path: Path) -> None:
        """Prepare to read a file, plain or compressed."""
        self.path = path
        self.header: dict[str, Any] = {}
        self.damaged = 0
        self.is_cut = False
        self._decoder = msgspec.json.Decoder(list[Event])
        self._tolerant = json.JSONDecoder(strict=False)

    def batches(self) -> Iterator[list[Event]]:
        """Return the events, some thousands at a time.

        Raises:
            InputError: the file cannot be read from its begin, or holds no list of events.
        """
        pieces = self._pieces()
        buffer = self._skip_to_events(pieces)
        for piece in pieces:
            buffer += piece
            if len(buffer) >= _CHUNK_BYTES:
                events, buffer, is_end = self._decoded(buffer)
                yield events
                if is_end:
                    self._read_trailer(buffer + b"".join(pieces))
                    return
                if len(buffer) > _LARGEST_EVENT_BYTES:
                    raise InputError(
                        f"{self.path}: no end of an event in {_LARGEST_EVENT_BYTES >> 20} MiB of JSON; the file is "
                        "damaged or is no trace, so export the profile again."
                    )
        events, rest, is_end = self._one_by_one(buffer, is_last=True)
        yield events
        if is_end:
            self._read_trailer(rest)
        else:
            self.is_cut = True

    def _pieces(self) -> Iterator[bytes]:
        """Return the decompressed text in pieces, as far as it is good."""
        has_data = False
        try:
            with _opened(self.path) as stream:
                # Unlike read(), read1() gives what was decompressed before the damage.
                while piece := stream.read1(_CHUNK_BYTES >> 2):  # type: ignore[attr-defined]
                    has_data = True
                    yield piece
        except InputError:
            if not has_data:
                raise
            self.is_cut = True

    def _skip_to_events(self, pieces: Iterator[bytes]) -> bytes:
        """Read the head up to the list of events, and return what was read beyond it."""
        head = b""
        for piece in pieces:
            head += piece
            if head.lstrip()[:1] == b"[":
                return head.lstrip()[1:]
            for match in _LIST_KEY.finditer(head):
                # The key is that of the file itself, and not of something in its metadata, if this is an object.
                keys = _loaded(head[: match.start()] + b'"":0}')
                if isinstance(keys, dict):
                    keys.pop("", None)
                    self.header.update(keys)
                    return head[match.end() :]
            if len(head) > _LARGEST_EVENT_BYTES:
                break
        raise InputError(
            f"{self.path}: JSON, but without a list of trace events; give a profile of the PyTorch profiler."
        )

    def _decoded(self, buffer: bytes) -> tuple[list[Event], bytes, bool]:
        """Return the events at the head of a buffer, what is left of it, and whether the list has ended."""
        end, tried = len(buffer), 0
        lowest = max(0, len(buffer) - _CUT_WINDOW_BYTES)
        while tried < _CUTS_TRIED and (end := buffer.rfind(b"}", lowest, end)) >= 0:
            match = _NEXT_EVENT.match(buffer, end + 1)
            if match is None:
                continue
            tried += 1
            try:
                return self._decoder.decode(b"[" + buffer[: end + 1] + b"]"), buffer[match.end() - 1 :], False
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
        return self._one_by_one(buffer, is_last=False)

    def _one_by_one(self, buffer: bytes, *, is_last: bool) -> tuple[list[Event], bytes, bool]:
        """Do the same as `_decoded`, but pass over what cannot be read; the rest is text that lacks its end."""
        text = buffer.decode("utf-8", "replace") if is_last else _whole_text(buffer)
        tail = b"" if is_last else buffer[len(buffer) - _cut_bytes(buffer) :]
        events: list[Event] = []
        position = 0
        while True:
            position = _after_separators(text, position)
            if text[position : position + 1] == "]":
                return events, text[position + 1 :].encode() + tail, True
            if position >= len(text):
                return events, tail, False
            try:
                value, position = self._tolerant.raw_decode(text, position)
            except (ValueError, RecursionError):
                following = _NEXT_EVENT_IN_TEXT.search(text, position)
                if following is None:
                    if is_last:
                        self.damaged += 1
                    return events, b"" if is_last else text[position:].encode() + tail, False
                self.damaged += 1
                position = following.end()
                continue
            event = _event(value)
            if event is None:
                self.damaged += 1
            else:
                events.append(event)

    def _read_trailer(self, rest: bytes) -> None:
        keys = _loaded(b"{" + rest.strip().lstrip(b",")) if rest.strip() else None
        if isinstance(keys, dict):
            self.header.update(keys)


def _event(value: object) -> Event | None:
    try:
        return msgspec.convert(value, Event) if isinstance(value, dict) else None
    except (msgspec.ValidationError, ValueError):
        return None


def _loaded(text: bytes) -> object:
    try:
        return json.loads(text.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        return None


def _after_separators(text: str, position: int) -> int:
    match = _SEPARATORS.match(text, position)
    return match.end() if match else position


def _cut_bytes(buffer: bytes) -> int:
    """Return how many bytes at the end begin a letter of UTF-8 that goes on beyond."""
    for length in range(1, min(4, len(buffer)) + 1):
        byte = buffer[-length]
        if byte < 0x80:
            return 0
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return length if needed > length else 0
    return 0


def _whole_text(buffer: bytes) -> str:
    return buffer[: len(buffer) - _cut_bytes(buffer)].decode("utf-8", "replace")
