"""Every file of the shared folders of other formats is read, or refused with a sentence and exit code 3 or 5."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nitro.analyzer.evidence import Evidence
from nitro.analyzer.opening import all_readers, head_of_input, open_input
from nitro.errors import InputError

FOLDER = Path(os.environ.get("NITRO_TRACES", "/nonexistent"))
FORMATS = {"ncu": "ncu", "nvprof": "nvprof-sqlite", "kineto": "kineto-json"}
REFUSED = {
    "Sh1mwww__llama3-inference__trace__fed2a2.json": "not of the PyTorch profiler",
    "koshiq__WikiText102__report1__LFSPOINTER.sqlite": "Git LFS pointer",
    "xstupi00__N-Body-OpenACC__profile__XML.nvvp": "Visual Profiler",
}
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs real traces: set NITRO_TRACES")


def files(*folders: str) -> list[Path]:
    return [file for folder in folders for file in sorted((FOLDER / folder).glob("*"))]


@pytest.mark.parametrize("path", files(*FORMATS), ids=lambda path: path.name[:50])
def test_a_good_file_is_read_by_the_reader_of_its_format(path: Path) -> None:
    if path.parent.name == "ncu":
        pytest.importorskip("ncu_report")
    opened = open_input(path)
    assert isinstance(opened, Evidence)
    assert opened.source.format == FORMATS[path.parent.name]
    assert (opened.left_out, opened.notes) == (0, ())
    assert opened.records > 0


@pytest.mark.parametrize("path", files("odd"), ids=lambda path: path.name[:50])
def test_an_odd_file_is_refused_with_a_sentence(path: Path) -> None:
    with pytest.raises(InputError, match=REFUSED[path.name]) as caught:
        open_input(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", files(*FORMATS, "nsys", "tegrastats", "odd"), ids=lambda path: path.name[:50])
def test_no_two_readers_of_one_rank_claim_a_file(path: Path) -> None:
    head = head_of_input(path)
    claims = [(reader.rank, reader.format) for reader in all_readers() if reader.recognises(head)]
    assert len({rank for rank, _ in claims}) == len(claims)
