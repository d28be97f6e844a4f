"""The summary of a comparison: what changed and whether it is real, in a sentence each, and the key figures."""

from __future__ import annotations

from nitro.analyzer.causes import Cause
from nitro.analyzer.compare import Comparison, DeviceComparison, Effect
from nitro.analyzer.message import Message, capitalised, joined, message

from .. import comparison_numbers, numbers
from ..blocks import Block, KeyFigure, KeyFigures, Paragraph
from ..comparison import ComparisonSection
from ._runs import VERDICTS, main_device, main_effect, statistic_text
from .energy import TITLES, with_bound

# The sentences that explain a change best come first; each of the story's other ones stands in its own section.
_REASONS = ("launch_bound", "graph", "launches", "work")


def build(comparison: Comparison, is_document: bool) -> tuple[Block, ...]:  # noqa: ARG001 - the same everywhere
    """Return the sentences and the key figures of the device that works most."""
    device = main_device(comparison)
    verdict = message("{verdict}.", verdict=capitalised(comparison.metrics[0].sentence))
    leads = [_change(device), verdict, *_energy_sentence(comparison)]
    # Six figures fill their rows; how well kernels were matched stands beside them, too.
    last = _energy(comparison) or _matched(device)
    figures = (_period(device), _verdict(comparison), *_parts(device), last)
    return (*(Paragraph(text, is_lead=True) for text in leads), KeyFigures(figures))


def _change(device: DeviceComparison) -> Message:
    """Return what happened to the period, and the sentence that explains most of it."""
    period, *others = device.story
    known = {sentence.key: sentence.text for sentence in reversed(others)}
    reason = next((known[key] for key in _REASONS if key in known), None)
    if reason is None:
        reason = next((sentence.text for sentence in others if sentence.key != "match_quality"), None)
    parts = [period.text] if reason is None else [period.text, reason]
    return message("{sentence}.", sentence=capitalised(joined("; ", parts)))


def _period(device: DeviceComparison) -> KeyFigure:
    before, after = (
        numbers.duration(float(p.mean_period_ns)) for p in (device.waterfall.before, device.waterfall.after)
    )
    return KeyFigure(message("Mean iteration"), after, message("before: {value}", value=before))


def _verdict(comparison: Comparison) -> KeyFigure:
    effect = main_effect(comparison)
    label = message(
        "Change of the iteration, {statistic}", statistic=statistic_text(comparison.metrics[0].main.statistic)
    )
    verdict = VERDICTS[comparison.metrics[0].verdict]
    if effect is None:
        return KeyFigure(label, numbers.MISSING, verdict)
    note = verdict
    if effect.interval is not None:
        low, high = (comparison_numbers.signed_percent(bound - 1) for bound in effect.interval)
        note = message("{verdict}; 95 % interval {low} to {high}", verdict=verdict, low=low, high=high)
    return KeyFigure(label, comparison_numbers.signed_percent(effect.ratio - 1), note)


def _energy_sentence(comparison: Comparison) -> tuple[Message, ...]:
    """Return what became of the energy, nothing where the sides cannot be compared by it."""
    energy = comparison.energy
    metric = comparison.metric(energy.metric) if energy.metric else None
    if metric is None or not isinstance(metric.main, Effect):
        return ()
    before, after = (numbers.in_unit(value, metric.unit) for value in (metric.main.before, metric.main.after))
    amounts = (
        message("{value} on both sides", value=after)
        if before == after
        else message("{after} instead of {before}", before=before, after=after)
    )
    what = capitalised(TITLES[metric.metric])
    if metric.main.interval is None:
        # That one run decides nothing is said of the period already.
        return (message("{what}: {amounts}.", what=what, amounts=amounts),)
    return (message("{what}: {amounts}; {sentence}.", what=what, amounts=amounts, sentence=metric.sentence),)


def _energy(comparison: Comparison) -> KeyFigure | None:
    """Return the energy of both sides, `None` where they cannot be compared by it."""
    energy = comparison.energy
    after = energy.typical(energy.after)
    if energy.metric is None or after is None:
        return None
    before = with_bound(energy.typical(energy.before), "J")
    label = capitalised(TITLES[energy.metric])
    note = message("± {error}; before: {value}", error=numbers.in_unit(after.error, "J"), value=before)
    return KeyFigure(label, numbers.in_unit(after.value, "J"), note)


def _parts(device: DeviceComparison) -> tuple[KeyFigure, ...]:
    def figure(label: Message, *keys: str) -> KeyFigure:
        sides = (device.waterfall.before, device.waterfall.after)
        before, after = (numbers.duration(float(parts.per_iteration(*keys))) for parts in sides)
        return KeyFigure(label, after, message("before: {value}", value=before))

    known = device.launches
    before, after = (None, None) if known is None else (float(known.before), float(known.after))
    launches = KeyFigure(
        message("Launches per iteration"),
        numbers.count(after),
        message("before: {value}", value=numbers.count(before)),
    )
    return (
        launches,
        figure(message("Kernels and CUDA graphs"), "kernel", "graph"),
        figure(message("GPU idle"), *(cause.id for cause in Cause)),
    )


def _matched(device: DeviceComparison) -> KeyFigure:
    quality = device.matching.quality
    label = message("Kernel time matched")
    if not (device.matching.before_ns or device.matching.after_ns):
        return KeyFigure(label, numbers.MISSING, message("no kernels recorded"))
    note = message(
        "one to one {share}, in groups {groups}",
        share=numbers.percent(quality.one_to_one),
        groups=numbers.percent(quality.grouped),
    )
    return KeyFigure(label, numbers.percent(quality.one_to_one + quality.grouped), note)


SECTION = ComparisonSection("summary", message("Summary"), 5, build)
