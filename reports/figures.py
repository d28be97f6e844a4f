"""Figures as Vega-Lite specifications: one function a kind of figure, and the looks that renderers add.

A specification holds its data, texts as messages, and colours by name of `palette`. It has no width and no theme:
`dressed` adds both, and the page does the same for a screen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .blocks import Language
from .palette import SERIES

Spec = dict[str, Any]
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
# A font with Korean letters is large, and measuring a text in it takes twice as long: only Korean asks for it, and only
# after a font that has the digits, in which most labels are written. WeasyPrint takes a space for a part of the name.
FONTS: Mapping[Language, str] = {
    "en": "Inter,'Noto Sans','Liberation Sans',Arial,'DejaVu Sans',sans-serif",
    "ko": "Inter,'Liberation Sans',Arial,'Noto Sans CJK KR','Noto Sans KR','Apple SD Gothic Neo','Malgun Gothic'",
}

# The data of a mark that is drawn once: over the data of its figure, it would be drawn for every row.
ONE_ROW: Spec = {"values": [{}]}

# Pixels of a figure for paper from one tick of an axis to the next.
_BETWEEN_TICKS = 62

# Each part of a figure has series, colours and a legend of its own.
_APART: Spec = {"scale": {"color": "independent", "strokeDash": "independent", "shape": "independent"}}

INKS: Mapping[str, Mapping[str, str]] = {
    "light": {"ink": "#1d2733", "quiet": "#5b6773", "line": "#d9dee3", "paper": "#ffffff"},
    "dark": {"ink": "#e6eaee", "quiet": "#9aa7b3", "line": "#3a4550", "paper": "#161c22"},
}


def dressed(spec: Mapping[str, Any], *, width: int, scheme: str = "light", language: Language = "en") -> Spec:
    """Return a specification with width, fonts and the inks of a colour scheme, ready to be drawn."""
    return {"$schema": SCHEMA, **_with_width(spec, width), "config": config(scheme, language)}


def name_labels(characters: int) -> Spec:
    """Return how an axis shows names: of a longer name than so many characters the middle goes, as paths end unalike.

    Left to itself, Vega finds how much of a name fits its `labelLimit` by measuring it again and again, which takes
    longer than the rest of the figure.
    """
    head = characters // 3
    tail = characters - head - 1
    cut = f"slice(datum.label, 0, {head}) + '…' + slice(datum.label, -{tail})"
    return {"labelExpr": f"length(datum.label) > {characters} ? {cut} : datum.label", "labelLimit": 0}


def config(scheme: str, language: Language = "en") -> Spec:
    """Return the Vega-Lite configuration of a colour scheme, `light` or `dark`."""
    inks, fonts = INKS[scheme], FONTS[language]
    text = {"labelFont": fonts, "titleFont": fonts, "labelColor": inks["quiet"], "titleColor": inks["ink"]}
    return {
        "background": "transparent",
        "font": fonts,
        "view": {"stroke": None},
        "axis": {
            **text,
            "labelFontSize": 11,
            "titleFontSize": 11,
            "titleFontWeight": "normal",
            "gridColor": inks["line"],
            "domainColor": inks["line"],
            "tickColor": inks["line"],
            "titlePadding": 8,
            "labelOverlap": True,
        },
        "legend": {**text, "labelFontSize": 11, "title": None, "orient": "top", "labelLimit": 0, "symbolSize": 90},
        "header": {**text, "labelFontSize": 11, "title": None},
        "title": {"font": fonts, "color": inks["ink"], "fontSize": 12, "fontWeight": "normal", "anchor": "start"},
        "text": {"color": inks["ink"], "font": fonts, "fontSize": 11},
        "rule": {"color": inks["quiet"]},
    }


def _with_width(spec: Mapping[str, Any], width: int) -> Spec:
    made = dict(spec)
    for joint in ("hconcat", "vconcat"):
        if joint in made:
            parts = made[joint]
            each = width if joint == "vconcat" else (width - 70 * (len(parts) - 1)) // len(parts)
            made[joint] = [_with_width(part, each) for part in parts]
            return made
    made["width"] = width
    return _for_paper(made, max(width // _BETWEEN_TICKS, 3))


def _for_paper(spec: Mapping[str, Any], tick_count: int) -> Spec:
    """Return a specification without what paper does not show, and with about so many ticks along the axis below.

    Left to itself, Vega sets more of them than anybody reads; it measures the label of each, and WeasyPrint draws it
    letter by letter.
    """
    made = dict(spec)
    if "layer" in made:
        made["layer"] = [_for_paper(part, tick_count) for part in made["layer"]]
    if "encoding" in made:
        encoding = {channel: value for channel, value in made["encoding"].items() if channel != "tooltip"}
        x = encoding.get("x", {})
        if x.get("type") == "quantitative" and x.get("axis", {}) is not None:
            encoding["x"] = {**x, "axis": {"tickCount": tick_count, **x.get("axis", {})}}
        made["encoding"] = encoding
    return made


def over_time(
    rows: Iterable[tuple[float, str, float, str]],
    series: Sequence[str],
    *,
    x_title: str,
    y_title: str,
    height: int = 170,
    y_domain: tuple[float, float] | None = None,
    is_step: bool = True,
    y_format: str | None = None,
    x_domain: tuple[float, float] | None = None,
) -> Spec:
    """Return lines over time: rows of (time, series, value, value as text); series differ in colour and dash."""
    y: Spec = {"field": "value", "type": "quantitative", "title": y_title, "axis": {"tickCount": 5}}
    if y_domain is not None:
        y["scale"] = {"domain": list(y_domain)}
    if y_format is not None:
        y["axis"]["format"] = y_format
    x: Spec = {
        "field": "time",
        "type": "quantitative",
        "title": x_title,
        "scale": {"nice": False},
        "axis": {"grid": False},
    }
    if x_domain is not None:
        x["scale"]["domain"] = list(x_domain)
    names = list(series)
    shown = SERIES[: len(names)]
    encoding: Spec = {"x": x, "y": y}
    if len(names) > 1:
        encoding["color"] = {
            "field": "series",
            "type": "nominal",
            "scale": {"domain": names, "range": [entry.colour for entry in shown]},
        }
        encoding["strokeDash"] = {
            "field": "series",
            "type": "nominal",
            "scale": {"domain": names, "range": [list(entry.dash) for entry in shown]},
        }
    mark: Spec = {"type": "line", "strokeWidth": 1.4, "clip": True}
    if len(names) == 1:
        mark["color"] = SERIES[0].colour
    if is_step:
        mark["interpolate"] = "step-after"
    encoding["tooltip"] = [
        {"field": "series", "type": "nominal", "title": " "},
        {"field": "shown", "type": "nominal", "title": y_title},
        {"field": "time", "type": "quantitative", "title": x_title, "format": ",.3f"},
    ]
    values = [{"time": time, "series": name, "value": value, "shown": shown} for time, name, value, shown in rows]
    return {"data": {"values": values}, "height": height, "mark": mark, "encoding": encoding}


def stacked(*specs: Spec) -> Spec:
    """Return figures under one another, their x axes shared."""
    return {"vconcat": [dict(spec) for spec in specs], "spacing": 14, "resolve": _APART}


def beside(*specs: Spec) -> Spec:
    """Return figures beside one another."""
    return {"hconcat": [dict(spec) for spec in specs], "spacing": 30, "resolve": _APART}
