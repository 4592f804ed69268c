"""Which blocks of positions a token attends to: those whose keys an indexer finds best (Qwen4-Exp's QSA).

A block's key is the mean of its tokens' index keys, normed, and turned to the block's first position. A token rates each
whole block before it by the sum over index heads of relu(q . k), and sees the best `budget` of them, and what follows
the last whole block. Where there are no more blocks than that, it sees all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.jit import inline, kernel
from quant.kernels.kv_cache import is_quantized, load_row, store_row
from quant.kernels.norm import inverse_rms
from quant.kernels.partition import start_of
from quant.kernels.rope import Rope, angles, rotate
from quant.kernels.softmax import LOWEST
from quant.plan import Activation, Plan
from quant.simd import (
    add,
    bits_to_f32,
    fma,
    load_f32,
    load_f32x16,
    load_i64,
    load_u8,
    load_u32,
    mul,
    splat,
    store_f32,
    store_f32x16,
    store_u8,
    sum_lanes,
    zero_f32x16,
)  # fmt: skip


@dataclass(frozen=True)
class Sight:
    """Of one replay: uint8 [tokens, blocks], 1 for a block that a token sees; `block` positions each."""

    seen: NDArray[np.uint8]
    block: int

    @property
    def operands(self) -> tuple[Any, ...]:
        """The blocks that are seen, bytes from one token's to the next, and positions of a block."""
        return self.seen, self.seen.shape[1], self.block


EVERYTHING = 0, 0, 1  # the operands where nothing is hidden


@dataclass(frozen=True)
class Indexer:
    """The index heads of one layer.

    keys: a cache [1, context, row], of which row b is block b's; rest float32 [width]: the sum of the keys that follow the
    last whole block.
    """

    heads: int
    width: int
    block: int
    budget: int  # blocks
    norms: tuple[NDArray[np.float32], NDArray[np.float32]]  # of queries and of keys
    eps: float
    keys: NDArray[Any]
    rest: NDArray[np.float32]

    def __post_init__(self) -> None:
        widths = {len(self.norms[0]), len(self.norms[1]), len(self.rest)}
        if widths != {self.width} or self.width % 16 or min(self.heads, self.block, self.budget) < 1:
            raise ValueError(f"{self.heads} index heads of {self.width}, {self.budget} blocks of {self.block}")

    @property
    def blocks(self) -> int:
        """Blocks of the context, an incomplete one counted."""
        return -(-self.keys.shape[1] // self.block)


@inline
def hide(scores, first, last, seen, block, position):
    """Scores of positions first to last that are not seen <- LOWEST; the first score is that of `position`."""
    for p in range(first, last):
        if load_u8(seen + (position + p) // block) == 0:
            store_f32(scores + 4 * p, LOWEST)


@inline
def _norm(x, weight, width, eps, y):
    scale = splat(inverse_rms(x, width, eps))
    for c in range(0, 4 * width, 64):
        store_f32x16(y + c, mul(mul(load_f32x16(x + c), scale), load_f32x16(weight + c)))


@inline
def _add_rows(x, stride, first, last, width, total):
    for t in range(first, last):
        for c in range(0, 4 * width, 64):
            store_f32x16(total + c, add(load_f32x16(total + c), load_f32x16(x + t * stride + c)))


@inline
def _turn(x, position, frequencies, pairs, magnitude, place):
    """Turn one head to a position; place: 8 bytes a pair."""
    for i in range(pairs):
        angle = np.float64(np.float32(position) * load_f32(frequencies + 4 * i))
        store_f32(place + 4 * i, magnitude * np.float32(math.cos(angle)))
        store_f32(place + 4 * (pairs + i), magnitude * np.float32(math.sin(angle)))
    rotate(x, place, pairs, 0)


@inline
def _finish_block(total, b, block, width, norm, eps, frequencies, pairs, magnitude, cache, row, quantized, place):
    """The sum of a block's keys -> its row of the cache."""
    for c in range(0, 4 * width, 64):
        store_f32x16(total + c, mul(load_f32x16(total + c), splat(np.float32(1) / np.float32(block))))
    _norm(total, norm, width, eps, total)
    _turn(total, b * block, frequencies, pairs, magnitude, place)
    store_row(total, width, cache + b * row, quantized)


@kernel
def index_keys(
    rank, size, k, k_stride, rest, block, width, norm, eps, frequencies, pairs, magnitude, cache, row, quantized, run, scratch,
    scratch_stride,
):  # fmt: skip
    """k [tokens, width] -> the keys of the blocks that this replay completes, and the sum of what follows them."""
    tokens, position = load_i64(run), load_i64(run + 8)
    first, end = position // block, (position + tokens) // block
    total = scratch + rank * scratch_stride
    place = total + 4 * width
    factor, small = bits_to_f32(magnitude), bits_to_f32(eps)
    for b in range(
        first + 1 + start_of(rank, size, end - first - 1), first + 1 + start_of(rank + 1, size, end - first - 1)
    ):
        for c in range(0, 4 * width, 64):
            store_f32x16(total + c, zero_f32x16())
        _add_rows(k, k_stride, b * block - position, (b + 1) * block - position, width, total)
        _finish_block(total, b, block, width, norm, small, frequencies, pairs, factor, cache, row, quantized, place)
    if rank:
        return
    if end > first:
        _add_rows(k, k_stride, 0, (first + 1) * block - position, width, rest)
        _finish_block(rest, first, block, width, norm, small, frequencies, pairs, factor, cache, row, quantized, place)
        for c in range(0, 4 * width, 64):
            store_f32x16(rest + c, zero_f32x16())
    _add_rows(k, k_stride, max(0, end * block - position), tokens, width, rest)


@kernel
def index_queries(rank, size, q, stride, heads, width, norm, eps, turns, pairs, run):
    """q [tokens, heads, width], normed and turned in place; threads share (token, head)."""
    items = load_i64(run) * heads
    for item in range(start_of(rank, size, items), start_of(rank + 1, size, items)):
        t = item // heads
        x = q + t * stride + 4 * (item % heads) * width
        _norm(x, norm, width, bits_to_f32(eps), x)
        rotate(x, turns + t * pairs * 8, pairs, 0)


@kernel
def rate_blocks(
    rank, size, q, stride, heads, width, cache, row, quantized, block, budget, ratings, ratings_stride, run
):
    """How a token rates every whole block before it, where that matters; threads share (token, 16 blocks)."""
    tokens, position = load_i64(run), load_i64(run + 8)
    parts = ((position + tokens) // block + 15) // 16
    for item in range(start_of(rank, size, tokens * parts), start_of(rank + 1, size, tokens * parts)):
        t, first = item // parts, item % parts * 16
        whole = (position + t + 1) // block
        for b in range(first, min(first + 16, whole) if whole > budget else first):
            rating = np.float32(0)
            for head in range(heads):
                x, total = q + t * stride + 4 * head * width, zero_f32x16()
                for c in range(0, width, 16):
                    total = fma(load_f32x16(x + 4 * c), load_row(cache + b * row, c, width, quantized), total)
                rating += max(sum_lanes(total), np.float32(0))
            store_f32(ratings + t * ratings_stride + 4 * b, rating)


@inline
def _border(ratings, count, wanted):
    """The bits of the `wanted`-th largest of ratings that are 0 or above, and how many are larger."""
    border = 0
    for bit in range(30, -1, -1):
        higher, at_least = border | (1 << bit), 0
        for b in range(count):
            at_least += 1 if load_u32(ratings + 4 * b) >= higher else 0
        if at_least >= wanted:
            border = higher
    larger = 0
    for b in range(count):
        larger += 1 if load_u32(ratings + 4 * b) > border else 0
    return border, larger


@kernel
def choose_blocks(rank, size, ratings, ratings_stride, block, budget, seen, seen_stride, run):
    """1 for the best blocks of a token, lower ones first among equals, and for what follows the last whole one."""
    tokens, position = load_i64(run), load_i64(run + 8)
    for t in range(start_of(rank, size, tokens), start_of(rank + 1, size, tokens)):
        whole, row = (position + t + 1) // block, seen + t * seen_stride
        border, left = 0, whole
        if whole > budget:
            border, larger = _border(ratings + t * ratings_stride, whole, budget)
            left = budget - larger
        for b in range(whole):
            rating = load_u32(ratings + t * ratings_stride + 4 * b) if whole > budget else 0
            equal = rating == border and left > 0
            left -= 1 if equal else 0
            store_u8(row + b, 1 if rating > border or equal else 0)
        if whole < seen_stride:
            store_u8(row + whole, 1)


def look(plan: Plan, q: Activation, k: Activation, rope: Rope, indexer: Indexer) -> Sight:
    """q [tokens, index heads * width], k [tokens, width] -> what each token sees; q is normed and turned in place."""
    x, blocks = indexer, indexer.blocks
    pairs, row, quantized = len(rope.frequencies), x.keys.strides[1], int(is_quantized(x.keys))
    if q.columns != x.heads * x.width or k.columns != x.width or 2 * pairs > x.width or rope.interleaved:
        raise ValueError(f"{x.heads} index heads of {x.width}: {q.columns} and {k.columns} columns, {pairs} pairs")
    ratings = plan.buffer("block ratings", (plan.tokens, blocks), np.float32)
    seen = plan.buffer("blocks seen", (plan.tokens, blocks), np.uint8)
    cache, choice = (x.keys, row, quantized), (x.block, x.budget)
    plan.add(
        index_keys, k.read("f32"), k.stride("f32"), x.rest, x.block, x.width, x.norms[1], x.eps, rope.frequencies, pairs,
        rope.magnitude, *cache, plan.batch, *plan.scratch(4 * x.width + 8 * pairs + 64),
    )  # fmt: skip
    queries = q.read("f32"), q.stride("f32"), x.heads, x.width
    plan.add(index_queries, *queries, x.norms[0], x.eps, angles(plan, rope), pairs, plan.batch)
    plan.add(rate_blocks, *queries, *cache, *choice, ratings, 4 * blocks, plan.batch)
    plan.add(choose_blocks, ratings, 4 * blocks, *choice, seen, blocks, plan.batch)
    return Sight(seen, x.block)
