"""Logs of `nvidia-smi --query-gpu=timestamp,power.draw.instant,... --format=csv -lms 20`: power of whole GPU boards.

The header names the columns, in any order, with or without units. `power.draw.instant` is used where it is there;
`power.draw` and `power.draw.average` are the mean of the last second on GPUs since Ampere, which a note says. A line
for each GPU and moment; lines of several GPUs are told apart by `index`, `uuid` or `pci.bus_id`.
"""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from nitro.errors import InputError

from ..clock import SECOND_NS, Float64
from ..gpu_identity import gpu_uuid, pci_bus_id
from ..message import Message, message, one_or_many
from ..power_boards import boards_together
from ..power_events import DRIVER_LIMITS
from ..power_log import Board, PowerLog, Rail
from ..reader import Head, Reader
from ..trace import Source
from ._log_times import log_times
from ._text_file import text_chunks

FORMAT = "nvidia-smi"
_POWERS = ("power.draw.instant", "power.draw", "power.draw.average")
_INSTANT = "power.draw.instant"
_LOADS = {"gpu": "utilization.gpu", "memory": "utilization.memory"}
_CLOCKS = {
    "gpu": ("clocks.sm", "clocks.current.sm", "clocks.gr", "clocks.current.graphics"),
    "memory": ("clocks.mem", "clocks.current.memory"),
}
_SENSORS = {"gpu": "temperature.gpu", "memory": "temperature.memory"}
_UUIDS, _BUSES = ("uuid", "gpu_uuid"), ("pci.bus_id", "gpu_bus_id")
_WHO = ("index", "uuid", "pci.bus_id", "gpu_uuid", "gpu_bus_id", "name")
_REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
# With its unit or without; what stands otherwise after a number, as in `1e30 W`, makes it another one.
_NUMBER = r"^(-?\d+(?:\.\d+)?)(?:\s*[A-Za-z%]+)?$"
_MOST_REASONS = (1 << 63) - 1
_UNIT = re.compile(r"\s*\[[^\]]*\]\s*$")
_HEADER = re.compile(r"^\s*(?=.*\btimestamp\b)(?=.*\bpower\.draw)[\w. ,\[\]%/]+$")
_TIME_FORMATS = ("%Y/%m/%d %H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f")


def read(path: Path) -> PowerLog:
    """Return the log; of several GPUs each is a rail and a board, and the total their sum.

    Raises:
        InputError: there is no header, no power column, or no record with a time and a power.
    """
    lines = b"".join(text_chunks(path)).decode("utf-8", "replace").splitlines()
    at = next((number for number, line in enumerate(lines) if _HEADER.match(line)), None)
    if at is None:
        raise InputError(
            f"{path}: no header with timestamp and power.draw; record with `nvidia-smi --query-gpu=timestamp,"
            "power.draw.instant,utilization.gpu --format=csv -lms 20`, without noheader."
        )
    names = [_UNIT.sub("", part).strip() for part in lines[at].split(",")]
    good, left_out = _records(lines[at + 1 :], len(names), lines[at])
    columns = [f"c{number}" for number in range(len(names))]
    frame = pl.read_csv(
        io.BytesIO("\n".join(good).encode()),
        has_header=False,
        new_columns=columns,
        schema=dict.fromkeys(columns, pl.String),
        quote_char=None,
        raise_if_empty=False,
    ).rename(dict(zip(columns, _unique(names), strict=True)))
    frame = frame.with_columns(pl.all().str.strip_chars())
    stamps = pl.coalesce(
        pl.col("timestamp").str.to_datetime(form, strict=False, time_unit="ns") for form in _TIME_FORMATS
    )
    power = next(name for name in _POWERS if name in frame.columns)
    frame = frame.with_columns(stamps.cast(pl.Int64).alias("_time"), _number(power).alias("_power"))
    before = len(frame)
    frame = frame.drop_nulls(["_time", "_power"])
    left_out += before - len(frame)
    if frame.is_empty():
        raise InputError(
            f"{path}: no record has both a time and a power; this GPU may not report {power} ([N/A]), "
            "so try power.draw."
        )
    return _log(path, frame, power, left_out + at)


def _log(path: Path, frame: pl.DataFrame, power: str, left_out: int) -> PowerLog:
    who = next((name for name in _WHO if name in frame.columns), None)
    parts = frame.partition_by(who, maintain_order=True) if who else [frame]
    source = Source(path.name.encode(errors="replace").decode(), FORMAT, path.stat().st_size, tool="nvidia-smi")
    notes = _notes(power, left_out)
    boards = tuple(_board(part, _name(part, who), source, notes, left_out) for part in parts)
    return replace(boards_together(boards), boards=boards)


def _board(part: pl.DataFrame, name: str, source: Source, notes: list[Message], left_out: int) -> Board:
    stamps = part["_time"].to_numpy()
    resolution = SECOND_NS if (stamps % SECOND_NS == 0).all() else 1_000_000
    times = log_times(stamps, resolution, "local")
    kept = part[times.rows.tolist()]
    watts = kept["_power"].to_numpy()
    log = PowerLog(
        source=source,
        records=len(kept),
        left_out=left_out + len(stamps) - len(times.rows),
        notes=(*notes, *times.notes),
        clock=times.clock,
        times_ns=times.times_ns,
        rails=(Rail(name, watts, "total"),),
        total_w=watts,
        total_source=message("the board of the GPU, not the machine around it"),
        has_total=True,
        loads={key: _values(kept, column) / 100 for key, column in _LOADS.items() if column in kept.columns},
        clocks_hz=_clocks(kept),
        temperatures_c={key: _values(kept, column) for key, column in _SENSORS.items() if column in kept.columns},
        limits=_limits(kept),
        # utilization.gpu is a mean of up to a second, so its edges are late; power is not.
        edge_load="power",
    )
    index, uuid, bus = (_first(part, names) for names in (("index",), _UUIDS, _BUSES))
    return Board(name, int(index) if index and index.isdecimal() else None, gpu_uuid(uuid), pci_bus_id(bus), log)


def _first(part: pl.DataFrame, names: tuple[str, ...]) -> str | None:
    """Return what the first record of a GPU has in the first of some columns."""
    column = next((name for name in names if name in part.columns), None)
    return part[column][0] if column is not None else None


def _name(part: pl.DataFrame, who: str | None) -> str:
    return f"GPU {part[who][0]}" if who is not None and who != "name" else "GPU"


def _notes(power: str, left_out: int) -> list[Message]:
    notes = []
    if left_out:
        one = message("1 line is no record of nvidia-smi and was left out")
        many = message("{count:,} lines are no records of nvidia-smi and were left out", count=left_out)
        notes.append(one_or_many(left_out, one, many))
    if power != _INSTANT:
        notes.append(
            message(
                "{column} is a mean of the last second on GPUs since Ampere, so edges are late and blurred; log "
                "power.draw.instant",
                column=power,
            )
        )
    return notes


def _records(lines: list[str], width: int, header: str) -> tuple[list[str], int]:
    """Return the lines that can be records, and how many others there are; a header again is none of both."""
    filled = [line for line in lines if line.strip() and line != header]
    good = [line for line in filled if line.count(",") == width - 1]
    return good, len(filled) - len(good)


def _unique(names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    made = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        made.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return made


def _number(column: str) -> pl.Expr:
    return pl.col(column).str.extract(_NUMBER, 1).cast(pl.Float64, strict=False)


def _values(frame: pl.DataFrame, column: str) -> Float64:
    return frame.select(_number(column).fill_null(np.nan).alias("value"))["value"].to_numpy()


def _clocks(frame: pl.DataFrame) -> dict[str, Float64]:
    found = {}
    for name, choices in _CLOCKS.items():
        column = next((choice for choice in choices if choice in frame.columns), None)
        if column is not None:
            found[name] = _values(frame, column) * 1e6
    return found


def _limits(frame: pl.DataFrame) -> dict[str, Float64]:
    column = next((name for name in _REASONS if name in frame.columns), None)
    if column is None:
        return {}
    codes = np.array([_code(text) for text in frame[column].to_list()], np.int64)
    return {name: ((codes & bit) != 0).astype(np.float64) for bit, name in DRIVER_LIMITS.items()}


def _code(text: str | None) -> int:
    try:
        return int(text or "0", 16) & _MOST_REASONS
    except ValueError:
        return 0


def _recognises(head: Head) -> bool:
    return any(_HEADER.match(line) for line in head.lines[:200])


READER = Reader(FORMAT, message("nvidia-smi power log"), "evidence", _recognises, read)
