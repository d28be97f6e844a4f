"""Choose how to run two problems on a device, by measuring; and remember the choice.

Successive halving: all candidates get a few samples, the best of each family more, and so on. Each rung decides by
fresh samples of its own, so that a lucky sample does not carry a candidate to the end. Families do not push each other
out: "do not fuse", streams and elastic streams are in the race until the last rung, and so is each form of fusion.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nitro.errors import InputError, ToolError

from . import nvrtc
from .bodies import Body
from .candidates import FUSED, OURS, Candidate, Family, carveout_twins, kernels_of
from .compile_queue import CompileQueue
from .problems import ElementwiseProblem, Problem
from .pruning import Dropped, fitted, is_co_resident
from .runtime import DeviceFacts, Executor, Runtime
from .strategies import headers
from .ways import all_ways, plausible_bodies, shortlist
from .workbench import Way, Workbench

CACHE_FORMAT = 1
# Other preferences for shared memory are tried in a second step, for so many of each family.
_TWINS = 3
# No capped grid is tried with more blocks an SM.
_MOST_BLOCKS = 8


@dataclass(frozen=True, slots=True)
class Rung:
    """One round of the race: samples of every candidate left, and how many of each family go on."""

    samples: int
    repeats: int
    keep: int


_SCREEN = Rung(5, 2, 0)
_NOTHING = ElementwiseProblem("copy", 0)
RUNGS = (Rung(2, 2, 8), Rung(4, 2, 3), Rung(9, 3, 1))


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate after its last rung. `median_us` is over the samples of that rung alone."""

    name: str
    family: Family
    rung: int
    median_us: float
    samples_us: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Race:
    """The result of successive halving, by candidate, the winners first."""

    ranked: tuple[Ranked, ...]
    winners: Mapping[Family, Ranked]

    def best(self, *families: Family) -> Ranked | None:
        """Return the fastest winner of some families; None if they had no candidate."""
        held = [self.winners[family] for family in families if family in self.winners]
        return min(held, key=lambda ranked: ranked.median_us, default=None)


def halve(
    entries: Sequence[Candidate],
    measure: Callable[[Sequence[Candidate], Rung], Mapping[str, Sequence[float]]],
    *,
    rungs: Sequence[Rung] = RUNGS,
    twins: Callable[[Candidate], Sequence[Candidate]] = lambda _: (),
) -> Race:
    """Return the winner of each family by successive halving.

    Args:
        entries: who takes part.
        measure: returns fresh samples in microseconds by name; who is missing could not run, and is out.
        rungs: the rounds.
        twins: variants of a candidate, which join the race after the first rung if it is among the best of its family.
    """
    left = list(entries)
    ranked: dict[str, Ranked] = {}
    for index, rung in enumerate(rungs):
        samples = measure(left, rung)
        left = [candidate for candidate in left if candidate.name in samples]
        for candidate in left:
            taken = tuple(samples[candidate.name])
            ranked[candidate.name] = Ranked(candidate.name, candidate.family, index, statistics.median(taken), taken)
        kept: list[Candidate] = []
        for family in dict.fromkeys(candidate.family for candidate in left):
            mine = sorted(
                (candidate for candidate in left if candidate.family == family),
                key=lambda candidate: ranked[candidate.name].median_us,
            )
            kept += mine[: rung.keep]
            if index == 0:
                kept += [twin for candidate in mine[:_TWINS] for twin in twins(candidate)]
        left = kept
    order = sorted(ranked.values(), key=lambda one: (-one.rung, one.median_us))
    winners: dict[Family, Ranked] = {}
    for one in order:
        winners.setdefault(one.family, one)
    return Race(tuple(order), winners)


# ---- on a device ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Space:
    """What can be run of two problems on a device, and what cannot."""

    candidates: tuple[Candidate, ...]
    dropped: tuple[Dropped, ...]
    co_resident: bool


def space(found: Sequence[Candidate], queue: CompileQueue) -> Space:
    """Return the candidates that fit the architecture of a queue, after compiling their kernels."""
    resources = queue.resources(kernels_of(found))
    kept, dropped = fitted(found, resources, queue.sm)
    return Space(tuple(kept), tuple(dropped), is_co_resident(found, resources, queue.sm))


def screened_bodies(
    runtime: Runtime,
    problem: Problem,
    queue: CompileQueue,
    *,
    executor: Executor | None = None,
    beside: AbstractContextManager[object] | None = None,
) -> tuple[Body, ...]:
    """Return the bodies worth fusing for a problem, by their times alone; see `ways.shortlist`.

    Raises:
        UsageError: no body solves the problem on this device.
        ToolError: none of them runs.
    """
    entries = [Candidate("first", (body, None)) for body in plausible_bodies(problem, runtime.facts.sm)]
    fitting = space(entries, queue).candidates
    bench = Workbench(runtime, (problem, _NOTHING), executor=executor, beside=beside)
    try:
        ways, failures = bench.prepare_all(fitting)
        if not ways:
            reason = (failures or [f"nothing fits an SM of {runtime.facts.name}"])[0]
            raise ToolError(f"no body runs {problem}: {reason}")
        samples = bench.sample(ways, _SCREEN.samples, _SCREEN.repeats)
    finally:
        bench.close()
    timed = [(way.candidate.bodies[0], statistics.median(taken)) for way, taken in zip(ways, samples, strict=True)]
    return shortlist([(body, time) for body, time in timed if body is not None])


@dataclass(slots=True)
class Tuning:
    """A race on a workbench: who ran, who won, and who did not run."""

    race: Race
    entered: dict[str, Candidate]
    failures: list[str] = field(default_factory=list)

    def winner(self, *families: Family) -> Candidate | None:
        """Return the fastest candidate of some families."""
        best = self.race.best(*families)
        return self.entered[best.name] if best else None


def tune(bench: Workbench, entries: Sequence[Candidate], *, rungs: Sequence[Rung] = RUNGS) -> Tuning:
    """Return the race of candidates on a workbench.

    Raises:
        ToolError: the device failed in a way that makes all results worthless.
    """
    ways: dict[str, Way] = {}
    entered: dict[str, Candidate] = {}
    failures: list[str] = []

    def measure(wanted: Sequence[Candidate], rung: Rung) -> dict[str, Sequence[float]]:
        prepared, failed = bench.prepare_all([one for one in wanted if one.name not in ways])
        failures.extend(failed)
        for way in prepared:
            ways[way.candidate.name] = way
            entered[way.candidate.name] = way.candidate
        running = [ways[one.name] for one in wanted if one.name in ways]
        samples = bench.sample(running, rung.samples, rung.repeats)
        return {way.candidate.name: taken for way, taken in zip(running, samples, strict=True)}

    return Tuning(halve(entries, measure, rungs=rungs, twins=carveout_twins), entered, failures)


# ---- the choice, remembered -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Choice:
    """What the tuner chose for two problems.

    `gain` is the time of the best way that is not fused over that of the choice: 1 where fusion does not pay.
    """

    candidate: Candidate
    median_us: float
    unfused_us: float

    @property
    def is_fused(self) -> bool:
        """Return whether both run in one launch."""
        return self.candidate.family in FUSED

    @property
    def gain(self) -> float:
        """Return how much faster the choice is than the best way that is not fused."""
        return self.unfused_us / self.median_us


class TuningCache:
    """The choices for one device, in a JSON file.

    A choice belongs to a pair of problems (shapes and types), the driver, the compiler, and the source of the kernels:
    when one of them changes, it is tuned anew. A file of another device is refused, since its choices would be wrong
    without anybody noticing.
    """

    def __init__(self, path: Path, facts: DeviceFacts) -> None:
        """Read the file, if there is one.

        Raises:
            InputError: it is of another device, or not a tuning cache.
        """
        self.path, self.device = path, _device(facts)
        self._entries: dict[str, dict[str, Any]] = {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            entries, device, form = content["entries"], content["device"], content["format"]
            whole = isinstance(entries, dict) and all(isinstance(entry, dict) for entry in entries.values())
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{path}: this is no tuning cache ({error}); name another file or remove it.") from error
        if not whole or form != CACHE_FORMAT:
            raise InputError(
                f"{path}: this tuning cache has format {form!r}, this version reads {CACHE_FORMAT}; remove the file."
            )
        if device != self.device:
            raise InputError(
                f"{path}: this was tuned on {_named(device)}, and this is {_named(self.device)}; "
                "name another file with --cache, or remove it."
            )
        self._entries = entries

    def key(self, first: Problem, second: Problem, facts: DeviceFacts, toolkit: tuple[int, ...]) -> str:
        """Return what a choice depends on, beside the device, as a short text."""
        parts = [repr(first), repr(second), facts.driver, list(toolkit), source_digest()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def find(self, key: str, entries: Sequence[Candidate]) -> Choice | None:
        """Return the remembered choice among candidates, None if there is none or it is not among them."""
        held = self._entries.get(key)
        if held is None:
            return None
        try:
            named = {candidate.name: candidate for candidate in entries}
            named |= {twin.name: twin for candidate in entries for twin in carveout_twins(candidate)}
            times = [float(held[name]) for name in ("median_us", "unfused_us")]
            return Choice(named[held["choice"]], *times) if all(0 < one < math.inf for one in times) else None
        except (KeyError, TypeError, ValueError, OverflowError):
            return None

    def keep(self, key: str, choice: Choice, race: Race, problems: tuple[Problem, Problem]) -> None:
        """Remember a choice, with the whole table that led to it.

        Raises:
            InputError: the file cannot be written.
        """
        self._entries[key] = {
            "problems": [repr(problem) for problem in problems],
            "choice": choice.candidate.name,
            "median_us": choice.median_us,
            "unfused_us": choice.unfused_us,
            "table": [[one.name, one.family, one.rung, one.median_us] for one in race.ranked],
        }
        content = {"format": CACHE_FORMAT, "device": self.device, "entries": self._entries}
        write_whole(self.path, json.dumps(content, indent=1))


def write_whole(path: Path, text: str) -> None:
    """Write a file so that readers see all of it or nothing.

    Raises:
        InputError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_text(text + "\n", encoding="utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another place.") from error


def _device(facts: DeviceFacts) -> dict[str, Any]:
    return {"name": facts.name, "sm": facts.sm, "sms": facts.sms}


def _named(device: Any) -> str:
    if not isinstance(device, dict):
        return "an unknown device"
    name = ascii(str(device.get("name"))).strip("'")  # control characters would steer a terminal
    return f"{name} (sm_{device.get('sm')!a}, {device.get('sms')!a} SMs)"


def source_digest() -> str:
    """Return a digest of the device source that every kernel is compiled from."""
    return hashlib.sha256(json.dumps(sorted(headers().items())).encode()).hexdigest()[:16]


def default_cache(facts: DeviceFacts) -> Path:
    """Return where the choices for a device are kept, beside the compiled kernels."""
    name = re.sub(r"[^a-z0-9]+", "_", facts.name.lower()).strip("_")
    return nvrtc.cache_folder() / "tuning" / f"{name}_sm{facts.sm}_{facts.sms}.json"


def choose_way(
    runtime: Runtime,
    first: Problem,
    second: Problem,
    *,
    cache: TuningCache | None = None,
    queue: CompileQueue | None = None,
    rungs: Sequence[Rung] = RUNGS,
    remembered: bool = True,
) -> tuple[Choice, Tuning | None]:
    """Return the fastest way to run two problems on a device, and the race that found it (None: it was remembered).

    Args:
        runtime: the device.
        first: a problem.
        second: another, that does not depend on the first.
        cache: where choices are remembered.
        queue: compiles; default: one of its own.
        rungs: how much is measured.
        remembered: whether a choice in the cache will do.

    Raises:
        UsageError: no body solves one of the problems on this device.
        ToolError: the compiler is missing, or the device failed.
        InputError: the cache cannot be written.
    """
    key = ""
    if cache:
        key = cache.key(first, second, runtime.facts, nvrtc.find().version)
        held = cache.find(key, _nameable(first, second, runtime.facts.sm)) if remembered else None
        if held is not None:
            return held, None
    if queue is None:
        with CompileQueue(runtime.facts.sm) as own:
            return choose_way(runtime, first, second, cache=cache, queue=own, rungs=rungs, remembered=remembered)
    executor = Executor(runtime)
    firsts, seconds = (screened_bodies(runtime, problem, queue, executor=executor) for problem in (first, second))
    entries = space(all_ways(firsts, seconds), queue).candidates
    bench = Workbench(runtime, (first, second), executor=executor)
    try:
        tuning = tune(bench, entries, rungs=rungs)
    finally:
        bench.close()
    choice = chosen(tuning)
    if cache:
        cache.keep(key, choice, tuning.race, (first, second))
    return choice, tuning


def _nameable(first: Problem, second: Problem, sm: int) -> list[Candidate]:
    """Return every candidate that a choice could be, with every number of blocks that is ever tried."""
    every = all_ways(plausible_bodies(first, sm), plausible_bodies(second, sm))
    return fitted(every, {}, sm, unknown_blocks=_MOST_BLOCKS)[0]


def chosen(tuning: Tuning) -> Choice:
    """Return the fastest way of all that are ours, with the time of the fastest that is not fused.

    Raises:
        ToolError: none of them ran.
    """
    best = tuning.race.best(*OURS)
    unfused = tuning.race.best(*(family for family in OURS if family not in FUSED))
    if best is None:
        reason = (tuning.failures or ["there was none to run"])[0]
        raise ToolError(f"no way to run the pair works on this device: {reason}")
    return Choice(tuning.entered[best.name], best.median_us, unfused.median_us if unfused else best.median_us)
