"""Two sides compared: where the change came from, exactly, and whether it is real.

from nitro.analyzer.compare import compare

comparison = compare([before_1, before_2], [after_1, after_2])     # traces or views
comparison.verdict                                                 # of the iteration period
comparison.devices[0].waterfall.steps                              # add up to the change of the mean period
comparison.devices[0].matching.rows                                # kernels before and after, across fusion
[sentence.text for sentence in comparison.devices[0].story]
"""

from .comparability import NotComparable, Reason, reasons_against
from .comparison import FORMAT_VERSION, Comparison, DeviceComparison, MetricEffect, compare
from .matching import MatchedRow, Matching, MatchQuality, match_kernels
from .phase_activity import PhaseActivity, PhaseSide
from .phase_overlap import PairOfPhases, PhaseOverlap
from .runs import Run
from .saved import SavedRun, read_saved
from .statistics import Effect, NoEffect, effect_of, holm
from .story import Launches, Sentence, story_of
from .waterfall import Parts, Step, Waterfall, parts_of, pooled, waterfall_of

__all__ = [
    "FORMAT_VERSION",
    "Comparison",
    "DeviceComparison",
    "Effect",
    "Launches",
    "MatchQuality",
    "MatchedRow",
    "Matching",
    "MetricEffect",
    "NoEffect",
    "NotComparable",
    "PairOfPhases",
    "Parts",
    "PhaseActivity",
    "PhaseOverlap",
    "PhaseSide",
    "Reason",
    "Run",
    "SavedRun",
    "Sentence",
    "Step",
    "Waterfall",
    "compare",
    "effect_of",
    "holm",
    "match_kernels",
    "parts_of",
    "pooled",
    "read_saved",
    "reasons_against",
    "story_of",
    "waterfall_of",
]
