from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nitro.fused_kernels.mapping import Role, Tickets, static_role
from nitro.fused_kernels.strategies import Order

counts = st.integers(min_value=0, max_value=300)


@given(counts, counts, st.integers(1, 132), st.sampled_from(Order))
def test_every_virtual_block_occurs_exactly_once(first: int, second: int, sms: int, order: Order) -> None:
    roles = [static_role(block, first, second, sms, order) for block in range(first + second)]
    assert sorted(role.block for role in roles if role.operation == 0) == list(range(first))
    assert sorted(role.block for role in roles if role.operation == 1) == list(range(second))


@pytest.mark.parametrize("sms", range(1, 133))
def test_every_sm_gets_both_operations_within_its_first_resident_set(sms: int) -> None:
    """Under round-robin dispatch, wherever the share of each operation is at least one block of the resident set."""
    dealt = random.Random(sms)
    for resident in (2, 3, 4, 8):
        every = (sms * 3 + dealt.randrange(sms)) * resident
        smallest = every // resident
        for second in {every // 2, smallest, every - smallest, dealt.randint(smallest, every - smallest)}:
            roles = [static_role(block, every - second, second, sms) for block in range(sms * resident)]
            for sm in range(sms):
                assert {role.operation for role in roles[sm::sms]} == {0, 1}, (resident, every, second, sm)


def test_half_and_half_on_an_even_number_of_sms_does_not_fall_in_step() -> None:
    """The trap of even and odd blocks: in plain proportional order each SM would only ever see one operation."""
    plain = {static_role(block, 64, 64, 8, Order.PROPORTIONAL).operation for block in range(0, 128, 8)}
    spread = {static_role(block, 64, 64, 8, Order.SPREAD).operation for block in range(0, 128, 8)}
    assert plain == {0}
    assert spread == {0, 1}


def test_first_then_second() -> None:
    roles = [static_role(block, 2, 1, 4, Order.FIRST_THEN_SECOND) for block in range(3)]
    assert roles == [Role(0, 0), Role(0, 1), Role(1, 0)]


@given(counts, counts, st.integers(1, 20), st.randoms(use_true_random=False))
def test_tickets_give_every_block_a_role_whatever_the_order_of_arrival(
    first: int, second: int, sms: int, arrival: random.Random
) -> None:
    tickets = Tickets.new(first, second, sms)
    roles = [tickets.take(arrival.randrange(sms * 2)) for _ in range(first + second)]
    assert {(role.operation, role.block) for role in roles if role} == {
        *((0, block) for block in range(first)),
        *((1, block) for block in range(second)),
    }
    assert tickets.take(0) is None


def test_tickets_give_an_sm_both_operations_in_proportion() -> None:
    tickets = Tickets.new(30, 10, 4)
    roles = [tickets.take(2) for _ in range(8)]
    assert [role.operation for role in roles if role].count(1) == 2
