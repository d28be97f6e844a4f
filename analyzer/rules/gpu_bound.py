"""The GPU is the limit: which kernels to look at."""

from __future__ import annotations

from collections.abc import Iterator

from ..analysis import Analysis
from ..message import message
from ..rule import Evidence, Finding, Rule
from ._idle import windows

_LEAST_BUSY = 0.9


def check(analysis: Analysis) -> Iterator[Finding]:
    """Tell, as `info`, that kernels and graphs ran for at least 90 % of the window, and which take most of it.

    At stake is 0: being busy is no fault. Only less or faster GPU work makes such a run shorter. Copies do not count:
    a GPU that only copies waits for a bus or for memory.
    """
    for device_id, window in windows(analysis):
        busy = analysis.value("kernel_busy", device_id) or 0
        if busy < _LEAST_BUSY * window:
            continue
        evidence = [
            Evidence(
                "kernel_busy", busy, "ns", message("kernels ran for {share:.1%} of the window", share=busy / window)
            )
        ]
        for name, what in (("kernels", message("kernels")), ("graphs", message("graphs"))):
            table = analysis.table(name, device_id)
            if table is not None and len(table.frame):
                top = table.frame.head(3)
                rows = tuple(top.select(top.columns[0], "count", "total_ns", "share").to_dicts())
                total = int(top["total_ns"].sum())
                text = message("in the top {count} {what}", count=len(top), what=what)
                evidence.append(Evidence(name, total, "ns", text, rows))
        yield Finding(
            rule=RULE.id,
            severity="info",
            title=message("The GPU is the limit"),
            time_at_stake_ns=0,
            evidence=tuple(evidence),
            remedy=message(
                "Shorten the top kernels: lower precision, fused or better kernels, fewer tokens or pixels; profile "
                "them with Nsight Compute first. Host-side changes will not make this run faster."
            ),
            confidence="high",
            limits=message("That kernels ran does not say that they filled the GPU; sampled SM activity would tell."),
            device_id=device_id,
        )


RULE = Rule(
    id="gpu_bound",
    title=message("GPU-bound"),
    needs=("kernel_busy",),
    threshold=message("kernels and graphs run >= 90 % of the window"),
    reference=message("Nitro"),
    check=check,
)
