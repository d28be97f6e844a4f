"""Student's t distribution for any positive degrees of freedom, without scipy, whose import takes longer than its use.

Distribution function through the regularised incomplete beta function, which is evaluated as the continued fraction
of DiDonato and Morris (NIST DLMF 8.17.22) by Lentz's method; about 12 digits. Both functions are exact for the cases
that matter here (df 1 to a few hundred); tests compare them with published tables and closed forms.
"""

from __future__ import annotations

import math
from functools import lru_cache

_TINY = 1e-300
_ENOUGH = 1e-14
_MOST_STEPS = 500


def cdf(t: float, df: float) -> float:
    """Return the probability that a t variable with `df` degrees of freedom is at most `t`.

    Raises:
        ValueError: `df` is not positive.
    """
    if not df > 0:
        raise ValueError(f"degrees of freedom must be positive, not {df}")
    if math.isinf(t):
        return 1.0 if t > 0 else 0.0
    square = t * t
    if square < df:
        # Near the middle the tail is 0.5 less something small, which is known more exactly.
        middle = 0.5 * _incomplete_beta(0.5, df / 2, square / (df + square))
        return 0.5 + math.copysign(middle, t)
    tail = 0.5 * _incomplete_beta(df / 2, 0.5, df / (df + square))
    return 1 - tail if t > 0 else tail


@lru_cache(maxsize=4096)
def quantile(probability: float, df: float) -> float:
    """Return the t below which a share `probability` of the distribution lies.

    Raises:
        ValueError: the probability is not inside (0, 1), or `df` is not positive.
    """
    if not 0 < probability < 1:
        raise ValueError(f"a probability lies inside (0, 1), not at {probability}")
    if probability == 0.5:
        return 0.0
    if probability < 0.5:
        return -quantile(1 - probability, df)
    low, high = 0.0, 1.0
    while cdf(high, df) < probability:
        low, high = high, 2 * high
    t = (low + high) / 2
    for _ in range(60):
        error = cdf(t, df) - probability
        if error > 0:
            high = t
        else:
            low = t
        step = t - error / _density(t, df)
        # Newton's step where it stays inside the bracket, else its middle.
        following = step if low < step < high else (low + high) / 2
        if abs(following - t) <= 1e-13 * max(1.0, t):
            return following
        t = following
    return t


def _density(t: float, df: float) -> float:
    log_scale = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
    return math.exp(log_scale - (df + 1) / 2 * math.log1p(t * t / df))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    front = math.exp(log_front)
    if x < (a + 1) / (a + b + 2):
        return front * _continued_fraction(a, b, x) / a
    return 1 - front * _continued_fraction(b, a, 1 - x) / b


def _continued_fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _MOST_STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away_from_zero(1 + term * d)
            c = _away_from_zero(1 + term / c)
            value *= c * d
        if abs(c * d - 1) < _ENOUGH:
            break
    return value


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
