"""compute-sanitizer as `fuse verify` runs it: a program in its place that prints what the real one printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import nitro.fused_kernels
from nitro.commands.fuse import COMMAND
from nitro.errors import NitroError, ToolError, UsageError
from nitro.fused_kernels import sanitizer, verify
from nitro.fused_kernels.runtime_emulation import EmulatedRuntime
from nitro.fused_kernels.sanitizer import find_sanitizer, sanitize
from nitro.fused_kernels.verify import Case, Check, Report, default_cases, matching_cases

CLEAN = "========= COMPUTE-SANITIZER\nverify: 7327 checks, 0 failed, 45 s\npassed\n========= ERROR SUMMARY: 0 errors\n"
NO_RACE = (
    "verify: 260 checks, 0 failed, 65 s\n========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n"
)
FOUND = (
    "========= COMPUTE-SANITIZER\n"
    "========= Barrier error detected. Divergent thread(s) in block.\n"
    "=========     by thread (64,0,0) in block (36,0,0)\n"
    "========= Target application returned an error\n"
    "========= ERROR SUMMARY: 5216 errors\n"
    "========= ERROR SUMMARY: 5116 errors were not printed. Use --print-limit option to adjust the number\n"
)

Place = Callable[[str, int], Path]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Return what puts a program called compute-sanitizer on PATH, which prints a text and ends with an exit code."""

    def put(text: str, exit_code: int) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "said").write_text(text)
        program = folder / "compute-sanitizer"
        program.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\ncat {folder}/said\nexit {exit_code}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=":")
        return folder

    return put


@pytest.mark.parametrize(
    ("text", "exit_code", "passed", "summary"),
    [
        (CLEAN, 0, True, "0 errors"),
        (NO_RACE, 0, True, "0 hazards displayed (0 errors, 0 warnings)"),
        (FOUND, 86, False, "5216 errors"),
        (CLEAN, 1, False, "0 errors"),  # the checks beneath it failed
    ],
)
def test_its_last_word_and_its_exit_code_count(
    place: Place, text: str, exit_code: int, passed: bool, summary: str
) -> None:
    folder = place(text, exit_code)
    program = find_sanitizer()
    assert program == str(folder / "compute-sanitizer")
    found = sanitize(program, "racecheck", ["gemm*", "*norm*"])
    assert (found.tool, found.passed, found.summary, found.log) == ("racecheck", passed, summary, text)
    asked = (folder / "asked").read_text()
    assert asked.startswith("--tool racecheck --error-exitcode 86 ")
    assert asked.endswith("device_check --skip-bench --scale 1 --only gemm* --only *norm*\n")


@pytest.mark.parametrize(
    ("text", "exit_code"), [("", 0), ("\x1b[2J========= Error: device not supported\n", 255), (CLEAN, 139)]
)
def test_a_tool_that_did_not_run_to_its_end_says_nothing_of_the_kernels(
    place: Place, text: str, exit_code: int
) -> None:
    program = str(place(text, exit_code) / "compute-sanitizer")
    with pytest.raises(ToolError, match=rf"memcheck did not run to its end \(exit code {exit_code}\)") as caught:
        sanitize(program, "memcheck")
    assert str(caught.value).isprintable()


def test_a_program_that_cannot_be_started_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="cannot be run"):
        sanitize(str(tmp_path / "nothing"), "memcheck")


def test_the_checks_really_run_beneath_it(tmp_path: Path) -> None:
    """What is started is the checking program: without a GPU, or without such a body, it says so."""
    program = tmp_path / "compute-sanitizer"
    program.write_text('#!/bin/sh\nwhile [ "$2" != -m ]; do shift; done\nexec "$@"\n')
    program.chmod(0o755)
    with pytest.raises(ToolError, match=r"did not run to its end \(exit code [25]\)"):
        sanitize(str(program), "memcheck", ["no such body"])


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[Result, list[tuple[Case, ...]]]:
    asked: list[tuple[Case, ...]] = []

    def checked(runtime: EmulatedRuntime, cases: tuple[Case, ...], **_: object) -> Report:
        asked.append(cases)
        return Report("a GPU", runtime.facts.sm, [Check("a + b", "alone", "Gemm 1x1", "same bits", True)])

    monkeypatch.setattr(nitro.fused_kernels, "open_runtime", EmulatedRuntime)
    monkeypatch.setattr(verify, "verify", checked)
    result = CliRunner().invoke(COMMAND, ["verify", *arguments])
    if isinstance(result.exception, NitroError):
        raise result.exception
    return result, asked


def test_memcheck_and_synccheck_are_run_where_it_is_found(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place(CLEAN, 0)
    result, asked = run(monkeypatch)
    assert result.exit_code == 0
    assert len(asked[0]) == len(default_cases(EmulatedRuntime().facts.sm))
    assert result.stdout.splitlines()[-2:] == [
        "compute-sanitizer memcheck: 0 errors",
        "compute-sanitizer synccheck: 0 errors",
    ]
    assert [line.split()[1] for line in (folder / "asked").read_text().splitlines()] == ["memcheck", "synccheck"]
    content = json.loads(run(monkeypatch, "--sanitizer", "racecheck", "--json", "-")[0].stdout)
    assert content["sanitized"] == [{"tool": "racecheck", "passed": True, "summary": "0 errors"}]
    assert "compute-sanitizer" not in run(monkeypatch, "--sanitizer", "none")[0].output
    assert "compute-sanitizer" not in run(monkeypatch, "--emulate")[0].output


def test_what_it_finds_fails_the_check(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place(FOUND, 86)
    result, _ = run(monkeypatch, "--sanitizer", "synccheck")
    assert result.exit_code == 1
    assert "compute-sanitizer synccheck: 5216 errors  FAILED" in result.stdout
    assert "Divergent thread(s) in block" in result.stdout


def test_one_that_does_not_run_is_left_out_unless_it_was_asked_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place("========= Error: device not supported\n", 255)
    result, _ = run(monkeypatch)
    assert result.exit_code == 0
    assert result.stderr.count("left out: compute-sanitizer") == 2
    with pytest.raises(ToolError, match="device not supported"):
        run(monkeypatch, "--sanitizer", "memcheck")


def test_wrong_combinations_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: Place) -> None:
    place(CLEAN, 0)
    with pytest.raises(UsageError, match="leave --emulate out"):
        run(monkeypatch, "--emulate", "--sanitizer", "memcheck")
    with pytest.raises(UsageError, match="leaves compute-sanitizer out"):
        run(monkeypatch, "--sanitizer", "memcheck", "--sanitizer", "none")
    with pytest.raises(UsageError, match=r"no body of sm_.* matches tea; there are .*layer_norm"):
        run(monkeypatch, "--only", "tea")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setattr(sanitizer, "_DEFAULT_PLACE", str(tmp_path))
    with pytest.raises(ToolError, match="compute-sanitizer is not on PATH"):
        run(monkeypatch, "--sanitizer", "memcheck")
    assert run(monkeypatch)[0].exit_code == 0


def test_only_takes_the_pairs_with_such_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    _, (cases,) = run(monkeypatch, "--emulate", "--only", "gemm_f32_64x64*", "--only", "copy*")
    assert cases
    assert all(any(body.name.startswith(("gemm_f32_64x64", "copy")) for body in case.bodies) for case in cases)
    whole = matching_cases(90)
    assert whole == default_cases(90)
    parts = [matching_cases(90, part=(part, 4)) for part in (1, 2, 3, 4)]
    assert sorted(map(str, whole)) == sorted(str(case) for part in parts for case in part)
    assert matching_cases(90, every=4) == whole[::4]
