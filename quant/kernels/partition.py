"""How a thread finds its share of the work: by its rank, or, where cores differ in speed, by taking what is next.

Who does a piece never changes its result: every number of a result is made by one thread, in one order.
"""

from __future__ import annotations

from quant.atomics import atomic_add
from quant.jit import inline

COUNTER_WORDS = 16  # int64 between two counters: a cache line each, and its neighbour


@inline
def first_of(rank, size, count):
    """The first of `count` items that belong to a rank; the next rank's first is one past its last."""
    return rank * count // size


@inline
def take(counter, grain):
    """The first of `grain` items that nobody has taken; the counter is zero when a record begins."""
    return atomic_add(counter, grain)
