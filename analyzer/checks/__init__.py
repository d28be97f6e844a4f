"""Runs held against budgets and baselines: the gate of a continuous integration.

from nitro.analyzer import analyze, open_trace
from nitro.analyzer.checks import budget, check, run_of

trace = open_trace("run.sqlite")
made = check([run_of(trace, analyze(trace))], [budget("iteration_period", by="p50", max="15 ms")], day=date.today())
made.exit_code, [judgement.status for judgement in made.judgements]
"""

from .baselines import Baseline, Entry
from .budgets import Budget, budget, budgets_of, default_budgets
from .facts import ALLOWED_KEYS
from .gate import FORMAT_VERSION, Check, Judgement, check
from .gauges import Key
from .runs import Run, run_of, run_of_saved
from .store import DEFAULT_FOLDER, Store, entry_bytes
from .trend import ChangePoint, Trend, trends

__all__ = [
    "ALLOWED_KEYS",
    "DEFAULT_FOLDER",
    "FORMAT_VERSION",
    "Baseline",
    "Budget",
    "ChangePoint",
    "Check",
    "Entry",
    "Judgement",
    "Key",
    "Run",
    "Store",
    "Trend",
    "budget",
    "budgets_of",
    "check",
    "default_budgets",
    "entry_bytes",
    "run_of",
    "run_of_saved",
    "trends",
]
