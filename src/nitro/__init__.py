"""Nitro: where time and energy go in vision-language inference on a small NVIDIA GPU.

The library is in `nitro.analyzer` (`open_trace`, `analyze`); the command is `nitro-analyze`.
"""

__version__ = "0.1.0"
