"""What is worth fusing of two towers: the best way for each layer, and every pair with its best strategy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from ..bodies import Body, choose
from ..problems import Problem
from ..strategies import PairStrategy
from ..torch_calls import torch
from ..torch_launch import default_strategy
from .engine import BODY, Engine, Half
from .layers import Layer, Values
from .measuring import Meter, kernels_alone, kernels_of_pair, layer_candidates, pair_candidates
from .schedule import LEAST_GAIN, Estimates, Fusion, Item, is_compute, why_not_together


@dataclass(slots=True)
class Decider:
    """Finds the best way for each layer and the pairs that could be fused, by measurement or by the model."""

    engine: Engine
    estimates: Estimates
    meter: Meter | None
    _found: tuple[list[Fusion], dict[tuple[int, int], str]] | None = None

    @property
    def halves(self) -> tuple[Half, Half]:
        """The vision tower and the text tower."""
        return self.engine.vision, self.engine.text

    def _sm(self) -> int:
        # Without a device any body does, since plain torch takes its place.
        return self.engine.launcher.runtime.facts.sm if self.engine.launcher is not None else 80

    def layers(self, examples: tuple[Any, Any]) -> None:
        """Fill in the items, ways and bodies of both halves."""
        if self.meter is not None:
            problems = {layer.problem for half in self.halves for layer in half.tower.layers if layer.problem}
            self.meter.compile([kernel for problem in problems for kernel in kernels_alone(problem, self._sm())])
        for half, example in zip(self.halves, examples, strict=True):
            with torch.no_grad():
                half.tower.run(example, partial(self._next_layer, half, count()))

    def _next_layer(self, half: Half, numbers: Iterator[int], layer: Layer, values: Values) -> None:
        self._layer(half, next(numbers), layer, values)

    def _layer(self, half: Half, at: int, layer: Layer, values: Values) -> None:
        body = choose(layer.problem, self._sm()) if layer.problem is not None else None
        if layer.is_view:
            return
        if self.meter is None:
            known = self.estimates.time_us(layer.problem) if layer.problem is not None else self.estimates.launch_us
            half.bodies[at] = body
            half.items[at] = Item(layer.name, known, layer.problem, known if body else None, layer.why_not)
            return
        ways = {
            name: self.meter.work_us(f"{layer.signature} by {name}", partial(library, values))
            for name, library in layer.libraries.items()
        }
        half.libraries[at] = min(ways, key=lambda way: ways[way])
        body_us: float | None = None
        if layer.problem is not None:
            half.tails_us[at] = self._tail_us(half, at, layer, values)
            times = {one: self.meter.body_us(layer.problem, one) for one in layer_candidates(layer.problem, self._sm())}
            body = min(times, key=lambda one: times[one])
            if times[body] == float("inf"):
                layer.refuse("no body for it runs on this device")
            else:
                body_us = ways[BODY] = times[body] + half.tails_us[at]
                half.bodies[at] = body
        half.ways[at] = min(ways, key=lambda way: ways[way])
        half.items[at] = Item(layer.name, ways[half.ways[at]], layer.problem, body_us, layer.why_not)

    def _tail_us(self, half: Half, at: int, layer: Layer, values: Values) -> float:
        """Return what turning a body's output into the layer's takes: a residual sum that no body does."""
        if layer.finish is None or layer.problem is None or not layer.has_tail or self.meter is None:
            return 0.0
        finish = layer.finish
        y = torch.zeros(half.shapes[at], dtype=getattr(torch, layer.problem.dtype), device=self.meter.device)
        return self.meter.work_us(f"{layer.signature} tail", partial(finish, y, values))

    def fusions(self) -> tuple[list[Fusion], dict[tuple[int, int], str]]:
        """Return the pairs that could be fused with their best strategy, and why the others could not."""
        if self._found is None:
            self._found = self._find()
        return self._found

    def _find(self) -> tuple[list[Fusion], dict[tuple[int, int], str]]:
        vision, text = self.halves
        refused: dict[tuple[int, int], str] = {}
        possible: list[tuple[int, int]] = []
        for v, image in enumerate(vision.items):
            for t, token in enumerate(text.items):
                why = why_not_together(image, token) or self._hopeless(v, t)
                if why:
                    refused[v, t] = why
                else:
                    possible.append((v, t))
        if self.meter is None:
            return [self._predicted(v, t) for v, t in possible], refused
        self.meter.compile([kernel for v, t in possible for kernel in kernels_of_pair(*self._ordered(v, t)[1])])
        found = [self._measured(v, t, self.meter) for v, t in possible]
        return [fusion for fusion in found if fusion.fused_us < float("inf")], refused

    def _hopeless(self, v: int, t: int) -> str:
        """Return why measuring a pair is no use: even if it overlapped perfectly, other ways would be faster."""
        vision, text = self.halves
        image, token = vision.items[v], text.items[t]
        if self.meter is None or image.body_us is None or token.body_us is None:
            return ""
        bound = max(image.body_us, token.body_us)
        unfused = image.unfused_us + token.unfused_us
        if bound * LEAST_GAIN < unfused:
            return ""
        return f"our bodies need {bound:.1f} µs at least, the libraries {unfused:.1f} µs for both"

    def _ordered(self, v: int, t: int) -> tuple[tuple[Problem, Problem], tuple[Body, Body]]:
        vision, text = self.halves
        halves = ((vision, v), (text, t)) if is_compute(_given(vision.items[v].problem)) else ((text, t), (vision, v))
        (one, i), (other, j) = halves
        problems = (_given(one.items[i].problem), _given(other.items[j].problem))
        return problems, (_given(one.bodies[i]), _given(other.bodies[j]))

    def _predicted(self, v: int, t: int) -> Fusion:
        vision, text = self.halves
        _, bodies = self._ordered(v, t)
        times = (vision.items[v].unfused_us, text.items[t].unfused_us)
        return Fusion(v, t, default_strategy(*bodies), self.estimates.fused_us(*times), sum(times), measured=False)

    def _measured(self, v: int, t: int, meter: Meter) -> Fusion:
        vision, text = self.halves
        problems, bodies = self._ordered(v, t)
        times: dict[PairStrategy, float] = {
            strategy: meter.pair_us(problems, bodies, strategy) for strategy in pair_candidates(*bodies)
        }
        best = min(times, key=lambda strategy: times[strategy])
        tails = vision.tails_us[v] + text.tails_us[t]
        unfused = vision.items[v].unfused_us + text.items[t].unfused_us
        return Fusion(v, t, best, times[best] + tails, unfused, measured=True)


def _given(value: Any) -> Any:
    assert value is not None
    return value
