"""`Trace`: what one capture recorded, as columns with fixed names, whatever the tool that wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from .tables import TABLE_BY_NAME


@dataclass(frozen=True, slots=True)
class Source:
    """Where a trace came from. Only the file's name is kept, since a path may tell who the user is.

    `sha256` is the digest of the file as it lies on the disk, where somebody asked for it.
    """

    file_name: str
    format: str
    size_bytes: int | None = None
    tool: str | None = None
    tool_version: str | None = None
    schema_version: str | None = None
    sha256: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields under their own names."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Device:
    """One physical GPU as the capture describes it.

    `memory_bandwidth_bytes_per_s` is the driver's number on a discrete GPU. On an integrated one the driver
    reports nonsense, so the number comes from `hardware.py` or is `None`; `memory_bandwidth_source` says which.
    `uuid` and `pci_bus_id` (see `gpu_identity`) tell which GPU a log is of, and are no part of what is saved.
    """

    device_id: int
    name: str
    chip: str | None = None
    compute_capability: str | None = None
    sm_count: int | None = None
    sm_clock_hz: int | None = None
    memory_bytes: int | None = None
    memory_bandwidth_bytes_per_s: int | None = None
    memory_bandwidth_source: str | None = None
    l2_cache_bytes: int | None = None
    max_warps_per_sm: int | None = None
    max_blocks_per_sm: int | None = None
    registers_per_sm: int | None = None
    shared_memory_per_sm_bytes: int | None = None
    is_integrated: bool | None = None
    uuid: str | None = field(default=None, repr=False, compare=False)
    pci_bus_id: str | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields under their own names, without those that name one piece of hardware."""
        return {name: getattr(self, name) for name in self.__slots__ if name not in ("uuid", "pci_bus_id")}


@dataclass(frozen=True, slots=True)
class Capture:
    """How the trace was recorded; `None` where the export does not say.

    `recorded` names data that the file holds beside the tables of the contract, such as `gpu_metrics`. `utc_offset_s`
    is by how much the wall clock of the machine was ahead of UTC; it stays out of every output.
    `items_per_iteration` is what a capture bundle says of the run.
    """

    duration_ns: int | None = None
    start_utc_ns: int | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    recorded: tuple[str, ...] = ()
    utc_offset_s: int | None = None
    items_per_iteration: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields under their own names."""
        return {
            "duration_ns": self.duration_ns,
            "start_utc_ns": self.start_utc_ns,
            "options": dict(self.options),
            "recorded": list(self.recorded),
        }


@dataclass(frozen=True, slots=True)
class Trace:
    """One capture.

    `tables` maps every name of `tables.TABLES` to a polars frame with the columns of the contract, or to `None`
    where the tool recorded no such table. A reader may fill the mapping on demand. `notes` are sentences about
    rows or files that were left out.
    """

    source: Source
    devices: tuple[Device, ...]
    tables: Mapping[str, pl.DataFrame | None]
    capture: Capture = field(default_factory=Capture)
    nvtx_domains: Mapping[tuple[int, int], str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def table(self, name: str) -> pl.DataFrame | None:
        """Return a table by its name, `None` when it was not recorded.

        Raises:
            KeyError: the contract has no such table.
        """
        TABLE_BY_NAME[name]
        return self.tables.get(name)

    def table_or_empty(self, name: str) -> pl.DataFrame:
        """Return a table by its name, without rows when it was not recorded."""
        frame = self.table(name)
        return TABLE_BY_NAME[name].empty() if frame is None else frame

    def device(self, device_id: int) -> Device | None:
        """Return the device with this id, `None` when the capture does not describe it."""
        return next((device for device in self.devices if device.device_id == device_id), None)

    @property
    def kernels(self) -> pl.DataFrame | None:
        """Kernel executions."""
        return self.table("kernels")

    @property
    def graph_launches(self) -> pl.DataFrame | None:
        """CUDA graph executions traced as a whole."""
        return self.table("graph_launches")

    @property
    def memcpys(self) -> pl.DataFrame | None:
        """Copies."""
        return self.table("memcpys")

    @property
    def memsets(self) -> pl.DataFrame | None:
        """Memsets."""
        return self.table("memsets")

    @property
    def api_calls(self) -> pl.DataFrame | None:
        """CUDA runtime and driver calls."""
        return self.table("api_calls")

    @property
    def os_calls(self) -> pl.DataFrame | None:
        """Operating-system calls."""
        return self.table("os_calls")

    @property
    def nvtx_events(self) -> pl.DataFrame | None:
        """NVTX events."""
        return self.table("nvtx_events")

    @property
    def synchronizations(self) -> pl.DataFrame | None:
        """Synchronisation records."""
        return self.table("synchronizations")
