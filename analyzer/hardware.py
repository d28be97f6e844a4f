"""Memory bandwidth of integrated GPUs, where the driver's number is wrong.

On a Jetson the DRAM belongs to the whole SoC, and the driver derives a bandwidth from clocks that do not describe
it (an Orin Nano reports 32.6 GB/s). The table names what is certain from chip, SM count and memory size alone;
where boards share these but differ in bandwidth, there is no number.
"""

from __future__ import annotations

from dataclasses import dataclass

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class BoardMemory:
    """DRAM of one kind of board; `memory_gib` bounds what CUDA reports as total memory, [low, high)."""

    chip: str
    sm_count: int
    memory_gib: tuple[float, float]
    bandwidth_bytes_per_s: int
    source: str


BOARDS: tuple[BoardMemory, ...] = (
    BoardMemory("GM20B", 1, (0, 5), 25_600_000_000, "Jetson Nano data sheet: 64-bit LPDDR4 at 25.6 GB/s"),
    BoardMemory("GV11B", 8, (24, 72), 136_500_000_000, "Jetson AGX Xavier data sheet: 256-bit LPDDR4x at 136.5 GB/s"),
    BoardMemory("GV11B", 6, (0, 18), 59_700_000_000, "Jetson Xavier NX data sheet: 128-bit LPDDR4x at 59.7 GB/s"),
    BoardMemory("GA10B", 16, (24, 72), 204_800_000_000, "Jetson AGX Orin 64GB data sheet: 256-bit LPDDR5, 204.8 GB/s"),
    BoardMemory("GA10B", 14, (24, 40), 204_800_000_000, "Jetson AGX Orin 32GB data sheet: 256-bit LPDDR5, 204.8 GB/s"),
    BoardMemory("GA10B", 8, (12, 18), 102_400_000_000, "Jetson Orin NX 16GB data sheet: 128-bit LPDDR5 at 102.4 GB/s"),
    BoardMemory("GA10B", 4, (0, 5), 34_000_000_000, "Jetson Orin Nano 4GB data sheet: 64-bit LPDDR5 at 34 GB/s"),
)

AMBIGUOUS = "not stated: boards with this chip and memory size differ in bandwidth, and the driver's number is wrong"


def integrated_memory_bandwidth(
    chip: str | None, sm_count: int | None, memory_bytes: int | None
) -> tuple[int | None, str]:
    """Return the DRAM bandwidth of an integrated GPU's board in bytes/s and its source.

    An 8 GB board with 8 SMs of a GA10B may be an Orin Nano (68 GB/s, 102 GB/s in its newer power modes) or an
    Orin NX (102.4 GB/s): then the number is `None`.
    """
    memory_gib = (memory_bytes or 0) / _GIB
    for board in BOARDS:
        if (board.chip, board.sm_count) == (chip, sm_count) and board.memory_gib[0] <= memory_gib < board.memory_gib[1]:
            return board.bandwidth_bytes_per_s, board.source
    return None, AMBIGUOUS
