"""What a study measured of a case: times of the winners, what the rule decided, and how far the tuner was off."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .candidates import ALONE, Family
from .json_types import Microseconds, Name

RESULT_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a way takes, in microseconds, with the quartiles of the samples."""

    name: Name
    family: Family
    median_us: Microseconds
    first_quartile_us: Microseconds
    third_quartile_us: Microseconds
    samples_us: tuple[Microseconds, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rule knew of a pair, and what it decided."""

    first_us: Microseconds
    second_us: Microseconds
    first_over_ridge: float
    second_over_ridge: float
    is_co_resident: bool
    predicted_gain: float
    accepted: bool


@dataclass(frozen=True, slots=True)
class Regret:
    """The tuner's choice against the best of all ways, both by judging samples. `regret` is choice / best - 1."""

    ways: int
    choice: Name
    choice_us: Microseconds
    best: Name
    best_us: Microseconds
    regret: float


@dataclass(frozen=True, slots=True)
class CaseResult:
    """Everything measured of a case.

    Attributes:
        name: of the case.
        problems: both, as text.
        kernel_class: of the compute-bound half, for the prediction.
        ratio: the intended time of the second over that of the first; None where none was stated.
        is_control: whether the pair is one that must be rejected.
        decision: by the rule.
        tuning: the winner of each family, with its tuning samples.
        judging: the same ways, with judging samples.
        choice: what the tuner would run.
        same_bits: whether the fused winner computed the bits of its bodies alone.
        library_differences: of each library call from our result, relative to the largest number.
        table: name, family, last rung and median on tuning samples of every way.
        dropped: how many ways were left out by their resources.
        failures: ways that did not run, and why.
        regret: where all ways were measured again.
        clocks_mhz: SM and memory clocks before and after each part.
        seconds: what the case took.
        eaten_bytes_per_s: what an eater read beside the last judging samples; None without one.
    """

    name: Name
    problems: tuple[str, str]
    kernel_class: Name
    ratio: float | None
    is_control: bool
    decision: Decision
    tuning: tuple[Timing, ...]
    judging: tuple[Timing, ...]
    choice: Name
    same_bits: bool | None
    library_differences: dict[str, float] = field(default_factory=dict)
    table: tuple[tuple[str, str, int, float], ...] = ()
    dropped: int = 0
    failures: tuple[str, ...] = ()
    regret: Regret | None = None
    clocks_mhz: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: float = 0.0
    eaten_bytes_per_s: float | None = None

    def winner(self, *families: Family) -> Timing | None:
        """Return the judging samples of the way that won some families on tuning samples; None if none ran."""
        best = min((one for one in self.tuning if one.family in families), key=lambda one: one.median_us, default=None)
        return next((one for one in self.judging if best is not None and one.name == best.name), None)

    @property
    def chosen(self) -> Timing | None:
        """Return the judging samples of what the tuner would run."""
        return next((one for one in self.judging if one.name == self.choice), None)

    @property
    def bound_us(self) -> float | None:
        """Return the time that nothing beats: the longer of the two alone."""
        alone = [self.winner(family) for family in ALONE]
        return max((one.median_us for one in alone if one is not None), default=None) if all(alone) else None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def check_rounds(result: CaseResult) -> None:
    """Raise ValueError if its ways were not judged in the same rounds, so that no interval can pair them."""
    rounds = {len(one.samples_us) for one in result.judging}
    if len(rounds) > 1 or 0 in rounds:
        raise ValueError(f"the ways of {result.name} were not judged in the same rounds")
