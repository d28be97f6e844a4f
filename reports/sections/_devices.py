"""The devices that a section shows, and what they are called."""

from __future__ import annotations

from nitro.analyzer import Analysis, Device
from nitro.analyzer.message import Message, message

from ..blocks import Paragraph

MOST_SHOWN = 8


def shown(analysis: Analysis) -> tuple[Device, ...]:
    """Return the devices that have room in a section, in their order."""
    return analysis.devices[:MOST_SHOWN]


def heading(analysis: Analysis, device: Device) -> tuple[Paragraph, ...]:
    """Return a line that names the device, nothing where there is only one."""
    return (Paragraph(title_of(device)),) if len(analysis.devices) > 1 else ()


def title_of(device: Device) -> str:
    """Return number and name of a device; a name that is nothing but the number stands alone."""
    number = f"GPU {device.device_id}"
    if device.name.startswith(number):
        return device.name
    return message("{number}, {name}", number=number, name=device.name)


def left_out(analysis: Analysis) -> Message | None:
    """Return a sentence about the devices that have no room, `None` where all have."""
    more = len(analysis.devices) - MOST_SHOWN
    return message("Devices in the JSON and CSV output alone: {count}.", count=more) if more > 0 else None
