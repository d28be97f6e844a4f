"""The report of a study of fused kernels, from the document that a study writes."""

from __future__ import annotations

from typing import Any

import pytest

from nitro.errors import InputError
from nitro.reports.blocks import Figure, KeyFigures, KeyValues, Paragraph, Table
from nitro.reports.fusion import FusionDocuments, build_fusion_report
from nitro.reports.output import Settings


def row(name: str, *, simple: float | None, elastic: float | None = None, accepted: bool = True) -> dict[str, Any]:
    gains = {"simple": simple, "simple_and_elastic": elastic, "everything": elastic}
    return {
        "case": name,
        "accepted": accepted,
        "first_us": 1000.0,
        "second_us": 800.0,
        "simple_us": 1800.0,
        "elastic_us": None if elastic is None else 1500.0,
        "library_us": None,
        "fused_us": None if simple is None else 1800.0 / simple,
        "fused": None if simple is None else "intra_block_128: gemm + <b>norm</b>",
        "bound": 1.8,
        "gains": gains,
        "intervals": {key: (gain - 0.01, gain + 0.02) if gain else None for key, gain in gains.items()},
        "share_of_bound": None if simple is None else (simple - 1) / 0.8,
        "fastest": ["intra_block", "elastic"],
    }


def document(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    known = {"geometric_mean": 1.25, "least": 1.1, "best": 1.4}
    none = {"geometric_mean": None, "least": None, "best": None}
    targets = [
        {
            "what": "best gain over simple, accepted cases",
            "asked": 1.55,
            "measured": 1.4,
            "at_least": True,
            "met": False,
        },
        {"what": "largest regret of the tuner", "asked": 0.03, "measured": None, "at_least": False, "met": None},
    ]
    return {
        "identity": {
            "device": {"name": "NVIDIA H200", "sm": 90, "sms": 132, "driver": "580"},
            "nvrtc": "13.0",
            "library": None,
            "device_source": "abc",
        },
        "protocol": {"judging": {"samples": 21}, "budget": None},
        "summary": {
            "accepted_cases": {"simple": known, "simple_and_elastic": known, "everything": none},
            "targets": targets,
            "same_bits": True,
        },
        "rows": list(rows),
        "cases": [],
        **more,
    }


def blocks(content: dict[str, Any], section: str) -> list[Any]:
    (chapter,) = build_fusion_report(content).chapters
    return [block for one in chapter.sections if one.name == section for block in one.blocks]


def test_the_summary_says_what_is_left_after_fusion() -> None:
    found = blocks(document(row("a", simple=1.4, elastic=1.25), row("b", simple=1.2, elastic=0.8)), "fusion_summary")
    lead = found[0]
    assert isinstance(lead, Paragraph)
    assert lead.text.startswith("Of 2 pairs the rule accepts 2. Fused, they take between 80.0 % and 125.0 % of")
    (figures,) = [block for block in found if isinstance(block, KeyFigures)]
    assert [(one.value, one.note) for one in figures.figures] == [
        ("1.250", "1.100 to 1.400"),
        ("1.250", "1.100 to 1.400"),
    ]


def test_the_best_gain_stands_for_the_means_where_no_case_is_accepted() -> None:
    content = document(row("a", simple=1.1, accepted=False), row("b", simple=1.3, accepted=False))
    none = {"geometric_mean": None, "least": None, "best": None}
    content["summary"]["accepted_cases"] = {"simple": none, "simple_and_elastic": none, "everything": none}
    (figures,) = [block for block in blocks(content, "fusion_summary") if isinstance(block, KeyFigures)]
    assert [(one.value, one.note) for one in figures.figures] == [("1.300", "b")]


def test_means_are_given_by_precision_and_with_rejected_cases_as_one() -> None:
    content = document(row("a", simple=1.4, elastic=1.25), row("b", simple=0.9, elastic=0.9, accepted=False))
    content["summary"] |= {
        "cases": 1,
        "accepted_fp16_cases": {"simple": {"geometric_mean": 1.5}, "everything": {"geometric_mean": 0.9}},
        "all_cases_rejected_as_1": {"simple": 1.1, "simple_and_elastic": 1.02, "everything": None},
    }
    found = blocks(content, "fusion_summary")
    (means,) = [block for block in found if isinstance(block, Table)]
    assert means.rows == (
        ("accepted", "1.250", "1.250", "–", "–"),
        ("accepted, fp16", "1.500", "–", "–", "0.900"),
        ("all, fused or not as the rule says", "1.100", "1.020", "–", "–"),
    )
    assert found[0].text.startswith("Of 1 pairs the rule accepts 1.")


def test_a_study_without_a_library_says_nothing_about_one() -> None:
    content = document(row("a", simple=1.4, elastic=1.25) | {"bound": None}, row("b", simple=1.3, elastic=1.2))
    for one in content["rows"]:
        one["gains"]["everything"] = one["intervals"]["everything"] = None
    content["summary"]["accepted_fp32_cases"] = content["summary"]["accepted_cases"]
    (means,) = [block for block in blocks(content, "fusion_summary") if isinstance(block, Table)]
    assert [str(column.title) for column in means.columns] == ["Case", "simple", "elastic too"]
    assert means.note is not None
    assert "cuBLAS" not in means.note
    (figure,) = [block for block in blocks(content, "fusion_cases") if isinstance(block, Figure)]
    assert "cuBLAS" not in figure.sentence
    domain = figure.spec["layer"][-1]["encoding"]["color"]["scale"]["domain"]
    assert domain == ["over simple ways", "elastic streams too"]


def test_it_says_which_way_won_how_often_and_which_never_did() -> None:
    content = document(row("a", simple=1.4))
    wins = {"intra_block": (2, 3), "elastic": (4, 4), "intra_thread": (0, 1), "inter_block_static": (0, 0)}
    content["summary"]["fastest"] = {
        name: {"fastest": alone, "fastest_or_tied": tied} for name, (alone, tied) in wins.items()
    }
    (table,) = [block for block in blocks(content, "fusion_summary") if isinstance(block, Table)]
    assert table.rows == (("elastic streams", "4", "4"), ("intra-block", "2", "3"), ("intra-thread", "0", "1"))
    assert table.note is not None
    assert table.note.endswith("Never: static inter-block.")


def test_the_tables_have_every_case_and_say_what_did_not_run() -> None:
    content = document(row("a", simple=1.4, elastic=1.25), row("b", simple=None, accepted=False))
    gains, times, ways = (block for block in blocks(content, "fusion_cases") if isinstance(block, Table))
    assert gains.rows[0][:7] == ("a", "1.400", "1.390–1.420", "1.250", "1.250", "1.800", "50.0 %")
    assert gains.rows[0][7:] == ("accepted", "intra-block, elastic streams")
    assert gains.rows[1][:8] == ("b", "–", "–", "–", "–", "1.800", "–", "rejected")
    assert times.rows[0] == ("a", "1,000.0", "800.0", "1,800.0", "1,500.0", "–", "1,285.7")
    assert [line[0] for line in ways.rows] == ["a"]
    (figure,) = [block for block in blocks(content, "fusion_cases") if isinstance(block, Figure)]
    points = figure.spec["layer"][-1]["data"]["values"]
    assert [(one["case"], one["gain"]) for one in points] == [("a", 1.4), ("a", 1.25), ("a", 1.25)]


def test_targets_are_met_missed_or_not_measured() -> None:
    content = document(row("a", simple=1.4))
    (table,) = blocks(content, "fusion_targets")
    assert [line[1:] for line in table.rows] == [
        ("at least 1.55", "1.4", "missed"),
        ("at most 0.03", "–", "not measured"),
    ]
    content["summary"]["targets"] = []
    assert blocks(content, "fusion_targets") == []


def test_a_budget_of_sms_is_named_with_what_its_eater_read() -> None:
    content = document(
        row("a", simple=1.4),
        protocol={"judging": {"samples": 21}, "budget": {"sms": 8, "of": 132, "eater_strength": 0.5}},
        cases=[{"eaten_bytes_per_s": 2.5e12}],
    )
    assert any("Measured on 8 of 132 SMs" in block.text for block in blocks(content, "fusion_summary")[2:])
    (facts,) = [block for block in blocks(content, "fusion_method") if isinstance(block, KeyValues)]
    assert dict(facts.rows)["Read by the bandwidth eater beside it"] == "2.50 TB/s"
    assert dict(facts.rows)["Libraries"] == "not compared with"


def test_a_study_without_fused_ways_says_so() -> None:
    (only,) = blocks(document(row("a", simple=None)), "fusion_summary")
    assert only.text == "No fused way ran beside an unfused one, so there is no gain to report."


@pytest.mark.parametrize("broken", [{}, {"identity": {}}, {"rows": [{}]}])
def test_what_is_no_study_is_refused(broken: dict[str, Any]) -> None:
    content = {**document(row("a", simple=1.4)), **broken} if broken else {}
    with pytest.raises(InputError, match="this is no study of fused kernels"):
        build_fusion_report(content)


def test_names_of_kernels_are_escaped_and_both_languages_are_there() -> None:
    page = FusionDocuments(document(row("a", simple=1.4)), Settings(language="ko")).html().decode()
    assert "&lt;b&gt;norm&lt;/b&gt;" in page
    assert 'lang="ko"' in page
