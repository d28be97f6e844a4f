"""Budgets: what a project promises of its runs, as it stands under `[[budget]]` in nitro.toml."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from nitro.errors import UsageError

from ..compare.statistics import THRESHOLD, Direction
from ..message import message
from .amounts import amount, share
from .gauges import Gauge, Key, Per, gauge_of, nearest
from .runs import Run

OnInconclusive = Literal["pass", "fail"]
BUDGET_KEYS = (
    "metric",
    "by",
    "device",
    "nvtx",
    "max",
    "min",
    "max_regression",
    "better",
    "per",
    "owner",
    "reason",
    "expires",
    "inconclusive",
)
_LIMITS = ("max", "min", "max_regression")
_NEVER_NEGATIVE = frozenset(("ns", "bytes", "bytes/s", "Hz", "1", "1/s", "items/s", "cycles", "ratio"))


@dataclass(frozen=True, slots=True)
class Budget:
    """What one metric may cost.

    `device` is a physical id or a pattern of names (`*` for anything), `nvtx` a pattern of NVTX paths. `maximum` and
    `minimum` are in the unit of the metric; `max_regression` is the share by which it may be worse than the baseline.
    From `expires` on the budget is out of date, and a check that still has it does not pass. `line` is where it
    begins in its file.
    """

    gauge: Gauge
    by: str | None
    device: int | str | None
    nvtx: str | None
    maximum: float | None
    minimum: float | None
    max_regression: float | None
    better: Direction
    per: Per
    owner: str
    reason: str
    expires: date | None = None
    inconclusive: OnInconclusive | None = None
    line: int | None = None

    @property
    def name(self) -> str:
        """What the budget is about, as in `iteration_period:p50 in 'infer:#'`."""
        name = self.gauge.name + (f":{self.by}" if self.by else "")
        name += f" in '{self.nvtx}'" if self.nvtx else ""
        return name + ("" if self.device is None else f" on {_device_text(self.device)}")

    def is_expired(self, day: date) -> bool:
        """Tell whether the budget is out of date on a day; on the day itself it already is."""
        return self.expires is not None and day >= self.expires

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {
            "metric": self.gauge.name,
            "unit": self.gauge.unit,
            "by": self.by,
            "device": self.device,
            "nvtx": self.nvtx,
            "max": self.maximum,
            "min": self.minimum,
            "max_regression": self.max_regression,
            "better": self.better,
            "per": self.per,
            "owner": self.owner,
            "reason": self.reason,
            "expires": self.expires.isoformat() if self.expires else None,
            "line": self.line,
        }


def _device_text(device: int | str) -> str:
    return f"GPU {device}" if isinstance(device, int) else f"'{device}'"


def budgets_of(
    tables: Iterable[Mapping[str, Any]], file: str, lines: Sequence[int] | None = None
) -> tuple[Budget, ...]:
    """Return the budgets of the tables of a settings file.

    Args:
        tables: one mapping a budget, with keys of `BUDGET_KEYS`.
        file: name of the file, for the messages.
        lines: where each begins, as far as that is known.

    Raises:
        UsageError: something in a budget is wrong; the message says in which, and what to write.
    """
    made = []
    for number, table in enumerate(tables):
        line = lines[number] if lines is not None else None
        where = f"{file}, " + (f"line {line}" if line is not None else f"budget {number + 1}")
        try:
            made.append(_budget(table, line))
        except ValueError as error:
            text = str(error)
            raise UsageError(f"{where}: {text}" + ("" if text.endswith(("?", ".")) else ".")) from None
    return tuple(made)


def budget(metric: str, **settings: Any) -> Budget:
    """Return one budget from the settings that it would have in nitro.toml; owner and reason may be left out.

    Raises:
        UsageError: a setting is wrong.
    """
    told = {"owner": "-", "reason": "-"} | {name: value for name, value in settings.items() if value is not None}
    try:
        return _budget({"metric": metric} | told, None)
    except ValueError as error:
        text = str(error)
        raise UsageError(text + ("" if text.endswith(("?", ".")) else ".")) from None


def default_budgets(runs: Iterable[Run]) -> tuple[Budget, ...]:
    """Return what is held against a baseline where no budget is written down: the period of iterations.

    It is the median period, or where iterations overlap and none stands alone, the mean.
    """
    reason = message("the default where no budget is written down")
    period = gauge_of("iteration_period", of_phase=False)
    has_median = all(
        Key(period.name, "p50") in run.values or Key(period.name, "mean") not in run.values for run in runs
    )
    by = "p50" if has_median else "mean"
    return (Budget(period, by, None, None, None, None, THRESHOLD, "lower", "iteration", "-", reason),)


def _budget(table: Mapping[str, Any], line: int | None) -> Budget:
    for key in table:
        if key not in BUDGET_KEYS:
            raise ValueError(f"a budget has no setting {key!r}; {nearest(key, BUDGET_KEYS)}")
    nvtx = _text(table, "nvtx")
    gauge = gauge_of(_needed(table, "metric", '"iteration_period"'), of_phase=nvtx is not None)
    if not any(key in table for key in _LIMITS):
        raise ValueError(f"{gauge.name} has no limit; give max, min or max_regression")
    maximum, minimum = (_limit(table, key, gauge) for key in ("max", "min"))
    if maximum is not None and minimum is not None and minimum > maximum:
        raise ValueError(f"min of {gauge.name} is above its max, so nothing could pass")
    max_regression = _share(table, "max_regression")
    return Budget(
        gauge=gauge,
        by=_text(table, "by"),
        device=_device(table),
        nvtx=nvtx,
        maximum=maximum,
        minimum=minimum,
        max_regression=max_regression,
        better=_direction(table, gauge, is_needed=max_regression is not None),
        per=_one_of(table, "per", ("iteration", "window")) or "iteration",
        owner=_needed(table, "owner", '"vision team"'),
        reason=_needed(table, "reason", '"the camera delivers 60 frames a second"'),
        expires=_day(table),
        inconclusive=_one_of(table, "inconclusive", ("pass", "fail")),
        line=line,
    )


def _limit(table: Mapping[str, Any], key: str, gauge: Gauge) -> float | None:
    if key not in table:
        return None
    try:
        limit = amount(table[key], gauge.unit)
    except ValueError as error:
        raise ValueError(f"{key} of {gauge.name}: {error}") from None
    # Limits outside of what the metric can reach would pass or fail for ever.
    if limit < 0 and gauge.unit in _NEVER_NEGATIVE:
        raise ValueError(f"{key} of {gauge.name}: {table[key]!r} is below 0, which it never is; write a limit above 0")
    if limit > 1 and gauge.unit == "ratio":
        meant = f'"{table[key]:g} %"' if isinstance(table[key], int | float) and limit <= 100 else '"30 %" or 0.3'
        raise ValueError(f"{key} of {gauge.name}: {table[key]!r} is more than the whole; write {meant}")
    return limit


def _share(table: Mapping[str, Any], key: str) -> float | None:
    if key not in table:
        return None
    try:
        return share(table[key])
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _direction(table: Mapping[str, Any], gauge: Gauge, *, is_needed: bool) -> Direction:
    told: Direction | None = _one_of(table, "better", ("lower", "higher"))
    if told is not None:
        return told
    if gauge.better != "neither":
        return gauge.better
    if is_needed:
        raise ValueError(f'whether more of {gauge.name} is good depends on you; add better = "lower" or "higher"')
    return "lower"


def _device(table: Mapping[str, Any]) -> int | str | None:
    device = table.get("device")
    if device is None or (isinstance(device, int) and not isinstance(device, bool) and device >= 0):
        return device
    if isinstance(device, str) and device.strip():
        return device
    raise ValueError(f'device must be the number of a GPU or a name such as "*Orin*", not {device!r}')


def _day(table: Mapping[str, Any]) -> date | None:
    day = table.get("expires")
    if isinstance(day, str):
        return parse_day(day, "expires")
    if isinstance(day, datetime):
        return day.date()
    if day is None or isinstance(day, date):
        return day
    raise ValueError(f"expires must be a day such as 2027-01-31, not {day!r}")


def parse_day(text: str, what: str) -> date:
    """Return a day written as 2027-01-31.

    Raises:
        ValueError: it is none; `what` is named in the message.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{what} must be a day such as 2027-01-31, not {text!r}") from None


def _text(table: Mapping[str, Any], key: str) -> str | None:
    value = table.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key} must be text in quotes, not {value!r}")
    return value


def _needed(table: Mapping[str, Any], key: str, example: str) -> str:
    value = _text(table, key)
    if value is None:
        raise ValueError(f"a budget needs {key} = {example}")
    return value


def _one_of(table: Mapping[str, Any], key: str, known: tuple[str, ...]) -> Any:
    value = table.get(key)
    if value is not None and value not in known:
        raise ValueError(f"{key} {value!r} is unknown; choose {' or '.join(known)}")
    return value
