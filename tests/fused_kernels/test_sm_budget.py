"""Budgets of SMs and the bandwidth eater, without a GPU: what is asked of a runtime, what is made of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nitro.errors import ToolError, UsageError
from nitro.fused_kernels import nvrtc, sm_budget
from nitro.fused_kernels.nvrtc import Resources
from nitro.fused_kernels.runtime import Argument, LoadedKernel
from nitro.fused_kernels.runtime_cuda_core import CudaCoreRuntime
from nitro.fused_kernels.runtime_emulation import EmulatedRuntime
from nitro.fused_kernels.sm_budget import Eater
from nitro.fused_kernels.sm_budget import sm_budget as budget_of
from nitro.fused_kernels.strategies import Kernel


@dataclass
class Device(EmulatedRuntime):
    """Plays the eater: notes its launches, and writes the control words that a GPU would."""

    launches: list[tuple[str, int, tuple[Argument, ...]]] = field(default_factory=list)
    started: int | None = None
    passes: int = 1000
    expired: bool = False
    milliseconds: float = 2.0

    def load(self, kernel: Kernel, *, carveout_percent: int | None = None) -> LoadedKernel:  # noqa: ARG002
        return LoadedKernel(kernel, Resources(), 3, None)

    def launch(
        self,
        loaded: LoadedKernel,
        grid: int,
        arguments: Sequence[Argument],
        stream: Any = None,  # noqa: ARG002
    ) -> None:
        self.launches.append((loaded.kernel.name, grid, tuple(arguments)))
        words = np.zeros(6, np.uint32)
        words[1] = grid if self.started is None else self.started
        words[2] = self.expired
        words[4:6] = np.array([self.passes], np.uint64).view(np.uint32)
        control = arguments[2]
        assert isinstance(control, int)
        self.upload(control, words)

    def elapsed_ms(self, start: object, end: object) -> float:  # noqa: ARG002
        return self.milliseconds


def eater(strength: float = 1.0, **settings: Any) -> Eater:
    facts, memory = EmulatedRuntime().facts, EmulatedRuntime()._memory
    part, rest = (Device(replace(facts, sms=sms), memory, **settings) for sms in (8, 100))
    return Eater(part, rest, strength)


def test_an_eater_fills_the_other_sms_as_far_as_its_strength_says() -> None:
    assert eater().blocks == 3 * 100
    assert eater(0.5).blocks == 150
    assert eater(0.0001).blocks == 1


@pytest.mark.parametrize("strength", [0.0, -1.0, 1.5])
def test_a_strength_outside_of_0_to_1_is_refused(strength: float) -> None:
    with pytest.raises(UsageError, match=r"an eater's strength is .*; give more than 0 and at most 1"):
        eater(strength)


def test_an_eater_runs_on_the_rest_and_says_how_much_it_read() -> None:
    one = eater(passes=1000, milliseconds=2.0)
    for _ in range(2):  # may be entered again
        with one:
            assert one.rest.download(one._control.address, 4).view(np.uint32)[0] == 0
        assert one.rest.download(one._control.address, 4).view(np.uint32)[0] != 0, "it was not told to stop"
        assert one.bytes_per_s == pytest.approx(1000 * 256 * 8 * 16 / 2e-3)
    assert isinstance(one.rest, Device)
    assert isinstance(one.budget, Device)
    assert [launch[:2] for launch in one.rest.launches] == [("nitro_eater", 300)] * 2
    assert one.budget.launches == []


def test_an_eater_that_does_not_start_is_stopped_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(sm_budget, "time", SimpleNamespace(monotonic=lambda: 3.0 * next(clock)))
    one = eater(started=7)
    with pytest.raises(ToolError, match="has started 7 of its 300 blocks only"), one:
        pytest.fail("it was entered")
    assert one.rest.download(one._control.address, 4).view(np.uint32)[0] != 0


def test_an_eater_that_ended_before_the_measurement_makes_it_worthless() -> None:
    sentence = r"ended after its 30 s, before the measurement did; take fewer samples\."
    with pytest.raises(ToolError, match=sentence), eater(expired=True):
        pass


def test_an_error_of_the_measurement_is_not_hidden_by_the_eater() -> None:
    with pytest.raises(ValueError, match="mine"), eater(expired=True):
        raise ValueError("mine")


def test_without_an_eater_a_budget_is_a_part_of_the_device() -> None:
    part, beside = budget_of(EmulatedRuntime(), 2)
    assert part.facts.sms == 2
    assert isinstance(beside, nullcontext)
    for sms in (0, -8, 3, 99):
        with pytest.raises(UsageError, match=f"a budget of {sms} SMs leaves no SM on one side of emulation"):
            budget_of(EmulatedRuntime(), sms)


def test_both_parts_share_the_memory() -> None:
    part, rest = EmulatedRuntime().divide(1)
    buffer = part.allocate(4)
    rest.upload(buffer.address, np.array([7], np.int32))
    assert part.download(buffer.address, 4).view(np.int32).tolist() == [7]
    assert (part.facts.sms, rest.facts.sms) == (1, 2)
    assert EmulatedRuntime().share(1).facts.sms == 1


@pytest.mark.parametrize("sm", [53, 62, 72, 87, 90])
def test_the_helpers_compile_without_spills(compiler: nvrtc.Nvrtc, sm: int) -> None:
    for kernel in (sm_budget._EATER_KERNEL, sm_budget._NOTE_KERNEL):
        resources = compiler.compile(kernel.source, kernel.name, sm, {}).resources
        assert resources.registers
        assert resources.spill_store_bytes == 0


# ---- green contexts, with a cuda.core that answers as we say ---------------------------------------------------------


class Group:
    def __init__(self, sm_count: int) -> None:
        self.sm_count = sm_count
        self.coscheduled_alignment = self.min_partition_size = 8


@dataclass
class Sms:
    """Grants multiples of 8, as a device of compute capability 9 does; or fails with a text."""

    fails: str | None = None
    coscheduled_alignment: int = 8
    min_partition_size: int = 8

    def split(self, options: SimpleNamespace) -> tuple[list[Group], Group]:
        if self.fails:
            raise RuntimeError(self.fails)
        got = -(-options.count // 8) * 8
        return [Group(got)], Group(132 - got)


def gpu(sms: Sms | None, *, green: bool = True) -> CudaCoreRuntime:
    runtime = object.__new__(CudaCoreRuntime)
    runtime.facts = replace(EmulatedRuntime().facts, name="GPU", sms=132, sm_ids=132)
    runtime._context = None
    options = {"SMResourceOptions": SimpleNamespace, "ContextOptions": SimpleNamespace} if green else {}
    launched: list[Any] = []
    runtime._core = SimpleNamespace(  # type: ignore[assignment]
        StreamOptions=SimpleNamespace,
        LaunchConfig=SimpleNamespace,
        launch=lambda stream, *_: launched.append(stream),
        launched=launched,
        **options,
    )
    runtime._delay = object()
    context = SimpleNamespace(create_stream=lambda options: SimpleNamespace(options=options, sync=lambda: None))
    runtime.device = SimpleNamespace(
        resources=SimpleNamespace(sm=sms) if sms else SimpleNamespace(), create_context=lambda _: context
    )
    runtime._call = lambda name, *_: (0, -5) if "Priority" in name else None  # type: ignore[method-assign]
    return runtime


def test_a_budget_and_the_rest_have_contexts_and_streams_of_their_own() -> None:
    whole = gpu(Sms())
    part, rest = whole.divide(16)
    assert (part.facts.sms, rest.facts.sms, whole.facts.sms) == (16, 116, 132)
    assert part.facts.sm_ids == 132
    assert part._first is not rest._first
    assert part._streams == [part._first]
    with pytest.raises(UsageError, match="a budget of SMs cannot be divided again"):
        part.divide(8)


def test_the_kernel_that_delays_is_loaded_on_both_sides_before_an_eater_can_hold_that_up() -> None:
    whole = gpu(Sms())
    part, rest = whole.divide(16)
    assert whole._core.launched == [part._first, rest._first]


@pytest.mark.parametrize(
    ("runtime", "sms", "sentence"),
    [
        (gpu(Sms()), 10, r"GPU grants 16 SMs and 116 others in the place of 10 and 122; ask for multiples of 8 from 8"),
        (gpu(Sms("invalid\nvalue")), 8, r"GPU does not grant a budget of 8 SMs \(invalid\); ask for multiples of 8"),
        (gpu(None), 8, r"GPU and its driver have no budgets of SMs \(.*\); they need CUDA 12.4 or newer"),
        (gpu(Sms(), green=False), 8, r"a budget of SMs needs cuda.core 1.0 or newer \(green contexts\); upgrade"),
    ],
)
def test_a_budget_that_is_not_granted_is_one_sentence(runtime: CudaCoreRuntime, sms: int, sentence: str) -> None:
    with pytest.raises(ToolError, match=sentence) as caught:
        runtime.divide(sms)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 5
