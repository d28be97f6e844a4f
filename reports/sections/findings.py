"""Findings: what was found, what it costs, why we think so."""

from __future__ import annotations

from nitro.analyzer import Analysis
from nitro.analyzer.message import joined, message
from nitro.analyzer.rule import Finding

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
        busy = numbers.percent(analysis.value("gpu_busy_ratio"))
        blocks.append(
            Paragraph(message("No rule found a problem: the GPU was busy for {share} of the window.", share=busy))
        )
    for number, finding in enumerate(found[:_SHOWN], start=1):
        length = analysis.value("window", finding.device_id) or window
        blocks.append(
            Advice(
                title=message("{number}. {title}", number=number, title=_titled(analysis, finding)),
                stake=message(
                    "{time} at most, {share} of the window",
                    time=numbers.duration(finding.time_at_stake_ns),
                    share=numbers.percent(finding.time_at_stake_ns / length),
                ),
                severity=finding.severity,
                confidence=finding.confidence,
                evidence=tuple(
                    message("{what}: {value}", what=entry.text, value=numbers.in_unit(entry.value, entry.unit))
                    for entry in finding.evidence
                ),
                remedy=finding.remedy,
                limits=finding.limits,
            )
        )
    rest = found[_SHOWN:]
    if rest:
        titles = (
            message(
                "{title} ({time})",
                title=_titled(analysis, finding),
                time=numbers.duration(finding.time_at_stake_ns),
            )
            for finding in rest
        )
        blocks.append(Paragraph(message("Less at stake: {findings}.", findings=joined("; ", titles))))
    notes: dict[tuple[str, str], list[Finding]] = {}
    for finding in analysis.findings:
        if finding.severity == "info":
            notes.setdefault((finding.title, finding.remedy), []).append(finding)
    for (title, remedy), alike in notes.items():
        devices = [f"GPU {note.device_id}" for note in alike if note.device_id is not None]
        if len(analysis.devices) > 1 and devices:
            title = message("{title} ({device})", title=title, device=joined(", ", devices))
        blocks.append(Paragraph(message("Note: {title}. {remedy}", title=title, remedy=remedy)))
    return tuple(blocks)


def _titled(analysis: Analysis, finding: Finding) -> str:
    """Return the title of a finding, with its device where there are several."""
    if len(analysis.devices) < 2 or finding.device_id is None:
        return finding.title
    return message("{title} ({device})", title=finding.title, device=f"GPU {finding.device_id}")


SECTION = Section("findings", message("Findings"), 25, build)
