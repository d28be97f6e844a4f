"""The store: what is written can be read again, is the same for the same runs, and tells when it is broken."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from nitro.analyzer import analyze, open_trace
from nitro.analyzer.checks import Entry, Key, Store, entry_bytes, run_of
from nitro.analyzer.checks.baselines import MOST_PHASES
from nitro.errors import InputError, UsageError
from recorded_runs import DAY, PERIOD, baseline, record, run

SAMPLE = Path(__file__).parents[2] / "examples" / "dual_encoder.sqlite.xz"


def entry(**changes: object) -> Entry:
    first = run({PERIOD: 9154304.0, Key("gpu_idle", device_id=0): 1e9 / 3}, told={"precision": "bf16"}, batch=1.0)
    second = run({PERIOD: 9e6}, told={"precision": "bf16"}, batch=1.0)
    made = Entry(1, "save", DAY, (first, second), reason="first", owner="vision", label="abc", nitro_version="0.1.0")
    return replace(made, **changes)  # type: ignore[arg-type]


def written(folder: Path, *entries: Entry, name: str = "main") -> Store:
    store = Store(folder)
    for each in entries:
        path = store.path_of(name, each)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(entry_bytes(each))
    return store


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    first = entry()
    accepted = entry(number=2, kind="accept", expires=date(2027, 1, 1), metrics=("iteration_period",))
    read = written(tmp_path, first, accepted).read("main")
    assert read.name == "main"
    assert read.entries == (first, accepted)


def test_the_same_runs_give_the_same_bytes_with_a_value_a_line(tmp_path: Path) -> None:
    once, again = entry(), written(tmp_path, entry()).read("main").entries[0]
    again = replace(again, runs=tuple(replace(r, fingerprint=o.fingerprint, file_name=o.file_name) for r, o in zip(again.runs, once.runs, strict=True)))  # fmt: skip  # noqa: E501
    assert entry_bytes(once) == entry_bytes(again)
    lines = entry_bytes(once).decode().splitlines()
    assert sum(line.startswith('  {"metric": ') for line in lines) == 2
    assert [json.loads(line.rstrip(",")) for line in lines if '"iteration_period"' in line] == [
        {
            "metric": "iteration_period",
            "by": "p50",
            "device_id": None,
            "nvtx": None,
            "unit": "ns",
            "values": [9154304, 9000000],
        }
    ]


def test_a_real_run_comes_back_whole_but_for_what_cannot_come_again(tmp_path: Path) -> None:
    trace = open_trace(SAMPLE)
    made = run_of(trace, analyze(trace, batch=1), batch=1, told={"model": "resnet+bert"})
    (read,) = written(tmp_path, Entry(1, "save", DAY, (made,))).read("main").entries[0].runs
    assert read.facts == made.facts
    assert read.fingerprint == made.fingerprint
    lost = {key for key in made.values if key not in read.values}
    assert lost == {key for key in made.values if re.search(r"\bpid \d", key.by)}
    assert lost
    assert {key: value for key, value in made.values.items() if key not in lost} == dict(read.values)


ENERGY = Key("energy_per_item")


def test_what_a_value_may_be_off_by_is_kept_beside_it(tmp_path: Path) -> None:
    known, unknown = (run({PERIOD: 9e6, ENERGY: 0.5}, errors=errors) for errors in ({ENERGY: 0.125}, {}))
    made = entry(runs=(known, unknown))
    assert written(tmp_path, made).read("main").entries == (made,)
    stored = {row["metric"]: row for row in json.loads(entry_bytes(made))["values"]}
    assert stored["energy_per_item"]["errors"] == [0.125, None]
    assert "errors" not in stored["iteration_period"]


def test_an_entry_of_the_first_format_is_read_and_shown_as_it_is(tmp_path: Path) -> None:
    made = entry(runs=(run({ENERGY: 0.5}),))
    content = entry_bytes(made).replace(b'"format_version": 2', b'"format_version": 1')
    written(tmp_path, made).path_of("main", made).write_bytes(content)
    (read,) = Store(tmp_path).read("main").entries
    assert read == replace(made, has_bounds=False)
    assert entry_bytes(read) == content


def test_nothing_tells_where_the_traces_lay(tmp_path: Path) -> None:
    path = record(tmp_path / "secret-folder-name.sqlite")
    trace = open_trace(path)
    text = entry_bytes(Entry(1, "save", DAY, (run_of(trace, analyze(trace)),))).decode()
    assert str(tmp_path) not in text
    assert tmp_path.name not in text


def test_of_many_nvtx_ranges_the_longest_are_kept() -> None:
    values = {
        Key(metric, nvtx=f"range {number}"): float(number)
        for number in range(MOST_PHASES + 50)
        for metric in ("operation_time_ns", "cpu_mean_ns")
    }
    stored = json.loads(entry_bytes(Entry(1, "save", DAY, (run(values),))))
    paths = {row["nvtx"] for row in stored["values"]}
    assert paths == {f"range {number}" for number in range(50, MOST_PHASES + 50)}


def broken(tmp_path: Path, content: bytes, name: str = "0001.json") -> str:
    store = written(tmp_path, entry())
    path = tmp_path / "main" / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        store.read("main")
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert text.endswith(".")
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b'{"format_version": "one"}',
        b'{"format_version": 1}',
        b"<<<<<<< HEAD\n" + entry_bytes(entry()),
        entry_bytes(entry())[:-40],
        entry_bytes(entry()).replace(b'"kind": "save"', b'"kind": "saved"'),
        entry_bytes(entry()).replace(b"[9154304, 9000000]", b"[9154304]"),
        entry_bytes(entry()).replace(b'"day": "2026-06-01"', b'"day": "yesterday"'),
        entry_bytes(entry()).replace(b'"unit": "ns"', b'"unit": 3'),
        entry_bytes(entry()).replace(b"[9154304, 9000000]", b'[9154304, 9000000], "errors": [1]'),
        entry_bytes(entry()).replace(b"[9154304, 9000000]", b'[9154304, 9000000], "errors": [1, -1]'),
        entry_bytes(entry()).replace(b"[9154304, 9000000]", b'[9154304, 9000000], "errors": [1, "2"]'),
    ],
    ids=["empty", "cut", "binary", "a list", "a text as version", "nothing else", "a merge conflict", "the end is gone",
         "unknown kind", "a value is gone", "no day", "no unit", "an error is gone", "an error below 0",
         "a text as error"],
)  # fmt: skip
def test_a_damaged_entry_is_told_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    assert "restore the file from Git" in broken(tmp_path, content)


def test_a_baseline_of_a_newer_nitro_is_told(tmp_path: Path) -> None:
    newer = entry_bytes(entry()).replace(b'"format_version": 2', b'"format_version": 3')
    assert "written by a newer Nitro" in broken(tmp_path, newer)
    assert "update Nitro" in broken(tmp_path, newer)


def test_an_entry_in_the_place_of_another_is_told(tmp_path: Path) -> None:
    assert "the entry inside has number 1" in broken(tmp_path, entry_bytes(entry()), "0002.json")


def test_a_value_of_a_metric_that_is_gone_is_kept(tmp_path: Path) -> None:
    """Ids may go with a version; a history must still be read."""
    old = entry(runs=(run({Key("metric_of_old"): 1.0}),))
    assert written(tmp_path, old).read("main").keys == (Key("metric_of_old"),)


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a b", "x" * 101])
def test_a_name_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a baseline"):
        Store(tmp_path).read(name)


def test_a_baseline_that_does_not_exist_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="save one with"):
        Store(tmp_path / "none").read("main")
    store = written(tmp_path, entry())
    with pytest.raises(UsageError, match="did you mean main"):
        store.read("mian")
    assert store.names() == ("main",)
    assert Store(tmp_path / "none").names() == ()


def test_other_files_in_the_folder_do_not_matter(tmp_path: Path) -> None:
    store = written(tmp_path, entry())
    (tmp_path / "main" / "README.md").write_text("ours")
    (tmp_path / "notes.txt").write_text("ours")
    assert store.read("main").entries == baseline_of(store)


def baseline_of(store: Store) -> tuple[Entry, ...]:
    return store.read("main").entries


def test_the_number_of_the_next_entry_follows_the_last() -> None:
    assert baseline([run({PERIOD: 1.0})], [run({PERIOD: 1.0})]).next_number == 3
