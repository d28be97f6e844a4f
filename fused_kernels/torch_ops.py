"""The bodies and the fused pairs as torch operators, in the namespace `nitro`.

Importing this registers them. Of every operation there is one operator (`torch.ops.nitro.layer_norm`), and one of every
pair with a compute-bound first half (`torch.ops.nitro.convolution_and_layer_norm`), whose arguments are those of the
first, those of the second, and the strategy by its name; "" takes the default. All of them are for inference.

On a GPU they launch on torch's current stream and read and write torch's memory in place. They may be captured in a
CUDA graph once they have run outside of one, because kernels are compiled and counters are allocated then. A graph that
holds a strategy with counters must not run twice at the same time. On a CPU they compute the same in plain torch, and
on meta tensors they know the shapes.

Images are NHWC and filters KRSC, contiguous: `x.permute(0, 2, 3, 1)` of a channels-last tensor is that without a copy.
The operations are in `torch_calls`, launches in `torch_launch`; `check` waits for a GPU and raises if a kernel failed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from nitro.errors import UsageError

from .torch_calls import OPERATIONS, PAIRS, Call, Operation, call_of, checked_problem, library, like_of, torch
from .torch_launch import CAPTURE_SLOT, ROLES, check, launcher_for, strategy_of

__all__ = ["OPERATIONS", "PAIRS", "check"]


def _split(operations: Sequence[Operation], values: tuple[Any, ...]) -> Iterator[tuple[Operation, dict[str, Any]]]:
    at = 0
    for operation in operations:
        count = len(operation.arguments)
        yield operation, dict(zip(operation.arguments, values[at : at + count], strict=True))
        at += count


def _named(operations: Sequence[Operation], values: tuple[Any, ...]) -> list[Call]:
    calls = [call_of(operation.name, arguments) for operation, arguments in _split(operations, values)]
    _need_one_device([call.like.device for call in calls])
    return calls


def _need_one_device(devices: Sequence[Any]) -> None:
    if any(device != devices[0] for device in devices):
        raise UsageError(f"the halves of a pair are on {' and '.join(map(str, devices))}; move them to one device.")


def _plain(operations: Sequence[Operation], *values: Any) -> Any:
    if len(operations) > 1 and values[-1]:
        strategy_of(values[-1])
    outputs = tuple(call.operation.compute(**call.arguments) for call in _named(operations, values))
    return outputs if len(outputs) > 1 else outputs[0]


def _shapes(operations: Sequence[Operation], *values: Any) -> Any:
    # Sizes can be symbols here, which cannot be looked up as calls are.
    outputs = []
    for operation, arguments in _split(operations, values):
        like = like_of({name: arguments[name] for name in operation.tensors})
        outputs.append(like.new_empty(checked_problem(operation, arguments)[1]))
    _need_one_device([one.device for one in outputs])
    return tuple(outputs) if len(outputs) > 1 else outputs[0]


def _on_gpu(operations: Sequence[Operation], *values: Any) -> Any:
    calls = _named(operations, values)
    device = calls[0].like.device
    strategy = strategy_of(values[-1]) if len(operations) > 1 and values[-1] else None
    slot = CAPTURE_SLOT if torch.cuda.is_current_stream_capturing() else _slot(device)
    with torch.cuda.device(device):
        outputs = launcher_for(device).run(calls, strategy, slot=slot)
    return outputs if len(outputs) > 1 else outputs[0]


def _slot(device: Any) -> int:
    # Launches of one stream follow each other; the default stream has address 0.
    return int(torch.cuda.current_stream(device).cuda_stream)


def _register(namespace: Any, name: str, operations: Sequence[Operation]) -> None:
    if len(operations) == 1:
        schema, result = operations[0].schema(), "Tensor"
    else:
        halves = (one.schema(f"{role}_") for role, one in zip(ROLES, operations, strict=True))
        schema, result = f"{', '.join(halves)}, str strategy", "(Tensor, Tensor)"
    namespace.define(f"{name}({schema}) -> {result}")
    namespace.impl(name, partial(_plain, operations), "CPU")
    namespace.impl(name, partial(_on_gpu, operations), "CUDA")
    library.register_fake(f"nitro::{name}", partial(_shapes, operations), lib=namespace)


def _register_all() -> Any:
    namespace = library.Library("nitro", "DEF")
    for name, operation in OPERATIONS.items():
        _register(namespace, name, [operation])
    for first, second in PAIRS:
        _register(namespace, f"{first}_and_{second}", [OPERATIONS[first], OPERATIONS[second]])
    return namespace


# Operators live as long as this.
_NAMESPACE = _register_all()
