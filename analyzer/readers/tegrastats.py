"""tegrastats logs of every JetPack from 4 to 7, as raw lines.

A line is words with blanks between them. Which word is what differs by board, JetPack and rights, but hardly within one
log: the place of each field is found once, by `_layout`, for the first line of a kind, and applies to all lines that
have the same labels at the same places. Those lines are read in columns, so a day of ten lines a second takes about two
seconds of a processor.

What a line may hold (all optional but RAM and CPU): a stamp, written by tegrastats (`MM-DD-YYYY HH:MM:SS`, local time)
or by whoever piped it (Unix time in s, ms, us or ns, or ISO 8601) · `CPU [7%@1190,off]` · `EMC_FREQ 80%@3199` ·
`GR3D_FREQ` with percent, clock, both, clocks in brackets, or three values · `name@56.9C`, with the highest since start
after a stroke on JetPack 7.2, -256 for the sensor of a block that is switched off · `RAIL now/mean` or
`now/mean/highest`, in mW, with or without the unit.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict, deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from nitro.errors import InputError

from ..clock import SECOND_NS, Float64
from ..intervals import Int64
from ..message import Message, message, one_or_many
from ..power_log import PowerLog, rails_of
from ..reader import Head, Reader
from ..trace import Source
from ._log_times import LogTimes, counted_times, log_times
from ._text_file import text_chunks

FORMAT = "tegrastats"
DEFAULT_INTERVAL_NS = SECOND_NS
_NAME = re.compile(r"^[A-Za-z][\w.+-]*$")
_RAIL = re.compile(r"^\d+(mW)?(/\d+(mW)?){1,2}$")
_TEMPERATURE = re.compile(r"^([A-Za-z][\w.-]*)@-?\d+(\.\d+)?C(/-?\d+(\.\d+)?C)?$")
_LOAD = re.compile(r"^(\d+%)?(@(\d+|\[\d+(,\d+)*\]))?$")
_IS_LINE = re.compile(r"(?:^|\s)RAM \d+/\d+MB")
_CORES = re.compile(r"^\[[^\]]*\]$")
_OFF_C = -200.0
_THREADS = min(os.cpu_count() or 1, 4)
_LOADS = {"GR3D_FREQ": "gpu", "EMC_FREQ": "memory"}
# The sensors that say how hot the GPU and its surroundings are; names changed their case with Orin.
_SENSORS = ("gpu", "tj", "thermal", "cpu")


@dataclass(frozen=True)
class _Layout:
    """Where the fields of a line stand: numbers of words.

    `labels` must hold for a line to have this layout; `width` is its number of words.
    """

    width: int
    stamp: tuple[int, ...]
    labels: tuple[tuple[int, str], ...]
    rails: tuple[tuple[str, int], ...] = ()
    loads: tuple[tuple[str, int], ...] = ()
    sensors: tuple[tuple[str, int], ...] = ()
    cores: int | None = None

    @property
    def used(self) -> tuple[int, ...]:
        """Numbers of the words that are looked at, in ascending order; the one after the last must be missing."""
        words = {*self.stamp, *(number for number, _ in self.labels), self.width - 1, self.width}
        words |= {number for _, number in (*self.rails, *self.loads, *self.sensors)}
        return tuple(sorted(words | ({self.cores} if self.cores is not None else set())))


@dataclass
class _Columns:
    """What was read so far, in pieces: each has the numbers of its lines and the values of each field."""

    lines: list[Int64] = field(default_factory=list)
    fields: list[dict[str, Float64]] = field(default_factory=list)
    stamps: list[tuple[pl.Series, int]] = field(default_factory=list)
    left_out: int = 0
    first_left_out: str = ""

    def add(self, other: _Columns) -> None:
        """Take over what was read of later lines."""
        self.lines += other.lines
        self.fields += other.fields
        self.stamps += other.stamps
        self.left_out += other.left_out
        self.first_left_out = self.first_left_out or other.first_left_out


def read(path: Path) -> PowerLog:
    """Return the log.

    Raises:
        InputError: no line is one of tegrastats, or none has a power rail.
    """
    columns = _read_lines(path)
    if not columns.lines:
        raise InputError(f"{path}: no line of tegrastats is in it; give the raw output of `tegrastats`.")
    lines = np.concatenate(columns.lines)
    # Most logs have one layout, and their lines stand in order already.
    in_order = bool((lines[1:] > lines[:-1]).all())
    order: slice | Int64 = slice(None) if in_order else np.argsort(lines, kind="stable")
    # A line without a rail is cut or of a board without sensors; it has no power to give.
    names = list(dict.fromkeys(name for piece in columns.fields for name in piece))
    values = {name: _gathered(columns, name)[order] for name in names}
    watts = {name.removeprefix("rail:"): v / 1000 for name, v in values.items() if name.startswith("rail:")}
    rails, total, total_source, has_total = rails_of(watts)
    if not rails:
        raise InputError(
            f"{path}: tegrastats wrote no power rail, as on a board without power sensors or without the rights to "
            "read them; run it with sudo."
        )
    good = ~np.isnan(total)
    if not good.any():
        raise InputError(f"{path}: no line has all of its power rails; the log is damaged, so record it again.")
    notes = _notes(columns, int((~good).sum()))
    times = _times(columns, order, good, notes)
    count = len(times.rows)
    lost = int(good.sum()) - count
    kept: slice | Int64 = slice(None) if count == len(good) else np.flatnonzero(good)[times.rows]

    def of(prefix: str) -> dict[str, Float64]:
        return {name.removeprefix(prefix): v[kept] for name, v in values.items() if name.startswith(prefix)}

    rails, total, total_source, has_total = rails_of({name: v[kept] for name, v in watts.items()})
    return PowerLog(
        source=Source(path.name.encode(errors="replace").decode(), FORMAT, path.stat().st_size, tool="tegrastats"),
        records=count,
        left_out=columns.left_out + int((~good).sum()) + lost,
        notes=(*notes, *times.notes),
        clock=times.clock,
        times_ns=times.times_ns,
        rails=rails,
        total_w=total,
        total_source=total_source,
        has_total=has_total,
        loads={name: v / 100 for name, v in of("load:").items()},
        clocks_hz={name: v * 1e6 for name, v in of("clock:").items()},
        temperatures_c={name: np.where(v < _OFF_C, np.nan, v) for name, v in of("sensor:").items()},
        online_cpus=of("cores").get("") if "cores" in values else None,
    )


def _notes(columns: _Columns, without_power: int) -> list[Message]:
    notes = []
    if columns.left_out:
        line = columns.first_left_out
        one = message("1 line is not of tegrastats and was left out ({line!r})", line=line)
        many = message(
            "{count:,} lines are not of tegrastats and were left out (the first: {line!r})",
            count=columns.left_out,
            line=line,
        )
        notes.append(one_or_many(columns.left_out, one, many))
    if without_power:
        one = message("1 line is cut before its power rails and was left out")
        many = message("{count:,} lines are cut before their power rails and were left out", count=without_power)
        notes.append(one_or_many(without_power, one, many))
    return notes


def _gathered(columns: _Columns, name: str) -> Float64:
    pieces = zip(columns.lines, columns.fields, strict=True)
    return np.concatenate([piece.get(name, np.full(len(lines), np.nan)) for lines, piece in pieces])


# --- lines ---


def _read_lines(path: Path) -> _Columns:
    """Read the lines of a file, some chunks at a time side by side."""
    columns = _Columns()
    waiting: deque[Future[_Columns]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for index, data in enumerate(text_chunks(path)):
            waiting.append(pool.submit(_read_chunk, data, index << 32))
            # No more of the file is in memory than the threads are busy with.
            if len(waiting) > _THREADS:
                columns.add(waiting.popleft().result())
        for chunk in waiting:
            columns.add(chunk.result())
    return columns


def _read_chunk(data: bytes, first: int) -> _Columns:
    """Read the lines of a chunk, of which the first has this number."""
    columns = _Columns()
    count = data.count(b"\n") + (not data.endswith(b"\n"))
    layout = _layout_of_first(data)
    odd = np.arange(count)
    if layout is not None:
        frame = _words(data, layout)
        # Where the columns do not stand for the lines one by one, the slow way is the sure one.
        if frame is not None and len(frame) == count:
            fits = _fits(frame, layout)
            _take(frame.filter(fits), np.flatnonzero(fits.to_numpy()) + first, layout, columns)
            odd = np.flatnonzero(~fits.to_numpy())
    if len(odd):
        _read_odd(data, odd, first, columns)
    return columns


def _layout_of_first(data: bytes) -> _Layout | None:
    for line in data[: 1 << 18].decode("utf-8", "replace").splitlines():
        if _IS_LINE.search(line):
            return _layout(line.split(" "))
    return None


def _words(data: bytes, layout: _Layout) -> pl.DataFrame | None:
    """Return the words of all lines of a chunk that the layout looks at; `None` where they cannot be split."""
    names = [f"w{number}" for number in range(layout.width + 1)]
    try:
        return pl.read_csv(
            data,
            separator=" ",
            has_header=False,
            schema=dict.fromkeys(names, pl.String),
            columns=list(layout.used),
            quote_char=None,
            truncate_ragged_lines=True,
            missing_columns="insert",
            encoding="utf8-lossy",
        )
    except pl.exceptions.PolarsError:
        return None


def _fits(frame: pl.DataFrame, layout: _Layout) -> pl.Series:
    """Tell which lines have exactly the labels and the number of words of a layout."""
    after = f"w{layout.width}"
    checks = [pl.col(f"w{number}") == label for number, label in layout.labels]
    checks += [pl.col(f"w{layout.width - 1}").is_not_null(), pl.col(after).is_null()]
    return frame.select(pl.all_horizontal(checks).fill_null(value=False).alias("fits"))["fits"]


def _read_odd(data: bytes, odd: Int64, first: int, columns: _Columns) -> None:
    """Read lines that do not look like the others: each group of equal layout at once."""
    lines = data.split(b"\n")
    groups: dict[_Layout, list[tuple[int, list[str]]]] = defaultdict(list)
    for at in odd.tolist():
        line = lines[at].decode("utf-8", "replace").rstrip("\r ")
        if not line.strip():
            continue
        if not _IS_LINE.search(line):
            columns.left_out += 1
            columns.first_left_out = columns.first_left_out or line[:60]
            continue
        words = line.split(" ")
        groups[_layout(words)].append((at, words))
    for layout, members in groups.items():
        frame = pl.DataFrame(
            {f"w{k}": [words[k] if k < len(words) else None for _, words in members] for k in layout.used},
            schema={f"w{k}": pl.String for k in layout.used},
        )
        _take(frame, np.array([at for at, _ in members], np.int64) + first, layout, columns)


def _layout(words: Sequence[str]) -> _Layout:
    """Return where the fields of a line stand."""
    ram = next((number for number, word in enumerate(words) if word == "RAM" or word.endswith("\tRAM")), 0)
    labels: list[tuple[int, str]] = [(ram, words[ram])]
    rails: list[tuple[str, int]] = []
    loads: list[tuple[str, int]] = []
    sensors: dict[str, int] = {}
    cores = None
    for number in range(ram, len(words)):
        word = words[number]
        after = words[number + 1] if number + 1 < len(words) else ""
        if word == "CPU" and _CORES.match(after):
            cores = number + 1
        elif word in _LOADS and after and _LOAD.match(after):
            loads.append((_LOADS[word], number + 1))
        elif _NAME.match(word) and _RAIL.match(after):
            if word not in dict(rails):
                rails.append((word, number + 1))
        elif (found := _TEMPERATURE.match(word)) and found[1].lower() in _SENSORS:
            sensors.setdefault(found[1].lower(), number)
            continue
        else:
            continue
        labels.append((number, word))
    # The stamp of whoever piped the log may be joined to the first word by a tab.
    stamp = tuple(range(ram)) if words[ram] == "RAM" else (*range(ram), ram)
    if words[ram] != "RAM":
        labels = labels[1:]
    return _Layout(len(words), stamp, tuple(labels), tuple(rails), tuple(loads), tuple(sensors.items()), cores)


def _take(frame: pl.DataFrame, lines: Int64, layout: _Layout, columns: _Columns) -> None:
    """Read the values of lines of one layout."""
    if not len(frame):
        return
    fields: dict[str, Float64] = {}
    for name, number in layout.rails:
        fields[f"rail:{name}"] = _numbers(frame[f"w{number}"], r"^(\d+)")
    for name, number in layout.loads:
        # Loads, clocks and temperatures have few values, each of which is read once.
        texts, codes = _distinct(frame[f"w{number}"])
        fields[f"load:{name}"] = _numbers(texts, r"^(\d+)%")[codes]
        fields[f"clock:{name}"] = _highest_clock(texts)[codes]
    for name, number in layout.sensors:
        texts, codes = _distinct(frame[f"w{number}"])
        fields[f"sensor:{name}"] = _numbers(texts, r"@(-?[\d.]+)C")[codes]
    if layout.cores is not None:
        cores = frame[f"w{layout.cores}"].str.count_matches("%", literal=True)
        fields["cores"] = cores.cast(pl.Float64).to_numpy()
    columns.lines.append(lines)
    columns.fields.append(fields)
    if layout.stamp:
        text = pl.concat_str([pl.col(f"w{number}") for number in layout.stamp], separator=" ")
        columns.stamps.append((frame.select(text.alias("stamp"))["stamp"], len(lines)))
    else:
        columns.stamps.append((pl.Series("stamp", [None], dtype=pl.String), len(lines)))


def _numbers(texts: pl.Series, pattern: str) -> Float64:
    return texts.str.extract(pattern, 1).cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()


def _highest_clock(texts: pl.Series) -> Float64:
    """Return the highest of the clocks in MHz that stand after the @: a block that is switched off has 0 of its own."""
    clocks = [re.findall(r"\d+", text.partition("@")[2]) for text in texts.fill_null("").to_list()]
    return np.array([max(map(float, found)) if found else np.nan for found in clocks], np.float64)


def _distinct(texts: pl.Series) -> tuple[pl.Series, Int64]:
    """Return the distinct texts of a column, and for each row which of them it has."""
    found = texts.unique(maintain_order=False)
    codes = texts.replace_strict(found, pl.Series(range(len(found)), dtype=pl.Int64), return_dtype=pl.Int64)
    return found, codes.to_numpy()


# --- times ---


def _times(columns: _Columns, order: slice | Int64, good: np.ndarray, notes: list[Message]) -> LogTimes:
    epoch, local = (np.concatenate(part)[order][good] for part in zip(*map(_stamps, columns.stamps), strict=True))
    for stamps, kind in ((epoch, "utc"), (local, "local")):
        known = stamps != _NO_STAMP
        if known.sum() * 2 <= len(stamps):
            continue
        resolution = SECOND_NS if (stamps[known] % SECOND_NS == 0).all() else 1_000_000
        rows = np.flatnonzero(known)
        found = log_times(stamps[known], resolution, "utc" if kind == "utc" else "local")
        lost = len(stamps) - len(rows)
        if lost:
            one = message("1 line without a stamp was left out")
            notes.append(one_or_many(lost, one, message("{count:,} lines without a stamp were left out", count=lost)))
        return LogTimes(found.times_ns, rows[found.rows], found.clock, found.notes)
    return counted_times(len(epoch), DEFAULT_INTERVAL_NS)


_NO_STAMP = np.iinfo(np.int64).min
_EPOCH_SCALES = ((19, 1), (16, 1_000), (13, 1_000_000), (10, SECOND_NS))


def _stamps(piece: tuple[pl.Series, int]) -> tuple[Int64, Int64]:
    """Return UTC stamps and local stamps of lines in ns; `_NO_STAMP` where a line has none."""
    text, count = piece
    if text.null_count() == len(text):
        return np.full(count, _NO_STAMP), np.full(count, _NO_STAMP)
    # Ten lines of a second share their stamp.
    unique, inverse = np.unique(text.rle_id().to_numpy(), return_index=True)[1], text.rle_id().to_numpy()
    texts = text.gather(unique)
    utc, local = _utc_stamps(texts), _local_stamps(texts)
    return utc[inverse], local[inverse]


def _utc_stamps(texts: pl.Series) -> Int64:
    frame = pl.DataFrame({"text": texts})
    stamp = pl.lit(None, pl.Int64)
    for digits, scale in _EPOCH_SCALES:
        whole = pl.col("text").str.extract(rf"(?:^|[^\d.])(\d{{{digits}}})(?:[^\d]|$)", 1).cast(pl.Int64, strict=False)
        part = pl.lit(0)
        if digits == 10:
            fraction = pl.col("text").str.extract(r"(?:^|[^\d.])\d{10}\.(\d{1,9})", 1).str.pad_end(9, "0")
            part = fraction.cast(pl.Int64, strict=False).fill_null(0)
        stamp = pl.coalesce(stamp, whole * scale + part)
    iso = pl.col("text").str.extract(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?) ?(?:Z|[+-]\d\d:?\d\d)", 1)
    zone = pl.col("text").str.extract(r":\d\d(?:[.,]\d+)? ?(Z|[+-]\d\d:?\d\d)", 1)
    sign = pl.when(zone.str.starts_with("-")).then(-1).otherwise(1)
    hours = zone.str.extract(r"[+-](\d\d)", 1).cast(pl.Int64, strict=False).fill_null(0)
    minutes = zone.str.extract(r"[+-]\d\d:?(\d\d)", 1).cast(pl.Int64, strict=False).fill_null(0)
    ahead = sign * (hours * 3600 + minutes * 60) * SECOND_NS
    stamp = pl.coalesce(stamp, _moment(iso, "%Y-%m-%dT%H:%M:%S%.f") - ahead)
    return frame.select(stamp.fill_null(_NO_STAMP).alias("stamp"))["stamp"].to_numpy()


def _local_stamps(texts: pl.Series) -> Int64:
    frame = pl.DataFrame({"text": texts})
    own = pl.col("text").str.extract(r"(\d\d-\d\d-\d{4} \d\d:\d\d:\d\d)", 1)
    iso = pl.col("text").str.extract(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?)", 1)
    stamp = pl.coalesce(_moment(own, "%m-%d-%Y %H:%M:%S"), _moment(iso, "%Y-%m-%dT%H:%M:%S%.f"))
    return frame.select(stamp.fill_null(_NO_STAMP).alias("stamp"))["stamp"].to_numpy()


def _moment(text: pl.Expr, form: str) -> pl.Expr:
    if form.startswith("%Y"):
        text = text.str.replace(" ", "T", literal=True).str.replace(",", ".", literal=True)
    return text.str.to_datetime(form, time_unit="ns", strict=False).cast(pl.Int64)


def _recognises(head: Head) -> bool:
    return any(_IS_LINE.search(line) and " CPU [" in line for line in head.lines)


READER = Reader(FORMAT, message("tegrastats log"), "evidence", _recognises, read)
