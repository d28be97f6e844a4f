"""Every report of every real trace against NVIDIA's own answer, byte by byte.

The traces are found through the environment variable NITRO_TRACES: a folder whose `nsys` holds exports (plain or
xz), and beside which `oracle/<trace>/<report>.csv` holds what Nsight Systems 2023.4 printed. Where it printed
nothing, the trace must have no answer here either.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import pytest

from nitro.analyzer import Trace, open_trace
from nitro.analyzer.stats import known_reports, stats_report
from nitro.reports.stats_text import csv_text

# Three exports of 2021 lack the table of copy kinds, and Nsight Systems 2023.4 skips their copies. These are its
# answers for the same exports with that table added.
_WITH_COPY_KINDS = Path(__file__).parent / "data"
_FOLDER = os.environ.get("NITRO_TRACES")
_TRACES = sorted((Path(_FOLDER) / "nsys").glob("*.sqlite*")) if _FOLDER else []


@lru_cache(maxsize=1)
def _opened(path: Path) -> Trace:
    return open_trace(path)


@pytest.mark.skipif(not _TRACES, reason="set NITRO_TRACES to a folder with nsys/*.sqlite[.xz], its oracle beside it")
@pytest.mark.parametrize("report", known_reports())
@pytest.mark.parametrize("path", _TRACES, ids=[path.name.partition(".sqlite")[0] for path in _TRACES])
def test_report_equals_nvidias(path: Path, report: str) -> None:
    table = stats_report(_opened(path), report)

    name = Path(path.name.partition(".sqlite")[0]) / f"{report.replace(':', '_')}.csv"
    answers = [folder / name for folder in (path.parents[2] / "oracle", _WITH_COPY_KINDS) if (folder / name).exists()]
    if answers:
        assert table.missing is None
        assert csv_text(table) == answers[0].read_text(encoding="utf-8")
    else:
        assert table.missing is not None
        assert table.frame.is_empty()


@pytest.mark.skipif(not _TRACES, reason="set NITRO_TRACES to a folder with nsys/*.sqlite[.xz], its oracle beside it")
def test_every_answer_of_the_oracle_was_asked_for() -> None:
    known = {name.replace(":", "_") for name in known_reports()}
    stems = {path.name.partition(".sqlite")[0] for path in _TRACES}
    answers = list((Path(str(_FOLDER)).parent / "oracle").glob("*/*_sum*.csv"))
    assert answers
    assert {path.parent.name for path in answers} <= stems
    assert {path.stem for path in answers} <= known
