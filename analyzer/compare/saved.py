"""Runs that are known from a saved analysis only (`nitro-analyze TRACE -o run.json`).

A saved analysis holds sums and percentiles: enough for the waterfall, the verdict and kernels by name. It does not hold
the order of kernels, so nothing is matched across fusion; nor single iterations, NVTX paths of idle time, the overlap
of phases, or samples. Where one run of a comparison is a saved analysis, all runs are looked at in this way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from nitro.errors import InputError

from ..analysis import FORMAT_VERSION, analyze
from ..kernel_names import NAME_LOST
from ..power_log import PowerLog
from ..trace import Capture, Device, Source
from ..view import View
from .energy import Amount, RunEnergy, energy_of_values
from .matching import NamedKernels
from .runs import Run
from .statistics import Float64
from .waterfall import Parts, parts_of_values

T = TypeVar("T")
_NEEDED = ("format_version", "source", "capture", "devices", "window", "measurements", "tables")


@dataclass(frozen=True, slots=True)
class SavedRun:
    """What a saved analysis tells about a run.

    `values` are the measurements by metric, device and part; `kernels` the kernels of each device by name, with
    executions and summed ns inside the window. `device_ids` are the devices that worked. `launches` are the calls that
    submitted work by name, with the calls and the operations that they submitted, of all devices together. `energy` is
    what a power log beside the trace told.
    """

    run: Run
    values: Mapping[tuple[str, int | None, str | None], float]
    kernels: Mapping[int, NamedKernels]
    device_ids: tuple[int, ...]
    launches: Mapping[str, tuple[int, int]]
    energy: RunEnergy

    @property
    def periods(self) -> int:
        """How many iterations the window counts as: its full periods, or 1."""
        return max(self.run.iterations, 1)

    def value(self, metric: str, device_id: int | None, by: str | None = None) -> float | None:
        """Return a measurement, `None` where there is none."""
        return self.values.get((metric, device_id, by))

    def parts(self, device_id: int) -> Parts:
        """Return what the window of a device consists of."""
        return parts_of_values(lambda metric, by: self.value(metric, device_id, by), device_id, self.periods)

    def has_graphs(self, device_id: int) -> bool:
        """Whether CUDA graphs ran on a device, recorded as a whole or by their nodes."""
        return bool(self.value("graph_launch_count", device_id)) or any("GraphLaunch" in name for name in self.launches)

    def launch_count(self, device_id: int) -> int | None:
        """Return how many calls launched kernels and CUDA graphs; `None` where the analysis does not tell.

        Its table of launch calls is that of all devices together, and does not have work whose call was not recorded.
        """
        ran = int(sum(self.value(f"{kind}_count", device_id) or 0 for kind in ("kernel", "graph_launch")))
        if not ran:
            return 0
        launched = {name: counts for name, counts in self.launches.items() if "Launch" in name}
        if len(self.device_ids) != 1 or not launched:
            return None
        # One launch of a graph that is recorded by its nodes stands for all of its kernels.
        by_node = any("GraphLaunch" in name for name in launched) and not self.value("graph_launch_count", device_id)
        if not by_node and sum(operations for _, operations in launched.values()) != ran:
            return None
        return sum(calls for calls, _ in launched.values())

    def statistics(self, metric: str) -> dict[str, Float64]:
        """Return percentiles and mean of a metric of the iteration, each as an array of one value.

        Where there are no iterations, the window counts as one.
        """
        if metric == "iteration_period" and not self.run.iterations:
            length = np.array([float(self.run.window["end_ns"] - self.run.window["start_ns"])])
            return {"p50": length, "mean": length}
        return {
            by: np.array([value]) for (name, _, by), value in self.values.items() if name == metric and by is not None
        }


def read_saved(path: Path) -> SavedRun:
    """Return the run of an analysis that was saved as JSON.

    Raises:
        InputError: the file is not the JSON of an analysis, or was written by another version of its format.
    """
    known = read_analysis(path)
    with damage_named(path):
        return checked(saved_run(known))


def read_analysis(path: Path) -> dict[str, Any]:
    """Return the JSON form of an analysis that was saved.

    Raises:
        InputError: the file is not the JSON of an analysis, or was written by another version of its format.
    """
    try:
        known: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: this is not JSON ({error}); save the analysis anew with -o run.json.") from None
    missing = [key for key in _NEEDED if not isinstance(known, dict) or key not in known]
    if missing:
        raise InputError(
            f"{path}: this JSON is no analysis of nitro-analyze, since it has no {missing[0]!r}; save one with "
            "`nitro-analyze TRACE -o run.json`."
        )
    if known["format_version"] != FORMAT_VERSION:
        raise InputError(
            f"{path}: this analysis has format {known['format_version']}, and only {FORMAT_VERSION} can be read; "
            "analyse the trace again."
        )
    return known


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Say of what goes wrong inside that the analysis is damaged.

    Raises:
        InputError: something did.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: this analysis is damaged ({error!r}); save it anew.") from None


def checked(run: SavedRun) -> SavedRun:
    """Return a run whose numbers belong together.

    Raises:
        ValueError: no device worked, or the kernels of a device do not add up to its kernel time.
    """
    if not run.device_ids:
        raise ValueError("no GPU has a window")
    for device_id in run.device_ids:
        total = sum(ns for _, ns in run.kernels.get(device_id, {}).values())
        if total != run.parts(device_id).by_key["kernel"]:
            raise ValueError("the kernels do not add up to the kernel time")
    return run


def saved_run(known: Mapping[str, Any]) -> SavedRun:
    """Return the run of an analysis from its JSON form, see docs/json.md."""
    run = Run(
        _made(Source, known["source"]),
        _made(Capture, known["capture"]),
        tuple(_made(Device, device) for device in known["devices"]),
        dict(known["window"]),
        np.empty(0),
        is_saved=True,
        evidence=tuple(known.get("evidence", ())),
    )
    values = {
        (entry["metric"], entry["device_id"], entry["by"]): numeric(entry["value"]) for entry in known["measurements"]
    }
    kernels: dict[int, NamedKernels] = {}
    launches: dict[str, tuple[int, int]] = {}
    for table in known["tables"]:
        if table["name"] == "launch_calls":
            for row in table["rows"]:
                calls, operations = launches.get(row["api_call"], (0, 0))
                launches[row["api_call"]] = (calls + int(row["calls"]), operations + int(row["operations"]))
        elif table["name"] == "kernels":
            kernels[table["device_id"]] = {
                NAME_LOST if row["name"] is None else str(row["name"]): (int(row["count"]), int(row["total_ns"]))
                for row in table["rows"]
            }
    device_ids = sorted(device for metric, device, _ in values if metric == "window" and device is not None)
    run.iterations, run.window["dropped"], run.window["mode"], run.window["reason"]
    return SavedRun(run, values, kernels, tuple(device_ids), launches, _energy(known))


def numeric(value: object) -> float:
    """Return a number of a saved analysis as it is.

    Raises:
        TypeError: it is none, so nothing may be judged by it.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return value


def _energy(known: Mapping[str, Any]) -> RunEnergy:
    entries = [entry for entry in known["measurements"] if entry["device_id"] is None]
    amounts = {
        (entry["metric"], entry["by"]): Amount(numeric(entry["value"]), numeric(entry.get("error") or 0.0))
        for entry in entries
    }
    logs = [entry for entry in known.get("evidence", ()) if entry["kind"] == PowerLog.kind]
    return energy_of_values(
        known["source"]["file_name"],
        lambda metric, by: amounts.get((metric, by)),
        {entry["metric"]: entry["reason"] for entry in known.get("not_measured", ())},
        [by for metric, by in amounts if metric == "power_by_rail"],
        max(logs, key=lambda entry: entry["records"])["source"]["format"] if logs else None,
    )


def saved_runs(runs: Sequence[View | SavedRun]) -> tuple[SavedRun, ...]:
    """Return runs as if each of them had been saved."""
    return tuple(run if isinstance(run, SavedRun) else _as_saved(run) for run in runs)


def _as_saved(view: View) -> SavedRun:
    made = analyze(
        view.trace,
        *(placed.evidence for placed in view.evidence),
        **asdict(view.scope),
        clock_offset_ns=view.clock_offset_ns,
    )
    return saved_run(made.to_dict())


def _made(kind: type[T], known: Mapping[str, Any]) -> T:
    """Return a dataclass from its JSON form; fields of later versions are passed over."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(
        **{name: tuple(value) if name == "recorded" else value for name, value in known.items() if name in names}
    )
