"""Energy from samples: exact where the power is a straight line, exactly additive, and within its bound of the
truth."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nitro.analyzer.energy import PowerCurve
from nitro.analyzer.intervals import Intervals

MS = 1_000_000


def spans(*pairs: tuple[int, int]) -> Intervals:
    return Intervals(np.array([a for a, _ in pairs], np.int64), np.array([b for _, b in pairs], np.int64))


def curve(*points: tuple[int, float], clock_error_ns: int = 0) -> PowerCurve:
    times, watts = zip(*points, strict=True)
    return PowerCurve(np.array(times, np.int64), np.array(watts, np.float64), clock_error_ns)


def by_hand(made: PowerCurve, low: int, high: int) -> Fraction:
    """Integrate the straight lines between samples with fractions, in nJ."""
    total = Fraction(0)
    points = list(zip(made.times.tolist(), map(Fraction, made.watts.tolist()), strict=True))
    for (t0, p0), (t1, p1) in itertools.pairwise(points):
        a, b = max(t0, low), min(t1, high)
        if a < b:
            at_a, at_b = (p0 + (p1 - p0) * Fraction(t - t0, t1 - t0) for t in (a, b))
            total += (at_a + at_b) / 2 * (b - a)
    return total


def test_a_ramp_is_integrated_exactly_also_when_it_is_clipped() -> None:
    ramp = curve((0, 0.0), (10 * MS, 10.0))
    assert ramp.energy(spans((0, 10 * MS))) == 50 * MS
    assert ramp.energy(spans((2 * MS, 4 * MS))) == 6 * MS
    assert ramp.power(np.array([5 * MS]))[0] == 5.0


def test_nothing_is_known_outside_of_the_samples() -> None:
    flat = curve((0, 2.0), (10, 2.0))
    assert flat.energy(spans((-100, 100))) == 20
    assert flat.covered_ns(-100, 100) == 10


def test_a_gap_between_samples_is_not_covered() -> None:
    made = PowerCurve(np.array([0, 10, 20, 100, 110]), np.ones(5), longest_step_ns=50)
    assert made.covered_ns(0, 110) == 30


def test_constant_power_is_certain_but_for_the_step_of_the_sensor() -> None:
    flat = PowerCurve(np.array([0, 10, 20]), np.full(3, 4.0), clock_error_ns=5, resolution_w=0.04)
    assert flat.uncertainty(spans((3, 17))) == pytest.approx(0.02 * 14)


def test_a_step_between_two_samples_is_uncertain_by_half_of_it() -> None:
    step = curve((0, 1.0), (10, 3.0))
    assert step.uncertainty(spans((0, 10))) == pytest.approx(10.0)


samples = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 20_000)), min_size=2, max_size=30)


@st.composite
def curves(draw: st.DrawFn) -> PowerCurve:
    steps = draw(samples)
    times = np.cumsum([step * 1000 for step, _ in steps])
    return PowerCurve(times.astype(np.int64), np.array([p / 1000 for _, p in steps]))


@given(curves(), st.data())
def test_energy_equals_an_integration_with_fractions(made: PowerCurve, data: st.DataObject) -> None:
    low, high = sorted(data.draw(st.tuples(*[st.integers(-10_000, int(made.times[-1]) + 10_000)] * 2)))
    # Each of the two edges is rounded to a nanojoule.
    assert abs(made.energy(spans((low, high))) - by_hand(made, low, high)) <= 1


@given(curves(), st.data())
def test_parts_add_up_to_the_whole_exactly(made: PowerCurve, data: st.DataObject) -> None:
    last = int(made.times[-1]) + 5000
    edges = sorted({0, last, *data.draw(st.lists(st.integers(0, last), max_size=20))})
    parts = [made.energy(spans(pair)) for pair in itertools.pairwise(edges)]
    assert sum(parts) == made.energy(spans((0, last)))


@st.composite
def loads(draw: st.DrawFn) -> tuple[list[tuple[int, int, float]], int, int]:
    """Return a load that holds each level for at least a sampling period, the period, and the phase of sampling."""
    period = draw(st.integers(10, 200))
    levels = draw(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 20_000)), min_size=1, max_size=12))
    pieces, at = [], -3 * period
    for extra, milliwatts in levels:
        pieces.append((at, at + period + extra, milliwatts / 1000))
        at += period + extra
    pieces.append((at, at + 3 * period, pieces[-1][2]))
    return pieces, period, draw(st.integers(0, period - 1))


def truth(pieces: list[tuple[int, int, float]], low: int, high: int) -> float:
    return sum(max(0, min(b, high) - max(a, low)) * watts for a, b, watts in pieces)


@settings(max_examples=300, deadline=None)
@given(loads(), st.data())
def test_the_uncertainty_covers_the_truth(
    load: tuple[list[tuple[int, int, float]], int, int], data: st.DataObject
) -> None:
    """Any load that changes its level at most once between two samples; a clock that is off; several stretches."""
    pieces, period, phase = load
    first, last = pieces[0][0], pieces[-1][1]
    times = np.arange(first + phase, last, period, dtype=np.int64)
    ends = np.array([b for _, b, _ in pieces])
    watts = np.array([pieces[int(np.searchsorted(ends, t, side="right"))][2] for t in times.tolist()])
    error = data.draw(st.integers(0, period))
    shift = data.draw(st.integers(-error, error))
    made = PowerCurve(times + shift, watts, clock_error_ns=error)
    low, high = int(made.times[0]) + 2 * error, int(made.times[-1]) - 2 * error
    if high <= low:
        return
    cuts = sorted(data.draw(st.sets(st.integers(low, high), min_size=2, max_size=8)))
    wanted = list(zip(cuts[::2], cuts[1::2], strict=False))
    found = made.energy(spans(*wanted))
    real = sum(truth(pieces, a, b) for a, b in wanted)
    assert abs(found - real) <= made.uncertainty(spans(*wanted)) + len(wanted) + 1e-6
