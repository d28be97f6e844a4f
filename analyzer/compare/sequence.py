"""The typical sequence of kernels of an iteration.

A slot is one launch place of an iteration: the k-th execution in an iteration of a kernel with the same name, NVTX
path, grid and block. Over all iterations of all runs of a side, a slot sums executions and time, so nothing is lost:
slots together hold the kernel time of the window to the nanosecond. Slots are ordered by their mean position; positions
count launches, which come in program order also where streams run at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from ..distinct import distinct
from ..intervals import Index, Int64
from ..kernel_names import NAME_LOST, known_names
from ..nvtx import PATH_SEPARATOR, without_counter
from ..operations import NO_ROW, Kind, Operations
from ..tables import enum_texts
from ..view import DeviceView, View

_GEOMETRY = ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z")
Dim3 = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class KernelKey:
    """What makes two executions the same kernel. `path` is the NVTX path inside the iteration, "" at its top."""

    name: str
    path: str
    grid: Dim3
    block: Dim3

    @property
    def family(self) -> str:
        """The name without template arguments, parameters and return type."""
        return family_of_kernel(self.name)


@dataclass(frozen=True, slots=True)
class Sequence:
    """Slots in their typical order, as parallel arrays of shape (slots,).

    `key` is an index into `keys`; `executions` and `total_ns` are sums over all iterations; `position` is the mean
    position in an iteration.
    """

    keys: tuple[KernelKey, ...]
    key: Index
    occurrence: Int64
    executions: Int64
    total_ns: Int64
    position: npt.NDArray[np.float64]
    iterations: int

    def __len__(self) -> int:
        return len(self.key)


def family_of_kernel(name: str) -> str:
    """Return a kernel's name without template arguments, parameters, return type and namespaces.

    >>> family_of_kernel("void at::native::reduce_kernel<(int)512, at::Op<float>>(T3)")
    'reduce_kernel'
    """
    kept: list[str] = []
    depth = 0
    for letter in name.replace("(anonymous namespace)", "").replace("<unnamed>", ""):
        if letter == "(" and depth == 0 and kept:
            break
        if letter in "<([{":
            depth += 1
        elif letter in ">)]}":
            depth = max(depth - 1, 0)
        elif depth == 0:
            kept.append(letter)
    stem = "".join(kept).strip().rpartition(" ")[2].rpartition("::")[2]
    return stem or name


def sequence_of(view: View, device: DeviceView) -> Sequence:
    """Return the typical sequence of one run; without kernels it has no slot."""
    operations = device.operations
    chosen = np.flatnonzero(device.touching(Kind.KERNEL))
    iterations = max(view.periods, 1)
    if not len(chosen):
        return _empty(iterations)
    kernels = operations.take(chosen)
    inside = (device.inside.ends - device.inside.starts)[chosen]
    calls, threads = _launches(view, device, chosen)
    launched = kernels.launch != NO_ROW
    moment = np.where(launched, calls, kernels.starts) if launched.all() else kernels.starts
    iteration = _iteration(view, kernels, calls, launched)
    order = np.lexsort((kernels.starts, moment, iteration))
    keys, key = _keys(view, kernels, _paths(view, calls, threads, launched))
    return _slots(keys, key[order], iteration[order], inside[order], iterations)


def merged(sequences: Items[Sequence]) -> Sequence:
    """Return the sequences of several runs of a side as one."""
    if len(sequences) == 1:
        return sequences[0]
    number: dict[KernelKey, int] = {}
    keys, columns = [], []
    for sequence in sequences:
        ids = np.array([number.setdefault(key, len(number)) for key in sequence.keys], np.intp)
        keys.append(ids[sequence.key])
        columns.append(sequence)
    key = np.concatenate(keys)
    occurrence = np.concatenate([sequence.occurrence for sequence in columns])
    executions = np.concatenate([sequence.executions for sequence in columns])
    width = int(occurrence.max(initial=0)) + 1
    slots, inverse = np.unique(key * width + occurrence, return_inverse=True)
    count = _sums(inverse, executions, len(slots))
    position = np.concatenate([sequence.position for sequence in columns])
    mean = np.bincount(inverse, weights=position * executions, minlength=len(slots)) / np.maximum(count, 1)
    made = Sequence(
        tuple(number),
        (slots // width).astype(np.intp),
        slots % width,
        count,
        _sums(inverse, np.concatenate([sequence.total_ns for sequence in columns]), len(slots)),
        mean,
        sum(sequence.iterations for sequence in columns),
    )
    return _ordered(made)


def _empty(iterations: int) -> Sequence:
    none = np.empty(0, np.int64)
    return Sequence((), np.empty(0, np.intp), none, none, none, np.empty(0), iterations)


def _launches(view: View, device: DeviceView, chosen: Index) -> tuple[Int64, Int64]:
    """Return start and thread of the launch call of each chosen operation."""
    api_calls = view.trace.api_calls
    if api_calls is None or not len(api_calls):
        nothing = np.zeros(len(chosen), np.int64)
        return nothing, nothing
    launch = device.operations.launch[chosen]
    return api_calls["start_ns"].to_numpy()[launch], api_calls["global_tid"].to_numpy()[launch]


def _iteration(view: View, kernels: Operations, calls: Int64, launched: npt.NDArray[np.bool_]) -> Int64:
    """Return the number of the iteration of each kernel; -1 is before the window.

    With NVTX an iteration owns what was launched from the start of its range on, else what began on the GPU.
    """
    iterations = view.window.iterations
    if len(iterations) < 2:
        return np.zeros(len(kernels), np.int64)
    marked = [iteration.cpu_start_ns for iteration in iterations]
    if launched.all() and None not in marked:
        return np.searchsorted(np.sort(np.array(marked, np.int64)), calls, side="right") - 1
    starts = np.array([iteration.start_ns for iteration in iterations], np.int64)
    return np.searchsorted(starts, kernels.starts, side="right") - 1


def _paths(view: View, calls: Int64, threads: Int64, launched: npt.NDArray[np.bool_]) -> tuple[list[str], Int64]:
    """Return the NVTX paths inside the iteration and which of them each kernel has."""
    ranges = view.ranges
    code = np.full(len(calls), -1, np.int64)
    if len(ranges):
        known = frozenset(distinct(ranges.thread))
        for thread in distinct(threads[launched]):
            if thread in known:
                mine = np.flatnonzero(launched & (threads == thread))
                code[mine] = ranges.path_at(thread, calls[mine])
    shown: dict[str, int] = {"": 0}
    labels = {without_counter(iteration.name) for iteration in view.window.iterations}
    place = np.array([shown.setdefault(inside_iteration(path, labels), len(shown)) for path in ranges.paths] + [0])
    return list(shown), place[code]


def inside_iteration(path: str, labels: set[str]) -> str:
    """Return the part of a path below the range that marks the iteration, the whole path where none does."""
    parts = path.split(PATH_SEPARATOR)
    below = next((place + 1 for place, part in enumerate(parts) if part in labels), 0)
    return PATH_SEPARATOR.join(parts[below:])


def _keys(view: View, kernels: Operations, paths: tuple[list[str], Int64]) -> tuple[tuple[KernelKey, ...], Index]:
    table = view.trace.table_or_empty("kernels")
    known = known_names(table)
    names = [*enum_texts(known), NAME_LOST]
    texts, path = paths
    rows = table.select(
        known.to_physical().cast(pl.Int64).fill_null(len(names) - 1).alias("name"),
        *(pl.col(column).cast(pl.Int64).fill_null(0) for column in _GEOMETRY),
    )[kernels.row].with_columns(pl.Series("path", path))
    columns = ["name", "path", *_GEOMETRY]
    unique = rows.select(columns).unique().sort(columns).with_row_index("key")
    key = rows.join(unique, on=columns, how="left", maintain_order="left")["key"].to_numpy().astype(np.intp)
    made = tuple(
        KernelKey(names[name], texts[where], (gx, gy, gz), (bx, by, bz))
        for _, name, where, gx, gy, gz, bx, by, bz in unique.iter_rows()
    )
    return made, key


def _slots(keys: tuple[KernelKey, ...], key: Index, iteration: Int64, inside_ns: Int64, iterations: int) -> Sequence:
    """Number the executions of each key in each iteration, and add up those with the same key and number."""
    size = len(keys)
    in_iteration = (iteration - int(iteration.min())) * size + key
    order = np.argsort(in_iteration, kind="stable")
    occurrence = np.empty(len(key), np.int64)
    occurrence[order] = _place_in_run(in_iteration[order])
    width = int(occurrence.max()) + 1
    slots, inverse = np.unique(key * width + occurrence, return_inverse=True)
    position = _place_in_run(iteration).astype(np.float64)
    # Iterations that the window's edge cuts begin at a wrong position.
    whole = ((iteration >= 0) & (iteration < iterations)).astype(np.float64)
    weight = np.bincount(inverse, weights=whole, minlength=len(slots))
    weight_of_row = np.where(weight[inverse] > 0, whole, 1.0)
    total_weight = np.bincount(inverse, weights=weight_of_row, minlength=len(slots)).astype(np.float64)
    mean = (
        np.bincount(inverse, weights=position * weight_of_row, minlength=len(slots)).astype(np.float64) / total_weight
    )
    executions = np.bincount(inverse, minlength=len(slots)).astype(np.int64)
    total = _sums(inverse, inside_ns, len(slots))
    made = Sequence(keys, (slots // width).astype(np.intp), slots % width, executions, total, mean, iterations)
    return _ordered(made)


def _place_in_run(values: Int64) -> Int64:
    """Return for each entry of a list with equal values side by side how many of its run come before it."""
    first = np.concatenate(([True], values[1:] != values[:-1]))
    starts = np.flatnonzero(first)
    return np.asarray(np.arange(len(values)) - np.repeat(starts, np.diff(np.append(starts, len(values)))), np.int64)


def _sums(inverse: Index, values: Int64, size: int) -> Int64:
    total = np.zeros(size, np.int64)
    np.add.at(total, inverse, values)
    return total


def _ordered(sequence: Sequence) -> Sequence:
    order = np.lexsort((sequence.occurrence, sequence.key, sequence.position))
    return Sequence(
        sequence.keys,
        sequence.key[order],
        sequence.occurrence[order],
        sequence.executions[order],
        sequence.total_ns[order],
        sequence.position[order],
        sequence.iterations,
    )
