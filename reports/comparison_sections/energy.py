"""Energy of both sides per item or iteration, with its bounds, or why it is not known."""

from __future__ import annotations

from nitro.analyzer.compare import Comparison
from nitro.analyzer.compare.energy import Amount, Energy
from nitro.analyzer.message import Message, capitalised, joined, message

from .. import comparison_numbers, numbers
from ..blocks import Block, Column, Paragraph, Table
from ..comparison import ComparisonSection

TITLES: dict[str, Message] = {
    "energy_per_item": message("energy per item"),
    "energy_per_iteration": message("energy per iteration"),
}


def build(comparison: Comparison, is_document: bool) -> tuple[Block, ...]:  # noqa: ARG001 - the same everywhere
    """Return energy and power of both sides, and the verdict; or why they cannot be compared."""
    energy = comparison.energy
    if not energy.is_known:
        return (Paragraph(message("Energy is not known: {reason}.", reason=energy.reason)),)
    blocks: list[Block] = [_table(energy)]
    if energy.metric is None:
        text = message("The sides cannot be compared by their energy: {reason}.", reason=energy.reason)
    else:
        metric = comparison.metric(energy.metric)
        assert metric is not None
        text = message("{sentence}.", sentence=capitalised(metric.sentence))
    return (*blocks, Paragraph(text))


def _table(energy: Energy) -> Table:
    name = energy.shown_metric
    sides = (energy.before, energy.after)
    rows = (
        _row(TITLES[name], "J", *(energy.typical(side) for side in sides), has_change=energy.metric is not None),
        _row(
            message("mean power"),
            "W",
            *(energy.typical_power(side) for side in sides),
            has_change=energy.metric is not None,
        ),
    )
    columns = (
        Column(message("metric"), "left"),
        Column(message("before")),
        Column(message("after")),
        Column(message("change")),
    )
    note = message(
        "Medians over the runs. The number after ± bounds what it may be off by for the sampling and the clock of the "
        "log, the largest of any run; the accuracy of the sensor is not in it. Measured: {what}.",
        what=joined(", ", energy.measured),
    )
    return Table(columns, rows, note, message("Energy and power"), "energy-compared")


def _row(
    title: str, unit: str, before: Amount | None, after: Amount | None, *, has_change: bool
) -> tuple[str, str, str, str]:
    change = None if before is None or after is None or not before.value else after.value / before.value - 1
    shown = comparison_numbers.signed_percent(change if has_change else None)
    return title, with_bound(before, unit), with_bound(after, unit), shown


def with_bound(amount: Amount | None, unit: str) -> str:
    """Return an amount with its bound, as in `812 mJ ± 9.00 mJ`."""
    if amount is None:
        return numbers.MISSING
    return message(
        "{value} ± {error}", value=numbers.in_unit(amount.value, unit), error=numbers.in_unit(amount.error, unit)
    )


SECTION = ComparisonSection("energy", message("Energy"), 45, build)
