"""The tree of layers: who launched what, and how inner parts count in outer ones."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import call, kernel, nvtx_domain, nvtx_range, trace
from nitro.analyzer import Source, Trace, analyze
from nitro.analyzer.layers import LAYER_PROFILE_COLUMNS, LayerProfile
from nitro.analyzer.profile import Profile
from nitro.errors import InputError


def table_of(built: Trace, *evidence: Profile | LayerProfile) -> pl.DataFrame:
    table = analyze(built, *evidence, window="all").table("layers")
    assert table is not None
    return table.frame


def small(name: str = "mul") -> Trace:
    """Return two inferences of a model with two layers; the second kernel is launched in no layer."""
    kernels, calls, ranges = [], [], [nvtx_domain(3, "TensorRT")]
    for number in range(2):
        at = 1000 * number
        for place, (begin, duration) in enumerate(((10, 100), (30, 50), (50, 25))):
            correlation = 3 * number + place + 1
            calls.append(call(at + begin, at + begin + 5, correlation_id=correlation))
            start = at + 300 + 150 * place
            kernels.append(kernel(start, start + duration, name, correlation_id=correlation))
        ranges += [
            nvtx_range(at, at + 80, f"infer:{number}"),
            nvtx_range(at + 8, at + 20, "conv1", domain_id=3),
            nvtx_range(at + 48, at + 60, "conv2", domain_id=3),
        ]
    return trace(kernels=kernels, api_calls=calls, nvtx=ranges)


def test_a_kernel_counts_in_the_layer_around_its_launch_and_in_all_around_that() -> None:
    rows = {row["name"]: row for row in table_of(small()).to_dicts()}
    assert rows.keys() == {"infer:#", "conv1", "conv2"}
    assert (rows["infer:#"]["total_ns"], rows["infer:#"]["self_ns"]) == (350, 100)
    assert (rows["infer:#"]["launches"], rows["infer:#"]["self_launches"]) == (6, 2)
    assert (rows["infer:#"]["kernel"], rows["infer:#"]["kernel_share"]) == ("mul", 1.0)
    assert (rows["conv1"]["total_ns"], rows["conv1"]["self_ns"], rows["conv1"]["launches"]) == (200, 200, 2)
    assert {row["count"] for row in rows.values()} == {2}
    assert rows["conv1"]["kind"] == "TensorRT layer"
    assert rows["infer:#"]["share"] == 1.0


def test_times_of_their_own_add_up_to_all_that_was_launched_in_layers() -> None:
    frame = table_of(small())
    assert frame["self_ns"].sum() == 350


@given(
    ranges=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40), st.sampled_from("abc")), min_size=1, max_size=8),
    launches=st.lists(
        st.tuples(st.integers(0, 80), st.integers(1, 9)), min_size=1, max_size=8, unique_by=lambda p: p[0]
    ),
)
def test_against_brute_force(ranges: list[tuple[int, int, str]], launches: list[tuple[int, int]]) -> None:
    # Ranges of a thread nest: those that would not are left out.
    kept: list[tuple[int, int, str]] = []
    for start, length, name in ranges:
        low, high = 10 * start, 10 * (start + length)
        if all(high <= a or low >= b or (a < low and high < b) or (low < a and b < high) for a, b, _ in kept):
            kept.append((low, high, name))
    kernels, calls, at = [], [], 2000
    for number, (begin, duration) in enumerate(launches, 1):
        calls.append(call(10 * begin + 1, 10 * begin + 2, correlation_id=number))
        kernels.append(kernel(at, at + duration, "k", correlation_id=number))
        at += 10
    analysis = analyze(
        trace(kernels=kernels, api_calls=calls, nvtx=[nvtx_range(a, b, name) for a, b, name in kept]), window="all"
    )
    expected: dict[str, int] = {}
    for begin, duration in launches:
        around = sorted((a, b, name) for a, b, name in kept if a <= 10 * begin + 1 < b)
        for depth in range(1, len(around) + 1):
            path = " > ".join(name for _, _, name in around[:depth])
            expected[path] = expected.get(path, 0) + duration
    table = analysis.table("layers")
    found = {} if table is None else dict(table.frame.select("path", "total_ns").iter_rows())
    assert found == expected


def test_a_profile_beside_the_trace_has_rows_of_its_own() -> None:
    profile = Profile(source=Source("other.json", "kineto-json"), records=1, trace=small())
    frame = table_of(small(), profile)
    assert frame["source"].unique(maintain_order=True).to_list() == ["trace", "other.json"]
    assert frame.filter(pl.col("source") == "other.json")["self_ns"].sum() == 350


def test_a_profile_of_another_program_is_refused() -> None:
    profile = Profile(source=Source("other.json", "kineto-json"), records=1, trace=small("unheard_of"))
    with pytest.raises(InputError, match=r"other\.json: none of its 1 kernels"):
        analyze(small(), profile)


def test_layers_that_tensorrt_timed_stand_beside_those_of_the_trace() -> None:
    rows = [("conv1", 90.0, None, None), ("gone", 10.0, None, None)]
    layers = pl.DataFrame(rows, schema=LAYER_PROFILE_COLUMNS, orient="row")
    profile = LayerProfile(source=Source("layers.json", "tensorrt-layers"), records=2, layers=layers)
    table = analyze(small(), profile, window="all").table("tensorrt_layers")
    assert table is not None
    assert table.frame.select("name", "share", "trace_mean_ns").rows() == [("conv1", 0.9, 100.0), ("gone", 0.1, None)]


def test_without_ranges_there_is_a_reason() -> None:
    analysis = analyze(trace(kernels=[kernel(0, 10)]))
    assert analysis.table("layers") is None
    assert "NVTX" in (analysis.reason("layers") or "")
