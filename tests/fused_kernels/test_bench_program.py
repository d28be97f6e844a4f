"""The stand-alone benchmark `csrc/bench.cu`, built and run on the CPU by a pretended CUDA runtime (`cuda_on_cpu`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nitro.fused_kernels.bodies import Body
from nitro.fused_kernels.bodies import candidates as bodies_for
from nitro.fused_kernels.candidates import Candidate
from nitro.fused_kernels.cases import Alone, is_accepted, predicted_time_s
from nitro.fused_kernels.compute_bodies import ComputeBody
from nitro.fused_kernels.memory_bodies import MemoryBody
from nitro.fused_kernels.occupancy import LIMITS
from nitro.fused_kernels.pairs import PAIRS
from nitro.fused_kernels.problems import Problem
from nitro.fused_kernels.pruning import fitted
from nitro.fused_kernels.runtime_emulation import EmulatedRuntime
from nitro.fused_kernels.strategies import CSRC, IntraBlock, launch
from nitro.fused_kernels.study_store import document, identity_of, protocol_of, read_document
from nitro.fused_kernels.study_summary import summarise, table
from nitro.fused_kernels.subjects import Subject, reshaped, subject_of
from nitro.fused_kernels.teams import staged
from nitro.fused_kernels.ways import all_ways

HERE = Path(__file__).parent
GEMM = ("first.rows=256", "first.outputs=64", "first.depth=32", "second.rows=80")
IMAGE = ("first.images=1", "first.height=9", "first.width=9", "first.channels=16", "first.outputs=72")
# Pairs to run with small sizes, by the architecture that the program is built for.
RUNS: dict[int, dict[str, tuple[str, ...]]] = {
    80: {
        "gemm+layer_norm": GEMM,
        "linear+gemv fp16": (
            "first.height=130",
            "first.channels=32",
            "first.outputs=130",
            "second.outputs=60",
            "second.inner=512",
        ),
        "conv3x3+conv1x1 (control)": (*IMAGE, *(size.replace("first", "second") for size in IMAGE)),
        "conv3x3+softmax": (*IMAGE, "second.rows=70"),
        "layer_norm+residual_gelu (control)": ("first.rows=50", "second.count=9216"),
    },
    53: {"conv3x3+softmax": (*IMAGE, "second.rows=70")},
}
# The bits of NITRO_PAIRS for those.
BUILT = {80: 1 | 64 | 512 | 1024 | 2048, 53: 64}
Measured = dict[tuple[int, str], tuple[Path, Path]]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is needed to build the program")


def build(sm: int, pairs: int, folder: Path, *more_flags: str) -> Path:
    program = folder / f"bench_{sm}_{pairs}"
    flags = ["-x", "c++", "-std=c++14", "-O0", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
    flags += ["-Wno-unknown-pragmas", "-Wno-unused-local-typedefs", *more_flags]
    flags += [f"-DNITRO_EMULATION={sm * 10}", f"-DNITRO_SM={sm}", f"-DNITRO_PAIRS={pairs}", f"-I{HERE / 'cuda_on_cpu'}"]
    done = subprocess.run(
        ["g++", *flags, CSRC / "bench.cu", "-o", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return program


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("bench")
    with ThreadPoolExecutor(2) as pool:
        built = {sm: pool.submit(build, sm, pairs, folder) for sm, pairs in BUILT.items()}
    return {sm: one.result() for sm, one in built.items()}


def run(program: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": "/usr/bin:/bin", **{name: str(value) for name, value in settings.items()}}
    return subprocess.run([program, *arguments], capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def measured(programs: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Return the JSON of each run, and the log of its launches."""
    folder = tmp_path_factory.mktemp("runs")

    def one(sm: int, name: str) -> tuple[Path, Path]:
        out, log = folder / f"{sm}_{len(name)}_{name[:9]}.json", folder / f"{sm}_{len(name)}_{name[:9]}.log"
        settings = [word for size in RUNS[sm][name] for word in ("--set", size)]
        done = run(programs[sm], "--pair", name, *settings, "--samples", "5", "--json", str(out), FAKE_LOG=log)
        assert done.returncode == 0, done.stdout + done.stderr
        return out, log

    with ThreadPoolExecutor(2) as pool:
        found = {(sm, name): pool.submit(one, sm, name) for sm, name in runs()}
    return {key: future.result() for key, future in found.items()}


def runs() -> list[tuple[int, str]]:
    return [(sm, name) for sm in RUNS for name in RUNS[sm]]


def subject(sm: int, name: str) -> Subject:
    return reshaped(subject_of(PAIRS[name]), RUNS[sm][name])


def bodies_of(sm: int, name: str) -> tuple[Body, Body]:
    """Return the bodies that the program runs alone: those of `choose`, but for two that it replaces.

    Bodies of wgmma take compiling for sm_90a alone, and rows of 80 columns leave few bytes on their way as they are.
    """
    pair = PAIRS[name]
    first, second = pair.bodies(sm)
    if isinstance(first, ComputeBody) and first.wgmma:
        first = next(one for one in bodies_for(pair.first, sm) if isinstance(one, ComputeBody) and not one.wgmma)
    if isinstance(second, MemoryBody) and second.operation == "softmax":
        second = next(one for one in bodies_for(pair.second, sm) if isinstance(one, MemoryBody) and one.short)
    return first, second


def staged_beside(first: Body, second: Body, threads: int, blocks: int, sm: int) -> MemoryBody | None:
    """Return the form of a memory body with its pieces in the shared memory that a tile leaves it on an SM."""
    room = LIMITS[sm].shared_bytes // blocks - LIMITS[sm].reserved_shared_bytes
    room -= -(-first.shared_bytes_of(first.threads) // 128) * 128 + 16
    # Two rows at once would spill some bytes where two blocks with a convolution share the registers of an SM.
    return staged(second, threads, 64 if blocks == 2 else 128, room) if sm >= 80 else None


def ways(sm: int, name: str) -> dict[str, Candidate]:
    """Return by name what Python tries with any of its bodies, and staged ones beside every tile.

    Two blocks fit on an SM, as in the pretended CUDA.
    """
    pair = PAIRS[name]
    firsts = [one for one in bodies_for(pair.first, sm) if not (isinstance(one, ComputeBody) and one.winograd)]
    _, second = bodies_of(sm, name)
    seconds = list(bodies_for(pair.second, sm))
    if isinstance(second, MemoryBody) and second.short:
        seconds.append(replace(second, rows=4 * second.rows))  # as where short rows are the first choice
    every: list[Candidate] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nitro.fused_kernels.ways._MEMORY_GROUPS", (128, 256, 384, 512))
        every += all_ways(firsts, seconds)
    for first in firsts if firsts[0].block_granular and not second.block_granular else ():
        for threads, blocks in ((64, 2), (128, 0), (256, 0), (384, 0)):
            beside = staged_beside(first, second, threads, blocks or 1, sm)
            strategies = [IntraBlock(threads, drain, blocks or None) for drain in (False, True)] if beside else []
            every += [Candidate("intra_block", (first, beside), one) for one in strategies]
    quick = staged(second, 256) if sm >= 80 else None
    if quick:
        every.append(Candidate("second", (None, quick), persistent=1))
        every += [
            Candidate("elastic", (first, quick), persistent=1, submission=order)
            for first in firsts
            for order in ("at once", "second, first")
        ]
    return {one.name: one for one in fitted(every, {}, sm, unknown_blocks=2)[0]}


def content(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def tried(path: Path) -> dict[str, str]:
    """Return the family of every way that was tried, by its name."""
    (case,) = content(path)["cases"]
    names = [row[0] for row in case["table"]]
    assert len(set(names)) == len(names)
    assert case["dropped"] == 0
    assert case["failures"] == []
    return {row[0]: row[1] for row in case["table"]}


@pytest.mark.parametrize(("sm", "name"), runs())
def test_it_tries_ways_that_python_tries_of_every_family(sm: int, name: str, measured: Measured) -> None:
    mine, known = tried(measured[sm, name][0]), ways(sm, name)
    assert set(mine) <= set(known)
    assert mine == {way: known[way].family for way in mine}
    first, second = bodies_of(sm, name)
    assert set(mine.values()) == {one.family for one in all_ways([first], [second])}


@pytest.mark.parametrize(("sm", "name"), runs())
def test_a_memory_body_beside_a_tile_has_forms_for_few_warps(sm: int, name: str, measured: Measured) -> None:
    first, second = bodies_of(sm, name)
    known = ways(sm, name)
    beside = {known[way].bodies[1] for way, family in tried(measured[sm, name][0]).items() if family == "intra_block"}
    if not isinstance(second, MemoryBody):
        assert beside == {second}
        return
    lean = {one for one in beside if isinstance(one, MemoryBody) and one != second and not one.stages}
    assert {(one.rows // second.rows, one.together) for one in lean} <= {(8, 2), (8, 1), (4, 1), (2, 1)}
    assert len(lean) == 1
    slots = {one for one in beside if isinstance(one, MemoryBody) and one.stages}
    assert bool(slots) == (sm >= 80 and first.block_granular)
    assert beside == {second} | lean | slots


@pytest.mark.parametrize(("sm", "name"), runs())
def test_it_launches_what_python_launches(sm: int, name: str, measured: Measured) -> None:
    out, log = measured[sm, name]
    launched = {tuple(map(int, line.split())) for line in log.read_text(encoding="utf-8").splitlines()}
    facts, both, known = EmulatedRuntime().facts, subject(sm, name), ways(sm, name)
    problems: tuple[Problem, ...] = (both.first, both.second)
    expected = set()
    for one in (known[way] for way in tried(out)):
        for kernel in one.kernels:
            mine = problems if len(kernel.bodies) == 2 else (problems[kernel.bodies[0] is not one.bodies[0]],)
            blocks = one.blocks_per_sm if kernel is one.capped_kernel or kernel.capped_grid else 1
            work = launch(kernel, mine, sms=facts.sms, sm_ids=facts.sm_ids, blocks_per_sm=blocks)
            expected.add((work.grid, kernel.threads, kernel.shared_bytes))
    assert expected <= launched
    helpers = {1, 32, 256}  # threads of kernels that fill and compare, without shared memory
    assert {one for one in launched - expected if one[2] or one[1] not in helpers} == set()


@pytest.mark.parametrize("sm", [53, 72, 87, 90])
def test_its_pairs_and_bodies_are_those_of_python(sm: int, tmp_path: Path) -> None:
    listed = run(build(sm, 0xFFF, tmp_path, "-DNITRO_LIST_ONLY", "-w"), "--list").stdout.splitlines()
    assert listed[::3] == [name for name in PAIRS if sm >= 70 or "fp16" not in name]
    for name, *sides in zip(listed[::3], listed[1::3], listed[2::3], strict=True):
        bodies = bodies_of(sm, name)
        for line, body, problem in zip(sides, bodies, (PAIRS[name].first, PAIRS[name].second), strict=True):
            _, called, sizes = line.split()
            assert called == body.name
            assert sizes_of(sizes) == {key: str(getattr(problem, key)) for key in sizes_of(sizes)}


def sizes_of(text: str) -> dict[str, str]:
    return dict(part.split("=") for part in text.split(","))


@pytest.mark.parametrize("sm", [53, 72, 87, 90])
def test_the_constants_of_its_bodies_are_those_of_python(sm: int) -> None:
    """Resources of compute bodies are written out in the program; what they follow from may change."""
    kinds: dict[str, Body] = {}
    for name, pair in PAIRS.items():
        if sm >= 70 or pair.first.dtype == "float32":
            kinds.update({body.name: body for body in bodies_of(sm, name) if body.block_granular})
    blocks = {name[:5] + name[5:8]: body.blocks_per_sm for name, body in kinds.items()}
    new = sm >= 80
    expected = {"gemm_f32": 3 if new else 2, "conv3_f3": 2, "conv1_f3": 2}
    if sm >= 70:
        expected |= {"conv3_f1": 2 if new else 1, "conv1_f1": 2 if new else 1}
    assert blocks == expected
    assert {body.threads for body in kinds.values()} == {256}
    if new:
        larger = ComputeBody("gemm", tile_n=128, stages=3)
        assert larger in bodies_for(PAIRS["gemm+gemv"].first, sm)
        assert (larger.blocks_per_sm, larger.threads) == (2, 256)


def test_the_document_is_that_of_fuse_bench(measured: Measured, tmp_path: Path) -> None:
    for out, _ in measured.values():
        results, whole = read_document(out)
        runtime = EmulatedRuntime()
        assert keys(whole["identity"]) == keys(identity_of(runtime, None))
        assert keys(whole["protocol"]) == keys(protocol_of(FakeLab()))  # type: ignore[arg-type]
        full = json.loads(document(results, whole["identity"], whole["protocol"]))
        assert keys(full["cases"]) == keys(whole["cases"])
        assert set(full) - set(whole) == {"summary", "rows"}
        assert summarise(results)["same_bits"]
        again = tmp_path / "again.json"
        again.write_text(json.dumps(full), encoding="utf-8")
        assert read_document(again)[0] == results
        assert table(results).count("\n") == 1


class FakeLab:
    """The parts of a lab that its protocol is made of."""

    from nitro.fused_kernels.study import JUDGING as judging  # noqa: N811
    from nitro.fused_kernels.tuner import RUNGS as rungs  # noqa: N811

    budget = None


def keys(value: object) -> object:
    """Return the shape of JSON: keys without values; of a list its first element; what may be null is just a value."""
    if isinstance(value, dict):
        return {name: keys(one) for name, one in value.items() if name not in ("regret", "exhaustive", "clocks_mhz")}
    if isinstance(value, list):
        return [keys(value[0])] if value else []
    return None


def test_it_judges_by_the_rules_of_the_study(measured: Measured) -> None:
    for sm, name in runs():
        ((result,), whole) = read_document(measured[sm, name][0])
        both = subject(sm, name)
        rungs = whole["protocol"]["tuning"]
        assert rungs[-1]["keep"] == 1
        assert whole["protocol"]["judging"]["samples"] == 5
        assert result.problems == (str(both.first), str(both.second))
        known = result.decision
        for problem, over in ((both.first, known.first_over_ridge), (both.second, known.second_over_ridge)):
            ridge = (300e12 if problem.dtype == "float16" else 46e12) / 4e12
            assert over == pytest.approx(problem.flop / problem.streamed_bytes / ridge, rel=1e-12)
        first, second = Alone(known.first_us, known.first_over_ridge), Alone(known.second_us, known.second_over_ridge)
        assert known.accepted == is_accepted(first, second, is_co_resident=known.is_co_resident)
        predicted = (first.time_s + second.time_s) / predicted_time_s(first.time_s, second.time_s)
        assert known.predicted_gain == pytest.approx(predicted, rel=1e-12)
        assert result.is_control == ("(control)" in name)
        assert {len(one.samples_us) for one in result.judging} == {5}
        assert {len(one.samples_us) for one in result.tuning} == {rungs[-1]["samples"]}
        assert [one.name for one in result.tuning] == [one.name for one in result.judging]
        ours = [one for one in result.tuning if one.family not in ("first", "second")]
        assert result.choice == ours[0].name
        assert ours[0].median_us == min(one.median_us for one in ours)


def test_a_way_with_wrong_bits_is_named_and_not_timed(programs: dict[int, Path]) -> None:
    arguments = ["--pair", "gemm+layer_norm", *(word for size in GEMM for word in ("--set", size))]
    arguments += ["--strategy", "sequential", "--strategy", "intra_block", "--samples", "3", "--json", "-"]
    done = run(programs[80], *arguments, FAKE_LAZY_ABOVE=400)
    assert done.returncode == 1
    (case,) = json.loads(done.stdout)["cases"]
    named = {row[0].partition(" ")[0].partition(":")[0] for row in case["table"] if row[1] == "intra_block"}
    assert named == {"intra_block_128", "intra_block_128_drain", "intra_block_64_m2", "intra_block_64_drain_m2"}
    assert case["same_bits"] is False
    wrong = [failure for failure in case["failures"] if "differ from those of the body alone" in failure]
    assert all(failure.startswith(("intra_block_256", "intra_block_384")) for failure in wrong)
    assert wrong


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--fast"], "there is no option '--fast'; --help lists them."),
        (["--samples"], "--samples needs a value; --help says which."),
        (["--samples", "2"], "--samples: '2' is no whole number from 3 to 100000."),
        (["--samples", "9x"], "--samples: '9x' is no whole number from 3 to 100000."),
        (["--balance", "-1"], "--balance: '-1' is no ratio over 0; write it as 0.9."),
        (["--pair", "tea"], "there is no pair 'tea' in this program; there are gemm+layer_norm, conv3x3+softmax, "),
        (["--strategy", "magic"], "there is no strategy 'magic'; there are sequential, streams, graph, elastic, intra"),
        (["--set", "rows=4"], "'rows=4' sets no size; write it as first.rows=4096 or second.columns=512."),
        (
            ["--pair", "gemm+layer_norm", "--set", "first.tiles=4"],
            "gemm+layer_norm: first has no size 'tiles'; it has rows, out",
        ),
        (["--pair", "gemm+layer_norm", "--set", "first.rows=0"], "rows is 0, but it goes from 1 to 2147483647; choose"),
        (
            ["--pair", "gemm+layer_norm", "--set", "first.rows=6"],
            "gemm_f32_128x64_t256_a4_w4 moves 4 elements at once and",
        ),
        (
            ["--pair", "gemm+layer_norm", "--set", "second.columns=1024"],
            "layer_norm_f32_w4x4e_r1 holds rows of 512 columns, the shape has 1024; build with `make SM=80 "
            "FLAGS=-DNITRO_NORM_COLUMNS=1024`.",
        ),
        (
            ["--pair", "conv3x3+softmax", "--set", "second.columns=81"],
            "softmax_f32_w4x10s_r4 takes rows of 73 to 80 columns, the shape has 81; build with `make SM=80 "
            "FLAGS=-DNITRO_SOFTMAX_COLUMNS=81`.",
        ),
        (
            ["--pair", "layer_norm+residual_gelu (control)", "--set", "second.count=1028"],
            "residual_gelu_f32_w4x4e_r1 takes multiples of 512 elements, the shape has 1028; build with `make SM=80 "
            "FLAGS=-DNITRO_ANY_SIZE`.",
        ),
        (
            ["--pair", "conv3x3+conv1x1 (control)", "--set", "first.height=1", "--set", "first.padding=0"],
            "the images are smaller than the filter; give larger ones.",
        ),
        (
            ["--pair", "conv3x3+conv1x1 (control)", "--balance", "1"],
            "conv1_f32_128x64_t256_a3_w4: only memory-bound problems are scaled; leave --balance out.",
        ),
        (["--device", "3"], "there is no GPU 3; there are 1, from 0 on."),
    ],
)
def test_wrong_usage_is_one_sentence(programs: dict[int, Path], arguments: list[str], sentence: str) -> None:
    done = run(programs[80], *arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"bench: {sentence}")
    assert done.stdout == ""


def test_a_control_that_nobody_asked_for_does_not_stand_in_the_way_of_a_ratio(tmp_path: Path) -> None:
    program = build(80, 1024, tmp_path, "-O0")
    done = run(program, "--balance", "0.9", "--json", "-")
    assert done.returncode == 0
    assert done.stderr == "conv3x3+conv1x1 (control) is left out: only memory-bound problems are scaled\n"
    assert json.loads(done.stdout)["cases"] == []


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"FAKE_DEVICES": 0}, "no GPU can be used (there is none); use a machine with an NVIDIA GPU and driver."),
        ({"FAKE_DEVICES": -1}, "no GPU can be used (no CUDA-capable device is detected); use a machine with"),
        (
            {"FAKE_SM": 53},
            'a "CPU" is sm_53, too old for this program, which was built for sm_80; build it with `make SM=53`.',
        ),
        ({"FAKE_FREE_BYTES": 1 << 20}, "a set of inputs takes "),
    ],
)
def test_a_machine_that_does_not_do_is_one_sentence(
    programs: dict[int, Path], settings: dict[str, int], sentence: str
) -> None:
    done = run(programs[80], "--pair", "gemm+layer_norm", **settings)
    assert done.returncode == 5
    assert done.stderr.splitlines()[-1].startswith(f"bench: {sentence}")


def test_a_file_that_cannot_be_written_is_one_sentence(programs: dict[int, Path], tmp_path: Path) -> None:
    small = [word for size in ("first.rows=50", "second.count=1024") for word in ("--set", size)]
    arguments = ["--pair", "layer_norm+residual_gelu (control)", *small, "--strategy", "sequential"]
    done = run(programs[80], *arguments, "--json", str(tmp_path / "none" / "out.json"))
    assert done.returncode == 5
    assert "out.json: cannot be written; choose another place." in done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="make is needed")
def test_the_makefile_has_two_lines_and_asks_for_the_architecture(tmp_path: Path) -> None:
    shutil.copytree(CSRC, tmp_path / "csrc")
    assert len((CSRC / "Makefile").read_text(encoding="utf-8").splitlines()) == 2
    silent = subprocess.run(["make"], cwd=tmp_path / "csrc", capture_output=True, text=True, check=False)
    assert silent.returncode == 2
    assert "give the architecture of the GPU, as in 'make SM=53'" in silent.stderr
    planned = subprocess.run(
        ["make", "-n", "SM=53"], cwd=tmp_path / "csrc", capture_output=True, text=True, check=True
    ).stdout
    assert planned.split() == (
        ["nvcc", "-std=c++14", "-O3", "--fmad=false", "-arch=sm_53", "-DNITRO_SM=53", "-o", "bench-sm_53", "bench.cu"]
    )


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is needed")
def test_nvcc_builds_it(tmp_path: Path) -> None:
    shutil.copytree(CSRC, tmp_path / "csrc")
    command = ["make", "SM=90", "FLAGS=-DNITRO_PAIRS=2048 -Werror all-warnings"]
    done = subprocess.run(command, cwd=tmp_path / "csrc", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    listed = subprocess.run([tmp_path / "csrc" / "bench-sm_90", "--list"], capture_output=True, text=True, check=True)
    assert listed.stdout.startswith("layer_norm+residual_gelu (control)\n")
