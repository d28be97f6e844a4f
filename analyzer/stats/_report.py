"""What a report is, how its table looks to a caller, and the list of all reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import polars as pl

from nitro.errors import UsageError

from ..trace import Trace

ColumnKind = Literal["identifier", "integer", "decimal", "megabytes", "label", "text"]


@dataclass(frozen=True, slots=True)
class StatsColumn:
    """One column under NVIDIA's header.

    The kind fixes the type in the frame and the digits in print: `integer` is Int64, and so is `identifier`, which
    takes no separators; `decimal` is Float64, already rounded to one decimal; `megabytes` is Float64, printed with
    three decimals; `text` is String, and so is `label`, which is short. `part` and `statistic` say what the header
    abbreviates where a row describes several things (`QMed (ns)` is the median of the part "Queue").
    """

    header: str
    kind: ColumnKind
    part: str | None = None
    statistic: str | None = None


@dataclass(frozen=True, slots=True)
class StatsTable:
    """The answer to one report.

    `frame` has one column per entry of `columns`, named by its header. `missing` says in half a sentence why there
    are no rows, and is `None` when there are some.
    """

    name: str
    title: str
    columns: tuple[StatsColumn, ...]
    frame: pl.DataFrame
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A named table and how to compute it.

    `definition` tells users what is counted and how. `needs` lists groups of tables of the trace; of each group at
    least one table must have rows. `compute` returns a frame with the columns of the report, or without rows;
    `no_rows` then says why.
    """

    name: str
    title: str
    definition: str
    columns: tuple[StatsColumn, ...]
    needs: tuple[tuple[str, ...], ...]
    compute: Callable[[Trace], pl.DataFrame]
    no_rows: str
    record_with: str

    def table(self, trace: Trace) -> StatsTable:
        """Return the table for a trace; without rows when the trace cannot answer."""
        missing = self._missing(trace)
        if missing is None:
            frame = self.compute(trace).select(column.header for column in self.columns)
            if not frame.is_empty():
                return StatsTable(self.name, self.title, self.columns, frame)
            missing = self.no_rows
        return StatsTable(self.name, self.title, self.columns, pl.DataFrame(schema=self._schema()), missing)

    def _missing(self, trace: Trace) -> str | None:
        for names in self.needs:
            frames = [trace.table(name) for name in names]
            if all(frame is None for frame in frames):
                return f"the trace has no {' or '.join(names)} table (record with {self.record_with})"
            if all(frame is None or frame.is_empty() for frame in frames):
                recorded = [name for name, frame in zip(names, frames, strict=True) if frame is not None]
                return f"the trace has no rows in {' and '.join(recorded)}"
        return None

    def _schema(self) -> dict[str, pl.DataType]:
        types = {
            "identifier": pl.Int64(),
            "integer": pl.Int64(),
            "decimal": pl.Float64(),
            "megabytes": pl.Float64(),
            "label": pl.String(),
            "text": pl.String(),
        }
        return {column.header: types[column.kind] for column in self.columns}


@cache
def known_reports() -> dict[str, Report]:
    """Return every report by its name, in alphabetical order."""
    from nitro.analyzer import stats
    from nitro.registry import declared

    families = declared(stats, "REPORTS", tuple)
    return {report.name: report for report in sorted((r for family in families for r in family), key=lambda r: r.name)}


def find_report(name: str) -> Report:
    """Return the report of a name.

    Raises:
        nitro.errors.UsageError: there is no such report.
    """
    reports = known_reports()
    if name not in reports:
        raise UsageError(f"there is no report {name!r}; choose from {', '.join(reports)}.")
    return reports[name]


def stats_report(trace: Trace, name: str) -> StatsTable:
    """Return one of NVIDIA's summary tables.

    Args:
        trace: the capture.
        name: a name of `nsys stats --report`, with its option after a colon, as in `cuda_gpu_kern_sum:base`.

    Returns:
        The table. It has no rows, and says why in `missing`, when the trace lacks what the report is made from.

    Raises:
        nitro.errors.UsageError: there is no such report.
    """
    return find_report(name).table(trace)
