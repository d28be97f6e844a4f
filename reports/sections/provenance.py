"""Provenance: which file, tool and machine the numbers come from."""

from __future__ import annotations

from datetime import datetime, timezone

from nitro.analyzer import Analysis, Evidence, Placed
from nitro.analyzer.message import joined, message, one_or_many

from .. import numbers
from ..blocks import Block, KeyValues
from ..report import Section


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return the facts that identify the input and how it was recorded."""
    source, capture = analysis.source, analysis.capture
    rows: list[tuple[str, str]] = [(message("File"), source.file_name)]
    if source.size_bytes is not None:
        text = message("{size} ({bytes:,} bytes)", size=numbers.size(source.size_bytes), bytes=source.size_bytes)
        rows.append((message("Size"), text))
    if source.sha256 is not None:
        rows.append(("SHA-256", source.sha256))
    rows.append((message("Format"), source.format))
    if source.tool is not None:
        rows.append((message("Recorded with"), " ".join(part for part in (source.tool, source.tool_version) if part)))
    if source.schema_version is not None:
        rows.append((message("Schema version"), source.schema_version))
    if capture.start_utc_ns is not None:
        begin = datetime.fromtimestamp(capture.start_utc_ns // 10**9, timezone.utc)
        rows.append((message("Recorded at"), begin.strftime("%Y-%m-%d %H:%M:%S UTC")))
    if capture.options:
        options = (f"{name} = {value}" for name, value in sorted(capture.options.items()))
        rows.append((message("Capture options"), joined("; ", options)))
    rows += [(message("Beside it"), _evidence(placed)) for placed in analysis.evidence]
    rows.append((message("Power mode"), capture.options.get("power_mode") or message("not part of an nsys trace")))
    rows.append((message("Analysed with"), f"Nitro {analysis.nitro_version}"))
    return (KeyValues(tuple(rows)),)


def _evidence(placed: Placed[Evidence]) -> str:
    """Return which file lay beside the trace, how much of it was used, and what its reader noted."""
    evidence = placed.evidence
    text: str = message(
        "{file} ({format}): {records}, {left_out} left out",
        file=evidence.source.file_name,
        format=evidence.source.format,
        records=records_text(evidence.records),
        left_out=numbers.count(evidence.left_out),
    )
    digest = [f"SHA-256 {evidence.source.sha256}"] if evidence.source.sha256 is not None else []
    return joined("; ", (text, *evidence.notes, *digest))


def records_text(count: int) -> str:
    """Return how many records a file has."""
    return one_or_many(count, message("1 record"), message("{count} records", count=numbers.count(count)))


SECTION = Section("provenance", message("Provenance"), 92, build, for_documents=True)
