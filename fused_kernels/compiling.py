"""Compile many kernels at once.

NVRTC compiles one program at a time in a process, whatever the number of threads, so this takes processes. They write
into the cache on disk, where loading a kernel then finds it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from . import nvrtc
from .strategies import Kernel, check_kernel, headers

# Starting a process costs about as much as compiling a kernel.
_KERNELS_WORTH_A_PROCESS = 4


def compile_one(kernel: Kernel, sm: int) -> nvrtc.Compiled:
    """Return a kernel compiled for an architecture, given as 53 for sm_53, from the cache where it is there.

    Raises:
        UsageError: a body of the kernel cannot run there.
        ToolError: NVRTC is missing or does not compile it.
    """
    check_kernel(kernel, sm)
    return nvrtc.compile_cached(kernel.source, kernel.name, sm, headers(), specific=kernel.needs_exact_architecture)


def _compile_task(task: tuple[Kernel, int]) -> None:
    compile_one(*task)


def compile_ahead(tasks: Sequence[tuple[Kernel, int]], *, workers: int | None = None) -> None:
    """Compile kernels, each for an architecture, into the cache.

    Raises:
        UsageError, ToolError: as `compile_one`, for the first kernel that fails.
    """
    nvrtc.find()
    wanted = min(workers or len(os.sched_getaffinity(0)), len(tasks) // _KERNELS_WORTH_A_PROCESS)
    if wanted <= 1:
        for task in tasks:
            compile_one(*task)
        return
    # A forked process would share the state of CUDA, which does not survive that.
    with ProcessPoolExecutor(wanted, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_compile_task, tasks, chunksize=2))
