"""What every metric owes to its users, checked for each one that is registered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import get_args

import pytest

from builders import call, empty_trace, kernel, nvtx_range, operation, trace
from nitro.analyzer import Measurement, NotMeasured, ResultTable, Trace, analyze
from nitro.analyzer.analysis import all_metrics
from nitro.analyzer.metric import Metric, Result, Unit
from nitro.analyzer.tables import TABLE_BY_NAME
from nitro.analyzer.view import View

METRICS = all_metrics()
every_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.id)
LONGEST_REASON = 300


def small_trace() -> Trace:
    """Return four iterations on one GPU: a copy, a kernel and a synchronisation each."""
    starts = [0, 1000, 2000, 3000]
    return trace(
        kernels=[kernel(at + 300, at + 700, "mul", correlation_id=2 * n) for n, at in enumerate(starts, 1)],
        memcpys=[operation(at + 100, at + 200, correlation_id=2 * n + 1, bytes=64) for n, at in enumerate(starts, 1)],
        api_calls=[
            made
            for n, at in enumerate(starts, 1)
            for made in (
                call(at + 10, at + 50, "cudaMemcpyAsync_v3020", correlation_id=2 * n + 1),
                call(at + 60, at + 80, correlation_id=2 * n),
                call(at + 90, at + 720, "cudaStreamSynchronize_v3020"),
            )
        ],
        os_calls=[],
        nvtx=[nvtx_range(at, at + 800, f"infer:{n}", payload=8) for n, at in enumerate(starts)],
    )


def test_there_are_metrics() -> None:
    assert len(METRICS) >= 10


def test_every_id_is_provided_once() -> None:
    counts = Counter(name for metric in METRICS for name in metric.provides)
    assert [name for name, count in counts.items() if count > 1] == []


@every_metric
def test_a_metric_says_what_it_is(metric: Metric) -> None:
    assert metric.provides
    assert metric.title
    assert metric.reference
    first_line = metric.definition.partition("\n")[0]
    assert first_line.endswith(".")
    for name in metric.provides:
        assert name == name.lower()
        assert name.isidentifier()


@every_metric
def test_what_a_metric_provides_has_a_unit_or_is_a_table_or_a_reason(metric: Metric) -> None:
    assert set(metric.provides.values()) <= {*get_args(Unit), "table", "reason"} - {""}


@every_metric
def test_the_definition_names_every_number_that_the_metric_gives(metric: Metric) -> None:
    results = metric.results(View(small_trace()))
    numbers = {result.metric for result in results if isinstance(result, Measurement)}
    assert {name for name in numbers if f"`{name}`" not in metric.definition} <= {metric.id}


@every_metric
def test_a_metric_needs_tables_that_exist(metric: Metric) -> None:
    assert set(metric.needs) <= set(TABLE_BY_NAME)
    assert bool(metric.needs) == bool(metric.missing)


@every_metric
def test_a_trace_without_any_table_gives_reasons_and_nothing_else(metric: Metric) -> None:
    results = list(metric.results(View(trace())))
    reasons = [result for result in results if isinstance(result, NotMeasured)]
    assert reasons == results
    _assert_reasons(results, metric)
    if metric.needs:
        assert [reason.metric for reason in reasons] == list(metric.provides)


@every_metric
def test_a_trace_whose_tables_are_empty_is_survived(metric: Metric) -> None:
    _assert_reasons(list(metric.results(View(empty_trace()))), metric)


@every_metric
def test_results_keep_to_what_the_metric_declares(metric: Metric) -> None:
    for result in metric.results(View(small_trace())):
        name = result.name if isinstance(result, ResultTable) else result.metric
        assert name in metric.provides
        if isinstance(result, Measurement):
            assert result.unit == metric.provides[name]
            assert isinstance(result.value, (int, float))
        if isinstance(result, ResultTable):
            assert metric.provides[name] == "table"
            assert all(column.unit in get_args(Unit) for column in result.columns)
            assert all(column.meaning for column in result.columns)


def _assert_reasons(results: Iterable[Result], metric: Metric) -> None:
    for result in results:
        if isinstance(result, NotMeasured):
            assert result.metric in metric.provides
            assert result.reason.strip()
            assert len(result.reason) < LONGEST_REASON


def test_no_id_is_both_measured_and_not_measured_on_one_device() -> None:
    for built in (trace(), empty_trace(), small_trace()):
        analysis = analyze(built)
        measured = {(entry.metric, entry.device_id) for entry in analysis.measurements}
        explained = {(entry.metric, entry.device_id) for entry in analysis.not_measured}
        assert measured & explained == set()
