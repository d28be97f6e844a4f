"""A comparison as a report: the same blocks, renderers and outputs as those of an analysis."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from nitro.analyzer.compare import Comparison
from nitro.analyzer.compare.energy import METRICS, RunEnergy
from nitro.analyzer.message import message
from nitro.registry import declared

from . import comparison_sections
from .blocks import Block, Language
from .language import translated
from .output import Documents, Settings, make_folder, write_file
from .report import Chapter, FilledSection, Report
from .words import WORDS

if TYPE_CHECKING:
    from .renderers import svg


@dataclass(frozen=True, slots=True)
class ComparisonSection:
    """A section of a comparison's report: `build` returns its blocks, none where it has nothing to say.

    `build` is told whether the blocks are for a document; a terminal has less room. The terminal leaves sections out
    that are `for_documents`.
    """

    name: str
    title: str
    order: int
    build: Callable[[Comparison, bool], tuple[Block, ...]]
    for_documents: bool = False


def all_comparison_sections() -> tuple[ComparisonSection, ...]:
    """Return the declared sections in the order in which they are shown."""
    found = declared(comparison_sections, "SECTION", ComparisonSection)
    return tuple(sorted(found, key=lambda section: (section.order, section.name)))


def build_comparison_report(
    comparison: Comparison,
    *,
    title: str | None = None,
    author: str = "",
    command: str | None = None,
    for_documents: bool = True,
) -> Report:
    """Return the report of a comparison; sections without blocks are left out. See `report.build_report`."""
    filled = (
        FilledSection(section.name, section.title, section.build(comparison, for_documents), section.for_documents)
        for section in all_comparison_sections()
        if for_documents or not section.for_documents
    )
    from .comparison_sections._runs import title_of_side

    before, after = comparison.runs
    heading = title or message("{before} → {after}", before=title_of_side(before), after=title_of_side(after))
    subtitle = message(
        "runs before: {before}, after: {after} · Nitro {version}",
        before=len(comparison.before),
        after=len(comparison.after),
        version=comparison.nitro_version,
    )
    about = [(WORDS["made_by"], f"Nitro {comparison.nitro_version}")]
    if command:
        about.append((WORDS["command"], command))
    return Report(
        title=heading,
        subtitle=subtitle,
        chapters=(Chapter(heading, subtitle, tuple(section for section in filled if section.blocks)),),
        about=tuple(about),
        author=author,
    )


class ComparisonDocuments(Documents):
    """The documents about a comparison."""

    def __init__(self, comparison: Comparison, settings: Settings, drawer: svg.Drawer | None = None) -> None:
        """Make documents; see `Documents`."""
        super().__init__((), settings, drawer)
        self._comparison = comparison

    def _in(self, language: Language) -> Report:
        settings = self._settings
        if self._report is None:
            self._report = build_comparison_report(
                self._comparison, title=settings.title, author=settings.author, command=settings.command
            )
        return translated(self._report, language)


def print_comparison(comparison: Comparison, stream: IO[str], language: Language = "en") -> None:
    """Print a comparison to a terminal or a pipe."""
    from .renderers import terminal

    terminal.print_report(translated(build_comparison_report(comparison, for_documents=False), language), stream)


def comparison_json(comparison: Comparison) -> bytes:
    """Return the documented JSON of a comparison, indented, with a line end."""
    return msgspec.json.format(msgspec.json.encode(comparison.to_dict(), enc_hook=str), indent=2) + b"\n"


def write_comparison_csv(folder: Path, comparison: Comparison) -> None:
    """Write waterfall, matched kernels, effects, energy and phases as CSV into a folder, made if it does not exist.

    Every file has the devices under one another; numbers are in base units (ns, ratios).

    Raises:
        nitro.errors.UsageError: the folder cannot be written.
    """
    make_folder(folder)
    for name, rows in _csv_tables(comparison).items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        stream = io.StringIO()
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_file(folder / f"{name}.csv", stream.getvalue().encode(errors="replace"))


def _csv_tables(comparison: Comparison) -> dict[str, list[dict[str, object]]]:
    waterfall: list[dict[str, object]] = []
    matched: list[dict[str, object]] = []
    phases: list[dict[str, object]] = []
    effects = _effect_rows(None, comparison.to_dict()["metrics"])
    for device in comparison.devices:
        known = device.to_dict()
        head = {"device_id": device.after_id}
        waterfall += [
            head | {name: step[name] for name in ("key", "before_ns", "after_ns", "delta_ns")}
            for step in known["waterfall"]["steps"]
        ]
        matched += [
            head
            | {name: value for name, value in row.items() if name not in ("before", "after", "delta_exact")}
            | {"path": _cell(row["path"])}
            | {side: " + ".join(_cell(member["name"]) for member in row[side]) for side in ("before", "after")}
            for row in known["matching"]["rows"]
        ]
        effects += _effect_rows(device.after_id, known["metrics"])
        for phase in known["phases"]:
            row: dict[str, object] = head | {"path": _cell(phase["path"])}
            for side in ("before", "after"):
                row |= {f"{name}_{side}": value for name, value in (phase[side] or {}).items()}
            phases.append(row)
    made = {"waterfall": waterfall, "matched_kernels": matched, "effects": effects, "phases": phases}
    energy = [_energy_row(side, run) for side in ("before", "after") for run in getattr(comparison.energy, side)]
    return made | ({"energy": energy} if comparison.energy.is_known else {})


def _energy_row(side: str, run: RunEnergy) -> dict[str, object]:
    row: dict[str, object] = {"side": side, "file": _cell(run.file_name), "measured": run.measured}
    for name, amount in (("power_w", run.power_w), *((f"{name}_j", run.amounts.get(name)) for name in METRICS)):
        row |= {name: None, f"{name}_error": None} if amount is None else {
            name: amount.value, f"{name}_error": amount.error
        }  # fmt: skip
    return row


def _effect_rows(device_id: int | None, metrics: Iterable[dict[str, object]]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for metric in metrics:
        for effect in metric["effects"]:  # type: ignore[attr-defined]
            low, high = effect.get("interval") or (None, None)
            row = {"device_id": device_id, "metric": metric["metric"], "unit": metric["unit"]} | {
                name: effect.get(name)
                for name in ("statistic", "before", "after", "ratio", "verdict", "smallest_effect", "runs_to_decide")
            }
            off_before, off_after = effect.get("measurement_error") or (None, None)
            row |= {"interval_low": low, "interval_high": high, "reason": effect.get("reason")}
            rows.append(row | {"error_before": off_before, "error_after": off_after})
    return rows


def _cell(name: str) -> str:
    """Return a name of a trace that a spreadsheet does not take for a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@")) else name
