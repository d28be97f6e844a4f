#!/usr/bin/env python3
"""Write docs/tour.ipynb: the cells below, run on the sample trace, with what they show.

python docs/make_notebook.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

DOCS = Path(__file__).resolve().parent
CELLS: tuple[tuple[str, str], ...] = (
    (
        "markdown",
        "# A tour of Nitro as a library\n\nThe sample trace is a dual encoder (ResNet-50 and a Transformer text tower, "
        "batch 1) on an NVIDIA H200, eleven inferences after a warm-up.",
    ),
    (
        "code",
        "from nitro.analyzer import analyze, open_trace\n\n"
        'trace = open_trace("../examples/dual_encoder.sqlite.xz")\nanalysis = analyze(trace)\nanalysis',
    ),
    (
        "markdown",
        "Every idle nanosecond has one cause, and the causes add up to the idle time exactly.",
    ),
    (
        "code",
        'causes = analysis.parts("gpu_idle_by_cause")\n'
        'assert sum(part.value for part in causes.values()) == analysis.value("gpu_idle")\n'
        'assert analysis.value("gpu_busy") + analysis.value("gpu_idle") == analysis.value("window")\n'
        "{cause: part.value for cause, part in causes.items()}",
    ),
    ("markdown", "A table shows its columns' meanings on hover; `.frame` is polars, `.to_pandas()` is pandas."),
    ("code", 'analysis.table("nvtx_phases")'),
    ("code", 'analysis.table("phase_pairs")'),
    ("markdown", "A finding carries its evidence, its remedy and its limits."),
    ("code", "finding = analysis.findings[0]\nprint(finding.title)\nprint(finding.remedy)\nprint(finding.limits)"),
    ("markdown", "The trace itself is columns: here the ten longest kernel executions."),
    (
        "code",
        "import polars as pl\n\n"
        '(\n    trace.kernels.select("short_name", duration_ns=pl.col("end_ns") - pl.col("start_ns"))\n'
        '    .sort("duration_ns", "short_name", descending=[True, False])\n    .head(10)\n)',
    ),
)


def notebook() -> Any:
    """Return the notebook, not yet run."""
    book = nbformat.v4.new_notebook()
    make = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    book.cells = [make[kind](source, id=f"cell-{number}") for number, (kind, source) in enumerate(CELLS)]
    book.metadata = {"language_info": {"name": "python"}, "kernelspec": {"name": "python3", "display_name": "Python 3"}}
    return book


def run(book: Any) -> Any:
    """Run every cell in a fresh kernel; an error in a cell is raised."""
    NotebookClient(book, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(DOCS)}}).execute()
    for cell in book.cells:
        cell.metadata.pop("execution", None)  # when a cell ran would make each copy of the file differ
    return book


if __name__ == "__main__":
    nbformat.write(run(notebook()), DOCS / "tour.ipynb")
