"""A check as JUnit XML, in the form that Jenkins, GitLab and their kin read (the schema `junit-10` of Jenkins)."""

from __future__ import annotations

from xml.etree import ElementTree as Xml

from nitro.analyzer.checks import Check, Judgement

from ..names import printable
from .sentences import budget_text, limit_text, name_text, sentence, value_text

SUITE = "nitro-analyze check"


def draw(check: Check) -> bytes:
    """Return the check as XML, in English.

    A limit is a test case. Limits that are exceeded or expired are failures; what could not be judged, because a
    metric is missing or the sides are not comparable, is an error; what is inconclusive or about another GPU is
    skipped, unless the check fails on it.
    """
    root = Xml.Element("testsuites", name=SUITE)
    suite = Xml.SubElement(root, "testsuite", name=SUITE)
    properties = Xml.SubElement(suite, "properties")
    facts = {
        "nitro_version": check.nitro_version,
        "day": check.day.isoformat(),
        "outcome": check.outcome,
        "baseline": check.baseline or "",
        "runs": ", ".join(run.file_name for run in check.runs),
    }
    for name, value in facts.items():
        Xml.SubElement(properties, "property", name=name, value=printable(value))
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    for judgement in check.judgements:
        counts["tests"] += 1
        kind = _kind(check, judgement)
        if kind is not None:
            counts[{"failure": "failures", "error": "errors", "skipped": "skipped"}[kind]] += 1
        _add_case(suite, judgement, kind)
    for element in (root, suite):
        for name, count in counts.items():
            # Jenkins knows no number of skipped cases for all suites together.
            if element is suite or name != "skipped":
                element.set(name, str(count))
    Xml.indent(root)
    drawn: bytes = Xml.tostring(root, encoding="utf-8", xml_declaration=True)
    return drawn + b"\n"


def _kind(check: Check, judgement: Judgement) -> str | None:
    if judgement.status in ("not_measured", "not_comparable"):
        return "error"
    if check.is_failure(judgement):
        return "failure"
    return None if judgement.status == "pass" else "skipped"


def _add_case(suite: Xml.Element, judgement: Judgement, kind: str | None) -> None:
    metric = judgement.budget.gauge.name
    # The name must stay the same from build to build, so no value of a baseline stands in it.
    name = f"{judgement.name} {judgement.limit_kind}"
    case = Xml.SubElement(suite, "testcase", name=printable(name), classname=f"nitro.{metric}")
    text = printable(sentence(judgement))
    if kind == "skipped":
        Xml.SubElement(case, kind, message=text)
    elif kind is not None:
        details = Xml.SubElement(case, kind, message=text, type=judgement.status)
        told = (name_text(judgement), value_text(judgement), limit_text(judgement), budget_text(judgement))
        details.text = printable("; ".join(part for part in told if part))
