"""The benchmarks of fused kernels on a machine without a GPU: wrong files and wrong words are one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS, RESULTS = ROOT / "benchmarks", ROOT / "benchmarks" / "results" / "fusion_h200"


def run(program: str, *arguments: str | Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    folders = [str(path)] if path else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*folders, str(ROOT / "src")])}
    command = [sys.executable, str(BENCHMARKS / program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def refused(done: subprocess.CompletedProcess[str], code: int, sentence: str) -> None:
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("program", "option"),
    [("fusion_counters.py", "--show"), ("fused_dual_encoder.py", "--merge"), ("fusion_study.py", "--show")],
)
def test_a_file_that_is_no_result_is_refused(program: str, option: str, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    refused(run(program, option, tmp_path / "nowhere.json"), 3, "cannot be read (No such file or directory)")
    for name in ("list.json", "deep.json"):
        refused(run(program, option, tmp_path / name), 3, f"{name}: this is no ")


def runs(folder: Path) -> tuple[Path, dict[str, Any]]:
    one = {"vision": "resnet50", "dtype": "float32", "batch": 1, "layers": [], "pairs": [], "fused": [], "reasons": {}}
    content = {"machine": {"gpu": "H200"}, "configurations": [one]}
    place = folder / "run.json"
    place.write_text(json.dumps(content))
    return place, content


def test_joined_runs_are_not_overwritten_and_are_of_one_machine(tmp_path: Path) -> None:
    place, content = runs(tmp_path)
    before = place.read_bytes()
    refused(run("fused_dual_encoder.py", "--merge", place, "--output", place), 3, "never written to")
    assert place.read_bytes() == before
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content | {"machine": {"gpu": "Orin"}}))
    refused(run("fused_dual_encoder.py", "--merge", place, other, "--output", tmp_path / "all.json"), 3, "its machine")
    assert run("fused_dual_encoder.py", "--merge", place, "--output", tmp_path / "all.json").returncode == 0
    assert json.loads((tmp_path / "all.json").read_text())["machine"] == {"gpu": "H200"}


def test_parts_of_a_study_are_not_overwritten(tmp_path: Path) -> None:
    part = tmp_path / "study.json"
    part.write_bytes((RESULTS / "bench_cu.json").read_bytes())
    refused(run("fusion_study.py", "--merge", part, "--out", tmp_path), 3, "never written to")
    assert part.read_bytes() == (RESULTS / "bench_cu.json").read_bytes()


@pytest.mark.parametrize("program", ["fused_bodies.py", "fused_dual_encoder.py"])
def test_without_torch_it_says_so(program: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    refused(run(program, path=tmp_path), 5, "needs PyTorch, which cannot be imported (no torch here)")


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("fusion_study.py", ("--samples", "-1")),
        ("fusion_sm_budget.py", ("--strengths", "nan")),
        ("fusion_sm_budget.py", ("--strengths", "0")),
        ("fused_dual_encoder.py", ("--dtype", "float99")),
    ],
)
def test_wrong_values_are_wrong_usage(program: str, arguments: tuple[str, ...]) -> None:
    refused(run(program, *arguments), 2, f"{program}: error: ")
