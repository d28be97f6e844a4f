"""Values of a type from what a JSON file says, all of it checked: a file may come from anywhere."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}


@dataclass(frozen=True, slots=True)
class Between:
    """Numbers from `least` to `most`."""

    least: float
    most: float


@dataclass(frozen=True, slots=True)
class OneLine:
    """A text that can be shown in a line: without control characters, which would steer a terminal."""


Name = Annotated[str, OneLine()]
# From less than a clock cycle to some days: gains are quotients of times, so none of them may be 0.
Microseconds = Annotated[float, Between(1e-6, 1e12)]


def parsed(text: str) -> Any:
    """Return what a text of JSON says; NaN and infinity, which are none of JSON, are refused.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return json.loads(text, parse_constant=_refused)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")


def value_of(content: Any, kind: Any, where: str = "") -> Any:
    """Return the value of a type that a part of a JSON file says.

    Args:
        content: the part.
        kind: str, int, float, bool, None, a Literal, a union, tuple, dict with texts as keys, a dataclass of those, or
            one of them annotated with `Between` or `OneLine`.
        where: the place of the part in the file, for the message.

    Raises:
        ValueError: it is something else; the message says where, and what was expected.
    """
    if kind is Any:
        return content
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _limited(value_of(content, parts[0], where), parts[1], where)
    if origin in (Union, UnionType):
        if content is None and NoneType in parts:
            return None
        return value_of(content, next(part for part in parts if part is not NoneType), where)
    if origin is Literal:
        if content not in parts:
            raise ValueError(f"{where} is {_shown(content)}, not one of {', '.join(map(str, parts))}")
        return content
    if origin is tuple:
        return _tuple(content, parts, where)
    if origin is dict:
        held = _of(content, dict, "a mapping", where)
        return {_text(key, where): value_of(value, parts[1], f"{where}.{key!a}") for key, value in held.items()}
    if is_dataclass(kind):
        return _instance(_of(content, dict, "a mapping", where), kind, where)
    return _plain(content, kind, where)


def _plain(content: Any, kind: Any, where: str) -> Any:
    wanted = (int, float) if kind is float else kind
    found = _of(content, wanted, _NAMES[kind], where)
    if isinstance(found, bool) and kind is not bool:
        raise ValueError(f"{where} is {_shown(found)}, not {_NAMES[kind]}")
    if kind is str:
        return _text(found, where)
    if kind is float:
        try:
            found = float(found)
        except OverflowError:
            found = math.inf
        if not math.isfinite(found):
            raise ValueError(f"{where} is too large")
    return found


def _of(content: Any, wanted: Any, said: str, where: str) -> Any:
    if not isinstance(content, wanted):
        raise ValueError(f"{where} is {_shown(content)}, not {said}")  # noqa: TRY004 - so is all else that is wrong
    return content


def _text(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{where} holds half a character") from error
    return text


def _tuple(content: Any, parts: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    held = _of(content, (list, tuple), "a list", where)
    if parts[-1] is Ellipsis:
        parts = parts[:1] * len(held)
    if len(held) != len(parts):
        raise ValueError(f"{where} has {len(held)} entries, not {len(parts)}")
    return tuple(
        value_of(one, part, f"{where}[{index}]") for index, (one, part) in enumerate(zip(held, parts, strict=True))
    )


def _instance(content: Mapping[str, Any], kind: Any, where: str) -> Any:
    kinds = get_type_hints(kind, include_extras=True)
    needed = [one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING]
    prefix = f"{where}." if where else ""
    for name in needed:
        if name not in content:
            raise ValueError(f"{prefix}{name} is missing")
    for name in content:
        if name not in kinds:
            raise ValueError(f"{prefix}{name!a} is unknown")
    return kind(**{name: value_of(value, kinds[name], f"{prefix}{name}") for name, value in content.items()})


def _limited(value: Any, limit: Between | OneLine, where: str) -> Any:
    if isinstance(limit, OneLine):
        if not value.isprintable():
            raise ValueError(f"{where} holds control characters")
    elif not limit.least <= value <= limit.most:
        raise ValueError(f"{where} is {value:g}, not from {limit.least:g} to {limit.most:g}")
    return value


def _shown(content: Any) -> str:
    text = ascii(content)
    return text if len(text) <= 40 else f"{text[:40]}…"
