"""Types of what a JSON file of measurements says. It may come from anywhere, so msgspec checks it against them."""

from __future__ import annotations

from typing import Annotated

import msgspec

# Control characters would steer a terminal.
Name = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
# From less than a clock cycle to some days: gains are quotients of times, so none of them may be 0.
Microseconds = Annotated[float, msgspec.Meta(ge=1e-6, le=1e12)]
# What reading another file raises.
UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)


def reason(error: Exception) -> str:
    """Return why a file is not read, in a line that can be shown."""
    return ascii(str(error))[1:-1][:200]
