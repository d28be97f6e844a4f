from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fused_kernels.timed_runtime import FITS, NoCompiler, TimedRuntime, named, no_compiler
from nitro.errors import InputError, ToolError
from nitro.fused_kernels import nvrtc, tuner
from nitro.fused_kernels.candidates import Candidate, carveout_twins
from nitro.fused_kernels.compile_queue import CompileQueue
from nitro.fused_kernels.compute_bodies import ComputeBody
from nitro.fused_kernels.memory_bodies import MemoryBody
from nitro.fused_kernels.problems import GemmProblem, LayerNormProblem
from nitro.fused_kernels.pruning import fitted
from nitro.fused_kernels.strategies import Alone, IntraBlock, Kernel, single_kernel
from nitro.fused_kernels.tuner import (
    Choice,
    Rung,
    TuningCache,
    choose_way,
    chosen,
    halve,
    screened_bodies,
    source_digest,
    tune,
)
from nitro.fused_kernels.ways import all_ways
from nitro.fused_kernels.workbench import Workbench

GEMM = ComputeBody("gemm", stages=4)
NORM = MemoryBody("layer_norm", exact=True)
PROBLEMS = (GemmProblem(256, 128, 16), LayerNormProblem(64, 512))


class Stopwatch:
    """Gives candidates the times that a test says, a list for each rung, and remembers who was measured."""

    def __init__(self, **times: list[float]) -> None:
        self.times = times
        self.rungs: list[list[str]] = []

    def __call__(self, wanted: Sequence[Candidate], rung: Rung) -> dict[str, list[float]]:
        self.rungs.append([str(one.call) for one in wanted])
        at = len(self.rungs) - 1
        return {one.name: [self.times[str(one.call)][at]] * rung.samples for one in wanted if one.call in self.times}


def entry(call: str, family: str = "library") -> Candidate:
    return Candidate(family, (None, NORM), call=call)  # type: ignore[arg-type]


def test_the_best_of_each_family_go_on() -> None:
    watch = Stopwatch(a=[1, 5, 5], b=[2, 4, 4], c=[3, 1, 1], d=[9, 9, 9])
    entries = [entry("a"), entry("b"), entry("c"), entry("d", "library_elastic")]
    race = halve(entries, watch, rungs=(Rung(1, 1, 2), Rung(1, 1, 1), Rung(1, 1, 1)))
    assert watch.rungs == [["a", "b", "c", "d"], ["a", "b", "d"], ["b", "d"]]
    # c would have been faster later on; d is slow, and still the best of its family.
    assert {family: ranked.name for family, ranked in race.winners.items()} == {
        "library": entry("b").name,
        "library_elastic": entry("d", "library_elastic").name,
    }


def test_a_rung_decides_by_its_own_samples_alone() -> None:
    watch = Stopwatch(lucky=[1, 8], steady=[5, 5])
    race = halve([entry("lucky"), entry("steady")], watch, rungs=(Rung(3, 1, 2), Rung(3, 1, 1)))
    assert race.winners["library"].name == entry("steady").name
    assert race.winners["library"].samples_us == (5, 5, 5)
    assert race.best("library", "elastic") == race.winners["library"]
    assert race.best("elastic") is None


def test_who_cannot_run_is_out() -> None:
    race = halve([entry("gone"), entry("here")], Stopwatch(here=[7]), rungs=(Rung(1, 1, 1),))
    assert [one.name for one in race.ranked] == [entry("here").name]


def test_variants_join_after_the_first_rung() -> None:
    watch = Stopwatch(a=[1, 3], b=[2, 2], twin=[9, 1])
    race = halve(
        [entry("a"), entry("b")],
        watch,
        rungs=(Rung(1, 1, 1), Rung(1, 1, 1)),
        twins=lambda one: [entry("twin")] if one.call == "a" else [],
    )
    assert watch.rungs == [["a", "b"], ["a", "twin"]]
    assert race.winners["library"].name == entry("twin").name


def cost_us(kernel: Kernel) -> float:
    """Alone 60 and 50; fused with 128 threads for the second 80, else 200."""
    if len(kernel.bodies) == 2:
        return 80.0 if isinstance(kernel.strategy, IntraBlock) and kernel.strategy.second_threads == 128 else 200.0
    return 60.0 if kernel.bodies[0].block_granular else 50.0


@pytest.fixture
def runtime() -> TimedRuntime:
    return TimedRuntime(cost_us=cost_us)


def test_what_is_measured_on_a_device_decides(runtime: TimedRuntime) -> None:
    ways, _ = fitted(all_ways([GEMM], [NORM]), {}, 80)
    # Streams that overlap perfectly cannot be beaten: leave them out.
    entries = [way for way in ways if way.family in ("sequential", "intra_block", "inter_block_static")]
    bench = Workbench(runtime, PROBLEMS)
    tuning = tune(bench, entries)
    bench.close()
    choice = chosen(tuning)
    assert choice.candidate.strategy is not None
    assert choice.candidate.family == "intra_block"
    assert choice.median_us == pytest.approx(80)
    assert choice.unfused_us == pytest.approx(110)
    assert choice.gain == pytest.approx(110 / 80)
    # Preferences for shared memory took part, of each family's best.
    assert {one.carveout_percent for one in tuning.entered.values()} == {None, 100}


def test_fusion_is_not_chosen_where_it_loses(runtime: TimedRuntime) -> None:
    choice, _ = choose_way(runtime, *PROBLEMS, queue=no_compiler())
    # The streams of this device overlap perfectly: 60 against 80.
    assert not choice.is_fused
    assert choice.gain == 1.0
    assert choice.median_us == pytest.approx(60)


def test_no_way_at_all_is_an_error() -> None:
    with pytest.raises(ToolError, match="no way to run the pair works on this device: there was none to run"):
        chosen(tune(Workbench(TimedRuntime(), PROBLEMS), []))


def test_screening_times_bodies_alone() -> None:
    slow = single_kernel(replace(NORM, rows=1), Alone()).name
    device = TimedRuntime(cost_us=lambda kernel: 90.0 if kernel.name == slow else 40.0)
    found = screened_bodies(device, PROBLEMS[1], no_compiler())
    assert [(one.rows, one.together) for one in found if isinstance(one, MemoryBody)] == [(8, 1), (8, 2)]


def test_a_problem_that_nothing_fits_is_an_error() -> None:
    class Broken(NoCompiler):
        def resources(self, kernels):  # type: ignore[no-untyped-def]
            return {kernel.name: replace(FITS, registers=255, static_shared_bytes=1 << 20) for kernel in kernels}

    queue: CompileQueue = Broken()  # type: ignore[assignment]
    with pytest.raises(ToolError, match="no body runs LayerNormProblem"):
        screened_bodies(TimedRuntime(), PROBLEMS[1], queue)


# ---- the cache ----


@pytest.fixture
def compiler_12_9(monkeypatch: pytest.MonkeyPatch) -> None:
    class Version:
        version = (12, 9)

    monkeypatch.setattr(nvrtc, "find", lambda: Version)


@pytest.mark.usefixtures("compiler_12_9")
def test_a_choice_is_remembered(runtime: TimedRuntime, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "tuning.json"
    first, tuning = choose_way(runtime, *PROBLEMS, cache=TuningCache(path, runtime.facts), queue=no_compiler())
    assert tuning is not None
    runtime.launches.clear()
    cache = TuningCache(path, runtime.facts)
    again, nothing = choose_way(runtime, *PROBLEMS, cache=cache, queue=no_compiler())
    assert nothing is None
    assert again == first
    assert runtime.launches == []
    # The whole table is kept, not only the winner.
    (stored,) = json.loads(path.read_text())["entries"].values()
    assert len(stored["table"]) == len(tuning.race.ranked)


@pytest.mark.usefixtures("compiler_12_9")
def test_a_remembered_choice_with_a_preference_is_found_by_its_name(runtime: TimedRuntime, tmp_path: Path) -> None:
    cache = TuningCache(tmp_path / "tuning.json", runtime.facts)
    way = carveout_twins(Candidate("intra_block", (GEMM, NORM), IntraBlock(128, drain=True), blocks_per_sm=3))[0]
    key = cache.key(*PROBLEMS, runtime.facts, (12, 9))
    race = halve([], Stopwatch(), rungs=())
    cache.keep(key, Choice(way, 5.0, 5.0), race, PROBLEMS)
    held, _ = choose_way(runtime, *PROBLEMS, cache=TuningCache(cache.path, runtime.facts), queue=no_compiler())
    assert held == Choice(way, 5.0, 5.0)


@pytest.mark.usefixtures("compiler_12_9")
def test_asking_again_measures_again(runtime: TimedRuntime, tmp_path: Path) -> None:
    cache = TuningCache(tmp_path / "tuning.json", runtime.facts)
    for _ in range(2):
        _, tuning = choose_way(runtime, *PROBLEMS, cache=cache, queue=no_compiler(), remembered=False)
        assert tuning is not None


def test_a_choice_belongs_to_shapes_driver_compiler_and_source(
    runtime: TimedRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = runtime.facts
    cache = TuningCache(tmp_path / "tuning.json", facts)
    first, second = PROBLEMS
    keys = {
        cache.key(first, second, facts, (12, 9)),
        cache.key(replace(first, rows=512), second, facts, (12, 9)),
        cache.key(first, replace(second, dtype="float16"), facts, (12, 9)),
        cache.key(first, second, replace(facts, driver="13010"), (12, 9)),
        cache.key(first, second, facts, (13, 0)),
    }
    monkeypatch.setattr(tuner, "source_digest", lambda: "another source")
    keys.add(cache.key(first, second, facts, (12, 9)))
    assert len(keys) == 6


def test_a_cache_of_another_device_is_refused(runtime: TimedRuntime, tmp_path: Path) -> None:
    path = tmp_path / "tuning.json"
    cache = TuningCache(path, replace(runtime.facts, name="Orin", sm=87, sms=16))
    cache.keep("key", Choice(Candidate("sequential", (GEMM, NORM)), 1.0, 1.0), halve([], Stopwatch()), PROBLEMS)
    with pytest.raises(InputError) as caught:
        TuningCache(path, runtime.facts)
    assert str(caught.value) == (
        f"{path}: this was tuned on Orin (sm_87, 16 SMs), and this is emulation on the CPU (sm_80, 3 SMs); "
        "name another file with --cache, or remove it."
    )


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', '{"format": 1, "device": {}, "entries": []}'])
def test_a_file_that_is_no_cache_is_refused(runtime: TimedRuntime, tmp_path: Path, text: str) -> None:
    path = tmp_path / "tuning.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"tuning\.json: this (is no tuning cache|tuning cache has format)"):
        TuningCache(path, runtime.facts)


@pytest.mark.parametrize("held", [{}, {"choice": "tea"}, {"choice": 3, "median_us": 1}])
def test_an_entry_that_makes_no_sense_is_tuned_anew(
    runtime: TimedRuntime, tmp_path: Path, held: dict[str, object]
) -> None:
    path = tmp_path / "tuning.json"
    device = {"name": runtime.facts.name, "sm": runtime.facts.sm, "sms": runtime.facts.sms}
    path.write_text(json.dumps({"format": 1, "device": device, "entries": {"key": held}}))
    assert TuningCache(path, runtime.facts).find("key", [Candidate("sequential", (GEMM, NORM))]) is None


def test_a_cache_that_cannot_be_written_is_named(runtime: TimedRuntime, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = TuningCache(tmp_path / "file2.json", runtime.facts)
    cache.path = tmp_path / "file" / "tuning.json"
    with pytest.raises(InputError, match=r"cannot be written \(.*\); choose another place"):
        cache.keep("key", Choice(Candidate("sequential", (GEMM, NORM)), 1.0, 1.0), halve([], Stopwatch()), PROBLEMS)


def test_the_source_digest_is_stable() -> None:
    assert source_digest() == source_digest()
    assert len(named(all_ways([GEMM], [NORM]))) > 10
