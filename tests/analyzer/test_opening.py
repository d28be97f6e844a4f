"""Inputs are told apart by their content, and evidence finds its trace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from builders import kernel, trace, write_nsys_sqlite
from nitro.analyzer import Evidence, Source, Trace, open_input, open_inputs, open_trace
from nitro.analyzer.opening import all_readers, head_of_input
from nitro.analyzer.reader import HEAD_BYTES, Head
from nitro.errors import InputError, UsageError

TEGRASTATS = "RAM 1/2MB (lfb 1x1MB) CPU [1%@102] VDD_IN 5000mW/5000mW\n"
SMI = "timestamp, power.draw.instant [W]\n2026/11/21 02:02:50.120, 115.31 W\n"
OWN = "# nitro power log 1\nrealtime_ns,VDD_IN_mw\n1788249045575991132,5000\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_nsys_sqlite(tmp_path / "run.sqlite", trace(kernels=[kernel(0, 10)]))


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "expected"), [(TEGRASTATS, "tegrastats"), (SMI, "nvidia-smi"), (OWN, "nitro-power-log")]
)
@pytest.mark.parametrize("name", ["a.log", "a.sqlite", "a.json", "a"])
def test_the_content_decides_and_not_the_name(tmp_path: Path, text: str, expected: str, name: str) -> None:
    found = open_input(written(tmp_path, name, text))
    assert isinstance(found, Evidence)
    assert found.source.format == expected


def test_exactly_one_reader_claims_each_format(run: Path, tmp_path: Path) -> None:
    heads = [head_of_input(written(tmp_path, f"{n}", text)) for n, text in enumerate((TEGRASTATS, SMI, OWN))]
    for head in (*heads, head_of_input(run)):
        assert len([reader.format for reader in all_readers() if reader.recognises(head)]) == 1


@pytest.mark.parametrize("data", [b"", b"\x00" * 100, b"\xff" * HEAD_BYTES, b"{", b"PK\x03\x04", "한국어".encode()])
def test_no_reader_stumbles_over_a_head(data: bytes) -> None:
    for reader in all_readers():
        assert not reader.recognises(Head(data)) or reader.format != "tegrastats"
    for reader in all_readers():
        reader.recognises(Head(data, is_folder=True, names=("a", "b")))


def test_a_log_is_no_trace(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="belongs beside a trace"):
        open_trace(written(tmp_path, "a.log", TEGRASTATS))


def test_evidence_belongs_to_the_trace_before_it(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    other.write_bytes(run.read_bytes())
    logs = [written(tmp_path, f"{number}.log", TEGRASTATS) for number in range(3)]
    first, second = open_inputs([logs[0], run, logs[1], other, logs[2]])
    assert first.paths == (run, logs[0], logs[1])
    assert second.paths == (other, logs[2])
    assert [entry.source.file_name for entry in first.evidence] == ["0.log", "1.log"]
    assert second.trace.source.file_name == "other.sqlite"


def test_only_evidence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="belongs beside a trace"):
        open_inputs([written(tmp_path, "a.log", TEGRASTATS), written(tmp_path, "b.log", SMI)])


def test_a_file_given_twice_is_refused(run: Path) -> None:
    with pytest.raises(UsageError, match="given twice"):
        open_inputs([run, run.parent / "." / run.name])


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile(Evidence):
    """Evidence that can stand alone."""

    trace: Trace

    def as_trace(self) -> Trace | None:
        return self.trace


def test_evidence_that_is_a_trace_stands_alone_only_where_no_other_does(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nitro.analyzer import opening

    built = trace(kernels=[kernel(0, 5)])
    profile = Profile(source=Source("p", "profile"), records=1, trace=built)
    real = opening.open_input
    path = written(tmp_path, "profile", "a profile")
    monkeypatch.setattr(opening, "open_input", lambda given: profile if given == path else real(given))
    (alone,) = open_inputs([path, written(tmp_path, "a.log", TEGRASTATS)])
    assert alone.trace is built
    assert len(alone.evidence) == 1
    (beside,) = open_inputs([path, run])
    assert beside.trace.source.file_name == "run.sqlite"
    assert beside.evidence == (profile,)
