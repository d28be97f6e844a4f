"""A check, a baseline and a trend as reports of blocks, which the terminal and Markdown draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nitro.analyzer.checks import Baseline, Check, Judgement, Trend
from nitro.analyzer.checks.gate import STATUSES
from nitro.analyzer.compare.comparability import Reason
from nitro.analyzer.message import joined, message, one_or_many

from .. import numbers
from ..blocks import Block, Column, KeyValues, Paragraph, Points, Table
from ..report import Chapter, FilledSection, Report
from ..words import WORDS
from .sentences import (
    STATUS_WORDS,
    amount_text,
    budget_text,
    limit_text,
    name_text,
    outcome_sentence,
    sentence,
    share_text,
    value_text,
)

_TICKS = "▁▂▃▄▅▆▇█"
_WIDEST = 60


def check_report(check: Check) -> Report:
    """Return the report of a check: the outcome, a table of every limit, and what did not simply pass."""
    ordered = sorted(check.judgements, key=lambda judgement: STATUSES.index(judgement.status))
    sections = [FilledSection("outcome", message("Check"), (Paragraph(outcome_sentence(check), is_lead=True),))]
    sections.append(FilledSection("limits", message("Limits"), (_limits(ordered),)))
    told = tuple((name_text(judgement), _with_budget(judgement)) for judgement in ordered if judgement.status != "pass")
    if told:
        sections.append(FilledSection("told", message("What did not pass, and why"), (Points(told),)))
    notes = tuple(_notes(check))
    if notes:
        sections.append(FilledSection("notes", message("Comparability"), (Points(notes),)))
    files = joined(", ", (run.file_name for run in check.runs))
    return _report(message("Check of {files}", files=files), _subtitle(check), sections, check.nitro_version)


def _subtitle(check: Check) -> str:
    runs = _runs(len(check.runs))
    if check.baseline is None:
        return message("{runs}, no baseline", runs=runs)
    return message("{runs}, baseline {name}", runs=runs, name=check.baseline)


def _runs(count: int) -> str:
    return one_or_many(count, message("1 run"), message("{count} runs", count=count))


def _limits(ordered: Sequence[Judgement]) -> Block:
    return Table(
        columns=(
            Column(message("status"), "left"),
            Column(message("metric"), "left", flexible=True, is_name=True),
            Column(message("value")),
            Column(message("limit"), "left"),
        ),
        rows=tuple(
            (STATUS_WORDS[each.status], name_text(each), value_text(each), limit_text(each)) for each in ordered
        ),
    )


def _with_budget(judgement: Judgement) -> str:
    whose = budget_text(judgement)
    if not whose or judgement.status == "expired":
        return sentence(judgement)
    return message("{sentence} [{whose}]", sentence=sentence(judgement), whose=whose)


def _notes(check: Check) -> Iterator[tuple[str, str]]:
    for reason in check.reasons:
        yield _level(reason, check.allowed), reason.text
    for entry in check.expired_acceptances:
        yield (
            message("expired"),
            message(
                "entry {number}, accepted because of {reason}, counts only until {day}; what came before it is the "
                "reference again",
                number=entry.number,
                reason=repr(entry.reason),
                day=str(entry.expires),
            ),
        )


def _level(reason: Reason, allowed: Sequence[str]) -> str:
    if reason.level == "warn":
        return message("note")
    if reason.key in allowed:
        return message("allowed")
    return message("refused, --allow {key}", key=reason.key)


def baseline_report(baseline: Baseline) -> Report:
    """Return the report of a baseline: its history, and the values of its newest entry."""
    rows = tuple(
        (
            str(entry.number),
            str(entry.day),
            entry.kind,
            str(len(entry.runs)),
            entry.label,
            joined("; ", (part for part in (entry.reason, entry.owner) if part)),
            str(entry.expires or ""),
        )
        for entry in baseline.entries
    )
    titles = (message("entry"), message("day"), message("kind"), message("runs"), message("label"))
    columns = tuple(Column(title, "left") for title in titles)
    history = Table(
        columns=(
            *columns,
            Column(message("reason"), "left", flexible=True),
            Column(message("until"), "left"),
        ),
        rows=rows,
    )
    newest = baseline.entries[-1]
    facts = newest.runs[0].facts
    machine: list[tuple[str, str]] = [
        (message("GPU"), ", ".join(device.name for device in facts.devices)),
        *((name, value) for name, value in facts.options.items()),
        *((name, value) for name, value in facts.told.items()),
        (message("iterations"), ", ".join(str(run.periods) for run in newest.runs)),
    ]
    sections = [
        FilledSection("history", message("History"), (history,)),
        FilledSection("machine", message("Newest entry"), (KeyValues(tuple(machine)),)),
    ]
    count = len(baseline.entries)
    subtitle = one_or_many(count, message("1 entry"), message("{count} entries", count=count))
    return _report(message("Baseline {name}", name=baseline.name), subtitle, sections, newest.nitro_version)


def trend_report(trends: Sequence[Trend]) -> Report:
    """Return the report of trends: a line of ticks, the levels and their changes, and the last runs."""
    has_several = len({trend.gpu for trend in trends}) > 1
    sections = [
        FilledSection("trend", _trend_title(trend, with_gpu=has_several), tuple(_trend_blocks(trend)))
        for trend in trends
    ]
    by_gpu: dict[str, int] = {}
    for trend in trends:
        by_gpu[trend.gpu] = max(len(trend.points), by_gpu.get(trend.gpu, 0))
    runs = sum(by_gpu.values())
    return _report(message("Trend of {name}", name=trends[0].baseline), _runs(runs), sections, None)


def _trend_title(trend: Trend, *, with_gpu: bool) -> str:
    if not with_gpu:
        return trend.key.text
    return message("{name}, {gpu}", name=trend.key.text, gpu=trend.gpu)


def _trend_blocks(trend: Trend) -> Iterator[Block]:
    known = trend.known
    unit = trend.gauge.unit
    values = [point.value for point in known if point.value is not None]
    yield Paragraph(spark(values))
    if not values:
        return
    each = message("per iteration") if trend.gauge.is_window_total and trend.per == "iteration" else ""
    yield KeyValues(
        (
            (message("lowest"), amount_text(min(values), unit)),
            (message("highest"), amount_text(max(values), unit)),
            (message("latest"), joined(" ", [part for part in (amount_text(values[-1], unit), each) if part])),
        )
    )
    yield Table(
        columns=(
            Column(message("entry"), "left"),
            Column(message("day"), "left"),
            Column(message("kind"), "left"),
            Column(message("label"), "left", flexible=True),
            Column(message("value")),
            Column(message("to the run before")),
        ),
        rows=tuple(_trend_rows(trend))[-12:],
        note=one_or_many(
            len(trend.points),
            message("the only run"),
            message("the last {count} runs", count=min(len(trend.points), 12)),
        ),
    )
    if trend.note:
        yield Paragraph(trend.note)
        return
    yield (
        Points(tuple(_changes(trend)))
        if trend.change_points
        else Paragraph(message("no change of level in {count} runs", count=len(known)))
    )


def _trend_rows(trend: Trend) -> Iterator[tuple[str, ...]]:
    before: float | None = None
    for point in trend.points:
        value = point.value
        change = f"{(value / before - 1) * 100:+.1f} %" if value is not None and before else ""
        text = numbers.MISSING if value is None else amount_text(value, trend.gauge.unit)
        yield str(point.entry), str(point.day), point.kind, point.label, text, change
        before = value if value is not None else before


def _changes(trend: Trend) -> Iterator[tuple[str, str]]:
    unit = trend.gauge.unit
    for change in trend.change_points:
        sign = "+" if change.change >= 0 else "-"
        yield (
            f"{sign}{share_text(abs(change.change))}",
            message(
                "from entry {entry} of {day} on: {after} after {before}",
                entry=change.entry,
                day=str(change.day),
                before=amount_text(change.before, unit),
                after=amount_text(change.after, unit),
            ),
        )


def spark(values: Sequence[float]) -> str:
    """Return values as ticks of eight heights from lowest to highest; of many, the last that fit a line."""
    shown = list(values)[-_WIDEST:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    if high <= low:
        return _TICKS[3] * len(shown)
    return "".join(_TICKS[min(int((value - low) / (high - low) * 8), 7)] for value in shown)


def _report(title: str, subtitle: str, sections: Sequence[FilledSection], version: str | None) -> Report:
    about = ((WORDS["made_by"], f"Nitro {version}"),) if version else ()
    return Report(title, subtitle, (Chapter(title, subtitle, tuple(sections)),), about=about)
