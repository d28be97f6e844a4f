"""Power over the window as a figure, energy by phase and limits as tables."""

from __future__ import annotations

import polars as pl

from nitro.analyzer import Analysis
from nitro.analyzer.message import message

from .. import figures, numbers
from ..blocks import Block, Column, Figure, Table
from ..names import nvtx_label, table_word

_NJ_PER_J = 1_000_000_000
_SHOWN = 20
# From this depth on, phases are shown only where the sensor resolves them.
_DEEP = 2
_LOADS = (("gpu_load", message("GPU load")), ("memory_load", message("memory controller load")))


def power_figure(analysis: Analysis) -> list[Block]:
    """Return power, loads and clock of the log over the window; nothing where there is no log."""
    table = analysis.table("power_over_time")
    if table is None or not _has(table.frame, "power_w"):
        return []
    frame, start = table.frame, analysis.window.start_ns
    domain = (0.0, (analysis.window.end_ns - start) / 1e6)
    specs = [_line(frame, "power_w", message("power, W"), start, domain, height=130)]
    known = [(name, title) for name, title in _LOADS if _has(frame, name)]
    if known:
        rows = [
            ((time - start) / 1e6, title, round(value * 100, 3), numbers.percent(value))
            for name, title in known
            for time, value in frame.select("start_ns", name).iter_rows()
            if value is not None
        ]
        specs.append(
            figures.over_time(
                rows,
                [title for _, title in known],
                x_title=_X_TITLE,
                y_title=message("% load"),
                y_domain=(0, 105),
                height=80,
                x_domain=domain,
            )
        )
    if _has(frame, "gpu_clock"):
        specs.append(_line(frame, "gpu_clock", message("GPU clock, MHz"), start, domain, height=70))
    for spec in specs[:-1]:
        spec["encoding"]["x"]["axis"] = {"grid": False, "labels": False, "title": None}
    sentence = message(
        "Power of the total over the window, with the loads and the clock of the same log under it; each step is the "
        "mean of an equal part of the window."
    )
    return [Figure("power-over-time", message("Power over the window"), sentence, figures.stacked(*specs))]


_X_TITLE = message("time since the window began, ms")


def _has(frame: pl.DataFrame, name: str) -> bool:
    return frame[name].null_count() < len(frame)


def _line(
    frame: pl.DataFrame, name: str, title: str, start: int, domain: tuple[float, float], *, height: int
) -> figures.Spec:
    is_clock = name == "gpu_clock"
    rows = [
        (
            (time - start) / 1e6,
            title,
            value / 1e6 if is_clock else round(value, 4),
            numbers.rate(value, "Hz") if is_clock else numbers.in_unit(value, "W"),
        )
        for time, value in frame.select("start_ns", name).iter_rows()
        if value is not None
    ]
    return figures.over_time(
        rows,
        [title],
        x_title=_X_TITLE,
        y_title=title,
        height=height,
        y_domain=(0, max(max(value for _, _, value, _ in rows) * 1.05, 1e-3)),
        x_domain=domain,
    )


def energy_table(analysis: Analysis) -> list[Block]:
    """Return energy by phase; the rows of each depth add up to the window."""
    found = analysis.table("energy_by_phase")
    if found is None or found.frame.is_empty():
        return []
    total = analysis.value("energy") or 0.0
    rows = tuple(
        (
            nvtx_label(path),
            numbers.count(depth),
            numbers.count(instances),
            numbers.duration(time_ns),
            numbers.count(samples),
            numbers.MISSING if energy is None else numbers.in_unit(energy / _NJ_PER_J, "J"),
            numbers.MISSING if error is None else numbers.in_unit(error / _NJ_PER_J, "J"),
            numbers.percent(energy / _NJ_PER_J / total) if energy is not None and total else numbers.MISSING,
            numbers.MISSING if power is None else numbers.in_unit(power, "W"),
            numbers.MISSING if each is None else numbers.in_unit(each, "J"),
        )
        for depth, path, instances, time_ns, samples, energy, error, power, each in _listed(found.frame).iter_rows()
    )
    columns = (
        Column(message("phase"), "left", flexible=True, is_name=True),
        Column(message("depth")),
        Column(message("instances")),
        Column(message("time")),
        Column(message("samples")),
        Column(message("energy")),
        Column(message("±")),
        Column(message("of the window")),
        Column(message("mean power")),
        Column(message("each")),
    )
    note = message(
        "The rows of a depth add up to the energy of the window. A phase has joules of its own only where its mean "
        "projection lasts at least three periods of the power sensor and its time holds at least 20 of its samples; "
        "the others are one row, and from depth {deep} on not listed. ± bounds what may have happened between samples "
        "and the error of the clock, not the accuracy of the sensor.",
        deep=_DEEP,
    )
    title = message("Energy by phase")
    return [Table(columns, rows, note=note, title=title, name="energy-by-phase", shown=_SHOWN)]


def _listed(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows to show: deep ranges that are too short are many, and a depth may have no others."""
    known = pl.col("energy_nj").is_not_null()
    resolved = (known & pl.col("instances").is_not_null()).any().over("depth")
    return frame.filter((pl.col("depth") < _DEEP) | (known & resolved))


def events_table(analysis: Analysis) -> list[Block]:
    """Return when clocks were held down or the power mode changed; nothing where the log shows none."""
    found = analysis.table("power_events")
    if found is None or found.frame.is_empty():
        return []
    rows = tuple(
        (table_word(what), numbers.seconds(start), numbers.duration(end - start), before, after)
        for start, end, what, before, after in found.frame.iter_rows()
    )
    columns = (
        Column(message("what"), "left", flexible=True),
        Column(message("from")),
        Column(message("for")),
        Column(message("before")),
        Column(message("after")),
    )
    title = message("Limits and changes of the power mode")
    note = message("Times since session start; records before and after the window count too.")
    return [Table(columns, rows, note=note, title=title, name="power-events", shown=_SHOWN)]
