"""NVTX phases: CPU range and GPU projection side by side, and how far phases overlap on the GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import polars as pl

from nitro.analyzer import Analysis
from nitro.analyzer.message import message, one_or_many
from nitro.analyzer.nvtx import PATH_SEPARATOR

from .. import figures, numbers
from ..blocks import Block, Column, Figure, Paragraph, Table
from ..palette import SERIES
from ..report import Section

_SHOWN = 8
_ROWS_KEPT = 500
_PAIRS_SHOWN = 3
_DEEPEST = 1


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return the phases of the window, and those outside it where the window has none."""
    blocks: list[Block] = []
    table = analysis.table("nvtx_phases")
    if table is not None:
        inside = table.frame.filter(pl.col("in_window"))
        outside = table.frame.filter(~pl.col("in_window"))
        if len(inside):
            blocks.append(_table(inside, is_inside=True))
            if len(outside) and not len(inside.filter(pl.col("with_gpu_work") > 0)):
                blocks.append(_table(outside, is_inside=False))
        elif len(outside):
            blocks += [Paragraph(message("No range lies inside the window.")), _table(outside, is_inside=False)]
    lanes = analysis.table("phase_lanes")
    if lanes is not None and len(lanes.frame):
        blocks.append(_lanes(lanes.frame))
    pairs = analysis.table("phase_pairs")
    if pairs is not None and len(pairs.frame):
        blocks.append(_overlap(pairs.frame))
    return tuple(blocks)


def _table(frame: pl.DataFrame, *, is_inside: bool) -> Table:
    """Show the outer levels first: those with most GPU work, then most CPU time, in the order of their begin."""
    ranked = frame.sort(
        [pl.col("depth") > _DEEPEST, "operation_time_ns", "cpu_total_ns", "nvtx_path"],
        descending=[False, True, True, False],
    )
    shown = int(min((frame["depth"] <= _DEEPEST).sum(), _SHOWN)) or _SHOWN
    first = ranked.head(shown).sort("first_start_ns", "depth")
    kept = pl.concat([first, ranked[shown:_ROWS_KEPT]])
    paths = set(first["nvtx_path"].to_list())
    rows = tuple(
        (
            _indented(row["nvtx_path"], paths if index < shown else set()),
            numbers.count(row["count"]),
            numbers.duration(row["cpu_mean_ns"]),
            numbers.duration(row["projection_mean_ns"]),
            numbers.percent(row["gpu_busy_ratio"]),
            numbers.count(row["operations"]),
        )
        for index, row in enumerate(kept.iter_rows(named=True))
    )
    more = len(frame) - len(kept)
    note = message(
        "CPU: time of the range on its thread. Projection: from the first start to the last end of the GPU work that "
        "it launched, which may run after the range has ended."
    )
    if more > 0:
        one = message("{note} 1 more range is in the JSON and CSV output.", note=note)
        many = message("{note} {count:,} more ranges are in the JSON and CSV output.", note=note, count=more)
        note = one_or_many(more, one, many)
    title = message("NVTX phases of the window") if is_inside else message("NVTX phases outside the window")
    name = "nvtx-phases" if is_inside else "nvtx-phases-outside"
    columns = (
        Column(message("range"), "left", flexible=True, is_name=True),
        Column(message("count")),
        Column(message("CPU mean")),
        Column(message("projection mean")),
        Column(message("GPU busy in it")),
        Column(message("operations")),
    )
    return Table(columns, rows, note, title, name, shown=shown)


def _indented(path: str, shown: set[str]) -> str:
    """Show a range below its parent by its own name, else by its whole path."""
    parent, separator, name = path.rpartition(PATH_SEPARATOR)
    if not separator:
        return path
    return "\N{NO-BREAK SPACE}\N{NO-BREAK SPACE}" * path.count(PATH_SEPARATOR) + name if parent in shown else path


def _lanes(frame: pl.DataFrame) -> Figure:
    """Return the phases of a typical iteration as lanes, so that one sees which ran side by side on the GPU."""
    begin = frame["start_ns"].min()
    assert isinstance(begin, int)
    paths = frame["nvtx_path"].unique(maintain_order=True).to_list()
    shown = _lane_names(paths)
    values = [
        {
            "phase": shown[path],
            "start": (start - begin) / 1e6,
            "end": (end - begin) / 1e6,
            "shown": numbers.duration(end - start),
        }
        for path, start, end in frame.iter_rows()
    ]
    lanes = list(shown.values())
    encoding = {
        "y": {
            "field": "phase",
            "type": "nominal",
            "title": None,
            "sort": lanes,
            "scale": {"domain": lanes, "paddingInner": 0.3},
            "axis": {"domain": False, "ticks": False, **figures.name_labels(34)},
        },
        "x": {
            "field": "start",
            "type": "quantitative",
            "title": message("time, ms"),
            "scale": {"nice": False},
            "axis": {"grid": True},
        },
        "x2": {"field": "end"},
        "tooltip": [
            {"field": "phase", "type": "nominal", "title": message("phase")},
            {"field": "shown", "type": "nominal", "title": message("time on the GPU")},
        ],
    }
    mark = {"type": "bar", "color": SERIES[0].colour, "opacity": 0.8}
    spec = {"data": {"values": values}, "height": {"step": 22}, "mark": mark, "encoding": encoding}
    sentence = message(
        "The GPU work of each phase in a typical iteration, from its first start to its last end, gaps included. "
        "Phases whose bars lie above one another run side by side; phases that follow each other do not overlap."
    )
    return Figure("phase-lanes", message("Phases on the GPU in a typical iteration"), sentence, spec)


def _lane_names(paths: Sequence[str]) -> dict[str, str]:
    """Return a name for the lane of each path: its own name, indented below its parent, unless two would be alike."""
    short = {path: _indented(path, set(paths)) for path in paths}
    alike = Counter(short.values())
    return {path: name if alike[name] == 1 else path for path, name in short.items()}


def _overlap(frame: pl.DataFrame) -> Table:
    columns = (
        Column(message("phases side by side"), "left", flexible=True, is_name=True),
        Column(message("a")),
        Column(message("b")),
        Column(message("together")),
        Column(message("gain now")),
        Column(message("at most")),
    )
    rows = tuple(
        (
            f"{row['first']} + {row['second'].rpartition(PATH_SEPARATOR)[2]}",
            numbers.duration(row["first_ns"]),
            numbers.duration(row["second_ns"]),
            numbers.percent(row["share_of_shorter"]),
            numbers.times(row["gain"]),
            numbers.times(row["bound"]),
        )
        for row in frame.iter_rows(named=True)
    )
    note = message(
        "Together: part of the shorter phase. At most: (a + b) / max(a, b), if the GPU had room for both at full speed."
    )
    return Table(columns, rows, note, message("Overlap of phases on the GPU"), "phase-overlap", shown=_PAIRS_SHOWN)


SECTION = Section("phases", message("NVTX phases"), 60, build)
