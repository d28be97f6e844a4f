"""nvprof's CSV of metrics and events (`nvprof --csv --metrics all PROGRAM`): the counters of Maxwell to Volta, by name.

One row per kernel and metric: least, greatest and mean over all invocations of the kernel, whatever their launch
geometry; the mean is taken. Values are written with their unit: `98.7%`, `3.21GB/s`, and levels of ten as `Mid (5)`.
The SQLite file of nvprof has the same values without the names of metrics.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from nitro.errors import InputError

from ..counters import LAUNCH_COLUMNS, SHAPE, VALUE_COLUMNS, KernelCounters
from ..message import message, one_or_many
from ..reader import Head, Reader
from ..trace import Source
from ._contract import file_name
from ._demangled import demangled, function_name

FORMAT = "nvprof-csv"
_COLUMNS = ("Device", "Kernel", "Invocations")
_HEADER = '"Device","Kernel","Invocations","'
_VALUE = re.compile(r"^\s*(?:[A-Za-z]+ \((\d+)\)|([-+0-9.eE]+)\s*(%|[KMGT]?B/s)?)\s*$")
_RATES = {"B/s": 1.0, "KB/s": 1e3, "MB/s": 1e6, "GB/s": 1e9, "TB/s": 1e12}
_DEVICE_NUMBER = re.compile(r" \(\d+\)$")


def recognises(head: Head) -> bool:
    """Tell whether this is a table of metrics or events of nvprof."""
    return _HEADER in head.text


def read(path: Path) -> KernelCounters:
    """Return the counters in a CSV of nvprof, one launch for all invocations of a kernel.

    Raises:
        InputError: the file has no value of any metric.
    """
    kernels: dict[tuple[str, str], int] = {}
    values: list[tuple[int, str, float, str]] = []
    left_out = 0
    for record in _records(path):
        found = _value(record["Avg"]) if record is not None else None
        if record is None or found is None:
            left_out += 1
            continue
        number = kernels.setdefault((record["Device"], record["Kernel"]), len(kernels))
        values.append((number, record["name"], *found))
    if not values:
        raise InputError(
            f"{path}: no value of a metric in this table of nvprof; make it with `nvprof --csv --metrics all PROGRAM`."
        )
    launches = []
    for (device, kernel), number in kernels.items():
        name = demangled(kernel)
        facts = {"launch": number, "name": name, "function_name": function_name(name), "compute_capability": None}
        launches.append(facts | {"device_name": _DEVICE_NUMBER.sub("", device)} | dict.fromkeys(SHAPE))
    one = message("1 row without a value was left out.")
    note = one_or_many(left_out, one, message("{count:,} rows without a value were left out.", count=left_out))
    return KernelCounters(
        source=Source(
            file_name=file_name(path.name), format=FORMAT, size_bytes=path.stat().st_size, tool="NVIDIA nvprof"
        ),
        records=len(values),
        left_out=left_out,
        notes=(note,) if left_out else (),
        launches=pl.DataFrame(launches, schema=LAUNCH_COLUMNS),
        values=pl.DataFrame(values, schema=VALUE_COLUMNS, orient="row"),
    )


def _records(path: Path) -> Iterator[dict[str, str] | None]:
    """Return the rows of the tables in a file, of events or of metrics or both; `None` for a damaged row."""
    header: list[str] = []
    for row in csv.reader(_lines(path)):
        if tuple(row[:3]) == _COLUMNS:
            header = row
        elif header and row:
            name = "Metric Name" if "Metric Name" in header else "Event Name"
            if len(row) != len(header) or not {name, "Avg"} <= set(header):
                yield None
                continue
            record = dict(zip(header, row, strict=True))
            yield record | {"name": record[name]}


def _lines(path: Path) -> Iterator[str]:
    """Return the lines of the tables; what the program and nvprof printed around them is passed over."""
    from ._sqlite_file import _opened

    inside = False
    with _opened(path) as stream:
        for raw in stream:
            line = raw.decode("utf-8", "replace")
            inside = not line.startswith("==") and (inside or line.startswith(_HEADER))
            if inside and line.startswith('"'):
                yield line


def _value(text: str) -> tuple[float, str] | None:
    match = _VALUE.match(text)
    if match is None:
        return None
    level, number, unit = match.groups()
    if level is not None:
        return float(level), "level"
    try:
        value = float(number)
    except ValueError:
        return None
    return (value * _RATES[unit], "byte/s") if unit in _RATES else (value, unit or "")


READER = Reader(
    format=FORMAT,
    title=message("nvprof CSV of metrics"),
    gives="evidence",
    recognises=recognises,
    read=read,
    rank=36,
)
