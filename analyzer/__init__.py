"""The library: from a file to numbers. Nothing here prints, draws, starts a process or reads the clock.

>>> from nitro.analyzer import open_trace, analyze          # doctest: +SKIP
>>> analysis = analyze(open_trace("trace.sqlite"))          # doctest: +SKIP
"""

from .opening import open_trace
from .trace import Capture, Device, Source, Trace

__all__ = ["Capture", "Device", "Source", "Trace", "open_trace"]
