"""Does fusion pay? The committed cases measured by a fixed protocol; `study_summary` says what follows.

Each case is tuned first: successive halving picks a winner in every family on tuning samples. Then the winners are
timed again, in rounds of their own, and only these judging samples are reported. In every comparison each side is the
winner on tuning samples of its group: *simple* (one after the other, streams, graph branches), *elastic*, *library*
(cuBLAS or cuDNN beside our memory kernel), *fused*.

The rule that accepts a pair (`cases.is_accepted`) sees tuning samples of the bodies alone and compiled resources.
"""

from __future__ import annotations

import itertools
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np

from nitro.errors import NitroError, ToolError, UsageError

from . import vendor as libraries
from .bench import balanced
from .bodies import Body
from .candidates import ALONE, FUSED, OURS, Candidate, Family, kernels_of
from .cases import COMPUTE_FLOP_PER_S, MEMORY_BYTES_PER_S, Alone, is_accepted, predicted_time_s
from .compile_queue import CompileQueue
from .problems import Problem, operation_of
from .runtime import Executor, Runtime
from .sm_budget import Budget, Eater
from .study_results import CaseResult, Decision, Regret, Timing
from .subjects import Subject
from .teams import coarser
from .tuner import RUNGS, Rung, Space, Tuning, chosen, screened_bodies, space, tune
from .vendor import Library
from .ways import all_ways, plausible_bodies
from .workbench import Workbench

JUDGING = Rung(21, 3, 0)
EXHAUSTIVE = Rung(7, 2, 0)


@dataclass(slots=True)
class Lab:
    """What the cases of a study share: the device, the compiler, loaded kernels, bodies worth fusing, a library.

    `beside` is what to be in while ways are timed, such as an eater, and `budget` says so in what is written.
    """

    runtime: Runtime
    queue: CompileQueue
    vendor: Library | None = None
    rungs: Sequence[Rung] = RUNGS
    judging: Rung = JUDGING
    families: tuple[Family, ...] = get_args(Family)
    prior: Sequence[CaseResult] = ()
    beside: AbstractContextManager[object] = field(default_factory=nullcontext)
    budget: Budget | None = None
    executor: Executor = field(init=False)
    _bodies: dict[str, tuple[Body, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.executor = Executor(self.runtime)

    def bodies(self, problem: Problem) -> tuple[Body, ...]:
        """Return the bodies worth fusing; memory-bound problems of one kind share theirs, whatever their length."""
        key = repr(problem) if operation_of(problem).startswith(("gemm", "conv")) else _kernel_class(problem)
        if key not in self._bodies:
            self._bodies[key] = screened_bodies(
                self.runtime, problem, self.queue, executor=self.executor, beside=self.beside
            )
        return self._bodies[key]

    def ways(self, subject: Subject) -> list[Candidate]:
        """Return every way to run a subject, before resources are known. A control gets the fastest bodies only."""
        calls = libraries.calls(subject.first) if self.vendor and not subject.is_control else ()
        known = [one for one in self.prior if _kinds(one.kernel_class, one.problems[1]) == self._kinds(subject)]
        if known:
            every = ways_known_from(known, subject, self.runtime.facts.sm, calls)
        else:
            firsts, seconds = self.bodies(subject.first), self.bodies(subject.second)
            if subject.is_control:
                firsts, seconds = firsts[:1], seconds[:1]
            every = all_ways(firsts, seconds, calls=calls)
        return [one for one in every if one.family in self.families or one.family in ALONE]

    def _kinds(self, subject: Subject) -> tuple[str, str]:
        return _kinds(_kernel_class(subject.first), str(subject.second))

    def balance(self, subject: Subject, ratio: float) -> Subject:
        """Return a subject whose second problem is scaled to take `ratio` times as long as the first.

        Raises:
            UsageError: the second problem is compute-bound, where the shape is the layer's.
        """
        problems = (subject.first, subject.second)
        fastest = (self.bodies(subject.first)[0], self.bodies(subject.second)[0])
        second = balanced(self.runtime, problems, fastest, ratio, executor=self.executor, beside=self.beside)
        return replace(subject, second=second)

    def compile_alone(self, problem: Problem) -> None:
        """Start to compile what finding the bodies for a problem needs."""
        try:
            found = plausible_bodies(problem, self.runtime.facts.sm)
        except UsageError:
            return  # said when the bodies are asked for
        self.queue.add(kernels_of(Candidate("first", (body, None)) for body in found))

    def compile_ahead(self, wanted: Iterable[Subject]) -> None:
        """Start to compile everything that subjects need."""
        for subject in wanted:
            self.queue.add(kernels_of(self.ways(subject)))


def _kinds(kernel_class: str, second: str) -> tuple[str, str]:
    return kernel_class, second.partition("(")[0]


def ways_known_from(
    results: Sequence[CaseResult], subject: Subject, sm: int, calls: Sequence[str] = ()
) -> list[Candidate]:
    """Return the ways worth trying for a subject by results of pairs of the same kinds of kernels.

    Unfused ways are all of those with the bodies of the results. Fused ones are those that were among the best of their
    family in the first rung of a case; the others had their chance.
    """
    names = {name.partition(": ")[2] for one in results for name, family, _, _ in one.table if family == "sequential"}
    bodies = [plausible_bodies(problem, sm) for problem in (subject.first, subject.second)]
    pairs = [pair for pair in itertools.product(*bodies) if " + ".join(body.name for body in pair) in names]
    firsts, seconds = (list(dict.fromkeys(half)) for half in zip(*pairs, strict=True)) if pairs else ([], [])
    unfused = [one for one in all_ways(firsts, seconds, calls=calls) if one.strategy is None]
    best = {_without_numbers(name) for one in results for name, _, rung, _ in one.table if rung > 0}
    coarse = [body for second in seconds for body in coarser(second)]
    fused = [one for one in all_ways(firsts, list(dict.fromkeys([*seconds, *coarse]))) if one.strategy is not None]
    return unfused + [one for one in fused if _without_numbers(one.name) in best]


def _without_numbers(name: str) -> str:
    """Return the name of a candidate without blocks per SM and preference for shared memory."""
    return re.sub(r" x\d+| carveout \d+%", "", name)


def _kernel_class(problem: Problem) -> str:
    return f"{operation_of(problem)} {problem.dtype}"


def measure(lab: Lab, subject: Subject, *, exhaustive: bool = False) -> CaseResult:
    """Return what was measured of a subject.

    Args:
        lab: the device and what is shared.
        subject: what to measure.
        exhaustive: measure every way again, on judging samples, for the regret of the tuner.

    Raises:
        UsageError: no body solves one of its problems on this device.
        ToolError: the device failed.
    """
    begin = time.monotonic()
    found = space(lab.ways(subject), lab.queue)
    bench = Workbench(
        lab.runtime,
        (subject.first, subject.second),
        library=lab.vendor,
        executor=lab.executor,
        beside=lab.beside,
    )
    clocks: dict[str, dict[str, float]] = {"before tuning": lab.runtime.clocks_mhz()}
    try:
        tuning = tune(bench, found.candidates, rungs=lab.rungs)
        clocks["before judging"] = lab.runtime.clocks_mhz()
        winners = [tuning.entered[one.name] for one in tuning.race.winners.values()]
        ways, failures = bench.prepare_all(winners)
        samples = bench.sample(ways, lab.judging.samples, lab.judging.repeats)
        clocks["after judging"] = lab.runtime.clocks_mhz()
        eaten = lab.beside.bytes_per_s if isinstance(lab.beside, Eater) else None
        regret = _regret(bench, tuning) if exhaustive else None
        fused = tuning.winner(*FUSED)
        same_bits = bench.has_bits_of_the_bodies_alone(fused) if fused else None
        differences = _library_differences(bench, lab, subject, tuning)
    finally:
        bench.close()
    return CaseResult(
        subject.name,
        (str(subject.first), str(subject.second)),
        _kernel_class(subject.first),
        subject.ratio,
        subject.is_control,
        decide(subject, tuning, found),
        tuple(_timing(tuning.entered[one.name], one.samples_us) for one in tuning.race.winners.values()),
        tuple(_timing(way.candidate, taken) for way, taken in zip(ways, samples, strict=True)),
        chosen(tuning).candidate.name,
        same_bits,
        differences,
        tuple((one.name, one.family, one.rung, round(one.median_us, 2)) for one in tuning.race.ranked),
        len(found.dropped),
        tuple(tuning.failures + failures),
        regret,
        clocks,
        round(time.monotonic() - begin, 2),
        eaten,
    )


def decide(subject: Subject, tuning: Tuning, found: Space) -> Decision:
    """Return the rule's decision, from tuning samples of the bodies alone and compiled resources.

    Raises:
        ToolError: a problem could not be run alone.
    """
    alone: list[Alone] = []
    for problem, family in zip((subject.first, subject.second), ALONE, strict=True):
        best = tuning.race.best(family)
        if best is None:
            raise ToolError(f"{subject.name}: no body runs {problem} alone: {(tuning.failures or ['none fits'])[0]}")
        ridge = COMPUTE_FLOP_PER_S["f16" if problem.dtype == "float16" else "f32"] / MEMORY_BYTES_PER_S
        alone.append(Alone(best.median_us * 1e-6, problem.flop / problem.streamed_bytes / ridge))
    first, second = alone
    predicted = (first.time_s + second.time_s) / predicted_time_s(first.time_s, second.time_s)
    return Decision(
        first.time_s * 1e6,
        second.time_s * 1e6,
        first.intensity_over_ridge,
        second.intensity_over_ridge,
        found.co_resident,
        predicted,
        is_accepted(first, second, is_co_resident=found.co_resident),
    )


def _timing(candidate: Candidate, samples: Sequence[float]) -> Timing:
    rounded = tuple(round(one, 3) for one in samples)
    low, middle, high = np.percentile(rounded, (25, 50, 75))
    return Timing(candidate.name, candidate.family, float(middle), float(low), float(high), rounded)


def _regret(bench: Workbench, tuning: Tuning) -> Regret:
    """Return the regret of the tuner's choice, after measuring all of our ways again in rounds of their own."""
    choice = chosen(tuning).candidate
    ways, _ = bench.prepare_all([one for one in tuning.entered.values() if one.family in OURS])
    samples = bench.sample(ways, EXHAUSTIVE.samples, EXHAUSTIVE.repeats)
    return regret_of(choice.name, {way.candidate.name: taken for way, taken in zip(ways, samples, strict=True)})


def regret_of(choice: str, samples: Mapping[str, Sequence[float]]) -> Regret:
    """Return the regret of a choice against the best of samples by name."""
    medians = {name: statistics.median(taken) for name, taken in samples.items()}
    best = min(medians, key=lambda name: medians[name])
    return Regret(len(medians), choice, medians[choice], best, medians[best], medians[choice] / medians[best] - 1)


def _library_differences(bench: Workbench, lab: Lab, subject: Subject, tuning: Tuning) -> dict[str, float]:
    """Return how far the library is from our result, for the calls that read the arrays as we do."""
    if lab.vendor is None or subject.is_control:
        return {}
    alone = tuning.winner("first")
    assert alone is not None
    found: dict[str, float] = {}
    for call in libraries.calls(subject.first):
        bench.prepare(alone)
        bench.executor.check()
        difference = lab.vendor.difference(call, subject.first, bench.first_arrays(0))
        if difference is not None:
            found[call] = difference
    return found


def screen_all(lab: Lab, wanted: Sequence[Subject], progress: Callable[[str], None] | None = None) -> list[str]:
    """Find the bodies worth fusing of all subjects, so that their kernels can be compiled ahead.

    Returns:
        For each subject that cannot be run here a sentence.
    """
    for subject in wanted:
        for problem in (subject.first, subject.second):
            lab.compile_alone(problem)
    found = [(subject, _screened(lab, subject)) for subject in wanted]
    lab.compile_ahead(subject for subject, failure in found if failure is None)
    failures = [failure for _, failure in found if failure]
    if progress:
        for name, bodies in lab._bodies.items():
            progress(f"{name}: {', '.join(body.name for body in bodies)}")
    return failures


def _screened(lab: Lab, subject: Subject) -> str | None:
    try:
        lab.ways(subject)
    except NitroError as error:
        return f"{subject.name}: {error}"
    return None
