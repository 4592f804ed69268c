"""Gated attention with grouped key-value heads and a float16 cache.

A query head is normed and turned, meets the keys of its key-value head, and its output is multiplied by sigmoid(gate).
Sums run over fixed blocks of positions whatever the number of threads, with a running softmax (Milakov and Gimelshein,
arXiv 1805.02867), so one answer has one set of bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.activation import store_block
from quant.jit import inline, kernel
from quant.kernels.kv_cache import is_quantized, load_row, row_shape, store_row
from quant.kernels.norm import inverse_rms
from quant.kernels.rope import rotate
from quant.kernels.sgemm import sgemm, sgemm_kernel
from quant.kernels.share import first_of
from quant.plan import Activation, Plan
from quant.simd import (
    add,
    bits_to_f32,
    broadcast_f32,
    exp,
    fma,
    load_f32,
    load_f32x16,
    load_i64,
    max_lanes,
    maximum,
    mul,
    sigmoid,
    splat,
    store_f32,
    store_f32x16,
    sub,
    sum_lanes,
    zero_f32x16,
)  # fmt: skip
from quant.tile import transpose16

_BLOCK = 64  # positions whose keys are met together: 32 KiB of keys at 256 wide heads
_TILE = 16  # tokens of a prefill tile, times the query heads of a group
_LOWEST = np.float32(-1e30)


@dataclass(frozen=True)
class Heads:
    """The shape of an attention layer, and its caches: [key-value heads, context, row], see quant.kernels.kv_cache."""

    queries: int
    keys: int
    width: int
    k_cache: NDArray[Any]
    v_cache: NDArray[Any]

    def __post_init__(self) -> None:
        row, _ = row_shape("q8_0" if is_quantized(self.k_cache) else "f16", self.width)
        if self.queries % self.keys or self.width % 16 or self.k_cache.shape[::2] != (self.keys, row):
            raise ValueError(
                f"{self.queries} query heads, {self.keys} key heads of {self.width}, cache {self.k_cache.shape}"
            )

    @property
    def cache_operands(self) -> tuple[Any, ...]:
        """The caches, their context, the bytes of a row, and whether it is quantized."""
        _, context, row = self.k_cache.shape
        return self.k_cache, self.v_cache, context, row * self.k_cache.itemsize, int(is_quantized(self.k_cache))

    @property
    def group(self) -> int:
        """Query heads that share a key-value head."""
        return self.queries // self.keys


@inline
def _norm_head(x, weight, width, eps, y):
    scale = splat(inverse_rms(x, width, eps))
    for c in range(0, 4 * width, 64):
        store_f32x16(y + c, mul(mul(load_f32x16(x + c), scale), load_f32x16(weight + c)))


@kernel
def norm_rope_store(
    rank, size, q_gate, q_gate_stride, k, v, kv_stride, q_norm, k_norm, eps, angles, pairs, queries, keys, width,
    q, q_stride, k_cache, v_cache, context, row, quantized, run, scratch, scratch_stride,
):  # fmt: skip
    """q_gate [tokens, queries, (q, gate), width], k and v [tokens, keys, width] -> q [tokens, queries, width] and the caches."""
    tokens, position = load_i64(run), load_i64(run + 8)
    heads = queries + keys
    local = scratch + rank * scratch_stride
    for item in range(first_of(rank, size, tokens * heads), first_of(rank + 1, size, tokens * heads)):
        t, head = item // heads, item % heads
        turns = angles + t * pairs * 8
        if head < queries:
            y = q + t * q_stride + 4 * head * width
            _norm_head(q_gate + t * q_gate_stride + 8 * head * width, q_norm, width, bits_to_f32(eps), y)
            rotate(y, turns, pairs)
        else:
            head -= queries
            place = row * (head * context + position + t)
            _norm_head(k + t * kv_stride + 4 * head * width, k_norm, width, bits_to_f32(eps), local)
            rotate(local, turns, pairs)
            store_row(local, width, k_cache + place, quantized)
            store_row(v + t * kv_stride + 4 * head * width, width, v_cache + place, quantized)


@inline
def _four_scores(q0, q1, q2, q3, k, quantized, width, scale, scores):
    """scale * (q . k) of four queries with one key, _BLOCK scores apart."""
    s0, s1, s2, s3 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
    for c in range(0, width, 16):
        key, at = load_row(k, c, width, quantized), 4 * c
        s0, s1 = fma(load_f32x16(q0 + at), key, s0), fma(load_f32x16(q1 + at), key, s1)
        s2, s3 = fma(load_f32x16(q2 + at), key, s2), fma(load_f32x16(q3 + at), key, s3)
    store_f32(scores, scale * sum_lanes(s0))
    store_f32(scores + 4 * _BLOCK, scale * sum_lanes(s1))
    store_f32(scores + 8 * _BLOCK, scale * sum_lanes(s2))
    store_f32(scores + 12 * _BLOCK, scale * sum_lanes(s3))


@inline
def _four_sums(scores, v, row, quantized, column, count, width, out):
    """The values of `count` positions weighted by four rows of scores: 16 columns, 64 bytes apart."""
    s0, s1, s2, s3 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
    for p in range(count):
        value, at = load_row(v + row * p, column, width, quantized), scores + 4 * p
        s0, s1 = fma(broadcast_f32(at), value, s0), fma(broadcast_f32(at + 4 * _BLOCK), value, s1)
        s2, s3 = fma(broadcast_f32(at + 8 * _BLOCK), value, s2), fma(broadcast_f32(at + 12 * _BLOCK), value, s3)
    store_f32x16(out, s0)
    store_f32x16(out + 64, s1)
    store_f32x16(out + 128, s2)
    store_f32x16(out + 192, s3)


@inline
def _softmax(scores, count, padded, before):
    """scores [count] -> exp(score - largest) in place, zero up to `padded`; gives the largest with `before`, and the sum."""
    for p in range(count, padded):
        store_f32(scores + 4 * p, _LOWEST)
    top = splat(before)
    for p in range(0, padded, 16):
        top = maximum(top, load_f32x16(scores + 4 * p))
    largest = max_lanes(top)
    total = zero_f32x16()
    for p in range(0, padded, 16):
        e = exp(sub(load_f32x16(scores + 4 * p), splat(largest)))
        store_f32x16(scores + 4 * p, e)
        total = add(total, e)
    for p in range(count, padded):
        store_f32(scores + 4 * p, np.float32(0))
    return largest, sum_lanes(total)


@inline
def _exp1(x):
    return np.float32(math.exp(x))


@kernel
def attend_blocks(
    rank, size, q, k_cache, v_cache, context, row, quantized, group, keys, width, partial, run, scratch, scratch_stride
):
    """One token: each (key-value head, block of positions) gives its query heads' largest score, sum, and sum of values.

    Queries go in fours, so that a key is converted to float32 once for four; what is left over of a group fills up with
    copies, whose results nobody reads.
    """
    length = load_i64(run + 8) + 1
    blocks = (length + _BLOCK - 1) // _BLOCK
    most = (context + _BLOCK - 1) // _BLOCK
    entry = 4 * (width + 16)
    scores = scratch + rank * scratch_stride
    sums = scores + 4 * _BLOCK * (group + 3)
    scale = np.float32(1) / np.float32(math.sqrt(np.float32(width)))
    for item in range(first_of(rank, size, keys * blocks), first_of(rank + 1, size, keys * blocks)):
        head, block = item // blocks, item % blocks
        first = block * _BLOCK
        count = min(_BLOCK, length - first)
        start = row * (head * context + first)
        query, last = q + 4 * width * head * group, 4 * width * (group - 1)
        for g in range(0, group, 4):
            at = 4 * width * g
            q0, q1 = query + at, query + min(at + 4 * width, last)
            q2, q3 = query + min(at + 8 * width, last), query + min(at + 12 * width, last)
            for p in range(count):
                place = scores + 4 * (_BLOCK * g + p)
                _four_scores(q0, q1, q2, q3, k_cache + start + row * p, quantized, width, scale, place)
        for g in range(group):
            out = partial + ((head * group + g) * most + block) * entry
            largest, total = _softmax(scores + 4 * _BLOCK * g, count, _BLOCK, _LOWEST)
            store_f32(out, largest)
            store_f32(out + 4, total)
        for g in range(0, group, 4):
            for c in range(0, width, 16):
                _four_sums(scores + 4 * _BLOCK * g, v_cache + start, row, quantized, c, count, width, sums)
                for i in range(min(4, group - g)):
                    out = partial + ((head * group + g + i) * most + block) * entry
                    store_f32x16(out + 64 + 4 * c, load_f32x16(sums + 64 * i))


@kernel
def join_blocks(rank, size, partial, queries, width, context, out, run):
    """Join each query head's blocks, in order of position -> out [queries, width]."""
    blocks = (load_i64(run + 8) + _BLOCK) // _BLOCK
    most = (context + _BLOCK - 1) // _BLOCK
    entry = 4 * (width + 16)
    for head in range(first_of(rank, size, queries), first_of(rank + 1, size, queries)):
        parts = partial + head * most * entry
        largest, total = _LOWEST, np.float32(0)
        for block in range(blocks):
            largest = max(largest, load_f32(parts + block * entry))
        y = out + 4 * head * width
        for c in range(0, 4 * width, 64):
            store_f32x16(y + c, zero_f32x16())
        for block in range(blocks):
            factor = _exp1(load_f32(parts + block * entry) - largest)
            total += factor * load_f32(parts + block * entry + 4)
            for c in range(0, 4 * width, 64):
                store_f32x16(y + c, fma(splat(factor), load_f32x16(parts + block * entry + 64 + c), load_f32x16(y + c)))
        for c in range(0, 4 * width, 64):
            store_f32x16(y + c, mul(load_f32x16(y + c), splat(np.float32(1) / total)))


@inline
def _load_block(cache, row, quantized, count, width, rows):
    """`count` rows of a cache -> float32 [_BLOCK, width], zero beyond."""
    for p in range(_BLOCK):
        for c in range(0, width, 16):
            value = load_row(cache + row * p, c, width, quantized) if p < count else zero_f32x16()
            store_f32x16(rows + 4 * (p * width + c), value)


@inline
def _load_queries(q, q_stride, tokens, group, width, scale, rows):
    """A tile's scaled queries, float32 [tokens * group, width]."""
    for t in range(tokens):
        for c in range(0, 4 * group * width, 64):
            store_f32x16(rows + 4 * t * group * width + c, mul(load_f32x16(q + t * q_stride + c), splat(scale)))


@inline
def _meet_block(scores, rows, group, width, reach, count, tops, sums, out):
    """Running softmax of `rows` score rows of _BLOCK; token t of the tile sees `reach + t` positions of this block."""
    for r in range(rows):
        seen = max(0, min(count, reach + r // group))
        before = load_f32(tops + 4 * r)
        largest, total = _softmax(scores + 4 * _BLOCK * r, seen, _BLOCK, before)
        factor = _exp1(before - largest)
        store_f32(tops + 4 * r, largest)
        store_f32(sums + 4 * r, load_f32(sums + 4 * r) * factor + total)
        for c in range(0, 4 * width, 64):
            y = out + 4 * width * r + c
            store_f32x16(y, mul(load_f32x16(y), splat(factor)))


@inline
def _tile_of(i, tiles):
    """Tiles from both ends in turn: later ones see more positions, so that neighbours weigh the same together."""
    return i // 2 if i % 2 == 0 else tiles - 1 - i // 2


@kernel
def attend_tiles(
    rank,
    size,
    q,
    q_stride,
    k_cache,
    v_cache,
    context,
    row,
    quantized,
    group,
    keys,
    width,
    out,
    product,
    run,
    scratch,
    scratch_stride,
):
    """Many tokens: each (key-value head, tile of tokens) as matrix products with blocks of keys and values."""
    tokens, position = load_i64(run), load_i64(run + 8)
    tiles = (tokens + _TILE - 1) // _TILE
    scale = np.float32(1) / np.float32(math.sqrt(np.float32(width)))
    most = _TILE * group
    query = scratch + rank * scratch_stride
    result = query + 4 * most * width
    block = result + 4 * most * width
    turned = block + 4 * _BLOCK * width
    scores = turned + 4 * _BLOCK * width
    tops = scores + 4 * most * _BLOCK
    sums = tops + 4 * most
    for item in range(first_of(rank, size, keys * tiles), first_of(rank + 1, size, keys * tiles)):
        head, first = item // tiles, _tile_of(item % tiles, tiles) * _TILE
        count = min(_TILE, tokens - first)
        rows = count * group
        offset = 4 * head * group * width
        _load_queries(q + first * q_stride + offset, q_stride, count, group, width, scale, query)
        for r in range(rows):
            store_f32(tops + 4 * r, _LOWEST)
            store_f32(sums + 4 * r, np.float32(0))
        for c in range(0, 4 * rows * width, 64):
            store_f32x16(result + c, zero_f32x16())
        length = position + first + count
        for p in range(0, length, _BLOCK):
            seen = min(_BLOCK, length - p)
            start = row * (head * context + p)
            _load_block(k_cache + start, row, quantized, seen, width, block)
            for i in range(0, _BLOCK, 16):
                for c in range(0, width, 16):
                    transpose16(block + 4 * (i * width + c), 4 * width, turned + 4 * (c * _BLOCK + i), 4 * _BLOCK)
            sgemm(product, query, 4 * width, turned, 4 * _BLOCK, scores, 4 * _BLOCK, rows, _BLOCK, width, False)
            _meet_block(scores, rows, group, width, position + first + 1 - p, seen, tops, sums, result)
            _load_block(v_cache + start, row, quantized, seen, width, block)
            sgemm(product, scores, 4 * _BLOCK, block, 4 * width, result, 4 * width, rows, width, _BLOCK, True)
        for r in range(rows):
            y = out + (first + r // group) * q_stride + offset + 4 * (r % group) * width
            inverse = splat(np.float32(1) / load_f32(sums + 4 * r))
            for c in range(0, 4 * width, 64):
                store_f32x16(y + c, mul(load_f32x16(result + 4 * width * r + c), inverse))


@inline
def _gated(x, gate, column, width):
    head = column // width
    g = load_f32x16(gate + 4 * (head * 2 * width + width + column % width))
    return mul(load_f32x16(x + 4 * column), sigmoid(g))


@kernel
def gate_heads(rank, size, x, stride, q_gate, q_gate_stride, columns, width, y, q, rest, q_stride, run):
    """x [tokens, heads, width] times sigmoid of the gates -> y, q and rest; threads share (token, 32 columns)."""
    tokens, blocks = load_i64(run), columns // 32
    for item in range(first_of(rank, size, tokens * blocks), first_of(rank + 1, size, tokens * blocks)):
        t, block = item // blocks, item % blocks
        row, gate = x + t * stride, q_gate + t * q_gate_stride
        a, b = _gated(row, gate, 32 * block, width), _gated(row, gate, 32 * block + 16, width)
        at = t * q_stride
        store_block(a, b, columns, block, y + t * stride if y else 0, q + at if q else 0, rest + at if rest else 0)


def gated_attention(
    plan: Plan, q_gate: Activation, k: Activation, v: Activation, norms: tuple[NDArray[np.float32], NDArray[np.float32]],
    eps: float, turns: NDArray[np.float32], heads: Heads, out: Activation,
) -> None:  # fmt: skip
    """q_gate [tokens, heads, (q, gate), width], k and v [tokens, key heads, width] -> out [tokens, heads * width]."""
    columns, context = heads.queries * heads.width, heads.k_cache.shape[1]
    if q_gate.columns != 2 * columns or k.columns != heads.keys * heads.width or out.columns != columns or columns % 32:
        raise ValueError(
            f"{heads.queries} heads of {heads.width}: {q_gate.columns}, {k.columns}, {out.columns} columns"
        )
    q, met = plan.rows("query", columns), plan.rows("attended", columns)
    rows, raw, stride = q.read("f32"), q_gate.read("f32"), q.stride("f32")
    pairs, caches = turns.shape[2], heads.cache_operands
    plan.add(
        norm_rope_store, raw, q_gate.stride("f32"), k.read("f32"), v.read("f32"), k.stride("f32"), *norms, eps, turns, pairs,
        heads.queries, heads.keys, heads.width, rows, stride, *caches, plan.run, *plan.scratch(4 * heads.width),
    )  # fmt: skip
    shape = heads.group, heads.keys, heads.width
    if plan.tokens == 1:
        partial = plan.buffer("partial", (heads.queries * -(-context // _BLOCK), heads.width + 16), np.float32)
        scratch = plan.scratch(4 * _BLOCK * (heads.group + 3) + 256)
        plan.add(attend_blocks, rows, *caches, *shape, partial, plan.run, *scratch)
        plan.add(join_blocks, partial, heads.queries, heads.width, context, met.read("f32"), plan.run)
    else:
        most = _TILE * heads.group
        scratch = plan.scratch(4 * (2 * most * heads.width + 2 * _BLOCK * heads.width + most * _BLOCK + 2 * most))
        plan.add(attend_tiles, rows, stride, *caches, *shape, met.read("f32"), sgemm_kernel, plan.run, *scratch)
    plan.add(
        gate_heads, met.read("f32"), stride, raw, q_gate.stride("f32"), columns, heads.width, out.written("f32"),
        out.written("q8"), out.written("rest"), out.stride("q8"), plan.run,
    )  # fmt: skip
