"""Make `templates/vendor/vega-embed.js.gz`, the Vega libraries that draw the figures of an HTML report.

    python docs/make_vega_bundle.py

It is what `vl_convert.javascript_bundle()` returns, compressed. Making it takes two seconds, more than a whole report
may, and it only changes with vl-convert; so it is kept, with the version that it came from. A test compares the two.
"""

from __future__ import annotations

import gzip
from pathlib import Path

VENDOR = Path(__file__).resolve().parents[1] / "templates" / "vendor"
BUNDLE = VENDOR / "vega-embed.js.gz"
VERSION = VENDOR / "version.txt"


def bundle() -> bytes:
    """Return the libraries, compressed; the same bytes for the same version."""
    import vl_convert

    return gzip.compress(vl_convert.javascript_bundle().encode(), 9, mtime=0)


def version() -> str:
    """Return which libraries the installed vl-convert brings."""
    import vl_convert

    lite = vl_convert.get_vegalite_versions()[-1]
    parts = (
        f"Vega {vl_convert.get_vega_version()}",
        f"Vega-Lite {lite}",
        f"Vega-Embed {vl_convert.get_vega_embed_version()}",
    )
    return f"vl-convert {vl_convert.__version__}: {', '.join(parts)}"


if __name__ == "__main__":
    BUNDLE.write_bytes(bundle())
    VERSION.write_text(version() + "\n")
    print(f"{BUNDLE.name}: {BUNDLE.stat().st_size:,} bytes")
