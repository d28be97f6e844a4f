"""Power logs of Nitro's own collector, which reads the INA3221 sensors of a Jetson through sysfs.

The format, version 1: UTF-8 text. The first line is `# nitro power log 1`; lines that begin with `#` and hold a colon
are facts (`# board: ...`, `# interval_ms: 10`), which are kept out of reports. Then a CSV header and one line a record:

    realtime_ns,VDD_IN_mw,VDD_CPU_GPU_CV_mw,VDD_SOC_mw,gpu_load_permille,gpu_clock_hz,memory_clock_hz,gpu_millidegree_c

- `realtime_ns`: CLOCK_REALTIME in ns when the record was read; the first column.
- `<rail>_mw`: power of a rail; or `<rail>_mv` and `<rail>_ma`, as the sensor's files have them, whose product is the
  power.
- `gpu_load_permille` (the file `load` of the GPU), `memory_load_permille`, `gpu_clock_hz`, `memory_clock_hz`.
- `<sensor>_millidegree_c`: a thermal zone. `online_cpus`: number of CPU cores online.

An empty value was not there at that moment. Columns that are not listed are passed over.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import polars as pl

from nitro.errors import InputError

from ..clock import Float64
from ..message import Message, message, one_or_many
from ..power_log import PowerLog, rails_of
from ..reader import Head, Reader
from ..trace import Source
from ._log_times import log_times
from ._text_file import text_chunks

FORMAT = "nitro-power-log"
MAGIC = "# nitro power log 1"
_FAMILY = "# nitro power log "
_TIME = "realtime_ns"
_NAME = re.compile(r"^[A-Za-z][\w.+-]*$")


def read(path: Path) -> PowerLog:
    """Return the log.

    Raises:
        InputError: it is of a newer version, has no header or rail, or no good record.
    """
    lines = b"".join(text_chunks(path)).decode("utf-8", "replace").splitlines()
    if lines[0].strip() != MAGIC:
        raise InputError(f"{path}: this power log is of a version that this Nitro does not know; upgrade Nitro.")
    body = [line for line in lines[1:] if line.strip() and not line.startswith("#")]
    names = [name.strip() for name in body[0].split(",")] if body else []
    names = names if all(map(_NAME.match, names)) else []
    if not names or names[0] != _TIME or len(set(names)) != len(names):
        raise InputError(f"{path}: the header of the power log is missing or damaged; record it again.")
    good = [line for line in body[1:] if line.count(",") == len(names) - 1]
    left_out = len(body) - 1 - len(good)
    frame = pl.read_csv(
        io.BytesIO("\n".join(good).encode()),
        has_header=False,
        new_columns=names,
        schema=dict.fromkeys(names, pl.String),
        quote_char=None,
        raise_if_empty=False,
    )
    values = {name: frame[name].cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy() for name in names[1:]}
    watts = _watts(values)
    rails, total, total_source, has_total = rails_of(watts)
    if not rails:
        raise InputError(f"{path}: the power log has no rail (a column such as VDD_IN_mw); record it again.")
    # Nanoseconds since 1970 have more digits than a double.
    stamps = frame[_TIME].cast(pl.Int64, strict=False)
    usable = stamps.is_not_null().to_numpy() & ~np.isnan(total)
    if not usable.any():
        raise InputError(f"{path}: no record of the power log has a time and all rails; record it again.")
    left_out += int((~usable).sum())
    rows = np.flatnonzero(usable)
    times = log_times(stamps.filter(pl.Series(usable)).to_numpy(), 1_000, "utc")
    rows = rows[times.rows]
    left_out += int(usable.sum()) - len(rows)
    rails, total, total_source, has_total = rails_of({name: v[rows] for name, v in watts.items()})
    notes: list[Message] = list(times.notes)
    if left_out:
        one = message("1 damaged line of the power log was left out")
        many = message("{count:,} damaged lines of the power log were left out", count=left_out)
        notes.append(one_or_many(left_out, one, many))
    kept = {name: v[rows] for name, v in values.items()}
    return PowerLog(
        source=Source(path.name.encode(errors="replace").decode(), FORMAT, path.stat().st_size, tool="Nitro"),
        records=len(rows),
        left_out=left_out,
        notes=tuple(notes),
        clock=times.clock,
        times_ns=times.times_ns,
        rails=rails,
        total_w=total,
        total_source=total_source,
        has_total=has_total,
        loads=_named(kept, "_load_permille", 0.001),
        clocks_hz=_named(kept, "_clock_hz", 1.0),
        temperatures_c=_named(kept, "_millidegree_c", 0.001),
        online_cpus=kept.get("online_cpus"),
    )


def _watts(values: dict[str, Float64]) -> dict[str, Float64]:
    found: dict[str, Float64] = {}
    for name, column in values.items():
        if name.endswith("_mw"):
            found[name.removesuffix("_mw")] = column / 1000
        elif name.endswith("_mv") and (current := f"{name.removesuffix('_mv')}_ma") in values:
            found[name.removesuffix("_mv")] = column * values[current] / 1e6
    return found


def _named(values: dict[str, Float64], ending: str, scale: float) -> dict[str, Float64]:
    return {name.removesuffix(ending): v * scale for name, v in values.items() if name.endswith(ending)}


def _recognises(head: Head) -> bool:
    return head.text.startswith(_FAMILY)


READER = Reader(FORMAT, message("power log of Nitro's collector (INA3221)"), "evidence", _recognises, read)
