"""The process that draws: a Vega-Lite specification a line comes in, an SVG as a JSON text a line goes out."""

from __future__ import annotations

import json
import sys

VEGA_LITE = "6.4"
_FIRST = '{"mark": "point", "data": {"values": [{"x": 1}]}, "encoding": {"x": {"field": "x", "type": "quantitative"}}}'


def main() -> None:
    """Draw until there is nothing more to draw."""
    import vl_convert

    # The engine starts with the first figure, which may as well be drawn before anybody waits.
    vl_convert.vegalite_to_svg(_FIRST, vl_version=VEGA_LITE)
    for line in sys.stdin.buffer:
        svg = vl_convert.vegalite_to_svg(line.decode(), vl_version=VEGA_LITE, allowed_base_urls=[])
        sys.stdout.write(json.dumps(svg) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
