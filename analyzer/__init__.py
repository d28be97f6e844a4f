"""The library: from a file to numbers. Nothing here prints, draws, starts a process or reads the clock.

from nitro.analyzer import open_trace, analyze

trace = open_trace("trace.sqlite")
trace.kernels                                  # a polars DataFrame
analysis = analyze(trace)
analysis.value("gpu_busy")                     # ns
analysis.table("kernels").to_pandas()
"""

from .analysis import FORMAT_VERSION, Analysis, analyze
from .evidence import Evidence, Placed
from .metric import Measurement, NotMeasured, ResultTable
from .opening import open_input, open_inputs, open_trace
from .trace import Capture, Device, Source, Trace

__all__ = [
    "FORMAT_VERSION",
    "Analysis",
    "Capture",
    "Device",
    "Evidence",
    "Measurement",
    "NotMeasured",
    "Placed",
    "ResultTable",
    "Source",
    "Trace",
    "analyze",
    "open_input",
    "open_inputs",
    "open_trace",
]
