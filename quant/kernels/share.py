"""How a thread finds its share of the work."""

from __future__ import annotations

from quant.jit import inline


@inline
def first_of(rank, size, count):
    """The first of `count` items that belong to a rank; the next rank's first is one past its last."""
    return rank * count // size
