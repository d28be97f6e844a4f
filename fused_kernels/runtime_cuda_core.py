"""The runtime on a real GPU, with NVIDIA's cuda.core (1.x, or 0.3 and newer under its experimental name).

cuda.core does devices, streams, events, modules, launches and green contexts. What it has no word for goes to the
driver bindings that it stands on: plain allocations and copies, kernel attributes, capture of graphs across streams.
The primary context is used, so that torch and others in the process share everything with us.
"""

from __future__ import annotations

import ctypes
import importlib
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from nitro.errors import ToolError, UsageError

from . import nvrtc
from .compiling import compile_ahead, compile_one
from .runtime import Argument, Buffer, DeviceFacts, Handle, LoadedKernel, check_budget
from .strategies import Kernel

WAY_OUT = "run `pip install cuda-core cuda-bindings` and use a machine with an NVIDIA driver"
_HELPERS = """
extern "C" __global__ void nitro_delay(unsigned int microseconds) {
  // A bounded loop, in case the timer stands still.
  unsigned long long start, now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
  for (unsigned int i = 0; i < 100000000u; i++) {
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    if (now - start >= microseconds * 1000ull) return;
  }
}
extern "C" __global__ void nitro_count_sm_ids(unsigned int* count) {
  unsigned int ids;
  asm volatile("mov.u32 %0, %%nsmid;" : "=r"(ids));
  if (threadIdx.x == 0) *count = ids;
}
"""


def _import_core() -> tuple[ModuleType, ModuleType]:
    try:
        core = importlib.import_module("cuda.core")
        if not hasattr(core, "Device"):
            core = importlib.import_module("cuda.core.experimental")
        driver = _driver()
    except ImportError as error:
        raise ToolError(f"fused kernels need cuda.core, which cannot be imported ({error}); {WAY_OUT}.") from error
    return core, driver


def _driver() -> ModuleType:
    try:
        return importlib.import_module("cuda.bindings.driver")
    except ImportError:
        return importlib.import_module("cuda.cuda")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class _StreamHandle:
    """A stream of somebody else, in the protocol that cuda.core understands."""

    def __init__(self, address: int) -> None:
        self.address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address


class CudaCoreRuntime:
    """One GPU, or a share of its SMs."""

    def __init__(self, device_id: int = 0) -> None:
        """Take a device and its primary context.

        Raises:
            ToolError: cuda.core, a driver or the device is missing.
        """
        self._core, self._driver = _import_core()
        try:
            self.device = self._core.Device(device_id)
            self.device.set_current()
            properties = self.device.properties
            major, minor = self.device.compute_capability
        except Exception as error:
            raise ToolError(f"no GPU can be used ({_first_line(error)}); {WAY_OUT}.") from error
        self._context: Any = None
        self._streams: list[Any] = []
        self._buffers: dict[int, int] = {}
        self._modules: list[Any] = []
        self._graphs: list[Any] = []
        _, memory = self._call("cuMemGetInfo")
        self.facts = DeviceFacts(
            name=self.device.name,
            sm=major * 10 + minor,
            sms=properties.multiprocessor_count,
            sm_ids=properties.multiprocessor_count,
            l2_bytes=properties.l2_cache_size,
            memory_bytes=int(memory),
            shared_bytes_per_block=properties.max_shared_memory_per_block_optin,
            driver=str(self._call("cuDriverGetVersion")),
        )
        self._first = self.stream()
        self.facts = replace(self.facts, sm_ids=max(self.facts.sms, self._count_sm_ids()))

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call the driver; return its result (a tuple if there are several), or raise ToolError with its reason."""
        status, *results = getattr(self._driver, name)(*arguments)
        if int(status):
            _, text = self._driver.cuGetErrorString(status)
            reason = text.decode() if isinstance(text, bytes) else str(status)
            raise ToolError(f"{name} failed on the GPU: {reason}; look at the sizes, and at earlier messages.")
        return results[0] if len(results) == 1 else tuple(results)

    def _guarded(self, what: str, work: Callable[[], Any]) -> Any:
        """Return what a call of cuda.core returns, its errors turned into ours."""
        try:
            return work()
        except Exception as error:
            raise ToolError(
                f"{what} failed on the GPU: {error}; look at the sizes, and at earlier messages."
            ) from error

    def _count_sm_ids(self) -> int:
        compiled = nvrtc.compile_cached(_HELPERS, "nitro_count_sm_ids", self.facts.sm, {})
        module = self._module(compiled)
        self._delay = module.get_kernel("nitro_delay")
        kernel = module.get_kernel("nitro_count_sm_ids")
        buffer = self.allocate(4)
        config = self._core.LaunchConfig(grid=1, block=32)
        self._guarded("counting SMs", lambda: self._core.launch(self._first, config, kernel, buffer.address))
        count = int(self.download(buffer.address, 4).view(np.uint32)[0])
        self.free(buffer)
        return count

    def _module(self, compiled: nvrtc.Compiled) -> Any:
        make = self._core.ObjectCode.from_cubin if compiled.kind == "cubin" else self._core.ObjectCode.from_ptx
        module = self._guarded(f"loading {compiled.name}", lambda: make(compiled.code))
        self._modules.append(module)
        return module

    def compile_ahead(self, kernels: Sequence[Kernel]) -> None:
        """Compile kernels into the cache, many at once."""
        compile_ahead([(kernel, self.facts.sm) for kernel in kernels])

    def load(self, kernel: Kernel, *, carveout_percent: int | None = None) -> LoadedKernel:
        """Compile a kernel for the device and load it.

        `carveout_percent` is how much of the L1 should be shared memory; None leaves it to the driver.

        Raises:
            UsageError: a body cannot run on this device, or a block needs more shared memory than there is.
            ToolError: it does not compile or load.
        """
        if kernel.shared_bytes > self.facts.shared_bytes_per_block:
            raise UsageError(
                f"{kernel.name} needs {kernel.shared_bytes} bytes of shared memory a block, {self.facts.name} has "
                f"{self.facts.shared_bytes_per_block}; use fewer stages or a smaller tile."
            )
        compiled = compile_one(kernel, self.facts.sm)
        handle = self._module(compiled).get_kernel(kernel.name)
        attributes = self._driver.CUfunction_attribute
        raw, device = handle.handle, self.device.device_id
        largest = attributes.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        self._call("cuKernelSetAttribute", largest, kernel.shared_bytes, raw, device)
        if carveout_percent is not None:
            carveout = attributes.CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT
            self._call("cuKernelSetAttribute", carveout, carveout_percent, raw, device)
        function = self._call("cuKernelGetFunction", raw)
        blocks = self._call(
            "cuOccupancyMaxActiveBlocksPerMultiprocessor", function, kernel.threads, kernel.shared_bytes
        )
        return LoadedKernel(kernel, compiled.resources, int(blocks), handle)

    def launch(
        self, loaded: LoadedKernel, grid: int, arguments: Sequence[Argument], stream: Handle | None = None
    ) -> None:
        """Submit a kernel to a stream: one of ours, a torch stream, anything with `__cuda_stream__`, or an address."""
        config = self._core.LaunchConfig(grid=grid, block=loaded.kernel.threads, shmem_size=loaded.kernel.shared_bytes)
        self._guarded(
            loaded.kernel.name, lambda: self._core.launch(self._stream(stream), config, loaded.handle, *arguments)
        )

    def _stream(self, stream: Handle | None) -> Any:
        if stream is None:
            return self._first
        if isinstance(stream, int):
            return self.device.create_stream(_StreamHandle(stream))
        address = getattr(stream, "cuda_stream", None)
        if isinstance(address, int):  # torch, also before it knew the protocol
            return self.device.create_stream(_StreamHandle(address))
        return stream

    def allocate(self, size: int) -> Buffer:
        """Return memory of the device; a size of 0 still has an address of its own."""
        pointer = self._call("cuMemAlloc", max(size, 1))
        address = int(pointer)
        self._buffers[address] = size
        return Buffer(address, size)

    def free(self, buffer: Buffer) -> None:
        """Give memory back after waiting for the device, since a kernel may still be using it."""
        self.synchronize()
        del self._buffers[buffer.address]
        self._call("cuMemFree", buffer.address)

    def upload(self, address: int, data: npt.NDArray[Any]) -> None:
        """Copy to the device and wait."""
        held = np.ascontiguousarray(data)
        if held.nbytes:
            self.synchronize()
            self._call("cuMemcpyHtoD", address, held.ctypes.data, held.nbytes)
            # A copy from pageable memory may return before it has reached the device.
            self.synchronize()

    def download(self, address: int, size: int) -> npt.NDArray[np.uint8]:
        """Wait for the device and copy bytes from it."""
        data = np.empty(size, dtype=np.uint8)
        self.synchronize()
        if size:
            self._call("cuMemcpyDtoH", data.ctypes.data, address, size)
        return data

    def fill(self, address: int, size: int, byte: int, stream: Handle | None = None) -> None:
        """Set bytes, in the order of a stream."""
        if size:
            self._call("cuMemsetD8Async", address, byte, size, self._stream(stream).handle)

    def stream(self, *, high_priority: bool = False) -> Handle:
        """Return a new stream that does not wait for the legacy default stream."""
        lowest, highest = self._call("cuCtxGetStreamPriorityRange")
        options = self._core.StreamOptions(nonblocking=True, priority=int(highest if high_priority else lowest))
        owner = self._context if self._context is not None else self.device
        stream = self._guarded("making a stream", lambda: owner.create_stream(options=options))
        if self._context is not None:
            self._streams.append(stream)
        return stream

    def join(self, stream: Handle | None, others: Sequence[Handle]) -> None:
        """Let a stream wait for what was submitted to others."""
        for other in others:
            event = self._guarded("recording", self._stream(other).record)
            self._guarded("waiting", partial(self._stream(stream).wait, event))

    def record(self, stream: Handle | None = None) -> Handle:
        """Return an event with a time in a stream."""
        options = self._core.EventOptions(**{self._timing_option(): True})
        return self._guarded("recording", lambda: self._stream(stream).record(options=options))

    def _timing_option(self) -> str:
        # Renamed in 1.0.
        known = self._core.EventOptions.__dataclass_fields__
        return "timing_enabled" if "timing_enabled" in known else "enable_timing"

    def elapsed_ms(self, start: Handle, end: Handle) -> float:
        """Return the time between two events, waiting for the second."""
        self._guarded("waiting", end.sync)
        return float(end - start)

    def synchronize(self) -> None:
        """Wait for everything that was submitted, and report errors of kernels.

        A budget of SMs waits for the streams that it made and for copies: the other SMs may stay busy.
        """
        if self._context is None:
            self._call("cuCtxSynchronize")
            return
        self._call("cuStreamSynchronize", 0)
        for stream in self._streams:
            self._guarded("waiting", stream.sync)

    def capture(self, work: Callable[[Handle], None]) -> Handle:
        """Return a graph of what `work` submits to the stream it is given, and to streams that it forks and joins."""
        stream = self.stream()
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        self._call("cuStreamBeginCapture", stream.handle, mode)
        try:
            work(stream)
        finally:
            graph = self._call("cuStreamEndCapture", stream.handle)
        executable = self._call("cuGraphInstantiate", graph, 0)
        self._graphs.append((graph, executable))
        # Or its first replay would take longer, and wait for kernels that it has nothing to do with.
        self._call("cuGraphUpload", executable, self._first.handle)
        return executable

    def replay(self, graph: Handle, stream: Handle | None = None) -> None:
        """Submit a graph to a stream."""
        self._call("cuGraphLaunch", graph, self._stream(stream).handle)

    def share(self, sms: int) -> CudaCoreRuntime:
        """Return a runtime whose streams may use exactly so many SMs; errors are those of `divide`."""
        return self.divide(sms)[0]

    def divide(self, sms: int) -> tuple[CudaCoreRuntime, CudaCoreRuntime]:
        """Return a runtime for exactly so many SMs and one for the others, as two green contexts.

        Raises:
            UsageError: nothing is left on one side, or this runtime is a part of a GPU itself.
            ToolError: green contexts are not to be had here, or not of this size.
        """
        check_budget(self.facts, sms)
        if self._context is not None:
            raise UsageError("a budget of SMs cannot be divided again; divide the whole GPU once.")
        if not hasattr(self._core, "SMResourceOptions"):
            raise ToolError("a budget of SMs needs cuda.core 1.0 or newer (green contexts); upgrade cuda-core.")
        try:
            every = self.device.resources.sm
        except Exception as error:
            raise ToolError(
                f"{self.facts.name} and its driver have no budgets of SMs ({_first_line(error)}); "
                "they need CUDA 12.4 or newer, or run on the whole GPU."
            ) from error
        steps = f"multiples of {every.coscheduled_alignment} from {every.min_partition_size} on"
        try:
            (group,), rest = every.split(self._core.SMResourceOptions(count=sms))
        except Exception as error:
            raise ToolError(
                f"{self.facts.name} does not grant a budget of {sms} SMs ({_first_line(error)}); ask for {steps}."
            ) from error
        if group.sm_count != sms or rest.sm_count < 1:
            raise ToolError(
                f"{self.facts.name} grants {group.sm_count} SMs and {rest.sm_count} others in the place of {sms} and "
                f"{self.facts.sms - sms}; ask for {steps}."
            )
        return self._part(group), self._part(rest)

    def _part(self, resource: Any) -> CudaCoreRuntime:
        """Return a runtime that shares everything with this one but the SMs and streams."""
        options = self._core.ContextOptions(resources=[resource])
        part = object.__new__(CudaCoreRuntime)
        part.__dict__.update(self.__dict__)
        part._context = self._guarded("making a green context", lambda: self.device.create_context(options))
        part._streams = []
        part.facts = replace(self.facts, sms=int(resource.sm_count))
        part._first = part.stream()
        # The first launch of a kernel loads it, and that waits for every kernel of the device: for an eater too, which
        # ends only when it is told so.
        part.delay(0)
        part.synchronize()
        return part

    def delay(self, microseconds: float, stream: Handle | None = None) -> None:
        """Keep a stream busy for a while, so that what follows is submitted before the GPU gets to it."""
        config = self._core.LaunchConfig(grid=1, block=1)
        argument = ctypes.c_uint32(int(microseconds))
        self._guarded("waiting", lambda: self._core.launch(self._stream(stream), config, self._delay, argument))

    def clocks_mhz(self) -> dict[str, float]:
        """Return the SM and memory clocks now, as nvidia-smi tells them; empty where it does not."""
        query = ["nvidia-smi", f"--id={self.device.pci_bus_id}", "--query-gpu=clocks.sm,clocks.mem"]
        try:
            text = subprocess.run(
                [*query, "--format=csv,noheader,nounits"], capture_output=True, text=True, check=True, timeout=10
            ).stdout
            sm, memory = (float(value) for value in text.splitlines()[0].split(","))
        except (OSError, subprocess.SubprocessError, ValueError, IndexError):
            return {}
        return {"sm": sm, "memory": memory}

    def close(self) -> None:
        """Free the memory and graphs that are still held."""
        self.synchronize()
        for graph, executable in self._graphs:
            self._call("cuGraphExecDestroy", executable)
            self._call("cuGraphDestroy", graph)
        self._graphs.clear()
        for address in list(self._buffers):
            self._call("cuMemFree", address)
        self._buffers.clear()


def torch_stream() -> Handle:
    """Return torch's current stream, to launch in the order of the model around it.

    Raises:
        ToolError: torch is missing or has no GPU.
    """
    try:
        import torch
    except ImportError as error:
        raise ToolError(f"torch cannot be imported ({error}); install it, or pass a stream.") from error
    if not torch.cuda.is_available():
        raise ToolError("torch sees no GPU; install a build for CUDA, or pass a stream.")
    return torch.cuda.current_stream()
