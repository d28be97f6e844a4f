"""Make the catalogues of messages, `templates/locales/*/LC_MESSAGES/nitro.po` and `.mo`.

    python docs/make_catalogue.py

Reads every `message("...")` in the source, and the definitions of metrics and rules from their docstrings. New
messages are added to each catalogue without a translation, messages that are gone are dropped, and the catalogue is
compiled. It ends with what still has to be translated; a test fails until that is nothing.
"""

from __future__ import annotations

import ast
import io
import sys
from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from nitro.analyzer.message import verbatim
from nitro.reports.definitions import all_pieces

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("analyzer", "reports", "src/nitro/commands")
LOCALES = ROOT / "templates" / "locales"
DEFINITIONS = "definitions of metrics and rules"


def templates() -> dict[str, list[str]]:
    """Return every template of a message with the files that say it."""
    found: dict[str, list[str]] = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for template in _of_file(path):
                places = found.setdefault(template, [])
                if (place := path.relative_to(ROOT).as_posix()) not in places:
                    places.append(place)
    for piece in all_pieces():
        found.setdefault(verbatim(piece).template, []).append(DEFINITIONS)
    return found


def _of_file(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
        first = node.args[0]
        if name == "message" and isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value:
            yield first.value


def catalogue(locale: str) -> Catalog:
    """Return the catalogue of a locale, brought up to date with the source."""
    path = LOCALES / locale / "LC_MESSAGES" / "nitro.po"
    known = Catalog(locale=locale)
    if path.exists():
        with path.open("rb") as stream:
            known = read_po(stream, locale=locale)
    made = Catalog(locale=locale, project="Nitro", header_comment="# Messages of Nitro.", fuzzy=False)
    for template, places in sorted(templates().items(), key=lambda item: (item[1][0], item[0])):
        old = known.get(template)
        flags = ("python-brace-format",) if "{" in template else ()
        made.add(template, old.string if old else "", locations=[(place, 0) for place in places], flags=flags)
    # Dates would change the file at every run.
    made.creation_date = made.revision_date = known.creation_date if path.exists() else made.creation_date
    return made


def as_po(made: Catalog) -> bytes:
    """Return a catalogue as the text that translators edit."""
    stream = io.BytesIO()
    write_po(stream, made, width=110, include_lineno=False, omit_header=False)
    return stream.getvalue()


def as_mo(made: Catalog) -> bytes:
    """Return a catalogue as the file that the program reads."""
    stream = io.BytesIO()
    write_mo(stream, made)
    return stream.getvalue()


def main() -> int:
    """Bring every catalogue up to date."""
    missing = 0
    for folder in sorted(LOCALES.iterdir()):
        made = catalogue(folder.name)
        target = folder / "LC_MESSAGES"
        (target / "nitro.po").write_bytes(as_po(made))
        (target / "nitro.mo").write_bytes(as_mo(made))
        untranslated = [entry.id for entry in made if entry.id and not entry.string]
        missing += len(untranslated)
        print(f"{folder.name}: {len(made)} messages, {len(untranslated)} without a translation")
        for template in untranslated[:20]:
            print(f"  {template!r}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
