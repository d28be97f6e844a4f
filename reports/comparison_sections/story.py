"""What changed: every sentence of the story with what it adds to the iteration, the largest first."""

from __future__ import annotations

from nitro.analyzer.compare import Comparison
from nitro.analyzer.message import capitalised, message

from .. import comparison_numbers, numbers
from ..blocks import Block, Points
from ..comparison import ComparisonSection
from ._runs import heading


def build(comparison: Comparison, is_document: bool) -> tuple[Block, ...]:  # noqa: ARG001 - the same everywhere
    """Return the sentences of each device behind the one about the period, which the summary has."""
    blocks: list[Block] = []
    for device in comparison.devices:
        points = tuple(
            (
                numbers.MISSING if sentence.delta_ns is None else comparison_numbers.signed_duration(sentence.delta_ns),
                message("{sentence}.", sentence=capitalised(sentence.text)),
            )
            for sentence in device.story[1:]
        )
        if points:
            blocks += [*heading(comparison, device), Points(points)]
    return tuple(blocks)


SECTION = ComparisonSection("story", message("What changed"), 8, build)
