"""`Evidence`: what a second tool recorded beside a trace, and how it is placed on the trace's clock.

A trace says when the GPU worked. A power log, kernel counters or an operator tree say something else about the same
run. Each kind of evidence is a frozen dataclass that derives from `Evidence`; a reader makes it from a file, and
metrics ask the view for it by its class:

    for placed in view.evidence_of(PowerLog):
        placed.evidence.total_w, placed.trace_times(placed.evidence.times_ns)

Evidence with times states them on its own clock (`Clock`); `analyze` places that clock on the trace's before anything
is computed, so that a log of another hour is refused at once. Evidence without times (kernel counters that are joined
by name and order) has no clock, and its placement is `None`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from .intervals import Int64

if TYPE_CHECKING:
    from .trace import Source, Trace
    from .view import View

ClockKind = Literal["utc", "local", "counted"]
Method = Literal["stamps", "edges", "given"]


@dataclass(frozen=True, slots=True)
class Clock:
    """The clock of some evidence, and the span that the evidence covers on it.

    `kind`: `utc`, ns since 1970; `local`, wall-clock ns since 1970 of a time zone that the evidence does not name;
    `counted`, ns since its first record, with no link to any clock. `error_ns` bounds by how much the times of all
    records may be off together, in either direction (half a second for stamps cut to whole seconds). `jumps_ns`: by how
    much the wall clock was set in the course of the evidence, which counts in the time from before; the trace may use
    the one from after it.
    """

    kind: ClockKind
    first_ns: int
    last_ns: int
    error_ns: int = 0
    jumps_ns: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """Where evidence lies on the trace's clock: time in the trace = time of the evidence + `offset_ns`.

    `method`: `stamps`, by the wall clocks of both; `edges`, refined by the start and end of load; `given` by the user.
    `error_ns` bounds the offset's error in either direction; `start_ns` and `end_ns` are the span of the evidence
    in the trace, ns since session start; `shift_ns` is what the refinement, or the user, added to the stamps.
    `reason` says in a sentence how it was found.
    """

    offset_ns: int
    method: Method
    error_ns: int
    start_ns: int
    end_ns: int
    shift_ns: int
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields under their own names."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one file says beside a trace. Derive a frozen dataclass from it for each kind.

    `notes` are sentences about what was left out or looks odd; `records` counts what was read and `left_out` what could
    not be. A reader that understands nothing of a file raises `InputError` instead.
    """

    kind: ClassVar[str] = ""

    source: Source
    records: int
    left_out: int = 0
    notes: tuple[str, ...] = ()
    clock: Clock | None = None

    def as_trace(self) -> Trace | None:
        """Return the trace that this evidence is when it stands alone, `None` where it cannot stand alone."""
        return None

    def seen_by(self, view: View) -> Evidence:  # noqa: ARG002 - for those who look
        """Return the part of the evidence that is about the trace; all of it unless a kind says otherwise."""
        return self

    def placed(self, view: View, offset_ns: int | None) -> Placement | None:
        """Place the evidence on the trace's clock; `None` for evidence without a clock.

        Args:
            view: the trace.
            offset_ns: what the user gave with --clock-offset, added to the stamps instead of refining them.

        Raises:
            nitro.errors.InputError: the evidence belongs to another time, another program or another device.
        """
        from .clock import place

        return None if self.clock is None else place(self.clock, view, self.source.file_name, offset_ns)


AnyEvidence = TypeVar("AnyEvidence", bound=Evidence)


@dataclass(frozen=True, slots=True)
class Placed(Generic[AnyEvidence]):
    """Evidence with its place in the trace."""

    evidence: AnyEvidence
    placement: Placement | None

    def trace_times(self, times_ns: Int64) -> Int64:
        """Return times of the evidence on the trace's clock, ns since session start."""
        return times_ns + (0 if self.placement is None else self.placement.offset_ns)

    def to_dict(self) -> dict[str, Any]:
        """Return what an analysis keeps of the evidence: its source, how much of it was used, and its place."""
        evidence = self.evidence
        return {
            "kind": evidence.kind,
            "source": evidence.source.to_dict(),
            "records": evidence.records,
            "left_out": evidence.left_out,
            "placement": None if self.placement is None else self.placement.to_dict(),
            "notes": list(evidence.notes),
        }
