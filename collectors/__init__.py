"""Run a profiler or a workload and return what it wrote; knows nothing of analysis."""
