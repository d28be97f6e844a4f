"""SoC level: throughput, power and energy, or why they are not known."""

from __future__ import annotations

from nitro.analyzer import Analysis, Measurement
from nitro.analyzer.message import Message, capitalised, joined, message
from nitro.analyzer.power_log import PowerLog

from .. import numbers
from ..blocks import Block, KeyValues
from ..names import printable, table_word
from ..report import Section
from ._power import energy_table, events_table, power_figure

_BETWEEN = " · "


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return what is known of the whole system on a chip, with the reason for what is not."""
    rows = [*_throughput(analysis), *_power(analysis), *_logged(analysis), *_clock(analysis)]
    blocks: list[Block] = [KeyValues(tuple(rows))] if rows else []
    return (*blocks, *power_figure(analysis), *energy_table(analysis), *events_table(analysis))


def _throughput(analysis: Analysis) -> list[tuple[str, str]]:
    throughput, rate = analysis.value("throughput"), analysis.value("iterations_per_s")
    if throughput is not None:
        return [(message("Throughput"), message("{number} items/s", number=numbers.significant(throughput)))]
    if rate is not None:
        text = message(
            "{number} iterations/s; {reason}",
            number=numbers.significant(rate),
            reason=analysis.reason("throughput") or "",
        )
        return [(message("Throughput"), text)]
    reason = analysis.reason("iterations_per_s")
    return [] if reason is None else [(message("Throughput"), capitalised(reason))]


def _power(analysis: Analysis) -> list[tuple[str, str]]:
    power = analysis.parts("power")
    if not power:
        reason = analysis.reason("power")
        return [] if reason is None else [(message("Power and energy"), capitalised(reason))]
    text = message(
        "{mean} mean, {lowest} to {highest}",
        mean=_with_error(power["mean"]),
        lowest=numbers.in_unit(power["min"].value, "W"),
        highest=numbers.in_unit(power["max"].value, "W"),
    )
    rows: list[tuple[str, str]] = [(message("Power"), text)]
    source = _total_source(analysis)
    if source:
        rows.append((message("Total"), capitalised(source)))
    rails = analysis.parts("power_by_rail")
    if len(rails) > 1:
        parts = (
            message("{name} {value}", name=printable(name), value=numbers.in_unit(part.value, "W"))
            for name, part in rails.items()
        )
        rows.append((message("Mean of each rail"), joined(_BETWEEN, parts)))
    rows += _energy(analysis)
    idle = analysis.find("idle_power")
    if idle is not None:
        text = message("{value} while the GPU ran nothing", value=numbers.in_unit(idle.value, "W"))
        above = analysis.find("energy_above_idle")
        if above is not None:
            energy = _with_error(above)
            text = message("{text}; {energy} of the window's energy lie above it", text=text, energy=energy)
        rows.append((message("Idle floor"), text))
    return rows


def _total_source(analysis: Analysis) -> str:
    """Return what the log that was used measures as a whole."""
    sources = [
        (placed.evidence.records, placed.evidence.total_source)
        for placed in analysis.evidence
        if isinstance(placed.evidence, PowerLog)
    ]
    return max(sources, key=lambda source: source[0])[1] if sources else ""


def _energy(analysis: Analysis) -> list[tuple[str, str]]:
    energy = analysis.find("energy")
    if energy is None:
        reason = analysis.reason("energy")
        return [] if reason is None else [(message("Energy"), capitalised(reason))]
    texts: list[str] = [message("{value} in the window", value=_with_error(energy))]
    each = analysis.find("energy_per_iteration")
    if each is not None:
        texts.append(message("{value} an iteration", value=_with_error(each)))
    item = analysis.find("energy_per_item")
    if item is not None:
        texts.append(message("{value} an item", value=_with_error(item)))
    rows: list[tuple[str, str]] = [(message("Energy"), joined(_BETWEEN, texts))]
    rate = analysis.find("items_per_joule")
    if rate is not None:
        text = message("{number} items/J", number=numbers.significant(rate.value))
        rows.append((message("Performance per watt"), text))
    elif (rate := analysis.find("iterations_per_joule")) is not None:
        text = message("{number} iterations/J", number=numbers.significant(rate.value))
        rows.append((message("Performance per watt"), text))
    return rows


def _with_error(measured: Measurement) -> Message:
    """Return a value with its error, both in the digits of the error."""
    value = numbers.in_unit(measured.value, measured.unit)
    if measured.error is None:
        return message("{value}", value=value)
    return message("{value} ± {error}", value=value, error=numbers.in_unit(measured.error, measured.unit))


def _logged(analysis: Analysis) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    loads = [
        message("{name} {value}", name=name, value=numbers.percent(parts["mean"].value))
        for metric, name in (
            ("logged_gpu_load", message("GPU")),
            ("logged_memory_load", message("memory controller")),
        )
        if (parts := analysis.parts(metric))
    ]
    clock = analysis.parts("logged_gpu_clock")
    if clock:
        text = message(
            "GPU clock {lowest} to {highest}",
            lowest=numbers.rate(clock["min"].value, "Hz"),
            highest=numbers.rate(clock["max"].value, "Hz"),
        )
        loads.append(text)
    if loads:
        rows.append((message("Load, as the power log has it"), joined(_BETWEEN, loads)))
    hot = analysis.parts("logged_temperature")
    if hot:
        sensors = (
            message("{name} {value}", name=name, value=numbers.in_unit(part.value, "degC"))
            for name, part in hot.items()
        )
        rows.append((message("Highest temperature"), joined(_BETWEEN, sensors)))
    limited = analysis.parts("limited_time")
    if limited:
        window = analysis.window.end_ns - analysis.window.start_ns
        share = numbers.percent(limited["any"].value / window if window else 0)
        text = message("in {share} of the window", share=share)
        causes = [table_word(name) for name in limited if name != "any"]
        if causes:
            text = message("{text}: {causes}", text=text, causes=joined(", ", causes))
        rows.append((message("Clocks held down"), text))
    return rows


def _clock(analysis: Analysis) -> list[tuple[str, str]]:
    """Return how the power logs were placed, one row for each."""
    rows: list[tuple[str, str]] = []
    for placed in analysis.evidence:
        placement = placed.placement
        if not isinstance(placed.evidence, PowerLog) or placement is None:
            continue
        text = message(
            "{file}, placed {reason}; off by {error} at most, moved by {shift}",
            file=placed.evidence.source.file_name,
            reason=placement.reason,
            error=numbers.duration(placement.error_ns),
            shift=numbers.duration(placement.shift_ns),
        )
        counts = message(
            "records read: {records}, lines left out: {left_out}",
            records=numbers.count(placed.evidence.records),
            left_out=numbers.count(placed.evidence.left_out),
        )
        log = placed.evidence
        texts = [text, counts, *log.notes]
        if log.sensor_period_ns != log.period_ns:
            texts.append(
                message(
                    "the sensor measures every {beat}; records in between repeat it, so a measurement counts once",
                    beat=numbers.duration(log.sensor_period_ns),
                )
            )
        rows.append((message("Power log"), joined("; ", texts)))
    return rows


SECTION = Section("soc_level", message("SoC level"), 65, build, for_documents=True)
