"""Run a dual encoder on one stream, on two, or with fused layers, for a profiler to record.

    PYTHONPATH=src python3 examples/fused_encoder.py --way fused --measurements times.json

ResNet-50 and a text Transformer with random weights, the towers of `benchmarks/fused_dual_encoder.py`, as one CUDA
graph. What differs between the ways is the schedule alone: each layer runs with the kernel that is fastest for it, and
`fused` runs the pairs in one launch that gain by it on one stream. Record with --cuda-graph-trace=node to see the
kernels. Every iteration is an NVTX range `infer:N` with `embed` and `sync` in it.

The times of layers and pairs are kept in the file of `--measurements`, so that all ways choose from the same ones. Run
`fused` once to make it, then record.

Exit codes: 0 done, 2 wrong usage, 3 the measurements cannot be used, 5 a library or the GPU is missing or failed.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fused_pair import nvtx_ranges, positive, profiler_range

from nitro.errors import NitroError, ToolError
from nitro.fused_kernels import open_runtime

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "fused_dual_encoder.py"
WAYS: dict[str, dict[str, Any]] = {
    "sequential": {"fuse": "never", "streams": 1},
    "streams": {"fuse": "never", "streams": 2},
    "fused": {"fuse": "auto", "streams": 1},
}


def benchmark() -> Any:
    """Return the benchmark as a module, for its towers."""
    spec = importlib.util.spec_from_file_location("fused_dual_encoder", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def make_encoder(options: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Return the encoder as it is to run, and its inputs.

    Raises:
        InputError: the measurements cannot be read.
        UsageError: they are of another device.
        ToolError: PyTorch or the GPU is missing, or the GPU failed.
    """
    open_runtime()  # says what is missing where there is no GPU
    try:
        torch: Any = importlib.import_module("torch")
        importlib.import_module("torchvision")
    except (ImportError, OSError) as error:
        raise ToolError(f"the encoders need PyTorch with torchvision ({error}); install them.") from error
    from nitro.fused_kernels.model import FusedDualEncoder
    from nitro.fused_kernels.model.measuring import Measurements, device_name
    from nitro.fused_kernels.torch_launch import launcher_for

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    towers = benchmark()
    images = torch.randn(options.batch, 3, 224, 224, device="cuda", dtype=getattr(torch, options.dtype))
    images = images.to(memory_format=torch.channels_last)
    token_ids = torch.randint(towers.VOCABULARY, (options.batch, towers.TOKENS), device="cuda")
    known = None
    if options.measurements is not None and options.measurements.exists():
        known = Measurements.load(options.measurements, device_name(launcher_for(images.device)))
    vision, text = towers.towers("resnet50", options.dtype)
    encoder = FusedDualEncoder(vision, text, images, token_ids, graph=True, measurements=known, **WAYS[options.way])
    if options.way == "fused" and options.measurements is not None and known is None:
        encoder.measurements.save(options.measurements)
    return encoder, images, token_ids


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; None stands for the program's own."""
    parser = argparse.ArgumentParser(
        prog="fused_encoder.py",
        description="Run a dual encoder in one of several ways, for a profiler to record.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--way", choices=tuple(WAYS), default="fused", help="how to run the encoder")
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="of images and weights")
    parser.add_argument("--batch", type=positive, default=1, help="images and texts an iteration")
    parser.add_argument("--measurements", type=Path, metavar="FILE", help="times from before; `fused` makes the file")
    parser.add_argument("--iterations", type=positive, default=20, help="iterations to record")
    parser.add_argument("--warm-up", type=positive, default=20, help="iterations before these")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the encoder and return the exit code."""
    options = parse_options(arguments)
    try:
        mark = nvtx_ranges()
        encoder, images, token_ids = make_encoder(options)
        cuda: Any = importlib.import_module("torch.cuda")

        def iterate() -> None:
            with mark("embed"):
                encoder(images, token_ids)
            with mark("sync"):
                cuda.synchronize()

        for _ in range(options.warm_up):
            iterate()
        with profiler_range(options.way):
            for index in range(options.iterations):
                with mark(f"infer:{index}"):
                    iterate()
        encoder.check()
    except NitroError as error:
        print(f"fused_encoder.py: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{options.iterations} iterations of {options.batch} images and texts: {encoder.explain().variant}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
