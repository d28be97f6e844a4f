"""What to do next: the three findings with most time at stake, on the summary page of a document."""

from __future__ import annotations

from nitro.analyzer import Analysis
from nitro.analyzer.message import message

from .. import numbers
from ..blocks import Block, Column, Table
from ..report import Section

_SHOWN = 3


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return a table of the first findings with their remedies, notes last; nothing where there is none."""
    rows = []
    for finding in analysis.findings:
        window = analysis.value("window", finding.device_id) or analysis.value("window")
        stake: str = numbers.MISSING
        if finding.severity != "info" and window:
            stake = message(
                "{time} ({share})",
                time=numbers.duration(finding.time_at_stake_ns),
                share=numbers.percent(finding.time_at_stake_ns / window),
            )
        rows.append((finding.title, stake, finding.remedy))
    if not rows:
        return ()
    columns = (
        Column(message("finding"), "left", flexible=True),
        Column(message("at stake, at most")),
        Column(message("what to do"), "left", flexible=True),
    )
    note = message("Shares of the window. Stakes overlap and do not add up; the evidence is under “Findings”.")
    return (Table(columns, tuple(rows[:_SHOWN]), note, message("Findings with most time at stake"), "next-steps"),)


SECTION = Section("next_steps", message("What to do next"), 6, build, for_documents=True)
