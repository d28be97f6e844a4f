"""A dual encoder whose towers run as one schedule of fused and unfused layers.

`FusedDualEncoder` needs torch and is imported when it is asked for; the schedule itself is numbers only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dual_encoder import Explanation, FusedDualEncoder
    from .measuring import Measurements

__all__ = ["Explanation", "FusedDualEncoder", "Measurements"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import dual_encoder

    return getattr(dual_encoder, name)
