"""Protocol buffers, written for many messages of the same shape at once.

A message is a list of fields, each either the same bytes in all rows or an array with a value a row. Every value is
padded to the width that the largest one needs, which the format allows for a varint (a continuation bit with nothing
behind it), so that all rows have the same length and are encoded by numpy, not one by one. Numbers of fields and wire
types: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Part = bytes | Bytes
"""The same bytes in every row, or an array of shape (rows, width)."""

_VARINT, _FIXED64, _DELIMITED = 0, 1, 2


def varint(value: int) -> bytes:
    """Return a number that is not negative as a varint of the least width."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def width_for(largest: int) -> int:
    """Return how many bytes a varint of a number that is not negative needs."""
    return max(-(-largest.bit_length() // 7), 1)


def _tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def integer(number: int, value: int) -> bytes:
    """Return a field with a number, the two's complement in 64 bits where it is negative."""
    return _tag(number, _VARINT) + varint(value & 0xFFFF_FFFF_FFFF_FFFF)


def delimited(number: int, content: bytes | str) -> bytes:
    """Return a field with a message, or with text; halves of letters become question marks."""
    raw = content.encode(errors="replace") if isinstance(content, str) else content
    return _tag(number, _DELIMITED) + varint(len(raw)) + raw


def integers(number: int, values: npt.NDArray[np.integer], width: int) -> list[Part]:
    """Return a field with a number of each row, none of them negative, as varints of `width` bytes."""
    shifts = np.arange(0, 7 * width, 7, dtype=np.uint64)
    out = ((values.astype(np.uint64)[:, None] >> shifts) & np.uint64(0x7F)).astype(np.uint8)
    out[:, :-1] |= 0x80
    return [_tag(number, _VARINT), out]


def fixed(number: int, values: npt.NDArray[np.number]) -> list[Part]:
    """Return a field with 8 bytes of each row: `fixed64` for integers, `double` for floats."""
    raw = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return [_tag(number, _FIXED64), raw.view(np.uint8).reshape(len(raw), 8)]


def nested(number: int, parts: Sequence[Part]) -> list[Part]:
    """Return a field with a message of the parts."""
    return [_tag(number, _DELIMITED) + varint(sum(map(_width, parts))), *parts]


def rows_of(parts: Sequence[Part], count: int) -> Bytes:
    """Return the parts side by side, shape (count, width)."""
    out = np.empty((count, sum(map(_width, parts))), np.uint8)
    at = 0
    for part in parts:
        width = _width(part)
        out[:, at : at + width] = np.frombuffer(part, np.uint8) if isinstance(part, bytes) else part
        at += width
    return out


def _width(part: Part) -> int:
    return len(part) if isinstance(part, bytes) else part.shape[1]
