"""Device and capture."""

from __future__ import annotations

from nitro.analyzer import Analysis, Device

from .. import numbers
from ..blocks import Block, KeyValues
from ..report import Section

_RECORDED = {"gpu_metrics": "GPU metrics", "gpu_memory_usage": "GPU memory usage", "cpu_samples": "CPU samples"}


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return the facts of devices and capture."""
    rows = [(f"GPU {device.device_id}", _device(device)) for device in analysis.devices]
    if not rows:
        rows.append(("GPU", "none described by the export"))
    capture = analysis.capture
    options = capture.options
    facts = []
    if capture.duration_ns:
        facts.append(f"{numbers.duration(capture.duration_ns)} long")
    if "driver_version" in options:
        facts.append(f"driver {options['driver_version']}")
    if "l4t_version" in options:
        facts.append(f"L4T {options['l4t_version']}")
    if "cuda_graph_trace" in options:
        facts.append(f"CUDA graphs traced by {options['cuda_graph_trace'].lower()}")
    facts += [text for name, text in _RECORDED.items() if name in capture.recorded]
    rows.append(("Capture", " · ".join(facts) or "no facts in the export"))
    rows += [("Note", note) for note in analysis.notes]
    return (KeyValues(tuple(rows)),)


def _device(device: Device) -> str:
    facts = [device.name]
    if device.chip and device.chip != device.name:
        facts[0] += f" ({device.chip})"
    if device.compute_capability:
        facts.append(f"compute capability {device.compute_capability}")
    if device.sm_count:
        facts.append(f"{device.sm_count} SMs")
    if device.sm_clock_hz:
        facts.append(f"up to {numbers.rate(device.sm_clock_hz, 'Hz')}")
    if device.memory_bytes:
        facts.append(numbers.size(device.memory_bytes) + (" shared with the CPU" if device.is_integrated else ""))
    if device.memory_bandwidth_bytes_per_s:
        facts.append(numbers.rate(device.memory_bandwidth_bytes_per_s, "B/s"))
    elif device.is_integrated:
        facts.append(f"memory bandwidth {device.memory_bandwidth_source}")
    return " · ".join(facts)


SECTION = Section("capture", "Device and capture", 10, build)
