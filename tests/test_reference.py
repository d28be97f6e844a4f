"""The reference pages say what the code says, for every id, and the index has every id in both languages."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from nitro.analyzer.glossary import entries

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_id_has_a_korean_title_and_none_is_left_over(generator: ModuleType) -> None:
    titles = generator.korean_titles()
    assert set(titles) == set(entries())
    assert all(any("가" <= letter <= "힣" for letter in title) or title == "memset" for title in titles.values())


@pytest.mark.parametrize("language", ["README.md", "README.ko.md"])
def test_the_index_names_every_id_once(language: str) -> None:
    text = (DOCS / "reference" / language).read_text(encoding="utf-8")
    assert [name for name in entries() if text.count(f"- [`{name}`](") != 1] == []


def test_the_pages_are_up_to_date(generator: ModuleType) -> None:
    written = {name: (DOCS / "reference" / name).read_text(encoding="utf-8") for name in generator.pages()}
    assert written == generator.pages(), "run `python docs/make_reference.py`"


def test_every_entry_says_something() -> None:
    assert [name for name, entry in entries().items() if len(entry.definition) < 40 or not entry.title] == []
