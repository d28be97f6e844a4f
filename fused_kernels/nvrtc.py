"""Compile CUDA source with NVRTC, through a thin binding of its C library, and keep what it said about resources.

NVRTC needs no GPU and no driver. It is looked for where CUDA puts it and in the wheels `nvidia-cuda-nvrtc-cu12` and
`nvidia-cuda-nvrtc`. Loading the result is the runtime's work.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from nitro.errors import ToolError

WAY_OUT = "install CUDA, set CUDA_PATH, or run `pip install nvidia-cuda-nvrtc-cu12` (nvidia-cuda-nvrtc for CUDA 13)"
# Part of the key of the cache: raise it when what is stored changes.
CACHE_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Resources:
    """What ptxas says that a kernel needs, a thread or a block. `None` where it said nothing, as for PTX."""

    registers: int | None = None
    stack_bytes: int | None = None
    spill_store_bytes: int | None = None
    spill_load_bytes: int | None = None
    barriers: int | None = None
    static_shared_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """The code of a kernel for one architecture, a cubin or PTX, and its resources."""

    code: bytes
    kind: str
    name: str
    resources: Resources
    log: str


def _candidates() -> Iterator[Path | str]:
    """Yield where NVRTC may be: what the user named, the wheels of this environment, CUDA's own place, the system."""
    roots = [Path(os.environ[name]) for name in ("CUDA_PATH", "CUDA_HOME") if os.environ.get(name)]
    folders = [root / part for root in roots for part in ("lib64", "lib", "bin", "targets/x86_64-linux/lib")]
    for entry in sys.path:
        folders += [Path(entry) / "nvidia" / part for part in ("cuda_nvrtc/lib", "cu13/lib", "cu12/lib")]
    folders += [Path("/usr/local/cuda") / part for part in ("lib64", "lib", "targets/aarch64-linux/lib")]
    for folder in folders:
        # Other libraries share the name's beginning: libnvrtc-builtins.
        yield from sorted(folder.glob("libnvrtc.so*"), reverse=True)
    found = ctypes.util.find_library("nvrtc")
    if found:
        yield found


class Nvrtc:
    """One NVRTC library."""

    def __init__(self, library: ctypes.CDLL, path: str) -> None:
        self._library = library
        self.path = path
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check(library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)), "nvrtcVersion")
        self.version = (major.value, minor.value)

    def _check(self, status: int, what: str) -> None:
        if status:
            text = self._library.nvrtcGetErrorString
            text.restype = ctypes.c_char_p
            raise ToolError(f"{self.path}: {what} failed with {text(status).decode()}; check the installation of CUDA.")

    @property
    def makes_cubin(self) -> bool:
        """Return whether this version can make cubins, for which alone there are resources (11.1 and newer)."""
        return hasattr(self._library, "nvrtcGetCUBIN")

    def architectures(self) -> tuple[int, ...]:
        """Return the architectures that this version compiles for, as 53 for sm_53; empty if it cannot tell."""
        if not hasattr(self._library, "nvrtcGetNumSupportedArchs"):
            return ()
        count = ctypes.c_int()
        self._check(self._library.nvrtcGetNumSupportedArchs(ctypes.byref(count)), "nvrtcGetNumSupportedArchs")
        numbers = (ctypes.c_int * count.value)()
        self._check(self._library.nvrtcGetSupportedArchs(numbers), "nvrtcGetSupportedArchs")
        return tuple(numbers)

    def compile(
        self,
        source: str,
        name: str,
        sm: int,
        headers: Mapping[str, str],
        options: Sequence[str] = (),
        *,
        specific: bool = False,
    ) -> Compiled:
        """Return a kernel compiled for one architecture: a cubin where this version makes them, else PTX.

        Args:
            source: CUDA C++ with the kernel `name` declared extern "C".
            name: the kernel.
            sm: the architecture, as 53 for sm_53.
            headers: text of what the source includes, by name.
            options: more options for NVRTC.
            specific: for this architecture alone, with the instructions that newer ones do not take over (sm_90a).

        Raises:
            ToolError: the architecture is unknown to this version, or the source does not compile.
        """
        known = self.architectures()
        if known and sm not in known:
            raise ToolError(
                f"NVRTC {'.'.join(map(str, self.version))} ({self.path}) does not compile for sm_{sm}, only for "
                f"{', '.join(f'sm_{one}' for one in known)}; use another version of CUDA."
            )
        program = ctypes.c_void_p()
        texts = [text.encode() for text in headers.values()]
        names = [header.encode() for header in headers]
        self._check(
            self._library.nvrtcCreateProgram(
                ctypes.byref(program),
                source.encode(),
                f"{name}.cu".encode(),
                len(names),
                (ctypes.c_char_p * len(texts))(*texts),
                (ctypes.c_char_p * len(names))(*names),
            ),
            "nvrtcCreateProgram",
        )
        try:
            kind = "cubin" if self.makes_cubin else "ptx"
            words = [word.encode() for word in (*self.options(sm, specific=specific), *options)]
            status = self._library.nvrtcCompileProgram(program, len(words), (ctypes.c_char_p * len(words))(*words))
            log = self._fetch("ProgramLog", program).rstrip(b"\0").decode(errors="replace")
            if status:
                raise ToolError(f"{name} does not compile for sm_{sm}: {_first_error(log)}; this is a bug of Nitro.")
            code = self._fetch("CUBIN" if kind == "cubin" else "PTX", program)
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))
        return Compiled(code, kind, name, parse_resources(log, name), log)

    def options(self, sm: int, *, specific: bool = False) -> tuple[str, ...]:
        """Return the options that every kernel is compiled with."""
        kind = "sm" if self.makes_cubin else "compute"
        report = ("--ptxas-options=-v",) if self.makes_cubin else ()
        # What newer versions find in a cache of their own comes without the output of ptxas.
        fresh = ("--no-cache",) if self.version >= (12, 9) else ()
        # Bodies write their fused multiply-adds out; the compiler must not add others (see base.cuh).
        return (
            f"--gpu-architecture={kind}_{sm}{'a' if specific else ''}",
            "--std=c++14",
            "--fmad=false",
            *report,
            *fresh,
        )

    def _fetch(self, what: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._check(getattr(self._library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)), what)
        buffer = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._library, f"nvrtcGet{what}")(program, buffer), what)
        return buffer.raw


def _first_error(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if "error" in line]
    return lines[0] if lines else (log.strip().splitlines() or ["no reason given"])[0]


_NUMBERS = {
    "registers": r"Used (\d+) registers",
    "barriers": r"used (\d+) barriers",
    "static_shared_bytes": r"(\d+) bytes smem",
    "stack_bytes": r"(\d+) bytes stack frame",
    "spill_store_bytes": r"(\d+) bytes spill stores",
    "spill_load_bytes": r"(\d+) bytes spill loads",
}


def parse_resources(log: str, name: str) -> Resources:
    """Return what the output of `ptxas -v` says about a kernel; nothing where it does not mention it."""
    start = re.search(rf"Function properties for {re.escape(name)}\b|Compiling entry function '{re.escape(name)}'", log)
    if not start:
        return Resources()
    text = log[start.start() :]
    after = re.search(r"Compiling entry function '(?!" + re.escape(name) + r"')", text)
    text = text[: after.start()] if after else text
    found = {key: re.search(pattern, text) for key, pattern in _NUMBERS.items()}
    numbers = {key: int(match.group(1)) for key, match in found.items() if match}
    if "registers" not in numbers:
        return Resources()
    # ptxas leaves out what is 0.
    return Resources(**{key: numbers.get(key, 0) for key in _NUMBERS})


@lru_cache(maxsize=1)
def find() -> Nvrtc:
    """Return the first NVRTC that loads.

    Raises:
        ToolError: there is none.
    """
    problems: list[str] = []
    for candidate in _candidates():
        library = _loaded(str(candidate), problems)
        if library is not None:
            return Nvrtc(library, str(candidate))
    seen = f" ({problems[0]})" if problems else ""
    raise ToolError(f"the CUDA compiler library NVRTC was not found{seen}; {WAY_OUT}.")


def _loaded(path: str, problems: list[str]) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(path)
    except OSError as error:
        problems.append(f"{path}: {error}")
        return None


def cache_folder() -> Path:
    """Return where compiled kernels are kept: NITRO_CACHE_DIR, else the user's cache."""
    own = os.environ.get("NITRO_CACHE_DIR")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nitro-analyze" / "kernels"


@dataclass(frozen=True, slots=True)
class DiskCache:
    """Compiled kernels on disk, by everything that they were compiled from.

    A file is written beside its place and then moved there, so that readers see all of it or nothing; of two writers
    the later one wins with the same content. What cannot be read is compiled again, and a cache that cannot be
    written is not used.
    """

    folder: Path

    def key(
        self,
        compiler: Nvrtc,
        source: str,
        name: str,
        sm: int,
        headers: Mapping[str, str],
        options: Sequence[str],
        *,
        specific: bool = False,
    ) -> str:
        """Return the name of an entry."""
        every = [*compiler.options(sm, specific=specific), *options]
        parts = [CACHE_FORMAT, compiler.version, every, source, name, sm, dict(headers)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def read(self, key: str) -> Compiled | None:
        """Return an entry, or None if there is none that can be read."""
        try:
            header, _, code = (self.folder / key[:2] / key).read_bytes().partition(b"\n")
            entry = json.loads(header)
            if entry["digest"] != hashlib.sha256(code).hexdigest():
                return None
            return Compiled(code, entry["kind"], entry["name"], Resources(**entry["resources"]), entry["log"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, key: str, compiled: Compiled) -> None:
        """Keep an entry."""
        entry = {
            "digest": hashlib.sha256(compiled.code).hexdigest(),
            "kind": compiled.kind,
            "name": compiled.name,
            "resources": asdict(compiled.resources),
            "log": compiled.log,
        }
        place = self.folder / key[:2] / key
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            handle, partial = tempfile.mkstemp(dir=place.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(json.dumps(entry).encode() + b"\n" + compiled.code)
                Path(partial).replace(place)
            except OSError:
                Path(partial).unlink(missing_ok=True)
                raise
        except OSError:
            return


def compile_cached(
    source: str,
    name: str,
    sm: int,
    headers: Mapping[str, str],
    options: Sequence[str] = (),
    *,
    specific: bool = False,
    compiler: Nvrtc | None = None,
    cache: DiskCache | None = None,
) -> Compiled:
    """Return a compiled kernel, from the cache where it is there.

    Raises:
        ToolError: there is no NVRTC, or the source does not compile.
    """
    compiler = compiler or find()
    cache = cache or DiskCache(cache_folder())
    key = cache.key(compiler, source, name, sm, headers, options, specific=specific)
    compiled = cache.read(key)
    if compiled is None:
        compiled = compiler.compile(source, name, sm, headers, options, specific=specific)
        cache.write(key, compiled)
    return compiled
