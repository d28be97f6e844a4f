"""Logs of `nvidia-smi --query-gpu=timestamp,power.draw.instant,... --format=csv -lms 20`: power of whole GPU boards.

The header names the columns, in any order, with or without units. `power.draw.instant` is used where it is there;
`power.draw` and `power.draw.average` are the mean of the last second on GPUs since Ampere, which a note says. A line
for each GPU and moment; lines of several GPUs are told apart by `index`, `uuid` or `pci.bus_id`.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import polars as pl

from nitro.errors import InputError

from ..clock import SECOND_NS, Float64
from ..intervals import Int64
from ..message import Message, message
from ..power_events import DRIVER_LIMITS
from ..power_log import PowerLog, Rail
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
_WHO = ("index", "uuid", "pci.bus_id", "gpu_uuid", "gpu_bus_id", "name")
_REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
# With its unit or without; what stands otherwise after a number, as in `1e30 W`, makes it another one.
_NUMBER = r"^(-?\d+(?:\.\d+)?)(?:\s*[A-Za-z%]+)?$"
_MOST_REASONS = (1 << 63) - 1
_UNIT = re.compile(r"\s*\[[^\]]*\]\s*$")
_HEADER = re.compile(r"^\s*(?=.*\btimestamp\b)(?=.*\bpower\.draw)[\w. ,\[\]%/]+$")
_TIME_FORMATS = ("%Y/%m/%d %H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f")


def read(path: Path) -> PowerLog:
    """Return the log; of several GPUs each is a rail, and the total their sum.

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
    # The GPU with most records gives the times; the others are read at these.
    parts.sort(key=len, reverse=True)
    main = parts[0]
    stamps = main["_time"].to_numpy()
    resolution = SECOND_NS if (stamps % SECOND_NS == 0).all() else 1_000_000
    times = log_times(stamps, resolution, "local")
    main = main[times.rows.tolist()]
    moment = stamps[times.rows]
    rails, total = _rails(parts, main, moment, who)
    notes = _notes(power, left_out, len(parts)) + list(times.notes)
    return PowerLog(
        source=Source(path.name.encode(errors="replace").decode(), FORMAT, path.stat().st_size, tool="nvidia-smi"),
        records=len(main),
        left_out=left_out + len(stamps) - len(times.rows),
        notes=tuple(notes),
        clock=times.clock,
        times_ns=times.times_ns,
        rails=rails,
        total_w=total,
        total_source=(
            message("the board of the GPU, not the machine around it")
            if len(rails) == 1
            else message("the sum of the boards of {count} GPUs, not the machine around them", count=len(rails))
        ),
        has_total=len(rails) == 1,
        loads={name: _values(main, column) / 100 for name, column in _LOADS.items() if column in main.columns},
        clocks_hz=_clocks(main),
        temperatures_c={name: _values(main, column) for name, column in _SENSORS.items() if column in main.columns},
        limits=_limits(main),
        # utilization.gpu is a mean of up to a second, so its edges are late; power is not.
        edge_load="power",
    )


def _rails(
    parts: list[pl.DataFrame], main: pl.DataFrame, moment: Int64, who: str | None
) -> tuple[tuple[Rail, ...], Float64]:
    own = main["_power"].to_numpy()
    found = [(_name(main, who), own)]
    for part in parts[1:]:
        order = np.argsort(part["_time"].to_numpy(), kind="stable")
        times, watts = part["_time"].to_numpy()[order], part["_power"].to_numpy()[order]
        found.append((_name(part, who), np.interp(moment.astype(np.float64), times.astype(np.float64), watts)))
    role = "total" if len(found) == 1 else "part"
    rails = tuple(Rail(name, watts, "total" if role == "total" else "part") for name, watts in sorted(found))
    return rails, np.asarray(np.sum([rail.watts for rail in rails], axis=0), np.float64)


def _name(part: pl.DataFrame, who: str | None) -> str:
    return f"GPU {part[who][0]}" if who in ("index", "uuid", "gpu_uuid", "pci.bus_id", "gpu_bus_id") else "GPU"


def _notes(power: str, left_out: int, gpus: int) -> list[Message]:
    notes = []
    if left_out:
        notes.append(message("{count:,} lines are no records of nvidia-smi and were left out", count=left_out))
    if power != _INSTANT:
        notes.append(
            message(
                "{column} is a mean of the last second on GPUs since Ampere, so edges are late and blurred; log "
                "power.draw.instant",
                column=power,
            )
        )
    if gpus > 1:
        notes.append(message("loads, clocks and temperatures are those of the GPU with most records"))
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
