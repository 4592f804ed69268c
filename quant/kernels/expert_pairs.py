"""Pairs of token and choice, of the experts that a few tokens are routed to, by expert: so that each is read once for all."""

from __future__ import annotations

from quant.jit import inline
from quant.simd import load_i64, store_i64


@inline
def sort_pairs(experts, pairs, count, order, places):
    """The numbers of `pairs` pairs by expert, then by token -> order int64 [pairs].

    experts int64 [pairs], each below count; places: memory, int64 [count].
    """
    for expert in range(count):
        store_i64(places + 8 * expert, 0)
    for pair in range(pairs):
        place = places + 8 * load_i64(experts + 8 * pair)
        store_i64(place, load_i64(place) + 1)
    before = 0
    for expert in range(count):
        chosen = load_i64(places + 8 * expert)
        store_i64(places + 8 * expert, before)
        before += chosen
    for pair in range(pairs):
        place = places + 8 * load_i64(experts + 8 * pair)
        store_i64(order + 8 * load_i64(place), pair)
        store_i64(place, load_i64(place) + 1)


@inline
def end_of_group(experts, pairs, order, first):
    """Where the pairs end that have the same expert as the first-th."""
    expert, end = load_i64(experts + 8 * load_i64(order + 8 * first)), first + 1
    while end < pairs and load_i64(experts + 8 * load_i64(order + 8 * end)) == expert:
        end += 1
    return end
