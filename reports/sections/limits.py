"""What this trace cannot show."""

from __future__ import annotations

from nitro.analyzer import Analysis

from ..blocks import Block, Points
from ..report import Section


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return every reason once, with the metrics that it keeps from being measured."""
    by_reason: dict[str, list[str]] = {}
    for entry in analysis.not_measured:
        names = by_reason.setdefault(entry.reason, [])
        if entry.metric not in names:
            names.append(entry.metric)
    items = tuple((_some(names), reason[:1].upper() + reason[1:] + ".") for reason, names in by_reason.items())
    return (Points(items),) if items else ()


def _some(names: list[str], shown: int = 3) -> str:
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


SECTION = Section("limits", "What this trace cannot show", 90, build)
