"""Q6_K: 256 columns in 210 bytes, sixteen sub-blocks of 16; the two halves of 128 columns are alike.

  0  uint4 low[256]    half n, byte i < 64: column 128n + i (low nibble) and 128n + 64 + i (high nibble)
128  uint2 high[256]   half n, byte i < 32: columns 128n + i, + 32, + 64, + 96, lowest bits first
192  int8 scale[16]
208  float16 d         value = d * scale * ((low | high << 4) - 32)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.block import Block, Scale, rows_of
from quant.blocks.blocks256 import dot_each_by_16, parts_in_order
from quant.blocks.group_sums import sums_by_group, sums_of_products
from quant.blocks.step_rows import BY_ROWS, LANES, Step, step_rows_by_16
from quant.blocks.words import fields
from quant.formats import Format, dot_rows, step_rows, unpack_rows, unpack_tile
from quant.jit import inline
from quant.simd import (  # fmt: skip
    bit_and,
    bit_or,
    concat,
    load_f16,
    load_i8x16,
    load_i8x16_as_f32,
    load_i8x32,
    load_i8x64,
    mul,
    permute,
    shift_left,
    shift_right,
    shift_right_signed,
    splat,
    store_f32x16,
    store_i8x64,
    to_f32,
)
from quant.tile import gather_f16, turn4, turn4_words

BLOCK = Block("Q6_K", number=14, columns=256, ql=128, qh=64, scales=16, d=Scale("f16", 1 / 64 / 32))

_sums = sums_by_group([range(first, first + 4) for first in (0, 4, 8, 12)], bits=6)
_OFFSET = np.float32(32)
_LANES = permute(LANES)
_low = fields(lambda j, i, k: 16 * (j // 2) + 4 * i + k, lambda j, i, k: 4 * (j % 2), target=0, bits=4)
_high = fields(
    lambda j, i, k: 8 * (j // 2) + 4 * (i % 2) + k, lambda j, i, k: 4 * (j % 2) + 2 * (i // 2), target=4, bits=2
)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    ql, qh, scales, d = BLOCK.split(data)
    low = ql.reshape(*ql.shape[:2], 2, 64)
    high = qh.reshape(*qh.shape[:2], 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    q = np.concatenate([low & 15, low >> 4], axis=-1) | high.reshape(*low.shape[:3], 128) << 4
    signed = (q.astype(np.int8) - np.int8(32)).reshape(*scales.shape, 16)
    return rows_of((d * scales.view(np.int8))[..., None] * signed)


@inline
def load_half(w, half):
    """Columns 128*half + 0..63 and + 64..127, in [0, 63], each i8x64."""
    low, h = load_i8x64(w + BLOCK.ql + 64 * half), load_i8x32(w + BLOCK.qh + 32 * half)
    first = concat(bit_and(shift_left(h, 4), 48), bit_and(shift_left(h, 2), 48))
    second = concat(bit_and(h, 48), bit_and(shift_right(h, 2), 48))
    return bit_or(bit_and(low, 15), first), bit_or(shift_right(low, 4), second)


@inline
def _load_scales(w):
    """d * scale of a block's sixteen sub-blocks, and 32 times that, each f32x16."""
    scales = mul(load_i8x16_as_f32(w + BLOCK.scales), splat(load_f16(w + BLOCK.d)))
    return scales, mul(scales, splat(_OFFSET))


@inline
def _sums_of(w, x):
    q0, q1 = load_half(w, 0)
    q2, q3 = load_half(w, 1)
    return sums_of_products(_sums, (q0, q1, q2, q3), x)


@dot_rows
def q6_k_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    dot_each_by_16(w, rows, columns, x, y, alpha, accumulate, BLOCK, parts_in_order, _sums_of, _load_scales)


@inline
def _words(w):
    """A block in the order of quant.blocks.step_rows."""
    high = load_i8x64(w + BLOCK.qh)
    a0, a1, a2, a3 = _low(load_i8x64(w + BLOCK.ql), load_i8x64(w + BLOCK.ql + 64))
    b0, b1, b2, b3 = _high(high, high)
    return bit_or(a0, b0), bit_or(a1, b1), bit_or(a2, b2), bit_or(a3, b3)


@inline
def _word_scales(w):
    return mul(to_f32(_LANES(load_i8x16(w + BLOCK.scales))), splat(load_f16(w + BLOCK.d)))


@step_rows
def q6_k_step_rows(w, rows, columns, entries, count, added, accumulate, scratch):
    """See quant.formats."""
    step = Step(entries, count, added, accumulate)
    step_rows_by_16(_words, _word_scales, _OFFSET, BLOCK, w, rows, columns, step, scratch)


@unpack_rows
def q6_k_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for b in range(rows * columns // 256):
        scales, minima = _load_scales(w)
        store_f32x16(scale + 64 * b, scales)
        store_f32x16(minimum + 64 * b, minima)
        for half in range(2):
            first, second = load_half(w, half)
            store_i8x64(q + 256 * b + 128 * half, first)
            store_i8x64(q + 256 * b + 128 * half + 64, second)
        w += BLOCK.bytes


@inline
def _four_scales(d, packed, scales, minima):
    """Four sub-blocks, whose signed scales are the bytes of a word."""
    for byte in range(4):
        scale = mul(d, to_f32(shift_right_signed(shift_left(packed, 24), 24)))
        store_f32x16(scales + 64 * byte, scale)
        store_f32x16(minima + 64 * byte, mul(scale, splat(_OFFSET)))
        packed = shift_right(packed, 8)


@inline
def _tile_scales(w, row_bytes, scales, minima):
    """d * scale and 32 d * scale of one block of 16 rows, float32 [16 sub-blocks, 16 rows] each."""
    d = gather_f16(w + BLOCK.d, row_bytes)
    u0, u1, u2, u3 = turn4_words(w + BLOCK.scales, row_bytes)
    _four_scales(d, u0, scales, minima)
    _four_scales(d, u1, scales + 256, minima + 256)
    _four_scales(d, u2, scales + 512, minima + 512)
    _four_scales(d, u3, scales + 768, minima + 768)


@inline
def _store_step(first, second, bits, place):
    """A step of both halves of 64 bytes of nibbles, with the high bits of the four columns that they make."""
    store_i8x64(place, bit_or(bit_and(first, 15), bit_and(shift_left(bits, 4), 48)))
    store_i8x64(place + 512, bit_or(bit_and(second, 15), bit_and(shift_left(bits, 2), 48)))
    store_i8x64(place + 1024, bit_or(shift_right(first, 4), bit_and(bits, 48)))
    store_i8x64(place + 1536, bit_or(shift_right(second, 4), bit_and(shift_right(bits, 2), 48)))


@unpack_tile
def q6_k_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats; four columns that share their bytes of high bits are turned together."""
    for b in range(columns // 256):
        _tile_scales(w, row_bytes, scales + 1024 * b, minima + 1024 * b)
        for part in range(4):
            half, quarter = part // 2, part % 2
            place = tile + 4096 * b + 2048 * half + 256 * quarter
            h0, h1, h2, h3 = turn4(w + BLOCK.qh + 16 * part, row_bytes)
            a0, a1, a2, a3 = turn4(w + BLOCK.ql + 64 * half + 16 * quarter, row_bytes)
            b0, b1, b2, b3 = turn4(w + BLOCK.ql + 64 * half + 32 + 16 * quarter, row_bytes)
            _store_step(a0, b0, h0, place)
            _store_step(a1, b1, h1, place + 64)
            _store_step(a2, b2, h2, place + 128)
            _store_step(a3, b3, h3, place + 192)
        w += BLOCK.bytes


FORMAT = Format(
    block=BLOCK,
    activation="q8",
    group=16,
    dequantize=dequantize,
    dot_rows=q6_k_dot_rows,
    by_tiles=True,
    unpack_rows=q6_k_unpack_rows,
    unpack_tile=q6_k_unpack_tile,
    bits=6,
    step_rows=q6_k_step_rows if BY_ROWS else None,
)
