"""`nitro-analyze fuse bench` and `fuse tune`, on a device whose times are known."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import nitro.fused_kernels
from fused_kernels.timed_runtime import NoCompiler, TimedRuntime
from nitro.commands.fuse import COMMAND
from nitro.errors import InputError, NitroError, ToolError, UsageError
from nitro.fused_kernels import compile_queue, nvrtc, pairs, sm_budget, study, vendor
from nitro.fused_kernels.sm_budget import Eater
from nitro.fused_kernels.strategies import IntraBlock, Kernel


def cost_us(kernel: Kernel) -> float:
    if len(kernel.bodies) == 2:
        return 1300.0 if isinstance(kernel.strategy, IntraBlock) else 1700.0
    return 1000.0 if kernel.bodies[0].block_granular else 800.0


class _Queue(NoCompiler):
    def __enter__(self) -> _Queue:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TimedRuntime:
    class Version:
        version = (12, 9)

    def no_library() -> Any:
        raise ToolError("torch sees no GPU.")

    runtime = TimedRuntime(cost_us=cost_us)
    monkeypatch.setenv("NITRO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(nitro.fused_kernels, "open_runtime", lambda: runtime)
    monkeypatch.setattr(compile_queue, "CompileQueue", lambda sm: _Queue(sm))
    monkeypatch.setattr(vendor, "open_library", no_library)
    monkeypatch.setattr(nvrtc, "find", lambda: Version)
    return runtime


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(COMMAND, [str(one) for one in arguments])
    if isinstance(result.exception, NitroError):
        raise result.exception
    assert result.exception is None, result.output
    return result


ONE_PAIR: Sequence[str] = ("--pair", "gemm+gemv", "--set", "first.rows=256", "--set", "first.outputs=128")


@pytest.mark.usefixtures("device")
def test_bench_prints_a_table() -> None:
    strategies = ("--strategy", "sequential", "--strategy", "intra_block")
    result = run("bench", *ONE_PAIR, *strategies, "--samples", "3")
    header, line = result.stdout.splitlines()
    assert header.split()[:7] == ["case", "ratio", "first", "second", "simple", "elastic", "library"]
    assert line.split()[:8] == ["gemm+gemv", "0.80", "1000.0", "800.0", "1800.0", "-", "-", "1300.0"]
    assert "1.385 1.385-1.385" in line
    assert line.split()[-1] == "intra_block"
    assert "without cuBLAS" not in result.stderr


@pytest.mark.usefixtures("device")
def test_bench_prints_the_document_as_json_and_says_what_is_missing() -> None:
    result = run("bench", *ONE_PAIR, "--samples", "3", "--exhaustive", "--json", "-")
    content = json.loads(result.stdout)
    (case,) = content["cases"]
    assert case["problems"][0].startswith("GemmProblem(rows=256, outputs=128")
    assert case["regret"]["ways"] > 50
    assert content["identity"]["library"] is None
    assert "without cuBLAS and cuDNN: torch sees no GPU." in result.stderr


@pytest.mark.usefixtures("device")
def test_bench_scales_to_a_ratio() -> None:
    result = run("bench", *ONE_PAIR, "--strategy", "sequential", "--balance", "0.4", "--samples", "3", "--json", "-")
    (case,) = json.loads(result.stdout)["cases"]
    # 0.4 * 1000 / 800 of 2048 outputs, twice, since on this device a kernel takes as long whatever its size.
    assert "outputs=512, inner=512" in case["problems"][1]


@dataclass
class Halved(TimedRuntime):
    """A device whose budgets of SMs have known times, too."""

    def divide(self, sms: int) -> tuple[TimedRuntime, TimedRuntime]:
        return tuple(  # type: ignore[return-value]
            Halved(replace(self.facts, sms=count), cost_us=self.cost_us) for count in (sms, self.facts.sms - sms)
        )


class Quiet(Eater):
    """An eater that is entered and left, and reads nothing."""

    entered = 0

    def __post_init__(self) -> None:
        pass

    def __enter__(self) -> Quiet:
        type(self).entered += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes_per_s = 2.5e12


@pytest.mark.usefixtures("device")
def test_bench_on_some_sms_beside_an_eater(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nitro.fused_kernels, "open_runtime", lambda: Halved(cost_us=cost_us))
    monkeypatch.setattr(sm_budget, "Eater", Quiet)
    monkeypatch.setattr(study, "Eater", Quiet)
    monkeypatch.setattr(Quiet, "entered", 0)
    report = tmp_path / "study.md"
    strategies = ("--strategy", "sequential", "--strategy", "intra_block")
    result = run(
        "bench", *ONE_PAIR, *strategies, "--samples", "3", "--sms", "2", "--eater", "0.5", "-o", report, "--json", "-"
    )
    content = json.loads(result.stdout)
    assert content["identity"]["device"]["sms"] == 2
    assert content["protocol"]["budget"] == {"sms": 2, "of": 3, "eater_strength": 0.5}
    assert content["cases"][0]["eaten_bytes_per_s"] == 2.5e12
    # Entered for every round: those of finding bodies (5 of each problem), of tuning (2, 4, 9) and of judging (3).
    assert Quiet.entered == 2 * 5 + 2 + 4 + 9 + 3
    assert "Measured on 2 of 3 SMs" in report.read_text(encoding="utf-8")
    plain = run("bench", *ONE_PAIR, *strategies, "--samples", "3", "--sms", "2")
    assert plain.stdout.splitlines()[-1] == "measured on 2 of 3 SMs; a part of a large GPU, not a small GPU."


@pytest.mark.usefixtures("device")
def test_of_all_pairs_those_that_cannot_be_scaled_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {name: pair for name, pair in pairs.PAIRS.items() if name in ("gemm+gemv", "conv3x3+conv1x1 (control)")}
    monkeypatch.setattr(pairs, "PAIRS", wanted)
    options = ("--strategy", "sequential", "--balance", "0.4", "--samples", "3", "--json", "-")
    result = run("bench", *options)
    assert [case["name"] for case in json.loads(result.stdout)["cases"]] == ["gemm+gemv"]
    assert "left out: conv3x3+conv1x1 (control): " in result.stderr
    with pytest.raises(UsageError, match="only memory-bound"):
        run("bench", "--pair", "conv3x3+conv1x1 (control)", *options)


def test_without_green_contexts_a_budget_is_refused(device: TimedRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_budgets(*_: object) -> Any:
        raise ToolError("Orin and its driver have no budgets of SMs; they need CUDA 12.4 or newer.")

    monkeypatch.setattr(type(device), "divide", no_budgets)
    with pytest.raises(ToolError, match="have no budgets of SMs"):
        run("bench", *ONE_PAIR, "--sms", "2")


@pytest.mark.usefixtures("device")
def test_a_study_that_was_measured_before_becomes_a_report(tmp_path: Path) -> None:
    file, page, text = tmp_path / "study.json", tmp_path / "study.html", tmp_path / "study.md"
    run("bench", *ONE_PAIR, "--strategy", "sequential", "--strategy", "intra_block", "--samples", "3", "--json", file)
    assert run("report", file, "-o", page, "-o", text, "--title", "Mine").stdout == ""
    assert "gemm+gemv" in page.read_text(encoding="utf-8")
    assert text.read_text(encoding="utf-8").startswith("# Mine")
    assert run("report", file).stdout.split()[0] == "case"
    with pytest.raises(UsageError, match="cannot tell the format"):
        run("report", file, "-o", tmp_path / "study.docx")
    with pytest.raises(UsageError, match="never written to"):
        run("report", file, "-o", file)


def test_tune_remembers(device: TimedRuntime, tmp_path: Path) -> None:
    cache = tmp_path / "tuning.json"
    first = run("tune", *ONE_PAIR, "--cache", cache)
    assert "ways measured" in first.stdout
    assert f"choices are in {cache}" in first.stdout
    device.launches.clear()
    again = json.loads(run("tune", *ONE_PAIR, "--cache", cache, "--json", "-").stdout)
    assert device.launches == []
    (choice,) = again["choices"]
    assert choice["ways"] is None
    # Two streams of this device overlap perfectly, and fusion is not chosen.
    assert (choice["is_fused"], choice["gain"]) == (False, 1.0)
    assert "from the cache" in run("tune", *ONE_PAIR, "--cache", cache).stdout
    assert "ways measured" in run("tune", *ONE_PAIR, "--cache", cache, "--again").stdout


@pytest.mark.usefixtures("device")
def test_tune_keeps_choices_by_device(tmp_path: Path) -> None:
    run("tune", *ONE_PAIR)
    (kept,) = (tmp_path / "cache" / "tuning").iterdir()
    assert kept.name == "emulation_on_the_cpu_sm80_3.json"
    content = json.loads(kept.read_text())
    content["device"]["name"] = "Orin"
    kept.write_text(json.dumps(content))
    with pytest.raises(InputError, match="this was tuned on Orin"):
        run("tune", *ONE_PAIR)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("bench", "--pair", "tea+biscuits"), "there is no pair 'tea"),
        (("bench", "--case", "tea*"), r"no case is called 'tea\*'"),
        (("bench", "--pair", "gemm+gemv", "--eater"), "say with --sms how many"),
        (("bench", "--strategy", "magic"), "there is no strategy 'magic'"),
        (("tune", "--pair", "gemm+gemv", "--set", "first.tea=1"), "first has no size 'tea'"),
    ],
)
def test_unknown_names_are_refused(arguments: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        run(*arguments)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("arguments", [("verify", "--emulate"), ("verify",), ("resources",), ("tune", *ONE_PAIR)])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def work(*_: object, **__: object) -> Any:
        raise AssertionError("the work has begun")

    for place in ("verify.verify", "resources.resource_reports", "tuner.choose_way", "verify.pair_strategies"):
        monkeypatch.setattr(f"nitro.fused_kernels.{place}", work)
    with pytest.raises(UsageError, match="there is no folder"):
        run(*arguments, "--json", tmp_path / "nowhere" / "report.json")


@pytest.mark.usefixtures("device")
def test_a_cache_is_not_overwritten_by_the_report(tmp_path: Path) -> None:
    cache = tmp_path / "tuning.json"
    run("tune", *ONE_PAIR, "--cache", cache)
    before = cache.read_bytes()
    with pytest.raises(UsageError, match="never written to"):
        run("tune", *ONE_PAIR, "--cache", cache, "--json", cache)
    assert cache.read_bytes() == before


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("options", [("--balance", "nan"), ("--balance", "inf"), ("--sms", "2", "--eater", "nan")])
def test_what_is_no_finite_number_is_refused(options: tuple[str, ...]) -> None:
    result = CliRunner().invoke(COMMAND, ["bench", *ONE_PAIR, *options])
    assert result.exit_code == 2
    assert "is no number to measure with" in result.stderr


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("time", [0, -1.0, "soon", None, math.nan, 1e400])
def test_a_choice_without_a_time_is_tuned_anew(tmp_path: Path, time: Any) -> None:
    cache = tmp_path / "tuning.json"
    run("tune", *ONE_PAIR, "--cache", cache)
    content = json.loads(cache.read_text())
    for entry in content["entries"].values():
        entry["median_us"] = time
    cache.write_text(json.dumps(content))
    assert "ways measured" in run("tune", *ONE_PAIR, "--cache", cache).stdout


@pytest.mark.usefixtures("device")
def test_a_hostile_cache_is_one_sentence_that_cannot_steer_a_terminal(tmp_path: Path) -> None:
    cache = tmp_path / "tuning.json"
    device = {"name": "\x1b[2JOrin\n", "sm": "\x1b", "sms": []}
    for text in ("[" * 100_000, json.dumps({"format": 1, "entries": {}, "device": device})):
        cache.write_text(text)
        with pytest.raises(InputError) as caught:
            run("tune", *ONE_PAIR, "--cache", cache)
        assert str(caught.value).isprintable()


def test_help_shows_examples_line_by_line() -> None:
    for command in ("bench", "tune"):
        lines = [line.strip() for line in run(command, "--help").stdout.splitlines()]
        assert f"nitro-analyze fuse {command} --pair gemm+layer_norm" in " ".join(lines)
        assert sum(line.startswith(f"nitro-analyze fuse {command}") for line in lines) >= 3
