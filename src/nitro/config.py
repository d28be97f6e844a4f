"""`nitro.toml`: settings of a project, in the folder where the command runs."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nitro.errors import UsageError

FILE_NAME = "nitro.toml"
_TABLES = ("check", "budget", "report")
_REPORT_KEYS = ("title", "author", "lang", "paper", "template")
_BUDGET_HEAD = re.compile(r"^[ \t]*\[\[[ \t]*budget[ \t]*\]\]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """The tables `[check]` and `[[budget]]`: the budgets as they stand, and the line at which each begins.

    `store` is the folder of the baselines, and `told` the facts of `[check.facts]`; `lines` is `None` where the lines
    cannot be told.
    """

    file: str
    budgets: tuple[Mapping[str, Any], ...] = ()
    lines: tuple[int, ...] | None = None
    baseline: str | None = None
    store: Path | None = None
    inconclusive: str | None = None
    window: str | None = None
    nvtx: str | None = None
    batch: int | None = None
    allow: tuple[str, ...] = ()
    told: Mapping[str, str] = field(default_factory=dict)


def report_settings(folder: Path = Path()) -> Mapping[str, str]:
    """Return the settings of the table `[report]`: title, author, lang, paper, template; empty where there is no file.

    Raises:
        UsageError: the file is not TOML, or has a setting that does not exist or is no text.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return {}
    table = _read(path).get("report", {})
    if not isinstance(table, dict):
        raise UsageError(f'{FILE_NAME}: [report] must be a table of settings, such as title = "…".')
    for key, value in table.items():
        if key not in _REPORT_KEYS:
            raise UsageError(f"{FILE_NAME}: [report] has no setting {key!r}; it knows {', '.join(_REPORT_KEYS)}.")
        if not isinstance(value, str):
            raise UsageError(f"{FILE_NAME}: {key} in [report] must be text in quotes, not {value!r}.")
    return table


def check_settings(path: Path | None = None) -> CheckSettings:
    """Return the budgets and the settings of `check` in a file.

    Args:
        path: the file; by default nitro.toml in the current folder, which need not exist.

    Raises:
        UsageError: the file does not exist although it was named, is not TOML, or has a table or setting that does not
            exist or is of the wrong kind. What stands inside a budget is not looked at.
    """
    if path is None:
        path = Path(FILE_NAME)
        if not path.is_file():
            return CheckSettings(FILE_NAME)
    tables = _read(path)
    _check_tables(path, tables)
    budgets = tables.get("budget", [])
    if not isinstance(budgets, list) or not all(isinstance(budget, dict) for budget in budgets):
        raise UsageError(f"{path}: budgets are tables under [[budget]], with two brackets on each side.")
    own = tables.get("check", {})
    if not isinstance(own, dict):
        raise UsageError(f'{path}: [check] must be a table of settings, such as baseline = "main".')
    for key, value in own.items():
        _check_setting(path, key, value)
    lines = _lines_of_budgets(path)
    store = own.get("store")
    return CheckSettings(
        file=str(path),
        budgets=tuple(budgets),
        lines=lines if len(lines) == len(budgets) else None,
        baseline=own.get("baseline"),
        # As for every path in a settings file, the folder of the file is where it begins.
        store=None if store is None else path.parent / store,
        inconclusive=own.get("inconclusive"),
        window=own.get("window"),
        nvtx=own.get("nvtx"),
        batch=own.get("batch"),
        allow=tuple(own.get("allow", ())),
        told=own.get("facts", {}),
    )


_CHECK_KINDS: Mapping[str, str] = {
    "baseline": "text in quotes",
    "store": "text in quotes",
    "inconclusive": '"pass" or "fail"',
    "window": '"auto" or "all"',
    "nvtx": "text in quotes",
    "batch": "a whole number above 0",
    "allow": 'a list of texts, such as ["driver"]',
    "facts": 'a table of texts, such as precision = "bf16"',
}


def _check_tables(path: Path, tables: Mapping[str, Any]) -> None:
    """Refuse what stands at the top of the file and is none of its tables: misspelt budgets would guard nothing."""
    for name in tables:
        if name not in _TABLES:
            close = difflib.get_close_matches(name, _TABLES, n=1)
            way = f"did you mean {close[0]}?" if close else "it knows [check], [[budget]] and [report]."
            raise UsageError(f"{path}: there is no table or setting {name!r} at the top of the file; {way}")


def _check_setting(path: Path, key: str, value: object) -> None:
    if key not in _CHECK_KINDS:
        raise UsageError(f"{path}: [check] has no setting {key!r}; it knows {', '.join(_CHECK_KINDS)}.")
    good: bool
    if key == "batch":
        good = isinstance(value, int) and not isinstance(value, bool) and value > 0
    elif key == "allow":
        good = isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    elif key == "facts":
        good = isinstance(value, dict) and all(isinstance(entry, str) for entry in value.values())
    elif key in ("inconclusive", "window"):
        good = value in (("pass", "fail") if key == "inconclusive" else ("auto", "all"))
    else:
        good = isinstance(value, str) and bool(value.strip())
    if not good:
        raise UsageError(f"{path}: {key} in [check] must be {_CHECK_KINDS[key]}, not {value!r}.")


def _lines_of_budgets(path: Path) -> tuple[int, ...]:
    """Return the lines that begin a budget, counted from 1; TOML readers do not tell them."""
    text = path.read_text(encoding="utf-8-sig")
    return tuple(text.count("\n", 0, match.start()) + 1 for match in _BUDGET_HEAD.finditer(text))


def _read(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: this is not TOML ({error}); mend that line.") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); name a file with budgets.") from None
