"""What a rule is, and the finding that it returns: a diagnosis with evidence, time at stake and a remedy."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .metric import Unit

if TYPE_CHECKING:
    from .analysis import Analysis

Severity = Literal["high", "medium", "low", "info"]
Confidence = Literal["high", "medium", "low"]

_HIGH, _MEDIUM = 0.20, 0.05


@dataclass(frozen=True, slots=True)
class Evidence:
    """A number that a finding rests on, and the table rows behind it."""

    metric: str
    value: float | int
    unit: Unit
    text: str
    rows: tuple[Mapping[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields under their own names."""
        return {
            "metric": self.metric,
            "value": self.value,
            "unit": self.unit,
            "text": self.text,
            "rows": [dict(row) for row in self.rows],
        }


@dataclass(frozen=True, slots=True)
class Finding:
    """A diagnosis.

    `time_at_stake_ns` is the most that mending it could save inside the window, on one device; stakes of different
    findings may overlap and do not add up. `remedy` says what to do, `limits` what speaks against it or is not known.
    """

    rule: str
    severity: Severity
    title: str
    time_at_stake_ns: int
    evidence: tuple[Evidence, ...]
    remedy: str
    confidence: Confidence
    limits: str
    device_id: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields under their own names."""
        return {
            "rule": self.rule,
            "severity": self.severity,
            "title": self.title,
            "time_at_stake_ns": self.time_at_stake_ns,
            "device_id": self.device_id,
            "evidence": [entry.to_dict() for entry in self.evidence],
            "remedy": self.remedy,
            "confidence": self.confidence,
            "limits": self.limits,
        }


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule looks at an analysis without findings and returns what it finds.

    It never fires on what was not measured. The docstring of `check` says when it fires; `threshold` gives the limit in
    numbers.
    """

    id: str
    title: str
    needs: tuple[str, ...]
    threshold: str
    reference: str
    check: Callable[[Analysis], Iterable[Finding]]

    @property
    def definition(self) -> str:
        """When the rule fires, as one reads it in `check`."""
        return inspect.cleandoc(self.check.__doc__ or "")


def severity_of(stake_ns: float, window_ns: float) -> Severity:
    """Return the severity of a stake: high from 20 % of the window, medium from 5 %, else low."""
    share = stake_ns / window_ns if window_ns else 0.0
    return "high" if share >= _HIGH else "medium" if share >= _MEDIUM else "low"
