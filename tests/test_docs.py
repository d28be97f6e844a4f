"""The documentation, held against the program: every id is written down, and the walk-through works as it stands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nitro.analyzer import FORMAT_VERSION, Analysis, analyze, open_trace
from nitro.analyzer.analysis import all_metrics
from nitro.analyzer.causes import Cause

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SAMPLE = ROOT / "examples" / "dual_encoder.sqlite.xz"
CODE_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FIRST_CELL = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])


def section(page: str, title: str) -> str:
    """Return the text of a page under a heading, up to the next heading of that level."""
    return re.split(r"^## ", page.partition(f"\n## {title}\n")[2], flags=re.MULTILINE)[0]


JSON_PAGE = (DOCS / "json.md").read_text(encoding="utf-8")
MEASUREMENTS, TABLES = section(JSON_PAGE, "Measurements"), section(JSON_PAGE, "Tables")


@pytest.fixture(scope="module")
def sample() -> Analysis:
    return analyze(open_trace(SAMPLE), batch=1)


def provided(*kinds: str) -> list[str]:
    """Return the ids that metrics declare as one of these: `table`, or `reason` where they never have a value."""
    ids = {name: kind for metric in all_metrics() for name, kind in metric.provides.items()}
    return sorted(name for name, kind in ids.items() if (kind if kind in ("table", "reason") else "number") in kinds)


def test_every_metric_id_is_documented_once_and_none_that_is_gone() -> None:
    assert sorted(FIRST_CELL.findall(MEASUREMENTS)) == provided("number", "reason")
    assert sorted(FIRST_CELL.findall(TABLES)) == provided("table")


def test_units_are_documented_as_they_are() -> None:
    documented = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \| [^|]+ \| [^|]+ \|$", MEASUREMENTS, re.MULTILINE))
    units = {name: unit for metric in all_metrics() for name, unit in metric.provides.items()}
    assert documented == {name: units[name] for name in provided("number")}


def test_parts_are_documented_where_there_are_parts(sample: Analysis) -> None:
    has_parts = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+?) \| [^|]+ \|$", MEASUREMENTS, re.MULTILINE))
    assert len(sample.measurements) > 20
    for entry in sample.measurements:
        assert (entry.by is None) == (has_parts[entry.metric] == "–"), entry


def test_every_key_of_the_json_is_documented(sample: Analysis) -> None:
    keys = section(JSON_PAGE, "Keys")
    written = json.loads(json.dumps(sample.to_dict()))
    assert list(written) == re.findall(r"^\| `(\w+)` \|", keys, re.MULTILINE)
    missing = {key for key in keys_of(written) if f"`{key}`" not in keys}
    assert missing == set()


def keys_of(value: Any) -> Iterator[str]:
    """Yield the keys of objects at any depth, but not those of rows and options, which are data."""
    if isinstance(value, list):
        for entry in value:
            yield from keys_of(entry)
    elif isinstance(value, dict):
        yield from value
        for key, entry in value.items():
            if key not in ("rows", "options"):
                yield from keys_of(entry)


def test_the_format_version_is_documented() -> None:
    assert f"| `format_version` | integer, now {FORMAT_VERSION} |" in JSON_PAGE


def test_every_idle_cause_is_defined() -> None:
    page = (DOCS / "adr" / "0004-idle-causes.md").read_text(encoding="utf-8")
    assert [cause.id for cause in Cause if f"`{cause.id}`" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert [target for target in local if not (page.parent / target).exists()] == []


METRIC_PAGE = (DOCS / "add-a-metric.md").read_text(encoding="utf-8")
METRIC_FILES = re.findall(r"`((?:analyzer|tests)/\S+longest_kernel\.py)`:\n", METRIC_PAGE)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with the two files of the walk-through."""
    copy = tmp_path_factory.mktemp("repository")
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("src", "analyzer", "collectors", "fused_kernels", "reports", "templates", "tests"):
        if (ROOT / folder).exists():
            shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", copy)
    blocks = [code for language, code in CODE_BLOCK.findall(METRIC_PAGE) if language == "python"]
    for name, code in zip(METRIC_FILES, blocks, strict=True):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(code, encoding="utf-8")
    return copy


def run(copy: Path, *command: str | Path) -> str:
    """Run a module in the copy; what stands in PYTHONPATH is found before an installed Nitro."""
    environment = {**os.environ, "PYTHONPATH": str(copy / "src")}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class TestAddAMetric:
    """Follow docs/add-a-metric.md."""

    def test_it_has_a_file_and_a_test(self) -> None:
        metric, test = "analyzer/metrics/longest_kernel.py", "tests/analyzer/metrics/test_longest_kernel.py"
        assert [metric, test] == METRIC_FILES
        assert f"$ .venv/bin/pytest {test}\n" in METRIC_PAGE

    def test_its_test_passes(self, copy: Path) -> None:
        assert "3 passed" in run(copy, "pytest", "-p", "no:cacheprovider", METRIC_FILES[1])

    def test_the_contract_of_all_metrics_holds_for_it(self, copy: Path) -> None:
        contract = "tests/analyzer/test_metric_contract.py"
        printed = run(copy, "pytest", "-p", "no:cacheprovider", "-vv", "-k", "longest_kernel", contract)
        assert "test_a_trace_without_any_table_gives_reasons_and_nothing_else[longest_kernel] PASSED" in printed

    def test_it_is_explained_and_seen_in_the_json(self, copy: Path) -> None:
        assert f"$ .venv/bin/nitro-analyze {SAMPLE.relative_to(ROOT)} --json - |" in METRIC_PAGE
        assert "$ .venv/bin/nitro-analyze explain longest_kernel\n" in METRIC_PAGE
        assert "Longest time that one execution of a kernel took" in run(copy, "nitro.cli", "explain", "longest_kernel")
        analysis = json.loads(run(copy, "nitro.cli", SAMPLE, "--json", "-"))
        (found,) = [entry for entry in analysis["measurements"] if entry["metric"] == "longest_kernel"]
        kernels = next(table for table in analysis["tables"] if table["name"] == "kernels")
        assert found["unit"] == "ns"
        assert found["count"] == sum(row["count"] for row in kernels["rows"])
        # No kernel that straddles an edge of the window is longer than all those inside.
        assert found["value"] == max(row["max_ns"] for row in kernels["rows"])

    def test_its_line_is_what_the_page_of_ids_asks_for(self) -> None:
        (line,) = [code for language, code in CODE_BLOCK.findall(METRIC_PAGE) if language == "markdown"]
        assert FIRST_CELL.findall(line) == ["longest_kernel"]
        assert re.fullmatch(r"\| `\w+` \| ns \| – \| [^|]+ \|\n", line)
