"""`nitro.toml`: settings of a project, in the folder where the command runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nitro.errors import UsageError

FILE_NAME = "nitro.toml"
_REPORT_KEYS = ("title", "author", "lang", "paper", "template")


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


def _read(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{FILE_NAME}: this is not TOML ({error}); mend that line.") from None
    except OSError as error:
        raise UsageError(f"{FILE_NAME}: cannot be read ({error.strerror}).") from None
