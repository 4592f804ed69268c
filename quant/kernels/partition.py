"""How the items of a record are divided among threads: evenly by rank, or, where cores differ in speed, one after the other.

Which thread does an item never changes its result: every number of a result is made by one thread, in one order.
"""

from __future__ import annotations

from quant.atomics import atomic_add, atomic_load, compare_exchange
from quant.jit import inline

_SHARE_BYTES = 1 << 16  # of weights: some microseconds' reading, beside which taking another share is nothing
_MOST_SHARES = 4  # of a thread: enough for even ends where one core is at half the speed of another
COUNTER_WORDS = 16  # int64 from one counter to the next: two cache lines, since they are fetched in pairs


@inline
def start_of(rank, size, count):
    """The first of the items, of `count`, that a rank does; it does those before the next rank's first."""
    return rank * count // size


@inline
def take_next(counter):
    """Take the next item that no thread has taken yet. The counter is zero when a record begins."""
    return atomic_add(counter, 1)


@inline
def take_piece(counter, total, parts, least):
    """Take items, of `total`, that no thread has taken yet: the first of them, and where they end; both `total` if none are left.

    parts: into how many what is left is cut, of which one is taken; least: items that it has. So pieces are long at first and
    short in the end, and threads end together (guided self-scheduling: Polychronopoulos and Kuck, 1987). The counter is zero
    when a record begins.
    """
    while True:
        begin = atomic_load(counter)
        if begin >= total:
            return total, total
        end = min(total, begin + max(least, (total - begin) // parts))
        if compare_exchange(counter, begin, end):
            return begin, end


def shares_of(n_bytes: int, threads: int) -> int:
    """Into how many shares a thread's part of a record is cut that reads so many bytes of weights (see Plan.add)."""
    return max(1, min(n_bytes // (threads * _SHARE_BYTES), _MOST_SHARES))
