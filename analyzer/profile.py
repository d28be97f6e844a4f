"""`Profile`: the trace of a second profiler (PyTorch, nvprof), alone or beside another trace.

Two profilers that both use CUPTI cannot record one run, so a profile beside an nsys trace is another run of the same
program. It is not placed on the trace's clock. What it adds is what the trace lacks: which module, operator or layer
launched which kernel. Alone, it is a trace like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nitro.errors import InputError

from .evidence import Evidence, Placement
from .trace import Trace
from .view import View


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile(Evidence):
    """A trace beside a trace. Metrics look at it through a view of its own."""

    kind: ClassVar[str] = "profile"

    trace: Trace

    def as_trace(self) -> Trace:
        """Return the trace."""
        return self.trace

    def placed(self, view: View, offset_ns: int | None) -> Placement | None:  # noqa: ARG002 - see the module
        """Check that the profile is of the same program; it has no place on the trace's clock.

        Raises:
            InputError: no kernel of the profile has the name of a kernel of the trace.
        """
        theirs, ours = kernel_names(self.trace), kernel_names(view.trace)
        if theirs and ours and not theirs & ours:
            raise InputError(
                f"{self.source.file_name}: none of its {len(theirs)} kernels is among the {len(ours)} of "
                f"{view.trace.source.file_name}, so it is of another program; give each of them alone."
            )
        return None


def kernel_names(trace: Trace) -> set[str]:
    """Return the names of the functions that ran as kernels."""
    return set(trace.table_or_empty("kernels")["short_name"].drop_nulls().unique().to_list())
