"""Which boards of a power log of several GPUs count: those that the trace used, or those that the user names.

A trace names its GPUs by UUID and by the slot that they sit in. A log has either, or the number of nvidia-smi, which
follows the order of the slots: it tells the GPU only where trace and log have the same number of GPUs. The numbers of
nsys and of CUDA are others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nitro.errors import UsageError

from .gpu_identity import gpu_uuid, pci_bus_id
from .message import message, one_or_many
from .power_log import Board, PowerLog, Rail

if TYPE_CHECKING:
    from .trace import Device, Trace
    from .view import View

ALL_BOARDS = "all"


def boards_together(boards: Sequence[Board]) -> PowerLog:
    """Return the log of several boards as a whole: each is a rail, and the total their sum.

    The board with most records gives the times, at which the others are read, and the loads, clocks, temperatures and
    limits. One board is its own log.
    """
    if len(boards) == 1:
        return boards[0].log
    main = max((board.log for board in boards), key=lambda log: log.records)
    rails = tuple(
        Rail(board.name, _read_at(board.log, main), "part") for board in sorted(boards, key=lambda board: board.name)
    )
    return replace(
        main,
        rails=rails,
        total_w=np.sum([rail.watts for rail in rails], axis=0),
        total_source=message("the sum of the boards of {count} GPUs, not the machine around them", count=len(rails)),
        has_total=False,
        notes=(*main.notes, message("loads, clocks and temperatures are those of the GPU with most records")),
    )


def _read_at(log: PowerLog, main: PowerLog) -> np.ndarray:
    if log is main:
        return log.total_w
    return np.interp(main.times_ns.astype(np.float64), log.times_ns.astype(np.float64), log.total_w)


def boards_of_trace(log: PowerLog, view: View) -> PowerLog:
    """Return the log of the boards whose GPUs ran what a view shows; all of them, with a note, where none can tell."""
    if len(log.boards) < 2 or not view.operations.device_ids:
        return log
    found = [_board_of(log.boards, device_id, view.trace) for device_id in view.operations.device_ids]
    used = [board for board in log.boards if board in found]
    if None in found:
        note = message(
            "the log has {count} GPUs, and it cannot be told which of them the trace used, so all of them count; "
            "choose with --log-gpu",
            count=len(log.boards),
        )
        return replace(log, notes=(*log.notes, note), choice=note)
    if len(used) == len(log.boards):
        return log
    note = message(
        "the log has {count} GPUs, of which the trace used {names}; the others are left out",
        count=len(log.boards),
        names=_names(used),
    )
    return _of(used, note)


def chosen_boards(log: PowerLog, wanted: Sequence[str]) -> PowerLog:
    """Return the log of the boards that the user names, by number, UUID or PCI bus id; `all` for every one.

    Raises:
        UsageError: the log has no such GPU.
    """
    if tuple(wanted) == (ALL_BOARDS,):
        return replace(log, boards=())
    found = [_called(log, text) for text in wanted]
    used = [board for board in log.boards if board in found]
    if len(used) == len(log.boards):
        return replace(log, boards=())
    count, names = len(log.boards), _names(used)
    one = message(
        "the log has {count} GPUs, of which {names} was chosen; the others are left out", count=count, names=names
    )
    more = message(
        "the log has {count} GPUs, of which {names} were chosen; the others are left out", count=count, names=names
    )
    return _of(used, one_or_many(len(used), one, more))


def _of(boards: Sequence[Board], note: str) -> PowerLog:
    made = boards_together(boards)
    return replace(made, notes=(*made.notes, note), choice=note, boards=())


def _names(boards: Sequence[Board]) -> str:
    return ", ".join(board.name for board in boards)


def _called(log: PowerLog, text: str) -> Board:
    uuid, bus = gpu_uuid(text), pci_bus_id(text)
    for board in log.boards:
        if text in (str(board.index), board.name):
            return board
        if (uuid is not None and uuid == board.uuid) or (bus is not None and bus == board.pci_bus_id):
            return board
    raise UsageError(
        f"{log.source.file_name}: no GPU of this log is called {text}; choose among {_names(log.boards)}, by number, "
        "UUID or PCI bus id, as far as the log has them."
    )


def _board_of(boards: Sequence[Board], device_id: int, trace: Trace) -> Board | None:
    """Return the board of a GPU of a trace, `None` where it cannot be told."""
    device = trace.device(device_id)
    if device is None:
        return None
    for fact in ("uuid", "pci_bus_id"):
        known = getattr(device, fact)
        found = [board for board in boards if known is not None and getattr(board, fact) == known]
        if len(found) == 1:
            return found[0]
    number = _number_of(device, trace.devices, boards)
    return next((board for board in boards if number is not None and board.index == number), None)


def _number_of(device: Device, devices: Sequence[Device], boards: Sequence[Board]) -> int | None:
    """Return the number that nvidia-smi gives a GPU, where both sides have all GPUs of the machine."""
    slots = sorted({other.pci_bus_id for other in devices if other.pci_bus_id is not None})
    numbers = sorted(board.index for board in boards if board.index is not None)
    are_all = len(slots) == len(devices) == len(boards) and numbers == list(range(len(boards)))
    return slots.index(device.pci_bus_id) if are_all and device.pci_bus_id is not None else None
