"""Pairs of independent layers of a dual encoder: a compute-bound one of the vision tower and a memory-bound one of the
text tower, with shapes of real models, and the pairs that must not be fused.
"""  # noqa: D205

from __future__ import annotations

from dataclasses import dataclass

from .bodies import Body, choose
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
from .strategies import Kernel, PairStrategy, pair_kernel


@dataclass(frozen=True, slots=True)
class Pair:
    """Two problems that do not depend on each other. Bodies may be given; else each architecture gets good ones."""

    name: str
    first: Problem
    second: Problem
    first_body: Body | None = None
    second_body: Body | None = None

    def bodies(self, sm: int) -> tuple[Body, Body]:
        """Return the bodies for an architecture, given as 53 for sm_53."""
        return self.first_body or choose(self.first, sm), self.second_body or choose(self.second, sm)

    def kernel(self, strategy: PairStrategy, sm: int) -> Kernel:
        """Return the kernel that runs both under a strategy."""
        return pair_kernel(*self.bodies(sm), strategy)


# ResNet-50 at 224 pixels and CLIP's text tower (width 512, 77 tokens), batch 8; half precision where named so.
PAIRS: dict[str, Pair] = {
    pair.name: pair
    for pair in (
        Pair("gemm+layer_norm", GemmProblem(8192, 2048, 1024), LayerNormProblem(8 * 77, 512)),
        Pair(
            "conv3x3+layer_norm",
            ConvolutionProblem(8, 28, 28, 128, 128, padding=1, bias=True, relu=True),
            LayerNormProblem(8 * 77, 512),
        ),
        Pair(
            "conv1x1+layer_norm",
            ConvolutionProblem(8, 28, 28, 512, 128, filter_size=1, bias=True, relu=True),
            LayerNormProblem(8 * 77, 512),
        ),
        Pair(
            "conv3x3+gemv",
            ConvolutionProblem(1, 28, 28, 128, 128, padding=1, bias=True, relu=True),
            SkinnyGemmProblem(1, 2048, 512),
        ),
        Pair("gemm+gemv", GemmProblem(8192, 2048, 1024), SkinnyGemmProblem(1, 2048, 512)),
        Pair(
            "conv1x1+embedding",
            ConvolutionProblem(8, 14, 14, 1024, 256, filter_size=1, bias=True, relu=True),
            EmbeddingProblem(8 * 77, 512, 49408, 77),
        ),
        Pair(
            "conv3x3+softmax",
            ConvolutionProblem(8, 14, 14, 256, 256, padding=1, bias=True, relu=True),
            SoftmaxProblem(8 * 8 * 80, 80, scale=0.125),
        ),
        Pair(
            "conv3x3+residual_gelu",
            ConvolutionProblem(8, 28, 28, 128, 128, padding=1, bias=True, relu=True),
            ElementwiseProblem("residual_gelu", 8 * 77 * 2048),
        ),
        Pair(
            "conv3x3+layer_norm fp16",
            ConvolutionProblem(8, 28, 28, 128, 128, padding=1, bias=True, relu=True, dtype="float16"),
            LayerNormProblem(8 * 77, 512, "float16"),
        ),
        Pair(
            "linear+gemv fp16",
            linear(8 * 197, 3072, 768, bias=True),
            SkinnyGemmProblem(1, 2048, 512, "float16"),
        ),
        # Nothing complements the other here, so fusing must not be chosen.
        Pair(
            "conv3x3+conv1x1 (control)",
            ConvolutionProblem(8, 28, 28, 128, 128, padding=1),
            ConvolutionProblem(8, 28, 28, 128, 512, filter_size=1),
        ),
        Pair(
            "layer_norm+residual_gelu (control)",
            LayerNormProblem(8 * 77, 512),
            ElementwiseProblem("residual_gelu", 8 * 77 * 2048),
        ),
    )
}
