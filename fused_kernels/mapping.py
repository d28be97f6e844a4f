"""Which block does what: `static_role` and `take_ticket` of `csrc/strategies.cuh` in Python, for tests and predictions.

Whole numbers throughout, as on the device, so that both give the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from .strategies import Order


@dataclass(frozen=True, slots=True)
class Role:
    """What a block does: a virtual block of the first (0) or second (1) operation."""

    operation: int
    block: int


def _spread_before(wave: int, count: int, second: int, every: int, sms: int) -> int:
    """Return the sum of floor(wave * second / every + s / sms) over s < count (Hermite's identity for count = sms)."""
    whole, part = divmod(wave * second, every)
    turn = -(-sms * (every - part) // every) if part else sms
    return count * whole + max(0, count - turn)


def _spread_role(block: int, first: int, second: int, sms: int) -> Role:
    every = first + second
    waves = every // sms
    wave, sm = divmod(block, sms)
    if wave < waves:
        here = _spread_before(wave, sm, second, every, sms)
        there = _spread_before(wave + 1, sm, second, every, sms)
        before = _spread_before(wave, sms, second, every, sms) + there - here
        after_here = _spread_before(wave, sm + 1, second, every, sms)
        is_second = _spread_before(wave + 1, sm + 1, second, every, sms) - there > after_here - here
    else:
        given = _spread_before(waves, sms, second, every, sms)
        rest = every - waves * sms
        before = given + sm * (second - given) // rest
        is_second = given + (sm + 1) * (second - given) // rest > before
    return Role(1, before) if is_second else Role(0, block - before)


def static_role(block: int, first: int, second: int, sms: int, order: Order = Order.SPREAD) -> Role:
    """Return the role of a block of an inter-block kernel with `first` and `second` virtual blocks.

    Under `SPREAD`, and if block i runs on SM i modulo `sms`, any n full waves give each SM at least
    floor(n * first / (first + second)) blocks of the first operation, and likewise of the second.
    """
    every = first + second
    if order is Order.SPREAD:
        return _spread_role(block, first, second, sms)
    if order is Order.PROPORTIONAL:
        before = block * second // every
        return Role(1, before) if (block + 1) * second // every > before else Role(0, block - before)
    if order is Order.FIRST_THEN_SECOND:
        return Role(1, block - first) if block >= first else Role(0, block)
    return Role(1, block) if block < second else Role(0, block - second)


@dataclass(slots=True)
class Tickets:
    """The counters of an SM-aware kernel: call `take` for each block in the order in which blocks start."""

    first: int
    second: int
    turns: dict[int, int]
    sm_ids: int
    taken: list[int]

    @classmethod
    def new(cls, first: int, second: int, sm_ids: int) -> Tickets:
        """Return counters at zero, for `first` and `second` virtual blocks and so many different `%smid`."""
        return cls(first, second, {}, sm_ids, [0, 0])

    def take(self, sm: int) -> Role | None:
        """Return the role of the next block on an SM; None if everything is taken."""
        every = self.first + self.second
        if every == 0:
            return None
        sm %= self.sm_ids
        at = self.turns.get(sm, 0) + sm * every // self.sm_ids
        self.turns[sm] = self.turns.get(sm, 0) + 1
        due = int((at + 1) * self.second // every > at * self.second // every)
        for operation in (due, 1 - due):
            limit = self.second if operation else self.first
            if limit == 0:
                continue
            unit = self.taken[operation]
            self.taken[operation] += 1
            if unit < limit:
                return Role(operation, unit)
        return None
