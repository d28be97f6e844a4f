"""`build_report`: an analysis in sections, in the order a reader needs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nitro.analyzer import Analysis
from nitro.registry import declared

from . import sections
from .blocks import Block


@dataclass(frozen=True, slots=True)
class Section:
    """A section: `build` returns its blocks, none where the section has nothing to say about this analysis."""

    name: str
    title: str
    order: int
    build: Callable[[Analysis], tuple[Block, ...]]


@dataclass(frozen=True, slots=True)
class FilledSection:
    """A section with its blocks."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A report, ready to be drawn."""

    title: str
    subtitle: str
    sections: tuple[FilledSection, ...]


def build_report(analysis: Analysis) -> Report:
    """Return the report of an analysis; sections without blocks are left out."""
    declared_sections = sorted(
        declared(sections, "SECTION", Section), key=lambda section: (section.order, section.name)
    )
    filled = ((section.title, section.build(analysis)) for section in declared_sections)
    source = analysis.source
    tool = " ".join(part for part in (source.tool, source.tool_version) if part)
    schema = f"schema {source.schema_version}" if source.schema_version else "schema without version"
    return Report(
        title=source.file_name,
        subtitle=f"{tool}, {schema} · Nitro {analysis.nitro_version}",
        sections=tuple(FilledSection(title, blocks) for title, blocks in filled if blocks),
    )
