"""Several traces side by side: the same key figures, one column a trace, and no judgement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile

from nitro.analyzer import Analysis
from nitro.analyzer.message import Message, message

from . import numbers
from .blocks import Block, Column, Paragraph, Table
from .sections.summary import busiest_device, largest_cause

_WORTH_CUTTING = 4
_LONGEST_NAME = 36
Row = tuple[Message, Callable[[Analysis], str]]


def compared(analyses: Sequence[Analysis]) -> tuple[Block, ...]:
    """Return a table of the key figures of several analyses."""
    rows = [(label, *(value_of(analysis) for analysis in analyses)) for label, value_of in _ROWS]
    names = _told_apart([analysis.source.file_name for analysis in analyses])
    columns = (Column(message("figure"), "left"), *(Column(name, flexible=True) for name in names))
    note = message("Each trace has its own window. Values are of the device with most work.")
    if len({analysis.devices[0].name for analysis in analyses if analysis.devices}) > 1:
        note = message(
            "The traces come from different devices: differences are not due to the program alone. {note}", note=note
        )
    known = tuple(row for row in rows if any(cell != numbers.MISSING for cell in row[1:]))
    lead = message("The same key figures of every trace, side by side and without a judgement.")
    return (Paragraph(lead), Table(columns, known, note, message("Key figures of the traces"), "side-by-side"))


def _told_apart(names: Sequence[str]) -> list[str]:
    """Return file names without what they all begin or end with, and short enough for the head of a column."""
    begin = _shared(names)
    end = _shared([name[begin:][::-1] for name in names])
    parts = [name[begin : len(name) - end] for name in names]
    is_worth_it = min(begin, end) >= _WORTH_CUTTING and all(parts)
    parts = [f"…{part}…" for part in parts] if is_worth_it else list(names)
    return [part if len(part) <= _LONGEST_NAME else part[: _LONGEST_NAME - 1] + "…" for part in parts]


def _shared(texts: Sequence[str]) -> int:
    """Return how many letters all texts begin with alike."""
    return len(list(takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False))))


def _device(analysis: Analysis) -> str:
    return analysis.devices[0].name if analysis.devices else numbers.MISSING


def _measured(metric: str, unit: str, by: str | None = None) -> Callable[[Analysis], str]:
    def value_of(analysis: Analysis) -> str:
        value = analysis.value(metric, busiest_device(analysis), by)
        if value is None:
            # What belongs to no device, such as the latency of an iteration.
            value = analysis.value(metric, None, by)
        return numbers.MISSING if value is None else numbers.in_unit(value, unit)

    return value_of


def _largest_cause(analysis: Analysis) -> str:
    device_id = busiest_device(analysis)
    cause = None if device_id is None else largest_cause(analysis, device_id)
    window = analysis.value("window", device_id)
    if cause is None or not window:
        return numbers.MISSING
    return message("{cause}, {share}", cause=cause[0], share=numbers.percent(cause[1] / window))


def _top_finding(analysis: Analysis) -> str:
    found = [finding for finding in analysis.findings if finding.severity != "info"]
    return found[0].title if found else message("none above a note")


_ROWS: tuple[Row, ...] = (
    (message("Device"), _device),
    (message("Window"), _measured("window", "ns")),
    (message("Iteration period, median"), _measured("iteration_period", "ns", "p50")),
    (message("Iteration latency, median"), _measured("iteration_latency", "ns", "p50")),
    (message("Iteration latency, p99"), _measured("iteration_latency", "ns", "p99")),
    (message("Iterations"), _measured("iterations_per_s", "1/s")),
    (message("Throughput"), _measured("throughput", "items/s")),
    (message("GPU busy"), _measured("gpu_busy_ratio", "ratio")),
    (message("Largest cause of idle time"), _largest_cause),
    (message("SM active"), _measured("sm_active_ratio", "ratio")),
    (message("Tensor active"), _measured("tensor_active_ratio", "ratio")),
    (message("Kernel time"), _measured("kernel_time_sum", "ns")),
    (message("Kernels"), _measured("kernel_count", "1")),
    (message("Launches per iteration"), _measured("launches_per_iteration", "1")),
    (message("GPU memory, peak"), _measured("gpu_memory_peak", "bytes", "total")),
    (message("First finding"), _top_finding),
)
