"""The process that draws: a Vega-Lite specification a line comes in, an SVG as a JSON text a line goes out."""

from __future__ import annotations

import json
import sys

VEGA_LITE = "6.4"
_X, _Y, _KIND = {"field": "x", "type": "quantitative"}, {"field": "y", "type": "nominal"}, {"field": "y"}
_FIRST = {
    "data": {"values": [{"x": 1, "to": 2, "y": "a"}, {"x": 2, "to": 3, "y": "b"}]},
    "layer": [
        {
            "mark": {"type": "bar", "clip": True},
            "encoding": {"x": _X, "x2": {"field": "to"}, "y": _Y, "color": {**_KIND, "type": "nominal"}},
        },
        {"mark": "line", "encoding": {"x": _X, "y": _Y}},
        {"mark": "text", "encoding": {"x": _X, "y": _Y, "text": _KIND}},
    ],
}


def main() -> None:
    """Draw until there is nothing more to draw."""
    import vl_convert

    # The engine starts with the first figure, and compiles what that needs: it may do so before anybody waits.
    vl_convert.vegalite_to_svg(json.dumps(_FIRST), vl_version=VEGA_LITE)
    for line in sys.stdin.buffer:
        svg = vl_convert.vegalite_to_svg(line.decode(), vl_version=VEGA_LITE, allowed_base_urls=[])
        sys.stdout.write(json.dumps(svg) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
