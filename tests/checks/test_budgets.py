"""Budgets as they stand in nitro.toml: what is read, and the sentence about each mistake."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from builders import call, kernel, nvtx_range, trace
from nitro.analyzer import Capture, analyze
from nitro.analyzer.analysis import all_metrics
from nitro.analyzer.checks import budgets_of
from nitro.analyzer.checks.gauges import WINDOW_TOTALS, Key, gauges, matches
from nitro.analyzer.checks.runs import run_of
from nitro.errors import UsageError

GOOD: dict[str, Any] = {
    "metric": "iteration_period",
    "by": "p50",
    "max": "15 ms",
    "owner": "vision",
    "reason": "60 fps",
}


def refused(**changes: Any) -> str:
    table = {key: value for key, value in (GOOD | changes).items() if value is not ...}
    with pytest.raises(UsageError) as caught:
        budgets_of([table], "nitro.toml", [7])
    text = str(caught.value)
    assert text.startswith("nitro.toml, line 7: ")
    assert text.endswith((".", "?"))
    return text.removeprefix("nitro.toml, line 7: ")


def test_a_budget_is_read_with_its_units() -> None:
    table = GOOD | {"max_regression": "3 %", "expires": date(2027, 1, 31), "device": "*Orin*", "inconclusive": "fail"}
    (made,) = budgets_of([table], "nitro.toml", [3])
    assert (made.gauge.name, made.by, made.maximum, made.minimum) == ("iteration_period", "p50", 15e6, None)
    assert (made.max_regression, made.better, made.per) == (0.03, "lower", "iteration")
    assert (made.owner, made.reason, made.expires) == ("vision", "60 fps", date(2027, 1, 31))
    assert (made.device, made.inconclusive, made.line) == ("*Orin*", "fail", 3)
    assert made.name == "iteration_period:p50 on '*Orin*'"


@pytest.mark.parametrize(
    ("metric", "text", "limit"),
    [
        ("gpu_busy_ratio", 1, 1.0),
        ("gpu_busy_ratio", "100 %", 1.0),
        ("kernel_count", 0, 0.0),
        ("logged_temperature", "-5 °C", -5.0),
    ],
)
def test_a_limit_at_the_edge_of_what_a_metric_can_be_is_read(metric: str, text: object, limit: float) -> None:
    table = GOOD | {"metric": metric, "max": text}
    del table["by"]
    (made,) = budgets_of([table], "nitro.toml")
    assert made.maximum == limit


def test_a_budget_expires_on_the_day_that_is_named() -> None:
    (made,) = budgets_of([GOOD | {"expires": "2027-01-31"}], "nitro.toml")
    assert [made.is_expired(date(2027, 1, day)) for day in (30, 31)] == [False, True]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"metric": "iteration_perod"},
            "there is no metric of the whole window called 'iteration_perod'; did you mean iteration_period",
        ),
        ({"metric": "kernels"}, "there is no metric of the whole window called 'kernels'"),
        ({"metric": "zzzz"}, "`nitro-analyze list metrics` shows what exists."),
        ({"metric": ...}, 'a budget needs metric = "iteration_period".'),
        ({"owner": ...}, 'a budget needs owner = "vision team".'),
        ({"reason": ...}, "a budget needs reason ="),
        ({"reason": " "}, "reason must be text in quotes, not ' '."),
        ({"max": ...}, "iteration_period has no limit; give max, min or max_regression."),
        ({"max": 15}, 'max of iteration_period: 15 has no unit; write "15 ms".'),
        ({"max": "15 GB"}, "max of iteration_period: '15 GB' has the unit 'GB'; write \"15 ms\"."),
        ({"max": "16,5 ms"}, "max of iteration_period: '16,5 ms' has a comma that parts no thousands; write 16.5 ms."),
        ({"max": "-5 ms"}, "max of iteration_period: '-5 ms' is below 0, which it never is; write a limit above 0."),
        ({"min": "-5 ms"}, "min of iteration_period: '-5 ms' is below 0"),
        (
            {"metric": "gpu_busy_ratio", "by": ..., "max": 30},
            'max of gpu_busy_ratio: 30 is more than the whole; write "30 %".',
        ),
        ({"metric": "gpu_busy_ratio", "by": ..., "max": "130 %"}, 'is more than the whole; write "30 %" or 0.3.'),
        ({"metric": "kernel_count", "by": ..., "max": -1}, "-1 is below 0"),
        ({"metric": "gpc_clock", "by": "mean", "max": "-900 MHz"}, "'-900 MHz' is below 0"),
        ({"metric": "gpu_memory_peak", "by": "total", "max": "-1 GiB"}, "'-1 GiB' is below 0"),
        ({"min": "20 ms"}, "min of iteration_period is above its max, so nothing could pass."),
        ({"max_regression": 3}, 'max_regression: 3 is no share between 0 and 1; write "3 %" or 0.03.'),
        ({"maximum": "3 ms"}, "a budget has no setting 'maximum'; did you mean max?"),
        ({"device": -1}, "device must be the number of a GPU or a name"),
        ({"device": True}, "device must be the number of a GPU or a name"),
        ({"expires": "soon"}, "expires must be a day such as 2027-01-31, not 'soon'."),
        ({"expires": 3}, "expires must be a day such as 2027-01-31, not 3."),
        ({"per": "hour"}, "per 'hour' is unknown; choose iteration or window."),
        ({"inconclusive": "maybe"}, "inconclusive 'maybe' is unknown; choose pass or fail."),
        ({"nvtx": "step"}, "'iteration_period' is no metric of an NVTX range; leave nvtx out."),
        ({"metric": "projection_mean_ns"}, "'projection_mean_ns' is no metric of the whole window; name the range"),
        (
            {"metric": "kernel_count", "by": ..., "max": 5, "max_regression": "1 %"},
            'whether more of kernel_count is good depends on you; add better = "lower" or "higher".',
        ),
    ],
)
def test_each_mistake_is_told_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    assert sentence in refused(**changes)


def test_a_star_stands_for_anything_and_brackets_for_themselves() -> None:
    assert matches("infer:# > *", "infer:# > vision")
    assert matches("a[0]", "a[0]")
    assert not matches("a[0]", "a0")
    assert not matches("infer", "infer:#")


def test_rates_are_better_when_higher_and_times_when_lower() -> None:
    known = gauges(of_phase=False)
    directions = {known[name].better for name in ("iterations_per_s", "throughput", "sm_active_ratio")}
    assert directions == {"higher"}
    assert {known[name].better for name in ("iteration_period", "gpu_idle", "sync_time")} == {"lower"}


def test_totals_are_the_ids_that_exist() -> None:
    assert set(WINDOW_TOTALS) <= {name for metric in all_metrics() for name in metric.provides}


@pytest.mark.parametrize(
    ("tables", "is_kept"),
    [
        ({}, False),
        ({"graph_launches": [(300, 400)]}, True),
        ({"kernels": [kernel(100, 200, graph_node_id=3)]}, True),
    ],
)
def test_how_graphs_are_traced_is_a_fact_of_runs_with_graphs_alone(tables: dict[str, Any], is_kept: bool) -> None:
    capture = Capture(options={"cuda_graph_trace": "Node", "driver_version": "1"})
    built = trace(**({"kernels": [kernel(100, 200)]} | tables), capture=capture)
    options = run_of(built, analyze(built)).facts.options
    assert ("cuda_graph_trace" in options) is is_kept
    assert options["driver_version"] == "1"


def loop(iterations: int) -> dict[Key, float]:
    """Return the values of a loop in which nothing changes but its length."""
    steps = range(0, iterations * 1000, 1000)
    built = trace(
        kernels=[
            kernel(at + offset, at + offset + 100, name, correlation_id=at + offset)
            for at in steps
            for offset, name in ((100, "gemm"), (300, "vectorized_elementwise_kernel"))
        ],
        memcpys=[{"start_ns": at + 500, "end_ns": at + 540, "correlation_id": at + 500} for at in steps],
        api_calls=[
            call(at + offset - 40, at + offset - 10, correlation_id=at + offset)
            for at in steps
            for offset in (100, 300, 500)
        ]
        + [call(at + 600, at + 700, "cudaDeviceSynchronize_v3020", correlation_id=at + 600) for at in steps],
        nvtx=[nvtx_range(at, at + 900, f"step {at}") for at in steps],
    )
    return dict(run_of(built, analyze(built)).values)


def test_what_grows_with_the_window_is_judged_per_iteration_and_nothing_else() -> None:
    short, long = loop(11), loop(21)
    known = gauges(of_phase=False)
    checked = set()
    for key, value in short.items():
        gauge = (gauges(of_phase=True) if key.nvtx else known)[key.metric]
        if key.metric.startswith("capture_") or not value:
            # These look at the whole capture on purpose.
            continue
        expected = value * 2 if gauge.is_window_total else value
        assert long[key] == pytest.approx(expected, rel=0.02), key
        checked.add(key.metric)
    assert {"gpu_idle", "kernel_count", "window", "gpu_busy_ratio", "iteration_period", "sync_time"} <= checked
    assert {"operation_time_ns", "projection_mean_ns", "operations"} <= checked
