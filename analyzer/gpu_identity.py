"""What tells one GPU of a machine from another, in the words of a trace and of a log alike.

nsys writes a UUID as `110bc05b-…` and a bus location as `0000:01:00.0`, nvidia-smi writes `GPU-110bc05b-…` and
`00000000:01:00.0`. None of it is shown or saved by an analysis: a UUID names a piece of somebody's hardware.
"""

from __future__ import annotations

import re

_UUID = re.compile(r"(?:GPU-)?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.IGNORECASE)
_BUS = re.compile(r"(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-7])", re.IGNORECASE)


def gpu_uuid(text: object) -> str | None:
    """Return the UUID in a text in lower case, without prefix; `None` where it is none, or all zeros."""
    match = _UUID.fullmatch(text.strip()) if isinstance(text, str) else None
    return match[1].lower() if match and match[1].strip("0-") else None


def pci_bus_id(text: object) -> str | None:
    """Return a bus location as `00000000:01:00.0`, `None` where it is none.

    That is domain, bus, device and function in hexadecimal. Texts of this form are in the order of the locations, by
    which nvidia-smi numbers the GPUs of a machine.
    """
    match = _BUS.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        return None
    domain, bus, device, function = (int(part or "0", 16) for part in match.groups())
    return f"{domain:08x}:{bus:02x}:{device:02x}.{function}"
