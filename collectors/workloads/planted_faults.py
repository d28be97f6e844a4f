"""Run a small GPU program with one known performance fault, to try a profiler or its rules on.

Each fault is a loop over one kind of work:

    none             big half-precision matrix products, queued far ahead: the GPU is the limit
    allocation       device memory is allocated and freed in every iteration
    blocking_copy    a batch is copied from pageable host memory before each use
    tiny_kernels     hundreds of kernels that run shorter than their launch takes
    synchronization  the host waits for the GPU after every few small kernels
    serialized       two independent chains of small grids, one after the other on one stream
    elementwise      a long chain of element-wise kernels on big tensors

Every iteration is one NVTX range `step:N` with ranges for its parts inside. The CUDA profiler is
started after a short warm-up and stopped after the last iteration, so a recording with
`--capture-range=cudaProfilerApi` holds the loop alone.

The file needs only PyTorch, so that it can be copied to a board alone. The sizes suit a data-centre
GPU with at least 100 SMs; on a small one every fault is still there, but another may outweigh it.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import torch

BYTES_PER_HALF = 2

MATRIX_SIZE = 4096
MATRIX_PRODUCTS = 8

BUFFER_ELEMENTS = 32 << 20
BUFFERS = 8

TINY_ELEMENTS = 1024
TINY_PARTS = 4
TINY_KERNELS_PER_PART = 50

GROUP_MATRIX_SIZE = 2048
GROUPS = 10
KERNELS_PER_GROUP = 2

CHAIN_TILE = 64
CHAIN_DEPTH = 8192
CHAIN_KERNELS = 8

LONG_VECTOR_ELEMENTS = 64 << 20

WARM_UP_ITERATIONS = 3

EXIT_TOOL_MISSING = 5

Step: TypeAlias = Callable[[], None]


class MissingRequirementError(Exception):
    """The machine lacks something the workload needs; the message says what."""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    fault: str
    iterations: int
    pause_ms: float
    lead_ms: float
    copy_mib: int
    blocking_wait: bool
    chain_batch: int


@contextmanager
def nvtx_range(name: str) -> Iterator[None]:
    """Mark the body with an NVTX range on this thread."""
    import torch

    torch.cuda.nvtx.range_push(name)
    try:
        yield
    finally:
        torch.cuda.nvtx.range_pop()


def half_matrix(*shape: int) -> torch.Tensor:
    """Return a half-precision tensor on the GPU with the same small value everywhere, so that nothing overflows."""
    import torch

    return torch.full(shape, 2.0**-7, dtype=torch.float16, device="cuda")


def clean() -> Step:
    """Return a step that queues big matrix products and never waits."""
    import torch

    left, right = half_matrix(MATRIX_SIZE, MATRIX_SIZE), half_matrix(MATRIX_SIZE, MATRIX_SIZE)
    product = torch.empty_like(left)

    def step() -> None:
        with nvtx_range("matmul"):
            for _ in range(MATRIX_PRODUCTS):
                torch.mm(left, right, out=product)

    return step


def allocation() -> Step:
    """Return a step whose buffers come from cudaMalloc and go back through cudaFree each time."""
    import torch

    def step() -> None:
        with nvtx_range("allocate"):
            buffers = [torch.empty(BUFFER_ELEMENTS, dtype=torch.float16, device="cuda") for _ in range(BUFFERS)]
        with nvtx_range("fill"):
            for buffer in buffers:
                buffer.fill_(1.0)
        with nvtx_range("free"):
            buffers.clear()
            del buffer
            # Without this, PyTorch keeps the memory and the next iteration needs no cudaMalloc.
            torch.cuda.empty_cache()

    return step


def blocking_copy(copy_mib: int) -> Step:
    """Return a step that copies a batch of this size from pageable memory, waits for it, and uses it once."""
    import torch

    rows = (copy_mib << 20) // (MATRIX_SIZE * BYTES_PER_HALF)
    batch = torch.ones(rows, MATRIX_SIZE, dtype=torch.float16)
    on_gpu = half_matrix(rows, MATRIX_SIZE)
    weights = half_matrix(MATRIX_SIZE, MATRIX_SIZE)
    product = torch.empty_like(on_gpu)

    def step() -> None:
        with nvtx_range("copy"):
            on_gpu.copy_(batch)
        with nvtx_range("matmul"):
            torch.mm(on_gpu, weights, out=product)

    return step


def tiny_kernels() -> Step:
    """Return a step of hundreds of kernels over a thousand numbers each."""
    total, addend = half_matrix(TINY_ELEMENTS), half_matrix(TINY_ELEMENTS)

    def step() -> None:
        for part in range(TINY_PARTS):
            with nvtx_range(f"part:{part}"):
                for _ in range(TINY_KERNELS_PER_PART):
                    total.add_(addend)

    return step


def synchronization(blocking_wait: bool) -> Step:
    """Return a step that lets the GPU run dry after every few small matrix products.

    The products run longer than their launches take, so that without the waits the queue would not run empty.
    The thread polls for the end of the work or, with `blocking_wait`, sleeps until an interrupt tells it.
    """
    import torch

    left, right = half_matrix(GROUP_MATRIX_SIZE, GROUP_MATRIX_SIZE), half_matrix(GROUP_MATRIX_SIZE, GROUP_MATRIX_SIZE)
    product = torch.empty_like(left)
    finished = torch.cuda.Event(blocking=True)

    def wait() -> None:
        if blocking_wait:
            finished.record()
            finished.synchronize()
        else:
            torch.cuda.synchronize()

    def step() -> None:
        for _ in range(GROUPS):
            for _ in range(KERNELS_PER_GROUP):
                torch.mm(left, right, out=product)
            with nvtx_range("wait"):
                wait()

    return step


def serialized(chain_batch: int) -> Step:
    """Return a step of two independent chains on one stream; a kernel has a few blocks for each matrix of a batch.

    The matrices of a batch lie in the same memory, so that the cache holds them and the DRAM is idle: with few
    matrices, the chains would hardly slow each other side by side.
    """
    import torch

    chains = {}
    for name in ("first", "second"):
        left = half_matrix(1, CHAIN_TILE, CHAIN_DEPTH).expand(chain_batch, -1, -1)
        right = half_matrix(1, CHAIN_DEPTH, CHAIN_TILE).expand(chain_batch, -1, -1)
        chains[name] = (left, right, half_matrix(chain_batch, CHAIN_TILE, CHAIN_TILE))

    def step() -> None:
        for name, (left, right, product) in chains.items():
            with nvtx_range(name):
                for _ in range(CHAIN_KERNELS):
                    torch.bmm(left, right, out=product)

    return step


def elementwise() -> Step:
    """Return a step that passes a big tensor through a chain of element-wise operations."""
    import torch

    values, scale, shift = (half_matrix(LONG_VECTOR_ELEMENTS) for _ in range(3))

    def step() -> None:
        with nvtx_range("chain"):
            for _ in range(4):
                values.mul_(scale)
                values.add_(shift)
                values.sigmoid_()
                values.tanh_()
                torch.nn.functional.relu(values, inplace=True)

    return step


FAULTS: dict[str, Callable[[Options], Step]] = {
    "none": lambda _: clean(),
    "allocation": lambda _: allocation(),
    "blocking_copy": lambda options: blocking_copy(options.copy_mib),
    "tiny_kernels": lambda _: tiny_kernels(),
    "synchronization": lambda options: synchronization(options.blocking_wait),
    "serialized": lambda options: serialized(options.chain_batch),
    "elementwise": lambda _: elementwise(),
}


def pause(duration_ms: float) -> None:
    """Let the GPU finish, then sleep; 0: do neither."""
    import torch

    if duration_ms > 0:
        torch.cuda.synchronize()
        time.sleep(duration_ms / 1000)


def run(options: Options) -> None:
    """Run all iterations between profiler start and stop, after a warm-up before it."""
    import torch

    with torch.inference_mode():
        step = FAULTS[options.fault](options)
        for _ in range(WARM_UP_ITERATIONS):
            step()
        torch.cuda.synchronize()
        with torch.cuda.profiler.profile():
            pause(options.lead_ms)
            for iteration in range(options.iterations):
                with nvtx_range(f"step:{iteration}"):
                    step()
                pause(options.pause_ms)
            torch.cuda.synchronize()


def require_cuda() -> None:
    """Raise MissingRequirementError unless PyTorch and a GPU that it can use are here."""
    try:
        import torch
    except (ImportError, OSError) as error:
        raise MissingRequirementError(f"PyTorch cannot be imported ({error}).") from error
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


def milliseconds(text: str) -> float:
    """Return a command-line value as a time of at least 0."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no time in milliseconds")
    return number


def parse_options(arguments: Sequence[str] | None) -> Options:
    """Read the command line; None stands for the program's own."""
    parser = argparse.ArgumentParser(
        prog="planted_faults.py",
        description="Run a loop with one known performance fault and NVTX ranges, for a profiler to record.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--fault", choices=FAULTS, default="none", help="what is wrong with the loop")
    parser.add_argument("--iterations", type=positive, default=40, help="iterations to run after the warm-up")
    parser.add_argument(
        "--pause-ms", type=milliseconds, default=0.0, help="after each iteration, wait for the GPU and sleep this long"
    )
    parser.add_argument(
        "--lead-ms", type=milliseconds, default=0.0, help="sleep this long before the first recorded iteration"
    )
    parser.add_argument("--copy-mib", type=positive, default=64, help="blocking_copy: MiB a batch")
    parser.add_argument(
        "--blocking-wait", action="store_true", help="synchronization: sleep until the GPU is done instead of polling"
    )
    parser.add_argument(
        "--chain-batch", type=positive, default=4, help="serialized: matrices a product; more of them fill more SMs"
    )
    return Options(**vars(parser.parse_args(arguments)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the workload and return the exit code."""
    options = parse_options(arguments)
    try:
        require_cuda()
    except MissingRequirementError as error:
        print(f"planted_faults.py: {error}", file=sys.stderr)
        return EXIT_TOOL_MISSING
    run(options)
    print(f"{options.iterations} iterations with fault {options.fault}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
