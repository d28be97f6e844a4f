"""Findings: what to do first."""

from __future__ import annotations

from nitro.analyzer import Analysis

from .. import numbers
from ..blocks import Advice, Block, Paragraph
from ..report import Section

_SHOWN = 3


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return the findings with most time at stake; a trace without any says so."""
    window = analysis.value("window")
    if not window:
        return ()
    found = [finding for finding in analysis.findings if finding.severity != "info"]
    blocks: list[Block] = []
    if not found:
        busy = analysis.value("gpu_busy_ratio")
        blocks.append(
            Paragraph(f"No rule found a problem: the GPU was busy for {numbers.percent(busy)} of the window.")
        )
    for number, finding in enumerate(found[:_SHOWN], start=1):
        length = analysis.value("window", finding.device_id) or window
        share = numbers.percent(finding.time_at_stake_ns / length)
        blocks.append(
            Advice(
                title=f"{number}. {finding.title}",
                stake=f"{numbers.duration(finding.time_at_stake_ns)} at most, {share} of the window",
                severity=finding.severity,
                confidence=finding.confidence,
                evidence=tuple(
                    f"{entry.text}: {numbers.in_unit(entry.value, entry.unit)}" for entry in finding.evidence
                ),
                remedy=finding.remedy,
                limits=finding.limits,
            )
        )
    rest = found[_SHOWN:]
    if rest:
        titles = "; ".join(f"{finding.title} ({numbers.duration(finding.time_at_stake_ns)})" for finding in rest)
        blocks.append(Paragraph(f"Less at stake: {titles}."))
    blocks += [
        Paragraph(f"Note: {finding.title}. {finding.remedy}")
        for finding in analysis.findings
        if finding.severity == "info"
    ]
    return tuple(blocks)


SECTION = Section("findings", "Findings", 25, build)
