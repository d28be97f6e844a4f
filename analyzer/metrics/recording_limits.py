"""What this capture cannot show, and how to record what is missing."""

from __future__ import annotations

from collections.abc import Iterator

from ..message import message
from ..metric import NO_OS_CALLS, Metric, NotMeasured, Result
from ..operations import NO_ROW
from ..view import View

_GRAPHS_WHOLE = message(
    "CUDA graphs were traced as a whole, so the kernels inside them are not in the trace; record with "
    "--cuda-graph-trace=node, which costs some time per launch"
)
_NO_SCHEDULING = message(
    "thread scheduling was not recorded, so host code may hide time off the CPU; record with --cpuctxsw"
)


def compute(view: View) -> Iterator[Result]:
    """State what the capture cannot show. It returns no numbers, only reasons with the way to record what is missing.

    - `kernels_in_graphs`: kernels of CUDA graphs, where graphs were traced as a whole.
    - `os_call`, `not_scheduled`: idle causes that need OS calls and scheduling records.
    - `launch_of_operation`: operations without API call, whose idle gaps are `unattributed`.
    """
    trace = view.trace
    if not view.devices:
        return
    graphs = trace.graph_launches
    if graphs is not None and len(graphs):
        yield NotMeasured("kernels_in_graphs", _GRAPHS_WHOLE)
    if trace.os_calls is None:
        yield NotMeasured("os_call", NO_OS_CALLS)
    if trace.table("sched_events") is None:
        yield NotMeasured("not_scheduled", _NO_SCHEDULING)
    lost = int((view.operations.launch == NO_ROW).sum())
    if lost:
        total = len(view.operations)
        reason = message(
            "{lost:,} of {total:,} GPU operations have no API call in the trace (unified-memory migrations have none; "
            "a cut trace lost them), so the idle time before them is unattributed",
            lost=lost,
            total=total,
        )
        yield NotMeasured("launch_of_operation", reason)


METRIC = Metric(
    id="recording_limits",
    title=message("What the capture cannot show"),
    provides=dict.fromkeys(("kernels_in_graphs", "os_call", "not_scheduled", "launch_of_operation"), "reason"),
    needs=(),
    missing="",
    better="neither",
    reference=message("Nitro"),
    compute=compute,
    order=90,
)
