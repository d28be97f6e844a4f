"""What budgets of SMs are like: which SMs kernels run on, how fast they copy and multiply, with and without an eater.

    PYTHONPATH=src python benchmarks/fusion_sm_budget.py [--sms 8 16 32] [--strengths 0.25 1] [--out FILE]

It needs a GPU with green contexts (CUDA 12.4, cuda.core 1.0). The ridge is the fp32 matrix product's rate over
the copy's bandwidth: with it a budget can be compared with a Jetson, which has 9 to 26 operations for a byte.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nitro.errors import NitroError
from nitro.fused_kernels import open_runtime
from nitro.fused_kernels.bodies import choose
from nitro.fused_kernels.problems import GemmProblem
from nitro.fused_kernels.runtime import Runtime
from nitro.fused_kernels.sm_budget import Eater, copy_bytes_per_s, sms_used, time_alone_s
from nitro.fused_kernels.tuner import write_whole

GEMM = GemmProblem(4096, 2048, 1024)


def rates(runtime: Runtime, beside: AbstractContextManager[object] | None) -> dict[str, float]:
    copied = copy_bytes_per_s(runtime, beside)
    flops = GEMM.flop / time_alone_s(runtime, choose(GEMM, runtime.facts.sm), GEMM, beside)
    return {"copy_bytes_per_s": copied, "gemm_flop_per_s": flops, "ridge_flop_per_byte": flops / copied}


def budget(runtime: Runtime, sms: int, strengths: list[float]) -> dict[str, Any]:
    part, rest = runtime.divide(sms)
    inside, outside = sms_used(part), sms_used(rest)
    found: dict[str, Any] = {
        "sms": sms,
        "sms_seen": sorted(inside),
        "others_seen": len(outside),
        "seen_on_both_sides": sorted(inside & outside),
        "eaters": [{"strength": None, "eaten_bytes_per_s": None, **rates(part, None)}],
    }
    for strength in strengths:
        eater = Eater(part, rest, strength)
        row = rates(part, eater)
        found["eaters"].append({"strength": strength, "eaten_bytes_per_s": eater.bytes_per_s, **row})
    return found


def table(result: dict[str, Any]) -> str:
    lines = [f"{'SMs':>4} {'seen':>5} {'both':>5} {'eater':>6} {'eaten':>9} {'copy':>9} {'GEMM':>10} {'ridge':>6}"]
    for one in result["budgets"]:
        for row in one["eaters"]:
            eaten = f"{row['eaten_bytes_per_s'] / 1e9:.0f}" if row["eaten_bytes_per_s"] else "-"
            strength = f"{row['strength']:.2f}" if row["strength"] else "none"
            lines.append(
                f"{one['sms']:>4} {len(one['sms_seen']):>5} {len(one['seen_on_both_sides']):>5} {strength:>6} "
                f"{eaten:>9} {row['copy_bytes_per_s'] / 1e9:>9.0f} {row['gemm_flop_per_s'] / 1e12:>10.2f} "
                f"{row['ridge_flop_per_byte']:>6.1f}"
            )
    return "\n".join([*lines, "eaten, copy: GB/s; GEMM: fp32 TFLOP/s; ridge: operations for a byte"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sms", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.0625, 0.125, 0.25, 0.5, 1.0])
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    for strength in chosen.strengths:
        if not 0 < strength <= 1:
            parser.error(f"a strength is {strength}; it is the part of an eater's blocks, above 0 and at most 1.")
    try:
        runtime = open_runtime()
        result: dict[str, Any] = {"device": asdict(runtime.facts), "gemm": asdict(GEMM)}
        result["whole"] = rates(runtime, nullcontext())
        result["budgets"] = [budget(runtime, sms, chosen.strengths) for sms in chosen.sms]
        if chosen.out:
            write_whole(chosen.out, json.dumps(result, indent=1))
    except NitroError as error:
        print(f"fusion_sm_budget: {error}", file=sys.stderr)
        return error.exit_code
    print(f"whole chip: {result['whole']}")
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
