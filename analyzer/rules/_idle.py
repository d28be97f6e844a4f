"""What the rules about idle time share."""

from __future__ import annotations

from collections.abc import Iterator

from ..analysis import Analysis
from ..causes import Cause
from ..message import message

# As the tables of the metrics have it, where a moment lies in no range.
OUTSIDE_NVTX = message("(outside NVTX ranges)")


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


def place(nvtx_path: str) -> str:
    """Return an NVTX path of a table as a sentence names it: our own word for no range can be translated."""
    return OUTSIDE_NVTX if nvtx_path == OUTSIDE_NVTX else nvtx_path
