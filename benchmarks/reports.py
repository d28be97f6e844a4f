#!/usr/bin/env python3
"""Time the reports: the overview alone, with HTML, with PDF in English and in Korean, alternating.

    python benchmarks/reports.py TRACE.sqlite[.xz]... --runs 5
    python benchmarks/reports.py TRACE.sqlite[.xz] --copies 250 --runs 3 --only overview html     # a million kernels

Every run is a whole process, from the command to the file. What a report adds is its time less that of the overview.
Peak memory is that of the largest process; figures for paper are drawn in a second one. With --save NAME the result,
with the machine, is kept as benchmarks/results/NAME.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from against_nsys import RESULTS, Run, machine, rows_of, summary, timed
from scale_trace import scale

FORMS = {
    "overview": [],
    "html": ["-o", "report.html"],
    "pdf_en": ["-o", "report.pdf", "--lang", "en"],
    "pdf_ko": ["-o", "report.pdf", "--lang", "ko"],
}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="+", type=Path)
    parser.add_argument("--copies", type=int, help="first make one large trace of this many copies of the trace")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--save", metavar="NAME")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = [of_trace(trace, arguments, Path(folder)) for trace in arguments.traces]
    result = {"machine": machine(), "traces": results}
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.save:
        (RESULTS / f"{arguments.save}.json").write_text(text + "\n")


def of_trace(trace: Path, arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Return the times of every form for one trace."""
    path = trace.resolve()
    facts: dict[str, object] = {"trace": trace.name}
    if arguments.copies:
        path = folder / "large.sqlite"
        scale(trace, path, arguments.copies)
        facts = {"trace": f"{arguments.copies} copies of {trace.name}", **rows_of(path)}
    command = [sys.executable, "-m", "nitro.cli", str(path)]
    runs: dict[str, list[Run]] = {form: [] for form in arguments.only}
    sizes: dict[str, int] = {}
    for _ in range(arguments.runs):
        for form in arguments.only:
            outputs = [str(folder / word) if word.startswith("report.") else word for word in FORMS[form]]
            runs[form].append(timed([*command, *outputs]))
            if outputs:
                sizes[form] = Path(outputs[1]).stat().st_size
    return {**facts, "bytes": sizes, **{form: summary(of_form) for form, of_form in runs.items()}}


if __name__ == "__main__":
    main()
