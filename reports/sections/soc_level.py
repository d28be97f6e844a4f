"""SoC level: throughput, power and energy, or why they are not known."""

from __future__ import annotations

from nitro.analyzer import Analysis
from nitro.analyzer.message import capitalised, message

from .. import numbers
from ..blocks import Block, KeyValues
from ..report import Section


def build(analysis: Analysis) -> tuple[Block, ...]:
    """Return what is known of the whole system on a chip, with the reason for what is not."""
    rows: list[tuple[str, str]] = []
    throughput, rate = analysis.value("throughput"), analysis.value("iterations_per_s")
    if throughput is not None:
        text = message("{number} items/s", number=numbers.significant(throughput))
        rows.append((message("Throughput"), text))
    elif rate is not None:
        text = message(
            "{number} iterations/s; {reason}",
            number=numbers.significant(rate),
            reason=analysis.reason("throughput") or "",
        )
        rows.append((message("Throughput"), text))
    elif (reason := analysis.reason("iterations_per_s")) is not None:
        rows.append((message("Throughput"), capitalised(reason)))
    reason = analysis.reason("power")
    if reason is not None:
        rows.append((message("Power and energy"), capitalised(reason)))
    return (KeyValues(tuple(rows)),) if rows else ()


SECTION = Section("soc_level", message("SoC level"), 65, build, for_documents=True)
