"""Metrics: one file each, which declares `METRIC`. The docstring of its `compute` is its definition."""
