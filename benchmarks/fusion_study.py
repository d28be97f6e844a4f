#!/usr/bin/env python3
"""Measure the committed fusion cases on this machine's GPU, and say what follows.

    PYTHONPATH=src python benchmarks/fusion_study.py --out results                      # all cases
    PYTHONPATH=src python benchmarks/fusion_study.py --out results --cases 'gemm_f32+*' --time-limit 120
    python benchmarks/fusion_study.py --show benchmarks/results/fusion_h200/study.json   # needs no GPU

Each case becomes a file in OUT/cases as soon as it is measured, and is not measured again while device, driver,
compiler and kernels stay the same; OUT/study.json is the document of all of them (nitro.fused_kernels.study_store). It
needs numpy, msgspec, cuda-core and NVRTC, and torch for the comparison with cuBLAS and cuDNN.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time
from pathlib import Path

from nitro.errors import InputError, NitroError

# The tuner's regret is known on these: fp32 and fp16, balanced and not.
EXHAUSTIVE = ("gemm_f32+layer_norm@0.9", "conv3x3_f32+gemv@0.5", "gemm_f16+layer_norm@0.5")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/fusion_study"), help="folder for the results")
    parser.add_argument("--cases", nargs="*", default=[], metavar="PATTERN", help="names as of a shell; default: all")
    parser.add_argument("--exhaustive", nargs="*", default=list(EXHAUSTIVE), metavar="PATTERN", help="also for regret")
    parser.add_argument("--samples", type=int, help="judging samples of each way; default: 21")
    parser.add_argument("--time-limit", type=float, metavar="S", help="begin no case after so many seconds")
    parser.add_argument("--no-library", action="store_true", help="leave cuBLAS and cuDNN out")
    parser.add_argument(
        "--among",
        nargs="*",
        type=Path,
        default=[],
        metavar="STUDY",
        help="only try fused ways that were among the best in these studies, where they have the kinds of kernels",
    )
    parser.add_argument(
        "--merge", nargs="*", type=Path, default=[], metavar="STUDY", help="put parts of a study together"
    )
    parser.add_argument("--show", type=Path, metavar="STUDY", help="print a study that was measured before")
    chosen = parser.parse_args()
    if chosen.samples is not None and chosen.samples < 3:
        parser.error(f"--samples is {chosen.samples}; an interval needs at least 3.")
    return chosen


def show(path: Path) -> None:
    from nitro.fused_kernels.study_store import budget_of, read_document
    from nitro.fused_kernels.study_summary import study_text

    results, content = read_document(path)
    print(study_text(results, budget_of(content["protocol"])))


def merge(paths: list[Path], place: Path) -> None:
    from nitro.fused_kernels.study_store import merged
    from nitro.fused_kernels.tuner import write_whole

    for path in paths:
        if place.exists() and path.exists() and place.samefile(path):
            raise InputError(f"{path}: this is put together, and never written to; name another --out.")
    write_whole(place, merged(paths))
    show(place)


def measure_all(chosen: argparse.Namespace) -> bool:
    from dataclasses import replace

    from nitro.fused_kernels import open_runtime
    from nitro.fused_kernels.compile_queue import CompileQueue
    from nitro.fused_kernels.study import Lab, measure, screen_all
    from nitro.fused_kernels.study_store import CaseFiles, document, identity_of, protocol_of, read_document
    from nitro.fused_kernels.study_summary import study_text
    from nitro.fused_kernels.subjects import most_telling_first, subjects
    from nitro.fused_kernels.tuner import write_whole
    from nitro.fused_kernels.vendor import open_library

    begin = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begin:7.1f} s  {text}", flush=True)

    wanted = subjects(chosen.cases)
    runtime = open_runtime()
    library = None
    if not chosen.no_library:
        try:
            library = open_library()
        except NitroError as error:
            say(f"without the library: {error}")
    with CompileQueue(runtime.facts.sm) as queue:
        lab = Lab(runtime, queue, library, prior=[one for path in chosen.among for one in read_document(path)[0]])
        if chosen.samples:
            lab.judging = replace(lab.judging, samples=chosen.samples)
        files = CaseFiles(chosen.out / "cases", identity_of(runtime, library))
        results = {one.name: held for one in wanted if (held := files.read(one.name))}
        left = most_telling_first(one for one in wanted if one.name not in results)
        left.sort(key=lambda one: files.has_failed(one.name))
        say(f"{runtime.facts.name}: {len(results)} cases are there, {len(left)} to measure")
        failures = screen_all(lab, left, say)
        for subject in left:
            if chosen.time_limit and time.monotonic() - begin > chosen.time_limit:
                failures.append(f"{subject.name}: not begun, the time was up")
                continue
            exhaustive = any(fnmatch.fnmatchcase(subject.name, pattern) for pattern in chosen.exhaustive)
            try:
                result = measure(lab, subject, exhaustive=exhaustive)
            except NitroError as error:
                failures.append(f"{subject.name}: {error}")
                files.note_failure(subject.name, str(error))
                continue
            results[subject.name] = result
            files.write(result)
            say(f"{subject.name}: {len(result.table)} ways in {result.seconds:.1f} s")
        ordered = [results[one.name] for one in wanted if one.name in results]
        text = document(ordered, files.identity, protocol_of(lab))
    write_whole(chosen.out / "study.json", text)
    print(study_text(ordered))
    for one in ordered:
        for failure in one.failures[:3]:
            print(f"did not run: {one.name}: {failure}")
    print(*(f"FAILED {failure}" for failure in failures), sep="\n")
    say("done")
    return not failures


def main() -> int:
    chosen = arguments()
    try:
        if chosen.show:
            show(chosen.show)
            return 0
        if chosen.merge:
            merge(chosen.merge, chosen.out / "study.json")
            return 0
        return 0 if measure_all(chosen) else 1
    except NitroError as error:
        print(f"fusion_study: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
