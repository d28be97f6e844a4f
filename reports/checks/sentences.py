"""What became of a limit, in words; every output of a check says the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nitro.analyzer.checks import Check, Judgement
from nitro.analyzer.checks.gate import Status
from nitro.analyzer.compare.statistics import Effect, verdict_of, verdict_sentence
from nitro.analyzer.message import joined, message, one_or_many

from .. import numbers

STATUS_WORDS: Mapping[Status, str] = {
    "pass": message("passed"),
    "fail": message("failed"),
    "expired": message("expired"),
    "inconclusive": message("inconclusive"),
    "not_measured": message("not measured"),
    "not_comparable": message("not comparable"),
    "skipped": message("skipped"),
}
OUTCOME_WORDS: Mapping[str, str] = {
    "passed": message("passed"),
    "failed": message("failed"),
    "not_measured": message("not measured"),
    "not_comparable": message("not comparable"),
}


def value_text(judgement: Judgement) -> str:
    """Return the median of the runs with its unit."""
    value = judgement.value
    return numbers.MISSING if value is None else amount_text(value, judgement.budget.gauge.unit)


def limit_text(judgement: Judgement) -> str:
    """Return what the value is held against, as a reader of a table wants it."""
    unit = judgement.budget.gauge.unit
    share = judgement.budget.max_regression
    if judgement.limit_kind == "max_regression":
        if judgement.limit is None or share is None:
            return message("baseline, {share} worse at most", share=share_text(share or 0.0))
        limit = amount_text(judgement.limit, unit)
        return message("baseline {limit}, {share} worse at most", limit=limit, share=share_text(share))
    limit_value = judgement.budget.maximum if judgement.limit_kind == "max" else judgement.budget.minimum
    text = amount_text(limit_value or 0.0, unit)
    return (
        message("at most {limit}", limit=text)
        if judgement.limit_kind == "max"
        else message("at least {limit}", limit=text)
    )


def share_text(share: float) -> str:
    """Return a share in percent with up to three digits, as in `2 %` and `0.25 %`."""
    return f"{share * 100:.3g} %"


def amount_text(value: float, unit: str) -> str:
    """Return a value with its unit."""
    return numbers.in_unit(value, unit)


def name_text(judgement: Judgement) -> str:
    """Return what was judged; of a total, that it is one of an iteration."""
    if judgement.is_per_iteration:
        return message("{name} per iteration", name=judgement.name)
    return judgement.name


def sentence(judgement: Judgement) -> str:
    """Return what became of a limit, and where it did not pass, what to do."""
    told = _told(judgement)
    budget = judgement.budget
    if judgement.status == "expired":
        return message(
            "the budget of {owner} ({reason}) expired on {day}; renew it or take it out. Without the day it would say: "
            "{told}",
            owner=budget.owner,
            reason=budget.reason,
            day=str(budget.expires),
            told=told,
        )
    return told


def _told(judgement: Judgement) -> str:
    if judgement.reason:
        return judgement.reason
    if judgement.effect is not None:
        effect = judgement.effect
        text = _verdict(effect) if isinstance(effect, Effect) else effect.reason
        value, limit = value_text(judgement), amount_text(judgement.limit or 0.0, judgement.budget.gauge.unit)
        return message("{value} against {limit} in the baseline: {text}", value=value, limit=limit, text=text)
    return _absolute(judgement)


def _verdict(effect: Effect) -> str:
    """Return what the verdict says; where only the correction made it inconclusive, that it did."""
    alone = replace(effect, adjusted_p=None)
    if verdict_of(alone) == effect.verdict:
        return verdict_sentence(effect)
    return message(
        "inconclusive: alone it would be beyond the threshold, but among all limits that were judged together it may "
        "be chance (change {change}, p = {p:.2g} after Holm's correction); record more runs a side",
        change=f"{(effect.ratio - 1) * 100:+.3g} %",
        p=effect.adjusted_p,
    )


def _absolute(judgement: Judgement) -> str:
    value, limit = judgement.value, judgement.limit
    if value is None or limit is None:
        raise AssertionError("a judgement by an absolute limit has a value and a limit")
    unit = judgement.budget.gauge.unit
    parts: list[str] = []
    fields = {"value": amount_text(value, unit), "limit": amount_text(limit, unit), "excess": _excess(value, limit)}
    if judgement.limit_kind == "max":
        parts.append(
            message("{value} is within the limit of {limit}", **fields)
            if value <= limit
            else message("{value} is over the limit of {limit} by {excess}", **fields)
        )
        beyond = sum(each > limit for each in judgement.values)
    else:
        parts.append(
            message("{value} reaches the least of {limit}", **fields)
            if value >= limit
            else message("{value} is below the least of {limit} by {excess}", **fields)
        )
        beyond = sum(each < limit for each in judgement.values)
    if len(judgement.values) > 1:
        runs = len(judgement.values)
        one = message("median of {runs} runs, 1 of which does not keep it", runs=runs)
        many = message("median of {runs} runs, {beyond} of which do not keep it", runs=runs, beyond=beyond)
        parts.append(one_or_many(beyond, one, many))
    return joined("; ", parts)


def _excess(value: float, limit: float) -> str:
    """Return by how much a value is beyond a limit: in percent, since both may read alike when rounded."""
    if not limit:
        return numbers.count(abs(value))
    return share_text(abs(value / limit - 1))


def budget_text(judgement: Judgement) -> str:
    """Return whose budget it is and why it is there."""
    budget = judgement.budget
    if budget.owner == "-":
        return budget.reason if budget.reason != "-" else ""
    text = message("{owner}: {reason}", owner=budget.owner, reason=budget.reason)
    if budget.expires is None:
        return text
    return message("{text} (until {day})", text=text, day=str(budget.expires))


def outcome_sentence(check: Check) -> str:
    """Return the end of a check in a sentence: how many limits came to what."""
    counts = [
        message("{count} {word}", count=check.count(status), word=word)
        for status, word in STATUS_WORDS.items()
        if check.count(status)
    ]
    text = message("{outcome}: {counts}", outcome=OUTCOME_WORDS[check.outcome], counts=joined(", ", counts))
    if check.exit_code == 0 and check.count("inconclusive"):
        return message(
            "{text}. What is inconclusive passes here, but says nothing; record more runs, or fail on it with "
            "--inconclusive fail",
            text=text,
        )
    if check.exit_code == 3 and check.count("skipped") == len(check.judgements):
        return message("{text}. No budget is about a GPU of these runs, so nothing was checked", text=text)
    return text
