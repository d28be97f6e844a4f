"""The report on paper, of every trace in both languages: read back with poppler and pypdf."""

from __future__ import annotations

import io
import re
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fontTools.pens.boundsPen import BoundsPen  # type: ignore[import-untyped]
from fontTools.ttLib import TTFont  # type: ignore[import-untyped]
from pypdf import PdfReader

from nitro.errors import NitroWarning
from nitro.reports import blocks
from nitro.reports.language import translated
from nitro.reports.output import Documents, Settings
from nitro.reports.report import Report, build_report

if TYPE_CHECKING:
    from reports.conftest import Library, Press, Printed

SAMPLE = "dual_encoder"
TITLE, AUTHOR = "A title, <b>&amp;", "Ada & 에이다"
POINTS = {"a4": (595.3, 841.9), "letter": (612.0, 792.0)}
# Margins in mm: nothing at all is nearer to the edge than EDGE; beside the text not even a heading is.
EDGE, SIDE, TOP, BOTTOM = 5, 16, 19, 17
_STREAM = re.compile(rb"stream\r?\n(.*?)\r?\nendstream", re.DOTALL)
_TEXT = re.compile(rb"BT\b(.*?)\bET\b", re.DOTALL)
_WORD = re.compile(r'<word xMin="([-\d.]+)" yMin="([-\d.]+)" xMax="([-\d.]+)" yMax="([-\d.]+)">(.*?)</word>')
_FONT_OR_GLYPHS = re.compile(rb"/(\S+) [-\d.]+ Tf|<([0-9A-Fa-f]+)>")

languages = pytest.mark.parametrize("language", ["en", "ko"])


def assert_pages_keep_their_margins(printed: Printed) -> None:
    side, edge = printed.pixels(SIDE), printed.pixels(EDGE)
    top, bottom = printed.pixels(TOP), printed.pixels(BOTTOM)
    assert printed.pages
    for number, page in enumerate(printed.pages, start=1):
        assert (page[:edge] == 255).all(), f"page {number}: something is at the top edge"
        assert (page[-edge:] == 255).all(), f"page {number}: something is at the bottom edge"
        assert (page[:, :side] == 255).all(), f"page {number}: something is left of the text"
        assert (page[:, -side:] == 255).all(), f"page {number}: something is right of the text"
        ink = (page[top:-bottom] < 200).sum()
        assert ink > 50, f"page {number} is empty"


@languages
def test_pages_are_filled_and_stay_inside_their_margins(press: Press, trace_name: str, language: str) -> None:
    assert_pages_keep_their_margins(press(trace_name, language))


def words_over_words(file: Path) -> list[tuple[int, str, str]]:
    """Return the number of the page and the words, for every two words that are printed over each other."""
    found = []
    listed = subprocess.run(["pdftotext", "-bbox", file, "-"], capture_output=True, text=True, check=True).stdout
    for number, page in enumerate(listed.split("<page ")[1:], start=1):
        rows = _WORD.findall(page)
        left, top, right, bottom = np.array([row[:4] for row in rows], dtype=float).reshape(-1, 4).T
        width = np.minimum.outer(right, right) - np.maximum.outer(left, left)
        height = np.minimum.outer(bottom, bottom) - np.maximum.outer(top, top)
        is_over = (width > 1) & (height > 0.4 * np.minimum.outer(bottom - top, bottom - top))
        found += [(number, rows[one][4], rows[two][4]) for one, two in np.argwhere(np.triu(is_over, 1))]
    return found


@languages
def test_no_word_is_printed_over_another(press: Press, trace_name: str, language: str) -> None:
    assert words_over_words(press(trace_name, language).file) == []


def test_words_over_words_are_noticed(tmp_path: Path) -> None:
    weasyprint = pytest.importorskip("weasyprint")
    file = tmp_path / "over.pdf"
    weasyprint.HTML(string="<p>below<p style='margin-top: -2em'>above<p>apart").write_pdf(file)
    assert [words for _, *words in words_over_words(file)] == [["below", "above"]]


def fonts(reader: PdfReader) -> dict[str, Any]:
    """Return the fonts of a document by the name that its pages use."""
    found: dict[str, Any] = {}
    page: Any
    for page in reader.pages:
        found |= {name[1:]: font.get_object() for name, font in page["/Resources"].get("/Font", {}).items()}
    return found


def glyphs(pdf: bytes) -> Iterator[tuple[str, int]]:
    """(font, glyph) of all text of a document, that in its pictures too; a font has one name in all of them."""
    for packed in _STREAM.findall(pdf):
        try:
            # What is packed may itself end in what looks like the line end before `endstream`.
            content = zlib.decompressobj().decompress(packed)
        except zlib.error:
            continue
        font = ""
        for text in _TEXT.findall(content) if b" Tf" in content else ():
            for name, shown in _FONT_OR_GLYPHS.findall(text):
                font = name.decode() or font
                yield from ((font, int(shown[at : at + 4], 16)) for at in range(0, len(shown), 4))


def catalogue_of(reader: PdfReader) -> Any:
    """Return the facts about a whole document."""
    return reader.trailer["/Root"]


def unreadable(pdf: bytes) -> list[str]:
    """What is wrong with the letters of a document: boxes instead of letters, and letters that cannot be copied."""
    readable = {}
    wrong = []
    for name, font in fonts(PdfReader(io.BytesIO(pdf))).items():
        # Where a letter has no glyph, WeasyPrint does not name glyphs by their own numbers.
        if font["/Encoding"] != "/Identity-H":
            wrong.append(f"{name}: a box stands for a letter")
        mapped = re.findall(
            rb"^<([0-9a-f]{4})> <([0-9a-f]+)>", font["/ToUnicode"].get_object().get_data(), re.MULTILINE
        )
        readable[name] = {int(glyph, 16) for glyph, letters in mapped if b"fffd" not in letters}
    used = set(glyphs(pdf))
    assert {font for font, _ in used} == set(readable)
    wrong += [f"{font}: glyph {glyph} is no letter" for font, glyph in used if glyph not in readable[font]]
    return wrong + [f"{font}: a box is shown" for font, glyph in used if glyph == 0]


@languages
def test_every_letter_has_an_embedded_font_that_knows_it(press: Press, trace_name: str, language: str) -> None:
    printed = press(trace_name, language)
    for font in fonts(PdfReader(printed.file)).values():
        descriptor = font["/DescendantFonts"][0].get_object()["/FontDescriptor"].get_object()
        assert descriptor.keys() & {"/FontFile2", "/FontFile3"}
    assert unreadable(printed.file.read_bytes()) == []
    assert "\N{REPLACEMENT CHARACTER}" not in printed.text
    hangul = len(re.findall("[가-힣]", printed.text))
    assert hangul > 500 if language == "ko" else hangul <= printed.text.count("에이다") * 3


def test_poppler_too_finds_every_font_embedded(press: Press) -> None:
    file = press(SAMPLE, "en").file
    listed = subprocess.run(["pdffonts", file], capture_output=True, text=True, check=True).stdout
    embedded = [re.split(r"\s+", line.strip())[-5] for line in listed.splitlines()[2:]]
    assert embedded == ["yes"] * len(embedded) != []


def test_a_letter_without_font_is_noticed() -> None:
    weasyprint = pytest.importorskip("weasyprint")
    pdf = weasyprint.HTML(string="<p>fine \U000f0123").write_pdf()
    assert unreadable(pdf) != []


def test_hangul_is_drawn_and_not_only_named(press: Press) -> None:
    file = press(SAMPLE, "ko").file
    reader, used = PdfReader(file), set(glyphs(file.read_bytes()))
    drawn = 0
    for name, font in fonts(reader).items():
        descriptor = font["/DescendantFonts"][0].get_object()["/FontDescriptor"].get_object()
        key = "/FontFile3" if "/FontFile3" in descriptor else "/FontFile2"
        outlines = TTFont(io.BytesIO(descriptor[key].get_object().get_data())).getGlyphSet()
        names = outlines.font.getGlyphOrder() if hasattr(outlines, "font") else list(outlines.keys())
        mapped = re.findall(
            rb"^<([0-9a-f]{4})> <([0-9a-f]{4})>$", font["/ToUnicode"].get_object().get_data(), re.MULTILINE
        )
        for glyph, letter in ((int(code, 16), chr(int(text, 16))) for code, text in mapped):
            if "가" <= letter <= "힣" and (name, glyph) in used:
                pen = BoundsPen(outlines)
                outlines[names[glyph]].draw(pen)
                assert pen.bounds is not None, letter
                drawn += 1
    assert drawn > 200


# --- what is said -----------------------------------------------------------------------------------------------------


def report_of(library: Library, name: str, language: blocks.Language) -> Report:
    return translated(build_report(library.analysis(name), title=TITLE, author=AUTHOR), language)


def figures_of(report: Report) -> Iterator[blocks.Figure]:
    for chapter in report.chapters:
        for block in (block for section in chapter.sections for block in section.blocks):
            if isinstance(block, blocks.Timeline):
                yield from block.still
            elif isinstance(block, blocks.Figure):
                yield block


def axis_titles(spec: Any) -> Iterator[str]:
    """The titles of the axes of a figure, wherever they stand in its specification."""
    if isinstance(spec, dict):
        for channel in ("x", "y"):
            axis = spec.get("encoding", {}).get(channel, {})
            if isinstance(title := axis.get("title"), str) and axis.get("axis", {}).get("title", title):
                yield title
        for part in (*spec.get("layer", ()), *spec.get("hconcat", ()), *spec.get("vconcat", ())):
            yield from axis_titles(part)


def squeezed(text: str) -> str:
    """Text without blanks: layout sets them as it needs."""
    return re.sub(r"\s+", "", text)


@languages
def test_figures_have_titles_and_axes_as_text(
    press: Press, library: Library, trace_name: str, language: blocks.Language
) -> None:
    text = squeezed(press(trace_name, language).text)
    for figure in figures_of(report_of(library, trace_name, language)):
        # A long caption is broken over lines.
        assert squeezed(figure.title)[:12] in text
        # A title along an upright axis is read letter by letter or not at all by this reader.
        for title in axis_titles(figure.spec):
            assert squeezed(title) in text or squeezed(title)[:3] in text


@languages
def test_contents_and_bookmarks_lead_to_the_sections(
    press: Press, library: Library, trace_name: str, language: blocks.Language
) -> None:
    printed = press(trace_name, language)
    reader = PdfReader(printed.file)
    pages = printed.text.split("\f")
    lines = "\n".join(squeezed(line) for line in printed.text.splitlines())
    titles = [
        section.title for chapter in report_of(library, trace_name, language).chapters for section in chapter.sections
    ]
    destinations = {
        name: reader.get_destination_page_number(target) or 0 for name, target in reader.named_destinations.items()
    }
    linked = [
        str(note.get_object()["/Dest"])
        for page in reader.pages
        for note in page.get("/Annots", ())
        if note.get_object()["/Subtype"] == "/Link"
    ]
    assert len(linked) >= len(titles)
    assert set(linked) <= set(destinations)
    found = list(dict.fromkeys(destinations[name] for name in linked))
    assert found == sorted(found)
    where = list(dict.fromkeys(linked))
    for title, name in zip(titles, where, strict=True):
        number = destinations[name]
        assert squeezed(title) in squeezed(pages[number])
        # The number that stands before the title is that of the page; two entries share a line.
        said = {"en": f"p.{number + 1}", "ko": f"{number + 1}쪽"}[language]
        assert re.search(rf"(^|\D){re.escape(said + squeezed(title))}(p\.|\d|$)", lines, re.MULTILINE)
    marks = {
        entry.title: reader.get_destination_page_number(entry)
        for entry in reader.outline
        if not isinstance(entry, list)
    }
    for title, name in zip(titles, where, strict=True):
        if name != f"{language}-next-steps":
            assert marks[title] == destinations[name]


@pytest.mark.parametrize("paper", ["a4", "letter"])
@languages
def test_document_says_what_it_is(press: Press, language: str, paper: str) -> None:
    printed = press(SAMPLE, language, paper)
    reader = PdfReader(printed.file)
    assert reader.metadata is not None
    assert (reader.metadata.title, reader.metadata.author, reader.metadata.creator) == (TITLE, AUTHOR, "Nitro")
    assert catalogue_of(reader)["/Lang"] == language
    for page in reader.pages:
        size = (float(page.mediabox.width), float(page.mediabox.height))
        assert size == pytest.approx(POINTS[paper], abs=0.1)
    first = printed.text.split("\f")[0]
    assert TITLE in first
    assert AUTHOR in first
    assert_pages_keep_their_margins(printed)


@languages
def test_every_page_has_its_number_and_the_names_of_report_and_section(
    press: Press, library: Library, trace_name: str, language: blocks.Language
) -> None:
    *pages, rest = press(trace_name, language).text.split("\f")
    assert rest == ""
    report = report_of(library, trace_name, language)
    titles = {section.title for chapter in report.chapters for section in chapter.sections} | {report.words["about"]}
    for number, page in enumerate(pages, start=1):
        lines = [line.strip() for line in page.splitlines() if line.strip()]
        assert squeezed(lines[-1]) == f"{number}/{len(pages)}"
        if number > 1:
            head = re.split(r"\s{3,}", lines[0])
            assert head[0] == TITLE
            assert head[-1] in titles


def test_sizes_of_type_differ_little_between_languages(press: Press) -> None:
    lengths = [len(press(SAMPLE, language).pages) for language in ("en", "ko")]
    assert max(lengths) - min(lengths) <= 2


def test_without_a_korean_font_the_paper_is_english_and_says_why(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nitro.reports.fonts.has_korean_font", lambda: False)
    documents = Documents([library.analysis(SAMPLE)], Settings(language="ko"))
    with pytest.warns(NitroWarning, match="fonts-noto-cjk"):
        reader = PdfReader(io.BytesIO(documents.pdf()))
    text = "\n".join(page.extract_text() for page in reader.pages)
    assert catalogue_of(reader)["/Lang"] == "en"
    assert "Where the time goes" in text
    assert not re.search("[가-힣]", text)
