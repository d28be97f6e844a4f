"""Method: what the numbers of the report mean and how they were made."""

from __future__ import annotations

from nitro.analyzer import Analysis
from nitro.analyzer.analysis import all_metrics
from nitro.analyzer.causes import TEXTS
from nitro.analyzer.message import capitalised, joined, message

from ..blocks import Block, Definition, Definitions, Paragraph, Points
from ..definitions import about
from ..report import Section


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return the window, the idle causes that occurred, and the definition of every metric that has a value."""
    measured = {entry.metric for entry in analysis.measurements} | {table.name for table in analysis.tables}
    entries = [
        Definition(
            metric.title,
            joined(", ", (name for name in metric.provides if name in measured)),
            about(metric.definition, measured),
            metric.reference,
        )
        for metric in all_metrics()
        if measured & set(metric.provides)
    ]
    causes = {part.by for part in analysis.measurements if part.metric == "gpu_idle_by_cause" and part.value}
    points = tuple(
        (text.title, message("{meaning}.", meaning=capitalised(text.meaning)))
        for cause, text in TEXTS.items()
        if cause.id in causes
    )
    blocks: list[Block] = [
        Paragraph(
            message(
                "All numbers are about the window: {reason}. Times are integer nanoseconds of the profiler's clock and "
                "are rounded only for display. Phases are projections: the GPU work that a range launched, whenever "
                "it ran. `nitro-analyze explain NAME` prints the whole definition of a metric.",
                reason=analysis.window.reason,
            )
        )
    ]
    if points:
        text = message(
            "Every idle nanosecond of the GPU inside the window has exactly one cause; the causes add up to the idle "
            "time. Those that occurred:"
        )
        blocks += [Paragraph(text), Points(points)]
    return (*blocks, Definitions(tuple(entries)))


SECTION = Section("method", message("Method and definitions"), 88, build, for_documents=True)
