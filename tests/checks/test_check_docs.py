"""docs/check.md: its commands work in the order of the page, and what it lists is what there is."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import recorded_runs
from nitro.analyzer.checks.budgets import BUDGET_KEYS
from nitro.analyzer.checks.gauges import gauges
from nitro.config import check_settings
from nitro.errors import UsageError
from recorded_runs import record_side

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "check.md").read_text(encoding="utf-8")
WORKFLOW = DOCS / "check.yml"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def nitro(line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return recorded_runs.nitro(*shlex.split(line)[1:], cwd=cwd, code=None)


def named(folder: Path, name: str, period_ms: float) -> None:
    """Write five runs under the names of the page."""
    for number, path in enumerate(record_side(folder, name, period_ms=period_ms), 1):
        path.rename(folder / f"{name}{number}.sqlite")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name, period_ms in (("run", 10.0), ("new", 10.0), ("big", 11.0)):
        named(folder, name, period_ms)
    return folder


def test_the_walk_through_works_as_it_stands(project: Path) -> None:
    (settings,) = blocks("toml")
    for code in blocks("console"):
        if "check new1" in code:
            (project / "nitro.toml").write_text(settings, encoding="utf-8")
        for line in code.splitlines():
            done = nitro(line.removeprefix("$ "), project)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    kinds = [json.loads(path.read_text())["kind"] for path in sorted((project / ".nitro/baselines/main").iterdir())]
    assert kinds == ["save", "update", "accept"]
    assert {path.name for path in project.glob("*.*") if path.suffix in (".xml", ".md", ".csv")} == {
        "check.xml",
        "check.md",
        "history.csv",
    }


def test_the_tests_of_the_page_pass(project: Path) -> None:
    (code,) = blocks("python")
    # The larger model was accepted last, so the runs of before are an improvement on the reference.
    (project / "test_budget.py").write_text(code, encoding="utf-8")
    listed = subprocess.run(
        [sys.executable, "-c", "from importlib.metadata import entry_points as e; print(e(group='pytest11'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = () if "nitro.pytest_plugin" in listed.stdout else ("-p", "nitro.pytest_plugin")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *loaded, "test_budget.py"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120, check=False)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_settings_of_the_page_are_those_there_are(tmp_path: Path) -> None:
    table = PAGE.partition("## Budgets")[2].partition("Under `[check]`")[0]
    documented = [name for cell in re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE) for name in
                  re.findall(r"`(\w+)`", cell)]  # fmt: skip
    assert sorted(documented) == sorted(BUDGET_KEYS)
    (tmp_path / "nitro.toml").write_text("[check]\nunknown = 1\n")
    with pytest.raises(UsageError) as caught:
        check_settings(tmp_path / "nitro.toml")
    own = PAGE.partition("Under `[check]`")[2].partition("\n\n")[0]
    known = str(caught.value).partition("it knows ")[2].rstrip(".").split(", ")
    assert [name for name in known if f"`{name}`" not in own] == []


def test_the_metrics_of_nvtx_ranges_are_listed() -> None:
    (row,) = re.findall(r"^\| `metric` \|(.*)\|$", PAGE, re.MULTILINE)
    assert re.findall(r"`(\w+)`", row)[1:] == list(gauges(of_phase=True))


def test_every_key_of_the_json_is_written_down(project: Path) -> None:
    told = json.loads(nitro("nitro-analyze check run1.sqlite --baseline main --json -", project).stdout)
    listed = PAGE.partition("## The JSON of a check")[2]
    keys = {*told, *(key for name in ("runs", "judgements") for entry in told[name] for key in entry)}
    assert {key for key in keys if f"`{key}`" not in listed} == set()


class TestWorkflow:
    @pytest.fixture
    def workflow(self) -> dict[str, object]:
        loaded: dict[str, object] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
        return loaded

    def test_it_is_a_workflow(self, workflow: dict[str, object]) -> None:
        # YAML 1.1 reads a bare `on` as true.
        assert {"name", True, "permissions", "jobs"} == set(workflow)
        jobs = workflow["jobs"]
        assert isinstance(jobs, dict)
        assert jobs["check"]["needs"] == "record"
        for job in jobs.values():
            assert all(("run" in step) != ("uses" in step) for step in job["steps"])

    def test_its_command_works(self, workflow: dict[str, object], project: Path) -> None:
        jobs = workflow["jobs"]
        assert isinstance(jobs, dict)
        (line,) = [step["run"] for step in jobs["check"]["steps"] if "nitro-analyze check" in step.get("run", "")]
        done = nitro(line, project)
        assert done.returncode == 0, done.stdout + done.stderr
