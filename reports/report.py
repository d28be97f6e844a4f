"""`build_report`: analyses in chapters and sections, in the order in which a reader needs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nitro.analyzer import Analysis
from nitro.analyzer.message import message
from nitro.registry import declared

from . import sections
from .blocks import Block, Language
from .words import WORDS


@dataclass(frozen=True, slots=True)
class Section:
    """A section: `build` returns its blocks, none where the section has nothing to say about this analysis.

    The overview in the terminal leaves sections out that are `for_documents`.
    """

    name: str
    title: str
    order: int
    build: Callable[[Analysis], tuple[Block, ...]]
    for_documents: bool = False


@dataclass(frozen=True, slots=True)
class FilledSection:
    """A section with its blocks."""

    name: str
    title: str
    blocks: tuple[Block, ...]
    for_documents: bool = False


@dataclass(frozen=True, slots=True)
class Chapter:
    """What there is to say about one analysis."""

    title: str
    subtitle: str
    sections: tuple[FilledSection, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A report, ready to be drawn.

    A report about several traces has a chapter for each, and `side_by_side` before them. `about` says how the report
    was made; `words` are the words of the outputs (see `words`).
    """

    title: str
    subtitle: str
    chapters: tuple[Chapter, ...]
    side_by_side: tuple[Block, ...] = ()
    about: tuple[tuple[str, str], ...] = ()
    author: str = ""
    language: Language = "en"
    words: Mapping[str, str] = field(default_factory=lambda: WORDS)


def build_report(
    *analyses: Analysis,
    title: str | None = None,
    author: str = "",
    command: str | None = None,
    for_documents: bool = True,
) -> Report:
    """Return the report of one or several analyses; sections without blocks are left out.

    Args:
        analyses: at least one; each becomes a chapter.
        title: the report's title; the file name, or file names, where none is given.
        author: who stands under the title.
        for_documents: whether to build the sections that the overview in the terminal leaves out.
        command: the command line that made the report, for who wants to make it again.
    """
    from .side_by_side import compared

    chapters = tuple(_chapter(analysis, with_document_sections=for_documents) for analysis in analyses)
    about = [(WORDS["made_by"], f"Nitro {analyses[0].nitro_version}")]
    if command:
        about.append((WORDS["command"], command))
    return Report(
        title=title or " · ".join(chapter.title for chapter in chapters),
        subtitle=chapters[0].subtitle if len(chapters) == 1 else message("{count} traces", count=len(chapters)),
        chapters=chapters,
        side_by_side=compared(analyses) if len(analyses) > 1 else (),
        about=tuple(about),
        author=author,
    )


def all_sections() -> tuple[Section, ...]:
    """Return the declared sections in the order in which they are shown."""
    return tuple(sorted(declared(sections, "SECTION", Section), key=lambda section: (section.order, section.name)))


def _chapter(analysis: Analysis, *, with_document_sections: bool) -> Chapter:
    filled = (
        FilledSection(s.name, s.title, s.build(analysis), s.for_documents)
        for s in all_sections()
        if with_document_sections or not s.for_documents
    )
    source = analysis.source
    tool = " ".join(part for part in (source.tool, source.tool_version) if part)
    schema = (
        message("schema {version}", version=source.schema_version)
        if source.schema_version
        else message("schema without version")
    )
    return Chapter(
        title=source.file_name,
        subtitle=message(
            "{tool}, {schema} · Nitro {version}",
            tool=tool or source.format,
            schema=schema,
            version=analysis.nitro_version,
        ),
        sections=tuple(section for section in filled if section.blocks),
    )
