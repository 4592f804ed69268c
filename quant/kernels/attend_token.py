"""Attention of one token (a decode step), or of each of a few: threads share blocks of positions, whose results are joined.

This is flash decoding: each block gives the largest score m, the sum of exp(score - m), and the sum of values weighted by
exp(score - m); the softmax over all positions follows from these.
"""

from __future__ import annotations

import numpy as np

from quant.batch import BATCH, position_of
from quant.jit import inline, kernel
from quant.kernels.block_mask import BLOCK_MASK, BlockMask, mask_table
from quant.kernels.heads import HEADS, Heads, caches_of, shape_of, slots_of
from quant.kernels.kv_cache import first_columns, load_unscaled, number_of_values, scale_of
from quant.kernels.partition import start_of
from quant.kernels.softmax import BLOCK, LOWEST, exp1, softmax_block
from quant.plan import Activation, Operand, Plan
from quant.simd import (
    broadcast_f32,
    fma,
    load_f32,
    load_f32x16,
    load_i8x32,
    load_i64,
    load_u8,
    load_u32,
    mul,
    prefetch_l2,
    splat,
    store_f32,
    store_f32x16,
    store_i8x32,
    store_u32,
    sum_lanes,
    zero_f32x16,
)


@inline
def _four_dots(q0, q1, q2, q3, k, kind, begin, end, width):
    """q . k of four queries with one key, columns begin to end, 16 sums each; of whole numbers without their scale."""
    s0, s1, s2, s3 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
    for c in range(begin, end, 16):
        key, at = load_unscaled(k, c, width, kind), 4 * c
        s0, s1 = fma(load_f32x16(q0 + at), key, s0), fma(load_f32x16(q1 + at), key, s1)
        s2, s3 = fma(load_f32x16(q2 + at), key, s2), fma(load_f32x16(q3 + at), key, s3)
    return s0, s1, s2, s3


@inline
def _four_scores(q0, q1, q2, q3, k, kind, width, scale, scores):
    """scale * (q . k) of four queries with one key -> scores, those of two queries BLOCK numbers apart."""
    first = first_columns(kind)
    s0, s1, s2, s3 = _four_dots(q0, q1, q2, q3, k, kind, first, width, width)
    d = scale_of(k, first, width, kind)
    a0, a1, a2, a3 = d * sum_lanes(s0), d * sum_lanes(s1), d * sum_lanes(s2), d * sum_lanes(s3)
    if first:
        s0, s1, s2, s3 = _four_dots(q0, q1, q2, q3, k, kind, 0, first, width)
        d = scale_of(k, 0, width, kind)
        a0, a1 = a0 + d * sum_lanes(s0), a1 + d * sum_lanes(s1)
        a2, a3 = a2 + d * sum_lanes(s2), a3 + d * sum_lanes(s3)
    store_f32(scores, scale * a0)
    store_f32(scores + 4 * BLOCK, scale * a1)
    store_f32(scores + 8 * BLOCK, scale * a2)
    store_f32(scores + 12 * BLOCK, scale * a3)


@inline
def _four_sums(scores, v, row, kind, column, first, last, width, out):
    """16 columns of the values of positions first to last, summed with four rows of scores as weights -> out [4, 16]."""
    s0, s1, s2, s3 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
    for p in range(first, last):
        value, at = load_unscaled(v + row * p, column, width, kind), scores + 4 * p
        s0, s1 = fma(broadcast_f32(at), value, s0), fma(broadcast_f32(at + 4 * BLOCK), value, s1)
        s2, s3 = fma(broadcast_f32(at + 8 * BLOCK), value, s2), fma(broadcast_f32(at + 12 * BLOCK), value, s3)
    store_f32x16(out, s0)
    store_f32x16(out + 64, s1)
    store_f32x16(out + 128, s2)
    store_f32x16(out + 192, s3)


@inline
def _copy_row(x, row, y):
    """`row` bytes, a multiple of 4."""
    whole = row // 32 * 32
    for c in range(0, whole, 32):
        store_i8x32(y + c, load_i8x32(x + c))
    for c in range(whole, row, 4):
        store_u32(y + c, load_u32(x + c))


@inline
def _gather(cache, row, first, last, mask, block_size, position, out):
    """Copy rows first to last of a block that are not masked, one after the other -> out; gives how many there are."""
    count = 0
    for p in range(first, last):
        if load_u8(mask + (position + p) // block_size):
            _copy_row(cache + row * p, row, out + row * count)
            count += 1
    return count


@inline
def _prefetch(address, size):
    """Prefetch so many bytes while something else is computed: a cache row is too short for the hardware to foresee the next."""
    for line in range(0, size, 64):
        prefetch_l2(address + line)


@inline
def _blocks_of(heads, batch, t):
    """Positions up to token t, the first in its window, the block of that position, and how many blocks there are from it."""
    length = position_of(batch, t) + 1
    start = max(0, length - load_i64(heads + HEADS.window))
    return length, start, start // BLOCK, (length + BLOCK - 1) // BLOCK - start // BLOCK


@inline
def _entry_bytes(width):
    """Bytes of what a block gives for one query head: largest score and sum, padded to 64 bytes, and the sum of values."""
    return 4 * (width + 16)


@inline
def _blocks_of_all(heads, batch):
    """The first block that any token of a replay attends to, and how many there are from it to the last."""
    _, _, first, blocks = _blocks_of(heads, batch, 0)
    last = first + blocks
    for t in range(1, load_i64(batch + BATCH.tokens)):
        _, _, begin, blocks = _blocks_of(heads, batch, t)
        first, last = min(first, begin), max(last, begin + blocks)
    return first, last - first


@inline
def _attend_block(q, heads, k, v, head, first, last, place, scores):
    """Query heads of one key-value head attend to positions first to last of the block whose keys and values are at k and v.

    place: where the result of the first of these query heads goes; those of the others are HEADS.blocks entries apart.
    """
    _, group, width, values = shape_of(heads)
    _, _, k_row, v_row, _, kind = caches_of(heads)
    scale, softcap = load_f32(heads + HEADS.scale), load_f32(heads + HEADS.softcap)
    step, sums = load_i64(heads + HEADS.blocks) * _entry_bytes(values), scores + 4 * BLOCK * (group + 3)
    query, end = q + 4 * width * head * group, 4 * width * (group - 1)
    for g in range(0, group, 4):
        at = 4 * width * g
        q0, q1 = query + at, query + min(at + 4 * width, end)
        q2, q3 = query + min(at + 8 * width, end), query + min(at + 12 * width, end)
        for p in range(first, last):
            if g == 0:
                _prefetch(v + v_row * p, v_row)
            _four_scores(q0, q1, q2, q3, k + k_row * p, kind, width, scale, scores + 4 * (BLOCK * g + p))
    for g in range(group):
        largest, total = softmax_block(scores + 4 * BLOCK * g, first, last, softcap, LOWEST)
        store_f32(place + g * step, largest)
        store_f32(place + g * step + 4, total)
    if kind >= 3:
        for p in range(first, last):
            d = scale_of(v + v_row * p, 0, values, number_of_values(kind))
            for g in range(group):
                at = scores + 4 * (BLOCK * g + p)
                store_f32(at, d * load_f32(at))
    for g in range(0, group, 4):
        for c in range(0, values, 16):
            if g == 0:
                share = BLOCK * k_row // (values // 16)
                _prefetch(k + BLOCK * k_row + c // 16 * share, share)
            _four_sums(scores + 4 * BLOCK * g, v, v_row, number_of_values(kind), c, first, last, values, sums)
            for i in range(min(4, group - g)):
                store_f32x16(place + (g + i) * step + 64 + 4 * c, load_f32x16(sums + 64 * i))


@kernel
def attend_blocks(rank, size, q, q_stride, heads, mask, partial, batch, scratch, scratch_stride):
    """For each (key-value head, block of positions): largest score, sum and sum of values of its query heads -> partial.

    Queries are taken four at a time, so that a key is converted to float32 once for four; where a group of query heads is no
    multiple of four, the last is repeated and its copies are dropped. Positions that `mask` (a BLOCK_MASK table) leaves out
    are not read. Of several tokens each attends to its own positions; a block of one text is read once for all.
    """
    keys, group, _, values = shape_of(heads)
    k_cache, v_cache, k_row, v_row, rows, _ = caches_of(heads)
    allowed, block_size = load_i64(mask + BLOCK_MASK.blocks), load_i64(mask + BLOCK_MASK.block_size)
    first_block, blocks = _blocks_of_all(heads, batch)
    entries = load_i64(heads + HEADS.blocks) * _entry_bytes(values)
    scores = scratch + rank * scratch_stride
    near = scores + 4 * BLOCK * (group + 3) + 256
    for item in range(start_of(rank, size, keys * blocks), start_of(rank + 1, size, keys * blocks)):
        head, block = item // blocks, first_block + item % blocks
        position = block * BLOCK
        row = head * rows + position % rows
        for t in range(load_i64(batch + BATCH.tokens)):
            length, start, begin, _ = _blocks_of(heads, batch, t)
            first, last = max(0, start - position), min(BLOCK, length - position)
            k_slot, v_slot = slots_of(heads, batch, t)
            k, v = k_cache + k_slot + k_row * row, v_cache + v_slot + v_row * row
            place = partial + (t * keys + head) * group * entries + (block - begin) * _entry_bytes(values)
            if first >= last:
                continue
            if allowed:
                blocks_of_token = allowed + t * load_i64(mask + BLOCK_MASK.stride)
                count = _gather(k, k_row, first, last, blocks_of_token, block_size, position, near)
                _gather(v, v_row, first, last, blocks_of_token, block_size, position, near + BLOCK * k_row)
                _attend_block(q + t * q_stride, heads, near, near + BLOCK * k_row, head, 0, count, place, scores)
            else:
                _attend_block(q + t * q_stride, heads, k, v, head, first, last, place, scores)


@kernel
def join_blocks(rank, size, partial, heads, out, stride, batch):
    """Join the blocks of each token's query heads, in order of position -> out [tokens, query heads, value_dim]."""
    queries, width = load_i64(heads + HEADS.query_heads), load_i64(heads + HEADS.value_dim)
    sinks, items = load_i64(heads + HEADS.sinks), load_i64(batch + BATCH.tokens) * queries
    entry = _entry_bytes(width)
    for item in range(start_of(rank, size, items), start_of(rank + 1, size, items)):
        t, head = item // queries, item % queries
        _, _, _, blocks = _blocks_of(heads, batch, t)
        parts = partial + item * load_i64(heads + HEADS.blocks) * entry
        largest, total = load_f32(sinks + 4 * head) if sinks else LOWEST, np.float32(0)
        for block in range(blocks):
            largest = max(largest, load_f32(parts + block * entry))
        if sinks:
            total = exp1(load_f32(sinks + 4 * head) - largest)
        y = out + t * stride + 4 * head * width
        for c in range(0, 4 * width, 64):
            store_f32x16(y + c, zero_f32x16())
        for block in range(blocks):
            factor = exp1(load_f32(parts + block * entry) - largest)
            total += factor * load_f32(parts + block * entry + 4)
            for c in range(0, 4 * width, 64):
                store_f32x16(y + c, fma(splat(factor), load_f32x16(parts + block * entry + 64 + c), load_f32x16(y + c)))
        for c in range(0, 4 * width, 64):
            store_f32x16(y + c, mul(load_f32x16(y + c), splat(np.float32(1) / total)))


def attend_token(
    plan: Plan, q: Activation, heads: Heads, table: Operand, out: Activation, mask: BlockMask | None = None
) -> None:
    """q [tokens, query heads * head_dim], normed and rotated, attends to the caches -> out [tokens, query heads * value_dim].

    table: that of the heads; mask: which blocks the token attends to, if not all.
    """
    blocks = plan.tokens * heads.query_heads * heads.blocks_of(plan.in_place_of(heads.k_cache)[1])
    partial = plan.buffer("partial", (blocks, heads.value_dim + 16), np.float32)
    gathered = BLOCK * (heads.k_cache.strides[1] + heads.v_cache.strides[1]) if mask else 0
    scratch = plan.scratch(4 * BLOCK * (heads.group + 3) + 256 + gathered)
    plan.add(
        attend_blocks, q.read("f32"), q.stride("f32"), table, mask_table(plan, mask), partial, plan.batch, *scratch
    )
    plan.add(join_blocks, partial, table, out.read("f32"), out.stride("f32"), plan.batch)
