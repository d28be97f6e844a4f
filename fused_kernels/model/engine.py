"""Layers of two towers made into passes: each alone, with one of our bodies or a library, or a pair in one launch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from ..bodies import Body
from ..problems import Problem
from ..strategies import Alone
from ..torch_calls import torch
from ..torch_launch import Launcher, Plan
from .layers import Layer, Tower, Values
from .schedule import Fusion, Item, Stretch, is_compute

BODY = "body"
# Runs one layer: reads its inputs from the values by name, and puts its output there.
Step = Callable[[Values], None]


@dataclass(slots=True)
class Bound:
    """A layer bound to a body: what a launch needs of its values. `fixed` are the addresses of constants."""

    layer: Layer
    problem: Problem
    body: Body
    shape: tuple[int, ...]
    role: str
    fixed: dict[str, int]
    inputs: tuple[tuple[str, str], ...]

    def bind(self, values: Values, addresses: dict[str, int]) -> Any:
        """Add the layer's addresses, and return the memory of its output.

        Layouts are those of the examples' run; a copy is made where one is not, so that results are right in any case.
        """
        addresses.update(self.fixed)
        wanted = torch.channels_last if self.layer.reads_images else torch.contiguous_format
        value: Any = None
        for array, name in self.inputs:
            value = values[name]
            if not value.is_contiguous(memory_format=wanted):
                values[name] = value = value.contiguous(memory_format=wanted)
            addresses[array] = value.data_ptr()
        y = torch.empty(self.shape, dtype=getattr(torch, self.problem.dtype), device=value.device)
        addresses[f"{self.role}_y"] = y.data_ptr()
        return y


def _finish(layer: Layer, y: Any, values: Values) -> None:
    values[layer.output] = y if layer.finish is None else layer.finish(y, values)


@dataclass(slots=True)
class Half:
    """One tower with what was decided about its layers: the fastest way to run each alone, the fastest of the
    libraries, and the body for fusing it.
    """  # noqa: D205

    tower: Tower
    shapes: list[tuple[int, ...]]
    items: list[Item]
    ways: list[str]
    libraries: list[str]
    bodies: list[Body | None]
    tails_us: list[float]
    frees: dict[int, list[str]]

    @classmethod
    def make(cls, tower: Tower, example: Any) -> Half:
        """Return a tower that torch alone runs, after running it once on an example."""
        shapes: list[tuple[int, ...]] = []

        def visit(layer: Layer, values: Values) -> None:
            shapes.append(layer.call(values).shape if layer.call is not None else ())

        tower.run(example, visit)
        layers = tower.layers
        return cls(
            tower,
            shapes,
            [Item(layer.name, 0.0, why_not=layer.why_not) for layer in layers],
            [next(iter(layer.libraries)) for layer in layers],
            [next(iter(layer.libraries)) for layer in layers],
            [None] * len(layers),
            [0.0] * len(layers),
            tower.last_uses(),
        )

    def bound(self, at: int, role: str) -> Bound:
        """Return a layer bound to its body, as the `first` or `second` half of a kernel."""
        layer, body = self.tower.layers[at], self.bodies[at]
        assert layer.problem is not None
        assert body is not None
        constants = self.tower.constants
        fixed = {f"{role}_{k}": constants[v].data_ptr() for k, v in layer.arrays.items() if v in constants}
        inputs = tuple((f"{role}_{k}", v) for k, v in layer.arrays.items() if v not in constants)
        return Bound(layer, layer.problem, body, self.shapes[at], role, fixed, inputs)

    @property
    def times_us(self) -> list[float]:
        """The time of each layer alone, in microseconds."""
        return [item.unfused_us for item in self.items]


@dataclass(slots=True)
class Engine:
    """Turns schedules into passes: functions of images and token ids that give both embeddings.

    Without a launcher the halves of a fused pair run one after the other in plain torch, for machines without a GPU.
    """

    vision: Half
    text: Half
    launcher: Launcher | None
    sides: tuple[Any, ...] = ()

    def alone(self, half: Half, at: int, frees: bool, bodies: bool) -> Step:
        """Return the step that runs one layer, with our body where that is faster and `bodies` allows it."""
        layer, gone = half.tower.layers[at], tuple(half.frees.get(at, ())) if frees else ()
        if half.ways[at] == BODY and bodies and self.launcher is not None:
            run = self._with_body(half, at, self.launcher)
        else:
            library, output = layer.libraries[half.libraries[at]], layer.output

            def run(values: Values) -> None:
                values[output] = library(values)

        def step(values: Values) -> None:
            run(values)
            for name in gone:
                del values[name]

        return step if gone else run

    def _with_body(self, half: Half, at: int, launcher: Launcher) -> Step:
        bound = half.bound(at, "first")
        plan = launcher.plan((bound.problem,), (bound.body,), Alone())

        def run(values: Values) -> None:
            addresses: dict[str, int] = {}
            y = bound.bind(values, addresses)
            launcher.submit(plan, addresses)
            _finish(bound.layer, y, values)

        return run

    def fused(self, fusion: Fusion, frees: bool) -> Callable[[Values, Values], None]:
        """Return the step that runs a pair in one launch."""
        v, t = fusion.vision, fusion.text
        layers = (self.vision.tower.layers[v], self.text.tower.layers[t])
        gone = (tuple(self.vision.frees.get(v, ())), tuple(self.text.frees.get(t, ()))) if frees else ((), ())
        run = self._plain_pair(layers) if self.launcher is None else self._launched_pair(fusion, self.launcher)

        def step(images: Values, tokens: Values) -> None:
            run(images, tokens)
            for name in gone[0]:
                del images[name]
            for name in gone[1]:
                del tokens[name]

        return step

    def _plain_pair(self, layers: tuple[Layer, Layer]) -> Callable[[Values, Values], None]:
        def run(images: Values, tokens: Values) -> None:
            for layer, values in zip(layers, (images, tokens), strict=True):
                assert layer.call is not None
                call = layer.call(values)
                _finish(layer, call.operation.compute(**call.arguments), values)

        return run

    def _launched_pair(self, fusion: Fusion, launcher: Launcher) -> Callable[[Values, Values], None]:
        roles = ("first", "second") if self._vision_first(fusion) else ("second", "first")
        image, token = self.vision.bound(fusion.vision, roles[0]), self.text.bound(fusion.text, roles[1])
        ordered = (image, token) if roles[0] == "first" else (token, image)
        plan: Plan | None = launcher.plan(
            (ordered[0].problem, ordered[1].problem), (ordered[0].body, ordered[1].body), fusion.strategy
        )

        def run(images: Values, tokens: Values) -> None:
            addresses: dict[str, int] = {}
            one, other = image.bind(images, addresses), token.bind(tokens, addresses)
            launcher.submit(plan, addresses)
            _finish(image.layer, one, images)
            _finish(token.layer, other, tokens)

        return run

    def _vision_first(self, fusion: Fusion) -> bool:
        """Tell which half is first in the kernel: the compute-bound one, or the vision tower's if both are."""
        problem = self.vision.tower.layers[fusion.vision].problem
        return problem is not None and is_compute(problem)

    def make_pass(
        self, schedule: Sequence[Stretch], streams: int, bodies: bool = True
    ) -> Callable[[Any, Any], tuple[Any, Any]]:
        """Return the function that runs a schedule; a tower without layers in it gives None."""
        if streams == 2 and not self.sides:
            self.sides = torch.cuda.Stream(), torch.cuda.Stream()
        # Memory that one stream gives back the other may still be reading, so two streams keep all of it to the end.
        frees = streams == 1
        parts = [
            (
                [self.alone(self.vision, at, frees, bodies) for at in range(*stretch.vision)],
                [self.alone(self.text, at, frees, bodies) for at in range(*stretch.text)],
                None if stretch.fusion is None else self.fused(stretch.fusion, frees),
            )
            for stretch in schedule
        ]
        towers = (self.vision.tower, self.text.tower)
        wanted = (any(p[0] or p[2] for p in parts), any(p[1] or p[2] for p in parts))

        def run(images: Any, token_ids: Any) -> tuple[Any, Any]:
            with torch.no_grad():
                values = tuple(
                    {**tower.constants, tower.input: tower.prepared(given)} if on else {}
                    for tower, given, on in zip(towers, (images, token_ids), wanted, strict=True)
                )
                self.run_parts(parts, values[0], values[1], streams)
                image, token = (
                    held[tower.output] if on else None for tower, held, on in zip(towers, values, wanted, strict=True)
                )
                return image, token

        return run

    def run_parts(self, parts: Sequence[Any], images: Values, tokens: Values, streams: int) -> None:
        """Run the stretches of a schedule; on two streams the text runs beside the vision up to each fused launch."""
        main = torch.cuda.current_stream() if streams == 2 else None
        # Torch hands out 32 streams in turn, so one of ours may be the stream of a capture; not both of them.
        side: Any = next((one for one in self.sides if main is not None and one.cuda_stream != main.cuda_stream), None)
        side_is_behind, main_is_behind = True, False
        for vision, text, fused in parts:
            if text and main is not None:
                # Before the vision layers of the stretch are submitted: the text must not wait for those.
                if side_is_behind:
                    side.wait_stream(main)
                    side_is_behind = False
                main_is_behind = True
            for step in vision:
                step(images)
            with torch.cuda.stream(side) if text and main is not None else nullcontext():
                for step in text:
                    step(tokens)
            if fused is not None:
                if main_is_behind and main is not None:
                    main.wait_stream(side)
                    main_is_behind = False
                fused(images, tokens)
                side_is_behind = True
        if main_is_behind and main is not None:
            main.wait_stream(side)
