"""CPU time and memory of reading a large PyTorch profile: 200 MB of Kineto JSON, at most 6 s and 1 GB.

    python benchmarks/kineto_reading.py [--megabytes 200] [--profile FILE]

The profile is a real one, repeated with shifted times and ids until it is large enough, or, without `--profile`, one
that is made up in the shape of a real one (operators, calls, kernels, flow events, Python frames). Exit status 1 where
a limit is missed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MOST_CPU_S, MOST_BYTES = 6.0, 10**9


def made_up(iterations: int) -> list[dict[str, Any]]:
    """Return events of a model of 50 layers: for each a frame, two operators, a call, a kernel and the flow between."""
    events: list[dict[str, Any]] = []
    for step in range(iterations):
        begin = 1_000_000.0 * step
        events.append(_event("user_annotation", f"ProfilerStep#{step}", begin, 60_000.5, {}))
        for layer in range(50):
            at, number = begin + 1000.25 * layer, step * 50 + layer
            dims = {"External id": number, "Input Dims": [[64, 512], [512], [512, 512], [], []], "Ev Idx": number}
            events += [
                _event("python_function", f"nn.Module: Linear_{layer}", at, 900.0, {"Python id": number}),
                _event("python_function", f"torch/nn/modules/linear.py({layer}): forward", at + 1, 800.0, {}),
                _event("cpu_op", "aten::linear", at + 2, 700.125, dims),
                _event("cpu_op", "aten::addmm", at + 3, 600.0, dims),
                _event("cuda_runtime", "cudaLaunchKernel", at + 4, 5.5, {"cbid": 211, "correlation": number}),
                _kernel(at + 20, number),
                {"ph": "s", "id": number, "pid": 77, "tid": 77, "ts": at + 4, "cat": "ac2g", "name": "ac2g"},
                {"ph": "f", "id": number, "pid": 0, "tid": 7, "ts": at + 20, "cat": "ac2g", "name": "ac2g", "bp": "e"},
            ]
    return events


def _event(category: str, name: str, at: float, duration: float, arguments: dict[str, Any]) -> dict[str, Any]:
    head = {"ph": "X", "cat": category, "name": name, "pid": 77, "tid": 77}
    return head | {"ts": at, "dur": duration, "args": arguments}


def _kernel(at: float, number: int) -> dict[str, Any]:
    arguments = {"External id": number, "device": 0, "context": 1, "stream": 7, "correlation": number}
    arguments |= {"registers per thread": 128, "shared memory": 49152, "grid": [64, 8, 1], "block": [256, 1, 1]}
    name = f"void cutlass::Kernel<cutlass_80_tensorop_f16_s16816gemm_relu_f16_256x64_32x4_tn_align{number % 8}>(Params)"
    return {"ph": "X", "cat": "kernel", "name": name, "pid": 0, "tid": 7, "ts": at, "dur": 15.25, "args": arguments}


def write(path: Path, megabytes: int, profile: Path | None) -> None:
    """Write a profile of this size."""
    if profile is None:
        header: dict[str, Any] = {"schemaVersion": 1, "baseTimeNanoseconds": 1_700_000_000_000_000_000}
        block = made_up(20)
    else:
        text = gzip.decompress(profile.read_bytes()) if profile.suffix == ".gz" else profile.read_bytes()
        header = json.loads(text)
        block = header.pop("traceEvents")
    times = [event["ts"] for event in block if event.get("ph") == "X"]
    length = max(times) - min(times) + 1e6
    with path.open("w") as stream:
        stream.write(json.dumps(header)[:-1] + ', "traceEvents": [')
        turn = 0
        while stream.tell() < megabytes * 10**6:
            for event in block:
                moved = event | {"ts": event["ts"] + turn * length} if "ts" in event else event
                if "correlation" in (arguments := event.get("args") or {}):
                    moved["args"] = arguments | {"correlation": arguments["correlation"] + turn * 1_000_000}
                stream.write(("," if turn or event is not block[0] else "") + "\n" + json.dumps(moved))
            turn += 1
        stream.write("\n]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--profile", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile.json"
        # In a process of its own, so that what it needs for writing does not count.
        import multiprocessing

        maker = multiprocessing.get_context("spawn").Process(
            target=write, args=(path, options.megabytes, options.profile)
        )
        maker.start()
        maker.join()
        from nitro.analyzer import open_trace

        begin = time.process_time()
        trace = open_trace(path)
        cpu_s = time.process_time() - begin
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        size = path.stat().st_size
    kernels = trace.kernels
    rows = 0 if kernels is None else len(kernels)
    print(f"{size / 1e6:.0f} MB, {rows:,} kernels: {cpu_s:.2f} s CPU, {peak / 1e6:.0f} MB peak")
    return int(cpu_s > MOST_CPU_S or peak > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
