"""The device bodies of `csrc/`: which C++ type, with which tile, needing what.

A body is a template of `csrc/` with its arguments filled in. It fits some problems (its element type and vector width
must suit the shapes) and some architectures. `choose` picks a body that fits; tuning picks among many.
"""

from __future__ import annotations

from nitro.errors import UsageError

from .compute_bodies import ComputeBody, choose_compute_body, compute_forms
from .memory_bodies import MemoryBody, choose_memory_body, memory_forms
from .problems import ConvolutionProblem, GemmProblem, Problem

Body = MemoryBody | ComputeBody


def check_architecture(body: Body, sm: int) -> None:
    """Raise UsageError if a body cannot run on an architecture, given as 53 for sm_53."""
    if body.exact_sm and sm != body.exact_sm:
        raise UsageError(
            f"{body.name} uses wgmma, which only sm_{body.exact_sm} has, this is sm_{sm}; use a body without it."
        )
    if sm < body.minimum_sm:
        older = "; choose(problem, sm) gives one that does" if body.minimum_sm == 80 else ""
        raise UsageError(f"{body.name} needs sm_{body.minimum_sm} or newer, this is sm_{sm}{older or '; use float32'}.")


def choose(problem: Problem, sm: int, *, aligned: bool = True) -> Body:
    """Return a good body for a problem on an architecture, given as 53 for sm_53.

    Args:
        problem: what to compute.
        sm: the architecture.
        aligned: every array starts at a multiple of 16 bytes.

    Raises:
        UsageError: no body does this on the architecture.
    """
    if isinstance(problem, GemmProblem | ConvolutionProblem):
        return choose_compute_body(problem, sm, aligned=aligned)
    return choose_memory_body(problem, aligned=aligned)


def candidates(problem: Problem, sm: int, *, aligned: bool = True) -> tuple[Body, ...]:
    """Return every body worth a try for a problem on an architecture, the one of `choose` first.

    Args:
        problem: what to compute.
        sm: the architecture, as 53 for sm_53.
        aligned: every array starts at a multiple of 16 bytes.

    Raises:
        UsageError: no body does this on the architecture.
    """
    first = choose(problem, sm, aligned=aligned)
    others = memory_forms(first, problem) if isinstance(first, MemoryBody) else compute_forms(first, problem, sm)
    return tuple(dict.fromkeys([first, *others]))
