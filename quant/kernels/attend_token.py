"""One token's queries and the keys and values of all positions it sees, block by block, so that many threads share them."""

from __future__ import annotations

import numpy as np

from quant.jit import inline, kernel
from quant.kernels.heads import HEADS, Heads
from quant.kernels.kv_cache import load_row
from quant.kernels.share import first_of
from quant.kernels.sight import SIGHT, Sight, sight_table
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
def _four_scores(q0, q1, q2, q3, k, quantized, width, scale, scores):
    """scale * (q . k) of four queries with one key, BLOCK scores apart."""
    s0, s1, s2, s3 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
    for c in range(0, width, 16):
        key, at = load_row(k, c, width, quantized), 4 * c
        s0, s1 = fma(load_f32x16(q0 + at), key, s0), fma(load_f32x16(q1 + at), key, s1)
        s2, s3 = fma(load_f32x16(q2 + at), key, s2), fma(load_f32x16(q3 + at), key, s3)
    store_f32(scores, scale * sum_lanes(s0))
    store_f32(scores + 4 * BLOCK, scale * sum_lanes(s1))
    store_f32(scores + 8 * BLOCK, scale * sum_lanes(s2))
    store_f32(scores + 12 * BLOCK, scale * sum_lanes(s3))


@inline
def _four_sums(scores, v, row, quantized, column, first, last, width, out):
    """The values of positions first to last weighted by four rows of scores: 16 columns, 64 bytes apart."""
    s0, s1, s2, s3 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
    for p in range(first, last):
        value, at = load_row(v + row * p, column, width, quantized), scores + 4 * p
        s0, s1 = fma(broadcast_f32(at), value, s0), fma(broadcast_f32(at + 4 * BLOCK), value, s1)
        s2, s3 = fma(broadcast_f32(at + 8 * BLOCK), value, s2), fma(broadcast_f32(at + 12 * BLOCK), value, s3)
    store_f32x16(out, s0)
    store_f32x16(out + 64, s1)
    store_f32x16(out + 128, s2)
    store_f32x16(out + 192, s3)


@inline
def _copy_row(x, row, y):
    whole = row // 32 * 32
    for c in range(0, whole, 32):
        store_i8x32(y + c, load_i8x32(x + c))
    for c in range(whole, row, 4):
        store_u32(y + c, load_u32(x + c))


@inline
def _gather(cache, row, first, last, seen, seen_block, position, out):
    """The rows of a block that are seen, one after the other; gives how many there are."""
    count = 0
    for p in range(first, last):
        if load_u8(seen + (position + p) // seen_block):
            _copy_row(cache + row * p, row, out + row * count)
            count += 1
    return count


@inline
def _ask_for(address, size):
    """Have memory on its way while something else is computed: columns of values lie far apart, and each block is short."""
    for line in range(0, size, 64):
        prefetch_l2(address + line)


@inline
def _blocks_of(heads, run):
    """Positions up to the token, the first it sees, the first block that it sees something of, and how many blocks."""
    length = load_i64(run + 8) + 1
    start = max(0, length - load_i64(heads + HEADS.window))
    return length, start, start // BLOCK, (length + BLOCK - 1) // BLOCK - start // BLOCK


@inline
def _entry_bytes(width):
    """A largest score and a sum, padded to 64 bytes, and a sum of values."""
    return 4 * (width + 16)


@kernel
def attend_blocks(rank, size, q, heads, sight, partial, run, scratch, scratch_stride):
    """Each (key-value head, block of positions) gives its query heads' largest score, sum, and sum of values.

    Queries go in fours, so that a key is converted to float32 once for four; what is left over of a group fills up with
    copies, whose results nobody reads. Of a block of which not all is seen, only what is seen is read.
    """
    keys, width, values = (
        load_i64(heads + HEADS.key_value_heads),
        load_i64(heads + HEADS.head_dim),
        load_i64(heads + HEADS.value_dim),
    )
    k_cache, k_row = load_i64(heads + HEADS.k_cache), load_i64(heads + HEADS.k_row)
    v_cache, v_row = load_i64(heads + HEADS.v_cache), load_i64(heads + HEADS.v_row)
    quantized, context = load_i64(heads + HEADS.quantized), load_i64(heads + HEADS.context)
    scale, softcap = load_f32(heads + HEADS.scale), load_f32(heads + HEADS.softcap)
    seen, seen_block = load_i64(sight + SIGHT.seen), load_i64(sight + SIGHT.block)
    group = load_i64(heads + HEADS.query_heads) // keys
    length, start, first_block, blocks = _blocks_of(heads, run)
    most, entry = (context + BLOCK - 1) // BLOCK, _entry_bytes(values)
    scores = scratch + rank * scratch_stride
    sums = scores + 4 * BLOCK * (group + 3)
    for item in range(first_of(rank, size, keys * blocks), first_of(rank + 1, size, keys * blocks)):
        head, block = item // blocks, first_block + item % blocks
        position = block * BLOCK
        first, last = max(0, start - position), min(BLOCK, length - position)
        k, v = k_cache + k_row * (head * context + position), v_cache + v_row * (head * context + position)
        if seen:
            near = sums + 256
            count = _gather(k, k_row, first, last, seen, seen_block, position, near)
            _gather(v, v_row, first, last, seen, seen_block, position, near + BLOCK * k_row)
            k, v, first, last = near, near + BLOCK * k_row, 0, count
        query, end = q + 4 * width * head * group, 4 * width * (group - 1)
        for g in range(0, group, 4):
            at = 4 * width * g
            q0, q1 = query + at, query + min(at + 4 * width, end)
            q2, q3 = query + min(at + 8 * width, end), query + min(at + 12 * width, end)
            for p in range(first, last):
                if g == 0:
                    _ask_for(v + v_row * p, v_row)
                place = scores + 4 * (BLOCK * g + p)
                _four_scores(q0, q1, q2, q3, k + k_row * p, quantized, width, scale, place)
        for g in range(group):
            out = partial + ((head * group + g) * most + block) * entry
            largest, total = softmax_block(scores + 4 * BLOCK * g, first, last, softcap, LOWEST)
            store_f32(out, largest)
            store_f32(out + 4, total)
        for g in range(0, group, 4):
            for c in range(0, values, 16):
                if g == 0:
                    share = BLOCK * k_row // (values // 16)
                    _ask_for(k + BLOCK * k_row + c // 16 * share, share)
                _four_sums(scores + 4 * BLOCK * g, v, v_row, quantized, c, first, last, values, sums)
                for i in range(min(4, group - g)):
                    out = partial + ((head * group + g + i) * most + block) * entry
                    store_f32x16(out + 64 + 4 * c, load_f32x16(sums + 64 * i))


@kernel
def join_blocks(rank, size, partial, heads, out, run):
    """Join each query head's blocks, in order of position -> out [queries, value width]."""
    queries, width = load_i64(heads + HEADS.query_heads), load_i64(heads + HEADS.value_dim)
    sinks = load_i64(heads + HEADS.sinks)
    _, _, first, blocks = _blocks_of(heads, run)
    most, entry = (load_i64(heads + HEADS.context) + BLOCK - 1) // BLOCK, _entry_bytes(width)
    for head in range(first_of(rank, size, queries), first_of(rank + 1, size, queries)):
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
    plan: Plan, q: Activation, heads: Heads, table: Operand, out: Activation, sight: Sight | None = None
) -> None:
    """q [1, queries * width], normed and rotated -> out [1, queries * value width].

    table: that of the heads; sight: what the token sees, if not all.
    """
    blocks = heads.queries * -(-heads.context // BLOCK)
    partial = plan.buffer("partial", (blocks, heads.values + 16), np.float32)
    gathered = BLOCK * (heads.k_cache.strides[1] + heads.v_cache.strides[1]) if sight else 0
    scratch = plan.scratch(4 * BLOCK * (heads.group + 3) + 256 + gathered)
    plan.add(attend_blocks, q.read("f32"), table, sight_table(plan, sight), partial, plan.run, *scratch)
    plan.add(join_blocks, partial, table, out.read("f32"), plan.run)
