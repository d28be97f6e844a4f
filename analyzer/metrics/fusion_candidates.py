"""Chains of element-wise kernels: what fusion could merge."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import polars as pl

from ..kernel_names import NAME_LOST, known_names
from ..message import message
from ..metric import Measurement, Metric, NotMeasured, Result, ResultColumn, ResultTable
from ..operations import Kind
from ..tables import enum_texts
from ..view import DeviceView, View

_NO_KERNELS = message("the trace has no kernels of its own; record with `nsys profile --trace=cuda`")
_ELEMENT_WISE = re.compile(
    r"element_?wise|pointwise|(?:layer|batch|group|rms|instance)_?norm|soft_?max|gelu|[lr]elu|sigmoid|silu|swish"
    r"|dropout|threshold_kernel|add_?bias|bias_?add|residual|bn_fw|copy_kernel|AddFunctor|MulFunctor|CUDAFunctor",
    re.IGNORECASE,
)
_MATRIX = re.compile(
    r"gemm|conv|fprop|dgrad|wgrad|matmul|attention|fmha|sdpa|cudnn|xmma|cutlass|nvjet|winograd|[hsi](?:884|1688|16816)",
    re.IGNORECASE,
)
_ROWS = 50
_COLUMNS = (
    ResultColumn("first", "", message("kernel")),
    ResultColumn("second", "", message("kernel that ran next on the same stream")),
    ResultColumn("count", "1", message("times that this pair ran in the window")),
    ResultColumn("second_total_ns", "ns", message("summed time of the second kernel in these pairs")),
    ResultColumn("gap_total_ns", "ns", message("summed pauses between the two on the stream")),
)


def compute(view: View) -> Iterator[Result]:
    """Element-wise kernels that run directly after another one on the same stream, by pairs.

    `fusable_kernel_time` is the summed time of the second kernels (`count` = how many): merged into the kernel before,
    they would not read its result from memory again. A kernel counts as element-wise by its name (activation,
    normalisation, softmax, copies, `elementwise`), which is a hint; normalisation and softmax reduce along an axis, and
    not every fusion compiler merges them.
    """
    found = False
    for device in view.devices:
        yield from _of_device(device)
        found = found or bool((device.operations.kind == Kind.KERNEL).any())
    if not found:
        yield from (NotMeasured(name, _NO_KERNELS) for name in METRIC.provides)


def _of_device(device: DeviceView) -> Iterator[Result]:
    table = device.view.trace.kernels
    rows = np.flatnonzero(device.touching(Kind.KERNEL))
    if table is None or not len(rows):
        return
    operations = device.operations
    kernel_names = known_names(table)
    texts = enum_texts(kernel_names)
    is_light = np.array([bool(_ELEMENT_WISE.search(name) and not _MATRIX.search(name)) for name in texts] + [False])
    code = kernel_names.to_physical().cast(pl.Int64).fill_null(len(texts)).to_numpy()
    # Every operation of a stream counts as neighbour: a copy between two kernels keeps them apart.
    order = np.argsort(operations.stream, kind="stable")
    place = np.empty(len(order), np.intp)
    place[order] = np.arange(len(order))
    before = order[np.maximum(place[rows] - 1, 0)]
    follows = (place[rows] > 0) & (operations.stream[before] == operations.stream[rows])
    follows &= operations.kind[before] == Kind.KERNEL
    rows, before = rows[follows], before[follows]
    first, second = code[operations.row[before]], code[operations.row[rows]]
    both = is_light[first] & is_light[second]
    rows, before, first, second = rows[both], before[both], first[both], second[both]
    lengths = (device.inside.ends - device.inside.starts)[rows]
    total = int(lengths.sum())
    yield Measurement("fusable_kernel_time", total, "ns", device.device_id, count=len(rows))
    pause = np.maximum(operations.starts[rows] - operations.ends[before], 0)
    pairs = pl.DataFrame({"first": first, "second": second, "length": lengths, "pause": pause})
    names = pl.Series([*texts, NAME_LOST], dtype=pl.String)
    grouped = (
        pairs.group_by("first", "second")
        .agg(
            pl.len().cast(pl.Int64).alias("count"),
            pl.col("length").sum().alias("second_total_ns"),
            pl.col("pause").sum().alias("gap_total_ns"),
        )
        .sort("second_total_ns", "first", "second", descending=[True, False, False])
        .head(_ROWS)
    )
    frame = grouped.with_columns(
        names.gather(grouped["first"]).alias("first"), names.gather(grouped["second"]).alias("second")
    )
    yield ResultTable("fusion_candidates", message("Element-wise kernels in a row"), _COLUMNS, frame, device.device_id)


METRIC = Metric(
    id="fusable_kernel_time",
    title=message("Fusion candidates"),
    provides={"fusable_kernel_time": "ns", "fusion_candidates": "table"},
    needs=("kernels",),
    missing=_NO_KERNELS,
    better="lower",
    reference=message("Nitro; frequent kernel sequences as in Holistic Trace Analysis"),
    compute=compute,
    order=34,
)
