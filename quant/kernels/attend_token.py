"""Attention of one token (a decode step), or of each of a few: threads share blocks of positions, whose results are joined.

This is flash decoding: each block gives the largest score m, the sum of exp(score - m), and the sum of values weighted by
exp(score - m); the softmax over all positions follows from these.
"""

from __future__ import annotations

import numpy as np

from quant.attention_tile import ROWS
from quant.batch import BATCH, of_one_text, position_of
from quant.jit import inline, kernel
from quant.kernels.attend_block import attend_block, entry_bytes, padded, scratch_bytes, tokens_at_a_time
from quant.kernels.block_mask import BLOCK_MASK, BlockMask, mask_table
from quant.kernels.heads import HEADS, Heads, caches_of, shape_of, slots_of
from quant.kernels.partition import start_of
from quant.kernels.softmax import BLOCK, LOWEST, exp1
from quant.plan import Activation, Operand, Plan
from quant.simd import (
    fma,
    load_f32,
    load_f32x16,
    load_i8x32,
    load_i64,
    load_u8,
    load_u32,
    mul,
    splat,
    store_f32x16,
    store_i8x32,
    store_i64,
    store_u32,
    zero_f32x16,
)
from quant.tile import ENTRY


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
def _blocks_of(heads, batch, t):
    """Positions up to token t, the first in its window, the block of that position, and how many blocks there are from it."""
    length = position_of(batch, t) + 1
    start = max(0, length - load_i64(heads + HEADS.window))
    return length, start, start // BLOCK, (length + BLOCK - 1) // BLOCK - start // BLOCK


@inline
def _blocks_of_all(heads, batch, t, end):
    """The first block that any of the tokens t to end attends to, and how many there are from it to the last."""
    _, _, first, blocks = _blocks_of(heads, batch, t)
    last = first + blocks
    for other in range(t + 1, end):
        _, _, begin, blocks = _blocks_of(heads, batch, other)
        first, last = min(first, begin), max(last, begin + blocks)
    return first, last - first


@inline
def _seen(heads, batch, t, position):
    """First and last position, counted from `position`, of a block that token t attends to."""
    length, start, _, _ = _blocks_of(heads, batch, t)
    return max(0, start - position), min(BLOCK, length - position)


@inline
def _alike(heads, batch, t, end, position):
    """How many of one text's tokens t to end, from t on, attend to the same positions, and so can do it together."""
    first, last = _seen(heads, batch, t, position)
    until = t + 1
    while until < end:
        begin, behind = _seen(heads, batch, until, position)
        if begin != first or behind != last:
            break
        until += 1
    return until - t


@inline
def _enter(q, q_stride, heads, batch, t, count, head, begin, end, block, partial, entries):
    """Queries begin to end of a key-value head, of `count` tokens from t on, and where their results go -> entries of a table.

    The last is repeated to fill a tile; what copies give goes behind the table, and nobody reads it.
    """
    keys, group, width, values = shape_of(heads)
    size, step, r = entry_bytes(values), load_i64(heads + HEADS.blocks) * entry_bytes(values), 0
    for token in range(t, t + count):
        _, _, first, _ = _blocks_of(heads, batch, token)
        query = q + token * q_stride + 4 * width * group * head
        result = partial + (token * keys + head) * group * step + (block - first) * size
        for g in range(begin, end):
            store_i64(entries + r + ENTRY.activation, query + 4 * width * g)
            store_i64(entries + r + ENTRY.result, result + step * g)
            r += ENTRY.bytes
    whole = padded(count * (end - begin)) * ENTRY.bytes
    while r < whole:
        store_i64(entries + r + ENTRY.activation, load_i64(entries + r - ENTRY.bytes + ENTRY.activation))
        store_i64(entries + r + ENTRY.result, entries + whole)
        r += ENTRY.bytes


@kernel
def attend_blocks(rank, size, q, q_stride, heads, mask, partial, batch, scratch, scratch_stride):
    """For each (key-value head, block of positions): largest score, sum and sum of values of its query heads -> partial.

    Tokens that attend to the same positions do it together. Positions that `mask` (a BLOCK_MASK table) leaves out are not
    read; then, and where tokens are of several texts, each token is by itself. Threads share all tokens' heads and blocks;
    where these are fewer than threads, also the query heads of each.
    """
    keys, group, width, values = shape_of(heads)
    k_cache, v_cache, k_row, v_row, rows, _ = caches_of(heads)
    allowed, block_size = load_i64(mask + BLOCK_MASK.blocks), load_i64(mask + BLOCK_MASK.block_size)
    entries, tokens = scratch + rank * scratch_stride, load_i64(batch + BATCH.tokens)
    alone = allowed != 0 or not of_one_text(batch)
    step, most = (1, 1) if alone else (tokens, tokens_at_a_time(group))
    near = entries + padded(most * group) * ENTRY.bytes + entry_bytes(values)
    gathered = entries + scratch_bytes(group, width, values)
    every, start = 0, 0
    while start < tokens:
        every += keys * _blocks_of_all(heads, batch, start, start + step)[1]
        start += step
    tiles = padded(group) // ROWS
    parts = max(1, min(size // every, tiles))
    item, last, start = start_of(rank, size, parts * every), start_of(rank + 1, size, parts * every), 0
    while start < tokens:
        first_block, blocks = _blocks_of_all(heads, batch, start, start + step)
        for place in range(max(item, 0), min(last, parts * keys * blocks)):
            part, head, block = place // (keys * blocks), place // blocks % keys, first_block + place % blocks
            begin, end = ROWS * start_of(part, parts, tiles), min(group, ROWS * start_of(part + 1, parts, tiles))
            position = block * BLOCK
            row, t = head * rows + position % rows, start
            while t < start + step:
                count = _alike(heads, batch, t, min(start + step, t + most), position)
                first, behind = _seen(heads, batch, t, position)
                k_slot, v_slot = slots_of(heads, batch, t)
                k, v = k_cache + k_slot + k_row * row, v_cache + v_slot + v_row * row
                if first < behind:
                    _enter(q, q_stride, heads, batch, t, count, head, begin, end, block, partial, entries)
                    if allowed:
                        seen = allowed + t * load_i64(mask + BLOCK_MASK.stride)
                        there = _gather(k, k_row, first, behind, seen, block_size, position, gathered)
                        _gather(v, v_row, first, behind, seen, block_size, position, gathered + BLOCK * k_row)
                        k, v, first, behind = gathered, gathered + BLOCK * k_row, 0, there
                    attend_block(entries, count * (end - begin), heads, k, v, first, behind, near)
                t += count
        item, last, start = item - parts * keys * blocks, last - parts * keys * blocks, start + step


@kernel
def join_blocks(rank, size, partial, heads, out, stride, batch):
    """Join the blocks of each token's query heads, in order of position -> out [tokens, query heads, value_dim]."""
    queries, width = load_i64(heads + HEADS.query_heads), load_i64(heads + HEADS.value_dim)
    sinks, items = load_i64(heads + HEADS.sinks), load_i64(batch + BATCH.tokens) * queries
    entry = entry_bytes(width)
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
    scratch = plan.scratch(scratch_bytes(heads.group, heads.head_dim, heads.value_dim) + gathered)
    plan.add(
        attend_blocks, q.read("f32"), q.stride("f32"), table, mask_table(plan, mask), partial, plan.batch, *scratch
    )
    plan.add(join_blocks, partial, table, out.read("f32"), out.stride("f32"), plan.batch)
