"""What the bodies should compute: plain NumPy in double precision, and the error that float32 or float16 may have."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .problems import (
    ConvolutionProblem,
    ElementwiseProblem,
    EmbeddingProblem,
    GemmProblem,
    LayerNormProblem,
    Problem,
    SkinnyGemmProblem,
    SoftmaxProblem,
)

Arrays = dict[str, npt.NDArray[Any]]
Double = npt.NDArray[np.float64]


def random_inputs(problem: Problem, seed: int) -> Arrays:
    """Return inputs for a problem: uniform in [-1, 1), without the zeros that make a GPU faster than it is."""
    random = np.random.default_rng(seed)
    inputs: Arrays = {}
    for array in problem.arrays:
        if array.output:
            continue
        if array.dtype == "int32":
            limit = problem.vocabulary if isinstance(problem, EmbeddingProblem) else 1
            inputs[array.name] = random.integers(0, limit, array.shape, dtype=np.int32)
        else:
            inputs[array.name] = random.uniform(-1, 1, array.shape).astype(array.dtype)
    return inputs


def reference(problem: Problem, inputs: Arrays) -> Double:
    """Return the output `y` of a problem in double precision."""
    result: Double
    wide: dict[str, Double] = {name: array.astype(np.float64) for name, array in inputs.items()}
    match problem:
        case LayerNormProblem():
            x = wide["x"]
            centred = x - x.mean(axis=1, keepdims=True)
            scale = 1 / np.sqrt((centred**2).mean(axis=1, keepdims=True) + problem.epsilon)
            result = centred * scale * wide["gamma"] + wide["beta"]
        case SoftmaxProblem():
            x = wide["x"] * problem.scale
            if not x.size:
                return x
            power = np.exp(x - x.max(axis=1, keepdims=True))
            result = power / power.sum(axis=1, keepdims=True)
        case SkinnyGemmProblem():
            result = wide["x"] @ wide["weights"].T + (wide["bias"] if problem.bias else 0)
        case EmbeddingProblem():
            ids = inputs["ids"]
            known = (ids >= 0) & (ids < problem.vocabulary)
            places = np.arange(problem.tokens) % problem.sequence
            result = wide["table"][np.where(known, ids, 0)] + wide["positions"][places]
            result[~known] = np.nan
        case ElementwiseProblem(operation="copy"):
            result = wide["x"]
        case ElementwiseProblem():
            total = wide["x"] + wide["residual"]
            result = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in total], dtype=np.float64)
        case GemmProblem():
            result = _finished(wide["left"].T @ wide["right"], wide, problem.bias, problem.relu)
        case ConvolutionProblem():
            result = _finished(_convolution(problem, wide), wide, problem.bias, problem.relu)
    return result


def _finished(sums: Double, wide: dict[str, Double], bias: bool, relu: bool) -> Double:
    sums = sums + wide["bias"] if bias else sums
    return np.maximum(sums, 0) if relu else sums


def _convolution(problem: ConvolutionProblem, wide: dict[str, Double]) -> Double:
    border = problem.padding
    x = np.pad(wide["x"], ((0, 0), (border, border), (border, border), (0, 0)))
    result = np.zeros((problem.images, problem.out_height, problem.out_width, problem.outputs))
    for r in range(problem.filter_size):
        for s in range(problem.filter_size):
            lines = slice(r, r + (problem.out_height - 1) * problem.stride + 1, problem.stride)
            columns = slice(s, s + (problem.out_width - 1) * problem.stride + 1, problem.stride)
            if problem.rows:
                result += x[:, lines, columns, :] @ wide["weights"][:, r, s, :].T
    return result


def error_limit(problem: Problem) -> float:
    """Return how far from the reference an output may be, as a relative norm.

    Rounding errors of a sum of n products grow as the square root of n if they are independent; the limit is a few
    times that. A float16 output is rounded to 11 bits, which alone is 2.9e-4 in the norm at most.

    The convolution with fewer multiplications has no limit of its own. A rounding in it can become a few times as large
    as in a direct one (Lavin and Gray, 2015; Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd
    Convolution", 2020), but its sums have a ninth of the terms, and on random numbers its errors are the smaller ones.
    """
    if problem.dtype == "float16":
        return 1e-3
    match problem:
        case GemmProblem():
            terms = problem.depth
        case ConvolutionProblem():
            terms = problem.filter_size**2 * problem.channels
        case SkinnyGemmProblem():
            terms = problem.inner
        case LayerNormProblem() | SoftmaxProblem():
            terms = problem.columns
        case _:
            terms = 1
    return 4e-7 * max(1.0, math.sqrt(terms) / 2)


def relative_error(output: npt.NDArray[Any], wanted: Double) -> float:
    """Return the norm of the difference over the norm of what is wanted; infinite if NaN is missing or not wanted."""
    if output.shape != wanted.shape:
        raise ValueError(f"shapes {output.shape} and {wanted.shape} differ")
    missing = np.isnan(wanted)
    if (np.isnan(output) != missing).any():
        return math.inf
    difference = np.where(missing, 0, output.astype(np.float64) - np.where(missing, 0, wanted))
    norm = float(np.sqrt((np.where(missing, 0, wanted) ** 2).sum()))
    error = float(np.sqrt((difference**2).sum()))
    return error / norm if norm else error
