"""The power mode changed while the window ran."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ..analysis import Analysis
from ..message import message
from ..power_events import CORES, MEMORY_CLOCK
from ..rule import Evidence, Finding, Rule


def check(analysis: Analysis) -> Iterator[Finding]:
    """Tell, as `info`, that the number of CPU cores online or the memory clock changed for good inside the window.

    Both stay as they are while a power mode holds. At stake is 0: which of the two modes was meant is not known.
    """
    table = analysis.table("power_events")
    if table is None:
        return
    window = analysis.window
    frame = table.frame.filter(
        pl.col("what").is_in([str(CORES), str(MEMORY_CLOCK)])
        & (pl.col("start_ns") >= window.start_ns)
        & (pl.col("start_ns") < window.end_ns)
    )
    if frame.is_empty():
        return
    rows = tuple(frame.iter_rows(named=True))
    first = rows[0]
    what = CORES if first["what"] == str(CORES) else MEMORY_CLOCK
    yield Finding(
        rule=RULE.id,
        severity="info",
        title=message("The power mode changed inside the window, so its numbers mix two modes"),
        time_at_stake_ns=0,
        evidence=(
            Evidence(
                "power_events",
                first["start_ns"],
                "ns",
                message("{what}: {before} to {after}", what=what, before=first["before"], after=first["after"]),
                rows,
            ),
        ),
        remedy=message(
            "Set the power mode before the run (nvpmodel) and leave it, or choose the part before or after the change "
            "with --since and --until."
        ),
        confidence="medium",
        limits=message("Cores may also be taken offline by hand, and a governor may lower the memory clock at idle."),
    )


RULE = Rule(
    id="power_mode_changed",
    title=message("Power mode changed"),
    needs=("power_events",),
    threshold=message("a change inside the window that holds for three records before and after"),
    reference=message("Nitro"),
    check=check,
)
