"""A device whose times are known: every kernel takes what a test says, and streams run side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from nitro.fused_kernels.candidates import Candidate
from nitro.fused_kernels.compile_queue import CompileQueue
from nitro.fused_kernels.nvrtc import Resources
from nitro.fused_kernels.runtime import Argument, LoadedKernel
from nitro.fused_kernels.runtime_emulation import EmulatedRuntime
from nitro.fused_kernels.strategies import Kernel

# A kernel that fits an SM twice and spills nothing.
FITS = Resources(64, 0, 0, 0, 2, 0)


@dataclass(eq=False)
class Stream:
    """A stream, and when it has done what it was given, in microseconds."""

    now_us: float = 0.0


@dataclass
class TimedRuntime(EmulatedRuntime):
    """Computes nothing. `cost_us` is the time of a kernel."""

    cost_us: Callable[[Kernel], float] = lambda _: 10.0
    launches: list[str] = field(default_factory=list)
    own: Stream = field(default_factory=Stream)
    streams: list[Stream] = field(default_factory=list)

    def load(self, kernel: Kernel, *, carveout_percent: int | None = None) -> LoadedKernel:  # noqa: ARG002
        return LoadedKernel(kernel, FITS, 2, None)

    def launch(
        self,
        loaded: LoadedKernel,
        grid: int,  # noqa: ARG002
        arguments: Sequence[Argument],  # noqa: ARG002
        stream: Any = None,
    ) -> None:
        self.launches.append(loaded.kernel.name)
        (stream or self.own).now_us += self.cost_us(loaded.kernel)

    def stream(self, *, high_priority: bool = False) -> Stream:  # noqa: ARG002
        self.streams.append(Stream())
        return self.streams[-1]

    def join(self, stream: Any, others: Sequence[Any]) -> None:
        stream.now_us = max([stream.now_us, *(other.now_us for other in others)])

    def delay(self, microseconds: float, stream: Any = None) -> None:
        stream.now_us += microseconds

    def record(self, stream: Any = None) -> float:
        return float(stream.now_us)

    def elapsed_ms(self, start: float, end: float) -> float:
        return (end - start) * 1e-3

    def capture(self, work: Callable[[Any], None]) -> float:
        begin = max((stream.now_us for stream in self.streams), default=0.0)
        stream = Stream(begin)
        work(stream)
        return stream.now_us - begin

    def replay(self, graph: float, stream: Any = None) -> None:
        stream.now_us += graph


@dataclass
class NoCompiler:
    """Stands for a queue that compiles: what each kernel needs is known at once."""

    sm: int = 80
    known: dict[str, Resources | str] = field(default_factory=dict)
    added: list[str] = field(default_factory=list)

    def add(self, kernels: Iterable[Kernel]) -> None:
        self.added += [kernel.name for kernel in kernels]

    def resources(self, kernels: Iterable[Kernel]) -> Mapping[str, Resources | str]:
        return {kernel.name: self.known.get(kernel.name, FITS) for kernel in kernels}


def no_compiler(**known: Resources | str) -> CompileQueue:
    return cast(CompileQueue, NoCompiler(known=dict(known)))


def named(candidates: Iterable[Candidate]) -> dict[str, Candidate]:
    return {candidate.name: candidate for candidate in candidates}
