"""Which layers of two towers to fuse, and in which order to run the rest: numbers only, without torch or a GPU.

Each tower is a chain of layers with a time each. Fused pairs must not cross: a pair after another one in the first
tower is after it in the second. Between two fused launches each tower runs a stretch of its own, one after the other on
one stream, or side by side on two. `best_matching` finds the pairs with the least total time under that model, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..cases import COMPUTE_FLOP_PER_S, MEMORY_BYTES_PER_S, P_NORM, predicted_time_s
from ..problems import ConvolutionProblem, GemmProblem, Problem, operation_of
from ..strategies import PairStrategy

Fuse = Literal["auto", "always", "never"]
# A fused launch that is not at least this much faster than its halves is a tie, and ties are not fused.
LEAST_GAIN = 1.02


@dataclass(frozen=True, slots=True)
class Estimates:
    """What a device does, where nothing was measured on it; the defaults are an H200's.

    `launch_us` is the least that any kernel takes, and `overlap` the norm in which two streams add up (1: one after the
    other; infinity: the longer one hides the shorter).
    """

    flop_per_s: Mapping[str, float] = field(
        default_factory=lambda: {"float32": COMPUTE_FLOP_PER_S["f32"], "float16": COMPUTE_FLOP_PER_S["f16"]}
    )
    bytes_per_s: float = MEMORY_BYTES_PER_S
    launch_us: float = 2.0
    p_norm: float = P_NORM
    overlap: float = 4.0

    def time_us(self, problem: Problem) -> float:
        """Return how long a body should take alone: the longer of its arithmetic and its bytes, and a launch."""
        arithmetic = problem.flop / self.flop_per_s[problem.dtype] if is_compute(problem) else 0.0
        return max(arithmetic, problem.streamed_bytes / self.bytes_per_s) * 1e6 + self.launch_us

    def fused_us(self, first_us: float, second_us: float) -> float:
        """Return how long two bodies should take in one launch, which is launched once."""
        first, second = (max(0.0, one - self.launch_us) for one in (first_us, second_us))
        return predicted_time_s(first, second, self.p_norm) + self.launch_us


@dataclass(frozen=True, slots=True)
class Item:
    """A layer as the schedule sees it.

    `unfused_us` is the best known time alone, by whatever runs it. `body_us` is that of our body, None without one;
    `why_not` then says why there is none.
    """

    name: str
    unfused_us: float
    problem: Problem | None = None
    body_us: float | None = None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Fusion:
    """A pair that could be fused: where it is in the towers, how, and what it takes. `measured`, or by the model."""

    vision: int
    text: int
    strategy: PairStrategy
    fused_us: float
    unfused_us: float
    measured: bool

    def place(self, tower: str) -> int:
        """Return the index of the pair's layer in a tower."""
        return self.vision if tower == "vision" else self.text

    @property
    def gain(self) -> float:
        """Return how many times as fast as its unfused halves, one after the other, the fused launch is."""
        return self.unfused_us / self.fused_us


def is_compute(problem: Problem) -> bool:
    """Return whether a problem belongs to a compute-bound body."""
    return isinstance(problem, ConvolutionProblem | GemmProblem)


def why_not_together(vision: Item, text: Item) -> str:
    """Return why two layers cannot be a pair; empty if they can."""
    for item in (vision, text):
        if item.problem is None:
            return f"{item.name}: {item.why_not}"
    assert vision.problem is not None
    assert text.problem is not None
    if vision.problem.dtype != text.problem.dtype:
        return f"{vision.name} is {vision.problem.dtype} and {text.name} {text.problem.dtype}"
    if not is_compute(vision.problem) and not is_compute(text.problem):
        return f"{operation_of(vision.problem)} and {operation_of(text.problem)} both wait for memory"
    return ""


def norm(left: float, right: float, power: float) -> float:
    """Return the time of two pieces of work that overlap: their sum for power 1, the longer one for infinity."""
    longer, shorter = max(left, right), min(left, right)
    if longer <= 0 or np.isinf(power):
        return longer
    return float(longer * (1 + (shorter / longer) ** power) ** (1 / power))


def fitted_overlap(first_us: float, second_us: float, together_us: float) -> float:
    """Return the norm under which two times give a measured one: 1 if nothing overlaps, infinity if all of it does."""
    if together_us >= first_us + second_us:
        return 1.0
    low, high = 1.0, 64.0
    if norm(first_us, second_us, high) >= together_us:
        return float("inf")
    for _ in range(60):
        middle = (low + high) / 2
        if norm(first_us, second_us, middle) > together_us:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _norms(left: npt.NDArray[np.float64], right: npt.NDArray[np.float64], power: float) -> npt.NDArray[np.float64]:
    longer, shorter = np.maximum(left, right), np.minimum(left, right)
    if np.isinf(power):
        return longer
    share = np.divide(shorter, longer, out=np.zeros_like(longer), where=longer > 0)
    return np.asarray(longer * (1 + share**power) ** (1 / power), dtype=np.float64)


def best_matching(
    vision_us: Sequence[float],
    text_us: Sequence[float],
    fusions: Sequence[Fusion],
    *,
    overlap: float,
    join_us: float = 0.0,
) -> tuple[list[Fusion], float]:
    """Return the fusions with the least total time, in order, and that time.

    Args:
        vision_us: the unfused time of each layer of the first tower.
        text_us: of the second.
        fusions: the pairs to choose from.
        overlap: the norm in which the stretches between fused launches add up; 1 for one stream.
        join_us: what a fused launch costs besides, because both towers must have come to it.
    """
    before_vision = np.concatenate([[0.0], np.cumsum(np.asarray(vision_us, dtype=np.float64))])
    before_text = np.concatenate([[0.0], np.cumsum(np.asarray(text_us, dtype=np.float64))])
    ordered = sorted(fusions, key=lambda fusion: (fusion.vision, fusion.text))
    vision = np.array([fusion.vision for fusion in ordered], dtype=np.int64)
    text = np.array([fusion.text for fusion in ordered], dtype=np.int64)
    total = np.zeros(len(ordered))
    previous = np.full(len(ordered), -1)
    for at, fusion in enumerate(ordered):
        start = norm(before_vision[fusion.vision], before_text[fusion.text], overlap)
        earlier = np.flatnonzero((vision[:at] < fusion.vision) & (text[:at] < fusion.text))
        if earlier.size:
            stretches = _norms(
                before_vision[fusion.vision] - before_vision[vision[earlier] + 1],
                before_text[fusion.text] - before_text[text[earlier] + 1],
                overlap,
            )
            sums = total[earlier] + stretches
            least = int(np.argmin(sums))
            if sums[least] < start:
                start, previous[at] = float(sums[least]), earlier[least]
        total[at] = start + fusion.fused_us + join_us
    none = norm(before_vision[-1], before_text[-1], overlap)
    if not ordered:
        return [], none
    ends = total + _norms(
        before_vision[-1] - before_vision[vision + 1], before_text[-1] - before_text[text + 1], overlap
    )
    last = int(np.argmin(ends))
    if ends[last] >= none:
        return [], none
    chosen: list[Fusion] = []
    at = last
    while at >= 0:
        chosen.append(ordered[at])
        at = int(previous[at])
    return chosen[::-1], float(ends[last])


@dataclass(frozen=True, slots=True)
class Stretch:
    """Layers of each tower that run unfused, as ranges [start, end), and the fused launch that follows, if any."""

    vision: tuple[int, int]
    text: tuple[int, int]
    fusion: Fusion | None


def stretches(vision_layers: int, text_layers: int, chosen: Sequence[Fusion]) -> list[Stretch]:
    """Return the schedule that chosen fusions make: every layer of both towers once, in its order.

    Raises:
        ValueError: the fusions cross, or take a layer twice.
    """
    found: list[Stretch] = []
    v = t = 0
    for fusion in chosen:
        if fusion.vision < v or fusion.text < t:
            raise ValueError(f"the fusion of layers {fusion.vision} and {fusion.text} crosses one before it")
        found.append(Stretch((v, fusion.vision), (t, fusion.text), fusion))
        v, t = fusion.vision + 1, fusion.text + 1
    found.append(Stretch((v, vision_layers), (t, text_layers), None))
    return found


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a layer is fused or not, for people."""

    tower: Literal["vision", "text"]
    layer: str
    fused_with: str
    reason: str


def reasons(
    vision: Sequence[Item],
    text: Sequence[Item],
    fusions: Sequence[Fusion],
    refused: Mapping[tuple[int, int], str],
    chosen: Sequence[Fusion],
) -> list[Reason]:
    """Return a line for every layer of both towers that takes time, saying what became of it.

    Args:
        vision: the layers of the first tower.
        text: of the second.
        fusions: the pairs that could be fused.
        refused: why other pairs could not, by their places in the towers.
        chosen: the pairs that are.
    """
    found: list[Reason] = []
    for tower, mine, others in (("vision", vision, text), ("text", text, vision)):
        is_vision = tower == "vision"
        for at, item in enumerate(mine):
            if not item.unfused_us:
                continue
            pairs = [_Seen(f, others[f.text if is_vision else f.vision].name) for f in fusions if f.place(tower) == at]
            taken = next((f for f in chosen if f.place(tower) == at), None)
            partner = others[taken.text if is_vision else taken.vision].name if taken is not None else ""
            nowhere = [why for place, why in refused.items() if place[0 if is_vision else 1] == at]
            reason = _numbers(taken) if taken is not None else _why_not(item, pairs, nowhere)
            found.append(Reason("vision" if is_vision else "text", item.name, partner, reason))
    return found


@dataclass(frozen=True, slots=True)
class _Seen:
    """A fusion as one of its layers sees it."""

    fusion: Fusion
    partner: str


def _numbers(fusion: Fusion) -> str:
    how = "measured" if fusion.measured else "predicted"
    return f"{fusion.fused_us:.1f} µs {how} against {fusion.unfused_us:.1f} µs unfused"


def _why_not(item: Item, pairs: Sequence[_Seen], refused: Sequence[str]) -> str:
    if item.problem is None:
        return item.why_not
    if not pairs:
        # The pairs that come nearest are refused for time; kinds that never fit say less.
        telling = [why for why in refused if "µs" in why] or list(refused)
        return f"no partner: {telling[0]}" if telling else "fusing was not asked for"
    best = max(pairs, key=lambda seen: seen.fusion.gain)
    what = "fusing does not pay" if best.fusion.gain < LEAST_GAIN else "the schedule is shorter without it"
    return f"{what}; the best partner is {best.partner}: {_numbers(best.fusion)}"
