"""Saved analyses as runs: the same sums as the traces, and no claim about what they do not hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builders import call, gpu, kernel, nvtx_range, trace
from nitro.analyzer import Trace, analyze
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
