"""GPU level: what utilisation means here, SM activity by phase, overlap of phases, memory."""

from __future__ import annotations

import polars as pl

from nitro.analyzer import Analysis

from .. import numbers
from ..blocks import Block, Column, KeyValues, Paragraph, Table
from ..report import Section

_SHOWN = 8
_SAMPLED = (
    ("gr_active_ratio", "GR active"),
    ("sm_active_ratio", "SM active"),
    ("sm_issue_ratio", "SM issue"),
    ("tensor_active_ratio", "tensor active"),
    ("sm_occupancy", "warp occupancy"),
)


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return the sampled metrics, phase overlap and memory of each device; nothing where none was recorded."""
    blocks: list[Block] = []
    for device in analysis.devices:
        facts = _facts(analysis, device.device_id)
        phases = analysis.table("sampled_by_phase", device.device_id)
        if (facts or phases) and len(analysis.devices) > 1:
            blocks.append(Paragraph(f"GPU {device.device_id}, {device.name}"))
        if facts:
            blocks.append(KeyValues(facts))
        if phases is not None and len(phases.frame):
            blocks.append(_phases(phases.frame))
    overlap = analysis.table("phase_pairs")
    if overlap is not None:
        blocks.append(_overlap(overlap.frame))
    return tuple(blocks)


def _facts(analysis: Analysis, device_id: int) -> tuple[tuple[str, str], ...]:
    facts: list[tuple[str, str]] = []
    sampled = [
        f"{title} {numbers.percent(value)}"
        for metric, title in _SAMPLED
        if (value := analysis.value(metric, device_id)) is not None
    ]
    if sampled:
        busy = analysis.value("gpu_busy_ratio", device_id)
        facts.append(("Utilisation", f"busy (traced) {numbers.percent(busy)} · " + " · ".join(sampled)))
    dram = analysis.parts("dram_throughput", device_id)
    if dram:
        text = " · ".join(f"{name} {numbers.percent(part.value)}" for name, part in dram.items())
        facts.append(("DRAM", f"{text} of the peak bandwidth"))
    clock = analysis.parts("gpc_clock", device_id)
    if clock:
        lowest, highest = clock["min"].value, clock["max"].value
        span = f"{numbers.rate(lowest, 'Hz')} to {numbers.rate(highest, 'Hz')}"
        facts.append(("GPC clock", f"{numbers.rate(clock['mean'].value, 'Hz')} mean, {span}"))
    peak = analysis.parts("gpu_memory_peak", device_id)
    if peak:
        text = f"{numbers.size(peak['total'].value)} at most"
        held = analysis.parts("gpu_memory_in_use", device_id)
        grown = held["window end"].value - held["window start"].value
        if grown > 0:
            text += f", {numbers.size(grown)} more at the end of the window than at its start"
        facts.append(("GPU memory", text))
    streams = analysis.parts("stream_concurrency", device_id)
    if len(streams) > 1:
        text = " · ".join(f"{name} busy {numbers.duration(part.value)}" for name, part in streams.items())
        facts.append(("Streams", text))
    return tuple(facts)


def _phases(frame: pl.DataFrame) -> Table:
    columns = (
        Column("phase", "left", flexible=True),
        Column("projection"),
        Column("SM active"),
        Column("SM issue"),
        Column("tensor"),
        Column("occupancy"),
        Column("shared"),
    )
    rows = tuple(
        (
            row["nvtx_path"],
            numbers.duration(row["projection_ns"]),
            *(numbers.percent(row[name]) for name in ("sm_active", "sm_issue", "tensor_active", "compute_warps")),
            numbers.percent(row["shared_ratio"]),
        )
        for row in frame.head(_SHOWN).iter_rows(named=True)
    )
    outside = "" if frame["in_window"].any() else "These phases lie outside the window. "
    note = f"{outside}Sampled over the projections; where other phases ran too (shared), their work is in the values."
    return Table(columns, rows, note)


def _overlap(frame: pl.DataFrame) -> Table:
    columns = (
        Column("phases side by side", "left", flexible=True),
        Column("a"),
        Column("b"),
        Column("together"),
        Column("gain now"),
        Column("at most"),
    )
    rows = tuple(
        (
            f"{row['first']} + {row['second'].rpartition(' > ')[2]}",
            numbers.duration(row["first_ns"]),
            numbers.duration(row["second_ns"]),
            numbers.percent(row["share_of_shorter"]),
            f"{row['gain']:.2f} x",
            f"{row['bound']:.2f} x",
        )
        for row in frame.head(3).iter_rows(named=True)
    )
    note = (
        "Together: part of the shorter phase. At most: (a + b) / max(a, b), if the GPU had room for both at full speed."
    )
    return Table(columns, rows, note)


SECTION = Section("gpu_level", "GPU level", 45, build)
