"""One colour for each idle cause and kind of GPU work, the same in every output.

The hues are those of Okabe and Ito, told apart by readers with any common colour blindness; related causes share a
hue in different lightness.
"""

from __future__ import annotations

from dataclasses import dataclass

COLOURS: dict[str, str] = {
    "busy": "#009e73",
    "kernel": "#009e73",
    "graph": "#33b18f",
    "memcpy": "#66c5ab",
    "memset": "#99d8c7",
    "overlap": "#44606f",
    "total": "#5b6773",
    "others": "#a9b2bb",
    "host_code": "#e69f00",
    "os_call": "#f0c566",
    "not_scheduled": "#b37b00",
    "synchronization": "#cc79a7",
    "copy_call": "#56b4e9",
    "memory_management": "#88cbf0",
    "module_load": "#9d7fc0",
    "launch_call": "#d55e00",
    "launch_latency": "#e38e4c",
    "launching_other": "#a34800",
    "other_cuda_api": "#0072b2",
    "profiler_overhead": "#999999",
    "other_context": "#7d4b64",
    "dependency": "#5f9ea0",
    "other_engine": "#4c7a34",
    "device_gap": "#7f7f7f",
    "after_last": "#bfbfbf",
    "unattributed": "#606060",
}


@dataclass(frozen=True, slots=True)
class Series:
    """How one of several lines is drawn: colour, dash pattern in pixels, and the shape of its points.

    Dash and shape keep lines apart in black and white too.
    """

    colour: str
    dash: tuple[int, ...]
    shape: str


SERIES: tuple[Series, ...] = (
    Series("#0072b2", (1, 0), "circle"),
    Series("#d55e00", (6, 2), "square"),
    Series("#009e73", (2, 2), "triangle-up"),
    Series("#cc79a7", (8, 3, 2, 3), "diamond"),
    Series("#e69f00", (4, 4), "cross"),
    Series("#56b4e9", (1, 3), "triangle-down"),
)

# The two sides of a comparison.
SIDES: dict[str, Series] = {
    "before": Series("#7a8794", (5, 3), "square"),
    "after": Series("#0072b2", (1, 0), "circle"),
}
