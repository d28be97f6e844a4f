"""Which layers are fused: the schedule against brute force, and the reasons it gives. Needs neither torch nor a GPU."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nitro.fused_kernels.model.schedule import (
    Estimates,
    Fusion,
    Item,
    best_matching,
    fitted_overlap,
    norm,
    reasons,
    stretches,
    why_not_together,
)
from nitro.fused_kernels.problems import ConvolutionProblem, LayerNormProblem
from nitro.fused_kernels.strategies import IntraBlock

CONVOLUTION = ConvolutionProblem(1, 28, 28, 64, 64, padding=1)
ROWS = LayerNormProblem(77, 512)


def fusion(vision: int, text: int, fused_us: float, unfused_us: float = 10.0) -> Fusion:
    return Fusion(vision, text, IntraBlock(), fused_us, unfused_us, measured=True)


def total_us(
    vision: list[float], text: list[float], chosen: tuple[Fusion, ...], overlap: float, join_us: float
) -> float:
    total = 0.0
    for stretch in stretches(len(vision), len(text), chosen):
        total += norm(sum(vision[slice(*stretch.vision)]), sum(text[slice(*stretch.text)]), overlap)
        total += stretch.fusion.fused_us + join_us if stretch.fusion else 0.0
    return total


times = st.lists(st.floats(0.5, 20), min_size=1, max_size=4)


@given(times, times, st.sampled_from([1.0, 2.0, float("inf")]), st.floats(0, 3), st.data())
def test_no_choice_of_pairs_beats_the_matching(
    vision: list[float], text: list[float], overlap: float, join_us: float, data: st.DataObject
) -> None:
    places = list(itertools.product(range(len(vision)), range(len(text))))
    fusions = [fusion(v, t, data.draw(st.floats(0.5, 30))) for v, t in places if data.draw(st.booleans())]
    chosen, found_us = best_matching(vision, text, fusions, overlap=overlap, join_us=join_us)
    assert total_us(vision, text, tuple(chosen), overlap, join_us) == pytest.approx(found_us)
    for count in range(min(len(vision), len(text)) + 1):
        for some in itertools.combinations(sorted(fusions, key=lambda one: (one.vision, one.text)), count):
            if all(one.vision < other.vision and one.text < other.text for one, other in itertools.pairwise(some)):
                assert found_us <= total_us(vision, text, some, overlap, join_us) + 1e-6


def test_on_one_stream_a_pair_that_saves_time_is_taken_and_one_that_does_not_is_left() -> None:
    chosen, time_us = best_matching([5.0, 5.0], [5.0, 5.0], [fusion(0, 0, 6.0), fusion(1, 1, 11.0)], overlap=1.0)
    assert [(one.vision, one.text) for one in chosen] == [(0, 0)]
    assert time_us == pytest.approx(16.0)


def test_streams_that_hide_the_text_leave_nothing_to_fuse() -> None:
    vision, text = [50.0, 50.0], [5.0, 5.0]
    assert best_matching(vision, text, [fusion(0, 0, 51.0)], overlap=float("inf")) == ([], 100.0)


def test_a_schedule_has_every_layer_once_in_order() -> None:
    found = stretches(4, 3, [fusion(1, 0, 1.0), fusion(2, 2, 1.0)])
    assert [(one.vision, one.text) for one in found] == [((0, 1), (0, 0)), ((2, 2), (1, 2)), ((3, 4), (3, 3))]
    with pytest.raises(ValueError, match="crosses"):
        stretches(4, 3, [fusion(1, 2, 1.0), fusion(2, 1, 1.0)])


@pytest.mark.parametrize("power", [1.0, 1.7, 4.0])
def test_the_overlap_of_streams_is_found_from_their_times(power: float) -> None:
    assert fitted_overlap(80.0, 60.0, norm(80.0, 60.0, power)) == pytest.approx(power, rel=1e-3)


def test_streams_slower_than_one_after_the_other_overlap_nothing_and_perfect_ones_all() -> None:
    assert fitted_overlap(80.0, 60.0, 150.0) == 1.0
    assert fitted_overlap(80.0, 60.0, 80.0) == float("inf")
    assert norm(80.0, 60.0, float("inf")) == 80.0


def test_layers_that_do_not_complement_each_other_say_why() -> None:
    convolution, rows = Item("conv", 9.0, CONVOLUTION, 9.0), Item("norm", 2.0, ROWS, 2.0)
    assert why_not_together(convolution, rows) == ""
    assert "both wait for memory" in why_not_together(rows, rows)
    other = Item("conv", 9.0, why_not="no body for a filter of 7x7")
    assert why_not_together(other, rows) == "conv: no body for a filter of 7x7"
    halves = Item("norm", 2.0, LayerNormProblem(77, 512, "float16"), 2.0)
    assert why_not_together(convolution, halves) == "conv is float32 and norm float16"


def test_every_layer_that_takes_time_gets_a_reason() -> None:
    vision = [Item("stem", 5.0, why_not="no body for a filter of 7x7"), Item("conv", 9.0, CONVOLUTION, 9.0)]
    text = [Item("view", 0.0), Item("norm1", 2.0, ROWS, 2.0), Item("norm2", 2.0, ROWS, 2.0)]
    first, second = fusion(1, 1, 10.0, 11.0), fusion(1, 2, 12.0, 11.0)
    found = {one.layer: one for one in reasons(vision, text, [first, second], {}, [first])}
    assert set(found) == {"stem", "conv", "norm1", "norm2"}
    assert found["stem"].reason == "no body for a filter of 7x7"
    assert found["conv"].fused_with == "norm1"
    assert found["norm1"].reason == "10.0 µs measured against 11.0 µs unfused"
    assert found["norm2"].reason.startswith("fusing does not pay; the best partner is conv: 12.0 µs")


def test_the_model_expects_a_memory_bound_layer_to_be_hidden_only_in_part() -> None:
    estimates = Estimates()
    first, second = estimates.time_us(CONVOLUTION), estimates.time_us(ROWS)
    fused = estimates.fused_us(first, second)
    assert max(first, second) < fused < first + second - 0.9 * estimates.launch_us


def test_without_torch_there_is_a_schedule_and_the_encoder_says_what_is_missing() -> None:
    command = (
        "import sys; sys.modules['torch'] = None\n"
        "import nitro.fused_kernels.model.schedule\n"
        "from nitro.errors import ToolError\n"
        "try:\n    from nitro.fused_kernels.model import FusedDualEncoder\n"
        "except ToolError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("torch cannot be imported (")
