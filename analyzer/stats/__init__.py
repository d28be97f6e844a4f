"""The summary tables of `nsys stats`, with NVIDIA's rows, order, column names and digits.

`stats_report(trace, "cuda_gpu_kern_sum")` gives one of them. Every number is what Nsight Systems 2023.4 prints with
`nsys stats --format csv --timeunit nsec`; where Nitro counts otherwise on purpose, it does so under another name
in `metrics`. Each module defines the reports of one subject and declares them as `REPORTS`.
"""

from ._report import Report, StatsColumn, StatsTable, find_report, known_reports, stats_report

__all__ = ["Report", "StatsColumn", "StatsTable", "find_report", "known_reports", "stats_report"]
