"""Iterations: period, latency, rates."""

from __future__ import annotations

from nitro.analyzer import Analysis

from .. import numbers
from ..blocks import Block, Column, KeyValues, Table
from ..report import Section

_STATISTICS = ("p50", "p90", "p99", "mean")
_DISTRIBUTIONS = (("iteration_latency", "Latency"), ("iteration_period", "Period"))


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return the distribution of iterations and the rates that follow; nothing where there are no iterations."""
    rate = analysis.find("iterations_per_s")
    if rate is None:
        return ()
    rows = []
    for metric, title in _DISTRIBUTIONS:
        parts = analysis.parts(metric)
        if parts:
            values = [parts[name].value if name in parts else None for name in _STATISTICS]
            count = next(iter(parts.values())).count
            rows.append((title, *(numbers.duration(value) for value in values), numbers.count(count)))
    columns = (Column("", "left"), *(Column(name) for name in _STATISTICS), Column("samples"))
    facts = [("Rate", f"{numbers.significant(rate.value)} iterations/s")]
    throughput = analysis.value("throughput")
    if throughput is not None:
        facts.append(("Throughput", f"{numbers.significant(throughput)} items/s"))
    launches = analysis.find("launches_per_iteration")
    if launches is not None:
        facts.append(("Launches", f"{numbers.count(launches.value)} API calls with GPU work per iteration"))
    return (Table(columns, tuple(rows)), KeyValues(tuple(facts)))


SECTION = Section("iterations", "Iterations", 30, build)
