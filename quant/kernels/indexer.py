"""An indexer, which selects the blocks of positions that a token attends to (Qwen4-Exp's sparse attention).

The index key of a block is the mean of its tokens' index keys, normed, and rotated as at the block's first position. A
token's score of each complete block before it is the sum over index heads of relu(q . k). It attends to the `top_k` blocks
of the highest scores, and to what follows the last complete block; to everything while there are no more blocks than that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.batch import BATCH
from quant.jit import inline, kernel
from quant.kernels.block_mask import BlockMask
from quant.kernels.kv_cache import load_row, number_of, store_row
from quant.kernels.norm import inverse_rms
from quant.kernels.partition import start_of
from quant.kernels.rope import Rope, cos_sin, rotate
from quant.layout import Layout
from quant.plan import Activation, Operand, Plan
from quant.simd import (
    add,
    fma,
    load_f32,
    load_f32x16,
    load_i64,
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
class Indexer:
    """The index heads of one layer, and its cache [1, blocks, row], whose row b is the key of block b.

    partial_sum float32 [head_dim]: the sum of the index keys that follow the last complete block.
    """

    heads: int
    head_dim: int
    block_size: int
    top_k: int
    norms: tuple[NDArray[np.float32], NDArray[np.float32]]  # of queries and of keys
    eps: float
    k_cache: NDArray[Any]
    partial_sum: NDArray[np.float32]

    def __post_init__(self) -> None:
        widths = {len(self.norms[0]), len(self.norms[1]), len(self.partial_sum)}
        if widths != {self.head_dim} or self.head_dim % 16 or min(self.heads, self.block_size, self.top_k) < 1:
            raise ValueError(f"{self.heads} index heads of {self.head_dim}, {self.top_k} blocks of {self.block_size}")

    @property
    def blocks(self) -> int:
        """Blocks of the context, an incomplete one counted."""
        return self.k_cache.shape[1]

    def table(self, plan: Plan, rope: Rope) -> Operand:
        """The INDEXER table of this layer."""
        return plan.table(
            INDEXER,
            heads=self.heads,
            head_dim=self.head_dim,
            block_size=self.block_size,
            top_k=self.top_k,
            q_norm=self.norms[0],
            k_norm=self.norms[1],
            eps=self.eps,
            frequencies=rope.frequencies,
            pairs=len(rope.frequencies),
            attention_factor=rope.attention_factor,
            k_cache=self.k_cache,
            k_row=self.k_cache.strides[1],
            kind=number_of(self.k_cache),
            partial_sum=self.partial_sum,
        )


INDEXER = Layout(
    "heads",
    "head_dim",
    "block_size",
    "top_k",
    "q_norm",
    "k_norm",
    "eps",
    "frequencies",  # of RoPE, float32 [pairs]
    "pairs",
    "attention_factor",
    "k_cache",
    "k_row",  # bytes of a row of the cache
    "kind",  # number of the kind of the rows of the cache
    "partial_sum",
)


@inline
def _norm(x, weight, width, eps, y):
    """rms_norm of x float32 [width] -> y."""
    scale = splat(inverse_rms(x, width, eps))
    for c in range(0, 4 * width, 64):
        store_f32x16(y + c, mul(mul(load_f32x16(x + c), scale), load_f32x16(weight + c)))


@inline
def _add_rows(x, stride, first, last, width, total):
    """total += rows first to last of x, float32 [width] each."""
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
    """The sum of the index keys of block b, float32 [head_dim] at `total` -> its row of the cache."""
    block, width = load_i64(indexer + INDEXER.block_size), load_i64(indexer + INDEXER.head_dim)
    for c in range(0, 4 * width, 64):
        store_f32x16(total + c, mul(load_f32x16(total + c), splat(np.float32(1) / np.float32(block))))
    _norm(total, load_i64(indexer + INDEXER.k_norm), width, load_f32(indexer + INDEXER.eps), total)
    _rotate_to(total, b * block, indexer, place)
    row = load_i64(indexer + INDEXER.k_cache) + b * load_i64(indexer + INDEXER.k_row)
    store_row(total, width, row, load_i64(indexer + INDEXER.kind))


@kernel
def index_keys(rank, size, k, k_stride, indexer, batch, scratch, scratch_stride):
    """k [tokens, head_dim] -> the keys of the blocks that this replay completes, and the sum of what follows them."""
    tokens, position = load_i64(batch + BATCH.tokens), load_i64(batch + BATCH.position)
    block, width = load_i64(indexer + INDEXER.block_size), load_i64(indexer + INDEXER.head_dim)
    partial_sum = load_i64(indexer + INDEXER.partial_sum)
    first, end = position // block, (position + tokens) // block
    total = scratch + rank * scratch_stride
    place = total + 4 * width
    for b in range(
        first + 1 + start_of(rank, size, end - first - 1), first + 1 + start_of(rank + 1, size, end - first - 1)
    ):
        for c in range(0, 4 * width, 64):
            store_f32x16(total + c, zero_f32x16())
        _add_rows(k, k_stride, b * block - position, (b + 1) * block - position, width, total)
        _finish_block(total, b, indexer, place)
    if rank:
        return
    if end > first:
        _add_rows(k, k_stride, 0, (first + 1) * block - position, width, partial_sum)
        _finish_block(partial_sum, first, indexer, place)
        for c in range(0, 4 * width, 64):
            store_f32x16(partial_sum + c, zero_f32x16())
    _add_rows(k, k_stride, max(0, end * block - position), tokens, width, partial_sum)


@kernel
def index_queries(rank, size, q, stride, indexer, cos_sin_rows, batch):
    """Norm and rotate q [tokens, heads, head_dim] in place; threads share (token, head)."""
    heads, width = load_i64(indexer + INDEXER.heads), load_i64(indexer + INDEXER.head_dim)
    pairs, norm, eps = (
        load_i64(indexer + INDEXER.pairs),
        load_i64(indexer + INDEXER.q_norm),
        load_f32(indexer + INDEXER.eps),
    )
    items = load_i64(batch + BATCH.tokens) * heads
    for item in range(start_of(rank, size, items), start_of(rank + 1, size, items)):
        t = item // heads
        x = q + t * stride + 4 * (item % heads) * width
        _norm(x, norm, width, eps, x)
        rotate(x, cos_sin_rows + t * pairs * 8, pairs, 0)


@kernel
def score_blocks(rank, size, q, stride, indexer, scores, scores_stride, batch):
    """A token's score of every complete block before it, if there are more than `top_k`; threads share (token, 16 blocks)."""
    tokens, position = load_i64(batch + BATCH.tokens), load_i64(batch + BATCH.position)
    heads, width = load_i64(indexer + INDEXER.heads), load_i64(indexer + INDEXER.head_dim)
    block, top_k = load_i64(indexer + INDEXER.block_size), load_i64(indexer + INDEXER.top_k)
    keys, row = load_i64(indexer + INDEXER.k_cache), load_i64(indexer + INDEXER.k_row)
    kind = load_i64(indexer + INDEXER.kind)
    parts = ((position + tokens) // block + 15) // 16
    for item in range(start_of(rank, size, tokens * parts), start_of(rank + 1, size, tokens * parts)):
        t, first = item // parts, item % parts * 16
        complete = (position + t + 1) // block
        for b in range(first, min(first + 16, complete) if complete > top_k else first):
            score = np.float32(0)
            for head in range(heads):
                x, total = q + t * stride + 4 * head * width, zero_f32x16()
                for c in range(0, width, 16):
                    total = fma(load_f32x16(x + 4 * c), load_row(keys + b * row, c, width, kind), total)
                score += max(sum_lanes(total), np.float32(0))
            store_f32(scores + t * scores_stride + 4 * b, score)


@inline
def _kth_largest(scores, count, wanted):
    """The bits of the `wanted`-th largest of `count` scores, none of them negative, and how many are larger."""
    border = 0
    for bit in range(30, -1, -1):
        higher, at_least = border | (1 << bit), 0
        for b in range(count):
            at_least += 1 if load_u32(scores + 4 * b) >= higher else 0
        if at_least >= wanted:
            border = higher
    larger = 0
    for b in range(count):
        larger += 1 if load_u32(scores + 4 * b) > border else 0
    return border, larger


@kernel
def select_top_blocks(rank, size, indexer, scores, scores_stride, mask, mask_stride, batch):
    """1 for the blocks of the highest scores, lower ones first among equals, and for what follows the last complete one."""
    tokens, position = load_i64(batch + BATCH.tokens), load_i64(batch + BATCH.position)
    block, top_k = load_i64(indexer + INDEXER.block_size), load_i64(indexer + INDEXER.top_k)
    for t in range(start_of(rank, size, tokens), start_of(rank + 1, size, tokens)):
        complete, row = (position + t + 1) // block, mask + t * mask_stride
        border, left = 0, complete
        if complete > top_k:
            border, larger = _kth_largest(scores + t * scores_stride, complete, top_k)
            left = top_k - larger
        for b in range(complete):
            score = load_u32(scores + t * scores_stride + 4 * b) if complete > top_k else 0
            equal = score == border and left > 0
            left -= 1 if equal else 0
            store_u8(row + b, 1 if score > border or equal else 0)
        if complete < mask_stride:
            store_u8(row + complete, 1)


def select_blocks(plan: Plan, q: Activation, k: Activation, rope: Rope, indexer: Indexer) -> BlockMask:
    """Index queries q [tokens, heads * head_dim], keys k [tokens, head_dim] -> the blocks that each token attends to.

    Keys go into the indexer's cache; q is normed and rotated in place.
    """
    x, blocks, pairs = indexer, indexer.blocks, len(rope.frequencies)
    if q.columns != x.heads * x.head_dim or k.columns != x.head_dim or 2 * pairs > x.head_dim or rope.interleaved:
        raise ValueError(f"{x.heads} index heads of {x.head_dim}: {q.columns} and {k.columns} columns, {pairs} pairs")
    scores = plan.buffer("index scores", (plan.tokens, blocks), np.float32)
    mask = plan.buffer("block mask", (plan.tokens, blocks), np.uint8)
    table, queries = indexer.table(plan, rope), (q.read("f32"), q.stride("f32"))
    scratch = plan.scratch(4 * x.head_dim + 8 * pairs + 64)
    plan.add(index_keys, k.read("f32"), k.stride("f32"), table, plan.batch, *scratch)
    plan.add(index_queries, *queries, table, cos_sin(plan, rope), plan.batch)
    plan.add(score_blocks, *queries, table, scores, 4 * blocks, plan.batch)
    plan.add(select_top_blocks, table, scores, 4 * blocks, mask, blocks, plan.batch)
    return BlockMask(mask, x.block_size)
