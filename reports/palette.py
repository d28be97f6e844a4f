"""One colour for each idle cause and kind of GPU work, the same in every output.

The hues are those of Okabe and Ito, told apart by readers with any common colour blindness; related causes share a
hue in different lightness.
"""

from __future__ import annotations

COLOURS: dict[str, str] = {
    "busy": "#009e73",
    "kernel": "#009e73",
    "graph": "#33b18f",
    "memcpy": "#66c5ab",
    "memset": "#99d8c7",
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
