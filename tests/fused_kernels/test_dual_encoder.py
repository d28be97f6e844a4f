"""The fused dual encoder against the modules it was made from: in plain torch, with emulated kernels, and on a GPU."""

from __future__ import annotations

import contextlib
import functools
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nitro.errors import InputError, UsageError
from nitro.fused_kernels.compute_bodies import ComputeBody
from nitro.fused_kernels.problems import (
    ConvolutionProblem,
    EmbeddingProblem,
    SkinnyGemmProblem,
    SoftmaxProblem,
    linear,
)
from nitro.fused_kernels.runtime_emulation import EmulatedRuntime

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402

from nitro.fused_kernels.model import FusedDualEncoder, Measurements, engine, measuring  # noqa: E402
from nitro.fused_kernels.model.layers import Tower, trace  # noqa: E402
from nitro.fused_kernels.torch_launch import Launcher  # noqa: E402

needs_gpp = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is needed to emulate kernels")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
WIDTH, TOKENS, VOCABULARY = 16, 5, 40
LIMITS = {torch.float32: 1e-5, torch.float16: 2e-2}


class Bottleneck(nn.Module):  # type: ignore[misc,unused-ignore]
    """A residual block as in ResNet-50, with a stride and a shortcut that is a convolution too."""

    def __init__(self, channels: int, inner: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential(
            nn.Conv2d(channels, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Any) -> Any:
        inner = self.relu(self.bn1(self.conv1(x)))
        inner = self.relu(self.bn2(self.conv2(inner)))
        inner = self.bn3(self.conv3(inner))
        inner += self.shortcut(x)
        return self.relu(inner)


class Vision(nn.Module):  # type: ignore[misc,unused-ignore]
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 7, stride=2, padding=3), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.Sequential(Bottleneck(8, 8, 16, 1), Bottleneck(16, 8, 24, 2))
        self.head = nn.Linear(24, WIDTH)

    def forward(self, images: Any) -> Any:
        return self.head(self.blocks(self.pool(self.stem(images))).mean((2, 3)))


class Block(nn.Module):  # type: ignore[misc,unused-ignore]
    """A pre-norm Transformer block with its attention written out, so that softmax is a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.grow, self.shrink = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Any) -> Any:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        scores = q @ k.transpose(1, 2) * WIDTH**-0.5
        x = x + self.dropout(self.out(torch.softmax(scores, dim=-1) @ v))
        return x + self.shrink(nn.functional.gelu(self.grow(self.norm2(x))))


class Text(nn.Module):  # type: ignore[misc,unused-ignore]
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Parameter(torch.randn(TOKENS, WIDTH))
        self.blocks = nn.Sequential(Block(), Block())
        self.projection = nn.Linear(WIDTH, WIDTH)

    def forward(self, ids: Any) -> Any:
        return self.projection(self.blocks(self.tokens(ids) + self.positions)[:, -1])


def modules(dtype: Any = torch.float32, device: str = "cpu") -> tuple[Any, Any]:
    torch.manual_seed(1)
    vision, text = Vision().eval(), Text().eval()
    for module in vision.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return vision.to(device, dtype), text.to(device, dtype)


def inputs(dtype: Any = torch.float32, device: str = "cpu", seed: int = 2) -> tuple[Any, Any]:
    torch.manual_seed(seed)
    return torch.randn(2, 3, 32, 32).to(device, dtype), torch.randint(VOCABULARY, (2, TOKENS)).to(device)


def unfused(towers: tuple[Any, Any], given: tuple[Any, Any]) -> tuple[Any, Any]:
    with torch.no_grad():
        return towers[0](given[0]), towers[1](given[1])


def distance(found: tuple[Any, Any], wanted: tuple[Any, Any]) -> float:
    pairs = zip(found, wanted, strict=True)
    return max(float((one.double() - other.double()).norm() / other.double().norm()) for one, other in pairs)


@pytest.fixture(scope="module")
def encoder() -> FusedDualEncoder:
    """Return one that fuses what can be fused, in plain torch. Tracing takes seconds, so tests share it."""
    return FusedDualEncoder(*modules(), *inputs(), fuse="always", pipelined=True)


@functools.cache
def traced(which: int) -> Tower:
    tower = trace(modules()[which], inputs()[which])
    with torch.no_grad():
        tower.run(inputs()[which])
    return tower


def test_a_vision_tower_becomes_convolutions_with_their_batch_norm_residual_and_relu() -> None:
    layers = {layer.name: layer for layer in traced(0).layers}
    assert layers["stem.0"].why_not == "no body for a filter of 7x7"
    assert {name for name, layer in layers.items() if isinstance(layer.problem, ConvolutionProblem)} == {
        f"blocks.{block}.{name}" for block in (0, 1) for name in ("conv1", "conv2", "conv3", "shortcut.0")
    }
    assert layers["blocks.1.conv2"].problem == ConvolutionProblem(
        2, 8, 8, 16 // 2, 8, stride=2, padding=1, bias=True, relu=True
    )
    assert layers["blocks.0.conv3"].has_tail
    assert isinstance(layers["head"].problem, SkinnyGemmProblem)
    assert not any("batch_norm" in layer.kind or layer.kind.startswith("relu") for layer in layers.values())


def test_a_text_tower_becomes_the_layers_that_bodies_know() -> None:
    layers = traced(1).layers
    kinds = [layer.kind for layer in layers if layer.problem is not None]
    assert kinds[0] == "embedding"
    assert kinds.count("layer_norm") == 4
    assert kinds.count("gelu") == 2
    assert kinds.count("softmax") == 2
    assert layers[0].problem == EmbeddingProblem(2 * TOKENS, WIDTH, VOCABULARY, TOKENS)
    assert SoftmaxProblem(2 * TOKENS, TOKENS) in [layer.problem for layer in layers]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_outputs_are_those_of_the_modules(dtype: Any) -> None:
    made = FusedDualEncoder(*modules(dtype), *inputs(dtype))
    given = inputs(dtype, seed=7)
    first, second = modules(dtype)
    wanted = unfused((first.double(), second.double()), (given[0].double(), given[1]))
    for variant in (made, made.variant(fuse="always"), made.variant(fuse="never")):
        assert distance(variant(*given), wanted) < LIMITS[dtype]
    assert made.explain().fusions
    assert not made.variant(fuse="never").explain().fusions


@needs_gpp
def test_fused_kernels_compute_what_the_modules_do() -> None:
    towers, given = modules(), inputs(seed=5)
    encoder = FusedDualEncoder(*towers, *inputs(), fuse="always", launcher=Launcher(EmulatedRuntime()))
    assert len(encoder.explain().fusions) >= 5
    assert distance(encoder(*given), unfused(towers, given)) < 1e-5
    assert torch.equal(encoder(*given)[0], encoder(*given)[0])
    encoder.check()


def test_layers_are_fused_in_the_order_of_both_towers(encoder: FusedDualEncoder) -> None:
    vision = [layer.name for layer in traced(0).layers]
    text = [layer.name for layer in traced(1).layers]
    fused = encoder.explain().fusions
    assert [vision.index(one["vision"]) for one in fused] == sorted({vision.index(one["vision"]) for one in fused})
    assert [text.index(one["text"]) for one in fused] == sorted({text.index(one["text"]) for one in fused})


def test_it_says_of_every_layer_why_it_is_fused_or_not(encoder: FusedDualEncoder) -> None:
    explanation = encoder.explain()
    by_layer = {reason.layer: reason for reason in explanation.reasons}
    assert by_layer["stem.0"].reason == "no body for a filter of 7x7"
    assert by_layer[explanation.fusions[0]["vision"]].fused_with == explanation.fusions[0]["text"]
    assert all(reason.reason for reason in explanation.reasons)
    assert f"{len(explanation.fusions)} pairs of layers are fused" in str(explanation)
    assert not explanation.measured


def test_pipelining_gives_every_item_once_and_in_order(encoder: FusedDualEncoder) -> None:
    towers = modules()
    items = [inputs(seed=seed) for seed in (10, 11, 12)]
    found = [encoder.step(*item) for item in items] + [encoder.flush()]
    assert found[0] is None
    for item, one in zip(items, found[1:], strict=True):
        assert one is not None
        assert distance(one, unfused(towers, item)) < 1e-5
    assert encoder.flush() is None


def test_an_item_that_waits_does_not_change_when_its_token_ids_are_overwritten(encoder: FusedDualEncoder) -> None:
    images, ids = inputs(seed=10)
    wanted = unfused(modules(), (images, ids))
    encoder.step(images, ids)
    ids.zero_()
    found = encoder.flush()
    assert found is not None
    assert distance(found, wanted) < 1e-5


def test_the_ways_to_run_it_agree(encoder: FusedDualEncoder) -> None:
    given = inputs(seed=9)
    for variant in (encoder.variant(fuse="never"), encoder.variant(fuse="never", bodies=False)):
        assert distance(variant(*given), encoder(*given)) < LIMITS[torch.float32]
        assert variant.explain().fusions == ()


def test_what_it_knows_of_pairs_and_layers_is_told(encoder: FusedDualEncoder) -> None:
    pairs = encoder.pairs()
    assert len(pairs) > len(encoder.explain().fusions)
    assert all(pair["gain"] == pytest.approx(pair["unfused_us"] / pair["fused_us"]) for pair in pairs)
    towers = {layer["tower"] for layer in encoder.layers()}
    assert towers == {"vision", "text"}


def decided(
    monkeypatch: pytest.MonkeyPatch, *, pair_us: float, pass_us: Callable[[int, int], float]
) -> FusedDualEncoder:
    """Return an encoder that was told times instead of measuring them: every layer takes 10 µs, every pair `pair_us`.

    `pass_us` gives the time of a whole schedule from its number of fused pairs and of streams.
    """
    monkeypatch.setattr(FusedDualEncoder, "_pass_of", lambda *_: None)
    launcher = Launcher(EmulatedRuntime())
    made = FusedDualEncoder(*modules(), *inputs(), launcher=launcher)
    monkeypatch.setattr(EmulatedRuntime, "compile_ahead", lambda *_: None)
    monkeypatch.setattr(measuring, "graph_time_us", lambda work: (work(), 10.0)[1])
    monkeypatch.setattr(measuring.Meter, "body_us", lambda *_: 10.0)
    monkeypatch.setattr(measuring.Meter, "pair_us", lambda *_: pair_us)
    monkeypatch.setattr(FusedDualEncoder, "_measured_overlap", lambda _: 3.0)
    monkeypatch.setattr(FusedDualEncoder, "_variant_us", lambda _, chosen, streams: pass_us(len(chosen), streams))
    made._decider.meter = measuring.Meter(launcher, Measurements("told"), "cpu")
    made._decider._found = None
    made._overlaps.clear()
    made._decider.layers(made._examples)
    return made.variant()


def test_what_was_measured_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    made = decided(monkeypatch, pair_us=12.0, pass_us=lambda pairs, streams: 1000.0 * streams - 10 * pairs)
    explanation = made.explain()
    assert explanation.measured
    assert explanation.streams == 1
    assert len(explanation.fusions) > 5
    assert {fusion["fused_us"] for fusion in explanation.fusions} <= {12.0, 22.0}  # 22: with a residual sum after it
    assert set(explanation.variants_us) >= {"nothing fused, 1 stream", "nothing fused, 2 streams"}


def test_pairs_slower_than_their_halves_are_not_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = decided(monkeypatch, pair_us=25.0, pass_us=lambda pairs, streams: 1000.0 - 10 * streams - 100 * pairs)
    explanation = made.explain()
    assert explanation.fusions == ()
    assert explanation.streams == 2
    reasons = {reason.layer: reason.reason for reason in explanation.reasons}
    assert reasons["blocks.0.conv1"].startswith("fusing does not pay; the best partner is ")
    assert "25.0 µs measured against 20.0 µs unfused" in reasons["blocks.0.conv1"]


@pytest.mark.parametrize(("gain", "fused"), [(1.01, False), (1.05, True)])
def test_a_tie_is_not_fused(monkeypatch: pytest.MonkeyPatch, gain: float, fused: bool) -> None:
    made = decided(monkeypatch, pair_us=12.0, pass_us=lambda pairs, _: 1000.0 / (gain if pairs else 1.0))
    assert bool(made.explain().fusions) == fused


class FakeStream:
    """Notes who waits for whom."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log, self.cuda_stream = name, log, name

    def wait_stream(self, other: FakeStream) -> None:
        self.log.append(f"{self.name} waits for {other.name}")


def test_the_text_starts_beside_the_vision_and_both_meet_at_a_fused_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    main, side = FakeStream("main", log), FakeStream("side", log)
    same = FakeStream("main", log)  # torch has handed out the stream that is current, too

    def step(name: str) -> Any:
        return lambda *_: log.append(name)

    monkeypatch.setattr(torch.cuda, "current_stream", lambda: main)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    both: Any = engine.Engine(None, None, None, (same, side))  # type: ignore[arg-type]
    parts = [([step("v0")], [step("t0")], step("v1+t1")), ([step("v2")], [], step("v3+t2")), ([], [step("t3")], None)]
    both.run_parts(parts, {}, {}, 2)
    assert log == [
        *("side waits for main", "v0", "t0", "main waits for side", "v1+t1"),
        *("v2", "v3+t2"),
        *("side waits for main", "t3", "main waits for side"),
    ]


class Masked(nn.Module):  # type: ignore[misc,unused-ignore]
    """Adds a constant that is made anew in every call, as the attention masks of Swin are."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, WIDTH)

    def forward(self, images: Any) -> Any:
        mask = images.new_zeros((4, 12))
        mask[1:3] = 2.0
        return self.head((images.flatten(1)[:, None, :12] + mask).mean(1))


def test_what_depends_on_no_input_is_computed_once() -> None:
    images, ids = inputs()
    towers = (Masked().eval(), modules()[1])
    tower = trace(towers[0], images)
    assert not any(layer.kind.startswith(("new_zeros", "fill", "slice_scatter")) for layer in tower.layers)
    assert distance(FusedDualEncoder(*towers, images, ids)(images, ids), unfused(towers, (images, ids))) < 1e-5


class TwoInputs(nn.Module):  # type: ignore[misc,unused-ignore]
    def forward(self, x: Any, y: Any) -> Any:
        return x + y


class TwoOutputs(nn.Module):  # type: ignore[misc,unused-ignore]
    def forward(self, x: Any) -> Any:
        return x + 1, x + 2


class Branches(nn.Module):  # type: ignore[misc,unused-ignore]
    def forward(self, x: Any) -> Any:
        return x + 1 if bool(x.sum() > 0) else x


def refused_with(sentence: str, vision: Any, text: Any, images: Any, ids: Any) -> None:
    with pytest.raises(UsageError) as caught:
        FusedDualEncoder(vision, text, images, ids)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_unsuitable_encoders_and_examples_are_refused_in_one_sentence() -> None:
    (vision, text), (images, ids) = modules(), inputs()
    refused_with("the images are on cpu, the token ids on meta", vision, text, images, ids.to("meta"))
    refused_with("the images are torch.float64", vision, text, images.double(), ids)
    refused_with("TwoInputs cannot be traced (", TwoInputs().eval(), text, images, ids)
    refused_with("TwoOutputs has 1 inputs and 2 outputs", TwoOutputs().eval(), text, images, ids)
    refused_with("Identity returns what it is given", torch.nn.Identity().eval(), text, images, ids)
    refused_with("the images are of type list; make a torch tensor", vision, text, [1.0], ids)
    refused_with("Branches cannot be traced (", Branches().eval(), text, images, ids)
    refused_with("the vision encoder is in training mode", vision.train(), text, images, ids)


def test_unsuitable_options_and_inputs_are_refused_in_one_sentence(encoder: FusedDualEncoder) -> None:
    images, ids = inputs()
    with pytest.raises(UsageError, match=r"the images are torch.float32\(1, 3, 32, 32\) on cpu, the schedule was made"):
        encoder(images[:1], ids)
    with pytest.raises(UsageError, match="the token ids are of type str"):
        encoder(images, "tea")
    with pytest.raises(UsageError, match="step overlaps items, and this encoder was made without pipelined=True"):
        encoder.variant().step(images, ids)
    with pytest.raises(UsageError, match="bodies=False leaves nothing to fuse with"):
        encoder.variant(bodies=False)
    with pytest.raises(UsageError, match="fuse is 'sometimes'"):
        encoder.variant(fuse="sometimes")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="there can be 1 stream or 2"):
        encoder.variant(streams=3)
    with pytest.raises(UsageError, match="CUDA graphs and two streams need a GPU, the examples are on cpu"):
        encoder.variant(graph=True)


def test_measurements_are_kept_and_refused_on_another_device(tmp_path: Path) -> None:
    path = tmp_path / "measurements.json"
    Measurements("a GPU", {"layer": 2.5, "does not run": math.inf}).save(path)
    assert Measurements.load(path, "a GPU").times_us == {"layer": 2.5, "does not run": math.inf}
    with pytest.raises(InputError, match="cannot be written"):
        Measurements("a GPU").save(path / "below" / "a.json")
    with pytest.raises(UsageError, match="the times are of a GPU, this is another"):
        Measurements.load(path, "another")
    wrong = ['{"device": "a GPU"}', "[" * 100_000, "[]"]
    wrong += [f'{{"device": "a GPU", "times_us": {{"layer": {time}}}}}' for time in ("NaN", "0", "-1", '"1"', "true")]
    for text in wrong:
        path.write_text(text)
        with pytest.raises(InputError, match="no measurements can be read"):
            Measurements.load(path, "a GPU")


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_eager_and_graph_modes_on_a_gpu(dtype: Any) -> None:
    made = FusedDualEncoder(*modules(dtype, "cuda"), *inputs(dtype, "cuda"))
    variants = [
        made.variant(fuse=fuse, streams=streams, graph=graph)
        for fuse in ("auto", "always", "never")
        for streams in (1, 2)
        for graph in (False, True)
    ]
    first, second = modules(dtype, "cuda")
    wide = (first.double(), second.double())
    for seed in (20, 21):
        given = inputs(dtype, "cuda", seed)
        wanted = unfused(wide, (given[0].double(), given[1]))
        for variant in (made, *variants):
            assert distance(variant(*given), wanted) < LIMITS[dtype]
    made.check()


def test_layers_are_offered_the_bodies_that_their_architecture_has() -> None:
    three = ConvolutionProblem(1, 14, 14, 64, 64, padding=1)
    for sm, algorithms in ((72, {False}), (90, {False, True})):
        offered = measuring.layer_candidates(three, sm)
        assert {body.winograd for body in offered if isinstance(body, ComputeBody)} == algorithms
    halves = measuring.layer_candidates(linear(77, 512, 2048), 90)
    assert {body.wgmma for body in halves if isinstance(body, ComputeBody)} == {False, True}
    assert len(halves) == len(set(halves))
