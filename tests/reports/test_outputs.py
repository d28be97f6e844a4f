"""Outputs through the real command line: where they go, how they look, and what is said when they cannot be made."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pypdf import PdfReader

import recorded_runs

ROOT = Path(__file__).parents[2]
FAULTS = ROOT / "tests" / "data" / "faults"
SMALL, OTHER = FAULTS / "none.sqlite.xz", FAULTS / "allocation.sqlite.xz"
TIMEOUT_S = 60


def run(
    *arguments: str | Path, fails_with: int = 0, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    plain = dict.fromkeys(("LANG", "LC_ALL", "LC_MESSAGES"), "")
    done = recorded_runs.nitro(*arguments, cwd=cwd, code=fails_with, environment=plain | environment)
    if fails_with:
        assert_is_one_sentence(done)
    return done


def assert_is_one_sentence(done: subprocess.CompletedProcess[str]) -> None:
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("nitro-analyze: ")
    assert "Traceback" not in done.stderr


# --- where they go ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".html", ".md", ".json", ".pdf"])
def test_a_folder_is_no_output(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / f"report{suffix}"
    folder.mkdir()
    assert "this is a folder" in run(SMALL, "-o", folder, fails_with=2).stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("place", ["file/report.html", "missing/report.html", "/proc/x.html", "/proc/self/x.md"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    target = tmp_path / place
    said = run(SMALL, "-o", target, fails_with=2).stderr
    assert f"{target}: cannot be written" in said
    assert (tmp_path / "file").read_text() == "a file, not a folder"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_existing_file_is_replaced_whole(tmp_path: Path) -> None:
    report = tmp_path / "report.md"
    report.write_text("x" * 1_000_000)
    report.chmod(0o640)
    run(SMALL, "-o", report)
    assert report.read_text().startswith("# none.sqlite.xz\n")
    assert "xxx" not in report.read_text()
    assert report.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "report.md").write_text("old")
    link = tmp_path / "report.md"
    link.symlink_to(tmp_path / "real" / "report.md")
    run(SMALL, "-o", link)
    assert link.is_symlink()
    assert (tmp_path / "real" / "report.md").read_text().startswith("# none")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text("old")
    # No file may become larger than this, as on a disk that is full.
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from nitro import cli\n"
        f"sys.argv = ['nitro-analyze', {str(SMALL)!r}, '-o', {str(report)!r}]\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert done.returncode == 2, done.stderr
    assert f"{report}: cannot be written (File too large)" in done.stderr
    assert report.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


# --- title, author, language, settings --------------------------------------------------------------------------------


def test_title_author_and_language_are_shown(tmp_path: Path) -> None:
    page, text = tmp_path / "a.html", tmp_path / "a.md"
    run(SMALL, "-o", page, "-o", text, "--title", "A <title>", "--author", "Ada & Bob", "--lang", "ko")
    html = page.read_text()
    assert html.count("<h1>A &lt;title&gt;</h1>") == 2
    assert "<title>A &lt;title&gt;</title>" in html
    assert '<meta name="author" content="Ada &amp; Bob">' in html
    assert '<p class="author">Ada &amp; Bob</p>' in html
    assert '<html lang="ko"' in html
    assert text.read_text().startswith("# A \\<title\\>\n")
    assert "Ada \\& Bob" in text.read_text()
    assert "진단 결과" in text.read_text()


def test_locale_chooses_the_language_and_an_option_overrules_it(tmp_path: Path) -> None:
    assert "진단 결과" in run(SMALL, LANG="ko_KR.UTF-8").stdout
    assert "FINDINGS" in run(SMALL, "--lang", "en", LANG="ko_KR.UTF-8").stdout
    (tmp_path / "nitro.toml").write_text('[report]\nlang = "en"\n')
    assert "FINDINGS" in run(SMALL, cwd=tmp_path, LANG="ko_KR.UTF-8").stdout


def test_settings_of_a_project_are_used_and_options_come_first(tmp_path: Path) -> None:
    templates = tmp_path / "looks"
    templates.mkdir()
    (templates / "user.css").write_text("h1 { color: #123456 }")
    (tmp_path / "nitro.toml").write_text(
        '[report]\ntitle = "From the file"\nauthor = "The team"\nlang = "ko"\npaper = "letter"\ntemplate = "looks"\n'
    )
    run(SMALL, "-o", "a.html", "-o", "a.pdf", cwd=tmp_path)
    html = (tmp_path / "a.html").read_text()
    assert "<title>From the file</title>" in html
    assert 'content="The team"' in html
    assert '<html lang="ko"' in html
    assert "h1 { color: #123456 }" in html
    assert tuple(PdfReader(tmp_path / "a.pdf").pages[0].mediabox[2:]) == (612, 792)
    run(SMALL, "-o", "b.html", "--title", "From the option", "--lang", "en", cwd=tmp_path)
    html = (tmp_path / "b.html").read_text()
    assert "<title>From the option</title>" in html
    assert 'content="The team"' in html
    assert '<html lang="en"' in html


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('[report]\ntitel = "x"', "has no setting 'titel'"),
        ("[report]\ntitle = 3", "title in [report] must be text in quotes, not 3"),
        ('[report]\nlang = "de"', "lang 'de' is unknown; choose en or ko"),
        ('[report]\npaper = "a5"', "paper 'a5' is unknown; choose a4 or letter"),
        ('report = "x"', "[report] must be a table"),
        ('[report]\ntitle = "x"\nauthor = x\n', "line 3"),
        ('[report]\ntemplate = "nowhere"\n', "nowhere: this is no folder"),
    ],
)
def test_a_mistake_in_the_settings_is_one_sentence(tmp_path: Path, settings: str, said: str) -> None:
    (tmp_path / "nitro.toml").write_text(settings)
    error = run(SMALL, "-o", "a.html", cwd=tmp_path, fails_with=2).stderr
    assert said in error
    assert not (tmp_path / "a.html").exists()


# --- the user's own templates -----------------------------------------------------------------------------------------


def test_templates_of_the_user_stand_in_front_of_ours(tmp_path: Path) -> None:
    original = (ROOT / "templates" / "blocks.html").read_text()
    (tmp_path / "blocks.html").write_text(original.replace('<ul class="key-figures">', '<ul class="key-figures mine">'))
    (tmp_path / "report.css").write_text("/* mine alone */")
    (tmp_path / "user.css").write_text("h1 { color: rebeccapurple }")
    run(SMALL, "-o", tmp_path / "a.html", "--template", tmp_path)
    html = (tmp_path / "a.html").read_text()
    assert '<ul class="key-figures mine">' in html
    assert "/* mine alone */" in html
    assert "Looks of the report that screen and paper share" not in html
    assert html.index("Looks of the report in a browser") < html.index("h1 { color: rebeccapurple }")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("{% if %}", "blocks.html, line 3"),
        ("{{ block.nothing }}", "nothing"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% include 'missing.html' %}", "missing.html"),
        ("{{ block | upside_down }}", "upside_down"),
        ("{% include 'latin1.html' %}", "latin1.html"),
    ],
)
def test_a_mistake_in_a_template_is_one_sentence(tmp_path: Path, broken: str, said: str) -> None:
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "latin1.html").write_bytes("für".encode("latin-1"))
    original = (ROOT / "templates" / "blocks.html").read_text()
    start = "{% macro draw(block, edition) %}\n"
    assert original.count(start) == 1
    (templates / "blocks.html").write_text(original.replace(start, start + broken + "\n"))
    error = run(SMALL, "-o", tmp_path / "a.html", "--template", templates, fails_with=2).stderr
    assert said in error
    assert not (tmp_path / "a.html").exists()


def test_text_of_the_user_is_never_run_as_a_template(tmp_path: Path) -> None:
    trace = tmp_path / "{{ 7*7 }}.sqlite.xz"
    trace.write_bytes(SMALL.read_bytes())
    run(trace, "-o", tmp_path / "a.html", "--title", "{{ 6*7 }} {% raise %}", "--author", "{{ config }}")
    html = (tmp_path / "a.html").read_text()
    assert "<h1>{{ 6*7 }} {% raise %}</h1>" in html
    assert '<p class="author">{{ config }}</p>' in html
    assert "{{ 7*7 }}.sqlite.xz" in html


# --- several traces, assets -------------------------------------------------------------------------------------------


def test_several_traces_are_one_report_with_a_chapter_each(tmp_path: Path) -> None:
    run(SMALL, OTHER, "-o", tmp_path / "a.html", "-o", tmp_path / "a.md")
    html, text = (tmp_path / "a.html").read_text(), (tmp_path / "a.md").read_text()
    assert html.count('class="chapter-title"') == 4  # two traces in two languages
    assert '<section id="en-several"' in html
    assert 'href="#en-several"' in html
    ids = [part.partition('"')[0] for part in html.split(' id="')[1:]]
    assert len(ids) == len(set(ids))
    table = text.partition("Key figures of the traces")[2].splitlines()[2]
    assert "none" in table
    assert "allocation" in table
    assert text.index("Key figures of the traces") < text.index("### Summary")
    assert text.count("### Summary") == 2


def test_assets_are_pictures_and_tables_that_can_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "assets"
    run(SMALL, "--assets", folder)
    pictures, tables = sorted(folder.glob("*.svg")), sorted(folder.glob("*.csv"))
    assert len(pictures) >= 3
    assert len(pictures) + len(tables) == len(list(folder.iterdir()))
    for picture in pictures:
        root = ElementTree.parse(picture).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(list(root.iter("{http://www.w3.org/2000/svg}text"))) > 3
        assert picture.with_suffix(".csv") in tables
    for table in tables:
        header, *rows = csv.reader(io.StringIO(table.read_text(), newline=""))
        assert rows
        assert len(set(header)) == len(header)
        assert {len(row) for row in rows} == {len(header)}
    with (folder / "kernels-gpu0.csv").open(newline="") as stream:
        numbers = [float(row[1]) for row in list(csv.reader(stream))[1:]]
    assert numbers


# --- what is not installed --------------------------------------------------------------------------------------------

_NOT_INSTALLED = """
from importlib.machinery import PathFinder
found = PathFinder.find_spec
def find_spec(name, path=None, target=None):
    if name != {module!r}:
        return found(name, path, target)
    {then}
PathFinder.find_spec = find_spec
"""
_NO_PANGO = "raise OSError(\"cannot load library 'libpango-1.0-0': no such file\")"


@pytest.mark.parametrize(
    ("module", "then", "arguments", "said"),
    [
        ("weasyprint", "return None", ["-o", "a.pdf"], "pip install 'nitro-analyze[pdf]'"),
        ("weasyprint", _NO_PANGO, ["-o", "a.pdf"], "libpango-1.0-0"),
        ("vl_convert", "return None", ["-o", "a.pdf"], "pip install 'nitro-analyze[pdf]'"),
        ("vl_convert", "return None", ["--assets", "assets"], "pip install 'nitro-analyze[pdf]'"),
    ],
    ids=["no WeasyPrint", "no Pango", "no vl-convert for a PDF", "no vl-convert for assets"],
)
def test_a_library_that_is_missing_is_named_with_the_way_to_get_it(
    tmp_path: Path, module: str, then: str, arguments: list[str], said: str
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_NOT_INSTALLED.format(module=module, then=then))
    command = [sys.executable, "-m", "nitro.cli", str(SMALL), *arguments]
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=TIMEOUT_S, env=environment
    )
    assert done.returncode == 5
    assert_is_one_sentence(done)
    assert said in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
