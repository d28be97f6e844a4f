"""The tables of a trace as Parquet files, for DuckDB, pandas and polars, and for reading them again."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from nitro.errors import UsageError

from ..readers.nitro_parquet import FORMAT_VERSION, MANIFEST
from ..tables import SAMPLED_METRICS, TABLES, Table
from ..trace import Trace

README = "README.md"


def write_parquet(trace: Trace, folder: Path) -> dict[str, int]:
    """Write every recorded table of a trace into a folder, and return how many rows each has.

    A README says what the columns mean; the manifest holds what is no table. It is written first: where the rest
    fails, the folder is still known as an export, which cannot be read and may be replaced. The offset of the wall
    clock to UTC stays out, as it does everywhere.

    Raises:
        UsageError: the folder holds something else than an earlier export, or cannot be written.
    """
    try:
        _make_room(folder)
        frames = {table.name: frame for table in TABLES if (frame := trace.table(table.name)) is not None}
        rows = {name: len(frame) for name, frame in frames.items()}
        manifest = json.dumps(_manifest(trace, rows), ensure_ascii=False, indent=1) + "\n"
        (folder / MANIFEST).write_text(manifest, encoding="utf-8", errors="replace")
        (folder / README).write_text(_readme(trace, rows), encoding="utf-8", errors="replace")
        for name, frame in frames.items():
            frame.write_parquet(folder / f"{name}.parquet")
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror}); choose another folder.") from None
    return rows


def _make_room(folder: Path) -> None:
    """Make the folder, or take an earlier export out of it; the manifest goes last, since by it an export is known."""
    folder.mkdir(parents=True, exist_ok=True)
    present = {entry.name for entry in folder.iterdir()}
    ours = [*(f"{table.name}.parquet" for table in TABLES), README, MANIFEST]
    if present and (MANIFEST not in present or not present <= set(ours)):
        raise UsageError(f"{folder}: the folder holds other files; give a new or an empty one.")
    for name in ours:
        (folder / name).unlink(missing_ok=True)


def _manifest(trace: Trace, rows: dict[str, int]) -> dict[str, object]:
    return {
        "format": "nitro-parquet",
        "format_version": FORMAT_VERSION,
        "source": trace.source.to_dict(),
        "capture": trace.capture.to_dict(),
        # The slot of a GPU tells which one a log is of; its UUID would name the piece of hardware.
        "devices": [{**device.to_dict(), "pci_bus_id": device.pci_bus_id} for device in trace.devices],
        "nvtx_domains": [
            {"global_pid": process, "domain_id": domain, "name": name}
            for (process, domain), name in trace.nvtx_domains.items()
        ],
        "notes": [str(note) for note in trace.notes],
        "tables": rows,
    }


def _readme(trace: Trace, rows: dict[str, int]) -> str:
    lines = [
        f"# The tables of {trace.source.file_name}",
        "",
        f"One Parquet file a table. `nitro-analyze` takes this folder as an input; `{MANIFEST}` holds the devices, how",
        "the trace was recorded, the names of NVTX domains, and the number of rows of each table.",
        "",
        "A table that is missing here was not recorded; one without rows recorded nothing. Times are integer",
        "nanoseconds since the start of the profiling session. An empty value means *not recorded*, never 0.",
    ]
    for table in TABLES:
        if table.name in rows:
            lines += _described(table, rows[table.name])
    return "\n".join(lines) + "\n"


def _described(table: Table, rows: int) -> list[str]:
    lines = [
        "",
        f"## {table.name}",
        "",
        f"{table.meaning}; {rows:,} rows.",
        "",
        "| column | type | meaning |",
        "|---|---|---|",
    ]
    lines += [f"| `{column.name}` | {_type_name(column.dtype)} | {column.meaning} |" for column in table.columns]
    if table.name == "gpu_metric_samples":
        lines += ["", "| metric | meaning |", "|---|---|"]
        lines += [f"| `{name}` | {meaning} |" for name, meaning in SAMPLED_METRICS.items()]
    return lines


def _type_name(dtype: type[pl.DataType]) -> str:
    return "text" if dtype is pl.Enum else dtype.__name__.lower()
