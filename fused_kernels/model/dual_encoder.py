"""Two encoders run as one schedule of layers, some of them fused in pairs of one layer of each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from nitro.errors import UsageError

from ..strategies import strategy_name
from ..torch_calls import torch
from ..torch_launch import Launcher, launcher_for
from .deciding import Decider
from .engine import Engine, Half
from .layers import trace
from .measuring import Measurements, Meter, captured, device_name, graph_time_us
from .schedule import (
    LEAST_GAIN,
    Estimates,
    Fuse,
    Fusion,
    Reason,
    Stretch,
    best_matching,
    fitted_overlap,
    reasons,
    stretches,
)

# Two streams do not overlap as well everywhere in the towers; schedules for these norms are measured as well.
_OTHER_OVERLAPS = (1.3, 1.7, 2.2)


@dataclass(frozen=True, slots=True)
class Explanation:
    """What was decided and why.

    `variants_us` are the times of whole passes that were compared, by name; empty where nothing was measured.
    `fusions` are the chosen pairs with their times, `reasons` has a line for every layer.
    """

    variant: str
    streams: int
    measured: bool
    variants_us: dict[str, float]
    fusions: tuple[dict[str, Any], ...]
    reasons: tuple[Reason, ...]
    overlap: float
    failures: dict[str, str]

    def __str__(self) -> str:
        streams = "one stream" if self.streams == 1 else "two streams"
        lines = [f"{len(self.fusions)} pairs of layers are fused, the others run alone on {streams}"]
        lines += [f"  {name}: {time_us:.1f} µs a pass" for name, time_us in self.variants_us.items()]
        for reason in self.reasons:
            what = f"fused with {reason.fused_with}: " if reason.fused_with else ""
            lines.append(f"  {reason.tower} {reason.layer}: {what}{reason.reason}")
        return "\n".join(lines)


def _what(chosen: Sequence[Fusion]) -> str:
    return f"{len(chosen)} pairs fused" if chosen else "nothing fused"


def _wall_time_us(work: Callable[[], Any]) -> float:
    """Return the median time from calling some work until the GPU has done it."""
    samples = []
    for _ in range(12):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        samples.append((time.perf_counter() - start) * 1e6)
    return statistics.median(samples[2:])


def _need_tensors(images: Any, token_ids: Any) -> None:
    for name, given in (("images", images), ("token ids", token_ids)):
        if not isinstance(given, torch.Tensor):
            raise UsageError(f"the {name} are of type {type(given).__name__}; make a torch tensor of them.")


class FusedDualEncoder:
    """Two encoders that do not depend on each other, run layer by layer as one schedule.

    Both are traced for inputs of the shapes of the examples, batch norms are folded, and weights are laid out once.
    Layers of the two towers that complement each other run in one launch where that is faster; all others run as they
    are, on one stream or two. On a GPU every layer, every pair that could win and the whole schedules are measured,
    nothing fused is always among them, and ties are not fused. Elsewhere the p-norm model decides, and plain torch
    computes.

    Calling it gives the embeddings of both inputs. It is for inference: it gives no gradients, and later changes of the
    modules' weights are not seen.
    """

    def __init__(
        self,
        vision: Any,
        text: Any,
        images: Any,
        token_ids: Any,
        *,
        fuse: Fuse = "auto",
        streams: int | None = None,
        graph: bool = False,
        pipelined: bool = False,
        measurements: Measurements | None = None,
        launcher: Launcher | None = None,
        estimates: Estimates | None = None,
    ) -> None:
        """Trace, measure and decide.

        Args:
            vision: a torch module in eval mode, images to embeddings.
            text: likewise, token ids to embeddings.
            images: an example, float32 or float16 of shape [batch, channels, height, width].
            token_ids: an example, int64 of shape [batch, tokens].
            fuse: "auto" fuses what pays, "always" all that can be, "never" nothing.
            streams: 1 or 2 for what is not fused; default: what is faster.
            graph: replay a CUDA graph. The embeddings then lie in the same memory after every call.
            pipelined: `step` runs the text of one item beside the vision of the next.
            measurements: times that are known already; those that are not are added.
            launcher: what launches kernels; default: the GPU of the examples.
            estimates: what the model assumes where nothing is measured.

        Raises:
            UsageError: a module cannot be traced, or the examples do not suit.
            ToolError: the GPU cannot be used.
        """
        self._check(vision, text, images, token_ids)
        on_gpu = images.device.type == "cuda"
        if launcher is None and on_gpu:
            launcher = launcher_for(images.device)
        self._examples = (images, token_ids)
        with torch.no_grad():
            halves = [Half.make(trace(module, x), x) for module, x in zip((vision, text), self._examples, strict=True)]
        self._engine = Engine(halves[0], halves[1], launcher)
        meter = None
        if on_gpu and launcher is not None:
            name = device_name(launcher)
            self.measurements = measurements or Measurements(name)
            if self.measurements.device != name:
                raise UsageError(f"the measurements are of {self.measurements.device}, this is {name}; measure again.")
            meter = Meter(launcher, self.measurements, images.device)
        self._decider = Decider(self._engine, estimates or Estimates(), meter)
        self._decider.layers(self._examples)
        # By whether our bodies run layers alone; variants share it.
        self._overlaps: dict[bool, float] = {}
        self._settle(fuse, streams, graph, pipelined)

    def variant(
        self,
        *,
        fuse: Fuse = "auto",
        streams: int | None = None,
        graph: bool = False,
        pipelined: bool = False,
        bodies: bool = True,
    ) -> FusedDualEncoder:
        """Return the same encoders under other options, without tracing and measuring again.

        Args:
            fuse: as in the constructor, like the others.
            streams: 1 or 2 for what is not fused; default: what is faster.
            graph: replay a CUDA graph.
            pipelined: `step` overlaps items.
            bodies: our kernels may run layers alone; without, torch and cuDNN do, which tells what those gain.

        Raises:
            UsageError: the options need a GPU, and the examples are not on one.
        """
        other = object.__new__(FusedDualEncoder)
        other.__dict__.update(self.__dict__)
        other._settle(fuse, streams, graph, pipelined, bodies)
        return other

    def _settle(self, fuse: Fuse, streams: int | None, graph: bool, pipelined: bool, bodies: bool = True) -> None:
        if fuse not in ("auto", "always", "never"):
            raise UsageError(f"fuse is {fuse!r}; it can be auto, always or never.")
        if streams not in (None, 1, 2):
            raise UsageError(f"there can be 1 stream or 2 for what is not fused, not {streams}.")
        if fuse != "never" and not bodies:
            raise UsageError("bodies=False leaves nothing to fuse with; say fuse='never' too.")
        device = self._examples[0].device
        if device.type != "cuda" and (graph or streams == 2):
            raise UsageError(f"CUDA graphs and two streams need a GPU, the examples are on {device}; move them.")
        self.graph, self.pipelined, self._bodies = graph, pipelined, bodies
        self._waiting: tuple[Any, Any] | None = None
        self._decide(fuse, streams)
        self._replay = self._captured() if graph else None

    @staticmethod
    def _check(vision: Any, text: Any, images: Any, token_ids: Any) -> None:
        for name, module in (("vision", vision), ("text", text)):
            if getattr(module, "training", False):
                raise UsageError(f"the {name} encoder is in training mode, in which layers change; call .eval() on it.")
        _need_tensors(images, token_ids)
        if images.device != token_ids.device:
            raise UsageError(
                f"the images are on {images.device}, the token ids on {token_ids.device}; move one of them."
            )
        if images.device.type == "cuda" and images.device.index != torch.cuda.current_device():
            raise UsageError(
                f"the examples are on {images.device}, torch's current GPU is {torch.cuda.current_device()}; "
                "select the one of the examples with torch.cuda.set_device."
            )
        if images.dtype not in (torch.float32, torch.float16):
            raise UsageError(f"the images are {images.dtype}; float32 and float16 are built, so convert the model.")

    # ---- deciding ----

    def _decide(self, fuse: Fuse, streams: int | None) -> None:
        self._fusions, self._refused = self._decider.fusions() if fuse != "never" else ([], {})
        on_gpu = self._decider.meter is not None
        if self._bodies not in self._overlaps:
            self._overlaps[self._bodies] = self._measured_overlap() if on_gpu else self._decider.estimates.overlap
        self._overlap = self._overlaps[self._bodies]
        choices: list[tuple[int, list[Fusion]]] = []
        for width in (streams,) if streams else (1, 2) if on_gpu else (1,):
            if fuse != "always":
                choices.append((width, []))
            choices += [(width, chosen) for chosen in self._matchings(fuse, width)]
        distinct = [choice for at, choice in enumerate(choices) if choice not in choices[:at]]
        names = [f"{_what(chosen)}, {width} stream{'s' if width == 2 else ''}" for width, chosen in distinct]
        self._variants_us: dict[str, float] = {}
        # Without measurements the last one stands: what the model chose.
        best = len(distinct) - 1
        if on_gpu and len(distinct) > 1:
            times = [self._variant_us(chosen, width) for width, chosen in distinct]
            unlike = [f"{name} ({at})" if names.count(name) > 1 else name for at, name in enumerate(names)]
            self._variants_us = dict(zip(unlike, times, strict=True))
            # Ties are not fused.
            best = min(range(len(times)), key=lambda at: times[at] * (LEAST_GAIN if distinct[at][1] else 1.0))
        self._variant = names[best]
        self.streams, self._chosen = distinct[best]
        self._pass = self._pass_of(self._chosen, self.streams)

    def _matchings(self, fuse: Fuse, streams: int) -> Iterator[list[Fusion]]:
        """Yield the choices of pairs that are worth measuring as whole schedules; the best by the model comes last."""
        vision_us, text_us = (half.times_us for half in self._decider.halves)
        if fuse == "always":
            # Free launches, so that as much as possible is fused.
            free = [replace(fusion, fused_us=0.0) for fusion in self._fusions]
            by_place = {(fusion.vision, fusion.text): fusion for fusion in self._fusions}
            chosen, _ = best_matching(vision_us, text_us, free, overlap=1.0)
            yield [by_place[fusion.vision, fusion.text] for fusion in chosen]
        elif fuse == "auto":
            worth = [fusion for fusion in self._fusions if fusion.gain >= LEAST_GAIN]
            overlaps = (1.0,) if streams == 1 else (*_OTHER_OVERLAPS, self._overlap)
            for overlap in overlaps if self._decider.meter is not None else overlaps[-1:]:
                yield best_matching(vision_us, text_us, worth, overlap=overlap)[0]

    def _pass_of(self, chosen: Sequence[Fusion], streams: int) -> Callable[[Any, Any], tuple[Any, Any]]:
        vision, text = self._engine.vision, self._engine.text
        schedule = stretches(len(vision.items), len(text.items), chosen)
        return self._engine.make_pass(schedule, streams, self._bodies)

    def _tower_pass(self, which: str) -> Callable[[Any, Any], tuple[Any, Any]]:
        vision, text = len(self._engine.vision.items), len(self._engine.text.items)
        alone = Stretch((0, vision if which == "vision" else 0), (0, text if which == "text" else 0), None)
        return self._engine.make_pass([alone], 1, self._bodies)

    def _measured_overlap(self) -> float:
        """Return how much two streams overlap here, as the norm that gives their time from those of the towers."""
        passes = (self._tower_pass("vision"), self._tower_pass("text"), self._pass_of([], 2))
        times = [graph_time_us(partial(one, *self._examples), repeats=1) for one in passes]
        return fitted_overlap(*times)

    def _variant_us(self, chosen: Sequence[Fusion], streams: int) -> float:
        run = partial(self._pass_of(chosen, streams), *self._examples)
        return graph_time_us(run, repeats=1, samples=15) if self.graph else _wall_time_us(run)

    # ---- running ----

    def _captured(self) -> Callable[[Any, Any], tuple[Any, Any]]:
        inputs = [
            half.tower.prepared(x).clone(memory_format=torch.preserve_format)
            for half, x in zip(self._decider.halves, self._examples, strict=True)
        ]
        self._pass(*inputs)
        recorded, outputs = captured(lambda: self._pass(*inputs))

        def replay(images: Any, token_ids: Any) -> tuple[Any, Any]:
            inputs[0].copy_(images)
            inputs[1].copy_(token_ids)
            recorded.replay()
            return outputs[0], outputs[1]

        return replay

    def _check_inputs(self, images: Any, token_ids: Any) -> None:
        _need_tensors(images, token_ids)
        for name, given, example in zip(("images", "token ids"), (images, token_ids), self._examples, strict=True):
            if given.shape != example.shape or given.dtype != example.dtype or given.device != example.device:
                raise UsageError(
                    f"the {name} are {given.dtype}{tuple(given.shape)} on {given.device}, the schedule was made for "
                    f"{example.dtype}{tuple(example.shape)} on {example.device}; make another one for them."
                )

    def __call__(self, images: Any, token_ids: Any) -> tuple[Any, Any]:
        """Return the embeddings of images and of token ids, like those that the schedule was made for.

        Raises:
            UsageError: they have another shape, dtype or device.
        """
        self._check_inputs(images, token_ids)
        return self._replay(images, token_ids) if self._replay is not None else self._pass(images, token_ids)

    def step(self, images: Any, token_ids: Any) -> tuple[Any, Any] | None:
        """Take the next item: run its vision beside the text of the item before, and return that item's embeddings.

        The first item has none before it, and gives None; `flush` gives those of the last.

        Raises:
            UsageError: the encoder was not made with pipelined=True, or the item is unlike the examples.
        """
        if not self.pipelined:
            raise UsageError("step overlaps items, and this encoder was made without pipelined=True; call it instead.")
        self._check_inputs(images, token_ids)
        if self._waiting is None:
            image, _ = self._tower_pass("vision")(images, token_ids)
            self._waiting = (image, token_ids.clone())
            return None
        before, tokens_before = self._waiting
        run = self._replay if self._replay is not None else self._pass
        image, token = run(images, tokens_before)
        # The next replay writes to the same memory.
        self._waiting = (image.clone() if self.graph else image, token_ids.clone())
        return before, token

    def flush(self) -> tuple[Any, Any] | None:
        """Return the embeddings of the last item that `step` took; None if there is none."""
        if self._waiting is None:
            return None
        image, token_ids = self._waiting
        self._waiting = None
        _, token = self._tower_pass("text")(None, token_ids)
        return image, token

    def check(self) -> None:
        """Wait for the device, and raise ToolError if a kernel reported an error."""
        if self._engine.launcher is not None:
            self._engine.launcher.executor.check()

    def explain(self) -> Explanation:
        """Return which pairs were fused, why the others were not, and the times behind it."""
        vision, text = (half.items for half in self._decider.halves)
        failures = self._decider.meter.failures if self._decider.meter is not None else {}
        return Explanation(
            self._variant,
            self.streams,
            self._decider.meter is not None,
            dict(self._variants_us),
            tuple(self._told(fusion) for fusion in self._chosen),
            tuple(reasons(vision, text, self._fusions, self._refused, self._chosen)),
            self._overlap,
            dict(failures),
        )

    def pairs(self) -> list[dict[str, Any]]:
        """Return every pair that could be fused, with its times: both unfused, both bodies, and fused (µs)."""
        return [self._told(fusion) for fusion in self._fusions]

    def layers(self) -> list[dict[str, Any]]:
        """Return every layer that takes time: what runs it alone, that time, and that of our body (µs)."""
        return [
            {
                "tower": name,
                "layer": item.name,
                "way": half.ways[at],
                "unfused_us": item.unfused_us,
                "body_us": item.body_us,
            }
            for name, half in zip(("vision", "text"), self._decider.halves, strict=True)
            for at, item in enumerate(half.items)
            if item.unfused_us
        ]

    def _told(self, fusion: Fusion) -> dict[str, Any]:
        vision, text = (half.items for half in self._decider.halves)
        image, token = vision[fusion.vision], text[fusion.text]
        return {
            "vision": image.name,
            "text": token.name,
            "strategy": strategy_name(fusion.strategy),
            "vision_us": image.unfused_us,
            "text_us": token.unfused_us,
            "vision_body_us": image.body_us,
            "text_body_us": token.body_us,
            "fused_us": fusion.fused_us,
            "unfused_us": fusion.unfused_us,
            "gain": fusion.gain,
        }
