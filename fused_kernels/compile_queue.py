"""Compile kernels in the background, while others are being measured.

The result of a task is what ptxas said about the kernel; its code goes to the cache on disk, where loading finds it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from types import TracebackType

from nitro.errors import NitroError

from . import nvrtc
from .compiling import compile_one
from .nvrtc import Resources
from .strategies import Kernel

_LEFT_FOR_MEASURING = 2


def _resources(kernel: Kernel, sm: int) -> Resources | str:
    try:
        return compile_one(kernel, sm).resources
    except NitroError as error:
        return str(error)


class CompileQueue:
    """Kernels that are being compiled for one architecture, as 90 for sm_90; a context manager.

    NVRTC compiles one program at a time in a process, so this takes processes; with one worker, none is started.
    """

    def __init__(self, sm: int, *, workers: int | None = None) -> None:
        """Find the compiler.

        Raises:
            ToolError: NVRTC is missing.
        """
        nvrtc.find()
        self.sm = sm
        count = workers or max(1, len(os.sched_getaffinity(0)) - _LEFT_FOR_MEASURING)
        # A forked process would share the state of CUDA, which does not survive that.
        self._pool: Executor = (
            ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))
            if count > 1
            else ThreadPoolExecutor(1)
        )
        self._tasks: dict[str, Future[Resources | str]] = {}

    def add(self, kernels: Iterable[Kernel]) -> None:
        """Start to compile kernels; those that were added before are not compiled again."""
        for kernel in kernels:
            if kernel.name not in self._tasks:
                self._tasks[kernel.name] = self._pool.submit(_resources, kernel, self.sm)

    def resources(self, kernels: Iterable[Kernel]) -> Mapping[str, Resources | str]:
        """Wait for kernels; return what each needs by its name, or why it does not compile."""
        wanted = list(kernels)
        self.add(wanted)
        return {kernel.name: self._tasks[kernel.name].result() for kernel in wanted}

    def __enter__(self) -> CompileQueue:
        """Return the queue."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Forget what was not begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)
