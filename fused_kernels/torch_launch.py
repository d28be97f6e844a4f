"""Launches on torch tensors: on torch's current stream, its memory read and written in place, kept by shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nitro.errors import UsageError

from .bodies import Body, choose
from .problems import Problem
from .runtime import Argument, Executor, Handle, LoadedKernel, Runtime, typed_arguments
from .strategies import (
    Alone,
    InterBlockStatic,
    InterBlockTicket,
    IntraBlock,
    IntraThread,
    Order,
    PairStrategy,
    Strategy,
    launch,
    pair_kernel,
    single_kernel,
    strategy_name,
)
from .torch_calls import MOST_KEPT, Call, torch

ROLES = ("first", "second")


# ---- strategies by name -------------------------------------------------------------------------------------------


def _strategies() -> Iterator[PairStrategy]:
    for blocks in (None, 1, 2, 3, 4):
        for threads in range(128, 1024, 128):
            yield from (IntraBlock(threads, drain, blocks) for drain in (False, True))
        yield from (InterBlockStatic(order, blocks) for order in Order)
        yield from (InterBlockTicket(drain, blocks) for drain in (False, True))
        yield IntraThread(blocks)


_BY_NAME = {strategy_name(strategy): strategy for strategy in _strategies()}


def strategy_of(name: str) -> PairStrategy:
    """Return the strategy of a pair by its name, as `strategy_name` gives it.

    Raises:
        UsageError: there is no such strategy.
    """
    if name not in _BY_NAME:
        raise UsageError(f"there is no strategy {name!r} for a pair; take a name that strategy_name gives.")
    return _BY_NAME[name]


def default_strategy(first: Body, second: Body) -> PairStrategy:
    """Return what suits most pairs: warps of one block for unlike bodies, blocks of one grid for two compute bodies."""
    groups = second.threads if second.block_granular else 128
    fits = first.threads + groups <= 1024 and first.threads % 128 == 0 and groups % 128 == 0
    return IntraBlock() if fits and first.block_granular and not second.block_granular else InterBlockStatic()


# ---- launching ----------------------------------------------------------------------------------------------------


class TorchExecutor(Executor):
    """An executor that can keep a launch for many addresses: all but the pointers is made ready once."""

    def counters_of(self, loaded: LoadedKernel, slot: int) -> int:
        """Return the address of the counters of a kernel, which `check` will look at."""
        return self._counter(loaded.kernel, slot).address


@dataclass(slots=True)
class Plan:
    """A launch but for its pointers.

    `pointers` are the places of the arguments that are pointers, by the name of the array (`first_x`).
    """

    loaded: LoadedKernel
    grid: int
    arguments: list[Argument]
    pointers: tuple[tuple[int, str], ...]
    counters_at: int | None
    problems: tuple[Problem, ...]


@dataclass(slots=True)
class Launcher:
    """Launches operations on tensors of one device, on the stream that is current there.

    Args:
        runtime: the device.
        stream: gives the stream to launch on; None is the runtime's own.
    """

    runtime: Runtime
    stream: Callable[[], Handle] = field(default=lambda: None)
    executor: TorchExecutor = field(init=False)
    _plans: dict[Any, Plan | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.executor = TorchExecutor(self.runtime)

    def plan(self, problems: tuple[Problem, ...], bodies: tuple[Body, ...], strategy: Strategy) -> Plan | None:
        """Return a launch, compiled and loaded; None if there is nothing to do. The second time it is there already.

        Raises:
            UsageError: the strategy cannot run the bodies, or they do not fit the problems or the device.
        """
        key = (problems, bodies, strategy)
        if key not in self._plans:
            if len(self._plans) >= MOST_KEPT:
                self._plans.clear()
            self._plans[key] = self._make_plan(*key)
        return self._plans[key]

    def _make_plan(self, problems: tuple[Problem, ...], bodies: tuple[Body, ...], strategy: Strategy) -> Plan | None:
        if isinstance(strategy, PairStrategy):
            kernel = pair_kernel(bodies[0], bodies[1], strategy)
        else:
            kernel = single_kernel(bodies[0], strategy)
        loaded = self.executor.load(kernel)
        facts = self.runtime.facts
        work = launch(kernel, problems, sms=facts.sms, sm_ids=facts.sm_ids, blocks_per_sm=max(1, loaded.blocks_per_sm))
        if work.empty:
            return None
        names = {str(value) for value in work.arguments if isinstance(value, str)}
        arguments = list(typed_arguments(work, dict.fromkeys(names, 0)))
        pointers = {value: at for at, value in enumerate(work.arguments) if isinstance(value, str)}
        counters_at = pointers.pop("counters", None)
        plan = Plan(
            loaded, work.grid, arguments, tuple((at, name) for name, at in pointers.items()), counters_at, problems
        )
        if counters_at is not None:
            for slot in (0, CAPTURE_SLOT):
                self.executor.counters_of(loaded, slot)
        return plan

    def submit(self, plan: Plan | None, addresses: Mapping[str, int], *, slot: int = 0) -> None:
        """Launch on the current stream. Launches that may run at the same time need slots of their own."""
        if plan is None:
            return
        arguments = plan.arguments.copy()
        for at, name in plan.pointers:
            arguments[at] = addresses[name]
        if plan.counters_at is not None:
            arguments[plan.counters_at] = self.executor.counters_of(plan.loaded, slot)
        self.runtime.launch(plan.loaded, plan.grid, arguments, self.stream())

    def run(
        self,
        calls: Sequence[Call],
        strategy: Strategy | None = None,
        *,
        bodies: tuple[Body, ...] | None = None,
        slot: int = 0,
    ) -> tuple[Any, ...]:
        """Run one operation, or two in one launch, and return the outputs.

        Args:
            calls: one or two operations.
            strategy: how; default: alone, or what suits most pairs.
            bodies: with which bodies; default: good ones for the device and the alignment of the tensors.
            slot: launches with counters that may run at the same time need slots of their own.
        """
        outputs = tuple(torch.empty(call.shape, dtype=call.like.dtype, device=call.like.device) for call in calls)
        places = [
            {name: tensor.data_ptr() for name, tensor in (*call.tensors.items(), ("y", y))}
            for call, y in zip(calls, outputs, strict=True)
        ]
        if bodies is None:
            bodies = tuple(
                choose(call.problem, self.runtime.facts.sm, aligned=_unaligned(held) is None)
                for call, held in zip(calls, places, strict=True)
            )
        if strategy is None:
            strategy = Alone() if len(calls) == 1 else default_strategy(*bodies)
        plan = self.plan(tuple(call.problem for call in calls), bodies, strategy)
        addresses: dict[str, int] = {}
        for role, body, held in zip(ROLES, bodies, places, strict=False):
            name = _unaligned(held) if body.width > 1 else None
            if name is not None:
                raise UsageError(
                    f"{name}: the address {held[name]:#x} is no multiple of 16, and {body.name} moves 16 bytes at "
                    "once; leave the bodies out, or copy the tensor."
                )
            addresses |= {f"{role}_{one}": at for one, at in held.items()}
        self.submit(plan, addresses, slot=slot)
        return outputs


# Launches that are captured share counters of their own, so that a graph can run beside ordinary launches.
CAPTURE_SLOT = -1


def _unaligned(places: Mapping[str, int]) -> str | None:
    return next((name for name, at in places.items() if at % 16), None)


@dataclass(slots=True)
class _CurrentStream:
    """Torch's current stream, in the words of the runtime, wrapped once a stream."""

    device: Any
    runtime: Any
    _handles: dict[int, Handle] = field(default_factory=dict)

    def __call__(self) -> Handle:
        current = torch.cuda.current_stream(self.device)
        address = int(current.cuda_stream)
        if address not in self._handles:
            self._handles[address] = self.runtime.device.create_stream(_Foreign(address))
        return self._handles[address]


@dataclass(frozen=True, slots=True)
class _Foreign:
    address: int

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address


_launchers: dict[int, Launcher] = {}


def launcher_for(device: Any) -> Launcher:
    """Return the launcher of a torch device with a GPU; it is made once.

    Raises:
        ToolError: cuda.core, NVRTC or the driver is missing.
        UsageError: the device has no GPU.
    """
    device = torch.device(device)
    if device.type != "cuda":
        raise UsageError(f"fused kernels run on an NVIDIA GPU, the tensors are on {device}; move them to cuda.")
    index = torch.cuda.current_device() if device.index is None else int(device.index)
    if index not in _launchers:
        from .runtime_cuda_core import CudaCoreRuntime

        torch.cuda.init()
        # Torch makes the primary context current on first use, and the runtime shares it.
        torch.empty(1, device=f"cuda:{index}")
        runtime = CudaCoreRuntime(index)
        _launchers[index] = Launcher(runtime, _CurrentStream(torch.device("cuda", index), runtime))
    return _launchers[index]


def check(device: Any = "cuda") -> None:
    """Wait for a GPU and raise ToolError if it reports an error, or a kernel found its counters disturbed."""
    launcher_for(device).executor.check()
