"""The space that the tuner searches, and what is left out of it without a GPU."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from fused_kernels.timed_runtime import FITS
from nitro.errors import UsageError
from nitro.fused_kernels.bodies import Body
from nitro.fused_kernels.candidates import FUSED, OURS, Candidate, carveout_twins, kernels_of
from nitro.fused_kernels.compute_bodies import ComputeBody
from nitro.fused_kernels.memory_bodies import MemoryBody
from nitro.fused_kernels.problems import (
    ConvolutionProblem,
    GemmProblem,
    LayerNormProblem,
    Problem,
    SkinnyGemmProblem,
    linear,
)
from nitro.fused_kernels.pruning import MOST_SPILLED_BYTES, fitted, is_co_resident
from nitro.fused_kernels.strategies import (
    InterBlockTicket,
    IntraBlock,
    IntraThread,
    check_kernel,
    pair_kernel,
    registers_at_start,
)
from nitro.fused_kernels.teams import coarser, lean, staged, teams
from nitro.fused_kernels.ways import all_ways, fused_strategies, plausible_bodies, shortlist

GEMM = ComputeBody("gemm", stages=4)
NORM = MemoryBody("layer_norm")


def test_doing_without_fusion_is_always_among_the_ways() -> None:
    found = Counter(candidate.family for candidate in all_ways([GEMM], [NORM]))
    assert all(found[family] for family in OURS)
    assert found["streams"] == 4
    assert found["graph"] == 2
    # Either half capped, first or left to the GPU, with either division of the L1.
    tiles = {GEMM, *(team.body for team in teams(GEMM))}
    assert found["elastic"] == 2 * 2 * 2 * len(tiles)
    # The second in blocks of its own, and staged on a capped grid.
    assert found["sequential"] == 2
    assert found["library"] == 0


def test_a_library_stands_in_the_place_of_the_first_body() -> None:
    ways = [one for one in all_ways([GEMM], [NORM], calls=["cublas_nn"]) if one.call]
    assert [one.submission for one in ways if one.family == "library"] == [
        "in turn",
        "at once",
        "first, second",
        "second, first",
        "second urgent",
    ]
    assert all(one.bodies == (None, NORM) and len(one.kernels) == 1 for one in ways)


def test_names_tell_candidates_apart() -> None:
    bodies = ([GEMM, replace(GEMM, tile_n=128)], [NORM, replace(NORM, rows=8)])
    ways, _ = fitted(all_ways(*bodies, calls=["cublas_nn", "cublas_nt"]), {}, 90)
    ways += [twin for way in ways for twin in carveout_twins(way)]
    assert len({way.name for way in ways}) == len(ways)


def test_elastic_ways_have_no_twins_because_they_are_in_the_space() -> None:
    (twin,) = carveout_twins(Candidate("streams", (GEMM, NORM)))
    assert twin.carveout_percent == 100
    assert carveout_twins(Candidate("elastic", (GEMM, NORM), persistent=0)) == ()


def test_a_kernel_is_compiled_once_however_many_ways_use_it() -> None:
    kernels = kernels_of(all_ways([GEMM], [NORM]))
    assert len({kernel.name for kernel in kernels}) == len(kernels)


def test_capped_grids_are_tried_with_every_number_of_blocks_that_fits() -> None:
    elastic = Candidate("elastic", (GEMM, NORM), persistent=0)
    drain = Candidate("intra_block", (GEMM, NORM), IntraBlock(128, drain=True))
    # 64 registers of 256 threads are a quarter of an SM's, of 384 threads three eighths.
    ways, dropped = fitted([elastic, drain], dict.fromkeys((k.name for k in kernels_of([elastic, drain])), FITS), 90)
    assert [way.blocks_per_sm for way in ways if way.family == "elastic"] == [1, 2, 3, 4]
    assert [way.blocks_per_sm for way in ways if way.family == "intra_block"] == [1, 2]
    assert dropped == []
    few = dict.fromkeys((kernel.name for kernel in drain.kernels), replace(FITS, registers=32))
    assert [way.blocks_per_sm for way in fitted([drain], few, 90)[0]] == [1, 2, 3, 4]


def test_a_fused_kernel_that_spills_is_left_out_and_an_unfused_one_is_not() -> None:
    alone, fused = Candidate("first", (GEMM, None)), Candidate("intra_block", (GEMM, NORM), IntraBlock(128))
    spills = replace(FITS, spill_store_bytes=MOST_SPILLED_BYTES + 4)
    resources = {kernel.name: spills for kernel in kernels_of([alone, fused])}
    ways, (dropped,) = fitted([alone, fused], resources, 90)
    assert ways == [alone]
    assert dropped.name == fused.name
    assert "spills 164 bytes" in dropped.reason
    assert not is_co_resident([alone, fused], resources, 90)
    within = {name: replace(FITS, spill_store_bytes=MOST_SPILLED_BYTES) for name in resources}
    assert fitted([fused], within, 90)[0] == [fused]
    assert not is_co_resident([fused], within, 90)
    assert is_co_resident([fused], dict.fromkeys(resources, FITS), 90)


def test_what_does_not_fit_or_compile_is_left_out_with_the_reason() -> None:
    fused = Candidate("inter_block_ticket", (GEMM, NORM), InterBlockTicket())
    (kernel,) = fused.kernels
    # 255 registers of 256 threads are more than a block may have on sm_53.
    _, (too_large,) = fitted([fused], {kernel.name: replace(FITS, registers=255)}, 53)
    assert too_large.reason == f"not one block of {kernel.name} fits an SM of sm_53"
    _, (broken,) = fitted([fused], {kernel.name: "it does not compile."}, 90)
    assert broken.reason == "it does not compile."


def test_where_the_compiler_tells_nothing_everything_is_tried() -> None:
    elastic = Candidate("elastic", (GEMM, NORM), persistent=1)
    ways, dropped = fitted([elastic], {}, 90)
    assert [way.blocks_per_sm for way in ways] == [1, 2]
    assert dropped == []


def test_strategies_that_are_sure_to_spill_are_not_compiled() -> None:
    # 64 sums a thread: 256 + 384 threads leave 102 registers, less than 64 + 40.
    wide = fused_strategies(replace(GEMM, tile_n=128), NORM)
    assert IntraBlock(256) in wide
    assert IntraBlock(384) not in wide
    assert IntraBlock(128, min_blocks=2) not in wide
    # 32 sums: two blocks of 384 threads leave 85.
    assert IntraBlock(128, min_blocks=2) in fused_strategies(GEMM, NORM)
    assert IntraBlock(128, min_blocks=3) not in fused_strategies(GEMM, NORM)


def test_two_memory_bodies_and_two_compute_bodies_can_be_fused_as_well() -> None:
    assert not any(isinstance(one, IntraThread) for one in fused_strategies(NORM, NORM))
    assert {one.second_threads for one in fused_strategies(GEMM, GEMM) if isinstance(one, IntraBlock)} == {256}


def test_the_shortlist_keeps_one_body_a_shape_and_drops_slow_ones() -> None:
    narrow, wide, many = (replace(GEMM, tile_n=n, simt_threads=t) for n, t in ((64, 256), (128, 256), (128, 512)))
    slower_stage = replace(narrow, stages=3)
    timed = [(narrow, 110.0), (slower_stage, 115.0), (wide, 100.0), (many, 126.0)]
    assert shortlist(timed) == (wide, narrow)
    assert shortlist([*timed[:3], (many, 124.0)]) == (wide, narrow, many)


def test_of_memory_bodies_the_fastest_and_a_contrast_stay() -> None:
    bodies = {rows: replace(NORM, rows=rows) for rows in (1, 2, 4, 8)}
    times = {1: 100.0, 2: 99.0, 4: 101.0, 8: 104.0}
    assert shortlist([(bodies[rows], times[rows]) for rows in bodies]) == (bodies[2], bodies[8])
    assert shortlist([(bodies[rows], rows) for rows in bodies]) == (bodies[1], bodies[8])
    assert shortlist([(bodies[rows], -rows) for rows in bodies]) == (bodies[8], bodies[1])
    two = replace(NORM, rows=2, together=2)
    assert shortlist([(bodies[8], 1.0), (two, 1.1), (bodies[1], 1.2)]) == (bodies[8], two)
    assert shortlist([(bodies[8], 1.0)]) == (bodies[8],)


def test_strategies_by_block_get_coarse_memory_bodies_too() -> None:
    rows = {
        family: {one.bodies[1].rows for one in all_ways([GEMM], [NORM]) if one.family == family and one.bodies[1]}  # type: ignore[union-attr]
        for family in ("inter_block_ticket", "intra_block", "sequential")
    }
    # 8 rows are those of staged bodies.
    assert rows == {"inter_block_ticket": {1, 8, 32}, "intra_block": {1, 8}, "sequential": {1, 8}}
    assert coarser(MemoryBody("skinny_gemm", rows=2)) == ()
    assert coarser(MemoryBody("layer_norm", chunks=0)) == ()
    assert coarser(GEMM) == ()


@pytest.mark.parametrize("sm", [53, 72, 87, 90])
def test_plausible_bodies_can_solve_the_problem(sm: int) -> None:
    for problem in (GemmProblem(256, 128, 64), LayerNormProblem(64, 512), SkinnyGemmProblem(1, 64, 512)):
        found = plausible_bodies(problem, sm)
        assert found
        assert all(body.units(problem) > 0 and body.minimum_sm <= sm for body in found)


@pytest.mark.parametrize(
    ("body", "stages"),
    [
        (NORM, 3),  # two rows of 2 KB
        (MemoryBody("skinny_gemm"), 3),  # halves of four outputs of 2 KB
        (MemoryBody("residual_gelu"), 3),
        (MemoryBody("embedding"), 6),
        (MemoryBody("layer_norm", "float16", 8, 2), 6),
        (MemoryBody("softmax", chunks=10, short=True), 8),
    ],
)
def test_staged_bodies_have_as_much_on_their_way_whatever_a_piece_is(body: Body, stages: int) -> None:
    found = [one for threads in (128, 256, 384) if (one := staged(body, threads))]
    assert found[0].stages == stages
    sizes = [one.shared_bytes_of(threads) for one, threads in zip(found, (128, 256, 384), strict=True)]
    assert max(sizes) <= 96 << 10


@pytest.mark.parametrize("body", [replace(NORM, width=1, chunks=5), replace(NORM, chunks=0), GEMM])
def test_bodies_that_cannot_be_staged(body: Body) -> None:
    assert staged(body) is None
    assert lean(body) == ()


def test_a_staged_layer_norm_uses_the_registers_that_it_has() -> None:
    rows = {count: one.together for count in (128, 88, 48) if (one := staged(NORM, 128, count))}
    assert rows == {128: 2, 88: 2, 48: 1}


def test_lean_bodies_share_what_they_can() -> None:
    assert {(one.rows, one.together) for one in lean(NORM)} == {(8, 2)}
    assert {(one.rows, one.together) for one in lean(NORM, 64)} == {(8, 2), (8, 4)}
    assert {(one.rows, one.chunks) for one in lean(MemoryBody("skinny_gemm"))} == {(4, 4), (8, 2)}
    assert {(one.rows, one.together) for one in lean(MemoryBody("layer_norm", chunks=6))} == {(8, 1)}
    assert {one.rows for one in lean(MemoryBody("softmax", chunks=10, short=True))} == {4}


@pytest.mark.parametrize(
    "problem",
    [GemmProblem(256, 128, 64), ConvolutionProblem(2, 14, 14, 64, 64, padding=1), linear(128, 64, 64)],
    ids=["gemm", "convolution", "tensor"],
)
def test_a_team_takes_all_registers_of_an_sm_and_no_more(problem: Problem) -> None:
    found = teams(plausible_bodies(problem, 90)[0])
    assert found
    for team in found:
        kernel = pair_kernel(team.body, lean(NORM)[0], team.strategies[0])
        threads = team.blocks * kernel.threads
        # Each of the four parts of an SM has a quarter of the registers, and the fullest says how many a thread has.
        fullest = -(-threads // 128) * 128
        assert 0.9 * 65536 < fullest * registers_at_start(threads) <= 65536
        assert kernel.moves_registers == (team.registers is not None)
        team.body.check(problem)
    assert teams(NORM) == ()
    assert teams(plausible_bodies(problem, 72)[0]) == ()


def test_registers_that_a_block_does_not_have_are_refused() -> None:
    high = ComputeBody("convolution_3x3", tile_m=192, tile_n=128, simt_threads=384)
    slow = staged(NORM)
    assert slow is not None
    for strategy, reason in (
        (IntraBlock(128, registers=(144, 88)), "starts with 128 registers a thread"),
        (IntraBlock(128, registers=(120, 80)), "the first group growing"),
        (IntraBlock(64, registers=(144, 80)), "only between groups of 128 threads"),
        (IntraBlock(128, registers=(140, 80)), "by eights"),
    ):
        with pytest.raises(UsageError, match=reason):
            pair_kernel(high, slow, strategy)
    with pytest.raises(UsageError, match=r"needs sm_90 or newer, this is sm_87"):
        check_kernel(pair_kernel(high, slow, IntraBlock(128, registers=(144, 80))), 87)
    with pytest.raises(UsageError, match="has no shared memory for"):
        pair_kernel(GEMM, slow, IntraThread())


def test_fused_families_are_those_with_a_strategy() -> None:
    assert {one.family for one in all_ways([GEMM], [NORM]) if one.strategy is not None} == set(FUSED)


def test_tiles_of_teams_are_tried_in_elastic_streams_as_well() -> None:
    problem = GemmProblem(256, 128, 64)
    first = plausible_bodies(problem, 90)[0]
    found = all_ways([first], [NORM])
    elastic = {one.bodies[0] for one in found if one.family == "elastic"}
    assert elastic == {first, *(team.body for team in teams(first))}
