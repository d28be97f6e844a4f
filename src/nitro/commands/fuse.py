"""`nitro-analyze fuse`: fused kernels, and what they need, compute and gain."""

from __future__ import annotations

import json
import math
import shutil
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nitro.commands._options import lang_option
from nitro.commands._outputs import check_outputs, suffix_of
from nitro.commands._reports import settings_of
from nitro.errors import InputError, ToolError, UsageError

if TYPE_CHECKING:
    from nitro.fused_kernels.pairs import Pair
    from nitro.fused_kernels.sanitizer import Tool
    from nitro.fused_kernels.strategies import Kernel
    from nitro.fused_kernels.subjects import Subject
    from nitro.reports.blocks import Language
    from nitro.reports.output import Paper, Settings

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


def _width() -> int | None:
    """Return how wide the terminal is; None where the output goes elsewhere, which may be as wide as it likes."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


_json_option = click.option(
    "--json", "json_to", metavar="FILE", help="Write JSON to FILE; `-` prints it in the place of the table."
)
_pair_option = click.option(
    "--pair", "names", multiple=True, metavar="NAME", help="Pair of layers; may be given several times. Default: all."
)


def _finite(_ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Refuse `nan` and `inf`, which are numbers to click."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no number to measure with.", param=param)
    return value


@click.group("fuse")
def group() -> None:
    """Fused kernels: what they need, whether they are right, and what they gain."""


_output_option = click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a report; the suffix is the format: .html, .pdf, .md or .json. May be given several times.",
)


def _write_reports(document: str, outputs: tuple[Path, ...], looks: Settings) -> None:
    """Write a study as reports, all of them or none."""
    from nitro.reports import output
    from nitro.reports.fusion import FusionDocuments

    if not outputs:
        return
    suffixes = [suffix_of(file) for file in outputs]
    with output.drawing() if ".pdf" in suffixes else nullcontext() as drawer:
        documents = FusionDocuments(json.loads(document), looks, drawer)
        drawn = [
            output.FORMATS[suffix](documents) if suffix in output.FORMATS else f"{document}\n".encode()
            for suffix in suffixes
        ]
    for file, content in zip(outputs, drawn, strict=True):
        output.write_file(file, content)


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

    check_outputs((), (), json_to)
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
                strategies = pair_strategies(*pair.bodies(sm), sm)
            except UsageError as error:
                left_out.append(f"{pair.name} on sm_{sm}: {error}")
                continue
            found += [(pair.kernel(strategy, sm), sm) for strategy in strategies]
    return found, left_out


@group.command("verify")
@click.option("--emulate", is_flag=True, help="Run on the CPU, which is slow and needs g++, instead of a GPU.")
@click.option(
    "--only",
    multiple=True,
    metavar="PATTERN",
    help="Only pairs with a body of such a name, as 'gemm_f32*' or '*layer_norm*'; may be given several times.",
)
@click.option(
    "--sanitizer",
    "sanitizers",
    multiple=True,
    type=click.Choice(["memcheck", "synccheck", "racecheck", "initcheck", "none"]),
    help="Check again on small problems under this tool of compute-sanitizer; may be given several times. Default: "
    "memcheck and synccheck, where compute-sanitizer is found. racecheck takes long; narrow it with --only.",
)
@_json_option
def verify_command(emulate: bool, only: tuple[str, ...], sanitizers: tuple[str, ...], json_to: str | None) -> None:
    """Check every body against double precision, and every fused kernel against the bodies alone, bit by bit.

    The exit code is 1 if a check failed, or if compute-sanitizer found something.

    \b
    Examples:
      nitro-analyze fuse verify
      nitro-analyze fuse verify --only 'gemm_f32*' --sanitizer racecheck
      nitro-analyze fuse verify --emulate --only 'softmax*'
    """  # noqa: D301
    from nitro.fused_kernels import open_runtime
    from nitro.fused_kernels.runtime_emulation import EmulatedRuntime
    from nitro.fused_kernels.sanitizer import sanitize
    from nitro.fused_kernels.verify import matching_cases, verify

    check_outputs((), (), json_to)
    program, tools = _sanitizers(sanitizers, emulate=emulate)
    runtime = EmulatedRuntime() if emulate else open_runtime()
    report = verify(runtime, matching_cases(runtime.facts.sm, only=only), progress=_say)
    for tool in tools:
        _say(f"compute-sanitizer {tool} …")
        try:
            report.sanitized.append(sanitize(program, tool, only))
        except ToolError as error:
            if sanitizers:
                raise
            click.echo(f"nitro-analyze: left out: {error}", err=True)
    _write(report.json(), json_to)
    if json_to != "-":
        click.echo(report.table())
    if not report.passed:
        sys.exit(1)


def _sanitizers(wanted: tuple[str, ...], *, emulate: bool) -> tuple[str, tuple[Tool, ...]]:
    """Return compute-sanitizer and its tools to run: those that are wanted, or the usual ones where it is found."""
    from nitro.fused_kernels.sanitizer import TOOLS, find_sanitizer

    program = find_sanitizer()
    if not wanted:
        return program or "", ("memcheck", "synccheck") if program and not emulate else ()
    tools = tuple(one for one in TOOLS if one in wanted)
    if "none" in wanted and tools:
        raise UsageError("--sanitizer none leaves compute-sanitizer out; leave that out, or the other tools.")
    if tools and emulate:
        raise UsageError("compute-sanitizer looks at kernels on a GPU; leave --emulate out, or --sanitizer.")
    if tools and not program:
        raise ToolError("compute-sanitizer is not on PATH; install the CUDA toolkit, or leave --sanitizer out.")
    return program or "", tools


_case_option = click.option(
    "--case",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Cases fixed for the fusion study, by name or as 'gemm_f32+*'; may be given several times.",
)
_set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="SIZE=N",
    help="Another size, as first.rows=4096 or second.columns=768; may be given several times.",
)


def _subjects(names: tuple[str, ...], patterns: tuple[str, ...], settings: tuple[str, ...]) -> list[Subject]:
    """Return the pairs and cases that were asked for; all pairs where none was."""
    from nitro.fused_kernels.subjects import reshaped, subject_of, subjects

    found = [subject_of(pair) for pair in _pairs(names)] if names or not patterns else []
    found += subjects(patterns) if patterns else ()
    return [reshaped(subject, settings) for subject in found]


@group.command("bench", cls=_ListsPairs)
@_pair_option
@_case_option
@_set_option
@click.option(
    "--strategy",
    "strategies",
    multiple=True,
    metavar="NAME",
    help="Only these ways: sequential, streams, graph, elastic, intra_block, inter_block_static, inter_block_ticket, "
    "intra_thread, library. Default: all.",
)
@click.option("--samples", default=21, show_default=True, type=click.IntRange(min=3), help="Judging samples of a way.")
@click.option(
    "--balance",
    type=click.FloatRange(min=0, min_open=True),
    callback=_finite,
    metavar="RATIO",
    help="Scale the memory-bound layer until it takes RATIO times as long as the other.",
)
@click.option("--exhaustive", is_flag=True, help="Measure every way again, for the regret of the tuner; takes longer.")
@click.option(
    "--sms",
    type=click.IntRange(min=1),
    metavar="N",
    help="Measure on N SMs of the GPU, without a library (green contexts: CUDA 12.4; an H200 gives 8, 16, …).",
)
@click.option(
    "--eater",
    "eater_strength",
    type=click.FloatRange(min=0, max=1, min_open=True),
    callback=_finite,
    is_flag=False,
    flag_value=1.0,
    metavar="[STRENGTH]",
    help="With --sms: let a kernel on the other SMs take bandwidth away, with STRENGTH of its blocks. Default: 1.",
)
@_output_option
@lang_option
@_json_option
def bench_command(
    names: tuple[str, ...],
    patterns: tuple[str, ...],
    settings: tuple[str, ...],
    strategies: tuple[str, ...],
    samples: int,
    balance: float | None,
    exhaustive: bool,
    sms: int | None,
    eater_strength: float | None,
    outputs: tuple[Path, ...],
    lang: Language | None,
    json_to: str | None,
) -> None:
    """Time pairs of layers on the GPU: in turn, in streams, as graphs, elastic, with cuBLAS or cuDNN, and fused.

    Each way is tuned on samples of its own; the winners are timed again, in turn, on rotating inputs larger than twice
    the L2, and the table shows those times: medians in microseconds, the gain of fusion over the best simple way with
    its 95 % interval, over that or elastic streams, and over everything. `bound` is the largest possible gain.

    \b
    Examples:
      nitro-analyze fuse bench --pair gemm+layer_norm --balance 0.9
      nitro-analyze fuse bench --case 'conv3x3_f32+*' --json study.json -o study.html
      nitro-analyze fuse bench --pair conv3x3+gemv --set first.images=8 --set second.outputs=4096
      nitro-analyze fuse bench --pair gemm+gemv --strategy sequential --strategy elastic --strategy intra_block
      nitro-analyze fuse bench --pair conv3x3+gemv --sms 8 --eater 0.25
    """  # noqa: D301
    from dataclasses import replace

    from nitro.fused_kernels import open_runtime
    from nitro.fused_kernels.candidates import families
    from nitro.fused_kernels.compile_queue import CompileQueue
    from nitro.fused_kernels.sm_budget import Budget, sm_budget
    from nitro.fused_kernels.study import Lab, measure
    from nitro.fused_kernels.study_store import document, identity_of, protocol_of
    from nitro.fused_kernels.study_summary import study_text
    from nitro.fused_kernels.vendor import open_library

    wanted = _subjects(names, patterns, settings)
    chosen = families(strategies)
    check_outputs((), outputs, json_to)
    looks = settings_of(lang, None, None, None, None)
    if eater_strength and not sms:
        raise UsageError("--eater takes bandwidth away from a budget of SMs; say with --sms how many that has.")
    runtime = open_runtime()
    budget: Budget | None = None
    beside: AbstractContextManager[object] = nullcontext()
    if sms:
        budget = Budget(sms, runtime.facts.sms, eater_strength)
        runtime, beside = sm_budget(runtime, sms, eater_strength=eater_strength)
    try:
        # A library chooses its kernels for the whole GPU.
        library = open_library() if "library" in chosen and not sms else None
    except ToolError as error:
        click.echo(f"nitro-analyze: without cuBLAS and cuDNN: {error}", err=True)
        library = None
    with CompileQueue(runtime.facts.sm) as queue:
        lab = Lab(runtime, queue, library, families=chosen, beside=beside, budget=budget)
        lab.judging = replace(lab.judging, samples=samples)
        results = []
        for subject in wanted:
            _say(f"{subject.name} …")
            try:
                scaled = lab.balance(subject, balance) if balance else subject
            except UsageError as error:
                if names or patterns:
                    raise
                click.echo(f"nitro-analyze: left out: {subject.name}: {error}", err=True)
                continue
            results.append(measure(lab, scaled, exhaustive=exhaustive))
    text = document(results, identity_of(runtime, library), protocol_of(lab))
    _write(text, json_to)
    _write_reports(text, outputs, looks)
    if json_to != "-":
        click.echo(study_text(results, budget, _width()))


@group.command("report")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="STUDY.json")
@_output_option
@lang_option
@click.option("--title", help="Title of the report.")
@click.option("--author", help="Author, shown under the title.")
@click.option("--paper", type=click.Choice(["a4", "letter"]), help="Paper of the PDF.  [default: a4]")
def report_command(
    file: Path,
    outputs: tuple[Path, ...],
    lang: Language | None,
    title: str | None,
    author: str | None,
    paper: Paper | None,
) -> None:
    """Write a report of a study that was measured before; needs no GPU.

    STUDY.json is what `fuse bench --json`, benchmarks/fusion_study.py or the program csrc/bench.cu wrote. Without -o
    its table is printed, in English.

    \b
    Example:
      nitro-analyze fuse report study.json -o study.html -o study.pdf --lang ko
    """  # noqa: D301
    from nitro.fused_kernels.study_store import budget_of, document, read_document
    from nitro.fused_kernels.study_summary import study_text

    check_outputs((file,), outputs, None)
    results, content = read_document(file)
    if outputs:
        text = document(results, content["identity"], content["protocol"])
        _write_reports(text, outputs, settings_of(lang, title, author, paper, None))
    else:
        click.echo(study_text(results, budget_of(content["protocol"]), _width()))


@group.command("tune", cls=_ListsPairs)
@_pair_option
@_case_option
@_set_option
@click.option(
    "--cache",
    "cache_at",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where choices are kept. Default: one file for each device in the user's cache.",
)
@click.option("--again", is_flag=True, help="Tune what is in the cache already once more.")
@_json_option
def tune_command(
    names: tuple[str, ...],
    patterns: tuple[str, ...],
    settings: tuple[str, ...],
    cache_at: Path | None,
    again: bool,
    json_to: str | None,
) -> None:
    """Choose how to run pairs of layers on this GPU, and remember it.

    All strategies, tiles, numbers of warps and blocks, and preferences for shared memory compete; so do running one
    after the other, in streams, and in elastic streams. A choice is tuned anew when the shapes, the driver, the
    compiler or the kernels change; a cache from another GPU is refused.

    \b
    Examples:
      nitro-analyze fuse tune --pair gemm+layer_norm
      nitro-analyze fuse tune --case 'gemm_f16+*' --cache tuning.json
      nitro-analyze fuse tune --pair conv3x3+gemv --set first.images=8 --again --json -
    """  # noqa: D301
    from nitro.fused_kernels import open_runtime
    from nitro.fused_kernels.compile_queue import CompileQueue
    from nitro.fused_kernels.tuner import TuningCache, choose_way, default_cache

    wanted = _subjects(names, patterns, settings)
    check_outputs((cache_at,) if cache_at else (), (), json_to)
    runtime = open_runtime()
    cache = TuningCache(cache_at or default_cache(runtime.facts), runtime.facts)
    rows = []
    with CompileQueue(runtime.facts.sm) as queue:
        for subject in wanted:
            _say(f"{subject.name} …")
            choice, tuning = choose_way(
                runtime, subject.first, subject.second, cache=cache, queue=queue, remembered=not again
            )
            rows.append(
                {
                    "pair": subject.name,
                    "choice": choice.candidate.name,
                    "is_fused": choice.is_fused,
                    "median_us": choice.median_us,
                    "best_unfused_us": choice.unfused_us,
                    "gain": choice.gain,
                    "ways": len(tuning.race.ranked) if tuning else None,
                }
            )
    _write(json.dumps({"cache": str(cache.path), "choices": rows}, indent=1), json_to)
    if json_to != "-":
        for row in rows:
            source = f"{row['ways']} ways measured" if row["ways"] else "from the cache"
            click.echo(f"{row['pair']}: {row['choice']}")
            click.echo(f"  {row['median_us']:.1f} us, best unfused {row['best_unfused_us']:.1f} us, {source}")
        click.echo(f"choices are in {cache.path}")


COMMAND = group
