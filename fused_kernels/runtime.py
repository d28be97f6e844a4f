"""What Nitro needs of a GPU: a small protocol, and the parts around it that are the same for every implementation.

`runtime_cuda_core` implements it with NVIDIA's cuda.core, `runtime_emulation` on a CPU. Streams, events and graphs are
handles that only the runtime that made them understands.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nitro.errors import ToolError, UsageError

from .nvrtc import Resources
from .problems import Array, DType
from .strategies import COUNTER_WORDS, FAULT_WORD, Kernel, Launch, counter_words

NUMPY_DTYPE: dict[DType, str] = {"float32": "<f4", "float16": "<f2", "int32": "<i4"}
Handle = Any
# A pointer is a plain int, every other argument a ctypes scalar of the parameter's size.
Argument = int | ctypes.c_int32 | ctypes.c_int64 | ctypes.c_float


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """The device, or the part of it that a runtime may use.

    `sm_ids` is the number of different `%smid`, which can be larger than the number of SMs.
    """

    name: str
    sm: int
    sms: int
    sm_ids: int
    l2_bytes: int
    memory_bytes: int
    shared_bytes_per_block: int
    driver: str = ""


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory of a runtime's device. It lives until it is freed or its runtime is closed."""

    address: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LoadedKernel:
    """A kernel on the device. `blocks_per_sm` is what the device says can be resident together."""

    kernel: Kernel
    resources: Resources
    blocks_per_sm: int
    handle: Handle


class Runtime(Protocol):
    """A device, or a share of its SMs. Every method raises ToolError when the device reports an error."""

    @property
    def facts(self) -> DeviceFacts:
        """Return what the runtime may use."""
        ...

    def compile_ahead(self, kernels: Sequence[Kernel]) -> None:
        """Compile kernels into the cache, many at once, so that loading them is quick."""
        ...

    def load(self, kernel: Kernel, *, carveout_percent: int | None = None) -> LoadedKernel:
        """Compile a kernel for the device and load it, with a preference for shared memory over L1 or none."""
        ...

    def launch(
        self, loaded: LoadedKernel, grid: int, arguments: Sequence[Argument], stream: Handle | None = None
    ) -> None:
        """Submit a kernel to a stream; None is the runtime's own first stream."""
        ...

    def allocate(self, size: int) -> Buffer:
        """Return memory aligned to at least 256 bytes."""
        ...

    def free(self, buffer: Buffer) -> None:
        """Give memory back; nothing may be using it any more."""
        ...

    def upload(self, address: int, data: npt.NDArray[Any]) -> None:
        """Copy to the device and wait."""
        ...

    def download(self, address: int, size: int) -> npt.NDArray[np.uint8]:
        """Wait for the device and copy bytes from it."""
        ...

    def fill(self, address: int, size: int, byte: int, stream: Handle | None = None) -> None:
        """Set bytes."""
        ...

    def stream(self, *, high_priority: bool = False) -> Handle:
        """Return a new stream that does not wait for the legacy default stream."""
        ...

    def join(self, stream: Handle | None, others: Sequence[Handle]) -> None:
        """Let a stream wait for what was submitted to others."""
        ...

    def record(self, stream: Handle | None = None) -> Handle:
        """Return an event with a time in a stream."""
        ...

    def elapsed_ms(self, start: Handle, end: Handle) -> float:
        """Return the time between two events, waiting for the second."""
        ...

    def synchronize(self) -> None:
        """Wait for everything that was submitted, and report errors of kernels."""
        ...

    def capture(self, work: Callable[[Handle], None]) -> Handle:
        """Return a graph of what `work` submits to the stream it is given, and to streams that it forks and joins."""
        ...

    def replay(self, graph: Handle, stream: Handle | None = None) -> None:
        """Submit a graph to a stream."""
        ...

    def share(self, sms: int) -> Runtime:
        """Return a runtime whose streams may use so many SMs only: the first of `divide`."""
        ...

    def divide(self, sms: int) -> tuple[Runtime, Runtime]:
        """Return two runtimes that share the memory: one for exactly so many SMs, and one for all the others.

        Each waits for its own streams only, so that work on one part can outlast a `synchronize` of the other.
        """
        ...

    def delay(self, microseconds: float, stream: Handle | None = None) -> None:
        """Keep a stream busy for a while, so that what follows is submitted before the GPU gets to it."""
        ...

    def clocks_mhz(self) -> dict[str, float]:
        """Return the clocks now, by domain; empty where they cannot be read."""
        ...


def check_budget(facts: DeviceFacts, sms: int) -> None:
    """Raise UsageError if a device cannot be divided into so many SMs and some others."""
    if not 1 <= sms < facts.sms:
        raise UsageError(
            f"a budget of {sms} SMs leaves no SM on one side of {facts.name}, which has {facts.sms}; "
            f"ask for 1 to {facts.sms - 1}."
        )


def address_of(array: object, wanted: Array, *, aligned: bool) -> int:
    """Return the address of a GPU array after checking that a body may read or write it.

    Args:
        array: a torch tensor on a GPU or anything with `__cuda_array_interface__`.
        wanted: name, shape and dtype that it must have.
        aligned: the body moves 16 bytes at once.

    Raises:
        UsageError: it is not such an array.
    """
    interface = getattr(array, "__cuda_array_interface__", None)
    if not isinstance(interface, Mapping):
        raise UsageError(f"{wanted.name}: a {type(array).__name__} is no array on a GPU; copy it there first.")
    try:
        shape, dtype, (address, read_only) = tuple(interface["shape"]), interface["typestr"], interface["data"]
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{wanted.name}: the {type(array).__name__} does not say what it is ({error!r} in its "
            "__cuda_array_interface__); copy it to a torch or CuPy array."
        ) from error
    if dtype != NUMPY_DTYPE[wanted.dtype]:
        raise UsageError(f"{wanted.name}: elements are {dtype}, the body needs {wanted.dtype}; convert the array.")
    if shape != wanted.shape:
        raise UsageError(f"{wanted.name}: the shape is {shape}, the problem has {wanted.shape}; reshape one of them.")
    strides = interface.get("strides")
    if strides is not None and tuple(strides) != _c_strides(shape, np.dtype(dtype).itemsize) and wanted.elements > 1:
        raise UsageError(f"{wanted.name}: the array is not contiguous (strides {tuple(strides)}); make a copy of it.")
    if not address and wanted.elements:
        raise UsageError(f"{wanted.name}: the array has no memory; was it freed?")
    if wanted.output and read_only:
        raise UsageError(f"{wanted.name}: the array is read-only, and the kernel writes to it; make a copy of it.")
    if address % np.dtype(dtype).itemsize:
        raise UsageError(f"{wanted.name}: the address {address:#x} splits elements of {dtype}; copy the array.")
    if aligned and address % 16:
        raise UsageError(
            f"{wanted.name}: the address {address:#x} is no multiple of 16; choose the body with aligned=False, "
            "or copy the array."
        )
    return int(address)


def _c_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    strides: list[int] = []
    step = itemsize
    for extent in reversed(shape):
        strides.insert(0, step)
        step *= extent
    return tuple(strides)


def typed_arguments(launch: Launch, addresses: Mapping[str, int]) -> tuple[Argument, ...]:
    """Return the arguments of a launch as the kernel's parameters have them, with addresses in the place of names."""
    return tuple(
        _typed(parameter.field.kind, value, addresses)
        for parameter, value in zip(launch.kernel.parameters, launch.arguments, strict=True)
    )


def _typed(kind: str, value: int | float | str | None, addresses: Mapping[str, int]) -> Argument:
    if kind.endswith("pointer"):
        return addresses[str(value)] if value is not None else 0
    if value is None or isinstance(value, str):
        raise AssertionError(f"{kind} got {value!r}")
    match kind:
        case "int":
            return ctypes.c_int32(int(value))
        case "int64":
            return ctypes.c_int64(int(value))
        case _:
            return ctypes.c_float(value)


@dataclass(slots=True)
class Executor:
    """Launches on one runtime: keeps loaded kernels and the counters that they need.

    Every launch leaves its kernel's counters at zero, so launches one after another share them. A kernel that runs in
    two streams at once needs two slots. What will be captured must be submitted once before: memory for counters cannot
    be had during a capture.
    """

    runtime: Runtime
    _loaded: dict[tuple[str, int | None], LoadedKernel] = field(default_factory=dict)
    _counters: dict[tuple[str, int], Buffer] = field(default_factory=dict)
    _unchecked: dict[tuple[str, int], Buffer] = field(default_factory=dict)

    def load(self, kernel: Kernel, *, carveout_percent: int | None = None) -> LoadedKernel:
        """Return a kernel on the device; the second time it is there already."""
        key = (kernel.name, carveout_percent)
        if key not in self._loaded:
            self._loaded[key] = self.runtime.load(kernel, carveout_percent=carveout_percent)
        return self._loaded[key]

    def submit(
        self,
        launch: Launch,
        addresses: Mapping[str, int],
        stream: Handle | None = None,
        *,
        carveout_percent: int | None = None,
        slot: int = 0,
    ) -> None:
        """Submit a launch; addresses are named as `first_x`, `second_y`. An empty launch does nothing."""
        if launch.empty:
            return
        loaded = self.load(launch.kernel, carveout_percent=carveout_percent)
        if launch.kernel.takes_counters:
            addresses = {**addresses, "counters": self._counter(launch.kernel, slot).address}
        self.runtime.launch(loaded, launch.grid, typed_arguments(launch, addresses), stream)

    def _counter(self, kernel: Kernel, slot: int) -> Buffer:
        key = (kernel.name, slot)
        if key not in self._counters:
            words = np.zeros(counter_words(self.runtime.facts.sm_ids), dtype=np.uint32)
            buffer = self.runtime.allocate(words.nbytes)
            self.runtime.upload(buffer.address, words)
            self._counters[key] = buffer
        self._unchecked[key] = self._counters[key]
        return self._counters[key]

    def check(self) -> None:
        """Wait for the device and raise ToolError if a kernel found its counters in a state that they cannot be in."""
        self.runtime.synchronize()
        unchecked, self._unchecked = self._unchecked, {}
        for (name, _), buffer in unchecked.items():
            words = self.runtime.download(buffer.address, 4 * COUNTER_WORDS).view(np.uint32)
            if words[FAULT_WORD] or words[:FAULT_WORD].any():
                self.runtime.upload(buffer.address, np.zeros(buffer.bytes // 4, dtype=np.uint32))
                raise ToolError(
                    f"{name}: the work counters were disturbed ({words.tolist()}), so its results are not to be "
                    "trusted; run it again, and in one stream at a time."
                )
