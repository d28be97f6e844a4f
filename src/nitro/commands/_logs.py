"""What the user says of logs beside traces: their clocks, the time between their lines, and whose power counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from nitro.commands._options import F, Option, time_ns, together
from nitro.errors import UsageError

if TYPE_CHECKING:
    from nitro.analyzer import Evidence
    from nitro.analyzer.power_log import PowerLog

log_gpu_option: Option[Any] = click.option(
    "--log-gpu",
    "log_gpus",
    multiple=True,
    metavar="GPU",
    help="Of a power log of several GPUs, count this one: its number in the log, UUID or PCI bus id; may be repeated, "
    "all: every one.  [default: those that the trace used, where that can be told]",
)
_options: Option[Any] = together(
    click.option(
        "--clock-offset",
        "clock_offset_ns",
        callback=time_ns,
        metavar="TIME",
        help="Add this to the times of a log beside the trace, as 1.5s or -200ms; where the log has no times, its "
        "first line since session start.",
    ),
    click.option(
        "--log-interval",
        "log_interval_ns",
        callback=time_ns,
        metavar="TIME",
        help="Time between the lines of a log without times.  [default: 1s, as of tegrastats]",
    ),
    log_gpu_option,
)


@dataclass(frozen=True, slots=True)
class LogOptions:
    """The options about logs; what was not given is `None` or empty."""

    clock_offset_ns: int | None = None
    interval_ns: int | None = None
    gpus: tuple[str, ...] = ()

    def check(self, evidence: Iterable[Evidence]) -> None:
        """Do nothing if the options are about some of the evidence.

        Args:
            evidence: what lies beside all traces of the command.

        Raises:
            UsageError: there is nothing that they can be about, or the interval is no time.
        """
        from nitro.analyzer.power_log import PowerLog

        given = list(evidence)
        if not given and self != LogOptions():
            raise UsageError(
                "--clock-offset, --log-interval and --log-gpu are about a log beside a trace; give one too."
            )
        if self.interval_ns is not None and self.interval_ns <= 0:
            raise UsageError("--log-interval must be longer than nothing; give it as 100ms or 1s.")
        if self.gpus and not any(isinstance(entry, PowerLog) and entry.boards for entry in given):
            raise UsageError(
                "--log-gpu is about a power log of nvidia-smi, and no such log lies beside a trace; leave it out."
            )

    def applied_to(self, evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
        """Return evidence with so much time between the records of logs that carry none, and with the GPUs that count.

        Raises:
            UsageError: a log of GPUs has none of that name.
        """
        from nitro.analyzer.power_log import PowerLog

        return tuple(self._applied_to(entry) if isinstance(entry, PowerLog) else entry for entry in evidence)

    def _applied_to(self, log: PowerLog) -> PowerLog:
        from nitro.analyzer.power_boards import chosen_boards

        spaced = log if self.interval_ns is None else log.respaced(self.interval_ns)
        return chosen_boards(spaced, self.gpus) if self.gpus and spaced.boards else spaced


def log_options(function: F) -> Callable[..., Any]:
    """Add the options about logs, which the command gets as one argument `logs`."""

    @wraps(function)
    def with_logs(
        *arguments: Any,
        clock_offset_ns: int | None,
        log_interval_ns: int | None,
        log_gpus: tuple[str, ...],
        **options: Any,
    ) -> Any:
        return function(*arguments, logs=LogOptions(clock_offset_ns, log_interval_ns, log_gpus), **options)

    return _options(with_logs)  # type: ignore[no-any-return]
