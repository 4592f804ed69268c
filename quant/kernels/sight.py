"""Which blocks of positions a token attends to: those whose keys an indexer finds best (Qwen4-Exp's QSA).

A block's key is the mean of its tokens' index keys, normed, and rotated as at the block's first position. A token rates each
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
from quant.kernels.rope import Rope, cos_sin, rotate
from quant.kernels.share import first_of
from quant.kernels.softmax import LOWEST
from quant.layout import Layout
from quant.plan import Activation, Operand, Plan
from quant.simd import (
    add,
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


SIGHT = Layout(
    "seen", "stride", "block"
)  # a Sight's array, or 0 for all; bytes between tokens' rows; positions of a block


def sight_table(plan: Plan, sight: Sight | None) -> Operand:
    """The table by which kernels know what each token sees; None: all."""
    if sight is None:
        return plan.table(SIGHT, seen=0, stride=0, block=1)
    return plan.table(SIGHT, seen=sight.seen, stride=sight.seen.shape[1], block=sight.block)


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


INDEXER = Layout(
    "heads", "width", "block", "budget", "q_norm", "k_norm", "eps", "frequencies", "pairs", "attention_factor", "keys", "row",
    "quantized", "rest",
)  # fmt: skip


def _indexer_table(plan: Plan, indexer: Indexer, rope: Rope) -> Operand:
    return plan.table(
        INDEXER,
        heads=indexer.heads,
        width=indexer.width,
        block=indexer.block,
        budget=indexer.budget,
        q_norm=indexer.norms[0],
        k_norm=indexer.norms[1],
        eps=indexer.eps,
        frequencies=rope.frequencies,
        pairs=len(rope.frequencies),
        attention_factor=rope.attention_factor,
        keys=indexer.keys,
        row=indexer.keys.strides[1],
        quantized=int(is_quantized(indexer.keys)),
        rest=indexer.rest,
    )


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
def _rotate_to(x, position, indexer, place):
    """Rotate one head as at `position`; place: scratch memory, 8 bytes a pair."""
    frequencies, pairs = load_i64(indexer + INDEXER.frequencies), load_i64(indexer + INDEXER.pairs)
    factor = load_f32(indexer + INDEXER.attention_factor)
    for i in range(pairs):
        angle = np.float64(np.float32(position) * load_f32(frequencies + 4 * i))
        store_f32(place + 4 * i, factor * np.float32(math.cos(angle)))
        store_f32(place + 4 * (pairs + i), factor * np.float32(math.sin(angle)))
    rotate(x, place, pairs, 0)


@inline
def _finish_block(total, b, indexer, place):
    """The sum of the index keys of block b, float32 [width] at `total` -> its row of the cache."""
    block, width = load_i64(indexer + INDEXER.block), load_i64(indexer + INDEXER.width)
    for c in range(0, 4 * width, 64):
        store_f32x16(total + c, mul(load_f32x16(total + c), splat(np.float32(1) / np.float32(block))))
    _norm(total, load_i64(indexer + INDEXER.k_norm), width, load_f32(indexer + INDEXER.eps), total)
    _rotate_to(total, b * block, indexer, place)
    row = load_i64(indexer + INDEXER.keys) + b * load_i64(indexer + INDEXER.row)
    store_row(total, width, row, load_i64(indexer + INDEXER.quantized))


@kernel
def index_keys(rank, size, k, k_stride, indexer, run, scratch, scratch_stride):
    """k [tokens, width] -> the keys of the blocks that this replay completes, and the sum of what follows them."""
    tokens, position = load_i64(run), load_i64(run + 8)
    block, width = load_i64(indexer + INDEXER.block), load_i64(indexer + INDEXER.width)
    rest = load_i64(indexer + INDEXER.rest)
    first, end = position // block, (position + tokens) // block
    total = scratch + rank * scratch_stride
    place = total + 4 * width
    for b in range(
        first + 1 + first_of(rank, size, end - first - 1), first + 1 + first_of(rank + 1, size, end - first - 1)
    ):
        for c in range(0, 4 * width, 64):
            store_f32x16(total + c, zero_f32x16())
        _add_rows(k, k_stride, b * block - position, (b + 1) * block - position, width, total)
        _finish_block(total, b, indexer, place)
    if rank:
        return
    if end > first:
        _add_rows(k, k_stride, 0, (first + 1) * block - position, width, rest)
        _finish_block(rest, first, indexer, place)
        for c in range(0, 4 * width, 64):
            store_f32x16(rest + c, zero_f32x16())
    _add_rows(k, k_stride, max(0, end * block - position), tokens, width, rest)


@kernel
def index_queries(rank, size, q, stride, indexer, cos_sin_rows, run):
    """q [tokens, heads, width], normed and rotated in place; threads share (token, head)."""
    heads, width = load_i64(indexer + INDEXER.heads), load_i64(indexer + INDEXER.width)
    pairs, norm, eps = (
        load_i64(indexer + INDEXER.pairs),
        load_i64(indexer + INDEXER.q_norm),
        load_f32(indexer + INDEXER.eps),
    )
    items = load_i64(run) * heads
    for item in range(first_of(rank, size, items), first_of(rank + 1, size, items)):
        t = item // heads
        x = q + t * stride + 4 * (item % heads) * width
        _norm(x, norm, width, eps, x)
        rotate(x, cos_sin_rows + t * pairs * 8, pairs, 0)


@kernel
def rate_blocks(rank, size, q, stride, indexer, ratings, ratings_stride, run):
    """How a token rates every whole block before it, where that matters; threads share (token, 16 blocks)."""
    tokens, position = load_i64(run), load_i64(run + 8)
    heads, width = load_i64(indexer + INDEXER.heads), load_i64(indexer + INDEXER.width)
    block, budget = load_i64(indexer + INDEXER.block), load_i64(indexer + INDEXER.budget)
    keys, row = load_i64(indexer + INDEXER.keys), load_i64(indexer + INDEXER.row)
    quantized = load_i64(indexer + INDEXER.quantized)
    parts = ((position + tokens) // block + 15) // 16
    for item in range(first_of(rank, size, tokens * parts), first_of(rank + 1, size, tokens * parts)):
        t, first = item // parts, item % parts * 16
        whole = (position + t + 1) // block
        for b in range(first, min(first + 16, whole) if whole > budget else first):
            rating = np.float32(0)
            for head in range(heads):
                x, total = q + t * stride + 4 * head * width, zero_f32x16()
                for c in range(0, width, 16):
                    total = fma(load_f32x16(x + 4 * c), load_row(keys + b * row, c, width, quantized), total)
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
def choose_blocks(rank, size, indexer, ratings, ratings_stride, seen, seen_stride, run):
    """1 for the best blocks of a token, lower ones first among equals, and for what follows the last whole one."""
    tokens, position = load_i64(run), load_i64(run + 8)
    block, budget = load_i64(indexer + INDEXER.block), load_i64(indexer + INDEXER.budget)
    for t in range(first_of(rank, size, tokens), first_of(rank + 1, size, tokens)):
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
    """q [tokens, index heads * width], k [tokens, width] -> what each token sees; q is normed and rotated in place."""
    x, blocks, pairs = indexer, indexer.blocks, len(rope.frequencies)
    if q.columns != x.heads * x.width or k.columns != x.width or 2 * pairs > x.width or rope.interleaved:
        raise ValueError(f"{x.heads} index heads of {x.width}: {q.columns} and {k.columns} columns, {pairs} pairs")
    ratings = plan.buffer("block ratings", (plan.tokens, blocks), np.float32)
    seen = plan.buffer("blocks seen", (plan.tokens, blocks), np.uint8)
    table, queries = _indexer_table(plan, indexer, rope), (q.read("f32"), q.stride("f32"))
    scratch = plan.scratch(4 * x.width + 8 * pairs + 64)
    plan.add(index_keys, k.read("f32"), k.stride("f32"), table, plan.run, *scratch)
    plan.add(index_queries, *queries, table, cos_sin(plan, rope), plan.run)
    plan.add(rate_blocks, *queries, table, ratings, 4 * blocks, plan.run)
    plan.add(choose_blocks, table, ratings, 4 * blocks, seen, blocks, plan.run)
    return Sight(seen, x.block)
