"""Does fusion pay? The committed cases measured by a fixed protocol, and what follows from the numbers.

Each case is tuned first: successive halving picks a winner in every family on tuning samples. Then the winners are
timed again, in rounds of their own, and only these judging samples are reported. In every comparison each side is the
winner on tuning samples of its group: *simple* (one after the other, streams, graph branches), *elastic*, *library*
(cuBLAS or cuDNN beside our memory kernel), *fused*. A difference of less than 2 % is a tie.

The rule that accepts a pair (`cases.is_accepted`) sees tuning samples of the bodies alone and compiled resources.
"""

from __future__ import annotations

import fnmatch
import itertools
import math
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, get_args

import numpy as np

from nitro.errors import InputError, NitroError, ToolError, UsageError

from . import vendor as libraries
from .bench import balanced
from .bodies import Body, operation_of
from .candidates import (
    ALONE,
    FUSED,
    LIBRARY,
    OURS,
    SIMPLE,
    Candidate,
    Family,
    all_ways,
    coarser,
    kernels_of,
    plausible_bodies,
)
from .cases import (
    COMPUTE_FLOP_PER_S,
    LEAST_RATIO,
    MEMORY_BYTES_PER_S,
    Alone,
    Kind,
    cases,
    is_accepted,
    predicted_time_s,
)
from .compile_queue import CompileQueue
from .pairs import Pair
from .prediction import Quality, Sample, quality
from .problems import (
    ConvolutionProblem,
    ElementwiseProblem,
    EmbeddingProblem,
    GemmProblem,
    LayerNormProblem,
    Problem,
    SkinnyGemmProblem,
    SoftmaxProblem,
    linear,
)
from .runtime import Executor, Runtime
from .tuner import RUNGS, Rung, Space, Tuning, chosen, screened_bodies, space, tune
from .vendor import Library
from .workbench import Workbench

RESULT_FORMAT = 1
TIE = 0.02
JUDGING = Rung(21, 3, 0)
EXHAUSTIVE = Rung(7, 2, 0)
_TEXT_LENGTH = 77
_RESAMPLES = 2000


# ---- what is measured -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Subject:
    """Two problems to judge fusion by. `ratio` is the intended time of the second over that of the first."""

    name: str
    first: Problem
    second: Problem
    ratio: float | None = None
    is_control: bool = False


def problem_of(kind: Kind, shape: Mapping[str, int]) -> Problem:
    """Return the problem that a kind and a shape of `cases` stand for."""
    match kind:
        case "gemm_f32":
            return GemmProblem(shape["m"], shape["n"], shape["k"])
        case "gemm_f16":
            return linear(shape["m"], shape["n"], shape["k"])
        case "conv1x1_f32" | "conv3x3_f32" | "conv3x3_f16":
            return ConvolutionProblem(
                shape["batch"],
                shape["height"],
                shape["width"],
                shape["c_in"],
                shape["c_out"],
                filter_size=3 if kind.startswith("conv3x3") else 1,
                padding=1 if kind.startswith("conv3x3") else 0,
                dtype="float16" if kind.endswith("f16") else "float32",
            )
        case "layer_norm":
            return LayerNormProblem(shape["rows"], shape["columns"])
        case "softmax":
            return SoftmaxProblem(shape["rows"], shape["columns"])
        case "gemv":
            return SkinnyGemmProblem(shape["batch"], shape["rows"], shape["columns"])
        case "embedding":
            return EmbeddingProblem(shape["rows"], shape["columns"], shape["vocabulary"], _TEXT_LENGTH)
        case "residual_gelu":
            return ElementwiseProblem("residual_gelu", shape["rows"] * shape["columns"])


def subjects(patterns: Sequence[str] = ()) -> tuple[Subject, ...]:
    """Return the committed cases whose names match a pattern as of a shell, all of them without one.

    Raises:
        UsageError: a pattern matches none.
    """
    every = tuple(
        Subject(
            case.name,
            problem_of(case.first, case.first_shape),
            problem_of(case.second, case.second_shape),
            case.ratio,
            case.is_control,
        )
        for case in cases()
    )
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(one.name, pattern) for one in every):
            raise UsageError(f"no case is called {pattern!r}; there are {', '.join(one.name for one in every)}.")
    return tuple(
        one for one in every if not patterns or any(fnmatch.fnmatchcase(one.name, pattern) for pattern in patterns)
    )


def most_telling_first(wanted: Iterable[Subject]) -> list[Subject]:
    """Return subjects in an order of which an early end loses little: balanced pairs, then controls, then the rest."""

    def rank(subject: Subject) -> int:
        if subject.is_control:
            return 1
        return 0 if subject.ratio is None or subject.ratio >= LEAST_RATIO else 2

    return sorted(wanted, key=rank)


def subject_of(pair: Pair) -> Subject:
    """Return a pair of layers as something to judge fusion by. The bodies of the pair are not used: they are tuned."""
    return Subject(pair.name, pair.first, pair.second, is_control=pair.name.endswith("(control)"))


def reshaped(subject: Subject, settings: Sequence[str]) -> Subject:
    """Return a subject with other sizes, each given as `first.rows=4096`.

    Raises:
        UsageError: there is no such size, or the number does not suit it.
    """
    problems = {"first": subject.first, "second": subject.second}
    for setting in settings:
        place, _, value = setting.partition("=")
        role, _, name = place.partition(".")
        if role not in problems or not value.lstrip("-").isdecimal():
            raise UsageError(f"{setting!r} sets no size; write it as first.rows=4096 or second.columns=512.")
        problem = problems[role]
        sizes = [one.name for one in fields(problem) if type(getattr(problem, one.name)) is int]
        if name not in sizes:
            raise UsageError(f"{subject.name}: {role} has no size {name!r}; it has {', '.join(sizes)}.")
        problems[role] = replace(problem, **{name: int(value)})  # type: ignore[arg-type]
    return replace(subject, **problems)  # type: ignore[arg-type]


def families(names: Sequence[str]) -> tuple[Family, ...]:
    """Return the families that names stand for, all of them without a name; `library` stands for both of a library.

    Raises:
        UsageError: there is no such family.
    """
    known: tuple[Family, ...] = get_args(Family)
    choice = (*OURS, *LIBRARY[:1])
    for name in names:
        if name not in choice:
            raise UsageError(f"there is no strategy {name!r}; there are {', '.join(choice)}.")
    return tuple(family for family in known if not names or family in names or family.partition("_")[0] in names)


# ---- results ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a way takes, in microseconds, with the quartiles of the samples."""

    name: str
    family: Family
    median_us: float
    first_quartile_us: float
    third_quartile_us: float
    samples_us: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rule knew of a pair, and what it decided."""

    first_us: float
    second_us: float
    first_over_ridge: float
    second_over_ridge: float
    is_co_resident: bool
    predicted_gain: float
    accepted: bool


@dataclass(frozen=True, slots=True)
class Regret:
    """The tuner's choice against the best of all ways, both by judging samples. `regret` is choice / best - 1."""

    ways: int
    choice: str
    choice_us: float
    best: str
    best_us: float
    regret: float


@dataclass(frozen=True, slots=True)
class CaseResult:
    """Everything measured of a case.

    Attributes:
        name: of the case.
        problems: both, as text.
        kernel_class: of the compute-bound half, for the prediction.
        ratio: the intended time of the second over that of the first; None where none was stated.
        is_control: whether the pair is one that must be rejected.
        decision: by the rule.
        tuning: the winner of each family, with its tuning samples.
        judging: the same ways, with judging samples.
        choice: what the tuner would run.
        same_bits: whether the fused winner computed the bits of its bodies alone.
        library_differences: of each library call from our result, relative to the largest number.
        table: name, family, last rung and median on tuning samples of every way.
        dropped: how many ways were left out by their resources.
        failures: ways that did not run, and why.
        regret: where all ways were measured again.
        clocks_mhz: SM and memory clocks before and after each part.
        seconds: what the case took.
    """

    name: str
    problems: tuple[str, str]
    kernel_class: str
    ratio: float | None
    is_control: bool
    decision: Decision
    tuning: tuple[Timing, ...]
    judging: tuple[Timing, ...]
    choice: str
    same_bits: bool | None
    library_differences: dict[str, float] = field(default_factory=dict)
    table: tuple[tuple[str, str, int, float], ...] = ()
    dropped: int = 0
    failures: tuple[str, ...] = ()
    regret: Regret | None = None
    clocks_mhz: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: float = 0.0

    def winner(self, *families: Family) -> Timing | None:
        """Return the judging samples of the way that won some families on tuning samples; None if none ran."""
        best = min((one for one in self.tuning if one.family in families), key=lambda one: one.median_us, default=None)
        return next((one for one in self.judging if best is not None and one.name == best.name), None)

    @property
    def chosen(self) -> Timing | None:
        """Return the judging samples of what the tuner would run."""
        return next((one for one in self.judging if one.name == self.choice), None)

    @property
    def bound_us(self) -> float | None:
        """Return the time that nothing beats: the longer of the two alone."""
        alone = [self.winner(family) for family in ALONE]
        return max((one.median_us for one in alone if one is not None), default=None) if all(alone) else None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def result_of(content: Mapping[str, Any]) -> CaseResult:
    """Return the result that `as_dict` was made from.

    Raises:
        InputError: it is none.
    """
    try:
        values = dict(content)
        values["decision"] = Decision(**values["decision"])
        for part in ("tuning", "judging"):
            values[part] = tuple(Timing(**{**one, "samples_us": tuple(one["samples_us"])}) for one in values[part])
        values["regret"] = Regret(**values["regret"]) if values["regret"] else None
        values["table"] = tuple(tuple(row) for row in values["table"])
        values["failures"], values["problems"] = tuple(values["failures"]), tuple(values["problems"])
        return CaseResult(**values)
    except (KeyError, TypeError) as error:
        raise InputError(f"this is no result of a case ({error}); measure it again.") from error


def _timing(candidate: Candidate, samples: Sequence[float]) -> Timing:
    rounded = tuple(round(one, 3) for one in samples)
    low, middle, high = np.percentile(rounded, (25, 50, 75))
    return Timing(candidate.name, candidate.family, float(middle), float(low), float(high), rounded)


# ---- measuring --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Lab:
    """What the cases of a study share: the device, the compiler, loaded kernels, bodies worth fusing, a library."""

    runtime: Runtime
    queue: CompileQueue
    vendor: Library | None = None
    rungs: Sequence[Rung] = RUNGS
    judging: Rung = JUDGING
    families: tuple[Family, ...] = get_args(Family)
    prior: Sequence[CaseResult] = ()
    executor: Executor = field(init=False)
    _bodies: dict[str, tuple[Body, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.executor = Executor(self.runtime)

    def bodies(self, problem: Problem) -> tuple[Body, ...]:
        """Return the bodies worth fusing; memory-bound problems of one kind share theirs, whatever their length."""
        key = repr(problem) if operation_of(problem).startswith(("gemm", "conv")) else _kernel_class(problem)
        if key not in self._bodies:
            self._bodies[key] = screened_bodies(self.runtime, problem, self.queue, executor=self.executor)
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
        return replace(subject, second=balanced(self.runtime, problems, fastest, ratio, executor=self.executor))

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
    bench = Workbench(lab.runtime, (subject.first, subject.second), library=lab.vendor, executor=lab.executor)
    clocks: dict[str, dict[str, float]] = {"before tuning": lab.runtime.clocks_mhz()}
    try:
        tuning = tune(bench, found.candidates, rungs=lab.rungs)
        clocks["before judging"] = lab.runtime.clocks_mhz()
        winners = [tuning.entered[one.name] for one in tuning.race.winners.values()]
        ways, failures = bench.prepare_all(winners)
        samples = bench.sample(ways, lab.judging.samples, lab.judging.repeats)
        clocks["after judging"] = lab.runtime.clocks_mhz()
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


# ---- what follows -----------------------------------------------------------------------------------------------


def geometric_mean(values: Sequence[float]) -> float | None:
    """Return the geometric mean of positive numbers; None without any."""
    return math.exp(sum(math.log(value) for value in values) / len(values)) if values else None


def gain_interval(slow: Timing, fast: Timing, *, seed: int = 1) -> tuple[float, float]:
    """Return the 95 % interval of the ratio of two medians, by resampling the rounds in which both were timed."""
    both = np.array([slow.samples_us, fast.samples_us])
    picks = np.random.default_rng(seed).integers(0, both.shape[1], (_RESAMPLES, both.shape[1]))
    medians = np.median(both[:, picks], axis=2)
    low, high = np.percentile(medians[0] / medians[1], (2.5, 97.5))
    return float(low), float(high)


def verdict(gain: float) -> str:
    """Return what a gain means: `win`, `loss`, or `tie` for less than 2 %."""
    if abs(gain - 1) < TIE:
        return "tie"
    return "win" if gain > 1 else "loss"


# The baselines of a case, and the families that each of them may use.
BASELINES: dict[str, tuple[Family, ...]] = {
    "simple": SIMPLE,
    "simple_and_elastic": (*SIMPLE, "elastic"),
    "everything": (*SIMPLE, "elastic", *LIBRARY),
    "everything_in_our_layout": (*SIMPLE, "elastic", "library_same_layout"),
    "elastic": ("elastic",),
    "library": LIBRARY,
}


def row(result: CaseResult) -> dict[str, Any]:
    """Return the numbers of a case that a table shows; None where a side did not run."""
    fused, bound, sequential = result.winner(*FUSED), result.bound_us, result.winner("sequential")
    gains: dict[str, float | None] = {}
    intervals: dict[str, tuple[float, float] | None] = {}
    for name, families in BASELINES.items():
        baseline = result.winner(*families)
        gains[name] = baseline.median_us / fused.median_us if baseline and fused else None
        intervals[name] = gain_interval(baseline, fused) if baseline and fused else None
    most = sequential.median_us / bound if sequential and bound else None
    simple = gains["simple"]
    return {
        "case": result.name,
        "accepted": result.decision.accepted,
        "measured_ratio": result.decision.second_us / result.decision.first_us,
        **{f"{family}_us": _median(result.winner(family)) for family in ("first", "second", "elastic")},
        "simple_us": _median(result.winner(*SIMPLE)),
        "library_us": _median(result.winner(*LIBRARY)),
        "fused_us": _median(fused),
        "fused": fused.name if fused else None,
        "bound": most,
        "gains": gains,
        "intervals": intervals,
        "verdicts": {name: verdict(gain) if gain else None for name, gain in gains.items()},
        "share_of_bound": (simple - 1) / (most - 1) if simple and most and most > 1 else None,
        "fastest": fastest_families(result),
    }


def _median(timing: Timing | None) -> float | None:
    return timing.median_us if timing else None


def fastest_families(result: CaseResult) -> list[str]:
    """Return the families of ours whose winner is the fastest on judging samples, or ties with the fastest."""
    times = {family: timing.median_us for family in OURS if (timing := result.winner(family))}
    least = min(times.values(), default=0.0)
    return [family for family, time_us in sorted(times.items(), key=lambda one: one[1]) if time_us < least * (1 + TIE)]


@dataclass(frozen=True, slots=True)
class Target:
    """A number that was asked for before anything was measured. `met` is None if it could not be measured."""

    what: str
    asked: float
    measured: float | None
    at_least: bool = True

    @property
    def met(self) -> bool | None:
        """Return whether the number is as good as asked."""
        if self.measured is None:
            return None
        return self.measured >= self.asked if self.at_least else self.measured <= self.asked


def summarise(results: Sequence[CaseResult]) -> dict[str, Any]:
    """Return what follows from the results: geometric means, targets, prediction, regret, winners."""
    unlike = [one for one in results if not one.is_control]
    controls = [one for one in results if one.is_control]
    accepted = [one for one in unlike if one.decision.accepted]
    fp32 = [one for one in accepted if one.kernel_class.endswith("float32")]
    gains = {name: _gains(accepted, name) for name in BASELINES}
    predicted = predictions(unlike)
    regrets = [one.regret.regret for one in results if one.regret]
    targets = (
        Target("accepted cases", 8, len(accepted)),
        Target("compute bodies among the accepted cases", 3, len({one.name.partition("+")[0] for one in accepted})),
        Target("geometric mean over simple, accepted cases", 1.25, geometric_mean(gains["simple"])),
        Target("least gain over simple, accepted cases", 1.00, min(gains["simple"], default=None)),
        Target("best gain over simple, accepted cases", 1.55, max(gains["simple"], default=None)),
        Target(
            "geometric mean over simple and elastic, accepted cases", 1.10, geometric_mean(gains["simple_and_elastic"])
        ),
        Target(
            "geometric mean over everything with the library, accepted fp32 cases",
            1.05,
            geometric_mean(_gains(fp32, "everything")),
        ),
        Target("controls rejected", len(controls), sum(not one.decision.accepted for one in controls)),
        Target("mean error of the predicted time", 0.10, predicted.held_out, at_least=False),
        Target("largest regret of the tuner", 0.03, max(regrets, default=None), at_least=False),
    )
    return {
        "cases": len(unlike),
        "controls": len(controls),
        "accepted": len(accepted),
        "accepted_cases": _statistics(accepted),
        "accepted_fp32_cases": _statistics(fp32),
        "accepted_fp16_cases": _statistics([one for one in accepted if one not in fp32]),
        "all_cases_rejected_as_1": {
            name: geometric_mean(found + [1.0] * (len(unlike) - len(accepted)))
            for name, found in gains.items()
            if len(found) == len(accepted)
        },
        "all_cases_fused": _statistics(unlike),
        "all_cases_as_tuned": {name: geometric_mean(_tuned_gains(unlike, name)) for name in ("simple", "everything")},
        "controls_rejected": sum(not one.decision.accepted for one in controls),
        "controls_gain_over_simple": {one.name: row(one)["gains"]["simple"] for one in controls},
        "fastest": {family: _wins(unlike, family) for family in OURS},
        "prediction": asdict(predicted),
        "regret": {one.name: one.regret.regret for one in results if one.regret},
        "same_bits": all(one.same_bits for one in results if one.same_bits is not None),
        "targets": [{**asdict(target), "met": target.met} for target in targets],
    }


def _gains(results: Iterable[CaseResult], baseline: str) -> list[float]:
    found = (row(one)["gains"][baseline] for one in results)
    return [gain for gain in found if gain is not None]


def _tuned_gains(results: Iterable[CaseResult], baseline: str) -> list[float]:
    """Return the gains of what the tuner would run, fused or not."""
    pairs = ((one.winner(*BASELINES[baseline]), one.chosen) for one in results)
    return [other.median_us / own.median_us for other, own in pairs if other and own]


def _statistics(results: Sequence[CaseResult]) -> dict[str, Any]:
    found: dict[str, Any] = {"cases": len(results)}
    for name in BASELINES:
        gains = _gains(results, name)
        verdicts = [verdict(gain) for gain in gains]
        found[name] = {
            "geometric_mean": geometric_mean(gains),
            "least": min(gains, default=None),
            "best": max(gains, default=None),
            **{word: verdicts.count(word) for word in ("win", "tie", "loss")},
        }
    shares = [share for one in results if (share := row(one)["share_of_bound"]) is not None]
    found["mean_share_of_bound"] = statistics.mean(shares) if shares else None
    return found


def _wins(results: Iterable[CaseResult], family: str) -> dict[str, int]:
    ranks = [fastest_families(one) for one in results]
    return {
        "fastest": sum(rank[:1] == [family] for rank in ranks),
        "fastest_or_tied": sum(family in rank for rank in ranks),
    }


def predictions(results: Sequence[CaseResult]) -> Quality:
    """Return how well the p-norm model predicts the fused times of cases."""
    samples: dict[str, list[Sample]] = {"tuning": [], "judging": []}
    for result in results:
        best = min((one for one in result.tuning if one.family in FUSED), key=lambda one: one.median_us, default=None)
        judged = result.winner(*FUSED)
        if best is None or judged is None:
            continue
        alone = (result.decision.first_us, result.decision.second_us)
        for part, timing in (("tuning", best), ("judging", judged)):
            samples[part].append(Sample(result.name, result.kernel_class, *alone, timing.median_us))
    return quality(samples["tuning"], samples["judging"])


# ---- text -------------------------------------------------------------------------------------------------------


def table(results: Sequence[CaseResult]) -> str:
    """Return one line a case: the times in microseconds, the gains of fusion, the decision, who is fastest."""
    width = max((len(one.name) for one in results), default=4)
    lines = [
        f"{'case':<{width}} {'ratio':>5} {'first':>7} {'second':>7} {'simple':>7} {'elastic':>7} {'library':>7} "
        f"{'fused':>7} {'bound':>5} {'/simple (95 %)':>18} {'/elastic':>8} {'/all':>6}  rule    fastest of ours"
    ]
    for result in results:
        one = row(result)
        times = " ".join(
            _cell(one[f"{name}_us"], 7, 1) for name in ("first", "second", "simple", "elastic", "library", "fused")
        )
        gain, interval = one["gains"]["simple"], one["intervals"]["simple"]
        between = f"{gain:.3f} {interval[0]:.3f}-{interval[1]:.3f}" if gain and interval else "-"
        lines.append(
            f"{result.name:<{width}} {one['measured_ratio']:>5.2f} {times} {_cell(one['bound'], 5, 2)} {between:>18} "
            f"{_cell(one['gains']['simple_and_elastic'], 8, 3)} {_cell(one['gains']['everything'], 6, 3)}  "
            f"{'accept' if one['accepted'] else 'reject'}  {', '.join(one['fastest'])}"
        )
    return "\n".join(lines)


def _cell(value: float | None, width: int, digits: int) -> str:
    return f"{value:>{width}.{digits}f}" if value is not None else f"{'-':>{width}}"


def summary_text(summary: Mapping[str, Any]) -> str:
    """Return the targets, one a line, and by how much one was missed."""
    lines = []
    for target in summary["targets"]:
        measured = target["measured"]
        state = {True: "met", False: "missed", None: "not measured"}[target["met"]]
        if target["met"] is False:
            state += f" by {abs(target['measured'] - target['asked']):.3g}"
        limit = f"{'at least' if target['at_least'] else 'at most'} {target['asked']:g}"
        value = "-" if measured is None else f"{measured:.3f}".rstrip("0").rstrip(".")
        lines.append(f"{target['what']:<70} {limit:>14}  {value:>7}  {state}")
    for name, mean in summary["all_cases_rejected_as_1"].items():
        text = "-" if mean is None else f"{mean:.3f}"
        lines.append(f"{f'geometric mean over {name}, all cases, rejected ones as 1':<70} {'':>14}  {text:>7}")
    for family, wins in summary["fastest"].items():
        lines.append(f"fastest: {family:<20} {wins['fastest']:>3} cases, {wins['fastest_or_tied']:>3} with ties")
    return "\n".join(lines)
