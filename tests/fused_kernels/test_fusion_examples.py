"""The programs of `examples` that run and record a pair: what they submit and mark, and what they say of bad input."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fused_kernels.timed_runtime import TimedRuntime
from nitro.errors import InputError
from nitro.fused_kernels.candidates import Candidate
from nitro.fused_kernels.problems import GemmProblem, LayerNormProblem
from nitro.fused_kernels.workbench import Workbench

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SMALL = (GemmProblem(256, 128, 64), LayerNormProblem(64, 512))


@pytest.fixture(scope="module")
def fused_pair() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fused_pair", EXAMPLES / "fused_pair.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Marks:
    """Ranges as they are opened, each with those around it."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.seen: list[str] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.open.append(name)
        self.seen.append(" > ".join(self.open))
        try:
            yield
        finally:
            self.open.pop()


def winner(fused_pair: ModuleType, way: str) -> Candidate:
    result, subject, _ = fused_pair.read_case(fused_pair.STUDY, fused_pair.CASE)
    found: Candidate = fused_pair.winner_of(result, subject, way, 90)
    return found


class TestWays:
    @pytest.mark.parametrize("way", ["sequential", "streams", "elastic", "fused"])
    def test_the_pair_runs_as_the_committed_study_measured_it(self, fused_pair: ModuleType, way: str) -> None:
        result, subject, device = fused_pair.read_case(fused_pair.STUDY, fused_pair.CASE)
        assert (subject.name, device) == (fused_pair.CASE, "NVIDIA H200")
        assert winner(fused_pair, way).name == result.winner(*fused_pair.WAYS[way]).name

    @pytest.mark.parametrize("compute", ["conv1x1_f32", "conv3x3_f32", "gemm_f16", "conv3x3_f16"])
    def test_so_do_pairs_with_other_kernels(self, fused_pair: ModuleType, compute: str) -> None:
        result, subject, _ = fused_pair.read_case(fused_pair.STUDY, f"{compute}+layer_norm@0.5")
        found = fused_pair.winner_of(result, subject, "fused", 90)
        assert found.name == result.winner(*fused_pair.WAYS["fused"]).name

    def test_fused_is_one_launch_and_the_others_are_two(self, fused_pair: ModuleType) -> None:
        assert len(winner(fused_pair, "fused").kernels) == 1
        assert [len(winner(fused_pair, way).kernels) for way in ("sequential", "streams", "elastic")] == [2, 2, 2]

    def test_a_way_that_this_architecture_does_not_have_is_refused(self, fused_pair: ModuleType) -> None:
        result, subject, _ = fused_pair.read_case(fused_pair.STUDY, fused_pair.CASE)
        with pytest.raises(InputError, match=r"sm_53 has no way called .*; measure a study on this device"):
            fused_pair.winner_of(result, subject, "fused", 53)


class TestRun:
    @pytest.mark.parametrize(
        ("way", "ranges"), [("sequential", ["gemm", "layer_norm"]), ("fused", ["gemm+layer_norm"])]
    )
    def test_iterations_hold_the_pair_its_launches_and_the_wait(
        self, fused_pair: ModuleType, way: str, ranges: list[str]
    ) -> None:
        marks, runtime = Marks(), TimedRuntime()
        recorded: list[tuple[str, int]] = []

        @contextmanager
        def profiler(name: str) -> Iterator[None]:
            recorded.append((name, len(runtime.launches)))
            marks.seen.clear()
            yield
            recorded.append((name, len(runtime.launches)))

        bench = Workbench(runtime, SMALL, executor=fused_pair.MarkedExecutor(runtime, marks))
        candidate = winner(fused_pair, way)
        fused_pair.run(bench, candidate, marks, warm_up=3, iterations=2, recorded=profiler)
        expected = [
            f"infer:{index}{inside}"
            for index in (0, 1)
            for inside in ("", " > pair", *(f" > pair > {name}" for name in ranges), " > sync")
        ]
        assert marks.seen == expected
        # Preparing the way and the warm-up are over before anything is recorded.
        count = len(ranges)
        assert recorded == [(candidate.name, 4 * count), (candidate.name, 6 * count)]

    @pytest.mark.parametrize("name", ["fused_pair.py", "fused_encoder.py"])
    def test_without_a_gpu_it_says_so(self, name: str) -> None:
        if Path("/dev/nvidiactl").exists():
            pytest.skip("there is a GPU here")
        command = [sys.executable, str(EXAMPLES / name), "--way", "streams"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (5, "")
        assert done.stderr.startswith(f"{name}: ")
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda study: study["identity"].pop("device"), "missing required field `device` - at `$.identity`"),
            (lambda study: study.update(cases=[]), "has no case gemm_f32+layer_norm@0.9 of these shapes"),
            (lambda study: study.update(format=0), "has format 0"),
        ],
    )
    def test_a_study_that_does_not_fit_is_refused(
        self, fused_pair: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, said: str
    ) -> None:
        study = json.loads(fused_pair.STUDY.read_text())
        change(study)
        changed = tmp_path / "study.json"
        changed.write_text(json.dumps(study))
        assert fused_pair.main(["--study", str(changed)]) == 3
        assert said in capsys.readouterr().err


_NSYS = """#!/bin/sh
# Stands for nsys: notes its arguments, and leaves what the real one would.
echo "$@" >>"$LOG"
for word; do case $word in --output=*) name=${word#--output=};; esac; done
case $1 in
    profile) [ "$name" = "${FAILS:-}" ] || echo report >"$name$SUFFIX" ;;
    export) echo trace >"$name" ;;
esac
"""


class TestScript:
    def record(self, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        for name, text in (("nsys", _NSYS), ("importer", '#!/bin/sh\ncp "$2" "$4"\n')):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        known = {"NSYS": str(folder / "nsys"), "PYTHON": "true", "LOG": str(folder / "log"), "SUFFIX": ".nsys-rep"}
        return subprocess.run(
            ["sh", str(EXAMPLES / "record_fusion.sh"), *arguments],
            cwd=folder,
            env={"PATH": os.environ["PATH"], **known, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def test_the_ways_take_turns(self, tmp_path: Path) -> None:
        done = self.record(tmp_path, "out", "2", "--iterations", "9")
        assert done.returncode == 0, done.stderr
        names = [f"out/{way}_{number}" for number in (1, 2) for way in ("sequential", "streams", "fused")]
        assert done.stdout.split() == [f"{name}.sqlite" for name in names]
        log = (tmp_path / "log").read_text().splitlines()
        recorded = [line for line in log if line.startswith("profile")]
        assert [name in line for name, line in zip(names, recorded, strict=True)] == [True] * 6
        assert all("--iterations 9 --way" in line and "--gpu-metrics-devices=all" in line for line in recorded)

    def test_reports_that_nsys_left_unconverted_are_converted(self, tmp_path: Path) -> None:
        ways = {"WAYS": "fused", "SUFFIX": ".qdstrm"}
        done = self.record(tmp_path, "out", "1", **ways, QDSTRM_IMPORTER=str(tmp_path / "importer"))
        assert (done.returncode, done.stdout) == (0, "out/fused_1.sqlite\n")
        done = self.record(tmp_path, "out", "1", **ways)
        assert done.returncode == 5
        assert "set QDSTRM_IMPORTER" in done.stderr

    def test_a_recording_that_failed_leaves_no_old_trace_and_the_others_are_made(self, tmp_path: Path) -> None:
        assert self.record(tmp_path, "out", "1").returncode == 0
        done = self.record(tmp_path, "out", "1", FAILS="out/streams_1")
        assert done.returncode == 5
        assert "nsys profile wrote no report out/streams_1.nsys-rep" in done.stderr
        assert done.stdout.split() == ["out/sequential_1.sqlite", "out/fused_1.sqlite"]
        assert not (tmp_path / "out" / "streams_1.sqlite").exists()

    def test_a_missing_program_is_named(self, tmp_path: Path) -> None:
        done = self.record(tmp_path, NSYS="no_such_nsys")
        assert (done.returncode, done.stderr) == (
            5,
            "record_fusion.sh: nsys is not on PATH; install Nsight Systems or set NSYS.\n",
        )

    @pytest.mark.parametrize("rounds", ["x", "0", "-1", "1.5"])
    def test_rounds_that_are_no_number_are_wrong_usage(self, tmp_path: Path, rounds: str) -> None:
        done = self.record(tmp_path, "out", rounds)
        assert done.returncode == 2
        assert done.stderr == f"record_fusion.sh: {rounds} is no number of rounds; give 1 or more after the folder.\n"
        assert not (tmp_path / "out").exists()

    def test_help_is_not_the_name_of_a_folder(self, tmp_path: Path) -> None:
        done = self.record(tmp_path, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("Record the same work")
        assert done.stdout.splitlines()[-1].startswith("Exit codes: 0 ")
        assert self.record(tmp_path, "--folder").returncode == 2
