"""Languages: which one a reader wants, and a report turned into it.

A report is built once, in English, of messages that remember their templates. `translated` walks over it and looks
each template up in the catalogue of the language (`templates/locales`), so no section knows about languages.
"""

from __future__ import annotations

import gettext
import os
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from importlib import resources
from typing import Any, TypeVar, get_args

from nitro.analyzer.message import Message, Translate, say

from . import blocks
from .blocks import Language
from .report import Chapter, FilledSection, Report

LANGUAGES: tuple[Language, ...] = get_args(Language)
T = TypeVar("T")

_DOMAIN = "nitro"
_WALKED = (
    Report,
    Chapter,
    FilledSection,
    blocks.Paragraph,
    blocks.KeyValues,
    blocks.KeyFigure,
    blocks.KeyFigures,
    blocks.Column,
    blocks.Table,
    blocks.Bar,
    blocks.Bars,
    blocks.Figure,
    blocks.Timeline,
    blocks.Points,
    blocks.Definition,
    blocks.Definitions,
    blocks.Advice,
)


def language_of(environment: Mapping[str, str] = os.environ) -> Language:
    """Return the language that the locale asks for: Korean for `ko…`, else English.

    The first of LC_ALL, LC_MESSAGES and LANG that is set decides, as for the C library.
    """
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := environment.get(name):
            return "ko" if re.match(r"ko(?:[_.@]|$)", value.lower()) else "en"
    return "en"


@cache
def translate_into(language: Language) -> Translate:
    """Return the function that looks a template up; a template without translation stays English."""
    if language == "en":
        return str
    catalogue = resources.files("nitro.templates") / "locales" / language / "LC_MESSAGES" / f"{_DOMAIN}.mo"
    with catalogue.open("rb") as stream:
        return gettext.GNUTranslations(stream).gettext


def translated(report: Report, language: Language) -> Report:
    """Return a report in a language."""
    # A report is built in English.
    return replace(report if language == "en" else _walk(report, translate_into(language)), language=language)


def _walk(value: T, translate: Translate) -> T:
    """Return a copy with every message in it said by `translate`."""
    made: Any = value
    if isinstance(value, Message):
        made = say(value, translate)
    elif isinstance(value, tuple):
        made = tuple(_walk(part, translate) for part in value)
    elif isinstance(value, list):
        made = [_walk(part, translate) for part in value]
    elif isinstance(value, Mapping):
        made = {name: _walk(part, translate) for name, part in value.items()}
    elif isinstance(value, _WALKED) and is_dataclass(value):
        made = replace(value, **{f.name: _walk(getattr(value, f.name), translate) for f in fields(value)})
    return made  # type: ignore[no-any-return]
