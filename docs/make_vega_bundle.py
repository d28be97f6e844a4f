"""Make `templates/vendor/vega-embed.js.gz`, the Vega libraries that draw the figures of an HTML report.

    python docs/make_vega_bundle.py

It is what `vl_convert.javascript_bundle()` returns, compressed. Making it takes two seconds, more than a whole report
may, and it only changes with vl-convert; so it is kept. A test says when it is out of date.
"""

from __future__ import annotations

import gzip
from pathlib import Path

BUNDLE = Path(__file__).resolve().parents[1] / "templates" / "vendor" / "vega-embed.js.gz"


def bundle() -> bytes:
    """Return the libraries, compressed; the same bytes for the same version."""
    import vl_convert

    return gzip.compress(vl_convert.javascript_bundle().encode(), 9, mtime=0)


if __name__ == "__main__":
    BUNDLE.write_bytes(bundle())
    print(f"{BUNDLE.name}: {BUNDLE.stat().st_size:,} bytes")
