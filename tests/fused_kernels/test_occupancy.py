"""Expected numbers by hand, from the limits in NVIDIA's programming guide; the steps stand beside them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nitro.errors import UsageError
from nitro.fused_kernels.occupancy import LIMITS, occupancy


@pytest.mark.parametrize(
    ("sm", "threads", "registers", "shared_bytes", "blocks", "limited_by"),
    [
        # 80 registers are 2560 a warp; 16384 // 2560 = 6 warps a scheduler, 24 an SM, 3 blocks of 8 warps.
        (90, 256, 80, 49152, 3, "registers"),
        # 81 registers are rounded up to 88: 2816 a warp, 5 warps a scheduler, 20 an SM, 2 blocks.
        (90, 256, 81, 0, 2, "registers"),
        # 64 warps an SM.
        (90, 1024, 32, 0, 2, "warps"),
        (90, 32, 16, 0, 32, "blocks"),
        # 100 KB and 1 KB of the system's; 228 // 101 = 2.
        (90, 128, 32, 100 * 1024, 2, "shared memory"),
        # 48 warps an SM on Orin; 256 threads are 8 warps.
        (87, 256, 32, 0, 6, "warps"),
        # 48 KB and 1 KB; 164 // 49 = 3.
        (87, 128, 32, 48 * 1024, 3, "shared memory"),
        # 64 KB an SM, and no reserve before sm_80.
        (53, 256, 32, 24 * 1024, 2, "shared memory"),
        # 24 584 bytes are rounded up to 24 832; two of them fit.
        (53, 256, 32, 24584, 2, "shared memory"),
        # 32 K registers a block: 12 warps of 88 registers are 33 792.
        (53, 384, 88, 0, 0, "registers"),
        (72, 384, 88, 0, 1, "registers"),
        # More than 48 KB a block cannot be had on the old Jetsons.
        (62, 128, 32, 49 * 1024, 0, "shared memory"),
        (75, 256, 64, 0, 4, "warps"),
    ],
)
def test_blocks_that_fit(
    sm: int, threads: int, registers: int, shared_bytes: int, blocks: int, limited_by: str
) -> None:
    found = occupancy(sm, threads=threads, registers=registers, shared_bytes=shared_bytes)
    assert found.blocks == blocks
    assert limited_by in found.limited_by


def test_the_ratio_counts_warps() -> None:
    assert occupancy(90, threads=256, registers=80, shared_bytes=0).ratio == 24 / 64


def test_more_than_sixteen_barriers_fit_nowhere() -> None:
    assert occupancy(90, threads=256, registers=32, shared_bytes=0, barriers=17).blocks == 0


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(UsageError, match="sm_42: no limits are known"):
        occupancy(42, threads=32, registers=32, shared_bytes=0)


def test_architectures_of_the_boards_and_newer_are_known() -> None:
    assert set(LIMITS) == {53, 62, 72, 75, 80, 86, 87, 89, 90, 100, 101, 110, 120}


def test_a_device_has_the_same_limits_under_both_its_numbers() -> None:
    one, other = LIMITS[101], LIMITS[110]
    assert replace(one, sm=110, devices=other.devices) == other
