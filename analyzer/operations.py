"""GPU operations: kernels, graph launches, copies and memsets of a trace as one list, each with its launch.

One operation, one launch: a runtime call and the driver call nested in it share a correlation id, and ids repeat
between processes. An operation is joined to the outermost call of its own process with its id: the one with the
earliest start, then the longest. A graph launch is one operation; how many kernels it holds is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import polars as pl

from .distinct import distinct
from .intervals import Index, Int64
from .trace import Trace

NO_ROW = -1
_THREAD_BITS = 24
_DENSE_SLACK = 1 << 20


class Kind(IntEnum):
    """Kinds of GPU operation, in the order of the tables."""

    KERNEL = 0
    GRAPH = 1
    MEMCPY = 2
    MEMSET = 3


TABLE_OF_KIND = {
    Kind.KERNEL: "kernels",
    Kind.GRAPH: "graph_launches",
    Kind.MEMCPY: "memcpys",
    Kind.MEMSET: "memsets",
}


@dataclass(frozen=True, slots=True)
class Operations:
    """GPU operations as parallel arrays of shape (n,).

    `row` is the row in the table of the operation's kind, `launch` the row of its API call or -1, `stream` a
    number that is unique over processes, devices and contexts. Operations of one device are ordered by
    (start, end, correlation id).
    """

    kind: npt.NDArray[np.uint8]
    starts: Int64
    ends: Int64
    device_id: npt.NDArray[np.int32]
    process: npt.NDArray[np.int64]
    stream: npt.NDArray[np.int64]
    correlation_id: npt.NDArray[np.uint32]
    row: npt.NDArray[np.int32]
    launch: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, index: Index | npt.NDArray[np.bool_]) -> Operations:
        """Return the operations at these positions, in this order."""
        return Operations(*(getattr(self, field.name)[index] for field in fields(self)))

    def of_device(self, device_id: int) -> Operations:
        """Return the operations of one device in their order."""
        here = self.device_id == device_id
        return self if here.all() else self.take(here)

    @property
    def device_ids(self) -> tuple[int, ...]:
        """Devices with at least one operation, ascending."""
        return tuple(distinct(self.device_id))


def operations_of(trace: Trace) -> Operations:
    """Return all GPU operations of a trace, ordered by (start, end, correlation id), joined to their launches."""
    parts = [_of_table(kind, frame) for kind, name in TABLE_OF_KIND.items() if (frame := trace.table(name)) is not None]
    joined = _concatenate(parts)
    api_calls = trace.api_calls
    if api_calls is not None and len(joined) and len(api_calls):
        joined = _with_launches(joined, api_calls)
    return _ordered(joined)


def process_of(global_id: Int64) -> Int64:
    """Return the process part, with host and VM, of global thread or process ids."""
    return global_id >> _THREAD_BITS


def stream_keys(frame: pl.DataFrame) -> Int64:
    """Return a number for the stream of each row that is unique over processes and contexts."""
    process = process_of(_integers(frame, "global_pid", NO_ROW << _THREAD_BITS)) & 0xFFFFFF
    context = _integers(frame, "context_id", 0) & 0xFFFF
    return (process << 40) | (context << 24) | (_integers(frame, "stream_id", 0) & 0xFFFFFF)


def _integers(frame: pl.DataFrame, name: str, missing: int) -> Int64:
    return frame[name].cast(pl.Int64).fill_null(missing).to_numpy()


def _of_table(kind: Kind, frame: pl.DataFrame) -> Operations:
    device_id = _integers(frame, "device_id", 0)
    process = process_of(_integers(frame, "global_pid", NO_ROW << _THREAD_BITS))
    return Operations(
        kind=np.full(len(frame), kind, np.uint8),
        starts=frame["start_ns"].to_numpy(),
        ends=frame["end_ns"].to_numpy(),
        device_id=device_id.astype(np.int32),
        process=process,
        stream=stream_keys(frame),
        correlation_id=frame["correlation_id"].cast(pl.UInt32).fill_null(0).to_numpy(),
        row=np.arange(len(frame), dtype=np.int32),
        launch=np.full(len(frame), NO_ROW, np.int32),
    )


def _concatenate(parts: list[Operations]) -> Operations:
    if not parts:
        return _of_table(Kind.MEMSET, pl.DataFrame(schema=dict.fromkeys(_EMPTY_COLUMNS, pl.Int64)))
    if len(parts) == 1:
        return parts[0]
    return Operations(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Operations)))


_EMPTY_COLUMNS = ("start_ns", "end_ns", "device_id", "context_id", "stream_id", "global_pid", "correlation_id")


def _ordered(operations: Operations) -> Operations:
    starts = operations.starts
    order = np.argsort(starts, kind="stable")  # timsort: nearly free on the sorted tables of an export
    tied = np.flatnonzero(np.diff(starts[order]) == 0)
    if len(tied):
        # Only runs of equal starts need the other two keys.
        touched = np.unique(np.concatenate((tied, tied + 1)))
        rows = order[touched]
        by_keys = np.lexsort((operations.correlation_id[rows], operations.ends[rows], starts[rows]))
        order[touched] = rows[by_keys]
    return operations.take(order)


def _with_launches(operations: Operations, api_calls: pl.DataFrame) -> Operations:
    threads = api_calls["global_tid"].to_numpy()
    call_id = api_calls["correlation_id"].fill_null(0).to_numpy()
    order = _outermost_last(api_calls)
    processes = distinct(process_of(np.array([threads.min(), threads.max()])))
    if len(processes) > 1:
        processes = distinct(process_of(threads))
    launch = operations.launch.copy()
    for process in processes:
        # Exports without process ids on operations can still be joined when only one process made calls.
        mine = operations.process == process
        if len(processes) == 1:
            mine |= operations.process == NO_ROW
        mine &= operations.correlation_id > 0
        if not mine.any():
            continue
        rows = order if len(processes) == 1 else order[process_of(threads[order]) == process]
        launch[mine] = _row_by_id(call_id[rows], rows, operations.correlation_id[mine])
    return replace(operations, launch=launch)


def _outermost_last(api_calls: pl.DataFrame) -> npt.NDArray[np.int32]:
    """Return the rows of calls so that, of those sharing an id, the outermost comes last."""
    starts = api_calls["start_ns"].to_numpy()
    if (starts[1:] > starts[:-1]).all():
        return np.arange(len(starts) - 1, -1, -1, dtype=np.int32)
    ends = api_calls["end_ns"].to_numpy()
    return np.lexsort((-ends, starts)).astype(np.int32)[::-1]


def _row_by_id(
    ids: npt.NDArray[np.uint32], rows: npt.NDArray[np.int32], wanted: npt.NDArray[np.uint32]
) -> npt.NDArray[np.int32]:
    """Look ids up in a list where the last entry of an id counts; -1 where an id does not occur."""
    highest = max(int(wanted.max()), int(ids.max(initial=0)))
    if highest > 8 * len(ids) + _DENSE_SLACK:
        unique, first = np.unique(ids[::-1], return_index=True)
        place = np.minimum(np.searchsorted(unique, wanted), len(unique) - 1)
        found: npt.NDArray[np.int32] = np.where(unique[place] == wanted, rows[::-1][first[place]], NO_ROW)
        return found.astype(np.int32)
    # Zero stands for "none": memory that is only zeroed need not be written twice. numpy keeps the last of repeated
    # assignments.
    table = np.zeros(highest + 1, np.int32)
    table[ids] = rows + 1
    return table[wanted] - 1
