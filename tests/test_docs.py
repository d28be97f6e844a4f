"""The documentation, held against the program: every id is written down, and the walk-through works as it stands."""

from __future__ import annotations

import json
import lzma
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from nitro import cli
from nitro.analyzer import FORMAT_VERSION, Analysis, analyze, open_trace
from nitro.analyzer.analysis import all_metrics
from nitro.analyzer.causes import Cause
from nitro.commands.analyze import COMMAND as ANALYZE
from nitro.config import report_settings
from nitro.reports.output import Documents, Settings
from nitro.reports.report import all_sections

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SAMPLE = ROOT / "examples" / "dual_encoder.sqlite.xz"
CODE_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FIRST_CELL = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])


def code_blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page that are in a language."""
    return [code for name, code in CODE_BLOCK.findall(page) if name == language]


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
REPORT_PAGE = (DOCS / "reports.md").read_text(encoding="utf-8")
SECTION_FILES = re.findall(r"`((?:reports|tests)/\S+longest_idle\.py)`", REPORT_PAGE)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with the files of the walk-throughs."""
    copy = tmp_path_factory.mktemp("repository")
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("src", "analyzer", "collectors", "fused_kernels", "reports", "templates", "tests"):
        if (ROOT / folder).exists():
            shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", copy)
    (copy / "docs").mkdir()
    shutil.copy(DOCS / "make_catalogue.py", copy / "docs")
    for page, names in ((METRIC_PAGE, METRIC_FILES), (REPORT_PAGE, SECTION_FILES)):
        for name, code in zip(names, code_blocks(page, "python"), strict=True):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_text(code, encoding="utf-8")
    return copy


def run(copy: Path, *command: str | Path, fails_with: int = 0) -> str:
    """Run a module, or a file, in the copy; what stands in PYTHONPATH is found before an installed Nitro."""
    environment = {**os.environ, "PYTHONPATH": str(copy / "src")}
    first = () if str(command[0]).endswith(".py") else ("-m",)
    done = subprocess.run(
        [sys.executable, *first, *command], cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == fails_with, done.stdout + done.stderr
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
        (line,) = code_blocks(METRIC_PAGE, "markdown")
        assert FIRST_CELL.findall(line) == ["longest_kernel"]
        assert re.fullmatch(r"\| `\w+` \| ns \| – \| [^|]+ \|\n", line)


class TestAddASection:
    """Follow docs/reports.md."""

    def test_it_has_a_file_and_a_test(self) -> None:
        section_file, test = "reports/sections/longest_idle.py", "tests/reports/sections/test_longest_idle.py"
        assert [section_file, test] == SECTION_FILES
        assert f"$ .venv/bin/pytest {test}\n" in REPORT_PAGE

    def test_its_test_passes(self, copy: Path) -> None:
        assert "2 passed" in run(copy, "pytest", "-p", "no:cacheprovider", SECTION_FILES[1])

    def test_it_stands_in_the_report_in_its_place(self, copy: Path) -> None:
        run(copy, "nitro.cli", SAMPLE, "-o", "report.md", "--lang", "en")
        report = (copy / "report.md").read_text(encoding="utf-8")
        titles = re.findall(r"^## (.*)$", report, re.MULTILINE)
        place = titles.index("Longest idle stretches")
        assert titles[place - 1 : place + 2] == ["Where the time goes", "Longest idle stretches", "Iterations"]
        assert "**Figure 2. When GPU 0 was idle for long**" in report

    def test_its_messages_are_found_and_wait_for_a_translation(self, copy: Path) -> None:
        printed = run(copy, "docs/make_catalogue.py", fails_with=1)
        assert "'When GPU {device} was idle for long'" in printed
        catalogue = (copy / "templates/locales/ko/LC_MESSAGES/nitro.po").read_text(encoding="utf-8")
        assert 'msgid "start, ms"\nmsgstr ""' in catalogue


class TestReports:
    """What docs/reports.md says of sections, options and looks."""

    def test_every_section_is_described_in_the_order_of_a_report(self) -> None:
        described = re.findall(r"^\| ([^|]+?) \|", section(REPORT_PAGE, "What is in it"), re.MULTILINE)[1:]
        assert described == [f"{entry.title} •" if entry.for_documents else entry.title for entry in all_sections()]

    def test_the_settings_of_the_example_are_all_there_are(self, tmp_path: Path) -> None:
        (example,) = code_blocks(REPORT_PAGE, "toml")
        (tmp_path / "nitro.toml").write_text(example, encoding="utf-8")
        documented = re.findall(r"^\| `-[^|]*\S \| `(\w+)` \|", REPORT_PAGE.replace("\\|", "/"), re.MULTILINE)
        assert sorted(report_settings(tmp_path)) == sorted(documented)

    def test_the_variables_are_those_of_the_stylesheets(self) -> None:
        documented = set(re.findall(r"`(--[a-z-]+)`[, |]", section(REPORT_PAGE, "Your own look")))
        styles = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "templates").glob("*.css"))
        set_there = set(re.findall(r"(--[a-z-]+): ", styles))
        assert documented - {"--template"} == {*set_there, "--sans-page"}

    def test_the_files_are_those_in_the_folder(self) -> None:
        table = section(REPORT_PAGE, "Your own look").partition("| file |")[2]
        there = {path.name for ending in ("html", "css") for path in (ROOT / "templates").glob(f"*.{ending}")}
        assert set(re.findall(r"`([a-z]+\.(?:html|css))`", table.partition("\n\n")[0])) == there

    def test_the_example_of_a_look_works(self, tmp_path: Path) -> None:
        commands = next(code for code in code_blocks(REPORT_PAGE, "console") if "mkdir report-look" in code)
        (tmp_path / "run.sqlite").write_bytes(lzma.decompress(SAMPLE.read_bytes()))
        programs = f'python() {{ "{sys.executable}" "$@"; }}\nnitro-analyze() {{ python -m nitro.cli "$@"; }}\n'
        script = f"set -e\n{programs}" + re.sub(r"^\$ ", "", commands, flags=re.MULTILINE)
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert "Capture the iteration as a CUDA graph" in page
        assert "Profiling makes each launch longer" not in page

    def test_the_example_of_a_stylesheet_stands_last_in_the_page(self, sample: Analysis, tmp_path: Path) -> None:
        (example,) = code_blocks(REPORT_PAGE, "css")
        (tmp_path / "user.css").write_text(example, encoding="utf-8")
        page = Documents([sample], Settings(templates=tmp_path)).html().decode()
        assert page.partition("</style>")[0].endswith(example)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_have_the_options_that_pages_give_them(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    lines = [line[2:] for code in code_blocks(text, "console") for line in code.splitlines()]
    lines += re.findall(r"`(nitro-analyze [^`\n]+)`", text)
    wrong = []
    for line in lines:
        program, *words = shlex.split(line.partition("|")[0], comments=True) or [""]
        if not program.endswith("nitro-analyze") or not words:
            continue
        command = cli.group.commands.get(words[0], ANALYZE)
        if isinstance(command, click.Group) and len(words) > 1:
            command = command.commands.get(words[1], command)
        known = {name for param in command.params for name in param.opts} | set(command.get_help_option_names(CONTEXT))
        wrong += [f"{line}: {word}" for word in words if word.startswith("-") and word not in {*known, "-"}]
    assert wrong == []


CONTEXT = click.Context(ANALYZE, help_option_names=["-h", "--help"])


class TestBothReadmes:
    """README.md and README.ko.md say the same."""

    ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
    KOREAN = (ROOT / "README.ko.md").read_text(encoding="utf-8")

    def test_they_link_to_each_other(self) -> None:
        assert "[한국어](README.ko.md)" in self.ENGLISH
        assert "[English](README.md)" in self.KOREAN

    def test_they_have_the_same_headings(self) -> None:
        assert self._headings(self.KOREAN) == self._headings(self.ENGLISH)

    def test_they_have_the_same_code_but_for_comments_and_texts(self) -> None:
        assert self._code(self.KOREAN) == self._code(self.ENGLISH)
        assert len(self._code(self.ENGLISH)) >= 6

    def test_they_have_the_same_pictures_each_in_its_language(self) -> None:
        english, korean = self._pictures(self.ENGLISH), self._pictures(self.KOREAN)
        assert [name.replace(".ko.", ".") for name in korean] == english
        in_korean = [name for name in english if (ROOT / name).with_suffix(".ko" + Path(name).suffix).exists()]
        assert [name for name in korean if ".ko." in name] == [name.replace(".png", ".ko.png") for name in in_korean]

    def test_they_lead_to_the_same_pages(self) -> None:
        assert self._links(self.KOREAN) - {"README.md"} == self._links(self.ENGLISH) - {"README.ko.md"}

    @staticmethod
    def _headings(text: str) -> list[int]:
        return [len(marks) for marks in re.findall(r"^(#+) ", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.M)]

    @staticmethod
    def _code(text: str) -> list[list[str]]:
        blocks = re.findall(r"^ *```\w+\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
        return [[re.sub(r'"[^"]*"', '""', line.partition(" #")[0]).rstrip() for line in b.splitlines()] for b in blocks]

    @staticmethod
    def _pictures(text: str) -> list[str]:
        return re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)

    @staticmethod
    def _links(text: str) -> set[str]:
        return set(re.findall(r"(?<!!)\[[^]]+\]\(([^)]+)\)", re.sub(r"!\[[^]]+\]\([^)]+\)", "", text)))


def test_pictures_are_small() -> None:
    sizes = [path.stat().st_size for path in (DOCS / "pictures").iterdir()]
    assert max(sizes) < 250_000
    assert sum(sizes) < 700_000
