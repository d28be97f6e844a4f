"""A trace in the formats of other programs: `perfetto` for looking at it, `parquet` for computing with it."""

from .parquet import write_parquet
from .perfetto import write_perfetto

__all__ = ["write_parquet", "write_perfetto"]
