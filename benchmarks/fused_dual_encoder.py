"""Time a dual encoder with and without fused layers, end to end, on the GPU of this machine.

    PYTHONPATH=src python benchmarks/fused_dual_encoder.py --dtype float32 --batch 1 8 --output dual_encoder.json

A vision tower of torchvision (random weights) and a 12-layer text Transformer of CLIP's shape (77 tokens, width 512)
embed images and texts. Everything is timed in one process, in turn, forwards and then backwards, so that a drift of the
clocks meets all of them. A latency is what a caller waits: from the call, on an idle GPU, until the GPU has finished.
A period is the time of an item when calls follow each other without waiting.

Baselines are the modules as they are ("model") and with their batch norms folded by torch.fx ("folded"), each
sequential, on two streams, and as a CUDA graph of both. cuDNN searches its algorithms, images are channels-last, and
TF32 is off, because it is another precision. Outputs are compared with the same weights in double precision.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nitro.errors import InputError, NitroError, ToolError
from nitro.fused_kernels.tuner import write_whole

WIDTH, HEADS, TOKENS, LAYERS, VOCABULARY = 512, 8, 77, 12, 49408
PERIOD_CALLS = 8


def text_tower() -> Any:
    import torch
    from torch import nn

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.grow, self.shrink = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x: Any) -> Any:
            batch, tokens, _ = x.shape
            heads = self.qkv(self.norm1(x)).view(batch, tokens, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
            mixed = nn.functional.scaled_dot_product_attention(heads[0], heads[1], heads[2], is_causal=True)
            x = x + self.out(mixed.transpose(1, 2).reshape(batch, tokens, WIDTH))
            return x + self.shrink(nn.functional.gelu(self.grow(self.norm2(x))))

    class Text(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(VOCABULARY, WIDTH)
            self.positions = nn.Parameter(torch.randn(TOKENS, WIDTH) * 0.02)
            self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
            self.norm, self.projection = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

        def forward(self, ids: Any) -> Any:
            x = self.norm(self.blocks(self.tokens(ids) + self.positions))
            return self.projection(x[:, -1])

    return Text()


@functools.cache
def towers(vision: str, dtype: str) -> tuple[Any, Any]:
    """Return both towers with random weights, and batch norms whose statistics are not those of a fresh module."""
    import torch
    import torchvision

    torch.manual_seed(0)
    image = getattr(torchvision.models, vision)(weights=None, num_classes=WIDTH).eval()
    for module in image.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            # Residual branches that add up at full strength overflow float16 in a network that was never trained.
            module.weight.data.uniform_(0.3, 0.7)
    text = text_tower().eval()
    kind = getattr(torch, dtype)
    return image.to("cuda", kind, memory_format=torch.channels_last), text.to("cuda", kind)


@functools.cache
def folded(vision: str, dtype: str) -> Any:
    """Return the vision tower with its batch norms folded; kept, because graphs read its weights by their addresses."""
    from torch.fx.experimental.optimization import fuse

    return fuse(copy.deepcopy(towers(vision, dtype)[0]))


@dataclass(slots=True)
class Way:
    """One way to run both towers. `graph` says that it replays one."""

    name: str
    call: Callable[[], Any]
    outputs: Callable[[], tuple[Any, Any]] | None = None
    latency_us: list[float] = field(default_factory=list)
    period_us: list[float] = field(default_factory=list)


def both(image: Any, text: Any, streams: int) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Return the unfused baseline: one tower after the other, or each on a stream of its own."""
    import torch

    # Torch hands out 32 streams in turn: one of them may be that of a capture, two that follow each other are two.
    sides = torch.cuda.Stream(), torch.cuda.Stream()

    def run(images: Any, ids: Any) -> tuple[Any, Any]:
        with torch.no_grad():
            if streams == 1:
                return image(images), text(ids)
            main = torch.cuda.current_stream()
            side = next(one for one in sides if one.cuda_stream != main.cuda_stream)
            side.wait_stream(main)
            with torch.cuda.stream(side):
                token = text(ids)
            found = image(images)
            main.wait_stream(side)
            return found, token

    return run


def graphed(run: Callable[[Any, Any], tuple[Any, Any]], images: Any, ids: Any) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Return the same as a CUDA graph, which copies its inputs in as FusedDualEncoder does."""
    import torch

    held = (images.clone(memory_format=torch.preserve_format), ids.clone())
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run(*held)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = run(*held)

    def replay(images: Any, ids: Any) -> tuple[Any, Any]:
        held[0].copy_(images)
        held[1].copy_(ids)
        graph.replay()
        return outputs

    return replay


def baselines(vision: str, dtype: str, images: Any, ids: Any) -> Iterator[tuple[str, Any]]:
    image, text = towers(vision, dtype)
    kinds = {"model": image}
    if vision.startswith("resnet"):
        kinds["folded"] = folded(vision, dtype)
    for kind, tower in kinds.items():
        for streams in (1, 2):
            run = both(tower, text, streams)
            label = "sequential" if streams == 1 else "two streams"
            if kind == "model":
                yield f"{kind}: {label}", run
            yield f"{kind}: {label}, graph", graphed(run, images, ids)


def measure(ways: list[Way], rounds: int) -> None:
    import torch

    for way in ways:
        for _ in range(3):
            way.call()
    torch.cuda.synchronize()
    for turn in range(rounds):
        for way in ways if turn % 2 == 0 else reversed(ways):
            torch.cuda.synchronize()
            start = time.perf_counter()
            way.call()
            torch.cuda.synchronize()
            way.latency_us.append((time.perf_counter() - start) * 1e6)
            if turn % 3 == 0:
                start = time.perf_counter()
                for _ in range(PERIOD_CALLS):
                    way.call()
                torch.cuda.synchronize()
                way.period_us.append((time.perf_counter() - start) * 1e6 / PERIOD_CALLS)


def interval(samples: list[float]) -> tuple[float, float]:
    """Return the 95 % interval of the median, by a bootstrap."""
    random = np.random.default_rng(5)
    values = np.asarray(samples)
    medians = np.median(random.choice(values, (1000, len(values))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(low), float(high)


def error(found: Any, wanted: Any) -> dict[str, float]:
    difference = found.double() - wanted
    return {
        "max_abs": float(difference.abs().max()),
        "max_abs_over_max": float(difference.abs().max() / wanted.abs().max()),
        "relative_norm": float(difference.norm() / wanted.norm()),
    }


def run_configuration(
    vision: str, dtype: str, batch: int, rounds: int, measurements: Any
) -> tuple[dict[str, Any], Any]:
    import torch

    from nitro.errors import ToolError
    from nitro.fused_kernels.model import FusedDualEncoder

    started = time.monotonic()
    image, text = towers(vision, dtype)
    marks = {"towers": time.monotonic() - started}
    images = torch.randn(batch, 3, 224, 224, device="cuda", dtype=getattr(torch, dtype))
    images = images.to(memory_format=torch.channels_last)
    ids = torch.randint(VOCABULARY, (batch, TOKENS), device="cuda")
    # In double precision nothing is timed, and cuDNN would search long.
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False):
        wide = (copy.deepcopy(image).double()(images.double()), copy.deepcopy(text).double()(ids))

    ways: list[Way] = []

    def add(name: str, run: Callable[[Any, Any], Any]) -> None:
        ways.append(Way(name, lambda: run(images, ids), lambda: run(images, ids)))

    for name, run in baselines(vision, dtype, images, ids):
        add(name, run)
    marks["baselines"] = time.monotonic() - started
    encoder = FusedDualEncoder(image, text, images, ids, measurements=measurements)
    marks["encoder"] = time.monotonic() - started
    add("nitro eager", encoder)
    graph = encoder.variant(graph=True)
    add("nitro graph", graph)
    details = {}
    options: dict[str, dict[str, Any]] = {
        "libraries only": {"fuse": "never", "bodies": False},
        "nothing fused": {"fuse": "never"},
        "fuse=auto": {"fuse": "auto"},
        "fuse=always": {"fuse": "always"},
    }
    for label, option in options.items():
        for streams in (1, 2):
            other = encoder.variant(**option, streams=streams, graph=True)
            name = f"nitro graph, {label}, {streams} stream{'s' if streams == 2 else ''}"
            add(name, other)
            details[name] = {"pairs": len(other.explain().fusions), "chosen": other.explain().variant}
    pipelined = encoder.variant(graph=True, pipelined=True)
    pipelined.step(images, ids)
    ways.append(Way("nitro pipelined graph", lambda: pipelined.step(images, ids)))
    marks["variants"] = time.monotonic() - started
    measure(ways, rounds)
    marks["measured"] = time.monotonic() - started
    encoder.check()

    rows = []
    for way in ways:
        row: dict[str, Any] = {"name": way.name}
        for what, samples in (("latency", way.latency_us), ("period", way.period_us)):
            low, high = interval(samples)
            row |= {f"{what}_us": statistics.median(samples), f"{what}_interval_us": [low, high]}
        found = way.outputs() if way.outputs is not None else pipelined.flush()
        assert found is not None
        row["error"] = {name: error(one, w) for name, one, w in zip(("vision", "text"), found, wide, strict=True)}
        if not all(math.isfinite(value) for one in row["error"].values() for value in one.values()):
            raise ToolError(f"{way.name}: its outputs are no numbers, so its time means nothing; look at its towers.")
        rows.append(row)
    explanation = graph.explain()
    unfused = min((r for r in rows if not r["name"].startswith("nitro")), key=lambda r: r["latency_us"])
    asked = min((r for r in rows if r["name"].startswith("model")), key=lambda r: r["latency_us"])
    ours = min((r for r in rows if r["name"] in ("nitro eager", "nitro graph")), key=lambda r: r["latency_us"])
    result = {
        "vision": vision,
        "dtype": dtype,
        "batch": batch,
        "rounds": rounds,
        "seconds_until": marks,
        "ways": rows,
        "best_of_the_model": asked["name"],
        "best_baseline": unfused["name"],
        "gain_over_the_model": asked["latency_us"] / ours["latency_us"],
        "gain_over_best_baseline": unfused["latency_us"] / ours["latency_us"],
        "chosen": explanation.variant,
        "chosen_eager": encoder.explain().variant,
        "variants_us": explanation.variants_us,
        "overlap_of_streams": explanation.overlap,
        "pairs_by_variant": details,
        "fused": list(explanation.fusions),
        "reasons": [f"{r.tower} {r.layer} | {r.fused_with} | {r.reason}" for r in explanation.reasons],
        "layers": graph.layers(),
        "pairs": best_pairs(graph.pairs()),
        "failures": explanation.failures,
    }
    return result, encoder.measurements


def best_pairs(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return every measured pair of unlike times once; layers of one shape give the same pair many times."""
    seen: dict[tuple[Any, ...], dict[str, Any]] = {}
    for pair in pairs:
        seen.setdefault((pair["vision_body_us"], pair["text_body_us"], pair["fused_us"], pair["strategy"]), pair)
    return sorted(seen.values(), key=lambda pair: -pair["gain"])


def table(result: dict[str, Any]) -> str:
    lines = [
        f"{result['vision']} {result['dtype']} batch {result['batch']}: {result['gain_over_the_model']:.3f} over the "
        f"best of the model ({result['best_of_the_model']}), {result['gain_over_best_baseline']:.3f} over the best "
        f"baseline ({result['best_baseline']}); chosen: {result['chosen']}; "
        + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result["seconds_until"].items())
    ]
    for row in result["ways"]:
        low, high = row["latency_interval_us"]
        worst = max(one["relative_norm"] for one in row["error"].values())
        lines.append(
            f"  {row['name']:<38} {row['latency_us']:>9.1f} [{low:.1f}, {high:.1f}] period {row['period_us']:>9.1f} us"
            f"  error {worst:.1e}"
        )
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "sms": properties.multi_processor_count,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32": False,
        "note": "results of this machine; a Jetson is another one",
    }


def columns(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return rows of the same keys as one list of keys and lists of values, times to a hundredth of a microsecond."""
    keys = list(rows[0]) if rows else []
    values = [[round(row[key], 2) if isinstance(row[key], float) else row[key] for key in keys] for row in rows]
    return {"columns": keys, "rows": values}


def merge(paths: list[Path], output: Path, note: str) -> None:
    """Write the configurations of several runs on one machine as one small file, without the reason of every layer.

    JSON has no NaN: an error that is none becomes null.

    Raises:
        InputError: one of them cannot be read, is no such run, or would be overwritten.
    """
    found: list[dict[str, Any]] = []
    machines = []
    for path in paths:
        if output.exists() and path.exists() and output.samefile(path):
            raise InputError(f"{path}: this is joined, and never written to; name another --output.")
        on, configurations = run_of(path)
        machines.append(on)
        if on != machines[0]:
            raise InputError(f"{path}: its machine is not that of {paths[0]}; join runs of one machine.")
        found += configurations
    lines = [json.dumps(one) for one in sorted(found, key=place)]
    body = ",\n".join(lines)
    head = f'{{"machine": {json.dumps(machines[0])},\n"note": {json.dumps(note)},\n'
    write_whole(output, f'{head}"configurations": [\n{body}\n]}}')


def run_of(path: Path) -> tuple[Any, list[dict[str, Any]]]:
    """Return the machine of a run and its configurations, without the reason of every layer."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
        kept = [{key: value for key, value in one.items() if key != "reasons"} for one in content["configurations"]]
        small = [{**one, **{key: columns(one[key]) for key in ("layers", "pairs", "fused")}} for one in kept]
        sorted(small, key=place)
        return content["machine"], small
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: this is no run of fused_dual_encoder.py ({error!r}); name another file.") from error


def place(configuration: dict[str, Any]) -> tuple[str, str, int]:
    return configuration["vision"], configuration["dtype"], configuration["batch"]


def check_torch() -> None:
    """Raise ToolError without a PyTorch that sees a GPU."""
    try:
        import torch
    except ImportError as error:
        raise ToolError(f"this needs PyTorch, which cannot be imported ({error}); install torch.") from error
    if not torch.cuda.is_available():
        raise ToolError("torch sees no GPU; run this on a machine with one.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vision", nargs="+", default=["resnet50"], help="towers of torchvision")
    parser.add_argument("--dtype", nargs="+", choices=("float32", "float16"), default=["float32", "float16"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=31, help="samples of every way")
    parser.add_argument("--seconds", type=float, default=3600, help="start no configuration after so long")
    parser.add_argument("--output", type=Path, default=Path("dual_encoder.json"))
    parser.add_argument("--merge", nargs="+", type=Path, help="only join the files of earlier runs")
    parser.add_argument("--note", default="", help="what to say of the runs that are joined")
    chosen = parser.parse_args()
    try:
        if chosen.merge:
            merge(chosen.merge, chosen.output, chosen.note)
            return 0
        check_torch()
    except NitroError as error:
        print(f"fused_dual_encoder: {error}", file=sys.stderr)
        return error.exit_code
    import torch

    warnings.simplefilter("ignore")
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    started, content, known = time.monotonic(), {"machine": machine(), "configurations": []}, None
    for vision in chosen.vision:
        for batch in chosen.batch:
            for dtype in chosen.dtype:
                if time.monotonic() - started > chosen.seconds:
                    print(f"left out for time: {vision} {dtype} batch {batch}", flush=True)
                    continue
                try:
                    result, known = run_configuration(vision, dtype, batch, chosen.rounds, known)
                except NitroError as error_:
                    print(f"{vision} {dtype} batch {batch} failed: {error_}", file=sys.stderr)
                    continue
                content["configurations"].append(result)
                chosen.output.write_text(json.dumps(content, indent=1), encoding="utf-8")
                print(f"[{time.monotonic() - started:.0f} s] {table(result)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
