"""What a kernel needs on an architecture, found without a GPU: registers, spills, shared memory, resident blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from nitro.errors import ToolError

from . import nvrtc
from .compiling import compile_ahead, compile_one
from .occupancy import Occupancy, occupancy
from .pairs import Pair
from .strategies import Kernel as Kernel
from .strategies import PairStrategy, strategy_name


@dataclass(frozen=True, slots=True)
class ResourceReport:
    """The resources of one kernel on one architecture."""

    kernel: str
    bodies: tuple[str, ...]
    strategy: str
    sm: int
    threads: int
    shared_bytes: int
    resources: nvrtc.Resources
    occupancy: Occupancy

    def as_dict(self) -> dict[str, object]:
        """Return the report as plain values."""
        return asdict(self)


def kernel_resources(kernel: Kernel, sm: int) -> ResourceReport:
    """Return the resources of a kernel on an architecture, given as 53 for sm_53.

    Raises:
        UsageError: a body cannot run there, or no limits are known of it.
        ToolError: NVRTC is missing, or too old to make a cubin.
    """
    compiled = compile_one(kernel, sm)
    found = compiled.resources
    if found.registers is None:
        raise ToolError(
            "this NVRTC makes no cubin (it is older than 11.1) and cannot tell resources; "
            "run `pip install nvidia-cuda-nvrtc-cu12`, which needs no GPU."
        )
    resident = occupancy(
        sm,
        threads=kernel.threads,
        registers=found.registers,
        shared_bytes=kernel.shared_bytes + (found.static_shared_bytes or 0),
        barriers=found.barriers or 0,
    )
    bodies = tuple(body.name for body in kernel.bodies)
    return ResourceReport(
        kernel.name, bodies, strategy_name(kernel.strategy), sm, kernel.threads, kernel.shared_bytes, found, resident
    )


def resource_report(pair: Pair, strategy: PairStrategy, sm: int) -> ResourceReport:
    """Return the resources of a pair under a strategy on an architecture, with the bodies that suit it there."""
    return kernel_resources(pair.kernel(strategy, sm), sm)


def resource_reports(kernels: Sequence[tuple[Kernel, int]], *, workers: int | None = None) -> list[ResourceReport]:
    """Return reports of many kernels and architectures, compiled in as many processes as there are cores."""
    compile_ahead(kernels, workers=workers)
    return [kernel_resources(kernel, sm) for kernel, sm in kernels]


def table(reports: Sequence[ResourceReport]) -> str:
    """Return one line a kernel and architecture."""
    width = max((len(" + ".join(report.bodies)) for report in reports), default=6)
    lines = [
        f"{'bodies':<{width}}  {'strategy':<32} {'arch':<6} {'thr':>4} {'regs':>4} {'spill B':>7} {'smem B':>7} "
        f"{'bar':>3} {'blocks':>6} {'occ':>4}  limited by"
    ]
    for report in reports:
        found = report.resources
        spills = (found.spill_store_bytes or 0) + (found.spill_load_bytes or 0)
        lines.append(
            f"{' + '.join(report.bodies):<{width}}  {report.strategy:<32} sm_{report.sm:<3} {report.threads:>4} "
            f"{found.registers:>4} {spills:>7} {report.shared_bytes:>7} {found.barriers:>3} "
            f"{report.occupancy.blocks:>6} {report.occupancy.ratio:>4.0%}  {', '.join(report.occupancy.limited_by)}"
        )
    return "\n".join(lines)
