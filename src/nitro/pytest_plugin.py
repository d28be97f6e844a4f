"""The pytest plugin: budgets for GPU work in a test suite.

It is loaded by every pytest of an environment that has Nitro, so nothing heavy is imported before a test asks for it.

def test_the_encoder_keeps_its_budget(nitro_trace, assert_budget):
    run = nitro_trace("encoder.sqlite")
    assert_budget(run, "iteration_period", by="p50", max="15 ms")
    assert_budget(run, "iteration_period", by="p50", max_regression="3 %", baseline="main")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from nitro.analyzer import Analysis
    from nitro.analyzer.checks import Check, Run

MakesTraces = Callable[..., "Traces"]


class Traces:
    """One or several runs of the same thing, each opened and analysed when it is first needed."""

    def __init__(self, paths: Sequence[Path], scope: dict[str, Any], told: dict[str, str]) -> None:
        """Take the paths; nothing is read yet."""
        self.paths = tuple(paths)
        self._scope = scope
        self._told = told

    @cached_property
    def _read(self) -> tuple[tuple[Analysis, Run], ...]:
        from nitro.analyzer import analyze
        from nitro.analyzer.checks import run_of
        from nitro.commands._inputs import open_inputs

        made = []
        for opened in open_inputs(self.paths):
            analysis = analyze(opened.trace, *opened.evidence, **self._scope)
            told = {**opened.facts, **self._told}
            made.append((analysis, run_of(opened.trace, analysis, batch=self._scope.get("batch"), told=told)))
        return tuple(made)

    @property
    def analyses(self) -> tuple[Analysis, ...]:
        """The analysis of each run."""
        return tuple(analysis for analysis, _ in self._read)

    @property
    def analysis(self) -> Analysis:
        """The analysis of the first run."""
        return self.analyses[0]

    @property
    def runs(self) -> tuple[Run, ...]:
        """What a check sees of each run."""
        return tuple(run for _, run in self._read)

    def value(self, metric: str, by: str | None = None, device_id: int | None = None) -> int | float | None:
        """Return a value of the first run, `None` where it was not measured; see `Analysis.value`."""
        return self.analysis.value(metric, device_id, by)

    def __repr__(self) -> str:
        return f"<nitro traces {', '.join(path.name for path in self.paths)}>"


@pytest.fixture(scope="session")
def nitro_trace() -> MakesTraces:
    """Return a function that takes one or several traces of the same thing: `nitro_trace("run.sqlite", nvtx="infer*")`.

    A power log belongs to the trace before it. Keywords are those of `nitro.analyzer.analyze`, and `facts`, a mapping
    of what no trace tells, such as `{"precision": "bf16"}`. A trace is analysed once a session, when a test first asks
    for a number.
    """
    made: dict[object, Traces] = {}

    def traces(*paths: str | Path, facts: dict[str, str] | None = None, **scope: Any) -> Traces:
        if not paths:
            raise TypeError("nitro_trace takes at least one path of a trace")
        files = tuple(Path(path) for path in paths)
        # A trace that was recorded again is another one.
        stamps = tuple((file.resolve(), file.stat().st_mtime_ns if file.exists() else None) for file in files)
        key = (stamps, repr(sorted(scope.items())), repr(sorted((facts or {}).items())))
        if key not in made:
            made[key] = Traces(files, scope, facts or {})
        return made[key]

    return traces


@pytest.fixture(scope="session", name="assert_budget")
def assert_budget_fixture() -> Callable[..., Check]:
    """Return `assert_budget`, for tests that would rather not import it."""
    return assert_budget


def assert_budget(
    traces: Traces,
    metric: str,
    *,
    baseline: str | None = None,
    store: str | Path | None = None,
    allow: Sequence[str] = (),
    inconclusive: str = "pass",
    **limits: Any,
) -> Check:
    """Fail the test unless runs keep a budget; what could not be judged fails it, too.

    Args:
        traces: what `nitro_trace` returned.
        metric: a metric of the JSON, or with `nvtx` one of an NVTX range.
        baseline: the name of a baseline, for `max_regression`.
        store: the folder of the baselines, by default `.nitro/baselines`.
        allow: reasons against a comparison that do not stop it.
        inconclusive: `fail` where runs that cannot tell should fail the test.
        limits: the settings of a budget: `max`, `min`, `max_regression`, `by`, `device`, `nvtx`, `per`, `better`,
            `owner`, `reason`, `expires`.

    Returns:
        The check, whose judgements hold the numbers.

    Raises:
        nitro.errors.NitroError: a trace is broken, the metric does not exist, or there is no such baseline.
    """
    __tracebackhide__ = True
    from datetime import datetime, timezone

    from nitro.analyzer.checks import DEFAULT_FOLDER, Store, budget, check

    if inconclusive not in ("pass", "fail"):
        raise ValueError(f"inconclusive is pass or fail, not {inconclusive!r}")
    made = check(
        traces.runs,
        [budget(metric, **limits)],
        day=datetime.now(timezone.utc).date(),
        baseline=Store(Path(store or DEFAULT_FOLDER)).read(baseline) if baseline is not None else None,
        inconclusive=inconclusive,  # type: ignore[arg-type]
        allow=allow,
    )
    if made.exit_code:
        pytest.fail(_failure(made), pytrace=False)
    return made


def _failure(made: Check) -> str:
    """Return what did not pass, a line each, then the runs and what speaks against comparing them."""
    from nitro.reports.checks.sentences import STATUS_WORDS, budget_text, name_text, sentence

    lines = []
    for judgement in made.judgements:
        if made.is_failure(judgement) or judgement.status == "skipped":
            lines.append(f"{name_text(judgement)} {STATUS_WORDS[judgement.status]}: {sentence(judgement)}")
            if whose := budget_text(judgement):
                lines.append(f"  budget of {whose}")
    lines += [f"  {reason.level}: {reason.text}" for reason in made.reasons]
    lines.append("  runs: " + ", ".join(f"{run.file_name} ({run.periods} iterations)" for run in made.runs))
    return "\n".join(lines)
