"""Whether two sides can be compared at all, with the reasons why not.

A `refuse` stops the comparison unless its key is allowed; a `warn` stands beside the result. What is not known (power
mode, model and precision, where no bundle tells them) cannot be checked and gives no reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from nitro.errors import NitroError

from ..intervals import Intervals
from ..kernel_names import known_names
from ..message import joined, message
from ..nvtx import family_of
from ..operations import Kind
from ..samples import FEWEST_SAMPLES
from ..trace import Device
from ..view import View
from .quantities import percent_text

if TYPE_CHECKING:
    from .saved import SavedRun

    SavedSides = tuple[tuple[SavedRun, ...], tuple[SavedRun, ...]]

Level = Literal["refuse", "warn"]
T = TypeVar("T")

KEYS: dict[str, str] = {
    "device": message("the name of the GPU"),
    "sm_count": message("the number of multiprocessors"),
    "max_clock": message("the highest clock of the GPU"),
    "clock": message("the measured GPC clock, or its drift"),
    "driver": message("the driver"),
    "software": message("the platform's software"),
    "tool": message("the version of the profiler"),
    "capture": message("what was recorded, and how"),
    "window": message("the kind of analysis window"),
    "iterations": message("whether iterations were found"),
    "iteration_names": message("what marks the iterations"),
    "batch": message("items per iteration"),
    "power_mode": message("the power mode"),
    "model": message("the model"),
    "precision": message("the precision"),
    "workload": message("whether both sides run anything in common"),
    "saved": message("whether runs are traces or saved analyses"),
    "duplicate_runs": message("whether every run is a capture of its own"),
}
# What no trace holds, and the manifest of a bundle may: it stands among the options of the capture.
_TOLD = {"power_mode": message("the power mode"), "model": message("the model"), "precision": message("the precision")}
CLOCK_REFUSE, CLOCK_WARN = 0.05, 0.01
DRIFT_WARN = 0.02
_TABLES = ("api_calls", "nvtx_events", "os_calls", "sched_events", "gpu_metric_samples", "context_switches")


class NotComparable(NitroError):  # noqa: N818 - the name is the sentence
    """Two sides cannot be compared; the message tells why, and how to compare them all the same."""

    exit_code = 4


@dataclass(frozen=True, slots=True)
class Reason:
    """Something that speaks against a comparison. `key` is what `--allow` takes."""

    level: Level
    key: str
    text: str
    before: str
    after: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields under their own names."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Clock:
    """The sampled GPC clock of a device inside its window: mean in Hz, and its change from first to last quarter."""

    mean_hz: float
    drift: float


def reasons_against(before: Sequence[View], after: Sequence[View], devices: tuple[int, int]) -> tuple[Reason, ...]:
    """Return what speaks against comparing two sides on a pair of devices, refusals first."""
    sides = (tuple(before), tuple(after))
    found = [
        *_device_reasons(sides, devices),
        *_clock_reasons(sides, devices),
        *_recording_reasons(sides),
        *_window_reasons(sides),
        *_batch_reasons(sides),
        *_workload_reasons(sides),
        *_duplicate_reasons(sides),
    ]
    return _sorted(found)


def refused(reasons: Iterable[Reason], allow: Iterable[str] = ()) -> tuple[Reason, ...]:
    """Return the refusals that are not allowed.

    Raises:
        ValueError: an allowed key does not exist.
    """
    allowed = frozenset(allow)
    unknown = sorted(allowed - KEYS.keys())
    if unknown:
        raise ValueError(f"{', '.join(unknown)} cannot be allowed; choose from {', '.join(KEYS)}")
    return tuple(reason for reason in reasons if reason.level == "refuse" and reason.key not in allowed)


def raise_if_refused(reasons: Iterable[Reason], allow: Iterable[str] = ()) -> None:
    """Do nothing if the comparison may go on.

    Raises:
        NotComparable: it may not; the message holds every reason and the way out.
    """
    left = refused(reasons, allow)
    if left:
        keys = " ".join(f"--allow {key}" for key in dict.fromkeys(reason.key for reason in left))
        raise NotComparable(
            message(
                "the two sides cannot be compared: {reasons}. Record them alike, or compare all the same with {keys}.",
                reasons=joined("; ", (reason.text for reason in left)),
                keys=keys,
            )
        )


def clock_of(view: View, device_id: int) -> Clock | None:
    """Return the sampled GPC clock inside the window, `None` where there are fewer than 5 samples."""
    sampled = next((device.sampled for device in view.devices if device.device_id == device_id), {}).get("gpc_clock")
    low, high = view.window.of_device(device_id)
    if sampled is None or sampled.count(low, high) < FEWEST_SAMPLES:
        return None
    quarter = (high - low) // 4
    whole, first, last = (
        sampled.mean(Intervals(np.array([start]), np.array([end])))
        for start, end in ((low, high), (low, low + quarter), (high - quarter, high))
    )
    return Clock(whole, last / first - 1) if whole and first and last else None


Sides = tuple[tuple[View, ...], tuple[View, ...]]


def reasons_against_saved(
    before: Sequence[SavedRun], after: Sequence[SavedRun], devices: tuple[int, int]
) -> tuple[Reason, ...]:
    """Return what speaks against comparing two sides that are known from saved analyses, refusals first."""
    sides = (tuple(before), tuple(after))
    found = [
        Reason("warn", "saved", _ONLY_SUMS, "", ""),
        *_saved_device_reasons(sides, devices),
        *_saved_recording_reasons(sides, devices),
        *_saved_window_reasons(sides),
        *_saved_workload_reasons(sides),
        *_saved_duplicate_reasons(sides),
    ]
    return _sorted(found)


def _saved_device_reasons(sides: SavedSides, devices: tuple[int, int]) -> list[Reason]:
    def device(name: str) -> Callable[[SavedRun, int], object]:
        def fact(run: SavedRun, side: int) -> object:
            return next((getattr(d, name) for d in run.run.devices if d.device_id == devices[side]), None)

        return fact

    return [
        *_differing(sides, device("name"), "refuse", "device", message("the GPU")),
        *_differing(sides, device("sm_count"), "refuse", "sm_count", message("the number of multiprocessors")),
    ]


def _saved_recording_reasons(sides: SavedSides, devices: tuple[int, int]) -> list[Reason]:
    def option(name: str) -> Callable[[SavedRun, int], object]:
        return lambda run, _side: run.run.capture.options.get(name)

    def graph_trace(run: SavedRun, side: int) -> object:
        # As for traces: it makes no difference to a run without graphs.
        return run.run.capture.options.get("cuda_graph_trace") if run.has_graphs(devices[side]) else None

    def tool(run: SavedRun, _side: int) -> object:
        source = run.run.source
        return f"{source.tool} {source.tool_version}" if source.tool_version else None

    return [
        *_differing(sides, option("driver_version"), "warn", "driver", message("the driver")),
        *_differing(sides, tool, "warn", "tool", message("the profiler")),
        *_differing(sides, graph_trace, "refuse", "capture", message("the way in which CUDA graphs are traced")),
        *(reason for key, what in _TOLD.items() for reason in _differing(sides, option(key), "refuse", key, what)),
    ]


def _saved_window_reasons(sides: SavedSides) -> list[Reason]:
    def mode(run: SavedRun, _side: int) -> object:
        return run.run.window["mode"]

    def family(run: SavedRun, _side: int) -> object:
        names = run.run.window.get("iteration_names") or [None]
        return names[0] and family_of(names[0])

    found = [
        *_differing(sides, mode, "warn", "window", message("the choice of the window")),
        *_differing(sides, family, "refuse", "iteration_names", message("the name of the iterations")),
    ]
    counts = [_texts(run.run.iterations for run in side) for side in sides]
    windows = [run.run.window for side in sides for run in side]
    if all(window["mode"] == "all" and window.get("is_fallback") is False for window in windows):
        found.append(Reason("warn", "window", _WHOLE, "all", "all"))
    elif any(not run.run.iterations for side in sides for run in side):
        text = message("a saved analysis has no iterations ({before} and {after})", before=counts[0], after=counts[1])
        found.append(Reason("refuse", "iterations", text, *counts))
    return found


def _saved_workload_reasons(sides: SavedSides) -> list[Reason]:
    names = [{name for run in side for kernels in run.kernels.values() for name in kernels} for side in sides]
    if not all(names) or names[0] & names[1]:
        return []
    text = message("the sides share no kernel name, and a saved analysis tells nothing else to match them by")
    return [Reason("warn", "workload", text, *(str(len(side)) for side in names))]


def _saved_duplicate_reasons(sides: SavedSides) -> list[Reason]:
    found = []
    for side in sides:
        seen: dict[object, str] = {}
        for run in side:
            # The name of a file says nothing: a copy is the same capture.
            work = tuple(run.value("gpu_busy", device_id) for device_id in run.device_ids)
            facts = (run.run.window["start_ns"], run.run.window["end_ns"], work)
            name = run.run.source.file_name
            if facts in seen:
                found.append(_twice(seen[facts], name))
            seen.setdefault(facts, name)
    return found


def _twice(first: str, name: str) -> Reason:
    """Return the refusal of a capture that stands twice on a side, under one name or two."""
    if first == name:
        text = message("{name} stands twice on a side, and a run counted twice hides how runs vary", name=name)
    else:
        text = message(
            "{name} is a copy of {first} on the same side, and a run counted twice hides how runs vary",
            name=name,
            first=first,
        )
    return Reason("refuse", "duplicate_runs", text, first, name)


_WHOLE = message("every run counts from its first to its last GPU operation, as one iteration")
_ONLY_SUMS = message(
    "a run is a saved analysis, which holds sums alone: kernels are matched by name, not across fusion, and there are "
    "no NVTX paths of idle time, no overlap of phases and no sampled activity by phase; compare the traces to see them"
)


def _sorted(found: Iterable[Reason]) -> tuple[Reason, ...]:
    return tuple(
        sorted(dict.fromkeys(found), key=lambda reason: (reason.level != "refuse", list(KEYS).index(reason.key)))
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else str(value)


def _texts(values: Iterable[object]) -> str:
    known = dict.fromkeys(message("not known") if value is None else _text(value) for value in values)
    return joined(", ", known)


def _differing(
    sides: tuple[tuple[T, ...], tuple[T, ...]], fact: Callable[[T, int], object], level: Level, key: str, what: str
) -> list[Reason]:
    """Return a reason if a fact differs between any two runs that know it."""
    values = [[fact(view, side) for view in views] for side, views in enumerate(sides)]
    known = {str(value) for side in values for value in side if value is not None}
    if len(known) < 2:
        return []
    before, after = (_texts(side) for side in values)
    text = message("{what} differs ({before} and {after})", what=what, before=before, after=after)
    if before == after:
        text = message("{what} differs between runs of a side ({values})", what=what, values=before)
    return [Reason(level, key, text, before, after)]


def _device_reasons(sides: Sides, devices: tuple[int, int]) -> list[Reason]:
    def device(view: View, side: int) -> Device | None:
        return view.trace.device(devices[side])

    def of(name: str) -> Callable[[View, int], object]:
        return lambda view, side: getattr(device(view, side), name, None)

    return [
        *_differing(sides, of("name"), "refuse", "device", message("the GPU")),
        *_differing(sides, of("sm_count"), "refuse", "sm_count", message("the number of multiprocessors")),
        *_differing(sides, of("sm_clock_hz"), "warn", "max_clock", message("the highest clock of the GPU")),
    ]


def _clock_reasons(sides: Sides, devices: tuple[int, int]) -> list[Reason]:
    clocks = [
        [clock for view in views if (clock := clock_of(view, device)) is not None]
        for views, device in zip(sides, devices, strict=True)
    ]
    reasons = []
    for side in clocks:
        worst = max(side, key=lambda clock: abs(clock.drift), default=None)
        if worst is not None and abs(worst.drift) > DRIFT_WARN:
            text = message(
                "the GPC clock drifts by {drift} inside a run, from the first to the last quarter of its window",
                drift=percent_text(worst.drift),
            )
            reasons.append(Reason("warn", "clock", text, *(_clock_text(each) for each in clocks)))
    if clocks[0] and clocks[1]:
        before, after = (float(np.mean([clock.mean_hz for clock in side])) for side in clocks)
        change = after / before - 1
        if abs(change) > CLOCK_WARN:
            level: Level = "refuse" if abs(change) > CLOCK_REFUSE else "warn"
            text = message(
                "the mean GPC clock differs by {change} ({before:.0f} and {after:.0f} MHz)",
                change=percent_text(change),
                before=before / 1e6,
                after=after / 1e6,
            )
            reasons.append(Reason(level, "clock", text, *(_clock_text(each) for each in clocks)))
    return reasons


def _clock_text(clocks: Sequence[Clock]) -> str:
    if not clocks:
        return message("not sampled")
    return f"{np.mean([clock.mean_hz for clock in clocks]) / 1e6:.0f} MHz"


def _recording_reasons(sides: Sides) -> list[Reason]:
    def option(name: str) -> Callable[[View, int], object]:
        return lambda view, _side: view.trace.capture.options.get(name)

    def recorded(name: str) -> Callable[[View, int], object]:
        return lambda view, _side: view.trace.table(name) is not None

    def tool(view: View, _side: int) -> object:
        source = view.trace.source
        return f"{source.tool} {source.tool_version}" if source.tool_version else None

    reasons = [
        *_differing(sides, option("driver_version"), "warn", "driver", message("the driver")),
        *_differing(sides, option("l4t_version"), "warn", "software", message("the Jetson Linux release")),
        *_differing(sides, option("software_platform"), "warn", "software", message("the software platform")),
        *_differing(sides, option("cpu_architecture"), "refuse", "device", message("the CPU architecture")),
        *_differing(sides, tool, "warn", "tool", message("the profiler")),
        # By node, a graph's kernels are seen; by graph, only its launches.
        *_differing(sides, _graph_trace, "refuse", "capture", message("the way in which CUDA graphs are traced")),
        *_differing(
            sides, option("gpu_metrics_frequency_hz"), "warn", "capture", message("the sampling frequency of the GPU")
        ),
    ]
    for key, what in _TOLD.items():
        reasons += _differing(sides, option(key), "refuse", key, what)
    for name in _TABLES:
        what = message("whether `{table}` was recorded", table=name)
        reasons += _differing(sides, recorded(name), "warn", "capture", what)
    return reasons


def _graph_trace(view: View, _side: int) -> object:
    """Return how CUDA graphs were traced; `None` for a run that has none, where it makes no difference."""
    nodes = view.trace.table_or_empty("kernels")["graph_node_id"]
    if not (view.operations.kind == Kind.GRAPH).any() and nodes.null_count() == len(nodes):
        return None
    return view.trace.capture.options.get("cuda_graph_trace")


def _window_reasons(sides: Sides) -> list[Reason]:
    every = [view for views in sides for view in views]
    if any(not view.window.iterations for view in every):
        if all(view.window.mode == "all" and not view.window.is_fallback for view in every):
            return [Reason("warn", "window", _WHOLE, "all", "all")]
        if not all(view.window.mode == "explicit" for view in every):
            counts = [_texts(len(view.window.iterations) for view in views) for views in sides]
            text = message(
                "a run has no iterations that could be found ({before} and {after}), so its whole window would count "
                "as one; mark iterations with NVTX or name them with --nvtx",
                before=counts[0],
                after=counts[1],
            )
            return [Reason("refuse", "iterations", text, *counts)]
        text = message("windows were given by their edges, so each counts as one iteration")
        return [Reason("warn", "window", text, "explicit", "explicit")]

    def mark(view: View, _side: int) -> object:
        return message("NVTX ranges") if view.window.iterations[0].cpu_start_ns is not None else message("GPU work")

    marked = tuple(
        tuple(view for view in views if view.window.iterations[0].cpu_start_ns is not None) for views in sides
    )
    return [
        *_differing(sides, lambda view, _: view.window.mode, "warn", "window", message("the choice of the window")),
        *_differing(sides, mark, "warn", "window", message("what marks the iterations")),
        *_differing(
            (marked[0], marked[1]),
            lambda view, _: family_of(view.window.iterations[0].name),
            "refuse",
            "iteration_names",
            message("the name of the iterations"),
        ),
    ]


def _batch_reasons(sides: Sides) -> list[Reason]:
    def batch(view: View, _side: int) -> object:
        if view.scope.batch is not None:
            return view.scope.batch
        payloads = {iteration.payload for iteration in view.window.iterations[: view.periods]}
        only = payloads.pop() if len(payloads) == 1 else None
        return view.trace.capture.items_per_iteration if only is None else only

    return _differing(sides, batch, "refuse", "batch", message("the number of items per iteration"))


def _workload_reasons(sides: Sides) -> list[Reason]:
    """Refuse where both sides run kernels, and share neither a kernel name nor an NVTX path."""
    kernels, paths = [], []
    for views in sides:
        tables = [known_names(view.trace.table_or_empty("kernels")).unique().drop_nulls() for view in views]
        kernels.append({name for names in tables for name in names.to_list()})
        paths.append({path for view in views for path in view.ranges.paths})
    if not all(kernels) or kernels[0] & kernels[1] or paths[0] & paths[1]:
        return []
    counts = [str(len(names)) for names in kernels]
    text = message("the sides share no kernel name and no NVTX range, so they are different programs")
    return [Reason("refuse", "workload", text, *counts)]


def _duplicate_reasons(sides: Sides) -> list[Reason]:
    """Refuse a capture that stands twice on a side; one that stands on both sides is only worth a warning."""
    seen: list[dict[object, str]] = [{}, {}]
    reasons = []
    for side, views in enumerate(sides):
        for view in views:
            # Two captures that agree in every moment of their first operations are one capture, whatever their names.
            operations = view.operations
            facts = (len(operations), operations.starts[:1000].tobytes(), operations.ends[:1000].tobytes())
            name = view.trace.source.file_name
            if not len(operations):
                continue
            if facts in seen[side]:
                reasons.append(_twice(seen[side][facts], name))
            elif side and facts in seen[0]:
                text = message("{name} stands on both sides", name=name)
                reasons.append(Reason("warn", "duplicate_runs", text, seen[0][facts], name))
            seen[side].setdefault(facts, name)
    return reasons
