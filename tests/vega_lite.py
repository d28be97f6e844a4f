"""Whether a figure's specification is Vega-Lite, for several tests."""

from __future__ import annotations

from typing import Any

import altair

_ROWS = 20


def assert_is_vega_lite(spec: dict[str, Any]) -> None:
    """Fail where a specification does not keep the schema of Vega-Lite.

    Any object is a row of data there, and rows of a figure are alike, so a few of them are looked at: with all of them
    the check takes ten times as long.
    """
    altair.Chart.from_dict(_with_few_rows(spec), validate=True)


def _with_few_rows(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_few_rows(part) for part in value]
    if not isinstance(value, dict):
        return value
    return {
        name: part[:_ROWS] if name == "values" and isinstance(part, list) else _with_few_rows(part)
        for name, part in value.items()
    }
