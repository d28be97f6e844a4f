"""A power log with negative watts is read as it stands, and a finding says so."""

from __future__ import annotations

import pytest

from nitro.analyzer import analyze
from nitro.analyzer.rule import Finding
from power_runs import log, run


def findings(watts: float, **built: float) -> list[Finding]:
    made = analyze(run(), log(watts, **built))  # type: ignore[arg-type]
    return [finding for finding in made.findings if finding.evidence[0].metric == "power"]


def test_negative_watts_are_told_with_the_lowest_record() -> None:
    (finding,) = findings(1.0, swing=2.0)
    assert finding.severity == "info"
    assert finding.time_at_stake_ns == 0
    assert finding.title == "The power log has negative values, so its energy may be too low"
    assert (finding.evidence[0].value, finding.evidence[0].unit) == (-1.0, "W")


def test_they_count_in_the_energy_as_they_stand() -> None:
    made = analyze(run(), log(-2.0))
    assert made.value("power", by="mean") == pytest.approx(-2.0)
    energy = made.value("energy")
    assert energy is not None
    assert energy < 0


@pytest.mark.parametrize(("watts", "swing"), [(2.0, 2.0), (20.0, 0.0)])
def test_from_0_w_on_nothing_is_told(watts: float, swing: float) -> None:
    assert findings(watts, swing=swing) == []


def test_without_a_log_nothing_is_told() -> None:
    assert not [finding for finding in analyze(run()).findings if finding.evidence[0].metric == "power"]
