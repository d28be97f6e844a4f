"""How wide the columns of a table are on paper."""

from __future__ import annotations

from nitro.reports.blocks import Column
from nitro.reports.document import shares_of_width

NUMBERS = (Column("own time"), Column("share of all"))
NAME = Column("kernel", "left", flexible=True, is_name=True)


def test_numbers_keep_their_line_however_long_the_names_are() -> None:
    short, long = "gemm", "void cutlass::Kernel2<cutlass_80_tensorop_f16_s16816gemm>" * 20
    room = 118
    for name in (short, long):
        first, second, last = shares_of_width((*NUMBERS, NAME), (("911 ms", "15.8 %", name),))
        assert abs(first + second + last - 100) < 1e-9
        assert first * room / 100 >= len("911 ms") + 2 - 1e-9
        assert second * room / 100 >= len("15.8 %") + 2 - 1e-9
        assert last > first + second


def test_a_head_may_break_between_words_but_a_number_may_not() -> None:
    columns = (Column("operations for each byte"), Column("time"))
    wide = tuple(Column("a") for _ in range(40))
    first, second, *_ = shares_of_width((*columns, *wide), (("1", "123.456789 ms", *("1" for _ in wide)),))
    assert first / second == (len("operations") + 2) / (len("123.456789 ms") + 2)


def test_text_gives_way_before_numbers_and_not_below_its_longest_word() -> None:
    text, number = Column("stall", "left"), Column("time")
    filler = tuple(Column("12345678901234567890") for _ in range(4))
    row = ("waiting for a very long list of things", "12.3 ms", *("12345678901234567890" for _ in filler))
    first, second, *rest = shares_of_width((text, number, *filler), (row,))
    assert second * 118 / 100 >= len("12.3 ms") + 2 - 1e-9
    assert len("waiting") + 2 <= first * 118 / 100 < len(row[0])
    assert len(set(rest)) == 1


def test_a_table_without_rows_has_widths() -> None:
    assert shares_of_width((Column("time"),), ()) == [100]
