"""Q4_0: 32 columns in 18 bytes.

0  float16 d
2  uint4 q[32]       byte i holds column i (low) and column i + 16 (high);  value = d * (q - 8)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.activation import scales_of, sums32_of
from quant.formats import Format, blocks_of, dot_rows, emit, halves, rows_of, unpack_rows, unpack_tile
from quant.int8_dot import dot_u7
from quant.jit import inline
from quant.simd import (
    add,
    bit_and,
    concat,
    fma,
    load_f16,
    load_f32,
    load_i8x16,
    load_i8x32,
    load_i8x64,
    mul,
    prefetch,
    shift_right,
    splat,
    splat8,
    store_f32,
    store_f32x16,
    store_i8x32,
    sum_lanes,
    to_f32,
    zero_f32x8,
    zero_f32x16,
    zero_i32x8,
    zero_i32x16,
)
from quant.tile import gather_f16, store_nibbles, turn4

_EIGHT = np.float32(8)
_AHEAD = 2304  # bytes: prefetch distance, 128 blocks, two rows of 2048 columns


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    blocks = blocks_of(data, 18)
    nibbles = np.concatenate([blocks[..., 2:] & 15, blocks[..., 2:] >> 4], axis=-1).astype(np.int8)
    return rows_of(halves(blocks[..., :2]) * (nibbles - np.int8(8)))


@inline
def nibbles32(address):
    """16 bytes -> i8x32: low nibbles, then high nibbles."""
    packed = load_i8x16(address)
    return concat(bit_and(packed, 15), shift_right(packed, 4))


@inline
def _pair(w, x, d_x):
    """64 columns: the products, and d of both blocks for their lanes."""
    first, second = load_f16(w), load_f16(w + 18)
    scales = concat(splat8(first * load_f32(d_x)), splat8(second * load_f32(d_x + 4)))
    weights = concat(nibbles32(w + 2), nibbles32(w + 20))
    return to_f32(dot_u7(zero_i32x16(), weights, load_i8x64(x))), scales, first, second


@dot_rows
def q4_0_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats; four blocks at a time, each with a sum of its own, so that none waits for another."""
    d_x, s_x = scales_of(x, columns), sums32_of(x, columns)
    whole = columns // 128 * 4
    for r in range(rows):
        even, odd = zero_f32x16(), zero_f32x16()
        o0, o1, o2, o3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for b in range(0, whole, 4):
            prefetch(w + _AHEAD)
            at = 4 * b
            products, scales, d0, d1 = _pair(w, x + 32 * b, d_x + at)
            even = fma(products, scales, even)
            products, scales, d2, d3 = _pair(w + 36, x + 32 * b + 64, d_x + at + 8)
            odd = fma(products, scales, odd)
            o0, o1 = o0 + d0 * load_f32(s_x + at), o1 + d1 * load_f32(s_x + at + 4)
            o2, o3 = o2 + d2 * load_f32(s_x + at + 8), o3 + d3 * load_f32(s_x + at + 12)
            w += 72
        last = zero_f32x8()
        for b in range(whole, columns // 32):
            d = load_f16(w)
            products = dot_u7(zero_i32x8(), nibbles32(w + 2), load_i8x32(x + 32 * b))
            last = fma(to_f32(products), splat8(d * load_f32(d_x + 4 * b)), last)
            o0 += d * load_f32(s_x + 4 * b)
            w += 18
        total = sum_lanes(add(even, odd)) + sum_lanes(last)
        emit(y + 4 * r, total - _EIGHT * ((o0 + o1) + (o2 + o3)), alpha, accumulate)


@unpack_rows
def q4_0_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for b in range(rows * columns // 32):
        d = load_f16(w)
        store_i8x32(q + 32 * b, nibbles32(w + 2))
        store_f32(scale + 4 * b, d)
        store_f32(minimum + 4 * b, _EIGHT * d)
        w += 18


@unpack_tile
def q4_0_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    for b in range(columns // 32):
        d = gather_f16(w, row_bytes)
        store_f32x16(scales + 64 * b, d)
        store_f32x16(minima + 64 * b, mul(d, splat(_EIGHT)))
        place = tile + 512 * b
        s0, s1, s2, s3 = turn4(w + 2, row_bytes)
        store_nibbles(s0, place, place + 256)
        store_nibbles(s1, place + 64, place + 320)
        store_nibbles(s2, place + 128, place + 384)
        store_nibbles(s3, place + 192, place + 448)
        w += 18


FORMAT = Format("Q4_0", 32, 18, "q8", 32, dequantize, q4_0_dot_rows, q4_0_unpack_rows, q4_0_unpack_tile)
