"""A typical iteration before and after, on one axis that begins where each of them does."""

from __future__ import annotations

from nitro.analyzer.compare import Comparison
from nitro.analyzer.message import message
from nitro.analyzer.timeline import Timeline, timeline_of
from nitro.analyzer.view import View

from .. import figures, numbers
from ..blocks import Block, Figure
from ..comparison import ComparisonSection
from ..sections.timeline import picture

_TITLES = (message("before"), message("after"))


def build(comparison: Comparison, is_document: bool) -> tuple[Block, ...]:  # noqa: ARG001 - documents only
    """Return the two timelines; nothing where a side is a saved analysis or has no iterations."""
    views = [side[0] for side in (comparison.before, comparison.after)]
    found = [timeline_of(view) for view in views if isinstance(view, View)]
    typical = [data.typical for data in found if data.typical is not None]
    if len(typical) < 2:
        return ()
    lengths = [end - start for start, end in typical]
    specs = [
        _spec(data, start, end - start, max(lengths), title)
        for data, (start, end), title in zip(found, typical, _TITLES, strict=True)
    ]
    sentence = message(
        "The iteration whose period is nearest the median, of the first run of each side: {before} before, {after} "
        "after. Both begin at 0 and share one scale; the dashed line is the end of the iteration, and what follows it "
        "belongs to the next one. The paler a stretch, the less of it the events cover.",
        before=numbers.duration(lengths[0]),
        after=numbers.duration(lengths[1]),
    )
    title = message("A typical iteration before and after")
    return (Figure("timelines-compared", title, sentence, figures.stacked(*specs)),)


def _spec(data: Timeline, start: int, length: int, longest: int, title: str) -> figures.Spec:
    """Return the timeline of one side, as long as the longer iteration, with a line at the end of its own."""
    spec = picture(data, start, start + longest, with_ranges=True)
    end = {
        "data": figures.ONE_ROW,
        "mark": {"type": "rule", "strokeDash": [4, 3], "strokeWidth": 1.5},
        "encoding": {"x": {"datum": length / 1e6, "type": "quantitative"}},
    }
    heading = message("{side}: {length}", side=title, length=numbers.duration(length))
    return {**spec, "title": heading, "layer": [*map(_on_any_ground, spec["layer"]), end]}


def _on_any_ground(layer: figures.Spec) -> figures.Spec:
    """Return a layer whose NVTX ranges can be read on a dark page too; the picture was made for paper."""
    mark = dict(layer["mark"])
    if mark["type"] == "bar" and "stroke" in mark:
        mark |= {"color": mark["stroke"], "fillOpacity": 0.18}
    elif mark["type"] == "text":
        del mark["color"]
    return {**layer, "mark": mark}


SECTION = ComparisonSection("timelines", message("Two timelines"), 20, build, for_documents=True)
