"""The same picture of fewer parts: drawing an SVG takes WeasyPrint a time for each part of it.

Vega writes a line for each tick, a path for each bar, and groups around groups that say nothing about looks. Here lines
of one look become one path, bars of one look too where no two bars share any area, and such groups go. A line that
goes on as it did needs no point there. Texts stay as they are, but for fully transparent ones, which Vega leaves where
labels would overlap.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

_NAMESPACE = "http://www.w3.org/2000/svg"
_SILENT = frozenset({"class", "role", "pointer-events", "aria-hidden", "aria-label", "aria-roledescription"})
_ENDS = ("x1", "y1", "x2", "y2")
_NUMBER = r"(-?[\d.]+(?:e-?\d+)?)"
_SHIFT = re.compile(rf"translate\({_NUMBER},{_NUMBER}\)")
_RECTANGLE = re.compile(rf"M{_NUMBER},{_NUMBER}h{_NUMBER}v{_NUMBER}h-{_NUMBER}Z")
_STEPS = re.compile(rf"M{_NUMBER},{_NUMBER}(?:L{_NUMBER},{_NUMBER})+")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{4,}")
# How far, in pixels, the rounded edges of bars may reach into each other.
_ROUNDING = 0.002
Point = tuple[float, float]
Look = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Line:
    """A line that covers what is below it: where two of one look cross, they look like one."""

    look: Look
    path: str


@dataclass(frozen=True, slots=True)
class _Bar:
    """A rectangle without an outline."""

    look: Look
    across: tuple[float, float]
    down: tuple[float, float]

    @property
    def path(self) -> str:
        (x, width), (y, height) = self.across, self.down
        return f"M{_short(x)},{_short(y)}h{_short(width)}v{_short(height)}h{_short(-width)}Z"


def thinned(svg: str) -> str:
    """Return the picture of an SVG that Vega wrote; colours are those of shapes, not of groups around them."""
    ElementTree.register_namespace("", _NAMESPACE)
    root = ElementTree.fromstring(svg)
    _refill(root, is_filled=True)
    return ElementTree.tostring(root, encoding="unicode")


def _refill(parent: Element, *, is_filled: bool) -> None:
    """Put fewer parts into an element. `is_filled`: around it, shapes without a colour of their own are filled."""
    is_filled = is_filled and parent.get("fill") != "none"
    parts = [part for child in parent for part in _parts(child, 0.0, 0.0, is_filled=is_filled)]
    parent[:] = list(_joined(parts))


def _parts(element: Element, x: float, y: float, *, is_filled: bool) -> Iterator[_Line | _Bar | Element]:
    """Yield what there is to see of an element, shifted, in the order of drawing."""
    tag = element.tag.removeprefix(f"{{{_NAMESPACE}}}")
    looks = {name: value for name, value in element.items() if name not in _SILENT}
    shift = _SHIFT.fullmatch(looks.get("transform", "translate(0,0)"))
    if shift is not None:
        looks.pop("transform", None)
        x, y = x + float(shift[1]), y + float(shift[2])
    if tag == "g" and not looks:
        for child in element:
            yield from _parts(child, x, y, is_filled=is_filled)
    elif _is_invisible(tag, looks, is_filled=is_filled):
        return
    elif shift is not None and (part := _line(tag, looks, x, y) or _bar(tag, looks, x, y)) is not None:
        yield part
    else:
        moves = [f"translate({_short(x)},{_short(y)})"] if x or y else []
        moves += [looks["transform"]] if "transform" in looks else []
        element.attrib = looks | ({"transform": " ".join(moves)} if moves else {})
        if "d" in looks:
            element.set("d", _straight(looks["d"]))
        if tag == "g":
            _refill(element, is_filled=is_filled)
        yield element


def _is_invisible(tag: str, looks: dict[str, str], *, is_filled: bool) -> bool:
    is_bare = tag == "path" and not is_filled and not looks.keys() & {"fill", "stroke"}
    is_clear = looks.get("fill-opacity") == "0" and looks.get("stroke-opacity") == "0"
    return is_bare or is_clear or looks.get("display") == "none"


def _line(tag: str, looks: dict[str, str], x: float, y: float) -> _Line | None:
    if tag != "line" or "stroke" not in looks or looks.keys() & {"opacity", "stroke-opacity"}:
        return None
    x1, y1, x2, y2 = (float(looks.get(end, 0)) for end in _ENDS)
    look = (("fill", "none"), *((name, value) for name, value in looks.items() if name not in _ENDS))
    return _Line(look, f"M{_short(x + x1)},{_short(y + y1)}L{_short(x + x2)},{_short(y + y2)}")


def _bar(tag: str, looks: dict[str, str], x: float, y: float) -> _Bar | None:
    found = _RECTANGLE.fullmatch(looks.get("d", ""))
    if tag != "path" or found is None or "fill" not in looks or looks.keys() & {"opacity", "stroke", "clip-path"}:
        return None
    left, top, width, height, back = (float(number) for number in found.groups())
    look = tuple((name, value) for name, value in looks.items() if name != "d")
    return _Bar(look, (x + left, width), (y + top, height)) if width == back else None


def _straight(path: str) -> str:
    """Return a path without points that lie on the way from the last to the next, along an axis, and no long number.

    Of a line of steps, half of the points are there only because the value stayed the same.
    """
    if _STEPS.fullmatch(path) is None:
        return _LONG_NUMBER.sub(lambda number: _short(float(number[0])), path)
    points = [(float(x), float(y)) for x, y in (point.split(",") for point in path[1:].split("L"))]
    kept = points[:1]
    for point, following in pairwise(points[1:]):
        if not (_is_between(kept[-1], point, following, 0) or _is_between(kept[-1], point, following, 1)):
            kept.append(point)
    kept += points[1:][-1:]
    return "M" + "L".join(f"{_short(x)},{_short(y)}" for x, y in kept)


def _is_between(before: Point, point: Point, after: Point, axis: int) -> bool:
    """Return whether a point lies on the straight line along an axis from one to another."""
    across = 1 - axis
    return before[across] == point[across] == after[across] and sorted((before, point, after))[1] == point


def _joined(parts: Iterable[_Line | _Bar | Element]) -> Iterator[Element]:
    for _, neighbours in groupby(parts, type):
        run = list(neighbours)
        lines = [part for part in run if isinstance(part, _Line)]
        bars = [part for part in run if isinstance(part, _Bar)]
        yield from (part for part in run if isinstance(part, Element))
        for look, same in groupby(lines, lambda line: line.look):
            # A line that every row of its data draws is there many times.
            yield _path(look, dict.fromkeys(line.path for line in same))
        if _are_apart(bars):
            # In which order they are drawn makes no difference.
            for look, same_bars in groupby(sorted(bars, key=lambda bar: bar.look), lambda bar: bar.look):
                yield _path(look, (bar.path for bar in same_bars))
        else:
            yield from (_path(bar.look, [bar.path]) for bar in bars)


def _path(look: Look, paths: Iterable[str]) -> Element:
    return Element(f"{{{_NAMESPACE}}}path", {**dict(look), "d": "".join(paths)})


def _are_apart(bars: list[_Bar]) -> bool:
    """Return whether no two bars share any area: they stand in rows or in columns, beside one another."""
    return _in_lanes([(bar.down, bar.across) for bar in bars]) or _in_lanes([(bar.across, bar.down) for bar in bars])


def _in_lanes(bars: list[tuple[tuple[float, float], tuple[float, float]]]) -> bool:
    lanes: dict[tuple[float, float], list[tuple[float, float]]] = {}
    for lane, place in bars:
        lanes.setdefault(lane, []).append(place)
    return _beside(lanes) and all(_beside(places) for places in lanes.values())


def _beside(spans: Iterable[tuple[float, float]]) -> bool:
    """Return whether stretches, each a start and a length, do not overlap."""
    return all(start + length <= following + _ROUNDING for (start, length), (following, _) in pairwise(sorted(spans)))


def _short(number: float) -> str:
    return f"{number:.3f}".rstrip("0").rstrip(".")
