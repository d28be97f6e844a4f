"""Run a dual encoder (image and text) on one GPU, marked with NVTX ranges for a profiler.

A ResNet-50 and a causal Transformer, both fp16 with random weights, embed one image batch and one
text batch in each iteration; nothing is downloaded. Every iteration is one NVTX range:

    infer:N
        preprocess    resize and normalise on the CPU, copy to the GPU
        vision        launch the image tower
        text          launch the text tower
        sync          compare the embeddings, wait for the GPU, copy the similarity back

With --cuda-graph, iteration 0 runs as above, a range `graph_capture` follows it, and every later
iteration launches both towers as one graph in a range `vision+text`.

For energy by phase a phase must last some tenths of a second. --gpu-preprocess copies the frames as
bytes and resizes them on the GPU, so that large batches do not wait for the CPU; with --chunks N an
iteration takes N batches through each phase; --idle SECONDS leaves the GPU idle before the first
iteration and after the last one. --layer-ranges adds a range for each module of the towers.

--profiled NAMES runs the CUDA profiler inside some modules only, for tools that replay every kernel.

The CUDA profiler is started before iteration 0 and stopped after the last one, so a recording with
`--capture-range=cudaProfilerApi` leaves model building out and keeps the slow first iterations.
The file needs only PyTorch and torchvision, so that it can be copied to a board alone.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import torch

FRAME_HEIGHT = 480
FRAME_WIDTH = 640
EMBEDDING_WIDTH = 512
TEXT_HEADS = 8
TEXT_TOKENS = 77
VOCABULARY = 49_408
DIFFERENT_FRAMES = 64
FRAMES_AT_ONCE = 256

EXIT_TOOL_MISSING = 5

Embeddings: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"


class MissingRequirementError(Exception):
    """The machine lacks something the workload needs; the message says what."""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    iterations: int
    batch: int
    text_layers: int
    image_size: int
    streams: int
    cuda_graph: bool
    pin_memory: bool
    cpu_threads: int
    seed: int
    text_tokens: int
    chunks: int
    gpu_preprocess: bool
    layer_ranges: bool
    idle: float
    profiled: tuple[frozenset[str], ...]


@dataclass(frozen=True, slots=True)
class HostBatch:
    """What a camera and a tokenizer would deliver.

    Attributes:
        frames: uint8, shape (batch, height, width, 3).
        token_ids: int64, shape (batch, tokens).
    """

    frames: torch.Tensor
    token_ids: torch.Tensor


@dataclass(frozen=True, slots=True)
class DeviceBatch:
    """The towers' inputs in GPU memory, at addresses that stay the same over all iterations.

    Attributes:
        images: float16, shape (batch, 3, size, size), channels last.
        token_ids: int64, shape (batch, tokens).
    """

    images: torch.Tensor
    token_ids: torch.Tensor


@dataclass(frozen=True, slots=True)
class TextTower:
    """A pre-norm Transformer whose last token becomes the embedding."""

    tokens: torch.nn.Embedding
    positions: torch.Tensor
    causal_mask: torch.Tensor
    blocks: torch.nn.TransformerEncoder
    projection: torch.nn.Linear

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Return one vector per text, shape (batch, EMBEDDING_WIDTH)."""
        hidden = self.tokens(token_ids) + self.positions
        hidden = self.blocks(hidden, mask=self.causal_mask, is_causal=True)
        projected: torch.Tensor = self.projection(hidden[:, -1])
        return projected


@dataclass(frozen=True, slots=True)
class DualEncoder:
    """Both towers, each with the stream of its own that it is queued on, if it has one."""

    vision: torch.nn.Module
    text: TextTower
    vision_stream: torch.cuda.Stream | None
    text_stream: torch.cuda.Stream | None

    def embed(self, batches: Sequence[DeviceBatch]) -> Embeddings:
        """Queue both towers and return their embeddings, each (pairs of all batches, EMBEDDING_WIDTH).

        Whatever the current stream is given next waits for both.
        """
        with nvtx_range("vision"), queued_on(self.vision_stream):
            image_embeddings = joined([self.vision(batch.images) for batch in batches])
        with nvtx_range("text"), queued_on(self.text_stream):
            text_embeddings = joined([self.text.embed(batch.token_ids) for batch in batches])
        wait_for(self.vision_stream)
        wait_for(self.text_stream)
        return image_embeddings, text_embeddings


def joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the rows of all parts in one tensor; a single part is returned as it is, without a copy."""
    import torch

    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


@contextmanager
def nvtx_range(name: str) -> Iterator[None]:
    """Mark the body with an NVTX range on this thread."""
    import torch

    torch.cuda.nvtx.range_push(name)
    try:
        yield
    finally:
        torch.cuda.nvtx.range_pop()


@contextmanager
def queued_on(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Queue the body's work on a stream, behind the current stream's; None: stay on the current one."""
    import torch

    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield


def wait_for(stream: torch.cuda.Stream | None) -> None:
    """Make the current stream wait for what another one holds so far; None: nothing to wait for."""
    import torch

    if stream is not None:
        torch.cuda.current_stream().wait_stream(stream)


def build_vision_tower() -> torch.nn.Module:
    """Return a ResNet-50 whose classifier is replaced by a projection to EMBEDDING_WIDTH."""
    import torch
    import torchvision

    tower = torchvision.models.resnet50(weights=None, num_classes=EMBEDDING_WIDTH).eval()
    on_gpu: torch.nn.Module = tower.to("cuda", torch.float16, memory_format=torch.channels_last)
    return on_gpu


def build_text_tower(layers: int, text_tokens: int) -> TextTower:
    """Return a Transformer of CLIP's text shape: causal, pre-norm, EMBEDDING_WIDTH wide."""
    import torch
    from torch import nn

    # PyTorch's fused encoder layer skips scaled_dot_product_attention, which deployed models call.
    torch.backends.mha.set_fastpath_enabled(False)
    layer = nn.TransformerEncoderLayer(
        EMBEDDING_WIDTH,
        TEXT_HEADS,
        dim_feedforward=4 * EMBEDDING_WIDTH,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )
    blocks = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(EMBEDDING_WIDTH), enable_nested_tensor=False)
    mask = nn.Transformer.generate_square_subsequent_mask(text_tokens)
    return TextTower(
        tokens=nn.Embedding(VOCABULARY, EMBEDDING_WIDTH).to("cuda", torch.float16),
        positions=torch.randn(text_tokens, EMBEDDING_WIDTH).to("cuda", torch.float16),
        causal_mask=mask.to("cuda", torch.float16),
        blocks=blocks.to("cuda", torch.float16).eval(),
        projection=nn.Linear(EMBEDDING_WIDTH, EMBEDDING_WIDTH).to("cuda", torch.float16),
    )


def build_encoder(options: Options) -> DualEncoder:
    """Return both towers on the GPU; with two streams, each tower has one of its own."""
    import torch

    encoder = DualEncoder(
        vision=build_vision_tower(),
        text=build_text_tower(options.text_layers, options.text_tokens),
        vision_stream=torch.cuda.Stream() if options.streams == 2 else None,
        text_stream=torch.cuda.Stream() if options.streams == 2 else None,
    )
    if options.layer_ranges:
        mark_modules(encoder)
    return encoder


def modules_of(encoder: DualEncoder) -> Iterator[tuple[str, torch.nn.Module]]:
    """Yield the modules inside the towers, each with its place in its tower as name.

    A tower itself has the range of its phase already, unless nothing is inside it.
    """
    for tower in (encoder.vision, encoder.text.tokens, encoder.text.blocks, encoder.text.projection):
        inside = {name: module for name, module in tower.named_modules() if name}
        yield from (inside or {type(tower).__name__.lower(): tower}).items()


def mark_modules(encoder: DualEncoder) -> None:
    """Put an NVTX range around the forward pass of every module."""
    import torch

    # A hook that returned something would replace what the module is given or gives.
    def begin(name: str, *_: object) -> None:
        torch.cuda.nvtx.range_push(name)

    def end(*_: object) -> None:
        torch.cuda.nvtx.range_pop()

    for name, module in modules_of(encoder):
        module.register_forward_pre_hook(partial(begin, name))
        module.register_forward_hook(end)


def profile_modules(encoder: DualEncoder, wanted: set[str]) -> None:
    """Run the CUDA profiler inside the modules whose names are in a set at that time."""
    import torch

    def begin(name: str, *_: object) -> None:
        if name in wanted:
            torch.cuda.synchronize()
            torch.cuda.profiler.start()

    def end(name: str, *_: object) -> None:
        if name in wanted:
            torch.cuda.synchronize()
            torch.cuda.profiler.stop()

    for name, module in modules_of(encoder):
        module.register_forward_pre_hook(partial(begin, name))
        module.register_forward_hook(partial(end, name))


def random_batch(options: Options) -> HostBatch:
    """Return random frames and token ids in CPU memory."""
    import torch

    # Making the numbers takes longer than all iterations on them, so many frames are a few that come again.
    different = min(options.batch, DIFFERENT_FRAMES)
    frames = torch.randint(256, (different, FRAME_HEIGHT, FRAME_WIDTH, 3), dtype=torch.uint8)
    source = HostBatch(
        frames=frames if different == options.batch else frames[torch.arange(options.batch) % different],
        token_ids=torch.randint(VOCABULARY, (options.batch, options.text_tokens)),
    )
    # What is prepared on the GPU is copied as it came, so that it can be pinned once.
    if options.gpu_preprocess and options.pin_memory:
        return HostBatch(source.frames.pin_memory(), source.token_ids.pin_memory())
    return source


def empty_batch(options: Options) -> DeviceBatch:
    """Return GPU memory for a batch, to be filled by `preprocess` or `preprocess_on_gpu`."""
    import torch

    size = options.image_size
    images = torch.empty(options.batch, 3, size, size, dtype=torch.float16, device="cuda")
    return DeviceBatch(
        images=images.to(memory_format=torch.channels_last),
        token_ids=torch.empty(options.batch, options.text_tokens, dtype=torch.int64, device="cuda"),
    )


def preprocess(source: HostBatch, target: DeviceBatch, *, pin_memory: bool) -> None:
    """Resize and normalise the frames on the CPU, then copy images and token ids to the GPU.

    From pageable memory the copies return once the data has been staged; from pinned memory they
    are only queued.
    """
    import torch

    frames = source.frames.permute(0, 3, 1, 2).float()
    resized = torch.nn.functional.interpolate(frames, size=target.images.shape[-2:], mode="bilinear", antialias=True)
    images = resized.mul(2 / 255).sub(1).to(torch.float16, memory_format=torch.channels_last)
    token_ids = source.token_ids
    if pin_memory:
        images, token_ids = images.pin_memory(), token_ids.pin_memory()
    target.images.copy_(images, non_blocking=pin_memory)
    target.token_ids.copy_(token_ids, non_blocking=pin_memory)


def preprocess_on_gpu(source: HostBatch, target: DeviceBatch) -> None:
    """Copy frames as bytes and token ids to the GPU, and resize and normalise the frames there, some at a time."""
    import torch

    size = target.images.shape[-2:]
    for frames, images in zip(source.frames.split(FRAMES_AT_ONCE), target.images.split(FRAMES_AT_ONCE), strict=True):
        on_gpu = frames.to("cuda", non_blocking=frames.is_pinned()).permute(0, 3, 1, 2).float()
        resized = torch.nn.functional.interpolate(on_gpu, size=size, mode="bilinear", antialias=True)
        images.copy_(resized.mul_(2 / 255).sub_(1))
    target.token_ids.copy_(source.token_ids, non_blocking=source.token_ids.is_pinned())


def read_similarity(image_embeddings: torch.Tensor, text_embeddings: torch.Tensor) -> float:
    """Return the mean cosine similarity of image i and text i, once the GPU has computed it."""
    import torch

    similarity = torch.nn.functional.cosine_similarity(image_embeddings, text_embeddings).mean()
    torch.cuda.synchronize()
    return float(similarity.item())


def load_libraries() -> None:
    """Make cuBLAS and cuDNN load their files and create their handles on operations of a few bytes."""
    import torch

    with torch.inference_mode():
        matrix = torch.ones(8, 8, dtype=torch.float16, device="cuda")
        image = torch.ones(1, 8, 8, 8, dtype=torch.float16, device="cuda")
        torch.mm(matrix, matrix)
        torch.nn.functional.conv2d(image, image)
    torch.cuda.synchronize()


def capture_graph(embed: Callable[[], Embeddings]) -> Callable[[], Embeddings]:
    """Record what a function queues as one CUDA graph; return a function that launches the graph.

    The embeddings lie at the same addresses after every launch. Call `embed` once before: libraries
    and kernels that load during a capture would break it.
    """
    import torch

    graph = torch.cuda.CUDAGraph()
    with nvtx_range("graph_capture"), torch.cuda.graph(graph):
        embeddings = embed()

    def launch() -> Embeddings:
        with nvtx_range("vision+text"):
            graph.replay()
        return embeddings

    return launch


def run(options: Options) -> float:
    """Run all iterations between profiler start and stop; return the last similarity."""
    import torch

    # With a thread per core (PyTorch's default) the CPU part of single images was seen to stall for 30 ms.
    torch.set_num_threads(options.cpu_threads)
    torch.manual_seed(options.seed)
    encoder = build_encoder(options)
    source = random_batch(options)
    targets = [empty_batch(options) for _ in range(options.chunks)]
    load_libraries()

    prepare = preprocess_on_gpu if options.gpu_preprocess else partial(preprocess, pin_memory=options.pin_memory)
    queue_towers: Callable[[], Embeddings] = partial(encoder.embed, targets)
    similarity = 0.0
    profiled: set[str] = set()
    if options.profiled:
        profile_modules(encoder, profiled)
    with torch.inference_mode(), nullcontext() if options.profiled else torch.cuda.profiler.profile():
        time.sleep(options.idle)
        for iteration in range(options.iterations):
            profiled.clear()
            profiled.update(*options.profiled[iteration : iteration + 1])
            with nvtx_range(f"infer:{iteration}"):
                with nvtx_range("preprocess"):
                    for target in targets:
                        prepare(source, target)
                embeddings = queue_towers()
                with nvtx_range("sync"):
                    similarity = read_similarity(*embeddings)
            if options.cuda_graph and iteration == 0:
                queue_towers = capture_graph(queue_towers)
        time.sleep(options.idle)
    return similarity


def require_cuda() -> None:
    """Raise MissingRequirementError unless PyTorch, torchvision and a GPU that PyTorch can use are here."""
    try:
        import torch
        import torchvision  # noqa: F401
    except (ImportError, OSError) as error:
        raise MissingRequirementError(f"PyTorch with torchvision cannot be imported ({error}).") from error
    # PyTorch warns when it finds no driver; the sentence below says the same.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        usable = torch.cuda.is_available()
    if not usable:
        raise MissingRequirementError(
            f"PyTorch {torch.__version__} finds no CUDA device; "
            "a CUDA build of PyTorch, a driver and an NVIDIA GPU are needed."
        )


def positive(text: str) -> int:
    """Return a command-line value as an integer of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number


def parse_options(arguments: Sequence[str] | None) -> Options:
    """Read the command line; None stands for the program's own."""
    parser = argparse.ArgumentParser(
        prog="dual_encoder.py",
        description="Run an image and a text encoder with NVTX ranges, for a profiler to record.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--iterations", type=positive, default=12, help="inferences to run")
    parser.add_argument("--batch", type=positive, default=1, help="images and texts an inference")
    parser.add_argument("--text-layers", type=positive, default=12, help="depth of the text tower")
    parser.add_argument("--image-size", type=positive, default=224, help="pixels a side")
    parser.add_argument("--streams", type=int, choices=(1, 2), default=1, help="2: each tower on its own stream")
    parser.add_argument("--cuda-graph", action="store_true", help="launch both towers as one CUDA graph")
    parser.add_argument("--pin-memory", action="store_true", help="copy from pinned host memory")
    parser.add_argument("--cpu-threads", type=positive, default=1, help="threads of the CPU's part")
    parser.add_argument("--text-tokens", type=positive, default=TEXT_TOKENS, help="tokens a text")
    parser.add_argument("--chunks", type=positive, default=1, help="batches an inference takes through each phase")
    parser.add_argument("--gpu-preprocess", action="store_true", help="resize and normalise on the GPU")
    parser.add_argument("--layer-ranges", action="store_true", help="an NVTX range for each module of the towers")
    parser.add_argument("--idle", type=float, default=0.0, help="idle seconds before and after all inferences")
    parser.add_argument(
        "--profiled",
        type=lambda names: frozenset(names.split(",")),
        action="append",
        default=[],
        metavar="NAMES",
        help="run the CUDA profiler inside these modules only, such as layers.0,layer1.0; repeated: a set an inference",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and inputs")
    told = vars(parser.parse_args(arguments))
    return Options(**told | {"profiled": tuple(told["profiled"])})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the workload and return the exit code."""
    options = parse_options(arguments)
    try:
        require_cuda()
    except MissingRequirementError as error:
        print(f"dual_encoder.py: {error}", file=sys.stderr)
        return EXIT_TOOL_MISSING
    similarity = run(options)
    pairs = options.chunks * options.batch
    print(f"{options.iterations} iterations of {pairs} image and text pairs, similarity {similarity:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
