"""Attention of one token (a decode step): blocks of positions are shared among threads, and then joined (flash decoding).

Each block gives the largest score m, the sum of exp(score - m), and the sum of values weighted by exp(score - m); the
softmax over all positions follows from these.
"""

from __future__ import annotations

import numpy as np

from quant.jit import inline, kernel
from quant.kernels.block_mask import BLOCK_MASK, BlockMask, mask_table
from quant.kernels.heads import HEADS, Heads, caches_of, shape_of
from quant.kernels.kv_cache import load_row
from quant.kernels.partition import start_of
from quant.kernels.softmax import BLOCK, LOWEST, exp1, softmax_block
from quant.plan import BATCH, Activation, Operand, Plan
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
def _four_scores(q0, q1, q2, q3, k, kind, width, scale, scores):
    """scale * (q . k) of four queries with one key -> scores, those of two queries BLOCK numbers apart."""
    s0, s1, s2, s3 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
    for c in range(0, width, 16):
        key, at = load_row(k, c, width, kind), 4 * c
        s0, s1 = fma(load_f32x16(q0 + at), key, s0), fma(load_f32x16(q1 + at), key, s1)
        s2, s3 = fma(load_f32x16(q2 + at), key, s2), fma(load_f32x16(q3 + at), key, s3)
    store_f32(scores, scale * sum_lanes(s0))
    store_f32(scores + 4 * BLOCK, scale * sum_lanes(s1))
    store_f32(scores + 8 * BLOCK, scale * sum_lanes(s2))
    store_f32(scores + 12 * BLOCK, scale * sum_lanes(s3))


@inline
def _four_sums(scores, v, row, kind, column, first, last, width, out):
    """16 columns of the values of positions first to last, summed with four rows of scores as weights -> out [4, 16]."""
    s0, s1, s2, s3 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
    for p in range(first, last):
        value, at = load_row(v + row * p, column, width, kind), scores + 4 * p
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
def _blocks_of(heads, batch):
    """Positions up to the token, the first in its window, the block of that position, and how many blocks there are from it."""
    length = load_i64(batch + BATCH.position) + 1
    start = max(0, length - load_i64(heads + HEADS.window))
    return length, start, start // BLOCK, (length + BLOCK - 1) // BLOCK - start // BLOCK


@inline
def _entry_bytes(width):
    """Bytes of what a block gives for one query head: largest score and sum, padded to 64 bytes, and the sum of values."""
    return 4 * (width + 16)


@kernel
def attend_blocks(rank, size, q, heads, mask, partial, batch, scratch, scratch_stride):
    """For each (key-value head, block of positions): largest score, sum and sum of values of its query heads -> partial.

    Queries are taken four at a time, so that a key is converted to float32 once for four; where a group of query heads is no
    multiple of four, the last is repeated and its copies are dropped. Positions that `mask` (a BLOCK_MASK table) leaves out
    are not read.
    """
    keys, group, width, values = shape_of(heads)
    k_cache, v_cache, k_row, v_row, context, kind = caches_of(heads)
    scale, softcap = load_f32(heads + HEADS.scale), load_f32(heads + HEADS.softcap)
    allowed, block_size = load_i64(mask + BLOCK_MASK.blocks), load_i64(mask + BLOCK_MASK.block_size)
    length, start, first_block, blocks = _blocks_of(heads, batch)
    most, entry = (context + BLOCK - 1) // BLOCK, _entry_bytes(values)
    scores = scratch + rank * scratch_stride
    sums = scores + 4 * BLOCK * (group + 3)
    for item in range(start_of(rank, size, keys * blocks), start_of(rank + 1, size, keys * blocks)):
        head, block = item // blocks, first_block + item % blocks
        position = block * BLOCK
        first, last = max(0, start - position), min(BLOCK, length - position)
        k, v = k_cache + k_row * (head * context + position), v_cache + v_row * (head * context + position)
        if allowed:
            near = sums + 256
            count = _gather(k, k_row, first, last, allowed, block_size, position, near)
            _gather(v, v_row, first, last, allowed, block_size, position, near + BLOCK * k_row)
            k, v, first, last = near, near + BLOCK * k_row, 0, count
        query, end = q + 4 * width * head * group, 4 * width * (group - 1)
        for g in range(0, group, 4):
            at = 4 * width * g
            q0, q1 = query + at, query + min(at + 4 * width, end)
            q2, q3 = query + min(at + 8 * width, end), query + min(at + 12 * width, end)
            for p in range(first, last):
                if g == 0:
                    _prefetch(v + v_row * p, v_row)
                place = scores + 4 * (BLOCK * g + p)
                _four_scores(q0, q1, q2, q3, k + k_row * p, kind, width, scale, place)
        for g in range(group):
            out = partial + ((head * group + g) * most + block) * entry
            largest, total = softmax_block(scores + 4 * BLOCK * g, first, last, softcap, LOWEST)
            store_f32(out, largest)
            store_f32(out + 4, total)
        for g in range(0, group, 4):
            for c in range(0, values, 16):
                if g == 0:
                    share = BLOCK * k_row // (values // 16)
                    _prefetch(k + BLOCK * k_row + c // 16 * share, share)
                _four_sums(scores + 4 * BLOCK * g, v, v_row, kind, c, first, last, values, sums)
                for i in range(min(4, group - g)):
                    out = partial + ((head * group + g + i) * most + block) * entry
                    store_f32x16(out + 64 + 4 * c, load_f32x16(sums + 64 * i))


@kernel
def join_blocks(rank, size, partial, heads, out, batch):
    """Join the blocks of each query head, in order of position -> out [query heads, value_dim]."""
    queries, width = load_i64(heads + HEADS.query_heads), load_i64(heads + HEADS.value_dim)
    sinks = load_i64(heads + HEADS.sinks)
    _, _, first, blocks = _blocks_of(heads, batch)
    most, entry = (load_i64(heads + HEADS.context) + BLOCK - 1) // BLOCK, _entry_bytes(width)
    for head in range(start_of(rank, size, queries), start_of(rank + 1, size, queries)):
        parts = partial + (head * most + first) * entry
        largest, total = load_f32(sinks + 4 * head) if sinks else LOWEST, np.float32(0)
        for block in range(blocks):
            largest = max(largest, load_f32(parts + block * entry))
        if sinks:
            total = exp1(load_f32(sinks + 4 * head) - largest)
        y = out + 4 * head * width
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
    """q [1, query heads * head_dim], normed and rotated, attends to the caches -> out [1, query heads * value_dim].

    table: that of the heads; mask: which blocks the token attends to, if not all.
    """
    blocks = heads.query_heads * -(-heads.context // BLOCK)
    partial = plan.buffer("partial", (blocks, heads.value_dim + 16), np.float32)
    gathered = BLOCK * (heads.k_cache.strides[1] + heads.v_cache.strides[1]) if mask else 0
    scratch = plan.scratch(4 * BLOCK * (heads.group + 3) + 256 + gathered)
    plan.add(attend_blocks, q.read("f32"), table, mask_table(plan, mask), partial, plan.batch, *scratch)
    plan.add(join_blocks, partial, table, out.read("f32"), plan.batch)
