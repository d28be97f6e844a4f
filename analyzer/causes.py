"""Why a GPU was idle: the closed set of causes, and the class of an API call by its name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from .message import message


class Cause(IntEnum):
    """Causes of idle time. The order is the one in which a moment before the launch call is decided."""

    PROFILER_OVERHEAD = 0
    SYNCHRONIZATION = 1
    COPY_CALL = 2
    MEMORY_MANAGEMENT = 3
    MODULE_LOAD = 4
    LAUNCHING_OTHER = 5
    OTHER_CUDA_API = 6
    OS_CALL = 7
    NOT_SCHEDULED = 8
    HOST_CODE = 9
    LAUNCH_CALL = 10
    LAUNCH_LATENCY = 11
    OTHER_CONTEXT = 12
    DEPENDENCY = 13
    OTHER_ENGINE = 14
    DEVICE_GAP = 15
    AFTER_LAST = 16
    UNATTRIBUTED = 17

    @property
    def id(self) -> str:
        """The name used in files and on the command line."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class CauseText:
    """How a cause is called and what it says."""

    title: str
    meaning: str


TEXTS: dict[Cause, CauseText] = {
    Cause.PROFILER_OVERHEAD: CauseText(
        message("profiler overhead"), message("the profiler occupied the launching thread")
    ),
    Cause.SYNCHRONIZATION: CauseText(
        message("synchronization"), message("the launching thread waited in a synchronising call")
    ),
    Cause.COPY_CALL: CauseText(
        message("copy call"), message("the launching thread was inside a memcpy or memset call")
    ),
    Cause.MEMORY_MANAGEMENT: CauseText(
        message("memory management"), message("the launching thread allocated or freed memory")
    ),
    Cause.MODULE_LOAD: CauseText(message("module load"), message("the launching thread loaded or linked GPU code")),
    Cause.LAUNCHING_OTHER: CauseText(
        message("launching other"), message("the launching thread was launching work for elsewhere")
    ),
    Cause.OTHER_CUDA_API: CauseText(
        message("other CUDA call"), message("the launching thread was in another CUDA call")
    ),
    Cause.OS_CALL: CauseText(message("OS call"), message("the launching thread was in an operating-system call")),
    Cause.NOT_SCHEDULED: CauseText(message("not scheduled"), message("the launching thread was not on a CPU")),
    Cause.HOST_CODE: CauseText(message("host code"), message("the launching thread ran code outside CUDA")),
    Cause.LAUNCH_CALL: CauseText(message("launch call"), message("the launch call of the next operation was running")),
    Cause.LAUNCH_LATENCY: CauseText(
        message("launch latency"), message("launched into an empty queue, not yet started")
    ),
    Cause.OTHER_CONTEXT: CauseText(message("other context"), message("queued, while the GPU served another context")),
    Cause.DEPENDENCY: CauseText(message("dependency"), message("queued, waiting for an event of another stream")),
    Cause.OTHER_ENGINE: CauseText(message("other engine"), message("queued, while another engine (DLA) worked")),
    Cause.DEVICE_GAP: CauseText(message("device gap"), message("queued, and the GPU took this long to start it")),
    Cause.AFTER_LAST: CauseText(message("after last"), message("no further operation follows in the trace")),
    Cause.UNATTRIBUTED: CauseText(message("unattributed"), message("the next operation has no API call in the trace")),
}

_BY_NAME_PART: tuple[tuple[Cause, tuple[str, ...]], ...] = (
    (Cause.SYNCHRONIZATION, ("Synchronize",)),
    (Cause.LAUNCHING_OTHER, ("Launch",)),
    (Cause.COPY_CALL, ("Memcpy", "Memset")),
    (Cause.MEMORY_MANAGEMENT, ("Malloc", "MemAlloc", "HostAlloc", "Free")),
    (Cause.MODULE_LOAD, ("Module", "Library", "Link", "GetFunction")),
)


def class_of_call(name: str) -> Cause:
    """Return the class of a CUDA call: the first whose word the name contains, else `OTHER_CUDA_API`."""
    for cause, parts in _BY_NAME_PART:
        if any(part in name for part in parts):
            return cause
    return Cause.OTHER_CUDA_API
