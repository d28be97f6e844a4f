"""`nitro-analyze trend`: a metric over the history of a baseline."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nitro.commands import _checking as shared
from nitro.commands._options import json_option, lang_option

if TYPE_CHECKING:
    from nitro.analyzer.checks import Trend
    from nitro.reports.blocks import Language

# History of the format of the JSON, one line a version:
# 1: first version.
FORMAT_VERSION = 1
_COLUMNS = ("metric", "by", "device_id", "nvtx", "gpu", "unit", "entry", "kind", "day", "label", "value", "new_level")


@click.command("trend")
@click.argument("name")
@click.argument("metrics", nargs=-1, required=True, metavar="METRIC...")
@click.option("--nvtx", metavar="PATH", help="NVTX ranges whose metrics are meant; * matches anything.")
@click.option("--device", type=click.IntRange(min=0), help="Look at the GPU with this number only.")
@click.option("--gpu", metavar="NAME", help="Look at runs on GPUs of this name only; * matches anything.")
@click.option(
    "--per",
    type=click.Choice(["iteration", "window"]),
    default="iteration",
    show_default=True,
    help="How totals of the window are given.",
)
@json_option
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), metavar="FILE", help="Write every run as CSV.")
@shared.store_option
@shared.budgets_option
@lang_option
def command(
    name: str,
    metrics: tuple[str, ...],
    nvtx: str | None,
    device: int | None,
    gpu: str | None,
    per: str,
    json_file: str | None,
    csv_file: Path | None,
    store_folder: Path | None,
    budgets_file: Path | None,
    lang: Language | None,
) -> None:
    """Show a metric over the history of a baseline, and where its level changed.

    METRIC is an id of the JSON, or ID:PART for a part of it, such as iteration_period:p50. Runs on GPUs of different
    names are shown apart. Changes of level are looked for from 20 runs on.

    \b
    nitro-analyze trend main iteration_period:p50 gpu_idle
    """  # noqa: D301 - click looks for the control character itself
    from nitro.analyzer.checks import trends
    from nitro.reports import output
    from nitro.reports.checks.report import trend_report

    settings = shared.settings_of(budgets_file)
    outputs = [file for file in (None if json_file in (None, "-") else Path(str(json_file)), csv_file) if file]
    shared.check_outputs((), outputs, settings, store_folder)
    baseline = shared.store_of(store_folder, settings).read(name)
    found = [
        trend for metric in metrics for trend in trends(baseline, metric, nvtx=nvtx, device=device, gpu=gpu, per=per)
    ]
    if json_file not in (None, "-"):
        output.write_file(Path(str(json_file)), _json(name, found))
    if csv_file is not None:
        output.write_file(csv_file, _csv(found))
    if json_file == "-":
        sys.stdout.buffer.write(_json(name, found))
    else:
        shared.print_report(trend_report(found), lang)


def _json(name: str, found: Sequence[Trend]) -> bytes:
    made = {"format_version": FORMAT_VERSION, "baseline": name, "trends": [trend.to_dict() for trend in found]}
    return (json.dumps(made, ensure_ascii=False, indent=2) + "\n").encode(errors="replace")


def _csv(found: Sequence[Trend]) -> bytes:
    import io

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for trend in found:
        key = trend.key
        levels = {id(trend.known[change.at]) for change in trend.change_points}
        head = (key.metric, key.by, key.device_id if key.device_id >= 0 else "", key.nvtx, trend.gpu, trend.gauge.unit)
        for point in trend.points:
            tail = (point.entry, point.kind, point.day.isoformat(), point.label, point.value)
            writer.writerow((*head, *tail, int(id(point) in levels)))
    return stream.getvalue().encode(errors="replace")


COMMAND = command
