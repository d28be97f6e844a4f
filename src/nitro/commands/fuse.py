"""`nitro-analyze fuse`: fused kernels, and what they need, compute and gain."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nitro.errors import InputError, UsageError

if TYPE_CHECKING:
    from nitro.fused_kernels.pairs import Pair
    from nitro.fused_kernels.strategies import Kernel

_DEFAULT_ARCHITECTURES = ("sm_53", "sm_62", "sm_72", "sm_87", "sm_90")


class _ListsPairs(click.Command):
    """Adds the names of the pairs to the help; they are only looked up when the help is printed."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from nitro.fused_kernels.pairs import PAIRS

        with formatter.section("Pairs"):
            formatter.write_text(", ".join(PAIRS))
        super().format_epilog(ctx, formatter)


def _pairs(names: tuple[str, ...]) -> list[Pair]:
    from nitro.fused_kernels.pairs import PAIRS

    unknown = [name for name in names if name not in PAIRS]
    if unknown:
        raise UsageError(f"there is no pair {unknown[0]!r}; there are {', '.join(PAIRS)}.")
    return [PAIRS[name] for name in names or PAIRS]


def _write(text: str, to: str | None) -> None:
    if to == "-":
        click.echo(text)
    elif to is not None:
        try:
            Path(to).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{to}: cannot be written ({error.strerror}); choose another place.") from error


def _say(text: str) -> None:
    if sys.stderr.isatty():
        click.echo(text, err=True)


_json_option = click.option(
    "--json", "json_to", metavar="FILE", help="Write JSON to FILE; `-` prints it in the place of the table."
)
_pair_option = click.option(
    "--pair", "names", multiple=True, metavar="NAME", help="Pair of layers; may be given several times. Default: all."
)


@click.group("fuse")
def group() -> None:
    """Fused kernels: what they need, whether they are right, and what they gain."""


@group.command("resources", cls=_ListsPairs)
@click.option(
    "--arch",
    "architectures",
    multiple=True,
    metavar="SM",
    help=f"Architecture, as sm_87; may be given several times. Default: {', '.join(_DEFAULT_ARCHITECTURES)}.",
)
@_pair_option
@_json_option
def resources_command(architectures: tuple[str, ...], names: tuple[str, ...], json_to: str | None) -> None:
    """Print registers, spills, shared memory, barriers and resident blocks of every pair and strategy.

    It compiles with NVRTC and needs no GPU. A pair whose bodies an architecture cannot run is left out, and named on
    standard error.
    """
    from nitro.fused_kernels.resources import resource_reports, table

    found, left_out = _kernels(names, [_sm(name) for name in architectures or _DEFAULT_ARCHITECTURES])
    reports = resource_reports(found)
    for reason in left_out:
        click.echo(f"nitro-analyze: left out: {reason}", err=True)
    _write(json.dumps([report.as_dict() for report in reports], indent=1), json_to)
    if json_to != "-":
        click.echo(table(reports))


def _sm(name: str) -> int:
    from nitro.fused_kernels.occupancy import limits_of

    digits = name.removeprefix("sm_")
    if not digits.isdecimal():
        raise UsageError(f"{name!r} is no architecture; write it as sm_87.")
    return limits_of(int(digits)).sm


def _kernels(names: tuple[str, ...], architectures: list[int]) -> tuple[list[tuple[Kernel, int]], list[str]]:
    from nitro.fused_kernels.verify import pair_strategies

    found: list[tuple[Kernel, int]] = []
    left_out: list[str] = []
    for sm in architectures:
        for pair in _pairs(names):
            try:
                strategies = pair_strategies(*pair.bodies(sm))
            except UsageError as error:
                left_out.append(f"{pair.name} on sm_{sm}: {error}")
                continue
            found += [(pair.kernel(strategy, sm), sm) for strategy in strategies]
    return found, left_out


@group.command("verify")
@click.option("--emulate", is_flag=True, help="Run on the CPU, which is slow and needs g++, instead of a GPU.")
@_json_option
def verify_command(emulate: bool, json_to: str | None) -> None:
    """Check every body against double precision, and every fused kernel against the bodies alone, bit by bit.

    The exit code is 1 if a check failed.
    """
    from nitro.fused_kernels import open_runtime
    from nitro.fused_kernels.runtime_emulation import EmulatedRuntime
    from nitro.fused_kernels.verify import verify

    report = verify(EmulatedRuntime() if emulate else open_runtime(), progress=_say)
    _write(report.json(), json_to)
    if json_to != "-":
        click.echo(report.table())
    if not report.passed:
        sys.exit(1)


@group.command("bench", cls=_ListsPairs)
@_pair_option
@click.option("--samples", default=21, show_default=True, type=click.IntRange(min=3), help="Timings of every way.")
@click.option(
    "--balance",
    type=click.FloatRange(min=0, min_open=True),
    metavar="RATIO",
    help="Scale the memory-bound layer until it takes RATIO times as long as the other.",
)
@_json_option
def bench_command(names: tuple[str, ...], samples: int, balance: float | None, json_to: str | None) -> None:
    """Time every way to run pairs of layers on the GPU: in turn, in streams, as graphs, elastic, and fused."""
    from nitro.fused_kernels import open_runtime
    from nitro.fused_kernels.bench import as_json, bench, table

    pairs = _pairs(names)
    runtime = open_runtime()
    results = [bench(runtime, pair, samples=samples, balance=balance, progress=_say) for pair in pairs]
    _write(as_json(results, runtime), json_to)
    if json_to != "-":
        click.echo(table(results))


COMMAND = group
