"""A check as workflow commands of GitHub Actions, which become annotations of a pull request."""

from __future__ import annotations

from collections.abc import Iterator

from nitro.analyzer.checks import Check, Judgement
from nitro.analyzer.message import message

from ..names import printable
from .sentences import STATUS_WORDS, budget_text, name_text, sentence


def draw(check: Check, file: str | None) -> Iterator[str]:
    """Yield a line for each limit that fails or is inconclusive, and for each acceptance that has expired.

    Args:
        check: the check.
        file: the file with the budgets, relative to the repository; `None` where there is none.
    """
    for judgement in check.judgements:
        if judgement.status not in ("pass", "skipped"):
            level = "error" if check.is_failure(judgement) else "warning"
            yield _annotation(level, judgement, file)
    for entry in check.expired_acceptances:
        text = message(
            "entry {number}, accepted because of {reason}, counts only until {day}; what came before it is the "
            "reference again",
            number=entry.number,
            reason=repr(entry.reason),
            day=str(entry.expires),
        )
        yield _command("warning", {"title": f"Nitro: baseline {check.baseline}"}, text)


def _annotation(level: str, judgement: Judgement, file: str | None) -> str:
    line = judgement.budget.line
    place = {"file": file, "line": str(line)} if file is not None and line is not None else {}
    title = f"Nitro: {name_text(judgement)} {STATUS_WORDS[judgement.status]}"
    whose = budget_text(judgement)
    text = sentence(judgement) + (f"\n{whose}" if whose and judgement.status != "expired" else "")
    return _command(level, place | {"title": title}, text)


def _command(level: str, properties: dict[str, str], text: str) -> str:
    """Return a workflow command; what would end a property, the command or the line is escaped as GitHub asks."""
    made = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{level} {made}::{_data(text)}"


def _data(text: str) -> str:
    lines = "\n".join(printable(line) for line in text.split("\n"))
    return lines.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
