"""Layer profiles of trtexec."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nitro.analyzer.layers import LayerProfile
from nitro.analyzer.opening import open_input
from nitro.errors import InputError


def read(path: Path, value: object) -> LayerProfile:
    path.write_text(json.dumps(value))
    opened = open_input(path)
    assert isinstance(opened, LayerProfile)
    return opened


def test_a_profile_has_mean_times(tmp_path: Path) -> None:
    layers = [
        {"name": "conv1", "timeMs": 20.0, "averageMs": 0.5, "medianMs": 0.4, "percentage": 80},
        {"name": "conv2", "timeMs": 8.0, "averageMs": 0.2, "percentage": 20},
    ]
    profile = read(tmp_path / "p", [{"count": 40}, *layers])
    assert profile.iterations == 40
    assert profile.layers["name"].to_list() == ["conv1", "conv2"]
    assert profile.layers["mean_ns"].to_list() == [500_000.0, 200_000.0]
    assert (profile.records, profile.left_out) == (2, 0)


def test_detailed_layer_information_has_types_and_tactics(tmp_path: Path) -> None:
    entry = {"Name": "conv1", "LayerType": "CaskConvolution", "TacticName": "ampere_h1688", "Inputs": []}
    profile = read(tmp_path / "p", {"Layers": [entry, "plain name", 7], "Bindings": ["input"]})
    assert profile.layers.rows() == [
        ("conv1", None, "CaskConvolution", "ampere_h1688"),
        ("plain name", None, None, None),
    ]
    assert profile.left_out == 1


def test_damaged_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p"
    path.write_text('[{"count": 3}, {"name": "conv1", "timeMs": 1, "averageMs": 0.1')
    with pytest.raises(InputError, match="damaged"):
        open_input(path)
