"""Method: how sides were windowed, matched, subtracted and judged."""

from __future__ import annotations

from nitro.analyzer.compare import Comparison
from nitro.analyzer.message import message

from .. import numbers
from ..blocks import Block, Points
from ..comparison import ComparisonSection


def build(comparison: Comparison, is_document: bool) -> tuple[Block, ...]:  # noqa: ARG001 - documents only
    """Return the rules that made the numbers of this report."""
    paired = message("Run i before and run i after were taken together, so their ratios are what varies.")
    apart = message("Runs were taken apart from each other.")
    points = (
        (
            message("Iterations"),
            message(
                "Both sides are looked at through windows of whole iterations, without warm-up. A mean period is the "
                "window divided by its iterations; several runs of a side are added up before the division."
            ),
        ),
        (
            message("Waterfall"),
            message(
                "Mean period = kernels + CUDA graphs + copies + memsets − overlap + idle time by cause, on each side "
                "exactly, so the differences add up exactly too. All of it is kept as fractions of integers, and "
                "rounded only where it is shown; the JSON has the fractions."
            ),
        ),
        (
            message("Matching"),
            message(
                "Kernels are matched by their place: first in the same NVTX range and in the order of launches, by "
                "name and launch size, then by name; what lies between two matches belongs together, whatever its "
                "names. Kernels without partner stay in the table. A mapping goes before all rules."
            ),
        ),
        (
            message("Verdict"),
            message(
                "The run is the sample, not the iteration: runs are reduced to a percentile each, and the interval is "
                "Student's t, with Welch's degrees of freedom, around the median log-ratio over all pairs of runs. A "
                "95 % interval beyond the threshold of {threshold} is an improvement or a regression; a 90 % interval "
                "within it is no meaningful difference; all else is inconclusive, and one run a side always is. {how}",
                threshold=numbers.percent(comparison.threshold),
                how=paired if comparison.is_paired else apart,
            ),
        ),
        (
            message("Percentiles"),
            message(
                "Percentiles stand beside the waterfall and are never taken apart: the parts of a mean add up, those "
                "of a percentile do not."
            ),
        ),
        (
            message("Bootstrap"),
            message(
                "Runs are drawn with replacement, then iterations inside each; seed {seed}. It decides nothing, since "
                "with few runs it is too narrow.",
                seed=comparison.seed,
            ),
        ),
    )
    return (Points(points),)


SECTION = ComparisonSection("method", message("Method"), 85, build, for_documents=True)
