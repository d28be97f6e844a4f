"""What fusion is judged by: two problems of stated sizes, from the committed cases, a pair of layers, or resized."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from nitro.errors import UsageError

from .cases import LEAST_RATIO, Kind, cases
from .pairs import Pair
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

_TEXT_LENGTH = 77


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
        if role not in problems or not re.fullmatch(r"-?[0-9]{1,20}", value):
            raise UsageError(f"{setting!r} sets no size; write it as first.rows=4096 or second.columns=512.")
        problem = problems[role]
        sizes = [one.name for one in fields(problem) if type(getattr(problem, one.name)) is int]
        if name not in sizes:
            raise UsageError(f"{subject.name}: {role} has no size {name!r}; it has {', '.join(sizes)}.")
        problems[role] = replace(problem, **{name: int(value)})  # type: ignore[arg-type]
    for setting in settings:
        role = setting.partition(".")[0]
        if not any(array.elements for array in problems[role].arrays if array.output):
            raise UsageError(f"{subject.name}: with {setting} the {role} computes nothing to time; give larger sizes.")
    return replace(subject, **problems)  # type: ignore[arg-type]
