"""Q3_K: 256 columns in 110 bytes, sixteen sub-blocks of 16; the two halves of 128 columns are alike.

  0  uint1 high[256]   byte i: columns i, i + 32, … i + 224, lowest bit first
 32  uint2 low[256]    half n, byte i < 32: columns 128n + i, + 32, + 64, + 96, lowest bits first
 96  6-bit scale[16], packed in 12 bytes u[0..11]: nibble j of u[0..7], low nibbles first, is bits 0 to 3 of scale[j],
     two bits of u[8 + j % 4], from bit j // 4 * 2 on, are bits 4 and 5
108  float16 d         value = d * (scale - 32) * ((low | high << 2) - 4)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.block import Block, Scale, rows_of
from quant.blocks.bit_planes import third_bits
from quant.blocks.blocks256 import dot_each_by_16
from quant.blocks.group_sums import sums_by_group, sums_of_products
from quant.blocks.sixteens import six_bits, to_words
from quant.blocks.step_rows import BY_ROWS, LANES, Step, step_rows_by_16
from quant.blocks.words import fields
from quant.formats import Format, dot_rows, step_rows, unpack_rows, unpack_tile
from quant.formats.q2_k import SUB_BLOCKS, four_parts, quarters, quarters_of
from quant.jit import inline
from quant.simd import (  # fmt: skip
    bit_and,
    bit_or,
    concat,
    high_f16,
    load_f16,
    load_i8x32,
    load_i8x64,
    load_i64,
    load_u32,
    mul,
    permute,
    shift_left,
    shift_right,
    splat,
    store_f32x16,
    store_i8x32,
    store_i8x64,
    sub,
    to_f32,
)
from quant.tile import turn4, turn4_words

BLOCK = Block("Q3_K", number=11, columns=256, hmask=32, qs=64, scales=12, d=Scale("f16", 1 / 64))

_sums = sums_by_group(SUB_BLOCKS, bits=3)
_OFFSET, _SCALE_OFFSET = np.float32(4), np.float32(32)
_LANES = permute(LANES)
_low = fields(
    lambda j, i, k: 8 * (j // 2) + 4 * (i % 2) + k, lambda j, i, k: 4 * (j % 2) + 2 * (i // 2), target=0, bits=2
)
_high = fields(lambda j, i, k: 4 * (i % 2) + k, lambda j, i, k: 2 * j + i // 2, target=2, bits=1)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    hmask, qs, scales, d = BLOCK.split(data)
    high = hmask[..., None, :] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    q = quarters_of(qs) | high.reshape(*qs.shape[:2], 256) << 2
    signed = (q.astype(np.int8) - np.int8(4)).reshape(*qs.shape[:2], 16, 16)
    return rows_of((d * unpack_scales(scales))[..., None] * signed)


def unpack_scales(packed: NDArray[np.uint8]) -> NDArray[np.int8]:
    """uint8 [..., 12] -> scales [..., 16] in [-32, 31]."""
    low = np.concatenate([packed[..., :8] & 15, packed[..., :8] >> 4], axis=-1)
    high = np.concatenate([packed[..., 8:] >> shift & 3 for shift in (0, 2, 4, 6)], axis=-1)
    return (low | high << 4).astype(np.int8) - np.int8(32)


@inline
def _load_scales(w):
    """d * (scale - 32) of a block's sixteen sub-blocks, and 4 times that, each f32x16."""
    packed = six_bits(load_i64(w + BLOCK.scales), load_u32(w + BLOCK.scales + 8))
    scales = mul(sub(to_f32(to_words(packed)), splat(_SCALE_OFFSET)), splat(load_f16(w + BLOCK.d)))
    return scales, mul(scales, splat(_OFFSET))


@inline
def _sums_of(w, x):
    q0, q1, q2, q3 = quarters(load_i8x64(w + BLOCK.qs))
    h0, h1, h2, h3 = third_bits(load_i8x32(w + BLOCK.hmask))
    q0, q1, q2, q3 = bit_or(q0, h0), bit_or(q1, h1), bit_or(q2, h2), bit_or(q3, h3)
    return sums_of_products(_sums, (q0, q1, q2, q3), x)


@dot_rows
def q3_k_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    dot_each_by_16(w, rows, columns, x, y, alpha, accumulate, BLOCK, four_parts, _sums_of, _load_scales)


@inline
def _words(w):
    """A block in the order of quant.blocks.step_rows."""
    low, half = load_i8x64(w + BLOCK.qs), load_i8x32(w + BLOCK.hmask)
    high = concat(half, half)
    a0, a1, a2, a3 = _low(low, low)
    b0, b1, b2, b3 = _high(high, high)
    return bit_or(a0, b0), bit_or(a1, b1), bit_or(a2, b2), bit_or(a3, b3)


@inline
def _word_scales(w):
    packed = _LANES(six_bits(load_i64(w + BLOCK.scales), load_u32(w + BLOCK.scales + 8)))
    return mul(sub(to_f32(to_words(packed)), splat(_SCALE_OFFSET)), splat(load_f16(w + BLOCK.d)))


@step_rows
def q3_k_step_rows(w, rows, columns, entries, count, added, accumulate, scratch):
    """See quant.formats."""
    step = Step(entries, count, added, accumulate)
    step_rows_by_16(_words, _word_scales, _OFFSET, BLOCK, w, rows, columns, step, scratch)


@unpack_rows
def q3_k_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for b in range(rows * columns // 256):
        scales, minima = _load_scales(w)
        store_f32x16(scale + 64 * b, scales)
        store_f32x16(minimum + 64 * b, minima)
        high = load_i8x32(w + BLOCK.hmask)
        for half in range(2):
            packed = load_i8x32(w + BLOCK.qs + 32 * half)
            for part in range(4):
                bits = bit_or(bit_and(packed, 3), bit_and(shift_left(high, 2), 4))
                store_i8x32(q + 256 * b + 128 * half + 32 * part, bits)
                packed, high = shift_right(packed, 2), shift_right(high, 1)
        w += BLOCK.bytes


@inline
def _store_scale(low, high, d, place, scales, minima):
    """d * scale of 16 rows, from its lower and its upper bits, and 4 times that."""
    scale = mul(d, sub(to_f32(bit_or(bit_and(low, 15), shift_left(bit_and(high, 3), 4))), splat(_SCALE_OFFSET)))
    store_f32x16(scales + 64 * place, scale)
    store_f32x16(minima + 64 * place, mul(scale, splat(_OFFSET)))


@inline
def _joined(a, b):
    """The upper halves of words a, then the lower halves of words b."""
    return bit_or(shift_right(a, 16), shift_left(b, 16))


@inline
def _tile_scales(w, row_bytes, scales, minima):
    """The scales of one block of 16 rows, float32 [16 sub-blocks, 16 rows], and 4 times that."""
    a, b, c, last = turn4_words(w + BLOCK.scales - 2, row_bytes)  # two bytes early, so as not to read beyond the block
    d = high_f16(last)
    u0, u1, u2 = _joined(a, b), _joined(b, c), _joined(c, last)
    for j in range(4):
        _store_scale(u0, u2, d, j, scales, minima)
        _store_scale(u1, shift_right(u2, 2), d, j + 4, scales, minima)
        _store_scale(shift_right(u0, 4), shift_right(u2, 4), d, j + 8, scales, minima)
        _store_scale(shift_right(u1, 4), shift_right(u2, 6), d, j + 12, scales, minima)
        u0, u1, u2 = shift_right(u0, 8), shift_right(u1, 8), shift_right(u2, 8)


@inline
def _store_step(packed, high, place):
    """A step of the four columns that share a byte, and the high bits of the other half lowest."""
    q0, q1, q2, q3 = quarters(packed)
    store_i8x64(place, bit_or(q0, bit_and(shift_left(high, 2), 4)))
    store_i8x64(place + 512, bit_or(q1, bit_and(shift_left(high, 1), 4)))
    store_i8x64(place + 1024, bit_or(q2, bit_and(high, 4)))
    store_i8x64(place + 1536, bit_or(q3, bit_and(shift_right(high, 1), 4)))
    return shift_right(high, 4)


@unpack_tile
def q3_k_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats; as in Q2_K, with the high bits of both halves turned once."""
    for b in range(columns // 256):
        _tile_scales(w, row_bytes, scales + 1024 * b, minima + 1024 * b)
        for quarter in range(2):
            h0, h1, h2, h3 = turn4(w + BLOCK.hmask + 16 * quarter, row_bytes)
            for half in range(2):
                place = tile + 4096 * b + 2048 * half + 256 * quarter
                s0, s1, s2, s3 = turn4(w + BLOCK.qs + 32 * half + 16 * quarter, row_bytes)
                h0, h1 = _store_step(s0, h0, place), _store_step(s1, h1, place + 64)
                h2, h3 = _store_step(s2, h2, place + 128), _store_step(s3, h3, place + 192)
        w += BLOCK.bytes


FORMAT = Format(
    block=BLOCK,
    activation="q8",
    group=16,
    dequantize=dequantize,
    dot_rows=q3_k_dot_rows,
    by_tiles=True,
    unpack_rows=q3_k_unpack_rows,
    unpack_tile=q3_k_unpack_tile,
    bits=4,
    step_rows=q3_k_step_rows if BY_ROWS else None,
)
