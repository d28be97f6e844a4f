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
from .statistics import Effect, NoEffect, effect_of, holm
from .story import Sentence, story_of
from .waterfall import Parts, Step, Waterfall, parts_of, pooled, waterfall_of

__all__ = [
    "FORMAT_VERSION",
    "Comparison",
    "DeviceComparison",
    "Effect",
    "MatchQuality",
    "MatchedRow",
    "Matching",
    "MetricEffect",
    "NoEffect",
    "NotComparable",
    "Parts",
    "Reason",
    "Sentence",
    "Step",
    "Waterfall",
    "compare",
    "effect_of",
    "holm",
    "match_kernels",
    "parts_of",
    "pooled",
    "reasons_against",
    "story_of",
    "waterfall_of",
]
