"""Kernels are matched across fusion; nothing is lost, and every nanosecond stays where it belongs."""

from __future__ import annotations

import time
from collections.abc import Sequence as Items
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import call, kernel, nvtx_range, trace
from nitro.analyzer.compare.alignment import Tokens, align
from nitro.analyzer.compare.matching import MatchedRow, Matching, match_kernels
from nitro.analyzer.compare.sequence import KernelKey, Sequence, family_of_kernel, merged, sequence_of
from nitro.analyzer.view import View

Spec = str | tuple[str, int] | tuple[str, int, str] | tuple[str, int, str, int]


def sequence(*kernels: Spec, iterations: int = 4) -> Sequence:
    """A sequence of kernels: name, ns an execution (100), NVTX path (""), blocks of the grid (1)."""
    keys: dict[KernelKey, int] = {}
    key, occurrence, total = [], [], []
    seen: dict[int, int] = {}
    for spec in kernels:
        given: list[object] = [spec] if isinstance(spec, str) else [*spec]
        name, ns, path, grid = given + ["", 100, "", 1][len(given) :]
        number = keys.setdefault(KernelKey(str(name), str(path), (int(str(grid)), 1, 1), (32, 1, 1)), len(keys))
        key.append(number)
        occurrence.append(seen.get(number, 0))
        seen[number] = seen.get(number, 0) + 1
        total.append(int(str(ns)) * iterations)
    size = len(key)
    return Sequence(
        tuple(keys),
        np.array(key, np.intp),
        np.array(occurrence, np.int64),
        np.full(size, iterations, np.int64),
        np.array(total, np.int64),
        np.arange(size, dtype=np.float64),
        iterations,
    )


def shown(row: MatchedRow) -> tuple[str, str, str]:
    """Kind, and the names of both sides with how often each occurs."""
    sides = (" ".join(f"{m.places}x{m.name}" for m in side) for side in (row.before, row.after))
    return (row.kind, *sides)  # type: ignore[return-value]


def rows(matching: Matching) -> set[tuple[str, str, str]]:
    return {shown(row) for row in matching.rows}


class TestGroups:
    def test_what_lies_between_two_matches_belongs_together(self) -> None:
        made = match_kernels(sequence("gemm", "add", "gelu", "norm"), sequence("gemm", "fused", "norm"))
        assert rows(made) == {
            ("one_to_one", "1xgemm", "1xgemm"),
            ("group", "1xadd 1xgelu", "1xfused"),
            ("one_to_one", "1xnorm", "1xnorm"),
        }

    def test_a_kernel_without_partner_is_kept(self) -> None:
        made = match_kernels(sequence("a", "gone", "b"), sequence("a", "b", "added"))
        labels = {shown(row): row.label for row in made.rows}
        assert labels["only_before", "1xgone", ""] == "fused_away"
        assert labels["only_after", "", "1xadded"] == "new"
        assert made.quality.only_before == made.quality.only_after == pytest.approx(1 / 6)

    def test_programs_without_anything_in_common_are_no_group(self) -> None:
        made = match_kernels(sequence("a", "b"), sequence("c", "d", "e"))
        assert {row.kind for row in made.rows} == {"only_before", "only_after"}
        assert made.quality.unmatched == 1.0

    def test_a_range_in_common_makes_a_group(self) -> None:
        (row,) = match_kernels(sequence(("a", 1, "mlp"), ("b", 1, "mlp")), sequence(("c", 1, "mlp"))).rows
        assert (row.kind, row.path) == ("group", "mlp")

    def test_layers_that_repeat_are_added_up(self) -> None:
        made = match_kernels(sequence(*(["gemm", "add", "gelu"] * 12)), sequence(*(["gemm", "fused"] * 12)))
        assert rows(made) == {("one_to_one", "12xgemm", "12xgemm"), ("group", "12xadd 12xgelu", "12xfused")}
        (group,) = [row for row in made.rows if row.kind == "group"]
        assert group.places == 12
        assert group.executions_before == 24
        assert group.executions_after == 12
        assert group.is_fusion

    def test_what_became_of_it(self) -> None:
        before = sequence(("a", 100), ("b", 100), ("c", 100), ("d", 100))
        after = sequence(("a", 101), ("b", 90), ("c", 110), ("d", 102))
        labels = {row.before[0].name: row.label for row in match_kernels(before, after).rows}
        assert labels == {"a": "unchanged", "b": "faster", "c": "slower", "d": "unchanged"}

    def test_the_path_of_a_group_is_the_lowest_range_around_it(self) -> None:
        before = sequence(("add", 9, "text > mlp > add"), ("gelu", 9, "text > mlp > act"))
        after = sequence(("fused", 9, "text > mlp > jit"))
        (row,) = match_kernels(before, after).rows
        assert (row.kind, row.path) == ("group", "text > mlp")


class TestOrderAndPath:
    def test_paths_go_before_order(self) -> None:
        before = sequence(("a", 10, "vision"), ("b", 10, "vision"), ("a", 50, "text"))
        after = sequence(("a", 50, "text"), ("a", 10, "vision"), ("b", 10, "vision"))
        made = match_kernels(before, after)
        assert {row.path for row in made.rows} == {"vision", "text"}
        assert all(row.delta_ns == 0 for row in made.rows)
        assert made.quality.one_to_one == 1.0

    def test_a_range_that_only_one_side_has_counts_as_the_one_around_it(self) -> None:
        before = sequence(("a", 10, "forward"), ("b", 10, "forward"))
        after = sequence(("a", 10, "forward"), ("b", 10, "forward > compiled"))
        assert {(row.kind, row.path) for row in match_kernels(before, after).rows} == {("one_to_one", "forward")}

    def test_the_launch_geometry_decides_between_equal_names(self) -> None:
        before = sequence(("x", 10, "", 1), ("x", 80, "", 64))
        after = sequence(("x", 80, "", 64))
        made = match_kernels(before, after)
        (single,) = [row for row in made.rows if row.kind == "one_to_one"]
        assert (single.how, single.before[0].grid) == ("exact", (64, 1, 1))
        assert single.delta_ns == 0

    def test_the_same_name_with_another_geometry_matches(self) -> None:
        (row,) = match_kernels(sequence(("x", 80, "", 64)), sequence(("x", 60, "", 32))).rows
        assert (row.kind, row.how, row.label) == ("one_to_one", "geometry", "faster")

    def test_a_generic_name_that_does_another_job_joins_the_group_beside_it(self) -> None:
        before = sequence("gemm", ("cat", 300), ("copy", 380, "", 64), "norm")
        after = sequence("gemm", ("fill", 30), ("copy", 100, "", 16), ("fill", 30), "norm")
        assert ("group", "1xcat 1xcopy", "2xfill 1xcopy") in rows(match_kernels(before, after))

    def test_families_match_where_both_sides_have_as_many(self) -> None:
        made = match_kernels(sequence("a", "ew<float>", "ew<int>", "b"), sequence("a", "ew<half>", "ew<int4>", "b"))
        assert {(row.kind, row.how) for row in made.rows} == {("one_to_one", "exact"), ("one_to_one", "family")}

    def test_a_kernel_that_moved_is_still_itself(self) -> None:
        made = match_kernels(sequence("a", "b", "c", "d", "e"), sequence("b", "c", "d", "e", "a"))
        assert {row.how for row in made.rows} == {"exact", "moved"}
        assert made.quality.one_to_one == 1.0

    def test_a_mapping_overrides(self) -> None:
        before, after = sequence("gemm<1>", "add", "norm"), sequence("gemm<1>", "gemm_add", "norm")
        made = match_kernels(before, after, {"gemm*": "gemm_add", "none*": "norm"})
        assert ("one_to_one", "1xgemm<1>", "1xgemm_add") in rows(made)
        assert made.unused_mappings == ("none* -> norm",)


class TestConservation:
    names = st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c<1>", "c<2>", "d"]),
            st.integers(0, 500),
            st.sampled_from(["", "x", "x > y", "z"]),
            st.integers(1, 2),
        ),
        max_size=12,
    )

    @given(names, names, st.integers(1, 7), st.integers(1, 7))
    @settings(max_examples=150, deadline=None)
    def test_every_nanosecond_and_every_execution_is_in_one_row(
        self, before: list[Spec], after: list[Spec], left: int, right: int
    ) -> None:
        made = match_kernels(sequence(*before, iterations=left), sequence(*after, iterations=right))
        assert sum((row.before_ns for row in made.rows), Fraction()) == sum(int(spec[1]) for spec in before)
        assert sum((row.after_ns for row in made.rows), Fraction()) == sum(int(spec[1]) for spec in after)
        assert sum(row.executions_before for row in made.rows) == len(before)
        assert sum(row.executions_after for row in made.rows) == len(after)
        assert sum(member.places for row in made.rows for member in row.before) == len(before)
        quality = made.quality
        shares = quality.one_to_one + quality.grouped + quality.unmatched
        assert shares == pytest.approx(1.0 if made.before_ns + made.after_ns else 0.0)

    @given(names)
    @settings(max_examples=60, deadline=None)
    def test_a_side_matches_itself(self, kernels: list[Spec]) -> None:
        made = match_kernels(sequence(*kernels), sequence(*kernels))
        assert all(row.kind == "one_to_one" and row.how == "exact" and row.delta_ns == 0 for row in made.rows)


def tokens(names: Items[int], grids: Items[int] | None = None, times: Items[float] | None = None) -> Tokens:
    name = np.array(names, np.intp)
    exact = name * 10 + np.array(grids if grids is not None else [0] * len(names), np.intp)
    return Tokens(exact, name, np.array(times if times is not None else [1.0] * len(names)))


def longest_common(left: Items[int], right: Items[int]) -> int:
    """Length of the longest common subsequence, by trying all."""
    for size in range(min(len(left), len(right)), 0, -1):
        others = set(combinations(right, size))
        if any(tuple(left[i] for i in chosen) in others for chosen in combinations(range(len(left)), size)):
            return size
    return 0


class TestAlignment:
    @given(st.lists(st.integers(0, 3), max_size=7), st.lists(st.integers(0, 3), max_size=7))
    @settings(max_examples=100, deadline=None)
    def test_with_equal_times_it_is_the_longest_common_subsequence(self, left: list[int], right: list[int]) -> None:
        i, j = align(tokens(left), tokens(right))
        assert [left[place] for place in i] == [right[place] for place in j]
        assert (np.diff(i) > 0).all()
        assert (np.diff(j) > 0).all()
        assert len(i) == longest_common(left, right)

    def test_time_decides_what_may_cross(self) -> None:
        # Either the long kernel 1 or both short ones can keep their order.
        i, _ = align(tokens([1, 2, 3], times=[50, 1, 1]), tokens([2, 3, 1], times=[1, 1, 50]))
        assert i.tolist() == [0]
        i, _ = align(tokens([1, 2, 3], times=[1, 50, 50]), tokens([2, 3, 1], times=[50, 50, 1]))
        assert i.tolist() == [1, 2]

    @pytest.mark.parametrize("seed", range(60))
    def test_short_sequences_are_aligned_with_the_highest_score(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        sizes, names = generator.integers(1, 40, 2), int(generator.integers(2, 12))
        left, right = (generator.integers(0, names, size).tolist() for size in sizes)
        # Each name takes its own time; where it differed between executions, equal ends might not be matched best.
        weights = generator.integers(1, 100, names)
        times = [weights[side].tolist() for side in (left, right)]
        i, j = align(tokens(left, times=times[0]), tokens(right, times=times[1]))
        assert (np.diff(i) > 0).all()
        assert (np.diff(j) > 0).all()
        mean = (sum(times[0]) + sum(times[1])) / (len(left) + len(right))

        def gain(row: int, column: int) -> float:
            # tokens() gives every number a name of its own, so that a match is always exact.
            weight = (times[0][row] + times[1][column]) / mean + 0.2
            return weight if left[row] == right[column] else 0.0

        best = np.zeros((len(left) + 1, len(right) + 1))
        for row in range(len(left)):
            for column in range(len(right)):
                taken = best[row, column] + gain(row, column)
                best[row + 1, column + 1] = max(best[row, column + 1], best[row + 1, column], taken)
        assert all(left[a] == right[b] for a, b in zip(i, j, strict=True))
        assert sum(gain(a, b) for a, b in zip(i, j, strict=True)) == pytest.approx(best[-1, -1])

    @pytest.mark.parametrize(("layers", "noise"), [(16_667, 0.0), (4_000, 0.002)])
    def test_a_hundred_thousand_kernels_are_aligned_in_seconds(self, layers: int, noise: float) -> None:
        generator = np.random.default_rng(1)
        left = np.tile([0, 1, 2, 3, 4, 6], layers)
        right = np.tile([0, 5, 4, 6], layers)
        left = np.where(generator.random(len(left)) < noise, 9, left)
        start = time.process_time()
        i, j = align(tokens(left.tolist()), tokens(right.tolist()))
        assert time.process_time() - start < 20
        assert (left[i] == right[j]).all()
        assert len(i) >= (1 - 5 * noise) * 3 * layers

    def test_a_long_stretch_without_anchor_stays_near_its_diagonal(self) -> None:
        # Two names in random order: none occurs equally often on both sides.
        generator = np.random.default_rng(2)
        left = generator.integers(0, 2, 3_000)
        right = np.delete(left, generator.choice(3_000, 40, replace=False))
        i, j = align(tokens(left.tolist()), tokens(right.tolist()))
        assert (left[i] == right[j]).all()
        assert len(i) >= 0.99 * len(right)


class TestSequence:
    def built(self, order: str = "abc", iterations: int = 5, extra: int | None = None) -> View:
        kernels, calls, events = [], [], []
        identifier = 0
        for number in range(iterations):
            at = 1000 * number
            names = order + ("x" if number == extra else "")
            for place, name in enumerate(names):
                identifier += 1
                calls.append(call(at + 10 * place, at + 10 * place + 5, correlation_id=identifier))
                kernels.append(kernel(at + 100 + 50 * place, at + 140 + 50 * place, name, correlation_id=identifier))
            events += [nvtx_range(at - 5, at + 100, f"infer:{number}"), nvtx_range(at - 2, at + 12, "encode")]
        return View(trace(kernels=kernels, api_calls=calls, nvtx=events))

    def test_slots_are_in_order_with_path_and_time(self) -> None:
        view = self.built("aba")
        made = sequence_of(view, view.devices[0])
        assert [(made.keys[key].name, made.keys[key].path) for key in made.key] == [
            ("a", "encode"),
            ("b", "encode"),
            ("a", ""),
        ]
        assert made.executions.tolist() == [4, 4, 4]
        assert made.total_ns.tolist() == [160, 160, 160]
        assert made.iterations == 4

    def test_a_kernel_of_one_iteration_is_a_fraction_of_an_execution(self) -> None:
        before, after = (sequence_of(view, view.devices[0]) for view in (self.built("ab", extra=2), self.built("ab")))
        matching = match_kernels(before, after)
        (only,) = [row for row in matching.rows if row.kind == "only_before"]
        assert only.executions_before == Fraction(1, 4)
        assert only.before_ns == 10

    def test_runs_of_a_side_are_merged(self) -> None:
        views = [self.built("abc"), self.built("ab", iterations=3)]
        made = merged([sequence_of(view, view.devices[0]) for view in views])
        assert made.iterations == 6
        assert [made.keys[key].name for key in made.key] == ["a", "b", "c"]
        assert made.executions.tolist() == [6, 6, 4]

    def test_without_kernels_there_is_nothing(self) -> None:
        view = View(trace(memcpys=[(0, 10), (50, 60)]))
        made = sequence_of(view, view.devices[0])
        assert len(made) == 0
        assert match_kernels(made, made).rows == ()

    @pytest.mark.parametrize(
        ("name", "family"),
        [
            ("void at::native::elementwise_kernel<(int)4, at::A<char *, (int)2>>(int, T2)", "elementwise_kernel"),
            ("ampere_bf16_s16816gemm_128x128_nn", "ampere_bf16_s16816gemm_128x128_nn"),
            ("void (anonymous namespace)::softmax<float>(float*)", "softmax"),
            ("void <unnamed>::scan(int)", "scan"),
            ("", ""),
            ("<lambda>", "<lambda>"),
        ],
    )
    def test_families(self, name: str, family: str) -> None:
        assert family_of_kernel(name) == family
