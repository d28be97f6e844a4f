"""Idle time by cause, nanosecond by nanosecond, as the definition in docs/adr/0004 reads. Slow and plain on purpose.

Nothing here is shared with the code under test: no interval arithmetic, no join, no classes of calls.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from nitro.analyzer import Trace

OPERATION_TABLES = ("kernels", "graph_launches", "memcpys", "memsets")
Rows = list[dict[str, Any]]
NEVER = float("-inf")


def rows(trace: Trace, *tables: str) -> Rows:
    return [row for name in tables for row in trace.table_or_empty(name).to_dicts()]


def operations_in_order(trace: Trace, device_id: int) -> Rows:
    """Operations of a device by (start, end, correlation id); ties stay in the order of the tables."""
    mine = [row for row in rows(trace, *OPERATION_TABLES) if row["device_id"] == device_id]
    return sorted(mine, key=lambda row: (row["start_ns"], row["end_ns"], row["correlation_id"] or 0))


def launch_of(operation: dict[str, Any], calls: Rows) -> dict[str, Any] | None:
    """The outermost call of the operation's process with its correlation id."""
    if not operation["correlation_id"] or operation["global_pid"] is None:
        return None
    sharing = [
        call
        for call in calls
        if call["correlation_id"] == operation["correlation_id"]
        and call["global_tid"] >> 24 == operation["global_pid"] >> 24
    ]
    return min(sharing, key=lambda call: (call["start_ns"], -call["end_ns"]), default=None)


def covers(row: dict[str, Any], moment: int) -> bool:
    return bool(row["start_ns"] <= moment < row["end_ns"])


def class_of(name: str | None) -> str:
    words = {
        "synchronization": ("Synchronize",),
        "launching_other": ("Launch",),
        "copy_call": ("Memcpy", "Memset"),
        "memory_management": ("Malloc", "MemAlloc", "HostAlloc", "Free"),
        "module_load": ("Module", "Library", "Link", "GetFunction"),
    }
    for cause, parts in words.items():
        if any(part in (name or "") for part in parts):
            return cause
    return "other_cuda_api"


def is_off_cpu(trace: Trace, tid: int, moment: int) -> bool:
    """Whether the thread's last scheduling event was a leave and another event follows."""
    events = [event for event in rows(trace, "sched_events") if event["global_tid"] == tid]
    events.sort(key=lambda event: event["start_ns"])
    for before, after in pairwise(events):
        if before["start_ns"] <= moment < after["start_ns"]:
            return not before["is_sched_in"]
    return False


def doing(trace: Trace, tid: int, moment: int) -> str:
    """What a thread is doing: the first that applies."""

    def covering(table: str) -> Rows:
        return [row for row in rows(trace, table) if row["global_tid"] == tid and covers(row, moment)]

    if covering("profiler_overheads") or [o for o in covering("cuda_overheads") if o["overhead_type"] in (3, 4, 5)]:
        return "profiler_overhead"
    calls = covering("api_calls")
    if calls:
        return class_of(min(calls, key=lambda call: (call["start_ns"], -call["end_ns"]))["name"])
    if covering("os_calls"):
        return "os_call"
    return "not_scheduled" if is_off_cpu(trace, tid, moment) else "host_code"


def stream_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["global_pid"], row["context_id"], row["stream_id"]


def waited(trace: Trace, operations: Rows, operation: dict[str, Any], calls: Rows) -> bool:
    """Whether the stream was told to wait after the launch before the operation's own, up to its own."""
    launched = [(launch, other) for other in operations if (launch := launch_of(other, calls)) is not None]
    own = [entry for entry in launched if stream_of(entry[1]) == stream_of(operation)]
    own.sort(key=lambda entry: entry[0]["start_ns"])
    place = next(number for number, entry in enumerate(own) if entry[1] is operation)
    before = own[place - 1][0]["start_ns"] if place else NEVER
    return any(
        wait["sync_type"] == 2 and stream_of(wait) == stream_of(operation)
        for wait in rows(trace, "synchronizations")
        if before < wait["start_ns"] <= own[place][0]["start_ns"]
    )


SAVE_END, RESTORE_START, CONTEXT_START = 7, 8, 9


def is_held_by_another(trace: Trace, device_id: int, global_pid: int, moment: int) -> bool:
    """Whether the GPU served another process at that moment, or was switching.

    A process holds it from RESTORE_START or CONTEXT_START to SAVE_END. Before the first event it was held by the
    process that this event takes it from, if it is a SAVE_END.
    """
    events = [
        event
        for event in rows(trace, "context_switches")
        if event["device_id"] == device_id and event["tag"] in (SAVE_END, RESTORE_START, CONTEXT_START)
    ]
    if not events:
        return False
    events.sort(key=lambda event: event["start_ns"])
    past = [event for event in events if event["start_ns"] <= moment]
    decides = past[-1] if past else events[0]
    holds = (decides["tag"] == SAVE_END) != bool(past)
    return not (holds and decides["global_pid"] >> 24 == global_pid >> 24)


def idle_causes(trace: Trace, device_id: int, low: int, high: int) -> dict[int, str]:
    """Return the cause of every idle nanosecond of a device in [low, high)."""
    operations = operations_in_order(trace, device_id)
    calls = rows(trace, "api_calls")
    found: dict[int, str] = {}
    for moment in range(low, high):
        if any(covers(operation, moment) for operation in operations):
            continue
        following = next((operation for operation in operations if operation["start_ns"] > moment), None)
        if following is None:
            found[moment] = "after_last"
            continue
        call = launch_of(following, calls)
        if call is None:
            found[moment] = "unattributed"
        elif moment < call["start_ns"]:
            found[moment] = doing(trace, call["global_tid"], moment)
        elif moment < call["end_ns"]:
            found[moment] = "copy_call" if class_of(call["name"]) == "copy_call" else "launch_call"
        else:
            began = max((o["end_ns"] for o in operations if o["start_ns"] <= moment), default=NEVER)
            if call["end_ns"] > began:
                found[moment] = "launch_latency"
            elif is_held_by_another(trace, device_id, following["global_pid"], moment):
                found[moment] = "other_context"
            else:
                found[moment] = "dependency" if waited(trace, operations, following, calls) else "device_gap"
    return found


def busy_ns(trace: Trace, device_id: int, low: int, high: int) -> int:
    """Return how many nanoseconds of the window at least one operation covers."""
    operations = operations_in_order(trace, device_id)
    return sum(any(covers(operation, moment) for operation in operations) for moment in range(low, high))
