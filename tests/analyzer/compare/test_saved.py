"""Saved analyses as runs: the same sums as the traces, and no claim about what they do not hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import call, gpu, kernel, nvtx_range, trace
from nitro.analyzer import Capture, Trace, analyze
from nitro.analyzer.compare import NotComparable, compare, read_saved
from nitro.analyzer.compare.saved import SavedRun, saved_run
from nitro.errors import InputError

KERNELS = (("gemm", 50), ("add", 10), ("relu", 10))
FUSED = (("gemm", 50), ("add_relu", 12))


def run(kernels: tuple[tuple[str, int], ...] = KERNELS, *, pause: int = 5_000, name: str = "infer") -> Trace:
    rows, calls, ranges = [], [], []
    now, identifier = 1_000, 0
    for iteration in range(8):
        begin = now
        for kernel_name, us in kernels:
            identifier += 1
            calls.append(call(now, now + 500, correlation_id=identifier))
            rows.append(kernel(now + 700, now + 700 + us * 1_000, kernel_name, correlation_id=identifier))
            now += 700 + us * 1_000
        now += pause
        ranges.append(nvtx_range(begin, now - 10, f"{name}:{iteration}"))
    return trace(kernels=rows, api_calls=calls, nvtx=ranges, devices=[gpu(0, sm_count=8)])


def saved(built: Trace, **scope: Any) -> SavedRun:
    # Through text, as a file would hold it.
    return saved_run(json.loads(json.dumps(analyze(built, **scope).to_dict(), default=str)))


def test_waterfall_and_effects_are_those_of_the_traces() -> None:
    before, after = [run(), run(pause=5_100)], [run(FUSED), run(FUSED, pause=5_200)]
    traced = compare(before, after)
    known = compare([saved(each) for each in before], [saved(each) for each in after])
    assert known.devices[0].waterfall.to_dict() == traced.devices[0].waterfall.to_dict()
    assert known.verdict == traced.verdict
    for mine, theirs in zip(known.metrics, traced.metrics, strict=True):
        assert mine.main.to_dict().get("ratio") == pytest.approx(theirs.main.to_dict().get("ratio"))
    assert known.devices[0].metrics[0].main.to_dict() == traced.devices[0].metrics[0].main.to_dict()


def test_kernels_are_matched_by_name_alone() -> None:
    (device,) = compare([saved(run())], [saved(run(FUSED))]).devices
    rows = {(row.kind, row.how): row for row in device.matching.rows if row.before[:1] or row.after}
    assert {row.kind for row in device.matching.rows} == {"one_to_one", "only_before", "only_after"}
    assert rows["one_to_one", "name"].before[0].name == "gemm"
    assert device.matching.delta_ns == device.waterfall.delta_of("kernel") == -8_000
    assert not any(row.is_fusion for row in device.matching.rows)


def test_one_saved_run_makes_all_of_them_so() -> None:
    mixed = compare([saved(run())], [run(FUSED)])
    assert isinstance(mixed.after[0], SavedRun)
    assert [entry.is_saved for side in mixed.runs for entry in side] == [True, True]
    assert [reason.key for reason in mixed.reasons] == ["saved"]
    assert mixed.overlaps == ()
    assert mixed.devices[0].phases == ()


def test_refusals_hold_for_saved_runs() -> None:
    with pytest.raises(NotComparable, match="the name of the iterations"):
        compare([saved(run())], [saved(run(name="train"))])
    with pytest.raises(NotComparable, match="no iterations"):
        compare([saved(run())], [saved(run(), window="all")])
    known = saved(run())
    with pytest.raises(NotComparable, match="stands twice on a side"):
        compare([known, known], [saved(run(FUSED))])


def test_a_copy_under_another_name_is_the_same_run() -> None:
    built = run()
    copy = replace(built, source=replace(built.source, file_name="copy.sqlite"))
    with pytest.raises(NotComparable, match=r"copy.sqlite is a copy of built.sqlite"):
        compare([saved(built), saved(copy)], [saved(run(FUSED))])


def by_node(mode: str) -> Trace:
    """The kernels of `run`, all of an iteration launched by one graph that is recorded by its nodes."""
    built = run()
    assert built.kernels is not None
    assert built.api_calls is not None
    first = {identifier: (identifier - 1) // 3 * 3 + 1 for identifier in range(1, 25)}
    calls = [
        call(start, end, "cudaGraphLaunch_v10000", correlation_id=number)
        for start, end, number in built.api_calls.select("start_ns", "end_ns", "correlation_id").iter_rows()
        if first[number] == number
    ]
    rows = [
        kernel(start, end, name, correlation_id=first[number], graph_node_id=number)
        for start, end, name, number in built.kernels.select(
            "start_ns", "end_ns", "demangled_name", "correlation_id"
        ).iter_rows()
    ]
    ranges = [nvtx_range(start, end, text) for start, end, text in _ranges(built)]
    return trace(
        kernels=rows, api_calls=calls, nvtx=ranges, devices=[gpu(0, sm_count=8)],
        capture=Capture(options={"cuda_graph_trace": mode}),
    )  # fmt: skip


def _ranges(built: Trace) -> list[tuple[int, int, str]]:
    assert built.nvtx_events is not None
    return built.nvtx_events.select("start_ns", "end_ns", "text").rows()


def test_launches_are_those_of_the_traces() -> None:
    plain = replace(run(), capture=Capture(options={"cuda_graph_trace": "Graph"}))
    graphs = by_node("Node")
    traced, known = compare([plain], [graphs]), compare([saved(plain)], [saved(graphs)])
    for made in (traced, known):
        assert made.devices[0].launches is not None
        assert made.devices[0].launches.to_dict() == {"before": 3.0, "after": 1.0, "delta": -2.0}
    # How graphs are traced says nothing about a side that has none.
    assert "capture" not in {reason.key for reason in (*traced.reasons, *known.reasons)}


def test_graphs_traced_in_two_ways_are_refused() -> None:
    with pytest.raises(NotComparable, match="CUDA graphs are traced"):
        compare([saved(by_node("Node"))], [saved(by_node("Graph"))])


def test_unknown_launches_are_in_no_sentence() -> None:
    known = analyze(run()).to_dict()
    known["tables"] = [table for table in known["tables"] if table["name"] != "launch_calls"]
    comparison = compare([saved_run(json.loads(json.dumps(known, default=str)))], [saved(run(FUSED))])
    (device,) = comparison.devices
    assert device.launches is None
    assert device.to_dict()["launches_per_iteration"] is None
    texts = {sentence.key: sentence.text for sentence in device.story}
    assert texts["work"].startswith("kernels take 8 µs less")
    assert not any("launches" in text for text in texts.values())


@pytest.mark.parametrize("key", ["tables", "measurements"])
def test_numbers_that_do_not_belong_together_are_damage(key: str, tmp_path: Path) -> None:
    known = analyze(run()).to_dict() | {key: []}
    file = tmp_path / "a.json"
    file.write_text(json.dumps(known, default=str))
    with pytest.raises(InputError, match=r"a\.json: this analysis is damaged"):
        read_saved(file)


def test_a_damaged_file_is_one_sentence(tmp_path: Path) -> None:
    known = analyze(run()).to_dict()
    del known["window"]["iterations"]
    file = tmp_path / "a.json"
    file.write_text(json.dumps(known, default=str))
    with pytest.raises(InputError, match="is damaged"):
        read_saved(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_saved(tmp_path)


def test_fields_of_later_versions_are_passed_over(tmp_path: Path) -> None:
    known = analyze(run()).to_dict()
    known["source"]["mood"] = "good"
    known["devices"][0]["colour"] = "green"
    known["something"] = 1
    file = tmp_path / "a.json"
    file.write_text(json.dumps(known, default=str))
    assert read_saved(file).run.source.file_name == "built.sqlite"
