"""The summary: the answer in two sentences and six key figures, energy among them where power was logged."""

from __future__ import annotations

from nitro.analyzer import Analysis
from nitro.analyzer.causes import TEXTS, Cause
from nitro.analyzer.message import Message, message, one_or_many

from .. import numbers
from ..blocks import Block, KeyFigure, KeyFigures, Paragraph
from ..report import Section
from .kernels import labels_of, work_of

_GPU_BOUND = 0.95


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return the answer and the key figures of the device with most work."""
    device_id = busiest_device(analysis)
    if device_id is None:
        text = message("The trace holds no GPU work inside the window, so there is nothing to say about the GPU.")
        return (Paragraph(text, is_lead=True),)
    sentences = (_where(analysis, device_id), _lever(analysis, device_id))
    figures = (
        _pace(analysis, device_id),
        _rate(analysis),
        _busy(analysis, device_id),
        _cause(analysis, device_id),
        _sm_active(analysis, device_id),
        # Six fill their rows. Where launches matter, the cause of the idle time tells of them, too.
        _energy(analysis) or _launches(analysis, device_id),
    )
    return (*(Paragraph(sentence, is_lead=True) for sentence in sentences), KeyFigures(figures))


def busiest_device(analysis: Analysis) -> int | None:
    """Return the device with most GPU time in its window, `None` where no device has any."""
    busy = [(m.value, -(m.device_id or 0)) for m in analysis.measurements if m.metric == "gpu_busy" and m.value]
    return -max(busy)[1] if busy else None


def largest_cause(analysis: Analysis, device_id: int) -> tuple[Message | str, float] | None:
    """Return the title and the time, in ns, of the cause with most idle time; `None` where the GPU was never idle."""
    causes = analysis.parts("gpu_idle_by_cause", device_id)
    cause_id, part = max(causes.items(), key=lambda item: item[1].value, default=(None, None))
    if cause_id is None or part is None or not part.value:
        return None
    return TEXTS[Cause[cause_id.upper()]].title, part.value


def _where(analysis: Analysis, device_id: int) -> Message:
    window = analysis.value("window", device_id) or 1
    busy = analysis.value("gpu_busy", device_id) or 0
    share, length = numbers.percent(busy / window), numbers.duration(window)
    work = work_of(analysis, device_id)
    cause = largest_cause(analysis, device_id)
    device = next((device.name for device in analysis.devices if device.device_id == device_id), f"GPU {device_id}")
    kernel_busy = analysis.value("kernel_busy", device_id) or 0
    copies = sum(analysis.value(name, device_id) or 0 for name in ("memcpy_time_sum", "memset_time_sum"))
    if busy / window >= _GPU_BOUND and copies > kernel_busy:
        return message(
            "{device} was busy for {share} of the {length} window, most of it with copies: they take {copies}, kernels "
            "{kernels}.",
            device=device,
            share=share,
            length=length,
            copies=numbers.duration(copies),
            kernels=numbers.duration(kernel_busy),
        )
    if busy / window >= _GPU_BOUND and work is not None:
        return message(
            "{device} was busy for {share} of the {length} window: the GPU itself is the limit, and {part} of the time "
            "of kernels and graphs goes to {kernel}.",
            device=device,
            share=share,
            length=length,
            kernel=_shortened(labels_of(work.head(1))[0]),
            part=numbers.percent(work["total_ns"][0] / work["total_ns"].sum()),
        )
    if cause is None:
        return message(
            "{device} was busy for {share} of the {length} window.", device=device, share=share, length=length
        )
    return message(
        "{device} was busy for {share} of the {length} window; of its {idle} idle time, {part} has the cause "
        "“{cause}”.",
        device=device,
        share=share,
        length=length,
        idle=numbers.duration(window - busy),
        part=numbers.percent(cause[1] / (window - busy)),
        cause=cause[0],
    )


def _lever(analysis: Analysis, device_id: int) -> Message:
    window = analysis.value("window", device_id) or 1
    found = [f for f in analysis.findings if f.severity != "info" and f.device_id in (None, device_id)]
    if not found:
        return message("No rule found a problem worth mending in this window.")
    return message(
        "The first thing to look at: {finding}, worth {stake} at most ({share} of the window).",
        finding=found[0].title,
        stake=numbers.duration(found[0].time_at_stake_ns),
        share=numbers.percent(found[0].time_at_stake_ns / window),
    )


def _shortened(name: str, most: int = 48) -> str:
    return name if isinstance(name, Message) or len(name) <= most else name[: most - 1] + "…"


def _energy(analysis: Analysis) -> KeyFigure | None:
    """Return energy per item, or per iteration, or of the window; `None` where no power was logged."""
    mean = analysis.parts("power").get("mean")
    for metric, label in (
        ("energy_per_item", message("Energy an item")),
        ("energy_per_iteration", message("Energy an iteration")),
        ("energy", message("Energy of the window")),
    ):
        found = analysis.find(metric)
        if found is not None and found.error is not None and mean is not None:
            note = message(
                "± {error}, at {power} on average",
                error=numbers.in_unit(found.error, "J"),
                power=numbers.in_unit(mean.value, "W"),
            )
            return KeyFigure(label, numbers.in_unit(found.value, "J"), note)
    return None


def _pace(analysis: Analysis, device_id: int) -> KeyFigure:
    for metric, label in (
        ("iteration_latency", message("Iteration latency, median")),
        ("iteration_period", message("Iteration period, median")),
    ):
        parts = analysis.parts(metric)
        if "p50" in parts:
            p99 = numbers.duration(parts["p99"].value if "p99" in parts else None)
            count = parts["p50"].count or 0
            one = message("p99 {p99}, 1 sample", p99=p99)
            note = one_or_many(count, one, message("p99 {p99}, {count} samples", p99=p99, count=numbers.count(count)))
            return KeyFigure(label, numbers.duration(parts["p50"].value), note)
    note = message("no repeated iterations found")
    return KeyFigure(message("Window"), numbers.duration(analysis.value("window", device_id)), note)


def _rate(analysis: Analysis) -> KeyFigure:
    throughput, rate = analysis.value("throughput"), analysis.value("iterations_per_s")
    if throughput is not None:
        value = message("{number} items/s", number=numbers.significant(throughput))
        return KeyFigure(message("Throughput"), value, "")
    if rate is None:
        return KeyFigure(message("Throughput"), numbers.MISSING, message("needs iterations"))
    value = message("{number} per second", number=numbers.significant(rate))
    return KeyFigure(message("Iterations"), value, message("items per iteration are unknown; see --batch"))


def _busy(analysis: Analysis, device_id: int) -> KeyFigure:
    busy, idle = analysis.value("gpu_busy", device_id), analysis.value("gpu_idle", device_id)
    note = message("busy {busy}, idle {idle}", busy=numbers.duration(busy), idle=numbers.duration(idle))
    return KeyFigure(message("GPU busy"), numbers.percent(analysis.value("gpu_busy_ratio", device_id)), note)


def _cause(analysis: Analysis, device_id: int) -> KeyFigure:
    label, cause = message("Largest cause of idle time"), largest_cause(analysis, device_id)
    window = analysis.value("window", device_id)
    if cause is None or not window:
        return KeyFigure(label, numbers.MISSING, message("never idle in the window"))
    note = message("{cause}, {time}", cause=cause[0], time=numbers.duration(cause[1]))
    return KeyFigure(label, numbers.percent(cause[1] / window), note)


def _sm_active(analysis: Analysis, device_id: int) -> KeyFigure:
    label, active = message("SM active"), analysis.value("sm_active_ratio", device_id)
    if active is None:
        return KeyFigure(label, numbers.MISSING, message("not sampled in this capture"))
    issue = numbers.percent(analysis.value("sm_issue_ratio", device_id))
    tensor = numbers.percent(analysis.value("tensor_active_ratio", device_id))
    return KeyFigure(
        label, numbers.percent(active), message("issue {issue}, tensor {tensor}", issue=issue, tensor=tensor)
    )


def _launches(analysis: Analysis, device_id: int) -> KeyFigure:
    launches = analysis.value("launches_per_iteration")
    exposed = sum(part.value for part in analysis.parts("launch_exposed", device_id).values())
    note = message("the GPU waited {time} for launches", time=numbers.duration(exposed)) if exposed else ""
    if launches is not None:
        return KeyFigure(message("Launches per iteration"), numbers.count(launches), note)
    return KeyFigure(message("Kernels"), numbers.count(analysis.value("kernel_count", device_id)), note)


SECTION = Section("summary", message("Summary"), 5, build)
