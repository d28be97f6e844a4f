"""Device and capture."""

from __future__ import annotations

from nitro.analyzer import Analysis, Device
from nitro.analyzer.message import joined, message, one_or_many
from nitro.analyzer.power_log import PowerLog

from .. import numbers
from ..blocks import Block, KeyValues
from ..report import Section

_RECORDED = {
    "gpu_metrics": message("GPU metrics"),
    "gpu_memory_usage": message("GPU memory usage"),
    "cpu_samples": message("CPU samples"),
}
_BETWEEN = " · "


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return the facts of devices and capture."""
    rows = [(f"GPU {device.device_id}", _device(device)) for device in analysis.devices]
    if not rows:
        rows.append(("GPU", message("none described by the export")))
    capture = analysis.capture
    options = capture.options
    facts: list[str] = []
    if capture.duration_ns:
        facts.append(message("{duration} long", duration=numbers.duration(capture.duration_ns)))
    if "driver_version" in options:
        facts.append(message("driver {version}", version=options["driver_version"]))
    if "l4t_version" in options:
        facts.append(f"L4T {options['l4t_version']}")
    if "cuda_graph_trace" in options:
        facts.append(message("CUDA graphs traced by {level}", level=options["cuda_graph_trace"].lower()))
    facts += [text for name, text in _RECORDED.items() if name in capture.recorded]
    rows.append((message("Capture"), joined(_BETWEEN, facts) if facts else message("no facts in the export")))
    logs = (placed.evidence for placed in analysis.evidence if isinstance(placed.evidence, PowerLog))
    rows += [(message("Power log"), log.choice) for log in logs if log.choice]
    rows += [(message("Note"), note) for note in analysis.notes]
    return (KeyValues(tuple(rows)),)


def _device(device: Device) -> str:
    facts: list[str] = [device.name]
    if device.chip and device.chip != device.name:
        facts[0] += f" ({device.chip})"
    if device.compute_capability:
        facts.append(message("compute capability {version}", version=device.compute_capability))
    if device.sm_count:
        facts.append(one_or_many(device.sm_count, message("1 SM"), message("{count} SMs", count=device.sm_count)))
    if device.sm_clock_hz:
        facts.append(message("up to {clock}", clock=numbers.rate(device.sm_clock_hz, "Hz")))
    if device.memory_bytes:
        size = numbers.size(device.memory_bytes)
        facts.append(message("{size} shared with the CPU", size=size) if device.is_integrated else size)
    if device.memory_bandwidth_bytes_per_s:
        facts.append(numbers.rate(device.memory_bandwidth_bytes_per_s, "B/s"))
    elif device.is_integrated and device.memory_bandwidth_source:
        facts.append(message("memory bandwidth {source}", source=device.memory_bandwidth_source))
    return joined(_BETWEEN, facts)


SECTION = Section("capture", message("Device and capture"), 10, build)
