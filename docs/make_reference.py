#!/usr/bin/env python3
"""Write the reference pages from what `nitro-analyze explain` prints, and their index in English and Korean.

python docs/make_reference.py
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from nitro.analyzer.glossary import Entry, entries
from nitro.analyzer.message import Message, say
from nitro.reports.language import translate_into

FOLDER = Path(__file__).resolve().parent / "reference"
KOREAN = FOLDER / "titles.ko.tsv"
_PAGES = {
    "metric": ("metrics.md", "Metrics", "지표"),
    "rule": ("rules.md", "Rules", "진단 규칙"),
    "idle cause": ("idle-causes.md", "Idle causes", "유휴 원인"),
    "stats report": ("stats-reports.md", "Stats reports", "nsys stats 호환 보고서"),
    "sampled metric": ("sampled-metrics.md", "Sampled metrics", "샘플링 지표"),
    "trace table": ("trace-tables.md", "Trace tables", "트레이스 테이블"),
}
_NOTE = "<!-- Made by docs/make_reference.py; change the docstrings, not this page. -->"


def catalogue_titles() -> dict[str, str]:
    """Return id → Korean title, for each title that is a message of the catalogue."""
    korean = translate_into("ko")
    found = {name: entry.title for name, entry in entries().items() if isinstance(entry.title, Message)}
    return {name: str(say(title, korean)) for name, title in found.items()}


def own_titles() -> dict[str, str]:
    """Return id → Korean title, for what has no message, or shares the title of its metric with other ids."""
    lines = KOREAN.read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t", 1) for line in lines if line)


def korean_titles() -> dict[str, str]:
    """Return id → Korean title: that of the catalogue, unless there is one for this id alone."""
    return {**catalogue_titles(), **own_titles()}


def pages() -> dict[str, str]:
    """Return file name → content of every page."""
    by_kind: dict[str, list[tuple[str, Entry]]] = defaultdict(list)
    for name, entry in entries().items():
        by_kind[entry.kind].append((name, entry))
    made = {_PAGES[kind][0]: _page(_PAGES[kind][1], found) for kind, found in by_kind.items()}
    made["README.md"] = _index("Reference", 1, by_kind, lambda _, entry: entry.title)
    titles = korean_titles()
    made["README.ko.md"] = _index("참조 문서", 2, by_kind, lambda name, _: titles[name])
    return made


def _page(title: str, found: list[tuple[str, Entry]]) -> str:
    # Ids that share a definition stand under one heading each, and the text is given with the first of them.
    parts = [_NOTE, f"# {title}"]
    first_with: dict[str, str] = {}
    for name, entry in found:
        parts.append(f'<a id="{_anchor(name)}"></a>\n\n## `{name}`')
        if entry.definition in first_with:
            other = first_with[entry.definition]
            parts.append(f"{entry.title}. Defined with [`{other}`](#{_anchor(other)}).")
        else:
            first_with[entry.definition] = name
            parts += [f"{entry.title}.", entry.definition]
        parts += [f"- {label}: {text}" for label, text in entry.facts]
    return "\n\n".join(parts) + "\n"


def _index(title: str, column: int, by_kind: dict[str, list[tuple[str, Entry]]], text_of: object) -> str:
    assert callable(text_of)
    parts = [_NOTE, f"# {title}"]
    for kind, found in by_kind.items():
        page = _PAGES[kind]
        rows = [f"- [`{name}`]({page[0]}#{_anchor(name)}): {text_of(name, entry)}" for name, entry in found]
        parts += [f"## {page[column]}", "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


def _anchor(name: str) -> str:
    return name.replace(":", "-").replace("_", "-")


if __name__ == "__main__":
    for file_name, content in pages().items():
        (FOLDER / file_name).write_text(content, encoding="utf-8")
