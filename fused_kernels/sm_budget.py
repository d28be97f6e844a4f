"""A budget of SMs, and a kernel on the other SMs that takes their share of the memory's bandwidth.

A few SMs of a large GPU are no small GPU: 16 SMs of an H200 have its whole L2 and memory to themselves, several times
the bandwidth that such arithmetic comes with on a Jetson. While an `Eater` reads memory on the other SMs, the budget is
left with less of it. That is closer to a Jetson and still not one: the L2 stays larger, latencies, clocks and
instructions are those of the large GPU, and no CPU shares the memory. Results are to be labelled with the GPU that they
were measured on.
"""

from __future__ import annotations

import statistics
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from nitro.errors import ToolError, UsageError

from .bodies import Body
from .body_parts import Field
from .memory_bodies import MemoryBody
from .problems import ElementwiseProblem, Problem
from .runtime import Buffer, Executor, Handle, LoadedKernel, Runtime, typed_arguments
from .strategies import Alone, Kernel, Launch, Parameter, launch, single_kernel

_EATER_THREADS = 256
_LOADS = 8  # of 16 bytes a thread, in flight together
_PASS_BYTES = _EATER_THREADS * _LOADS * 16
# How many times the L2 is read: by a copy, where nothing is found in it again, and by an eater, whose blocks follow one
# another at any distance.
_COPY_CACHES, _EATER_CACHES = 4, 32
_NOTE_THREADS = 64
_NOTE_BLOCKS_PER_SM = 8

# The words of an eater's control buffer.
_STOP, _STARTED, _EXPIRED, _PASSES, _WORDS = 0, 1, 2, 4, 6  # and one more that nobody reads
_EATER = f"""
extern "C" __global__ void __launch_bounds__({_EATER_THREADS}) nitro_eater(
    const uint4* data, int passes, unsigned int* control, int milliseconds) {{
  // The host says when to stop; the limit is there for the case that it never does.
  const unsigned long long limit = milliseconds * 1000000ull;
  unsigned long long start, now, eaten = 0;
  unsigned int sum = 0;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
  if (threadIdx.x == 0) atomicAdd(control + {_STARTED}, 1u);
  volatile unsigned int* stop = control + {_STOP};
  for (int pass = blockIdx.x; *stop == 0; pass = (pass + gridDim.x) % passes) {{
    const uint4* from = data + (unsigned long long)pass * {_EATER_THREADS * _LOADS} + threadIdx.x;
    // Past the L1, and used, or the loads would not be waited for.
    uint4 held[{_LOADS}];
#pragma unroll
    for (int i = 0; i < {_LOADS}; i++) held[i] = __ldcg(from + i * {_EATER_THREADS});
#pragma unroll
    for (int i = 0; i < {_LOADS}; i++) sum += held[i].x ^ held[i].y ^ held[i].z ^ held[i].w;
    eaten++;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    if (now - start >= limit) {{
      control[{_EXPIRED}] = 1;
      break;
    }}
  }}
  if (sum == 0x12345678u) control[{_WORDS}] = sum;
  if (threadIdx.x == 0) atomicAdd(reinterpret_cast<unsigned long long*>(control + {_PASSES}), eaten);
}}
"""
_NOTE = """
extern "C" __global__ void nitro_note_sm(unsigned int* seen, int ids, int microseconds) {
  unsigned int id;
  asm volatile("mov.u32 %0, %%smid;" : "=r"(id));
  if (threadIdx.x == 0 && id < (unsigned int)ids) seen[id] = 1;
  // Staying for a while lets the other blocks go to other SMs.
  unsigned long long start, now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
  for (int i = 0; i < 1000000; i++) {
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    if (now - start >= microseconds * 1000ull) return;
  }
}
"""


def _helper(name: str, source: str, threads: int, parameters: tuple[Field, ...]) -> Kernel:
    """Return a kernel without a body."""
    return Kernel(name, source, (), Alone(), (), threads, 0, tuple(Parameter(one, None) for one in parameters))


_EATER_KERNEL = _helper(
    "nitro_eater",
    _EATER,
    _EATER_THREADS,
    (
        Field("data", "const pointer"),
        Field("passes", "int"),
        Field("control", "pointer", "int32"),
        Field("milliseconds", "int"),
    ),
)
_NOTE_KERNEL = _helper(
    "nitro_note_sm",
    _NOTE,
    _NOTE_THREADS,
    (Field("seen", "pointer", "int32"), Field("ids", "int"), Field("microseconds", "int")),
)


@dataclass(slots=True)
class Eater:
    """Reads memory on the SMs outside a budget for as long as it is entered; may be entered again.

    What is measured inside must be loaded, allocated and warmed up before: the driver may free memory and load modules
    only once every kernel has ended. `strength` is the part of the blocks that could be resident, which thins the reads
    out. `bytes_per_s` is what was read when it was last left.

    Raises:
        ToolError: the kernel did not start, or came to its limit before it was told to stop.
    """

    budget: Runtime
    rest: Runtime
    strength: float = 1.0
    limit_s: float = 30.0
    bytes_per_s: float | None = None
    _loaded: LoadedKernel = field(init=False)
    _data: Buffer = field(init=False)
    _control: Buffer = field(init=False)
    _to_stop: Handle = field(init=False)
    _start: Handle = field(init=False, default=None)
    _end: Handle = field(init=False, default=None)

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise UsageError(f"an eater's strength is {self.strength:g}; give more than 0 and at most 1.")
        self._loaded = self.rest.load(_EATER_KERNEL)
        size = -(-_EATER_CACHES * self.rest.facts.l2_bytes // _PASS_BYTES) * _PASS_BYTES
        self._data = self.rest.allocate(size)
        self.rest.fill(self._data.address, size, 0x5A)
        self._control = self.rest.allocate(4 * (_WORDS + 1))
        self._to_stop = self.budget.stream()
        self.rest.synchronize()

    @property
    def blocks(self) -> int:
        """Return how many blocks read."""
        resident = max(1, self._loaded.blocks_per_sm) * self.rest.facts.sms
        return max(1, round(self.strength * resident))

    def __enter__(self) -> Eater:
        """Start to read, and return once every block does."""
        self.rest.upload(self._control.address, np.zeros(_WORDS, np.uint32))
        work = Launch(
            self._loaded.kernel,
            self.blocks,
            ("data", self._data.bytes // _PASS_BYTES, "control", int(self.limit_s * 1000)),
        )
        addresses = {"data": self._data.address, "control": self._control.address}
        self._start = self.rest.record()
        self.rest.launch(self._loaded, work.grid, typed_arguments(work, addresses))
        self._end = self.rest.record()
        patience = time.monotonic() + min(5.0, self.limit_s)
        while self._word(_STARTED) < self.blocks:
            if time.monotonic() > patience:
                started = self._word(_STARTED)
                self._stop()
                raise ToolError(
                    f"the bandwidth eater has started {started} of its {self.blocks} blocks only, so other work holds "
                    "its SMs; stop that, or measure without an eater."
                )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and note how much was read in a second."""
        expired = bool(self._word(_EXPIRED))
        self._stop()
        words = self.budget.download(self._control.address, 4 * _WORDS).view(np.uint32)
        passes = int(words[_PASSES:_WORDS].view(np.uint64)[0])
        self.bytes_per_s = passes * _PASS_BYTES / (self.rest.elapsed_ms(self._start, self._end) * 1e-3)
        if expired and kind is None:
            raise ToolError(
                f"the bandwidth eater ended after its {self.limit_s:g} s, before the measurement did; "
                "take fewer samples."
            )

    def _word(self, index: int) -> int:
        return int(self.budget.download(self._control.address, 4 * _WORDS).view(np.uint32)[index])

    def _stop(self) -> None:
        self.budget.fill(self._control.address + 4 * _STOP, 4, 0xFF, self._to_stop)
        self.budget.synchronize()
        self.rest.synchronize()


@dataclass(frozen=True, slots=True)
class Budget:
    """What was measured on: `sms` of the `of` SMs of a GPU, with an eater of a strength on the others or without."""

    sms: int
    of: int
    eater_strength: float | None = None


def sm_budget(
    runtime: Runtime, sms: int, *, eater_strength: float | None = None
) -> tuple[Runtime, AbstractContextManager[object]]:
    """Return a runtime for exactly so many SMs, and what to be in while measuring on it.

    Args:
        runtime: a whole GPU.
        sms: the budget.
        eater_strength: how much of the other SMs reads memory meanwhile, over 0 to 1; None leaves them idle.

    Raises:
        UsageError: nothing would be left on one side.
        ToolError: the GPU or its driver is too old for budgets, or does not grant this one.
    """
    part, rest = runtime.divide(sms)
    return part, nullcontext() if eater_strength is None else Eater(part, rest, eater_strength)


def sms_used(runtime: Runtime) -> frozenset[int]:
    """Return the `%smid` that kernels of a runtime ran on, by asking blocks enough to fill it."""
    loaded = runtime.load(_NOTE_KERNEL)
    ids = runtime.facts.sm_ids
    seen = runtime.allocate(4 * ids)
    try:
        runtime.upload(seen.address, np.zeros(ids, np.uint32))
        work = Launch(loaded.kernel, runtime.facts.sms * _NOTE_BLOCKS_PER_SM, ("seen", ids, 50))
        runtime.launch(loaded, work.grid, typed_arguments(work, {"seen": seen.address}))
        return frozenset(np.flatnonzero(runtime.download(seen.address, 4 * ids).view(np.uint32)).tolist())
    finally:
        runtime.free(seen)


def time_alone_s(
    runtime: Runtime,
    body: Body,
    problem: Problem,
    beside: AbstractContextManager[object] | None = None,
    *,
    samples: int = 11,
) -> float:
    """Return how long a body takes alone on a runtime, as the median of some timings.

    The inputs are the same every time, so a problem should be larger than the L2. They are bytes of 0x5A, which is a
    number in every type but no row in a small table: no problem with ids.

    Args:
        runtime: where to run.
        body: what to run.
        problem: on what.
        beside: what to be in meanwhile, such as an `Eater`.
        samples: timings.
    """
    work = launch(single_kernel(body, Alone()), (problem,), sms=runtime.facts.sms)
    buffers = {f"first_{array.name}": runtime.allocate(array.bytes) for array in problem.arrays}
    addresses = {name: buffer.address for name, buffer in buffers.items()}
    executor = Executor(runtime)
    try:
        for buffer in buffers.values():
            runtime.fill(buffer.address, buffer.bytes, 0x5A)
        executor.submit(work, addresses)
        executor.check()
        with beside or nullcontext():
            times_ms: list[float] = []
            for _ in range(samples):
                runtime.delay(200)
                start = runtime.record()
                executor.submit(work, addresses)
                times_ms.append(runtime.elapsed_ms(start, runtime.record()))
    finally:
        for buffer in buffers.values():
            runtime.free(buffer)
    return statistics.median(times_ms) * 1e-3


def copy_bytes_per_s(runtime: Runtime, beside: AbstractContextManager[object] | None = None) -> float:
    """Return the bandwidth of a copy on a runtime, bytes read and written."""
    problem = ElementwiseProblem("copy", _COPY_CACHES * runtime.facts.l2_bytes // 4 // 1024 * 1024)
    return problem.streamed_bytes / time_alone_s(runtime, MemoryBody("copy"), problem, beside)
