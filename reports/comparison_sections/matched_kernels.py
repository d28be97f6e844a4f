"""Kernels before and after, matched across fusion: every kernel of both sides is in one row."""

from __future__ import annotations

from collections.abc import Sequence

from nitro.analyzer.compare import Comparison, DeviceComparison, MatchedRow
from nitro.analyzer.compare.matching import LABELS, TOP_OF_ITERATION, Member
from nitro.analyzer.message import Message, joined, message

from .. import comparison_numbers, numbers
from ..blocks import Block, Column, Paragraph, Table
from ..comparison import ComparisonSection
from ..names import kernel_label
from ._runs import heading

_SHOWN_IN_DOCUMENTS = 20
_SHOWN = 12
_NAMES = 4
_LONGEST_NAME = 60
# In the terminal: a kernel that both sides have, and all of a row whose sides differ.
_LONGEST_ALONE = 30
_ARROW = 41
# Kernels are short beside the longest row, so the unit is the one in which that has two digits or more.
_FINER = 10
HOW: dict[str, Message] = {
    "exact": message("name and size"),
    "geometry": message("name"),
    "moved": message("name, moved"),
    "family": message("name, other types"),
    "order": message("place"),
    "mapping": message("mapping"),
    "name": message("name alone"),
    "none": message("no partner"),
}


def build(comparison: Comparison, is_document: bool) -> tuple[Block, ...]:
    """Return the matched kernels of each device that ran any."""
    blocks: list[Block] = []
    for device in comparison.devices:
        if device.matching.rows:
            blocks += [*heading(comparison, device), _quality(device), _table(device, is_document=is_document)]
        elif device.waterfall.step("graph").before or device.waterfall.step("graph").after:
            blocks += [*heading(comparison, device), Paragraph(_GRAPHS_HIDE)]
    return tuple(blocks)


_GRAPHS_HIDE = message(
    "The kernels inside CUDA graphs are not in the trace, so they have no rows here: their time is in the step "
    "“CUDA graphs”. Recorded with --cuda-graph-trace=node on both sides, they would be matched one by one."
)


def _quality(device: DeviceComparison) -> Paragraph:
    quality = device.matching.quality
    text = message(
        "Of the kernel time of both sides, {one} was matched one to one, {groups} in groups of several kernels, and "
        "{none} has no partner.",
        one=numbers.percent(quality.one_to_one),
        groups=numbers.percent(quality.grouped),
        none=numbers.percent(quality.unmatched),
    )
    graph = device.waterfall.step("graph")
    if graph.before or graph.after:
        text = message("{text} {graphs}", text=text, graphs=_GRAPHS_HIDE)
    if device.matching.unused_mappings:
        unused = joined(", ", device.matching.unused_mappings)
        text = message("{text} These mappings matched nothing: {mappings}.", text=text, mappings=unused)
    return Paragraph(text)


def _table(device: DeviceComparison, *, is_document: bool) -> Table:
    rows = device.matching.rows
    longest = max(max(row.before_ns, row.after_ns) for row in rows)
    unit = comparison_numbers.unit_of(longest / _FINER)
    made: list[tuple[str, ...]] = []
    for row in rows:
        times = (
            comparison_numbers.fixed(row.before_ns, unit),
            comparison_numbers.fixed(row.after_ns, unit),
            comparison_numbers.fixed(row.delta_ns, unit, is_signed=True),
        )
        if is_document:
            where = message("{path} · {how}", path=row.path or TOP_OF_ITERATION, how=HOW[row.how])
            runs = comparison_numbers.from_to(float(row.executions_before), float(row.executions_after), numbers.count)
            made.append((label_of(row, device), _names(row.before), _names(row.after), where, runs, *times))
        else:
            made.append((label_of(row, device), _arrow(row), *times))
    sums = (device.matching.before_ns, device.matching.after_ns)
    note = message(
        "Per mean iteration, the largest change first; all rows add up to the kernel time: {before} {unit} before, "
        "{after} after, {change}.",
        before=comparison_numbers.fixed(sums[0], unit),
        after=comparison_numbers.fixed(sums[1], unit),
        change=comparison_numbers.fixed(device.matching.delta_ns, unit, is_signed=True),
        unit=unit,
    )
    shown = _SHOWN_IN_DOCUMENTS if is_document else _SHOWN
    if not is_document and len(rows) > shown:
        rest = sum(row.delta_ns for row in rows[shown:])
        note = message(
            "{note} Behind the first {shown}: {count} more rows, {change} together; see -o report.html or --csv.",
            note=note,
            shown=shown,
            count=len(rows) - shown,
            change=comparison_numbers.fixed(rest, unit, is_signed=True),
        )
    times_head = tuple(
        Column(message("{what}, {unit}", what=what, unit=unit))
        for what in (message("before"), message("after"), message("change"))
    )
    name = f"matched-kernels-gpu{device.after_id}"
    title = message("Kernels before and after, GPU {device}", device=device.after_id)
    if not is_document:
        kernels = Column(message("kernels"), "left", flexible=True, is_name=True)
        return Table((Column(message("became"), "left"), kernels, *times_head), tuple(made), note, title, name, shown)
    columns = (
        Column(message("became"), "left"),
        Column(message("kernels before"), "left", flexible=True, is_name=True),
        Column(message("kernels after"), "left", flexible=True, is_name=True),
        Column(message("where · matched by"), "left", flexible=True),
        Column(message("runs")),
        *times_head,
    )
    return Table(columns, tuple(made), note, title, name, shown)


def label_of(row: MatchedRow, device: DeviceComparison) -> str:
    """Return what became of a row; kernels that may go on inside a graph are not called gone."""
    graph = device.waterfall.step("graph")
    if row.kind == "only_before" and graph.after > graph.before:
        return message("in a graph?")
    if row.kind == "only_after" and graph.before > graph.after:
        return message("from a graph?")
    label = LABELS[row.label]
    return message("fused, {label}", label=label) if row.is_fusion else label


def _names(members: Sequence[Member]) -> str:
    """Return the kernels of one side of a row, each with its number of places where that is more than one."""
    if not members:
        return numbers.MISSING
    shown = [
        _cut(kernel_label(member.name)) + (f" ×{member.places}" if member.places > 1 else "") for member in members
    ]
    if len(shown) <= _NAMES:
        return " + ".join(shown)
    head = " + ".join(shown[: _NAMES - 1])
    return message("{names} + {count} more", names=head, count=len(shown) - _NAMES + 1)


def _arrow(row: MatchedRow) -> str:
    """Return a row's kernels in one line: the first of each side, and how many more there are."""
    sides = (row.before, row.after)
    alone = [_first(members, _LONGEST_ALONE) for members in sides]
    if alone[0] == alone[1]:
        return alone[0]
    # Both sides share the column, so that the second is not what is cut off.
    room = _ARROW - len(" → ") - sum(len(" + 1 more") for members in sides if len(members) > 1)
    return joined(" → ", (_first(members, room // 2) for members in sides))


def _first(members: Sequence[Member], longest: int) -> str:
    if not members:
        return numbers.MISSING
    name = _cut(kernel_label(members[0].name), longest)
    return message("{names} + {count} more", names=name, count=len(members) - 1) if len(members) > 1 else name


def _cut(name: str, longest: int = _LONGEST_NAME) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


SECTION = ComparisonSection("matched_kernels", message("Kernels before and after"), 30, build)
