"""Compiled kernels are kept for one session, so that tests share them and nothing of the user's cache."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nitro.errors import ToolError
from nitro.fused_kernels import nvrtc


@pytest.fixture(autouse=True, scope="session")
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NITRO_CACHE_DIR", str(tmp_path_factory.mktemp("kernels")))
        yield


@pytest.fixture(scope="session")
def compiler() -> nvrtc.Nvrtc:
    try:
        found = nvrtc.find()
    except ToolError as error:
        pytest.skip(str(error))
    if found.version[0] != 12:
        pytest.skip("NVRTC 12 compiles for all architectures from sm_53 on: pip install nvidia-cuda-nvrtc-cu12")
    return found
