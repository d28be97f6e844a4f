"""Runs candidates on a GPU and times them so that none of them has an advantage.

All of them use the same rotating inputs, which together are larger than twice the L2. They are timed in turn, forwards
and then backwards, so that a drift of the clocks meets all of them. Before each timing the stream is kept busy until
everything has been submitted: what is measured is the GPU, not Python.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nitro.errors import NitroError

from .candidates import Candidate
from .problems import Array, EmbeddingProblem, Problem
from .runtime import Buffer, Executor, Handle, Runtime
from .strategies import Kernel, Launch, launch

_BLOCK_BYTES = 16 << 20
# What submitting a launch, an event or a wait from Python takes at most, and what is always waited for.
_SUBMIT_US = 60.0
_AHEAD_US = 100.0
# Launches and waits of two streams that start and end together, and what a call of torch costs, in launches.
_FORK_LAUNCHES = 6
_CALL_LAUNCHES = 3
_COMPARED_BYTES = 4 << 20

Half = Callable[[int, Handle], None]


class ComputeLibrary(Protocol):
    """What solves the first problem in the place of our body; see `library.Library`."""

    def submit(self, call: str, problem: Problem, addresses: dict[str, int], stream: Handle) -> None:
        """Submit a call to a stream."""
        ...

    def forget(self) -> None:
        """Let go of arrays and streams."""
        ...


class Inputs:
    """Rotating sets of the arrays of a pair, filled with random numbers."""

    def __init__(
        self, runtime: Runtime, problems: tuple[Problem, Problem], *, largest_sets: int = 64, seed: int = 7
    ) -> None:
        """Allocate and fill.

        Raises:
            ToolError: not even one set fits into the memory of the device.
        """
        self.runtime = runtime
        footprint = sum(array.bytes for problem in problems for array in problem.arrays)
        wanted = max(3, -(-2 * runtime.facts.l2_bytes // max(footprint, 1)) + 1)
        affordable = max(1, int(runtime.facts.memory_bytes * 0.6) // max(footprint, 1))
        self.count = min(wanted, affordable, largest_sets)
        self.sets: list[dict[str, int]] = []
        self.buffers: list[Buffer] = []
        numbers = np.random.default_rng(seed).uniform(-1, 1, _BLOCK_BYTES // 4).astype(np.float32)
        self._seed = seed
        self._blocks: dict[str, np.ndarray[Any, Any]] = {"float32": numbers, "float16": numbers.astype(np.float16)}
        for _ in range(self.count):
            addresses: dict[str, int] = {}
            for role, problem in zip(("first", "second"), problems, strict=True):
                for array in problem.arrays:
                    buffer = runtime.allocate(array.bytes)
                    self.buffers.append(buffer)
                    addresses[f"{role}_{array.name}"] = buffer.address
                    if not array.output:
                        self._fill(buffer, array, problem)
            self.sets.append(addresses)

    def _fill(self, buffer: Buffer, array: Array, problem: Problem) -> None:
        if array.dtype == "int32":
            limit = problem.vocabulary if isinstance(problem, EmbeddingProblem) else 1
            ids = np.random.default_rng(self._seed + 4).integers(0, limit, array.elements, dtype=np.int32)
            self.runtime.upload(buffer.address, ids)
            return
        block = self._blocks[array.dtype].view(np.uint8)
        for start in range(0, array.bytes, block.nbytes):
            self.runtime.upload(buffer.address + start, block[: min(block.nbytes, array.bytes - start)])

    def addresses(self, index: int, role: int | None = None) -> dict[str, int]:
        """Return the addresses of a set: of both problems, or of one of them as if it were the first of a kernel."""
        held = self.sets[index % self.count]
        if role != 1:
            return held
        return {f"first{name[6:]}": at for name, at in held.items() if name.startswith("second")}

    def free(self) -> None:
        """Give the memory back."""
        for buffer in self.buffers:
            self.runtime.free(buffer)


@dataclass(slots=True)
class Way:
    """A candidate, ready to be submitted on the set of inputs with some index."""

    candidate: Candidate
    submit: Callable[[int], None]
    launches: int = 1


class Workbench:
    """Two problems on a device, with the arrays, streams and kernels to run them in any way."""

    def __init__(
        self,
        runtime: Runtime,
        problems: tuple[Problem, Problem],
        *,
        library: ComputeLibrary | None = None,
        executor: Executor | None = None,
        beside: AbstractContextManager[object] | None = None,
        seed: int = 7,
        largest_sets: int = 64,
    ) -> None:
        """Fill the arrays.

        Args:
            runtime: the device.
            problems: both.
            library: what solves the first problem in the place of a body.
            executor: one that is shared keeps its kernels loaded from one workbench to the next.
            beside: what to be in while ways are timed, such as a bandwidth eater (`sm_budget`).
            seed: of the random inputs.
            largest_sets: how many sets of arrays take turns at most; 1 leaves them in the L2 as far as they fit.

        Raises:
            ToolError: they do not fit into the memory of the device.
        """
        self.runtime, self.problems, self.vendor = runtime, problems, library
        self.executor = executor or Executor(runtime)
        self.beside = beside or nullcontext()
        self.main = runtime.stream()
        self.streams = (runtime.stream(), runtime.stream())
        self.urgent = runtime.stream(high_priority=True)
        self.inputs = Inputs(runtime, problems, largest_sets=largest_sets, seed=seed)

    # ---- preparing ----

    def prepare(self, candidate: Candidate) -> Way:
        """Return a candidate ready to run, after one run of it whose time does not count.

        Raises:
            UsageError: its bodies do not fit the problems.
            ToolError: the device cannot load or run it.
        """
        way = self._way(candidate)
        way.submit(0)
        return way

    def prepare_all(self, candidates: Sequence[Candidate]) -> tuple[list[Way], list[str]]:
        """Return the candidates that run, and for each that does not a sentence."""
        found = [self._prepared_or_why_not(candidate) for candidate in candidates]
        self.executor.check()
        return [one for one in found if isinstance(one, Way)], [one for one in found if isinstance(one, str)]

    def _prepared_or_why_not(self, candidate: Candidate) -> Way | str:
        try:
            return self.prepare(candidate)
        except NitroError as error:
            return f"{candidate.name}: {error}"

    def _way(self, candidate: Candidate) -> Way:
        first, second = self._half(candidate, 0), self._half(candidate, 1)
        match candidate.family:
            case "first":
                return Way(candidate, lambda index: first(index, self.main))
            case "second":
                return Way(candidate, lambda index: second(index, self.main))
            case "intra_block" | "inter_block_static" | "inter_block_ticket" | "intra_thread":
                return Way(candidate, self._fused(candidate))
            case "graph":
                return Way(candidate, self._graph(candidate, first, second))
            case _:
                calls = _CALL_LAUNCHES if candidate.call else 0
                if candidate.submission == "in turn":
                    return Way(candidate, lambda index: self._in_turn(index, first, second), 2 + calls)
                order = self._order(candidate)
                streams = (self.streams[0], self.urgent if candidate.submission == "second urgent" else self.streams[1])

                def fork(index: int) -> None:
                    self._fork(
                        index, self.main, streams, (first, second), order, at_once=candidate.submission == "at once"
                    )

                return Way(candidate, fork, _FORK_LAUNCHES + calls)

    def _order(self, candidate: Candidate) -> tuple[int, int]:
        """Return which half is submitted first; of those at once the capped one, which leaves room for the other."""
        later_first = candidate.submission == "at once" and candidate.persistent == 1
        return (1, 0) if candidate.submission == "second, first" or later_first else (0, 1)

    def _in_turn(self, index: int, first: Half, second: Half) -> None:
        first(index, self.main)
        second(index, self.main)

    def _fork(
        self,
        index: int,
        main: Handle,
        streams: tuple[Handle, Handle],
        halves: tuple[Half, Half],
        order: tuple[int, int],
        *,
        at_once: bool = False,
    ) -> None:
        """Submit two halves to two streams that start and end together; `order` says which comes first.

        The GPU meets both when everything has been submitted, and would take them in an order that depends on its
        queues. So, unless both shall start at once, the stream of the later half waits for the other one to be at its
        half, which makes the order the one that was asked for. (Branches of a graph have none.)
        """
        early, late = streams[order[0]], streams[order[1]]
        self.runtime.join(early, [main])
        self.runtime.join(late, [main if at_once else early])
        for one in order:
            halves[one](index, streams[one])
        self.runtime.join(main, list(streams))

    def _half(self, candidate: Candidate, role: int) -> Half:
        """Return one of the two problems alone: by our body, or by a library."""
        body = candidate.bodies[role]
        if candidate.strategy is not None or (body is None and not (role == 0 and candidate.call)):
            return _nothing
        if body is None:
            return self._call(candidate)
        kernel = candidate.kernels[-role]  # the only one, or the first and the last of two
        capped = candidate.persistent == role
        work = self._place(kernel, (self.problems[role],), candidate.blocks_per_sm if capped else 1)
        carveout = candidate.carveout_percent
        self.executor.load(kernel, carveout_percent=carveout)

        def submit(index: int, stream: Handle) -> None:
            self.executor.submit(work, self.inputs.addresses(index, role), stream, carveout_percent=carveout)

        return submit

    def _call(self, candidate: Candidate) -> Half:
        library, call = self.vendor, candidate.call
        assert library is not None
        assert call is not None

        def submit(index: int, stream: Handle) -> None:
            library.submit(call, self.problems[0], self.first_arrays(index), stream)

        return submit

    def first_arrays(self, index: int) -> dict[str, int]:
        """Return the addresses of the first problem's arrays by their own names."""
        held = self.inputs.addresses(index)
        return {array.name: held[f"first_{array.name}"] for array in self.problems[0].arrays}

    def _fused(self, candidate: Candidate) -> Callable[[int], None]:
        (kernel,) = candidate.kernels
        work = self._place(kernel, self.problems, candidate.blocks_per_sm)
        carveout = candidate.carveout_percent
        self.executor.load(kernel, carveout_percent=carveout)

        def submit(index: int) -> None:
            self.executor.submit(work, self.inputs.addresses(index), self.main, carveout_percent=carveout)

        return submit

    def _graph(self, candidate: Candidate, first: Half, second: Half) -> Callable[[int], None]:
        order = self._order(candidate)

        def capture(index: int) -> Handle:
            return self.runtime.capture(lambda stream: self._fork(index, stream, self.streams, (first, second), order))

        graphs = [capture(index) for index in range(self.inputs.count)]
        return lambda index: self.runtime.replay(graphs[index % len(graphs)], self.main)

    def _place(self, kernel: Kernel, problems: tuple[Problem, ...], blocks_per_sm: int) -> Launch:
        facts = self.runtime.facts
        return launch(kernel, problems, sms=facts.sms, sm_ids=facts.sm_ids, blocks_per_sm=blocks_per_sm)

    # ---- timing ----

    def time_us(self, way: Way, index: int, repeats: int) -> float:
        """Return the mean time of some runs, one after the other on inputs from a set on."""
        self.runtime.delay(_SUBMIT_US * way.launches * repeats + _AHEAD_US, self.main)
        start = self.runtime.record(self.main)
        for repeat in range(repeats):
            way.submit(index + repeat)
        return self.runtime.elapsed_ms(start, self.runtime.record(self.main)) * 1e3 / repeats

    def sample(self, ways: Sequence[Way], samples: int, repeats: int) -> list[list[float]]:
        """Return so many timings of each way in microseconds, taken in turn, forwards and backwards.

        Raises:
            ToolError: a kernel failed.
        """
        taken: list[list[float]] = [[] for _ in ways]
        order = range(len(ways))
        for sample in range(samples):
            # Entered anew for each round: an eater has a limit of time, and there may be hundreds of ways.
            with self.beside:
                for one in order if sample % 2 == 0 else reversed(order):
                    taken[one].append(self.time_us(ways[one], sample * repeats, repeats))
        self.executor.check()
        return taken

    # ---- results ----

    def has_bits_of_the_bodies_alone(self, candidate: Candidate) -> bool:
        """Tell whether a candidate computes what its bodies alone do, bit by bit.

        The first, middle and last 4 MiB of each output are compared; both are poisoned before they are computed.
        """
        alone = (Candidate("first", (candidate.bodies[0], None)), Candidate("second", (None, candidate.bodies[1])))
        expected = self._outputs([self._way(one) for one in alone])
        found = self._outputs([self._way(candidate)])
        return all(np.array_equal(one, other) for one, other in zip(expected, found, strict=True))

    def _outputs(self, ways: Sequence[Way]) -> list[np.ndarray[Any, Any]]:
        held = self.inputs.addresses(0)
        outputs = [
            (held[f"{role}_{array.name}"], array.bytes)
            for role, problem in zip(("first", "second"), self.problems, strict=True)
            for array in problem.arrays
            if array.output
        ]
        for address, size in outputs:
            self.runtime.fill(address, size, 0xFF, self.main)
        for way in ways:
            way.submit(0)
        self.executor.check()
        windows = []
        for address, size in outputs:
            length = min(size, _COMPARED_BYTES)
            starts = sorted({0, (size - length) // 2, size - length})
            windows += [self.runtime.download(address + start, length) for start in starts]
        return windows

    def close(self) -> None:
        """Give the memory back."""
        if self.vendor is not None:
            self.vendor.forget()
        self.inputs.free()


def _nothing(index: int, stream: Handle) -> None:
    """Stand in the place of a half that a candidate does not have."""
