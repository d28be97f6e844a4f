"""Time the reading of a day of tegrastats: ten lines a second, as an Orin Nano writes them.

    python benchmarks/power_log_reading.py [--lines 864000] [--output reading.json]

The log is made in a temporary folder, read five times, and taken away. The best time counts, the median stands beside
it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

from nitro.analyzer.readers import tegrastats

LINES_A_SECOND = 10
ROUNDS = 5


def write_log(path: Path, lines: int) -> None:
    """Write a log whose numbers change from line to line."""
    begin = datetime(2026, 4, 19)
    with path.open("w") as stream:
        for number in range(lines):
            if number % LINES_A_SECOND == 0:
                stamp = f"{begin + timedelta(seconds=number // LINES_A_SECOND):%m-%d-%Y %H:%M:%S}"
            load, watts, mean = number * 7 % 100, 5000 + number * 37 % 20000 // 40 * 40, 9000 + number % 3000
            heat = f"{45 + number % 400 / 32:.3f}"
            stream.write(
                f"{stamp} RAM {4000 + number % 300}/7607MB (lfb 5x2MB) CPU [{load}%@1728,0%@1728,{load}%@1728,0%@1728,"
                f"9%@1728,0%@1728] EMC_FREQ {load}%@3199 GR3D_FREQ {load}%@[{1000 + number % 20}] NVDEC off NVJPG off "
                f"NVJPG1 off VIC off OFA off APE 200 cpu@{heat}C soc2@{heat}C soc0@{heat}C gpu@{heat}C tj@{heat}C "
                f"soc1@{heat}C VDD_IN {watts}mW/{mean}mW VDD_CPU_GPU_CV {watts // 2}mW/{mean // 2}mW "
                f"VDD_SOC {watts // 4}mW/{mean // 4}mW\n"
            )


def main() -> None:
    """Make the log, read it, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=24 * 3600 * LINES_A_SECOND)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tegrastats.log"
        write_log(path, arguments.lines)
        walls, cpus = [], []
        for _ in range(ROUNDS):
            wall, cpu = time.perf_counter(), time.process_time()
            log = tegrastats.read(path)
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
        made = {
            "lines": log.records,
            "megabytes": round(path.stat().st_size / 1e6, 1),
            "best_s": round(min(walls), 3),
            "median_s": round(statistics.median(walls), 3),
            "cpu_s": round(min(cpus), 3),
            "load_before": os.getloadavg()[0],
            "cores": os.cpu_count(),
            "machine": platform.processor() or platform.machine(),
        }
    print(json.dumps(made, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps(made, indent=2) + "\n")


if __name__ == "__main__":
    main()
