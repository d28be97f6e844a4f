"""GPU code is loaded or compiled inside the window."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ..analysis import Analysis
from ..causes import Cause, class_of_call
from ..message import message
from ..rule import Evidence, Finding, Rule, severity_of
from ._idle import idle_of, windows

_LEAST_SHARE = 0.01


def check(analysis: Analysis) -> Iterator[Finding]:
    """Fire when a device is idle for at least 1 % of the window while its launching thread loads or links GPU code.

    At stake is the idle time with the cause `module_load`.
    """
    for device_id, window in windows(analysis):
        stake = idle_of(analysis, device_id, Cause.MODULE_LOAD)
        if stake < _LEAST_SHARE * window:
            continue
        evidence = [
            Evidence("gpu_idle_by_cause", stake, "ns", message("idle while the launching thread loaded GPU code"))
        ]
        calls = analysis.table("cuda_api_calls")
        if calls is not None:
            loading = [class_of_call(name) is Cause.MODULE_LOAD for name in calls.frame["name"]]
            rows = tuple(calls.frame.filter(pl.Series(loading, dtype=pl.Boolean)).head(3).to_dicts())
            total = sum(row["total_ns"] for row in rows)
            evidence.append(Evidence("cuda_api_calls", total, "ns", message("in loading calls"), rows))
        yield Finding(
            rule=RULE.id,
            severity=severity_of(stake, window),
            title=message("GPU code is loaded inside the window"),
            time_at_stake_ns=stake,
            evidence=tuple(evidence),
            remedy=message(
                "Run every shape once before measuring, set CUDA_MODULE_LOADING=EAGER to load at start, ship code for "
                "the board's architecture so that nothing is compiled at run time, and save TensorRT engines."
            ),
            confidence="high",
            limits=message("In a window that covers start-up this is expected; it then tells what start-up costs."),
            device_id=device_id,
        )


RULE = Rule(
    id="module_load",
    title=message("Module load inside the window"),
    needs=("gpu_idle_by_cause",),
    threshold=message("idle time inside module and library calls >= 1 % of the window"),
    reference=message("CUDA programming guide: lazy loading"),
    check=check,
)
