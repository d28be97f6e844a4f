"""Half-precision matrix work that does not use tensor cores."""

from __future__ import annotations

import re
from collections.abc import Iterator

import polars as pl

from ..analysis import Analysis
from ..message import message
from ..rule import Evidence, Finding, Rule, severity_of
from ._idle import windows

_HALF_MATRIX = re.compile(
    r"(?=.*(?:half|f16|fp16|hgemm|nvjet_h|bf16|bfloat16|c10::Half))(?=.*(?:gemm|conv(?!ert)|fprop|matmul|nvjet))", re.I
)
_LEAST_SHARE = 0.10
_MOST_TENSOR = 0.005


def check(analysis: Analysis) -> Iterator[Finding]:
    """Fire when half-precision matrix kernels take 10 % of the window or more and tensor pipes are busy below 0.5 %.

    At stake is the time of these kernels, found by name; that tensor cores are idle is measured.
    """
    for device_id, window in windows(analysis):
        tensor = analysis.find("tensor_active_ratio", device_id)
        kernels = analysis.table("kernels", device_id)
        if tensor is None or kernels is None or tensor.value >= _MOST_TENSOR:
            continue
        matrix = kernels.frame.filter(
            pl.col("name").map_elements(lambda name: bool(_HALF_MATRIX.search(name)), return_dtype=pl.Boolean)
        )
        # Kernels side by side would count twice, and no more than the busy time can be won.
        stake = min(int(matrix["total_ns"].sum()), int(analysis.value("kernel_busy", device_id) or 0))
        if stake < _LEAST_SHARE * window:
            continue
        rows = tuple(matrix.head(3).select("name", "count", "total_ns").to_dicts())
        yield Finding(
            rule=RULE.id,
            severity=severity_of(stake, window),
            title=message("Half-precision matrix kernels run without tensor cores"),
            time_at_stake_ns=stake,
            evidence=(
                Evidence("kernels", stake, "ns", message("time of half-precision matrix kernels, by name"), rows),
                Evidence(
                    "tensor_active_ratio",
                    tensor.value,
                    "ratio",
                    message("tensor pipes busy ({count} samples)", count=tensor.count),
                ),
            ),
            remedy=message(
                "Make matrix sizes multiples of 8 (16 for int8), use channels_last for convolutions, allow "
                "half-precision reduction, and check with Nsight Compute that an HMMA kernel runs."
            ),
            confidence="medium",
            limits=message("Which kernels are matrix work is told from their names. Short bursts may round to 0 %."),
            device_id=device_id,
        )


RULE = Rule(
    id="tensor_unused",
    title=message("Tensor cores unused"),
    needs=("tensor_active_ratio", "kernels"),
    threshold=message("half-precision matrix kernels >= 10 % of the window, tensor active < 0.5 %"),
    reference=message("Nitro; nsys-ai tells tensor-core use from names alone, this rule from samples"),
    check=check,
)
