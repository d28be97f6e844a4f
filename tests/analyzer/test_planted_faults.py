"""Captures of an H200 whose fault is known: the rules must name it first, and nothing where there is none."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest

from nitro.analyzer import analyze, open_trace
from nitro.analyzer.rule import Finding

FOLDER = Path(__file__).parents[1] / "data" / "faults"


@lru_cache(maxsize=1)
def findings(name: str) -> tuple[Finding, ...]:
    return analyze(open_trace(FOLDER / f"{name}.sqlite.xz")).findings


def beyond_info(name: str) -> list[str]:
    return [finding.rule for finding in findings(name) if finding.severity != "info"]


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("allocation", "allocation_in_loop"),
        ("blocking_copy", "blocking_copies"),
        ("blocking_copy_1mib", "blocking_copies"),
        ("tiny_kernels", "launch_bound"),
        ("synchronization", "synchronization_bound"),
        ("synchronization_blocking", "synchronization_bound"),
        ("serialized_80", "serialized_phases"),
        ("elementwise", "unfused_chains"),
        ("interference", "interference"),
    ],
)
def test_the_planted_fault_is_the_first_finding(name: str, rule: str) -> None:
    first = findings(name)[0]
    assert (first.rule, first.severity in ("high", "medium")) == (rule, True)


def test_chains_of_small_grids_are_found_as_empty_sms_and_as_serialised_phases() -> None:
    assert beyond_info("serialized") == ["sm_underused", "small_grids", "serialized_phases"]
    serialized = findings("serialized")[2]
    assert (serialized.severity, serialized.confidence) == ("high", "medium")


def test_a_clean_loop_has_no_finding_above_info() -> None:
    assert beyond_info("none") == []


def test_a_clean_loop_is_said_to_be_gpu_bound() -> None:
    assert "gpu_bound" in [finding.rule for finding in findings("none")]


def test_phases_that_leave_no_room_for_each_other_are_not_at_stake() -> None:
    assert beyond_info("serialized_64") == []
