"""Memory bandwidth of integrated GPUs, where the driver's number is wrong.

On a Jetson the DRAM belongs to the whole SoC, and the driver derives a bandwidth from clocks that do not describe
it (an Orin Nano reports 32.6 GB/s). The table gives a number only where chip, SM count and memory size leave one
possibility; where modules or power modes with the same facts differ, it names the possibilities instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from .message import joined, message

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class BoardMemory:
    """DRAM of the modules that share chip, SM count and memory size.

    `memory_gib` bounds what CUDA reports as total memory, [low, high). `sm_counts` holds what the module reports,
    which shrinks in low power modes. `choices` are bandwidths in bytes/s, each with the module or mode it stands for.
    """

    chip: str
    sm_counts: tuple[int, ...]
    memory_gib: tuple[float, float]
    choices: tuple[tuple[int, str], ...]


# Sources: NVIDIA's module data sheets; both values of a module where its memory clock depends on the power mode.
BOARDS: tuple[BoardMemory, ...] = (
    BoardMemory("GM20B", (1,), (0, 5), ((25_600_000_000, message("Jetson Nano, 64-bit LPDDR4")),)),
    BoardMemory(
        "GV11B",
        (6,),
        (0, 18),
        (
            (51_200_000_000, message("Jetson Xavier NX, EMC 1600 MHz")),
            (59_700_000_000, message("Jetson Xavier NX, EMC 1866 MHz")),
        ),
    ),
    BoardMemory("GV11B", (8,), (24, 72), ((136_500_000_000, message("Jetson AGX Xavier, 256-bit LPDDR4x")),)),
    BoardMemory(
        "GA10B",
        (4,),
        (0, 5),
        (
            (34_000_000_000, message("Jetson Orin Nano 4GB")),
            (51_000_000_000, message("Jetson Orin Nano 4GB in a Super mode")),
        ),
    ),
    BoardMemory(
        "GA10B",
        (8,),
        (5, 9),
        (
            (68_000_000_000, message("Jetson Orin Nano 8GB")),
            (102_000_000_000, message("Jetson Orin Nano 8GB in a Super mode")),
            (102_400_000_000, message("Jetson Orin NX 8GB")),
        ),
    ),
    BoardMemory("GA10B", (8,), (12, 18), ((102_400_000_000, message("Jetson Orin NX 16GB, 128-bit LPDDR5")),)),
    BoardMemory(
        "GA10B", (4, 8, 12, 14, 16), (24, 72), ((204_800_000_000, message("Jetson AGX Orin, 256-bit LPDDR5")),)
    ),
)
_UNKNOWN = message("not known for this module; the driver's number is wrong on integrated GPUs")


def integrated_memory_bandwidth(
    chip: str | None, sm_count: int | None, memory_bytes: int | None
) -> tuple[int | None, str]:
    """Return the DRAM bandwidth of an integrated GPU's module in bytes/s, and its source or the possibilities."""
    memory_gib = (memory_bytes or 0) / _GIB
    for board in BOARDS:
        fits = board.memory_gib[0] <= memory_gib < board.memory_gib[1]
        if board.chip == chip and sm_count in board.sm_counts and fits:
            if len(board.choices) == 1:
                return board.choices[0]
            values = joined(
                ", ",
                (
                    message("{bandwidth:g} GB/s ({what})", bandwidth=value / 1e9, what=what)
                    for value, what in board.choices
                ),
            )
            return None, message("one of {values}: the trace does not tell which", values=values)
    return None, _UNKNOWN
