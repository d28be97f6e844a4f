"""What this trace cannot show."""

from __future__ import annotations

from nitro.analyzer import Analysis
from nitro.analyzer.message import capitalised, joined, message

from ..blocks import Block, Points
from ..report import Section

_NAMES_SHOWN = 3


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return every reason once, with the metrics that it keeps from being measured."""
    by_reason: dict[str, list[str]] = {}
    for entry in analysis.not_measured:
        names = by_reason.setdefault(entry.reason, [])
        if entry.metric not in names:
            names.append(entry.metric)
    items = tuple(
        (_some(names), message("{reason}.", reason=capitalised(reason))) for reason, names in by_reason.items()
    )
    return (Points(items),) if items else ()


def _some(names: list[str]) -> str:
    shown, more = joined(", ", names[:_NAMES_SHOWN]), len(names) - _NAMES_SHOWN
    return message("{names} and {count} more", names=shown, count=more) if more > 0 else shown


SECTION = Section("limits", message("What this trace cannot show"), 95, build)
