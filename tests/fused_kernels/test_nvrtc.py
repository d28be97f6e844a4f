from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nitro.errors import ToolError
from nitro.fused_kernels import nvrtc
from nitro.fused_kernels.nvrtc import Compiled, DiskCache, Resources

LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'other' for 'sm_90'
ptxas info    : Function properties for other
    8 bytes stack frame, 8 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 12 registers, used 0 barriers, 8 bytes cumulative stack size
ptxas info    : Compiling entry function 'mine' for 'sm_90'
ptxas info    : Function properties for mine
    16 bytes stack frame, 24 bytes spill stores, 32 bytes spill loads
ptxas info    : Used 80 registers, used 2 barriers, 16 bytes cumulative stack size, 512 bytes smem
"""
SOURCE = 'extern "C" __global__ void twice(float* x) { x[threadIdx.x] *= 2; }'


def test_resources_are_those_of_the_named_kernel() -> None:
    assert nvrtc.parse_resources(LOG, "mine") == Resources(80, 16, 24, 32, 2, 512)
    assert nvrtc.parse_resources(LOG, "other") == Resources(12, 8, 8, 8, 0, 0)


def test_what_ptxas_does_not_mention_is_unknown_and_not_zero() -> None:
    assert nvrtc.parse_resources(LOG, "absent") == Resources()
    assert nvrtc.parse_resources("", "mine").registers is None


def test_a_kernel_is_compiled_once(compiler: nvrtc.Nvrtc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = DiskCache(tmp_path)
    first = nvrtc.compile_cached(SOURCE, "twice", 87, {}, compiler=compiler, cache=cache)
    monkeypatch.setattr(nvrtc.Nvrtc, "compile", lambda *_: pytest.fail("compiled again"))
    assert nvrtc.compile_cached(SOURCE, "twice", 87, {}, compiler=compiler, cache=cache) == first
    assert first.kind == "cubin"
    assert first.resources.registers


def test_the_cache_distinguishes_all_that_matters(compiler: nvrtc.Nvrtc, tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    keys = {
        cache.key(compiler, "a", "n", 53, {}, ()),
        cache.key(compiler, "b", "n", 53, {}, ()),
        cache.key(compiler, "a", "m", 53, {}, ()),
        cache.key(compiler, "a", "n", 62, {}, ()),
        cache.key(compiler, "a", "n", 53, {"h": "x"}, ()),
        cache.key(compiler, "a", "n", 53, {"h": "y"}, ()),
        cache.key(compiler, "a", "n", 53, {}, ("-lineinfo",)),
        cache.key(compiler, "a", "n", 53, {}, (), specific=True),
    }
    assert len(keys) == 8


def entry(code: bytes = b"\x7fELF\n\0code") -> Compiled:
    return Compiled(code, "cubin", "twice", Resources(8, 0, 0, 0, 0, 0), "log")


def test_a_damaged_entry_counts_as_none(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    cache.write("ab12", entry())
    assert cache.read("ab12") == entry()
    place = tmp_path / "ab" / "ab12"
    place.write_bytes(place.read_bytes()[:-1])
    assert cache.read("ab12") is None
    place.write_bytes(b"")
    assert cache.read("ab12") is None


def written_and_read(cache: DiskCache) -> Compiled | None:
    cache.write("cd34", entry())
    return cache.read("cd34")


def test_many_writers_leave_one_whole_entry_and_no_litter(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: written_and_read(cache), range(64)))
    assert set(found) == {entry()}
    assert [path.name for path in (tmp_path / "cd").iterdir()] == ["cd34"]


def test_a_cache_that_cannot_be_written_is_not_used(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    cache = DiskCache(blocked)
    cache.write("ab12", entry())
    assert cache.read("ab12") is None


def test_without_nvrtc_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "_candidates", lambda: iter(["/nowhere/libnvrtc.so.12"]))
    nvrtc.find.cache_clear()
    try:
        with pytest.raises(ToolError, match=r"NVRTC was not found .*pip install nvidia-cuda-nvrtc-cu12") as caught:
            nvrtc.find()
    finally:
        nvrtc.find.cache_clear()
    assert caught.value.exit_code == 5


def test_an_architecture_that_the_compiler_does_not_know_is_named(compiler: nvrtc.Nvrtc) -> None:
    with pytest.raises(ToolError, match="does not compile for sm_30, only for sm_50"):
        compiler.compile(SOURCE, "twice", 30, {})


def test_an_error_of_the_compiler_is_shown(compiler: nvrtc.Nvrtc) -> None:
    with pytest.raises(ToolError, match=r"twice does not compile for sm_87: twice\.cu\(1\): error"):
        compiler.compile("nonsense", "twice", 87, {})
