"""Load a GPU in two long phases, with idle time around them, to check energy by phase against a power log.

Each iteration is one NVTX range `infer:N` with two ranges in it: `matmul` (the limit is arithmetic) and `stream` (the
limit is memory). Both last so long that a log of ten records a second resolves them. Before the first iteration and
after the last one the GPU is idle, which gives the idle floor, and clear edges of load to place the log by.

The file needs only PyTorch, so that it can be copied to a board alone. `examples/record_with_power.sh` records it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

EXIT_TOOL_MISSING = 5
PRODUCTS, ADDITIONS = 16, 4


def loaded(work: Callable[[], None], seconds: float) -> None:
    """Repeat some GPU work until so much time has passed."""
    import torch

    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        work()
        torch.cuda.synchronize()


def run(options: argparse.Namespace) -> None:
    """Run all iterations, with idle time before and after."""
    import torch

    left = torch.full((options.matrix_size, options.matrix_size), 2.0**-7, dtype=torch.float16, device="cuda")
    product = torch.empty_like(left)
    vector = torch.zeros(options.vector_mib << 19, dtype=torch.float16, device="cuda")

    def matmul() -> None:
        for _ in range(PRODUCTS):
            torch.mm(left, left, out=product)

    def stream() -> None:
        for _ in range(ADDITIONS):
            vector.add_(1.0)

    for warm_up in (matmul, stream):
        warm_up()
    torch.cuda.synchronize()
    time.sleep(options.idle)
    for iteration in range(options.iterations):
        with torch.cuda.nvtx.range(f"infer:{iteration}"):
            with torch.cuda.nvtx.range("matmul"):
                loaded(matmul, options.phase)
            with torch.cuda.nvtx.range("stream"):
                loaded(stream, options.phase)
        time.sleep(options.pause)
    time.sleep(options.idle)


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--phase", type=float, default=0.6, help="seconds of each phase (0.6)")
    parser.add_argument("--pause", type=float, default=0.2, help="idle seconds after an iteration (0.2)")
    parser.add_argument("--idle", type=float, default=3.0, help="idle seconds before the first and after the last (3)")
    parser.add_argument("--matrix-size", type=int, default=8192, help="rows of the square matrices (8192)")
    parser.add_argument("--vector-mib", type=int, default=2048, help="size of the vector in MiB (2048)")
    options = parser.parse_args()
    try:
        import torch
    except (ImportError, OSError) as error:
        print(f"steady_phases.py: PyTorch cannot be imported ({error}).", file=sys.stderr)
        return EXIT_TOOL_MISSING
    if not torch.cuda.is_available():
        print("steady_phases.py: PyTorch finds no CUDA device; a driver and an NVIDIA GPU are needed.", file=sys.stderr)
        return EXIT_TOOL_MISSING
    run(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
