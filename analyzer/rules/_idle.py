"""What the rules about idle time share."""

from __future__ import annotations

from collections.abc import Iterator

from ..analysis import Analysis
from ..causes import Cause


def windows(analysis: Analysis) -> Iterator[tuple[int, int]]:
    """Return (device id, window in ns) of the devices that have a window."""
    for device in analysis.devices:
        window = analysis.value("window", device.device_id)
        if window:
            yield device.device_id, int(window)


def idle_of(analysis: Analysis, device_id: int, *causes: Cause) -> int:
    """Return the idle time of a device with any of these causes, ns."""
    parts = analysis.parts("gpu_idle_by_cause", device_id)
    return int(sum(parts[cause.id].value for cause in causes if cause.id in parts))
