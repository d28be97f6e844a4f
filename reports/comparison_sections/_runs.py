"""What sections say about the runs of a side and the devices of a pair."""

from __future__ import annotations

from collections.abc import Iterator

from nitro.analyzer.compare import Comparison, DeviceComparison, Effect, MetricEffect
from nitro.analyzer.compare.runs import Run
from nitro.analyzer.message import message

from ..blocks import Paragraph

VERDICTS = {
    "improvement": message("improvement"),
    "regression": message("regression"),
    "no_meaningful_difference": message("no meaningful difference"),
    "inconclusive": message("inconclusive"),
}


def statistic_text(statistic: str) -> str:
    """Return the name of a statistic as a report shows it: percentiles are called the same in every language."""
    return message("mean") if statistic == "mean" else statistic


def title_of_side(runs: tuple[Run, ...]) -> str:
    """Return the file name of a side's run, with the number of the others."""
    first = runs[0].source.file_name
    if len(runs) == 1:
        return first
    return message("{first} and {count} more", first=first, count=len(runs) - 1)


def device_title(comparison: Comparison, device: DeviceComparison) -> str:
    """Return number and name of the device of a pair."""
    names = [
        next((known.name for run in runs for known in run.devices if known.device_id == device_id), f"GPU {device_id}")
        for runs, device_id in zip(comparison.runs, (device.before_id, device.after_id), strict=True)
    ]
    if device.before_id == device.after_id and names[0] == names[1]:
        # A device that the export does not describe is called by its number already.
        if names[0].startswith(f"GPU {device.after_id}"):
            return names[0]
        return message("GPU {device}, {name}", device=device.after_id, name=names[0])
    return message(
        "GPU {before}, {before_name}, before and GPU {after}, {after_name}, after",
        before=device.before_id,
        before_name=names[0],
        after=device.after_id,
        after_name=names[1],
    )


def heading(comparison: Comparison, device: DeviceComparison) -> tuple[Paragraph, ...]:
    """Return a line that names the device, nothing where there is only one."""
    return (Paragraph(device_title(comparison, device)),) if len(comparison.devices) > 1 else ()


def main_device(comparison: Comparison) -> DeviceComparison:
    """Return the device that works most, before and after together."""
    return max(comparison.devices, key=lambda device: device.waterfall.before.work_ns + device.waterfall.after.work_ns)


def main_effect(comparison: Comparison) -> Effect | None:
    """Return the effect on the iteration period that decides, `None` where it cannot be computed."""
    main = comparison.metrics[0].main
    return main if isinstance(main, Effect) else None


def all_metrics(comparison: Comparison) -> Iterator[tuple[DeviceComparison | None, MetricEffect]]:
    """Yield the metrics of the iteration, then those of each device."""
    yield from ((None, metric) for metric in comparison.metrics)
    for device in comparison.devices:
        yield from ((device, metric) for metric in device.metrics)
