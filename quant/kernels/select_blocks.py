"""Which blocks of positions a token attends to: those that an indexer scores highest (Qwen4-Exp's sparse attention).

A token's score of each complete block before it is the sum over index heads of relu(q . k). It attends to the `top_k` blocks
of the highest scores, and to what follows the last complete block; to everything while there are no more blocks than that.
"""

from __future__ import annotations

import numpy as np

from quant.batch import BATCH, of_one_text, position_of, slot_of
from quant.jit import inline, kernel
from quant.kernels.block_mask import BlockMask
from quant.kernels.convolution import ring_rows
from quant.kernels.indexer import INDEXER, Indexer, index_keys, norm_head
from quant.kernels.kv_cache import load_row
from quant.kernels.partition import start_of
from quant.kernels.rope import Rope, cos_sin, rotate
from quant.plan import Activation, Plan
from quant.simd import (
    fma,
    load_f32,
    load_f32x16,
    load_i64,
    load_u32,
    store_f32,
    store_u8,
    sum_lanes,
    zero_f32x16,
)


@inline
def _complete_blocks(batch, t, block):
    """How many blocks are complete when token t is there."""
    return (position_of(batch, t) + 1) // block


@inline
def _most_blocks(batch, block):
    """The most that are complete for any token of this replay."""
    tokens, most = load_i64(batch + BATCH.tokens), 0
    for t in range(tokens - 1 if of_one_text(batch) else 0, tokens):
        most = max(most, _complete_blocks(batch, t, block))
    return most


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
        norm_head(x, norm, width, eps, x)
        rotate(x, cos_sin_rows + t * pairs * 8, pairs, 0)


@inline
def _positive(score, sums, counts):
    """score + relu of the sum of 16 sums, if it counts."""
    return score + max(sum_lanes(sums), np.float32(0)) if counts else score


@inline
def _score(q, heads, width, key, kind):
    """The sum over heads of relu(q . key), q float32 [heads, width]: four heads at a time, for each of which a key is read."""
    score, end = np.float32(0), 4 * width * (heads - 1)
    for head in range(0, heads, 4):
        at = 4 * width * head
        q0, q1 = q + at, q + min(at + 4 * width, end)
        q2, q3 = q + min(at + 8 * width, end), q + min(at + 12 * width, end)
        s0, s1, s2, s3 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
        for c in range(0, width, 16):
            k = load_row(key, c, width, kind)
            s0, s1 = fma(load_f32x16(q0 + 4 * c), k, s0), fma(load_f32x16(q1 + 4 * c), k, s1)
            s2, s3 = fma(load_f32x16(q2 + 4 * c), k, s2), fma(load_f32x16(q3 + 4 * c), k, s3)
        score = _positive(_positive(score, s0, True), s1, head + 1 < heads)
        score = _positive(_positive(score, s2, head + 2 < heads), s3, head + 3 < heads)
    return score


@kernel
def score_blocks(rank, size, q, stride, indexer, scores, scores_stride, batch):
    """A token's score of every complete block before it, if there are more than `top_k`; threads share (token, 16 blocks)."""
    heads, width = load_i64(indexer + INDEXER.heads), load_i64(indexer + INDEXER.head_dim)
    block, top_k = load_i64(indexer + INDEXER.block_size), load_i64(indexer + INDEXER.top_k)
    cache, row = load_i64(indexer + INDEXER.k_cache), load_i64(indexer + INDEXER.k_row)
    kind, tokens = load_i64(indexer + INDEXER.kind), load_i64(batch + BATCH.tokens)
    parts = (_most_blocks(batch, block) + 15) // 16
    for item in range(start_of(rank, size, tokens * parts), start_of(rank + 1, size, tokens * parts)):
        t, first = item // parts, item % parts * 16
        keys = cache + slot_of(batch, t) * load_i64(indexer + INDEXER.k_slot)
        complete = _complete_blocks(batch, t, block)
        for b in range(first, min(first + 16, complete) if complete > top_k else first):
            store_f32(scores + t * scores_stride + 4 * b, _score(q + t * stride, heads, width, keys + b * row, kind))


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
    block, top_k = load_i64(indexer + INDEXER.block_size), load_i64(indexer + INDEXER.top_k)
    tokens = load_i64(batch + BATCH.tokens)
    for t in range(start_of(rank, size, tokens), start_of(rank + 1, size, tokens)):
        complete, row = _complete_blocks(batch, t, block), mask + t * mask_stride
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

    Keys go into the indexer's ring, and those of blocks into its cache; q is normed and rotated in place.
    """
    x, blocks, pairs = indexer, indexer.blocks, len(rope.frequencies)
    if q.columns != x.heads * x.head_dim or k.columns != x.head_dim or 2 * pairs > x.head_dim or rope.interleaved:
        raise ValueError(f"{x.heads} index heads of {x.head_dim}: {q.columns} and {k.columns} columns, {pairs} pairs")
    if len(x.last_keys) < ring_rows(plan, x.block_size):
        raise ValueError(f"{len(x.last_keys)} index keys kept of blocks of {x.block_size}, {plan.tokens} tokens a step")
    scores = plan.buffer("index scores", (plan.tokens, blocks), np.float32)
    mask = plan.buffer("block mask", (plan.tokens, blocks), np.uint8)
    table, queries = indexer.table(plan, rope), (q.read("f32"), q.stride("f32"))
    scratch = plan.scratch(4 * x.head_dim + 8 * pairs + 64)
    plan.add(index_keys, k.read("f32"), k.stride("f32"), table, plan.batch, *scratch)
    plan.add(index_queries, *queries, table, cos_sin(plan, rope), plan.batch)
    plan.add(score_blocks, *queries, table, scores, 4 * blocks, plan.batch)
    plan.add(select_top_blocks, table, scores, 4 * blocks, mask, blocks, plan.batch)
    return BlockMask(mask, x.block_size)
