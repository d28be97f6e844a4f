"""The ways to run one body or two in one launch, as the source text that instantiates them.

A `Kernel` is everything that compiling and launching needs to know: source, threads, shared memory, and the parameters
in their order. The device side is `csrc/strategies.cuh`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from nitro.errors import UsageError

from .bodies import Body, check_architecture
from .body_parts import Field
from .problems import Problem

CSRC = Path(__file__).parent / "csrc"
# The words of `Counters` before the tickets by SM.
COUNTER_WORDS = 4
FAULT_WORD = 3
_SLOT_BYTES = 8


class Order(IntEnum):
    """How an inter-block kernel deals roles to its blocks; `Order` of `csrc/strategies.cuh`."""

    SPREAD = 0
    PROPORTIONAL = 1
    FIRST_THEN_SECOND = 2
    SECOND_THEN_FIRST = 3


@dataclass(frozen=True, slots=True)
class Alone:
    """One body, a block for every unit (a warp for every unit of a memory body)."""

    threads: int | None = None
    min_blocks: int | None = None


@dataclass(frozen=True, slots=True)
class Persistent:
    """One body on a capped grid, whose blocks take units from a counter: one half of elastic streams."""

    threads: int | None = None
    min_blocks: int | None = None


@dataclass(frozen=True, slots=True)
class IntraBlock:
    """Both bodies in every block: the first warps run one, `second_threads` more run the other.

    With `drain` the grid is capped and both take units from counters; without, a block has one tile of the first body
    and its share of the second. With `registers` the threads of the two have so many each, which takes sm_90 or newer;
    without, all have the same number.
    """

    second_threads: int = 128
    drain: bool = False
    min_blocks: int | None = None
    registers: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class InterBlockStatic:
    """Every block runs one body or the other, in an order fixed before the launch."""

    order: Order = Order.SPREAD
    min_blocks: int | None = None


@dataclass(frozen=True, slots=True)
class InterBlockTicket:
    """Every block runs one body or the other, as its turn on its SM says. With `drain` the grid is capped."""

    drain: bool = False
    min_blocks: int | None = None


@dataclass(frozen=True, slots=True)
class IntraThread:
    """Every thread works on a tile of the first body and, between its slabs, on units of the second."""

    min_blocks: int | None = None


# `min_blocks` of a strategy is the second argument of __launch_bounds__: how many blocks must fit on an SM. None takes
# what the bodies were made for.
SingleStrategy = Alone | Persistent
PairStrategy = IntraBlock | InterBlockStatic | InterBlockTicket | IntraThread
Strategy = SingleStrategy | PairStrategy


def strategy_name(strategy: Strategy) -> str:
    """Return a short name that tells strategies apart, fit for an identifier."""
    blocks = f"_m{strategy.min_blocks}" if strategy.min_blocks is not None else ""
    match strategy:
        case Alone():
            return f"alone{f'_t{strategy.threads}' if strategy.threads else ''}{blocks}"
        case Persistent():
            return f"persistent{f'_t{strategy.threads}' if strategy.threads else ''}{blocks}"
        case IntraBlock():
            moved = f"_{strategy.registers[0]}x{strategy.registers[1]}" if strategy.registers else ""
            return f"intra_block_{strategy.second_threads}{'_drain' if strategy.drain else ''}{blocks}{moved}"
        case InterBlockStatic():
            return f"inter_block_static_{strategy.order.name.lower()}{blocks}"
        case InterBlockTicket():
            return f"inter_block_ticket{'_drain' if strategy.drain else ''}{blocks}"
        case IntraThread():
            return f"intra_thread{blocks}"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a kernel: a field of the first or second body, or of the launch (body is None)."""

    field: Field
    body: int | None

    @property
    def name(self) -> str:
        """Return the name in the kernel's signature."""
        return self.field.name if self.body is None else f"{'first' if self.body == 0 else 'second'}_{self.field.name}"


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel to compile: its source and what a launch must know."""

    name: str
    source: str
    bodies: tuple[Body, ...]
    strategy: Strategy
    group_threads: tuple[int, ...]
    threads: int
    shared_bytes: int
    parameters: tuple[Parameter, ...]

    @property
    def minimum_sm(self) -> int:
        """Return the oldest architecture that the kernel is meant for."""
        return max(90 if self.moves_registers else 0, *(body.minimum_sm for body in self.bodies))

    @property
    def moves_registers(self) -> bool:
        """Return whether its warps divide the registers of a block unevenly."""
        return isinstance(self.strategy, IntraBlock) and self.strategy.registers is not None

    @property
    def needs_exact_architecture(self) -> bool:
        """Return whether it must be compiled for one architecture alone, as sm_90a."""
        return self.moves_registers or any(body.exact_sm for body in self.bodies)

    @property
    def takes_counters(self) -> bool:
        """Return whether a launch needs a counter buffer."""
        return any(parameter.name == "counters" for parameter in self.parameters)

    @property
    def capped_grid(self) -> bool:
        """Return whether the grid is free to choose, because blocks come back for more."""
        return isinstance(self.strategy, Persistent) or (
            isinstance(self.strategy, IntraBlock | InterBlockTicket) and self.strategy.drain
        )


_COUNTERS = Parameter(Field("counters", "pointer", "int32"), None)
_TURNS = Parameter(Field("turns", "int"), None)
_SMS = Parameter(Field("sms", "int"), None)
_ORDER = Parameter(Field("order", "int"), None)


def _body_parameters(index: int, body: Body) -> tuple[Parameter, ...]:
    kinds = (*body.fields, Field("start", "int"), Field("units", "int"))
    return tuple(Parameter(field, index) for field in kinds)


def _launch_bound(bodies: tuple[Body, ...], strategy: Strategy) -> int:
    """Return how many blocks must fit on an SM, which bounds the registers.

    Where a block runs one body at a time it is what the compute body was made for, less one where a loop around it
    needs registers of its own. Two bodies in a block or a thread need what they need.
    """
    if strategy.min_blocks is not None:
        return strategy.min_blocks
    made_for = min((body.blocks_per_sm for body in bodies if body.block_granular), default=1)
    match strategy:
        case Alone() | InterBlockStatic() | InterBlockTicket(drain=False):
            return made_for
        case Persistent():
            return made_for if bodies[0].threads <= 256 else max(1, made_for - 1)
        case InterBlockTicket():
            return max(1, made_for - 1)
        case _:
            return 1


def _round_up(size: int, to: int) -> int:
    return -(-size // to) * to


def single_kernel(body: Body, strategy: SingleStrategy) -> Kernel:
    """Return the kernel that runs one body.

    Raises:
        UsageError: the strategy's threads are not what the body needs.
    """
    threads = strategy.threads or body.threads
    if body.block_granular and threads != body.threads:
        raise UsageError(f"{body.name} is built for {body.threads} threads, not {threads}; leave the threads out.")
    if threads % 32 or not 32 <= threads <= 1024:
        raise UsageError(f"{body.name}: {threads} threads are no whole number of warps up to 1024; give one.")
    shared = _round_up(body.shared_bytes_of(threads), 16)
    parameters = _body_parameters(0, body)
    if isinstance(strategy, Alone):
        call = f"run_alone<Body0, {threads}>(first, range0)"
    else:
        parameters += (_COUNTERS,)
        call = f"run_persistent<Body0, {threads}, {shared}>(first, range0, counters)"
        shared += _SLOT_BYTES if body.block_granular else 0
    return _kernel((body,), strategy, (threads,), threads, shared, parameters, call)


def pair_kernel(first: Body, second: Body, strategy: PairStrategy) -> Kernel:
    """Return the kernel that runs two bodies in one launch.

    Raises:
        UsageError: the strategy cannot run these bodies.
    """
    parameters = _body_parameters(0, first) + _body_parameters(1, second)
    groups: tuple[int, int]
    match strategy:
        case IntraBlock():
            groups = (first.threads, second.threads if second.block_granular else strategy.second_threads)
            for body, size, of in zip((first, second), groups, (128, 64), strict=True):
                if size % of or size <= 0:
                    raise UsageError(f"{body.name}: {size} threads of a block are no multiple of {of}; give one.")
            threads = sum(groups)
            if strategy.registers:
                _check_registers(strategy, groups)
            rounded = _round_up(first.shared_bytes_of(groups[0]), second.shared_alignment)
            shared = _round_up(rounded + second.shared_bytes_of(groups[1]), 16)
            moved = f", {strategy.registers[0]}, {strategy.registers[1]}" if strategy.registers else ""
            call = (
                f"run_intra_block<Body0, Body1, {groups[0]}, {groups[1]}, {rounded}, "
                f"{_flag(strategy.drain)}, {shared}{moved}>(first, range0, second, range1, "
                f"{'counters' if strategy.drain else '0'})"
            )
            if strategy.drain:
                parameters += (_COUNTERS,)
                shared += 2 * _SLOT_BYTES
        case InterBlockStatic():
            groups = _whole_blocks(first, second)
            threads = max(groups)
            shared = _larger_shared(first, second, groups)
            parameters += (_SMS, _ORDER)
            call = (
                f"run_inter_block_static<Body0, Body1, {groups[0]}, {groups[1]}>"
                "(first, range0, second, range1, sms, order)"
            )
        case InterBlockTicket():
            groups = _whole_blocks(first, second)
            threads = max(groups)
            shared = _round_up(_larger_shared(first, second, groups), 16)
            parameters += (_COUNTERS, _TURNS)
            call = (
                f"run_inter_block_ticket<Body0, Body1, {groups[0]}, {groups[1]}, "
                f"{'true' if strategy.drain else 'false'}, {shared}>(first, range0, second, range1, counters, turns)"
            )
            shared += _SLOT_BYTES
        case IntraThread():
            if not first.block_granular or second.block_granular:
                raise UsageError(
                    f"intra-thread fusion runs a memory body between the slabs of a compute body, not {second.name} "
                    f"in {first.name}; use another strategy."
                )
            if second.shared_bytes_of(32):
                raise UsageError(
                    f"intra-thread fusion has no shared memory for {second.name}; use a body that needs none."
                )
            groups = (first.threads, first.threads)
            threads = first.threads
            shared = first.shared_bytes_of(threads)
            call = f"run_intra_thread<Body0, Body1, {threads}>(first, range0, second, range1)"
    most = min(first.most_block_threads, second.most_block_threads)
    if threads > most:
        raise UsageError(
            f"{first.name} with {second.name} needs {threads} threads a block, the limit is {most}; use fewer."
        )
    return _kernel((first, second), strategy, groups, threads, shared, parameters, call)


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _check_registers(strategy: IntraBlock, groups: tuple[int, int]) -> None:
    """Raise UsageError if two groups of a block cannot divide its registers in this way."""
    name, counts = strategy_name(strategy), strategy.registers or (0, 0)
    if groups[1] % 128 or any(count % 8 or not 24 <= count <= 240 for count in counts):
        raise UsageError(
            f"{name}: registers move only between groups of 128 threads, 24 to 240 of them by eights; leave "
            "`registers` out."
        )
    started = registers_at_start(sum(groups))
    if (
        counts[0] < started
        or counts[1] > started
        or groups[0] * counts[0] + groups[1] * counts[1] > started * sum(groups)
    ):
        raise UsageError(
            f"{name}: a block of {sum(groups)} threads starts with {started} registers a thread, and can only divide "
            "these, the first group growing and the second shrinking; ask for fewer."
        )


def registers_at_start(threads: int) -> int:
    """Return the registers of each thread of a block that has an SM for itself; schedulers have a quarter each."""
    warps_of_a_scheduler = -(-threads // 128)
    return min(255, 65536 // 128 // warps_of_a_scheduler) // 8 * 8


def _whole_blocks(first: Body, second: Body) -> tuple[int, int]:
    """Return the threads of each body where a block runs one of them: a memory body fills the block of its partner."""
    one = first.threads if first.block_granular or not second.block_granular else second.threads
    two = second.threads if second.block_granular or not first.block_granular else first.threads
    return one, two


def _larger_shared(first: Body, second: Body, groups: tuple[int, int]) -> int:
    """Return the shared memory of a block that runs one of two bodies."""
    return max(body.shared_bytes_of(threads) for body, threads in zip((first, second), groups, strict=True))


def _kernel(
    bodies: tuple[Body, ...],
    strategy: Strategy,
    groups: tuple[int, ...],
    threads: int,
    shared: int,
    parameters: tuple[Parameter, ...],
    call: str,
) -> Kernel:
    name = "_and_".join(body.name for body in bodies) + "_" + strategy_name(strategy)
    headers = sorted({"strategies.cuh", *(body.header for body in bodies)})
    lines = [f'#include "{header}"' for header in headers]
    lines.append("namespace nitro {")
    lines += [f"typedef {body.cpp} Body{index};" for index, body in enumerate(bodies)]
    lines.append("}")
    signature = ", ".join(
        f"{'nitro::Counters*' if parameter.name == 'counters' else parameter.field.cpp} {parameter.name}"
        for parameter in parameters
    )
    bounds = f"__launch_bounds__({threads}, {_launch_bound(bodies, strategy)})"
    lines.append(f'extern "C" __global__ void {bounds} {name}({signature}) {{')
    lines.append("  using namespace nitro;")
    for index, body in enumerate(bodies):
        role = ("first", "second")[index]
        values = ", ".join(f"{role}_{field.name}" for field in body.fields)
        lines.append(f"  const Body{index}::Params {role} = {{{values}}};")
        lines.append(f"  const Range range{index} = {{{role}_start, {role}_units}};")
    lines += [f"  {call};", "}"]
    return Kernel(name, "\n".join(lines) + "\n", bodies, strategy, groups, threads, shared, parameters)


def headers() -> dict[str, str]:
    """Return the text of every device header by its name, for compilers that are given no include path."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(CSRC.glob("*.cuh"))}


def source_digest(kernel: Kernel) -> str:
    """Return a digest of everything that a kernel is compiled from."""
    digest = hashlib.sha256(kernel.source.encode())
    for name, text in headers().items():
        digest.update(f"\0{name}\0{text}".encode())
    return digest.hexdigest()


def check_kernel(kernel: Kernel, sm: int) -> None:
    """Raise UsageError if a body of the kernel cannot run on an architecture, given as 53 for sm_53."""
    for body in kernel.bodies:
        check_architecture(body, sm)
    if kernel.moves_registers and sm < 90:
        raise UsageError(
            f"{kernel.name} moves registers, which needs sm_90 or newer, this is sm_{sm}; use another one."
        )


# ---- launches ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Slice:
    """The units [start, start + units) of a problem; None means all that are left."""

    start: int = 0
    units: int | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """A launch, ready but for the addresses: None stands for a null pointer, a name for an array or the counters."""

    kernel: Kernel
    grid: int
    arguments: tuple[int | float | str | None, ...]

    @property
    def empty(self) -> bool:
        """Return whether there is nothing to do, in which case a launch would be an error of CUDA."""
        return self.grid == 0


def _virtual_blocks(body: Body, units: int, threads: int) -> int:
    return units if body.block_granular else -(-units // (threads // 32))


def launch(
    kernel: Kernel,
    problems: tuple[Problem, ...],
    *,
    sms: int,
    sm_ids: int | None = None,
    blocks_per_sm: int = 1,
    slices: tuple[Slice, ...] | None = None,
) -> Launch:
    """Return the grid and arguments that solve problems with a kernel.

    Args:
        kernel: what to launch.
        problems: one for each body.
        sms: how many SMs the stream may use; spreads roles, and sizes capped grids.
        sm_ids: how many different `%smid` there can be (`%nsmid`); default: as many as SMs.
        blocks_per_sm: for capped grids.
        slices: the part of each problem to do; default: all of it.

    Raises:
        UsageError: a body does not fit its problem, or a slice is outside of it.
    """
    if sms < 1 or blocks_per_sm < 1:
        raise UsageError(f"{kernel.name}: {sms} SMs with {blocks_per_sm} blocks each run nothing; give at least 1.")
    values: dict[str, int | float | str | None] = {
        "sms": sms,
        "turns": sm_ids or sms,
        "counters": "counters",
        "order": int(kernel.strategy.order) if isinstance(kernel.strategy, InterBlockStatic) else 0,
    }
    units: list[int] = []
    for index, (body, problem) in enumerate(zip(kernel.bodies, problems, strict=True)):
        part = slices[index] if slices else Slice()
        total = body.units(problem)
        count = total - part.start if part.units is None else part.units
        if part.start < 0 or count < 0 or part.start + count > total:
            raise UsageError(
                f"{body.name}: the problem has {total} units, and the slice wants {count} from {part.start}; "
                "stay inside."
            )
        units.append(count)
        role = ("first", "second")[index]
        arrays: Mapping[str, str] = {array.name: f"{role}_{array.name}" for array in problem.arrays}
        for field in body.fields:
            pointer = field.kind.endswith("pointer")
            values[f"{role}_{field.name}"] = arrays.get(field.name) if pointer else problem.scalars[field.name]
        values[f"{role}_start"] = part.start
        values[f"{role}_units"] = count
    blocks = [
        _virtual_blocks(body, count, threads)
        for body, count, threads in zip(kernel.bodies, units, kernel.group_threads, strict=True)
    ]
    arguments = tuple(values[parameter.name] for parameter in kernel.parameters)
    return Launch(kernel, _grid(kernel, blocks, sms * blocks_per_sm), arguments)


def _grid(kernel: Kernel, blocks: list[int], capped: int) -> int:
    wanted = sum(blocks)
    if wanted == 0:
        return 0
    if kernel.capped_grid:
        return min(capped, wanted)
    if kernel.bodies[0].chained and blocks[0] and isinstance(kernel.strategy, Alone | IntraBlock):
        # A block an SM, which begins its next tile while it writes the last.
        return min(capped, blocks[0])
    if isinstance(kernel.strategy, IntraBlock | IntraThread):
        # One tile of the first body a block. Where that is no work, the second still gets a full device.
        return blocks[0] or min(blocks[1], capped * 8)
    return wanted


def counter_words(sm_ids: int) -> int:
    """Return the 32-bit words of a counter buffer that serves every kernel on a device with so many `%smid`."""
    return COUNTER_WORDS + sm_ids
