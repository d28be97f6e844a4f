"""A power limit or heat holds the clocks down, as the power log beside the trace says."""

from __future__ import annotations

from collections.abc import Iterator

from ..analysis import Analysis
from ..message import joined, message
from ..power_events import ANY, CLOCK_DROP, DRIVER_LIMITS
from ..rule import Evidence, Finding, Rule, severity_of
from ..table_words import TABLE_WORDS

_LEAST_SHARE = 0.05
_LEAST_LOSS = 0.01


def check(analysis: Analysis) -> Iterator[Finding]:
    """Fire when the power log shows clocks held down in at least 5 % of the window, by at least 1 % in the mean.

    That is: reasons that the driver gives, or a GPU clock below its level under load (`limited_time`). At stake is the
    time held down times how far the GPU clock then was below the highest of the log: what a kernel that the clock
    limits would save.
    """
    window = analysis.window.end_ns - analysis.window.start_ns
    limited = {by: part.value for by, part in analysis.parts("limited_time").items() if by is not None}
    clocks = {by: part.value for by, part in analysis.parts("limited_clock").items()}
    # A GPU that was switched off throughout has a clock of 0, from which nothing is lost.
    if not clocks.get("highest") or limited.get(ANY, 0) < _LEAST_SHARE * window:
        return
    loss = 1 - clocks["limited"] / clocks["highest"]
    if loss < _LEAST_LOSS:
        return
    told = [name for name in DRIVER_LIMITS.values() if limited.get(name)]
    stake = round(limited[ANY] * loss)
    yield Finding(
        rule=RULE.id,
        severity=severity_of(stake, window),
        title=message(
            "Clocks are held down for {share:.0%} of the window, by {loss:.0%} in the mean: {causes}",
            share=limited[ANY] / window,
            loss=loss,
            causes=joined(", ", told or [_word(CLOCK_DROP)]),
        ),
        time_at_stake_ns=stake,
        evidence=(
            *(
                Evidence("limited_time", time, "ns", _word(name))
                for name, time in sorted(limited.items())
                if name != ANY and time
            ),
            Evidence("limited_clock", clocks["limited"], "Hz", message("mean GPU clock in that time")),
            Evidence("limited_clock", clocks["highest"], "Hz", message("highest GPU clock of the log")),
            *_circumstances(analysis),
        ),
        remedy=message(
            "If it is power: choose a higher power mode or limit (nvpmodel, nvidia-smi -pl), or do less work an item "
            "(lower precision, fused kernels). If it is heat: improve cooling. For measurements, fix the clocks at a "
            "level that holds (jetson_clocks, nvidia-smi -lgc), so that runs compare."
        ),
        confidence="high" if told else "medium",
        limits=message(
            "Kernels that memory limits lose less than the clock does. A run that is held down compares only with one "
            "that is held down as much."
        ),
        device_id=analysis.devices[0].device_id if len(analysis.devices) == 1 else None,
    )


def _circumstances(analysis: Analysis) -> Iterator[Evidence]:
    power = analysis.value("power", by="mean")
    if power is not None:
        yield Evidence("power", power, "W", message("mean power of the window"))
    hot = {by: part.value for by, part in analysis.parts("logged_temperature").items()}
    if hot:
        sensor = max(hot, key=lambda name: (hot[name], str(name)))
        yield Evidence("logged_temperature", hot[sensor], "degC", message("highest of sensor {name}", name=str(sensor)))


def _word(name: str) -> str:
    return next((word for word in TABLE_WORDS if word == name), name)


RULE = Rule(
    id="clocks_held_down",
    title=message("Clocks held down"),
    needs=("limited_time", "limited_clock"),
    threshold=message("limited time >= 5 % of the window, and the GPU clock in it >= 1 % below its highest"),
    reference=message("nvmlClocksEventReasons of NVML; Nitro"),
    check=check,
)
