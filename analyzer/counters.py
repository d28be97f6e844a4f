"""`KernelCounters`: hardware counters of single kernel launches, and which launch of a trace each belongs to.

Counters come from a run of their own, in which the profiler replays every kernel, so their times are not those of the
trace. They are joined by what a kernel is: its function, its grid and block, and its turn among the launches alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl

from nitro.errors import InputError

from .evidence import Evidence, Placement
from .message import message
from .roofline import bound_of
from .trace import Device, Trace
from .view import View

SHAPE = ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z")
LAUNCH_COLUMNS = {
    "launch": pl.Int64,
    "name": pl.String,
    "function_name": pl.String,
    "device_name": pl.String,
    "compute_capability": pl.String,
    **dict.fromkeys(SHAPE, pl.Int64),
}
VALUE_COLUMNS = {"launch": pl.Int64, "metric": pl.String, "value": pl.Float64, "unit": pl.String}

# How a launch of the trace got its counters, the best first.
ORDER, BY_SHAPE, BY_NAME, NONE = "order", "shape", "name", "none"
JOINS = {
    ORDER: message("by function, geometry and order"),
    BY_SHAPE: message("by function and geometry"),
    BY_NAME: message("by function alone"),
    NONE: message("without counters"),
}

_STALLS = (
    ("smsp__average_warps_issue_stalled_", "_per_issue_active.ratio"),
    ("smsp__average_warp_latency_issue_stalled_", ".ratio"),
    ("smsp__pcsamp_warps_issue_stalled_", ""),
)
_SECTOR_BYTES = 32
_TENSOR_OPERATIONS = "sm__ops_path_tensor_"
# Other pipes share counters with the tensor pipe on some chips, so a little activity is no sign of tensor work.
_TENSOR_WORKED = 0.02
# nvprof has levels from 0 to 10 of how busy a unit is, where ncu has percent of its peak.
_LEVELS = 10
_COMPUTE_UNITS = tuple(
    f"{unit}_fu_utilization"
    for unit in ("single_precision", "double_precision", "half_precision", "special", "tensor_precision")
)
_MEMORY_UNITS = ("dram_utilization", "l2_utilization", "tex_utilization", "shared_utilization", "sysmem_utilization")

# Columns of `per_launch`: those that keep their meaning for another launch geometry, and those that do not.
RATIOS = (
    "sm_active_ratio",
    "issue_active_ratio",
    "tensor_active_ratio",
    "occupancy_ratio",
    "sm_throughput_ratio",
    "memory_throughput_ratio",
    "dram_throughput_ratio",
)
AMOUNTS = ("sm_active_cycles", "issue_active_cycles", "dram_bytes", "l2_bytes", "flops", "counted_ns")
OTHERS = ("sm_clock_hz", "stall", "stall_ratio")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCounters(Evidence):
    """Counters of kernel launches.

    `launches` has one row per counted launch, in the order in which they ran: the columns of `LAUNCH_COLUMNS`. `values`
    has one row per launch and metric: the columns of `VALUE_COLUMNS`, metrics under the names of the tool, values in
    base units (ns, byte, byte/s, hz, cycle, %).
    """

    kind: ClassVar[str] = "kernel_counters"

    launches: pl.DataFrame
    values: pl.DataFrame

    def placed(self, view: View, offset_ns: int | None) -> Placement | None:  # noqa: ARG002 - counters have no clock
        """Check that the counters are of the GPU and the program of the trace.

        Raises:
            InputError: they are of another GPU, or none of their kernels runs in the trace.
        """
        _check_device(self, view.trace)
        ours = set(view.trace.table_or_empty("kernels")["short_name"].drop_nulls().unique().to_list())
        theirs = set(self.launches["function_name"].to_list())
        if ours and theirs and not ours & theirs:
            some = ", ".join(sorted(theirs)[:3])
            raise InputError(
                f"{self.source.file_name}: none of its kernels ({some}) runs in {view.trace.source.file_name}, so it "
                "is of another program; profile the same program with ncu."
            )
        return None


def _check_device(counters: KernelCounters, trace: Trace) -> None:
    counted = set(counters.launches["compute_capability"].drop_nulls().to_list())
    used = {device.compute_capability for device in trace.devices} - {None}
    names = set(counters.launches["device_name"].drop_nulls().to_list())
    known = {device.name for device in trace.devices}
    is_other_chip = counted and used and not counted & used
    is_other_board = names and trace.devices and not any(_same_gpu(a, b) for a in names for b in known)
    if is_other_chip or is_other_board:
        theirs = f"{', '.join(sorted(names)) or 'a GPU'} ({', '.join(sorted(counted)) or 'unknown'})"
        ours = f"{', '.join(sorted(known))} ({', '.join(sorted(c for c in used if c)) or 'unknown'})"
        raise InputError(
            f"{counters.source.file_name}: its kernels ran on {theirs}, those of {trace.source.file_name} on {ours}; "
            "counters of another GPU say nothing about this trace, so profile the same program on the same GPU."
        )


def _same_gpu(one: str, other: str) -> bool:
    """Tell whether two names may be of one GPU; tools write a name with or without its maker."""
    first, second = (name.lower().replace("nvidia", "").strip() for name in (one, other))
    return first in second or second in first or other.startswith("GPU ")


def per_launch(counters: KernelCounters) -> pl.DataFrame:
    """Return what a reader wants to know of each counted launch, null where it was not counted.

    Returns:
        The columns of `launches`, and: ratios of 0 to 1 over the elapsed cycles of the kernel (`sm_active_ratio`,
        `issue_active_ratio`: cycles in which a scheduler issued, `tensor_active_ratio`; `occupancy_ratio`: resident
        warps on active SMs; `..._throughput_ratio`: the busiest unit against its peak, as in the "speed of light" of
        ncu), cycles summed over SMs or schedulers, bytes, `flops` (operations, FMA counted twice), `counted_ns`
        (duration under the profiler), `sm_clock_hz`, and `stall`, the most frequent stall reason, with its share.
    """
    wide = counters.values.pivot(on="metric", index="launch", values="value", aggregate_function="first")
    wide = counters.launches.select("launch").join(wide, on="launch", how="left", maintain_order="left")
    get = _Getter(wide)
    duration = get("gpu__time_duration.sum", "gpu__time_duration.avg")
    seconds = duration / 1e9
    clock = get(*(f"{unit}__cycles_elapsed.avg.per_second" for unit in ("sm", "gpc", "smsp")))
    elapsed = get(
        "sm__cycles_elapsed.avg", "smsp__cycles_elapsed.avg", "sm__cycles_elapsed.max", "gpc__cycles_elapsed.max"
    )
    elapsed = _first(elapsed, clock * seconds)
    active = get("sm__cycles_active.avg", "smsp__cycles_active.avg")
    sm_active = _first(
        active / elapsed, get.percent("sm__cycles_active.avg.pct_of_peak_sustained_elapsed", "sm_efficiency")
    )

    def of_elapsed(*names: str) -> np.ndarray:
        """Return a share of elapsed cycles, also where only the share of active cycles was counted."""
        whole = (f"{name}.avg.pct_of_peak_sustained_elapsed" for name in names)
        part = (f"{name}.avg.pct_of_peak_sustained_active" for name in names)
        return _first(get.percent(*whole), get.percent(*part) * sm_active)

    tensor = of_elapsed("sm__pipe_tensor_cycles_active", "sm__pipe_tensor_op_hmma_cycles_active")
    issue = _first(of_elapsed("sm__issue_active", "smsp__issue_active"), get.percent("issue_slot_utilization"))
    stall, stall_ratio = _stalls(wide)
    columns = {
        "sm_active_ratio": sm_active,
        "issue_active_ratio": issue,
        "tensor_active_ratio": tensor,
        "occupancy_ratio": _first(
            get.percent("sm__warps_active.avg.pct_of_peak_sustained_active"), get("achieved_occupancy")
        ),
        "sm_throughput_ratio": _first(
            get.percent("sm__throughput.avg.pct_of_peak_sustained_elapsed"), get.highest(*_COMPUTE_UNITS) / _LEVELS
        ),
        "memory_throughput_ratio": _first(
            get.percent(
                "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed",
                "gpu__compute_memory_request_throughput.avg.pct_of_peak_sustained_elapsed",
            ),
            get.highest(*_MEMORY_UNITS) / _LEVELS,
        ),
        "dram_throughput_ratio": get.percent(
            "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed",
            "dram__throughput.avg.pct_of_peak_sustained_elapsed",
        ),
        "sm_active_cycles": _first(
            get("sm__cycles_active.sum"), active * get("device__attribute_multiprocessor_count")
        ),
        "issue_active_cycles": _first(
            get("smsp__issue_active.sum"),
            get.percent("smsp__issue_active.avg.pct_of_peak_sustained_active") * get("smsp__cycles_active.sum"),
            issue * get("smsp__cycles_elapsed.sum"),
        ),
        "dram_bytes": _dram_bytes(get, seconds),
        "l2_bytes": _first(
            get("lts__t_bytes.sum"),
            get("lts__t_sectors.sum") * _SECTOR_BYTES,
            get("lts__t_bytes.sum.per_second") * seconds,
        ),
        "flops": _flops(get, elapsed, tensor),
        "counted_ns": duration,
        "sm_clock_hz": _first(clock, elapsed / seconds),
        "stall_ratio": stall_ratio,
    }
    made = pl.DataFrame({name: pl.Series(values, dtype=pl.Float64) for name, values in columns.items()})
    made = made.with_columns(pl.all().fill_nan(None), pl.Series("stall", stall, dtype=pl.String))
    return pl.concat([counters.launches, made], how="horizontal")


class _Getter:
    def __init__(self, wide: pl.DataFrame) -> None:
        self._wide = wide

    def __call__(self, *names: str) -> np.ndarray:
        """Return the first of several metrics that was counted, NaN where none was."""
        return _first(*(self._one(name) for name in names))

    def percent(self, *names: str) -> np.ndarray:
        """Return a metric in percent as a ratio."""
        return self(*names) / 100

    def starting_with(self, head: str) -> tuple[str, ...]:
        """Return the metrics whose names begin so, in the order of the alphabet."""
        return tuple(sorted(name for name in self._wide.columns if name.startswith(head)))

    def highest(self, *names: str) -> np.ndarray:
        """Return the highest of several metrics, NaN where none was counted."""
        return np.asarray(np.fmax.reduce([self._one(name) for name in names]), np.float64)

    def _one(self, name: str) -> np.ndarray:
        if name not in self._wide.columns:
            return np.full(len(self._wide), np.nan)
        return self._wide[name].cast(pl.Float64).fill_null(np.nan).to_numpy()


def _first(*choices: np.ndarray) -> np.ndarray:
    chosen = np.array(choices[0], np.float64)
    for values in choices[1:]:
        chosen = np.where(np.isnan(chosen), values, chosen)
    return chosen


def _dram_bytes(get: _Getter, seconds: np.ndarray) -> np.ndarray:
    """Return bytes between L2 and DRAM: counted, or the share of the peak that moved sectors times the peak.

    The default set of ncu has no byte counter, but has the share. The peak is that of memory clock and bus width.
    """
    counted = _first(get("dram__bytes.sum"), get("dram__bytes_read.sum") + get("dram__bytes_write.sum"))
    rate = _first(
        get("dram__bytes.sum.per_second"),
        get("dram__bytes_read.sum.per_second") + get("dram__bytes_write.sum.per_second"),
    )
    share = get.percent("fbpa__dram_sectors.avg.pct_of_peak_sustained_elapsed")
    return _first(counted, rate * seconds, share * dram_peak(get) * seconds)


def dram_peak(get: _Getter) -> np.ndarray:
    """Return the peak of the DRAM in bytes/s: two transfers a clock over the whole bus."""
    clock_khz = get("device__attribute_max_mem_frequency_khz", "device__attribute_memory_clock_rate")
    bits = get("device__attribute_fb_bus_width", "device__attribute_global_memory_bus_width")
    return np.asarray(clock_khz * 1000 * 2 * bits / 8, np.float64)


def _flops(get: _Getter, elapsed: np.ndarray, tensor_active: np.ndarray) -> np.ndarray:
    """Return floating-point operations: those of the cores by instruction, those of tensor cores by their own counter.

    An FMA counts twice, an instruction on halves works on two of them. NaN where none was counted, and where the tensor
    cores worked but their operations were not counted: what the cores did beside them is not what the kernel did.
    """
    total = np.full(len(elapsed), np.nan)
    for kind, width in (("f", 1), ("d", 1), ("h", 2)):
        for operation, each in (("add", 1), ("mul", 1), ("fma", 2)):
            name = f"sass_thread_inst_executed_op_{kind}{operation}_pred_on"
            counted = _first(
                get(f"smsp__{name}.sum", f"sm__{name}.sum"), get(f"smsp__{name}.sum.per_cycle_elapsed") * elapsed
            )
            # The roofline set has some of them as a rate that is multiplied already.
            multiplied = get(f"derived__smsp__{name}_x{each * width}") * elapsed
            total = _added(total, _first(counted * each * width, multiplied))
    tensor = _tensor_operations(get, elapsed)
    return np.where(np.isnan(tensor) & (tensor_active > _TENSOR_WORKED), np.nan, _added(total, tensor))


def _tensor_operations(get: _Getter, elapsed: np.ndarray) -> np.ndarray:
    """Return operations of the tensor cores over all types; a type may be counted by sparsity instead of as a whole."""
    by_type: dict[str, np.ndarray] = {}
    for name in get.starting_with(_TENSOR_OPERATIONS):
        whole = name.removesuffix(".per_cycle_elapsed")
        if not whole.endswith(".sum"):
            continue
        counted = get(name) if whole == name else get(name) * elapsed
        by_type[whole] = _first(by_type.get(whole, counted), counted)
    total = np.full(len(elapsed), np.nan)
    for name, counted in by_type.items():
        kind, _, sparsity = name.removesuffix(".sum").partition("_sparsity_")
        if not sparsity or f"{kind}.sum" not in by_type:
            total = _added(total, counted)
    return total


def _added(total: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Return a sum in which a number that is missing counts nothing, unless both are missing."""
    return np.where(np.isnan(more), total, np.nan_to_num(total) + more)


def _stalls(wide: pl.DataFrame) -> tuple[list[str | None], np.ndarray]:
    """Return the most frequent stall reason of each launch, and its share of all stalled warps."""
    for head, tail in _STALLS:
        names = {
            name[len(head) : len(name) - len(tail)]: name
            for name in wide.columns
            if name.startswith(head) and name.endswith(tail) and not name.endswith(f"_not_issued{tail}")
        }
        # A selected warp is the one that issues, which is no stall.
        names.pop("selected", None)
        if names:
            table = wide.select(names.values()).fill_null(0.0).to_numpy()
            total = table.sum(axis=1)
            top = table.argmax(axis=1)
            reasons = [list(names)[place] if whole > 0 else None for place, whole in zip(top, total, strict=True)]
            with np.errstate(invalid="ignore", divide="ignore"):
                return reasons, table.max(axis=1) / total
    return [None] * len(wide), np.full(len(wide), np.nan)


def joined_to_kernels(counted: pl.DataFrame, kernels: pl.DataFrame) -> pl.DataFrame:
    """Give every kernel of a trace the counters of the launch that it is, or of launches like it.

    Args:
        counted: from `per_launch`, of one device.
        kernels: rows of the kernel table of the same device, in the order in which they ran.

    Returns:
        One row per kernel, in the same order: the columns `RATIOS`, `AMOUNTS`, `OTHERS`, and `join`, one of `JOINS`.
        Where a function was counted with one launch geometry and ran with another, only the ratios are given.
    """
    key = ["function_name", *SHAPE]
    left = kernels.select(
        pl.col("short_name").cast(pl.String).alias("function_name"), *(pl.col(name).cast(pl.Int64) for name in SHAPE)
    ).with_columns(pl.int_range(pl.len()).over(key).alias("turn"), pl.len().over(key).alias("times"))
    wanted = [*RATIOS, *AMOUNTS, *OTHERS]
    right = counted.select(*key, *wanted).with_columns(
        pl.int_range(pl.len()).over(key).alias("turn"), pl.len().over(key).alias("times")
    )
    means = [pl.col(name).mean() for name in (*RATIOS, *AMOUNTS, "sm_clock_hz", "stall_ratio")]
    by_shape = right.group_by(key).agg(*means, pl.col("stall").drop_nulls().mode().sort().first())
    by_name = right.group_by("function_name").agg(
        *(pl.col(name).mean() for name in (*RATIOS, "sm_clock_hz", "stall_ratio")),
        pl.col("stall").drop_nulls().mode().sort().first(),
    )
    order = left.join(
        right.with_columns(pl.lit(True).alias("found")),
        on=[*key, "turn", "times"],
        how="left",
        nulls_equal=True,
        maintain_order="left",
    )
    shape = left.join(
        by_shape.with_columns(pl.lit(True).alias("found")), on=key, how="left", nulls_equal=True, maintain_order="left"
    )
    name = left.join(
        by_name.with_columns(pl.lit(True).alias("found")), on="function_name", how="left", maintain_order="left"
    )
    name = name.with_columns(pl.lit(None, pl.Float64).alias(column) for column in AMOUNTS)
    has_order, has_shape, has_name = (frame["found"].fill_null(False) for frame in (order, shape, name))
    columns = [
        order[column].zip_with(has_order, shape[column].zip_with(has_shape, name[column])).alias(column)
        for column in wanted
    ]
    join = pl.select(
        pl.when(has_order)
        .then(pl.lit(ORDER))
        .when(has_shape)
        .then(pl.lit(BY_SHAPE))
        .when(has_name)
        .then(pl.lit(BY_NAME))
        .otherwise(pl.lit(NONE))
        .alias("join")
    ).to_series()
    return pl.DataFrame([*columns, join])


def peak_of_counters(counters: KernelCounters) -> tuple[float | None, Device | None]:
    """Return the DRAM peak in bytes/s and the GPU that the tool describes, `None` where it does not."""
    facts = dict(
        counters.values.filter(pl.col("metric").str.starts_with("device__attribute_"))
        .unique("metric", keep="first")
        .select("metric", "value")
        .iter_rows()
    )
    if not facts or not len(counters.launches):
        return None, None
    wide = pl.DataFrame({name: [value] for name, value in facts.items()})
    peak = float(dram_peak(_Getter(wide))[0])
    first = counters.launches.row(0, named=True)
    sm_count = facts.get("device__attribute_multiprocessor_count")
    clock = facts.get("device__attribute_clock_rate")
    device = Device(
        device_id=0,
        name=first["device_name"] or "GPU",
        compute_capability=first["compute_capability"],
        sm_count=int(sm_count) if sm_count else None,
        sm_clock_hz=int(clock * 1000) if clock else None,
    )
    return None if np.isnan(peak) else peak, device


def counters_of_kernels(view: View) -> pl.DataFrame | None:
    """Return the counters of every row of the trace's kernel table, in its order; `None` without counters or kernels.

    The columns are those of `joined_to_kernels`, and `bound`.
    """
    placed = view.evidence_of(KernelCounters)
    kernels = view.trace.kernels
    if not placed or kernels is None or not len(kernels):
        return None
    counted = pl.concat([per_launch(entry.evidence) for entry in placed])
    frame = kernels.select("device_id", "start_ns", "short_name", *SHAPE).with_row_index("row").sort("start_ns", "row")
    parts = []
    # A counter run uses one GPU; where the trace has several, each ran the same program.
    for device_id in frame["device_id"].unique(maintain_order=True):
        mine = frame.filter(pl.col("device_id").eq_missing(device_id))
        parts.append(joined_to_kernels(counted, mine).with_columns(mine["row"]))
    joined = pl.concat(parts).sort("row").drop("row")
    ratios = joined.select("sm_throughput_ratio", "memory_throughput_ratio").iter_rows()
    return joined.with_columns(pl.Series("bound", [bound_of(*pair) for pair in ratios], dtype=pl.String))
