"""Fused CUDA kernels: sources, runtime, tuner and benchmark.

Importing this needs no CUDA and no extra; `open_runtime` needs both, and says what is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .runtime import Runtime

__all__ = ["open_runtime"]


def open_runtime(device_id: int = 0) -> Runtime:
    """Return the GPU to run fused kernels on.

    Raises:
        nitro.errors.ToolError: cuda.core, NVRTC, a driver or the device is missing.
    """
    from .runtime_cuda_core import CudaCoreRuntime

    return CudaCoreRuntime(device_id)
