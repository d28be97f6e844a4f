"""The story of a comparison: sentences about what changed, made from the numbers of the waterfall and the matching.

Every sentence is about a mean iteration of one device and says how large its part is; nothing smaller than 1 % of the
mean period before gets one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ..causes import Cause
from ..message import Message, joined, message
from ..view import OUTSIDE_NVTX
from .matching import MatchedRow, Matching
from .phase_overlap import PhaseOverlap
from .quantities import count_text, duration_text, duration_texts, factor_text, percent_text
from .waterfall import KINDS, OVERLAP, TITLES, Step, Waterfall

LEAST_SHARE = 0.01
# Work of the GPU counts as equal within this share, since kernels that run beside others take a little longer.
SAME_WORK = 0.05
LAUNCH_BOUND_IDLE = 0.3
LAUNCH_BOUND_HOST = 0.5
_OVERLAP_CHANGE = 0.05
# How much of launches and of waiting has to go before it counts as relief.
RELIEF = Fraction(1, 10)
_MATCHED_ENOUGH = 0.5
# What of the saved time has to come back before the sentence about the saving says so.
_CAME_BACK = 0.1
# Fewer launches than this share of those before are not worth a sentence.
_LEAST_LAUNCHES = Fraction(1, 100)
HOST_CAUSES = tuple(
    cause.id
    for cause in (
        Cause.HOST_CODE,
        Cause.LAUNCH_CALL,
        Cause.LAUNCH_LATENCY,
        Cause.LAUNCHING_OTHER,
        Cause.OTHER_CUDA_API,
        Cause.OS_CALL,
        Cause.NOT_SCHEDULED,
    )
)


@dataclass(frozen=True, slots=True)
class Launches:
    """Calls that launched kernels or CUDA graphs, per mean iteration; executions where no calls were recorded.

    A saved analysis may not tell them; then there are no `Launches`, and no sentence is about them.
    """

    before: Fraction
    after: Fraction

    @property
    def delta(self) -> Fraction:
        """Launches added."""
        return self.after - self.before

    def to_dict(self) -> dict[str, float]:
        """Return the fields for JSON."""
        return {"before": float(self.before), "after": float(self.after), "delta": float(self.delta)}


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of the story. `delta_ns` is what the thing it tells adds to the mean period, where that is known."""

    key: str
    text: str
    delta_ns: Fraction | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        delta = None if self.delta_ns is None else float(self.delta_ns)
        return {"key": self.key, "text": self.text, "delta_ns": delta}


def story_of(
    waterfall: Waterfall, matching: Matching, launches: Launches | None, overlaps: Sequence[PhaseOverlap] = ()
) -> tuple[Sentence, ...]:
    """Return the story: the mean period first, then work and launches, then what else changed, the largest first."""
    return (
        _period(waterfall),
        *_launch_bound(waterfall, launches),
        *_graph(waterfall, launches),
        *_relief(waterfall, launches),
        *_left(waterfall, launches),
        *_work(waterfall, matching, launches),
        *_phases(overlaps),
        *_others(waterfall, launches),
        *_quality(waterfall, matching),
    )


def came_back(waterfall: Waterfall) -> tuple[str, Fraction, str | None] | None:
    """Return the idle cause that grew most, by how much, and the NVTX path where most of it did; `None`: none grew."""
    grown = [(waterfall.step(cause.id).delta, cause.id) for cause in Cause]
    delta, key = max(grown, key=lambda entry: entry[0])
    return (key, delta, _main_path(waterfall, key)) if delta > 0 else None


def _main_path(waterfall: Waterfall, key: str) -> str | None:
    """Return the NVTX path where an idle cause changed most in the direction of its step, `None` outside of NVTX."""
    sign = 1 if waterfall.step(key).delta > 0 else -1
    changes = waterfall.idle_path_deltas(key)
    path = max(changes, key=lambda path: (sign * changes[path], path), default=None)
    return None if path in (None, "", OUTSIDE_NVTX) else path


def _is_large(waterfall: Waterfall, change: Fraction) -> bool:
    return abs(change) >= LEAST_SHARE * waterfall.before.mean_period_ns and change != 0


def _period(waterfall: Waterfall) -> Sentence:
    before, after = waterfall.before.mean_period_ns, waterfall.after.mean_period_ns
    was, now = duration_texts(before, after)
    ratio = waterfall.ratio
    if not waterfall.delta or ratio is None:
        text = message("a mean iteration takes {after} on both sides", after=now)
    elif waterfall.delta < 0:
        text = message(
            "a mean iteration takes {after} instead of {before}: {change} less",
            after=now,
            before=was,
            change=percent_text(1 - ratio),
        )
    else:
        text = message(
            "a mean iteration takes {after} instead of {before}: {change} more",
            after=now,
            before=was,
            change=percent_text(ratio - 1),
        )
    return Sentence("period", text, waterfall.delta)


def _host_share(waterfall: Waterfall) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return for each side the share of the period that is idle, and the share of the idle time due to the host."""
    made = []
    for parts in (waterfall.before, waterfall.after):
        idle, period = parts.idle_ns, parts.mean_period_ns
        host = parts.per_iteration(*HOST_CAUSES)
        made.append((float(idle / period) if period else 0.0, float(host / idle) if idle else 0.0))
    return made[0], made[1]


def is_launch_bound(idle_ratio: float, host_ratio: float) -> bool:
    """Whether a side waits for its host: idle for 30 % of the period, half of that in host code and launches."""
    return idle_ratio >= LAUNCH_BOUND_IDLE and host_ratio >= LAUNCH_BOUND_HOST


def _launch_bound(waterfall: Waterfall, launches: Launches | None) -> Iterator[Sentence]:
    work = waterfall.before.work_ns
    # Where a graph took the launches over, its own sentence says what became of the waiting.
    if (
        not work
        or launches is None
        or _is_graph(waterfall, launches)
        or _is_relieved(waterfall, launches)
        or abs(waterfall.after.work_ns - work) > SAME_WORK * work
    ):
        return
    before, after = _host_share(waterfall)
    if not (is_launch_bound(*before) and is_launch_bound(*after)):
        return
    overlapped = waterfall.after.per_iteration(OVERLAP) - waterfall.before.per_iteration(OVERLAP)
    work_text = duration_text(waterfall.after.work_ns)
    idle_before, idle_after = percent_text(before[0]), percent_text(after[0])
    if _is_large(waterfall, overlapped) and overlapped > 0:
        text = message(
            "both sides are launch-bound: the GPU does the same {work} of work and is idle for {before} of the "
            "iteration before and {after} after, most of it waiting for host code and launch calls; {overlap} of "
            "overlap only made it wait longer",
            overlap=duration_text(overlapped),
            work=work_text,
            before=idle_before,
            after=idle_after,
        )
    else:
        text = message(
            "both sides are launch-bound: the GPU does the same {work} of work and is idle for {before} of the "
            "iteration before and {after} after, most of it waiting for host code and launch calls; launching less "
            "often (CUDA graph, fusion, larger batch) would help, more streams do not",
            work=work_text,
            before=idle_before,
            after=idle_after,
        )
    yield Sentence("launch_bound", text)


def _graph(waterfall: Waterfall, launches: Launches | None) -> Iterator[Sentence]:
    if launches is None or not _is_graph(waterfall, launches):
        return
    host = waterfall.delta_of(*HOST_CAUSES)
    sides = (waterfall.before, waterfall.after)
    before, after = (duration_text(parts.per_iteration(*HOST_CAUSES)) for parts in sides)
    removed = _launches_text(launches.delta)
    if host < 0:
        text = message(
            "a CUDA graph replaced {removed} an iteration: idle time in host code and launch calls fell from "
            "{before} to {after}",
            removed=removed,
            before=before,
            after=after,
        )
    else:
        text = message(
            "a CUDA graph replaced {removed} an iteration, but idle time in host code and launch calls went "
            "from {before} to {after}",
            removed=removed,
            before=before,
            after=after,
        )
    yield Sentence("graph", text, host)


def _is_graph(waterfall: Waterfall, launches: Launches | None) -> bool:
    """Whether CUDA graphs, recorded as a whole, took over what was launched kernel by kernel."""
    graph = waterfall.step("graph")
    return not graph.before and bool(graph.after) and launches is not None and launches.delta < 0


def _is_relieved(waterfall: Waterfall, launches: Launches | None) -> bool:
    """Whether a launch-bound side launches less often and waits less for its host, for the same work."""
    work, host = waterfall.before.work_ns, waterfall.before.per_iteration(*HOST_CAUSES)
    return (
        launches is not None
        and abs(waterfall.after.work_ns - work) <= SAME_WORK * work
        and is_launch_bound(*_host_share(waterfall)[0])
        and launches.delta <= -RELIEF * launches.before
        and waterfall.delta_of(*HOST_CAUSES) <= -RELIEF * host
    )


def _relief(waterfall: Waterfall, launches: Launches | None) -> Iterator[Sentence]:
    """Tell that launching less often paid, where no graph that was recorded as a whole says so already."""
    if launches is None or _is_graph(waterfall, launches) or not _is_relieved(waterfall, launches):
        return
    before, after = (duration_text(parts.per_iteration(*HOST_CAUSES)) for parts in (waterfall.before, waterfall.after))
    text = message(
        "the GPU does the same {work} of work with {removed} less: idle time in host code and launch calls "
        "fell from {before} to {after}",
        work=duration_text(waterfall.after.work_ns),
        removed=_launches_text(launches.delta),
        before=before,
        after=after,
    )
    yield Sentence("launches", text, waterfall.delta_of(*HOST_CAUSES))


def _left(waterfall: Waterfall, launches: Launches | None) -> Iterator[Sentence]:
    """Tell what is left of the idle time once the launches are gone."""
    after = waterfall.after
    if not (_is_graph(waterfall, launches) or _is_relieved(waterfall, launches)) or not after.mean_period_ns:
        return
    share = float(after.idle_ns / after.mean_period_ns)
    if share < LAUNCH_BOUND_IDLE:
        return
    cause = max((cause.id for cause in Cause), key=after.per_iteration)
    paths = after.idle_paths.get(cause, {})
    path = max(paths, key=lambda path: (paths[path], path), default=OUTSIDE_NVTX)
    shown, time = percent_text(share), duration_text(after.per_iteration(cause))
    if path in ("", OUTSIDE_NVTX):
        text = message(
            "the GPU is still idle for {share} of the iteration: {time} of it as {cause}",
            share=shown,
            time=time,
            cause=TITLES[cause],
        )
    else:
        text = message(
            "the GPU is still idle for {share} of the iteration: {time} of it as {cause}, most of it in {path}",
            share=shown,
            time=time,
            cause=TITLES[cause],
            path=path,
        )
    yield Sentence("left", text)


def _work(waterfall: Waterfall, matching: Matching, launches: Launches | None) -> Iterator[Sentence]:
    """Tell what became of launches and kernel time, what overlap hides of it, and what came back as idle time."""
    if not _has_work_sentence(waterfall, launches):
        return
    text = _kernel_text(waterfall, matching, launches)
    total = waterfall.delta_of("kernel", "graph")
    saved = total < 0
    if _overlap_takes_part(waterfall, launches):
        overlap = waterfall.step(OVERLAP)
        total += overlap.delta
        text = message(
            "{what}, but {overlap}: {busy}", what=text, overlap=_change_text(waterfall, overlap), busy=_busy(waterfall)
        )
    back = _told_with_work(waterfall, launches)
    if back is not None:
        total += back[1]
        text = _with_idle_time(text, back, saved=saved)
    yield Sentence("work", text, total)
    yield from _kernel_parts(waterfall, matching)


def _kernel_text(waterfall: Waterfall, matching: Matching, launches: Launches | None) -> Message:
    """Return what became of launches and kernel time."""
    kernel = waterfall.delta_of("kernel", "graph")
    count = Fraction(0) if launches is None else launches.delta
    time, number = duration_text(kernel), _launches_text(count)
    is_fusion = any(row.is_fusion or row.label == "fused_away" for row in matching.rows)
    fewer = count <= Fraction(-1, 2)
    if fewer and kernel <= 0 and is_fusion:
        return message("fusion removed {launches} and {time} of kernel time", launches=number, time=time)
    if fewer and kernel <= 0:
        return message("{launches} and {time} of kernel time went away", launches=number, time=time)
    if fewer:
        return message("{launches} went away, but kernels take {time} longer", launches=number, time=time)
    if count >= Fraction(1, 2) and kernel <= 0:
        return message("kernels take {time} less, with {launches} more", time=time, launches=number)
    if count >= Fraction(1, 2):
        return message("kernels take {time} longer, with {launches} more", time=time, launches=number)
    if launches is None and kernel < 0:
        return message("kernels take {time} less", time=time)
    if launches is None:
        return message("kernels take {time} longer", time=time)
    if kernel < 0:
        return message("kernels take {time} less, with as many launches", time=time)
    return message("kernels take {time} longer, with as many launches", time=time)


def _launches_text(count: Fraction) -> Message:
    number = count_text(count)
    return message("1 launch") if number == "1" else message("{number} launches", number=number)


def _overlap_takes_part(waterfall: Waterfall, launches: Launches | None) -> bool:
    """Whether the sentence about the work tells the overlap, since that takes back much of what kernel time gives.

    Kernels that share the GPU take longer each, and their overlap is what they gain: neither means much alone.
    """
    kernel, overlap = waterfall.delta_of("kernel", "graph"), waterfall.delta_of(OVERLAP)
    opposed = kernel * overlap < 0 and abs(overlap) >= _CAME_BACK * abs(kernel)
    return opposed and _is_large(waterfall, overlap) and _has_work_sentence(waterfall, launches)


def _busy(waterfall: Waterfall) -> Message:
    """Return what became of the time in which the GPU works, whatever runs side by side."""
    change = waterfall.delta_of(*KINDS.values(), OVERLAP)
    if change > 0:
        return message("the GPU is busy for {time} more", time=duration_text(change))
    return message("the GPU is busy for {time} less", time=duration_text(change))


def _with_idle_time(text: Message, back: tuple[str, Fraction, str | None], *, saved: bool) -> Message:
    """Return a text with the idle time that came back, or grew where nothing was saved."""
    cause, grown, path = back
    returned, title = duration_text(grown), TITLES[cause]
    if not saved and path is None:
        return message("{what}, and idle time due to {cause} grew by {time}", what=text, cause=title, time=returned)
    if not saved:
        return message(
            "{what}, and idle time due to {cause} grew by {time}, most of it in {path}",
            what=text,
            cause=title,
            time=returned,
            path=path,
        )
    if path is None:
        return message("{what}, but {back} came back as {cause}", what=text, back=returned, cause=title)
    return message(
        "{what}, but {back} came back as {cause} in {path}", what=text, back=returned, cause=title, path=path
    )


def _has_work_sentence(waterfall: Waterfall, launches: Launches | None) -> bool:
    """Whether launches or kernel time changed enough for a sentence, and no graph recorded as a whole hides it."""
    count = Fraction(0) if launches is None else launches.delta
    least = Fraction(1, 2) if launches is None else max(Fraction(1, 2), _LEAST_LAUNCHES * launches.before)
    if abs(count) < least and not _is_large(waterfall, waterfall.delta_of("kernel", "graph")):
        return False
    return not waterfall.step("graph").after or bool(waterfall.step("graph").before)


def _told_with_work(waterfall: Waterfall, launches: Launches | None) -> tuple[str, Fraction, str | None] | None:
    """Return the growth of idle time (see `came_back`) that the sentence about the work tells, `None` for none."""
    if not _has_work_sentence(waterfall, launches):
        return None
    kernel = waterfall.delta_of("kernel", "graph")
    fewer = launches is not None and launches.delta <= Fraction(-1, 2)
    back = came_back(waterfall)
    if back is None or not (fewer or kernel < 0):
        return None
    return back if _is_large(waterfall, back[1]) and back[1] >= _CAME_BACK * max(-kernel, Fraction(0)) else None


def _kernel_parts(waterfall: Waterfall, matching: Matching) -> Iterator[Sentence]:
    """Tell how the change of kernel time splits, where parts of it go against each other."""
    parts = {
        name: sum((row.delta_ns for row in matching.rows if belongs(row)), Fraction(0))
        for name, belongs in _PARTS_OF_KERNEL_TIME.items()
    }
    large = {name: change for name, change in parts.items() if _is_large(waterfall, change)}
    if len({change > 0 for change in large.values()}) < 2:
        return
    less = joined(", ", (_part_text(name, change) for name, change in large.items() if change < 0))
    more = joined(", ", (_part_text(name, change) for name, change in large.items() if change > 0))
    yield Sentence(
        "kernel_parts", message("of the kernel time, {less} went away, but {more} came on top", less=less, more=more)
    )


def _part_text(name: str, change: Fraction) -> str:
    return message("{time} {where}", time=duration_text(change), where=_PART_TITLES[name])


_PARTS_OF_KERNEL_TIME: dict[str, Callable[[MatchedRow], bool]] = {
    "one_to_one": lambda row: row.kind == "one_to_one",
    "fusion": lambda row: row.is_fusion,
    "other_groups": lambda row: row.kind == "group" and not row.is_fusion,
    "only_before": lambda row: row.kind == "only_before",
    "only_after": lambda row: row.kind == "only_after",
}
_PART_TITLES = {
    "one_to_one": message("in kernels that both sides have"),
    "fusion": message("in groups that became fewer kernels"),
    "other_groups": message("in groups that became as many kernels or more"),
    "only_before": message("in kernels that are only there before"),
    "only_after": message("in kernels that are only there after"),
}


def _phases(overlaps: Sequence[PhaseOverlap]) -> Iterator[Sentence]:
    for pair in overlaps:
        change = pair.after.overlap_ratio - pair.before.overlap_ratio
        if abs(change) < _OVERLAP_CHANGE:
            continue
        text = message(
            "{first} and {second} run at the same time for {after} of the shorter one, before for {before}: together "
            "they became {gain} as fast, and overlap alone can give at most {bound}",
            first=pair.first,
            second=pair.second,
            after=percent_text(pair.after.overlap_ratio),
            before=percent_text(pair.before.overlap_ratio),
            gain=factor_text(pair.gain),
            bound=factor_text(pair.bound),
        )
        yield Sentence("phases", text, pair.after.either_ns - pair.before.either_ns)


def _others(waterfall: Waterfall, launches: Launches | None) -> Iterator[Sentence]:
    """Tell every other part that changed by at least 1 % of the period, the largest first."""
    told = {"kernel", "graph"}
    if _is_graph(waterfall, launches) or _is_relieved(waterfall, launches):
        # The sentence about the launches holds the sum of these.
        told.update(HOST_CAUSES)
    if _overlap_takes_part(waterfall, launches):
        told.add(OVERLAP)
    back = _told_with_work(waterfall, launches)
    if back is not None:
        told.add(back[0])
    steps = [step for step in waterfall.steps if step.key not in told and _is_large(waterfall, step.delta)]
    for step in sorted(steps, key=lambda step: (-abs(step.delta), step.key)):
        yield Sentence(step.key, _change_text(waterfall, step), step.delta)


def _change_text(waterfall: Waterfall, step: Step) -> Message:
    what, time = step.title, duration_text(step.delta)
    is_more = step.after > step.before
    if step.key == OVERLAP:
        if is_more:
            return message("operations overlap by {time} more", time=time)
        return message("operations overlap by {time} less", time=time)
    if step.key in KINDS.values():
        if is_more:
            return message("{what} take {time} more", what=what, time=time)
        return message("{what} take {time} less", what=what, time=time)
    path = _main_path(waterfall, step.key)
    if path is None:
        if is_more:
            return message("idle time due to {what} grew by {time}", what=what, time=time)
        return message("idle time due to {what} fell by {time}", what=what, time=time)
    if is_more:
        return message("idle time due to {what} grew by {time}, most of it in {path}", what=what, time=time, path=path)
    return message("idle time due to {what} fell by {time}, most of it in {path}", what=what, time=time, path=path)


def _quality(waterfall: Waterfall, matching: Matching) -> Iterator[Sentence]:
    quality = matching.quality
    if not (matching.before_ns or matching.after_ns) or quality.one_to_one + quality.grouped >= _MATCHED_ENOUGH:
        return
    graph = waterfall.step("graph")
    if bool(graph.before) != bool(graph.after):
        text = message(
            "kernels inside a CUDA graph that was recorded as a whole cannot be matched; record both sides with "
            "--cuda-graph-trace=node to see them"
        )
        yield Sentence("match_quality", text)
    else:
        text = message(
            "only {share} of the kernel time could be matched, so rows by kernel say little; NVTX ranges of the same "
            "names on both sides, or a mapping, help",
            share=percent_text(quality.one_to_one + quality.grouped),
        )
        yield Sentence("match_quality", text)
