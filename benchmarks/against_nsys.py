#!/usr/bin/env python3
"""Time the default analysis against `nsys stats` + `nsys analyze` on the same large trace, alternating.

    python benchmarks/against_nsys.py TRACE.sqlite[.xz] --nsys /path/to/nsys --copies 250 --runs 3
    python benchmarks/against_nsys.py TRACE.sqlite[.xz] --copies 250 500 1250 --runs 3          # scaling, without nsys

Both tools read the same file, one run of each in turn. Wall time and the peak resident memory of the largest process
come from the operating system. The result, with the machine, is printed and, with --save NAME, kept as
benchmarks/results/NAME.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from scale_trace import scale

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Run:
    """One finished command: seconds on the clock, seconds of CPU, peak memory of its largest process in MB."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def timed(*commands: list[str]) -> Run:
    """Run commands one after the other and add them up."""
    wall = cpu = peak = 0.0
    # An installed program has its bytecode; an environment that forbids writing it would have it compiled every time.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for command in commands:
        begin = time.perf_counter()
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=pipe, env=environment) as process:
            assert process.stderr is not None
            complaint = process.stderr.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        wall += time.perf_counter() - begin
        if process.returncode:
            sys.exit(f"{' '.join(command)} failed: {complaint.decode(errors='replace')[-400:]}")
        cpu += usage.ru_utime + usage.ru_stime
        peak = max(peak, usage.ru_maxrss / 1000)
    return Run(wall, cpu, peak)


def rows_of(trace: Path) -> dict[str, int]:
    """Return how many kernels and API calls a trace has."""
    with sqlite3.connect(f"file:{trace}?mode=ro&immutable=1", uri=True) as connection:
        return {
            label: connection.execute(f"select count(*) from CUPTI_ACTIVITY_KIND_{table}").fetchone()[0]
            for label, table in (("kernels", "KERNEL"), ("api_calls", "RUNTIME"))
        }


def machine() -> dict[str, object]:
    """Return what the numbers depend on, nothing that names the machine."""
    model = "unknown"
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    facts = {"cpu": model, "cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}
    return {**facts, "ten_million_additions_s": round(_additions(), 3)}


def _additions() -> float:
    """Return the time of a plain loop: the same machine may be half as fast on another day, or beside other work."""
    begin = time.perf_counter()
    total = 0
    for number in range(10_000_000):
        total += number
    return time.perf_counter() - begin


def summary(runs: list[Run]) -> dict[str, object]:
    """Return medians, and every run."""
    middle = {key: statistics.median(getattr(run, key) for run in runs) for key in ("wall_s", "cpu_s", "peak_mb")}
    return {"median": middle, "runs": [asdict(run) for run in runs]}


def measure(trace: Path, nsys: str | None, runs: int, folder: Path) -> dict[str, object]:
    """Alternate the tools over one trace; the first run of each warms the file cache and is not counted."""
    ours = [shutil.which("nitro-analyze", path=str(Path(sys.executable).parent)) or "nitro-analyze", str(trace)]
    out = ["--format", "csv", "--force-overwrite", "true", "--output", str(folder / "nsys")]
    theirs = [[nsys, verb, *out, str(trace)] for verb in ("stats", "analyze")] if nsys else []
    nitro_runs, nsys_runs = [], []
    for _ in range(runs + 1):
        nitro_runs.append(timed(ours))
        if theirs:
            nsys_runs.append(timed(*theirs))
    result: dict[str, object] = rows_of(trace) | {
        "bytes": trace.stat().st_size,
        "nitro-analyze": summary(nitro_runs[1:]),
    }
    if theirs:
        result["nsys stats + nsys analyze"] = summary(nsys_runs[1:])
        ratios = [b.wall_s / a.wall_s for a, b in zip(nitro_runs[1:], nsys_runs[1:], strict=True)]
        result["times faster"] = {"median": statistics.median(ratios), "runs": ratios}
    return result


def main() -> None:
    """Parse the command line, measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--nsys", help="the nsys binary to compare with")
    parser.add_argument("--copies", type=int, nargs="+", default=[250])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--save", metavar="NAME")
    arguments = parser.parse_args()
    result: dict[str, object] = {"machine": machine(), "trace": arguments.trace.name, "runs": arguments.runs}
    if arguments.nsys:
        version = subprocess.run([arguments.nsys, "--version"], capture_output=True, text=True, check=True)
        result["nsys"] = version.stdout.strip()
    with tempfile.TemporaryDirectory() as name:
        for copies in arguments.copies:
            large = Path(name) / f"x{copies}.sqlite"
            scale(arguments.trace, large, copies)
            result[f"{copies} copies"] = measure(large, arguments.nsys, arguments.runs, Path(name))
            large.unlink()
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{arguments.save}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
