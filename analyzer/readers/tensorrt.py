"""TensorRT layer profiles: the JSON of `trtexec --exportProfile` and `--exportLayerInfo`.

A profile is a list: the number of inferences first, then one object a layer with `name`, `timeMs` (sum), `averageMs`
and, in newer versions, `medianMs`. Layer information is an object with `Layers`: names alone, or, for an engine that
was built with detailed verbosity, objects with `Name`, `LayerType` and `TacticName`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from nitro.errors import InputError

from ..layers import LAYER_PROFILE_COLUMNS, LayerProfile
from ..message import message, one_or_many
from ..reader import Head, Reader
from ..trace import Source
from ._contract import file_name

FORMAT = "tensorrt-layers"
_MOST_BYTES = 1 << 28
_NS_OF_MS = 1e6


def recognises(head: Head) -> bool:
    """Tell whether this is a layer profile or layer information of TensorRT."""
    text = head.text.lstrip()
    is_profile = text.startswith("[") and '"averageMs"' in text and '"name"' in text
    return is_profile or (text.startswith("{") and '"Layers"' in text[:200])


def read(path: Path) -> LayerProfile:
    """Return the layers in a JSON file of trtexec.

    Raises:
        InputError: the file is damaged or lists no layers.
    """
    from ._sqlite_file import _opened

    with _opened(path) as stream:
        data = stream.read(_MOST_BYTES)
    try:
        value = json.loads(data.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: the JSON is damaged ({error}); export the layers again with trtexec.") from None
    entries = value.get("Layers") if isinstance(value, dict) else value
    entries = entries if isinstance(entries, list) else []
    iterations = next((e["count"] for e in entries if isinstance(e, dict) and isinstance(e.get("count"), int)), None)
    layers = [layer for entry in entries if (layer := _layer(entry, iterations)) is not None]
    if not layers:
        raise InputError(f"{path}: no layer of TensorRT; make the file with `trtexec --exportProfile=layers.json`.")
    left_out = len(entries) - len(layers) - (iterations is not None)
    one = message("1 entry was no layer and was left out.")
    note = one_or_many(left_out, one, message("{count:,} entries were no layers and were left out.", count=left_out))
    return LayerProfile(
        source=Source(file_name=file_name(path.name), format=FORMAT, size_bytes=path.stat().st_size, tool="TensorRT"),
        records=len(layers),
        left_out=left_out,
        notes=(note,) if left_out else (),
        layers=pl.DataFrame(layers, schema=LAYER_PROFILE_COLUMNS),
        iterations=iterations,
    )


def _layer(entry: object, iterations: int | None) -> dict[str, Any] | None:
    if isinstance(entry, str):
        return {"name": entry, "mean_ns": None, "layer_type": None, "tactic": None}
    if not isinstance(entry, dict):
        return None
    name = entry.get("name", entry.get("Name"))
    if not isinstance(name, str):
        return None
    mean = entry.get("averageMs")
    if not isinstance(mean, (int, float)):
        total = entry.get("timeMs")
        mean = total / iterations if isinstance(total, (int, float)) and iterations else None
    return {
        "name": name,
        "mean_ns": None if mean is None else float(mean) * _NS_OF_MS,
        "layer_type": _text(entry.get("LayerType")),
        "tactic": _text(entry.get("TacticName")),
    }


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


READER = Reader(
    format=FORMAT,
    title=message("TensorRT layer profile"),
    gives="evidence",
    recognises=recognises,
    read=read,
    rank=38,
)
