"""Layers: one tree of what a model is made of, with the GPU work that each part launched.

The parts are NVTX ranges (of the user, of TensorRT) and the modules and operators that a framework's profiler recorded.
Of one thread they nest, so a part is known by its path. A kernel belongs to the innermost part around its launch call,
and counts in all parts around that one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from .evidence import Evidence
from .message import message
from .nvtx import PUSH_POP, Ranges, ranges_of
from .operations import NO_ROW
from .tables import TABLE_BY_NAME
from .trace import Trace
from .view import View

OUTSIDE = -1
# Domains of the ranges of frameworks; a domain of the user never has a negative number.
_DOMAINS = {"module": -1, "operator": -2}
MODULE, OPERATOR, TENSORRT_LAYER, RANGE = "module", "operator", "TensorRT layer", "range"
KINDS = {
    MODULE: message("module"),
    OPERATOR: message("operator"),
    TENSORRT_LAYER: message("TensorRT layer"),
    RANGE: message("range"),
}
_TENSORRT = "TensorRT:"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProfile(Evidence):
    """What TensorRT measured of its layers (`trtexec --exportProfile`), or says about them (`--exportLayerInfo`).

    `layers` has one row per layer, in the order of execution: `name`, `mean_ns` (null in a list without times),
    `layer_type` and `tactic` (null in a profile). `iterations` counts the inferences that were timed.
    """

    kind: ClassVar[str] = "layer_profile"

    layers: pl.DataFrame
    iterations: int | None = None


LAYER_PROFILE_COLUMNS = {"name": pl.String, "mean_ns": pl.Float64, "layer_type": pl.String, "tactic": pl.String}


@dataclass(frozen=True, slots=True)
class LayerTree:
    """The parts, and the part of every operation.

    `ranges.paths` are the parts; `parent` is the number of the part around each, or -1; `kind` its kind, of `KINDS`.
    `part` is the innermost part of each operation of the view, -1 where it was launched outside all.
    """

    ranges: Ranges
    parent: npt.NDArray[np.int64]
    kind: tuple[str, ...]
    part: npt.NDArray[np.int64]

    def with_ancestors(self, part: int) -> tuple[int, ...]:
        """Return a part and all parts around it, the innermost first."""
        chain = []
        while part != OUTSIDE:
            chain.append(part)
            part = int(self.parent[part])
        return tuple(chain)

    def name(self, part: int) -> str:
        """Return the own name of a part, without the domain of a framework or of TensorRT."""
        return plain_name(self.ranges.paths[part])

    def depth(self, part: int) -> int:
        """Return how many parts are around a part."""
        return len(self.with_ancestors(part)) - 1


def plain_name(path: str) -> str:
    """Return the own name of a part without the domain of a framework or of TensorRT."""
    name = path.rpartition(" > ")[2]
    for domain in (*(f"{kind}:" for kind in _DOMAINS), _TENSORRT):
        if name.startswith(domain):
            return name[len(domain) :]
    return name


def layer_tree(view: View) -> LayerTree | None:
    """Return the parts of a trace's program with their operations, `None` where the trace has no ranges at all."""
    trace = view.trace
    if trace.nvtx_events is None and trace.table("framework_ranges") is None:
        return None
    framework = trace.table("framework_ranges")
    if framework is None or framework.is_empty():
        ranges = view.ranges
    else:
        ranges = ranges_of(_with_framework_ranges(trace, framework))
    if not len(ranges):
        return None
    parent = np.full(len(ranges.paths), OUTSIDE, np.int64)
    inner = ranges.parent >= 0
    parent[ranges.path[inner]] = ranges.path[ranges.parent[inner]]
    return LayerTree(ranges, parent, tuple(_kind_of(path) for path in ranges.paths), _parts(view, ranges))


def _with_framework_ranges(trace: Trace, framework: pl.DataFrame) -> Trace:
    """Return the trace with modules and operators among its NVTX ranges, in domains of their own."""
    numbers = framework["kind"].cast(pl.String).replace_strict(_DOMAINS, default=0, return_dtype=pl.Int64)
    events = trace.table_or_empty("nvtx_events").with_columns(pl.col("text").cast(pl.String))
    own = framework.select("start_ns", "end_ns", "global_tid", pl.col("name").cast(pl.String).alias("text"))
    own = own.with_columns(numbers.alias("domain_id"), pl.lit(PUSH_POP, pl.Int32).alias("event_type"))
    together = pl.concat([events, own], how="diagonal")
    together = together.with_columns(pl.col("text").cast(pl.Enum(together["text"].drop_nulls().unique().sort())))
    processes = (framework["global_tid"].unique() & ~0xFFFFFF).unique().to_list()
    domains = {(process, number): kind for process in processes for kind, number in _DOMAINS.items()}
    columns = TABLE_BY_NAME["nvtx_events"].column_names
    return replace(
        trace,
        tables={**trace.tables, "nvtx_events": together.select(columns)},
        nvtx_domains={**trace.nvtx_domains, **domains},
    )


def _kind_of(path: str) -> str:
    name = path.rpartition(" > ")[2]
    for kind in _DOMAINS:
        if name.startswith(f"{kind}:"):
            return kind
    return TENSORRT_LAYER if name.startswith(_TENSORRT) else RANGE


def _parts(view: View, ranges: Ranges) -> npt.NDArray[np.int64]:
    part = np.full(len(view.operations), OUTSIDE, np.int64)
    launched = view.operations.launch != NO_ROW
    for thread in np.unique(ranges.thread).tolist():
        mine = launched & (view.call_threads == thread)
        if mine.any():
            part[mine] = ranges.path_at(thread, view.calls.starts[mine])
    return part
