#!/usr/bin/env python3
"""How often verdicts are wrong: real repeated runs drawn without replacement, and simulated ones.

    python benchmarks/false_alarms.py summarise NAME "WHAT WAS RUN" RUN.sqlite[.xz]...    # once, from captures
    python benchmarks/false_alarms.py study --save false_alarms                           # from the summaries

`summarise` keeps the iteration periods of each run as benchmarks/results/runs/NAME.json; the captures are not needed
after that. `study` draws 5 runs a side without replacement, 500 times for each set of runs: both sides as they are
(A/A), and with one side slowed down by 5 %. It does the same with simulated runs, whose spread between runs is known.

- false alarm: improvement or regression in A/A. Bound: at most 5 %.
- caught: regression where 5 % were planted. Bound, where the spread is at most 1 %: at least 90 %.
- certain: "no meaningful difference" in A/A. Bound, likewise: at least 60 %.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nitro.analyzer.compare import Effect, effect_of

RESULTS = Path(__file__).parent / "results"
RUNS = RESULTS / "runs"
SIDE, TRIALS, PLANTED = 5, 500, 0.05
SEED = 20_261_121
SIMULATED_SPREADS = (0.005, 0.01, 0.02, 0.03)
SIMULATED_ITERATIONS, SIMULATED_WITHIN = 50, 0.02
Float64 = npt.NDArray[np.float64]
Side = list[Float64]


def main() -> None:
    """Summarise captures, or study the summaries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    summarise_parser = commands.add_parser("summarise")
    summarise_parser.add_argument("name")
    summarise_parser.add_argument("what")
    summarise_parser.add_argument("traces", nargs="+", type=Path)
    summarise_parser.set_defaults(run=lambda given: summarise(given.name, given.what, given.traces))
    study_parser = commands.add_parser("study")
    study_parser.add_argument("--save", metavar="NAME")
    study_parser.set_defaults(run=lambda given: study(given.save))
    arguments = parser.parse_args()
    arguments.run(arguments)


def summarise(name: str, what: str, traces: Sequence[Path]) -> None:
    """Keep the iteration periods of every run, and where they were taken."""
    from nitro.analyzer import open_trace
    from nitro.analyzer.view import View

    runs = []
    facts: dict[str, Any] = {}
    for path in traces:
        view = View(open_trace(path))
        options = view.trace.capture.options
        facts = {
            "gpu": ", ".join(device.name for device in view.trace.devices),
            "driver": options.get("driver_version"),
            "profiler": f"{view.trace.source.tool} {view.trace.source.tool_version}",
        }
        runs.append({"start_utc_ns": view.trace.capture.start_utc_ns, "periods_ns": view.window.periods_ns.tolist()})
    runs.sort(key=lambda run: run["start_utc_ns"] or 0)
    begin = runs[0]["start_utc_ns"] or 0
    for run in runs:
        run["started_after_s"] = round((run.pop("start_utc_ns") - begin) / 1e9, 1)
    RUNS.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"what": what, **facts, "runs": runs})
    (RUNS / f"{name}.json").write_text(text.replace('{"periods_ns"', '\n{"periods_ns"') + "\n")


def study(save: str | None) -> None:
    """Print what the verdicts were worth, and keep it under a name."""
    made: dict[str, Any] = {
        "runs_a_side": SIDE,
        "trials": TRIALS,
        "planted": PLANTED,
        "threshold": 0.02,
        "real": {file.stem: of_file(file) for file in sorted(RUNS.glob("*.json"))},
        "simulated": {f"{spread:g}": of_simulation(spread) for spread in SIMULATED_SPREADS},
    }
    text = json.dumps(made, indent=2)
    print(text)
    if save:
        (RESULTS / f"{save}.json").write_text(text + "\n")
    failed = [text for name, part in (*made["real"].items(), *made["simulated"].items()) for text in broken(name, part)]
    print("\n".join(failed) or "every bound holds", file=sys.stderr)
    sys.exit(1 if failed else 0)


def of_file(file: Path) -> dict[str, Any]:
    """Return the study of one set of real runs."""
    known = json.loads(file.read_text())
    runs = [np.array(run["periods_ns"], np.float64) for run in known["runs"]]
    generator = np.random.default_rng(SEED)

    def draw() -> tuple[Side, Side]:
        order = generator.permutation(len(runs))
        return [runs[place] for place in order[:SIDE]], [runs[place] for place in order[SIDE : 2 * SIDE]]

    medians = np.log([np.median(run) for run in runs])
    facts = {name: known[name] for name in ("what", "gpu", "driver", "profiler")}
    return {**facts, "runs": len(runs), "spread": float(medians.std(ddof=1)), **trials(draw)}


def of_simulation(spread: float) -> dict[str, Any]:
    """Return the study of simulated runs: log-normal between runs, skewed iterations inside them."""
    generator = np.random.default_rng(SEED)

    def side() -> Iterator[Float64]:
        for _ in range(SIDE):
            level = math.exp(generator.normal(0, spread))
            yield 1e7 * level * (1 + SIMULATED_WITHIN * generator.exponential(1, SIMULATED_ITERATIONS))

    return {"spread": spread, **trials(lambda: (list(side()), list(side())))}


def trials(draw: Callable[[], tuple[Side, Side]]) -> dict[str, float]:
    """Return the shares of verdicts over the trials, nothing changed and a slowdown planted."""
    same: Counter[str] = Counter()
    slower: Counter[str] = Counter()
    for _ in range(TRIALS):
        before, after = draw()
        same[verdict(before, after)] += 1
        slower[verdict(before, [run * (1 + PLANTED) for run in after])] += 1
    return {
        "false_alarms": (same["regression"] + same["improvement"]) / TRIALS,
        "no_meaningful_difference": same["no_meaningful_difference"] / TRIALS,
        "caught": slower["regression"] / TRIALS,
        "called_improvement": slower["improvement"] / TRIALS,
    }


def verdict(before: Side, after: Side) -> str:
    """Return the verdict on the median, as `compare` gives it; the bootstrap decides nothing and is left out."""
    effect = effect_of(before, after, resamples=0)
    assert isinstance(effect, Effect)
    return effect.verdict


def broken(name: str, part: dict[str, Any]) -> Iterator[str]:
    """Yield a sentence for every bound that does not hold."""
    if part["false_alarms"] > 0.05:
        yield f"{name}: {part['false_alarms']:.1%} false alarms"
    if part["spread"] <= 0.01 and part["caught"] < 0.9:
        yield f"{name}: caught {part['caught']:.1%} of what was planted"
    if part["spread"] <= 0.01 and part["no_meaningful_difference"] < 0.6:
        yield f"{name}: certain in {part['no_meaningful_difference']:.1%}"


if __name__ == "__main__":
    main()
