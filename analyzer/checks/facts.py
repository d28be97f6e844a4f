"""Whether runs may be held against those of a baseline, from the facts that both of them kept.

The keys and the limits are those of `nitro.analyzer.compare.comparability`, which compares two captures that are both
at hand; of a baseline only the facts are left. `told` is ours: what a user says of a run that no trace can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import fmean

from nitro.errors import UsageError

from ..compare.comparability import CLOCK_REFUSE, CLOCK_WARN, KEYS, Level, Reason
from ..compare.quantities import percent_text
from ..message import joined, message
from .gauges import nearest
from .runs import DeviceFacts, Run

TOLD = "told"
ALLOWED_KEYS = (*KEYS, TOLD)
Sides = tuple[Sequence[Run], Sequence[Run]]


def reasons_between(before: Sequence[Run], now: Sequence[Run]) -> tuple[Reason, ...]:
    """Return what speaks against holding runs against those of a baseline, refusals first."""
    sides = (before, now)
    found = dict.fromkeys((*_of_devices(sides), *_of_recording(sides), *_of_window(sides), *_of_told(sides)))
    found |= dict.fromkeys((*_of_workload(sides), *_of_captures(sides)))
    return tuple(sorted(found, key=lambda reason: (reason.level != "refuse", ALLOWED_KEYS.index(reason.key))))


def reasons_among(runs: Sequence[Run]) -> tuple[Reason, ...]:
    """Return what speaks against taking runs as repetitions of one side."""
    return tuple(reason for reason in reasons_between(runs, runs) if reason.level == "refuse")


def refusals(reasons: Iterable[Reason], allow: Iterable[str]) -> tuple[Reason, ...]:
    """Return the refusals that are not allowed."""
    allowed = frozenset(allow)
    return tuple(reason for reason in reasons if reason.level == "refuse" and reason.key not in allowed)


def check_allowed(allow: Iterable[str]) -> None:
    """Do nothing if every key can be allowed.

    Raises:
        UsageError: one of them does not exist.
    """
    for key in allow:
        if key not in ALLOWED_KEYS:
            raise UsageError(f"--allow {key} is unknown; {nearest(key, ALLOWED_KEYS)}")


def _differing(sides: Sides, fact: Callable[[Run], object], level: Level, key: str, what: str) -> Iterator[Reason]:
    """Yield a reason if a fact differs between any two runs that know it."""
    values = [[fact(run) for run in runs] for runs in sides]
    if len({str(value) for side in values for value in side if value is not None}) < 2:
        return
    before, now = (_texts(side) for side in values)
    text = message("{what} differs ({before} and {after})", what=what, before=before, after=now)
    if before == now:
        text = message("{what} differs between runs of a side ({values})", what=what, values=before)
    yield Reason(level, key, text, before, now)


def _texts(values: Iterable[object]) -> str:
    # Never a set's order: the same input gives the same text.
    return joined(", ", dict.fromkeys(message("not known") if value is None else str(value) for value in values))


def _of_devices(sides: Sides) -> Iterator[Reason]:
    def every(of: Callable[[DeviceFacts], object]) -> Callable[[Run], object]:
        def fact(run: Run) -> object:
            known = [str(value) for device in run.facts.devices if (value := of(device)) is not None]
            return ", ".join(known) or None

        return fact

    yield from _differing(sides, every(lambda device: device.name), "refuse", "device", message("the GPU"))
    what = message("the number of multiprocessors")
    yield from _differing(sides, every(lambda device: device.sm_count), "refuse", "sm_count", what)
    what = message("the highest clock of the GPU")
    yield from _differing(sides, every(lambda device: device.sm_clock_hz), "warn", "max_clock", what)
    yield from _of_clock(sides)


def _of_clock(sides: Sides) -> Iterator[Reason]:
    clocks = [
        [device.gpc_clock_hz for run in runs for device in run.facts.devices if device.gpc_clock_hz is not None]
        for runs in sides
    ]
    if not all(clocks):
        return
    before, now = (fmean(side) for side in clocks)
    change = now / before - 1
    if abs(change) > CLOCK_WARN:
        text = message(
            "the mean GPC clock differs by {change} ({before:.0f} and {after:.0f} MHz)",
            change=percent_text(change),
            before=before / 1e6,
            after=now / 1e6,
        )
        level: Level = "refuse" if abs(change) > CLOCK_REFUSE else "warn"
        yield Reason(level, "clock", text, f"{before / 1e6:.0f} MHz", f"{now / 1e6:.0f} MHz")


def _of_recording(sides: Sides) -> Iterator[Reason]:
    def option(name: str) -> Callable[[Run], object]:
        return lambda run: run.facts.options.get(name)

    rows: tuple[tuple[str, Level, str, str], ...] = (
        ("cpu_architecture", "refuse", "device", message("the CPU architecture")),
        ("driver_version", "warn", "driver", message("the driver")),
        ("l4t_version", "warn", "software", message("the Jetson Linux release")),
        ("software_platform", "warn", "software", message("the software platform")),
        ("cuda_graph_trace", "refuse", "capture", message("the way in which CUDA graphs are traced")),
        ("gpu_metrics_frequency_hz", "warn", "capture", message("the sampling frequency of the GPU")),
    )
    for name, level, key, what in rows:
        yield from _differing(sides, option(name), level, key, what)
    yield from _differing(sides, lambda run: run.facts.tool, "warn", "tool", message("the profiler"))
    recorded = sorted({name for runs in sides for run in runs for name in run.facts.recorded or ()})
    for table in recorded:
        what = message("whether `{table}` was recorded", table=table)

        def is_there(run: Run, table: str = table) -> object:
            return None if run.facts.recorded is None else table in run.facts.recorded

        yield from _differing(sides, is_there, "warn", "capture", what)


def _of_window(sides: Sides) -> Iterator[Reason]:
    what = message("the choice of the window")
    yield from _differing(sides, lambda run: run.facts.window, "warn", "window", what)
    what = message("what marks the iterations")
    yield from _differing(sides, lambda run: run.facts.iteration_mark, "warn", "window", what)
    what = message("the name of the iterations")
    yield from _differing(sides, lambda run: run.facts.iteration_name, "refuse", "iteration_names", what)
    what = message("the number of items per iteration")

    def batch(run: Run) -> object:
        return None if run.facts.batch is None else f"{run.facts.batch:g}"

    yield from _differing(sides, batch, "refuse", "batch", what)


def _of_told(sides: Sides) -> Iterator[Reason]:
    for name in sorted({name for runs in sides for run in runs for name in run.facts.told}):

        def told(run: Run, name: str = name) -> object:
            return run.facts.told.get(name)

        what = message("the fact {name}", name=name)
        reasons = list(_differing(sides, told, "refuse", TOLD, what))
        yield from reasons
        if not reasons and any(told(run) is None for runs in sides for run in runs):
            before, now = (_texts(told(run) for run in runs) for runs in sides)
            text = message(
                "the fact {name} is known on one side only ({before} and {after})", name=name, before=before, after=now
            )
            yield Reason("warn", TOLD, text, before, now)


def _of_workload(sides: Sides) -> Iterator[Reason]:
    """Refuse where both sides run kernels, and share neither one of the longest nor an NVTX path."""
    kernels = [{name for run in runs for name in run.facts.kernels} for runs in sides]
    phases = [{path for run in runs for path in run.phases} for runs in sides]
    if all(kernels) and not kernels[0] & kernels[1] and not phases[0] & phases[1]:
        text = message("the sides share no kernel name and no NVTX range, so they are different programs")
        yield Reason("refuse", "workload", text, *(str(len(names)) for names in kernels))


def _of_captures(sides: Sides) -> Iterator[Reason]:
    for runs in sides:
        seen: set[str] = set()
        for run in runs:
            if run.fingerprint in seen:
                name = run.file_name
                text = message("{name} stands twice on a side, and a run counted twice hides how runs vary", name=name)
                yield Reason("refuse", "duplicate_runs", text, name, name)
            seen.add(run.fingerprint)
    if sides[0] is not sides[1]:
        before = {run.fingerprint for run in sides[0]}
        for run in sides[1]:
            if run.fingerprint in before:
                text = message("{name} stands on both sides", name=run.file_name)
                yield Reason("warn", "duplicate_runs", text, run.file_name, run.file_name)
