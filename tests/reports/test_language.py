"""Languages: the catalogue holds every message, and every message of a report goes through it."""

from __future__ import annotations

import importlib.util
import re
import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po

from nitro.analyzer import Analysis, analyze, open_trace
from nitro.analyzer.analysis import all_metrics, all_rules
from nitro.reports import blocks, language, timeline_data
from nitro.reports.names import kernel_label
from nitro.reports.numbers import Quantity
from nitro.reports.report import build_report

if TYPE_CHECKING:
    from reports.conftest import Library

ROOT = Path(__file__).parents[2]
FAULTS = sorted((ROOT / "tests" / "data" / "faults").glob("*.sqlite.xz"))
SAMPLE = "dual_encoder"
SHARED = (
    "GindaChen__nsys-ai__h100_2gpu_1s__3dc0af",
    "hokwangchoi__jetson-orin-nano-benchmarks__trt_image_20260419_005228__3bd3de",
    "JeremyGuo__RealCUGAN-TensorRT__profile__43dc71",
)
KOREAN = ROOT / "templates" / "locales" / "ko" / "LC_MESSAGES" / "nitro.po"


@cache
def maker() -> ModuleType:
    """Return `docs/make_catalogue.py` as a module."""
    spec = importlib.util.spec_from_file_location("make_catalogue", ROOT / "docs" / "make_catalogue.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@cache
def catalogue() -> Catalog:
    with KOREAN.open("rb") as stream:
        return read_po(stream, locale="ko")


class TestCatalogue:
    def test_it_holds_exactly_the_messages_of_the_source(self) -> None:
        assert {entry.id for entry in catalogue() if entry.id} == set(maker().templates())
        assert not catalogue().obsolete

    def test_every_message_is_translated_for_good(self) -> None:
        known = [entry for entry in catalogue() if entry.id]
        assert len(known) > 500
        assert [entry.id for entry in known if not entry.string or entry.fuzzy] == []

    def test_translations_have_the_fields_of_their_templates(self) -> None:
        for entry in catalogue():
            if entry.id:
                assert fields_of(str(entry.string)) == fields_of(str(entry.id)), entry.id

    def test_files_are_as_they_are_made(self) -> None:
        made = maker().catalogue("ko")
        assert KOREAN.read_bytes() == maker().as_po(made)
        assert KOREAN.with_suffix(".mo").read_bytes() == maker().as_mo(made)

    def test_every_template_can_be_filled(self) -> None:
        assert language.translate_into("ko")("Findings") == "진단 결과"
        assert language.translate_into("ko")("not in the catalogue") == "not in the catalogue"
        assert language.translate_into("en")("Findings") == "Findings"


def fields_of(template: str) -> list[str]:
    """Return the fields of a template with their formats, in no order: a translation may have another."""
    parsed = string.Formatter().parse(template)
    return sorted(f"{name}!{conversion}:{form}" for _, name, form, conversion in parsed if name is not None)


# --- every text of ours goes through the catalogue --------------------------------------------------------------------

# Texts that are the same in every language: ids, names of products, and lines of other tools.
SAME_EVERYWHERE = re.compile(
    r"""
      (GPU|NVTX)(\ \d+)?            # a device, a level of ranges
    | SHA-256 | Markdown
    | Nitro\ [\d.]+                 # our name and version
    | \d{4}-\d\d-\d\d\ [\d:]+\ UTC
    | [\d\s.,:%–·+-]*               # only digits and marks
    | [a-z0-9_]+(,\ [a-z0-9_]+)*    # ids of metrics and tables, function names
    """,
    re.VERBOSE,
)


def wrapped(template: str) -> str:
    return f"⟦{template}⟧"


def leaves(value: Any) -> Iterator[str]:
    """Every text of a report that a reader sees. Of figures, titles and the texts of marks."""
    if isinstance(value, Quantity) or value is None:
        return
    if isinstance(value, str):
        yield value
    elif isinstance(value, blocks.Figure):
        yield from (value.title, value.sentence)
        yield from titles_of(value.spec)
    elif isinstance(value, blocks.Timeline):
        yield from (value.title, value.sentence)
        yield from leaves(value.still)
    elif isinstance(value, Mapping):
        yield from leaves(tuple(value.values()))
    elif is_dataclass(value):
        # What is never shown: names of files and ids, colour keys, classes of style.
        hidden = {"name", "colour", "align", "severity", "confidence", "language"}
        yield from leaves(tuple(getattr(value, each.name) for each in fields(value) if each.name not in hidden))
    elif isinstance(value, Iterable):
        for part in value:
            yield from leaves(part)


def titles_of(spec: Any) -> Iterator[str]:
    """The titles and the names of series of a figure."""
    if isinstance(spec, Mapping):
        for name, part in spec.items():
            if name == "title" and isinstance(part, str):
                yield part
            elif name == "domain" and isinstance(part, list):
                yield from (text for text in part if isinstance(text, str))
            else:
                yield from titles_of(part)
    elif isinstance(spec, list):
        for part in spec:
            yield from titles_of(part)


def texts_of_the_trace(analysis: Analysis) -> set[str]:
    """Every text that comes from the trace, and the numbers that were written into its tables."""
    source, capture = analysis.source, analysis.capture
    found = {source.file_name, source.format, source.tool, source.tool_version, source.schema_version, source.sha256}
    found |= {f"{source.tool} {source.tool_version}", *(f"{name} = {value}" for name, value in capture.options.items())}
    for device in analysis.devices:
        found |= {device.name, device.chip}
    for table in analysis.tables:
        for column in table.frame.get_columns():
            if column.dtype.is_numeric() or column.dtype.is_nested():
                continue
            texts = {str(text) for text in column.unique()}
            found |= texts | {kernel_label(text) for text in texts}
    for name, _ in analysis.window.dropped:
        found.add(name)
    if analysis.timeline is not None:
        found |= set(analysis.timeline.names)
    return {text.strip() for text in found if text}


def is_of_the_trace(text: str, known: set[str]) -> bool:
    """Whether a text is one of the trace, or the part of one that fits (a kernel without its parameters)."""
    plain = text.strip("\N{NO-BREAK SPACE} ").removesuffix("…")
    # A layer stands before the parts around it, in brackets.
    pieces = re.split(r" (?:\+|>|·|›) |; | \((?=[^()]*(?:\([^()]*\)[^()]*)*\)$)", plain)
    pieces = [piece if "(" in piece else piece.removesuffix(")") for piece in pieces]
    return all(piece in known or any(piece in whole for whole in known) for piece in pieces)


def untranslated(analysis: Analysis) -> list[str]:
    """Texts of ours that do not go through the catalogue."""
    report = language._walk(build_report(analysis, command="nitro-analyze x"), wrapped)
    known = texts_of_the_trace(analysis)
    return [
        text
        for text in dict.fromkeys(leaves((report.subtitle, report.chapters, report.side_by_side, report.words)))
        if text.strip() and "⟦" not in text and not SAME_EVERYWHERE.fullmatch(text) and not is_of_the_trace(text, known)
    ]


def test_every_text_of_the_sample_can_be_translated(library: Library) -> None:
    assert untranslated(library.analysis(SAMPLE)) == []


@pytest.mark.parametrize("path", FAULTS, ids=lambda path: path.name.partition(".")[0])
def test_every_text_of_a_planted_fault_can_be_translated(path: Path) -> None:
    assert untranslated(analyze(open_trace(path), with_timeline=True)) == []


@pytest.mark.parametrize("name", SHARED)
def test_every_text_of_a_shared_trace_can_be_translated(
    library: Library, shared_names: frozenset[str], name: str
) -> None:
    if name not in shared_names:
        pytest.skip("needs the shared traces: set NITRO_TRACES")
    assert untranslated(library.analysis(name)) == []


def test_every_text_of_a_report_about_several_traces_can_be_translated(library: Library) -> None:
    analysis = library.analysis(SAMPLE)
    report = language._walk(build_report(analysis, analysis), wrapped)
    assert [text for text in leaves(report.side_by_side) if "⟦" not in text and not text.startswith("NVIDIA")] == [
        "dual_encoder.sqlite.xz",
        "dual_encoder.sqlite.xz",
    ]


def test_every_word_of_the_timeline_can_be_translated() -> None:
    said = list(timeline_data.labels(wrapped).values())
    assert len(said) > 20
    flat = list(leaves(said))
    assert [text for text in flat if "⟦" not in text and re.search("[a-z]{3}", text)] == []


# --- Korean -----------------------------------------------------------------------------------------------------------

ENGLISH = re.compile(r"(?:\b[A-Za-z][a-z]+\b[ ,;:]+){3,}\b[A-Za-z][a-z]+\b")


def english(text: str, known: set[str]) -> str | None:
    """Return a run of four English words and more in a text that is not the trace's."""
    found = ENGLISH.search(text)
    if found is None or is_of_the_trace(text, known) or any(found[0] in name for name in known):
        return None
    return found[0]


@pytest.mark.parametrize("name", [SAMPLE, *SHARED])
def test_korean_report_holds_no_english_sentence(library: Library, shared_names: frozenset[str], name: str) -> None:
    if name not in shared_names:
        pytest.skip("needs the shared traces: set NITRO_TRACES")
    analysis = library.analysis(name)
    report = language.translated(build_report(analysis, command="nitro-analyze x"), "ko")
    known = texts_of_the_trace(analysis)
    # References name papers and manuals by their titles.
    known |= {metric.reference for metric in all_metrics()} | {rule.reference for rule in all_rules()}
    assert list(filter(None, (english(text, known) for text in leaves(report)))) == []
    assert len(re.findall("[가-힣]", " ".join(leaves(report)))) > 1000


# --- which language ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "en"),
        ({"LANG": "C"}, "en"),
        ({"LANG": "ko_KR.UTF-8"}, "ko"),
        ({"LANG": "KO_kr.eucKR"}, "ko"),
        ({"LANG": "ko"}, "ko"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LC_MESSAGES": "en_US.UTF-8", "LANG": "ko_KR.UTF-8"}, "en"),
        ({"LC_MESSAGES": "ko_KR.UTF-8", "LANG": "en_US.UTF-8"}, "ko"),
        ({"LC_ALL": "C", "LC_MESSAGES": "ko_KR.UTF-8", "LANG": "ko_KR.UTF-8"}, "en"),
        ({"LC_ALL": "", "LANG": "ko_KR.UTF-8"}, "ko"),
        ({"LC_CTYPE": "ko_KR.UTF-8"}, "en"),
        # Konkani is another language.
        ({"LANG": "kok_IN.UTF-8"}, "en"),
    ],
)
def test_locale_chooses_the_language(environment: dict[str, str], expected: str) -> None:
    assert language.language_of(environment) == expected
