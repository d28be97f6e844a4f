"""Layers: time, launches and counters of every part of a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import polars as pl

from ..counters import RATIOS, counters_of_kernels
from ..kernel_names import NAME_LOST, known_names
from ..layers import OPERATOR, LayerProfile, LayerTree, layer_tree, plain_name
from ..message import message
from ..metric import Metric, NotMeasured, Result, ResultColumn, ResultTable
from ..nvtx import project
from ..operations import Kind
from ..power_layers import LayerEnergy, energy_of_layers
from ..profile import Profile
from ..view import View
from .power import chosen_log, power_curve

_ROWS = 2000
THE_TRACE = "trace"
_COUNTED_RATIOS = RATIOS[:4]
_NO_LAYERS = message(
    "nothing tells which layer launched a kernel; mark layers with NVTX (TensorRT does so with --trace=nvtx), or give "
    "a profile of the PyTorch profiler, alone or beside the trace"
)
_COLUMNS = (
    ResultColumn("source", "", message("trace, or the file of a profile beside it")),
    ResultColumn("path", "", message("names from the outermost part down; a counter at the end of a name is #")),
    ResultColumn("name", "", message("own name")),
    ResultColumn("depth", "1", message("parts around it")),
    ResultColumn("kind", "", message("module, operator, TensorRT layer or range")),
    ResultColumn("count", "1", message("how often it launched GPU work in the window")),
    ResultColumn("launches", "1", message("GPU operations launched in it, inner parts included")),
    ResultColumn("total_ns", "ns", message("summed time of these operations inside the window")),
    ResultColumn("self_ns", "ns", message("of it, launched in no inner part")),
    ResultColumn("share", "ratio", message("of the summed time of all operations in the window")),
    ResultColumn("self_launches", "1", message("operations launched in no inner part")),
    ResultColumn("kernel", "", message("kernel with most of the part's own time; null where it has none")),
    ResultColumn("kernel_share", "ratio", message("its share of the part's own time")),
    ResultColumn("sm_active_ratio", "ratio", message("counted, weighted by kernel time; null without counters")),
    ResultColumn("issue_active_ratio", "ratio", message("counted, weighted by kernel time")),
    ResultColumn("tensor_active_ratio", "ratio", message("counted, weighted by kernel time")),
    ResultColumn("occupancy_ratio", "ratio", message("counted, weighted by kernel time")),
    ResultColumn("dram_bytes", "bytes", message("counted, of all its kernels; null unless all have it")),
    ResultColumn("bound", "", message("what most of its counted kernel time is held by: compute, memory or latency")),
    ResultColumn("energy_nj", "nJ", message("energy while it ran alone on its depth; null where too short to measure")),
    ResultColumn("uncertainty_nj", "nJ", message("by how much the energy may be off, in either direction")),
)
_PROFILE_COLUMNS = (
    ResultColumn("source", "", message("file")),
    ResultColumn("name", "", message("layer, as TensorRT names it")),
    ResultColumn("layer_type", "", message("type; null where the file has none")),
    ResultColumn("tactic", "", message("kernel that the builder chose; null where the file has none")),
    ResultColumn("mean_ns", "ns", message("mean over inferences, measured by TensorRT; null in a list of layers")),
    ResultColumn("share", "ratio", message("of the sum over layers")),
    ResultColumn("trace_mean_ns", "ns", message("GPU time of one execution in the trace; null where it is not found")),
)


def compute(view: View) -> Iterator[Result]:
    """Parts of the program and the GPU work that each launched in the window.

    Parts are NVTX ranges, TensorRT layers among them, and the modules and operators of a PyTorch profile. An operation
    belongs to the innermost part whose range on the launching thread is around the begin of its launch call, and
    counts in all parts around it. Parts that last long enough for the power log beside the trace get joules, by the
    rule of `energy_by_phase`. A profile beside the trace is another run: its own window and its own times stand in its
    rows, under its file name. Graph launches count as one operation.
    """
    tables = [_table(view, THE_TRACE)]
    tables += [
        _table(View(entry.evidence.trace), entry.evidence.source.file_name) for entry in view.evidence_of(Profile)
    ]
    found = [table for table in tables if table is not None and len(table)]
    if found:
        yield ResultTable("layers", message("Layers"), _COLUMNS, pl.concat(found))
    else:
        yield NotMeasured("layers", _NO_LAYERS)
    profiles = [_profile(entry.evidence, found) for entry in view.evidence_of(LayerProfile)]
    if profiles:
        yield ResultTable("tensorrt_layers", message("TensorRT layers"), _PROFILE_COLUMNS, pl.concat(profiles))
    else:
        yield NotMeasured("tensorrt_layers", _NO_PROFILE)


_NO_PROFILE = message("no layer profile of TensorRT was given; make one with `trtexec --exportProfile=layers.json`")


def _table(view: View, source: str) -> pl.DataFrame | None:
    tree = layer_tree(view)
    if tree is None or not len(view.operations):
        return None
    rows = _operations(view, tree)
    if rows.is_empty():
        return None
    whole = int(rows["inside_ns"].sum())
    chains = {part: tree.with_ancestors(part) for part in rows["part"].unique().to_list()}
    links = [(part, above, part == above) for part, chain in chains.items() for above in chain]
    around = pl.DataFrame(links, schema={"part": pl.Int64, "above": pl.Int64, "is_own": pl.Boolean}, orient="row")
    inside = rows.join(around, on="part", how="inner")
    if inside.is_empty():
        return None
    grouped = inside.group_by("above").agg(
        pl.col("launches").sum(),
        pl.col("inside_ns").sum().alias("total_ns"),
        pl.col("inside_ns").filter("is_own").sum().alias("self_ns"),
        pl.col("launches").filter("is_own").sum().alias("self_launches"),
    )
    own = inside.filter("is_own")
    grouped = grouped.join(_top_kernels(own), on="above", how="left").join(_counted(inside), on="above", how="left")
    counts, energy = _counts(view, tree), _energy(view, tree)
    parts = grouped["above"].to_list()
    return (
        grouped.with_columns(
            pl.lit(source).alias("source"),
            pl.Series("path", [tree.ranges.paths[part] for part in parts], dtype=pl.String),
            pl.Series("name", [tree.name(part) for part in parts], dtype=pl.String),
            pl.Series("depth", [tree.depth(part) for part in parts], dtype=pl.Int64),
            pl.Series("kind", [tree.kind[part] for part in parts], dtype=pl.String),
            pl.Series("count", [counts.get(part, 0) for part in parts], dtype=pl.Int64),
            (pl.col("total_ns") / max(whole, 1)).alias("share"),
            (pl.col("kernel_ns") / pl.col("self_ns")).fill_nan(None).alias("kernel_share"),
            *(
                pl.Series(name, [getattr(energy.get(part), name, None) for part in parts], dtype=pl.Int64)
                for name in ("energy_nj", "uncertainty_nj")
            ),
        )
        .sort("total_ns", "path", descending=[True, False])
        .head(_ROWS)
        .select(column.name for column in _COLUMNS)
    )


def _energy(view: View, tree: LayerTree) -> dict[int, LayerEnergy]:
    """Return the energy of the parts that the power log beside the trace resolves; empty where none covers the window.

    The log must cover the whole window, as for all energies.
    """
    placed, low, high = chosen_log(view), view.window.start_ns, view.window.end_ns
    if placed is None or len(placed.evidence.times_ns) < 2:
        return {}
    curve = power_curve(view, placed)
    if curve.covered_ns(low, high) < high - low:
        return {}
    projections = project(tree.ranges, view.operations, view.calls, view.call_threads)
    return energy_of_layers(tree, projections, curve, placed.evidence.sensor_period_ns, low, high)


def _operations(view: View, tree: LayerTree) -> pl.DataFrame:
    """Return the window's operations summed by part, kernel and what holds it, with sums of the counters of each.

    A trace has many launches and few different ones, so that all else is done on a small table.
    """
    operations = view.operations
    inside = np.zeros(len(operations), np.int64)
    for device in view.devices:
        here = operations.device_id == device.device_id
        inside[here] = device.inside.ends - device.inside.starts
    keep = (inside > 0) | view.starts_in_window
    is_kernel = operations.kind == Kind.KERNEL
    row = pl.Series("row", np.where(is_kernel, operations.row, 0)).set(pl.Series(~is_kernel), None)
    facts = _facts_of_kernels(view)
    columns = {"part": tree.part, "inside_ns": inside, "is_kernel": is_kernel}
    frame = pl.DataFrame(columns).with_columns(facts[name].gather(row) for name in facts.columns).filter(keep)
    weight = pl.col("inside_ns")
    sums = [(pl.col(name) * weight).sum().alias(f"{name}_sum") for name in _COUNTED_RATIOS]
    sums += [weight.filter(pl.col(name).is_not_null()).sum().alias(f"{name}_ns") for name in _COUNTED_RATIOS]
    summed = frame.group_by("part", "is_kernel", "kernel", "bound").agg(
        pl.len().cast(pl.Int64).alias("launches"),
        weight.sum(),
        *sums,
        pl.col("dram_bytes").sum(),
        (pl.col("dram_bytes").is_null() & pl.col("is_kernel")).sum().alias("uncounted"),
    )
    lost = pl.col("is_kernel") & pl.col("kernel").is_null()
    name = pl.when(lost).then(pl.lit(NAME_LOST)).otherwise(pl.col("kernel").cast(pl.String))
    return summed.with_columns(name.alias("kernel"))


def _facts_of_kernels(view: View) -> pl.DataFrame:
    """Return name and counters of every kernel of the trace, in the order of its table."""
    kernels = known_names(view.trace.table_or_empty("kernels")).to_frame("kernel")
    counters = counters_of_kernels(view)
    if counters is None:
        nothing = dict.fromkeys((*_COUNTED_RATIOS, "dram_bytes"), pl.Float64)
        counters = pl.DataFrame(schema={**nothing, "bound": pl.String}).clear(len(kernels))
    return pl.concat([kernels, counters.select(*_COUNTED_RATIOS, "dram_bytes", "bound")], how="horizontal")


def _top_kernels(own: pl.DataFrame) -> pl.DataFrame:
    named = own.filter("is_kernel").group_by("above", "kernel").agg(pl.col("inside_ns").sum().alias("kernel_ns"))
    ranked = named.sort("kernel_ns", "kernel", descending=[True, False])
    return ranked.group_by("above", maintain_order=True).first()


def _counted(inside: pl.DataFrame) -> pl.DataFrame:
    """Return the counters of each part: ratios weighted by time, bytes summed where all kernels have them."""
    kernels = inside.filter("is_kernel")
    ratios = [
        (pl.col(f"{name}_sum").sum() / pl.col(f"{name}_ns").sum()).fill_nan(None).alias(name)
        for name in _COUNTED_RATIOS
    ]
    whole = pl.when(pl.col("uncounted").sum() == 0).then(pl.col("dram_bytes").sum()).alias("dram_bytes")
    bounds = kernels.drop_nulls("bound").group_by("above", "bound").agg(pl.col("inside_ns").sum())
    ranked = bounds.sort("inside_ns", "bound", descending=True).group_by("above", maintain_order=True).first()
    return kernels.group_by("above").agg(*ratios, whole).join(ranked.select("above", "bound"), on="above", how="left")


def _counts(view: View, tree: LayerTree) -> dict[int, int]:
    """Return how often each part launched work that begins in the window."""
    ranges, counts = tree.ranges, defaultdict[int, int](int)
    launched = view.starts_in_window & (view.operations.launch >= 0)
    for thread in np.unique(ranges.thread).tolist():
        calls = np.sort(view.calls.starts[launched & (view.call_threads == thread)])
        mine = np.flatnonzero(ranges.thread == thread)
        filled = np.searchsorted(calls, ranges.ends[mine]) > np.searchsorted(calls, ranges.starts[mine])
        parts, times = np.unique(ranges.path[mine[filled]], return_counts=True)
        for part, number in zip(parts.tolist(), times.tolist(), strict=True):
            counts[part] += number
    return counts


def _profile(profile: LayerProfile, found: list[pl.DataFrame]) -> pl.DataFrame:
    """Return TensorRT's own times beside those of the same layers in a trace."""
    traced: dict[str, float] = {}
    for table in found:
        for path, total, count in (
            table.filter(pl.col("kind") != OPERATOR).select("path", "total_ns", "count").iter_rows()
        ):
            if count:
                traced.setdefault(plain_name(path), total / count)
    total = pl.col("mean_ns").sum()
    return profile.layers.with_columns(
        pl.lit(profile.source.file_name).alias("source"),
        pl.when(total > 0).then(pl.col("mean_ns") / total).alias("share"),
        pl.Series("trace_mean_ns", [traced.get(name) for name in profile.layers["name"]], dtype=pl.Float64),
    ).select(column.name for column in _PROFILE_COLUMNS)


METRIC = Metric(
    id="layers",
    title=message("Layers"),
    provides={"layers": "table", "tensorrt_layers": "table"},
    needs=(),
    missing="",
    better="neither",
    reference=message("the innermost range around a launch call, as in nsys `nvtx_kern_sum`"),
    compute=compute,
    order=37,
)
