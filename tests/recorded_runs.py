"""Runs for the tests of checks: built by hand, or as small exports of a loop with a known period."""

from __future__ import annotations

import gc
import io
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from datetime import date
from itertools import count
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

import numpy as np

from builders import call, gpu, kernel, nvtx_range, trace, write_nsys_sqlite
from nitro import cli
from nitro.analyzer.checks import Baseline, Entry, Key, Run
from nitro.analyzer.checks.runs import DeviceFacts, Facts

DAY = date(2026, 6, 1)
PERIOD = Key("iteration_period", "p50")
_MS = 1_000_000
_numbers = count(1)


def run(
    values: Mapping[Key, float],
    *,
    periods: int = 100,
    devices: Sequence[str] = ("GPU A",),
    kernels: Sequence[str] = ("gemm",),
    told: Mapping[str, str] | None = None,
    fingerprint: str | None = None,
    not_measured: Mapping[str, str] | None = None,
    errors: Mapping[Key, float] | None = None,
    **facts: object,
) -> Run:
    """Return a run with these values; each call is another capture unless `fingerprint` says otherwise."""
    described = tuple(DeviceFacts(number, name, 8) for number, name in enumerate(devices))
    number = next(_numbers)
    return Run(
        file_name=f"run_{number}.sqlite",
        fingerprint=fingerprint or f"{number:016x}",
        start_utc_ns=None,
        periods=periods,
        facts=Facts(described, kernels=tuple(kernels), told=told or {}, **facts),  # type: ignore[arg-type]
        values=values,
        not_measured=not_measured or {},
        errors=errors or {},
    )


def runs(key: Key, values: Sequence[float], **facts: object) -> tuple[Run, ...]:
    """Return a run for each value of one key."""
    return tuple(run({key: value}, **facts) for value in values)  # type: ignore[arg-type]


def around(middle: float, spread: float = 0.005, number: int = 5) -> list[float]:
    """Return values about a middle, evenly apart, whose standard deviation is a share of it."""
    steps = np.linspace(-1, 1, number) if number > 1 else np.zeros(1)
    scale = steps.std(ddof=1) if number > 1 else 1.0
    return [float(middle * (1 + spread * step / scale)) for step in steps]


def baseline(*sides: Sequence[Run], **first: object) -> Baseline:
    """Return a baseline with an entry for each side; `first` are fields of the first one."""
    entries = [Entry(number, "save" if number == 1 else "update", DAY, tuple(side)) for number, side in
               enumerate(sides, 1)]  # fmt: skip
    if first:
        from dataclasses import replace

        entries[0] = replace(entries[0], **first)  # type: ignore[arg-type]
    return Baseline("main", tuple(entries))


def record(
    path: Path,
    *,
    period_ms: float = 10.0,
    iterations: int = 12,
    busy_ratio: float = 0.6,
    device: str = "Test GPU",
    kernel_name: str = "gemm",
    nvtx: str = "step",
    seed: int = 0,
) -> Path:
    """Write an export of a loop: in each iteration an NVTX range, a launch, and a kernel that fills part of the period.

    The lengths of iterations vary by 0.2 % around `period_ms`, as `seed` has it.
    """
    generator = np.random.default_rng(seed)
    lengths = (period_ms * _MS * (1 + 0.002 * generator.standard_normal(iterations))).astype(int)
    starts = (np.cumsum(lengths) - lengths + 1000 + seed).tolist()
    rows = list(zip(starts, lengths.tolist(), range(1, iterations + 1), strict=True))
    built = trace(
        kernels=[
            kernel(start + 50_000, start + 50_000 + int(length * busy_ratio), kernel_name, correlation_id=number)
            for start, length, number in rows
        ],
        api_calls=[call(start + 20_000, start + 40_000, correlation_id=number) for start, _, number in rows],
        nvtx=[nvtx_range(start, start + int(length * 0.95), f"{nvtx} {number}") for start, length, number in rows],
        devices=[gpu(0, device, sm_count=8)],
    )
    return write_nsys_sqlite(path, built)


def record_side(folder: Path, name: str, number: int = 5, *, period_ms: float = 10.0, spread: float = 0.003,
                **facts: object) -> list[Path]:  # fmt: skip
    """Write repeated runs whose periods lie about `period_ms`."""
    return [
        record(folder / f"{name}_{place}.sqlite", period_ms=middle, seed=hash_of(name) + place, **facts)  # type: ignore[arg-type]
        for place, middle in enumerate(around(period_ms, spread, number))
    ]


def hash_of(text: str) -> int:
    """Return a small number that is the same for the same text in every process."""
    return sum(map(ord, text)) * 100


def nitro(
    *arguments: str | Path, cwd: Path | None = None, code: int | None = 0, environment: Mapping[str, str] | None = None
) -> CompletedProcess[str]:
    """Run the command line as a process would, but in this one, and return what it printed.

    A process takes a second to start, and tests take hundreds. What only a process shows (that the same input gives the
    same bytes in the next one, what is imported, what the system is asked for) is tested with one. `code` is what it
    must exit with, `None` where any will do.
    """
    words = ["nitro-analyze", *map(str, arguments)]
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    before, show, collects = Path.cwd(), warnings.showwarning, gc.isenabled()
    os.chdir(cwd or before)
    try:
        with (
            patch.object(sys, "argv", words),
            patch.dict(os.environ, {"LC_ALL": "C.UTF-8", **(environment or {})}),
            redirect_stdout(streams[0]),
            redirect_stderr(streams[1]),
        ):
            try:
                cli.main()
            except SystemExit as ended:
                returned = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        os.chdir(before)
        warnings.showwarning = show
        if collects:
            gc.enable()
    printed = [stream.buffer.getvalue().decode() for stream in streams]
    assert code in (None, returned), "".join(printed)
    return CompletedProcess(words, returned, *printed)
