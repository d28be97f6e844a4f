"""Provenance of both sides: which files, tools and windows the numbers come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nitro.analyzer.compare import Comparison
from nitro.analyzer.compare.runs import Run
from nitro.analyzer.message import joined, message

from .. import numbers
from ..blocks import Block, Column, KeyValues, Table
from ..comparison import ComparisonSection
from ..sections.provenance import records_text

_SIDES = (message("before"), message("after"))


def build(comparison: Comparison, is_document: bool) -> tuple[Block, ...]:  # noqa: ARG001 - documents only
    """Return a table of the runs, and the facts of the first run of each side."""
    columns = (
        Column(message("side"), "left"),
        Column(message("file"), "left", flexible=True, is_name=True),
        Column(message("size")),
        Column(message("recorded with"), "left"),
        Column(message("iterations")),
        Column(message("left out")),
        Column("SHA-256", "left"),
    )
    rows = tuple(
        (
            side,
            run.source.file_name,
            numbers.size(run.source.size_bytes) if run.source.size_bytes is not None else numbers.MISSING,
            _tool(run),
            numbers.count(run.iterations),
            numbers.count(len(run.window["dropped"])),
            (run.source.sha256 or "")[:12] or numbers.MISSING,
        )
        for side, runs in zip(_SIDES, comparison.runs, strict=True)
        for run in runs
    )
    note = message("SHA-256: the first 12 digits; the JSON has all. Left out: iterations of the warm-up.")
    facts = []
    for side, runs in zip(_SIDES, comparison.runs, strict=True):
        facts.append((message("Window {side}", side=side), runs[0].window["reason"]))
        for run in runs:
            facts += [(message("Beside {file}", file=run.source.file_name), _beside(entry)) for entry in run.evidence]
        options = runs[0].capture.options
        if options:
            shown = (f"{name} = {value}" for name, value in sorted(options.items()))
            facts.append((message("Capture options {side}", side=side), joined("; ", shown)))
    if comparison.allowed:
        facts.append((message("Allowed"), ", ".join(comparison.allowed)))
    return (Table(columns, rows, note, message("Runs of both sides"), "runs"), KeyValues(tuple(facts)))


def _beside(entry: Mapping[str, Any]) -> str:
    """Return what lay beside a trace, and how it was placed on its clock."""
    source, placement = entry["source"], entry["placement"]
    records = records_text(entry["records"])
    text = message("{file}, {format}, {records}", file=source["file_name"], format=source["format"], records=records)
    if placement is None:
        return joined("; ", (text, *entry["notes"]))
    placed = message(
        "placed {reason}; off by {error} at most",
        reason=placement["reason"],
        error=numbers.duration(placement["error_ns"]),
    )
    return joined("; ", (text, placed, *entry["notes"]))


def _tool(run: Run) -> str:
    if run.is_saved:
        return message("saved analysis")
    return " ".join(part for part in (run.source.tool, run.source.tool_version) if part) or run.source.format


SECTION = ComparisonSection("provenance", message("Provenance"), 92, build, for_documents=True)
