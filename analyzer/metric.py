"""What a metric is, and what it returns: measurements, tables, or the reason why there is none."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from .message import message

if TYPE_CHECKING:
    import pandas as pd

    from .view import View

Unit = Literal[
    "ns", "1", "1/s", "items/s", "bytes", "bytes/s", "ratio", "Hz", "cycles", "W", "J", "nJ", "1/J", "degC", ""
]
Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number.

    `by` says of what it is a part (a cause, a percentile, a stream), `count` how many rows or samples it sums, and
    `error` by how much it may be off in either direction, where that is known.
    """

    metric: str
    value: int | float
    unit: Unit
    device_id: int | None = None
    by: str | None = None
    count: int | None = None
    error: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields under their own names, `count` and `error` only where there are any."""
        made: dict[str, Any] = {"metric": self.metric, "device_id": self.device_id, "by": self.by}
        made |= {"value": self.value, "unit": self.unit}
        optional = {"count": self.count, "error": self.error}
        return made | {name: value for name, value in optional.items() if value is not None}


@dataclass(frozen=True, slots=True)
class NotMeasured:
    """Why a metric has no value in this trace, and what would give it one. It is never 0 instead."""

    metric: str
    reason: str
    device_id: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields under their own names."""
        return {"metric": self.metric, "device_id": self.device_id, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class ResultColumn:
    """A column of a result table."""

    name: str
    unit: Unit
    meaning: str


@dataclass(frozen=True, slots=True)
class ResultTable:
    """A table of results: `frame` has exactly the columns of `columns`, in a useful order of rows."""

    name: str
    title: str
    columns: tuple[ResultColumn, ...]
    frame: pl.DataFrame
    device_id: int | None = None

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if self.frame.columns != names:
            raise ValueError(f"table {self.name} has columns {self.frame.columns}, not {names}")

    def to_pandas(self) -> pd.DataFrame:
        """Return the table as a pandas frame (needs the `pandas` extra)."""
        return self.frame.to_pandas()

    def _repr_html_(self) -> str:
        from .notebook import table_html

        return table_html(self)

    def to_dict(self) -> dict[str, Any]:
        """Return name, title, columns with units, and rows as objects."""
        return {
            "name": self.name,
            "title": self.title,
            "device_id": self.device_id,
            "columns": [{"name": c.name, "unit": c.unit, "meaning": c.meaning} for c in self.columns],
            "rows": self.frame.to_dicts(),
        }


Result = Measurement | NotMeasured | ResultTable


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric, or a tight family of metrics that share a computation.

    `provides` maps every id that `compute` may return to its unit, to `table`, or to `reason` where it is only ever not
    measured. `needs` lists the
    tables without which nothing can be said; where all of them are missing, `compute` is not called and every id is
    not measured, for the reason `missing`. The docstring of `compute` is the definition that users read.
    """

    id: str
    title: str
    provides: Mapping[str, str]
    needs: tuple[str, ...]
    missing: str
    better: Better
    reference: str
    compute: Callable[[View], Iterable[Result]]
    order: int = 100

    @property
    def definition(self) -> str:
        """The definition, as one reads it in `compute`."""
        return inspect.cleandoc(self.compute.__doc__ or "")

    def results(self, view: View) -> Iterator[Result]:
        """Compute, or say why not."""
        if self.needs and all(view.trace.table(name) is None for name in self.needs):
            yield from (NotMeasured(name, self.missing) for name in self.provides)
            return
        yield from self.compute(view)


GPU_TABLES = ("kernels", "graph_launches", "memcpys", "memsets")
NO_GPU_OPERATIONS = message(
    "the trace has no GPU operation; record with `nsys profile --trace=cuda,nvtx`, and on a Jetson as root, "
    "since CUDA tracing needs its permissions there"
)
NO_API_CALLS = message("the trace has no CUDA API calls; record with `nsys profile --trace=cuda,nvtx`")
NO_OS_CALLS = message("operating-system calls were not traced, so host code may hide them; record with --trace=osrt")
