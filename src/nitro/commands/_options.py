"""Options that several commands have, each declared once. `_logs` and `_reports` have more."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
Option = Callable[[F], F]

_TIME = re.compile(r"^\s*(-?\d+(?:\.\d+)?)\s*(s|ms|us|µs|ns)?\s*$")
_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "µs": 10**3, "ns": 1, None: 10**9}
_WINDOW = "auto: the repeated iterations without warm-up; all: first to last GPU operation."


def time_ns(_ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Read a time since session start, such as `1.5s`, `200ms` or `3` (seconds), as ns."""
    if value is None:
        return None
    match = _TIME.match(value)
    if not match:
        raise click.BadParameter(f"{value!r} is no time; write 1.5s, 200ms, 30us or 1200ns.", param=param)
    number, unit = match.groups()
    return round(float(number) * _NS[unit]) if "." in number else int(number) * _NS[unit]


def _or_none(_ctx: click.Context, _param: click.Parameter, value: tuple[int, ...]) -> tuple[int, ...] | None:
    """Read an option that was not given as "all"."""
    return value or None


def together(*options: Option[F]) -> Option[F]:
    """Return a decorator that adds options in the order in which they are to be shown."""

    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


lang_option = click.option(
    "--lang", type=click.Choice(["en", "ko"]), help="Language of the text; by default that of the locale."
)
json_option = click.option(
    "--json", "json_file", metavar="FILE", help="Write JSON to FILE, or to standard output with '-'."
)
window_option = click.option(
    "--window", type=click.Choice(["auto", "all"]), default="auto", show_default=True, help=_WINDOW
)
# Where nitro.toml may say it, too, an option that was not given must be told from one that was.
window_or_settings_option = click.option(
    "--window", type=click.Choice(["auto", "all"]), help=f"{_WINDOW}  [default: auto]"
)
part_options: Option[Any] = together(
    click.option("--nvtx", metavar="NAME", help="NVTX ranges that are the iterations; * matches anything."),
    click.option(
        "--device",
        "device_ids",
        multiple=True,
        type=int,
        callback=_or_none,
        help="Look at this GPU only; may be repeated.",
    ),
    click.option(
        "--pid", "pids", multiple=True, type=int, callback=_or_none, help="Look at this process only; may be repeated."
    ),
    click.option(
        "--batch", type=click.IntRange(min=1), help="Items per iteration, for throughput and energy per item."
    ),
)
