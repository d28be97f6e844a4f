"""Outputs of a check: JUnit XML against its schema, GitHub's commands, Markdown, text and JSON say the same."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import get_args

import pytest
from lxml import etree

from nitro.analyzer.checks import Check, Key, budget, check
from nitro.analyzer.checks.gate import STATUSES, Status
from nitro.reports.checks import github, junit
from nitro.reports.checks.report import baseline_report, check_report, spark
from nitro.reports.checks.sentences import STATUS_WORDS, outcome_sentence, sentence
from nitro.reports.language import translated
from nitro.reports.renderers import markdown, terminal
from recorded_runs import DAY, PERIOD, around, baseline, run, runs

SCHEMA = etree.XMLSchema(etree.parse(Path(__file__).with_name("junit.xsd")))
HOSTILE = 'a<b>&"c"\x1b[31m::error::\n%0A,d:e|`*_]]>'


def every_status(**settings: object) -> Check:
    """Return a check with a judgement of each status, about names that try to break every output."""
    hostile = Key("projection_mean_ns", nvtx=HOSTILE)
    limits = [
        budget("iteration_period", by="p50", max="20 ms"),
        budget("iteration_period", by="p50", max="5 ms", owner=HOSTILE, reason=HOSTILE),
        budget("iteration_period", by="p50", max="20 ms", expires=str(DAY), owner="vision", reason="60 fps"),
        budget("projection_mean_ns", nvtx="*", max="1 ns"),
        budget("projection_mean_ns", nvtx="*", max_regression="3 %"),
        budget("throughput", max_regression="3 %"),
        budget("gpu_memory_growth", max="1 GiB"),
        budget("gpu_idle", device="*Orin*", max="1 ms"),
    ]
    told = {"precision": "bf16"}
    before = tuple(run({PERIOD: value, hostile: 4e6, Key("throughput"): 5.0}, told=told) for value in around(10e6))
    held_against = baseline(before)
    now = (run({PERIOD: 10e6, hostile: 4.2e6, Key("throughput"): 5.0}, told=told),)
    made = check(now, limits, day=DAY, baseline=held_against, **settings)  # type: ignore[arg-type]
    refused = check(
        (run({PERIOD: 10e6}, told={"precision": "fp16"}),),
        [budget("iteration_period", by="p50", max_regression="3 %")],
        day=DAY,
        baseline=held_against,
    )
    from dataclasses import replace

    return replace(made, judgements=(*made.judgements, *refused.judgements), reasons=refused.reasons)


def test_the_check_of_these_tests_has_every_status() -> None:
    assert {judgement.status for judgement in every_status().judgements} == set(get_args(Status))


class TestJUnit:
    def test_it_is_what_the_schema_asks_for(self) -> None:
        SCHEMA.assertValid(etree.fromstring(junit.draw(every_status())))

    def test_the_schema_refuses_what_is_no_junit(self) -> None:
        drawn = junit.draw(every_status())
        for broken in (
            drawn.replace(b"<skipped", b"<skiped"),
            drawn.replace(b' classname="', b' class="'),
            drawn.replace(b' tests="', b' test="'),
            re.sub(rb'failures="\d+"', b'failures="some"', drawn),
        ):
            assert broken != drawn
            assert not SCHEMA.validate(etree.fromstring(broken))

    def test_the_counts_are_those_of_its_cases(self) -> None:
        made = every_status()
        suite = etree.fromstring(junit.draw(made)).find("testsuite")
        assert suite is not None
        found = {tag: len(suite.findall(f"testcase/{tag}")) for tag in ("failure", "error", "skipped")}
        assert found == {name[:-1] if name != "skipped" else name: int(suite.get(name)) for name in
                         ("failures", "errors", "skipped")}  # fmt: skip
        assert int(suite.get("tests")) == len(suite.findall("testcase")) == len(made.judgements)
        assert found == {"failure": 3, "error": 2, "skipped": 3}

    def test_what_is_inconclusive_is_a_failure_where_the_check_fails_on_it(self) -> None:
        strict = etree.fromstring(junit.draw(every_status(inconclusive="fail")))
        lenient = etree.fromstring(junit.draw(every_status()))
        assert strict.findall(".//failure[@type='inconclusive']")
        assert not lenient.findall(".//failure[@type='inconclusive']")

    def test_names_of_cases_hold_no_number_of_the_run(self) -> None:
        slow, fast = (
            check(runs(PERIOD, [value]), [budget("iteration_period", by="p50", max="9 ms")], day=DAY)
            for value in (10e6, 8e6)
        )
        names = [[case.get("name") for case in etree.fromstring(junit.draw(made)).iter("testcase")] for made in
                 (slow, fast)]  # fmt: skip
        assert names[0] == names[1] == ["iteration_period:p50 max"]

    def test_the_same_check_gives_the_same_bytes(self) -> None:
        made = every_status()
        assert junit.draw(made) == junit.draw(made)


class TestGitHub:
    def test_each_line_is_one_command(self) -> None:
        lines = list(github.draw(every_status(), "nitro.toml"))
        assert len(lines) == 7
        for line in lines:
            assert re.fullmatch(r"::(error|warning) [^\n\r]*", line)
            properties, _, _ = line.partition(" ")[2].partition("::")
            assert all(re.fullmatch(r"(file|line|title)=[^:,\n]*", part) for part in properties.split(","))
            assert "\x1b" not in line

    def test_a_name_cannot_start_another_command(self) -> None:
        """The whole of a hostile owner comes back out of the command, but for what steers a terminal."""
        (line,) = [line for line in github.draw(every_status(), None) if HOSTILE[:3] in line and "5.00 ms" in line]
        told = line.partition("::")[2].partition("::")[2]
        undone = told.replace("%0A", "\n").replace("%0D", "\r").replace("%25", "%")
        assert HOSTILE.replace("\x1b", "�") in undone

    def test_a_budget_is_annotated_where_it_stands(self) -> None:
        from nitro.analyzer.checks import budgets_of

        table = {"metric": "iteration_period", "by": "p50", "max": "5 ms", "owner": "vision", "reason": "60 fps"}
        made = check(runs(PERIOD, [10e6]), budgets_of([table], "nitro.toml", [12]), day=DAY)
        assert list(github.draw(made, "ci/nitro.toml")) == [
            "::error file=ci/nitro.toml,line=12,title=Nitro%3A iteration_period%3Ap50 failed::"
            "10.0 ms is over the limit of 5.00 ms by 100 %25%0Avision: 60 fps"
        ]

    def test_what_is_inconclusive_warns_unless_the_check_fails_on_it(self) -> None:
        def level(made: Check) -> set[str]:
            return {line.split()[0] for line in github.draw(made, None) if "inconclusive" in line.partition("::")[2]}

        assert level(every_status()) == {"::warning"}
        assert level(every_status(inconclusive="fail")) == {"::error"}


class TestText:
    def test_every_limit_stands_in_the_table_the_worst_first(self) -> None:
        made = every_status()
        drawn = io.StringIO()
        terminal.print_report(check_report(made), drawn)
        text = drawn.getvalue()
        assert "\x1b" not in text
        assert max(map(len, text.splitlines())) <= 100
        table = text.partition("LIMITS\n")[2].partition("\n\n")[0].splitlines()[2:]
        words = [next(word for word in STATUS_WORDS.values() if row.strip().startswith(word)) for row in table]
        assert len(words) == len(made.judgements)
        order = [str(STATUS_WORDS[status]) for status in STATUSES]
        assert words == sorted(words, key=order.index)

    def test_markdown_has_a_row_a_limit_and_no_html(self) -> None:
        made = every_status()
        text = markdown.draw(check_report(made))
        assert "<b>" not in text
        rows = [line for line in text.splitlines() if re.match(r"\| (\w| )+ \| .* \|$", line)]
        assert len(rows) == len(made.judgements) + 1

    def test_a_report_can_be_said_in_korean(self) -> None:
        # Untranslated messages stay English; nothing may break on the way.
        assert markdown.draw(translated(check_report(every_status()), "ko"))
        assert markdown.draw(translated(baseline_report(baseline(runs(PERIOD, [1.0]))), "ko"))

    def test_a_pass_that_says_nothing_is_told(self) -> None:
        held_against = baseline(runs(PERIOD, [10e6]))
        made = check(runs(PERIOD, [30e6]), [budget("iteration_period", by="p50", max_regression="3 %")], day=DAY,
                     baseline=held_against)  # fmt: skip
        assert "says nothing; record more runs, or fail on it with --inconclusive fail" in outcome_sentence(made)
        assert "record at least 5 runs a side" in sentence(made.judgements[0])

    @pytest.mark.parametrize(
        ("value", "told"),
        [
            (10e6, "10.0 ms is within the limit of 10.0 ms"),
            (10.001e6, "10.0 ms is over the limit of 10.0 ms by 0.01 %"),
            (15e6, "15.0 ms is over the limit of 10.0 ms by 50 %"),
        ],
    )
    def test_numbers_that_read_alike_are_told_apart(self, value: float, told: str) -> None:
        made = check(runs(PERIOD, [value]), [budget("iteration_period", by="p50", max="10 ms")], day=DAY)
        assert sentence(made.judgements[0]) == told

    def test_of_several_runs_it_tells_how_many_did_not_keep_the_limit(self) -> None:
        made = check(runs(PERIOD, [9e6, 11e6, 9e6]), [budget("iteration_period", by="p50", max="10 ms")], day=DAY)
        assert sentence(made.judgements[0]).endswith("median of 3 runs, 1 of which does not keep it")

    def test_ticks_run_from_the_lowest_to_the_highest(self) -> None:
        assert spark([1, 2, 3, 4, 5, 6, 7, 8]) == "▁▂▃▄▅▆▇█"
        assert spark([5, 5]) == "▄▄"
        assert spark([]) == ""
        assert len(spark(range(1000))) == 60


def test_the_json_holds_every_judgement_and_can_be_written() -> None:
    made = every_status()
    read = json.loads(json.dumps(made.to_dict()))
    assert [entry["status"] for entry in read["judgements"]] == [entry.status for entry in made.judgements]
    assert read["counts"] == {status: made.count(status) for status in STATUSES}
    assert (read["exit_code"], read["outcome"]) == (1, "failed")
