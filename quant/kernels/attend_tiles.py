"""Attention of many tokens (prefill): tiles of queries times blocks of keys and values, as matrix products.

The softmax over all positions is kept up to date from block to block (as in FlashAttention: Dao et al., arXiv 2205.14135).
"""

from __future__ import annotations

import numpy as np

from quant.batch import BATCH
from quant.jit import inline, kernel
from quant.kernels.block_mask import BLOCK_MASK, BlockMask, mask_scores, mask_table
from quant.kernels.heads import HEADS, Heads, caches_of, shape_of
from quant.kernels.kv_cache import load_row, number_of_values
from quant.kernels.partition import take_next
from quant.kernels.sgemm import sgemm, sgemm_kernel
from quant.kernels.softmax import BLOCK, LOWEST, exp1, softmax_block
from quant.plan import Activation, Operand, Plan
from quant.simd import load_f32, load_f32x16, load_i64, mul, splat, store_f32, store_f32x16, zero_f32x16
from quant.tile import transpose16

_TOKENS, _ROWS = 16, 64  # of a tile, at least; a row is a token's query head


@inline
def tile_tokens(group):
    """Tokens of a tile: more where few query heads share a key-value head, since keys are converted once for a tile."""
    return max(_TOKENS, _ROWS // group)


@inline
def _load_block(cache, row, kind, begin, end, width, rows):
    """Rows begin to end of a block of a cache -> rows float32 [BLOCK, width], zero elsewhere."""
    for p in range(BLOCK):
        for c in range(0, width, 16):
            value = load_row(cache + row * p, c, width, kind) if begin <= p < end else zero_f32x16()
            store_f32x16(rows + 4 * (p * width + c), value)


@inline
def _load_queries(q, q_stride, tokens, group, width, scale, rows):
    """A tile's queries, scaled -> rows float32 [tokens * group, width]."""
    for t in range(tokens):
        for c in range(0, 4 * group * width, 64):
            store_f32x16(rows + 4 * t * group * width + c, mul(load_f32x16(q + t * q_stride + c), splat(scale)))


@inline
def _begin(rows, group, width, sinks, tops, sums, out):
    """Begin the running softmax of `rows` rows with nothing but the sinks of their heads, if there are any."""
    for r in range(rows):
        store_f32(tops + 4 * r, load_f32(sinks + 4 * (r % group)) if sinks else LOWEST)
        store_f32(sums + 4 * r, np.float32(1) if sinks else np.float32(0))
    for c in range(0, 4 * rows * width, 64):
        store_f32x16(out + c, zero_f32x16())


@inline
def _mask_rows(scores, rows, group, reach, count, blocks, stride, block_size, position):
    """LOWEST for what token t of the tile, whose row of the block mask is `blocks + t * stride`, does not attend to."""
    for r in range(rows):
        last = max(0, min(count, reach + r // group))
        mask_scores(scores + 4 * BLOCK * r, last, blocks + r // group * stride, block_size, position)


@inline
def _softmax_rows(scores, rows, group, width, reach, window, count, softcap, tops, sums, out):
    """Add a block to the running softmax of `rows` rows: scores become weights, and earlier sums are scaled to the new maximum.

    Token t of the tile attends to the last `window` of the block's first `reach + t` positions.
    """
    for r in range(rows):
        end = reach + r // group
        last = max(0, min(count, end))
        before = load_f32(tops + 4 * r)
        largest, total = softmax_block(scores + 4 * BLOCK * r, min(last, max(0, end - window)), last, softcap, before)
        factor = exp1(before - largest)
        store_f32(tops + 4 * r, largest)
        store_f32(sums + 4 * r, load_f32(sums + 4 * r) * factor + total)
        for c in range(0, 4 * width, 64):
            y = out + 4 * width * r + c
            store_f32x16(y, mul(load_f32x16(y), splat(factor)))


@inline
def _store_tile(result, sums, rows, group, width, out, out_stride):
    """`rows` rows of result [tokens, group, width], each over its sum of weights -> the same heads of out."""
    for r in range(rows):
        y = out + r // group * out_stride + 4 * (r % group) * width
        inverse = splat(np.float32(1) / load_f32(sums + 4 * r))
        for c in range(0, 4 * width, 64):
            store_f32x16(y + c, mul(load_f32x16(result + 4 * width * r + c), inverse))


@kernel
def attend_tiles_rows(rank, size, q, q_stride, heads, mask, out, out_stride, product, batch, scratch, scratch_stride):
    """For each (key-value head, tile of tokens): attention to one block of positions after another; product: `sgemm_kernel`.

    Threads take what is next, late tiles first, which attend to the most positions.
    """
    keys, group, width, values = shape_of(heads)
    k_cache, v_cache, k_row, v_row, cached, kind = caches_of(heads)
    scale, softcap = load_f32(heads + HEADS.scale), load_f32(heads + HEADS.softcap)
    window, sinks = load_i64(heads + HEADS.window), load_i64(heads + HEADS.sinks)
    blocks = load_i64(mask + BLOCK_MASK.blocks)
    blocks_stride, block_size = load_i64(mask + BLOCK_MASK.stride), load_i64(mask + BLOCK_MASK.block_size)
    tokens, position = load_i64(batch + BATCH.tokens), load_i64(batch + BATCH.position)
    tile = tile_tokens(group)
    tiles, most = (tokens + tile - 1) // tile, tile * group
    query = scratch + rank * scratch_stride
    result = query + 4 * most * width
    block = result + 4 * most * values
    transposed = block + 4 * BLOCK * max(width, values)
    scores = transposed + 4 * BLOCK * width
    tops = scores + 4 * most * BLOCK
    sums = tops + 4 * most
    item = take_next(load_i64(heads + HEADS.taken))
    while item < keys * tiles:
        head, first = item % keys, (tiles - 1 - item // keys) * tile
        count = min(tile, tokens - first)
        rows, length = count * group, position + first + count
        _load_queries(q + first * q_stride + 4 * head * group * width, q_stride, count, group, width, scale, query)
        _begin(rows, group, values, sinks + 4 * head * group if sinks else 0, tops, sums, result)
        start = max(0, position + first + 1 - window)
        for p in range(start // BLOCK * BLOCK, length, BLOCK):
            begin, there, row = max(0, start - p), min(BLOCK, length - p), head * cached + p % cached
            _load_block(k_cache + k_row * row, k_row, kind, begin, there, width, block)
            for i in range(0, BLOCK, 16):
                for c in range(0, width, 16):
                    transpose16(block + 4 * (i * width + c), 4 * width, transposed + 4 * (c * BLOCK + i), 4 * BLOCK)
            sgemm(product, query, 4 * width, transposed, 4 * BLOCK, scores, 4 * BLOCK, rows, BLOCK, width, False)
            reach = position + first + 1 - p
            if blocks:
                _mask_rows(
                    scores, rows, group, reach, there, blocks + first * blocks_stride, blocks_stride, block_size, p
                )
            _softmax_rows(scores, rows, group, values, reach, window, there, softcap, tops, sums, result)
            _load_block(v_cache + v_row * row, v_row, number_of_values(kind), begin, there, values, block)
            sgemm(product, scores, 4 * BLOCK, block, 4 * values, result, 4 * values, rows, values, BLOCK, True)
        _store_tile(result, sums, rows, group, values, out + first * out_stride + 4 * head * group * values, out_stride)
        item = take_next(load_i64(heads + HEADS.taken))


def attend_tiles(
    plan: Plan, q: Activation, heads: Heads, table: Operand, out: Activation, mask: BlockMask | None = None
) -> None:
    """q [tokens, query heads * head_dim] -> out [tokens, query heads * value_dim]; see `attend_token` for the rest."""
    most, width, values = tile_tokens(heads.group) * heads.group, heads.head_dim, heads.value_dim
    floats = most * (width + values + BLOCK + 2) + BLOCK * (max(width, values) + width)
    rows, results = (q.read("f32"), q.stride("f32")), (out.read("f32"), out.stride("f32"))
    seen, scratch = mask_table(plan, mask), plan.scratch(4 * floats)
    plan.add(attend_tiles_rows, *rows, table, seen, *results, sgemm_kernel, plan.batch, *scratch)
