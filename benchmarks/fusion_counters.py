"""Why a way to run two kernels wins or loses: hardware counters of unfused and fused runs, read by Nsight Compute.

    PYTHONPATH=src python benchmarks/fusion_counters.py [--study FILE] [--case NAME ...] [--out FILE] [--ncu PATH]

Of a committed case (`fused_kernels/cases.py`) the winner of every family in a study is run, each as one range of
several runs, so that two kernels at once are counted together. Ranges are replayed for as many passes as the counters
need, with the clocks as they are. The table is about the time in which the SMs had work, without the ends of a range:
good for comparing its rows, not for a gain. It needs permission to read counters.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nitro.errors import InputError, NitroError, ToolError
from nitro.fused_kernels import open_runtime
from nitro.fused_kernels.candidates import FUSED, Candidate, Family
from nitro.fused_kernels.strategies import Kernel
from nitro.fused_kernels.study_results import CaseResult
from nitro.fused_kernels.study_store import read_document
from nitro.fused_kernels.subjects import Subject, subjects
from nitro.fused_kernels.tuner import write_whole
from nitro.fused_kernels.ways import candidate_named
from nitro.fused_kernels.workbench import Workbench

CASES = ("gemm_f32+layer_norm@0.9", "gemm_f32+gemv@0.9", "conv3x3_f32+layer_norm@0.5", "gemm_f16+layer_norm@0.5")
FAMILIES: tuple[Family, ...] = ("first", "second", "sequential", "streams", "elastic", *FUSED)
STUDY = Path(__file__).parent / "results" / "fusion_h200" / "study.json"

# Runs in a range: its beginning and end cost more than a launch.
RUNS = 5

# Our name of a number, its metric in Nsight Compute, and the factor to SI units and ratios of 0 to 1.
_STALLS = (
    "barrier",
    "dispatch_stall",
    "lg_throttle",
    "long_scoreboard",
    "math_pipe_throttle",
    "mio_throttle",
    "no_instruction",
    "not_selected",
    "short_scoreboard",
    "wait",
)
METRICS: dict[str, tuple[str, float]] = {
    "time_us": ("gpu__time_duration.sum", 1e-3),
    "sm_active_ratio": ("sm__cycles_active.avg.pct_of_peak_sustained_elapsed", 0.01),
    "issue_ratio": ("sm__inst_issued.avg.pct_of_peak_sustained_elapsed", 0.01),
    "fma_pipe_ratio": ("sm__pipe_fma_cycles_active.avg.pct_of_peak_sustained_elapsed", 0.01),
    "fma_inst_ratio": ("sm__inst_executed_pipe_fma.avg.pct_of_peak_sustained_elapsed", 0.01),
    "tensor_pipe_ratio": ("sm__pipe_tensor_op_hmma_cycles_active.avg.pct_of_peak_sustained_elapsed", 0.01),
    "tensor_inst_ratio": ("sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_elapsed", 0.01),
    "lsu_data_ratio": ("l1tex__data_pipe_lsu_wavefronts.avg.pct_of_peak_sustained_elapsed", 0.01),
    "shared_wavefronts": ("l1tex__data_pipe_lsu_wavefronts_mem_shared.sum", 1),
    "l2_ratio": ("lts__throughput.avg.pct_of_peak_sustained_elapsed", 0.01),
    "l2_to_sm_bytes": ("l1tex__m_xbar2l1tex_read_bytes.sum", 1),
    "dram_ratio": ("dram__throughput.avg.pct_of_peak_sustained_elapsed", 0.01),
    "dram_read_bytes": ("dram__bytes_read.sum", 1),
    "dram_write_bytes": ("dram__bytes_write.sum", 1),
    "warps_active_ratio": ("sm__warps_active.avg.pct_of_peak_sustained_active", 0.01),
    "eligible_warps": ("smsp__warps_eligible.avg.per_cycle_active", 1),
    "instructions": ("sm__inst_executed.sum", 1),
    **{f"stalled_{name}": (f"smsp__average_warps_issue_stalled_{name}_per_issue_active.ratio", 1) for name in _STALLS},
}


# ---- what runs under the profiler -----------------------------------------------------------------------------------


def winners(result: CaseResult, case: Subject, sm: int) -> Iterator[tuple[str, Candidate]]:
    """Yield the winners of a study, by family, that can be run today.

    Raises:
        InputError: the study has none of them.
    """
    found = 0
    for family in FAMILIES:
        won = result.winner(family)
        candidate = won and candidate_named(won.name, (case.first, case.second), sm)
        if candidate:
            found += 1
            yield family, candidate
        elif won:
            print(f"{case.name}: sm_{sm} has no way called {won.name!r} today", file=sys.stderr)
    if not found:
        raise InputError(f"{case.name}: the study has no way that can be run here; measure one, or choose another.")


def resources(bench: Workbench, kernel: Kernel) -> dict[str, Any]:
    """Return what a kernel takes of an SM."""
    loaded = bench.executor.load(kernel)
    return {
        "kernel": kernel.name,
        "threads": kernel.threads,
        "registers": loaded.resources.registers,
        "spill_bytes": loaded.resources.spill_store_bytes,
        "shared_bytes": kernel.shared_bytes,
        "blocks_per_sm": loaded.blocks_per_sm,
    }


def run_workload(names: Sequence[str], study: Path, to: Path) -> None:
    """Run every way of some cases, each as a range of the profiler, and write what they were in their order."""
    import importlib

    driver = importlib.import_module("cuda.bindings.driver")
    runtime = open_runtime()
    results = {result.name: result for result in read_document(study)[0]}
    ranges: list[dict[str, Any]] = []
    for case in subjects(names):
        if case.name not in results:
            raise InputError(f"{study}: there is no case {case.name} in it; choose another --case or --study.")
        bench = Workbench(runtime, (case.first, case.second), largest_sets=1)
        for family, candidate in winners(results[case.name], case, runtime.facts.sm):
            way = bench.prepare(candidate)
            bench.executor.check()
            driver.cuProfilerStart()
            for _ in range(RUNS):
                way.submit(0)
            driver.cuProfilerStop()
            runtime.synchronize()
            kernels = [resources(bench, one) for one in candidate.kernels]
            ranges.append({"case": case.name, "way": family, "candidate": candidate.name, "kernels": kernels})
        bench.close()
    to.write_text(json.dumps({"device": asdict(runtime.facts), "ranges": ranges}), encoding="utf-8")


# ---- the profiler ---------------------------------------------------------------------------------------------------


def available(ncu: str) -> set[str]:
    """Return the base names of the metrics that the GPU here has."""
    done = subprocess.run([ncu, "--query-metrics"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolError(f"ncu cannot say what it can count: {_last_line(done)}; is there a GPU, and is it supported?")
    return {line.split()[0] for line in done.stdout.splitlines() if "__" in line}


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    errors = [line for line in lines if "==ERROR==" in line]
    return (errors or lines or ["no reason given"])[-1].strip()


def profile(
    ncu: str, names: Sequence[str], study: Path, metrics: Sequence[str], replay: str, folder: Path
) -> dict[str, Any]:
    """Run the workload under ncu; return what ran, each range with the values of the metrics.

    Raises:
        ToolError: ncu or the workload failed, or their ranges differ.
    """
    log, workload = folder / "counters.csv", folder / "workload.json"
    command = [ncu, "--replay-mode", replay, "--clock-control", "none", "--csv", "--page", "raw"]
    command += ["--print-units", "base", "--log-file", str(log), "--metrics", ",".join(metrics)]
    command += [sys.executable, __file__, "--workload", str(workload), "--study", str(study)]
    for name in names:
        command += ["--case", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    if done.returncode or not workload.exists():
        errors = [line for line in text.splitlines() if "==ERROR==" in line]
        raise ToolError(
            f"ncu did not count: {(errors or [_last_line(done)])[-1]}; look at its permissions and version."
        )
    content: dict[str, Any] = json.loads(workload.read_text(encoding="utf-8"))
    rows = parse(text)
    if len(rows) != len(content["ranges"]):
        raise ToolError(f"ncu counted {len(rows)} ranges of {len(content['ranges'])}; try another --replay mode.")
    for one, row in zip(content["ranges"], rows, strict=True):
        one["counters"] = row
    return content


def parse(text: str) -> list[dict[str, float | None]]:
    """Return the counters of each range of `ncu --csv --page raw --print-units base`; None where there is no value."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    rows = list(csv.DictReader(lines))
    found: list[dict[str, float | None]] = []
    for row in rows:
        if not row.get("ID", "").isdecimal():  # the row of units
            continue
        found.append({name: _number(row.get(metric), factor) for name, (metric, factor) in METRICS.items()})
    return found


def _number(text: str | None, factor: float) -> float | None:
    try:
        return float((text or "").replace(",", "")) * factor
    except ValueError:
        return None


# ---- what it says ---------------------------------------------------------------------------------------------------


def top_stalls(counters: dict[str, float | None], count: int = 2) -> str:
    """Return the largest reasons for which a warp waited, with warps waiting for each instruction issued."""
    stalls = {name: counters.get(f"stalled_{name}") for name in _STALLS if name != "not_selected"}
    known = sorted(((value, name) for name, value in stalls.items() if value), reverse=True)
    return ", ".join(f"{name} {value:.1f}" for value, name in known[:count])


def busy_us(counters: dict[str, float | None], runs: int) -> float | None:
    """Return the time of a run in which an SM had work, on average over the SMs: without the ends of the range."""
    time_us, active = counters["time_us"], counters["sm_active_ratio"]
    return time_us * active / runs if time_us is not None and active is not None else None


def table(content: dict[str, Any]) -> str:
    """Return one line a way, as Markdown: what was busy, what was waited for, and what the kernels take.

    Times and parts are of the time in which the SMs had work; DRAM is what moved in that time.
    """
    lines = [
        "| case | way | busy µs | issue | FMA | tensor | LSU data | L2 | DRAM TB/s | L2→SM GB | warps | registers | "
        "blocks/SM | waits |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    runs = content["runs_in_a_range"]
    for one in content["ranges"]:
        c = one["counters"]
        busy, active = busy_us(c, runs), c["sm_active_ratio"] or 1.0
        read, written = c["dram_read_bytes"], c["dram_write_bytes"]
        rate = (read + written) / runs / busy * 1e-6 if busy and read is not None and written is not None else None
        fma = c["fma_pipe_ratio"] if c["fma_pipe_ratio"] is not None else c["fma_inst_ratio"]
        tensor = c["tensor_pipe_ratio"] if c["tensor_pipe_ratio"] is not None else c["tensor_inst_ratio"]
        cells = [one["case"], one["way"], _cell(busy, 1, 0)]
        cells += [_percent(value, active) for value in (c["issue_ratio"], fma, tensor, c["lsu_data_ratio"])]
        cells += [_percent(c["l2_ratio"], active), _cell(rate, 1, 2), _cell(c["l2_to_sm_bytes"], runs * 1e9, 2)]
        cells.append(_percent(c["warps_active_ratio"], 1.0))
        cells += [
            " + ".join(_cell(kernel[key], 1, 0) for kernel in one["kernels"]) for key in ("registers", "blocks_per_sm")
        ]
        lines.append("| " + " | ".join([*cells, top_stalls(c)]) + " |")
    return "\n".join(lines)


def shown(path: Path) -> str:
    """Return the table of an earlier result.

    Raises:
        InputError: it cannot be read, or is no such result.
    """
    try:
        return table(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise InputError(f"{path}: this is no result of fusion_counters.py ({error!r}); name another file.") from error


def _cell(total: float | None, unit: float, digits: int) -> str:
    return f"{total / unit:.{digits}f}" if total is not None else "-"


def _percent(ratio: float | None, of: float) -> str:
    return f"{ratio / of * 100:.0f} %" if ratio is not None else "-"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", dest="cases", metavar="NAME")
    parser.add_argument("--study", type=Path, default=STUDY, help="whose winners to run; default: the one of an H200")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--ncu", default=os.environ.get("NCU", "ncu"))
    parser.add_argument("--replay", choices=("range", "app-range"), default="range")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the table of an earlier result, without a GPU")
    parser.add_argument("--workload", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    names = chosen.cases or list(CASES)
    try:
        if chosen.workload:
            run_workload(names, chosen.study, chosen.workload)
            return 0
        if chosen.show:
            print(shown(chosen.show))
            return 0
        subjects(names)
        ncu = shutil.which(chosen.ncu)
        if not ncu:
            raise ToolError(f"{chosen.ncu} was not found; install Nsight Compute, or name it with --ncu.")
        known = available(ncu)
        metrics = [metric for metric, _ in METRICS.values() if metric.partition(".")[0] in known]
        with tempfile.TemporaryDirectory() as folder:
            content = profile(ncu, names, chosen.study, metrics, chosen.replay, Path(folder))
    except NitroError as error:
        print(f"fusion_counters: {error}", file=sys.stderr)
        return error.exit_code
    content["replay"], content["runs_in_a_range"] = chosen.replay, RUNS
    content["metrics"] = {name: metric for name, (metric, _) in METRICS.items() if metric in metrics}
    try:
        if chosen.out:
            write_whole(chosen.out, json.dumps(content, indent=1))
    except NitroError as error:
        print(f"fusion_counters: {error}", file=sys.stderr)
        return error.exit_code
    print(table(content))
    return 0


if __name__ == "__main__":
    sys.exit(main())
