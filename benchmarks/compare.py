#!/usr/bin/env python3
"""Time `nitro-analyze compare` on two large traces, and the alignment of kernels on long sequences.

    python benchmarks/compare.py BEFORE.sqlite[.xz] AFTER.sqlite[.xz] --copies 195 --runs 3 --save compare

Each trace is made large by repeating its events (`scale_trace.py`); a run is a whole process. CPU time is the sum over
all threads: on a machine that others use, it says more than wall time. The sequences of the alignment are 100,000
launch places against some 67,000, of layers that repeat, with and without a third of all kernels at random. With --save
NAME the result, with the machine, is kept as benchmarks/results/NAME.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from against_nsys import RESULTS, Run, machine, rows_of, summary, timed
from scale_trace import scale

from nitro.analyzer.compare.alignment import Tokens, align

PLACES, KEPT, NEW, NAMES = 100_000, 0.67, 0.05, 60
CASES = {"layers": (True, 0.0), "layers, a third at random": (True, 0.33), "no layers": (False, 0.0)}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--save", metavar="NAME")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    result = {
        "machine": machine(),
        "load_before": load,
        "traces": of_traces(arguments),
        "load_after": os.getloadavg()[0],
        "alignment": of_alignment(arguments.runs),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.save:
        (RESULTS / f"{arguments.save}.json").write_text(text + "\n")


def of_traces(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the times of the whole command on the scaled traces."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{side}.sqlite" for side in ("before", "after")]
        for source, path in zip((arguments.before, arguments.after), paths, strict=True):
            scale(source, path, arguments.copies)
        command = [sys.executable, "-m", "nitro.cli", "compare", "--before", str(paths[0]), "--after", str(paths[1])]
        runs: list[Run] = [timed(command) for _ in range(arguments.runs)]
        return {
            "before": f"{arguments.copies} copies of {arguments.before.name}",
            "after": f"{arguments.copies} copies of {arguments.after.name}",
            "rows": [rows_of(path) for path in paths],
            "compare": summary(runs),
        }


def of_alignment(runs: int) -> dict[str, object]:
    """Return the CPU seconds of the alignment of each kind of sequence."""
    made: dict[str, object] = {}
    for name, (has_layers, random_share) in CASES.items():
        left, right = sequences(has_layers=has_layers, random_share=random_share)
        seconds = []
        for _ in range(runs):
            begin = time.process_time()
            matched = len(align(left, right)[0])
            seconds.append(time.process_time() - begin)
        made[name] = {"before": len(left), "after": len(right), "matched": matched, "cpu_s": seconds}
    return made


def sequences(*, has_layers: bool, random_share: float) -> tuple[Tokens, Tokens]:
    """Return two sequences: a third of the second is missing, and some of it is new."""
    generator = np.random.default_rng(0)
    size = 50 if has_layers else PLACES
    before = np.tile(generator.integers(0, NAMES, size), PLACES // size)
    times = generator.integers(1_000, 50_000, NAMES * 40).astype(np.float64)
    before = replaced(before, random_share, generator)
    after = replaced(before[generator.random(PLACES) < KEPT], NEW, generator)
    left, right = (Tokens(side.astype(np.intp), side.astype(np.intp) // 2, times[side]) for side in (before, after))
    return left, right


def replaced(places: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Return the places with a share of them drawn anew from many names."""
    made = places.copy()
    chosen = generator.random(len(made)) < share
    made[chosen] = generator.integers(0, NAMES * 20, int(chosen.sum()))
    return made


if __name__ == "__main__":
    main()
