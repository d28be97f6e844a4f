"""The arithmetic of the study by hand-computed numbers, and its protocol on a device whose times are known."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fused_kernels.timed_runtime import TimedRuntime, no_compiler
from nitro.errors import InputError, UsageError
from nitro.fused_kernels import study_summary, vendor
from nitro.fused_kernels.candidates import FUSED, Candidate, families
from nitro.fused_kernels.cases import MEMORY_BYTES_PER_S, cases, estimated_time_s, flop, predicted_time_s
from nitro.fused_kernels.memory_bodies import MemoryBody
from nitro.fused_kernels.problems import (
    ConvolutionProblem,
    GemmProblem,
    LayerNormProblem,
    SkinnyGemmProblem,
    SoftmaxProblem,
    linear,
)
from nitro.fused_kernels.sm_budget import Budget
from nitro.fused_kernels.strategies import IntraBlock, Kernel
from nitro.fused_kernels.study import Lab, measure, regret_of, screen_all
from nitro.fused_kernels.study_results import CaseResult, Decision, Regret, Timing
from nitro.fused_kernels.study_store import CaseFiles, budget_of, document, merged, protocol_of, read_document
from nitro.fused_kernels.study_summary import (
    Target,
    fastest_families,
    gain_interval,
    geometric_mean,
    predictions,
    row,
    study_text,
    summarise,
    summary_text,
    table,
    verdict,
)
from nitro.fused_kernels.subjects import Subject, most_telling_first, problem_of, reshaped, subjects
from nitro.fused_kernels.ways import candidate_named, candidates_named
from nitro.reports.fusion import FusionDocuments
from nitro.reports.output import FORMATS, Settings

DEVICE = {"name": "a GPU", "sm": 90, "sms": 8, "sm_ids": 8, "l2_bytes": 1, "memory_bytes": 1}
IDENTITY: dict[str, Any] = {
    "device": {**DEVICE, "shared_bytes_per_block": 1},
    "nvrtc": "13.0",
    "library": None,
    "device_source": "abc",
}
STUDY = Path(__file__).parents[2] / "benchmarks" / "results" / "fusion_h200" / "study.json"

# ---- cases ----


def test_problems_do_the_work_of_the_cases() -> None:
    for case, subject in zip(cases(), subjects(), strict=True):
        assert (subject.name, subject.is_control) == (case.name, case.is_control)
        for kind, shape, problem in (
            (case.first, case.first_shape, subject.first),
            (case.second, case.second_shape, subject.second),
        ):
            assert problem == problem_of(kind, shape)
            if kind.startswith(("gemm_", "conv")):
                assert problem.flop == flop(kind, shape)  # type: ignore[arg-type]
                assert problem.dtype == ("float16" if kind.endswith("f16") else "float32")
        if not case.is_control:
            wanted = case.ratio * estimated_time_s(case.first, case.first_shape)  # type: ignore[arg-type]
            assert subject.second.streamed_bytes / MEMORY_BYTES_PER_S == pytest.approx(wanted, rel=0.02)


def test_cases_are_found_by_pattern() -> None:
    found = [one.name for one in subjects(["gemm_f32+gemv*", "conv3x3_f32+softmax@0.5"])]
    assert found == ["gemm_f32+gemv@0.9", "gemm_f32+gemv@0.5", "conv3x3_f32+softmax@0.5"]
    with pytest.raises(UsageError, match="no case is called 'tea'; there are gemm_f32"):
        subjects(["gemm*", "tea"])


def test_an_early_end_loses_the_least() -> None:
    names = [one.name for one in most_telling_first(subjects())]
    assert len(names) == len(cases())
    assert names[0] == "gemm_f32+layer_norm@0.9"
    assert all(name.endswith("@0.25") for name in names[-5:])
    assert not any("@" in name for name in names[-9:-5])


def test_sizes_can_be_set() -> None:
    subject = Subject("pair", GemmProblem(64, 64, 16), LayerNormProblem(8, 512))
    found = reshaped(subject, ["first.rows=128", "second.columns=768"])
    assert (found.first, found.second) == (GemmProblem(128, 64, 16), LayerNormProblem(8, 768))
    assert reshaped(subject, []) == subject


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("rows=4", "'rows=4' sets no size; write it as first.rows=4096"),
        ("first.rows=many", "'first.rows=many' sets no size"),
        ("first.tea=4", "pair: first has no size 'tea'; it has rows, outputs, depth."),
        ("second.epsilon=4", "second has no size 'epsilon'"),
        ("first.rows=--5", "'first.rows=--5' sets no size"),
        ("first.rows=" + "9" * 5000, "sets no size"),
        ("first.rows=0", "pair: with first.rows=0 the first computes nothing to time"),
        ("second.rows=-1", "layer_norm: rows is -1, but sizes go from 0"),
    ],
)
def test_other_settings_are_refused_in_one_sentence(setting: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence.replace("(", r"\(")):
        reshaped(Subject("pair", GemmProblem(64, 64, 16), LayerNormProblem(8, 512)), [setting])


def test_families_by_name() -> None:
    assert families(["elastic", "library"]) == (
        "elastic",
        "library",
        "library_same_layout",
        "library_elastic",
    )
    assert set(FUSED) < set(families([]))
    with pytest.raises(UsageError, match="there is no strategy 'magic'; there are sequential, streams"):
        families(["magic"])


def test_a_library_solves_what_it_can() -> None:
    assert vendor.calls(GemmProblem(8, 8, 8)) == ("cublas_tn", "cublas_nn", "cublas_nt")
    assert vendor.calls(linear(8, 8, 8)) == ("cublas_linear",)
    assert vendor.calls(ConvolutionProblem(1, 8, 8, 8, 8, filter_size=1)) == (
        "cublas_linear",
        "cudnn_nhwc",
        "cudnn_nchw",
    )
    assert vendor.calls(ConvolutionProblem(1, 8, 8, 8, 8, stride=2)) == ("cudnn_nhwc", "cudnn_nchw")
    for nothing in (
        LayerNormProblem(8, 8),
        GemmProblem(8, 8, 8, bias=True),
        ConvolutionProblem(1, 8, 8, 8, 8, relu=True),
    ):
        assert vendor.calls(nothing) == ()


# ---- arithmetic ----

Times = Mapping[str, tuple[float, float]]


def timing(name: str, median_us: float, samples: int = 3) -> Timing:
    family: Any = name.partition(" ")[0]
    return Timing(name, family, median_us, median_us, median_us, (median_us,) * samples)


def result(
    name: str,
    times: Times,
    *,
    accepted: bool = True,
    control: bool = False,
    kernel_class: str = "gemm float32",
    regret: Regret | None = None,
    choice: str = "intra_block",
    alone: tuple[float, float] = (100.0, 60.0),
) -> CaseResult:
    """A case from the tuning and judging medians of its ways; `first` and `second` are always there."""
    every = {"first": (alone[0], alone[0]), "second": (alone[1], alone[1]), **times}
    return CaseResult(
        name=name,
        problems=("a", "b"),
        kernel_class=kernel_class,
        ratio=0.5,
        is_control=control,
        decision=Decision(*alone, 2.0, 0.05, True, 1.3, accepted),
        tuning=tuple(timing(way, tuned) for way, (tuned, _) in every.items()),
        judging=tuple(timing(way, judged) for way, (_, judged) in every.items()),
        choice=choice,
        same_bits=True,
        regret=regret,
    )


PLAIN = {"sequential": (160.0, 160.0), "elastic": (140.0, 140.0), "library": (120.0, 120.0)}


def test_a_group_is_judged_by_its_winner_on_tuning_samples() -> None:
    """Streams were faster when tuning, and slower when judged: the judged time of streams counts."""
    one = result(
        "a", {"sequential": (160, 160), "streams": (150, 170), "intra_block": (100, 100), "intra_thread": (99, 110)}
    )
    numbers = row(one)
    assert numbers["simple_us"] == 170
    assert numbers["fused_us"] == 110
    assert numbers["fused"] == "intra_thread"
    assert numbers["gains"]["simple"] == pytest.approx(170 / 110)


def test_gains_over_each_baseline() -> None:
    numbers = row(result("a", {**PLAIN, "intra_block": (110.0, 110.0)}))
    assert numbers["gains"] == {
        "simple": pytest.approx(160 / 110),
        "simple_and_elastic": pytest.approx(140 / 110),
        "everything": pytest.approx(120 / 110),
        "everything_in_our_layout": pytest.approx(140 / 110),
        "elastic": pytest.approx(140 / 110),
        "library": pytest.approx(120 / 110),
    }
    # 160 / max(100, 60) is the most there is to gain; (1.4545 - 1) / (1.6 - 1) of it was.
    assert numbers["bound"] == pytest.approx(1.6)
    assert numbers["share_of_bound"] == pytest.approx((160 / 110 - 1) / 0.6)
    assert numbers["measured_ratio"] == pytest.approx(0.6)


def test_what_did_not_run_has_no_number() -> None:
    numbers = row(result("a", {"sequential": (160, 160)}))
    assert numbers["fused_us"] is numbers["gains"]["simple"] is numbers["intervals"]["simple"] is None
    assert "-" in table([result("a", {"sequential": (160, 160)})])
    assert result("a", {}).bound_us == 100


@pytest.mark.parametrize(
    ("gain", "word"), [(1.021, "win"), (1.019, "tie"), (1.0, "tie"), (0.981, "tie"), (0.979, "loss")]
)
def test_less_than_two_percent_is_a_tie(gain: float, word: str) -> None:
    assert verdict(gain) == word


def test_families_within_two_percent_share_the_first_place() -> None:
    one = result(
        "a", {"sequential": (160, 160), "elastic": (101.9, 101.9), "intra_block": (100, 100), "graph": (102.1, 102.1)}
    )
    assert fastest_families(one) == ["intra_block", "elastic"]


def test_geometric_mean() -> None:
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
    assert geometric_mean([]) is None


def test_what_no_library_was_compared_with_is_not_called_everything() -> None:
    one = row(result("a", {"sequential": (160, 160), "elastic": (140, 140), "intra_block": (100, 100)}))
    assert one["gains"]["simple_and_elastic"] == 1.4
    assert one["gains"]["everything"] is one["gains"]["everything_in_our_layout"] is None
    assert one["intervals"]["everything"] is None


def test_a_fused_winner_with_other_bits_is_named_beside_the_table() -> None:
    wrong = replace(study()[0], same_bits=False)
    assert "did not compute the bits" not in study_text(study())
    (line,) = [line for line in study_text([wrong]).splitlines() if "did not compute the bits" in line]
    assert line.startswith(f"{wrong.name}: ")


def test_numbers_of_the_summary_stand_under_one_another() -> None:
    lines = [line for line in study_text(study()).splitlines() if line.startswith("geometric mean")]
    assert len(lines) > 3
    assert len({len(line) for line in lines if not line.endswith("met") and "missed" not in line}) == 1


def test_the_interval_of_a_gain_is_that_of_paired_rounds() -> None:
    slow = Timing("slow", "sequential", 0, 0, 0, (110.0, 220.0, 110.0, 220.0, 110.0))
    fast = Timing("fast", "intra_block", 0, 0, 0, (100.0, 200.0, 100.0, 200.0, 100.0))
    # The clock moves both alike, so the gain is exact although the times are not.
    assert list(gain_interval(slow, fast)) == pytest.approx([1.1, 1.1])
    noisy = Timing("noisy", "sequential", 0, 0, 0, (100.0, 120.0, 110.0, 130.0, 90.0))
    low, high = gain_interval(noisy, Timing("f", "intra_block", 0, 0, 0, (100.0,) * 5))
    assert 0.9 <= low < 1.1 < high <= 1.3


def test_regret_is_relative_to_the_best_of_all_ways() -> None:
    found = regret_of("mine", {"mine": [103.0, 102.0, 104.0], "other": [100.0, 99.0, 101.0], "worse": [110.0]})
    assert (found.ways, found.best, found.best_us, found.choice_us) == (3, "other", 100.0, 103.0)
    assert found.regret == pytest.approx(0.03)


def test_targets() -> None:
    assert Target("gain", 1.25, 1.25).met
    assert Target("gain", 1.25, 1.24).met is False
    assert Target("regret", 0.03, 0.02, at_least=False).met
    assert Target("regret", 0.03, None, at_least=False).met is None


REJECTED: dict[str, Any] = {"accepted": False, "choice": "sequential"}


def study() -> list[CaseResult]:
    """Gains over simple: 2 and 1.28 accepted (fp32 and fp16), 1.1 rejected; a control that was rejected."""
    return [
        result("gemm_f32+gemv@0.5", {**PLAIN, "intra_block": (80, 80)}, regret=Regret(9, "x", 102, "y", 100, 0.02)),
        result(
            "conv3x3_f16+layer_norm@0.5",
            {**PLAIN, "inter_block_ticket": (125, 125)},
            kernel_class="convolution_3x3 float16",
            choice="elastic",
        ),
        result(
            "conv3x3_f32+softmax@0.5",
            {"sequential": (110, 110), "intra_block": (100, 100)},
            accepted=False,
            choice="sequential",
        ),
        result("layer_norm+gemv", {"sequential": (100, 100), "intra_block": (125, 125)}, accepted=False, control=True),
    ]


def test_the_summary_by_hand() -> None:
    found = summarise(study())
    assert (found["cases"], found["accepted"], found["controls"], found["controls_rejected"]) == (3, 2, 1, 1)
    accepted = found["accepted_cases"]
    assert accepted["simple"]["geometric_mean"] == pytest.approx((2.0 * 1.28) ** 0.5)
    assert (accepted["simple"]["best"], accepted["simple"]["least"]) == (pytest.approx(2.0), pytest.approx(1.28))
    assert (accepted["simple"]["win"], accepted["everything"]["win"], accepted["everything"]["loss"]) == (2, 1, 1)
    assert accepted["simple_and_elastic"]["geometric_mean"] == pytest.approx((140 / 80 * 140 / 125) ** 0.5)
    assert found["accepted_fp32_cases"]["everything"]["geometric_mean"] == pytest.approx(120 / 80)
    assert found["accepted_fp16_cases"]["cases"] == 1
    # The rejected case counts as 1, the control not at all.
    assert found["all_cases_rejected_as_1"]["simple"] == pytest.approx((2.0 * 1.28) ** (1 / 3))
    assert found["all_cases_fused"]["simple"]["geometric_mean"] == pytest.approx((2.0 * 1.28 * 1.1) ** (1 / 3))
    # The tuner ran intra-block (80), elastic (140) and sequential (110).
    assert found["all_cases_as_tuned"]["simple"] == pytest.approx((160 / 80 * 160 / 140 * 1.0) ** (1 / 3))
    assert found["controls_gain_over_simple"] == {"layer_norm+gemv": pytest.approx(0.8)}
    assert found["regret"] == {"gemm_f32+gemv@0.5": 0.02}
    assert found["fastest"]["intra_block"] == {"fastest": 2, "fastest_or_tied": 2}
    assert found["fastest"]["inter_block_ticket"] == {"fastest": 1, "fastest_or_tied": 1}
    assert found["fastest"]["elastic"]["fastest"] == 0
    assert found["same_bits"] is True


def test_targets_are_those_of_the_issue_and_say_by_how_much_one_was_missed() -> None:
    found = summarise(study())
    by_name = {one["what"]: one for one in found["targets"]}
    assert by_name["accepted cases"]["met"] is False
    over = by_name["geometric mean over everything with the library, accepted fp32 cases"]
    assert (over["asked"], over["measured"], over["met"]) == (1.05, pytest.approx(1.5), True)
    assert by_name["best gain over simple, accepted cases"]["asked"] == 1.55
    assert by_name["controls rejected"]["met"] is True
    text = summary_text(found)
    assert "missed by 6" in text
    assert text.count("met") >= 5


def test_a_table_fits_a_terminal_and_says_what_it_left_out() -> None:
    whole = table(study())
    assert max(map(len, whole.splitlines())) > 90
    for width in (100, 80, 70):
        *lines, last = table(study(), width).splitlines()
        assert max(map(len, lines)) <= width
        assert len(lines) == 1 + len(study())
        gone = last.removeprefix("left out for the width: ").split(", ")
        kept = [name for name in ("first", "second", "ratio", "rule", "elastic") if name in lines[0].split()]
        assert gone
        assert not set(gone) & set(kept)
        assert "fused" in lines[0]
    assert table(study(), 1000) == whole
    alone = [replace(one, tuning=one.tuning[:1], judging=one.judging[:1]) for one in study()]
    # Without a number there, `second` goes before `first`, which has one.
    assert table(alone, len(table(alone).splitlines()[0]) - 1).splitlines()[-1] == "left out for the width: second"
    assert max(map(len, study_text(study(), Budget(8, 132, 0.5), 80).splitlines())) <= 80


def test_nothing_was_asked_of_other_pairs_and_of_a_part_of_a_gpu() -> None:
    other = [*study(), result("mine", PLAIN)]
    budget = Budget(8, 132, 0.5)
    assert summarise(other)["targets"] == summarise(study(), budget)["targets"] == summarise([])["targets"] == []
    assert "at least" in study_text(study())
    assert "at least" not in study_text(other)
    assert study_text(study(), budget).splitlines()[-1].startswith("measured on 8 of 132 SMs")
    assert study_text(other[:1]) == table(other[:1])


def test_an_empty_study_has_nothing_measured() -> None:
    assert summarise([])["accepted_cases"]["simple"]["geometric_mean"] is None


def test_a_target_that_was_not_measured_is_neither_met_nor_missed() -> None:
    assert "not measured" in summary_text(summarise(study()[1:2]))


def test_predictions_are_calibrated_on_tuning_and_judged_on_judging_samples() -> None:
    exact = predicted_time_s(100.0, 60.0, 2.0)
    one = result("a", {"intra_block": (exact, 1.25 * exact)})
    found = predictions([one])
    assert found.p == {"gemm float32": pytest.approx(2.0)}
    assert found.held_out == pytest.approx(0.2)
    assert predictions([result("b", {})]).cases == 0


# ---- measuring ----


def cost_us(kernel: Kernel) -> float:
    """Compute 1000, memory 800; fused 1300 within blocks of 128 more threads, else 1700."""
    if len(kernel.bodies) == 2:
        group = isinstance(kernel.strategy, IntraBlock) and kernel.strategy.second_threads == 128
        return 1300.0 if group else 1700.0
    return 1000.0 if kernel.bodies[0].block_granular else 800.0


@pytest.fixture
def lab() -> Lab:
    return Lab(TimedRuntime(cost_us=cost_us), no_compiler())


SUBJECT = Subject("gemm+layer_norm", GemmProblem(256, 256, 256), LayerNormProblem(64, 512), 0.8)
CONTROL = Subject("norms", LayerNormProblem(64, 512), SoftmaxProblem(64, 512), 1.0, is_control=True)


def test_a_case_is_tuned_and_judged(lab: Lab) -> None:
    lab.families = families(["sequential", "intra_block", "inter_block_static"])
    found = measure(lab, SUBJECT, exhaustive=True)
    assert {one.family for one in found.judging} == {
        "first",
        "second",
        "sequential",
        "intra_block",
        "inter_block_static",
    }
    numbers = row(found)
    assert (numbers["simple_us"], numbers["fused_us"]) == (pytest.approx(1800), pytest.approx(1300))
    assert all(len(one.samples_us) == lab.judging.samples for one in found.judging)
    assert all(len(one.samples_us) == lab.rungs[-1].samples for one in found.tuning)
    assert found.decision.predicted_gain == pytest.approx(1800 / predicted_time_s(1000, 800))
    assert found.decision.first_over_ridge == pytest.approx(2 * 256**3 / (3 * 4 * 256**2) / 11.5)
    assert found.decision.accepted
    assert found.regret is not None
    assert found.regret.regret == pytest.approx(0, abs=1e-9)
    assert found.choice.startswith("intra_block_128")
    assert found.failures == ()


def test_a_control_is_measured_and_rejected(lab: Lab) -> None:
    found = measure(lab, CONTROL)
    assert not found.decision.accepted
    assert found.regret is None
    # Nothing but the fastest bodies.
    assert {name.partition(": ")[2] for name, family, _, _ in found.table if family == "sequential"} == {
        "layer_norm_f32_w4x4e_r1 + softmax_f32_w4x4e_r1"
    }


def test_memory_is_given_back(lab: Lab) -> None:
    runtime = lab.runtime
    assert isinstance(runtime, TimedRuntime)
    measure(lab, CONTROL)
    counters = {buffer.address for buffer in lab.executor._counters.values()}
    assert set(runtime._memory) == counters


def test_bodies_are_screened_once_for_each_kind(lab: Lab) -> None:
    short, long = LayerNormProblem(64, 512), LayerNormProblem(128, 512)
    assert lab.bodies(short) is lab.bodies(long)
    assert lab.bodies(GemmProblem(256, 256, 16)) is not lab.bodies(GemmProblem(256, 512, 16))


def test_kernels_are_compiled_ahead_and_what_cannot_run_is_named(lab: Lab) -> None:
    odd = Subject("odd", SkinnyGemmProblem(1, 64, 512), linear(64, 64, 64))
    lab.runtime.facts = replace(lab.runtime.facts, sm=53)  # type: ignore[misc]
    lines: list[str] = []
    failures = screen_all(lab, [CONTROL, odd], lines.append)
    assert len(failures) == 1
    assert failures[0].startswith("odd: convolution_1x1 in float16 needs tensor cores")
    assert any(line.startswith("softmax float32: ") for line in lines)
    assert lab.queue.added  # type: ignore[attr-defined]


def test_what_is_known_of_a_pair_narrows_the_fused_ways(lab: Lab) -> None:
    known = measure(lab, SUBJECT)
    lab.prior = [known]
    longer = replace(SUBJECT, name="longer", second=LayerNormProblem(128, 512))
    narrowed, every = lab.ways(longer), Lab(lab.runtime, lab.queue).ways(longer)

    def names(ways: list[Candidate], *, fused: bool) -> set[str]:
        return {way.name for way in ways if (way.strategy is not None) == fused}

    assert names(narrowed, fused=False) == names(every, fused=False)
    assert names(narrowed, fused=True) < names(every, fused=True)
    best = {name for name, family, rung, _ in known.table if family in FUSED and rung > 0}
    plain = {re.sub(r" x\d+| carveout 100%", "", name) for name in best}
    assert {re.sub(r" x1", "", name) for name in names(narrowed, fused=True)} == plain
    # Of other kinds of kernels nothing is known.
    other = replace(SUBJECT, second=SoftmaxProblem(64, 512))
    assert names(lab.ways(other), fused=True) == names(Lab(lab.runtime, lab.queue).ways(other), fused=True)


def test_balance_scales_the_second_problem(lab: Lab) -> None:
    scaled = lab.balance(SUBJECT, 0.4)
    # 800 us for 64 rows, twice: each time 0.4 * 1000 / 800 as many rows, in steps of 8.
    assert scaled.second == LayerNormProblem(16, 512)


# ---- on disk ----


def test_results_survive_the_way_through_a_file(tmp_path: Path) -> None:
    results = study()
    files = CaseFiles(tmp_path / "cases", {"device": "this"})
    for one in results:
        files.write(one)
        assert files.read(one.name) == one
    assert CaseFiles(tmp_path / "cases", {"device": "another"}).read("gemm_f32+gemv@0.5") is None
    assert files.read("never measured") is None
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", path.name) for path in files.folder.iterdir())
    assert not files.has_failed("layer_norm+gemv")
    files.note_failure("layer_norm+gemv", "it failed.")
    assert files.has_failed("layer_norm+gemv")
    files.path("layer_norm+gemv").write_text("{")
    assert files.read("layer_norm+gemv") is None


def test_the_document_holds_everything(tmp_path: Path, lab: Lab) -> None:
    place = tmp_path / "study.json"
    place.write_text(document(study(), IDENTITY, protocol_of(lab)))
    results, content = read_document(place)
    assert results == study()
    assert content["summary"]["accepted"] == 2
    assert content["protocol"]["judging"] == {"samples": 21, "repeats": 3, "keep": 0}
    assert [one["case"] for one in content["rows"]] == [one.name for one in results]
    # One case a line, so that a difference can be read.
    assert len(place.read_text().partition('"cases": [\n')[2].splitlines()) == len(results) + 2


@pytest.mark.parametrize("broken", [{"identity": 1}, {"protocol": 1}, {"protocol": {"budget": {"cores": 8}}}])
def test_what_is_no_study_is_one_sentence(tmp_path: Path, lab: Lab, broken: dict[str, Any]) -> None:
    place = tmp_path / "study.json"
    place.write_text(json.dumps(json.loads(document(study(), IDENTITY, protocol_of(lab))) | broken))
    with pytest.raises(InputError, match="this is no study of fused kernels"):
        read_document(place)


WRONG: list[Any] = [None, True, "tea", -1, 0, 1e308, math.nan, math.inf, 10**400, [], {}, "\x1b[2J", "\ud800"]


def places_in(content: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return the keys that lead to every part, of lists only the first entry."""
    if at:
        yield at
    held = content.items() if isinstance(content, dict) else list(enumerate(content))[:1]
    for key, part in held:
        if isinstance(part, dict | list):
            yield from places_in(part, (*at, key))
        else:
            yield (*at, key)


def test_whatever_a_file_says_is_read_or_refused_in_a_sentence(tmp_path: Path, lab: Lab) -> None:
    """Every part of a study, replaced by what it cannot be or left out: a table and a report, or one sentence."""
    whole = json.loads(document(study()[:1], IDENTITY, protocol_of(lab)))
    whole["protocol"]["budget"] = {"sms": 8, "of": 132, "eater_strength": 1.0}
    whole["cases"][0]["eaten_bytes_per_s"] = 1e12
    del whole["rows"], whole["summary"]
    place = tmp_path / "study.json"
    sentences = []
    for at in places_in(whole):
        for wrong in (*WRONG, ...):
            changed = json.loads(json.dumps(whole))
            into = functools.reduce(lambda part, key: part[key], at[:-1], changed)
            if wrong is ...:
                del into[at[-1]]
            else:
                into[at[-1]] = wrong
            place.write_text(json.dumps(changed))
            try:
                results, content = read_document(place)
            except InputError as error:
                sentences.append(str(error))
                continue
            text = study_text(results, budget_of(content["protocol"]))
            assert text.replace("\n", "").isprintable()
            written = json.loads(document(results, content["identity"], content["protocol"]))
            FORMATS[".md"](FusionDocuments(written, Settings()))
    assert len(sentences) > 500
    assert all(one.startswith(f"{place}: ") and one.isprintable() for one in sentences)


@pytest.mark.parametrize("text", ["[" * 100_000, "\xff", '{"format": 1'])
def test_what_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    place = tmp_path / "study.json"
    place.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match="this is no study of fused kernels"):
        read_document(place)


def test_ways_judged_in_other_rounds_are_refused(tmp_path: Path, lab: Lab) -> None:
    whole = json.loads(document(study(), IDENTITY, protocol_of(lab)))
    whole["cases"][1]["judging"][0]["samples_us"].append(1.0)
    place = tmp_path / "study.json"
    place.write_text(json.dumps(whole))
    with pytest.raises(
        InputError, match=f"the ways of {re.escape(study()[1].name)} were not judged in the same rounds"
    ):
        read_document(place)


def test_a_table_of_a_large_study_is_there_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals, which take long, are only computed where they are shown: once for each baseline of a case."""
    computed: list[str] = []

    def interval(slow: Timing, fast: Timing) -> tuple[float, float]:
        computed.append(slow.name)
        return 1.0, 1.0 + (fast.median_us < 0)

    monkeypatch.setattr(study_summary, "gain_interval", interval)
    study_text(study())
    assert len(computed) <= len(study_summary.BASELINES) * len(study())


def test_parts_are_put_together_in_the_committed_order(tmp_path: Path, lab: Lab) -> None:
    names = [one.name for one in subjects()[:3]]
    parts = [result(name, {**PLAIN, "intra_block": (100, 100)}) for name in names]
    places = [tmp_path / "late.json", tmp_path / "early.json"]
    for place, results in zip(places, (parts[1:], parts[:1]), strict=True):
        place.write_text(document(results, IDENTITY, protocol_of(lab)))
    whole = tmp_path / "study.json"
    whole.write_text(merged(places))
    results, content = read_document(whole)
    assert [one.name for one in results] == names
    assert content["summary"]["accepted"] == 3
    with pytest.raises(InputError, match="is in another part as well"):
        merged([places[0], whole])
    places[1].write_text(document(parts[:1], {**IDENTITY, "nvrtc": "12.9"}, protocol_of(lab)))
    with pytest.raises(InputError, match="its identity is not that of"):
        merged(places)
    with pytest.raises(InputError, match="there is no part"):
        merged([])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "cases": [{}]}', '{"format": 99, "cases": []}'])
def test_another_document_is_refused(tmp_path: Path, text: str) -> None:
    place = tmp_path / "study.json"
    place.write_text(text)
    with pytest.raises(InputError):
        read_document(place)
    with pytest.raises(InputError, match="cannot be read"):
        read_document(tmp_path / "nowhere.json")


def test_names_of_ways_fit_the_families() -> None:
    way = Candidate("intra_block", (None, None), IntraBlock(128), carveout_percent=100)
    assert way.name.startswith("intra_block_128 carveout 100%")


@pytest.fixture(scope="module")
def committed() -> tuple[int, dict[str, CaseResult]]:
    """Return the architecture of the committed study, and its results by the names of their cases."""
    results, content = read_document(STUDY)
    return content["identity"]["device"]["sm"], {result.name: result for result in results}


@pytest.mark.parametrize("subject", subjects(), ids=lambda subject: subject.name)
def test_every_way_of_the_committed_study_is_found_by_its_name(
    subject: Subject, committed: tuple[int, dict[str, CaseResult]]
) -> None:
    sm, results = committed
    result = results[subject.name]
    expected: dict[str, str] = {one.name: one.family for one in (*result.tuning, *result.judging)}
    expected |= {name: family for name, family, _, _ in result.table}
    assert result.choice in expected
    found = candidates_named(expected, (subject.first, subject.second), sm)
    assert {name: way.family for name, way in found.items()} == expected
    assert all(way.name == name for name, way in found.items())


def test_one_way_is_found_by_its_name_and_what_is_none_is_not() -> None:
    problems = (GemmProblem(1024, 1024, 256), LayerNormProblem(4096, 512))
    # A form for blocks of its own, made of the body with two rows at once, which is not the first that is thought of.
    name = "inter_block_ticket_drain x3: gemm_f32_128x64_t256_a4_w4 + layer_norm_f32_w4x4e_r32t2"
    way = candidate_named(name, problems, 90)
    assert way is not None
    assert way.name == name
    library = candidate_named("library (in turn): cublas_nn + layer_norm_f32_w4x4e_r1", problems, 90)
    assert library == Candidate("library", (None, MemoryBody("layer_norm", exact=True)), call="cublas_nn")
    assert candidate_named("tea", problems, 90) is None
    assert candidate_named(name.replace("x3", "x99"), problems, 90) is None
