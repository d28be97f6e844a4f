"""Every sentence of the analyzer for people is a `Message`: a report can say it in another language."""

from __future__ import annotations

import ast
import copy
import importlib.util
import pickle
import re
from collections.abc import Iterator
from itertools import accumulate, product
from pathlib import Path
from string import Formatter
from typing import Any

import polars as pl
import pytest

from builders import call, gpu, kernel, nvtx_range, operation, sample, trace
from nitro import analyzer
from nitro.analyzer import Analysis, Trace, analyze, open_trace
from nitro.analyzer.analysis import all_metrics, all_rules
from nitro.analyzer.causes import TEXTS, Cause
from nitro.analyzer.glossary import entries
from nitro.analyzer.hardware import BOARDS, integrated_memory_bandwidth
from nitro.analyzer.kernel_names import NAME_LOST
from nitro.analyzer.message import Message, capitalised, joined, message, say
from nitro.analyzer.metrics.copies import COPY_KINDS, MEMORY_KINDS
from nitro.analyzer.nvtx import PATH_SEPARATOR, UNNAMED, family_of, ranges_of
from nitro.analyzer.occupancy import LIMITERS
from nitro.analyzer.synthetic import write_nsys_sqlite
from nitro.analyzer.table_words import TABLE_WORDS
from nitro.analyzer.tables import SAMPLED_METRICS, TABLES, enum_texts
from nitro.analyzer.view import OUTSIDE_NVTX

ROOT = Path(__file__).resolve().parents[2]
CAPTURES = [ROOT / "examples" / "dual_encoder.sqlite.xz", *sorted((ROOT / "tests/data/faults").glob("*.sqlite.xz"))]
SOURCES = sorted(Path(analyzer.__path__[0]).rglob("*.py"))
KOREAN = {"{count:,} kernels of {what}": "{what}의 커널 {count:,}개", "a graph": "그래프", " and ": " 및 "}
# The places of texts among the arguments of what the analyzer makes.
TEXT_ARGUMENTS = {
    "Finding": ("title", "remedy", "limits"),
    "Evidence": (3, "text"),
    "NotMeasured": (1, "reason"),
    "ResultTable": (1, "title"),
    "ResultColumn": (2, "meaning"),
    "Window": (3, "reason"),
}
WORD_COLUMNS = ("kind", "memory", "size", "limiter", "cause", "tensor_hint")


def korean(template: str) -> str:
    return KOREAN.get(template, template)


def in_capitals(template: str) -> str:
    """Translate into capital letters, so that what was not translated can be seen; fields stay."""
    pieces = re.split(r"(\{\{|\}\}|\{[^{}]*\})", template)
    return "".join(piece if place % 2 else piece.upper() for place, piece in enumerate(pieces))


def test_a_message_is_its_english_text() -> None:
    text = message("{count:,} kernels of {what}", count=1234, what="gemm")
    assert text == "1,234 kernels of gemm"
    assert hash(text) == hash("1,234 kernels of gemm")
    assert (text.template, text.values) == ("{count:,} kernels of {what}", {"count": 1234, "what": "gemm"})


def test_a_translation_fills_its_own_template() -> None:
    text = message("{count:,} kernels of {what}", count=1234, what="gemm")
    assert say(text, korean) == "gemm의 커널 1,234개"


def test_messages_among_the_values_are_translated_and_names_are_not() -> None:
    assert say(message("{count:,} kernels of {what}", count=2, what=message("a graph")), korean) == "그래프의 커널 2개"
    assert say(message("{count:,} kernels of {what}", count=2, what="a graph"), korean) == "a graph의 커널 2개"


def test_braces_that_are_meant_are_doubled() -> None:
    assert message("{{{name}}}", name="a") == "{a}"
    assert say(message("{{{name}}} of", name="a"), in_capitals) == "{a} OF"


def test_a_name_with_braces_stays_as_it_is() -> None:
    text = message("of {name}", name="f<{0}>")
    assert (str(text), say(text, in_capitals)) == ("of f<{0}>", "OF f<{0}>")


def test_parts_are_joined_each_in_its_language() -> None:
    text = joined(", ", ["gemm", message("a graph")])
    assert (str(text), say(text, korean)) == ("gemm, a graph", "gemm, 그래프")
    assert not joined(", ", [])


def test_a_separator_may_be_a_message() -> None:
    assert say(joined(message(" and "), ["a", "b"]), korean) == "a 및 b"


def test_a_capital_is_given_after_the_translation() -> None:
    text = capitalised(message("{what} of a graph", what=message("part")))
    assert text == "Part of a graph"
    assert say(text, str.lower) == "Part of a graph"
    assert capitalised("") == ""


def test_what_is_no_message_is_said_as_it_is() -> None:
    assert [say(value, in_capitals) for value in ("name", 3, None)] == ["name", 3, None]


@pytest.mark.parametrize(
    "text",
    [
        message("{count:,} kernels of {what}", count=2, what=message("a graph")),
        joined(message(" and "), ["a", message("a graph")]),
        capitalised(message("a graph")),
    ],
    ids=["message", "joined", "capitalised"],
)
def test_copies_and_pickles_can_still_be_translated(text: Message) -> None:
    for again in (copy.copy(text), copy.deepcopy(text), pickle.loads(pickle.dumps(text))):
        assert (type(again), again, say(again, korean)) == (type(text), text, say(text, korean))


def cases_of_rules() -> list[Any]:
    """Return the traces of `test_rules` in which a rule fires, with the window that they are analysed in."""
    spec = importlib.util.spec_from_file_location("cases_of_rules", Path(__file__).with_name("test_rules.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [
        pytest.param(case.built, case.window, id=f"{rule}: {case.why}")
        for rule, cases in module.CASES.items()
        for case in cases.fires
    ]


def sentences(analysis: Analysis) -> Iterator[tuple[str, str]]:
    """Return every text of an analysis that its authors wrote, with the place where it stands."""
    for finding in analysis.findings:
        yield f"{finding.rule}: title", finding.title
        yield f"{finding.rule}: remedy", finding.remedy
        yield f"{finding.rule}: limits", finding.limits
        yield from ((f"{finding.rule}: evidence of {entry.metric}", entry.text) for entry in finding.evidence)
    yield from ((f"{entry.metric}: not measured", entry.reason) for entry in analysis.not_measured)
    yield "window: reason", analysis.window.reason
    yield from (("window: dropped", reason) for _, reason in analysis.window.dropped)
    yield from (("note", note) for note in analysis.notes)
    for table in analysis.tables:
        yield f"{table.name}: title", table.title
        yield from ((f"{table.name}: {column.name}", column.meaning) for column in table.columns)
    for device in analysis.devices:
        if device.memory_bandwidth_source is not None:
            yield "memory bandwidth", device.memory_bandwidth_source


def declared() -> Iterator[tuple[str, str]]:
    """Return every text that stands in a declaration."""
    for metric in all_metrics():
        yield from ((metric.id, text) for text in (metric.title, metric.reference, metric.missing) if text)
    for rule in all_rules():
        yield from ((rule.id, text) for text in (rule.title, rule.threshold, rule.reference))
    for cause, text in TEXTS.items():
        yield from ((cause.id, text.title), (cause.id, text.meaning))
    yield from SAMPLED_METRICS.items()
    for name, entry in entries().items():
        yield name, entry.kind
        yield from ((name, label) for label, _ in entry.facts)
        # NVIDIA's reports and the tables of a trace are described in English only.
        if entry.kind not in ("stats report", "trace table"):
            yield from ((name, text) for text in (entry.title, *(fact for _, fact in entry.facts)))
    for board in BOARDS:
        bandwidth = integrated_memory_bandwidth(board.chip, board.sm_counts[0], int(board.memory_gib[1] * 2**30) - 1)
        yield board.chip, bandwidth[1]
    yield "unknown chip", integrated_memory_bandwidth("unknown", 1, 1)[1]


def plain_values(text: object) -> Iterator[str]:
    """Return the strings in a message that are not translated."""
    if isinstance(text, Message):
        inside = [*text.values.values(), *getattr(text, "parts", ()), *filter(None, [getattr(text, "inner", None)])]
        for value in inside:
            yield from plain_values(value)
    elif isinstance(text, str):
        yield text


def names_of(built: Trace) -> set[str]:
    """Return the names that a sentence about a trace may hold: the trace's own, and ids of causes."""
    frames = [frame for table in TABLES if (frame := built.table(table.name)) is not None]
    texts = {
        text
        for frame in frames
        for column in frame.columns
        if isinstance(frame[column].dtype, pl.Enum)
        for text in enum_texts(frame[column])
    }
    ranges = ranges_of(built)
    names = {*texts, *ranges.names, *ranges.paths}
    names |= {part for path in ranges.paths for part in path.split(PATH_SEPARATOR)}
    names |= {family_of(name) for name in ranges.names}
    names |= {re.sub(r"_v\d{4,5}$", "", name) for name in texts}
    return names | {cause.id for cause in Cause}


def assert_can_be_translated(where: str, text: str, names: set[str]) -> None:
    assert isinstance(text, Message), f"{where}: {text!r} is not a message"
    assert text == say(text, lambda template: template)
    values = list(plain_values(text))
    for value in values:
        known = value in names or (value.endswith("…") and any(name.startswith(value[:-1]) for name in names))
        assert known or not re.search("[a-z]{2}", value), f"{where}: {value!r} in {text!r} is no name of the trace"
    rest = str(say(text, in_capitals))
    for value in sorted(values, key=len, reverse=True):
        rest = rest.replace(value, "")
    assert not re.search("[a-z]{2}", rest), f"{where}: {rest!r} is not translated"


def assert_all_can_be_translated(built: Trace, analysis: Analysis, *given: str) -> None:
    names = {*names_of(built), *given}
    for where, text in sentences(analysis):
        assert_can_be_translated(where, text, names)
    for iteration in analysis.window.iterations:
        if iteration.name not in names:
            assert_can_be_translated("iteration", iteration.name, names)
    for table in analysis.tables:
        for column in set(table.frame.columns) & set(WORD_COLUMNS):
            assert {cell for cell in table.frame[column].unique() if cell} <= set(TABLE_WORDS), table.name


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name.partition(".")[0])
def test_every_sentence_about_a_capture_can_be_translated(path: Path) -> None:
    built = open_trace(path)
    assert_all_can_be_translated(built, analyze(built))


@pytest.mark.parametrize(("built", "window"), cases_of_rules())
def test_every_sentence_of_a_rule_that_fires_can_be_translated(built: Trace, window: str) -> None:
    assert_all_can_be_translated(built, analyze(built, window=window))


def iterations(*lengths: int, **tables: Any) -> Trace:
    """Return NVTX ranges that follow each other, each with a launch and a kernel that takes most of it."""
    ends = list(accumulate(lengths))
    spans = [(end - length, end, number) for number, (length, end) in enumerate(zip(lengths, ends, strict=True), 1)]
    return trace(
        nvtx=[nvtx_range(start, end, f"infer:{number}") for start, end, number in spans],
        api_calls=[call(start + 10, start + 20, correlation_id=number) for start, _, number in spans],
        kernels=[kernel(start + 30, end - 10, correlation_id=number) for start, end, number in spans],
        **tables,
    )


@pytest.mark.parametrize(
    ("built", "options"),
    [
        (trace(), {}),
        (trace(kernels=[]), {}),
        (trace(kernels=[(0, 10)], devices=[]), {"since_ns": 0, "until_ns": 10}),
        (iterations(500, 100, 100, 100, 100, 100), {}),
        (iterations(100, 100, 100, 100), {"nvtx": "infer:*"}),
        (iterations(100), {"nvtx": "infer:*"}),
        (iterations(100, 100, gpu_metric_samples=[sample(at, "gpc_clock", 1) for at in (0, 100)]), {}),
        (
            trace(
                kernels=[(0, 1000)],
                gpu_metric_samples=[
                    sample(at + shift, name, 1)
                    for at in range(0, 1000, 100)
                    for shift, name in enumerate(("gpc_clock", "sm_active"))
                ],
                devices=[gpu(sm_count=8)],
            ),
            {"window": "all"},
        ),
        (trace(graph_launches=[(at, at + 8) for at in range(0, 50, 10)]), {}),
        (trace(kernels=[kernel(at, at + 8, "ab"[at // 10 % 2] * 80) for at in range(0, 200, 10)]), {}),
        (
            trace(
                memcpys=[
                    operation(at, at + 5, bytes=size) for at, size in ((0, 9), (10, 9999), (20, 99999), (30, 1 << 21))
                ],
                memsets=[operation(40, 45)],
            ),
            {"window": "all"},
        ),
    ],
    ids=[
        "no tables",
        "no operations",
        "explicit edges",
        "warm-up",
        "named ranges",
        "one iteration",
        "few samples",
        "samples at other times",
        "graph launches",
        "kernel sequence",
        "copies",
    ],
)
def test_every_sentence_about_what_is_missing_or_rare_can_be_translated(built: Trace, options: dict[str, Any]) -> None:
    assert_all_can_be_translated(built, analyze(built, **options), options.get("nvtx", ""))


def test_what_is_declared_can_be_translated() -> None:
    ids = {name for metric in all_metrics() for name in (*metric.needs, *metric.provides)}
    boards = {what for board in BOARDS for _, what in board.choices}
    for where, text in declared():
        assert_can_be_translated(where, text, ids | boards)


def test_notes_of_a_reader_can_be_translated(tmp_path: Path) -> None:
    path = write_nsys_sqlite(tmp_path / "t.sqlite", trace(kernels=[(0, 10)]))
    path.with_name("t.sqlite-wal").write_bytes(b"changes")
    (note,) = open_trace(path).notes
    assert_can_be_translated("note", note, {"t.sqlite-wal"})


def test_names_of_devices_that_the_export_does_not_describe_can_be_translated() -> None:
    (device,) = analyze(trace(kernels=[(0, 10)], devices=[])).devices
    assert_can_be_translated("device", device.name, set())


def test_the_words_in_tables_are_all_listed() -> None:
    copies = {*COPY_KINDS.values(), *(f"{a} to {b}" for a, b in product(MEMORY_KINDS.values(), repeat=2))}
    words = {*copies, *MEMORY_KINDS.values(), *LIMITERS, OUTSIDE_NVTX, UNNAMED, NAME_LOST}
    assert words <= set(TABLE_WORDS)
    assert len(TABLE_WORDS) == len(set(TABLE_WORDS))
    for word in TABLE_WORDS:
        assert_can_be_translated("table words", word, set())


def calls_in(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Return the calls of functions and classes by their plain name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_text_is_plain_not_even_where_tests_do_not_come(path: Path) -> None:
    for name, call_ in calls_in(path):
        given: dict[object, ast.expr] = {keyword.arg: keyword.value for keyword in call_.keywords}
        given.update(enumerate(call_.args))
        texts = [given[place] for place in TEXT_ARGUMENTS.get(name, ()) if place in given]
        assert not any(isinstance(text, (ast.Constant, ast.JoinedStr, ast.BinOp)) for text in texts), call_.lineno


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parent.name == "rules"], ids=lambda path: path.stem)
def test_rules_put_no_text_together_themselves(path: Path) -> None:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    assert [node.lineno for node in nodes if isinstance(node, ast.JoinedStr)] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_templates_are_literals_whose_fields_are_given(path: Path) -> None:
    for name, node in calls_in(path):
        if name == "message" and path.name != "message.py":
            where = f"{path.name}:{node.lineno}"
            assert len(node.args) == 1, where
            template = node.args[0]
            assert isinstance(template, ast.Constant), where
            assert isinstance(template.value, str), where
            fields = {field for _, field, _, _ in Formatter().parse(template.value) if field is not None}
            assert fields == {keyword.arg for keyword in node.keywords}, where
