"""Q5_K: 256 columns in 176 bytes, eight sub-blocks of 32.

 0  float16 d, float16 dmin, 6-bit scales and minima as in Q4_K
16  uint8 h[32]       bit j of h[i] is bit 4 of column i of sub-block j
48  uint4 q[256]      as in Q4_K
    value = d * scale * (q | h << 4) - dmin * minimum
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.activation import scales_of, sums32_of
from quant.formats import Format, blocks_of, dot_rows, emit, unpack_rows, unpack_tile
from quant.formats.q4_k import (
    LANES_0_2,
    LANES_1_3,
    LANES_4_6,
    LANES_5_7,
    affine,
    load_scales,
    nibbles,
    tile_scales,
    two_parts,
)
from quant.int8_dot import dot_u7
from quant.jit import inline
from quant.simd import (
    bit_and,
    bit_or,
    concat,
    fma,
    load_f32x8,
    load_i8x32,
    load_i8x64,
    mul,
    prefetch,
    shift_left,
    shift_right,
    store_f32x8,
    store_i8x32,
    store_i8x64,
    sum_lanes,
    to_f32,
    zero_f32x8,
    zero_f32x16,
    zero_i32x16,
)
from quant.tile import turn4

_AHEAD = 2816  # bytes: prefetch distance, 16 blocks


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    blocks = blocks_of(data, 176)
    bits = blocks[..., None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    return affine(blocks, nibbles(blocks[..., 48:]) | (bits << 4).astype(np.uint8))


@inline
def high_bits(w):
    """Bit 4 of each column, in place: four i8x64 for sub-blocks (0, 2), (1, 3), (4, 6) and (5, 7)."""
    h = load_i8x32(w + 16)
    b0, b1 = bit_and(shift_left(h, 4), 16), bit_and(shift_left(h, 3), 16)
    b2, b3 = bit_and(shift_left(h, 2), 16), bit_and(shift_left(h, 1), 16)
    b4, b5 = bit_and(h, 16), bit_and(shift_right(h, 1), 16)
    b6, b7 = bit_and(shift_right(h, 2), 16), bit_and(shift_right(h, 3), 16)
    return concat(b0, b2), concat(b1, b3), concat(b4, b6), concat(b5, b7)


@inline
def _block(w, x, d_x, s_x, total, low):
    prefetch(w + _AHEAD)
    prefetch(w + _AHEAD + 64)
    prefetch(w + _AHEAD + 128)
    scales, minima = load_scales(w)
    scales = mul(scales, load_f32x8(d_x))
    h0, h1, h2, h3 = high_bits(w)
    first, second = load_i8x64(w + 48), load_i8x64(w + 112)
    zero = zero_i32x16()
    total = fma(to_f32(dot_u7(zero, bit_or(bit_and(first, 15), h0), two_parts(x))), LANES_0_2(scales), total)
    total = fma(to_f32(dot_u7(zero, bit_or(shift_right(first, 4), h1), two_parts(x + 32))), LANES_1_3(scales), total)
    total = fma(to_f32(dot_u7(zero, bit_or(bit_and(second, 15), h2), two_parts(x + 128))), LANES_4_6(scales), total)
    total = fma(to_f32(dot_u7(zero, bit_or(shift_right(second, 4), h3), two_parts(x + 160))), LANES_5_7(scales), total)
    return total, fma(minima, load_f32x8(s_x), low)


@dot_rows
def q5_k_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    d_x, s_x = scales_of(x, columns), sums32_of(x, columns)
    for r in range(rows):
        total, low = zero_f32x16(), zero_f32x8()
        for b in range(columns // 256):
            total, low = _block(w, x + 256 * b, d_x + 32 * b, s_x + 32 * b, total, low)
            w += 176
        emit(y + 4 * r, sum_lanes(total) - sum_lanes(low), alpha, accumulate)


@inline
def _unpack_pair(packed, h, pair, q):
    """32 bytes of nibbles, with the pair's two high bits lowest in h -> 64 columns."""
    store_i8x32(q + 64 * pair, bit_or(bit_and(packed, 15), bit_and(shift_left(h, 4), 16)))
    store_i8x32(q + 64 * pair + 32, bit_or(shift_right(packed, 4), bit_and(shift_left(h, 3), 16)))


@unpack_rows
def q5_k_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for b in range(rows * columns // 256):
        scales, minima = load_scales(w)
        store_f32x8(scale + 32 * b, scales)
        store_f32x8(minimum + 32 * b, minima)
        h = load_i8x32(w + 16)
        for pair in range(4):
            _unpack_pair(load_i8x32(w + 48 + 32 * pair), h, pair, q + 256 * b)
            h = shift_right(h, 2)
        w += 176


@inline
def _store_step(packed, bits, place):
    """A step of nibbles with their high bits, lowest in `bits`; gives the bits of the next pair of sub-blocks."""
    store_i8x64(place, bit_or(bit_and(packed, 15), bit_and(shift_left(bits, 4), 16)))
    store_i8x64(place + 512, bit_or(shift_right(packed, 4), bit_and(shift_left(bits, 3), 16)))
    return shift_right(bits, 2)


@unpack_tile
def q5_k_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats; as in Q4_K, with the high bits of all sub-blocks turned once."""
    for b in range(columns // 256):
        tile_scales(w, row_bytes, scales + 512 * b, minima + 512 * b)
        for part in range(2):
            h0, h1, h2, h3 = turn4(w + 16 + 16 * part, row_bytes)
            for pair in range(4):
                place = tile + 4096 * b + 1024 * pair + 256 * part
                s0, s1, s2, s3 = turn4(w + 48 + 32 * pair + 16 * part, row_bytes)
                h0, h1 = _store_step(s0, h0, place), _store_step(s1, h1, place + 64)
                h2, h3 = _store_step(s2, h2, place + 128), _store_step(s3, h3, place + 192)
        w += 176


FORMAT = Format("Q5_K", 256, 176, "q8", 32, dequantize, q5_k_dot_rows, q5_k_unpack_rows, q5_k_unpack_tile)
