"""How long layers and fused pairs take on a GPU: each captured a few times in a graph and replayed, on warm caches.

Inside a model a layer finds its input where the layer before has just written it, so nothing is flushed here; that is
unlike the benchmark of kernels (`bench.py`), whose inputs rotate through memory.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from nitro.errors import InputError, NitroError, UsageError

from ..bodies import Body, choose
from ..compute_bodies import ComputeBody, winograd_bodies
from ..json_types import UNREADABLE, Microseconds, Name, reason
from ..problems import EmbeddingProblem, Problem
from ..strategies import Alone, InterBlockStatic, IntraBlock, Kernel, PairStrategy, pair_kernel, single_kernel
from ..strategies import strategy_name as name_of
from ..torch_calls import torch
from ..torch_launch import Launcher
from ..tuner import write_whole

_REPEATS = 8
_SAMPLES = 7


def graph_time_us(work: Callable[[], Any], *, repeats: int = _REPEATS, samples: int = _SAMPLES) -> float:
    """Return the median time of some work on torch's current GPU, without what it costs to submit it."""
    work()
    graph, _held = captured(lambda: [work() for _ in range(repeats)], pool=_measuring_pool())
    graph.replay()
    return statistics.median(_event_time_us(graph.replay) for _ in range(samples)) / repeats


_anchors: dict[int, Any] = {}


def _measuring_pool() -> Any:
    """Return the memory that all measurements on a GPU share; each would keep its own until the cache is emptied."""
    device = torch.cuda.current_device()
    if device not in _anchors:
        # A pool lives as long as one of its graphs.
        torch.zeros(1, device="cuda")
        _anchors[device] = captured(lambda: torch.zeros(1, device="cuda"))
    return _anchors[device][0].pool()


def captured(work: Callable[[], Any], *, pool: Any = None) -> tuple[Any, Any]:
    """Return a CUDA graph of some work on torch's current GPU, and what the work returned, which the graph writes to.

    The work must have run once before, so that nothing is compiled or loaded now. Graphs that share a pool of memory
    must not be replayed at the same time.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    torch.cuda.synchronize()
    # torch.cuda.graph would collect garbage and empty the cache first, which takes longer than most measurements.
    with torch.cuda.stream(stream):
        graph.capture_begin(pool=pool) if pool is not None else graph.capture_begin()
        try:
            held = work()
        finally:
            graph.capture_end()
    torch.cuda.synchronize()
    return graph, held


def _event_time_us(work: Callable[[], Any]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) * 1e3


def layer_candidates(problem: Problem, sm: int) -> tuple[Body, ...]:
    """Return bodies worth timing for a layer: the usual one, and smaller tiles, of which small layers have more."""
    first = choose(problem, sm)
    if not isinstance(first, ComputeBody) or not first.asynchronous or first.width == 1:
        return (first,)
    small = replace(first, tile_m=64, tile_n=64, simt_threads=256)
    if first.wgmma:
        low = replace(first, tile_m=64, stages=4, prefetch=False)
        tiles = (replace(low, tile_n=columns, warp_n=columns) for columns in (128, 64))
        mma = replace(small, wgmma=False, warp_m=32, warp_n=32, stages=3, prefetch=False)
        return tuple(dict.fromkeys((first, *tiles, mma)))
    if first.tensor:
        small = replace(small, warp_m=32, warp_n=32, tensor_depth=64)
        return (first, replace(first, tile_n=64), small)
    direct = (first, replace(first, tile_m=128, tile_n=64), small, replace(small, simt_threads=128))
    return tuple(dict.fromkeys((*direct, *winograd_bodies(problem, sm))))


def pair_candidates(first: Body, second: Body) -> tuple[PairStrategy, ...]:
    """Return the strategies worth timing for two bodies, all without counters, so that any passes may run at once."""
    most = min(first.most_block_threads, second.most_block_threads)
    found: list[PairStrategy] = []
    if first.block_granular and not second.block_granular and first.threads + 128 <= most:
        found.append(IntraBlock(128))
    if max(first.threads, second.threads) <= most:
        found.append(InterBlockStatic())
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a file of measurements says; null is the time of what does not run."""

    device: Name
    times_us: dict[str, Microseconds | None]


@dataclass(slots=True)
class Measurements:
    """Times in microseconds on one device, by what was timed. They can be kept, and are refused on another device."""

    device: str
    times_us: dict[str, float] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the times as JSON; one that is not finite, of what does not run, as null.

        Raises:
            InputError: they cannot be written.
        """
        times = {key: time if math.isfinite(time) else None for key, time in self.times_us.items()}
        write_whole(path, json.dumps({"device": self.device, "times_us": times}, indent=1))

    @classmethod
    def load(cls, path: Path, device: str) -> Measurements:
        """Read times of a device.

        Raises:
            InputError: the file is missing or not such a file.
            UsageError: the times are of another device.
        """
        try:
            content = msgspec.json.decode(path.read_bytes(), type=_Kept)
            times = {key: math.inf if time is None else time for key, time in content.times_us.items()}
            found = cls(content.device, times)
        except (OSError, *UNREADABLE) as error:
            raise InputError(f"{path}: no measurements can be read ({reason(error)}); measure again.") from error
        if found.device != device:
            raise UsageError(f"{path}: the times are of {found.device}, this is {device}; measure again here.")
        return found


def device_name(launcher: Launcher) -> str:
    """Return what tells devices apart for measurements."""
    facts = launcher.runtime.facts
    return f"{facts.name}, sm_{facts.sm}, {facts.sms} SMs, driver {facts.driver}, torch {torch.__version__}"


@dataclass(slots=True)
class Meter:
    """Measures what is not known yet, with random numbers where a problem has no tensors."""

    launcher: Launcher
    known: Measurements
    device: Any = "cuda"
    failures: dict[str, str] = field(default_factory=dict)

    def work_us(self, key: str, work: Callable[[], Any]) -> float:
        """Return the time of some work; infinite if it cannot run, which `failures` explains."""
        if key not in self.known.times_us:
            try:
                self.known.times_us[key] = graph_time_us(work)
            except (NitroError, RuntimeError) as error:
                self.failures[key] = str(error).strip().splitlines()[0]
                self.known.times_us[key] = float("inf")
        return self.known.times_us[key]

    def body_us(self, problem: Problem, body: Body) -> float:
        """Return the time of a body alone."""
        return self._kernel_us(f"{problem} by {body.name}", (problem,), (body,), Alone())

    def pair_us(self, problems: tuple[Problem, Problem], bodies: tuple[Body, Body], strategy: PairStrategy) -> float:
        """Return the time of two bodies in one launch."""
        names = " and ".join(f"{problem} by {body.name}" for problem, body in zip(problems, bodies, strict=True))
        return self._kernel_us(f"{names}, {name_of(strategy)}", problems, bodies, strategy)

    def _kernel_us(
        self, key: str, problems: tuple[Problem, ...], bodies: tuple[Body, ...], strategy: Alone | PairStrategy
    ) -> float:
        def work() -> None:
            self.launcher.submit(plan, addresses)

        if key not in self.known.times_us:
            try:
                plan = self.launcher.plan(problems, bodies, strategy)
            except NitroError as error:
                self.failures[key] = str(error)
                self.known.times_us[key] = float("inf")
                return float("inf")
            tensors = _random_tensors(problems, self.device)
            addresses = {name: tensor.data_ptr() for name, tensor in tensors.items()}
        return self.work_us(key, work)

    def compile(self, kernels: Sequence[Kernel]) -> None:
        """Compile kernels that will be measured, many at once."""
        # One that does not compile is met again when it is measured, and noted there.
        with suppress(NitroError):
            self.launcher.runtime.compile_ahead(list({kernel.name: kernel for kernel in kernels}.values()))


def kernels_alone(problem: Problem, sm: int) -> list[Kernel]:
    """Return the kernels that timing a problem's bodies needs."""
    return [single_kernel(body, Alone()) for body in layer_candidates(problem, sm)]


def kernels_of_pair(first: Body, second: Body) -> list[Kernel]:
    """Return the kernels that timing a pair of bodies needs."""
    return [pair_kernel(first, second, strategy) for strategy in pair_candidates(first, second)]


def _random_tensors(problems: Sequence[Problem], device: Any) -> dict[str, Any]:
    tensors: dict[str, Any] = {}
    for role, problem in zip(("first", "second"), problems, strict=False):
        for array in problem.arrays:
            if array.dtype == "int32":
                limit = problem.vocabulary if isinstance(problem, EmbeddingProblem) else 1
                made = torch.randint(limit, array.shape, dtype=torch.int32, device=device)
            else:
                made = torch.rand(array.shape, device=device).sub_(0.5).to(getattr(torch, array.dtype))
            tensors[f"{role}_{array.name}"] = made
    return tensors
