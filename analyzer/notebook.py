"""How results look in a notebook: short HTML, every text from the trace escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .analysis import Analysis
    from .metric import ResultTable

_ROWS = 20
_CELL = 90


def table_html(table: ResultTable) -> str:
    """Return a result table: its title, the first rows, and what the columns mean as hover text."""
    heads = "".join(f'<th title="{escape(c.meaning)}">{escape(c.name)}</th>' for c in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>"
        for row in table.frame.head(_ROWS).iter_rows()
    )
    more = len(table.frame) - _ROWS
    note = f"<p>{more:,} more rows in <code>.frame</code></p>" if more > 0 else ""
    return f"<p><b>{escape(table.title)}</b></p><table><tr>{heads}</tr>{rows}</table>{note}"


def analysis_html(analysis: Analysis) -> str:
    """Return an analysis in short: window, busy and idle time by cause, findings, and the names of its tables."""
    lines = [f"<p><b>{escape(analysis.source.file_name)}</b><br>{escape(analysis.window.reason)}</p>"]
    for device in analysis.devices:
        window = analysis.value("window", device.device_id)
        if not window:
            continue
        parts = [("busy", analysis.value("gpu_busy", device.device_id) or 0)]
        causes = analysis.parts("gpu_idle_by_cause", device.device_id).items()
        parts += sorted(((f"idle: {cause}", part.value) for cause, part in causes), key=lambda item: -item[1])
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{value / 1e6:,.3f} ms</td><td>{value / window:.1%}</td></tr>"
            for name, value in parts
        )
        lines.append(f"<p>{escape(device.name)}</p><table>{rows}</table>")
    if analysis.findings:
        items = "".join(
            f"<li>{escape(f.title)} ({f.severity}, {f.time_at_stake_ns / 1e6:,.3f} ms at most)</li>"
            for f in analysis.findings
        )
        lines.append(f"<ol>{items}</ol>")
    names = ", ".join(f"<code>{escape(table.name)}</code>" for table in analysis.tables)
    return "".join([*lines, f"<p>Tables: {names}</p>"])


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = str(value)
    return escape(text if len(text) <= _CELL else text[: _CELL - 1] + "…")
