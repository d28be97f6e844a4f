"""A study of fused kernels as a report: what `nitro-analyze fuse bench` measured, for readers.

It is made from the document that the study writes as JSON (`fused_kernels/study_store.py` says what is in it), since
reports know nothing of kernels: the same report can be made again from the file alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nitro import __version__
from nitro.analyzer.message import Message, joined, message
from nitro.errors import InputError

from .blocks import Block, Column, Figure, KeyFigure, KeyFigures, KeyValues, Language, Paragraph, Points, Table
from .figures import Spec, name_labels
from .language import translated
from .numbers import MISSING, Quantity, count, percent, quantity, rate
from .output import Documents, Settings
from .palette import COLOURS, SERIES
from .report import Chapter, FilledSection, Report
from .words import WORDS

if TYPE_CHECKING:
    from .renderers import svg

Row = Mapping[str, Any]

_WAYS: Mapping[str, Message] = {
    "sequential": message("one after the other"),
    "streams": message("two streams"),
    "graph": message("graph branches"),
    "elastic": message("elastic streams"),
    "intra_block": message("intra-block"),
    "inter_block_static": message("static inter-block"),
    "inter_block_ticket": message("ticket inter-block"),
    "intra_thread": message("intra-thread"),
}
# The baselines that a figure shows, the plainest first, and the mean over each of them.
_BASELINES: Mapping[str, tuple[Message, Message]] = {
    "simple": (message("over simple ways"), message("Mean gain over simple ways")),
    "simple_and_elastic": (message("elastic streams too"), message("Mean gain, elastic streams too")),
    "everything": (message("cuBLAS and cuDNN too"), message("Mean gain, cuBLAS and cuDNN too")),
}
# What is said of mean gains, without a library and with one.
_MEANS: Mapping[bool, Message] = {
    False: message(
        "Geometric means of the gain of the best fused way over the best without fusion: simple ways; elastic streams "
        "too. A case that the rule rejects runs without fusion and counts as 1."
    ),
    True: message(
        "Geometric means of the gain of the best fused way over the best without fusion: simple ways; elastic streams "
        "too; then cuBLAS and cuDNN as well, with arrays laid out as our kernels read them, or in any way. A case that "
        "the rule rejects runs without fusion and counts as 1."
    ),
}
_TARGETS: Mapping[str, Message] = {
    "accepted cases": message("accepted cases"),
    "compute bodies among the accepted cases": message("compute bodies among the accepted cases"),
    "geometric mean over simple, accepted cases": message("geometric mean over simple, accepted cases"),
    "least gain over simple, accepted cases": message("least gain over simple, accepted cases"),
    "best gain over simple, accepted cases": message("best gain over simple, accepted cases"),
    "geometric mean over simple and elastic, accepted cases": message(
        "geometric mean over simple and elastic, accepted cases"
    ),
    "geometric mean over everything with the library, accepted fp32 cases": message(
        "geometric mean over everything with the library, accepted fp32 cases"
    ),
    "controls rejected": message("controls rejected"),
    "mean error of the predicted time": message("mean error of the predicted time"),
    "largest regret of the tuner": message("largest regret of the tuner"),
}


def build_fusion_report(
    document: Mapping[str, Any], *, title: str | None = None, author: str = "", command: str | None = None
) -> Report:
    """Return the report of a study.

    Args:
        document: what the study wrote as JSON, with `identity`, `protocol`, `summary` and `rows`.
        title: the report's title.
        author: who stands under the title.
        command: the command line that made the report.

    Raises:
        InputError: the document has not what a study has.
    """
    try:
        device = document["identity"]["device"]
        parts = (
            ("fusion_summary", message("Does fusion pay?"), _summary(document)),
            ("fusion_cases", message("Cases"), _cases(document["rows"])),
            ("fusion_targets", message("What was asked for"), _targets(document)),
            ("fusion_method", message("How it was measured"), _method(document)),
        )
        subtitle = message(
            "{device}, {sms} SMs · Nitro {version}", device=device["name"], sms=device["sms"], version=__version__
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"this is no study of fused kernels ({error} is missing or wrong); measure it again."
        ) from error
    heading = title or message("Fused kernels")
    about = [(WORDS["made_by"], f"Nitro {__version__}")]
    if command:
        about.append((WORDS["command"], command))
    sections = tuple(FilledSection(name, said, blocks) for name, said, blocks in parts if blocks)
    return Report(heading, subtitle, (Chapter(heading, subtitle, sections),), about=tuple(about), author=author)


class FusionDocuments(Documents):
    """The documents about a study of fused kernels."""

    def __init__(self, document: Mapping[str, Any], settings: Settings, drawer: svg.Drawer | None = None) -> None:
        """Make documents; see `Documents`."""
        super().__init__((), settings, drawer)
        self._document = document

    def _in(self, language: Language) -> Report:
        settings = self._settings
        if self._report is None:
            self._report = build_fusion_report(
                self._document, title=settings.title, author=settings.author, command=settings.command
            )
        return translated(self._report, language)


# ---- in short -----------------------------------------------------------------------------------------------------


def _summary(document: Mapping[str, Any]) -> tuple[Block, ...]:
    summary, rows = document["summary"], document["rows"]
    accepted = [row for row in rows if row["accepted"]]
    compared = accepted or [row for row in rows if row["gains"]["simple"]]
    best = max(compared, key=lambda row: row["gains"]["simple"] or 0.0, default=None)
    if best is None or best["gains"]["simple"] is None:
        return (
            Paragraph(message("No fused way ran beside an unfused one, so there is no gain to report."), is_lead=True),
        )
    figures = []
    statistics = summary["accepted_cases"]
    for baseline, (_, said) in _BASELINES.items():
        known = statistics[baseline]
        if known["geometric_mean"] is not None:
            figures.append(
                KeyFigure(
                    said,
                    _gain(known["geometric_mean"]),
                    message("{least} to {best}", least=_gain(known["least"]), best=_gain(known["best"])),
                )
            )
    if not figures:
        figures.append(KeyFigure(message("Best gain over simple ways"), _gain(best["gains"]["simple"]), best["case"]))
    lead = message(
        "Of {cases} pairs the rule accepts {accepted}. Fused, they take between {least} and {best} of the best time "
        "without fusion, elastic streams included.",
        cases=count(summary.get("cases", len(rows))),  # without controls, which are there to be rejected
        accepted=count(len(accepted)),
        least=_part(compared, max),
        best=_part(compared, min),
    )
    return (
        Paragraph(lead, is_lead=True),
        KeyFigures(tuple(figures)),
        *_budget(document["protocol"].get("budget")),
        *_means_table(summary),
        *_winners_table(summary),
    )


def _means_table(summary: Mapping[str, Any]) -> tuple[Block, ...]:
    """Return the mean gains over every baseline, also by precision, and with what is rejected counted as 1."""
    groups = (
        (message("accepted"), "accepted_cases"),
        (message("accepted, fp32"), "accepted_fp32_cases"),
        (message("accepted, fp16"), "accepted_fp16_cases"),
        (message("all, fused or not as the rule says"), "all_cases_rejected_as_1"),
    )
    titles: tuple[tuple[str, Message], ...] = (
        ("simple", message("simple")),
        ("simple_and_elastic", message("elastic too")),
        ("everything_in_our_layout", message("library, our layout")),
        ("everything", message("library, any layout")),
    )
    if all(_mean(summary.get(group, {}).get("everything")) is MISSING for _, group in groups):
        titles = titles[:2]  # no library ran
    rows = []
    for said, group in groups:
        found = [_mean(summary.get(group, {}).get(baseline)) for baseline, _ in titles]
        if any(one is not MISSING for one in found):
            rows.append((said, *found))
    if len(rows) < 2:
        return ()
    columns = (Column(message("Case"), "left", flexible=True), *(Column(title) for _, title in titles))
    return (Table(columns, tuple(rows), _MEANS[len(titles) > 2], message("Mean gains"), "fusion_means"),)


def _mean(value: Mapping[str, Any] | float | None) -> Quantity:
    return _gain(value["geometric_mean"] if isinstance(value, Mapping) else value)


def _winners_table(summary: Mapping[str, Any]) -> tuple[Block, ...]:
    """Return in how many cases each strategy was the fastest of our ways."""
    wins = {name: known for name, known in summary.get("fastest", {}).items() if known["fastest_or_tied"]}
    if not wins:
        return ()
    columns = (
        Column(message("Way"), "left", flexible=True),
        Column(message("fastest")),
        Column(message("fastest or within 2 %")),
    )
    rows = tuple(
        (_WAYS.get(name, name), count(known["fastest"]), count(known["fastest_or_tied"]))
        for name, known in sorted(wins.items(), key=lambda one: -one[1]["fastest"])
    )
    never = [_WAYS.get(name, name) for name in summary["fastest"] if name not in wins]
    said = message("Cases in which a way was the fastest of ours; controls are not counted.")
    note = joined(" ", [said, message("Never: {ways}.", ways=joined(", ", never))]) if never else said
    return (Table(columns, rows, note, message("Which way won"), "fusion_winners"),)


def _part(rows: Sequence[Row], choose: Any) -> Quantity:
    gains = [row["gains"]["simple_and_elastic"] or row["gains"]["simple"] for row in rows]
    return percent(1 / choose(gain for gain in gains if gain))


def _budget(budget: Mapping[str, Any] | None) -> tuple[Block, ...]:
    if not budget:
        return ()
    text = message(
        "Measured on {sms} of {of} SMs. That is a part of a large GPU and no small GPU: its caches, latencies and "
        "clocks are those of the large one.",
        sms=budget["sms"],
        of=budget["of"],
    )
    return (Paragraph(text),)


def _gain(value: float | None) -> Quantity:
    return MISSING if value is None else quantity(f"{value:.3f}", value)


# ---- cases --------------------------------------------------------------------------------------------------------


def _cases(rows: Sequence[Row]) -> tuple[Block, ...]:
    if not rows:
        return ()
    return (*_figure(rows), _gains_table(rows), _times_table(rows), _ways_table(rows))


def _gains_table(rows: Sequence[Row]) -> Table:
    titles = (
        message("Gain"),
        message("95 % interval"),
        message("elastic too"),
        message("all"),
        message("bound"),
        message("reached"),
    )
    columns = (
        Column(message("Case"), "left"),
        *(Column(title) for title in titles),
        Column(message("Rule"), "left"),
        Column(message("Fastest of ours"), "left", flexible=True),
    )
    note = message(
        "Gain: the time of the best simple way (one after the other, two streams, graph branches) over that of the "
        "best fused way; elastic too: elastic streams count as unfused; all: cuBLAS and cuDNN as well. Bound: the gain "
        "if the shorter kernel cost nothing; reached: how much of that was gained. Ways within 2 % of the fastest are "
        "named with it."
    )
    return Table(columns, tuple(_gain_cells(row) for row in rows), note, message("Gains"), "fusion_gains", shown=40)


def _gain_cells(row: Row) -> tuple[str, ...]:
    gains, interval, share = row["gains"], row["intervals"]["simple"], row["share_of_bound"]
    return (
        row["case"],
        _gain(gains["simple"]),
        quantity(f"{interval[0]:.3f}–{interval[1]:.3f}", interval[0]) if interval else MISSING,
        _gain(gains["simple_and_elastic"]),
        _gain(gains["everything"]),
        _gain(row["bound"]),
        percent(share) if share is not None and share >= 0 else MISSING,
        message("accepted") if row["accepted"] else message("rejected"),
        joined(", ", [_WAYS.get(name, name) for name in row["fastest"]]),
    )


def _times_table(rows: Sequence[Row]) -> Table:
    names = ("first", "second", "simple", "elastic", "library", "fused")
    titles = (
        message("first alone"),
        message("second alone"),
        message("simple"),
        message("elastic"),
        message("library"),
        message("fused"),
    )
    cells = tuple(
        (row["case"], *(MISSING if row[f"{name}_us"] is None else _microseconds(row[f"{name}_us"]) for name in names))
        for row in rows
    )
    note = message("Medians in µs. Library: cuBLAS or cuDNN for the compute-bound kernel beside our memory-bound one.")
    columns = (Column(message("Case"), "left"), *(Column(title) for title in titles))
    return Table(columns, cells, note, message("Times"), "fusion_times", shown=40)


def _microseconds(value: float) -> Quantity:
    return quantity(f"{value:,.1f}", value)


def _ways_table(rows: Sequence[Row]) -> Table:
    columns = (
        Column(message("Case"), "left"),
        Column(message("Fastest fused way"), "left", flexible=True, is_name=True),
    )
    note = message("The strategy with the threads of its memory half, then the two bodies with their tiles.")
    cells = tuple((row["case"], row["fused"]) for row in rows if row["fused"])
    return Table(columns, cells, note, message("Which fused way won"), "fusion_ways", shown=40)


def _figure(rows: Sequence[Row]) -> tuple[Block, ...]:
    """Return the gains over each baseline as points, with intervals, beside the bound of each case."""
    shown = [row for row in rows if row["gains"]["simple"]]
    if not shown:
        return ()
    points: list[dict[str, Any]] = []
    for row in shown:
        for baseline, (said, _) in _BASELINES.items():
            gain, interval = row["gains"][baseline], row["intervals"][baseline]
            if gain:
                points.append(
                    {"case": row["case"], "over": said, "gain": gain, "low": interval[0], "high": interval[1]}
                )
    bounds = [{"case": row["case"], "bound": row["bound"], "over": message("bound")} for row in shown if row["bound"]]
    sentence = _said_of_gains(count(len(shown)), has_library=any(row["gains"]["everything"] for row in shown))
    title = message("Gain of fusion by case and baseline")
    return (Figure("fusion_gains", title, sentence, _gain_spec(shown, points, bounds)),)


def _said_of_gains(cases: Quantity, *, has_library: bool) -> Message:
    if not has_library:
        return message(
            "Gain of the best fused way in {cases} cases, over the best simple way, and elastic streams added; left of "
            "1 fusion loses. The gray mark is the largest gain that is possible.",
            cases=cases,
        )
    return message(
        "Gain of the best fused way in {cases} cases, over the best simple way, elastic streams added, and cuBLAS or "
        "cuDNN added; left of 1 fusion loses. The gray mark is the largest gain that is possible.",
        cases=cases,
    )


def _gain_spec(rows: Sequence[Row], points: list[dict[str, Any]], bounds: list[dict[str, Any]]) -> Spec:
    order = [row["case"] for row in rows]
    names = [said for name, (said, _) in _BASELINES.items() if any(row["gains"][name] for row in rows)]
    used = SERIES[: len(names)]
    y: Spec = {
        "field": "case",
        "type": "nominal",
        "sort": order,
        "title": None,
        "axis": {**name_labels(40), "grid": True, "labelOverlap": False},
    }
    x_title = message("gain: time of the baseline over time of the fused way")
    x: Spec = {"field": "gain", "type": "quantitative", "title": x_title, "scale": {"zero": False}}
    colour: Spec = {
        "field": "over",
        "type": "nominal",
        "scale": {"domain": names, "range": [one.colour for one in used]},
    }
    shape: Spec = {**colour, "scale": {"domain": names, "range": [one.shape for one in used]}}
    return {
        "height": 17 * len(order) + 10,
        "layer": [
            {
                "data": {"values": [{"one": 1}]},
                "mark": {"type": "rule", "strokeDash": [4, 3]},
                "encoding": {"x": {"field": "one", "type": "quantitative", "title": x_title}},
            },
            {
                "data": {"values": bounds},
                "mark": {"type": "tick", "thickness": 3, "size": 12, "color": COLOURS["others"]},
                "encoding": {"x": {**x, "field": "bound"}, "y": y},
            },
            {
                "data": {"values": points},
                "mark": {"type": "rule", "strokeWidth": 1.5},
                "encoding": {
                    "x": {**x, "field": "low"},
                    "x2": {"field": "high"},
                    "y": y,
                    "color": colour,
                },
            },
            {
                "data": {"values": points},
                "mark": {"type": "point", "filled": True, "size": 55},
                "encoding": {"x": x, "y": y, "color": colour, "shape": shape},
            },
        ],
    }


# ---- targets and method -------------------------------------------------------------------------------------------


def _targets(document: Mapping[str, Any]) -> tuple[Block, ...]:
    """Return the targets, of which a study of other pairs than the committed cases has none."""
    targets = document["summary"]["targets"]
    states = {True: message("met"), False: message("missed"), None: message("not measured")}
    columns = (
        Column(message("Target"), "left", flexible=True),
        Column(message("asked")),
        Column(message("measured")),
        Column(message("state"), "left"),
    )
    rows = tuple(
        (
            _TARGETS.get(target["what"], target["what"]),
            message("at least {number}", number=f"{target['asked']:g}")
            if target["at_least"]
            else message("at most {number}", number=f"{target['asked']:g}"),
            MISSING if target["measured"] is None else quantity(f"{target['measured']:.3g}", target["measured"]),
            states[target["met"]],
        )
        for target in targets
    )
    note = message("The cases, the rule that accepts a pair, and these numbers were fixed before anything was tuned.")
    return (Table(columns, rows, note, message("Targets"), "fusion_targets"),) if rows else ()


def _method(document: Mapping[str, Any]) -> tuple[Block, ...]:
    identity, protocol = document["identity"], document["protocol"]
    device, library = identity["device"], identity.get("library")
    # The program for boards without a current Python names its compiler here.
    compiler = identity["nvrtc"] if identity["nvrtc"].startswith("nvcc") else f"NVRTC {identity['nvrtc']}"
    facts: list[tuple[str, str]] = [
        (
            message("Device"),
            message(
                "{name} (sm_{sm}), driver {driver}",
                name=device["name"],
                sm=device["sm"],
                driver=device.get("driver") or "–",
            ),
        ),
        (message("Compiler"), compiler),
        (message("Device source"), identity["device_source"] or MISSING),
        (
            message("Libraries"),
            ", ".join(f"{name} {version}" for name, version in library.items())
            if library
            else message("not compared with"),
        ),
        (
            message("Judging samples"),
            message("{count} of each way, in rounds of their own", count=protocol["judging"]["samples"]),
        ),
    ]
    budget = protocol.get("budget")
    if budget:
        facts.append((message("Budget of SMs"), message("{sms} of {of}", sms=budget["sms"], of=budget["of"])))
        eaten = [case["eaten_bytes_per_s"] for case in document.get("cases", ()) if case.get("eaten_bytes_per_s")]
        if eaten:
            facts.append(
                (message("Read by the bandwidth eater beside it"), rate(sorted(eaten)[len(eaten) // 2], "B/s"))
            )
    rules = (
        (
            message("Fairness"),
            message(
                "Every way, fused or not, is tuned over all tiles; the winner of each kind is timed again, and only "
                "those samples are shown."
            ),
        ),
        (
            message("Order"),
            message(
                "All ways are timed in turn, forwards and then backwards, so that a drift of the clocks meets all of "
                "them."
            ),
        ),
        (message("Inputs"), message("Random numbers in rotating sets that together are larger than twice the L2.")),
        (
            message("Results"),
            message("Every fused winner has exactly the bits of its two kernels alone.")
            if document["summary"].get("same_bits")
            else message(
                "Some fused winner did not have the bits of its two kernels alone, so its time means nothing."
            ),
        ),
        (message("Ties"), message("Differences under 2 % are ties.")),
    )
    return (KeyValues(tuple(facts)), Points(rules))
