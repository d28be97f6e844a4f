"""A run as a report shows it: where it came from, and how its iterations were chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..trace import Capture, Device, Source
from ..view import View
from .statistics import Float64


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a side.

    `window` is the JSON form of the window, `periods_ns` the iteration periods, empty where they are not known one by
    one. `is_saved`: the run is a saved analysis, not a trace. `evidence` is the JSON form of what lay beside the trace.
    """

    source: Source
    capture: Capture
    devices: tuple[Device, ...]
    window: dict[str, Any]
    periods_ns: Float64
    is_saved: bool = False
    evidence: tuple[dict[str, Any], ...] = ()

    @property
    def iterations(self) -> int:
        """How many full periods the window holds; 0 where no iterations were found."""
        return int(self.window["iterations"])

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {
            "source": self.source.to_dict(),
            "capture": self.capture.to_dict(),
            "window": self.window,
            "is_saved": self.is_saved,
            "evidence": list(self.evidence),
        }


def run_of(view: View) -> Run:
    """Return the run that a view looks at."""
    periods = np.asarray(view.window.periods_ns, np.float64)
    return Run(
        view.trace.source,
        view.trace.capture,
        view.trace.devices,
        view.window.to_dict(),
        periods,
        evidence=tuple(placed.to_dict() for placed in view.evidence),
    )
