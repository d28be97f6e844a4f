"""Write resource_limits.json again, after a change of the kernels that costs or saves registers on purpose.

Run from the root, with nvidia-cuda-nvrtc-cu12 installed:
`PYTHONPATH=tests python tests/fused_kernels/make_resource_limits.py`
"""

from __future__ import annotations

import json
from pathlib import Path

from fused_kernels.kernels_of_the_tests import ARCHITECTURES, kernels
from nitro.fused_kernels import nvrtc
from nitro.fused_kernels.resources import resource_reports


def main() -> None:
    """Compile every kernel and write what it needs."""
    found = [(kernel, sm) for sm in ARCHITECTURES for kernel in kernels(sm)]
    limits: dict[str, dict[str, list[int]]] = {}
    for report in resource_reports(found):
        spills = (report.resources.spill_store_bytes or 0) + (report.resources.spill_load_bytes or 0)
        entry = [report.resources.registers or 0, spills, report.occupancy.blocks]
        limits.setdefault(f"sm_{report.sm}", {})[report.kernel] = entry
    lines = [
        f' "nvrtc": {json.dumps(list(nvrtc.find().version))}',
        ' "columns": ["registers", "spill_bytes", "blocks"]',
    ]
    for sm, kernels_of_sm in limits.items():
        rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in kernels_of_sm.items())
        lines.append(f" {json.dumps(sm)}: {{\n{rows}\n }}")
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    Path(__file__).with_name("resource_limits.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
