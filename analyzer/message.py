"""Sentences for people that can still be said in another language.

The analyzer and the sections of a report write English. A `Message` is that English text, and a `str` like any other,
but it remembers the template and the values that it was made from, so that a report can look the template up in a
catalogue of translations and fill it again. Text of the trace itself (names, paths) is a plain `str` and never
translated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

Translate = Callable[[str], str]


class Message(str):
    """A sentence made from a template. `template` is the key of the catalogues."""

    __slots__ = ("template", "values")

    template: str
    values: dict[str, object]

    def said(self, translate: Translate) -> str:
        """Return the text with its template, and the messages among its values, translated."""
        values = {name: say(value, translate) for name, value in self.values.items()}
        return translate(self.template).format(**values)

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (self.template, self.values)


class _Joined(Message):
    """Several texts with a separator between them."""

    __slots__ = ("parts", "separator")

    parts: tuple[str, ...]
    separator: str

    def said(self, translate: Translate) -> str:
        """Return the parts translated, with the separator translated where it is a message."""
        separator = say(self.separator, translate)
        return str(separator).join(str(say(part, translate)) for part in self.parts)

    def __reduce__(self) -> tuple[object, ...]:
        return joined, (self.separator, self.parts)


class _Capitalised(Message):
    """A text whose first letter is a capital in languages that have them."""

    __slots__ = ("inner",)

    inner: str

    def said(self, translate: Translate) -> str:
        """Return the text translated, its first letter a capital."""
        text = str(say(self.inner, translate))
        return text[:1].upper() + text[1:]

    def __reduce__(self) -> tuple[object, ...]:
        return capitalised, (self.inner,)


def message(template: str, /, **values: object) -> Message:
    """Return a sentence in English that can be translated.

    Args:
        template: English text with the fields of `str.format`, as in `"{count:,} kernels of {name}"`. Write it as a
            literal: catalogues are made by reading the source. Braces that are meant are doubled.
        values: what stands in the fields; messages among them are translated too.
    """
    text = Message(template.format(**values))
    text.template = template
    text.values = values
    return text


def one_or_many(count: float, one: Message, many: Message) -> Message:
    """Return the text about one thing or that about several, 0 among them; each is a message of its own."""
    return one if count == 1 else many


def joined(separator: str, parts: Iterable[str]) -> Message:
    """Return `separator.join(parts)` as a message whose parts can be translated one by one."""
    known = tuple(parts)
    text = _Joined(separator.join(known))
    text.template, text.values = "", {}
    text.parts, text.separator = known, separator
    return text


def capitalised(text: str) -> Message:
    """Return the text with a capital first letter, as a message."""
    made = _Capitalised(text[:1].upper() + text[1:])
    made.template, made.values = "", {}
    made.inner = text
    return made


def say(value: object, translate: Translate) -> object:
    """Return a value as a report shows it: messages translated, everything else as it is."""
    return value.said(translate) if isinstance(value, Message) else value


def _restored(template: str, values: dict[str, object]) -> Message:
    return message(template, **values)


def verbatim(text: str) -> Message:
    """Return a text without fields as a message; braces in it stand for themselves."""
    return message(text.replace("{", "{{").replace("}", "}}"))
