"""Nsight Compute: `.ncu-rep` through NVIDIA's `ncu-report`, and the CSV of `ncu --csv --page raw`.

Both give the same table: names of metrics as ncu has them, values in base units. `ncu --csv` scales values and writes
the unit of each column in its second row (`usecond`, `Mbyte`), or one row per metric with its unit. Its pages made for
reading (`details`) have titles instead of names, and are not read.
"""

from __future__ import annotations

import csv
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from nitro.errors import InputError, ToolError

from ..counters import LAUNCH_COLUMNS, VALUE_COLUMNS, KernelCounters
from ..message import message, one_or_many
from ..reader import Head, Reader
from ..trace import Source
from ._contract import file_name
from ._demangled import function_name

FORMAT = "ncu"
_MAGIC = b"NVR\x00"
_FIRST_COLUMNS = '"ID","Process ID","Process Name"'
_LONG = ("Metric Name", "Metric Unit", "Metric Value")
_NOT_METRICS = frozenset(
    (
        "ID",
        "Process ID",
        "Process Name",
        "Host Name",
        "Kernel Name",
        "Context",
        "Stream",
        "Block Size",
        "Grid Size",
        "Device",
        "CC",
        "Section Name",
    )
)
_SCALES = {"K": 1e3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_TIMES = {"ns": 1.0, "nsecond": 1.0, "us": 1e3, "usecond": 1e3, "ms": 1e6, "msecond": 1e6, "s": 1e9, "second": 1e9}
_SCALED = re.compile(
    r"^([KkMGTP]?)(byte|hz|inst|cycle|sector|request|warp|thread|op|block|register)(.*)$", re.IGNORECASE
)
_PER_TIME = re.compile(r"/(ns|nsecond|us|usecond|ms|msecond|s|second)$")
_TRIPLE = re.compile(r"\d+")
_METRIC_NAME = re.compile(r"^[a-z0-9]\w*(?:__|:|_)\w")


def recognises(head: Head) -> bool:
    """Tell whether this is an ncu report or ncu's CSV."""
    return head.data.startswith(_MAGIC) or _FIRST_COLUMNS in head.text


def read(path: Path) -> KernelCounters:
    """Return the counters in an ncu report or CSV.

    Raises:
        InputError: the file is damaged, or a page of ncu that has no names of metrics.
        ToolError: it is a report, and the package `ncu-report` is not installed.
    """
    from ._sqlite_file import head_of

    if head_of(path).startswith(_MAGIC):
        return _of_report(path)
    return _of_csv(path)


def _of_report(path: Path) -> KernelCounters:
    try:
        import ncu_report
    except ImportError:
        raise ToolError(
            f"{path}: reading an ncu report needs the package ncu-report (x86-64 only: pip install ncu-report); "
            f"elsewhere give its CSV, made by `ncu --import {path.name} --csv --page raw > counters.csv`."
        ) from None
    try:
        with _plain(path) as plain:
            report = ncu_report.load_report(str(plain))
            actions = [action for group in report for action in group]
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - the library's errors have no common base
        detail = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: the ncu report cannot be read ({detail}); copy it again or profile again.") from None
    launches, values = [], []
    for number, action in enumerate(actions):
        if action.workload_type() != action.WorkloadType_KERNEL:
            continue
        metrics = {name: action[name] for name in action.metric_names()}
        launches.append(_launch_of_action(number, action, metrics))
        for name, metric in metrics.items():
            value = metric.value()
            if isinstance(value, (int, float)):
                values.append((number, name, *in_base_unit(float(value), metric.unit())))
    return _made(path, launches, values, left_out=len(actions) - len(launches))


@contextmanager
def _plain(path: Path) -> Iterator[Path]:
    """Give the path of a report that the library can read: a private copy, where the file is compressed."""
    from ._sqlite_file import _opened, compression_of

    if compression_of(path) is None:
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="nitro-", suffix=".ncu-rep") as copy:
        with _opened(path) as stream:
            shutil.copyfileobj(stream, copy)
        copy.flush()
        yield Path(copy.name)


def _launch_of_action(number: int, action: Any, metrics: dict[str, Any]) -> dict[str, Any]:
    def fact(name: str) -> Any:
        return metrics[name].value() if name in metrics else None

    major, minor = (fact(f"device__attribute_compute_capability_{part}") for part in ("major", "minor"))
    return {
        "launch": number,
        "name": action.name(action.NameBase_DEMANGLED),
        "function_name": action.name(action.NameBase_FUNCTION),
        "device_name": fact("device__attribute_display_name"),
        "compute_capability": None if major is None or minor is None else f"{int(major)}.{int(minor)}",
        **{f"{which}_{axis}": fact(f"launch__{which}_dim_{axis}") for which in ("grid", "block") for axis in "xyz"},
    }


def _of_csv(path: Path) -> KernelCounters:
    rows = csv.reader(_csv_lines(path))
    header = next(rows, None)
    if header is None:
        raise InputError(f"{path}: no table of ncu; make it with `ncu --import REPORT.ncu-rep --csv --page raw`.")
    is_long = set(_LONG) <= set(header)
    parse = _long_rows if is_long else _wide_rows
    launches: dict[int, dict[str, Any]] = {}
    values: list[tuple[int, str, float, str]] = []
    left_out = 0
    for record in parse(header, rows):
        if record is None:
            left_out += 1
            continue
        facts, metrics = record
        number = facts["launch"]
        launch = launches.setdefault(number, facts)
        for name, text, unit in metrics:
            if name == "device__attribute_display_name":
                launch["device_name"] = text
            value = _number(text)
            if value is not None:
                values.append((number, name, *in_base_unit(value, unit)))
    if launches and not any(_METRIC_NAME.match(name) and "__" in name for _, name, _, _ in values):
        raise InputError(
            f"{path}: this page of ncu has titles instead of names of metrics; make the raw page with "
            "`ncu --import REPORT.ncu-rep --csv --page raw`."
        )
    return _made(path, list(launches.values()), values, left_out)


def _csv_lines(path: Path) -> Iterator[str]:
    """Return the lines of the table: what the profiled program printed before it is passed over."""
    from ._sqlite_file import _opened

    with _opened(path) as stream:
        started = False
        for raw in stream:
            line = raw.decode("utf-8", "replace")
            started = started or line.lstrip("\ufeff").startswith(_FIRST_COLUMNS)
            if started and not line.startswith("=="):
                yield line.lstrip("\ufeff")


def _wide_rows(header: list[str], rows: Iterator[list[str]]) -> Iterator[Any]:
    """Return launches of the raw page: a column per metric, their units in the row after the header."""
    units: list[str] | None = None
    metrics = [place for place, name in enumerate(header) if name not in _NOT_METRICS]
    for row in rows:
        if units is None and row and not row[0].strip():
            units = row
            continue
        facts = _facts(header, row) if len(row) == len(header) else None
        if facts is None:
            yield None
            continue
        yield facts, [(header[place], row[place], units[place] if units else "") for place in metrics]


def _long_rows(header: list[str], rows: Iterator[list[str]]) -> Iterator[Any]:
    """Return launches of a page with one metric a row."""
    places = [header.index(name) for name in _LONG]
    for row in rows:
        facts = _facts(header, row) if len(row) == len(header) else None
        if facts is None:
            yield None
            continue
        name, unit, text = (row[place] for place in places)
        yield facts, [(name, text, unit)] if name else []


def _facts(header: list[str], row: list[str]) -> dict[str, Any] | None:
    fields = dict(zip(header, row, strict=True))
    number = _number(fields.get("ID", ""))
    if number is None:
        return None
    name = fields.get("Kernel Name", "")
    sizes = {
        which: [int(n) for n in _TRIPLE.findall(fields.get(f"{which.title()} Size", ""))] for which in ("grid", "block")
    }
    shape = {
        f"{which}_{axis}": sizes[which][place] if len(sizes[which]) == 3 else None
        for which in ("grid", "block")
        for place, axis in enumerate("xyz")
    }
    return {
        "launch": int(number),
        "name": name,
        "function_name": function_name(name),
        "device_name": None,
        "compute_capability": fields.get("CC") or None,
        **shape,
    }


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def in_base_unit(value: float, unit: str) -> tuple[float, str]:
    """Return a value of ncu in its base unit: ns, byte, hz, and these per second; percent and others as they are.

    ncu scales by thousands (1 Kbyte is 1000 byte), and writes frequencies as cycle/nsecond in older versions.
    """
    unit = unit.strip()
    if unit in _TIMES:
        return value * _TIMES[unit], "ns"
    rate = _PER_TIME.search(unit)
    if rate is not None and unit[: rate.start()]:
        scaled, base = in_base_unit(value, unit[: rate.start()])
        per_second = scaled * 1e9 / _TIMES[rate.group(1)]
        return (per_second, "hz") if base == "cycle" else (per_second, f"{base}/s")
    match = _SCALED.match(unit)
    if match is not None and match.group(1):
        return value * _SCALES[match.group(1)], match.group(2).lower() + match.group(3)
    return value, unit.lower() if unit.lower() == "hz" else unit


def _made(
    path: Path, launches: list[dict[str, Any]], values: list[tuple[int, str, float, str]], left_out: int
) -> KernelCounters:
    if not launches:
        raise InputError(f"{path}: no kernel was profiled; run ncu on a program that launches kernels.")
    one = message("1 record was no kernel or was damaged, and was left out.")
    many = message("{count:,} records were no kernels or were damaged, and were left out.", count=left_out)
    notes = (one_or_many(left_out, one, many),)
    return KernelCounters(
        source=Source(
            file_name=file_name(path.name), format=FORMAT, size_bytes=path.stat().st_size, tool="Nsight Compute"
        ),
        records=len(launches),
        left_out=left_out,
        notes=notes if left_out else (),
        launches=pl.DataFrame(launches, schema=LAUNCH_COLUMNS),
        values=pl.DataFrame(values, schema=VALUE_COLUMNS, orient="row"),
    )


READER = Reader(
    format=FORMAT,
    title=message("Nsight Compute report or CSV"),
    gives="evidence",
    recognises=recognises,
    read=read,
    rank=35,
)
