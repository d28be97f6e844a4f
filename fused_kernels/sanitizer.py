"""The checks of `verify` once more under NVIDIA's compute-sanitizer, in a process of their own.

memcheck finds accesses out of bounds and misaligned ones, synccheck wrong use of barriers, racecheck races in shared
memory, initcheck reads of memory that nothing wrote. They slow kernels down, racecheck most of all.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from nitro.errors import ToolError

Tool = Literal["memcheck", "synccheck", "racecheck", "initcheck"]
TOOLS: tuple[Tool, ...] = get_args(Tool)

_ERRORS_EXIT = 86  # neither of ours nor of a shell
_SUMMARY = re.compile(r"^=+ (?:ERROR|RACECHECK) SUMMARY: (.+)$", re.MULTILINE)
_DEFAULT_PLACE = "/usr/local/cuda/bin"


@dataclass(frozen=True, slots=True)
class Sanitized:
    """What a tool of compute-sanitizer said.

    Attributes:
        tool: which.
        passed: whether it found nothing and the checks beneath it passed.
        summary: its own last word, as `0 errors`.
        log: all it printed.
    """

    tool: Tool
    passed: bool
    summary: str
    log: str


def find_sanitizer() -> str | None:
    """Return the path of compute-sanitizer: on PATH, of CUDA_HOME, or of the usual place; None if there is none."""
    home = os.environ.get("CUDA_HOME")
    places = [*([str(Path(home) / "bin")] if home else ()), _DEFAULT_PLACE]
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=os.pathsep.join(places))


def sanitize(program: str, tool: Tool, only: Sequence[str] = ()) -> Sanitized:
    """Run the checks on small problems under a tool.

    Args:
        program: the path of compute-sanitizer.
        tool: which of its tools.
        only: patterns of names of bodies; none for all.

    Raises:
        ToolError: it did not run to its end, so that nothing is known.
    """
    checks = [sys.executable, "-m", "nitro.fused_kernels.device_check", "--skip-bench", "--scale", "1"]
    command = [program, "--tool", tool, "--error-exitcode", str(_ERRORS_EXIT), *checks]
    command += [part for pattern in only for part in ("--only", pattern)]
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                command,
                env={**os.environ, "OUT": folder},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
            )
        except OSError as error:
            raise ToolError(
                f"{program} cannot be run ({error.strerror}); install it again, or leave it out."
            ) from error
    found = _SUMMARY.findall(done.stdout)
    if not found or done.returncode not in (0, 1, _ERRORS_EXIT):
        said = [line for line in done.stdout.splitlines() if line.strip()] or ["it printed nothing"]
        raise ToolError(
            f"compute-sanitizer {tool} did not run to its end (exit code {done.returncode}): "
            f"{ascii(said[-1])[1:-1]}; look whether it knows this GPU and driver, or leave it out."
        )
    return Sanitized(tool, done.returncode == 0, found[0], done.stdout)
