"""The reference pages say what the code says, for every id, and the index has every id in both languages."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from nitro.analyzer.glossary import entries

DOCS = Path(__file__).resolve().parents[1] / "docs"
KOREAN = re.compile("[가-힣]")


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
    assert [name for name, title in titles.items() if not KOREAN.search(title)] == ["memsets"]


def test_korean_titles_that_the_catalogue_has_are_not_written_twice(generator: ModuleType) -> None:
    catalogue, own = generator.catalogue_titles(), generator.own_titles()
    shared = Counter((entry.kind, entry.title) for entry in entries().values())
    alone = {name for name, entry in entries().items() if shared[entry.kind, entry.title] == 1}
    assert [name for name in own if name in catalogue and (name in alone or own[name] == catalogue[name])] == []


def test_no_two_metrics_have_the_same_korean_title(generator: ModuleType) -> None:
    titles = Counter(title for name, title in generator.korean_titles().items() if entries()[name].kind == "metric")
    assert [title for title, count in titles.items() if count > 1] == []


@pytest.mark.parametrize("language", ["README.md", "README.ko.md"])
def test_the_index_names_every_id_once(language: str) -> None:
    text = (DOCS / "reference" / language).read_text(encoding="utf-8")
    assert [name for name in entries() if text.count(f"- [`{name}`](") != 1] == []


def test_the_pages_are_up_to_date(generator: ModuleType) -> None:
    written = {name: (DOCS / "reference" / name).read_text(encoding="utf-8") for name in generator.pages()}
    assert written == generator.pages(), "run `python docs/make_reference.py`"


def test_every_entry_says_something() -> None:
    assert [name for name, entry in entries().items() if len(entry.definition) < 40 or not entry.title] == []
