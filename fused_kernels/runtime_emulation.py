"""A runtime without a GPU: kernels become C++ for the CPU (`csrc/emulation.h`), to check what they compute.

It is slow, and its times mean nothing. It needs g++ (or the compiler named in CXX).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nitro.errors import ToolError

from .nvrtc import Resources, cache_folder
from .runtime import Argument, Buffer, DeviceFacts, Handle, LoadedKernel, check_budget
from .strategies import CSRC, Kernel, check_kernel

_FLAGS = ("-std=c++14", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-w")
_ALIGNMENT = 256


def compiler() -> str:
    """Return the C++ compiler.

    Raises:
        ToolError: there is none.
    """
    found = shutil.which(os.environ.get("CXX", "g++"))
    if not found:
        raise ToolError("a C++ compiler is needed to emulate kernels, and g++ was not found; install it or set CXX.")
    return found


def _text(kernel: Kernel) -> str:
    values = ", ".join(
        f"*static_cast<{'nitro::Counters*' if one.name == 'counters' else one.field.cpp}*>(arguments[{index}])"
        for index, one in enumerate(kernel.parameters)
    )
    return f"""{kernel.source}
static void call(void** arguments) {{ {kernel.name}({values}); }}
extern "C" int nitro_emulate(int grid, int sms, void** arguments, char* problem, int size) {{
  return nitro_emulation::run_grid(grid, {kernel.threads}, {kernel.shared_bytes}, sms, call, arguments, problem, size);
}}
"""


def _native_flags() -> tuple[str, ...]:
    # fmaf as one instruction makes the emulation several times faster.
    return ("-march=native",)


def build(kernel: Kernel, sm: int) -> Path:
    """Return the shared library that emulates a kernel on an architecture, given as 80 for sm_80."""
    source = _text(kernel)
    headers = b"".join(path.read_bytes() for path in sorted(CSRC.iterdir()) if path.suffix in (".cuh", ".h"))
    key = hashlib.sha256(f"{source}{sm}{_FLAGS}".encode() + headers).hexdigest()[:32]
    place = cache_folder() / "emulation" / f"{key}.so"
    if place.exists():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        text, library = Path(folder) / "kernel.cpp", Path(folder) / "kernel.so"
        text.write_text(source, encoding="utf-8")
        command = [compiler(), *_FLAGS, *_native_flags(), f"-DNITRO_EMULATION={sm * 10}", f"-I{CSRC}"]
        done = subprocess.run([*command, str(text), "-o", str(library)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ToolError(f"{kernel.name} cannot be emulated: {done.stderr.strip()[:2000]}; this is a bug of Nitro.")
        library.replace(place)
    return place


@dataclass(slots=True)
class EmulatedRuntime:
    """A pretended device of a few SMs, whose work is done when `launch` returns."""

    facts: DeviceFacts = field(
        default_factory=lambda: DeviceFacts(
            name="emulation on the CPU",
            sm=80,
            sms=3,
            sm_ids=6,
            l2_bytes=1 << 20,
            memory_bytes=1 << 30,
            shared_bytes_per_block=163 * 1024,
        )
    )
    _memory: dict[int, npt.NDArray[np.uint8]] = field(default_factory=dict)
    _captured: list[Callable[[], None]] | None = None

    def compile_ahead(self, kernels: Sequence[Kernel]) -> None:
        """Compile kernels into the cache, many at once."""
        compiler()
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(lambda kernel: build(kernel, self.facts.sm), kernels))

    def load(self, kernel: Kernel, *, carveout_percent: int | None = None) -> LoadedKernel:  # noqa: ARG002
        """Compile a kernel with the C++ compiler."""
        check_kernel(kernel, self.facts.sm)
        library = ctypes.CDLL(str(build(kernel, self.facts.sm)))
        return LoadedKernel(kernel, Resources(), 2, library)

    def launch(
        self,
        loaded: LoadedKernel,
        grid: int,
        arguments: Sequence[Argument],
        stream: Handle | None = None,  # noqa: ARG002
    ) -> None:
        """Run a kernel, or note it where a graph is captured."""
        if self._captured is not None:
            self._captured.append(lambda: self._run(loaded, grid, arguments))
        else:
            self._run(loaded, grid, arguments)

    def _run(self, loaded: LoadedKernel, grid: int, arguments: Sequence[Argument]) -> None:
        held = [ctypes.c_void_p(one) if isinstance(one, int) else one for one in arguments]
        pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(one) for one in held))
        problem = ctypes.create_string_buffer(256)
        if loaded.handle.nitro_emulate(grid, self.facts.sms, pointers, problem, len(problem)):
            raise ToolError(f"{loaded.kernel.name}: {problem.value.decode()}; this is a bug of Nitro.")

    def allocate(self, size: int) -> Buffer:
        """Return memory of this process."""
        block = np.empty(size + _ALIGNMENT, dtype=np.uint8)
        address = -(-block.ctypes.data // _ALIGNMENT) * _ALIGNMENT
        self._memory[address] = block
        return Buffer(address, size)

    def free(self, buffer: Buffer) -> None:
        """Give memory back."""
        del self._memory[buffer.address]

    def upload(self, address: int, data: npt.NDArray[Any]) -> None:
        """Copy to the pretended device."""
        held = np.ascontiguousarray(data)
        ctypes.memmove(address, held.ctypes.data, held.nbytes)

    def download(self, address: int, size: int) -> npt.NDArray[np.uint8]:
        """Copy from the pretended device."""
        data = np.empty(size, dtype=np.uint8)
        ctypes.memmove(data.ctypes.data, address, size)
        return data

    def fill(self, address: int, size: int, byte: int, stream: Handle | None = None) -> None:  # noqa: ARG002
        """Set bytes."""
        ctypes.memset(address, byte, size)

    def stream(self, *, high_priority: bool = False) -> Handle:  # noqa: ARG002
        """Return a stream; all of them do their work at once."""
        return object()

    def join(self, stream: Handle | None, others: Sequence[Handle]) -> None:
        """Do nothing: work is done when it is submitted."""

    def record(self, stream: Handle | None = None) -> Handle:  # noqa: ARG002
        """Return an event without a time."""
        return None

    def elapsed_ms(self, start: Handle, end: Handle) -> float:  # noqa: ARG002
        """Raise, because times of an emulation would mislead."""
        raise ToolError("the emulation has no times; run this on a GPU.")

    def synchronize(self) -> None:
        """Do nothing: work is done when it is submitted."""

    def capture(self, work: Callable[[Handle], None]) -> Handle:
        """Return the launches of `work`, in order."""
        self._captured = []
        try:
            work(self.stream())
            return tuple(self._captured)
        finally:
            self._captured = None

    def replay(self, graph: Handle, stream: Handle | None = None) -> None:  # noqa: ARG002
        """Run captured launches."""
        for run in graph:
            run()

    def share(self, sms: int) -> EmulatedRuntime:
        """Return a runtime with fewer SMs and the same memory."""
        return self.divide(sms)[0]

    def divide(self, sms: int) -> tuple[EmulatedRuntime, EmulatedRuntime]:
        """Return a runtime with so many SMs and one with the others, both with the same memory."""
        check_budget(self.facts, sms)
        part, rest = (replace(self.facts, sms=count) for count in (sms, self.facts.sms - sms))
        return EmulatedRuntime(part, self._memory), EmulatedRuntime(rest, self._memory)

    def delay(self, microseconds: float, stream: Handle | None = None) -> None:
        """Do nothing: nothing runs ahead."""

    def clocks_mhz(self) -> dict[str, float]:
        """Return nothing: there are no clocks."""
        return {}
