"""Q8_0: 32 columns in 34 bytes.

0  float16 d
2  int8 q[32]        value = d * q
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.activation import scales_of, sums32_of
from quant.formats import Format, blocks_of, dot_rows, emit, halves, rows_of, unpack_rows, unpack_tile
from quant.int8_dot import BIAS, dot_wide
from quant.jit import inline
from quant.simd import (
    add,
    bit_xor,
    concat,
    fma,
    load_f16,
    load_f32,
    load_i8x32,
    load_i8x64,
    mul,
    prefetch,
    splat,
    splat8,
    store_f32,
    store_f32x16,
    store_i8x32,
    store_i8x64,
    sum_lanes,
    to_f32,
    zero_f32x8,
    zero_f32x16,
    zero_i32x8,
    zero_i32x16,
)
from quant.tile import gather_f16, turn4

_BIAS = np.float32(BIAS)
_AHEAD = 2176  # bytes: prefetch distance, 64 blocks, a row of 2048 columns


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    blocks = blocks_of(data, 34)
    return rows_of(halves(blocks[..., :2]) * blocks[..., 2:].view(np.int8))


@inline
def _pair(w, x, d_x):
    """64 columns: the products, and d of both blocks for their lanes."""
    weights = bit_xor(concat(load_i8x32(w + 2), load_i8x32(w + 36)), BIAS)
    first, second = load_f16(w), load_f16(w + 34)
    scales = concat(splat8(first * load_f32(d_x)), splat8(second * load_f32(d_x + 4)))
    return to_f32(dot_wide(zero_i32x16(), weights, load_i8x64(x))), scales, first, second


@dot_rows
def q8_0_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats; four blocks at a time, each with a sum of its own, so that none waits for another."""
    d_x, s_x = scales_of(x, columns), sums32_of(x, columns)
    whole = columns // 128 * 4
    for r in range(rows):
        even, odd = zero_f32x16(), zero_f32x16()
        o0, o1, o2, o3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for b in range(0, whole, 4):
            prefetch(w + _AHEAD)
            prefetch(w + _AHEAD + 64)
            at = 4 * b
            products, scales, d0, d1 = _pair(w, x + 32 * b, d_x + at)
            even = fma(products, scales, even)
            products, scales, d2, d3 = _pair(w + 68, x + 32 * b + 64, d_x + at + 8)
            odd = fma(products, scales, odd)
            o0, o1 = o0 + d0 * load_f32(s_x + at), o1 + d1 * load_f32(s_x + at + 4)
            o2, o3 = o2 + d2 * load_f32(s_x + at + 8), o3 + d3 * load_f32(s_x + at + 12)
            w += 136
        last = zero_f32x8()
        for b in range(whole, columns // 32):
            d = load_f16(w)
            products = dot_wide(zero_i32x8(), bit_xor(load_i8x32(w + 2), BIAS), load_i8x32(x + 32 * b))
            last = fma(to_f32(products), splat8(d * load_f32(d_x + 4 * b)), last)
            o0 += d * load_f32(s_x + 4 * b)
            w += 34
        total = sum_lanes(add(even, odd)) + sum_lanes(last)
        emit(y + 4 * r, total - _BIAS * ((o0 + o1) + (o2 + o3)), alpha, accumulate)


@unpack_rows
def q8_0_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for b in range(rows * columns // 32):
        d = load_f16(w)
        store_i8x32(q + 32 * b, bit_xor(load_i8x32(w + 2), BIAS))
        store_f32(scale + 4 * b, d)
        store_f32(minimum + 4 * b, _BIAS * d)
        w += 34


@unpack_tile
def q8_0_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    for b in range(columns // 32):
        d = gather_f16(w, row_bytes)
        store_f32x16(scales + 64 * b, d)
        store_f32x16(minima + 64 * b, mul(d, splat(_BIAS)))
        for half in range(2):
            place = tile + 512 * b + 256 * half
            s0, s1, s2, s3 = turn4(w + 2 + 16 * half, row_bytes)
            store_i8x64(place, bit_xor(s0, BIAS))
            store_i8x64(place + 64, bit_xor(s1, BIAS))
            store_i8x64(place + 128, bit_xor(s2, BIAS))
            store_i8x64(place + 192, bit_xor(s3, BIAS))
        w += 34


FORMAT = Format("Q8_0", 32, 34, "q8", 32, dequantize, q8_0_dot_rows, q8_0_unpack_rows, q8_0_unpack_tile)
