"""What every id means: metrics, rules, idle causes, NVIDIA's reports, sampled metrics and the tables of a trace.

`explain` is what the command and the reference pages print; nothing is said twice, since each entry comes from the
docstring or the declaration of what it explains.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache

from nitro.errors import UsageError

from .analysis import all_metrics, all_rules
from .causes import TEXTS
from .message import capitalised, joined, message
from .metric import Better
from .stats import known_reports
from .tables import SAMPLED_METRICS, TABLES

_UNITS = {
    "ns": message("nanoseconds"),
    "1": message("a count"),
    "ratio": message("a ratio, 0 to 1"),
    "1/s": message("per second"),
    "items/s": message("items per second"),
    "bytes": message("bytes"),
    "bytes/s": message("bytes per second"),
    "Hz": message("hertz"),
    "W": message("watts"),
    "J": message("joules"),
    "nJ": message("nanojoules"),
    "1/J": message("per joule"),
    "degC": message("degrees Celsius"),
    "cycles": message("SM-cycles, summed over the SMs"),
    "table": message("a table"),
    "reason": message("never measured by this capture; only the reason is given"),
}
_BETTER: dict[Better, str] = {
    "higher": message("higher"),
    "lower": message("lower"),
    "neither": message("neither"),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One id explained: `kind` says what it names.

    `definition` is plain text with Markdown code marks; `facts` are short labelled lines.
    """

    name: str
    kind: str
    title: str
    definition: str
    facts: tuple[tuple[str, str], ...] = ()


@cache
def entries() -> dict[str, Entry]:
    """Return every entry by its name, metrics first."""
    found = [*_metrics(), *_rules(), *_causes(), *_reports(), *_sampled(), *_tables()]
    by_name: dict[str, Entry] = {}
    for entry in found:
        # `kernels` is a metric and a table of the trace: the metric keeps the plain name.
        name = entry.name if entry.name not in by_name else f"{entry.kind.replace(' ', '_')}:{entry.name}"
        by_name[name] = entry
    return by_name


def explain(name: str) -> Entry:
    """Return what an id means.

    Raises:
        UsageError: nothing has this name; close ones are listed.
    """
    known = entries()
    if name in known:
        return known[name]
    import difflib

    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(close)}? " if close else ""
    raise UsageError(f"nothing is called {name!r}; {hint}`nitro-analyze list` shows what exists.")


def _metrics() -> list[Entry]:
    # `os_call` is an idle cause first; as a metric it only says why the cause cannot be told apart.
    causes = {cause.id for cause in TEXTS}
    return [
        Entry(
            name,
            message("metric"),
            metric.title,
            metric.definition,
            (
                (message("unit"), _UNITS[unit]),
                (message("needs"), joined(", ", metric.needs) or message("nothing in particular")),
                (message("better"), _BETTER[metric.better]),
                (message("source"), metric.reference),
            ),
        )
        for metric in all_metrics()
        for name, unit in metric.provides.items()
        if unit != "reason" or name not in causes
    ]


def _rules() -> list[Entry]:
    return [
        Entry(
            rule.id,
            message("rule"),
            rule.title,
            rule.definition,
            (
                (message("threshold"), rule.threshold),
                (message("needs"), joined(", ", rule.needs)),
                (message("source"), rule.reference),
            ),
        )
        for rule in all_rules()
    ]


def _causes() -> list[Entry]:
    definition = next(metric.definition for metric in all_metrics() if metric.id == "gpu_idle")
    return [
        Entry(
            cause.id,
            message("idle cause"),
            text.title,
            message("{meaning}.\n\n{definition}", meaning=capitalised(text.meaning), definition=definition),
        )
        for cause, text in TEXTS.items()
    ]


def _reports() -> list[Entry]:
    return [
        Entry(
            name,
            message("stats report"),
            report.title,
            inspect.cleandoc(report.definition),
            (
                (message("columns"), ", ".join(column.header for column in report.columns)),
                (message("source"), "nsys stats 2023.4"),
            ),
        )
        for name, report in known_reports().items()
    ]


def _sampled() -> list[Entry]:
    text = message("A value of the hardware sampler as the trace holds it, in whole percents; clocks in Hz.")
    return [Entry(name, message("sampled metric"), meaning, text) for name, meaning in SAMPLED_METRICS.items()]


def _tables() -> list[Entry]:
    return [
        Entry(
            table.name,
            message("trace table"),
            table.meaning,
            "\n".join(f"- `{column.name}`: {column.meaning}" for column in table.columns),
        )
        for table in TABLES
    ]
