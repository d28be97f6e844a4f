"""How long a fused pair should take, from the times of its halves alone: the p-norm model and its calibration.

(first^p + second^p)^(1/p): with p = 1 the halves wait for each other, with p = infinity they do not meet at all. p
belongs to the class of the compute kernel (its tile fills registers and shared memory, and leaves so much to a partner)
rather than to the device, so there is one for each class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .cases import P_NORM, predicted_time_s

_LEAST, _MOST, _STEPS = 1.0, 6.0, 500


@dataclass(frozen=True, slots=True)
class Sample:
    """A pair whose fused time was measured, beside the times of its halves alone, in microseconds."""

    case: str
    kernel_class: str
    first_us: float
    second_us: float
    fused_us: float


def relative_error(sample: Sample, p: float) -> float:
    """Return |predicted - measured| / measured of a pair's fused time."""
    return abs(predicted_time_s(sample.first_us, sample.second_us, p) - sample.fused_us) / sample.fused_us


def mean_error(samples: Sequence[Sample], p: Mapping[str, float]) -> float | None:
    """Return the mean absolute relative error (MAPE, as a ratio) over samples; None without any."""
    errors = [relative_error(sample, p.get(sample.kernel_class, P_NORM)) for sample in samples]
    return sum(errors) / len(errors) if errors else None


def calibrated_p(samples: Sequence[Sample]) -> float:
    """Return the p between 1 and 6 with the smallest mean absolute relative error; `cases.P_NORM` without samples."""
    if not samples:
        return P_NORM
    grid = [_LEAST + (_MOST - _LEAST) * step / _STEPS for step in range(_STEPS + 1)]
    return min(grid, key=lambda p: sum(relative_error(sample, p) for sample in samples))


def calibrate(samples: Iterable[Sample]) -> dict[str, float]:
    """Return p by class of kernel."""
    by_class: dict[str, list[Sample]] = {}
    for sample in samples:
        by_class.setdefault(sample.kernel_class, []).append(sample)
    return {name: calibrated_p(members) for name, members in by_class.items()}


@dataclass(frozen=True, slots=True)
class Quality:
    """How well the model predicts. Errors are mean absolute relative errors, as ratios.

    `held_out` predicts the fused times of the judging samples with p calibrated on the tuning samples of the same
    cases; `left_out` predicts each case with p calibrated on the tuning samples of the other cases of its class;
    `fixed` uses `cases.P_NORM` for all. `worst` is the largest error of `held_out`.
    """

    p: dict[str, float]
    held_out: float | None
    left_out: float | None
    fixed: float | None
    worst: float | None
    worst_case: str | None
    cases: int


def quality(tuning: Sequence[Sample], judging: Sequence[Sample]) -> Quality:
    """Return how well p calibrated on tuning samples predicts judging samples of the same cases."""
    p = calibrate(tuning)
    left_out: list[float] = []
    for sample in judging:
        others = [one for one in tuning if one.kernel_class == sample.kernel_class and one.case != sample.case]
        left_out.append(relative_error(sample, calibrated_p(others)))
    worst = max(judging, key=lambda sample: relative_error(sample, p.get(sample.kernel_class, P_NORM)), default=None)
    return Quality(
        p,
        mean_error(judging, p),
        sum(left_out) / len(left_out) if left_out else None,
        mean_error(judging, {}),
        relative_error(worst, p.get(worst.kernel_class, P_NORM)) if worst else None,
        worst.case if worst else None,
        len(judging),
    )
