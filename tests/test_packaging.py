"""What users install: the sdist, the wheel made from it, and that wheel in an environment of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from nitro import __version__

ROOT = Path(__file__).parent.parent
FOLDERS = ("analyzer", "collectors", "fused_kernels", "reports", "templates")
LEFT_OUT = ("__pycache__", ".pyc")


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def files_of(folder: Path) -> set[str]:
    """Return the files of a folder that belong into a package, by their path relative to it."""
    files = (file for file in folder.rglob("*") if file.is_file() and not any(part in str(file) for part in LEFT_OUT))
    return {file.relative_to(folder).as_posix() for file in files}


def sources() -> set[str]:
    """Return every file that the wheel should hold under `nitro/`."""
    front = {name for name in files_of(ROOT / "src" / "nitro") if name.partition("/")[0] not in FOLDERS}
    return front | {f"{folder}/{name}" for folder in FOLDERS for name in files_of(ROOT / folder)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and the wheel from the sdist, with the build backend of this environment."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel in a fresh environment that borrows the dependencies, and nothing else, from this one."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    # A path in a .pth file is searched last, and .pth files in it (an editable Nitro) are not read.
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_the_wheel_holds_the_package_and_its_metadata_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"nitro", f"nitro_analyze-{__version__}.dist-info"}


def test_the_wheel_holds_every_file_of_the_source_folders(wheel: Path) -> None:
    names = {name.removeprefix("nitro/") for name in zipfile.ZipFile(wheel).namelist() if name.startswith("nitro/")}
    assert names == sources()


def test_the_sdist_holds_the_real_folders_and_no_links(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    top = f"nitro_analyze-{__version__}/"
    names = {member.name.removeprefix(top) for member in members}
    assert {"pyproject.toml", "LICENSE", "README.md", "src/nitro/cli.py", "analyzer/trace.py"} <= names
    assert not any(name.startswith("src/nitro/analyzer") for name in names)
    assert not any(member.issym() or member.islnk() for member in members)


def test_the_wheel_is_pure_python_and_typed(wheel: Path) -> None:
    assert wheel.name == f"nitro_analyze-{__version__}-py3-none-any.whl"
    assert "nitro/py.typed" in zipfile.ZipFile(wheel).namelist()


IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
import nitro, nitro.errors
assert nitro.__file__.startswith(sys.prefix), nitro.__file__
names = [info.name for info in pkgutil.walk_packages(nitro.__path__, "nitro.")]
for name in sorted(names):
    try:
        importlib.import_module(name)
    except nitro.errors.ToolError as error:
        assert str(error).startswith("torch cannot be imported"), error
        name += " (torch)"
    print(name)
"""
# Operators of torch are made when their module is imported, so these say what is missing.
WITH_TORCH = {
    f"nitro.fused_kernels.{name}"
    for name in (
        "torch_calls",
        "torch_launch",
        "torch_ops",
        *(f"model.{one}" for one in ("deciding", "dual_encoder", "engine", "layers", "measuring")),
    )
}


def test_every_module_of_the_installed_wheel_can_be_imported(environment: Path) -> None:
    printed = run(environment / "bin" / "python", "-I", "-c", IMPORT_EVERYTHING, cwd=environment)
    modules = {
        "nitro." + re.sub(r"(/__init__)?\.py$", "", name).replace("/", ".")
        for name in sources()
        if name.endswith(".py") and name != "__init__.py"
    }
    assert set(printed.splitlines()) == {f"{name} (torch)" if name in WITH_TORCH else name for name in modules}


@pytest.mark.parametrize("name", ["nitro-analyze", "nitro"])
def test_the_commands_of_the_installed_wheel_run(environment: Path, name: str) -> None:
    assert run(environment / "bin" / name, "--version", cwd=environment) == f"nitro-analyze, version {__version__}\n"
    assert "list" in run(environment / "bin" / name, "--help", cwd=environment)


def test_the_installed_wheel_finds_its_metrics_by_discovery(environment: Path) -> None:
    assert "gpu_idle_by_cause" in run(environment / "bin" / "nitro-analyze", "list", "metrics", cwd=environment)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_link_in_src_leads_to_each_folder(folder: str) -> None:
    assert (ROOT / "src" / "nitro" / folder).resolve() == ROOT / folder


def test_there_is_no_link_in_src_but_these() -> None:
    links = {path.name for path in (ROOT / "src" / "nitro").iterdir() if path.is_symlink()}
    assert links == set(FOLDERS)
