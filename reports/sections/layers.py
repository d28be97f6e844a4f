"""Layers: which part of the model the GPU time belongs to, and what holds it."""

from __future__ import annotations

from typing import Any

import polars as pl

from nitro.analyzer import Analysis
from nitro.analyzer.energy import NJ_PER_J
from nitro.analyzer.layers import KINDS, RANGE, plain_name
from nitro.analyzer.message import message
from nitro.analyzer.metrics.layers import THE_TRACE
from nitro.analyzer.nvtx import PATH_SEPARATOR
from nitro.analyzer.power_log import PowerLog
from nitro.analyzer.power_phases import FEWEST_SAMPLES, LEAST_PERIODS
from nitro.analyzer.roofline import BOUNDS

from .. import numbers
from ..blocks import Block, Column, Paragraph, Table
from ..names import kernel_label
from ..report import Section

_SHOWN = 12
_ROWS_KEPT = 500
_PARTS_SHOWN = 2
# The kernel stands beside the layer for orientation; whole names are in the sections about kernels.
_KERNEL_LETTERS = 60


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return the layers of each input that knows them, and the profile of TensorRT."""
    blocks: list[Block] = []
    table = analysis.table("layers")
    if table is not None:
        # Ranges of the user alone are the phases, which have a section of their own; not for counters.
        says_more = (pl.col("kind") != RANGE) | pl.col("bound").is_not_null()
        for source, frame in table.frame.group_by("source", maintain_order=True):
            if len(frame.filter(says_more)):
                blocks.append(_bottlenecks(frame, str(source[0]), len(blocks)))
                if source[0] == THE_TRACE:
                    blocks += _energy(analysis, frame)
    profile = analysis.table("tensorrt_layers")
    if profile is not None:
        blocks.append(_profile(profile.frame))
    return tuple(blocks)


def _bottlenecks(frame: pl.DataFrame, source: str, number: int) -> Table:
    """Return the layers that have most time of their own; a part that only holds others is no bottleneck itself."""
    own = frame.filter(pl.col("self_ns") > 0).sort("self_ns", "path", descending=[True, False])
    has_counters = own["bound"].null_count() < len(own)
    has_kinds = own["kind"].n_unique() > 1
    whole = int(frame["self_ns"].sum()) or 1
    rows = tuple(
        _bottleneck(row, whole, has_counters=has_counters, has_kinds=has_kinds)
        for row in own.head(_ROWS_KEPT).iter_rows(named=True)
    )
    columns = _bottleneck_columns(has_counters=has_counters, has_kinds=has_kinds)
    note = _note_on_bottlenecks(source, has_counters=has_counters)
    name = "layers" if number == 0 else f"layers-{number}"
    return Table(columns, rows, note, message("Layers by GPU time of their own"), name, shown=_SHOWN)


def _bottleneck(row: dict[str, Any], whole_ns: int, *, has_counters: bool, has_kinds: bool) -> tuple[str, ...]:
    """Return the cells of a layer, in the order of `_bottleneck_columns`."""
    each = row["self_ns"] / row["count"] if row["count"] else None
    cells: list[str] = [
        numbers.percent(row["self_ns"] / whole_ns),
        numbers.duration(row["self_ns"]),
        numbers.count(row["count"]),
        numbers.duration(each),
        numbers.count(row["self_launches"]),
    ]
    if has_counters:
        cells += [
            numbers.percent(row["sm_active_ratio"]),
            numbers.percent(row["tensor_active_ratio"]),
            BOUNDS.get(row["bound"], numbers.MISSING),
        ]
    if has_kinds:
        cells.append(KINDS[row["kind"]])
    kernel = _cut(kernel_label(row["kernel"])) if row["kernel"] else numbers.MISSING
    return (*cells, _placed_name(row), kernel)


def _bottleneck_columns(*, has_counters: bool, has_kinds: bool) -> tuple[Column, ...]:
    columns = [
        Column(message("share")),
        Column(message("own time")),
        Column(message("count")),
        Column(message("each")),
        Column(message("launches")),
    ]
    if has_counters:
        columns += [Column(message("SM")), Column(message("tensor")), Column(message("held by"), "left")]
    if has_kinds:
        columns.append(Column(message("kind"), "left"))
    names = (message("layer"), message("longest kernel"))
    return (*columns, *(Column(name, "left", flexible=True, is_name=True) for name in names))


def _note_on_bottlenecks(source: str, *, has_counters: bool) -> str:
    note = message(
        "Own time: GPU work whose launch call lies in the layer and in no layer inside it; the shares add up to all "
        "work that was launched in layers."
    )
    if has_counters:
        note = message(
            "{note} SM and tensor: active, of elapsed cycles; counters are of all its kernels, inner layers included.",
            note=note,
        )
    if source != THE_TRACE:
        note = message("{note} From {file}, another run of the program.", note=note, file=source)
    return note


def _energy(analysis: Analysis, frame: pl.DataFrame) -> list[Block]:
    """Return the energy of those layers that the power sensor resolves, or why it resolves none."""
    logs = [placed.evidence for placed in analysis.evidence if isinstance(placed.evidence, PowerLog)]
    if not logs or analysis.find("energy") is None:
        return []
    period = max(logs, key=lambda log: log.records).sensor_period_ns
    rule = message(
        "A layer has joules of its own only where its projections last at least {least} on average, three measuring "
        "periods of the power sensor, and at least {samples} of its samples fall into them.",
        least=numbers.duration(LEAST_PERIODS * period),
        samples=numbers.count(FEWEST_SAMPLES),
    )
    known = frame.drop_nulls("energy_nj").sort("energy_nj", "path", descending=[True, False]).head(_ROWS_KEPT)
    if known.is_empty():
        return [Paragraph(message("Energy of layers: none lasts long enough. {rule}", rule=rule))]
    total = analysis.value("energy") or 0.0
    rows = tuple(
        (
            numbers.in_unit(row["energy_nj"] / NJ_PER_J, "J"),
            numbers.in_unit(row["uncertainty_nj"] / NJ_PER_J, "J"),
            numbers.percent(row["energy_nj"] / NJ_PER_J / total if total else None),
            numbers.in_unit(row["energy_nj"] / NJ_PER_J / row["count"], "J") if row["count"] else numbers.MISSING,
            numbers.duration(row["total_ns"]),
            numbers.count(row["count"]),
            _placed_name(row),
        )
        for row in known.iter_rows(named=True)
    )
    columns = (
        Column(message("energy")),
        Column(message("±")),
        Column(message("of the window")),
        Column(message("each")),
        Column(message("GPU time")),
        Column(message("count")),
        Column(message("layer"), "left", flexible=True, is_name=True),
    )
    note = message("{rule} All others are too short to measure. Inner layers count in those around them.", rule=rule)
    return [Table(columns, rows, note, message("Energy of layers"), "energy-of-layers", shown=_SHOWN)]


def _cut(name: str) -> str:
    return name if len(name) <= _KERNEL_LETTERS else f"{name[: _KERNEL_LETTERS - 1]}…"


def _placed_name(row: dict[str, Any]) -> str:
    """Return the name of a layer with the innermost parts around it, since names repeat from block to block."""
    around = row["path"].split(PATH_SEPARATOR)[:-1][-_PARTS_SHOWN:]
    where = " › ".join(plain_name(part) for part in around)
    return f"{row['name']} ({where})" if where else str(row["name"])


def _profile(frame: pl.DataFrame) -> Table:
    """Return what TensorRT measured itself, the slowest layers first."""
    ranked = frame.sort("mean_ns", "name", descending=[True, False], nulls_last=True).head(_ROWS_KEPT)
    rows = tuple(
        (
            numbers.percent(row["share"]),
            numbers.duration(row["mean_ns"]),
            numbers.duration(row["trace_mean_ns"]),
            row["layer_type"] or numbers.MISSING,
            row["name"],
        )
        for row in ranked.iter_rows(named=True)
    )
    columns = (
        Column(message("share")),
        Column(message("TensorRT mean")),
        Column(message("trace mean")),
        Column(message("type"), "left"),
        Column(message("layer"), "left", flexible=True, is_name=True),
    )
    note = message(
        "TensorRT times each layer apart, which adds a synchronisation; the trace has the times of the real run."
    )
    return Table(columns, rows, note, message("Layers as TensorRT timed them"), "tensorrt-layers", shown=_SHOWN)


SECTION = Section("layers", message("Layers"), 62, build)
